package strict

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Mirror is what a client knows of the selected mailbox from the responses
// alone. It holds that numbers of messages are those of messages there are,
// that only EXPUNGE and VANISHED make a mailbox smaller, and that a message keeps its UID
// and its size.
type Mirror struct {
	messages []Message // by sequence number - 1
	fell     error     // EXISTS fell, which only a SELECT explains
}

// A Message is what a client knows of one.
type Message struct {
	UID   uint32 // 0: not known
	Flags string // sorted, without \Recent; "?": not known
	Size  int    // octets; -1: not known
}

// Messages returns what is known of all messages, by sequence number - 1. It is
// the Mirror's own.
func (m *Mirror) Messages() []Message { return m.messages }

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
		i := int(r.Number) - 1
		if i >= len(m.messages) {
			return fmt.Errorf("EXPUNGE of %d among %d messages", r.Number, len(m.messages))
		}
		m.messages = slices.Delete(m.messages, i, i+1)
	case r.Name == "VANISHED":
		return m.vanished(r)
	case r.Name == "FETCH":
		return m.fetch(r)
	case r.HasCode("CLOSED"):
		m.messages = nil
	case r.HasCode("UIDVALIDITY"): // the mailbox is another one
		for i := range m.messages {
			m.messages[i] = unknown
		}
		m.fell = nil
	}
	return nil
}

var unknown = Message{Flags: "?", Size: -1}

func (m *Mirror) exists(n int) {
	if n < len(m.messages) {
		m.fell = fmt.Errorf("EXISTS fell from %d to %d", len(m.messages), n)
		m.messages = m.messages[:n]
	}
	for len(m.messages) < n {
		m.messages = append(m.messages, unknown)
	}
}

func (m *Mirror) fetch(r *Response) error {
	i := int(r.Number) - 1
	if i >= len(m.messages) {
		return fmt.Errorf("FETCH of %d among %d messages", r.Number, len(m.messages))
	}
	if flags, ok := r.Item("FLAGS"); ok {
		m.messages[i].Flags = flagText(flags)
	}
	if err := m.messages[i].sized(r); err != nil {
		return err
	}
	v, ok := r.Item("UID")
	if !ok {
		return nil
	}
	uid := number(v)
	if was := m.messages[i].UID; was != 0 && was != uid {
		return fmt.Errorf("message %d had UID %d and has %d", r.Number, was, uid)
	}
	for j, other := range m.messages {
		if other.UID != 0 && (j < i && other.UID >= uid || j > i && other.UID <= uid) {
			return fmt.Errorf("message %d has UID %d, message %d has %d", i+1, uid, j+1, other.UID)
		}
	}
	m.messages[i].UID = uid
	return nil
}

// sized compares what r says of the message's size with what was said before.
func (m *Message) sized(r *Response) error {
	var sizes []int
	if v, ok := r.Item("RFC822.SIZE"); ok {
		n, _ := strconv.Atoi(v.Text)
		sizes = append(sizes, n)
	}
	if v, ok := r.Item("BODY[]"); ok && v.Kind != Nil {
		sizes = append(sizes, len(v.Text))
	}
	for _, n := range sizes {
		if m.Size >= 0 && m.Size != n {
			return fmt.Errorf("message %d of %d octets has %d", r.Number, m.Size, n)
		}
		m.Size = n
	}
	return nil
}

func flagText(v Value) string {
	var names []string
	for _, f := range v.List {
		if f.Text != `\Recent` {
			names = append(names, f.Text)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// Item returns the value of an item in a FETCH response.
func (r *Response) Item(name string) (v Value, ok bool) {
	for items := r.Args[0].List; len(items) > 1; items = items[2:] {
		if items[0].Text == name {
			return items[1], true
		}
	}
	return Value{}, false
}
