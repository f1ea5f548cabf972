package vfs

import (
	"fmt"
	"hash/crc32"
	"strconv"
)

// Files of ours that are appended to consist of sealed lines, "<crc> <text>":
// crc is the CRC-32C of the text in 8 hex digits. A line that a crash cut short,
// or that something else was written over, does not bear its checksum.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sealLen = 9 // digits and blank

// AppendSealed appends to b the line, LF included, whose text is what text
// appends. There is no LF in it.
func AppendSealed(b []byte, text func([]byte) []byte) []byte {
	start := len(b)
	b = text(append(b, "00000000 "...))
	copy(b[start:], fmt.Sprintf("%08x", crc32.Checksum(b[start+sealLen:], castagnoli)))
	return append(b, '\n')
}

// Unseal returns the text of a line without its LF, and whether it is what was
// written.
func Unseal(line []byte) (text []byte, ok bool) {
	if len(line) < sealLen || line[sealLen-1] != ' ' {
		return nil, false
	}
	sum, err := strconv.ParseUint(string(line[:sealLen-1]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(line[sealLen:], castagnoli) {
		return nil, false
	}
	return line[sealLen:], true
}
