package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var pid = strconv.Itoa(os.Getpid())

func TestLog(t *testing.T) {
	t.Parallel()
	dir := confDir(t, "alice")
	l := New(Options{Dir: dir})
	tap := l.Open("alice", "sid")
	tap.Out([]byte("a OK User logged in\r\n"))
	tap.In([]byte("b NOOP\r\nc LOG"))
	tap.In(nil)
	tap.Out([]byte("b OK Completed\r\n"))
	tap.Close()
	tap.In([]byte("c LOGIN bob secret\r\n"))
	tap.Close()

	name := filepath.Join(dir, "log", "alice", pid)
	want := regexp.MustCompile(`^---------- alice \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n\n` +
		`>\d+>a OK User logged in\r\n<\d+<b NOOP\r\nc LOG>\d+>b OK Completed\r\n$`)
	if got := read(t, name); !want.MatchString(got) {
		t.Errorf("got %q", got)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	dir := confDir(t, "alice", "bob")
	l := New(Options{Dir: dir})
	var taps []*Tap
	for _, user := range []string{"alice", "bob", "alice", "alice", "carol"} {
		taps = append(taps, l.Open(user, "sid"))
	}
	taps[0].Close()
	taps = append(taps, l.Open("alice", "sid"))
	if got, want := files(t, dir), []string{"alice/" + pid, "alice/" + pid + ".1", "alice/" + pid + ".2", "alice/" + pid + ".3", "bob/" + pid}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, tap := range taps {
		tap.Close()
	}
	if len(l.users) != 0 {
		t.Errorf("users are kept: %v", l.users)
	}
}

func TestBySession(t *testing.T) {
	t.Parallel()
	dir := confDir(t, "alice")
	l := New(Options{Dir: dir, BySession: true})
	defer l.Open("alice", "imap-1-2-3").Close()
	defer l.Open("alice", "../x").Close()
	if got, want := files(t, dir), []string{"alice/" + pid, "alice/imap-1-2-3"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Names that are no plain file name never reach the file system.
func TestRefusedNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", ".", "..", "/", "a/b", "../alice", "/etc", "a\x00b", "a\nb", "\x7f", strings.Repeat("a", 256)} {
		if plain(name) {
			t.Errorf("%q passes", name)
		}
		dir := confDir(t)
		tap := New(Options{Dir: filepath.Join(dir, "log")}).Open(name, "sid")
		if tap.On() {
			t.Errorf("%q is logged", name)
		}
		tap.Close()
	}
	for _, name := range []string{"alice", "alice@example.org", "a.b", "...", "a b", "größe"} {
		if !plain(name) {
			t.Errorf("%q is refused", name)
		}
	}
}

// What lies in the way in log/USER must not be written to.
func TestThingsInTheWay(t *testing.T) {
	t.Parallel()
	for what, make := range map[string]func(name, target string) error{
		"symlink":   func(name, target string) error { return os.Symlink(target, name) },
		"hard link": func(name, target string) error { return os.Link(target, name) },
		"fifo":      func(name, _ string) error { return unix.Mkfifo(name, 0o600) },
		"directory": func(name, _ string) error { return os.Mkdir(name, 0o700) },
	} {
		dir := confDir(t, "alice")
		target := filepath.Join(dir, "target")
		if err := os.WriteFile(target, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := make(filepath.Join(dir, "log", "alice", pid), target); err != nil {
			t.Fatal(err)
		}
		tap := New(Options{Dir: dir}).Open("alice", "sid")
		tap.Out([]byte("secret"))
		if tap.On() || read(t, target) != "x" {
			t.Errorf("%s: it was written to", what)
		}
		tap.Close()
	}
	// And log/USER must be a directory itself.
	dir := confDir(t, "bob")
	if err := os.Symlink("bob", filepath.Join(dir, "log", "alice")); err != nil {
		t.Fatal(err)
	}
	if tap := New(Options{Dir: dir}).Open("alice", "sid"); tap.On() {
		t.Error("log/alice is a symbolic link and used")
	}
}

// The directory turns the log of a running session on and off.
func TestScan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := New(Options{Dir: dir})
	tap := l.Open("alice", "sid")
	defer tap.Close()
	home := filepath.Join(dir, "log", "alice")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		l.Scan()
	}
	if l.Scan(); tap.On() {
		t.Fatal("logs without a directory")
	}
	must(os.MkdirAll(home, 0o700))
	tap.In([]byte("one"))
	l.Scan()
	if got := read(t, filepath.Join(home, pid)); !strings.HasSuffix(got, "<one") || strings.Count(got, "----------") != 1 {
		t.Fatalf("got %q", got)
	}
	must(os.RemoveAll(home))
	if tap.On() {
		t.Fatal("logs where the directory is gone")
	}
	must(os.Mkdir(home, 0o700))
	tap.In([]byte("two"))
	if got := read(t, filepath.Join(home, pid)); !strings.HasSuffix(got, "<two") {
		t.Fatalf("got %q", got)
	}
	// Replaced between two looks, perhaps with the same inode number.
	must(func() error {
		if err := os.RemoveAll(home); err != nil {
			return err
		}
		return os.Mkdir(home, 0o700)
	}())
	tap.In([]byte("three"))
	if got := files(t, dir); len(got) != 1 {
		t.Fatalf("files %v", got)
	}
	must(os.Rename(home, home+".done"))
	if tap.On() {
		t.Fatal("logs where the directory has moved")
	}
	must(os.RemoveAll(filepath.Join(dir, "log")))
	if l.names["alice"] != 0 {
		t.Error("the count of files outlives the directory")
	}
}

// The log ends at the first error and the session does not notice.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	full, err := unix.Open("/dev/full", unix.O_WRONLY, 0)
	if err != nil {
		t.Skip("NOT TESTED: no /dev/full")
	}
	dir := confDir(t, "alice")
	l := New(Options{Dir: dir})
	tap := l.Open("alice", "sid")
	defer tap.Close()
	f := tap.file.Load()
	if err := unix.Dup3(full, int(f.Fd()), unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	unix.Close(full)
	tap.Out([]byte("x"))
	if _, err := f.Stat(); tap.On() || !errors.Is(err, os.ErrClosed) {
		t.Error("the log goes on")
	}
	if l.Scan(); tap.On() {
		t.Error("the log comes back by itself")
	}
}

// A disk that hangs holds up the user whose log is on it, and nobody else.
func TestHungDisk(t *testing.T) {
	t.Parallel()
	dir := confDir(t, "alice", "bob")
	l := New(Options{Dir: dir})
	tap := l.Open("alice", "sid")
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(pipe[1], int(tap.file.Load().Fd()), unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	unix.Close(pipe[1])
	written := make(chan struct{})
	go func() {
		defer close(written)
		tap.Out(make([]byte, 2<<20)) // more than any pipe takes
	}()
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(pipe[0]), Events: unix.POLLIN}}, -1); err != nil {
		t.Fatal(err)
	}
	defer func() {
		unix.Close(pipe[0])
		<-written
	}()
	soon(t, func() {
		l.Scan()
		l.Open("bob", "sid").Close()
		if err := os.RemoveAll(filepath.Join(dir, "log", "alice")); err != nil {
			t.Error(err)
		}
		l.Scan()
		tap.Close()
	})
}

// So does one that hangs when a log is opened.
func TestHungOpen(t *testing.T) {
	t.Parallel()
	l := New(Options{Dir: confDir(t, "alice", "bob")})
	tap := l.Open("alice", "sid")
	tap.owner.mu.Lock() // as who asks the disk
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		l.Open("alice", "sid").Close()
	}()
	defer func() {
		tap.owner.mu.Unlock()
		<-opened
	}()
	soon(t, func() {
		for waits := false; !waits; runtime.Gosched() {
			l.mu.Lock()
			waits = tap.owner.sessions == 2
			l.mu.Unlock()
		}
		l.Open("bob", "sid").Close()
	})
}

// soon fails where f waits for something.
func soon(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("others wait for it")
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	dir := confDir(t, "alice")
	l := New(Options{Dir: dir})
	tap := l.Open("alice", "sid")
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			for range 200 {
				tap.In([]byte("in\n"))
				tap.Out([]byte("out\n"))
				l.Scan()
			}
		})
	}
	g.Wait()
	tap.Close()
	if n := strings.Count(read(t, filepath.Join(dir, "log", "alice", pid)), "\n"); n != 1602 {
		t.Errorf("%d lines", n)
	}
}

// TestRemovedMeanwhile removes the directory, and the file in it, at any point of
// what opens it: nobody is told, for that is how a log is turned off.
func TestRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	dir := confDir(t)
	l := New(Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	tap := l.Open("alice", "sid")
	done := make(chan struct{})
	var g sync.WaitGroup
	g.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				l.Scan()
			}
		}
	})
	name := filepath.Join(dir, "log", "alice")
	opened := 0
	for range 2000 {
		if err := os.MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
		for os.Remove(name) != nil {
			list, _ := filepath.Glob(name + "/*")
			for _, file := range list {
				opened++
				os.Remove(file)
			}
		}
	}
	close(done)
	g.Wait()
	tap.Close()
	if log.Len() > 0 {
		t.Error(log.String())
	}
	if opened == 0 {
		t.Error("nothing was opened meanwhile")
	}
}

func TestZeroTap(t *testing.T) {
	t.Parallel()
	var tap Tap
	tap.In([]byte("x"))
	tap.Out([]byte("x"))
	tap.Close()
	off := New(Options{}).Open("alice", "sid")
	off.In([]byte("x"))
	off.Close()
}

func BenchmarkOff(b *testing.B) {
	tap := New(Options{Dir: b.TempDir()}).Open("alice", "sid")
	p := []byte("x")
	for b.Loop() {
		tap.In(p)
	}
}

// confDir returns a configuration directory where log/USER exists for users.
func confDir(t *testing.T, users ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, u := range append(users, "") {
		if err := os.MkdirAll(filepath.Join(dir, "log", u), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// files returns the files below log/, sorted.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "log", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		rel, err := filepath.Rel(filepath.Join(dir, "log"), f)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, rel)
	}
	return names
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
