package index

import (
	"time"

	"golang.org/x/sys/unix"
)

// Kind says what an Event is.
type Kind uint8

const (
	Put     Kind = 1 + iota // Rec is a message now, with this Name
	Gone                    // the messages of Range were expunged
	Learned                 // Rec.Facts holds for the message Rec.UID
	Stated                  // State holds from now on
	Floored                 // every message up to here counts as changed at Range.ModSeq or later
)

// An Event is one entry of the journal.
type Event struct {
	Kind  Kind
	Rec   Record // Put, Learned
	Name  []byte // Put; shares the buffer that was read
	Range Range  // Gone, Floored
	State *State // Stated
}

// A Batch is what is appended at once. The zero value is empty.
type Batch struct {
	buf []byte // with room for the head in front
}

// batchHead is the octets before the events of a batch: a mark, the length of
// what follows it, and its checksum.
const (
	batchHead = 12
	batchMark = 0x31424d49 // "IMB1"
	maxBatch  = 1 << 30
)

// Each batch ends with the time at which it was written, as what was learned of the
// message 0, which there is not: a version that does not know of it looks for that
// message in vain. It says that the file is as we have left it: whatever is written
// over it, or put back by a program that sets the times of files, has another time of
// change than of modification, or another than that.

// Empty reports whether nothing has been added.
func (b *Batch) Empty() bool { return len(b.buf) <= batchHead }

func (b *Batch) add(k Kind) {
	if b.buf == nil {
		b.buf = make([]byte, batchHead, 256)
	}
	b.buf = append(b.buf, byte(k))
}

// Put adds a message that has appeared, or whose name, flags or modseq are new.
func (b *Batch) Put(r *Record, name []byte) {
	b.add(Put)
	c := *r
	c.NameOff, c.NameLen = 0, uint8(len(name))
	b.buf = c.append(b.buf)
	b.buf = append(b.buf, name...)
}

// Gone adds expunged messages.
func (b *Batch) Gone(r Range) {
	b.add(Gone)
	b.buf = r.append(b.buf)
}

// Learned adds what is known of the file of a message.
func (b *Batch) Learned(uid uint32, f Facts) {
	b.add(Learned)
	b.buf = order.AppendUint32(b.buf, uid)
	b.buf = f.append(b.buf)
}

// State adds the state of the folder.
func (b *Batch) State(s *State) {
	b.add(Stated)
	b.buf = s.append(b.buf)
}

// Floor has every message that there is count as changed at modseq or later.
func (b *Batch) Floor(modseq uint64) {
	b.add(Floored)
	r := Range{ModSeq: modseq}
	b.buf = r.append(b.buf)
}

// bytes returns the batch as it is written at now.
func (b *Batch) bytes(now time.Time) []byte {
	if b.buf == nil {
		b.buf = make([]byte, batchHead, 64)
	}
	data := order.AppendUint32(append(b.buf, byte(Learned)), 0)
	data = (&Facts{Date: uint32(now.Unix()), Size: uint32(now.Nanosecond())}).append(data)
	body := data[batchHead:]
	order.PutUint32(data, batchMark)
	order.PutUint32(data[4:], uint32(len(body)))
	order.PutUint32(data[8:], checksum(body))
	return data
}

// A journal is what stands behind the base: whole batches, up to what is torn, or being
// written.
type journal struct {
	events  []Event
	size    int64     // octets of the batches
	written time.Time // of the last one; zero: an older version wrote it, or there is none
}

func parseJournal(data []byte) (j journal) {
	for {
		rest := data[j.size:]
		if len(rest) < batchHead || order.Uint32(rest) != batchMark {
			return j
		}
		n := order.Uint32(rest[4:])
		if n > maxBatch || uint64(len(rest)) < batchHead+uint64(n) {
			return j
		}
		body := rest[batchHead : batchHead+n]
		if checksum(body) != order.Uint32(rest[8:]) {
			return j
		}
		events, ok := parseBatch(j.events, body)
		if !ok {
			return j
		}
		j.written = time.Time{}
		if k := len(events) - 1; k >= len(j.events) && events[k].Kind == Learned && events[k].Rec.UID == 0 {
			j.written = time.Unix(int64(events[k].Rec.Date), int64(events[k].Rec.Size))
			events = events[:k]
		}
		j.events = events
		j.size += batchHead + int64(n)
	}
}

// slow is how long a process may be held up between its look at the clock and the
// write, or its clock be behind that of the file system.
const slow = 2 * time.Second

// wasTouched reports whether a file that was written at that time last, by us, has been
// written since, or had its times set. A file system with whole seconds may cut one
// time and not the other.
func wasTouched(st *unix.Stat_t, written time.Time) bool {
	m, c := time.Unix(st.Mtim.Unix()), time.Unix(st.Ctim.Unix())
	if m.Nanosecond() == 0 || c.Nanosecond() == 0 {
		m, c = m.Truncate(time.Second), c.Truncate(time.Second)
	}
	return !m.Equal(c) || m.Sub(written).Abs() > slow
}

// parseBatch appends the events of one batch, all or, if it is not one of ours,
// none.
func parseBatch(events []Event, b []byte) ([]Event, bool) {
	for len(b) > 0 {
		var e Event
		e.Kind = Kind(b[0])
		n := e.read(b[1:])
		if n < 0 {
			return nil, false
		}
		b = b[1+n:]
		events = append(events, e)
	}
	return events, true
}

// read fills e from what follows its kind, and returns how much that was, -1 if
// it is cut or senseless.
func (e *Event) read(b []byte) int {
	switch e.Kind {
	case Put:
		if len(b) < recordSize {
			return -1
		}
		e.Rec.read(b)
		n := recordSize + int(e.Rec.NameLen)
		if len(b) < n || e.Rec.UID == 0 || e.Rec.UID > maxUID || e.Rec.ModSeq() > maxSane {
			return -1
		}
		e.Name, e.Rec.NameOff = b[recordSize:n:n], 0
		if !validName(e.Name, int(e.Rec.BaseLen)) {
			return -1
		}
		return n
	case Gone, Floored:
		if len(b) < rangeSize {
			return -1
		}
		e.Range.read(b)
		if !e.Range.sane() {
			return -1
		}
		return rangeSize
	case Learned:
		if len(b) < 4+factsSize {
			return -1
		}
		e.Rec.UID = order.Uint32(b)
		e.Rec.Facts.read(b[4:])
		return 4 + factsSize
	case Stated:
		if len(b) < stateSize {
			return -1
		}
		e.State = new(State)
		e.State.read(b)
		if !e.State.sane() {
			return -1
		}
		return stateSize
	}
	return -1
}
