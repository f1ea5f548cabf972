package body

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestDovecot compares everything that FETCH shows with what Dovecot 2.3.19 answers. Where we differ on purpose,
// differences says so.
func TestDovecot(t *testing.T) {
	t.Parallel()
	gs := groups()
	if program := os.Getenv("IMAPD_DOVECOT"); program != "" {
		c := &client{t: t, addr: startDovecot(t, program, gs)}
		for _, g := range gs {
			record(t, c, g)
		}
	}
	used := map[string]bool{}
	compared := 0
	for _, g := range gs {
		golden := readGolden(t, g)
		for _, s := range g.samples {
			m := newMessage(t, s.text)
			for _, item := range g.items {
				if !m.fetchable(item) {
					continue
				}
				key := g.name + "/" + s.name + " " + item
				want, ok := golden[s.name+" "+item]
				if !ok {
					want = absent(item)
				}
				got := m.item(item)
				compared++
				if d, ok := differences[key]; ok {
					used[key] = true
					if got == want {
						t.Errorf("%s: no difference any more", key)
					} else if got != d.ours {
						t.Errorf("%s:\n got %s\nwant %s (%s)", key, got, d.ours, d.why)
					}
				} else if got != want {
					t.Errorf("%s: %q\n got %s\nwant %s", key, clip(s.text), got, want)
				}
			}
		}
	}
	for key := range differences {
		if !used[key] {
			t.Errorf("%s: listed as a difference, but not compared", key)
		}
	}
	t.Logf("%d answers compared, %d differences", compared, len(differences))
}

func clip(s string) string { return s[:min(len(s), 300)] }

// absent is what an item is that a message does not have.
func absent(item string) string {
	if strings.HasPrefix(item, "BINARY.SIZE") {
		return "0"
	}
	return `""`
}

func goldenFile(g group) string { return filepath.Join("testdata", "dovecot", g.name+".txt") }

// record asks Dovecot. An answer that absent gives is not written.
func record(t *testing.T, c *client, g group) {
	var b bytes.Buffer
	c.mailbox = g.name
	c.dial()
	for i, s := range g.samples {
		for _, item := range g.items {
			if v := c.fetch(i+1, item); v != absent(item) {
				fmt.Fprintf(&b, "%s %s = %s\n", s.name, item, v)
			}
		}
	}
	if err := os.MkdirAll(filepath.Dir(goldenFile(g)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenFile(g), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t *testing.T, g group) map[string]string {
	data, err := os.ReadFile(goldenFile(g))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(data)) {
		k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " = ")
		if !ok {
			t.Fatalf("%s: %q", goldenFile(g), line)
		}
		m[k] = v
	}
	return m
}

// fetchable is false for BINARY of a part that is no leaf: RFC 9051 section 6.4.5 has clients ask only for leaves.
// (Dovecot decodes the leaves inside and rewrites their headers.)
func (m *message) fetchable(item string) bool {
	spec, ok := strings.CutPrefix(item, "BINARY")
	if !ok {
		return true
	}
	spec = spec[strings.IndexByte(spec, '[')+1:]
	p := m.root.Find(parseSection(strings.TrimSuffix(spec, "]")).Path)
	return p == nil || p.Kind == Leaf
}

// A message answers items in the canonical form.
type message struct {
	t    *testing.T
	text string
	root *Part
}

func newMessage(t *testing.T, text string) *message {
	root, err := Parse(strings.NewReader(text), int64(len(text)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return &message{t, text, root}
}

func (m *message) item(item string) string {
	switch item {
	case "ENVELOPE":
		return envelopeText(m.root.Envelope)
	case "BODYSTRUCTURE":
		return structureText(m.root, true)
	case "BODY":
		return structureText(m.root, false)
	case "RFC822.SIZE":
		n, err := VirtualSize(strings.NewReader(m.text), int64(len(m.text)))
		if err != nil || n != m.root.Header.Size+m.root.Body.Size {
			m.t.Errorf("VirtualSize of %q: %d, %v; parsed %d", clip(m.text), n, err, m.root.Header.Size+m.root.Body.Size)
		}
		return strconv.FormatInt(n, 10)
	}
	word, rest, _ := strings.Cut(item, "[")
	spec, partial, _ := strings.Cut(rest, "]")
	c, err := m.content(word, spec)
	if errors.Is(err, ErrUnknownCTE) {
		return "NO [UNKNOWN-CTE]"
	}
	if err != nil {
		return err.Error()
	}
	if word == "BINARY.SIZE" {
		return strconv.FormatInt(c.Size, 10)
	}
	off, n := int64(0), c.Size
	if partial != "" {
		fmt.Sscanf(partial, "<%d.%d>", &off, &n)
	}
	var b bytes.Buffer
	if err := c.WriteRange(&b, off, n); err != nil {
		return err.Error()
	}
	if int64(b.Len()) != c.Clip(off, n) {
		m.t.Errorf("%s: %d octets, promised %d", item, b.Len(), c.Clip(off, n))
	}
	return strconv.QuoteToASCII(b.String())
}

func (m *message) content(word, spec string) (Content, error) {
	r := strings.NewReader(m.text)
	s := parseSection(spec)
	if word == "BODY" {
		return m.root.Section(r, s)
	}
	p := m.root.Find(s.Path)
	if p == nil {
		return Content{}, nil
	}
	return p.Binary(r)
}

func parseSection(spec string) Section {
	var s Section
	for spec != "" && '0' <= spec[0] && spec[0] <= '9' {
		var n string
		n, spec, _ = strings.Cut(spec, ".")
		i, _ := strconv.Atoi(n)
		s.Path = append(s.Path, uint32(i))
	}
	word, list, _ := strings.Cut(spec, " ")
	s.Fields = NewFieldNames(strings.Fields(strings.Trim(list, "()"))...)
	s.Kind = map[string]SectionKind{"": SectionAll, "HEADER": SectionHeader, "HEADER.FIELDS": SectionFields,
		"HEADER.FIELDS.NOT": SectionFieldsNot, "TEXT": SectionText, "MIME": SectionMIME}[word]
	return s
}

func nstringText(n NString) string {
	if !n.OK {
		return "NIL"
	}
	return strconv.QuoteToASCII(n.S)
}

func listText(items ...string) string { return "(" + strings.Join(items, " ") + ")" }

func envelopeText(e *Envelope) string {
	return listText(nstringText(e.Date), nstringText(e.Subject), addressesText(e.From), addressesText(e.Sender),
		addressesText(e.ReplyTo), addressesText(e.To), addressesText(e.Cc), addressesText(e.Bcc),
		nstringText(e.InReplyTo), nstringText(e.MessageID))
}

func addressesText(list []Address) string {
	if list == nil {
		return "NIL"
	}
	var out []string
	for _, a := range list {
		out = append(out, listText(nstringText(a.Name), nstringText(a.Route), nstringText(a.Mailbox), nstringText(a.Host)))
	}
	return listText(out...)
}

func paramsText(params []Param) string {
	if len(params) == 0 {
		return "NIL"
	}
	var out []string
	for _, p := range params {
		out = append(out, strconv.QuoteToASCII(p.Name), strconv.QuoteToASCII(p.Value))
	}
	return listText(out...)
}

func structureText(p *Part, extended bool) string {
	var out []string
	if p.Kind == Multipart {
		children := ""
		for _, c := range p.Children() {
			if children != "" {
				children += " "
			}
			children += structureText(c, extended)
		}
		out = append(out, children, strconv.QuoteToASCII(p.Subtype))
		if extended {
			out = append(out, paramsText(p.Params))
		}
	} else {
		out = append(out, strconv.QuoteToASCII(p.Type), strconv.QuoteToASCII(p.Subtype), paramsText(p.Params),
			nstringText(p.ID), nstringText(p.Description), strconv.QuoteToASCII(p.Encoding), fmt.Sprint(p.Body.Size))
		if p.Kind == Message {
			out = append(out, envelopeText(p.Parts[0].Envelope), structureText(p.Parts[0], extended))
		}
		if p.Kind == Message || p.IsText() {
			out = append(out, fmt.Sprint(p.Body.Lines))
		}
		if extended {
			out = append(out, nstringText(p.MD5))
		}
	}
	if !extended {
		return listText(out...)
	}
	disposition, language := "NIL", "NIL"
	if d := p.Disposition; d != nil {
		disposition = listText(strconv.QuoteToASCII(d.Type), paramsText(d.Params))
	}
	if p.Language != nil {
		var tags []string
		for _, l := range p.Language {
			tags = append(tags, strconv.QuoteToASCII(l))
		}
		language = listText(tags...)
	}
	return listText(append(out, disposition, language, nstringText(p.Location))...)
}
