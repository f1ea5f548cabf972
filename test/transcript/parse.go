package transcript

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// A Script is one file, parsed.
type Script struct {
	Name  string // the file's name without directory
	Setup string
	Needs []string
	Login bool
	Open  string            // the command and mailbox that each client begins with, if any
	Not   map[string]string // form to the reason
	Steps []Step
	dir   string
}

// A Kind says what a step does.
type Kind int

// The kinds of steps.
const (
	Send   Kind = iota // the client sends Lines[0]
	Expect             // the server sends Lines, in order or in any
	Closed
	TLS
	Outside // another program changes the Maildir: Args
)

// A Step is one step of a script, with what Dovecot does differently.
type Step struct {
	At     int // line number
	Client string
	Kind   Kind
	Any    bool // Lines come in any order
	Lines  []Line
	Args   []string

	Differs    bool // Dovecot answers DovecotSays, for the reason Why
	DovecotAny bool
	DovecotSay []Line
	Why        string
}

// A Line is a command or a response: text and literals by turns.
type Line []Chunk

// A Chunk is text, or a literal when Head is not empty.
type Chunk struct {
	Text string
	Head string // as written around the length: "{}", "{+}", "~{}", "~{+}"
	Bare bool   // only the head is sent, Text is the length
}

// String returns the line as it looks in a script, for messages.
func (l Line) String() string {
	var b strings.Builder
	for _, c := range l {
		switch {
		case c.Bare:
			b.WriteString(head(c.Head, c.Text))
		case c.Head != "":
			b.WriteString(head(c.Head, strconv.Itoa(len(c.Text))) + "\n" + strings.ReplaceAll(c.Text, "\r\n", "\n"))
		default:
			b.WriteString(c.Text)
		}
	}
	return b.String()
}

// head puts n into the head of a literal.
func head(h, n string) string { return strings.Replace(h, "{", "{"+n, 1) }

var (
	stepPattern    = regexp.MustCompile(`^(\w+) (C|S|S\*|D|D\*): ?(.*)$`)
	wordPattern    = regexp.MustCompile(`^(\w+) (closed|tls)$`)
	headerPattern  = regexp.MustCompile(`^(setup|needs|login|select|examine|not): *(.*)$`)
	outsidePattern = regexp.MustCompile(`^! (deliver|mark|remove) (.*)$`)
	literalPattern = regexp.MustCompile(`(~?)\{(\d+)(\+?)\}$`)
	filePattern    = regexp.MustCompile(`<<([\w.-]+)`)
)

// Load reads one script.
func Load(file string) (*Script, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p := &scriptParser{
		Script: &Script{Name: filepath.Base(file), Login: true, Not: map[string]string{}, dir: filepath.Dir(file)},
		lines:  strings.Split(strings.TrimRight(string(text), "\n"), "\n"),
	}
	for p.n < len(p.lines) {
		if err := p.line(); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", p.Name, p.n, err)
		}
	}
	if p.Setup == "" || len(p.Steps) == 0 {
		return nil, fmt.Errorf("%s: no setup or no steps", p.Name)
	}
	return p.Script, nil
}

type scriptParser struct {
	*Script
	lines []string
	n     int // lines taken
}

// next takes a line.
func (p *scriptParser) next() string {
	p.n++
	return p.lines[p.n-1]
}

func (p *scriptParser) line() error {
	line := p.next()
	at := p.n
	if line == "" || line[0] == '#' {
		return nil
	}
	if m := headerPattern.FindStringSubmatch(line); m != nil && len(p.Steps) == 0 {
		return p.header(m[1], m[2])
	}
	if m := outsidePattern.FindStringSubmatch(line); m != nil {
		p.Steps = append(p.Steps, Step{At: at, Kind: Outside, Args: append([]string{m[1]}, strings.Fields(m[2])...)})
		return nil
	}
	if m := wordPattern.FindStringSubmatch(line); m != nil {
		p.Steps = append(p.Steps, Step{At: at, Client: m[1], Kind: map[string]Kind{"closed": Closed, "tls": TLS}[m[2]]})
		return nil
	}
	m := stepPattern.FindStringSubmatch(line)
	if m == nil {
		return fmt.Errorf("not a line of a script: %q", line)
	}
	return p.step(at, m[1], m[2], m[3])
}

func (p *scriptParser) header(name, value string) error {
	words := strings.Fields(value)
	switch name {
	case "setup":
		p.Setup = value
	case "needs":
		p.Needs = append(p.Needs, words...)
	case "login":
		p.Login = value != "no"
	case "select", "examine":
		p.Open = strings.ToUpper(name) + " " + value
	case "not":
		if len(words) < 2 {
			return fmt.Errorf("a form and a reason are wanted")
		}
		p.Not[words[0]] = strings.Join(words[1:], " ")
	}
	return nil
}

// step parses the step of client, of the kind C, S, S*, D or D*.
func (p *scriptParser) step(at int, client, kind, text string) error {
	if kind[0] == 'D' {
		return p.difference(client, kind == "D*", text)
	}
	texts := []string{text}
	if kind == "S*" {
		texts = strings.Split(text, " | ")
	}
	var lines []Line
	for _, t := range texts {
		l, err := p.chunks(t)
		if err != nil {
			return err
		}
		lines = append(lines, l)
	}
	s := Step{At: at, Client: client, Kind: Expect, Any: kind == "S*", Lines: lines}
	if kind == "C" {
		s.Kind = Send
	}
	if last := p.last(); last != nil && s.Any && last.Any && last.Client == client && !last.Differs {
		last.Lines = append(last.Lines, lines...)
		return nil
	}
	p.Steps = append(p.Steps, s)
	return nil
}

func (p *scriptParser) last() *Step {
	if len(p.Steps) == 0 {
		return nil
	}
	return &p.Steps[len(p.Steps)-1]
}

// difference adds what Dovecot says to the step before.
func (p *scriptParser) difference(client string, anyOrder bool, text string) error {
	last := p.last()
	if last == nil || last.Kind != Expect || last.Client != client {
		return fmt.Errorf("a difference belongs below what client %s expects", client)
	}
	i := strings.LastIndex(text, " # ")
	if i < 0 && !last.Differs {
		return fmt.Errorf("a difference ends in its reason, after \" # \"")
	}
	if i >= 0 {
		last.Why = strings.TrimSpace(text[i+3:])
		text = strings.TrimSpace(text[:i])
	}
	last.Differs, last.DovecotAny = true, anyOrder
	if text == "nothing" {
		return nil
	}
	texts := []string{text}
	if anyOrder {
		texts = strings.Split(text, " | ")
	}
	for _, t := range texts {
		l, err := p.chunks(t)
		if err != nil {
			return err
		}
		last.DovecotSay = append(last.DovecotSay, l)
	}
	return nil
}

// chunks splits text, the end of the line just taken, at its literals, and
// takes the lines that they cover.
func (p *scriptParser) chunks(text string) (Line, error) {
	var line Line
	for {
		if m := filePattern.FindStringSubmatchIndex(text); m != nil {
			content, err := os.ReadFile(filepath.Join(p.dir, "files", text[m[2]:m[3]]))
			if err != nil {
				return nil, err
			}
			line = append(line, Chunk{Text: text[:m[0]]}, Chunk{Text: string(crlf(content)), Head: "{}"})
			text = text[m[1]:]
			continue
		}
		m := literalPattern.FindStringSubmatch(text)
		if m == nil {
			return append(line, Chunk{Text: text}), nil
		}
		h := m[1] + "{" + m[3] + "}"
		line = append(line, Chunk{Text: strings.TrimSuffix(text, m[0])})
		if p.n == len(p.lines) || stepPattern.MatchString(p.lines[p.n]) || wordPattern.MatchString(p.lines[p.n]) {
			return append(line, Chunk{Text: m[2], Head: h, Bare: true}), nil
		}
		size, _ := strconv.Atoi(m[2])
		literal, rest, err := p.literal(size)
		if err != nil {
			return nil, err
		}
		line = append(line, Chunk{Text: literal, Head: h})
		text = rest
	}
}

// literal takes lines until they hold size octets, and returns these and the
// rest of the last line.
func (p *scriptParser) literal(size int) (literal, rest string, err error) {
	var b strings.Builder
	for b.Len() <= size {
		if p.n == len(p.lines) {
			return "", "", fmt.Errorf("the script ends within a literal of %d octets", size)
		}
		if l := p.next(); b.Len()+len(l) < size {
			b.WriteString(l + "\r\n")
		} else {
			cut := size - b.Len()
			b.WriteString(l[:cut])
			return b.String(), l[cut:], nil
		}
	}
	return "", "", fmt.Errorf("a literal of %d octets ends between CR and LF", size)
}

// crlf makes every line end CRLF.
func crlf(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
}
