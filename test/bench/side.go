package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// A side is one of the two servers with the mail that the present group of work
// has on it.
type side struct {
	*peer.Server
	root    string // holds the home of each user
	user    string // of the present group and round
	session *conn  // of user; nil: none
	buf     []byte // of session, kept for the next: it grows to the longest answer
	extra   []*conn
	sent    int // deliveries so far, for their names
}

// maildir returns the path of a user's mail.
func (s *side) maildir(user string) string { return filepath.Join(s.root, user, "Maildir") }

// mail gives user a fresh copy of a corpus.
func (s *side) mail(user string, c *corpus, l layout) error {
	dir := s.maildir(user)
	if err := c.copyTo(dir, l); err != nil {
		return err
	}
	uid, gid := peer.MailUID()
	return os.Lchown(filepath.Dir(dir), uid, gid)
}

// logIn ends the session and begins a new one.
func (s *side) logIn() error {
	s.logOut()
	c, err := dial(s.Addr, &s.buf)
	if err != nil {
		return err
	}
	s.session = c
	return c.login(s.user)
}

// logOut ends the sessions, if there are any.
func (s *side) logOut() {
	for _, c := range append(s.extra, s.session) {
		if c != nil {
			c.close()
		}
	}
	s.session, s.extra = nil, nil
}

// open begins a new session with a mailbox selected.
func (s *side) open(mailbox string) error {
	if err := s.logIn(); err != nil {
		return err
	}
	_, err := s.session.do("SELECT " + mailbox)
	return err
}

// connect opens n further sessions, each for the user whose number it has.
func (s *side) connect(n int, user func(i int) string) error {
	for i := range n {
		c, err := dial(s.Addr, new([]byte))
		if err != nil {
			return err
		}
		s.extra = append(s.extra, c)
		if err := c.login(user(i)); err != nil {
			return err
		}
	}
	return nil
}

// delivery returns what delivers one more message to user: the file is whole in
// tmp/ already, deliver moves it into new/ as a delivery agent does. The n-th
// delivery is the same message on both sides.
func (s *side) delivery(user string) (deliver func() error, err error) {
	s.sent++
	text, _ := newWriter(uint64(s.sent)<<32 | 2).message(s.sent)
	date := time.Unix(1800000000+int64(s.sent), 0)
	base, _ := fileName(date, s.sent, text)
	from, to := filepath.Join(s.maildir(user), "tmp", base), filepath.Join(s.maildir(user), "new", base)
	if err := os.WriteFile(from, text, 0o600); err != nil {
		return nil, err
	}
	if err := os.Chtimes(from, date, date); err != nil {
		return nil, err
	}
	uid, gid := peer.MailUID()
	if err := os.Lchown(from, uid, gid); err != nil {
		return nil, err
	}
	return func() error { return os.Rename(from, to) }, nil
}

// removeAll removes dir and what is in it. A server may be writing down what it
// knows of a mailbox that its last client has just left.
func removeAll(dir string) error {
	for try := 0; ; try++ {
		err := os.RemoveAll(dir)
		if try == 100 || !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// together runs do for each of the extra sessions at once.
func (s *side) together(do func(i int, c *conn) error) error {
	return parallel(len(s.extra), func(i int) error { return do(i, s.extra[i]) })
}

// parallel runs do n times at once, from 0 to n-1, and returns the first error.
func parallel(n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// each sends one command after the other, made by command from 0 to n-1, and
// returns all answers.
func (s *side) each(n int, command func(i int) string) ([]answer, error) {
	all := make([]answer, 0, n)
	for i := range n {
		a, err := s.session.do(command(i))
		if err != nil {
			return nil, fmt.Errorf("%d of %d: %w", i+1, n, err)
		}
		a.raw = append([]byte(nil), a.raw...)
		all = append(all, a)
	}
	return all, nil
}
