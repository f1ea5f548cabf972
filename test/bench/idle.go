package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// idlers is the number of clients that wait for deliveries at a time, each for
// its own.
const idlers = 8

// settling is how long idle sessions are left alone before their memory is
// measured: what a server gives back, it has given back by then.
const settling = 3 * time.Second

// between is the time between two deliveries to the same client. Dovecot may miss
// one that comes while it is busy with the last, until a new one comes.
const between = 100 * time.Millisecond

// seat gives n users of their own a small mailbox and a session each that idles.
func (b *bench) seat(s *side, n int) error {
	for i := range n {
		if err := s.mail(crowd(i), b.mail, layout{messages: min(20, b.messages)}); err != nil {
			return err
		}
	}
	if err := s.connect(n, crowd); err != nil {
		return err
	}
	for _, c := range s.extra {
		if _, err := c.do("SELECT INBOX"); err != nil {
			return err
		}
		if err := c.send("idle IDLE"); err != nil {
			return err
		}
		if err := c.line("+ "); err != nil {
			return err
		}
	}
	return nil
}

// unseat ends the sessions of seat and removes the mailboxes.
func (s *side) unseat(n int) error {
	for _, c := range s.extra {
		if err := c.send("DONE"); err != nil {
			return err
		}
		if err := c.line("idle OK"); err != nil {
			return err
		}
	}
	s.logOut()
	for i := range n {
		if err := removeAll(s.maildir(crowd(i))); err != nil {
			return err
		}
	}
	return nil
}

// memory measures what a connection costs that only waits. A server that has
// done other work has memory to spare that would hide it, and hundreds of
// Dovecot's processes use up the inotify instances of their user: it is alone.
func (b *bench) memory() group {
	return group{name: "memory", layout: layout{messages: min(10, b.messages)}, rounds: 1, alone: true, steps: []step{
		{rows: []string{fmt.Sprintf("memory (PSS) for an idle connection, %d of them", b.clients)}, unit: "KiB",
			gauge: func(s *side) ([]float64, error) {
				if err := s.logIn(); err != nil { // so that whatever runs once runs
					return nil, err
				}
				before, err := memory(s.PID)
				if err != nil {
					return nil, err
				}
				if err := b.seat(s, b.clients); err != nil {
					return nil, err
				}
				if b.clients > idlers {
					time.Sleep(settling)
				}
				after, err := memory(s.PID)
				if err != nil {
					return nil, err
				}
				return []float64{(after - before) / float64(b.clients)}, s.unseat(b.clients)
			}},
	}}
}

// unheard is how long a client waits for what it should hear of at once. Then
// one more delivery is made, and what it hears counts from the first.
const unheard = 10 * time.Second

// idle measures how long after a delivery the client hears of it.
func (b *bench) idle() group {
	rows := []string{"IDLE: delivery to EXISTS, p50", "IDLE, p99", "IDLE, longest"}
	return group{name: "idle", layout: layout{messages: min(10, b.messages)}, rounds: 1, steps: []step{
		{rows: rows, gauge: func(s *side) ([]float64, error) {
			if err := b.seat(s, idlers); err != nil {
				return nil, err
			}
			h := hearing{side: s}
			err := s.together(func(i int, c *conn) error {
				return h.listen(c, crowd(i), min(20, b.messages), b.deliveries/idlers)
			})
			if err != nil {
				return nil, err
			}
			return []float64{quantile(h.took, 0.5), quantile(h.took, 0.99), quantile(h.took, 1)}, s.unseat(idlers)
		}},
	}}
}

// A hearing collects how long deliveries took to be heard of.
type hearing struct {
	*side
	mu   sync.Mutex // guards side.sent and took
	took []float64  // ms
}

// listen delivers n messages to user, whose mailbox holds some and whose session
// c idles, one after the other.
func (h *hearing) listen(c *conn, user string, messages, n int) error {
	for range n {
		time.Sleep(between)
		var begin time.Time
		for try := 0; ; try++ {
			h.mu.Lock()
			deliver, err := h.delivery(user)
			h.mu.Unlock()
			if err != nil {
				return err
			}
			if try == 0 {
				begin = time.Now()
			}
			if err := deliver(); err != nil {
				return err
			}
			messages++
			c.net.SetDeadline(time.Now().Add(unheard))
			err = c.line(fmt.Sprintf("* %d EXISTS", messages))
			if err == nil {
				break
			}
			if try == 2 || !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
		}
		h.mu.Lock()
		h.took = append(h.took, time.Since(begin).Seconds()*1000)
		h.mu.Unlock()
	}
	return nil
}
