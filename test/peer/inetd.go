package peer

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// Inetd starts one more process of our own server, with the configuration of s,
// as inetd does: for one connection, of which it returns the client's end. The
// caller waits for the process, which ends with the connection.
func (s *Server) Inetd(t testing.TB) (net.Conn, *exec.Cmd, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	c := exec.Command(Binary(t), "-C", s.conf)
	c.Env = append(os.Environ(), "PROTO=TCP")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := serve(l, c); err != nil {
		near.Close()
		return nil, nil, fmt.Errorf("inetd: %w", err)
	}
	return near, c, nil
}

// serve starts c with the next connection of l on its standard input, output and
// error.
func serve(l net.Listener, c *exec.Cmd) error {
	far, err := l.Accept()
	if err != nil {
		return err
	}
	defer far.Close()
	f, err := far.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	defer f.Close()
	c.Stdin, c.Stdout, c.Stderr = f, f, f
	return c.Start()
}
