package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"imapd/test/peer"
)

// A plain is a Maildir of many small messages, all alike but for their names, which
// have 60 octets. Thousands of names stand for one file each: what a folder costs
// is counted in names.
type plain struct {
	dir  string
	n    int
	sent int // deliveries
}

// names is how many names one file gets: ext4 allows 65,000.
const namesOfFile = 60000

const plainText = "From: jane@example.org\nTo: bob@example.org\nSubject: one of many\nMIME-Version: 1.0\n\nText.\n"

// base returns the name of message i without its flags.
func (p *plain) base(i int) string {
	size := len(plainText)
	return fmt.Sprintf("%d.M%06dP%d.mailbox.example.org,S=%d,W=%d", 1700000000+i, i%1000000, 1000000+i, size, size+strings.Count(plainText, "\n"))
}

// file returns the path of message i as it was at first.
func (p *plain) file(i int) string { return filepath.Join(p.dir, "cur", p.base(i)+":2,S") }

// newPlain makes the Maildir dir with n messages and no UID list.
func newPlain(dir string, n int) (*plain, error) {
	p := &plain{dir: dir, n: n}
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	for i := range n {
		var err error
		if i%namesOfFile == 0 {
			err = os.WriteFile(p.file(i), []byte(plainText), 0o600)
			if err == nil {
				err = own(p.file(i))
			}
		} else {
			err = os.Link(p.file(i-i%namesOfFile), p.file(i))
		}
		if err != nil {
			return nil, err
		}
	}
	for _, d := range []string{"..", "", "cur", "new", "tmp"} {
		if err := own(filepath.Join(dir, d)); err != nil {
			return nil, err
		}
	}
	return p, p.rest()
}

func own(path string) error {
	uid, gid := peer.MailUID()
	return os.Lchown(path, uid, gid)
}

// rest makes the folder look as if nothing had happened for an hour.
func (p *plain) rest() error {
	old := time.Now().Add(-time.Hour)
	for _, d := range []string{"cur", "new"} {
		if err := os.Chtimes(filepath.Join(p.dir, d), old, old); err != nil {
			return err
		}
	}
	return nil
}

// forget removes all that servers have written down, and writes a UID list if
// there shall be one.
func (p *plain) forget(list bool) error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains([]string{"cur", "new", "tmp"}, e.Name()) {
			if err := os.RemoveAll(filepath.Join(p.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if !list {
		return p.rest()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "3 V%s N%d G5e1f0a7b2c3d4e5f60718293a4b5c6d7\n", validity, p.n+1)
	for i := range p.n {
		fmt.Fprintf(&b, "%d :%s\n", i+1, p.base(i))
	}
	path := filepath.Join(p.dir, "dovecot-uidlist")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return err
	}
	if err := own(path); err != nil {
		return err
	}
	return p.rest()
}

// rename changes the flags of message i, and at the next call back, as another
// program does.
func (p *plain) rename(i int) error {
	if os.Rename(p.file(i), p.file(i)+"T") == nil {
		return nil
	}
	return os.Rename(p.file(i)+"T", p.file(i))
}

// deliver delivers a message.
func (p *plain) deliver() error {
	p.sent++
	from := filepath.Join(p.dir, "tmp", "delivery")
	if err := os.WriteFile(from, []byte(plainText), 0o600); err != nil {
		return err
	}
	if err := own(from); err != nil {
		return err
	}
	return os.Rename(from, filepath.Join(p.dir, "new", fmt.Sprintf("1900000000.Q%d.delivery", p.sent)))
}

// withdraw removes what was delivered.
func (p *plain) withdraw() error {
	for _, pattern := range []string{"new/*.delivery", "cur/1900000000.*"} {
		found, err := filepath.Glob(filepath.Join(p.dir, pattern))
		if err != nil {
			return err
		}
		for _, f := range found {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	return nil
}
