package uidlist

import (
	"bytes"
	"io"
	"os"

	"imapd/maildir/vfs"
)

// Find sets the UID of each base name in found that the file has a line of; of two
// lines of one the last counts. It reads no more of the other lines than where they
// end: the first size octets of the file are a list of version 3 without damage, as
// Each or Read has seen, and a caller who must be sure that it is still that one
// compares its Stat. The error is that of a read, or ErrTorn where the file is
// shorter.
func (f *File) Find(size int64, found map[string]uint32) error {
	buf := make([]byte, min(streamBuffer, size))
	vfs.Prefault(buf)
	header := true
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
		text, rest := buf[:have], buf[bytes.LastIndexByte(buf[:have], '\n')+1:have]
		text = text[:have-len(rest)]
		if header && len(text) > 0 {
			text, header = text[bytes.IndexByte(text, '\n')+1:], false
		}
		find(text, found)
		have = copy(buf, rest)
	}
	return nil
}

// find is Find for whole lines.
func find(text []byte, found map[string]uint32) {
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n')
		line := text[:end]
		text = text[end+1:]
		base := line[bytes.IndexByte(line, ':')+1:]
		if _, ok := found[string(base)]; ok {
			found[string(base)] = leadingUID(string(line))
		}
	}
}
