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

	"golang.org/x/sys/unix"

	"imapd/maildir/tree"
	"imapd/maildir/uidlist"
)

// A box is a folder on disk and a host that serves it.
type box struct {
	t    *testing.T
	path string
	host *Host
	st   *Store
	*Mailbox
	locks *uidlist.Locks   // of another process; nil: its own
	clock func() time.Time // nil: that of the machine
	late  time.Duration    // how far the next process's clock is ahead
}

func newBox(t *testing.T, o Options) *box {
	t.Helper()
	b := &box{t: t, path: filepath.Join(t.TempDir(), "Maildir")}
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(b.path, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b.start(o)
	return b
}

// start opens the folder as a process would that knows nothing of it.
func (b *box) start(o Options) {
	b.t.Helper()
	host := NewHost(o)
	if b.locks != nil {
		host.locks = b.locks
	}
	if b.clock != nil {
		host.clock = b.clock
	}
	b.host = host
	var err error
	if b.st, err = b.host.Open(tree.Config{Root: b.path, Separator: '/'}); err != nil {
		b.t.Fatal(err)
	}
	b.Mailbox = b.open("INBOX")
	b.t.Cleanup(func() { host.Close() })
}

func (b *box) open(name string) *Mailbox {
	b.t.Helper()
	m, err := b.st.Mailbox(context.Background(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(m.Release)
	return m
}

// deliver puts a message into dir as another program does.
func (b *box) deliver(dir, name, text string) {
	b.t.Helper()
	tmp := filepath.Join(b.path, "tmp", strings.ReplaceAll(name, ":", "_"))
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(b.path, dir, name)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) sync(a Access) {
	b.t.Helper()
	if err := b.Sync(context.Background(), a); err != nil {
		b.t.Fatal(err)
	}
}

// told describes a snapshot: "uid base flags" for each message.
func told(m *Mailbox) []string {
	var l []string
	s := m.Snapshot()
	for _, msg := range s.Range(0, s.Len()) {
		l = append(l, fmt.Sprintf("%d %s %s", msg.UID, msg.base(), strings.Join(s.AppendFlagNames(nil, msg.Marks()), " ")))
	}
	return l
}

func (b *box) want(want ...string) {
	b.t.Helper()
	if got := told(b.Mailbox); !slices.Equal(got, want) {
		b.t.Fatalf("mailbox holds %q, want %q", got, want)
	}
}

// files returns what is in dir, but for the file that becomes the lock.
func (b *box) files(dir string) []string {
	b.t.Helper()
	es, err := os.ReadDir(filepath.Join(b.path, dir))
	if err != nil {
		b.t.Fatal(err)
	}
	var l []string
	for _, e := range es {
		if !uidlist.IsAside(e.Name()) {
			l = append(l, e.Name())
		}
	}
	return l
}

func (b *box) append(m *Mailbox, text string, f FlagSet) UID {
	b.t.Helper()
	d, err := m.NewMessage(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.Abort()
	d.Write([]byte(text))
	_, uids, err := m.Append(context.Background(), []Appending{{Delivery: d, Flags: f, Date: time.Unix(1700000000, 0)}})
	if err != nil || len(uids) != 1 {
		b.t.Fatal(uids, err)
	}
	return uids[0]
}

func TestArrivalOrderAndUIDsStay(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("new", "1700000002.M5P1.h", "two\n")
	b.deliver("cur", "1700000001.M9P1.h:2,FS", "one\n")
	b.deliver("new", "1700000002.M40P1.h", "three\n")
	b.sync(Look)
	want := []string{`1 1700000001.M9P1.h \Seen \Flagged`, "2 1700000002.M5P1.h ", "3 1700000002.M40P1.h "}
	b.want(want...)
	if n := len(b.files("new")); n != 2 {
		t.Errorf("a look moved mail: %d files in new/", n)
	}
	validity := b.Snapshot().Validity
	b.sync(Serve)
	b.want(want...)
	if l := b.files("new"); len(l) != 0 {
		t.Errorf("still in new/: %q", l)
	}
	b.start(Options{})
	b.want(want...)
	if v := b.Snapshot().Validity; v != validity || b.Snapshot().Next != 4 {
		t.Errorf("UIDVALIDITY %d, UIDNEXT %d after a restart, want %d, 4", v, b.Snapshot().Next, validity)
	}
}

func TestOthersChangeFiles(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	for i := range 5 {
		b.deliver("cur", fmt.Sprintf("170000000%d.h:2,", i), "x\n")
	}
	b.sync(Serve)
	cur := filepath.Join(b.path, "cur")
	if err := os.Rename(filepath.Join(cur, "1700000001.h:2,"), filepath.Join(cur, "1700000001.h:2,RS")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cur, "1700000003.h:2,")); err != nil {
		t.Fatal(err)
	}
	b.deliver("new", "1700000009.h", "x\n")
	b.sync(Serve)
	b.want("1 1700000000.h ", `2 1700000001.h \Seen \Answered`, "3 1700000002.h ", "5 1700000004.h ", "6 1700000009.h ")

	// A message that comes back is a new message, also in a new process.
	b.deliver("cur", "1700000003.h:2,S", "x\n")
	b.sync(Serve)
	want := []string{"1 1700000000.h ", `2 1700000001.h \Seen \Answered`, "3 1700000002.h ", "5 1700000004.h ", "6 1700000009.h ", `7 1700000003.h \Seen`}
	b.want(want...)
	b.start(Options{})
	b.want(want...)
}

func TestSetFlagsAndKeywords(t *testing.T) {
	t.Parallel()
	for _, lock := range []Lock{LockAlways, LockNewUIDs} {
		testSetFlags(newBox(t, Options{Lock: lock}))
	}
}

func testSetFlags(b *box) {
	t := b.t
	b.deliver("cur", "1.h:2,PSX,ext", "x\n")
	b.deliver("cur", "2.h:2,", "x\n")
	b.sync(Serve)
	ctx := context.Background()
	done, err := b.SetFlags(ctx, []UID{1, 2, 9}, AddFlags, FlagSet{Flagged, []string{"$Forwarded", "work"}})
	if err != nil || !slices.Equal(done.Gone, []UID{9}) || done.ModSeq != b.Snapshot().ModSeq {
		t.Fatal(done, err)
	}
	b.want(`1 1.h \Seen \Flagged $Forwarded work`, `2 2.h \Flagged $Forwarded work`)
	if l := b.files("cur"); !slices.Equal(l, []string{"1.h:2,FPSXab,ext", "2.h:2,Fab"}) {
		t.Errorf("files are %q", l)
	}
	// Another program takes a flag away and sets one: its change stays, ours
	// comes on top of it.
	cur := filepath.Join(b.path, "cur")
	os.Rename(filepath.Join(cur, "2.h:2,Fab"), filepath.Join(cur, "2.h:2,Sb"))
	if _, err := b.SetFlags(ctx, []UID{2}, AddFlags, FlagSet{System: Draft}); err != nil {
		t.Fatal(err)
	}
	b.want(`1 1.h \Seen \Flagged $Forwarded work`, `2 2.h \Seen \Draft work`)
	if _, err := b.SetFlags(ctx, []UID{1, 2}, ReplaceFlags, FlagSet{Keywords: []string{"WORK"}}); err != nil {
		t.Fatal(err)
	}
	b.want(`1 1.h work`, `2 2.h work`)
	var many []string
	for i := range maxKeywords - 1 {
		many = append(many, fmt.Sprintf("kw%d", i))
	}
	if _, err := b.SetFlags(ctx, []UID{1}, AddFlags, FlagSet{Keywords: many}); !errors.Is(err, ErrKeywords) {
		t.Errorf("one keyword too many: %v", err)
	}
	b.want(`1 1.h work`, `2 2.h work`)
	if b.Snapshot().KeywordsFull() {
		t.Error("keywords of a refused command were kept")
	}
}

func TestAppendCopyMoveExpunge(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	ctx := context.Background()
	if err := b.st.Create(ctx, "Other"); err != nil {
		t.Fatal(err)
	}
	other := b.open("Other")
	u := b.append(b.Mailbox, "Subject: a\r\n\r\nline\r\nlone\rcr\r", FlagSet{Seen, []string{"blue"}})
	msg, _ := b.Snapshot().lookup(u)
	if name := string(msg.name()); !strings.Contains(name, ",S=25,W=28:2,Sa") {
		t.Errorf("named %q", name)
	}
	text, err := os.ReadFile(filepath.Join(b.path, "cur", string(msg.name())))
	if err != nil || string(text) != "Subject: a\n\nline\nlone\rcr\r" {
		t.Errorf("on disk: %q %v", text, err)
	}
	if n, err := b.Size(msg); n != 28 || err != nil {
		t.Error("size", n, err)
	}
	if d, err := b.Date(msg); !d.Equal(time.Unix(1700000000, 0)) || err != nil {
		t.Error("date", d, err)
	}

	c, err := b.Copy(ctx, []UID{u}, other)
	if err != nil || !slices.Equal(c.To, []UID{1}) || c.Validity != other.Snapshot().Validity {
		t.Fatal(c, err)
	}
	from, to := told(b.Mailbox), told(other)
	if !slices.Equal(from, to) {
		t.Errorf("copy of %q is %q", from, to)
	}
	// To and fro: the dead UID must not come back with the file.
	c, err = b.Move(ctx, []UID{u}, other)
	if err != nil || !slices.Equal(c.To, []UID{2}) || b.Snapshot().Len() != 0 {
		t.Fatal(c, err, told(b.Mailbox))
	}
	c, err = other.Move(ctx, []UID{1}, b.Mailbox)
	if err != nil || !slices.Equal(c.To, []UID{2}) {
		t.Fatal(c, err)
	}
	b.sync(Serve)
	if b.Snapshot().Len() != 1 || b.Snapshot().At(0).UID != 2 {
		t.Errorf("after MOVE there and back: %q", told(b.Mailbox))
	}
	if _, err := b.SetFlags(ctx, []UID{2}, AddFlags, FlagSet{System: Deleted}); err != nil {
		t.Fatal(err)
	}
	// Undeleted by another program: stays.
	msg, _ = b.Snapshot().lookup(2)
	old := filepath.Join(b.path, "cur", string(msg.name()))
	os.Rename(old, strings.Replace(old, "ST", "S", 1))
	if gone, err := b.Expunge(ctx, nil); err != nil || len(gone) != 0 {
		t.Errorf("expunged %v %v", gone, err)
	}
	b.SetFlags(ctx, []UID{2}, AddFlags, FlagSet{System: Deleted})
	if gone, err := b.Expunge(ctx, func(u UID) bool { return u == 1 }); err != nil || len(gone) != 0 {
		t.Errorf("expunged %v %v", gone, err)
	}
	if gone, err := b.Expunge(ctx, nil); err != nil || !slices.Equal(gone, []UID{2}) {
		t.Errorf("expunged %v %v", gone, err)
	}
	b.sync(Serve)
	b.want()
	if l := b.files("tmp"); len(l) != 0 {
		t.Errorf("left in tmp/: %q", l)
	}
}

// While another program renames files all the time, no scan loses one.
func TestRenamerLosesNothing(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	if !b.atomic {
		t.Skip("scans are not atomic on the file system of the test")
	}
	const n = 3000
	cur := filepath.Join(b.path, "cur")
	for i := range n {
		if err := os.WriteFile(filepath.Join(cur, fmt.Sprintf("%d.h:2,", 1700000000+i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.sync(Serve)
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	renames := make(chan int)
	go func() {
		count := 0
		for ctx.Err() == nil {
			i := 1700000000 + count*7919%n
			a, z := fmt.Sprintf("%s/%d.h:2,", cur, i), fmt.Sprintf("%s/%d.h:2,S", cur, i)
			if os.Rename(a, z) != nil {
				os.Rename(z, a)
			}
			count++
		}
		renames <- count
	}()
	view, looks := b.Snapshot(), 0
	for ctx.Err() == nil {
		b.sync(Serve)
		next, d, err := Advance(view, b.Snapshot(), false)
		if err != nil || len(d.Gone) > 0 || d.Added > 0 {
			t.Fatalf("look %d: %d expunges, %d new, %v", looks, len(d.Gone), d.Added, err)
		}
		view, looks = next, looks+1
	}
	t.Logf("%d renames, %d looks", <-renames, looks)
}

// A stamp is not taken for clean while a change may share its tick.
func TestYoungStampIsDirty(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	b.sync(Serve)
	now := time.Now()
	cur := filepath.Join(b.path, "cur")
	os.Chtimes(cur, now, now)
	b.sync(Serve)
	// A second change within the tick: the time does not move.
	os.Rename(cur+"/1.h:2,", cur+"/1.h:2,S")
	os.Chtimes(cur, now, now)
	b.sync(Serve)
	b.want(`1 1.h \Seen`)
}

func TestListGoneAndDamaged(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	b.deliver("cur", "2.h:2,", "x\n")
	b.sync(Serve)
	validity := b.Snapshot().Validity
	file := filepath.Join(b.path, "dovecot-uidlist")
	os.Remove(file)
	b.deliver("cur", "3.h:2,", "x\n")
	b.sync(Serve)
	want := []string{"1 1.h ", "2 2.h ", "3 3.h "}
	b.want(want...)
	b.start(Options{})
	b.want(want...)
	// A torn tail: nothing may be glued to it.
	f, _ := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString("30 :16463")
	f.Close()
	b.deliver("cur", "4.h:2,", "x\n")
	b.start(Options{})
	if l := told(b.Mailbox); len(l) != 4 || !slices.Equal(l[:3], want) || b.Snapshot().Validity != validity {
		t.Errorf("after a torn list: %q, UIDVALIDITY %d, want %d", l, b.Snapshot().Validity, validity)
	}
}

func TestTwins(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,S", "one\n")
	b.deliver("cur", "1.h:2,F", "other\n")
	os.Link(filepath.Join(b.path, "cur", "1.h:2,S"), filepath.Join(b.path, "new", "1.h"))
	b.sync(Serve)
	if b.Snapshot().Len() != 2 {
		t.Fatalf("two files and a link: %q", told(b.Mailbox))
	}
	b.start(Options{})
	if b.Snapshot().Len() != 2 {
		t.Errorf("two files and a link in a new process: %q", told(b.Mailbox))
	}
}

func TestOddFiles(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	cur := filepath.Join(b.path, "cur")
	os.Mkdir(filepath.Join(cur, "dir:2,S"), 0o700)
	os.Symlink("/etc/passwd", filepath.Join(cur, "link:2,S"))
	for _, dir := range []string{cur, filepath.Join(b.path, "new")} {
		unix.Mkfifo(filepath.Join(dir, "fifo:2,S"), 0o600)
		for kind, number := range map[uint32]uint64{unix.S_IFCHR: unix.Mkdev(1, 5), unix.S_IFBLK: unix.Mkdev(7, 0)} {
			name := filepath.Join(dir, fmt.Sprintf("device%o:2,S", kind))
			if err := unix.Mknod(name, kind|0o600, int(number)); err != nil && os.Geteuid() == 0 {
				t.Fatal(err)
			}
		}
	}
	b.deliver("cur", ".hidden:2,S", "x\n")
	b.deliver("cur", "a\nb:2,S", "x\n")
	b.deliver("cur", "noinfo", "x\n")
	b.deliver("cur", "1.h:1,exp", "x\n")
	b.deliver("cur", "2.g:h:2,S", "x\n")
	b.sync(Serve)
	b.want("1 noinfo ", "2 1.h ", `3 2.g \Seen`)
	if _, err := b.SetFlags(context.Background(), []UID{1, 2, 3}, AddFlags, FlagSet{System: Flagged}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"noinfo:2,F", "1.h:1,exp:2,F", "2.g:h:2,FS"} {
		if !slices.Contains(b.files("cur"), name) {
			t.Errorf("no %q in %q", name, b.files("cur"))
		}
	}
}

// A watched mailbox tells of a delivery without being asked.
func TestWatch(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {NoNotify: true, Poll: 5 * time.Millisecond}} {
		b := newBox(t, o)
		stop := b.Watch(Serve, nil)
		defer stop()
		for i := range 20 {
			s := b.Snapshot()
			b.deliver("new", fmt.Sprintf("%d.h", 1700000000+i), "x\n")
			for s.Len() == i {
				select {
				case <-s.Stale():
					s = b.Snapshot()
				case <-time.After(5 * time.Second):
					t.Fatalf("not told of delivery %d with %+v; %d files in new", i, o, len(b.files("new")))
				}
			}
		}
	}
}

func TestRecentIsClaimedOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,S", "x\n")
	b.deliver("new", "2.h", "x\n")
	b.deliver("new", "3.h", "x\n")
	b.Mailbox.Release()
	b.start(Options{})
	if from, to := b.Recent(); from != 2 || to != 4 {
		t.Errorf("recent %d to %d", from, to)
	}
	if from, to := b.ClaimRecent(); from != 2 || to != 4 {
		t.Errorf("claimed %d to %d", from, to)
	}
	if from, to := b.ClaimRecent(); from != to {
		t.Errorf("claimed twice: %d to %d", from, to)
	}
	// What is added while nobody has the mailbox selected waits for who comes.
	b.sync(Serve)
	b.append(b.Mailbox, "x\r\n", FlagSet{})
	b.Mailbox.Release()
	b.Mailbox = b.open("INBOX")
	if from, to := b.ClaimRecent(); from != 4 || to != 5 {
		t.Errorf("claimed %d to %d after the mailbox was closed", from, to)
	}
}
