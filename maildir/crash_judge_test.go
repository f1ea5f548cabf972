package maildir_test

import (
	"fmt"
	"os"
	"slices"

	"imapd/maildir"
	"imapd/maildir/quota"
	"imapd/test/belief"
)

// afterBoot looks at s as the first process of the next boot does, and works there.
func (r *run) afterBoot(s site, k *belief.Known, what string) {
	r.Helper()
	h := r.next(s, what)
	if h == nil {
		return
	}
	defer h.close()
	h.reboot()
	if r.judge(s, h, k, "after "+what, false) && r.one(3) {
		r.reuse(s, h, k, what)
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
		if all := r.reuse(s, h, k, what); all != nil && !r.apart && !r.more && r.keeps%keepEach() == 0 {
			r.counts.keep(s, all, what)
			return
		}
	}
	if !r.Failed() {
		os.RemoveAll(s.dir)
	}
}

// counted holds that maildirsize says what there is.
func (r *run) counted(s site, what string) {
	r.Helper()
	if more, err := s.miscount(); err != nil || more != (quota.Usage{}) {
		r.fail("%s: maildirsize: %+v too much, %v", what, more, err)
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
	asked, stale := k.Stale(all, h.resync)
	r.mirrors.Add(int64(asked))
	bad = append(bad, stale...)
	for name, f := range all {
		if err := s.sound(name, f, changed, k.Unsaid); err != nil {
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
func (r *run) reuse(s site, h *session, k *belief.Known, what string) map[string]folder {
	r.Helper()
	r.keeps++
	before, err := h.look(maildir.Look)
	if err != nil {
		r.fail("after %s: %v", what, err)
		return nil
	}
	k = k.After(before)
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
	if h.rebooted {
		next.reboot()
	}
	if !r.judge(s, next, k, "long after "+what, true) {
		return nil
	}
	if _, err := s.miscount(); err != nil {
		r.fail("long after %s: %v", what, err)
	}
	all, err := next.look(maildir.Look)
	if err != nil {
		r.fail("long after %s: %v", what, err)
	}
	return all
}
