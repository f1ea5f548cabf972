package strict

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Range is the numbers From to To, both included.
type Range struct{ From, To uint32 }

// Vanished returns the UIDs that a VANISHED response names, and whether they went
// EARLIER.
func (r *Response) Vanished() (uids []Range, earlier bool) {
	earlier = r.Args[0].Kind == List
	for part := range strings.SplitSeq(r.Args[len(r.Args)-1].Text, ",") {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		a, _ := strconv.ParseUint(from, 10, 32)
		b, _ := strconv.ParseUint(to, 10, 32)
		uids = append(uids, Range{uint32(min(a, b)), uint32(max(a, b))})
	}
	return uids, earlier
}

// vanished takes the messages away, or holds that those that went earlier are not
// among those that there are (RFC 7162 section 3.2.10).
func (m *Mirror) vanished(r *Response) error {
	uids, earlier := r.Vanished()
	for _, u := range uids {
		if earlier {
			for _, have := range m.messages {
				if have.UID != 0 && u.From <= have.UID && have.UID <= u.To {
					return fmt.Errorf("UID %d vanished earlier and is there", have.UID)
				}
			}
			continue
		}
		if int64(u.To)-int64(u.From) >= int64(len(m.messages)) {
			return fmt.Errorf("%d:%d vanished of %d messages", u.From, u.To, len(m.messages))
		}
		for uid := u.From; ; uid++ {
			i := m.place(uid)
			if i < 0 {
				return fmt.Errorf("UID %d vanished and has not been there", uid)
			}
			m.messages = slices.Delete(m.messages, i, i+1)
			if uid == u.To {
				break
			}
		}
	}
	return nil
}

// place returns the index of the message uid: the one that is known to have it,
// or one that may; -1 if there is neither. Messages of unknown UIDs between two
// known ones are all alike.
func (m *Mirror) place(uid uint32) int {
	maybe := -1
	for i, have := range m.messages {
		switch {
		case have.UID == uid:
			return i
		case have.UID > uid:
			return maybe
		case have.UID == 0:
			maybe = i
		default:
			maybe = -1
		}
	}
	return maybe
}
