package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"imapd/test/peer"
)

// groups returns all work in the order in which it is done.
func (b *bench) groups() []group {
	all := layout{messages: b.messages}
	groups := []group{
		b.memory(),
		b.login(),
		{name: "select", layout: all, steps: b.selects("")},
		{name: "new", layout: layout{messages: b.messages, unseen: true}, steps: []step{
			{rows: []string{"SELECT, all mail in new/"}, before: (*side).logIn, run: command("SELECT INBOX")},
		}},
		b.twice("envelope", "ENVELOPE", "FETCH 1:* (ENVELOPE)"),
		b.twice("structure", "BODYSTRUCTURE", "FETCH 1:* (BODYSTRUCTURE)"),
		b.twice("size", "RFC822.SIZE", "FETCH 1:* (RFC822.SIZE)"),
		b.twice("phone", "UID FLAGS ENVELOPE BODYSTRUCTURE RFC822.SIZE", "FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE RFC822.SIZE)"),
		b.twice("fields", "HEADER.FIELDS (7 of them)", "FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (FROM TO CC SUBJECT DATE MESSAGE-ID REFERENCES)])"),
		b.download(),
		b.search(),
		{name: "store", layout: all, steps: b.stores("", b.small)},
		{name: "append", layout: all, steps: b.appends("", b.small)},
		b.moving(),
		b.folders(),
		b.idle(),
	}
	if b.large {
		groups = append(groups, b.huge())
	}
	return groups
}

// command returns a run of one command.
func command(text string) func(*side) ([]answer, error) {
	return func(s *side) ([]answer, error) {
		a, err := s.session.do(text)
		return []answer{a}, err
	}
}

func openINBOX(s *side) error { return s.open("INBOX") }

// login measures sessions that do nothing but log in.
func (b *bench) login() group {
	const clients = 8
	sessions := func(n int) func(*side) error {
		return func(s *side) error {
			for range n {
				c, err := dial(s.Addr, new([]byte))
				if err != nil {
					return err
				}
				if err := c.login(s.user); err != nil {
					return err
				}
				c.close()
			}
			return nil
		}
	}
	// A list of users that has just been written is read again at each login, by us at
	// least; those of sites are older.
	aged := sync.OnceFunc(func() { time.Sleep(3 * time.Second) })
	setUp := func(*side) error { aged(); return nil }
	return group{name: "login", layout: layout{messages: min(10, b.messages)}, setUp: setUp, steps: []step{
		{rows: []string{"connect, LOGIN, LOGOUT; 1 client"}, ops: b.small, unit: "ms each", run: func(s *side) ([]answer, error) {
			return nil, sessions(b.small)(s)
		}},
		{rows: []string{"the same; 8 clients"}, ops: b.small, unit: "ms each", run: func(s *side) ([]answer, error) {
			return nil, parallel(clients, func(int) error { return sessions(max(1, b.small/clients))(s) })
		}},
	}}
}

// selects returns the ways in which a new session finds INBOX. suffix is put
// behind the names of the rows.
func (b *bench) selects(suffix string) []step {
	arrive := func(s *side) error {
		if err := s.logIn(); err != nil {
			return err
		}
		deliver, err := s.delivery(s.user)
		if err != nil {
			return err
		}
		return deliver()
	}
	return []step{
		{rows: []string{"SELECT cold (UID list, no cache)" + suffix}, before: (*side).logIn, run: command("SELECT INBOX")},
		{rows: []string{"SELECT second" + suffix}, before: (*side).logIn, run: command("SELECT INBOX")},
		{rows: []string{"SELECT after a delivery" + suffix}, before: arrive, run: command("SELECT INBOX")},
		{rows: []string{"SELECT after a foreign change of flags" + suffix}, before: b.foreign, run: command("SELECT INBOX")},
		{rows: []string{"SELECT after a STORE of another session" + suffix}, before: ownStore, run: command("SELECT INBOX")},
		{rows: []string{"FETCH 1:* FLAGS" + suffix}, run: command("FETCH 1:* (FLAGS)")},
	}
}

// foreign logs in and then changes the flags of the first message as another
// program does.
func (b *bench) foreign(s *side) error {
	if err := s.logIn(); err != nil {
		return err
	}
	name := filepath.Join(s.maildir(s.user), "cur", b.mail.names[0])
	return os.Rename(name, name+"F")
}

// ownStore changes the flags of a message in a session that ends, and logs in.
func ownStore(s *side) error {
	if err := s.open("INBOX"); err != nil {
		return err
	}
	if _, err := s.session.do(`STORE 2 +FLAGS.SILENT (\Flagged)`); err != nil {
		return err
	}
	return s.logIn()
}

// twice returns a group of one command that is done for the first time, and
// again in a new session.
func (b *bench) twice(name, items, text string) group {
	return group{name: name, layout: layout{messages: b.messages}, steps: []step{
		{rows: []string{items + " first"}, before: openINBOX, run: command(text)},
		{rows: []string{items + " second"}, before: openINBOX, run: command(text)},
	}}
}

func (b *bench) download() group {
	size := 0
	for _, name := range b.mail.names[:b.messages] {
		size += virtualOf(name)
	}
	g := b.twice("download", "BODY.PEEK[] of all", "FETCH 1:* (UID BODY.PEEK[])")
	for i := range g.steps {
		g.steps[i].size = float64(size) / 1e6
	}
	return g
}

// virtualOf returns the W= of a file name of the corpus.
func virtualOf(name string) (n int) {
	_, w, _ := strings.Cut(name, ",W=")
	fmt.Sscanf(w, "%d", &n)
	return n
}

func (b *bench) search() group {
	g := group{name: "search", layout: layout{messages: b.messages}}
	for _, w := range []struct{ name, text string }{
		{"SEARCH SUBJECT first", "SEARCH SUBJECT " + rareSubject},
		{"SEARCH SUBJECT second", "SEARCH SUBJECT " + rareSubject},
		{"SEARCH BODY", "SEARCH BODY " + rareBody},
		{"SEARCH TEXT", "SEARCH TEXT " + rareBody},
		{"SEARCH UNSEEN", "SEARCH UNSEEN"},
	} {
		g.steps = append(g.steps, step{rows: []string{w.name}, before: openINBOX, run: command(w.text)})
	}
	return g
}

// folders measures STATUS of many mailboxes, which are not INBOX.
func (b *bench) folders() group {
	const each = 20
	items := "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN RECENT)"
	status := func(s *side) ([]answer, error) {
		return s.each(b.small, func(i int) string { return fmt.Sprintf("STATUS F%03d %s", i, items) })
	}
	return group{name: "status", layout: layout{messages: min(10, b.messages)},
		setUp: func(s *side) error {
			for i := range b.small {
				dir := filepath.Join(s.maildir(s.user), fmt.Sprintf(".F%03d", i))
				if err := b.mail.copyTo(dir, layout{messages: min(each, b.messages)}); err != nil {
					return err
				}
				mark := filepath.Join(dir, "maildirfolder")
				if err := os.WriteFile(mark, nil, 0o600); err != nil {
					return err
				}
				uid, gid := peer.MailUID()
				if err := os.Lchown(mark, uid, gid); err != nil {
					return err
				}
			}
			return nil
		},
		steps: []step{
			{rows: []string{fmt.Sprintf("STATUS of %d folders first", b.small)}, before: (*side).logIn, run: status},
			{rows: []string{fmt.Sprintf("STATUS of %d folders second", b.small)}, before: (*side).logIn, run: status},
			{rows: []string{fmt.Sprintf("LIST RETURN (STATUS) of %d folders", b.small)}, before: (*side).logIn,
				run: command(`LIST "" F* RETURN (STATUS ` + items + `)`)},
		},
	}
}

// huge is what a mailbox ten times as large costs where it should cost no more.
func (b *bench) huge() group {
	n := 10 * b.messages
	suffix := fmt.Sprintf(", %d messages", n)
	steps := b.selects(suffix)
	steps = append(steps, b.stores(suffix, max(1, b.small/4))[1:]...)
	steps = append(steps, b.expunges(suffix, max(1, b.small/20)), b.deletes(suffix, b.small, max(1, b.small/20)))
	return group{name: "large", layout: layout{messages: n}, steps: append(steps, b.appends(suffix, max(8, b.small/4))...)}
}
