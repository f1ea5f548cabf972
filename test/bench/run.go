package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"imapd/test/peer"
)

// A group is work that is done on one fresh copy of a corpus, step by step.
type group struct {
	name   string
	layout layout
	rounds int                 // 0: as many as asked for
	alone  bool                // on servers that have done nothing before
	setUp  func(s *side) error // once a round, after the copy is there; may be nil
	steps  []step
}

// A step is one piece of work and a row of the table, or more rows.
type step struct {
	rows []string // names; one, but for gauge
	ops  int      // commands or deliveries that one run counts for; 0: one
	size float64  // MB that one run moves, if that is what counts
	// before prepares a run, outside of the measurement; nil: nothing.
	before func(s *side) error
	// run is what is measured. What it returns is compared.
	run func(s *side) ([]answer, error)
	// after returns further answers to compare, outside of the measurement;
	// may be nil.
	after func(s *side) ([]answer, error)
	// gauge stands instead of run for what is not the time of run: it returns
	// one figure for each of rows, in unit.
	gauge func(s *side) ([]float64, error)
	unit  string // "": ms
}

// A bench is one run of the program.
type bench struct {
	options
	t     testing.TB
	sides [2]*side // ours, Dovecot's
	mail  *corpus
	dir   string   // holds everything on disk
	users []string // that there may be
	load  string   // before the run
	table table
}

// run measures and writes the table. It returns an error if a server refused
// something or answered unlike the other; what had been measured by then is
// written all the same.
func run(t testing.TB, o options, out io.Writer) error {
	peer.Need(t, "dovecot")
	dir := peer.TempDir(t)
	b := &bench{options: o, t: t, load: load()}
	b.mail = newCorpus(t, filepath.Join(dir, "corpus"), b.most())
	groups := slices.DeleteFunc(b.groups(), func(g group) bool { return !o.wants(g.name) })
	var users []string
	for _, g := range groups {
		for round := range b.roundsOf(g) {
			users = append(users, userOf(g, round))
		}
	}
	for i := range max(o.clients, idlers) {
		users = append(users, crowd(i))
	}
	b.users, b.dir = users, dir
	if err := errors.Join(b.all(groups), b.table.verdict(), b.table.write(out, b.about())); err != nil {
		return err
	}
	return b.alone(out)
}

// start starts both servers.
func (b *bench) start() error {
	for i, k := range []struct {
		name  string
		start peer.Starter
	}{{"imapd", peer.Imapd}, {"dovecot", peer.Dovecot}} {
		root, err := os.MkdirTemp(b.dir, k.name)
		if err == nil {
			err = os.Chmod(root, 0o755)
		}
		if err != nil {
			return err
		}
		server := k.start(b.t, root+"/%u/Maildir", peer.Options{Users: b.users, Dovecot: []string{
			"default_idle_kill = 1 hours", // the processor time of a process that is gone is lost
		}})
		b.sides[i] = &side{Server: server, root: root}
	}
	return nil
}

// stop stops both servers, if they run.
func (b *bench) stop() {
	for i, s := range b.sides {
		if s != nil {
			s.Stop()
			b.sides[i] = nil
		}
	}
}

// all does the groups, each alone on new servers or together with the others.
func (b *bench) all(groups []group) error {
	for i, g := range groups {
		if i == 0 || g.alone || groups[i-1].alone {
			b.stop()
			if err := b.start(); err != nil {
				return err
			}
		}
		b.t.Logf("%s", g.name)
		for round := range b.roundsOf(g) {
			if err := b.round(g, round); err != nil {
				return fmt.Errorf("%s: %w", g.name, err)
			}
		}
	}
	return nil
}

// roundsOf returns how many rounds of g are done.
func (b *bench) roundsOf(g group) int {
	if g.rounds > 0 {
		return min(g.rounds, b.rounds)
	}
	return b.rounds
}

// most returns how many messages the largest copy needs.
func (b *bench) most() int {
	if b.large {
		return 10 * b.messages
	}
	return b.messages
}

func userOf(g group, round int) string { return fmt.Sprintf("%s-%d", g.name, round) }

// crowd returns the name of one of the users that have a session each.
func crowd(i int) string { return fmt.Sprintf("crowd-%d", i) }

// round does all steps of a group on fresh copies. The server that begins is
// another one in each round and step.
func (b *bench) round(g group, round int) error {
	for _, s := range b.sides {
		s.user, s.sent = userOf(g, round), 0
		if err := s.mail(s.user, b.mail, g.layout); err != nil {
			return err
		}
		if g.setUp != nil {
			if err := g.setUp(s); err != nil {
				return fmt.Errorf("%s: %w", s.Kind, err)
			}
		}
	}
	for i, st := range g.steps {
		var said [2][]string
		for turn := range 2 {
			k := (turn + round + i) % 2
			lines, err := b.measure(k, st)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", b.sides[k].Kind, st.rows[0], err)
			}
			said[k] = lines
		}
		if d := difference([2]string{b.sides[0].Kind, b.sides[1].Kind}, said[0], said[1]); d != "" {
			b.table.differ(st.rows, d)
		}
	}
	for _, s := range b.sides {
		s.logOut()
		if err := removeAll(filepath.Dir(s.maildir(s.user))); err != nil {
			return err
		}
	}
	return nil
}

// measure does one step on one side, notes its figures, and returns what the
// server said.
func (b *bench) measure(k int, st step) ([]string, error) {
	s := b.sides[k]
	if st.before != nil {
		if err := st.before(s); err != nil {
			return nil, fmt.Errorf("before: %w", err)
		}
	}
	runtime.GC()
	if st.gauge != nil {
		figures, err := st.gauge(s)
		for i, f := range figures {
			b.table.note(st.rows[i], st, k, f, 0)
		}
		return nil, err
	}
	used, begin := processorTime(s.PID), time.Now()
	answers, err := st.run(s)
	took := time.Since(begin)
	used = processorTime(s.PID) - used
	if err != nil {
		return nil, err
	}
	b.table.note(st.rows[0], st, k, perOp(took, st), perOp(used, st))
	lines, err := read(answers)
	if err != nil || st.after == nil {
		return lines, err
	}
	further, err := st.after(s)
	if err != nil {
		return nil, fmt.Errorf("after: %w", err)
	}
	more, err := read(further)
	return append(lines, more...), err
}

// perOp returns d in milliseconds for one operation of st.
func perOp(d time.Duration, st step) float64 {
	return d.Seconds() * 1000 / float64(max(st.ops, 1))
}

func read(answers []answer) ([]string, error) {
	var all []string
	for _, a := range answers {
		lines, err := a.lines()
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	return all, nil
}
