// Package test holds the tests that need the built binary, other programs or
// the source tree as a whole. Package test/peer starts servers for them, and
// test/transcript plays scripts of clients against any server.
package test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// top is the top directory of the project, seen from this package.
const top = ".."

// ranks orders the packages: one may import only packages of a lower rank, and
// never one of its own rank. An entry that ends in /* stands for all packages
// directly below. The control family has ranks between those of the others.
var ranks = []struct {
	pattern string
	rank    int
}{
	{"imap/wire", 0}, {"imap/body", 0}, {"control/config", 0}, {"maildir/vfs", 0},
	{"maildir/*", 10},
	{"maildir", 20},
	{"control/admin", 35}, {"control/*", 29}, {"sasl", 30}, {"control", 30},
	{"imap", 40},
	{".", 50},
	{"test/peer", 60}, {"test/*", 61}, {"test", 62},
}

// rankOf returns the rank of the package in directory dir, seen from the top.
func rankOf(dir string) (int, bool) {
	for _, r := range ranks {
		if parent, ok := strings.CutSuffix(r.pattern, "/*"); r.pattern == dir || ok && filepath.Dir(dir) == parent {
			return r.rank, true
		}
	}
	return 0, false
}

func TestRanks(t *testing.T) {
	t.Parallel()
	looked := 0
	for _, f := range sources(t) {
		if strings.HasSuffix(f.path, "_test.go") {
			continue // a test may use what it likes
		}
		looked++
		rank, ok := rankOf(f.dir)
		if !ok {
			t.Errorf("%s: package %s has no rank; see ARCHITECTURE.md and the table in test/house_test.go", f.path, f.dir)
			continue
		}
		for _, i := range f.syntax.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			below, ours := strings.CutPrefix(path, "imapd/")
			if !ours {
				continue
			}
			if other, ok := rankOf(below); !ok || other >= rank {
				t.Errorf("%s (rank %d) imports %s (rank %d)", f.path, rank, below, other)
			}
		}
	}
	if looked == 0 {
		t.Error("no file looked at")
	}
}

// mutations are the calls that change files. Below maildir only package vfs may
// make them, so that tests can make any of them fail; and package faultfs, which is
// for those tests.
var mutations = map[string][]string{
	"os": {"Create", "CreateTemp", "WriteFile", "Rename", "Remove", "RemoveAll", "Mkdir", "MkdirAll", "MkdirTemp",
		"Link", "Symlink", "Truncate", "Chtimes", "Chmod", "Chown", "Lchown", "OpenFile"},
	"ioutil": {"WriteFile", "TempFile", "TempDir"},
	"unix": {"Creat", "Rename", "Renameat", "Renameat2", "Unlink", "Unlinkat", "Link", "Linkat", "Symlink", "Symlinkat",
		"Mkdir", "Mkdirat", "Rmdir", "Truncate", "Ftruncate", "Fallocate", "Utimes", "UtimesNano", "UtimesNanoAt", "Futimes", "Futimesat",
		"Write", "Pwrite", "Fsync", "Fdatasync", "Fchmod", "Fchmodat", "Fchown", "Fchownat", "Mknod", "Mknodat"},
	"syscall": {"Creat", "Rename", "Renameat", "Unlink", "Unlinkat", "Link", "Symlink",
		"Mkdir", "Mkdirat", "Rmdir", "Truncate", "Ftruncate", "Utimes", "UtimesNano", "Futimes", "Write", "Pwrite", "Fsync", "Fdatasync"},
}

func TestMutationsGoThroughVFS(t *testing.T) {
	t.Parallel()
	looked := 0
	for _, f := range sources(t) {
		if strings.HasSuffix(f.path, "_test.go") || f.dir == "maildir/vfs" || f.dir == "maildir/faultfs" || f.dir != "maildir" && !strings.HasPrefix(f.dir, "maildir/") {
			continue
		}
		looked++
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := s.X.(*ast.Ident); ok && slices.Contains(mutations[pkg.Name], s.Sel.Name) {
					t.Errorf("%s: %s.%s outside maildir/vfs", f.pos(s.Pos()), pkg.Name, s.Sel.Name)
				}
			}
			return true
		})
	}
	if looked == 0 {
		t.Fatal("no package below maildir")
	}
}

// longest is the most lines that a function may have. Tables may be longer.
const longest = 90

func TestSizes(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if f.path == "main.go" && bytes.Count(f.text, []byte("\n")) >= 150 {
			t.Errorf("main.go has 150 lines or more: it only ties the packages together")
		}
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || strings.HasSuffix(f.path, "_test.go") {
				continue
			}
			if fn.Name.Name == "init" && fn.Recv == nil {
				t.Errorf("%s: an init function", f.pos(fn.Pos()))
			}
			if n := f.line(fn.End()) - f.line(fn.Pos()) + 1; n > longest {
				t.Errorf("%s: %s has %d lines, more than %d", f.pos(fn.Pos()), fn.Name.Name, n, longest)
			}
		}
	}
}

func TestTopEntries(t *testing.T) {
	t.Parallel()
	allowed := []string{
		".ci", ".git", ".gitignore", ".tools", "ARCHITECTURE.md", "CHANGES", "LICENSE", "Makefile", "README.md", "VERSION",
		"contrib", "control", "go.mod", "go.sum", "imap", "imapctl", "imapd", "maildir", "main.go", "main_test.go", "man", "run", "sasl", "test", "works.go",
	}
	entries, err := os.ReadDir(top)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s: not an entry of the top directory", e.Name())
		}
	}
}

// TestNoForeignPaths holds that no file names a place of the machine that it
// was written on, nor leaves work for later in a comment.
func TestNoForeignPaths(t *testing.T) {
	t.Parallel()
	// Written in parts, or this file would be found.
	words := []string{"/wor" + "k/", "shar" + "ed/refer", "/home/" + "user", "/roo" + "t/go", "TO" + "DO", "FIX" + "ME", "XX" + "X:"}
	walk(t, func(path string, text []byte) {
		if strings.Contains(path, "testdata/") || path == "go.sum" || bytes.IndexByte(text, 0) >= 0 {
			return
		}
		for _, w := range words {
			if i := bytes.Index(text, []byte(w)); i >= 0 {
				t.Errorf("%s:%d: %q", path, 1+bytes.Count(text[:i], []byte("\n")), w)
			}
		}
	})
}

// A source is one Go file of the project.
type source struct {
	path, dir string // seen from the top directory
	text      []byte
	set       *token.FileSet
	syntax    *ast.File
}

func (s source) line(p token.Pos) int { return s.set.Position(p).Line }

func (s source) pos(p token.Pos) string { return s.path + ":" + strconv.Itoa(s.line(p)) }

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	walk(t, func(path string, text []byte) {
		if !strings.HasSuffix(path, ".go") {
			return
		}
		f := source{path: path, dir: filepath.Dir(path), text: text, set: token.NewFileSet()}
		var err error
		if f.syntax, err = parser.ParseFile(f.set, path, text, parser.SkipObjectResolution); err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	})
	return all
}

// walk calls do for each regular file that belongs to the project.
func walk(t *testing.T, do func(path string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(top, path)
		switch {
		case d.IsDir() && slices.Contains([]string{".git", ".tools", "run"}, name):
			return filepath.SkipDir
		case !d.Type().IsRegular() || name == ".git" || name == "imapd" || name == "imapctl" || strings.HasSuffix(name, ".test"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		do(name, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
