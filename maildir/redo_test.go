package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imapd/maildir/intents"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// errKilled is what every call of a process gives that is no more.
var errKilled = errors.New("killed")

// A kill lets so many changes happen and none after that: what is on disk then is
// what a process leaves that is killed there. The descriptors are closed, as the
// kernel does.
type kill struct {
	at int // 1: the first change does not happen any more

	mu    sync.Mutex // a mailbox may be tidied up meanwhile
	armed bool
	n     int
	syncs []string // what was synced
}

func (k *kill) arm(armed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.armed = armed
}

func (k *kill) open(path string) (vfs.Dir, error) {
	d, err := vfs.Open(path)
	if err != nil {
		return nil, err
	}
	return killDir{d, k}, nil
}

func (k *kill) dead() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.armed {
		k.n++
	}
	return k.armed && k.at > 0 && k.n >= k.at
}

// past reports whether there was a change before that did not happen.
func (k *kill) past() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.n > k.at
}

func (k *kill) do(change func() error) error {
	if k.dead() {
		return errKilled
	}
	return change()
}

func (k *kill) sync(what string, change func() error) error {
	k.mu.Lock()
	if k.armed {
		k.syncs = append(k.syncs, what)
	}
	k.mu.Unlock()
	return k.do(change)
}

type killDir struct {
	vfs.Dir
	k *kill
}

func (d killDir) OpenDir(name string) (vfs.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return killDir{sub, d.k}, nil
}

func (d killDir) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return killFile{f, d.k, filepath.Base(d.Dir.Path())}, nil
}

func (d killDir) Create(name string, perm os.FileMode) (vfs.File, error) {
	if d.k.dead() {
		return nil, errKilled
	}
	return d.file(d.Dir.Create(name, perm))
}

func (d killDir) Append(name string) (vfs.File, error) {
	f, err := d.Dir.Append(name)
	if err != nil {
		return nil, err
	}
	return killFile{f, d.k, name}, nil
}

func (d killDir) Update(name string) (vfs.File, error) {
	f, err := d.Dir.Update(name)
	if err != nil {
		return nil, err
	}
	return killFile{f, d.k, name}, nil
}

func (d killDir) Rename(name string, to vfs.Dir, newname string) error {
	return d.k.do(func() error { return d.Dir.Rename(name, to, newname) })
}

func (d killDir) RenameNoReplace(name string, to vfs.Dir, newname string) error {
	return d.k.do(func() error { return d.Dir.RenameNoReplace(name, to, newname) })
}

func (d killDir) Link(name string, to vfs.Dir, newname string) error {
	return d.k.do(func() error { return d.Dir.Link(name, to, newname) })
}

func (d killDir) Unlink(name string) error {
	return d.k.do(func() error { return d.Dir.Unlink(name) })
}

func (d killDir) Mkdir(name string, perm os.FileMode) error {
	return d.k.do(func() error { return d.Dir.Mkdir(name, perm) })
}

func (d killDir) Rmdir(name string) error {
	return d.k.do(func() error { return d.Dir.Rmdir(name) })
}

func (d killDir) SetTime(name string, t time.Time) error {
	return d.k.do(func() error { return d.Dir.SetTime(name, t) })
}

func (d killDir) Sync() error { return d.k.sync(filepath.Base(d.Dir.Path())+"/", d.Dir.Sync) }

type killFile struct {
	vfs.File
	k    *kill
	name string
}

func (f killFile) Write(p []byte) (int, error) {
	if f.k.dead() {
		if f.k.past() {
			return 0, errKilled
		}
		n, _ := f.File.Write(p[:len(p)/2]) // the kernel had taken half of it
		return n, errKilled
	}
	return f.File.Write(p)
}

func (f killFile) WriteAt(p []byte, off int64) (int, error) {
	if f.k.dead() {
		return 0, errKilled
	}
	return f.File.WriteAt(p, off)
}

func (f killFile) Sync() error     { return f.k.sync(f.name, f.File.Sync) }
func (f killFile) Datasync() error { return f.k.sync(f.name, f.File.Datasync) }
func (f killFile) Truncate(size int64) error {
	return f.k.do(func() error { return f.File.Truncate(size) })
}

func (f killFile) SetTime(t time.Time) error {
	return f.k.do(func() error { return f.File.SetTime(t) })
}

func (f killFile) Chmod(mode os.FileMode) error {
	return f.k.do(func() error { return f.File.Chmod(mode) })
}

// restart opens the folders as a process does that comes after one that was
// killed.
func (b *box) restart() {
	b.t.Helper()
	b.ageLocks()
	b.start(Options{})
}

// ageLocks makes the locks that were left as old as they must be to be broken.
func (b *box) ageLocks() {
	filepath.WalkDir(filepath.Dir(b.path), func(path string, _ os.DirEntry, _ error) error {
		if filepath.Base(path) == uidlist.LockName {
			os.Chtimes(path, time.Now().Add(-time.Minute), time.Now().Add(-time.Minute))
		}
		return nil
	})
}

// bodies returns the messages of a mailbox as their files say, in its order.
func bodies(t *testing.T, m *Mailbox) (l []string) {
	t.Helper()
	s := m.Snapshot()
	for _, msg := range s.Range(0, s.Len()) {
		f, err := m.OpenMessage(context.Background(), msg)
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, f.Size())
		f.ReadAt(text, 0)
		f.Close()
		l = append(l, string(text)+strings.Join(s.AppendFlagNames(nil, msg.Marks()), " "))
	}
	return l
}

// killed runs op in a process that is killed before its at-th change, for all at,
// until it lives, each time on the folder that make makes.
func killed(t *testing.T, make func(b *box), op func(b *box) error, check func(b *box, at int, err error)) {
	t.Helper()
	for at := 1; ; at++ {
		b := newBox(t, Options{})
		make(b)
		k := &kill{at: at}
		victim := *b
		victim.start(Options{Open: k.open})
		k.arm(true)
		err := op(&victim)
		lived := k.n < at
		k.arm(false)
		after := *b
		after.restart()
		check(&after, at, err)
		if t.Failed() {
			t.Fatalf("killed before change %d", at)
		}
		if left, err := os.Stat(filepath.Join(b.path, intents.Name)); err == nil && left.Size() > 0 {
			t.Fatalf("killed before change %d: %d octets of intents are left", at, left.Size())
		}
		if lived {
			if err != nil || at < 4 {
				t.Fatalf("%d changes: %v", at-1, err)
			}
			t.Logf("%d kill points", at-1)
			return
		}
	}
}

// stock makes messages in INBOX and a folder Other.
func stock(n int) func(b *box) {
	return func(b *box) {
		if err := b.st.Create(context.Background(), "Other"); err != nil {
			b.t.Fatal(err)
		}
		for i := range n {
			b.append(b.Mailbox, fmt.Sprintf("message %d\n", i), FlagSet{Seen, []string{"blue"}})
		}
	}
}

func wanted(from, to int) (l []string) {
	for i := from; i < to; i++ {
		l = append(l, fmt.Sprintf("message %d\n\\Seen blue", i))
	}
	return l
}

// A MOVE whose process is killed anywhere leaves each message in one of the two
// folders, once they have been opened again (I10).
func TestKilledMove(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		var uids []UID
		for u := range n {
			uids = append(uids, UID(u+1))
		}
		killed(t, stock(n+1), func(b *box) error {
			_, err := b.Move(context.Background(), uids, b.open("Other"))
			return err
		}, func(b *box, at int, err error) {
			here, there := bodies(t, b.Mailbox), bodies(t, b.open("Other"))
			all := slices.Concat(there, here)
			slices.Sort(all)
			if !slices.Equal(all, wanted(0, n+1)) {
				t.Errorf("%d to move: INBOX %q, Other %q", n, here, there)
			}
			if err == nil && !slices.Equal(there, wanted(0, n)) {
				t.Errorf("%d to move, OK: Other has %q", n, there)
			}
			if stray := b.files("tmp"); len(stray) > 0 {
				t.Errorf("tmp holds %q", stray)
			}
		})
	}
}

// A COPY of several messages and an APPEND of several come whole or not at all,
// wherever the process is killed (I6, I9).
func TestKilledCopyAndAppend(t *testing.T) {
	t.Parallel()
	killed(t, stock(3), func(b *box) error {
		_, err := b.Copy(context.Background(), []UID{1, 2, 3}, b.open("Other"))
		return err
	}, func(b *box, at int, err error) {
		if got := bodies(t, b.open("Other")); !slices.Equal(got, wanted(0, 3)) && (err == nil || len(got) > 0) {
			t.Errorf("Other has %q", got)
		}
		if got := bodies(t, b.Mailbox); !slices.Equal(got, wanted(0, 3)) {
			t.Errorf("INBOX has %q", got)
		}
	})
	killed(t, stock(1), func(b *box) error {
		var msgs []Appending
		for i := range 3 {
			d, err := b.NewMessage(context.Background())
			if err != nil {
				return err
			}
			defer d.Abort()
			fmt.Fprintf(d, "message %d\n", i+1)
			msgs = append(msgs, Appending{Delivery: d, Flags: FlagSet{Seen, []string{"blue"}}, Date: time.Unix(1700000000, 0)})
		}
		_, _, err := b.Append(context.Background(), msgs)
		return err
	}, func(b *box, at int, err error) {
		if got := bodies(t, b.Mailbox); !slices.Equal(got, wanted(0, 4)) && (err == nil || len(got) != 1) {
			t.Errorf("INBOX has %q", got)
		}
	})
}

// What is synced, and in which order, is what a MOVE costs: what is to be done,
// the name in the target, its UID, the name in the source.
func TestMoveSyncs(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	stock(4)(b)
	k := &kill{}
	again := *b
	again.start(Options{Open: k.open})
	other := again.open("Other")
	if _, err := again.Copy(context.Background(), []UID{4}, other); err != nil { // names the keyword there
		t.Fatal(err)
	}
	for _, tt := range []struct {
		do   func() error
		want []string
	}{
		{func() error { _, err := again.Move(context.Background(), []UID{1}, other); return err },
			[]string{"imapd-intents", "Maildir/", "cur/", "dovecot-uidlist", "cur/"}}, // the first makes the file
		{func() error { _, err := again.Move(context.Background(), []UID{2}, other); return err },
			[]string{"imapd-intents", "cur/", "dovecot-uidlist", "cur/"}},
		{func() error { _, err := again.Copy(context.Background(), []UID{3}, other); return err },
			[]string{"cur/", "dovecot-uidlist"}},
		{func() error { _, err := again.Copy(context.Background(), []UID{3, 4}, other); return err },
			[]string{"imapd-intents", ".Other/", "cur/", "dovecot-uidlist"}},
	} {
		k.syncs = nil
		k.arm(true)
		err := tt.do()
		k.arm(false)
		if err != nil || !slices.Equal(k.syncs, tt.want) {
			t.Errorf("%v: synced %q, want %q", err, k.syncs, tt.want)
		}
	}
}

// An intent is finished only where it is certain what it meant.
func TestRedoMove(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change    func(b *box, source, target string) // full paths
		here, all int                                 // messages in INBOX, in both
	}{
		"as it was left":           {func(*box, string, string) {}, 0, 1},
		"flags here have changed":  {func(b *box, s, _ string) { os.Rename(s, s+"T") }, 1, 2},
		"flags there have changed": {func(b *box, _, t string) { os.Rename(t, t+"T") }, 0, 1},
		"another file there": {func(b *box, _, t string) {
			os.Remove(t)
			os.WriteFile(t, []byte("message 0\n"), 0o600)
		}, 1, 2},
		"none there":     {func(b *box, _, t string) { os.Remove(t) }, 1, 1},
		"none here":      {func(b *box, s, _ string) { os.Remove(s) }, 0, 1},
		"no such folder": {func(b *box, s, _ string) { os.Rename(filepath.Join(b.path, ".Other"), filepath.Join(b.path, ".Else")) }, 1, 1},
	} {
		b := newBox(t, Options{})
		stock(1)(b)
		b.sync(Serve) // and whoever comes after need not look into the directories
		other := b.open("Other")
		list, err := b.sources(context.Background(), []UID{1})
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.copy(context.Background(), list, other, func(list []source, add []newcomer) func() {
			return b.intendMove(list, add, other).Close // and killed after the copy
		})
		if err != nil {
			t.Fatal(err)
		}
		source := filepath.Join(b.path, "cur", list[0].name)
		msg, _ := other.Snapshot().lookup(1)
		tt.change(b, source, filepath.Join(b.path, ".Other", "cur", string(msg.name())))
		again := *b
		again.restart()
		here := len(bodies(t, again.Mailbox))
		there := 0
		if m, err := again.st.Mailbox(context.Background(), "Other"); err == nil {
			there = len(bodies(t, m))
			m.Release()
		}
		if here != tt.here || here+there != tt.all {
			t.Errorf("%s: %d here, %d there", name, here, there)
		}
		if intents.Waiting(again.control) {
			t.Errorf("%s: the intent is still there", name)
		}
	}
}

// The target of a MOVE is found again that had another name when it was first opened.
func TestRedoMoveToRenamed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBox(t, Options{})
	stock(1)(b)
	b.open("Other")
	if err := b.st.Rename(ctx, "Other", "Else"); err != nil {
		t.Fatal(err)
	}
	target := b.open("Else")
	list, err := b.sources(ctx, []UID{1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.copy(ctx, list, target, func(list []source, add []newcomer) func() {
		return b.intendMove(list, add, target).Close // and killed after the copy
	})
	if err != nil {
		t.Fatal(err)
	}
	again := *b
	again.restart()
	if here, there := bodies(t, again.Mailbox), bodies(t, again.open("Else")); len(here) != 0 || !slices.Equal(there, wanted(0, 1)) {
		t.Errorf("INBOX %q, Else %q", here, there)
	}
}

// What a COPY left is removed again, but never the only name of a message: another
// program may have moved it there meanwhile.
func TestUndoSparesTheOnlyName(t *testing.T) {
	t.Parallel()
	for what, place := range map[string]func(old, name string) error{"linked by us": os.Link, "moved by another program": os.Rename} {
		b := newBox(t, Options{})
		stock(2)(b)
		other := b.open("Other")
		err := other.edit(context.Background(), func() error {
			list, err := b.sources(context.Background(), []UID{1, 2})
			if err != nil {
				return err
			}
			var add []newcomer
			for _, src := range list {
				add = append(add, newcomer{base: src.name[:baseLen(src.name)], from: b.dirOf(src.place), name: src.name})
			}
			other.intendPlacing(add).Close() // and killed
			return place(b.in("cur", add[0].name), b.in(".Other", "cur", add[0].name))
		})
		if err != nil {
			t.Fatal(err)
		}
		again := *b
		again.restart()
		here, there := bodies(t, again.Mailbox), bodies(t, again.open("Other"))
		all := slices.Sorted(slices.Values(slices.Concat(there, here)))
		if len(all) != 2 || !strings.HasPrefix(all[0], "message 0") || !strings.HasPrefix(all[1], "message 1") {
			t.Errorf("%s: INBOX %q, Other %q", what, here, there)
		}
	}
}

// What a COPY left that could not link is removed as well, whole, but not what another
// program has moved there under the same name meanwhile.
func TestKilledCopyOfDuplicates(t *testing.T) {
	t.Parallel()
	for _, moved := range []bool{false, true} {
		killed(t, func(b *box) {
			stock(3)(b)
			for _, sub := range []string{"cur", "tmp"} {
				if err := os.Chmod(b.in(".Other", sub), 0o770); err != nil {
					b.t.Fatal(err)
				}
			}
		}, func(b *box) error {
			_, err := b.Copy(context.Background(), []UID{1, 2, 3}, b.open("Other"))
			return err
		}, func(b *box, at int, err error) {
			name := b.files("cur")[0]
			if there, _ := filepath.Glob(b.in(".Other", "cur", name[:baseLen(name)]+"*")); moved && len(there) == 0 {
				if err := os.Rename(b.in("cur", name), b.in(".Other", "cur", name)); err != nil {
					t.Fatal(err)
				}
			}
			b.sync(Serve)
			here, there := bodies(t, b.Mailbox), bodies(t, b.open("Other"))
			all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(here, there))))
			if len(all) != 3 || !moved && !slices.Equal(there, wanted(0, 3)) && (err == nil || len(there) > 0) {
				t.Errorf("moved: %v, INBOX %q, Other %q", moved, here, there)
			}
		})
	}
}
