package uidlist

import "bytes"

// Find sets the UID of each base name in found that the file has a line of; of two
// lines of one the last counts. It reads no more of the other lines than where they
// end: the first size octets of the file are a list of version 3 without damage, as
// Each or Read has seen, and a caller who must be sure that it is still that one
// compares its Stat. The error is that of a read, or ErrTorn where the file is
// shorter.
func (f *File) Find(size int64, found map[string]uint32) error {
	header := true
	return f.wholeLines(size, func(text []byte) error {
		if header {
			text, header = text[bytes.IndexByte(text, '\n')+1:], false
		}
		find(text, found)
		return nil
	})
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
