package index

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

// bytes returns the batch as it stands in the file.
func (b *Batch) bytes() []byte {
	body := b.buf[batchHead:]
	order.PutUint32(b.buf, batchMark)
	order.PutUint32(b.buf[4:], uint32(len(body)))
	order.PutUint32(b.buf[8:], checksum(body))
	return b.buf
}

// parseJournal returns the events of the whole batches that data begins with,
// and their length. What follows is torn, or being written.
func parseJournal(data []byte) (events []Event, size int64) {
	for {
		rest := data[size:]
		if len(rest) < batchHead || order.Uint32(rest) != batchMark {
			return events, size
		}
		n := order.Uint32(rest[4:])
		if n > maxBatch || uint64(len(rest)) < batchHead+uint64(n) {
			return events, size
		}
		body := rest[batchHead : batchHead+n]
		if checksum(body) != order.Uint32(rest[8:]) {
			return events, size
		}
		more, ok := parseBatch(events, body)
		if !ok {
			return events, size
		}
		events = more
		size += batchHead + int64(n)
	}
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
