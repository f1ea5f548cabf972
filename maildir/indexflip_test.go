package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/maildir/index"
	"imapd/maildir/vfs"
)

// flipped opens a folder whose index has one bit flipped, or with at behind its end a
// page of NULs there, and returns what the log says.
// The times of a quiet one are as if nothing had been written since.
func flipped(t *testing.T, b *box, good []byte, at int, quiet bool) string {
	path := filepath.Join(b.path, index.Name)
	os.Remove(path)
	if err := errors.Join(os.Link(path+".kept", path), os.WriteFile(path, good, 0o600)); err != nil { // the inode is the same
		t.Fatal(err)
	}
	if quiet {
		dir, err := vfs.Open(b.path)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		f := index.File{Dir: dir}
		if err := f.Lock(t.Context()); err != nil {
			t.Fatal(err)
		}
		var batch index.Batch
		batch.Learned(99, index.NoFacts)
		if _, err = f.Load(); err == nil {
			err = f.Append(&batch, false)
		}
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		good = b.indexFile()
	}
	bad := bytes.Clone(good)
	if at < len(bad) {
		bad[at] ^= 1 << (at % 8)
	} else {
		bad = append(bad, make([]byte, 4096)...)
	}
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if !quiet {
		old := time.Now().Add(-time.Minute)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(b.path+"/cur/.x", 0o700), os.Remove(b.path+"/cur/.x")); err != nil { // cur is to be read
		t.Fatal(err)
	}
	var log bytes.Buffer
	p := &box{t: t, path: b.path}
	p.start(Options{NoNotify: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	p.sync(Serve)
	var got []string
	snap := p.Snapshot()
	for _, msg := range snap.Range(0, snap.Len()) {
		text := make([]byte, 9)
		f, err := p.OpenMessage(t.Context(), msg)
		if err == nil {
			n, _ := f.ReadAt(text, 0)
			text = text[:n]
			f.Close()
		}
		got = append(got, fmt.Sprint(msg.UID, p.Snapshot().AppendFlagNames(nil, msg.Marks()), string(text), err))
	}
	if want := []string{"1 [\\Flagged]1.h<nil>", "3 []3.h<nil>", "4 [\\Seen \\Answered]4.h<nil>"}; !slices.Equal(got, want) {
		t.Errorf("octet %d: %q, want %q", at, got, want)
	}
	p.end()
	return log.String()
}

// Whatever octet of an index is damaged, whether its times tell so or not, clients see
// the mailbox as it is, and the log has one line.
func TestIndexFlips(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	for _, n := range []string{"1.h:2,", "2.h:2,T", "3.h:2,", "4.h:2,S"} {
		b.deliver("cur", n, n[:3])
	}
	b.sync(Serve)
	b.remembering()
	if _, err := b.Expunge(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	b.calm()
	b.end()
	b = b.process(Options{NoNotify: true})
	b.rewrite()
	b.flag(1)
	b.SetFlags(t.Context(), []UID{4}, AddFlags, FlagSet{System: Answered})
	b.calm()
	b.end()
	good := b.indexFile()
	if path := filepath.Join(b.path, index.Name); os.Link(path, path+".kept") != nil {
		t.Fatal("no link")
	}
	check := func(at int, quiet bool, want int) {
		if log := flipped(t, b, good, at, quiet); strings.Count(log, "\n") != want {
			t.Errorf("octet %d of %d, quiet %v: the log has not %d lines:\n%s", at, len(good), quiet, want, log)
		}
	}
	for _, quiet := range []bool{false, true} {
		for at := range good {
			if at%4 != 0 && os.Getenv("IMAPD_SOAK") == "" {
				continue
			}
			want := 1
			if quiet && 84 <= at && at < 88 {
				want = 0 // nothing is there
			}
			check(at, quiet, want)
		}
		check(1<<20, quiet, 1)
	}
}
