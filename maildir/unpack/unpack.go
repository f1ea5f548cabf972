package unpack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"

	"imapd/maildir/vfs"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrDamaged = errors.New("compressed message is damaged")
	ErrTooBig  = errors.New("compressed message is too big")
)

// A Message is what a compressed file holds. Any number of goroutines may read
// it, until it is closed.
type Message struct {
	data []byte
	file vfs.File // nil: all of it is in data
	size int64
}

// Memory is the size in octets up to which a message is held in memory.
const Memory = 256 << 10

// buffers are for reading and for what goes to a file.
var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// Open unpacks src, which is of the format f. More than limit octets are
// ErrTooBig, as is what needs too much memory; what cannot be unpacked to its end
// is ErrDamaged. Errors of reading src, of scratch and of ctx come through
// wrapped. The caller closes the Message.
func Open(ctx context.Context, src io.Reader, f Format, limit int64, scratch func() (vfs.File, error)) (*Message, error) {
	in := &source{r: src}
	m := &Message{}
	err := m.fill(ctx, in, f, limit, scratch)
	if err == nil {
		return m, nil
	}
	m.Close()
	var own *ownError
	switch {
	case in.err != nil:
		return nil, fmt.Errorf("unpack: %w", in.err)
	case errors.As(err, &own):
		return nil, fmt.Errorf("unpack: %w", own.err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, xz.ErrMemlimit):
		return nil, fmt.Errorf("%w: %v", ErrTooBig, err)
	}
	// Not wrapped: the end of a file is not that of a connection.
	return nil, fmt.Errorf("%w: %v", ErrDamaged, err)
}

// A source remembers that reading the file itself has failed.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// An ownError is not one of the decoder.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }

func (m *Message) fill(ctx context.Context, src io.Reader, f Format, limit int64, scratch func() (vfs.File, error)) error {
	r, end, err := decoder(f, bufio.NewReaderSize(src, 32<<10))
	if err != nil {
		return noEOF(err)
	}
	defer end()
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	for {
		if err := ctx.Err(); err != nil {
			return &ownError{err}
		}
		n, err := readFull(r, *bp)
		if m.size += int64(n); m.size > limit {
			return &ownError{fmt.Errorf("%w: more than %d octets", ErrTooBig, limit)}
		}
		if werr := m.put((*bp)[:n], scratch); werr != nil {
			return &ownError{werr}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readFull fills p as far as r goes. Unlike io.ReadFull it returns the error of r
// as it is: io.EOF is an end, io.ErrUnexpectedEOF is not.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for idle := 0; n < len(p) && err == nil; idle++ {
		var k int
		k, err = r.Read(p[n:])
		if n += k; k > 0 {
			idle = 0
		}
		if idle == 100 {
			return n, io.ErrNoProgress
		}
	}
	return n, err
}

// put adds p to the message.
func (m *Message) put(p []byte, scratch func() (vfs.File, error)) error {
	if m.file == nil && len(m.data)+len(p) <= Memory {
		m.data = append(m.data, p...)
		return nil
	}
	if m.file == nil {
		f, err := scratch()
		if err != nil {
			return err
		}
		m.file = f
		if _, err := f.Write(m.data); err != nil {
			return err
		}
		m.data = nil
	}
	_, err := m.file.Write(p)
	return err
}

// Size returns the octets of the message.
func (m *Message) Size() int64 { return m.size }

// ReadAt reads octets of the message.
func (m *Message) ReadAt(p []byte, off int64) (int, error) {
	if m.file != nil {
		return m.file.ReadAt(p, off)
	}
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close gives back what the message takes. A second call does nothing.
func (m *Message) Close() error {
	m.data = nil
	if m.file == nil {
		return nil
	}
	err := m.file.Close()
	m.file = nil
	return err
}
