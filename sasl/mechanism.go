package sasl

import (
	"errors"

	"github.com/emersion/go-sasl"

	"imapd/control/config"
)

// ErrMechanism says that there is no such mechanism.
var ErrMechanism = errors.New("no mechanism available")

// ErrProtocol says that what the client sent is not of its mechanism (BAD).
var ErrProtocol = errors.New("bad protocol / cancel")

// Mechanisms returns the names of the mechanisms to announce, in upper case.
// private says that nobody else reads the connection: TLS, an external layer
// of ssf 2 or more, a socket of this machine. All mechanisms of this version
// send the password as it is, so without private they need allowplaintext.
func Mechanisms(c *config.Config, private bool) []string {
	if !private && !c.AllowPlaintext {
		return nil
	}
	return c.Mechanisms
}

// A Check is asked once, when the client has said everything. The server's
// Next returns its error as it is. authzid is empty where the client did not
// ask for another identity.
type Check func(authzid, authcid, password string) error

// NewServer returns the server's side of one exchange of the mechanism mech,
// a name in upper case that Mechanisms returned; ErrMechanism otherwise.
//
// Next gets what the client sent: nil if it sent no initial response, an empty
// slice for an empty one ("="). After an error or done it returns ErrProtocol
// for ever. Its error is ErrProtocol for a response that is malformed, else
// what check returned. Cancelling ("*") and the limit of a line are the
// caller's.
func NewServer(mech string, check Check) (sasl.Server, error) {
	g := new(guard)
	asked := func(authzid, authcid, password string) error {
		g.asked = true
		return check(authzid, authcid, password)
	}
	switch mech {
	case "PLAIN":
		g.Server = sasl.NewPlainServer(asked)
	case "LOGIN":
		g.Server = &login{check: asked}
	default:
		return nil, ErrMechanism
	}
	return g, nil
}

// guard makes the servers of go-sasl safe to drive: none is called again after
// its end (one of them would panic), and an error of the exchange itself, which
// there has no type, becomes ErrProtocol.
type guard struct {
	sasl.Server
	asked bool // check was called: an error is its own
	over  bool
}

func (g *guard) Next(response []byte) (challenge []byte, done bool, err error) {
	if g.over {
		return nil, false, ErrProtocol
	}
	challenge, done, err = g.Server.Next(response)
	g.over = done || err != nil
	if err != nil {
		if !g.asked {
			err = ErrProtocol
		}
		return nil, false, err
	}
	return challenge, done, nil
}

// login is the server of LOGIN, which never became an RFC: two prompts, two
// answers (draft-murchison-sasl-login-00). An initial response, which the
// draft does not know, is the name, as clients with SASL-IR send it.
type login struct {
	check  Check
	prompt int
	user   string
}

func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil && l.prompt == 0 {
		l.prompt = 1
		return []byte("Username:"), false, nil
	}
	if l.prompt < 2 {
		l.user, l.prompt = string(response), 2
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check("", l.user, string(response))
}
