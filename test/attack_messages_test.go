package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"imapd/test/peer"
)

// A hostile is a message that anybody can send to a user.
type hostile struct {
	name  string
	text  func() string // with LF line ends
	spend int64         // MiB, as in attack
	b     string        // the answer to what needs the text of a part, "OK" if empty
}

// readAll is all that a client can ask about one message.
const readAll = "a FETCH 1 (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE)\r\n" +
	"b FETCH 1 (BODY.PEEK[HEADER] BODY.PEEK[TEXT] BODY.PEEK[1] BODY.PEEK[1.MIME] BODY.PEEK[1.1.1.1] BODY.PEEK[HEADER.FIELDS (Subject To)] BINARY.PEEK[1] BINARY.SIZE[1])\r\n" +
	"c SEARCH TEXT needle\r\n" +
	"d SEARCH BODY needle SUBJECT needle FROM needle TO needle HEADER X-Any needle SENTSINCE 1-Jan-2020\r\n" +
	"e SEARCH OR OR OR OR SUBJECT needle FROM needle TO needle HEADER Content-Type needle SENTBEFORE 1-Jan-1970\r\n" +
	"f FETCH 1 BODY.PEEK[]\r\n" +
	"g FETCH 1 BODY.PEEK[TEXT]<1000000.100000>\r\n"

func TestAttackMessages(t *testing.T) {
	t.Parallel()
	x := strings.Repeat
	header := func(field string) string { return "From: a@example.org\n" + field + "\n\ntext\n" }
	each := func(n int, head, format, tail string) func() string {
		return func() string {
			b := []byte(head)
			for i := range n {
				b = fmt.Appendf(b, format, i)
			}
			return string(append(b, tail...))
		}
	}
	list := []hostile{
		{name: "nested multiparts", text: each(100000, "", "Content-Type: multipart/mixed; boundary=b%[1]d\n\n--b%[1]d\n", "\ntext\n"), spend: 16},
		{name: "nested messages", text: each(100000, "", "Content-Type: message/rfc822\n\n", "text\n")},
		{name: "nested digests", text: each(50000, "", "Content-Type: multipart/digest; boundary=\"%[1]d\"\n\n--%[1]d\n\n", "text\n")},
		{name: "parts of nothing", text: func() string {
			return "Content-Type: multipart/mixed; boundary=b\n\n" + x("--b\n\n", 1000000) + "--b--\n"
		}, spend: 24},
		{name: "messages of nothing", text: func() string {
			return "Content-Type: multipart/digest; boundary=b\n\n" + x("--b\n\nFrom: x\n\n", 100000) + "--b--\n"
		}, spend: 24},
		{name: "boundary of 10 KB", text: func() string {
			b := x("b", 10000)
			return "Content-Type: multipart/mixed; boundary=" + b + "\n\n" + x("--"+b+"\n\nx\n", 100) + "--" + b + "--\n"
		}},
		{name: "empty boundary", text: func() string { return "Content-Type: multipart/mixed; boundary=\"\"\n\n" + x("--\n\nx\n", 100000) }},
		{name: "boundaries that begin alike", text: func() string {
			var b strings.Builder
			for i := range 90 {
				fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=%s\n\n--%s\n", x("b", i+1), x("b", i+1))
			}
			return b.String() + "\n" + x("--"+x("b", 91)+"x\n", 20000)
		}},
		{name: "addresses by the million", text: func() string { return header("To: " + x("a@b.c,", 1000000) + "z@b.c") }, spend: 24},
		{name: "groups by the hundred thousand", text: func() string { return header("To: " + x("g:a@b.c,", 100000) + x(";", 100000)) }, spend: 24},
		{name: "comments in comments", text: func() string { return header("From: " + x("(", 1000000)) }},
		{name: "comment that ends in a backslash", text: func() string { return header("From: a@b.c (x\\") }},
		{name: "addresses that are none", text: func() string {
			return header("From:\nTo: <<<>>>,@,;:,\"\nCc: <@a,@b:c@d>\nBcc: \"" + x("\\", 99999))
		}},
		{name: "header line of 10 MB", text: func() string { return header("Subject: " + x("x", 10<<20)) }, spend: 24},
		{name: "folded header of 6 MB", text: func() string { return header("Subject: x" + x("\n x", 2<<20)) }, spend: 24},
		{name: "header lines by the million", text: func() string { return header(strings.TrimSuffix(x("X-A: b\n", 1000000), "\n")) }, spend: 24},
		{name: "header lines that are none", text: func() string { return x("nothing\n", 100000) + "From x\n: y\n\n\x00\x80\xff\n" }},
		{name: "NUL everywhere", text: func() string { return x("Sub\x00ject: \x00\n", 1000) + "\n" + x("\x00", 1<<20) }},
		{name: "CR for line ends", text: func() string { return x("Subject: x\r", 100000) + "\r" + x("x\r", 100000) }},
		{name: "CR before CRLF", text: func() string { return x("Subject: x\r\r\n", 1000) + "\r\r\n" + x("\r\r\n", 100000) }},
		{name: "parameters in pieces", text: func() string {
			return each(100000, "Content-Type: text/plain", ";\n name*%d*=x%%20y", "\n\ntext\n")()
		}, spend: 16},
		{name: "parameters with gaps", text: func() string {
			return "Content-Type: text/plain; name*0=a; name*2=b; name*1=c; name*1=d; name*99999999999=e; name*=utf-8''%; name*x=y; *=; =;;; charset*=" + x("'", 999) + "\n\ntext\n"
		}},
		{name: "encoded words by the million", text: func() string { return header("Subject: " + x("=?utf-8?B?YQ==?= ", 500000)) }, spend: 24},
		{name: "encoded words that are none", text: func() string {
			return header("Subject: =?x?B?" + x("A", 100001) + "?= =?utf-7?Q?+AAA-?= =?../../x?Q?a?= =?utf-8?X?a?= =?=?=??=?= =?utf-8?B?" + x("=", 9999))
		}},
		{name: "charsets that grow", text: func() string {
			return "Content-Type: text/plain; charset=iso-2022-jp\n\n" + x("\x1b$B!!\x1b(B", 500000) + "\n"
		}},
		{name: "charset that is none", text: func() string {
			return "Content-Type: text/plain; charset=\"" + x("../", 10000) + "\"\n\n" + x("needle ", 10000)
		}},
		{name: "base64, an octet a line", text: func() string {
			return "Content-Transfer-Encoding: base64\n\n" + x("Q\n", 1000000) + "==Q=\n!!!"
		}},
		{name: "quoted-printable of nothing", text: func() string {
			return "Content-Transfer-Encoding: quoted-printable\n\n" + x("=\n", 1000000) + "=ZZ=4=\n="
		}},
		{name: "transfer encoding that is none", text: func() string { return "Content-Transfer-Encoding: x-yenc\n\n" + x("=ybegin\n", 1000) }, b: "NO [UNKNOWN-CTE]"},
		{name: "transfer encoding of 1 MB", text: func() string { return "Content-Transfer-Encoding: " + x("x", 1<<20) + "\n\ntext\n" }, b: "NO [UNKNOWN-CTE]"},
		{name: "line of 10 MB", text: func() string { return "Subject: x\n\n" + x("x", 10<<20) }},
		{name: "empty lines by the million", text: func() string { return "Subject: x\n\n" + x("\n", 5<<20) }},
		{name: "dates that are none", text: func() string {
			return header("Date: " + x("(", 10000) + "\nDate: 99 Foo 99999999999 99:99:99 +99999999\nDate: Mon, 31 Feb 2020 25:61:61 ZZZ" + x("\n ", 9999))
		}},
		{name: "languages and places", text: func() string {
			return "Content-Type: text/plain\nContent-Language: " + x("de, ", 100000) + "x\nContent-Location: " + x("\"", 9999) + "\nContent-Disposition: " + x("a;b=c;", 10000) + "\nContent-MD5: \x00\n\ntext\n"
		}, spend: 16},
		{name: "type of anything", text: func() string {
			return "Content-Type: " + x("x", 1<<20) + "/" + x("y", 1<<20) + "; " + x("z=\"", 100000) + "\n\ntext\n"
		}, spend: 24},
		{name: "HTML of tags", text: func() string { return "Content-Type: text/html\n\n" + x("<a b='", 300000) + x("<!--", 100000) }},
		{name: "no octet", text: func() string { return "" }},
		{name: "one line end", text: func() string { return "\n" }},
		{name: "no header", text: func() string { return "\n\nneedle" }},
	}
	dir := basicMany(t, false)
	var rows []attack
	for i, m := range list {
		folder := "M" + strconv.Itoa(i)
		lay(t, filepath.Join(strings.Replace(dir, "%u", "jane", 1), "."+folder), fmt.Sprintf("17000000%02d.M1P1.host:2,S", i), m.text())
		b := m.b
		if b == "" {
			b = "OK"
		}
		rows = append(rows, attack{name: m.name, in: folder, send: say(readAll), spend: m.spend,
			want: "a OK, b " + b + ", c OK, d OK, e OK, f OK, g OK"})
	}
	s := newTarget(t, dir, peer.Options{})
	s.run(t, rows)
	c := must(imapclient.DialInsecure(s.Addr, nil))(t)
	defer c.Close()
	if err := c.Login("jane", peer.Password).Wait(); err != nil {
		t.Fatal(err)
	}
	options := &imap.FetchOptions{Envelope: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true}}
	for i, m := range list {
		must(c.Select("M"+strconv.Itoa(i), nil).Wait())(t)
		if got, err := c.Fetch(imap.SeqSetNum(1), options).Collect(); err != nil || len(got) != 1 || got[0].Envelope == nil || got[0].BodyStructure == nil {
			t.Fatalf("%s: go-imap: %v", m.name, err)
		}
	}
}

// lay puts a message into cur/ of a folder, which is made if there is none.
func lay(t *testing.T, folder, name, text string) {
	t.Helper()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(folder, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(folder, "cur", name), text)
	peer.Own(t, folder)
}
