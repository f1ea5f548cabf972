// Package sasl decides who a client is: the mechanisms of AUTHENTICATE, the
// passwords behind them and behind LOGIN, and the users that they belong to.
//
// A session makes a Server of this package (or has a name and password from
// LOGIN) and gives what it learns to Authenticator.Login. Mechanisms know no
// passwords, back ends know no protocol, and neither knows a Maildir.
package sasl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"imapd/control/config"
)

// The errors of Login and Canonical, for errors.Is. Their texts are those of
// Cyrus's log lines, behind "SASL(-13): ", and are not for the client: to it
// an unknown user and a wrong password must look the same. Any other error
// means that the answer could not be found out now (NO [UNAVAILABLE]).
var (
	// ErrBadPassword says that name and password do not belong together.
	ErrBadPassword = errors.New("authentication failure: checkpass failed")
	// ErrNoUser is an ErrBadPassword too: there is no such user.
	ErrNoUser error = denial("user not found: checkpass failed")
	// ErrLocked is an ErrBadPassword too: nobody is to come in as that user,
	// whatever another back end says.
	ErrLocked error = denial("authentication failure: user is locked")
	// ErrNotAllowed says that the password is right, but that the user may
	// not act for the one that was asked for (NO [AUTHORIZATIONFAILED]).
	ErrNotAllowed = errors.New("authentication failure")
	// ErrInvalidUser says that no user can have that name.
	ErrInvalidUser = errors.New("invalid user")
)

// A denial is a kind of ErrBadPassword.
type denial string

func (d denial) Error() string      { return string(d) }
func (denial) Is(target error) bool { return target == ErrBadPassword }

// A User is what a back end knows of a user.
type User struct {
	// Name is the canonical name.
	Name string
	// UID and GID are the user's of the system, or -1 where unknown.
	UID, GID int
	// Home is an absolute path, or empty where unknown.
	Home string
	// Extra are further facts of the back end, such as the userdb_ fields
	// of a passwd-file, without that prefix. Not to be changed.
	Extra map[string]string
}

// A Backend knows users and their passwords. It is safe for use by several
// goroutines.
type Backend interface {
	// Verify returns the user that has this canonical name and password,
	// and ErrNoUser, ErrLocked or ErrBadPassword otherwise, after about the same time.
	Verify(ctx context.Context, user, password string) (User, error)
	// Lookup returns the user of this canonical name, or ErrNoUser, or ErrLocked
	// where what is known of the user is of no use.
	Lookup(ctx context.Context, user string) (User, error)
}

// An Identity is who a session acts as after login.
type Identity struct {
	User
	// Login is the canonical name of the user whose password was given. It
	// differs from User.Name where an administrator or one of proxyservers
	// acts for a user.
	Login string
	// Admin is set where User.Name is one of the administrators. One who
	// acts for an ordinary user is an ordinary user.
	Admin bool
	// Ticket is what the process of the user is to be had for, where users
	// have processes of their own; else empty.
	Ticket []byte `json:",omitempty"`
}

// An Authenticator asks the back ends in turn. It is safe for use by several
// goroutines.
type Authenticator struct {
	backends []Backend
	admins   []string
	proxies  []string
	lower    bool
	denied   denyList
}

// New returns the Authenticator that the configuration asks for. It opens its
// files by open, now and whenever they have changed. Faults of its files that
// do not keep others from logging in go to log. The error says which file
// cannot be read, and why.
func New(c *config.Config, open config.Opener, log *slog.Logger) (*Authenticator, error) {
	a := &Authenticator{admins: c.Admins, proxies: c.ProxyServers, lower: c.UsernameToLower, denied: denyList{c.UserDeny, c.Service, open}}
	if err := a.denied.check(""); err != nil {
		return nil, c.At("userdeny_db_path", err)
	}
	for _, method := range c.PwcheckMethods {
		switch {
		case method == "saslauthd":
			a.backends = append(a.backends, NewSaslauthd(c))
		case method == "passwd-file" && c.PasswdFile != "":
			p, err := OpenPasswdFile(c, open, log)
			if err != nil {
				return nil, c.At("sasl_passwd_file", err)
			}
			a.backends = append(a.backends, p)
		}
	}
	return a, nil
}

// A Checker knows passwords, or whom to ask.
type Checker interface {
	Login(ctx context.Context, authzid, authcid, password string) (Identity, error)
}

// Checkers returns how this process gets a Checker for one reading of the
// configuration: the Remote that asks over the Channel whose end asks is, always
// the same, or New where asks is nil.
func Checkers(asks *os.File, again func() (*os.File, error), open config.Opener, log *slog.Logger) (func(*config.Config) (Checker, error), error) {
	if asks == nil {
		return func(c *config.Config) (Checker, error) { return New(c, open, log) }, nil
	}
	r, err := NewRemote(asks, again)
	return func(*config.Config) (Checker, error) { return r, nil }, err
}

// NewAuthenticator returns an Authenticator over backends. admins and proxies
// (proxyservers) are canonical names; lower is username_tolower.
func NewAuthenticator(admins, proxies []string, lower bool, backends ...Backend) *Authenticator {
	return &Authenticator{backends: backends, admins: slices.Clone(admins), proxies: slices.Clone(proxies), lower: lower}
}

// maxPassword bounds what is hashed, in octets; crypt(3) takes 512.
const maxPassword = 1024

// Login returns the identity of a client that gave the name authcid and the
// password. authzid, where not empty, is the user that it wants to act as;
// only administrators and proxyservers may name another than themselves. They
// are that user then, with no more and no fewer rights: who authorizes as an
// administrator is one, and an administrator who authorizes as alice is not.
func (a *Authenticator) Login(ctx context.Context, authzid, authcid, password string) (Identity, error) {
	login, err := Canonical(authcid, a.lower)
	if err != nil {
		return Identity{}, err
	}
	target := login
	if authzid != "" {
		if target, err = Canonical(authzid, a.lower); err != nil {
			return Identity{}, err
		}
	}
	// An empty password never opens anything, whatever a back end holds:
	// clients send one when a field of a form was left out.
	if password == "" || len(password) > maxPassword || strings.IndexByte(password, 0) >= 0 {
		return Identity{}, ErrBadPassword
	}
	user, err := a.ask(func(b Backend) (User, error) { return b.Verify(ctx, login, password) })
	if err != nil {
		return Identity{}, err
	}
	if target != login {
		refused := fmt.Errorf("%w: user %s is not allowed to proxy", ErrNotAllowed, login)
		if !slices.Contains(a.admins, login) && !slices.Contains(a.proxies, login) {
			return Identity{}, refused
		}
		user, err = a.ask(func(b Backend) (User, error) { return b.Lookup(ctx, target) })
		if errors.Is(err, ErrNoUser) || errors.Is(err, ErrLocked) {
			return Identity{}, fmt.Errorf("%w: user %s asked for is not known", ErrNotAllowed, target)
		}
		if err != nil {
			return Identity{}, err
		}
	}
	if !slices.Contains(a.admins, login) {
		if err := a.denied.check(target); err != nil {
			return Identity{}, err
		}
	}
	return Identity{User: user, Login: login, Admin: slices.Contains(a.admins, target)}, nil
}

// Lookup returns the user of that name, without a password, for whom an
// administrator acts. Its errors are those of Login.
func (a *Authenticator) Lookup(ctx context.Context, name string) (User, error) {
	name, err := Canonical(name, a.lower)
	if err != nil {
		return User{}, err
	}
	return a.ask(func(b Backend) (User, error) { return b.Lookup(ctx, name) })
}

// ask returns the first success of the back ends; who is locked in one is not asked
// of those behind it. Without a success, a back end that could not answer outweighs
// those that said no: it might have said yes.
func (a *Authenticator) ask(question func(Backend) (User, error)) (User, error) {
	var no, broken error = ErrNoUser, nil
	for _, b := range a.backends {
		user, err := question(b)
		switch {
		case err == nil:
			return user, nil
		case errors.Is(err, ErrLocked):
			return User{}, err
		case !errors.Is(err, ErrBadPassword):
			broken = err
		case !errors.Is(err, ErrNoUser):
			no = err
		}
	}
	if broken != nil {
		return User{}, broken
	}
	return User{}, no
}

// maxUser is the longest canonical name in octets, as in Cyrus.
const maxUser = 80

// Canonical returns the form of a user's name that everything behind login
// uses: in lower case with lower. Names that no user can have are
// ErrInvalidUser: empty or above 80 octets, with controls, 8-bit octets or one
// of %&*/:? in them (Cyrus's rule), with two dots in a row or only a dot (they
// would be paths), and the names that stand for everybody in access lists.
func Canonical(name string, lower bool) (string, error) {
	if name == "" || len(name) > maxUser || name == "." || strings.Contains(name, "..") {
		return "", ErrInvalidUser
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c < ' ' || c >= 0x7f || strings.IndexByte("%&*/:?", c) >= 0 {
			return "", ErrInvalidUser
		}
	}
	if lower {
		name = strings.ToLower(name)
	}
	for _, reserved := range []string{"anonymous", "anybody", "anyone"} {
		if strings.EqualFold(name, reserved) {
			return "", ErrInvalidUser
		}
	}
	return name, nil
}
