package privsep

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func channels(t *testing.T) (a, b *Channel) {
	t.Helper()
	x, y, err := Pair()
	if err == nil {
		a, err = NewChannel(x)
	}
	if err == nil {
		b, err = NewChannel(y)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestChannel(t *testing.T) {
	t.Parallel()
	a, b := channels(t)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("contents"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	big := strings.Repeat("x", MaxMessage)
	for _, text := range []string{"one", big} {
		if err := a.Send([]byte(text), f, f); err != nil {
			t.Fatal(err)
		}
		message, files, err := b.Recv()
		if err != nil || string(message) != text || len(files) != 2 {
			t.Fatalf("%d octets, %d files, %v", len(message), len(files), err)
		}
		got, err := io.ReadAll(files[0])
		if err != nil || text == "one" && string(got) != "contents" {
			t.Errorf("%q, %v", got, err)
		}
		Close(files)
	}
	for _, text := range []string{"", big + "x"} {
		if err := a.Send([]byte(text)); err == nil {
			t.Errorf("a message of %d octets is sent", len(text))
		}
	}
	// Who does not listen keeps nobody waiting that does not want to.
	for n := 0; err == nil; n++ {
		if err = a.TrySend([]byte(big)); n > 10000 {
			t.Fatal("there is always room")
		}
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Error(err)
	}
	a.Close()
	for err = nil; err == nil; {
		_, _, err = b.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// TestHostile has the other side send what no Send does, with files: the Channel
// ends, and none of the files stays open here.
func TestHostile(t *testing.T) {
	t.Parallel()
	for what, message := range map[string]struct{ octets, files int }{
		"nothing but files": {0, 3},
		"too many files":    {1, maxFiles + 10},
		"too much":          {MaxMessage + 1, 3},
	} {
		x, y, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewChannel(x)
		if err != nil {
			t.Fatal(err)
		}
		// A pipe is at its end when nobody holds the other end any more.
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		fds := make([]int, message.files)
		for i := range fds {
			fds[i] = ends[1]
		}
		raw, err := y.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				octets, oob := make([]byte, message.octets+1), unix.UnixRights(fds...)
				v := unix.Iovec{Base: &octets[0]}
				v.SetLen(message.octets)
				h := unix.Msghdr{Iov: &v, Control: &oob[0]}
				h.SetIovlen(1)
				h.SetControllen(len(oob))
				// unix.Sendmsg would make an empty message one of an octet.
				if _, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&h)), 0); errno != 0 {
					t.Errorf("%s: %v", what, errno)
				}
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(ends[1])
		if _, files, err := c.Recv(); err == nil || len(files) > 0 {
			t.Errorf("%s: %d files, %v", what, len(files), err)
		}
		if n, err := unix.Read(ends[0], make([]byte, 1)); n != 0 || err != nil {
			t.Errorf("%s: files stay open: %d, %v", what, n, err)
		}
		unix.Close(ends[0])
		y.Close()
		c.Close()
	}
}

// TestSpawnerClosed holds that a child which is asked for when the parent ends is
// refused, and not the parent's end in disorder.
func TestSpawnerClosed(t *testing.T) {
	t.Parallel()
	s, err := NewSpawner()
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if c, err := s.Start("worker", "", Identity{}); c != nil || !errors.Is(err, errClosed) {
		t.Errorf("%v, %v", c, err)
	}
}

// TestNoMember holds that the environment alone makes nobody a member.
func TestNoMember(t *testing.T) {
	t.Setenv(environment, "worker 1 1")
	if m, err := Join(); m != nil || err == nil {
		t.Errorf("%v, %v", m, err)
	}
	if m, err := Join(); m != nil || err != nil {
		t.Errorf("a second time: %v, %v", m, err)
	}
}

func TestFixed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	linked := filepath.Join(t.TempDir(), "linked")
	if err := os.Mkdir(linked, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(linked, "example.org")); err != nil {
		t.Fatal(err)
	}
	for template, want := range map[string]string{
		dir:                   dir,
		dir + "/%d/%n":        dir,
		dir + "/%u/Maildir":   dir,
		dir + "/x%u":          dir,
		dir + "/none/%u":      "",
		linked + "/%d/%n":     "",
		linked:                linked,
		"~/Maildir":           "",
		"/%u":                 "",
		"/nonexistent/%u/box": "",
	} {
		if got := Fixed(template); got != want {
			t.Errorf("%s: got %q, want %q", template, got, want)
		}
	}
}

// What was said before the other side closed is heard, also where that side has not
// heard everything.
func TestChannelLastWord(t *testing.T) {
	t.Parallel()
	a, b := channels(t)
	if err := errors.Join(b.Send([]byte("not heard")), a.Send([]byte("last word")), a.Close()); err != nil {
		t.Fatal(err)
	}
	if message, _, err := b.Recv(); string(message) != "last word" {
		t.Errorf("%q, %v", message, err)
	}
	if message, _, err := b.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("%q, %v", message, err)
	}
}
