// Package unpack reads messages that were compressed where they lie.
//
// Sites compress old mail to save disk, with Dovecot's zlib plugin or with a
// script that replaces files; the names stay, and S= and W= in them stay those of
// the mail. Which files are compressed is told by their first octets alone, as
// Dovecot does. None of the signatures can begin a message: where a header field's
// name or an mbox line would stand they have octets that neither can hold.
//
// A file is unpacked as a whole before anything of it is read, since a message
// is read at random. Small ones are held in memory, others in a file without a
// name. Whoever puts a file into a Maildir may have made it to hurt: what comes
// out is bounded, and so are the windows that its header asks for.
package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// A Format is how a file is compressed.
type Format uint8

// The formats. Dovecot's zlib plugin has a form of LZ4 of its own.
const (
	Plain Format = iota
	Gzip
	Bzip2
	Zstd
	LZ4
	DovecotLZ4
	XZ
)

// SignatureSize is how many octets Detect wants to see.
const SignatureSize = 16

var signatures = []struct {
	begin  string
	format Format
}{
	{"\x1f\x8b\x08", Gzip}, // RFC 1952: deflate is the only method
	{"\x28\xb5\x2f\xfd", Zstd},
	{"\x04\x22\x4d\x18", LZ4},
	{"\xfd7zXZ\x00", XZ},
	{"Dovecot-LZ4\x0d\x2a\x9b\xc5", DovecotLZ4},
}

// The number that begins a block of bzip2, and the one that ends the stream.
var bzip2Blocks = []string{"\x31\x41\x59\x26\x53\x59", "\x17\x72\x45\x38\x50\x90"}

// Detect returns the format of a file that begins with head.
func Detect(head []byte) Format {
	for _, s := range signatures {
		if bytes.HasPrefix(head, []byte(s.begin)) {
			return s.format
		}
	}
	if len(head) >= 10 && string(head[:3]) == "BZh" && '1' <= head[3] && head[3] <= '9' {
		for _, b := range bzip2Blocks {
			if string(head[4:10]) == b {
				return Bzip2
			}
		}
	}
	return Plain
}

// The largest window that a file may ask for: what zstd -19 and xz -9 use.
const (
	zstdWindow = 32 << 20
	xzWindow   = 64 << 20
)

// decoder returns a reader of what src holds, and what ends it.
func decoder(f Format, src *bufio.Reader) (r io.Reader, end func(), err error) {
	end = func() {}
	switch f {
	case Gzip:
		r, err = gzip.NewReader(src)
	case Bzip2:
		r = bzip2.NewReader(src)
	case Zstd:
		var d *zstd.Decoder
		// One goroutine: this one.
		d, err = zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err == nil {
			r, end = d, d.Close
		}
	case LZ4:
		d := lz4.NewReader(src)
		err = d.Apply(lz4.ConcurrencyOption(1))
		r = d
	case DovecotLZ4:
		r, err = newDovecotLZ4(src)
	case XZ:
		r, err = xz.NewReader(src, xzWindow)
	default:
		r = src
	}
	return r, end, err
}
