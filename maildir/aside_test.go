package maildir

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/courier"
	"imapd/maildir/faultfs"
	"imapd/maildir/uidlist"
)

// noLists returns what may be in the place of a UID list, and makers of it.
func noLists() map[string]func(path string) error {
	all := map[string]func(path string) error{
		"a FIFO":           func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link":           func(path string) error { return os.Symlink("/etc/passwd", path) },
		"a link to itself": func(path string) error { return os.Symlink(uidlist.Name, path) },
		"a directory":      func(path string) error { return os.MkdirAll(path+"/cur/x", 0o700) },
		"4 GB": func(path string) error {
			err := os.WriteFile(path, nil, 0o600)
			return errors.Join(err, os.Truncate(path, 1<<32))
		},
	}
	if os.Geteuid() == 0 {
		all["a device"] = func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) }
	}
	return all
}

// putForList puts something in the place of the list, if there is one.
func (b *box) putForList(put func(path string) error) {
	b.t.Helper()
	path := b.in(uidlist.Name, "")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.t.Fatal(err)
	}
	if err := put(path); err != nil {
		b.t.Fatal(err)
	}
}

// What cannot be a UID list is set aside, as it is, with one line in the log. The mail
// is served: without an index with a new UIDVALIDITY.
func TestListIsSetAside(t *testing.T) {
	t.Parallel()
	for what, put := range noLists() {
		for _, taken := range []bool{false, true} {
			var log bytes.Buffer
			b := newBox(t, Options{NoNotify: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
			old := b.Snapshot().Validity
			b.end()
			b.remove(uidlist.Name)
			b.deliver("cur", "1.h:2,S", "x\n")
			name := uidlist.Broken
			if taken {
				if err := os.Mkdir(b.in(name, ""), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			b.putForList(put)
			was, err := os.Lstat(b.in(uidlist.Name, ""))
			if err != nil {
				t.Fatal(err)
			}
			b.start(Options{NoNotify: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
			b.want(`1 1.h \Seen`)
			if v := b.Snapshot().Validity; v <= old {
				t.Errorf("%s: UIDVALIDITY %d after %d", what, v, old)
			}
			if taken {
				names, err := filepath.Glob(b.in(name, "") + ".*")
				if err != nil || len(names) != 1 {
					t.Fatalf("%s: %q, %v", what, names, err)
				}
				name = filepath.Base(names[0])
			}
			if is, err := os.Lstat(b.in(name, "")); err != nil || !os.SameFile(is, was) || is.Size() != was.Size() {
				t.Errorf("%s: it is not in %s: %v", what, name, err)
			}
			if n := strings.Count(log.String(), "set aside"); n != 1 || !strings.Contains(log.String(), "as="+name+" ") {
				t.Errorf("%s: %d lines in the log:\n%s", what, n, log.String())
			}
			if l := b.uidList(); len(l.Entries) != 1 || l.Validity != b.Snapshot().Validity {
				t.Errorf("%s: list %+v", what, l)
			}
			b.end()
		}
	}
}

// Where something is in the place of the list, or was, what another server has left is
// older: its UIDs would be given again.
func TestNothingTakenOverForBrokenList(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	b.end()
	b.remove(uidlist.Name)
	if err := os.WriteFile(b.in(courier.UIDs, ""), []byte("1 7 50\n49 1.h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.deliver("cur", "1.h:2,", "x\n")
	b.putForList(noLists()["a FIFO"])
	for range 2 {
		b.start(Options{NoNotify: true, Log: slog.New(slog.DiscardHandler)})
		b.want("1 1.h ")
		if v := b.Snapshot().Validity; v == 7 {
			t.Error("Courier's UIDVALIDITY")
		}
		b.end()
		b.remove(uidlist.Name) // as a crash leaves it
	}
}

// stuck is the fault of a directory in which the list stays in its place.
func stuck(ops ...string) func(faultfs.Call) error {
	return func(c faultfs.Call) error {
		if slices.Contains(ops, c.Op) && filepath.Base(c.Path) == uidlist.Name {
			return unix.EACCES
		}
		return nil
	}
}

// What holds nothing, and may not be renamed, goes. Anything else does not.
func TestNodeForListIsRemoved(t *testing.T) {
	t.Parallel()
	for what, put := range noLists() {
		var f faultfs.FS
		var log bytes.Buffer
		b := newBox(t, Options{NoNotify: true})
		b.end()
		b.remove(uidlist.Name)
		b.deliver("cur", "1.h:2,", "x\n")
		b.putForList(put)
		h := NewHost(Options{NoNotify: true, Open: f.Open, Log: slog.New(slog.NewTextHandler(&log, nil))})
		st, err := h.Open(b.st.cfg)
		if err != nil {
			t.Fatal(err)
		}
		f.Arm(stuck("rename"))
		node := what == "a FIFO" || what == "a device"
		m, err := st.Mailbox(context.Background(), "INBOX")
		if said := strings.Count(log.String(), "is removed"); node != (said == 1) || node != (err == nil) {
			t.Errorf("%s: %v, the log:\n%s", what, err, log.String())
		}
		if err == nil {
			if got := told(m); len(got) != 1 || len(b.uidList().Entries) != 1 {
				t.Errorf("%s: %q", what, got)
			}
			m.Release()
		}
		h.Close()
	}
}

// Nobody sets aside anything without the lock, and where nothing can be renamed the
// client hears that UIDs cannot be recorded.
func TestListStaysInItsPlace(t *testing.T) {
	t.Parallel()
	for what, put := range noLists() {
		var f faultfs.FS
		b := newBox(t, Options{NoNotify: true})
		b.end()
		b.remove(uidlist.Name)
		b.deliver("cur", "1.h:2,", "x\n")
		b.putForList(put)
		h := NewHost(Options{NoNotify: true, Open: f.Open, Log: slog.New(slog.DiscardHandler)})
		st, err := h.Open(b.st.cfg)
		if err != nil {
			t.Fatal(err)
		}
		f.Arm(stuck("rename", "unlink"))
		ctx := context.Background()
		if _, err := st.Mailbox(ctx, "INBOX"); !errors.Is(err, ErrNoUIDs) {
			t.Errorf("%s: %v", what, err)
		}
		f.Disarm()
		locked := b.in(uidlist.LockName, "")
		if err := os.WriteFile(locked, []byte("1:elsewhere"), 0o600); err != nil {
			t.Fatal(err)
		}
		waiting, stop := context.WithTimeout(ctx, shortPause)
		if _, err := st.Mailbox(waiting, "INBOX"); err == nil {
			t.Errorf("%s: served without the lock", what)
		}
		stop()
		if names := b.files("."); slices.Contains(names, uidlist.Broken) || !slices.Contains(names, uidlist.Name) {
			t.Errorf("%s: %q", what, names)
		}
		if err := os.Remove(locked); err != nil {
			t.Fatal(err)
		}
		m, err := st.Mailbox(ctx, "INBOX")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := told(m); len(got) != 1 {
			t.Errorf("%s: %q", what, got)
		}
		m.Release()
		h.Close()
	}
}
