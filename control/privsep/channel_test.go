package privsep

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

// TestNoMember holds that the environment alone makes nobody a member.
func TestNoMember(t *testing.T) {
	t.Setenv(environment, "worker 1")
	if m, err := Join(func(string) int { return 0 }); m != nil || err == nil {
		t.Errorf("%v, %v", m, err)
	}
	if m, err := Join(func(string) int { return 0 }); m != nil || err != nil {
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
