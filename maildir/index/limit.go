package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// The lock file is what is left when the index is lost: it is never renamed and
// never written anew. So it says how far modseqs may have gone, and the next index
// begins above that. It is also where a process that cannot write the index leaves
// word that it goes on without, so that whoever reads the index later does not take
// it for all that clients were told.
//
// It has two sealed lines (package vfs) of one length, "<crc> L <limit>". The
// higher one counts. The lower one is written over, and synced before anything is
// told: a torn write leaves the other one. A file of a version that wrote nothing
// there is empty, or says nothing.
//
// Lines are written with the lock held, but for the word of a process that cannot
// get it. That may hit the line that another is writing: so each looks again after its
// sync.
//
// Rejected: a third file, which one could forget to delete, or to keep, with the
// other two.

const (
	limitLine  = 32 // "<crc> L " and 20 digits, LF
	limitLines = 2
)

// Limit returns what the lock file said when Lock or ReadLimit last read it: all
// modseqs that anybody was told are below. 0: it says nothing.
func (f *File) Limit() uint64 { return f.limit }

// ReadLimit reads Limit without the lock.
func (f *File) ReadLimit() uint64 {
	f.limit = 0
	fd, _, err := vfs.OpenRegular(f.Dir, LockName)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var b [limitLine * limitLines]byte
	n, err := vfs.ReadFullAt(fd, b[:], 0)
	if err == nil || err == io.EOF {
		f.limit, _ = parseLimit(b[:n])
	}
	return f.limit
}

// Exceed leaves word that modseqs are told that the index does not know of: Limit is
// above what it was, and at least to. The lock need not be held.
func (f *File) Exceed(to uint64) error {
	l := f.lock
	if l == nil {
		var err error
		if l, err = f.Dir.Update(LockName); err != nil {
			return err
		}
		defer l.Close()
	}
	for range 3 {
		now, free, _, err := readLimit(l)
		if err != nil {
			return err
		}
		to = max(to, now+1)
		if _, err := l.WriteAt(sealLimit(to), int64(free*limitLine)); err != nil {
			return err
		}
		if err := l.Datasync(); err != nil {
			return err
		}
		// Who has raised it since may not have seen our word.
		if f.limit, _, _, err = readLimit(l); err != nil || f.limit == to {
			return err
		}
	}
	return f.unsettled()
}

func (f *File) unsettled() error {
	return fmt.Errorf("%s/%s: written by others all the time", f.Dir.Path(), LockName)
}

// RaiseLimit has Limit be at least to, durably if asked, in all processes that read it
// from now on. The lock is held.
func (f *File) RaiseLimit(to uint64, durable bool) error {
	l := f.lock
	for range 3 {
		now, free, first, err := readLimit(l)
		if err != nil || now >= to {
			f.limit = now
			return err
		}
		if _, err := l.WriteAt(sealLimit(to), int64(free*limitLine)); err != nil {
			return err
		}
		if !durable {
			f.limit = to
			return nil
		}
		if err := l.Datasync(); err != nil {
			return err
		}
		if first { // the file may be as new
			if err := f.Dir.Sync(); err != nil {
				return err
			}
		}
	}
	return f.unsettled()
}

func sealLimit(to uint64) []byte {
	return vfs.AppendSealed(nil, func(b []byte) []byte { return fmt.Appendf(b, "L %020d", to) })
}

// readLimit returns what the lock file says, which line may be written over, and
// whether no line says anything.
func readLimit(l vfs.File) (limit uint64, free int, none bool, err error) {
	var b [limitLine * limitLines]byte
	n, err := l.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return 0, 0, false, fmt.Errorf("read %s: %w", LockName, err)
	}
	limit, free = parseLimit(b[:n])
	return limit, free, limit == 0, nil
}

// parseLimit returns the highest limit that b says, 0 if none, and the line that says
// the least.
func parseLimit(b []byte) (limit uint64, free int) {
	least := uint64(maxSane)
	for i := range limitLines {
		n := uint64(0)
		if end := (i + 1) * limitLine; end <= len(b) && b[end-1] == '\n' {
			if text, ok := vfs.Unseal(b[i*limitLine : end-1]); ok && string(text[:2]) == "L " {
				n, _ = strconv.ParseUint(string(text[2:]), 10, 64)
			}
		}
		if n > maxSane {
			n = 0
		}
		if limit = max(limit, n); n < least {
			least, free = n, i
		}
	}
	return limit, free
}

// Forsake removes the index, durably, where Exceed cannot leave word. The lock need not
// be held.
func (f *File) Forsake() error {
	if err := f.Dir.Unlink(Name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return f.Dir.Sync()
}
