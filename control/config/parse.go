package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Problem is something wrong with a configuration file.
type Problem struct {
	// File and Line are where; Line counts from 1 and is 0 where the fault
	// is that something is missing.
	File string
	Line int
	// Text says what is wrong, and why where that is not plain.
	Text string
	// Warning is set where the server runs all the same.
	Warning bool
}

// String returns p as "file:line: text".
func (p Problem) String() string {
	return place{p.File, p.Line}.String() + ": " + p.Text
}

type place struct {
	file string
	line int
}

func (p place) String() string {
	if p.line == 0 {
		return p.file
	}
	return p.file + ":" + strconv.Itoa(p.line)
}

// An entry is one "name: value" of a file. name is in lower case.
type entry struct {
	place
	name, value string
}

// Bounds of what is read, far above any real file.
const (
	maxFile  = 1 << 20 // octets
	maxFiles = 100
)

// reader reads a file and what it includes.
type reader struct {
	open     Opener
	entries  []entry
	problems []Problem
	files    []fs.FileInfo // read so far: none is read twice
}

func (r *reader) fault(at place, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: at.file, Line: at.line, Text: fmt.Sprintf(format, args...)})
}

// file reads the file name. The error is about the file as a whole.
func (r *reader) file(name string) error {
	f, err := r.open.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	for _, seen := range r.files {
		if os.SameFile(seen, info) {
			return fmt.Errorf("%s is included twice", name)
		}
	}
	if len(r.files) == maxFiles {
		return fmt.Errorf("%s: more than %d files", name, maxFiles)
	}
	r.files = append(r.files, info)
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("%s: larger than %d octets", name, maxFile)
	}
	r.text(name, string(data))
	return nil
}

// text reads the contents of the file name.
func (r *reader) text(name, data string) {
	line := 0
	data = strings.TrimPrefix(data, "\ufeff") // the mark that editors put before UTF-8
	for data != "" {
		at := place{name, line + 1}
		var logical string
		for {
			part, rest, _ := strings.Cut(data, "\n")
			line++
			data = rest
			// A backslash at the very end joins the next line, in
			// comments too.
			joined, more := strings.CutSuffix(part, `\`)
			logical += joined
			if !more || data == "" {
				break
			}
		}
		r.line(at, strings.Trim(logical, blanks))
	}
}

const blanks = " \t\r\v\f"

// line reads one line with its continuations joined and its ends trimmed.
func (r *reader) line(at place, s string) {
	if s == "" || s[0] == '#' {
		return
	}
	if strings.IndexByte(s, 0) >= 0 {
		r.fault(at, "NUL octet in the line")
		return
	}
	directive := s[0] == '@'
	if directive {
		s = s[1:]
	}
	n := 0
	for n < len(s) && nameOctet(s[n]) {
		n++
	}
	if n == 0 || n == len(s) || s[n] != ':' {
		r.fault(at, "no option: a line is a name of letters, digits, - and _, a colon right after it, and a value")
		return
	}
	name, value := strings.ToLower(s[:n]), strings.Trim(s[n+1:], blanks)
	switch {
	case value == "":
		r.fault(at, "empty value of %s; leave the line out for the default", name)
	case !directive:
		r.entries = append(r.entries, entry{at, name, value})
	case name != "include":
		r.fault(at, "invalid directive @%s; there is only @include", name)
	default:
		if !filepath.IsAbs(value) {
			value = filepath.Join(filepath.Dir(at.file), value)
		}
		if err := r.file(value); err != nil {
			r.fault(at, "@include: %v", err)
		}
	}
}

func nameOctet(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
