package maildir_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/maildir"
	"imapd/maildir/tree"
)

// A script is commands of one client, and what they are run on.
type script struct {
	name   string
	layout tree.Layout
	apart  bool                           // lists lie in a control directory
	index  bool                           // what we know of folders lies in an index directory
	trees  bool                           // there are folders in each other
	prep   func(t *testing.T, dir string) // changes the site before anybody knows it
	before []step                         // commands that were answered, and made durable, long ago
	raw    map[string]folder              // what clients know then; nil: what we say when asked
	wait   []added                        // messages without a UID in raw
	opens  []string                       // mailboxes that are open before the first command
	steps  []step
	more   bool // than Dovecot knows: it is not asked
	two    bool // another program takes part in the steps: only the power fails
	// restored says that the indexes are those of the folders that the site is a copy
	// of. Else there are none yet: with them UIDs are skipped, and the commands know
	// those that are given.
	restored bool
}

// A step is a command.
type step struct {
	do func(s *session) error
	effect
}

const (
	added1 = "Subject: added 1\n\nadded 1\n"
	added2 = "Subject: added 2\n\nadded 2\n"
	added3 = "Subject: added 3\n\nadded 3\n"
	date   = 1700000000
)

var ctx = context.Background()

func letter(text string, date int64, flags string) mail {
	return mail{Text: text, Date: date, Flags: flags}
}

// add is APPEND.
func add(name string, flags maildir.FlagSet, texts ...string) step {
	names := append(systemNames(flags.System), flags.Keywords...)
	e := effect{}
	for _, text := range texts {
		e.Adds = append(e.Adds, added{Folder: name, Mail: letter(text, date, strings.Join(names, " "))})
	}
	return step{func(s *session) error {
		m, err := s.box(name)
		if err != nil {
			return err
		}
		var all []maildir.Appending
		for _, text := range texts {
			d, err := m.NewMessage(ctx)
			if err != nil {
				return err
			}
			defer d.Abort()
			d.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
			all = append(all, maildir.Appending{Delivery: d, Flags: flags, Date: time.Unix(date, 0)})
		}
		_, s.given, err = m.Append(ctx, all)
		return err
	}, e}
}

func systemNames(f maildir.Flags) []string {
	var names []string
	for _, x := range []struct {
		flag maildir.Flags
		name string
	}{{maildir.Answered, `\Answered`}, {maildir.Deleted, `\Deleted`}, {maildir.Flagged, `\Flagged`}, {maildir.Seen, `\Seen`}} {
		if f&x.flag != 0 {
			names = append(names, x.name)
		}
	}
	return names
}

// between is COPY, or MOVE.
func between(from, to string, moved bool, uids []maildir.UID, mails ...mail) step {
	e := effect{}
	for _, m := range mails {
		e.Adds = append(e.Adds, added{Folder: to, Mail: m, Moved: moved})
	}
	if moved {
		e.Drops = map[string][]maildir.UID{from: uids}
	}
	return step{func(s *session) error {
		src, err := s.box(from)
		if err != nil {
			return err
		}
		dst, err := s.box(to)
		if err != nil {
			return err
		}
		transfer := src.Copy
		if moved {
			transfer = src.Move
		}
		c, err := transfer(ctx, uids, dst)
		s.given = c.To
		return err
	}, e}
}

// flag is STORE.
func flag(name string, op maildir.FlagOp, set maildir.FlagSet, after map[maildir.UID]string) step {
	return step{func(s *session) error {
		m, err := s.box(name)
		if err != nil {
			return err
		}
		_, err = m.SetFlags(ctx, slices.Sorted(maps.Keys(after)), op, set)
		return err
	}, effect{Flags: map[string]map[maildir.UID]string{name: after}, Weak: true}}
}

// expunge is EXPUNGE.
func expunge(name string, gone ...maildir.UID) step {
	return step{func(s *session) error {
		m, err := s.box(name)
		if err != nil {
			return err
		}
		_, err = m.Expunge(ctx, nil)
		return err
	}, effect{Drops: map[string][]maildir.UID{name: gone}, Weak: true}}
}

// serve is SELECT of a mailbox.
func serve(name string) step {
	return step{func(s *session) error {
		s.leave(name)
		m, err := s.box(name)
		if err == nil {
			err = m.Sync(ctx, maildir.Serve)
		}
		if err == nil {
			_, err = s.enter(name)
		}
		return err
	}, effect{}}
}

// tree changes.
func create(name string) step {
	return step{func(s *session) error { return s.st.Create(ctx, name) }, effect{Makes: name}}
}

func remove(name string) step {
	return step{func(s *session) error {
		s.leave(name)
		return s.st.Delete(ctx, name)
	}, effect{Kills: name}}
}

func rename(old, name string) step {
	return step{func(s *session) error { return s.st.Rename(ctx, old, name) }, effect{Rename: [2]string{old, name}}}
}

// renameInbox moves all messages of INBOX into a new folder.
func renameInbox(name string) step {
	e := effect{Makes: name, Drops: map[string][]maildir.UID{"INBOX": {1, 2, 3, 4, 5}}}
	for _, m := range inbox {
		e.Adds = append(e.Adds, added{Folder: name, Mail: m.mail, Moved: true})
	}
	return step{func(s *session) error { return s.st.Rename(ctx, "INBOX", name) }, e}
}

// What INBOX of the scripts holds: UIDs 1 to 5. The fourth lies in new/.
var inbox = []struct {
	file string
	mail
}{
	{"cur/1600000001.M1P1.h:2,S", letter("Subject: one\n\n1\n", 1600000001, `\Seen`)},
	{"cur/1600000002.M1P1.h,S=17,W=20:2,FSa", letter("Subject: two\n\n2\n.\n", 1600000002, `\Flagged \Seen work`)},
	{"cur/1600000003.M1P1.h:2,T", letter("Subject: three\n\n3\n", 1600000003, `\Deleted`)},
	{"new/1600000004.M1P1.h", letter("Subject: four\n\n4\n", 1600000004, ``)},
	{"cur/1600000005.M1P1.h:2,DT", letter("Subject: five\n\n5\n", 1600000005, `\Deleted \Draft`)},
}

// build makes the site of a script.
func (s site) build(t *testing.T, sc script) {
	t.Helper()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(s.root(), sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range inbox {
		s.drop(t, m.file, m.mail)
	}
	if sc.raw != nil {
		sc.prep(t, s.root())
		return
	}
	h, err := s.serve(maildir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	names := []string{"Work"}
	if sc.trees {
		names = append(names, "Tree", "Tree/A", "Tree/A/B", "Tree/C")
	}
	for _, name := range names {
		st := create(name)
		if err := st.do(h); err != nil {
			t.Fatal(err)
		}
		flags := maildir.FlagSet{System: maildir.Seen, Keywords: []string{"home"}}
		if err := add(name, flags, "Subject: in "+name+"\n\ntext\n").do(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.root()+"/dovecot-keywords", []byte("0 work\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if sc.prep != nil {
		sc.prep(t, s.root())
	}
	for i, st := range sc.before {
		if err := st.do(h); err != nil {
			t.Fatalf("command %d before: %v", i, err)
		}
	}
}

// drop puts a message into the root as another program does.
func (s site) drop(t *testing.T, file string, m mail) {
	t.Helper()
	path := filepath.Join(s.root(), file)
	if err := os.WriteFile(path, []byte(m.Text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Unix(m.Date, 0), time.Unix(m.Date, 0)); err != nil {
		t.Fatal(err)
	}
}

func scripts() []script {
	blue := maildir.FlagSet{System: maildir.Seen, Keywords: []string{"work"}}
	green := maildir.FlagSet{System: maildir.Flagged, Keywords: []string{"green"}}
	one, two, four := inbox[0].mail, inbox[1].mail, inbox[3].mail
	both := []string{"INBOX", "Work"}
	all := []script{
		{name: "append", opens: []string{"INBOX"}, steps: []step{add("INBOX", blue, added1)}},
		{name: "append to a closed mailbox", steps: []step{add("Work", maildir.FlagSet{}, added1)}},
		{name: "append with a new keyword", opens: []string{"INBOX"}, steps: []step{add("INBOX", green, added1)}},
		{name: "multiappend", opens: []string{"INBOX"}, steps: []step{add("INBOX", green, added1, added2, added3)}},
		{name: "copy", opens: both, steps: []step{between("INBOX", "Work", false, []maildir.UID{1, 2, 4}, one, two, four)}},
		{name: "copy to a folder with other rights", prep: func(t *testing.T, dir string) { chmod(t, dir, ".Work", 0o770) },
			opens: both, steps: []step{between("INBOX", "Work", false, []maildir.UID{2, 4}, two, four)}},
		{name: "move", opens: both, steps: []step{between("INBOX", "Work", true, []maildir.UID{1, 2, 4}, one, two, four)}},
		{name: "move to a folder with other rights", prep: func(t *testing.T, dir string) { chmod(t, dir, ".Work", 0o770) },
			opens: both, steps: []step{between("INBOX", "Work", true, []maildir.UID{1, 4}, one, four)}},
		{name: "move there and back", opens: both, steps: []step{
			between("INBOX", "Work", true, []maildir.UID{1}, one),
			between("Work", "INBOX", true, []maildir.UID{2}, one),
		}},
		{name: "store", opens: []string{"INBOX"}, steps: []step{
			serve("INBOX"),
			flag("INBOX", maildir.AddFlags, maildir.FlagSet{System: maildir.Answered}, map[maildir.UID]string{
				1: `\Answered \Seen`, 2: `\Answered \Flagged \Seen work`, 4: `\Answered`}),
			flag("INBOX", maildir.RemoveFlags, maildir.FlagSet{System: maildir.Seen}, map[maildir.UID]string{1: `\Answered`}),
		}},
		{name: "store in new", opens: []string{"INBOX"}, steps: []step{
			flag("INBOX", maildir.AddFlags, maildir.FlagSet{System: maildir.Seen}, map[maildir.UID]string{4: `\Seen`}),
		}},
		{name: "store of a new keyword", opens: []string{"INBOX"}, steps: []step{
			flag("INBOX", maildir.AddFlags, green, map[maildir.UID]string{1: `\Flagged \Seen green`, 4: `\Flagged green`}),
			flag("INBOX", maildir.ReplaceFlags, maildir.FlagSet{Keywords: []string{"red"}}, map[maildir.UID]string{1: `red`}),
		}},
		{name: "expunge", opens: []string{"INBOX"}, steps: []step{expunge("INBOX", 3, 5)}},
		{name: "a day's work", opens: both, steps: []step{
			serve("INBOX"),
			add("INBOX", maildir.FlagSet{System: maildir.Deleted}, added1),
			flag("INBOX", maildir.AddFlags, maildir.FlagSet{System: maildir.Deleted}, map[maildir.UID]string{1: `\Deleted \Seen`}),
			expunge("INBOX", 1, 3, 5, 6),
			add("INBOX", maildir.FlagSet{}, added2),
			between("INBOX", "Work", false, []maildir.UID{7}, letter(added2, date, "")),
			create("Later"),
			between("Work", "Later", true, []maildir.UID{2}, letter(added2, date, "")),
			remove("Later"),
		}},
		{name: "rename of INBOX", steps: []step{renameInbox("Old/Mail")}},
		{name: "select", steps: []step{serve("INBOX")}},
		{name: "a restored folder", restored: true, steps: []step{
			serve("INBOX"),
			add("INBOX", blue, added1),
			add("Work", blue, added2),
			expunge("INBOX", 3, 5),
		}},
	}
	for _, l := range []struct {
		name   string
		layout tree.Layout
		apart  bool
	}{{"", tree.PlusPlus, false}, {" (fs)", tree.FS, false}, {" (control)", tree.PlusPlus, true}, {" (fs, control)", tree.FS, true}} {
		for _, sc := range []script{
			{name: "create", steps: []step{create("New/A/B")}},
			{name: "rename of a tree", steps: []step{rename("Tree", "Work/Moved")}},
			{name: "rename of a folder", steps: []step{rename("Work", "Labour")}},
			{name: "delete", steps: []step{remove("Work")}},
			{name: "delete of a folder with others below", steps: []step{remove("Tree")}},
			{name: "delete and create again", steps: []step{remove("Tree/A"), create("Tree/A")}},
			{name: "append", opens: both, steps: []step{add("Work", blue, added1), between("Work", "INBOX", true, []maildir.UID{2}, letter(added1, date, `\Seen work`))}},
		} {
			if l.name == "" && sc.name == "append" {
				continue
			}
			sc.name, sc.layout, sc.apart, sc.trees = sc.name+l.name, l.layout, l.apart, sc.name != "append"
			all = append(all, sc)
		}
	}
	return slices.Concat(all, firstOpens(), keywordScripts(), sideScripts())
}

func chmod(t *testing.T, dir, name string, mode os.FileMode) {
	t.Helper()
	for _, sub := range []string{"", "/cur", "/new", "/tmp"} {
		if err := os.Chmod(filepath.Join(dir, name)+sub, mode); err != nil {
			t.Fatal(err)
		}
	}
}

// firstOpens are folders that other programs have left, opened for the first
// time. Those of Dovecot and Courier know UIDs.
func firstOpens() []script {
	lists := func(text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if text != "" {
				if err := os.WriteFile(dir+"/dovecot-uidlist", []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(dir+"/dovecot-keywords", []byte("0 work\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	known := func(validity uint32, next maildir.UID, uids ...maildir.UID) map[string]folder {
		f := folder{Validity: validity, Next: next, Mails: map[maildir.UID]mail{}}
		for i, u := range uids {
			f.Mails[u] = inbox[i].mail
		}
		return map[string]folder{"INBOX": f}
	}
	waiting := func(from int) (all []added) {
		for _, m := range inbox[from:] {
			all = append(all, added{Folder: "INBOX", Mail: m.mail})
		}
		return all
	}
	v3 := "3 V1234 N%d G0123456789abcdef0123456789abcdef\n3 :1600000001.M1P1.h\n7 S17 W20 :1600000002.M1P1.h,S=17,W=20\n"
	steps := []step{serve("INBOX"), add("INBOX", maildir.FlagSet{System: maildir.Seen}, added1)}
	return []script{
		{name: "first open, no list", prep: lists(""), raw: known(0, 1), wait: waiting(0), steps: steps},
		{name: "first open, Dovecot's list", prep: lists(fmt.Sprintf(v3, 12)), raw: known(1234, 12, 3, 7), wait: waiting(2), steps: steps},
		{name: "first open, a torn list", prep: lists(fmt.Sprintf(v3, 12) + "12 :1600000003.M1"), raw: known(1234, 12, 3, 7), wait: waiting(2), steps: steps},
		{name: "first open, Courier's list", prep: lists("1 1234 12\n3 1600000001.M1P1.h\n7 1600000002.M1P1.h,S=17,W=20\n"),
			raw: known(1234, 12, 3, 7), wait: waiting(2), steps: steps},
		{name: "a message comes back", prep: func(t *testing.T, dir string) {
			lists(fmt.Sprintf(v3, 12)+"12 :1600000003.M1P1.h\n13 :1600000009.M1P1.h\n")(t, dir)
		}, raw: known(1234, 14, 3, 7, 12), wait: waiting(3), opens: []string{"INBOX"}, steps: []step{
			{func(s *session) error {
				m, err := s.box("INBOX")
				if err != nil {
					return err
				}
				return m.Sync(ctx, maildir.Serve)
			}, effect{}},
			flag("INBOX", maildir.AddFlags, maildir.FlagSet{System: maildir.Deleted}, map[maildir.UID]string{7: `\Deleted \Flagged \Seen work`}),
			add("INBOX", maildir.FlagSet{}, added1),
		}},
	}
}
