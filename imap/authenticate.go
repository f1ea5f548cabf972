package imap

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"imapd/imap/wire"
	"imapd/sasl"
)

// AUTHENTICATE logs in by a SASL mechanism, with or without an initial
// response. See RFC 9051 section 6.2.2, and RFC 4959.
var _ = register(Extension{
	Name: "AUTHENTICATE",
	RFC:  4959,
	Caps: func(s *Session) []string {
		if s.user != nil {
			return nil
		}
		caps := []string{"SASL-IR"}
		if s.protected() == nil {
			for _, m := range s.conf.Mechanisms {
				caps = append(caps, "AUTH="+m)
			}
		}
		return caps
	},
	Commands: []Command{unauthedStream("AUTHENTICATE", (*Session).authenticate).with(Silent)},
})

// protected refuses mechanisms on a connection that is not as strong as
// sasl_minimum_layer wants it, or where somebody could read a password: every
// mechanism of this version sends it.
func (s *Session) protected() error {
	if err := s.private(); err != nil {
		return err
	}
	if s.ssf < s.conf.MinimumLayer {
		return no("PRIVACYREQUIRED", "Encryption needed to use mechanism")
	}
	return nil
}

// errCanceled: the client sent "*" instead of a response.
var errCanceled = bad("Authentication canceled")

func (s *Session) authenticate(d *wire.Decoder) error {
	d.SP()
	mech := strings.ToUpper(d.Atom())
	var response []byte
	if d.AcceptSP() {
		initial := d.Atom()
		if initial == "=" { // RFC 4959 section 3: empty, but there
			initial = ""
		}
		var err error
		if response, err = decode64(initial); err != nil && d.Err() == nil {
			d.FailText("", "Invalid base64 data")
		}
	}
	if err := d.End(); err != nil {
		return err
	}
	known := slices.Contains(s.conf.Mechanisms, mech)
	if err := s.protected(); err != nil {
		if !known {
			mech = "" // whatever it is
		}
		s.logInClear(mech)
		return err
	}
	if !known {
		return no("CANNOT", "Unsupported authentication mechanism")
	}
	tried := attempt{mech: mech}
	var who sasl.Identity
	server, err := sasl.NewServer(mech, func(authzid, authcid, password string) (err error) {
		tried.authcid, tried.authzid = authcid, authzid
		who, err = s.verify(authzid, authcid, password)
		return err
	})
	if err != nil {
		return no("CANNOT", "Unsupported authentication mechanism")
	}
	for {
		challenge, done, err := server.Next(response)
		switch {
		case err != nil:
			return s.loginFailed(tried, err)
		case done:
			return s.login(who, mech)
		}
		if response, err = s.exchange(d, challenge); err != nil {
			return err
		}
	}
}

// exchange sends a challenge and returns the response to it, never nil. A
// response that is none, a client that gives up, even by sending another
// command, are answered with BAD and count as a failed login.
func (s *Session) exchange(d *wire.Decoder, challenge []byte) ([]byte, error) {
	s.out = append(s.out, "+ "...)
	s.out = base64.StdEncoding.AppendEncode(s.out, challenge)
	s.out = append(s.out, "\r\n"...)
	line, cancel := d.Base64Line(s.conf.Limits.SASLResponse)
	if err := d.Err(); err != nil {
		return nil, err
	}
	response, err := decode64(string(line))
	switch {
	case cancel:
		err = errCanceled
	case err != nil:
		err = bad("Invalid base64 data")
	}
	if err != nil {
		if pause := s.failedTry(); pause != nil {
			return nil, pause
		}
		return nil, err
	}
	return response, nil
}

// decode64 decodes base64 as RFC 4648 section 4 has it, and nothing looser.
func decode64(text string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if b == nil {
		b = []byte{}
	}
	if strings.ContainsAny(text, "\r\n") {
		err = errors.New("line break in base64")
	}
	return b, err
}
