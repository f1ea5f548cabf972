package imap

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRandomCommands makes commands from the grammar by lot, spoils some, and
// sends them in all states. What holds for FuzzSession must hold; a fuzzer
// seldom comes upon a SEARCH of five keys or a LIST with all its options.
func TestRandomCommands(t *testing.T) {
	t.Parallel()
	w := newFuzzWorld(t)
	runs := 150
	if os.Getenv("IMAPD_SOAK") != "" {
		runs = 50000
	}
	for seed := range uint64(runs) {
		g := &grammar{rand.New(rand.NewPCG(seed, 1))}
		state := byte(g.IntN(fuzzAll)) &^ fuzzRaw
		if g.IntN(5) > 0 {
			state |= fuzzUser | fuzzSelected
		}
		var input strings.Builder
		for range 30 {
			input.WriteString(g.spoil(g.command()) + "\r\n")
		}
		s := w.session(t, state)
		if err := s.sendLines([]byte(input.String())); err != nil {
			t.Errorf("run %d, state %d: %v\n%s", seed, state, err, input.String())
		}
		s.end()
		w.check(t)
	}
}

// A grammar makes commands by lot.
type grammar struct{ *rand.Rand }

// of returns one of the texts.
func (g *grammar) of(texts ...string) string { return texts[g.IntN(len(texts))] }

// list returns up to n texts with sep between.
func (g *grammar) list(n int, sep string, one func() string) string {
	var all []string
	for range 1 + g.IntN(n) {
		all = append(all, one())
	}
	return strings.Join(all, sep)
}

// some returns text or nothing.
func (g *grammar) some(text string) string {
	if g.IntN(2) == 0 {
		return ""
	}
	return text
}

// spoil changes one place of one command in four.
func (g *grammar) spoil(line string) string {
	if g.IntN(4) > 0 || line == "" {
		return line
	}
	i := g.IntN(len(line))
	switch g.IntN(5) {
	case 0:
		return line[:i] + line[i+1:]
	case 1:
		return line[:i] + g.of("(", ")", "\"", " ", "{5}\r\n", "{3+}\r\nabc", "\\", "*", "\x00", "\xff", "]", "99999999999", "~") + line[i:]
	case 2:
		return line[:i]
	case 3:
		return line[:i] + line[g.IntN(len(line)):]
	}
	return line + g.of(" ", "x", " x", ")", " ()")
}

func (g *grammar) command() string {
	uid := g.some("UID ")
	switch g.IntN(30) {
	case 0, 1, 2, 3, 4, 5:
		return uid + "FETCH " + g.set() + " " + g.of(g.item(), "("+g.list(5, " ", g.item)+")") + g.some(" (CHANGEDSINCE "+g.modSeq()+g.some(" VANISHED")+")")
	case 6, 7, 8, 9, 10, 11:
		return uid + "SEARCH " + g.some("RETURN ("+g.some(g.list(3, " ", func() string { return g.of("MIN", "MAX", "ALL", "COUNT", "SAVE") }))+") ") +
			g.some("CHARSET "+g.of("UTF-8", "US-ASCII", "ISO-8859-1", "x", "UTF-7")+" ") + g.list(4, " ", g.key)
	case 12, 13:
		return uid + "STORE " + g.set() + " " + g.some("(UNCHANGEDSINCE "+g.modSeq()+") ") + g.of("", "+", "-") + "FLAGS" + g.some(".SILENT") + " " + g.of(g.flag(), "("+g.list(4, " ", g.flag)+")", "()")
	case 14:
		return uid + g.of("COPY ", "MOVE ") + g.set() + " " + g.mailbox()
	case 15:
		return g.of("SELECT ", "EXAMINE ") + g.mailbox() + g.some(" ("+g.list(3, " ", g.parameter)+")")
	case 16:
		return "STATUS " + g.mailbox() + " (" + g.list(7, " ", g.statusItem) + ")"
	case 17, 18, 19:
		return g.listCommand()
	case 20:
		return g.of("CREATE ", "DELETE ", "SUBSCRIBE ", "UNSUBSCRIBE ", "RENAME "+g.mailbox()+" ") + g.mailbox()
	case 21:
		return "APPEND " + g.mailbox() + " " + g.some("("+g.list(3, " ", g.flag)+") ") + g.some(`"`+g.of(" 1-Jan-2020 10:00:00 +0100", "31-Dec-9999 23:59:59 -1200", "1-Jan-2020 10:00:00 +0000")+`" `) + "{" + g.of("11", "11+", "0", "0+") + "}\r\nSubject: x\n"
	case 22:
		return "ENABLE " + g.of("IMAP4rev2", "CONDSTORE", "QRESYNC", "QRESYNC CONDSTORE", "UTF8=ACCEPT X")
	case 23:
		return "ID " + g.of("NIL", "()", `("name" "x" "version" NIL)`)
	case 24:
		return "UID EXPUNGE " + g.set()
	case 25:
		return "IDLE\r\nDONE"
	case 26:
		return "LOGIN u " + g.of("secret", "wrong", `"secret"`)
	case 27:
		return "AUTHENTICATE PLAIN" + g.of("\r\nAHUAc2VjcmV0", " AHUAc2VjcmV0", "\r\n*", " =")
	}
	return g.of(Commands()...)
}

// modSeq is one of the past, of about now, or of the future.
func (g *grammar) modSeq() string {
	return g.of("0", "1", strconv.FormatInt(time.Now().Unix()<<20+int64(g.IntN(40)), 10), "9223372036854775807", "9223372036854775808")
}

func (g *grammar) parameter() string {
	return g.of("CONDSTORE", "X", "QRESYNC ("+g.of("1700000011", "1700000011", "5", "0")+" "+g.modSeq()+g.some(" "+g.set())+g.some(" ("+g.set()+" "+g.set()+")")+")")
}

func (g *grammar) number() string {
	return g.of("1", "2", "3", "4", "5", "6", "7", "8", "9", "100", "4294967295", "0", "*", strconv.Itoa(g.IntN(20)))
}

func (g *grammar) set() string {
	return g.list(3, ",", func() string { return g.of(g.number(), g.number()+":"+g.number(), "$", "1:*") })
}

func (g *grammar) str() string {
	return g.of("x", "needle", `""`, `"a b"`, `"\\\""`, "{3+}\r\nabc", "{3}\r\nabc", "NIL", "{6+}\r\nä\r\nx", "minutes", "é", `"é"`)
}

func (g *grammar) mailbox() string {
	return g.of("INBOX", "inbox", "Work", "Sent", "New", "New/Sub", `"a b"`, "&AMQ-rger", "&Jjo", "None", "{4+}\r\nWork", `""`, "x.y", "/", "a//b", "Ä", strings.Repeat("x", 300))
}

func (g *grammar) flag() string {
	return g.of(`\Seen`, `\Deleted`, `\flagged`, `\Answered`, `\Draft`, `\Recent`, `\*`, "work", "$Junk", fmt.Sprint("k", g.IntN(40)), "x]")
}

func (g *grammar) date() string {
	return g.of("1-Jan-2020", `"2-Mar-2024"`, "31-Feb-2024", "1-Mar-0001", "9-Dec-9999", "1-Foo-2020")
}

func (g *grammar) section() string {
	part := g.of("", "1", "2", "1.1", "1.2", "1.2.3", "9")
	what := g.of("", "HEADER", "TEXT", "MIME", "HEADER.FIELDS ("+g.list(3, " ", g.str)+")", "HEADER.FIELDS.NOT (Subject)")
	if part != "" && what != "" {
		part += "."
	}
	return "[" + part + what + "]" + g.some("<"+g.of("0", "5", "4294967295")+"."+g.of("1", "10", "4294967295", "0")+">")
}

func (g *grammar) item() string {
	return g.of("FLAGS", "UID", "MODSEQ", "ENVELOPE", "BODY", "BODYSTRUCTURE", "INTERNALDATE", "RFC822.SIZE", "RFC822", "RFC822.HEADER", "RFC822.TEXT", "ALL", "FAST", "FULL",
		"BODY"+g.section(), "BODY.PEEK"+g.section(), "BODY.PEEK"+g.section(), "BINARY["+g.of("", "1", "1.2", "2")+"]", "BINARY.PEEK["+g.of("1", "2")+"]<0.5>", "BINARY.SIZE["+g.of("", "1", "2")+"]")
}

func (g *grammar) key() string {
	switch g.IntN(9) {
	case 8:
		return "MODSEQ " + g.some(`"/flags/\\draft" `+g.of("priv", "shared", "ALL", "x")+" ") + g.modSeq()
	case 0:
		return "NOT " + g.key()
	case 1:
		return "OR " + g.key() + " " + g.key()
	case 2:
		return "(" + g.list(3, " ", g.key) + ")"
	case 3:
		return g.of("BCC ", "BODY ", "CC ", "FROM ", "SUBJECT ", "TEXT ", "TO ", "HEADER Subject ", "HEADER "+g.str()+" ") + g.str()
	case 4:
		return g.of("BEFORE ", "ON ", "SINCE ", "SENTBEFORE ", "SENTON ", "SENTSINCE ") + g.date()
	case 5:
		return g.of("LARGER ", "SMALLER ", "OLDER ", "YOUNGER ") + g.of("1", "100", "4294967295", "0", "99999999999")
	case 6:
		return g.of("KEYWORD ", "UNKEYWORD ") + g.of("work", "$Forwarded", "none", `\Seen`)
	}
	return g.of("ALL", "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "NEW", "OLD", "RECENT", "SEEN", "UNANSWERED", "UNDELETED", "UNDRAFT", "UNFLAGGED", "UNSEEN", "UID "+g.set(), g.set())
}

func (g *grammar) statusItem() string {
	return g.of("MESSAGES", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE", "RECENT", "HIGHESTMODSEQ")
}

func (g *grammar) listCommand() string {
	pattern := func() string {
		return g.of("*", "%", `""`, `"*"`, "W%", "Work/*", "inbox", "{1+}\r\n*", "&AMQ-*", "**%%**", "%/%")
	}
	if g.IntN(4) == 0 {
		return "LSUB " + g.of(`""`, "Work/", "x") + " " + pattern()
	}
	return "LIST " + g.some("("+g.some(g.list(3, " ", func() string { return g.of("SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE") }))+") ") +
		g.of(`""`, "Work/", "x") + " " + g.of(pattern(), "("+g.list(3, " ", pattern)+")") +
		g.some(" RETURN ("+g.some(g.list(3, " ", func() string {
			return g.of("SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS ("+g.list(3, " ", g.statusItem)+")")
		}))+")")
}
