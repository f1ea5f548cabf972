package maildir_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir"
	"imapd/maildir/index"
	"imapd/maildir/quota"
	"imapd/maildir/tree"
	"imapd/maildir/uidlist"
)

// keywordScripts are about keywords for which file names have no letter left.
func keywordScripts() []script {
	beyond := maildir.FlagSet{System: maildir.Seen, Keywords: []string{"beyond", "further"}}
	only := maildir.FlagSet{Keywords: []string{"beyond"}}
	one, two := inbox[0].mail, inbox[1].mail
	one.Flags, two.Flags = `\Seen beyond`, `\Flagged \Seen beyond work`
	both := []string{"INBOX", "Work"}
	before := []step{flag("INBOX", maildir.AddFlags, only, map[maildir.UID]string{1: "", 2: ""})}
	all := []script{
		{name: "append beyond the letters", opens: both[:1], steps: []step{
			add("INBOX", beyond, added1),
			add("INBOX", maildir.FlagSet{Keywords: []string{"further", "work"}}, added2, added3),
		}},
		{name: "store beyond the letters", opens: both[:1], steps: []step{
			lasting(flag("INBOX", maildir.AddFlags, only, map[maildir.UID]string{1: one.Flags, 2: two.Flags, 4: "beyond"})),
			lasting(flag("INBOX", maildir.RemoveFlags, beyond, map[maildir.UID]string{4: ""})),
			lasting(flag("INBOX", maildir.AddFlags, maildir.FlagSet{Keywords: []string{"new", "beyond"}}, map[maildir.UID]string{3: `\Deleted beyond new`})),
			expunge("INBOX", 3, 5),
		}},
		{name: "copy beyond the letters", opens: both, before: before, steps: []step{
			between("INBOX", "Work", false, []maildir.UID{1, 2}, one, two),
		}},
		{name: "move beyond the letters", opens: both, before: before, steps: []step{
			between("INBOX", "Work", true, []maildir.UID{1, 2}, one, two),
			between("Work", "INBOX", true, []maildir.UID{2}, one),
		}},
	}
	for i := range all {
		all[i].prep, all[i].more = allLetters, true
	}
	return all
}

// lasting is a command that no power cut undoes, though it changes flags: what it
// changes is in imapd-keywords alone.
func lasting(st step) step {
	st.Weak = false
	return st
}

// allLetters gives each letter to a keyword.
func allLetters(t *testing.T, dir string) {
	t.Helper()
	for _, folder := range []struct{ path, first string }{{dir, "work"}, {dir + "/.Work", "home"}} {
		text := fmt.Sprintf("0 %s\n", folder.first)
		for i := 1; i < 26; i++ {
			text += fmt.Sprintf("%d letter%d\n", i, i)
		}
		if folder.first == "home" {
			text += "25 work\n"
		}
		if err := os.WriteFile(folder.path+"/dovecot-keywords", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// sideScripts are about files beside the mail: the index, where another directory
// has it and where it is written anew, maildirsize, and a UID list to which another
// program writes.
func sideScripts() []script {
	answered := maildir.FlagSet{System: maildir.Answered}
	first := map[maildir.UID]string{1: `\Answered \Seen`, 2: `\Answered \Flagged \Seen work`, 4: `\Answered`}
	then := map[maildir.UID]string{1: `\Seen`, 2: `\Flagged \Seen work`, 4: ``}
	long := script{name: "index written anew", restored: true, before: []step{serve("INBOX"), {nearlyLong, effect{}}}, steps: []step{serve("INBOX")}}
	for range 3 {
		long.steps = append(long.steps, flag("INBOX", maildir.AddFlags, answered, first), flag("INBOX", maildir.RemoveFlags, answered, then))
	}
	long.steps = append(long.steps, expunge("INBOX", 3, 5))
	mails := letter(added1, date, ``)
	all := []script{
		long,
		{name: "select, store and expunge", steps: []step{serve("INBOX"), flag("INBOX", maildir.AddFlags, answered, first), expunge("INBOX", 3, 5)}},
		{name: "with maildirsize", prep: count, opens: []string{"INBOX", "Work"}, steps: []step{
			add("INBOX", maildir.FlagSet{}, added1, added2),
			between("INBOX", "Work", false, []maildir.UID{1, 6}, inbox[0].mail, mails),
			between("INBOX", "Work", true, []maildir.UID{6}, mails),
			expunge("INBOX", 3, 5),
			remove("Work"),
		}},
		{name: "Dovecot gives UIDs", two: true, opens: []string{"INBOX"}, steps: []step{
			deliver("1600000006.M1P1.h", letter(added1, date, "")),
			deliver("1600000007.M1P1.h", letter(added2, date, "")),
			enlist("6 :1600000007.M1P1.h\n7 :1600000006.M1P1.h\n"),
			serve("INBOX"),
			expunge("INBOX", 3, 5),
		}},
	}
	for _, l := range []struct {
		name   string
		layout tree.Layout
		apart  bool
	}{{" (index)", tree.PlusPlus, false}, {" (fs, control, index)", tree.FS, true}} {
		for _, sc := range []script{
			{name: "rename of a tree", trees: true, steps: []step{rename("Tree", "Work/Moved")}},
			{name: "delete and create again", trees: true, steps: []step{remove("Tree/A"), create("Tree/A")}},
			{name: "append and expunge", opens: []string{"INBOX", "Work"}, steps: []step{
				add("Work", answered, added1), between("Work", "INBOX", true, []maildir.UID{2}, letter(added1, date, `\Answered`)), expunge("INBOX", 3, 5)}},
		} {
			sc.name, sc.layout, sc.apart, sc.index = sc.name+l.name, l.layout, l.apart, true
			all = append(all, sc)
		}
	}
	return all
}

// nearlyLong changes flags there and back until the journal of INBOX is so long
// that a few changes more have the index written anew.
func nearlyLong(s *session) error {
	m, err := s.box("INBOX")
	if err != nil {
		return err
	}
	st, err := s.indexStat()
	if err != nil {
		return err
	}
	for op, most := maildir.AddFlags, int64(0); most == 0 || st.Size < most-1000; op ^= 1 {
		if _, err := m.SetFlags(ctx, []maildir.UID{1, 2, 4}, op, maildir.FlagSet{System: maildir.Answered}); err != nil {
			return err
		}
		old := st
		if st, err = s.indexStat(); err != nil {
			return err
		}
		if st.Ino != old.Ino {
			most = old.Size
		}
	}
	_, err = m.SetFlags(ctx, []maildir.UID{1, 2, 4}, maildir.RemoveFlags, maildir.FlagSet{System: maildir.Answered})
	return err
}

// indexStat is what stat(2) says of the index of INBOX.
func (s site) indexStat() (st unix.Stat_t, err error) {
	err = unix.Stat(filepath.Join(s.root(), index.Name), &st)
	return st, err
}

// deliver is another program that delivers a message into new/ of INBOX, durably.
func deliver(name string, m mail) step {
	return step{func(s *session) error {
		tmp, err := s.open(s.root() + "/tmp")
		if err != nil {
			return err
		}
		defer tmp.Close()
		to, err := s.open(s.root() + "/new")
		if err != nil {
			return err
		}
		defer to.Close()
		f, err := tmp.Create(name, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write([]byte(m.Text))
		return errors.Join(err, f.SetTime(time.Unix(m.Date, 0)), f.Sync(), tmp.Rename(name, to, name), to.Sync())
	}, effect{Adds: []added{{Folder: "INBOX", Mail: m}}}}
}

// enlist is another program that appends lines to the UID list of INBOX, and leaves
// it to the kernel when they come to disk.
func enlist(lines string) step {
	return step{func(s *session) error {
		d, err := s.open(s.root())
		if err != nil {
			return err
		}
		defer d.Close()
		f, err := d.Append(uidlist.Name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write([]byte(lines))
		return err
	}, effect{}}
}

// count makes a maildirsize.
func count(t *testing.T, dir string) {
	t.Helper()
	u, err := site{dir: filepath.Dir(dir)}.usage()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, quota.Name), fmt.Appendf(nil, "1000000S\n%d %d\n", u.Octets, u.Messages), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var claimedSize = regexp.MustCompile(`,S=(\d+)`)

// usage counts the messages of all folders.
func (s site) usage() (sum quota.Usage, err error) {
	err = filepath.WalkDir(s.root(), func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(e.Name(), "..") { // a folder that has been deleted
			return fs.SkipDir
		}
		in := filepath.Base(filepath.Dir(path))
		if err != nil || e.IsDir() || in != "cur" && in != "new" {
			return err
		}
		size := int64(0)
		if claim := claimedSize.FindStringSubmatch(path); claim != nil {
			size, err = strconv.ParseInt(claim[1], 10, 64)
		} else if info, ierr := e.Info(); ierr == nil {
			size = info.Size()
		} else {
			err = ierr
		}
		sum = sum.Add(quota.Usage{Octets: size, Messages: 1})
		return err
	})
	return sum, err
}

// miscount returns what maildirsize has beyond what there is (I24). It fails if the
// next change would have to count anew. Where there is none all is well.
func (s site) miscount() (quota.Usage, error) {
	text, err := os.ReadFile(filepath.Join(s.root(), quota.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return quota.Usage{}, nil
	}
	if err != nil {
		return quota.Usage{}, err
	}
	f, err := quota.Parse(text)
	if err != nil {
		return quota.Usage{}, err
	}
	sum, err := s.usage()
	return f.Usage.Minus(sum), err
}
