package uidlist

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"

	"imapd/maildir/vfs"
)

// Compact replaces the list of dir, durably, by one that has only those lines of f for
// whose UID keep is true, as they are. f is the list of dir, of version 3 and without
// damage, as Each or Read has seen it when it was as old says; the caller has held the
// lock since. A file that has been written to meanwhile is left alone, and the error is
// ErrChanged. next goes into the header: no UID of a line that is dropped is given
// again. It returns how many lines are left, and the Stat of the new file.
func (f *File) Compact(dir vfs.Dir, old Stat, next uint32, keep func(uid uint32) bool) (lines int, st Stat, err error) {
	st, err = replace(dir, func(w io.Writer) error {
		out := bufio.NewWriterSize(w, streamBuffer)
		header := true
		err := f.wholeLines(old.Size, func(text []byte) error {
			if header {
				first, rest, _ := cutLine(text)
				var l List
				if err := l.parseHeader(string(first)); err != nil {
					return fmt.Errorf("%s: %w", f.path, err)
				}
				l.Next = max(l.Next, next)
				out.Write(l.AppendHeader(nil)) // an error sticks
				text, header = rest, false
			}
			lines += filter(out, text, keep)
			return nil
		})
		if err == nil && header {
			err = fmt.Errorf("%s: %w", f.path, ErrHeader)
		}
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			return err
		}
		if now, err := StatFile(dir); err != nil || now != old {
			return fmt.Errorf("%s: %w", f.path, ErrChanged)
		}
		return nil
	})
	return lines, st, err
}

// filter writes the lines of text for whose UID keep is true, and returns how many
// they are.
func filter(out *bufio.Writer, text []byte, keep func(uid uint32) bool) (kept int) {
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n') + 1
		if keep(leadingUID(string(text[:min(end, 16)]))) {
			out.Write(text[:end])
			kept++
		}
		text = text[end:]
	}
	return kept
}

// wholeLines calls yield with the first size octets of the file, piece by piece, each
// of which ends with a line. It is valid during the call. The error is that of a read,
// or of yield, or ErrTorn where the file is shorter or has a line without end.
func (f *File) wholeLines(size int64, yield func(text []byte) error) error {
	buf := make([]byte, min(streamBuffer, size))
	vfs.Prefault(buf)
	for have, off := 0, int64(0); off < size; {
		n := min(int64(len(buf)-have), size-off)
		k, err := vfs.ReadFullAt(f.fd, buf[have:have+int(n)], off)
		if err == io.EOF || n == 0 { // n is 0: a line without end
			return ErrTorn
		}
		if err != nil {
			return &os.PathError{Op: "read", Path: f.path, Err: err}
		}
		have, off = have+k, off+int64(k)
		end := bytes.LastIndexByte(buf[:have], '\n') + 1
		if end > 0 {
			if err := yield(buf[:end]); err != nil {
				return err
			}
		}
		have = copy(buf, buf[end:have])
	}
	return nil
}
