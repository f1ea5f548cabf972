package maildir_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir"
	"imapd/maildir/faultfs"
	"imapd/maildir/quota"
	"imapd/test/belief"
)

// What calls are made to fail with.
var errnos = []unix.Errno{unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.EMFILE, unix.EACCES, unix.ESTALE}

// TestCrash makes each command of the scripts fail, die and lose its power at each
// of its calls. What was answered must be so afterwards, and what was not must
// have left nothing that clients could see; and whoever comes back with what was
// told before (QRESYNC) believes what is there: security rules I1 to I13, I15, I16,
// I19, I21, I22 of a mailbox, as far as package belief demands it.
func TestCrash(t *testing.T) {
	t.Parallel()
	c := counts{dir: shelf(t)}
	t.Run("script", func(t *testing.T) {
		for i, sc := range scripts() {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				newRun(t, sc, i, &c).all()
			})
		}
	})
	c.askDovecot(t)
	t.Logf("%d kill points, %d faults, %d power cuts, %d mirrors, %d violations", c.kills.Load(), c.faults.Load(), c.cuts.Load(), c.mirrors.Load(), c.violations.Load())
}

func soaking() bool { return os.Getenv("IMAPD_SOAK") != "" }

// counts is what all scripts have in common.
type counts struct {
	dir                                      string // holds all sites
	kills, faults, cuts, mirrors, violations atomic.Int64

	mu   sync.Mutex
	kept []keepsake
}

// A run takes one script through all that can happen to it.
type run struct {
	*testing.T
	script
	*counts
	at     int           // of the script
	tree   *faultfs.Tree // the site before the first command
	known  map[string]folder
	fsync  maildir.Fsync
	number int
	turn   int
	keeps  int
}

func newRun(t *testing.T, sc script, at int, c *counts) *run {
	r := &run{T: t, script: sc, counts: c, at: at}
	s := r.site()
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.build(t, sc)
	if r.known = sc.raw; r.known == nil {
		h, err := s.serve(maildir.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer h.close()
		if r.known, err = h.look(maildir.Look); err != nil {
			t.Fatal(err)
		}
	}
	if !sc.restored {
		s.forget(t)
	}
	var err error
	if r.tree, err = faultfs.Load(s.dir); err != nil {
		t.Fatal(err)
	}
	return r
}

// one reports whether something is to be done that the short test does for one
// in n only.
func (r *run) one(n int) bool {
	r.turn++
	return soaking() || r.turn%n == 0
}

// site is a place for the next tree.
func (r *run) site() site {
	r.number++
	return site{fmt.Sprintf("%s/%d.%d", r.dir, r.at, r.number), r.layout, r.apart, r.index}
}

// place puts a tree there.
func (r *run) place(t *faultfs.Tree) site {
	r.Helper()
	s := r.site()
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		r.Fatal(err)
	}
	if err := t.Write(s.dir); err != nil {
		r.Fatal(err)
	}
	return s
}

// knows is what clients know before the first command.
func (r *run) knows(cut bool) *belief.Known {
	k := belief.New(r.known, cut)
	k.Apart = r.apart
	for _, a := range r.wait {
		k.Await(a)
	}
	return k
}

func (r *run) all() {
	calls := r.whole()
	if r.two {
		calls = nil
	}
	for _, c := range calls {
		if c.Changes && r.one(36) {
			r.kill(c, faultfs.ErrKilled)
		}
		if c.Op == "write" && r.one(41) {
			r.kill(c, faultfs.ErrTorn)
		}
		for _, e := range errnos {
			if r.one(66 * len(errnos)) {
				r.fault(faultfs.At(c.N, e), e.Error(), false)
			}
		}
		if c.Changes && r.one(55) {
			r.fault(faultfs.Full(c.N, unix.ENOSPC), "no space any more", true)
		}
	}
	r.fsync = maildir.FsyncOptimized
	r.cut()
	if soaking() || r.at%3 == 0 {
		r.fsync = maildir.FsyncAlways
		r.cut()
	}
}

// start serves s through fs, with the mailboxes open that the script wants.
func (r *run) start(s site, fs *faultfs.FS) *session {
	r.Helper()
	h, err := s.serve(maildir.Options{Open: fs.Open, Fsync: r.fsync})
	if err != nil {
		r.Fatal(err)
	}
	for _, name := range r.opens {
		if _, err := h.enter(name); err != nil {
			r.Fatal(err)
		}
	}
	return h
}

// whole runs the script without a fault, and returns its calls.
func (r *run) whole() (calls []faultfs.Call) {
	r.Helper()
	var fs faultfs.FS
	s := r.place(r.tree)
	h := r.start(s, &fs)
	defer h.close()
	k := r.knows(false)
	r.tell(h, k)
	fs.Arm(func(c faultfs.Call) error { calls = append(calls, c); return nil })
	for i, st := range r.steps {
		h.given = nil
		if err := st.do(h); err != nil {
			r.Fatalf("command %d: %v", i, err)
		}
		k.Done(st.effect, h.given)
		r.tell(h, k)
	}
	fs.Disarm()
	r.judge(s, h, k, "without a fault", false)
	r.counted(s, "without a fault")
	if len(calls) < 3 {
		r.Fatalf("only the calls %v", calls)
	}
	return calls
}

// kill ends the process at call c.
func (r *run) kill(c faultfs.Call, how error) {
	r.Helper()
	r.kills.Add(1)
	var fs faultfs.FS
	s := r.place(r.tree)
	h := r.start(s, &fs)
	k := r.knows(false)
	r.tell(h, k)
	fs.Arm(faultfs.At(c.N, how))
	for _, st := range r.steps {
		h.given = nil
		err := st.do(h)
		if fs.Dead() {
			k.Open(st.effect, false)
			break
		}
		if err != nil {
			r.Errorf("%v: %v", c, err)
			break
		}
		k.Done(st.effect, h.given)
		r.tell(h, k)
	}
	h.close()
	r.recover(s, k, fmt.Sprintf("%v at %v", how, c))
}

// tell has k know what clients have been told of the mailboxes that they have
// selected.
func (r *run) tell(h *session, k *belief.Known) {
	r.Helper()
	all, err := h.told()
	if err != nil {
		r.fail("%v", err)
	}
	k.Told(all...)
}

// fault has a call fail; with full, all that need room.
func (r *run) fault(f func(faultfs.Call) error, what string, full bool) {
	r.Helper()
	r.faults.Add(1)
	var fs faultfs.FS
	s := r.place(r.tree)
	h := r.start(s, &fs)
	defer h.close()
	k := r.knows(false)
	r.tell(h, k)
	fs.Arm(f)
	for i, st := range r.steps {
		h.given = nil
		err := st.do(h)
		if err == nil {
			k.Done(st.effect, h.given)
		} else {
			if fs.Hit().N == 0 {
				r.Errorf("%s: command %d: %v", what, i, err)
			}
			k.Open(st.effect, true)
			what += fmt.Sprintf(" (command %d: %v)", i, err)
		}
		r.tell(h, k)
		if err != nil {
			break
		}
	}
	fs.Disarm()
	hit := fs.Hit()
	what += " at " + hit.String()
	if !strings.Contains(hit.Path, quota.Name) && hit.Path != s.root() && !full {
		r.counted(s, what)
	}
	// The same process goes on, and another one finds the same.
	s.age(r.T)
	k.Unsaid = true // it may have gone on without an index
	if r.judge(s, h, k, "the same process after "+what, false) {
		k.Unsaid = false
		h.close()
		r.recover(s, k, what)
	}
}

// settle has a process come and go, so that s, which is a copy, has the index of
// folders that were closed: the next process goes on with it.
func (r *run) settle(s site) {
	r.Helper()
	if r.raw != nil || r.restored { // nobody has been there
		return
	}
	h, err := s.serve(maildir.Options{})
	if err != nil {
		r.Fatal(err)
	}
	defer h.close()
	if _, err := h.look(maildir.Look); err != nil {
		r.Fatal(err)
	}
}

// An answer is what became of a command whose calls were recorded.
type answer struct {
	calls int // that were made when it was answered
	given []maildir.UID
	told  []folder
}

// answers does the commands of the script. The first answer is what was told before
// them.
func (r *run) answers(h *session, fs *faultfs.FS) []answer {
	r.Helper()
	all := make([]answer, len(r.steps)+1)
	for i := range all {
		h.given = nil
		if i > 0 {
			if err := r.steps[i-1].do(h); err != nil {
				r.Fatalf("command %d: %v", i-1, err)
			}
		}
		told, err := h.told()
		if err != nil {
			r.Fatal(err)
		}
		all[i] = answer{fs.Recorded(), h.given, told}
	}
	return all
}

// heard is what clients know once they have had these answers, when the power goes.
func (r *run) heard(all []answer) *belief.Known {
	k := r.knows(true)
	k.Told(all[0].told...)
	for i, a := range all[1:] {
		st := r.steps[i]
		st.Weak = st.Weak && r.fsync != maildir.FsyncAlways
		k.Done(st.effect, a.given)
		k.Told(a.told...)
	}
	if len(all) <= len(r.steps) {
		k.Open(r.steps[len(all)-1].effect, false)
	}
	return k
}

// cut takes the power away behind each call.
func (r *run) cut() {
	r.Helper()
	var fs faultfs.FS
	s := r.place(r.tree)
	r.settle(s)
	h := r.start(s, &fs)
	keep := s.dir + ".files"
	if err := os.Mkdir(keep, 0o700); err != nil {
		r.Fatal(err)
	}
	if err := fs.Record(s.dir, keep); err != nil {
		r.Fatal(err)
	}
	fs.Arm(nil)
	all := r.answers(h, &fs)
	fs.Disarm()
	h.close()
	seen := map[[2]uint64]bool{}
	fs.Replay(func(n int, now *faultfs.State) {
		had := all[:1]
		for len(had) < len(all) && all[len(had)].calls <= n {
			had = all[:len(had)+1]
		}
		for i, tree := range now.Cuts(uint64(n)) {
			id := [2]uint64{uint64(len(had)), tree.Key()}
			if seen[id] {
				continue
			}
			seen[id] = true
			// What was answered a moment ago must not be lost with all that can be.
			if atOnce := i == 0 && had[len(had)-1].calls == n; !(atOnce && r.one(3)) && !r.one(240) {
				continue
			}
			r.cuts.Add(1)
			k := r.heard(had)
			what := fmt.Sprintf("power cut after call %d with %d commands answered: %s", n, len(had)-1, tree.Name)
			// The machine comes back, or what was on its disk is put elsewhere.
			if err := tree.Return(s.dir); err != nil {
				r.Fatal(err)
			}
			r.afterBoot(s, k, what)
			if r.one(2) {
				k.Copied = true
				r.recover(r.place(tree), k, what+", copied")
			}
		}
	})
	if !r.Failed() {
		os.RemoveAll(s.dir)
		os.RemoveAll(keep)
	}
}
