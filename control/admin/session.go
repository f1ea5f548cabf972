package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os/user"

	"imapd/control"
	"imapd/control/config"
	"imapd/sasl"
)

var _ = register(Command{
	Name: "session", Args: "[user]", Help: "speak IMAP as a user, without a password, whatever msg/shutdown says",
	Max:   1,
	Run:   (*call).session,
	Serve: serveSession,
})

// session joins standard input and output to a session that greets with
// PREAUTH. Where a daemon runs that serves all users itself, it begins the
// session. Else imapctl starts the process: where there is no daemon, and where
// every user has a process, whose front must not be able to name users.
func (c *call) session() error {
	if err := c.load(); err != nil {
		return err
	}
	name := ""
	if len(c.args) > 0 {
		name = c.args[0]
	} else if u, err := user.Current(); err == nil {
		name = u.Username
	}
	name, err := c.user(name)
	if err != nil {
		return err
	}
	if c.conf.PrivilegeSeparation == config.SeparateUser {
		return c.begin(name)
	}
	conn, err := c.last().dial()
	if errors.Is(err, errNoDaemon) {
		return c.begin(name)
	}
	if err != nil {
		return err
	}
	r, _, err := request1(conn, answerTime, "session", name)
	if err != nil {
		conn.Close()
		return err
	}
	return c.join(conn, r)
}

// begin is session in processes that this one starts.
func (c *call) begin(name string) error {
	auth, err := sasl.New(c.conf, config.Open, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	u, err := auth.Lookup(context.Background(), name)
	if err == nil && c.conf.PrivilegeSeparation == config.SeparateUser {
		err = sasl.Complete(&u)
	}
	if unknown := nobody(name, err); unknown != nil {
		return &failure{exitUnavailable, unknown}
	}
	if err != nil {
		return err
	}
	conn, wait, err := control.BeginSession(c.conf, c.file, c.service, adminFor(u))
	if err != nil {
		return err
	}
	err = c.join(conn, conn)
	if failed := wait(); failed != nil {
		return &failure{exitUnavailable, failed}
	}
	return err
}

// join copies between standard input and output and the session on conn, whose
// output is read from r, until the session ends. It closes conn.
func (c *call) join(conn *net.UnixConn, r io.Reader) error {
	defer conn.Close()
	// Ends with the process where the server ends first: standard input
	// cannot be taken away from a read.
	go func() {
		_, _ = io.Copy(conn, c.in)
		_ = conn.CloseWrite()
	}()
	_, err := io.Copy(c.out, r)
	return err
}

// nobody returns what to say where err of a look-up means that there is no such
// user, or none of use.
func nobody(name string, err error) error {
	switch {
	case errors.Is(err, sasl.ErrNoUser), errors.Is(err, sasl.ErrInvalidUser):
		return errors.New("there is no user " + control.Escape(name))
	case errors.Is(err, sasl.ErrLocked):
		return errors.New("what is written of user " + control.Escape(name) + " has a fault")
	}
	return nil
}

// adminFor returns the administrator who acts for u.
func adminFor(u sasl.User) *control.Caller {
	return &control.Caller{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home, Admin: true}
}

// serveSession serves the rest of the connection as an IMAP client.
func serveSession(ctx context.Context, s *Server, r *request) (string, error) {
	users := s.opt.Users()
	if users == nil {
		return "", errors.New("this daemon cannot begin sessions")
	}
	u, err := users.Lookup(ctx, r.argument)
	if unknown := nobody(r.argument, err); unknown != nil {
		return "", unknown
	}
	if err != nil {
		return "", err
	}
	answer(r.conn, "the session begins", nil)
	s.opt.Serve(ctx, &control.Conn{
		Conn: r.conn, Host: "[unix socket]", Private: true,
		Preauth: adminFor(u),
	})
	return "", errAnswered
}
