package main

import (
	"fmt"
	"strings"

	"imapd/test/peer"
)

// flags returns what a client finds in the selected mailbox.
func flags(s *side) ([]answer, error) { return command("FETCH 1:* (UID FLAGS)")(s) }

// stores returns the changing of flags, of all messages at once and of n one by
// one. No message of the corpus has these flags: of a change that changes nothing
// Dovecot tells nothing, and we what the flags are.
func (b *bench) stores(suffix string, n int) []step {
	n = min(n, b.messages)
	return []step{
		{rows: []string{"STORE 1:* +FLAGS"}, before: openINBOX, run: command(`STORE 1:* +FLAGS (\Draft)`), after: flags},
		{rows: []string{"STORE one by one" + suffix}, ops: n, unit: "ms each", before: openINBOX, after: flags,
			run: func(s *side) ([]answer, error) {
				return s.each(n, func(i int) string { return fmt.Sprintf(`STORE %d +FLAGS (\Deleted)`, i+1) })
			}},
	}
}

// expunges returns the removing of the first n messages, which are marked already,
// one by one.
func (b *bench) expunges(suffix string, n int) step {
	return step{rows: []string{"EXPUNGE of one" + suffix}, ops: n, unit: "ms each", before: openINBOX, after: flags,
		run: func(s *side) ([]answer, error) {
			return s.each(n, func(i int) string { return fmt.Sprintf("UID EXPUNGE %d", i+1) })
		}}
}

// deletes returns what a client does that deletes n messages one by one, after the
// first few: each is marked and expunged at once.
func (b *bench) deletes(suffix string, first, n int) step {
	return step{rows: []string{"delete and EXPUNGE of one" + suffix}, ops: n, unit: "ms each", before: openINBOX, after: flags,
		run: func(s *side) ([]answer, error) {
			return s.each(2*n, func(i int) string {
				uid := first + i/2 + 1
				if i%2 == 0 {
					return fmt.Sprintf(`UID STORE %d +FLAGS (\Deleted)`, uid)
				}
				return fmt.Sprintf("UID EXPUNGE %d", uid)
			})
		}}
}

// letter returns message i of an APPEND, 4 KB of it.
func letter(i int) string {
	head := fmt.Sprintf("From: Jane <jane@example.org>\r\nTo: Bob <bob@example.org>\r\nSubject: letter %06d\r\nMIME-Version: 1.0\r\n\r\n", i)
	line := strings.Repeat("abcdefghi ", 7) + "\r\n"
	return head + strings.Repeat(line, (4096-len(head))/len(line))
}

// appends returns the saving of n messages, by one client and by eight, and what
// the disk alone takes for that.
func (b *bench) appends(suffix string, n int) []step {
	const clients = 8
	save := func(i int) string { return `APPEND INBOX (\Seen) ` + peer.Literal(letter(i)) }
	sizes := func(s *side) ([]answer, error) {
		if err := s.open("INBOX"); err != nil {
			return nil, err
		}
		return command("FETCH 1:* (UID FLAGS RFC822.SIZE)")(s)
	}
	each := max(1, n/clients)
	return []step{
		{rows: []string{"APPEND 4 KB, 1 client" + suffix}, ops: n, unit: "ms each", before: (*side).logIn, after: sizes,
			run: func(s *side) ([]answer, error) { return s.each(n, save) }},
		{rows: []string{"APPEND 4 KB, 8 clients" + suffix}, ops: each * clients, unit: "ms each", after: sizes,
			before: func(s *side) error {
				s.logOut()
				return s.connect(clients, func(int) string { return s.user })
			},
			run: func(s *side) ([]answer, error) {
				// Which message gets which UID is chance: after compares.
				return nil, s.together(func(i int, c *conn) error {
					for k := range each {
						if _, err := c.do(save(i*each + k)); err != nil {
							return err
						}
					}
					return nil
				})
			}},
		{rows: []string{"bare create, fsync, rename, fsync, fdatasync" + suffix, "the same, 8 at once" + suffix}, unit: "ms each",
			gauge: func(s *side) ([]float64, error) {
				one, err := bare(s.maildir(s.user), 1, n)
				if err != nil {
					return nil, err
				}
				eight, err := bare(s.maildir(s.user), clients, each)
				return []float64{one, eight}, err
			}},
	}
}

// moving is COPY, MOVE and EXPUNGE of all messages.
func (b *bench) moving() group {
	create := func(s *side) error {
		if err := s.logIn(); err != nil {
			return err
		}
		for _, name := range []string{"Copy", "Moved"} {
			if _, err := s.session.do("CREATE " + name); err != nil {
				return err
			}
		}
		return s.open("INBOX")
	}
	in := func(mailbox string) func(*side) ([]answer, error) {
		return func(s *side) ([]answer, error) {
			if err := s.open(mailbox); err != nil {
				return nil, err
			}
			return flags(s)
		}
	}
	doom := func(s *side) error {
		if err := s.open("Moved"); err != nil {
			return err
		}
		_, err := s.session.do(`STORE 1:* +FLAGS.SILENT (\Deleted)`)
		return err
	}
	return group{name: "copy", layout: layout{messages: b.messages}, steps: []step{
		{rows: []string{"COPY 1:*"}, before: create, run: command("COPY 1:* Copy"), after: in("Copy")},
		{rows: []string{"MOVE 1:*"}, before: openINBOX, run: command("MOVE 1:* Moved"), after: in("Moved")},
		{rows: []string{"EXPUNGE of all"}, before: doom, run: command("EXPUNGE"), after: func(s *side) ([]answer, error) {
			return command("STATUS Moved (MESSAGES UIDNEXT)")(s)
		}},
	}}
}
