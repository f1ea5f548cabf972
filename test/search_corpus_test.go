package test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"mime/quotedprintable"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/htmlindex"

	"imapd/test/peer"
)

// The corpus of TestSearch: messages made from few words, so that a search for
// any of them finds some, in all charsets, encodings and shapes, some damaged.

// A script is words and the charsets that can write them.
type script struct {
	words    []string
	charsets []string
}

var scripts = []script{
	{[]string{"meeting", "Budget", "lunch", "invoice", "Hello World", "aba", "abab", "x-ray", "100%"}, []string{"us-ascii", "utf-8", "iso-8859-1"}},
	{[]string{"Café", "naïve", "Müller", "STRASSE", "Ångström", "où", "señor"}, []string{"utf-8", "iso-8859-1", "windows-1252", "iso-8859-15"}},
	{[]string{"привет", "Отпуск", "ДОГОВОР", "счёт"}, []string{"utf-8", "koi8-r", "windows-1251", "iso-8859-5"}},
	{[]string{"会議", "東京", "カタカナ", "ありがとう"}, []string{"utf-8", "iso-2022-jp", "shift_jis", "euc-jp"}},
	{[]string{"北京", "中文"}, []string{"utf-8", "gb2312", "big5"}},
	{[]string{"Ελλάδα", "λόγος"}, []string{"utf-8", "iso-8859-7"}},
	{[]string{"cafe\u0301", "ﬁnal", "Ň", "😀 smile", "İstanbul", "ſharp"}, []string{"utf-8"}},
}

// oddHeaders are values of header fields that are damaged or unusual.
var oddHeaders = []string{
	"=?utf-8?q?meeting", "lunch=?utf-8?q?meeting?=Budget", `"=?utf-8?q?caf=C3=A9?="`,
	"=?utf-8?q?=C3?= =?utf-8?q?=A9t=C3=A9?=", "=?utf-8?q?two words?=", "=?utf-8?q?=?= meeting", "=?utf-8?x?meeting?=", "=?",
	"caf\xe9 raw", "\xc3\xa9\xc3", "nul \x00 meeting", "cr \r meeting", "lunch\n", "", "=?utf-8?q?a?=\n =?utf-8?q?b?=", "=?utf-8?q?a?= b =?utf-8?q?c?=",
	"=?iso-2022-jp?b?GyRCMnE1RBsoQg==?= =?iso-2022-jp?b?GyRCRWw1fhsoQg==?=", "=?utf-8?q??=", "=??q?lunch?=", "=?us-ascii?q?caf=E9?=",
	strings.Repeat("lunch ", 3000) + "the end", strings.Repeat("=?utf-8?q?abab_?=\n ", 300), "a\tb", "a \t\n b",
}

// oddAddresses are values of address fields that are damaged or unusual.
var oddAddresses = []string{
	"Jane Doe ada@example.org", "ada@", "@example.org", "<>", "ada@example.org bob@mail.test", "ada@example.org, , bob@mail.test",
	"ada@[127.0.0.1]", `"Group, the": ada@example.org, bob@mail.test;`, "<@relay.test:ada@example.org>", "Jane (The) Doe <ada (at home) @ example . org>",
	`"Jane \"J\" Doe" <ada@example.org>`, `"ada b"@example.org`, "=?utf-8?q?caf=C3=A9?= <", "ada@example.org <bob@mail.test>", "Jane Doe", "Jane Doe <ada@example.org> x",
	"team:;", "team: Jane", "a.b.@example.org", "Jane.Doe <ada@example.org>", "<ada@example.org", "ada@example.org>", `"=?utf-8?q?caf=C3=A9?=" <ada@example.org>`,
	"caf\xe9 <ada@example.org>", "café <ada@example.org>", "(comment only)", ",,,", "ada @ example.org", "Jane Doe <ada@example.org> (work)",
}

// oddParts are parts that are damaged or unusual, from their header on.
var oddParts = []string{
	"Content-Type: TEXT/Plain; CHARSET=\"UTF-8\" (x)\n\ncafé\n",
	"Content-Type: text/plain\nContent-Transfer-Encoding: x-uuencode\n\nmeeting\n", "Content-Type: text/plain\nContent-Transfer-Encoding: base64 (yes)\n\nbWVldGluZw==\n",
	"Content-Type: text/plain\nContent-Transfer-Encoding: \"quoted-printable\"\n\nmee=\nting =ZZ lun=63h=\n", "Content-Type: application/json\n\n{\"meeting\": 1}\n",
	"Content-Type: text/calendar\n\nSUMMARY:lunch\n", "Content-Type: message/delivery-status\n\nAction: invoice\n", "Content-Type: message/partial; id=x\n\ninvoice\n",
	"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nbWVldGluZw\n", "Content-Type: text/plain; charset=us-ascii\n\ncaf\xe9 meeting\n",
	"Content-Type: text/plain; charset=utf-8\n\nmee\x00ting lunch\n",
	"Content-Type: text/plain; charset=utf-7\n\ncaf+AOk-\n", "\nmeeting without type\n", "Content-Type: ; charset=utf-8\n\nlunch\n", "Content-Type: text/plain; charset=utf-8\n\n" + "lunch",
	"Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/mixed; boundary=ab\n\n--ab\n\nmeeting\n--ab--\n--a--\n",
	"Content-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: lunch\n\nmeeting\n--d--\n", "Content-Type: multipart/mixed; boundary=\"\"\n\n--\n\nmeeting\n----\n",
	"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\nna=C3=\n=AFve caf=c3=a9 lunch   \n",
	"Content-Type: text/plain; charset=utf-8\n\n" + strings.Repeat("x", 8190) + "meeting" + strings.Repeat("é", 70000) + "lunch\n",
	"Content-Type: text/plain; charset=iso-2022-jp\n\n\x1b$B2q5D\x1b(B meeting \x1b$B2q\n", "Content-Type: text/html; charset=utf-8\n\n<b>mee</b>ting caf&eacute; lunch\n",
	"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogbHVuY2gKCm1lZXRpbmcK\n", "Content-Type: message/rfc822\n\n", "",
	"Content-Disposition: attachment; filename*=utf-8''caf%C3%A9.txt\nContent-Type: text/plain; name*0=lun; name*1=ch\n\ninvoice\n",
}

// A corpus writes messages.
type corpus struct {
	*rand.Rand
	b strings.Builder
}

func (c *corpus) pick(s []string) string { return s[c.IntN(len(s))] }

// chance is true in one of n cases.
func (c *corpus) chance(n int) bool { return c.IntN(n) == 0 }

// words returns some words of one script and a charset for them.
func (c *corpus) words(n int) (text, charset string) {
	s := scripts[c.IntN(len(scripts))]
	var all []string
	for range 1 + c.IntN(n) {
		w := c.pick(s.words)
		switch c.IntN(4) {
		case 0:
			w = strings.ToUpper(w)
		case 1:
			w += c.pick([]string{",", ".", "!", " "})
		}
		all = append(all, w)
	}
	return strings.Join(all, " "), c.pick(s.charsets)
}

// encode returns text in a charset.
func encode(text, charset string) string {
	e, err := htmlindex.Get(charset)
	if err != nil {
		return text
	}
	out, err := e.NewEncoder().String(text)
	if err != nil {
		return text // words in capitals that the charset does not have
	}
	return out
}

// header returns words as the value of a header field.
func (c *corpus) header() string {
	text, charset := c.words(4)
	raw := encode(text, charset)
	switch c.IntN(9) {
	case 0:
		return text // raw UTF-8
	case 8:
		return c.pick(oddHeaders)
	case 1:
		return strings.ReplaceAll(text, " ", c.pick([]string{"\n ", "\n\t", "  ", "\n  \t "}))
	case 2, 3, 4:
		return c.word(raw, charset, "q")
	case 5:
		// Each word encoded by itself: the white space between them is nothing.
		var all []string
		for _, w := range strings.Fields(text) {
			all = append(all, c.word(encode(w, charset), charset, c.pick([]string{"b", "q"})))
		}
		return strings.Join(all, c.pick([]string{" ", "\n "}))
	case 6:
		return "Re: " + c.word(raw, charset, "b") + " (end)"
	default:
		return c.word(raw, charset, "b")
	}
}

// word returns an encoded word of RFC 2047.
func (c *corpus) word(raw, charset, how string) string {
	if c.chance(2) {
		charset, how = strings.ToUpper(charset), strings.ToUpper(how)
	}
	if strings.EqualFold(how, "b") {
		return "=?" + charset + "?" + how + "?" + base64.StdEncoding.EncodeToString([]byte(raw)) + "?="
	}
	var b strings.Builder
	for i := range len(raw) {
		switch ch := raw[i]; {
		case ch == ' ':
			b.WriteByte('_')
		case 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z':
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, "=%02X", ch)
		}
	}
	return "=?" + charset + "?" + how + "?" + b.String() + "?="
}

// address returns an address, in one of the ways to write one.
func (c *corpus) address() string {
	local := c.pick([]string{"ada", "bob.smith", "c+d", "Lunch", "o'neil"})
	host := c.pick([]string{"example.org", "Example.COM", "mail.test"})
	addr := local + "@" + host
	switch c.IntN(10) {
	case 0:
		return addr
	case 9:
		return c.pick(oddAddresses)
	case 1:
		return "<" + addr + ">"
	case 2:
		return `"Doe, Jane" <` + addr + ">"
	case 3:
		return "Jane   Doe <" + addr + ">"
	case 4:
		return addr + " (Jane Doe)"
	case 5:
		return "team: " + addr + ", Bob <bob@mail.test>;"
	case 6:
		return "undisclosed-recipients:;"
	default:
		text, charset := c.words(2)
		return c.word(encode(text, charset), charset, "q") + " <" + addr + ">"
	}
}

func (c *corpus) addresses() string {
	list := c.address()
	for c.chance(2) {
		list += c.pick([]string{", ", ",\n ", " , "}) + c.address()
	}
	return list
}

func (c *corpus) line(format string, args ...any) { fmt.Fprintf(&c.b, format+"\n", args...) }

// message returns a message in which LF ends lines.
func (c *corpus) message(i int) string {
	c.b.Reset()
	if !c.chance(20) {
		c.line("From: %s", c.address())
	}
	c.line("%s: %s", c.pick([]string{"To", "TO", "to"}), c.addresses())
	if c.chance(3) {
		c.line("Cc: %s", c.addresses())
	}
	if c.chance(6) {
		c.line("Bcc: %s", c.addresses())
	}
	if !c.chance(20) {
		c.line("Subject: %s", c.header())
	}
	if !c.chance(15) {
		c.line("Date: %s", c.date())
	}
	c.line("Message-ID: <%d.%s@example.org>", i, c.pick([]string{"abc", "XYZ"}))
	for c.chance(3) {
		c.line("X-Tag: %s", c.header())
	}
	if c.chance(10) {
		c.line("X-Empty:")
	}
	if c.chance(25) {
		c.line("no colon meeting")
	}
	if !c.chance(20) {
		c.line("MIME-Version: 1.0")
	}
	c.body(0)
	return c.b.String()
}

func (c *corpus) date() string {
	t := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(c.IntN(60*24*60)) * time.Minute)
	t = t.In(time.FixedZone("", (c.IntN(27)-13)*1800))
	return t.Format(c.pick([]string{time.RFC1123Z, "2 Jan 2006 15:04:05 -0700", "Mon, 2 Jan 2006 15:04 -0700", "Mon, 02 Jan 06 15:04:05 GMT", "yesterday"}))
}

// body writes the header fields and the content of a part.
func (c *corpus) body(depth int) {
	n := c.IntN(12)
	if depth > 2 {
		n = 0
	}
	switch n {
	case 10, 11:
		c.b.WriteString(c.pick(oddParts))
	case 0, 1, 2, 3, 4:
		c.text(c.pick([]string{"plain", "plain", "html"}))
	case 5, 6, 7:
		mark := fmt.Sprintf("=_%d_%d", depth, c.IntN(1000))
		c.line("Content-Type: multipart/%s; boundary=\"%s\"\n", c.pick([]string{"mixed", "alternative"}), mark)
		c.line("preamble lunch")
		for range 1 + c.IntN(3) {
			c.line("--%s", mark)
			c.body(depth + 1)
		}
		if !c.chance(8) {
			c.line("--%s--\nepilogue invoice", mark)
		}
	case 8:
		c.line("Content-Type: message/rfc822\n")
		c.line("From: %s\nSubject: %s", c.address(), c.header())
		c.body(depth + 1)
	default:
		data := base64.StdEncoding.EncodeToString([]byte("image Budget " + strings.Repeat("data", c.IntN(50))))
		c.line("Content-Type: image/png; name=\"%s.png\"", c.pick([]string{"lunch", "photo"}))
		c.line("Content-Transfer-Encoding: base64\n\n%s", data)
	}
}

// text writes a text part.
func (c *corpus) text(subtype string) {
	var lines []string
	text, charset := c.words(8)
	for range 1 + c.IntN(20) {
		lines = append(lines, text)
		if c.chance(6) {
			text, _ = c.words(8)
			charset = "utf-8"
		}
	}
	raw := encode(strings.Join(lines, "\n")+"\n", charset)
	if subtype == "html" {
		raw = "<p>" + strings.ReplaceAll(raw, "\n", "<br>\n") + "</p>\n"
	}
	switch c.IntN(20) {
	case 0:
		charset = "x-unknown"
	case 1:
		charset = "iso-8859-2" // which it may not be
	}
	c.line("Content-Type: text/%s; charset=%s", subtype, charset)
	switch c.IntN(3) {
	case 0:
		c.line("Content-Transfer-Encoding: 8bit\n")
		c.b.WriteString(raw)
	case 1:
		c.line("Content-Transfer-Encoding: quoted-printable\n")
		w := quotedprintable.NewWriter(&c.b)
		w.Write([]byte(raw))
		w.Close()
	default:
		c.line("Content-Transfer-Encoding: base64\n")
		data := base64.StdEncoding.EncodeToString([]byte(raw))
		for len(data) > 76 {
			c.line("%s", data[:76])
			data = data[76:]
		}
		c.line("%s", data)
	}
}

// searchMaildir makes a Maildir with n messages of the corpus.
func searchMaildir(t testing.TB, seed uint64, n int) string {
	t.Helper()
	c := &corpus{Rand: rand.New(rand.NewPCG(seed, 1))}
	var texts []string
	for i := range n {
		text := c.message(i)
		if c.chance(4) {
			text = strings.ReplaceAll(text, "\n", "\r\n")
		}
		texts = append(texts, text)
	}
	return c.maildir(t, texts)
}

// maildir makes a Maildir with these messages, and flags, dates and UIDs (not
// quite every third number) at random.
func (c *corpus) maildir(t testing.TB, texts []string) string {
	t.Helper()
	n := len(texts)
	dir := filepath.Join(peer.TempDir(t), "Maildir")
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	list := fmt.Sprintf("3 V1700000001 N%d G0123456789abcdef0123456789abcdef\n", 3*n+1)
	for i, text := range texts {
		flags := ""
		for _, f := range []string{"D", "F", "R", "S", "T", "a", "b"} {
			if c.chance(3) {
				flags += f
			}
		}
		base := fmt.Sprintf("17000%05d.M%dP1.example", i, i)
		date := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(c.IntN(60*24*60)) * time.Minute)
		path := filepath.Join(dir, "cur", base+":2,"+flags)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, date, date); err != nil {
			t.Fatal(err)
		}
		list += fmt.Sprintf("%d :%s\n", 3*(i+1)-c.IntN(2), base)
	}
	for name, text := range map[string]string{"dovecot-uidlist": list, "dovecot-keywords": "0 $Forwarded\n1 work\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
