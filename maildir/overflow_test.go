package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/keywords"
)

// manyKeywords returns n names.
func manyKeywords(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("kw%02d", i))
	}
	return names
}

// nameKeywords gives the mailbox keywords that no message has.
func (m *Mailbox) nameKeywords(names []string) error {
	return m.edit(context.Background(), func() error {
		err := m.readKeywords()
		if err == nil {
			_, err = m.keys.marks(m.control, FlagSet{Keywords: names}, true)
		}
		return err
	})
}

// A message keeps keywords that its name cannot hold wherever it goes, and a
// process that knows nothing of them but the files finds them.
func TestOverflowEverywhere(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	ctx := context.Background()
	all := manyKeywords(30)
	u := b.append(b.Mailbox, "one\r\n", FlagSet{Keywords: all})
	b.append(b.Mailbox, "two\r\n", FlagSet{})
	set := func(m *Mailbox, u UID, op FlagOp, names ...string) {
		t.Helper()
		if _, err := m.SetFlags(ctx, []UID{u}, op, FlagSet{Keywords: names}); err != nil {
			t.Fatal(err)
		}
	}
	has := func(m *Mailbox, u UID, want ...string) {
		t.Helper()
		if got := keywordsOf(m, u); !slices.Equal(got, want) {
			t.Errorf("UID %d has %q, want %q", u, got, want)
		}
	}
	has(b.Mailbox, u, all...)
	set(b.Mailbox, u, RemoveFlags, "KW29", "kw00")
	set(b.Mailbox, u, AddFlags, "kw30")
	has(b.Mailbox, u, append(all[1:29:29], "kw30")...)
	set(b.Mailbox, 2, ReplaceFlags, "kw28")

	// Another program gives the file another name, and so other letters.
	cur := filepath.Join(b.path, "cur")
	for _, f := range b.files("cur") {
		base, _, _ := strings.Cut(f, ":")
		if err := os.Rename(filepath.Join(cur, f), filepath.Join(cur, base+":2,Sb")); err != nil {
			t.Fatal(err)
		}
	}
	b.sync(Serve)
	has(b.Mailbox, u, "kw01", "kw26", "kw27", "kw28", "kw30")
	has(b.Mailbox, 2, "kw01", "kw28")

	if err := b.st.Create(ctx, "Other"); err != nil {
		t.Fatal(err)
	}
	other := b.open("Other")
	for range 26 { // so that the numbers differ
		b.append(other, "filler\r\n", FlagSet{Keywords: manyKeywords(29)[3:]})
	}
	copied, err := b.Copy(ctx, []UID{u}, other)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := b.Move(ctx, []UID{2}, other)
	if err != nil {
		t.Fatal(err)
	}
	has(other, copied.To[0], "kw26", "kw27", "kw28", "kw01", "kw30")
	has(other, moved.To[0], "kw28", "kw01")
	// There and back: the base name is new, so the old entry means nothing.
	back, err := other.Move(ctx, moved.To, b.Mailbox)
	if err != nil {
		t.Fatal(err)
	}
	has(b.Mailbox, back.To[0], "kw01", "kw28")

	fresh := *b
	fresh.start(Options{})
	has(fresh.Mailbox, u, "kw01", "kw26", "kw27", "kw28", "kw30")
	has(fresh.open("Other"), copied.To[0], "kw26", "kw27", "kw28", "kw01", "kw30")
	set(fresh.Mailbox, u, ReplaceFlags)
	has(fresh.Mailbox, u)
	b.sync(Serve)
	has(b.Mailbox, u)
}

// A keyword that another process has set goes along with a message that is copied or
// moved: no name of a file says that it has come.
func TestOverflowSetByOthers(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBox(t, Options{NoNotify: true})
	many := manyKeywords(30)
	us := []UID{b.append(b.Mailbox, "one\r\n", FlagSet{Keywords: many}), b.append(b.Mailbox, "two\r\n", FlagSet{})}
	if err := b.st.Create(ctx, "Other"); err != nil {
		t.Fatal(err)
	}
	c := b.process(Options{NoNotify: true})
	c.sync(Serve)
	if _, err := b.SetFlags(ctx, us[1:], AddFlags, FlagSet{Keywords: many[29:]}); err != nil {
		t.Fatal(err)
	}
	copied, err := c.Copy(ctx, us[1:], c.open("Other"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.SetFlags(ctx, us[1:], AddFlags, FlagSet{Keywords: many[28:29]}); err != nil {
		t.Fatal(err)
	}
	moved, err := c.Move(ctx, us[1:], c.open("Other"))
	if err != nil {
		t.Fatal(err)
	}
	for u, want := range map[UID][]string{copied.To[0]: many[29:], moved.To[0]: many[28:]} {
		if got := keywordsOf(c.open("Other"), u); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Errorf("UID %d has %q, want %q", u, got, want)
		}
	}
}

// Keywords for which Flags has no bit are like the others: in the answer of a
// command, for the next process, for one that is there already, and for COPY,
// MOVE and conditions.
func TestKeywordsWithoutBit(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	ctx := context.Background()
	if err := b.nameKeywords(manyKeywords(bitKeywords)); err != nil {
		t.Fatal(err)
	}
	u := b.append(b.Mailbox, "one\r\n", FlagSet{Flagged, []string{"x1", "kw58", "x0"}})
	b.append(b.Mailbox, "two\r\n", FlagSet{})
	b.remembering()
	other := b.process(Options{NoNotify: true}).remembering()
	has := func(m *Mailbox, u UID, want ...string) {
		t.Helper()
		if got := keywordsOf(m, u); !slices.Equal(got, want) {
			t.Errorf("UID %d has %q, want %q", u, got, want)
		}
	}
	has(b.Mailbox, u, "kw58", "x1", "x0") // by number
	has(other.Mailbox, u, "kw58", "x1", "x0")
	known := b.Snapshot()

	change := func(m *Mailbox, op FlagOp, names ...string) ModSeq {
		t.Helper()
		done, err := m.SetFlags(ctx, []UID{u}, op, FlagSet{Keywords: names})
		if err != nil {
			t.Fatal(err)
		}
		return done.ModSeq
	}
	if mod := change(b.Mailbox, AddFlags, "X0", "x1"); mod != 0 {
		t.Errorf("nothing changed, at modseq %d", mod)
	}
	if mod := change(b.Mailbox, RemoveFlags, "X0"); mod <= known.ModSeq {
		t.Errorf("changed at modseq %d after %d", mod, known.ModSeq)
	}
	has(b.Mailbox, u, "kw58", "x1")
	other.sync(Look)
	has(other.Mailbox, u, "kw58", "x1")
	sameHistory(t, b, other)
	if old, _ := known.lookup(u); !old.HasKeyword(known.Keyword("x0")) || old.HasKeyword(known.Keyword("x9")) {
		t.Error("an old snapshot has changed")
	}

	// A condition is about the keyword that is to change.
	c := Condition{Since: known.ModSeq, Known: known}
	for name, want := range map[string]int{"x0": 1, "x1": 0, "kw58": 0} {
		done, err := b.SetFlagsUnchanged(ctx, []UID{u}, c, AddFlags, FlagSet{Keywords: []string{name}})
		if err != nil || len(done.Modified) != want {
			t.Errorf("%s: modified %d, %v", name, done.Modified, err)
		}
	}

	change(other.Mailbox, ReplaceFlags, "x2", "x1", "kw00")
	b.sync(Look)
	has(b.Mailbox, u, "kw00", "x1", "x2")
	if err := b.st.Create(ctx, "Other"); err != nil {
		t.Fatal(err)
	}
	to := b.open("Other")
	copied, err := b.Copy(ctx, []UID{u}, to)
	if err != nil {
		t.Fatal(err)
	}
	has(to, copied.To[0], "kw00", "x1", "x2")
	b.end()
	fresh := other.process(Options{}).remembering()
	has(fresh.Mailbox, u, "kw00", "x1", "x2")
	if _, err := fresh.Move(ctx, []UID{u}, fresh.open("Other")); err != nil {
		t.Fatal(err)
	}
	msg := fresh.open("Other").Snapshot().At(1)
	has(fresh.open("Other"), msg.UID, "kw00", "x1", "x2")
}

func keywordsOf(m *Mailbox, u UID) []string {
	s := m.Snapshot()
	msg, _ := s.lookup(u)
	f := msg.Marks()
	f.Flags &^= SystemFlags
	return s.AppendFlagNames(nil, f)
}

// Beyond the limit a keyword is refused and nothing changed; where there is a
// file that is none, the letters still work.
func TestOverflowLimits(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	ctx := context.Background()
	u := b.append(b.Mailbox, "one\r\n", FlagSet{Keywords: manyKeywords(maxKeywords)})
	if !b.Snapshot().KeywordsFull() {
		t.Error("there seems to be room")
	}
	if _, err := b.SetFlags(ctx, []UID{u}, ReplaceFlags, FlagSet{Seen, []string{"more"}}); !errors.Is(err, ErrKeywords) {
		t.Errorf("one more: %v", err)
	}
	if got := keywordsOf(b.Mailbox, u); len(got) != maxKeywords {
		t.Errorf("%d keywords are left", len(got))
	}

	path := filepath.Join(b.path, keywords.OverflowName)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(Options{})
	if got := keywordsOf(b.Mailbox, u); len(got) != 26 {
		t.Errorf("%d keywords beside a FIFO", len(got))
	}
	if _, err := b.SetFlags(ctx, []UID{u}, AddFlags, FlagSet{Keywords: []string{"more"}}); !errors.Is(err, ErrKeywords) {
		t.Errorf("beside a FIFO: %v", err)
	}
	if _, err := b.SetFlags(ctx, []UID{u}, RemoveFlags, FlagSet{Keywords: []string{"kw00"}}); err != nil {
		t.Errorf("a letter beside a FIFO: %v", err)
	}
	b.append(b.Mailbox, "two\r\n", FlagSet{Keywords: []string{"kw01"}})
}

// Where dovecot-keywords is what cannot be read, and may be another folder's, the mail is
// served. It and the letters are left as they are; keywords get numbers.
func TestLettersUnreadable(t *testing.T) {
	t.Parallel()
	const other = "0 theirs\n1 also\n"
	for what, put := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink("other", path) },
		"dead link": func(path string) error { return os.Symlink("nowhere", path) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"large":     func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<20+1), 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			root := files{"other": other, "cur/1.a:2,Sab": "x\n", "cur/2.b:2,": "x\n"}.make(t)
			path := filepath.Join(root, keywords.Name)
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			m, err := openOnce(t, root, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			ctx := context.Background()
			change := func(u UID, op FlagOp, set FlagSet) {
				t.Helper()
				if _, err := m.SetFlags(ctx, []UID{u}, op, set); err != nil {
					t.Error(err)
				}
			}
			change(1, AddFlags, FlagSet{Keywords: []string{"new"}})
			change(1, ReplaceFlags, FlagSet{Flagged, []string{"newer"}})
			change(2, AddFlags, FlagSet{Keywords: []string{"new"}})
			if err := m.Sync(ctx, Serve); err != nil {
				t.Error(err)
			}
			if got, want := told(m), []string{`1 1.a \Flagged newer`, `2 2.b new`}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if !exists(m.cur, "1.a:2,Fab") {
				t.Error("letters have been changed")
			}
			after, err := os.Lstat(path)
			text, _ := os.ReadFile(filepath.Join(root, "other"))
			if err != nil || !os.SameFile(before, after) || string(text) != other {
				t.Errorf("written over: %v, %q", err, text)
			}
			if n := strings.Count(log.String(), "have a letter are not served"); n != 1 {
				t.Errorf("said %d times:\n%s", n, log.String())
			}
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(other), 0o600); err != nil {
				t.Fatal(err)
			}
			change(2, AddFlags, FlagSet{Keywords: []string{"also"}})
			if got, want := toldSorted(m), []string{`1 1.a \Flagged also newer theirs`, `2 2.b also new`}; !slices.Equal(got, want) {
				t.Errorf("mended: got %q, want %q", got, want)
			}
		})
	}
}

// What could not be read again is no keyword.
func TestKeywordTooLong(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	u := b.append(b.Mailbox, "one\r\n", FlagSet{})
	if _, err := b.SetFlags(context.Background(), []UID{u}, AddFlags, FlagSet{Keywords: []string{strings.Repeat("x", 1025)}}); !errors.Is(err, ErrKeywords) {
		t.Errorf("error %v", err)
	}
}

// A keyword that has a letter and a number too, because another program gave it a
// letter later, is one keyword: what shows it is either, what takes it away takes
// both.
func TestOverflowAndLetter(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	ctx := context.Background()
	u := b.append(b.Mailbox, "one\r\n", FlagSet{Keywords: manyKeywords(27)})
	b.letters("0 kw00\n1 KW26\n")
	b.start(Options{})
	want := func(names ...string) {
		t.Helper()
		got := keywordsOf(b.Mailbox, u)
		got = slices.DeleteFunc(got, func(n string) bool { return strings.HasPrefix(n, "unknown-") })
		if !slices.Equal(got, names) {
			t.Errorf("got %q, want %q", got, names)
		}
	}
	want("kw00", "KW26")
	if _, err := b.SetFlags(ctx, []UID{u}, ReplaceFlags, FlagSet{}); err != nil {
		t.Fatal(err)
	}
	want()
	b.start(Options{})
	want()
	if _, err := b.SetFlags(ctx, []UID{u}, AddFlags, FlagSet{Keywords: []string{"kw26"}}); err != nil {
		t.Fatal(err)
	}
	want("KW26")
	b.letters("0 kw00\n1 other\n") // the letter means something else now
	b.start(Options{})
	want("other", "kw26")
}

// What one process changes in imapd-keywords another one sees at its next look,
// and one that watches without being asked.
func TestOverflowSeen(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	ctx := context.Background()
	u := b.append(b.Mailbox, "one\r\n", FlagSet{Keywords: manyKeywords(26)})
	other := *b
	other.start(Options{})
	heard := make(chan struct{}, 100)
	stop := other.Watch(Look, func() { heard <- struct{}{} })
	defer stop()
	for i, name := range []string{"first", "second"} {
		if _, err := b.SetFlags(ctx, []UID{u}, AddFlags, FlagSet{Keywords: []string{name}}); err != nil {
			t.Fatal(err)
		}
		deadline := time.After(20 * time.Second)
		for len(keywordsOf(other.Mailbox, u)) != 27+i {
			select {
			case <-heard:
			case <-deadline:
				t.Fatalf("nobody told of %s: %q", name, keywordsOf(other.Mailbox, u))
			}
		}
	}
	names, err := os.ReadDir(filepath.Join(b.path, "cur"))
	if err != nil || len(names) != 1 {
		t.Errorf("cur holds %v", names)
	}
}

// Two processes change the keywords of one folder, each without being told of the
// other, against a map.
func TestOverflowModel(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{Lock: LockNewUIDs})
	ctx := context.Background()
	const messages = 20
	model := map[UID]map[string]bool{}
	for range messages {
		model[b.append(b.Mailbox, "x\r\n", FlagSet{})] = map[string]bool{}
	}
	second := *b
	second.start(Options{})
	hosts := []*Mailbox{b.Mailbox, second.Mailbox}
	names := manyKeywords(40)
	rnd := rand.New(rand.NewPCG(3, 4))
	for step := range 600 {
		m := hosts[rnd.IntN(2)]
		var uids []UID
		for _, u := range slices.Sorted(maps.Keys(model)) {
			if rnd.IntN(6) == 0 {
				uids = append(uids, u)
			}
		}
		op := FlagOp(rnd.IntN(3))
		var set []string
		for range 1 + rnd.IntN(3) {
			set = append(set, names[rnd.IntN(min(len(names), 1+step/5))])
		}
		if err := m.Sync(ctx, Serve); err != nil { // as sessions do
			t.Fatal(err)
		}
		if _, err := m.SetFlags(ctx, uids, op, FlagSet{Keywords: set}); err != nil {
			t.Fatal(err)
		}
		for _, u := range uids {
			if op == ReplaceFlags {
				clear(model[u])
			}
			for _, k := range set {
				if model[u][k] = true; op == RemoveFlags {
					delete(model[u], k)
				}
			}
		}
		if step%100 == 99 {
			third := *b
			third.start(Options{})
			for _, m := range append(hosts, third.Mailbox) {
				if err := m.Sync(ctx, Look); err != nil {
					t.Fatal(err)
				}
				for u, want := range model {
					got := keywordsOf(m, u)
					slices.Sort(got)
					if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
						t.Fatalf("step %d, UID %d: %q, want %q", step, u, got, slices.Sorted(maps.Keys(want)))
					}
				}
			}
		}
	}
}

// The entries of messages that are gone leave the file when it has become long,
// and those of messages that are there never do.
func TestOverflowCompaction(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	ctx := context.Background()
	names := manyKeywords(27)
	keep := b.append(b.Mailbox, "stays\r\n", FlagSet{Keywords: names})
	gone := b.append(b.Mailbox, "goes\r\n", FlagSet{Deleted, names})
	if _, err := b.Expunge(ctx, func(u UID) bool { return u == gone }); err != nil {
		t.Fatal(err)
	}
	for i := range fewLines / 2 {
		for _, op := range []FlagOp{AddFlags, RemoveFlags} {
			if _, err := b.SetFlags(ctx, []UID{keep}, op, FlagSet{Keywords: []string{"kw26"}}); err != nil {
				t.Fatal(i, err)
			}
		}
	}
	if _, err := b.SetFlags(ctx, []UID{keep}, AddFlags, FlagSet{Keywords: []string{"kw26"}}); err != nil {
		t.Fatal(err)
	}
	b.deliver("new", "9.h", "x\n") // a look under the lock
	b.sync(Serve)
	data, err := os.ReadFile(filepath.Join(b.path, keywords.OverflowName))
	if err != nil || strings.Count(string(data), "\n") != 4 {
		t.Errorf("%v, left:\n%s", err, data)
	}
	b.start(Options{})
	if got := keywordsOf(b.Mailbox, keep); len(got) != 27 {
		t.Errorf("left %q", got)
	}
}

// A program may rename a file first and write the name of its letter then. Whoever was
// told of the one is told of the other, also by a process that comes later.
func TestLetterNamedLater(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true, LockWait: 50 * time.Millisecond})
	b.letters("0 first\n")
	for _, f := range []string{"1.h:2,a", "2.h:2,", "3.h:2,S"} {
		b.deliver("cur", f, "x\n")
	}
	b.sync(Serve)
	b.remembering()
	beside := b.process(Options{NoNotify: true}).remembering()
	c := mirror{}
	if err := c.reconnect(b.Mailbox); err != nil {
		t.Fatal(err)
	}
	lock, err := beside.lock(t.Context()) // as Dovecot, for the time of both
	if err != nil {
		t.Fatal(err)
	}
	b.renamed("2.h:2,", "2.h:2,b")
	b.renamed("3.h:2,S", "3.h:2,FSb")
	b.sync(Serve)
	if err := c.reconnect(b.Mailbox); err != nil {
		t.Fatal(err)
	}
	first := b.Snapshot()
	b.letters("0 first\n1 urgent\n")
	lock.Unlock()
	for _, who := range []func() *box{
		func() *box { return b },
		func() *box { return beside },
		func() *box { return b.process(Options{NoNotify: true}).remembering() },
	} {
		p := who()
		p.sync(Serve)
		again := mirror{validity: c.validity, flags: maps.Clone(c.flags), modseq: c.modseq}
		if err := again.reconnect(p.Mailbox); err != nil {
			t.Error(err)
		}
		if again.flags[2] != "urgent" || again.flags[3] != `\Seen \Flagged urgent` {
			t.Errorf("a client knows %v", again.flags)
		}
	}
	for u, changes := range map[UID]bool{1: false, 2: true, 3: true} {
		was, _ := first.lookup(u)
		is, _ := b.Snapshot().lookup(u)
		if is.ModSeq > was.ModSeq != changes {
			t.Errorf("UID %d has modseq %d, had %d", u, is.ModSeq, was.ModSeq)
		}
	}
}

// letters replaces dovecot-keywords as another program does.
func (b *box) letters(content string) {
	b.t.Helper()
	path := filepath.Join(b.path, keywords.Name)
	if err := os.WriteFile(path+".x", []byte(content), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(path+".x", path); err != nil {
		b.t.Fatal(err)
	}
}

// What another server knew of messages is added to what they have, as far as there
// is room.
func TestAddOverflow(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	ctx := context.Background()
	u := b.append(b.Mailbox, "one\r\n", FlagSet{Keywords: manyKeywords(27)})
	msg, _ := b.Snapshot().lookup(u)
	add := map[string][]string{string(msg.base()): {"KW26", "imported"}, "not there": {"imported", "kw01"}}
	for i := range maxKeywords {
		add[string(msg.base())] = append(add[string(msg.base())], fmt.Sprint("x", i))
	}
	err := b.edit(ctx, func() error {
		dropped, err := b.addOverflow(add)
		if len(dropped) != 29 && len(dropped) != 30 { // "kw01" gets a number too
			t.Errorf("dropped %q", dropped)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b.sync(Serve)
	if got := keywordsOf(b.Mailbox, u); !slices.Contains(got, "imported") || !slices.Contains(got, "kw00") || len(got) < 58 {
		t.Errorf("%q", got)
	}
}
