package imap

import (
	"strings"

	"imapd/control"
	"imapd/control/config"
	"imapd/imap/wire"
)

// ID exchanges the names of the programs. See RFC 2971.
var _ = register(Extension{
	Name:     "ID",
	RFC:      2971,
	Caps:     when(anyState, "ID"),
	Commands: []Command{always("ID", parseID, (*Session).identify)},
})

// The limits of RFC 2971 section 3.3.
const (
	idPairs = 30
	idField = 30
	idValue = 1024
)

// idLogMax is how many octets of it are logged.
const idLogMax = 512

// idPair is a field and its value; NIL is the empty value.
type idPair struct{ field, value string }

func parseID(d *wire.Decoder) []idPair {
	d.SP()
	if d.Peek() != '(' {
		if _, ok := d.NString(); ok {
			d.Fail("list or NIL")
		}
		return nil
	}
	var pairs []idPair
	var last string
	field := true
	d.List(func() {
		if field {
			last = d.String()
		} else {
			value, _ := d.NString()
			pairs = append(pairs, idPair{last, value})
			if len(pairs) > idPairs || len(last) > idField || len(value) > idValue {
				d.FailText("", "Too much in ID")
			}
		}
		field = !field
	})
	if !field {
		d.FailText("", "ID field without a value")
	}
	return pairs
}

// identify answers with as much as serverinfo lets out, always before the
// tagged OK: some clients refuse to log in without.
func (s *Session) identify(pairs []idPair) error {
	if err := s.forwarded(pairs); err != nil {
		return err
	}
	s.logID(pairs)
	if !s.conf.IMAPIDResponse || s.conf.ServerInfo == config.ServerInfoOff {
		s.untagged("ID NIL")
		return nil
	}
	s.out = append(s.out, `* ID ("name" "imapd"`...)
	if s.conf.ServerInfo == config.ServerInfoOn {
		s.out = append(s.out, ` "version" `...)
		s.out = wire.AppendString(s.out, s.srv.opt.Version)
	}
	s.out = append(s.out, ")\r\n"...)
	return nil
}

// logID logs what the client calls itself, once a connection.
func (s *Session) logID(pairs []idPair) {
	if s.idLogged || len(pairs) == 0 {
		return
	}
	s.idLogged = true
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p.field + "=" + p.value)
	}
	id := b.String()
	if len(id) > idLogMax {
		id = id[:idLogMax] + "..."
	}
	s.log.Info("client id", "user", control.Name(s.userName()), "id", control.Given(id))
}
