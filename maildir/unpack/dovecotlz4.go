package unpack

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/pierrec/lz4/v4"
)

// A dovecotLZ4 reads what Dovecot's zlib plugin calls lz4: the signature, the
// size of the largest chunk, then chunks that are each a size and a block of LZ4.
// Sizes have 32 bits, the highest octet first. The end of the file is the end.
type dovecotLZ4 struct {
	src   io.Reader
	in    []byte
	block []byte
	left  []byte // of block, not read yet
}

// maxChunk bounds the chunks that a file may ask for. Dovecot's have 64 KB.
const maxChunk = 1 << 20

var errChunk = errors.New("lz4: size of a chunk")

func newDovecotLZ4(src io.Reader) (*dovecotLZ4, error) {
	var head [15 + 4]byte
	if _, err := io.ReadFull(src, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[15:])
	if size == 0 || size > maxChunk {
		return nil, errChunk
	}
	return &dovecotLZ4{src: src, block: make([]byte, size)}, nil
}

func (d *dovecotLZ4) Read(p []byte) (int, error) {
	for len(d.left) == 0 {
		if err := d.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.left)
	d.left = d.left[n:]
	return n, nil
}

// next unpacks a chunk. The error is io.EOF where none begins.
func (d *dovecotLZ4) next() error {
	var prefix [4]byte
	if _, err := io.ReadFull(d.src, prefix[:]); err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint32(prefix[:]))
	if size == 0 || size > lz4.CompressBlockBound(len(d.block)) {
		return errChunk
	}
	if cap(d.in) < size {
		d.in = make([]byte, size)
	}
	if _, err := io.ReadFull(d.src, d.in[:size]); err != nil {
		return noEOF(err)
	}
	n, err := lz4.UncompressBlock(d.in[:size], d.block)
	if err != nil {
		return err
	}
	d.left = d.block[:n]
	return nil
}

// noEOF makes the end of a file in the middle of something an error.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
