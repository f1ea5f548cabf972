package test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestSearch asks our server and Dovecot the same of the same mailbox: each key
// with each word, then programs made at random. Both must find the same.
func TestSearch(t *testing.T) {
	t.Parallel()
	const messages, seed = 300, 1
	programs := 600
	if testing.Short() {
		programs = 200
	}
	clients := searchClients(t, searchMaildir(t, seed, messages))
	all := simplePrograms()
	q := queries{rand.New(rand.NewPCG(seed, 2))}
	for range programs {
		all = append(all, q.program())
	}
	found := 0
	for _, p := range all {
		got, want := searchFor(clients["imapd"], p), searchFor(clients["dovecot"], p)
		if !slices.Equal(got, want) {
			t.Errorf("SEARCH %s\nimapd   %v\ndovecot %v", show(p), got, want)
		}
		if len(got) > 0 && len(got) < messages {
			found++
		}
	}
	t.Logf("%d programs, %d of which find some messages and not all", len(all), found)
	if found < len(all)/3 {
		t.Errorf("only %d of %d programs find some messages and not all", found, len(all))
	}
}

// TestSearchDifferences has the messages in which Dovecot does not find what we
// do. A row that is not true any more fails.
func TestSearchDifferences(t *testing.T) {
	t.Parallel()
	rows := []struct{ message, program, why string }{
		{"Subject: =?x-unknown?q?meeting?=\n\n", "SUBJECT meeting", "a word in an unknown charset keeps its ASCII"},
		{"Subject: =?utf-8*en?q?meeting?=\n\n", "SUBJECT meeting", "RFC 2231 section 5"},
		{"Subject: =?utf-8?b?!!bWVl!dGluZw?=\n\n", "SUBJECT meeting", "RFC 2045 section 6.8: other characters must be ignored"},
		{"Subject: \u01e1\n\n", "SUBJECT a", "RFC 5051 section 2: decomposed until nothing is left to decompose"},
		{"Subject: \ufb01nal\n\n", "SUBJECT final", "RFC 5051 section 2: decomposed; and what is decomposed has no case either"},
		{"Content-Type: text\n\nmeeting\n", "BODY meeting", "RFC 2045 section 5.2: what cannot be read is text/plain"},
		{"MIME-Version: 1.0\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\nbWVl\n!!\ndGluZw==\n", "BODY meeting",
			"RFC 2045 section 6.8: other characters must be ignored"},
		{"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-16\nContent-Transfer-Encoding: base64\n\nAG0AZQBlAHQAaQBuAGc=\n", "BODY meeting",
			"RFC 2781 section 4.3: big-endian without a mark"},
		{"\nlast\n", "1000:*", "RFC 9051 section 9, seq-range: * is the last message, and the order plays no part"},
	}
	var texts []string
	for _, r := range rows {
		texts = append(texts, r.message)
	}
	c := &corpus{Rand: rand.New(rand.NewPCG(1, 1))}
	clients := searchClients(t, c.maildir(t, texts))
	for i, r := range rows {
		program := fmt.Sprintf("%d %s", i+1, r.program)
		ours, theirs := searchFor(clients["imapd"], program), searchFor(clients["dovecot"], program)
		if len(ours) != 1 || len(theirs) != 0 {
			t.Errorf("%s, in %q: imapd %v, dovecot %v; %s", program, r.message, ours, theirs, r.why)
		}
	}
}

// searchClients starts both servers, each on a Maildir of its own with the same
// content, and opens INBOX.
func searchClients(t *testing.T, maildir string) map[string]*peer.Client {
	t.Helper()
	other := filepath.Join(peer.TempDir(t), "Maildir")
	peer.CopyTree(t, maildir, other)
	clients := map[string]*peer.Client{}
	for kind, s := range map[string]*peer.Server{
		"imapd":   peer.Imapd(t, maildir, peer.Options{}),
		"dovecot": peer.Dovecot(t, other, peer.Options{}),
	} {
		clients[kind] = s.Login(t, s.User)
		clients[kind].Do("EXAMINE INBOX")
	}
	return clients
}

// show returns a program with its literals in one line.
func show(p string) string { return strings.ReplaceAll(p, "\r\n", " ") }

// searchFor returns the words of the SEARCH response, or of a refusal.
func searchFor(c *peer.Client, program string) []string {
	responses, answer := c.Try("UID SEARCH CHARSET UTF-8 %s", program)
	if !strings.HasPrefix(answer, "OK") {
		return []string{answer}
	}
	for _, r := range responses {
		if list, ok := strings.CutPrefix(r.Text, "* SEARCH"); ok {
			return strings.Fields(list)
		}
	}
	return []string{"no SEARCH"}
}

// fields are the keys that look at one header field.
var fieldKeys = []string{"FROM", "TO", "CC", "BCC", "SUBJECT", "HEADER X-Tag", "HEADER Message-ID", "HEADER From", "HEADER X-Empty", "HEADER Subject"}

// phrases are looked for beside the words of the corpus.
var phrases = []string{
	"", "e", "a", "Jane Doe", "Doe, Jane", "jane", `"Jane Doe" <`, "<ada@example.org>", "ada@EXAMPLE.org", "team:", "undisclosed", "bob.smith@",
	"Hello World meeting", "meeting  meeting", "re: ", "(end)", "example.org>, ", "=?utf-8", "subject: re", "content-type: text", "no colon", "preamble",
	"epilogue", "image budget", "lunch.png", "<p>", "<br>", ".abc@", "CAFE\u0301", "café", "ναι", "ß", "strasse", "\u00a0", "ss", "\t", "x-tag: ",
}

// simplePrograms are all keys with a string, each with every word.
func simplePrograms() (all []string) {
	words := slices.Clone(phrases)
	for _, s := range scripts {
		words = append(words, s.words...)
	}
	for _, key := range slices.Concat(fieldKeys, []string{"BODY", "TEXT"}) {
		for _, w := range words {
			all = append(all, key+" "+peer.Literal(w))
		}
	}
	return all
}

// queries makes programs at random.
type queries struct{ *rand.Rand }

func (q queries) pick(s ...string) string { return s[q.IntN(len(s))] }

func (q queries) program() string {
	keys := []string{q.key(0)}
	for q.IntN(3) == 0 {
		keys = append(keys, q.key(0))
	}
	return strings.Join(keys, " ")
}

func (q queries) key(depth int) string {
	n := q.IntN(12)
	if depth > 3 {
		n = 4 + q.IntN(8)
	}
	switch n {
	case 0:
		return "NOT " + q.key(depth+1)
	case 1, 2:
		return "OR " + q.key(depth+1) + " " + q.key(depth+1)
	case 3:
		return "(" + q.key(depth+1) + " " + q.key(depth+1) + ")"
	case 4, 5:
		return q.pick("ALL", "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "SEEN", "UNANSWERED", "UNDELETED", "UNDRAFT", "UNFLAGGED", "UNSEEN",
			"NEW", "OLD", "RECENT", "KEYWORD work", "KEYWORD $forwarded", "UNKEYWORD work")
	case 6:
		return fmt.Sprintf("%s %d-%s-2024", q.pick("BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE"), 1+q.IntN(28), q.pick("Jan", "feb", "Mar"))
	case 7:
		return fmt.Sprintf("%s %d", q.pick("LARGER", "SMALLER"), q.IntN(3000))
	case 8:
		from := 1 + q.IntN(300)
		return fmt.Sprintf("%s%d:%s", q.pick("UID ", "UID ", ""), from, q.pick("*", fmt.Sprint(from+q.IntN(300))))
	case 9:
		return q.pick("BODY ", "TEXT ") + peer.Literal(q.word())
	default:
		return q.pick(fieldKeys...) + " " + peer.Literal(q.word())
	}
}

// word returns a word of the corpus, a piece of one, or a phrase.
func (q queries) word() string {
	w := q.pick(scripts[q.IntN(len(scripts))].words...)
	switch q.IntN(4) {
	case 0:
		w = strings.ToUpper(w)
	case 1:
		r := []rune(w)
		w = string(r[q.IntN(len(r)):])
	case 2:
		w = q.pick(phrases...)
	}
	return w
}
