package body

import "strings"

func crlfed(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

const simpleMultipart = `From: a@b
Subject: multi
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="xx"

preamble
--xx
Content-Type: text/plain

one
--xx
Content-Type: text/html; charset=utf-8
Content-Disposition: attachment; filename=x.html

<b>two</b>

--xx--
epilogue
`

const nested = `From: a@b
Subject: nested
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/plain

plain
--inner
Content-Type: text/html
Content-Transfer-Encoding: quoted-printable

<p>h=C3=A9</p>
--inner--

--outer
Content-Type: message/rfc822

From: in@side
Subject: inside
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=deep

--deep

first
--deep
Content-Type: application/octet-stream
Content-Transfer-Encoding: base64

aGVsbG8=
--deep--
--outer--
`

const digest = `Subject: digest
MIME-Version: 1.0
Content-Type: multipart/digest; boundary=d

--d

From: one@b
Subject: one

text one
--d
Content-Type: text/plain

not a message
--d
Content-Type: multipart/mixed; boundary=e

--e

inner default
--e--
--d
X-Header: only

Subject: three

three
--d--
`

var messages = []sample{
	{"empty", ""},
	{"newline", "\n"},
	{"crlf", "\r\n"},
	{"cr", "\r"},
	{"onebyte", "x"},
	{"noblank", "Subject: no blank line\nFrom: a@b\n"},
	{"noblank-nonl", "Subject: no blank line\nFrom: a@b"},
	{"headeronly", "Subject: x\n\n"},
	{"simple", "From: a@b\nSubject: x\n\nbody\n"},
	{"simple-crlf", "From: a@b\r\nSubject: x\r\n\r\nbody\r\n"},
	{"nofinalnl", "From: a@b\nSubject: x\n\nbody\nlast"},
	{"mixed-ends", "From: a@b\r\nSubject: x\n\r\none\r\ntwo\nthree\rfour\r\r\nfive\n\rsix\r"},
	{"cronly", "From: a@b\rSubject: x\r\rbody\r"},
	{"nul", "From: a@b\nSubject: nu\x00l\nX-Long: \x00\n\nbo\x00dy\x00\n"},
	{"eightbit", "From: J\xf6rg <a@b>\nSubject: \xff\xfe\n\nb\xf6dy\n"},
	{"nohdr", "\njust a body\nof two lines\n"},
	{"nohdr-text", "just a body\nof two lines\n\nand more\n"},
	{"mboxfrom", "From a@b Mon Jan  1 00:00:00 2024\nFrom: a@b\nSubject: x\n\nbody\n"},
	{"foldedfields", "From: a@b\nX-Long: one\n two\r\n\tthree\nSubject: s\n s2\n \n s3\nX-Long: again\n\nbody\n"},
	{"oddnames", "From : a@b\nN\xf6me: x\nSub ject: y\nnocolon\n folded\n: z\nSubject\t: s\n\nbody\n"},
	{"fields-dup", "Subject: a\nFrom: a@b\nSubject: b\nfrom: c@d\n\nbody\n"},
	{"multi", simpleMultipart},
	{"multi-crlf", crlfed(simpleMultipart)},
	{"multi-mixedends", strings.Replace(strings.Replace(simpleMultipart, "one\n--xx", "one\r\n--xx\r", 1), "two</b>\n\n", "two</b>\r\n\n", 1)},
	{"multi-unterminated", strings.TrimSuffix(simpleMultipart, "\n--xx--\nepilogue\n")},
	{"multi-nofinalnl", strings.TrimSuffix(simpleMultipart, "\nepilogue\n")},
	{"multi-noclosedash", strings.Replace(simpleMultipart, "--xx--", "--xx-", 1)},
	{"multi-trailing", strings.Replace(simpleMultipart, "--xx\n", "--xx  \t trailing\n", 2)},
	{"multi-afterclose", simpleMultipart + "--xx\nContent-Type: text/plain\n\nafter the end\n--xx--\n"},
	{"multi-noblank", strings.Replace(simpleMultipart, "text/plain\n\none\n", "text/plain\n", 1)},
	{"multi-nothing", strings.Replace(simpleMultipart, "Content-Type: text/plain\n\none\n", "", 1)},
	{"multi-emptyheader", strings.Replace(simpleMultipart, "Content-Type: text/plain\n", "", 1)},
	{"multi-emptybody", strings.Replace(simpleMultipart, "one\n", "", 1)},
	{"multi-emptybody2", strings.Replace(simpleMultipart, "one\n", "\n", 1)},
	{"multi-badheader", strings.Replace(simpleMultipart, "Content-Type: text/plain\n", "this is no header\n\xf6: x\n", 1)},
	{"multi-foldheader", strings.Replace(simpleMultipart, "Content-Type: text/plain\n", " starts with space\nContent-Type:\n text/plain\n", 1)},
	{"multi-noboundary", strings.Replace(simpleMultipart, "; boundary=\"xx\"", "", 1)},
	{"multi-emptyboundary", strings.Replace(simpleMultipart, "\"xx\"", "\"\"", 1)},
	{"multi-wrongboundary", strings.Replace(simpleMultipart, "\"xx\"", "zz", 1)},
	{"multi-prefixline", strings.Replace(simpleMultipart, "preamble\n", "preamble\n--x\n--xxx is a boundary too\n\ntext\n", 1)},
	{"multi-firstline", strings.Replace(simpleMultipart, "preamble\n", "", 1)},
	{"multi-noversion", strings.Replace(simpleMultipart, "MIME-Version: 1.0\n", "", 1)},
	{"multi-notype", strings.Replace(simpleMultipart, "Content-Type: multipart/mixed; boundary=\"xx\"\n", "", 1)},
	{"multi-closeonly", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x--\n"},
	{"multi-open", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x"},
	{"multi-opennl", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n"},
	{"multi-opennlnl", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\n"},
	{"multi-noblankafterheader", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n--x\n\none\n--x--\n"},
	{"multi-dashboundary", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"x--\"\n\n--x--\n\none\n--x----\n\nmore\n"},
	{"multi-bareCR", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\r\r\n\none\r\r\n--x\n\ntwo\r--x--\n"},
	{"multi-longboundary", strings.ReplaceAll("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"B\"\n\n--B\n\none\n--B\n\ntwo\n--B--\n", "B", strings.Repeat("b", 70))},
	{"nested", nested},
	{"nested-crlf", crlfed(nested)},
	{"nested-unterminated", strings.Replace(nested, "--inner--\n", "", 1)},
	{"nested-outercut", strings.Replace(nested, "--deep--\n", "", 1)},
	{"nested-prefix", strings.NewReplacer("boundary=inner", "boundary=outer2", "--inner", "--outer2").Replace(nested)},
	{"nested-prefix2", strings.NewReplacer("boundary=outer", "boundary=inner2", "--outer", "--inner2").Replace(nested)},
	{"nested-same", strings.NewReplacer("boundary=inner", "boundary=outer", "--inner", "--outer").Replace(nested)},
	{"nested-noblank", strings.Replace(nested, "Content-Type: multipart/alternative; boundary=inner\n\n", "Content-Type: multipart/alternative; boundary=inner\n", 1)},
	{"digest", digest},
	{"digest-emptyparts", "MIME-Version: 1.0\nContent-Type: multipart/digest; boundary=d\n\n--d\n--d\n\n--d\n\n\n--d--\n"},
	{"rfc822", "Subject: outer\nMIME-Version: 1.0\nContent-Type: message/rfc822\n\nFrom: in@side\nSubject: inner\n\nthe inner body\n"},
	{"rfc822-multi", "Subject: outer\nMIME-Version: 1.0\nContent-Type: message/rfc822\n\n" + simpleMultipart},
	{"rfc822-nested", "Subject: outer\nMIME-Version: 1.0\nContent-Type: message/rfc822\n\nSubject: middle\nMIME-Version: 1.0\nContent-Type: message/rfc822\n\nSubject: inner\n\nbody\n"},
	{"rfc822-empty", "Subject: outer\nMIME-Version: 1.0\nContent-Type: message/rfc822\n\n"},
	{"rfc822-noblank", "Subject: outer\nMIME-Version: 1.0\nContent-Type: message/rfc822\n"},
	{"rfc822-cut", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\n--x\nContent-Type: message/rfc822\n\n--x\nContent-Type: message/rfc822\n\nSubject: cut\n--x--\n"},
	{"rfc822-base64", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeA0KDQpib2R5DQo=\n--x--\n"},
	{"noversion-cte", "Content-Transfer-Encoding: base64\nContent-Disposition: attachment\n\naGVsbG8=\n"},
	{"noversion-type", "Content-Type: text/html\nContent-Transfer-Encoding: base64\n\naGVsbG8=\n"},
	{"version-cte", "MIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\naGVsbG8=\n"},
	{"unknown-cte", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Transfer-Encoding: x-foo\n\none\n--x\n\ntwo\n--x--\n"},
	{"qp-cut", "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Transfer-Encoding: quoted-printable\n\nsoft=\n--x\nContent-Transfer-Encoding: base64\n\naGVsbG8=\n--x--\n"},
	{"text-only", "MIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\n\n\xe9t\xe9\n"},
	{"image", "MIME-Version: 1.0\nContent-Type: image/png; name=x.png\nContent-Transfer-Encoding: base64\nContent-Disposition: inline\n\niVBORw0KGgo=\n"},
	{"part-noversion-embedded", "MIME-Version: 1.0\nContent-Type: message/rfc822\n\nSubject: x\nContent-Transfer-Encoding: base64\nContent-ID: <x>\n\naGVsbG8=\n"},
	{"longline", "Subject: " + strings.Repeat("x", 1500) + "\nX-Long: " + strings.Repeat("y ", 1000) + "\n\n" + strings.Repeat("z", 3000) + "\n"},
	{"longname", strings.Repeat("N", 1200) + ": x\nSubject: y\n\nbody\n"},
}
