package test

import (
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

func TestAttackBeforeLogin(t *testing.T) {
	t.Parallel()
	s := newTarget(t, basicMany(t, false), peer.Options{})
	x := strings.Repeat
	s.run(t, []attack{
		{name: "parentheses", send: say("a " + x("(", 5000) + "\r\n"), want: "a BAD"},
		{name: "parentheses in ID", send: say("a ID " + x("(", 5000) + "\r\n"), want: "a BAD"},
		{name: "parentheses without end", send: flood("a ", "(", 100<<20, "\r\n"), want: "BYE, closed"},
		{name: "literal of 2^32-1", send: say("a LOGIN {4294967295}\r\n"), want: "a NO [TOOBIG]"},
		{name: "literal of 2^63-1", send: say("a LOGIN {9223372036854775807}\r\n"), want: "a NO [TOOBIG]"},
		{name: "literal of 2^63", send: say("a LOGIN {9223372036854775808}\r\n"), want: "a BAD"},
		{name: "literal of 2^64-1", send: say("a LOGIN {18446744073709551615}\r\n"), want: "a BAD"},
		{name: "literal of 20 nines", send: say("a LOGIN {99999999999999999999}\r\n"), want: "a BAD"},
		{name: "literal of 20 nines, coming", send: say("a LOGIN {99999999999999999999+}\r\n"), want: "BYE, closed"},
		{name: "negative literal", send: say("a LOGIN {-1}\r\n"), want: "a BAD"},
		{name: "literal with leading zeros", send: say("a LOGIN {0004}\r\njane {02}\r\nxx\r\n"), want: "+, +, a NO [AUTHENTICATIONFAILED]"},
		{name: "literal without brace", send: say("a LOGIN {1\r\n"), want: "a BAD"},
		{name: "literal with a sign", send: say("a LOGIN {+1}\r\n"), want: "a BAD"},
		{name: "huge literal, coming", send: say("a LOGIN {999999999+}\r\n"), want: "BYE, closed"},
		{name: "literal of commands", send: say("a LOGIN {6000+}\r\n" + x("x NOOP\r\n", 750) + " y\r\nb NOOP\r\n"), want: "a BAD [TOOBIG], b OK"},
		{name: "literal behind the name of no command", send: say("a FROB {24+}\r\n" + x("x NOOP\r\n", 3) + "\r\nb NOOP\r\n"), want: "a BAD, b OK"},
		{name: "literals one after the other", send: say("a ID (" + x("{1+}\r\nx ", 2000) + ")\r\n"), want: "a BAD [TOOBIG]"},
		{name: "line of 9 KiB", send: say("a NOOP" + x(" x", 4500) + "\r\n"), want: "a BAD"},
		{name: "argument of 9 KiB", send: say("a LOGIN " + x("x", 9000) + " y\r\n"), want: "BYE, closed"},
		{name: "line of spaces", send: say("a NOOP" + x(" ", 9000) + "\r\n"), want: "BYE, closed"},
		{name: "line without end", send: flood("a LOGIN ", "x", 100<<20, "\r\n"), want: "BYE, closed"},
		{name: "no line at all", send: flood("", "\x00", 100<<20, "\r\n"), want: "BYE, closed"},
		{name: "NUL in a quoted string", send: say("a LOGIN \"ja\x00ne\" x\r\n"), want: "a BAD"},
		{name: "NUL in an atom", send: say("a LOGIN ja\x00ne x\r\n"), want: "a BAD"},
		{name: "NUL in a literal", send: say("a LOGIN {3+}\r\na\x00b x\r\n"), want: "a BAD"},
		{name: "NUL ends a quoted string", send: say("a LOGIN \"x\\\x00\" x\r\n"), want: "a BAD"},
		{name: "UTF-8 that is none", send: say("a LOGIN \"\xc3\x28\" x\r\n"), want: "a BAD"},
		{name: "UTF-8 cut off", send: say("a LOGIN \"\xe2\x82\" x\r\n"), want: "a BAD"},
		{name: "UTF-8 that is too long", send: say("a LOGIN \"\xc0\xaf\" x\r\n"), want: "a BAD"},
		{name: "bare CR", send: say("a NOOP\rb NOOP\r\n"), want: "a BAD"},
		{name: "bad escape", send: say(`a LOGIN "a\b" x` + "\r\n"), want: "a BAD"},
		{name: "quoted string without end", send: say("a LOGIN \"jane x\r\n"), want: "a BAD"},
		{name: "no tag", send: say(" NOOP\r\n"), want: "* BAD"},
		{name: "empty lines", send: say("\r\n\r\n"), want: "* BAD, * BAD"},
		{name: "asterisk for a tag", send: say("* NOOP\r\n"), want: "* BAD"},
		{name: "plus in the tag", send: say("a+b NOOP\r\n"), want: "* BAD"},
		{name: "tag that would answer for us", send: say("(OK) NOOP\r\n"), want: "* BAD"},
		{name: "CR in the tag", send: say("a\rb OK NOOP\r\n"), want: "a BAD"},
		{name: "tag of 1 MiB", send: flood("", "t", 1<<20, " NOOP\r\n"), want: "BYE, closed"},
		{name: "tag of 300", send: say(x("t", 300) + " NOOP\r\n"), want: "* BAD"},
		{name: "ID of 40 pairs", send: say("a ID (" + strings.TrimSpace(x(`"x" "y" `, 40)) + ")\r\n"), want: "a BAD"},
		{name: "ID with a long value", send: say(`a ID ("name" "` + x("x", 2000) + `")` + "\r\n"), want: "a BAD"},
		{name: "ID with a line end", send: say("a ID (\"name\" {11+}\r\nx\r\nb NOOP\r\n)\r\n"), want: "a OK"},
		{name: "commands of users", send: say("a SELECT INBOX\r\nb FETCH 1 BODY[]\r\n"), want: "a BAD, b BAD"},
		{name: "four bad commands", send: say(x("a X\r\n", 9)), want: "a BAD, a BAD, a BAD, a BAD, BYE, closed"},
		{name: "HTTP", send: say("GET / HTTP/1.1\r\nHost: <script>\r\n\r\n"), want: "BYE, closed"},
		{name: "SMTP", send: say("EHLO <script>\r\n"), want: "BYE, closed"},
		{name: "SSH", send: say("SSH-2.0-x\r\n"), want: "BYE, closed"},
		{name: "TLS where none is", send: say("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n"), want: "BYE, closed"},
		{name: "PROXY from who may not", send: say("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), want: "closed"},
		{name: "PROXY in version 2 from who may not", send: say("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02"), want: "closed"},
		{name: "base64 of 1 MiB", send: flood("a AUTHENTICATE PLAIN\r\n", "A", 1<<20, "\r\n"), want: "+, BYE, closed"},
		{name: "base64 above the limit", send: flood("a AUTHENTICATE PLAIN\r\n", "A", 13000, "\r\n"), want: "+, a BAD [TOOBIG]"},
		{name: "base64 that is none", send: say("a AUTHENTICATE PLAIN\r\nA=B=\r\n"), want: "+, a BAD"},
		{name: "base64 with a space", send: say("a AUTHENTICATE PLAIN\r\nAA AA\r\n"), want: "+, a BAD"},
		{name: "initial response that is none", send: say("a AUTHENTICATE PLAIN ====\r\n"), want: "a BAD"},
		{name: "empty initial response", send: say("a AUTHENTICATE PLAIN =\r\n"), want: "a NO [AUTHENTICATIONFAILED]"},
		{name: "canceled", send: say("a AUTHENTICATE PLAIN\r\n*\r\n"), want: "+, a BAD"},
		{name: "begun and canceled", send: say(x("a AUTHENTICATE PLAIN\r\n*\r\n", 1000)), want: "+, a BAD, +, a BAD, +, a BAD, BYE, closed"},
		{name: "command within AUTHENTICATE", send: say("a AUTHENTICATE PLAIN\r\nb SELECT INBOX\r\n"), want: "+, a BAD"},
		{name: "mechanism of 5 KB", send: say("a AUTHENTICATE " + x("X", 5000) + "\r\n"), want: "a NO [CANNOT]"},
		{name: "user that is a path", send: say("a LOGIN ../../etc x\r\n"), want: "a NO [AUTHENTICATIONFAILED]"},
		{name: "user with a slash", send: say("a LOGIN joe/../jane Secret-7\r\n"), want: "a NO [AUTHENTICATIONFAILED]"},
		{name: "user with a percent sign", send: say("a LOGIN \"x%uy\" x\r\n"), want: "a NO [AUTHENTICATIONFAILED]"},
		{name: "user with a master's name", send: say("a LOGIN jane*joe Secret-7\r\n"), want: "a BAD"},
		{name: "user with a master's name, quoted", send: say("a LOGIN \"jane*joe\" Secret-7\r\n"), want: "a NO [AUTHENTICATIONFAILED]"},
		{name: "user with line ends", send: say("a LOGIN {9+}\r\nx\r\nuser=y x\r\n"), want: "a NO [AUTHENTICATIONFAILED]"},
		{name: "user of 4 KB", send: say("a LOGIN " + x("u", 4000) + " x\r\n"), want: "a NO [AUTHENTICATIONFAILED]"},
		{name: "empty user and password", send: say("a LOGIN \"\" \"\"\r\n"), want: "a NO [AUTHENTICATIONFAILED]"},
		{name: "empty password", send: say("a LOGIN jane \"\"\r\n"), want: "a NO [AUTHENTICATIONFAILED]"},
		{name: "another's mail by PLAIN", send: say("a AUTHENTICATE PLAIN am9lAGphbmUAU2VjcmV0LTc=\r\n"), want: "a NO [AUTHORIZATIONFAILED]"},
		{name: "pipelined logins", send: say(x("a LOGIN jane x\r\n", 100)), want: "a NO [AUTHENTICATIONFAILED], a NO [AUTHENTICATIONFAILED], a NO [AUTHENTICATIONFAILED], BYE, closed"},
	})
}

func TestAttackCommands(t *testing.T) {
	t.Parallel()
	s := newTarget(t, basicMany(t, false), peer.Options{})
	x := strings.Repeat
	evil := "\r\nx DELETE Victim\r\ny STORE 1:* +FLAGS \\Deleted\r\nz EXPUNGE\r\n"
	octets := strconv.Itoa
	s.run(t, []attack{
		{name: "parentheses", in: "INBOX", send: say("a SEARCH " + x("(", 100000) + "\r\n"), want: "a BAD [LIMIT]"},
		{name: "many parentheses", in: "INBOX", send: flood("a SEARCH ", "(", 10<<20, "\r\n"), want: "a BAD [LIMIT]"},
		{name: "parentheses of flags", in: "INBOX", send: say("a STORE 1 FLAGS " + x("(", 100000) + "\r\n"), want: "a BAD"},
		{name: "parentheses of items", in: "INBOX", send: say("a FETCH 1 " + x("(", 100000) + "\r\n"), want: "a BAD"},
		{name: "literal of 2^32-1", in: user, send: say("a SELECT {4294967295}\r\n"), want: "a NO [TOOBIG]"},
		{name: "message of 2^40", in: user, send: say("a APPEND INBOX {1099511627776}\r\n"), want: "a NO [TOOBIG]"},
		{name: "message of 2^63", in: user, send: say("a APPEND INBOX {9223372036854775808}\r\n"), want: "a BAD"},
		{name: "message of 2^40, coming", in: user, send: say("a APPEND INBOX {1099511627776+}\r\n"), want: "BYE, closed"},
		{name: "message above limit_skip, coming", in: user, send: flood("a APPEND Sent {73400320+}\r\n", strings.Repeat("x", 1022)+"\r\n", 71680, "\r\n"), want: "a OK"},
		{name: "message of commands into no mailbox", in: "INBOX", send: flood("a APPEND None {4700000+}\r\n", evil, 4700000/len(evil), "\r\n"), want: "a NO [TRYCREATE]"},
		{name: "literal of commands", in: "INBOX", send: flood("a SELECT {"+octets(len(evil)*10000)+"+}\r\n", evil, 10000, "\r\n"), want: "a NO [TOOBIG]"},
		{name: "literal of commands for no command", in: "INBOX", send: say("a FROB {" + octets(len(evil)) + "+}\r\n" + evil + "\r\n"), want: "a BAD"},
		{name: "literal of commands behind bad flags", in: "INBOX", send: say("a APPEND INBOX (\\Foo {" + octets(len(evil)) + "+}\r\n" + evil + "\r\n"), want: "a BAD"},
		{name: "literal of commands behind a quote", in: "INBOX", send: say("a SELECT \"x {" + octets(len(evil)) + "+}\r\n" + evil + "\r\n"), want: "a BAD"},
		{name: "huge literal, coming", in: user, send: say("a SELECT {999999999+}\r\n"), want: "BYE, closed"},
		{name: "literals one after the other", in: "INBOX", send: flood("a SEARCH", " TEXT {1+}\r\nx", 5000, "\r\n"), want: "a BAD [LIMIT]"},
		{name: "large literals one after the other", in: "INBOX", send: flood("a SEARCH", " TEXT {100000+}\r\n"+x("x", 100000), 200, "\r\n"), want: "a BAD [TOOBIG]", spend: 12},
		{name: "literals in no command", in: "INBOX", send: flood("a FROB", " {1000+}\r\n"+x("x", 1000), 50000, "\r\n"), want: "a BAD"},
		{name: "line of 3 MiB", in: "INBOX", send: flood("a FETCH 1", ",1", 3<<19, " UID\r\n"), want: "BYE, closed", spend: 24},
		{name: "line without end", in: "INBOX", send: flood("a FETCH 1", ",1", 100<<20, " UID\r\n"), want: "BYE, closed", spend: 24},
		{name: "word without end", in: user, send: flood("a SELECT ", "x", 200<<20, "\r\n"), want: "BYE, closed"},
		{name: "quoted string without end", in: user, send: flood("a SELECT \"", "x", 200<<20, "\"\r\n"), want: "BYE, closed"},
		{name: "word of 200 KB", in: user, send: flood("a SELECT ", "x", 200<<10, "\r\n"), want: "a NO [TOOBIG]"},
		{name: "NUL in a name", in: user, send: say("a SELECT \"x\x00\"\r\n"), want: "a BAD"},
		{name: "NUL in a message", in: user, send: say("a APPEND INBOX {3+}\r\na\x00b\r\n"), want: "a BAD"},
		{name: "21 bad commands", in: user, send: say(x("a X\r\n", 30)), want: x("a BAD, ", 21) + "BYE, closed"},

		{name: "sets that end at 2^32-1", in: "INBOX", send: say("a FETCH 4294967295:* UID\r\nb FETCH *:4294967295 UID\r\nc UID FETCH 4294967295:* UID\r\n"), want: "a BAD, b BAD, c OK"},
		{name: "sets beyond 32 bits", in: "INBOX", send: say("a FETCH 4294967296 UID\r\nb UID FETCH 1:4294967296 UID\r\nc FETCH 99999999999999999999 UID\r\n"), want: "a BAD, b BAD, c BAD"},
		{name: "sets with 0", in: "INBOX", send: say("a FETCH 0 UID\r\nb FETCH 1:0 UID\r\nc FETCH 0:* UID\r\nd FETCH -1 UID\r\ne FETCH 1, UID\r\nf FETCH ,1 UID\r\ng FETCH 1:2:3 UID\r\n"), want: "a BAD, b BAD, c BAD, d BAD, e BAD, f BAD, g BAD"},
		{name: "set of all again and again", in: "INBOX", send: flood("a FETCH 1:*", ",1:*,*:1", 100000, " UID\r\n"), want: "a OK", spend: 32},
		{name: "set of many ranges", in: "INBOX", send: func(w io.Writer) {
			b := []byte("a UID FETCH 1")
			for i := 3; len(b) < 1<<20; i += 2 {
				b = strconv.AppendInt(append(b, ','), int64(i), 10)
			}
			w.Write(append(b, " UID\r\n"...))
		}, want: "a OK", spend: 24},
		{name: "saved result that is none", in: "INBOX", send: say("a FETCH $ UID\r\nb UID STORE $ +FLAGS x\r\nc COPY $ Work\r\n"), want: "a OK, b OK, c OK"},
		{name: "sets in an empty mailbox", in: "Trash", send: say("a FETCH 1:* UID\r\nb UID FETCH 1:* UID\r\nc STORE 1 FLAGS ()\r\nd COPY * Work\r\n"), want: "a BAD, b OK, c BAD, d BAD"},

		{name: "partial at the end of 32 bits", in: "INBOX", send: say("a FETCH 1 BODY.PEEK[]<4294967295.4294967295>\r\n"), want: "a OK"},
		{name: "partial of nothing", in: "INBOX", send: say("a FETCH 1 BODY.PEEK[]<0.0>\r\n"), want: "a OK"},
		{name: "partial beyond 64 bits", in: "INBOX", send: say("a FETCH 1 BODY.PEEK[]<1.18446744073709551615>\r\nb FETCH 1 BODY.PEEK[]<18446744073709551616.1>\r\nc FETCH 1 BODY.PEEK[]<9223372036854775807.9223372036854775807>\r\n"), want: "a BAD, b BAD, c OK"},
		{name: "partial of a negative number", in: "INBOX", send: say("a FETCH 1 BODY.PEEK[]<-1.5>\r\nb FETCH 1 BODY.PEEK[]<1>\r\nc FETCH 1 BODY.PEEK[]<1.2.3>\r\n"), want: "a BAD, b BAD, c BAD"},
		{name: "part 0", in: "INBOX", send: say("a FETCH 1 BODY.PEEK[0]\r\nb FETCH 1 BODY.PEEK[1.0]\r\nc FETCH 1 BODY.PEEK[4294967296]\r\n"), want: "a BAD, b BAD, c BAD"},
		{name: "part of part of part", in: "INBOX", send: say("a FETCH 1 BODY.PEEK[1" + x(".1", 5000) + "]\r\n"), want: "a OK"},
		{name: "part that is not there", in: "INBOX", send: say("a FETCH 1:* (BODY.PEEK[4294967295] BODY.PEEK[9.9.9.MIME] BODY.PEEK[7.HEADER] BINARY.PEEK[99])\r\n"), want: "a OK"},
		{name: "header fields by the thousand", in: "INBOX", send: flood("a FETCH 1:* BODY.PEEK[HEADER.FIELDS (x", " x", 50000, ")]\r\n"), want: "a OK", spend: 24},
		{name: "header fields with line ends", in: "INBOX", send: say("a FETCH 1 BODY.PEEK[HEADER.FIELDS ({14+}\r\nx\r\n* 1 EXPUNGE)]\r\n"), want: "a OK"},
		{name: "the same item a thousand times", in: "INBOX", send: flood("a FETCH 1:* (FLAGS", " BODY.PEEK[]", 1000, ")\r\n"), want: "a OK", spend: 16},

		{name: "dates that are none", in: "INBOX", send: say("a SEARCH SINCE 32-Jan-2026\r\nb SEARCH SINCE 01-Jan-99999999\r\nc SEARCH SINCE 1-Foo-2020\r\nd SEARCH SINCE 00-Jan-2020\r\ne SEARCH SINCE -1-Jan-2020\r\nf SEARCH SINCE 1-Jan-20\r\n"), want: "a BAD, b BAD, c BAD, d BAD, e BAD, f BAD"},
		{name: "dates at the edges", in: "INBOX", send: say("a SEARCH SINCE 29-Feb-1900\r\nb SEARCH BEFORE 1-Jan-0001\r\nc SEARCH SINCE 31-Dec-9999\r\nd SEARCH ON 1-Jan-1970\r\n"), want: "a OK, b OK, c OK, d OK"},
		{name: "dates of messages that are none", in: "INBOX", send: say("a APPEND Work \"32-Jan-2026 00:00:00 +0000\" {3}\r\nb APPEND Work \" 1-Jan-2026 25:00:00 +0000\" {3}\r\nc APPEND Work \" 1-Jan-2026 00:00:00 +9999\" {3}\r\n"), want: "a BAD, b BAD, c BAD"},
		{name: "message from year 9999", in: "INBOX", send: say("a APPEND Work \"31-Dec-9999 23:59:59 -1200\" {3+}\r\nx\r\n\r\nb APPEND Work \"01-Jan-0001 00:00:00 +1200\" {3+}\r\nx\r\n\r\nc SELECT Work\r\nd FETCH 1:* INTERNALDATE\r\n"), want: "a OK, b OK, c OK, d OK"},

		{name: "NOOP by the hundred thousand", in: "INBOX", send: flood("", "a NOOP\r\n", 100, ""), want: strings.TrimSuffix(x("a OK, ", 100), ", ")},
		{name: "ENABLE of much", in: user, send: flood("a ENABLE", " X", 40000, "\r\n"), want: "a OK"},
		{name: "ENABLE of more", in: user, send: flood("a ENABLE", " XXXXXXX", 200000, "\r\n"), want: "a BAD [TOOBIG]"},
		{name: "CANCELUPDATE", in: user, send: say("a CANCELUPDATE \"x\"\r\n"), want: "a BAD"},

		{name: "search of keys without end", in: "INBOX", send: flood("a SEARCH", " NOT", 100000, " ALL\r\n"), want: "a BAD [LIMIT]"},
		{name: "search of pairs without end", in: "INBOX", send: flood("a SEARCH", " OR", 100000, " ALL ALL\r\n"), want: "a BAD [LIMIT]"},
		{name: "search of a thousand texts", in: "INBOX", send: flood("a SEARCH", " TEXT abc", 990, "\r\n"), want: "a OK"},
		{name: "search of too many keys", in: "INBOX", send: flood("a SEARCH", " ALL", 1100, "\r\n"), want: "a BAD [LIMIT]"},
		{name: "search in a charset that is none", in: "INBOX", send: say("a SEARCH CHARSET x ALL\r\nb SEARCH CHARSET ../../gconv TEXT x\r\nc SEARCH CHARSET \"\" ALL\r\n"), want: "a NO [BADCHARSET], b NO [BADCHARSET], c NO [BADCHARSET]"},
		{name: "search for 8 bit that is no UTF-8", in: "INBOX", send: say("a SEARCH CHARSET UTF-8 TEXT {2+}\r\n\xc3\x28\r\n"), want: "a BAD"},
		{name: "search for an empty text", in: "INBOX", send: say("a SEARCH TEXT \"\"\r\nb SEARCH HEADER \"\" \"\"\r\n"), want: "a OK, b OK"},
		{name: "search for a text of 100 KB", in: "INBOX", send: flood("a SEARCH TEXT ", "a", 100000, "\r\n"), want: "a OK"},

		{name: "IDLE and something else", in: "INBOX", send: say("a IDLE\r\nb NOOP\r\n"), want: "+, a BAD"},
		{name: "IDLE and a literal", in: "INBOX", send: say("a IDLE\r\nb SELECT {8+}\r\nx NOOP\r\n\r\n"), want: "+, a BAD"},
		{name: "IDLE and DONE with more", in: "INBOX", send: say("a IDLE\r\nDONE x\r\n"), want: "+, a BAD"},
		{name: "IDLE and a line without end", in: "INBOX", send: flood("a IDLE\r\nDONE", "x", 100<<20, "\r\n"), want: "+, BYE, closed"},
		{name: "DONE out of place", in: "INBOX", send: say("DONE\r\n"), want: "DONE BAD"},

		{name: "names in bad UTF-7", in: user, send: say("a CREATE &AC8-\r\nb CREATE &AC4ALg-\r\nc CREATE &AAA-\r\nd CREATE &Jjo\r\ne CREATE &AGE-\r\nf CREATE &2AA-\r\ng CREATE &\r\nh CREATE \"x&-&\"\r\n"),
			want: "a NO [CANNOT], b NO [CANNOT], c NO [CANNOT], d NO [CANNOT], e NO [CANNOT], f NO [CANNOT], g NO [CANNOT], h NO [CANNOT]"},
		{name: "names that are paths", in: user, send: say("a CREATE ../x\r\nb CREATE /etc/x\r\nc CREATE x/../../y\r\nd CREATE ~root/x\r\ne CREATE .\r\nf CREATE ..\r\ng CREATE x//y\r\nh CREATE x/./y\r\n"),
			want: "a NO [CANNOT], b NO [CANNOT], c NO [CANNOT], d NO [CANNOT], e NO [CANNOT], f NO [CANNOT], g NO [CANNOT], h NO [CANNOT]"},
		{name: "names with controls", in: user, send: say("a CREATE {3+}\r\nx\ny\r\nb CREATE {3+}\r\nx\ry\r\nc CREATE \"x\x01y\"\r\nd CREATE \"x\x7fy\"\r\n"), want: "a NO [CANNOT], b NO [CANNOT], c NO [CANNOT], d NO [CANNOT]"},
		{name: "names of 8 bit", in: user, send: say("a CREATE \"\xc3\xa4\"\r\nb CREATE {2+}\r\n\xff\xfe\r\nc SELECT \"\xff\"\r\n"), want: "a OK, b NO [CANNOT], c NO [CANNOT]"},
		{name: "names that are too long", in: user, send: say("a CREATE " + x("x", 300) + "\r\nb CREATE " + x("y", 10000) + "\r\nc CREATE " + x("z/", 600) + "z\r\nd RENAME Work " + x("w", 5000) + "\r\ne SELECT " + x("v", 5000) + "\r\nf SUBSCRIBE " + x("u", 5000) + "\r\n"),
			want: "a NO [CANNOT], b NO [CANNOT], c NO [CANNOT], d NO [CANNOT], e NO [CANNOT], f NO [CANNOT]"},
		{name: "names that others take for commands", in: user, send: say("a SELECT \"{host:143/imap}x\"\r\nb SELECT \"-oProxyCommand=x\"\r\nc SELECT #news\r\nd SELECT |cmd\r\ne SELECT !sh\r\n"),
			want: "a NO [NONEXISTENT], b NO [NONEXISTENT], c NO [NONEXISTENT], d NO [NONEXISTENT], e NO [NONEXISTENT]"},
		{name: "INBOX in other words", in: user, send: say("a CREATE inbox\r\nb DELETE InBox\r\nc CREATE INBOX/x\r\nd CREATE inbox/y\r\n"), want: "a NO [ALREADYEXISTS], b NO [CANNOT], c OK, d OK"},

		{name: "patterns of nothing but stars", in: user, send: say("a LIST \"\" \"" + x("*%", 490) + "\"\r\nb LIST \"\" \"" + x("*a", 490) + "\"\r\n"), want: "a OK, b OK"},
		{name: "patterns that are too long", in: user, send: say("a LIST \"\" " + x("*", 5000) + "\r\nb LIST " + x("r", 5000) + " *\r\n"), want: "a OK, b OK"},
		{name: "patterns by the thousand", in: user, send: flood("a LIST \"\" (x", " *", 5000, ")\r\n"), want: "a NO [LIMIT]"},
		{name: "patterns that are paths", in: user, send: say("a LIST \"\" \"../../*\"\r\nb LIST .. *\r\nc LIST /etc/ *\r\nd LIST ~root *\r\ne LIST \"\" \"/*\"\r\n"), want: "a OK, b OK, c OK, d OK, e OK"},
		{name: "patterns of UTF-7 that is none", in: user, send: say("a LIST \"\" \"&Jjo\"\r\nb LIST \"\" \"&*&%&\"\r\nc LSUB \"\" \"&AAA-*\"\r\n"), want: "a OK, b OK, c OK"},

		{name: "flags that are none", in: "INBOX", send: say("a STORE 1 +FLAGS \\Foo\r\nb STORE 1 +FLAGS \\Recent\r\nc STORE 1 +FLAGS \\*\r\nd STORE 1 +FLAGS x]y\r\ne STORE 1 +FLAGS x\xc3\xa4\r\nf STORE 1 +FLAGS (\"x\")\r\n"),
			want: "a BAD, b BAD, c BAD, d BAD, e BAD, f BAD"},
		{name: "keyword of 1 MiB", in: "INBOX", send: flood("a STORE 1 +FLAGS ", "k", 1<<20, "\r\n"), want: "a BAD [TOOBIG]"},
		{name: "keywords by the thousand", in: "INBOX", send: func(w io.Writer) {
			b := []byte("a STORE 1 +FLAGS (k0")
			for i := range 10000 {
				b = strconv.AppendInt(append(b, " k"...), int64(i+1), 10)
			}
			w.Write(append(b, ")\r\n"...))
		}, want: "a NO [LIMIT]", spend: 16},

		{name: "nothing has happened", in: "Victim", send: say("a FETCH 1 UID\r\nb STATUS INBOX (MESSAGES)\r\n"), want: "a OK, b OK"},
	})
}

// TestAttackSilence writes and never reads. The server must stop reading, and
// not keep the answers.
func TestAttackSilence(t *testing.T) {
	t.Parallel()
	s := newTarget(t, basicMany(t, false), peer.Options{})
	for _, line := range []string{"a NOOP\r\n", "a FETCH 1:* BODY.PEEK[]\r\n", "a SEARCH TEXT x\r\n"} {
		before := s.memory(t)
		c := s.connect(t, "INBOX")
		full := make(chan int)
		go func() {
			n, chunk := 0, strings.Repeat(line, 1000)
			for n < 256<<20 {
				m, err := io.WriteString(c, chunk)
				n += m
				if err != nil {
					break
				}
			}
			full <- n
		}()
		s.bystander.Do("NOOP")
		c.SetWriteDeadline(time.Now().Add(2 * time.Second)) // by then it is blocked
		if n := <-full; n >= 256<<20 {
			t.Errorf("%q: %d octets were taken without anybody reading the answers", line, n)
		}
		s.bystander.Do("NOOP")
		if grown := s.peak(t) - before; grown > growth<<20 {
			t.Errorf("%q: the server grew by %.1f MiB", line, float64(grown)/(1<<20))
		}
		c.Close()
	}
}
