package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// An event is one line of what `go test -json` writes; see `go doc test2json`.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// gotest runs go with args, prints a line for each package and the output of
// the tests that failed, and adds to the counts. A parent counts beside its
// subtests.
func (s *suite) gotest(args []string) {
	before := s.failed
	c := exec.Command("go", args...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		s.fail("go test", err.Error())
		return
	}
	r := results{suite: s, output: map[string]*strings.Builder{}, count: map[string]int{}, bad: map[string]bool{}}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		r.take(e)
	}
	if err := c.Wait(); err != nil && s.failed == before {
		s.fail("go test", err.Error())
	}
}

// results collects the events of one run.
type results struct {
	*suite
	output map[string]*strings.Builder // by package and test
	count  map[string]int              // tests passed, by package
	bad    map[string]bool             // packages with a failed test
}

func (r *results) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if r.output[key] == nil {
			r.output[key] = new(strings.Builder)
		}
		r.output[key].WriteString(e.Output)
	case "build-output":
		fmt.Print(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.finish(e, key)
		} else {
			r.test(e, key)
		}
		delete(r.output, key)
	}
}

func (r *results) test(e event, key string) {
	switch e.Action {
	case "pass":
		r.passed++
		r.count[e.Package]++
	case "skip":
		r.skipped = append(r.skipped, e.Package+" "+e.Test+": "+reason(r.text(key)))
	case "fail":
		r.bad[e.Package] = true
		r.fail(key, r.text(key))
	}
}

// finish takes the verdict on a whole package.
func (r *results) finish(e event, key string) {
	switch {
	case e.Action == "fail" && !r.bad[e.Package]:
		r.fail(e.Package, r.unfinished(e.Package)+r.text(key)) // it did not compile, or something ended it
	case e.Action == "pass":
		fmt.Printf("ok   %-32s %5.1f s  %d passed\n", e.Package, e.Elapsed, r.count[e.Package])
	case e.Action == "fail":
		fmt.Printf("FAIL %-32s %5.1f s  %d passed\n", e.Package, e.Elapsed, r.count[e.Package])
	}
}

// unfinished returns the output of the tests that were running when their
// package ended.
func (r *results) unfinished(pkg string) string {
	var all strings.Builder
	for key, output := range r.output {
		if strings.HasPrefix(key, pkg+" ") && key != pkg+" " {
			all.WriteString(output.String())
		}
	}
	return all.String()
}

func (r *results) text(key string) string {
	if b := r.output[key]; b != nil {
		return b.String()
	}
	return ""
}

// reason finds the text given to t.Skip in a test's output.
func reason(output string) string {
	for line := range strings.Lines(output) {
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			_, text, _ = strings.Cut(text, ": ")
			return strings.TrimSpace(text)
		}
	}
	return "skipped"
}

var fuzzTarget = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

// fuzz runs every fuzz target of the project for its share of time.
func (s *suite) fuzz() {
	for _, file := range goFiles() {
		if !strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			s.fail(file, err.Error())
			continue
		}
		dir := "./" + file[:max(strings.LastIndexByte(file, '/'), 0)]
		for _, m := range fuzzTarget.FindAllSubmatch(source, -1) {
			name := string(m[1])
			// Without a limit most of the time goes into making inputs shorter.
			s.check(name, exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+name+"$", "-fuzztime", s.fuzztime.String(),
				"-fuzzminimizetime", "1s", dir))
		}
	}
}
