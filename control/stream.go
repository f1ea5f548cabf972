package control

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// A stream is the connection of a pipe or terminal: what is read from one file
// and written to another.
type stream struct {
	in  reader
	out writer
}

type reader interface {
	io.ReadCloser
	SetReadDeadline(time.Time) error
}

type writer interface {
	io.WriteCloser
	SetWriteDeadline(time.Time) error
}

func (s *stream) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *stream) Write(p []byte) (int, error) { return s.out.Write(p) }

func (s *stream) Close() error {
	return errors.Join(s.in.Close(), s.out.Close())
}

func (s *stream) LocalAddr() net.Addr  { return streamAddr{} }
func (s *stream) RemoteAddr() net.Addr { return streamAddr{} }

// Deadlines have no effect on a regular file, where nothing ever waits.

func (s *stream) SetReadDeadline(t time.Time) error  { return ifAny(s.in.SetReadDeadline(t)) }
func (s *stream) SetWriteDeadline(t time.Time) error { return ifAny(s.out.SetWriteDeadline(t)) }

func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func ifAny(err error) error {
	if errors.Is(err, os.ErrNoDeadline) {
		return nil
	}
	return err
}

// streamAddr is the address of both ends of a stream.
type streamAddr struct{}

func (streamAddr) Network() string { return "stdio" }
func (streamAddr) String() string  { return "local" }
