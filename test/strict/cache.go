package strict

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// A Cache is what a client that has enabled QRESYNC keeps of a mailbox while it is
// away, and from which it goes on (RFC 7162 section 6). It believes every response
// at once, but has come as far as a modseq only when a command has been answered.
type Cache struct {
	Validity uint32
	ModSeq   uint64            // up to which it knows everything; 0: nothing
	Flags    map[uint32]string // by UID, as in Message
	Heard    map[uint32]bool   // whose FLAGS have come since it was made; nil: not noted

	shown uint64 // highest MODSEQ of FETCH since the last tagged reply
	said  uint64 // HIGHESTMODSEQ since then; 0: none
}

// UIDs returns the messages that the client has, ascending.
func (c *Cache) UIDs() []uint32 { return slices.Sorted(maps.Keys(c.Flags)) }

// Take notes a response that m has taken. The error says what no client of QRESYNC
// should hear.
func (c *Cache) Take(m *Mirror, r *Response) error {
	if len(r.Code) == 2 {
		n, _ := strconv.ParseUint(r.Code[1].Text, 10, 63)
		switch {
		case r.HasCode("HIGHESTMODSEQ"):
			c.said = n
		case r.HasCode("UIDVALIDITY") && uint32(n) != c.Validity:
			*c = Cache{Validity: uint32(n), Flags: map[uint32]string{}}
		}
	}
	switch {
	case r.Tag != "*" && r.Tag != "+":
		if c.ModSeq = max(c.ModSeq, c.shown); c.said > 0 {
			c.ModSeq = c.said
		}
		c.shown, c.said = 0, 0
	case r.Name == "EXPUNGE":
		return fmt.Errorf("EXPUNGE instead of VANISHED")
	case r.Name == "VANISHED":
		uids, _ := r.Vanished()
		maps.DeleteFunc(c.Flags, func(uid uint32, _ string) bool {
			return slices.ContainsFunc(uids, func(u Range) bool { return u.From <= uid && uid <= u.To })
		})
	case r.Name == "FETCH":
		c.fetched(m, r)
	}
	return nil
}

func (c *Cache) fetched(m *Mirror, r *Response) {
	if v, ok := r.Item("MODSEQ"); ok {
		n, _ := strconv.ParseUint(v.List[0].Text, 10, 63)
		c.shown = max(c.shown, n)
	}
	message := m.Messages()[r.Number-1]
	_, have := c.Flags[message.UID]
	if _, ok := r.Item("FLAGS"); ok && message.UID != 0 && (have || c.Known(m) >= int(r.Number)-1) {
		c.Flags[message.UID] = message.Flags
		if c.Heard != nil {
			c.Heard[message.UID] = true
		}
	}
}

// Known returns how many messages of m, from the first on without a gap, the
// client has. It takes in no others: it could not say of them which numbers they
// have.
func (c *Cache) Known(m *Mirror) int {
	for i, message := range m.messages {
		if _, have := c.Flags[message.UID]; !have {
			return i
		}
	}
	return len(m.messages)
}

// Cut forgets what was not answered to its end when the connection was lost.
func (c *Cache) Cut() { c.shown, c.said = 0, 0 }

// Resume gives the messages of m, a mailbox that was just selected, the UIDs that
// the client knew before, which are those of the first ones: had. The error says
// which are not there.
func (c *Cache) Resume(m *Mirror, had []uint32) error {
	i := 0
	for _, uid := range had {
		if _, still := c.Flags[uid]; !still {
			continue
		}
		if i == len(m.messages) {
			return fmt.Errorf("UID %d is not there, and has not vanished", uid)
		}
		if other := m.messages[i].UID; other != 0 && other != uid {
			return fmt.Errorf("message %d has UID %d and should have %d", i+1, other, uid)
		}
		m.messages[i].UID = uid
		m.messages[i].Flags = c.Flags[uid]
		i++
	}
	return nil
}
