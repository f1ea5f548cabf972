package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestSearch asks our server and Dovecot the same of the same mailbox: each key
// with each word, then programs made at random. We must find for each program
// what follows from what Dovecot finds for each of its keys alone. (For some
// programs Dovecot itself does not: it joins keys of one kind, as in NOT OR
// LARGER 5 LARGER 10, in ways that hold only where all keys must match.)
func TestSearch(t *testing.T) {
	t.Parallel()
	seeds, programs := uint64(1), 150
	if os.Getenv("IMAPD_SOAK") != "" {
		seeds, programs = 8, 3000
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { compareSearches(t, seed, programs) })
	}
}

func compareSearches(t *testing.T, seed uint64, programs int) {
	const messages = 300
	clients := searchClients(t, searchMaildir(t, seed, messages))
	all := simpleQueries()
	m := maker{rand.New(rand.NewPCG(seed, 2))}
	for range programs {
		all = append(all, m.query(0))
	}
	everything := searchFor(clients["dovecot"], "ALL")
	answers := map[string][]string{} // Dovecot's, by key
	found := 0
	for _, q := range all {
		want := q.eval(everything, func(key string) []string {
			if _, known := answers[key]; !known {
				answers[key] = searchFor(clients["dovecot"], key)
			}
			return answers[key]
		})
		got := searchFor(clients["imapd"], q.String())
		if !slices.Equal(got, want) {
			t.Errorf("SEARCH %s\nimapd   %v\ndovecot %v", strings.ReplaceAll(q.String(), "\r\n", " "), got, want)
		}
		if len(got) > 0 && len(got) < messages {
			found++
		}
	}
	t.Logf("%d searches, of %d different keys; %d find some messages and not all", len(all), len(answers), found)
	if found < len(all)/3 {
		t.Errorf("only %d of %d searches find some messages and not all", found, len(all))
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
		{"Subject: \u01c4\n\n", "SUBJECT d", "RFC 5051 section 2: decomposed until nothing is left to decompose"},
		{"To: \"Jane   Doe\" <ada@example.org>\n\n", `TO "Jane Doe"`, "RFC 9051 section 6.4.4: what the envelope has, and there Dovecot too has one space"},
		{"Content-Type: text/plain; charset=gb2312\n\n\x96\x7c\xbe\xa9\n", "BODY " + peer.Literal("東京"), "GBK by the name of its subset, as mail programs write it"},
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
		program := fmt.Sprintf("%s %d", r.program, i+1)
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

// A query is a search program: a key, or an operator with its operands.
type query struct {
	key  string
	op   string // NOT, OR, ( or "" for a key
	args []query
}

func (q query) String() string {
	var args []string
	for _, a := range q.args {
		args = append(args, a.String())
	}
	switch q.op {
	case "":
		return q.key
	case "(":
		return "(" + strings.Join(args, " ") + ")"
	}
	return q.op + " " + strings.Join(args, " ")
}

// eval returns what the query finds, given what its keys do.
func (q query) eval(everything []string, find func(key string) []string) []string {
	if q.op == "" {
		return find(q.key)
	}
	var args []map[string]bool
	for _, a := range q.args {
		in := map[string]bool{}
		for _, uid := range a.eval(everything, find) {
			in[uid] = true
		}
		args = append(args, in)
	}
	found := []string{}
	for _, uid := range everything {
		in := args[0][uid]
		switch q.op {
		case "NOT":
			in = !in
		case "OR":
			in = in || args[1][uid]
		default:
			for _, a := range args {
				in = in && a[uid]
			}
		}
		if in {
			found = append(found, uid)
		}
	}
	return found
}

// simpleQueries are all keys with a string, each with every word.
func simpleQueries() (all []query) {
	words := slices.Clone(phrases)
	for _, s := range scripts {
		words = append(words, s.words...)
	}
	for _, key := range slices.Concat(fieldKeys, []string{"BODY", "TEXT"}) {
		for _, w := range words {
			all = append(all, query{key: key + " " + peer.Literal(w)})
		}
	}
	return all
}

// A maker makes queries at random.
type maker struct{ *rand.Rand }

func (m maker) pick(s ...string) string { return s[m.IntN(len(s))] }

func (m maker) query(depth int) query {
	n := m.IntN(6)
	if depth > 4 {
		n = 5
	}
	switch n {
	case 0:
		return query{op: "NOT", args: []query{m.query(depth + 1)}}
	case 1, 2:
		return query{op: "OR", args: []query{m.query(depth + 1), m.query(depth + 1)}}
	case 3:
		q := query{op: "("}
		for range 1 + m.IntN(4) {
			q.args = append(q.args, m.query(depth+1))
		}
		return q
	}
	return query{key: m.key()}
}

func (m maker) key() string {
	switch m.IntN(8) {
	case 0, 1:
		return m.pick("ALL", "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "SEEN", "UNANSWERED", "UNDELETED", "UNDRAFT", "UNFLAGGED", "UNSEEN",
			"NEW", "OLD", "RECENT", "KEYWORD work", "KEYWORD $forwarded", "UNKEYWORD work")
	case 2:
		return fmt.Sprintf("%s %d-%s-2024", m.pick("BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE"), 1+m.IntN(28), m.pick("Jan", "feb", "Mar"))
	case 3:
		return fmt.Sprintf("%s %d", m.pick("LARGER", "SMALLER"), m.IntN(3000))
	case 4:
		from := 1 + m.IntN(300)
		return fmt.Sprintf("%s%d:%s", m.pick("UID ", "UID ", ""), from, m.pick("*", fmt.Sprint(from+m.IntN(300))))
	case 5:
		return m.pick("BODY ", "TEXT ") + peer.Literal(m.word())
	default:
		return m.pick(fieldKeys...) + " " + peer.Literal(m.word())
	}
}

// word returns a word of the corpus, a piece of one, or a phrase.
func (m maker) word() string {
	w := m.pick(scripts[m.IntN(len(scripts))].words...)
	switch m.IntN(4) {
	case 0:
		w = strings.ToUpper(w)
	case 1:
		r := []rune(w)
		w = string(r[m.IntN(len(r)):])
	case 2:
		w = m.pick(phrases...)
	}
	return w
}
