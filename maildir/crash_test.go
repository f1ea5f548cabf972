package maildir_test

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir"
	"imapd/maildir/faultfs"
	"imapd/test/belief"
)

// What calls are made to fail with.
var errnos = []unix.Errno{unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.EMFILE, unix.EACCES, unix.ESTALE}

// TestCrash makes each command of the scripts fail, die and lose its power at each
// of its calls. What was answered must be so afterwards, and what was not must
// have left nothing that clients could see: security rules I1 to I13, I19, I21,
// I22 of a mailbox, as far as package belief demands it.
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
	t.Logf("%d kill points, %d faults, %d power cuts, %d violations", c.kills.Load(), c.faults.Load(), c.cuts.Load(), c.violations.Load())
}

func soaking() bool { return os.Getenv("IMAPD_SOAK") != "" }

// counts is what all scripts have in common.
type counts struct {
	dir                             string // holds all sites
	kills, faults, cuts, violations atomic.Int64

	mu   sync.Mutex
	kept []keepsake
}

// A run takes one script through all that can happen to it.
type run struct {
	*testing.T
	script
	*counts
	index  int           // of the script
	tree   *faultfs.Tree // the site before the first command
	known  map[string]folder
	fsync  maildir.Fsync
	number int
	turn   int
	keeps  int
}

func newRun(t *testing.T, sc script, index int, c *counts) *run {
	r := &run{T: t, script: sc, counts: c, index: index}
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
	return site{fmt.Sprintf("%s/%d.%d", r.dir, r.index, r.number), r.layout, r.apart}
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
	for _, c := range calls {
		if c.Changes && r.one(5) {
			r.kill(c, faultfs.ErrKilled)
		}
		if c.Op == "write" && r.one(4) {
			r.kill(c, faultfs.ErrTorn)
		}
		for _, e := range errnos {
			if r.one(6 * len(errnos)) {
				r.fault(faultfs.At(c.N, e), fmt.Sprintf("%v, %v", c, e))
			}
		}
		if c.Changes && r.one(5) {
			r.fault(faultfs.Full(c.N, unix.ENOSPC), fmt.Sprintf("%v and all after it, no space", c))
		}
	}
	for _, r.fsync = range []maildir.Fsync{maildir.FsyncOptimized, maildir.FsyncAlways} {
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
		if _, err := h.box(name); err != nil {
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
	fs.Arm(func(c faultfs.Call) error { calls = append(calls, c); return nil })
	for i, st := range r.steps {
		h.given = nil
		if err := st.do(h); err != nil {
			r.Fatalf("command %d: %v", i, err)
		}
		k.Done(st.effect, h.given)
	}
	fs.Disarm()
	r.judge(s, h, k, "without a fault", false)
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
	}
	h.close()
	r.recover(s, k, fmt.Sprintf("%v at %v", how, c))
}

// fault has a call fail, or more.
func (r *run) fault(f func(faultfs.Call) error, what string) {
	r.Helper()
	r.faults.Add(1)
	var fs faultfs.FS
	s := r.place(r.tree)
	h := r.start(s, &fs)
	defer h.close()
	k := r.knows(false)
	fs.Arm(f)
	for i, st := range r.steps {
		h.given = nil
		if err := st.do(h); err != nil {
			if fs.Hit().N == 0 {
				r.Errorf("%s: command %d: %v", what, i, err)
			}
			k.Open(st.effect, true)
			what += fmt.Sprintf(" (command %d: %v)", i, err)
			break
		}
		k.Done(st.effect, h.given)
	}
	fs.Disarm()
	// The same process goes on, and another one finds the same.
	s.age(r.T)
	if r.judge(s, h, k, "the same process after "+what, false) {
		h.close()
		r.recover(s, k, what)
	}
}

// cut takes the power away behind each call.
func (r *run) cut() {
	r.Helper()
	var fs faultfs.FS
	s := r.place(r.tree)
	h := r.start(s, &fs)
	keep := s.dir + ".files"
	if err := os.Mkdir(keep, 0o700); err != nil {
		r.Fatal(err)
	}
	if err := fs.Record(s.dir, keep); err != nil {
		r.Fatal(err)
	}
	fs.Arm(nil)
	ends := make([]int, len(r.steps)) // how many calls were made when it was answered
	given := make([][]maildir.UID, len(r.steps))
	for i, st := range r.steps {
		h.given = nil
		if err := st.do(h); err != nil {
			r.Fatalf("command %d: %v", i, err)
		}
		ends[i], given[i] = fs.Recorded(), h.given
	}
	fs.Disarm()
	h.close()
	seen := map[[2]uint64]bool{}
	fs.Replay(func(n int, now *faultfs.State) {
		answered := 0
		for answered < len(ends) && ends[answered] <= n {
			answered++
		}
		for _, tree := range now.Cuts(uint64(n)) {
			id := [2]uint64{uint64(answered), tree.Key()}
			if seen[id] {
				continue
			}
			seen[id] = true
			if !r.one(40) {
				continue
			}
			r.cuts.Add(1)
			k := r.knows(true)
			for i, st := range r.steps[:answered] {
				st.Weak = st.Weak && r.fsync != maildir.FsyncAlways
				k.Done(st.effect, given[i])
			}
			if answered < len(r.steps) {
				k.Open(r.steps[answered].effect, false)
			}
			what := fmt.Sprintf("power cut after call %d with %d commands answered: %s", n, answered, tree.Name)
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

// afterBoot looks at s as the first process of the next boot does, and works there.
func (r *run) afterBoot(s site, k *belief.Known, what string) {
	r.Helper()
	h := r.next(s, what)
	if h == nil {
		return
	}
	defer h.close()
	h.host.Reboot()
	if r.judge(s, h, k, "after "+what, false) && r.one(3) {
		r.reuse(s, h, what)
	}
}

// next serves s as the next process does. It returns nil if that cannot be.
func (r *run) next(s site, what string) *session {
	r.Helper()
	s.age(r.T)
	h, err := s.serve(maildir.Options{})
	if err != nil {
		r.fail("%s: %v", what, err)
		return nil
	}
	return h
}

// recover looks at s as the next process does, works there, and looks again.
func (r *run) recover(s site, k *belief.Known, what string) {
	r.Helper()
	h := r.next(s, what)
	if h == nil {
		return
	}
	defer h.close()
	if r.judge(s, h, k, "after "+what, false) && r.one(3) {
		if all := r.reuse(s, h, what); all != nil && !r.apart && r.keeps%keepEach() == 0 {
			r.counts.keep(s, all, what)
			return
		}
	}
	if !r.Failed() {
		os.RemoveAll(s.dir)
	}
}

func (r *run) fail(format string, args ...any) {
	r.Helper()
	r.violations.Add(1)
	r.Errorf(format, args...)
	if r.violations.Load() > 1000 {
		r.FailNow()
	}
}

// judge compares what h serves with what clients know. With changed, somebody has
// changed each folder since it was in danger.
func (r *run) judge(s site, h *session, k *belief.Known, what string, changed bool) bool {
	r.Helper()
	all, err := h.look(maildir.Serve)
	if err != nil {
		r.fail("%s: %v", what, err)
		return false
	}
	bad := k.Violations(all)
	for name, f := range all {
		if err := s.sound(name, f, changed); err != nil {
			bad = append(bad, fmt.Sprintf("%s: %v", name, err))
		}
	}
	for _, v := range bad {
		r.fail("%s (%s): %s", what, s.dir, v)
	}
	return len(bad) == 0
}

// reuse holds that all can be changed after a crash, and that the next process
// finds the changes and the UIDs that were told. It returns all folders, or nil
// if that is not so.
func (r *run) reuse(s site, h *session, what string) map[string]folder {
	r.Helper()
	r.keeps++
	before, err := h.look(maildir.Look)
	if err != nil {
		r.fail("after %s: %v", what, err)
		return nil
	}
	k := belief.New(before, false)
	do := func(st step) {
		h.given = nil
		if err := st.do(h); err != nil {
			r.fail("after %s: %+v: %v", what, st.effect, err)
		}
		k.Done(st.effect, h.given)
	}
	do(create("After"))
	for _, st := range r.steps {
		// A folder that was being made can be made, and one that was going, too.
		for _, name := range []string{st.Makes, st.Kills} {
			if name != "" && !slices.Contains(k.Folders(), name) {
				do(create(name))
			}
		}
	}
	for _, name := range k.Folders() {
		for u, m := range before[name].Mails {
			do(between(name, "After", false, []maildir.UID{u}, m))
			flags := map[maildir.UID]string{u: `\Answered`}
			do(flag(name, maildir.ReplaceFlags, maildir.FlagSet{System: maildir.Answered}, flags))
			break
		}
		do(add(name, maildir.FlagSet{Keywords: []string{"home"}}, "Subject: after\n\n"+name+"\n"))
	}
	h.close()
	next, err := s.serve(maildir.Options{})
	if err != nil {
		r.fail("long after %s: %v", what, err)
		return nil
	}
	defer next.close()
	if !r.judge(s, next, k, "long after "+what, true) {
		return nil
	}
	all, err := next.look(maildir.Look)
	if err != nil {
		r.fail("long after %s: %v", what, err)
	}
	return all
}
