package notice

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFirstLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"\n", ""},
		{"no end", "no end"},
		{"one\ntwo\n", "one"},
		{"one\r\ntwo\r\n", "one"},
		{"cr\rmore", "cr"},
		{"nul\x00more\n", "nul"},
		{"[ALERT] x\n", "ALERT] x"},
		{"[[[x\n", "x"},
		{"x [y]\n", "x [y]"},
		{"8-bit \xe9 and tab\t\n", "8-bit \xe9 and tab\t"},
		{strings.Repeat("a", 4095) + "\n", strings.Repeat("a", 4095)},
		{strings.Repeat("b", 5000), strings.Repeat("b", 4096)},
		{strings.Repeat("[", 5000), ""},
	} {
		name := filepath.Join(t.TempDir(), "motd")
		write(t, name, tt.in)
		got, _, err := firstLine(name)
		if got != tt.want || err != nil {
			t.Errorf("%.20q: got %.20q, %v, want %.20q", tt.in, got, err, tt.want)
		}
	}
}

// Each case makes files below msg/ and says what a fresh Watcher tells.
func TestWhatIsSaid(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		files           map[string]string // a text of "/" makes a directory
		motd, shutdown  string
		greets, refuses bool
	}{
		{name: "nothing"},
		{name: "motd", files: map[string]string{"motd": "hello\n"}, motd: "hello", greets: true},
		{name: "empty motd", files: map[string]string{"motd": ""}},
		{name: "motd without text", files: map[string]string{"motd": "\nsecond line\n"}},
		{name: "motd is a directory", files: map[string]string{"motd": "/"}},
		{name: "shutdown", files: map[string]string{"shutdown": "bye\n"}, shutdown: "bye", refuses: true},
		{name: "empty shutdown", files: map[string]string{"shutdown": ""}, refuses: true},
		{name: "shutdown is a directory", files: map[string]string{"shutdown": "/"}, refuses: true},
		{name: "the service's own wins", files: map[string]string{"shutdown": "all\n", "shutdown.imap": "mine\n"}, shutdown: "mine", refuses: true},
		{name: "another service's", files: map[string]string{"shutdown.imaps": "not mine\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			mkdir(t, filepath.Join(dir, "msg"))
			for name, text := range tt.files {
				if text == "/" {
					mkdir(t, filepath.Join(dir, "msg", name))
				} else {
					write(t, filepath.Join(dir, "msg", name), text)
				}
			}
			w := New(Options{Dir: dir, Service: "imap"})
			defer w.Close()
			w.Refresh()
			if text, ok := w.Motd(); text != tt.motd || ok != tt.greets {
				t.Errorf("motd: got %q %v, want %q %v", text, ok, tt.motd, tt.greets)
			}
			if text, ok := w.Shutdown(); text != tt.shutdown || ok != tt.refuses {
				t.Errorf("shutdown: got %q %v, want %q %v", text, ok, tt.shutdown, tt.refuses)
			}
		})
	}
}

func TestUnreadableSaysNothing(t *testing.T) {
	t.Parallel()
	for _, err := range []error{os.ErrNotExist, os.ErrPermission} {
		if n, err := absent(&os.PathError{Err: err}); n.on || err != nil {
			t.Errorf("got %v, %v", n, err)
		}
	}
	// A look that could not be taken changes nothing.
	if _, err := absent(&os.PathError{Err: errors.New("input/output error")}); err == nil {
		t.Error("an I/O error passes for a missing file")
	}
}

// The files come, change and go while a Watcher watches, with and without
// inotify behind it; msg/ and the configuration directory come late.
func TestChanges(t *testing.T) {
	t.Parallel()
	noWatch := func() (*fsnotify.Watcher, error) { return nil, errors.New("no instance left") }
	for name, watch := range map[string]func() (*fsnotify.Watcher, error){"watch": fsnotify.NewWatcher, "poll": noWatch} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "conf")
			opt := Options{Dir: dir, Service: "imap", Poll: time.Hour}
			if name == "poll" {
				opt.Poll = time.Millisecond
			} else {
				mkdir(t, dir)
			}
			w := start(opt, 0, watch)
			defer w.Close()
			msg := filepath.Join(dir, "msg")
			shutdown := filepath.Join(msg, "shutdown")

			if err := os.MkdirAll(msg, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(msg, "motd"), "welcome\n")
			await(t, w, w.Motd, "welcome", true)
			write(t, shutdown, "going\n")
			await(t, w, w.Shutdown, "going", true)
			write(t, shutdown, "going now\n")
			await(t, w, w.Shutdown, "going now", true)
			write(t, shutdown+".new", "renamed over\n")
			rename(t, shutdown+".new", shutdown)
			await(t, w, w.Shutdown, "renamed over", true)
			write(t, shutdown+".imap", "ours\n")
			await(t, w, w.Shutdown, "ours", true)
			remove(t, shutdown+".imap")
			await(t, w, w.Shutdown, "renamed over", true)
			remove(t, shutdown)
			await(t, w, w.Shutdown, "", false)

			// The directory moves away and another takes its place, twice: the
			// second may get the inode number of the first.
			for range 2 {
				if err := os.RemoveAll(msg); err != nil {
					t.Fatal(err)
				}
				await(t, w, w.Motd, "", false)
				mkdir(t, msg)
				write(t, filepath.Join(msg, "motd"), "again\n")
				await(t, w, w.Motd, "again", true)
			}
			rename(t, msg, msg+".old")
			await(t, w, w.Motd, "", false)
			rename(t, msg+".old", msg)
			await(t, w, w.Motd, "again", true)
			write(t, filepath.Join(msg, "motd"), "still watched\n")
			await(t, w, w.Motd, "still watched", true)
		})
	}
}

// A shutdown file that is created and then written never speaks without its
// text. A machine that stalls between the two makes the test try again.
func TestTextOnItsWay(t *testing.T) {
	t.Parallel()
	for range 20 {
		dir := t.TempDir()
		mkdir(t, filepath.Join(dir, "msg"))
		w := start(Options{Dir: dir, Poll: time.Hour}, 0, func() (*fsnotify.Watcher, error) { return nil, os.ErrInvalid })
		defer w.Close()
		name := filepath.Join(dir, "msg", "shutdown")
		write(t, name, "")
		if !w.look() {
			continue
		}
		if _, ok := w.Shutdown(); ok {
			t.Fatal("it speaks before it has a text")
		}
		write(t, name, "maintenance\n")
		w.Refresh()
		if text, ok := w.Shutdown(); text != "maintenance" || !ok {
			t.Fatalf("got %q, %v", text, ok)
		}
		return
	}
	t.Fatal("a file that was made this moment is taken as it is")
}

// Refresh sees at once what was written before it, without any event.
func TestRefresh(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "msg"))
	w := start(Options{Dir: dir, Poll: time.Hour}, 0, func() (*fsnotify.Watcher, error) { return nil, os.ErrInvalid })
	defer w.Close()
	write(t, filepath.Join(dir, "msg", "shutdown"), "")
	w.Refresh()
	if text, ok := w.Shutdown(); text != "" || !ok {
		t.Fatalf("got %q, %v", text, ok)
	}
	remove(t, filepath.Join(dir, "msg", "shutdown"))
	w.Refresh()
	if _, ok := w.Shutdown(); ok {
		t.Fatal("the door stays shut")
	}
}

// log/ belongs to telemetry; the Watcher only says that it changed.
func TestLogs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	told := make(chan struct{}, 1000)
	var calls atomic.Int32
	w := New(Options{Dir: dir, Poll: time.Hour, Logs: func() {
		if calls.Add(1) != 1 {
			t.Error("two calls at a time")
		}
		told <- struct{}{}
		calls.Add(-1)
	}})
	defer w.Close()
	for _, change := range []func(){
		func() { mkdir(t, filepath.Join(dir, "log")) },
		func() { mkdir(t, filepath.Join(dir, "log", "alice")) },
		func() { remove(t, filepath.Join(dir, "log", "alice")) },
		func() { remove(t, filepath.Join(dir, "log")) },
		func() { mkdir(t, filepath.Join(dir, "log")) },
		func() { mkdir(t, filepath.Join(dir, "log", "bob")) },
	} {
		for len(told) > 0 {
			<-told
		}
		change()
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatal("not told")
		}
	}
}

func TestNoDirectory(t *testing.T) {
	t.Parallel()
	w := New(Options{})
	w.Refresh()
	_, motd := w.Motd()
	_, shutdown := w.Shutdown()
	if motd || shutdown {
		t.Error("somebody speaks")
	}
	w.Close()
}

func BenchmarkRefresh(b *testing.B) {
	dir := b.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "msg"), 0o700); err != nil {
		b.Fatal(err)
	}
	w := New(Options{Dir: dir, Service: "imap"})
	defer w.Close()
	for b.Loop() {
		w.Refresh()
	}
}

// await waits until said returns text and ok, for as long as w has news.
func await(t *testing.T, w *Watcher, said func() (string, bool), text string, ok bool) {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		changed := w.Changed()
		gotText, gotOK := said()
		if gotText == text && gotOK == ok {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("got %q %v, want %q %v", gotText, gotOK, text, ok)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, name string) {
	t.Helper()
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
