package strict

import "fmt"

// A Mirror is what a client knows of the selected mailbox from the responses
// alone. It holds that numbers of messages are those of messages there are,
// that only EXPUNGE makes a mailbox smaller, and that a message keeps its UID.
type Mirror struct {
	uids []uint32 // by sequence number - 1; 0: not known
	fell error    // EXISTS fell, which only a SELECT explains
}

// Take updates the mirror. The error says what cannot be.
func (m *Mirror) Take(r *Response) error {
	switch {
	case r.Tag == "+":
	case r.Tag != "*":
		err := m.fell
		m.fell = nil
		return err
	case r.Name == "EXISTS":
		m.exists(int(r.Number))
	case r.Name == "EXPUNGE":
		if int(r.Number) > len(m.uids) {
			return fmt.Errorf("EXPUNGE of %d among %d messages", r.Number, len(m.uids))
		}
		m.uids = append(m.uids[:r.Number-1], m.uids[r.Number:]...)
	case r.Name == "FETCH":
		return m.fetch(r)
	case r.HasCode("CLOSED"):
		m.uids = nil
	case r.HasCode("UIDVALIDITY"):
		clear(m.uids)
		m.fell = nil
	}
	return nil
}

func (m *Mirror) exists(n int) {
	if n < len(m.uids) {
		m.fell = fmt.Errorf("EXISTS fell from %d to %d", len(m.uids), n)
		m.uids = m.uids[:n]
	}
	for len(m.uids) < n {
		m.uids = append(m.uids, 0)
	}
}

func (m *Mirror) fetch(r *Response) error {
	i := int(r.Number) - 1
	if i >= len(m.uids) {
		return fmt.Errorf("FETCH of %d among %d messages", r.Number, len(m.uids))
	}
	uid, ok := r.UID()
	if !ok {
		return nil
	}
	if m.uids[i] != 0 && m.uids[i] != uid {
		return fmt.Errorf("message %d had UID %d and has %d", r.Number, m.uids[i], uid)
	}
	for j, other := range m.uids {
		if other != 0 && (j < i && other >= uid || j > i && other <= uid) {
			return fmt.Errorf("message %d has UID %d, message %d has %d", i+1, uid, j+1, other)
		}
	}
	m.uids[i] = uid
	return nil
}

// UID returns the UID in a FETCH response, if one is.
func (r *Response) UID() (uint32, bool) {
	for items := r.Args[0].List; len(items) > 1; items = items[2:] {
		if items[0].Text == "UID" {
			return number(items[1]), true
		}
	}
	return 0, false
}
