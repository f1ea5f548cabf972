package main

import (
	"fmt"
	"os"
	"testing"
)

// A program stands in for a test where a server is started outside of one. The
// zero value is ready for use. It is of one goroutine.
type program struct {
	testing.TB // nil: what is not below is not called
	cleanups   []func()
	failed     bool
}

func (p *program) Helper() {}

func (p *program) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

func (p *program) Failed() bool { return p.failed }

func (p *program) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (p *program) Fatal(args ...any) { p.end(fmt.Sprint(args...)) }

func (p *program) Fatalf(format string, args ...any) { p.end(fmt.Sprintf(format, args...)) }

// Skipf is an end too: without a peer there is nothing to compare.
func (p *program) Skipf(format string, args ...any) { p.end(fmt.Sprintf(format, args...)) }

// end cleans up and ends the program as failed.
func (p *program) end(text string) {
	fmt.Fprintln(os.Stderr, "bench:", text)
	p.failed = true
	p.finish()
	os.Exit(1)
}

// finish cleans up in the order in which tests do.
func (p *program) finish() {
	for len(p.cleanups) > 0 {
		f := p.cleanups[len(p.cleanups)-1]
		p.cleanups = p.cleanups[:len(p.cleanups)-1]
		f()
	}
}
