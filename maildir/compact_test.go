package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/maildir/intents"
	"imapd/maildir/uidlist"
)

// appendAtOnce adds n messages in one command.
func (b *box) appendAtOnce(n int, f FlagSet) []UID {
	b.t.Helper()
	var all []Appending
	for i := range n {
		d, err := b.NewMessage(context.Background())
		if err != nil {
			b.t.Fatal(err)
		}
		defer d.Abort()
		fmt.Fprintf(d, "message %d\r\n", i)
		all = append(all, Appending{Delivery: d, Flags: f})
	}
	_, uids, err := b.Append(context.Background(), all)
	if err != nil {
		b.t.Fatal(err)
	}
	return uids
}

// byHand has the list written anew only when a test says so.
func (b *box) byHand() *box {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.compacting = true
	return b
}

// pass has n messages come and go.
func (b *box) pass(n int) {
	b.t.Helper()
	const batch = 100
	for range n / batch {
		uids := b.appendAtOnce(batch, FlagSet{System: Deleted})
		gone, err := b.Expunge(context.Background(), func(u UID) bool { return u >= uids[0] })
		if err != nil || !slices.Equal(gone, uids) {
			b.t.Fatal(len(gone), err)
		}
	}
}

// uidList reads the list.
func (b *box) uidList() uidlist.List {
	b.t.Helper()
	text, err := os.ReadFile(b.in(uidlist.Name, ""))
	if err != nil {
		b.t.Fatal(err)
	}
	l, err := uidlist.Parse(text)
	if err != nil || l.Damage.Any() {
		b.t.Fatalf("%.300q: %+v, %v", text, l.Damage, err)
	}
	return l
}

// A folder through which mail passes has a short list, whether its mailbox is in use
// all the time or opened by one process after the other, with an index or without.
// Nobody who has the list open, and nobody who comes later, sees other UIDs.
func TestListIsShortened(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		index bool
		pass  int
		short func(b *box)
	}{
		"in use":           {true, 3000, func(b *box) { b.compactInUse() }},
		"in use, no index": {false, 1100, func(b *box) { b.compactInUse() }},
		"left":             {true, 1100, func(b *box) { b.Release(); b.tidy() }},
		"at the end":       {true, 1100, (*box).end},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newBox(t, Options{NoNotify: true})
			if tt.index {
				a.remembering()
			}
			stay := a.appendAtOnce(5, FlagSet{Keywords: []string{"stays"}})
			if _, err := a.Copy(context.Background(), stay[:1], a.Mailbox); err != nil { // has its GUID in the list
				t.Fatal(err)
			}
			second := a.others(1, Options{})[1]
			a.pass(tt.pass)
			last := a.append(a.Mailbox, "last\r\n", FlagSet{})
			a.pass(200)
			a.calm()
			want, snap, lines := told(a.Mailbox), a.Snapshot(), a.uidList()
			if len(want) != 7 || snap.Next != last+201 {
				t.Fatalf("%q, UIDNEXT %d", want, snap.Next)
			}
			tt.short(a)
			l := a.uidList()
			if l.Lines >= len(want)+fewDead || l.Validity != snap.Validity || UID(l.Next) != snap.Next || l.GUID != lines.GUID || l.Extra != lines.Extra {
				t.Errorf("%d lines, header %+v; was %+v", l.Lines, l.Header, lines.Header)
			}
			for _, e := range l.Entries {
				if !slices.Contains(lines.Entries, e) {
					t.Errorf("line %+v", e)
				}
			}
			second.sync(Serve)
			third := a.others(1, Options{})[1]
			for who, b := range map[string]*box{"the second": second, "the third": third} {
				if got, s := told(b.Mailbox), b.Snapshot(); !slices.Equal(got, want) || s.Next != snap.Next || s.Validity != snap.Validity {
					t.Errorf("%s process: %q, UIDNEXT %d, UIDVALIDITY %d; want %q, %d, %d", who, got, s.Next, s.Validity, want, snap.Next, snap.Validity)
				}
			}
			if tt.index {
				if gone, complete := third.Expunged(snap.ModSeq - 1); len(gone) > 1 || !complete {
					t.Errorf("%d ranges of expunges, complete: %v", len(gone), complete)
				}
			}
			if u := second.append(second.Mailbox, "more\r\n", FlagSet{}); u != snap.Next {
				t.Errorf("UID %d after UIDNEXT %d", u, snap.Next)
			}
			third.sync(Look)
			if got := told(third.Mailbox); len(got) != len(want)+1 {
				t.Errorf("then %q", got)
			}
		})
	}
}

// To write the list anew costs the one who did it no scan, and the process after it
// neither: it goes on from what was saved.
func TestShortListIsKnown(t *testing.T) {
	t.Parallel()
	a := newBox(t, Options{NoNotify: true}).byHand()
	a.remembering().append(a.Mailbox, "x\r\n", FlagSet{})
	a.pass(1500)
	a.calm()
	if a.clean == (stamp{}) {
		t.Fatal("the folder is not known")
	}
	scans := a.host.scans.Load()
	a.compactList()
	if l := a.uidList(); l.Lines != 1 {
		t.Errorf("%d lines", l.Lines)
	}
	a.sync(Serve)
	if n := a.host.scans.Load() - scans; n != 0 {
		t.Errorf("%d scans", n)
	}
	a.end()
	b := a.process(Options{NoNotify: true})
	if n := b.host.scans.Load(); n != 0 || b.list.lines != nil || b.Snapshot().Len() != 1 {
		t.Errorf("%d scans, the list was read: %v", n, b.list.lines != nil)
	}
}

// A list that is worth it is left as it is all the same where something is to come
// that may need it, and a message's line is never dropped.
func TestListIsNotShortened(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(b *box){
		"another process has added a message": func(b *box) {
			b.deliver("cur", "1.h:2,", "x\n")
			b.listed(fmt.Sprintf("%d :1.h", b.Snapshot().Next))
		},
		"another process has written it anew": func(b *box) {
			path := b.in(uidlist.Name, "")
			text, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path+".tmp", text, 0o600)
			}
			if err == nil {
				err = os.Rename(path+".tmp", path)
			}
			if err != nil {
				b.t.Fatal(err)
			}
		},
		"a COPY goes on": func(b *box) {
			h, err := intents.Begin(b.control, intents.Intent{Kind: intents.Place, Validity: b.Snapshot().Validity, Steps: []intents.Step{{To: "x"}, {To: "y"}}})
			if err != nil {
				b.t.Fatal(err)
			}
			b.t.Cleanup(func() { h.Close() })
		},
		"the lock is held": func(b *box) {
			if err := os.WriteFile(b.in(uidlist.LockName, ""), []byte("1:"+hostnameOf(b)), 0o600); err != nil {
				b.t.Fatal(err)
			}
		},
		"it is torn": func(b *box) {
			f, err := os.OpenFile(b.in(uidlist.Name, ""), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				b.t.Fatal(err)
			}
			defer f.Close()
			fmt.Fprintf(f, "%d :half", b.Snapshot().Next)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, Options{NoNotify: true}).byHand()
			b.append(b.Mailbox, "x\r\n", FlagSet{})
			b.pass(fewDead)
			b.calm()
			spoil(b)
			before, err := os.ReadFile(b.in(uidlist.Name, ""))
			if err != nil {
				t.Fatal(err)
			}
			b.compactList()
			if after, err := os.ReadFile(b.in(uidlist.Name, "")); string(after) != string(before) {
				t.Errorf("the list has %d octets, had %d: %v", len(after), len(before), err)
			}
		})
	}
}

func hostnameOf(b *box) string {
	b.t.Helper()
	name, err := os.Hostname()
	if err != nil {
		b.t.Fatal(err)
	}
	return name
}

// A list that is not worth it stays: one with few lines of messages that are gone, and
// one of a large folder.
func TestListIsShortEnough(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true}).byHand()
	b.appendAtOnce(10, FlagSet{})
	b.pass(fewDead - 100)
	b.compactList()
	if l := b.uidList(); l.Lines != fewDead-90 {
		t.Errorf("%d lines", l.Lines)
	}
	for range 4 {
		b.appendAtOnce(1000, FlagSet{})
	}
	b.pass(100)
	b.compactList()
	if l := b.uidList(); l.Lines != 4010+fewDead {
		t.Errorf("%d lines", l.Lines)
	}
	b.pass(400)
	b.compactList()
	if l := b.uidList(); l.Lines != 4010 {
		t.Errorf("%d lines", l.Lines)
	}
}

// A message that was moved away and back, after the line of what it was is gone, may
// have its old name under its new UID. Who has not looked meanwhile does not take it
// for what it was.
func TestNameOfAnotherMessage(t *testing.T) {
	t.Parallel()
	for _, lock := range []Lock{LockAlways, LockNewUIDs} {
		a := newBox(t, Options{NoNotify: true, Lock: lock}).byHand()
		ctx := context.Background()
		if err := a.st.Create(ctx, "Other"); err != nil {
			t.Fatal(err)
		}
		other := a.open("Other")
		u := a.append(a.Mailbox, "x\r\n", FlagSet{System: Deleted})
		c := a.others(1, Options{NoNotify: true, Lock: lock})[1]
		name := a.files("cur")
		if _, err := a.Move(ctx, []UID{u}, other); err != nil {
			t.Fatal(err)
		}
		a.pass(1000)
		a.compactList()
		if l := a.uidList(); l.Lines != 0 {
			t.Fatalf("%d lines", l.Lines)
		}
		moved, err := other.Move(ctx, []UID{1}, a.Mailbox)
		if err != nil || len(moved.To) != 1 || moved.To[0] == u {
			t.Fatal(moved, err)
		}
		if now := a.files("cur"); !slices.Equal(now, name) {
			t.Fatalf("the test is none: %q was %q", now, name)
		}
		if gone, err := c.Expunge(ctx, func(x UID) bool { return x == u }); err != nil || len(gone) != 0 {
			t.Errorf("expunged %v, %v", gone, err)
		}
		if now := a.files("cur"); !slices.Equal(now, name) {
			t.Errorf("left: %q", now)
		}
		if done, err := c.SetFlags(ctx, []UID{u}, AddFlags, FlagSet{System: Flagged}); err != nil || !slices.Equal(done.Gone, []UID{u}) {
			t.Errorf("%+v, %v", done, err)
		}
		a.sync(Serve)
		if l := told(a.Mailbox); len(l) != 1 || !strings.HasPrefix(l[0], fmt.Sprint(moved.To[0], " ")) || strings.Contains(l[0], "Flagged") {
			t.Errorf("%q", l)
		}
	}
}

// What has the list read without a look, and what touches a file or makes another
// message of it, does not take a name for that of the message which had it once.
func TestNameThatNoLookHasCompared(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	nothing := func(*box) error { return nil }
	for what, tt := range map[string]struct{ read, touch func(c *box) error }{
		"the list was to be shortened": {
			func(c *box) error { c.compactList(); return nil },
			func(c *box) error { _, err := c.Expunge(ctx, func(u UID) bool { return u == 1 }); return err }},
		"the lines were loaded": {
			func(c *box) error {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.list.unload()
				return c.list.load(c.control)
			},
			func(c *box) error { _, err := c.Expunge(ctx, func(u UID) bool { return u == 1 }); return err }},
		"COPY": {nothing, func(c *box) error { _, err := c.Copy(ctx, []UID{1}, c.open("Third")); return err }},
		"MOVE": {nothing, func(c *box) error { _, err := c.Move(ctx, []UID{1}, c.open("Third")); return err }},
	} {
		a := newBox(t, Options{NoNotify: true}).byHand().remembering()
		for _, name := range []string{"Other", "Third"} {
			if err := a.st.Create(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
		other := a.open("Other")
		u := a.append(a.Mailbox, "x\r\n", FlagSet{System: Deleted})
		a.pass(1200)
		a.calm()
		a.mu.Lock()
		a.save(false) // c goes on with the list, and has not read it
		a.mu.Unlock()
		c := a.others(1, Options{})[1].byHand()
		if _, err := a.Move(ctx, []UID{u}, other); err != nil {
			t.Fatal(err)
		}
		a.compactList()
		moved, err := other.Move(ctx, []UID{1}, a.Mailbox)
		if err != nil || len(moved.To) != 1 || moved.To[0] == u || a.uidList().Lines != 1 {
			t.Fatal(moved, err)
		}
		there := a.files("cur")
		if err := tt.read(c); err != nil {
			t.Fatal(err)
		}
		if err := tt.touch(c); err != nil && !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", what, err)
		}
		if now := a.files("cur"); !slices.Equal(now, there) || len(now) != 1 {
			t.Errorf("%s: of UID %d is left %q", what, moved.To[0], now)
		}
		if n := c.open("Third").Snapshot().Len(); n != 0 {
			t.Errorf("%s: UID %d is copied as UID %d", what, moved.To[0], u)
		}
	}
}

// A list that cannot be written anew is left for a while, and works.
func TestListCannotBeShortened(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true}).byHand()
	b.append(b.Mailbox, "x\r\n", FlagSet{})
	b.pass(1000)
	blocked := filepath.Join(b.path, uidlist.Name+".tmp")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	b.compactList()
	if l := b.uidList(); l.Lines != 1001 || !b.compactFrom.After(time.Now()) {
		t.Errorf("%d lines, tried again at %v", l.Lines, b.compactFrom)
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	b.pass(100)
	b.compactList()
	if l := b.uidList(); l.Lines != 1101 {
		t.Errorf("%d lines, at once", l.Lines)
	}
	b.compactFrom = time.Time{}
	b.compactList()
	if l := b.uidList(); l.Lines != 1 {
		t.Errorf("%d lines in the end", l.Lines)
	}
}
