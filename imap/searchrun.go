package imap

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"imapd/imap/wire"
	"imapd/maildir"
)

// How messages are tried.
//
// A program is a tree of tests. Most searches name something cheap beside
// something dear (UNSEEN BODY x), in any order and nesting, so the tree is
// evaluated once for each level of cost that is in it, cheapest first, with three
// values: at a level a dearer test is unknown, and what the tree makes of that
// decides whether the next level is needed at all. So no file is opened for a
// message whose flags say enough, however the keys were nested. What a file has
// been read for is kept until the message is decided, so each is opened at most
// once and its text read at most once, for all keys together.
//
// Records are looked at by the session's goroutine, what must be read by a few
// goroutines side by side, a window of messages at a time: disks and processors
// have more to give than one of them can take. Rejected: ordering the keys of
// each list by cost instead of levels, which reads a file for
// (OR BODY x SEEN) (OR FLAGGED DELETED) though the second half says no.

// A searchProgram is what a SEARCH looks for.
type searchProgram struct {
	root    SearchTest
	strings stringKeys
	levels  []Cost // that tests have, ascending; CostRecord always
}

func newSearchProgram(root SearchTest, keys stringKeys) searchProgram {
	p := searchProgram{root: root, strings: keys}
	var have [CostFile + 1]bool
	have[CostRecord] = true
	root.costs(&have)
	for c, in := range have {
		if in {
			p.levels = append(p.levels, Cost(c))
		}
	}
	return p
}

// costs notes the costs of all tests in t.
func (t *SearchTest) costs(have *[CostFile + 1]bool) {
	if t.Match != nil || t.Bind != nil {
		have[t.Cost] = true
	}
	for i := range t.All {
		t.All[i].costs(have)
	}
}

// bind makes all tests in t ready for the mailbox.
func (t *SearchTest) bind(b *Box) {
	if t.Bind != nil {
		t.Match = t.Bind(b)
	}
	for i := range t.All {
		t.All[i].bind(b)
	}
}

// span returns the indexes lo to hi-1 outside of which t matches nothing.
func (t *SearchTest) span(b *Box) (lo, hi int) {
	lo, hi = 0, b.view.Len()
	if t.Not {
		return lo, hi
	}
	if t.Range != nil {
		from, to := t.Range(b)
		lo, hi = max(lo, from), min(hi, to)
	}
	for i := range t.All {
		from, to := t.All[i].span(b)
		lo, hi = max(lo, from), min(hi, to)
	}
	return lo, hi
}

// A verdict is what is known of one test of one message.
type verdict uint8

const (
	verdictNo verdict = iota
	verdictYes
	verdictOpen // depends on tests that are dearer
)

// eval evaluates t as far as tests of the given cost go.
func (t *SearchTest) eval(x *Searching, level Cost) (verdict, error) {
	v := verdictYes
	if t.Match != nil {
		if t.Cost > level {
			return verdictOpen, nil
		}
		ok, err := t.Match(x)
		if err != nil {
			return verdictOpen, err
		}
		if !ok {
			v = verdictNo
		}
	}
	for i := range t.All {
		each, err := t.All[i].eval(x, level)
		if err != nil {
			return verdictOpen, err
		}
		if each == verdictNo {
			v = verdictNo
			break
		}
		if each == verdictOpen {
			v = verdictOpen
		}
	}
	if t.Not && v != verdictOpen {
		v = verdictYes - v
	}
	return v, nil
}

// Searching is one message in the course of a SEARCH. It is used by one
// goroutine, for one message after the other; the Session is used by several.
type Searching struct {
	*Session
	ctx context.Context // ends when the search has taken too long, or with the session
	Box *Box
	Msg maildir.Message
	Seq int // sequence number, from 1

	messageStrings
}

// SearchOutcome is what a SEARCH has found: all, or, where no return option
// needs more, only the first or the last or both.
type SearchOutcome struct {
	Numbers     wire.NumSet // sequence numbers, or UIDs for UID SEARCH
	UIDs        wire.NumSet
	Count       int
	First, Last uint32         // of Numbers; 0: nothing was found
	ModSeq      maildir.ModSeq // highest
}

func (o *SearchOutcome) add(c candidate, uid bool) {
	n := uint32(c.seq)
	if uid {
		n = uint32(c.msg.UID)
	}
	o.Numbers.Add(n)
	o.UIDs.Add(uint32(c.msg.UID))
	o.Count++
	o.ModSeq = max(o.ModSeq, c.msg.ModSeq)
	if o.First == 0 {
		o.First = n
	}
	o.Last = n
}

// A candidate is a message that may match.
type candidate struct {
	seq     int // sequence number, from 1
	msg     maildir.Message
	verdict verdict
}

// searchWindow is how many messages are tried at a time. A search for the first
// or the last match begins with a few.
const (
	searchWindow  = 512
	searchWindow1 = 16
)

// searchWorkers is how many messages of one search are read at the same time.
const searchWorkers = 4

// A searchRun is a search at work.
type searchRun struct {
	box     *Box
	program *searchProgram
	looker  *Searching   // of the session's goroutine
	workers []*Searching // made when the first message must be read
	window  []candidate
	heed    <-chan time.Time
	stop    context.CancelCauseFunc
}

// find runs a search. The session's goroutine looks up from it now and then; what
// it must be given up for ends the context, and so does the time.
func (s *Session) find(b *Box, a *SearchArgs) (*SearchOutcome, error) {
	ctx, stop := context.WithCancelCause(s.ctx)
	defer stop(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, s.conf.Limits.SearchTime, errSearchTime)
	defer cancel()
	heed := time.NewTicker(heedEvery)
	defer heed.Stop()
	a.program.root.bind(b)
	r := searchRun{box: b, program: &a.program, looker: &Searching{Session: s, ctx: ctx, Box: b}, heed: heed.C, stop: stop}
	o := new(SearchOutcome)
	err := r.find(a, o)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return o, err
}

var errSearchTime = no("LIMIT", "Search takes too long")

// find adds what is needed of the matches to o.
func (r *searchRun) find(a *SearchArgs, o *SearchOutcome) error {
	lo, hi := r.program.root.span(r.box)
	needs := a.needs()
	if needs&NeedAll != 0 {
		for ; lo < hi; lo += searchWindow {
			found, err := r.try(lo, min(lo+searchWindow, hi))
			if err != nil {
				return err
			}
			for _, c := range found {
				o.add(c, a.UID)
			}
		}
		return nil
	}
	if needs&NeedFirst != 0 {
		c, err := r.first(lo, hi)
		if err != nil || c.seq == 0 {
			return err
		}
		o.add(c, a.UID)
		lo = c.seq
	}
	if needs&NeedLast != 0 {
		c, err := r.last(lo, hi)
		if err != nil {
			return err
		}
		if c.seq > 0 {
			o.add(c, a.UID)
		}
	}
	return nil
}

// first returns the first match from index lo to hi-1; seq 0: there is none.
func (r *searchRun) first(lo, hi int) (candidate, error) {
	for n := searchWindow1; lo < hi; n = min(2*n, searchWindow) {
		found, err := r.try(lo, min(lo+n, hi))
		if err != nil {
			return candidate{}, err
		}
		if len(found) > 0 {
			return found[0], nil
		}
		lo += n
	}
	return candidate{}, nil
}

// last returns the last match from index lo to hi-1; seq 0: there is none.
func (r *searchRun) last(lo, hi int) (candidate, error) {
	for n := searchWindow1; lo < hi; n = min(2*n, searchWindow) {
		found, err := r.try(max(hi-n, lo), hi)
		if err != nil {
			return candidate{}, err
		}
		if len(found) > 0 {
			return found[len(found)-1], nil
		}
		hi -= n
	}
	return candidate{}, nil
}

// try returns the matches from index lo to hi-1, in order. They are good until
// the next call. Ghosts match nothing.
func (r *searchRun) try(lo, hi int) ([]candidate, error) {
	select {
	case <-r.heed:
		r.lookUp()
	default:
	}
	if err := r.looker.ctx.Err(); err != nil {
		return nil, err
	}
	r.window = r.window[:0]
	undecided := 0
	for i, m := range r.box.view.Range(lo, hi) {
		if m.Ghost() {
			continue
		}
		r.looker.Seq, r.looker.Msg = i+1, m
		v, err := r.program.root.eval(r.looker, CostRecord)
		if err != nil {
			return nil, err
		}
		if v == verdictNo {
			continue
		}
		if v == verdictOpen {
			undecided++
		}
		r.window = append(r.window, candidate{i + 1, m, v})
	}
	if undecided > 0 {
		if err := r.decide(undecided); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(r.window, func(c candidate) bool { return c.verdict == verdictNo }), nil
}

// decide settles what is open in the window. Its goroutines end before it
// returns.
func (r *searchRun) decide(undecided int) error {
	for len(r.workers) < min(searchWorkers, undecided) {
		x := &Searching{Session: r.looker.Session, ctx: r.looker.ctx, Box: r.box}
		x.begin(&r.program.strings)
		r.workers = append(r.workers, x)
	}
	var next atomic.Int32
	n := min(len(r.workers), undecided)
	ends := make(chan error, n)
	for _, x := range r.workers[:n] {
		go func() { ends <- r.work(x, &next) }()
	}
	var errs []error
	for len(errs) < n {
		select {
		case err := <-ends:
			errs = append(errs, err)
		case <-r.heed:
			r.lookUp()
		}
	}
	return errors.Join(errs...)
}

// lookUp gives the search up if it must be.
func (r *searchRun) lookUp() {
	s := r.looker.Session
	err := s.heed(true)
	if err == nil {
		err = s.expelled()
	}
	if err != nil {
		r.stop(err)
	}
}

// work settles one open candidate after the other. What panics here would end
// the process: nobody else catches it.
func (r *searchRun) work(x *Searching, next *atomic.Int32) (err error) {
	defer func() {
		if p := recover(); p != nil {
			x.end()
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	for {
		i := int(next.Add(1)) - 1
		if i >= len(r.window) {
			return nil
		}
		c := &r.window[i]
		if c.verdict != verdictOpen {
			continue
		}
		err := x.ctx.Err()
		if err == nil {
			x.Seq, x.Msg = c.seq, c.msg
			c.verdict, err = r.program.decide(x)
			x.end()
		}
		if err != nil {
			next.Store(int32(len(r.window)))
			return err
		}
	}
}

// decide evaluates the program for one message, of which the record did not say
// enough. A message that is gone matches nothing, nor does one that nobody can
// read: the others are to be found all the same.
func (p *searchProgram) decide(x *Searching) (verdict, error) {
	for _, level := range p.levels[1:] {
		v, err := p.root.eval(x, level)
		if errors.Is(err, maildir.ErrGone) {
			return verdictNo, nil
		}
		if errors.Is(err, maildir.ErrDamaged) || errors.Is(err, maildir.ErrTooBig) {
			x.logUnsearched(err)
			return verdictNo, nil
		}
		if err != nil || v != verdictOpen {
			return v, err
		}
	}
	return verdictNo, nil
}
