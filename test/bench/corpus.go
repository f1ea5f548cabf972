package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"mime"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// words make up subjects and texts. Each is as likely as any other, but for
// those that are looked for: see rare.
var words = strings.Fields(`about account after again agenda annual answer april archive attached autumn because before board bridge budget
	build business calendar change client committee company contract copy council customer daily data december deliver department detail
	document draft during early eighteen email evening example expense factory february figure finance follow format friday garden general
	glass group holiday hotel house hundred important include inform january journey july june kitchen language large letter library list
	little machine manager march market matter meeting member message minute monday month morning network north notice november number
	october offer office only open order other package paper partner payment people phone picture plan please point price print problem
	product project question quick railway reason receive record regard release remind reply report request result return review river
	room sample saturday schedule second section send september service several share short signature simple small software south spring
	staff station street summer sunday support system table team thank thursday ticket time today together tomorrow travel tuesday update
	version visit water wednesday week welcome winter without work world would write year yesterday`)

const (
	rareSubject = "harbour" // in about one of 50 subjects
	rareBody    = "lantern" // in about one of 50 texts
)

// A writer makes messages from a sequence of random numbers that is the same in
// every run.
type writer struct{ *rand.Rand }

func newWriter(seed uint64) writer { return writer{rand.New(rand.NewPCG(seed, 0))} }

// message returns message number i, with LF at the ends of lines: 2.4 KB on
// average, a plain text, an alternative of text and HTML, or a text with an
// attachment.
func (w writer) message(i int) (text []byte, date time.Time) {
	date = time.Date(2020, 1, 1, 8, 0, 0, 0, time.UTC).Add(time.Duration(i) * 37 * time.Minute)
	var b bytes.Buffer
	from, to := w.person(), w.person()
	stamp := date.Format(time.RFC1123Z)
	fmt.Fprintf(&b, "Return-Path: <%s>\nDelivered-To: jane@example.org\n", address(from))
	for hop := range 2 {
		fmt.Fprintf(&b, "Received: from mx%d.example.net (mx%d.example.net [192.0.2.%d])\n\tby mail.example.org (Postfix) with ESMTPS id %012X\n\tfor <jane@example.org>; %s\n",
			hop, hop, w.IntN(250)+1, w.Uint64()>>16, stamp)
	}
	fmt.Fprintf(&b, "Message-ID: <%d.%x@example.net>\nDate: %s\nFrom: %s\nTo: %s\n", i, w.Uint32(), stamp, from, to)
	if w.IntN(3) == 0 {
		fmt.Fprintf(&b, "Cc: %s,\n\t%s\n", w.person(), w.person())
	}
	if w.IntN(2) == 0 {
		fmt.Fprintf(&b, "In-Reply-To: <%d.parent@example.net>\nReferences: <%d.root@example.net>\n\t<%d.parent@example.net>\n", i, i, i)
	}
	subject := w.text(3+w.IntN(5), rareSubject)
	if w.IntN(6) == 0 {
		subject = mime.QEncoding.Encode("utf-8", subject+" über Straßen")
	}
	fmt.Fprintf(&b, "Subject: %s\nMIME-Version: 1.0\nX-Mailer: Example Mail %d.%d\n", subject, w.IntN(9), w.IntN(30))
	w.content(&b, i)
	return b.Bytes(), date
}

func (w writer) content(b *bytes.Buffer, i int) {
	const plain = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
	boundary := fmt.Sprintf("=_%d_%x", i, w.Uint32())
	switch k := w.IntN(10); {
	case k < 5:
		b.WriteString(plain)
		w.paragraphs(b, 500+w.IntN(1600))
	case k < 8:
		fmt.Fprintf(b, "Content-Type: multipart/alternative; boundary=\"%s\"\n\n--%s\n%s", boundary, boundary, plain)
		w.paragraphs(b, 200+w.IntN(500))
		fmt.Fprintf(b, "\n--%s\nContent-Type: text/html; charset=\"utf-8\"\nContent-Transfer-Encoding: quoted-printable\n\n<html><body><p style=3D\"margin:0\">\n", boundary)
		w.paragraphs(b, 300+w.IntN(600))
		fmt.Fprintf(b, "</p></body></html>\n\n--%s--\n", boundary)
	default:
		fmt.Fprintf(b, "Content-Type: multipart/mixed; boundary=\"%s\"\n\nThis is a message in MIME format.\n\n--%s\n%s", boundary, boundary, plain)
		w.paragraphs(b, 200+w.IntN(500))
		fmt.Fprintf(b, "\n--%s\nContent-Type: application/pdf; name=\"%s.pdf\"\nContent-Disposition: attachment; filename=\"%[2]s.pdf\"\nContent-Transfer-Encoding: base64\n\n",
			boundary, w.word())
		w.attachment(b, 300+w.IntN(1200))
		fmt.Fprintf(b, "\n--%s--\n", boundary)
	}
}

// paragraphs writes about n octets of text in lines of up to 72.
func (w writer) paragraphs(b *bytes.Buffer, n int) {
	rare := ""
	if w.IntN(50) == 0 {
		rare = rareBody + " "
	}
	for end := b.Len() + n; b.Len() < end; {
		line := rare
		rare = ""
		for len(line) < 60 {
			line += w.word() + " "
		}
		switch w.IntN(8) {
		case 0:
			line += "\n"
		case 1:
			line += "für"
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

func (w writer) attachment(b *bytes.Buffer, n int) {
	raw := make([]byte, n)
	for i := range raw {
		raw[i] = byte(w.Uint32())
	}
	for line := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(raw)), 76) {
		b.Write(line)
		b.WriteByte('\n')
	}
}

func (w writer) word() string { return words[w.IntN(len(words))] }

// text returns n words, one of them rare in one of 50 texts.
func (w writer) text(n int, rare string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = w.word()
	}
	if w.IntN(50) == 0 {
		all[w.IntN(n)] = rare
	}
	return strings.Join(all, " ")
}

func (w writer) person() string {
	first, last := w.word(), w.word()
	return fmt.Sprintf("%s%s %s <%s.%s@example.com>", strings.ToUpper(first[:1]), first[1:], last, first, last)
}

func address(person string) string {
	_, a, _ := strings.Cut(person, "<")
	return strings.TrimSuffix(a, ">")
}

// A corpus is a directory of messages and what a Maildir of them needs.
type corpus struct {
	dir    string   // holds the files
	names  []string // of the files, with flags, in the order of UIDs
	octets int      // as a client gets them
}

// newCorpus writes n messages below dir, which it makes.
func newCorpus(t testing.TB, dir string, n int) *corpus {
	t.Helper()
	c := &corpus{dir: dir}
	w := newWriter(1)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		text, date := w.message(i)
		base, virtual := fileName(date, i, text)
		name := base + ":2," + []string{"", "", "S", "S", "S", "S", "RS", "RS", "FS", "S"}[i%10]
		path := filepath.Join(dir, name)
		err := os.WriteFile(path, text, 0o600)
		if err == nil {
			err = os.Chtimes(path, date, date)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.names = append(c.names, name)
		c.octets += virtual
	}
	peer.Own(t, dir)
	return c
}

// fileName returns the name that Dovecot would give to a message, and its size
// with CRLF.
func fileName(date time.Time, i int, text []byte) (base string, virtual int) {
	virtual = len(text) + bytes.Count(text, []byte("\n"))
	return fmt.Sprintf("%d.M%06dP%d.bench,S=%d,W=%d", date.Unix(), i%1000000, 1000+i%5, len(text), virtual), virtual
}

// validity is the UIDVALIDITY of all copies that come with a list.
const validity = "1700000000"

// list returns a dovecot-uidlist that gives the first n messages the UIDs 1 to n.
func (c *corpus) list(n int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "3 V%s N%d G5e1f0a7b2c3d4e5f60718293a4b5c6d7\n", validity, n+1)
	for i, name := range c.names[:n] {
		base, _, _ := strings.Cut(name, ":")
		fmt.Fprintf(&b, "%d :%s\n", i+1, base)
	}
	return b.Bytes()
}

// A layout says how a copy of a corpus lies in its Maildir.
type layout struct {
	messages int  // how many, from the first
	unseen   bool // all in new/ and no list, as if nobody had ever looked
}

// copyTo makes the Maildir dir. Its times are those of a folder in which nothing
// has happened for an hour.
func (c *corpus) copyTo(dir string, l layout) error {
	for _, d := range []string{"", "cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	in := filepath.Join(dir, "cur")
	if l.unseen {
		in = filepath.Join(dir, "new")
	} else if err := os.WriteFile(filepath.Join(dir, "dovecot-uidlist"), c.list(l.messages), 0o600); err != nil {
		return err
	}
	for _, name := range c.names[:l.messages] {
		to := name
		if l.unseen {
			to, _, _ = strings.Cut(name, ":")
		}
		if err := os.Link(filepath.Join(c.dir, name), filepath.Join(in, to)); err != nil {
			return err
		}
	}
	old := time.Now().Add(-time.Hour)
	uid, gid := peer.MailUID()
	for _, d := range []string{"cur", "new", "tmp", "dovecot-uidlist", ""} {
		path := filepath.Join(dir, d)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if err := os.Chtimes(path, old, old); err != nil {
			return err
		}
		if err := os.Lchown(path, uid, gid); err != nil {
			return err
		}
	}
	return nil
}
