package admin

import (
	"context"
	"errors"
	"io"
	"os/user"

	"imapd/control"
	"imapd/sasl"
)

var _ = register(Command{
	Name: "session", Args: "[user]", Help: "speak IMAP as a user, without a password, whatever msg/shutdown says",
	Max:   1,
	Run:   (*call).session,
	Serve: serveSession,
})

// session joins standard input and output to a session that greets with
// PREAUTH.
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
	conn, err := c.last().dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	r, _, err := request1(conn, "session", name)
	if err != nil {
		return err
	}
	// Ends with the process where the server ends first: standard input
	// cannot be taken away from a read.
	go func() {
		_, _ = io.Copy(conn, c.in)
		_ = conn.CloseWrite()
	}()
	_, err = io.Copy(c.out, r)
	return err
}

// serveSession serves the rest of the connection as an IMAP client.
func serveSession(ctx context.Context, s *Server, r *request) (string, error) {
	users := s.opt.Users()
	if users == nil {
		return "", errors.New("this daemon cannot begin sessions")
	}
	u, err := users.Lookup(ctx, r.argument)
	if errors.Is(err, sasl.ErrNoUser) || errors.Is(err, sasl.ErrInvalidUser) {
		return "", errors.New("there is no user " + control.Escape(r.argument))
	}
	if err != nil {
		return "", err
	}
	answer(r.conn, "the session begins", nil)
	s.opt.Serve(ctx, &control.Conn{
		Conn: r.conn, Host: "[unix socket]", Private: true,
		Preauth: &control.Caller{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home, Admin: true},
	})
	return "", errAnswered
}
