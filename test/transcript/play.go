package transcript

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long a response may take. A correct server needs far less;
// only a test that fails waits so long.
const patience = 15 * time.Second

// maxLiteral bounds what is read as one literal, against a server gone wrong.
const maxLiteral = 64 << 20

// An Account is a fresh copy of a setup on a running server.
type Account struct {
	Dial           func(client string) (net.Conn, error)
	User, Password string
	Maildir        string // for steps of other programs
	Dovecot        bool   // the server is one, so the scripts' D lines hold
}

// A player plays one script once.
type player struct {
	*Script
	setup   *Setup
	account Account
	form    Form
	vars    vars
	clients map[string]*client
	order   []string // clients as they came
	outside int      // steps of other programs done
}

// Play plays s in form f and returns the first difference.
func (s *Script) Play(setup *Setup, a Account, f Form) error {
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + a.User + "\x00" + a.Password))
	p := &player{Script: s, setup: setup, account: a, form: f, clients: map[string]*client{},
		vars: vars{"user": a.User, "password": a.Password, "plain": plain}}
	defer func() {
		for _, c := range p.clients {
			c.Close()
		}
	}()
	if f == Pipelined {
		if err := p.sendAll(); err != nil {
			return err
		}
	}
	for i := range s.Steps {
		if err := p.step(&s.Steps[i]); err != nil {
			return fmt.Errorf("%s:%d: %w", s.Name, s.Steps[i].At, err)
		}
	}
	for _, name := range p.order {
		if err := p.clients[name].logout(); err != nil {
			return fmt.Errorf("%s: at the end client %s: %w", s.Name, name, err)
		}
	}
	return nil
}

// client returns the client of that name, connected and logged in at first use.
func (p *player) client(name string) (*client, error) {
	if c := p.clients[name]; c != nil {
		return c, nil
	}
	conn, err := p.account.Dial(name)
	if err != nil {
		return nil, err
	}
	c := &client{Conn: conn, r: bufio.NewReader(conn), empty: p.account.Dovecot}
	p.clients[name] = c
	p.order = append(p.order, name)
	if !p.Login {
		return c, nil
	}
	if _, err := c.response(); err != nil { // the greeting
		return nil, err
	}
	if err := c.run("LOGIN " + p.account.User + " " + p.account.Password); err != nil || p.Open == "" {
		return c, err
	}
	return c, c.run(p.Open)
}

func (p *player) step(s *Step) error {
	if s.Kind == Outside {
		p.outside++
		return p.setup.outside(p.account.Maildir, s.Args, p.outside)
	}
	c, err := p.client(s.Client)
	if err != nil {
		return err
	}
	switch s.Kind {
	case Send:
		return p.send(c, s.Lines[0])
	case Closed:
		return c.eof()
	case TLS:
		t := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
		c.Conn, c.r = t, bufio.NewReader(t)
		return t.Handshake()
	case Expect:
		return p.expect(c, s)
	}
	return fmt.Errorf("step of kind %d", s.Kind)
}

// send sends one command, waiting for "+" before each synchronizing literal.
// All has been sent already where the form is Pipelined.
func (p *player) send(c *client, l Line) error {
	l, err := p.fill(l)
	if err != nil {
		return err
	}
	l = p.form.literalize(l)
	for _, part := range wire(l) {
		if p.form != Pipelined {
			if err := c.write(part.text, p.form == Bytes); err != nil {
				return err
			}
		}
		if !part.wait {
			continue
		}
		r, err := c.response()
		if err != nil {
			return fmt.Errorf("waiting for +: %w", err)
		}
		if strings.HasPrefix(r[0].Text, "+") {
			continue
		}
		if p.form == Literals && !strings.HasPrefix(r[0].Text, "* ") {
			c.back = append([]Line{r}, c.back...) // refused before the literal, which is as good
			return nil
		}
		return fmt.Errorf("got  %s\nwant +", r)
	}
	return nil
}

// sendAll starts to send what the only client says, all at once.
func (p *player) sendAll() error {
	var all []byte
	var first *client
	for _, s := range p.Steps {
		if s.Kind == Outside {
			continue
		}
		c, err := p.client(s.Client)
		if err != nil {
			return err
		}
		first = c
		if s.Kind != Send {
			continue
		}
		l, err := p.fill(s.Lines[0])
		if err != nil {
			return fmt.Errorf("%s:%d: %w (then the script needs \"not: pipelined\")", p.Name, s.At, err)
		}
		for _, part := range wire(l) {
			all = append(all, part.text...)
		}
	}
	conn := first.Conn
	go conn.Write(all) // ends at the latest when the connection is closed
	return nil
}

func (p *player) fill(l Line) (Line, error) {
	out := make(Line, len(l))
	for i, c := range l {
		if c.Head == "" {
			text, err := p.vars.fill(c.Text)
			if err != nil {
				return nil, err
			}
			c.Text = text
		}
		out[i] = c
	}
	return out, nil
}

// A part of a command is sent in one go; with wait the server's "+" comes next.
type part struct {
	text []byte
	wait bool
}

// wire returns a line as it is sent.
func wire(l Line) []part {
	var parts []part
	var b []byte
	for _, c := range l {
		switch {
		case c.Bare:
			b = append(b, head(c.Head, c.Text)...)
		case c.Head == "":
			b = append(b, c.Text...)
		default:
			b = append(b, head(c.Head, strconv.Itoa(len(c.Text)))+"\r\n"...)
			if !strings.Contains(c.Head, "+") {
				parts = append(parts, part{b, true})
				b = nil
			}
			b = append(b, c.Text...)
		}
	}
	return append(parts, part{text: append(b, "\r\n"...)})
}

// expect reads what a step wants.
func (p *player) expect(c *client, s *Step) error {
	if !p.account.Dovecot || !s.Differs {
		return p.lines(c, s.Lines, s.Any)
	}
	if len(s.DovecotSay) == 0 {
		return nil // had it come all the same, the next step would meet it
	}
	if !s.DovecotAny && !s.Any {
		r, err := c.response()
		if err != nil {
			return err
		}
		known := vars{}
		for k, v := range p.vars {
			known[k] = v
		}
		if known.match(s.Lines[0], r) && len(s.Lines) == len(s.DovecotSay) {
			return fmt.Errorf("got  %s\nDovecot does not differ (any more): delete the D line", r)
		}
		c.back = append([]Line{r}, c.back...)
	}
	return p.lines(c, s.DovecotSay, s.DovecotAny)
}

// lines reads as many responses as want has, in order or in any.
func (p *player) lines(c *client, want []Line, anyOrder bool) error {
	left := append([]Line(nil), want...)
	for len(left) > 0 {
		r, err := c.response()
		if err != nil {
			return fmt.Errorf("%w\nwant %s", err, joined(left))
		}
		found := -1
		for i, l := range left {
			if p.vars.match(l, r) {
				found = i
				break
			}
			if !anyOrder {
				break
			}
		}
		if found < 0 {
			return fmt.Errorf("got  %s\nwant %s", r, joined(left))
		}
		left = append(left[:found], left[found+1:]...)
	}
	return nil
}

func joined(lines []Line) string {
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = l.String()
	}
	return strings.Join(texts, " | ")
}

// A client is one connection.
type client struct {
	net.Conn
	r     *bufio.Reader
	back  []Line // responses read and not used yet
	done  bool   // the server has closed it
	empty bool   // the server may send literals of no octets
}

func (c *client) write(b []byte, one bool) error {
	c.SetWriteDeadline(time.Now().Add(patience))
	if !one {
		_, err := c.Write(b)
		return err
	}
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// response reads one line of the server's and the literals in it.
func (c *client) response() (Line, error) {
	if len(c.back) > 0 {
		l := c.back[0]
		c.back = c.back[1:]
		return l, nil
	}
	c.SetReadDeadline(time.Now().Add(patience))
	var line Line
	for {
		text, err := c.r.ReadString('\n')
		if err != nil {
			return nil, fmt.Errorf("got  %s%q (%w)", line, text, err)
		}
		text, ok := strings.CutSuffix(text, "\r\n")
		if !ok {
			return nil, fmt.Errorf("got  %s%q, which ends in a bare LF", line, text)
		}
		m := literalPattern.FindStringSubmatch(text)
		if m == nil {
			return append(line, Chunk{Text: text}), nil
		}
		size, err := strconv.Atoi(m[2])
		if err != nil || size > maxLiteral {
			return nil, fmt.Errorf("got  %s%s: a literal too large", line, text)
		}
		if size == 0 && !c.empty {
			return nil, fmt.Errorf("got  %s%s: an empty literal, on which iOS Mail hangs", line, text)
		}
		literal := make([]byte, size)
		if _, err := io.ReadFull(c.r, literal); err != nil {
			return nil, fmt.Errorf("got  %s%s and too little of the literal: %w", line, text, err)
		}
		line = append(line, Chunk{Text: strings.TrimSuffix(text, m[0])}, Chunk{Text: string(literal), Head: m[1] + "{" + m[3] + "}"})
	}
}

// eof reads the end of the connection.
func (c *client) eof() error {
	c.done = true
	r, err := c.response()
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("got  %s\nwant the end of the connection", r)
}

// run sends a command that is not part of the script and reads up to its OK.
func (c *client) run(command string) error {
	if err := c.write([]byte("first "+command+"\r\n"), false); err != nil {
		return err
	}
	for {
		r, err := c.response()
		if err != nil {
			return err
		}
		switch text := r[0].Text; {
		case strings.HasPrefix(text, "* "):
		case strings.HasPrefix(text, "first OK"):
			return nil
		default:
			return fmt.Errorf("%s: got  %s", command, text)
		}
	}
}

// logout says good-bye and checks that the server says nothing else.
func (c *client) logout() error {
	if c.done {
		return nil
	}
	if err := c.write([]byte("logout LOGOUT\r\n"), false); err != nil {
		return err
	}
	for _, want := range []string{"* BYE", "logout OK"} {
		r, err := c.response()
		if err != nil {
			return err
		}
		if !strings.HasPrefix(r[0].Text, want) {
			return fmt.Errorf("got  %s\nwant nothing more", r)
		}
	}
	return nil
}

// ownAs gives file the owner and group of dir, as a delivery agent does.
func ownAs(file, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return os.Chown(file, int(st.Uid), int(st.Gid))
	}
	return nil
}
