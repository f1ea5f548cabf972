package maildir

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/index"
	"imapd/maildir/vfs"
)

// newerIndex makes data, an index, one of a version that is to come.
func newerIndex(data []byte) []byte {
	data = bytes.Clone(data)
	binary.LittleEndian.PutUint32(data[8:], 99)
	return data
}

// ofNoUse are ways in which an index cannot be used: given its path and contents each
// puts something else there.
var ofNoUse = map[string]func(path string, good []byte) error{
	"empty":   func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o600) },
	"garbage": func(path string, _ []byte) error { return os.WriteFile(path, []byte(strings.Repeat("x", 5000)), 0o600) },
	"cut":     func(path string, good []byte) error { return os.WriteFile(path, good[:100], 0o600) },
	"a bit": func(path string, good []byte) error {
		bad := bytes.Clone(good)
		bad[90] ^= 1
		return os.WriteFile(path, bad, 0o600)
	},
	"newer":     func(path string, good []byte) error { return os.WriteFile(path, newerIndex(good), 0o600) },
	"link":      func(path string, _ []byte) error { return os.Symlink("/etc/passwd", path) },
	"FIFO":      func(path string, _ []byte) error { return unix.Mkfifo(path, 0o600) },
	"directory": func(path string, _ []byte) error { return os.Mkdir(path, 0o700) },
	"device":    func(path string, _ []byte) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) },
}

// An index that cannot be used is kept as imapd.index.broken by the first process that
// opens the folder, the log says so once for all of them, and there is a new one.
func TestIndexIsSetAside(t *testing.T) {
	t.Parallel()
	for what, ruin := range ofNoUse {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{NoNotify: true})
			b.deliver("cur", "1.h:2,", "x\n")
			b.deliver("cur", "2.h:2,", "x\n")
			b.sync(Serve)
			b.remembering()
			b.flag(1)
			b.end()
			path, broken := filepath.Join(b.path, index.Name), filepath.Join(b.path, index.BrokenName)
			good := b.indexFile()
			for round := range 2 { // the second time one is kept already
				b.remove(index.Name)
				if err := ruin(path, good); errors.Is(err, unix.EPERM) {
					t.Skip("only root can make a device")
				} else if err != nil {
					t.Fatal(err)
				}
				var was, is unix.Stat_t
				if err := unix.Lstat(path, &was); err != nil {
					t.Fatal(err)
				}
				var log bytes.Buffer
				o := Options{NoNotify: true, Log: slog.New(slog.NewTextHandler(&log, nil))}
				openedByMany(t, b, o)
				p := b.process(o)
				p.want(`1 1.h \Flagged`, "2 2.h ")
				high := p.Snapshot().ModSeq
				p.remembering()
				p.flag(2)
				if p.Snapshot().ModSeq <= high {
					t.Errorf("round %d: HIGHESTMODSEQ stays %d", round, high)
				}
				p.SetFlags(t.Context(), []UID{2}, RemoveFlags, FlagSet{System: Flagged})
				sameHistory(t, p, p.process(o).remembering())
				p.end()
				if err := unix.Lstat(broken, &is); err != nil || is.Ino != was.Ino {
					t.Errorf("round %d: the index is not kept: inode %d, now %d, %v", round, was.Ino, is.Ino, err)
				}
				if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), index.BrokenName) {
					t.Errorf("round %d: the log has %d lines:\n%s", round, n, log.String())
				}
			}
		})
	}
}

// openedByMany has several processes open the folder of b at the same time.
func openedByMany(t *testing.T, b *box, o Options) {
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			h := NewHost(o)
			defer h.Close()
			s, err := h.Open(b.st.cfg)
			if err != nil {
				t.Error(err)
				return
			}
			m, err := s.Mailbox(t.Context(), "INBOX")
			if err != nil {
				t.Error(err)
				return
			}
			m.Release()
		})
	}
	all.Wait()
}

// Where the index can be neither used nor set aside, nor made, a process says so once,
// however often it opens the folder, and serves the mail.
func TestIndexStaysBroken(t *testing.T) {
	t.Parallel()
	for what, ruin := range map[string]func(path string, good []byte) error{
		"newer":    ofNoUse["newer"],
		"FIFO":     ofNoUse["FIFO"],
		"no index": func(string, []byte) error { return nil },
	} {
		for _, failure := range []error{unix.EACCES, unix.EROFS, unix.EPERM} {
			t.Run(fmt.Sprint(what, " ", failure), func(t *testing.T) {
				t.Parallel()
				b := newBox(t, Options{NoNotify: true})
				b.deliver("cur", "1.h:2,", "x\n")
				b.sync(Serve)
				b.remembering()
				b.end()
				path, good := filepath.Join(b.path, index.Name), b.indexFile()
				b.remove(index.Name)
				if err := ruin(path, good); err != nil {
					t.Fatal(err)
				}
				var log bytes.Buffer
				x := &trip{armed: true, stay: true, at: 1, err: failure}
				p := b.process(Options{NoNotify: true, Open: x.open, Log: slog.New(slog.NewTextHandler(&log, nil))})
				for range 3 {
					if p.ModSeqs() {
						t.Error("modseqs are told without an index")
					}
					p.flag(1)
					p.want(`1 1.h \Flagged`)
					p.Release()
					p.host.dropKept()
					p.host.closed = false
					p.Mailbox, _ = p.st.Mailbox(t.Context(), "INBOX")
				}
				if n := strings.Count(log.String(), "\n"); n != 1 {
					t.Errorf("the log has %d lines:\n%s", n, log.String())
				}
				if _, err := os.Lstat(filepath.Join(b.path, index.BrokenName)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v", index.BrokenName, err)
				}
			})
		}
	}
}

// An index of a newer server that runs beside takes nothing from clients: neither from
// ours when the newer one has replaced our index by its own, nor from its when we have
// set that aside.
func TestNewerBeside(t *testing.T) {
	t.Parallel()
	t.Run("we are older", func(t *testing.T) {
		t.Parallel()
		var log bytes.Buffer
		a := newBox(t, Options{NoNotify: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
		for i := range 3 {
			a.deliver("cur", fmt.Sprintf("%d.h:2,", i+1), "x\n")
		}
		a.sync(Serve)
		a.remembering()
		client := mirror{}
		if err := client.reconnect(a.Mailbox); err != nil {
			t.Fatal(err)
		}
		// The newer one has told a flag and a message, and takes both back.
		told := ModSeq(time.Now().Unix()) << 20
		client.modseq = max(client.modseq, told)
		client.flags[1], client.flags[50] = `\Seen`, ""
		place := filepath.Join(a.path, "imapd.index.new")
		if err := os.WriteFile(place, newerIndex(a.indexFile()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(place, filepath.Join(a.path, index.Name)); err != nil {
			t.Fatal(err)
		}
		a.flag(3)
		a.sync(Serve)
		if err := client.reconnect(a.Mailbox); err != nil {
			t.Error(err)
		}
		sameHistory(t, a, a.process(Options{NoNotify: true}).remembering())
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "version 99") {
			t.Errorf("the log has %d lines:\n%s", n, log.String())
		}
	})
	t.Run("we are newer", func(t *testing.T) {
		t.Parallel()
		a := newBox(t, Options{NoNotify: true})
		for i := range 3 {
			a.deliver("cur", fmt.Sprintf("%d.h:2,", i+1), "x\n")
		}
		a.sync(Serve)
		a.remembering()
		client := mirror{}
		for round := range 3 {
			a.flag(UID(round + 1))
			if err := client.reconnect(a.Mailbox); err != nil {
				t.Fatal(err)
			}
			dir, err := vfs.Open(a.path) // the older one sets ours aside
			if err != nil {
				t.Fatal(err)
			}
			f := index.File{Dir: dir}
			if err := errors.Join(f.Lock(t.Context()), f.SetAside(), f.Unlock()); err != nil {
				t.Fatal(err)
			}
			f.Close()
			dir.Close()
			b := a.process(Options{NoNotify: true}).remembering()
			b.append(b.Mailbox, "more\r\n", FlagSet{})
			b.SetFlags(t.Context(), []UID{UID(round + 1)}, AddFlags, FlagSet{System: Seen})
			a.flag(b.append(a.Mailbox, "mine\r\n", FlagSet{}))
			for range 2 {
				a.sync(Serve)
				b.sync(Serve)
			}
			sameHistory(t, a, b)
			if err := client.reconnect(b.Mailbox); err != nil {
				t.Error(err)
			}
		}
	})
}
