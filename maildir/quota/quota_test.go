package quota

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want File
		bad  bool
	}{
		{"10000000S,1000C\n           0            0\n         327            1\n        -355           -1\n", File{"10000000S,1000C", Courier, Usage{-28, 0}, 3}, true},
		{"10000000S,1000C\n           0            0\n         327            1\n", File{"10000000S,1000C", Courier, Usage{327, 1}, 2}, false},
		{"1000S\n100 2\n-40 -1\n", File{"1000S", All, Usage{60, 1}, 2}, false},
		{"\n5 1\n", File{"", All, Usage{5, 1}, 1}, false},
		{"1000S,5C\r\n5 1\r\n", File{"1000S,5C\r", All, Usage{5, 1}, 1}, false},
		{"0S\n", File{"0S", All, Usage{}, 0}, false},
		{"1000S\n100 2\n5", File{"1000S", All, Usage{100, 2}, 1}, true},
		{"1000S\n100 2 3\n", File{Limits: "1000S", Rule: All}, true},
		{"1000S\n100\n", File{Limits: "1000S", Rule: All}, true},
		{"1000S\nx 1\n", File{Limits: "1000S", Rule: All}, true},
		{"1000S\n\x00\x00\x00\n", File{Limits: "1000S", Rule: All}, true},
		{"1000S\n9223372036854775807 1\n", File{Limits: "1000S", Rule: All}, true},
		{"1000S\n10 -1\n", File{"1000S", All, Usage{10, -1}, 1}, true},
		{"\x00\x00\n1 1\n", File{}, true},
		{"", File{}, true},
		{"1000S", File{}, true},
	} {
		got, err := Parse([]byte(tt.text))
		if got != tt.want || (err != nil) != tt.bad || err != nil && err != ErrRecount {
			t.Errorf("%q: %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
	}
}

// folder returns a directory with a maildirsize that holds text.
func folder(t *testing.T, text string) (vfs.Dir, string) {
	t.Helper()
	path := t.TempDir()
	if err := os.WriteFile(path+"/"+Name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir, path + "/" + Name
}

func read(t *testing.T, path string) File {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Parse(text)
	if err != nil {
		t.Error(err)
	}
	return f
}

func TestAppend(t *testing.T) {
	t.Parallel()
	full := "1000S\n" + strings.Repeat("         100            1\n", 210)
	for _, tt := range []struct {
		text   string
		change Usage
		added  string
		want   error
	}{
		{"1000S\n100 2\n", Usage{50, 1}, "50 1\n", nil},
		{"1000S\n100 2\n", Usage{-50, -1}, "-50 -1\n", nil},
		{"1000S\n100 2\n", Usage{}, "", nil},
		{"1000S\n", Usage{7, 1}, "7 1\n", nil},
		{"1000S\n100 2\n", Usage{-500, -1}, "-500 -1\n", ErrRecount},
		{"1000S\n100 2\n1", Usage{50, 1}, "\n50 1\n", ErrRecount},
		{"1000S", Usage{50, 1}, "\n50 1\n", nil},
		{"", Usage{50, 1}, "50 1\n", ErrRecount},
		{full, Usage{1, 1}, "1 1\n", ErrRecount},
	} {
		dir, path := folder(t, tt.text)
		if err := Append(dir, tt.change); !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%.40q, %v: %v, want %v", tt.text, tt.change, err, tt.want)
		}
		if b, _ := os.ReadFile(path); string(b) != tt.text+tt.added {
			t.Errorf("%.40q, %v: file %.100q", tt.text, tt.change, b)
		}
	}
	dir, path := folder(t, "")
	os.Remove(path)
	if err := Append(dir, Usage{1, 1}); err != nil || RuleOf(dir) != None {
		t.Errorf("without a file: %v, one was made: %v", err, RuleOf(dir) != None)
	}
	for _, make := range []func() error{func() error { return os.Symlink("/etc/passwd", path) }, func() error { return unix.Mkfifo(path, 0o600) }} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if err := Append(dir, Usage{1, 1}); err == nil {
			t.Error("what is no file was written to")
		}
		os.Remove(path)
	}
}

// TestAppendTogether holds that no line of several writers is lost.
func TestAppendTogether(t *testing.T) {
	t.Parallel()
	dir, path := folder(t, "1000S\n")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if err := Append(dir, Usage{10, 1}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if f := read(t, path); f.Usage != (Usage{4000, 400}) {
		t.Errorf("%+v", f)
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"1000S,5C\n100 1\n": "300 3\n", "1000S,5C\njunk\n": "300 3\n", "1000S,5C\n-1 -1\n": "300 3\n",
		"1000S,5C\n         100            1\n5 x\n":                        "         300            3\n",
		"1000S,5C\n" + strings.Repeat("         100            1\n", 1<<16): "         300            3\n", // too long to be worth reading
	} {
		dir, path := folder(t, text)
		if err := os.Chmod(dir.Path(), 0o770); err != nil {
			t.Fatal(err)
		}
		if err := Replace(dir, Usage{300, 3}); err != nil {
			t.Error(err)
		}
		if b, _ := os.ReadFile(path); string(b) != "1000S,5C\n"+want {
			t.Errorf("%q", b)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		// Somebody else is at it.
		if err := os.WriteFile(dir.Path()+"/"+lockName, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Replace(dir, Usage{400, 4}); err != nil {
			t.Error(err)
		}
		if f := read(t, path); f.Usage.Messages != 3 {
			t.Errorf("%+v", f)
		}
		os.Remove(path)
		if err := Replace(dir, Usage{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without a file: %v", err)
		}
	}
}

// TestRule holds that whoever counted last is known by the line that it left.
func TestRule(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Rule{
		"1000S,5C\n           0            0\n":     Courier,
		"1000S\n1000000000000            1\n5 1\n":  Courier,
		"1000S\n100 1\n          50            1\n": All,
		"1000S\n": All,
		"":        All,
		"1000S":   All,
	} {
		dir, _ := folder(t, text)
		if got := RuleOf(dir); got != want {
			t.Errorf("%q: rule %d, want %d", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("10000000S,1000C\n           0            0\n         327            1\n"))
	f.Add([]byte("\n-1 -1\n5"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := Parse(b); err == nil && (got.Usage.Octets < 0 || got.Usage.Messages < 0) {
			t.Errorf("%+v", got)
		}
	})
}
