package sasl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"imapd/control/config"
)

// A Saslauthd is a back end that asks saslauthd(8), Cyrus SASL's daemon in front
// of PAM, LDAP and others, over its unix socket. A question is one connection:
// login, password, service and realm, each a length of two octets and the text;
// the answer is one such text, "OK" or anything else.
//
// The daemon says yes or no and nothing of the user, not even whether there is
// one. So homes come from the system's own list, where a template asks for
// them, and Lookup believes in any name where none does.
//
// Without its option -r the daemon drops the realm, and whoever has the
// password of alice would be alice of every realm. That is why realms have to
// be allowed one by one (loginrealms) or all together (virtdomains).
type Saslauthd struct {
	path     string
	realms   []string      // in lower case; not empty: only these
	anyRealm bool          // where realms is empty: every realm, else none
	homes    bool          // users have a home, or are none
	slots    chan struct{} // one for each question that is being asked
	patience time.Duration // for an answer, and the turn to ask

	lookUp func(name string) (*user.User, error) // user.Lookup, or a test's
}

// saslService is the name of the service for PAM, whatever the service is
// called elsewhere: sites have an /etc/pam.d/imap for Cyrus.
const saslService = "imap"

// questions bounds the connections to saslauthd, which has five processes as it
// comes and a short queue.
const questions = 16

// maxField is the longest text that saslauthd takes, in octets.
const maxField = 256

// maxAnswer bounds what is read of an answer, in octets, as in Cyrus SASL.
const maxAnswer = 1024

var errSilent = errors.New("no answer in time")

// NewSaslauthd returns a back end with the socket, realms and templates of c. It
// asks nothing yet: the daemon may come later, or be restarted.
func NewSaslauthd(c *config.Config) *Saslauthd {
	s := &Saslauthd{
		path:     c.SaslauthdPath,
		anyRealm: c.VirtDomains != config.VirtDomainsOff,
		slots:    make(chan struct{}, questions),
		patience: queueTime,
		lookUp:   user.Lookup,
	}
	for _, r := range c.LoginRealms {
		s.realms = append(s.realms, strings.ToLower(r))
	}
	for _, template := range []string{c.Maildir, c.MaildirControl, c.IndexDirectory} {
		s.homes = s.homes || strings.HasPrefix(template, "~")
	}
	return s
}

// Verify implements Backend.
func (s *Saslauthd) Verify(ctx context.Context, name, password string) (User, error) {
	login, realm, err := s.split(name)
	if err != nil {
		return User{}, err
	}
	if login == "" || len(password) > maxField {
		return User{}, ErrBadPassword // the daemon would say no more politely than this
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.patience, errSilent)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return User{}, fmt.Errorf("wait for saslauthd: %w", context.Cause(ctx))
	}
	defer func() { <-s.slots }()
	right, err := s.ask(ctx, login, password, saslService, realm)
	switch {
	case err != nil && ctx.Err() != nil:
		return User{}, fmt.Errorf("ask saslauthd: %w", context.Cause(ctx))
	case err != nil:
		return User{}, err
	case !right:
		return User{}, ErrBadPassword
	}
	u, err := s.user(name)
	if errors.Is(err, ErrNoUser) {
		// The password was right. An administrator needs no home to act for
		// somebody else; who needs one is told so when the mail is opened.
		return User{Name: name, UID: -1, GID: -1}, nil
	}
	return u, err
}

// Lookup implements Backend. Where no template needs a home there is nobody who
// could know that a user does not exist.
func (s *Saslauthd) Lookup(_ context.Context, name string) (User, error) {
	if _, _, err := s.split(name); err != nil {
		return User{}, err
	}
	return s.user(name)
}

// split returns the login and the realm of a name, in which the last "@" stands
// between them.
func (s *Saslauthd) split(name string) (login, realm string, err error) {
	at := strings.LastIndexByte(name, '@')
	if at < 0 {
		return name, "", nil
	}
	login, realm = name[:at], name[at+1:]
	allowed := s.anyRealm && realm != ""
	if len(s.realms) > 0 {
		allowed = slices.Contains(s.realms, strings.ToLower(realm))
	}
	if !allowed {
		return "", "", fmt.Errorf("%w: cross-realm login %s denied", ErrNoUser, name)
	}
	return login, realm, nil
}

// user returns what the system knows of the user name, ErrNoUser where that is
// nothing and a home is needed. The list is /etc/passwd: this program has no
// part of the C library, and so none of its name services. root's home is
// nobody's mail.
func (s *Saslauthd) user(name string) (User, error) {
	u := User{Name: name, UID: -1, GID: -1}
	if !s.homes {
		return u, nil
	}
	found, err := s.lookUp(name)
	if _, unknown := err.(user.UnknownUserError); unknown {
		return u, ErrNoUser
	}
	if err != nil {
		return u, fmt.Errorf("look up system user: %w", err)
	}
	uid, err := strconv.Atoi(found.Uid)
	gid, gidErr := strconv.Atoi(found.Gid)
	if err != nil || gidErr != nil || uid <= 0 {
		return u, ErrNoUser
	}
	u.UID, u.GID, u.Home = uid, gid, found.HomeDir
	return u, nil
}

// ask puts one question. What it returns with an error is no answer at all.
func (s *Saslauthd) ask(ctx context.Context, fields ...string) (bool, error) {
	var question []byte
	for _, f := range fields {
		question = binary.BigEndian.AppendUint16(question, uint16(len(f)))
		question = append(question, f...)
	}
	conn, err := s.dial(ctx)
	if err != nil {
		return false, fmt.Errorf("cannot connect to saslauthd server: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(question); err != nil {
		return false, fmt.Errorf("write to saslauthd: %w", err)
	}
	answer := make([]byte, 2, 2+maxAnswer)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return false, fmt.Errorf("answer of saslauthd: %w", err)
	}
	n := int(binary.BigEndian.Uint16(answer))
	if n < len("OK") {
		return false, errors.New("bad response from saslauthd")
	}
	answer = answer[2 : 2+min(n, maxAnswer)]
	if _, err := io.ReadFull(conn, answer); err != nil {
		return false, fmt.Errorf("answer of saslauthd: %w", err)
	}
	return string(answer[:len("OK")]) == "OK", nil
}

// dial connects to the daemon. The system refuses at once what does not fit
// into its queue, where a blocking connect would wait.
func (s *Saslauthd) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", s.path)
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
