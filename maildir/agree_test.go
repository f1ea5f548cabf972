package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"imapd/maildir/index"
)

// others returns n more processes on the folder of b, with the locks of one: for
// two that take each other's locks for remains of a crash are no two processes.
func (b *box) others(n int, o Options) []*box {
	b.t.Helper()
	all := []*box{b}
	for i := range n {
		o.NoNotify = i%2 == 0
		p := &box{t: b.t, path: b.path, locks: b.host.locks}
		p.start(o)
		all = append(all, p)
	}
	return all
}

// A witness checks that what one process tells follows from what it told before.
type witness struct {
	high  ModSeq
	next  UID
	mods  map[UID]ModSeq
	bases map[UID]string
	gone  map[UID]bool
}

func (w *witness) see(s *Snapshot) error {
	if s.ModSeq < w.high || s.Next < w.next {
		return fmt.Errorf("HIGHESTMODSEQ %d after %d, UIDNEXT %d after %d", s.ModSeq, w.high, s.Next, w.next)
	}
	mods, bases := map[UID]ModSeq{}, map[UID]string{}
	for _, m := range s.Range(0, s.Len()) {
		mods[m.UID], bases[m.UID] = m.ModSeq, string(m.base())
		switch {
		case w.gone[m.UID]:
			return fmt.Errorf("UID %d was expunged and is there again", m.UID)
		case m.ModSeq < w.mods[m.UID] || m.ModSeq > s.ModSeq:
			return fmt.Errorf("UID %d has modseq %d after %d, the highest is %d", m.UID, m.ModSeq, w.mods[m.UID], s.ModSeq)
		case w.bases[m.UID] != "" && w.bases[m.UID] != bases[m.UID]:
			return fmt.Errorf("UID %d is %q and was %q", m.UID, bases[m.UID], w.bases[m.UID])
		}
	}
	for u := range w.mods {
		if _, ok := mods[u]; !ok {
			w.gone[u] = true
		}
	}
	w.high, w.next, w.mods, w.bases = s.ModSeq, s.Next, mods, bases
	return nil
}

// What three processes and another program do to one folder at the same time, they
// agree on in the end, and none of them takes anything back meanwhile.
func TestProcessesAgree(t *testing.T) {
	t.Parallel()
	for seed := range uint64(longer(4, 200)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			a := newBox(t, Options{Fsync: FsyncNever})
			for i := range 10 {
				a.deliver("cur", fmt.Sprintf("1%03d.h:2,", i), "x\n")
			}
			a.sync(Serve)
			a.remembering()
			if seed >= 2 {
				if err := a.nameKeywords(manyKeywords(bitKeywords - 1)); err != nil {
					t.Fatal(err)
				}
			}
			all := a.others(2, Options{Fsync: FsyncNever})
			var done sync.WaitGroup
			for i, p := range all {
				if i != 1 {
					p.remembering() // the second one makes its index in between
				}
				done.Go(func() {
					if err := p.act(rand.New(rand.NewPCG(seed, uint64(i))), 60); err != nil {
						t.Errorf("process %d: %v", i, err)
					}
				})
			}
			done.Go(func() {
				r := rand.New(rand.NewPCG(seed, 99))
				for range 5 {
					if err := interfere(a.path, r, 30); err != nil {
						t.Error(err)
					}
					if seed%2 == 1 {
						os.Remove(filepath.Join(a.path, index.Name))
					}
				}
			})
			done.Wait()
			if t.Failed() {
				return
			}
			for range 4 {
				for _, p := range all {
					p.past.retry = time.Time{} // an index that was taken away at a bad moment
					p.remembering().distrust(0)
					p.calm()
				}
			}
			sameHistory(t, all...)
			if want := a.scanned(); !slices.Equal(told(a.Mailbox), want) {
				t.Errorf("they agree on %q, the files say %q", told(a.Mailbox), want)
			}
		})
	}
}

// act does n things that a client might do, and looks at the folder in between.
func (b *box) act(r *rand.Rand, n int) error {
	ctx := context.Background()
	w := witness{gone: map[UID]bool{}}
	for i := range n {
		s := b.Snapshot()
		u := UID(0)
		if s.Len() > 0 {
			u = s.At(r.IntN(s.Len())).UID
		}
		var err error
		switch k := r.IntN(10); {
		case k == 0 || u == 0:
			var d *Delivery
			if d, err = b.NewMessage(ctx); err == nil {
				d.Write([]byte("mine\r\n"))
				_, _, err = b.Append(ctx, []Appending{{Delivery: d, Flags: FlagSet{System: Seen}}})
				d.Abort()
			}
		case k == 1:
			if _, err = b.SetFlags(ctx, []UID{u}, AddFlags, FlagSet{System: Deleted}); err == nil {
				_, err = b.Expunge(ctx, func(x UID) bool { return x == u })
			}
		case k <= 5:
			_, err = b.SetFlags(ctx, []UID{u}, FlagOp(r.IntN(2)), FlagSet{Flags(1<<r.IntN(5)) &^ Deleted, []string{fmt.Sprint("k", r.IntN(3))}[:r.IntN(2)]})
		case k == 6 && i > n/2:
			b.ModSeqs()
		case k == 7 && r.IntN(4) == 0:
			if err = b.swell(); errors.Is(err, index.ErrReplaced) {
				err = nil // the other program has removed it
			}
		default:
			err = b.Sync(ctx, Access(r.IntN(2)))
		}
		if err != nil && !errors.Is(err, ErrBusy) {
			return err
		}
		if err := w.see(b.Snapshot()); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// interfere does n things that another program might do, without the lock.
func interfere(path string, r *rand.Rand, n int) error {
	for i := range n {
		es, err := os.ReadDir(filepath.Join(path, "cur"))
		if err != nil {
			return err
		}
		if len(es) == 0 || r.IntN(8) == 0 {
			name := fmt.Sprintf("2%03d.%d.h", i, r.IntN(1e6))
			if err := os.WriteFile(filepath.Join(path, "tmp", name), []byte("theirs\n"), 0o600); err != nil {
				return err
			}
			if err := os.Rename(filepath.Join(path, "tmp", name), filepath.Join(path, "new", name)); err != nil {
				return err
			}
			continue
		}
		f := es[r.IntN(len(es))].Name()
		at := filepath.Join(path, "cur", f)
		if r.IntN(10) == 0 {
			err = os.Remove(at)
		} else {
			err = os.Rename(at, filepath.Join(path, "cur", withFlags(f, Flags(r.IntN(32))&^Deleted)))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
	}
	return nil
}

// A mirror is a client that keeps what it has been told, and comes back as RFC
// 7162 says.
type mirror struct {
	validity uint32
	modseq   ModSeq
	flags    map[UID]string
}

// reconnect does what SELECT with QRESYNC does.
func (c *mirror) reconnect(m *Mailbox) error {
	if !m.ModSeqs() {
		return errors.New("no modseqs")
	}
	gone, complete := m.Expunged(c.modseq)
	s := m.Snapshot()
	if s.Validity != c.validity {
		*c = mirror{validity: s.Validity, flags: map[UID]string{}}
	}
	for u := range c.flags {
		_, there := s.lookup(u)
		if !complete && !there || slices.ContainsFunc(gone, func(x Expunged) bool { return x.First <= u && u <= x.Last }) {
			delete(c.flags, u)
		}
	}
	for _, msg := range s.Range(0, s.Len()) {
		if msg.ModSeq > c.modseq {
			c.flags[msg.UID] = flagsOf(s, msg)
		}
	}
	c.modseq = s.ModSeq
	want := map[UID]string{}
	for _, msg := range s.Range(0, s.Len()) {
		want[msg.UID] = flagsOf(s, msg)
	}
	if !maps.Equal(want, c.flags) {
		return fmt.Errorf("the client believes %v, the mailbox is %v", c.flags, want)
	}
	return nil
}

func flagsOf(s *Snapshot, m Message) string {
	return strings.Join(s.AppendFlagNames(nil, m.Marks()), " ")
}

// Whatever becomes of processes and of the index, clients that come back end with
// what is there, UIDs stay, and none is ever another message's.
func TestMirrors(t *testing.T) {
	t.Parallel()
	for seed := range uint64(longer(6, 300)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 7))
			b := newBox(t, Options{Fsync: FsyncNever, NoNotify: seed%2 == 0})
			for i := range 8 {
				b.deliver("cur", fmt.Sprintf("1%03d.h:2,", i), "x\n")
			}
			b.sync(Serve)
			b.remembering()
			old, clients := b.backUp(), [3]mirror{}
			uids, owner := map[string]UID{}, map[UID]string{}
			for round := range 40 {
				for range r.IntN(4) {
					b.ownChange(r)
				}
				if r.IntN(3) == 0 {
					if err := interfere(b.path, r, 1+r.IntN(3)); err != nil {
						t.Fatal(err)
					}
				}
				what, restored := b.upset(r, old)
				b.sync(Serve)
				if restored {
					clear(uids) // the list has forgotten some
				}
				if err := clients[r.IntN(len(clients))].reconnect(b.Mailbox); err != nil {
					t.Fatalf("round %d, after %s: %v", round, what, err)
				}
				s := b.Snapshot()
				for _, msg := range s.Range(0, s.Len()) {
					base := string(msg.base())
					if u := uids[base]; u != 0 && u != msg.UID {
						t.Fatalf("round %d, after %s: %q has UID %d, had %d", round, what, base, msg.UID, u)
					}
					if was := owner[msg.UID]; was != "" && was != base {
						t.Fatalf("round %d, after %s: UID %d is that of %q, was that of %q", round, what, msg.UID, base, was)
					}
					uids[base], owner[msg.UID] = msg.UID, base
				}
			}
		})
	}
}

func (b *box) indexFile() []byte {
	b.t.Helper()
	data, err := os.ReadFile(b.in(".", index.Name))
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// backUp returns a new copy of the whole folder.
func (b *box) backUp() string {
	b.t.Helper()
	dir := filepath.Join(b.t.TempDir(), "backup")
	b.run("cp", "-a", b.path, dir)
	return dir
}

func (b *box) run(name string, args ...string) {
	b.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		b.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// restorers put a backup of a whole folder over it, as programs do.
var restorers = map[string]func(b *box, dir string){
	"rsync": func(b *box, dir string) { b.run("rsync", "-a", "--delete", dir+"/", b.path) },
	"rsync in place": func(b *box, dir string) {
		b.run("rsync", "-a", "--delete", "--inplace", "--no-whole-file", dir+"/", b.path)
	},
	"cp": func(b *box, dir string) { b.run("cp", "-a", dir+"/.", b.path) },
	"tar": func(b *box, dir string) {
		b.run("tar", "-C", dir, "-cf", dir+".tar", ".")
		b.run("tar", "-C", b.path, "-xpf", dir+".tar")
	},
}

// upset ends the process of b in one way or another, may do something to its
// files, and starts another one. It says what it did, and whether the folder is that
// in old again, a backup.
func (b *box) upset(r *rand.Rand, old string) (what string, restored bool) {
	b.t.Helper()
	k := r.IntN(12)
	if k < 3 {
		return "nothing", false
	}
	what = "a kill"
	if r.IntN(2) == 0 {
		what = "an end"
		b.calm()
		b.end()
	}
	must := func(err error) {
		if err != nil {
			b.t.Fatal(err)
		}
	}
	path := b.in(".", index.Name)
	switch k {
	case 3:
		b.reboot()
		what += " and a boot"
	case 4:
		must(os.Remove(path))
		what += ", the index deleted"
	case 5:
		must(os.Truncate(path, r.Int64N(int64(len(b.indexFile())))))
		what += ", the index cut"
	case 6:
		data, err := os.ReadFile(filepath.Join(old, index.Name))
		must(err)
		must(rewritten(path, data))
		what += ", an old index put back"
	case 7:
		must(os.RemoveAll(old))
		b.run("cp", "-a", b.path, old)
		must(os.Remove(b.in(".", "dovecot-uidlist")))
		what += ", the list deleted"
	case 8:
		b.run("cp", "-a", filepath.Join(old, index.Name), path)
		what += ", an old index written over it"
	case 9, 10:
		how := slices.Sorted(maps.Keys(restorers))[r.IntN(len(restorers))]
		restorers[how](b, old)
		b.late += 7 * 24 * time.Hour // no more UIDs than seconds since the backup, and skips count
		restored = true
		what += ", the folder restored by " + how
	}
	late := b.late + 2*time.Second
	p := &box{t: b.t, path: b.path, clock: func() time.Time { return time.Now().Add(late) }}
	b.late = late
	p.start(Options{Fsync: FsyncNever, NoNotify: r.IntN(2) == 0})
	b.host, b.st, b.Mailbox = p.host, p.st, p.Mailbox
	return what, restored
}
