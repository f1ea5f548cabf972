package test

import (
	"slices"
	"strings"

	"imapd/imap/wire"
	"imapd/test/peer"
)

// otherThan returns the mailbox that is not box.
func (x *roamer) otherThan(box string) string {
	if box == "INBOX" {
		return "Work"
	}
	return "INBOX"
}

// act does one thing that a client does.
func (x *roamer) act() {
	if x.box == "" {
		x.enter(x.otherThan(""))
		return
	}
	c, other := x.caches[x.box], x.otherThan(x.box)
	uids := c.UIDs()
	if len(uids) == 0 || len(uids) < 40 && x.IntN(6) == 0 {
		x.must("APPEND %s (%s) %s", []string{x.box, other}[x.IntN(2)], x.marks(), peer.Literal(x.text("roamer")))
		x.do("NOOP")
		x.learnSome()
		return
	}
	some := x.some(uids)
	switch n := x.IntN(16); {
	case n < 2:
		x.do("UID STORE %s %sFLAGS (%s)", some, x.sign(), x.marks())
	case n < 4:
		x.silently(some, x.sign(), x.marks())
	case n == 4:
		x.do("UID STORE %s (UNCHANGEDSINCE %d) %sFLAGS (%s)", some, c.ModSeq, x.sign(), x.marks())
	case n == 5:
		_ = x.silently(some, "+", `\Deleted`) && x.do("UID EXPUNGE %s", some)
	case n == 6:
		x.do("EXPUNGE")
	case n == 7:
		if x.must("CLOSE") {
			x.box = ""
			x.enter(other)
		}
	case n < 10:
		set := some.String()
		if back := x.came[x.box]; back != "" {
			set = back
			delete(x.came, x.box)
		}
		x.do("UID MOVE %s %s", set, other)
	case n == 10:
		x.do("UID COPY %s %s", some, other)
	case n == 11:
		x.enter(other)
	case n == 12:
		x.do("STATUS %s (MESSAGES HIGHESTMODSEQ)", other)
	case n == 13:
		x.do("UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)", c.ModSeq)
	case n == 14:
		x.do("FETCH 1:* (MODSEQ)")
	default:
		_ = x.send("x IDLE") && x.until("+") && x.send("DONE") && x.until("x")
	}
	x.learnSome()
}

// silently changes flags without being told of it: the client knows what they are
// when it is answered, or was told of what somebody else has made of them meanwhile (RFC
// 9051 section 6.4.6).
func (x *roamer) silently(set wire.NumSet, sign, marks string) bool {
	c := x.caches[x.box]
	c.Heard = map[uint32]bool{}
	defer func() { c.Heard = nil }()
	if !x.must("UID STORE %s %sFLAGS.SILENT (%s)", set, sign, marks) {
		return false
	}
	for uid := range set.All() {
		had, have := c.Flags[uid]
		if !have || c.Heard[uid] {
			continue // it has vanished, or is known
		}
		now := strings.Fields(marks)
		switch sign {
		case "+":
			now = append(now, strings.Fields(had)...)
		case "-":
			now = slices.DeleteFunc(strings.Fields(had), func(f string) bool { return slices.Contains(now, f) })
		}
		slices.Sort(now)
		c.Flags[uid] = strings.Join(slices.Compact(now), " ")
	}
	return true
}

// learnSome is learn, at times, if the connection still is there.
func (x *roamer) learnSome() {
	if x.conn != nil && x.box != "" && x.IntN(3) > 0 {
		x.learn()
	}
}

// cut sends a command of which the client never hears the answer.
func (x *roamer) cut() {
	if x.conn == nil || !x.send("y UID STORE 1:* FLAGS ("+x.marks()+")") {
		return
	}
	for {
		r, err := x.r.Next()
		if err != nil {
			x.lost(err)
			return
		}
		if r.Tag == "y" {
			x.leave()
			return
		}
	}
}

// some returns a set of one to three of the UIDs.
func (x *roamer) some(uids []uint32) (set wire.NumSet) {
	for range 1 + x.IntN(3) {
		set.Add(uids[x.IntN(len(uids))])
	}
	return set
}

func (x *roamer) sign() string { return []string{"", "+", "-"}[x.IntN(3)] }

// marks returns some flags and keywords.
func (x *roamer) marks() string {
	all := []string{`\Seen`, `\Flagged`, `\Answered`, `\Draft`, `\Deleted`, "$Forwarded", "later"}
	x.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return strings.Join(all[:x.IntN(4)], " ")
}
