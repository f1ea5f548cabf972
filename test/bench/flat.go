package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"imapd/test/peer"
)

// flatShare bounds the time for one kind of command in one round.
const flatShare = 2 * time.Second

// flat measures single commands in one session, in folders of all sizes: what
// they cost should not depend on the size.
func (a *alone) flat(out io.Writer) error {
	sizes := a.sizes()
	var cells [][]string
	var names []string
	for _, n := range sizes {
		p := a.plains[n]
		a.t.Logf("flat, %d messages", n)
		if err := p.withdraw(); err != nil {
			return err
		}
		if err := p.forget(true); err != nil {
			return err
		}
		a.user = aloneUser(n)
		if err := a.open("INBOX"); err != nil {
			return err
		}
		works := a.works(p)
		figures := make([][2][]float64, len(works))
		for range a.rounds {
			for i, w := range works {
				took, used, err := a.repeat(w)
				if err != nil {
					return fmt.Errorf("%s: %w", w.name, err)
				}
				figures[i][0], figures[i][1] = append(figures[i][0], took), append(figures[i][1], used)
			}
		}
		var column []string
		names = names[:0]
		for i, w := range works {
			names = append(names, w.name)
			column = append(column, digits(median(figures[i][0]))+", "+digits(median(figures[i][1])))
		}
		cells = append(cells, column)
	}
	fmt.Fprintf(out, "\n| ms, and CPU of it, medians of %d |", a.rounds)
	for _, n := range sizes {
		fmt.Fprintf(out, " %d messages |", n)
	}
	fmt.Fprintf(out, "\n|---|%s\n", strings.Repeat("--:|", len(sizes)))
	for i, name := range names {
		fmt.Fprintf(out, "| %s |", name)
		for k := range sizes {
			fmt.Fprintf(out, " %s |", cells[k][i])
		}
		fmt.Fprintln(out)
	}
	return nil
}

// A work is a kind of command that is done again and again.
type work struct {
	name string
	most int // times in a round
	// before prepares time i of a round, outside of the measurement; nil: nothing.
	before func(i int) error
	// foreign is what another program does before time i; what the server makes
	// of it by itself counts as processor time.
	foreign func(i int) error
	command func(i int) string
}

func (a *alone) works(p *plain) []work {
	next := 0 // the last UID that an EXPUNGE has taken
	doom := func(int) error {
		next++
		_, err := a.session.do(fmt.Sprintf(`UID STORE %d +FLAGS.SILENT (\Deleted)`, next))
		return err
	}
	store := 0
	return []work{
		{"NOOP", a.small, nil, nil, func(int) string { return "NOOP" }},
		{"STORE", a.small, nil, nil, func(int) string {
			store++
			return fmt.Sprintf(`STORE %d %sFLAGS.SILENT (\Flagged)`, p.n/2+store%max(1, p.n/4), []string{"+", "-"}[store/max(1, p.n/4)%2])
		}},
		{"APPEND of 4 KB", a.small / 2, nil, nil, func(i int) string { return `APPEND INBOX (\Seen) ` + peer.Literal(letter(i)) }},
		{"EXPUNGE of one", max(1, min(a.small/4, p.n/20)), doom, nil, func(int) string { return fmt.Sprintf("UID EXPUNGE %d", next) }},
		{"NOOP after a foreign change of flags", a.small / 4, nil, func(i int) error { return p.rename(p.n - 1 - i%max(1, p.n/5)) }, func(int) string { return "NOOP" }},
		{"NOOP after a delivery", a.small / 4, nil, func(int) error { return p.deliver() }, func(int) string { return "NOOP" }},
	}
}

// repeat does w as often as the time allows, and returns what one took and used,
// in milliseconds.
func (a *alone) repeat(w work) (took, used float64, err error) {
	var spent, cpu time.Duration
	n := 0
	if w.before == nil {
		cpu -= processorTime(a.PID)
	}
	for begin := time.Now(); n < max(1, w.most) && (n < 3 || time.Since(begin) < flatShare); n++ {
		if w.before != nil {
			if err := w.before(n); err != nil {
				return 0, 0, err
			}
			cpu -= processorTime(a.PID)
		}
		if w.foreign != nil {
			if err := w.foreign(n); err != nil {
				return 0, 0, err
			}
		}
		start := time.Now()
		if _, err := a.session.do(w.command(n)); err != nil {
			return 0, 0, err
		}
		spent += time.Since(start)
		if w.before != nil {
			cpu += processorTime(a.PID)
		}
	}
	if w.before == nil {
		cpu += processorTime(a.PID)
	}
	return milliseconds(spent) / float64(n), milliseconds(cpu) / float64(n), nil
}
