package test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"imapd/imap/wire"
	"imapd/test/peer"
	"imapd/test/strict"
)

// A roamer is a client with QRESYNC that comes and goes. It keeps of two mailboxes
// what it was told, and goes on from there when it comes back (RFC 7162 section 6).
type roamer struct {
	*roam
	*rand.Rand
	name   string
	conn   net.Conn // nil while it is not connected
	kill   func()   // ends the process that serves it
	wait   func()   // waits for the end of that process, if it is there for this client only
	doomed atomic.Bool
	r      *strict.Reader
	view   strict.Mirror
	caches map[string]*strict.Cache
	box    string            // the mailbox that is selected, or ""
	next   string            // that SELECT has asked for
	high   uint64            // HIGHESTMODSEQ of the last SELECT
	plain  bool              // the mailbox has no modseqs, and its messages are expunged by number
	came   map[string]string // the UIDs that its last COPY or MOVE to each mailbox has given
	last   *strict.Response
	log    transcriptTail
}

// A transcriptTail is the end of what was written to it.
type transcriptTail struct{ text []byte }

func (l *transcriptTail) Write(p []byte) (int, error) {
	const most = 1 << 16
	l.text = append(l.text, p...)
	if len(l.text) > 2*most {
		l.text = append(l.text[:0], l.text[len(l.text)-most:]...)
	}
	return len(p), nil
}

func (w *roam) roamer(i int) *roamer {
	x := &roamer{roam: w, Rand: rand.New(rand.NewPCG(w.seed, uint64(10+i))), name: fmt.Sprint("client ", i), kill: func() {}, wait: func() {}, came: map[string]string{}, caches: map[string]*strict.Cache{}}
	for box := range w.folders {
		x.caches[box] = &strict.Cache{}
	}
	return x
}

// wrong ends the work of x and says why.
func (x *roamer) wrong(format string, args ...any) {
	x.Errorf("%s: %s", x.name, fmt.Sprintf(format, args...))
	x.leave()
}

// connect logs in on conn.
func (x *roamer) connect(conn net.Conn) {
	x.conn, x.box = conn, ""
	x.doomed.Store(false)
	x.r = strict.NewReader(io.TeeReader(conn, &x.log))
	conn.SetDeadline(time.Now().Add(answerTime))
	if r, err := x.r.Next(); err != nil || r.Name != "OK" {
		x.wrong("greeting %v: %v", r, err)
		return
	}
	x.must("LOGIN %s %s", peer.User, peer.Password)
	x.must("ENABLE QRESYNC")
}

// leave closes the connection. What was not answered to its end is forgotten.
func (x *roamer) leave() {
	if x.conn == nil {
		return
	}
	fmt.Fprintf(&x.log, "%s leaves\n", x.name)
	x.conn.Close()
	x.wait()
	x.conn, x.box = nil, ""
	for _, c := range x.caches {
		c.Cut()
	}
}

// do sends a command and takes what comes until it is answered. OK and NO are both
// answers. It reports whether there was one: not if the server has been killed.
func (x *roamer) do(format string, args ...any) bool {
	return x.conn != nil && x.send("x "+fmt.Sprintf(format, args...)) && x.until("x")
}

// must is do for what has no reason to fail.
func (x *roamer) must(format string, args ...any) bool {
	if !x.do(format, args...) {
		return false
	}
	if x.last.Name != "OK" {
		x.wrong("%s: %v", fmt.Sprintf(format, args...), x.last)
		return false
	}
	return true
}

func (x *roamer) send(line string) bool {
	fmt.Fprintf(&x.log, "%s %s: %s\n", time.Now().Format("05.000"), x.name, line)
	x.conn.SetDeadline(time.Now().Add(answerTime))
	if _, err := io.WriteString(x.conn, line+"\r\n"); err != nil {
		x.lost(err)
		return false
	}
	return true
}

// lost takes the end of the connection, which only a kill explains.
func (x *roamer) lost(err error) {
	if !x.doomed.Load() {
		x.wrong("%v", err)
	}
	x.leave()
}

// until takes responses until one has the tag.
func (x *roamer) until(tag string) bool {
	for {
		r, err := x.r.Next()
		if err != nil {
			x.lost(err)
			return false
		}
		if err := x.take(r); err != nil {
			x.wrong("%v", err)
			return false
		}
		if r.Tag == tag {
			x.last = r
			x.answered()
			if r.Name == "BAD" {
				x.wrong("%v", r)
			}
			return true
		}
	}
}

// take takes one response.
func (x *roamer) take(r *strict.Response) error {
	if r.HasCode("CLOSED") {
		x.caches[x.box].Cut()
		x.box = x.next
	}
	if r.HasCode("COPYUID") {
		x.came[x.otherThan(x.box)] = r.Code[3].Text
	}
	if r.HasCode("NOMODSEQ") {
		x.plain = true
		*x.caches[x.box] = strict.Cache{Validity: x.caches[x.box].Validity, Flags: map[uint32]string{}}
	}
	expunged := uint32(0)
	if n := int(r.Number); r.Name == "EXPUNGE" && n <= len(x.view.Messages()) {
		expunged = x.view.Messages()[n-1].UID
	}
	if err := x.view.Take(r); err != nil {
		return err
	}
	x.noteModSeqs(r)
	switch {
	case x.box == "":
		return nil
	case x.plain && r.Name == "EXPUNGE":
		delete(x.caches[x.box].Flags, expunged)
		return nil
	}
	return x.caches[x.box].Take(&x.view, r)
}

// noteModSeqs notes the modseqs that r tells of, for all to rise above.
func (x *roamer) noteModSeqs(r *strict.Response) {
	box, v := x.box, strict.Value{}
	switch {
	case r.HasCode("HIGHESTMODSEQ"):
		v = r.Code[1]
	case r.Name == "FETCH":
		if list, ok := r.Item("MODSEQ"); ok {
			v = list.List[0]
		}
	case r.Name == "STATUS":
		box = r.Args[0].Text
		for items := r.Args[1].List; len(items) > 1; items = items[2:] {
			if items[0].Text == "HIGHESTMODSEQ" {
				v = items[1]
			}
		}
	}
	n, _ := strconv.ParseUint(v.Text, 10, 63)
	if r.HasCode("HIGHESTMODSEQ") {
		x.high = n
	}
	x.note(box, n)
}

// enter selects a mailbox, in one of the ways in which a client comes back to it.
func (x *roamer) enter(box string) bool {
	c := x.caches[box]
	if c.ModSeq == 0 {
		*c = strict.Cache{} // nothing that it could go on from
	}
	had, since := c.UIDs(), c.ModSeq
	if x.next = box; x.box == "" {
		x.box, x.view = box, strict.Mirror{}
	}
	x.high, x.plain = 0, false
	byFetch := since > 0 && x.IntN(3) == 0
	how := ""
	if since > 0 && !byFetch {
		how = x.resyncing(c, had)
	}
	validity := c.Validity
	if !x.must("SELECT %s%s", box, how) {
		return false
	}
	switch {
	case x.plain:
		x.unknown.Add(1)
	case byFetch && c.Validity == validity:
		// Until it is told what has changed it knows no more than before.
		high := x.high
		c.ModSeq = since
		if !x.must("UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)", since) {
			return false
		}
		c.ModSeq = max(c.ModSeq, high)
	}
	if err := c.Resume(&x.view, had); err != nil {
		x.wrong("SELECT %s%s: %v", box, how, err)
		return false
	}
	return x.learn()
}

// resyncing returns the QRESYNC parameter for a cache that has these UIDs: with or
// without them, and with or without the numbers that some of them have; at times for
// a modseq that nobody remembers.
func (x *roamer) resyncing(c *strict.Cache, had []uint32) string {
	since, uids, match := c.ModSeq, "", ""
	if x.IntN(8) == 0 {
		since = 1
	}
	var all, numbers, sample wire.NumSet
	for i, uid := range had {
		all.Add(uid)
		if x.IntN(3) == 0 {
			numbers.Add(uint32(i) + 1)
			sample.Add(uid)
		}
	}
	if !all.Empty() && x.IntN(2) == 0 {
		uids = " " + all.String()
	}
	if !sample.Empty() && x.IntN(2) == 0 {
		match = fmt.Sprintf(" (%s %s)", numbers, sample)
	}
	return fmt.Sprintf(" (QRESYNC (%d %d%s%s))", c.Validity, since, uids, match)
}

// learn asks for the messages that are new.
func (x *roamer) learn() bool {
	for range 20 {
		known, n := x.caches[x.box].Known(&x.view), len(x.view.Messages())
		if known == n {
			return true
		}
		// Those that are gone meanwhile are NO, and told of at the NOOP.
		if !x.do("FETCH %d:%d (UID FLAGS)", known+1, n) || x.last.Name != "OK" && !x.do("NOOP") {
			return false
		}
	}
	x.wrong("message %d is there and is never sent", x.caches[x.box].Known(&x.view)+1)
	return false
}
