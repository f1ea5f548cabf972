package maildir

import (
	"iter"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"imapd/maildir/index"
	"imapd/maildir/keywords"
)

// A UID is the unique identifier of a message in its mailbox, 1 to
// 4294967294. See RFC 9051 section 2.3.1.1.
type UID uint32

// A ModSeq orders the changes of a mailbox, 63 bits. See RFC 7162 section 3.
type ModSeq uint64

// Flags is a set of flags: the system flags in bits 0 to 4, the keyword with
// index i of the snapshot, where i is below 59, in bit 5+i. See Marks for the
// other keywords.
type Flags uint64

// The system flags that a Maildir file name can hold.
const (
	Seen Flags = 1 << iota
	Answered
	Flagged
	Deleted
	Draft

	SystemFlags = Seen | Answered | Flagged | Deleted | Draft
)

const (
	firstKeyword = 5    // bit of the keyword with index 0
	bitKeywords  = 59   // keywords that have a bit: 26 letters, and what is left for imapd-keywords
	maxKeywords  = 1000 // of one mailbox
)

func keywordFlag(i int) Flags { return 1 << (firstKeyword + i) }

// keywordTable names the keywords of a mailbox by index; an index that is not in
// use has the name "". It never changes.
type keywordTable struct {
	names []string
	full  bool // there is no room for another one
}

// renamed returns the letters that are called otherwise in now, or were not called anything.
func (t *keywordTable) renamed(now *keywordTable) (f Flags) {
	if t == now {
		return 0
	}
	for i := range min(keywords.Letters, len(t.names), len(now.names)) {
		if t.names[i] != now.names[i] {
			f |= keywordFlag(i)
		}
	}
	return f
}

func (t *keywordTable) equal(o *keywordTable) bool {
	return t == o || t.full == o.full && slices.Equal(t.names, o.names)
}

// A page holds up to pageLen messages and is never written once a snapshot
// refers to it. At 256 names of at most 255 octets an offset fits 16 bits.
const (
	pageLen = index.PageLen
	dirLen  = 64 // pages a dir
)

// record is one message. It holds no pointer, so that the garbage collector
// never looks into a page. It is 40 octets, in memory as in the index.
type record = index.Record

// place is the directory that a message's file lies in.
type place uint8

const (
	inCur place = iota
	inNew
)

func placeOf(r *record) place {
	if r.Mod&index.InNew != 0 {
		return inNew
	}
	return inCur
}

func ghost(r *record) bool { return r.Mod&index.Ghost != 0 }

type page struct {
	recs   []record // ascending by UID, never empty; but for Facts never written
	sum    summary
	placed bool // all of recs are as they were loaded; see foresee.go

	more map[UID][]uint16 // of those with index.More: see Marks; nil where there are none

	// names are in memory since the page was built, or they were read; nil: lazy
	// reads them. At least one of the two there is, always.
	names atomic.Pointer[[]byte]
	lazy  atomic.Pointer[index.Names]
	blind atomic.Bool // lazy has failed, here or in a page that this was made of: some have no name

	mu    sync.Mutex // guards Facts of recs, and newer; innermost, never held over I/O
	newer bool       // Facts were learned that the index does not have
}

// newPage returns a page that is to be finished.
func newPage(recs []record, names []byte) *page {
	p := &page{recs: recs}
	p.names.Store(&names)
	return p
}

// allNames returns the names of the page, nil if the index does not give them
// any more: then no record of the page has a name, and the next scan finds it.
func (p *page) allNames() []byte {
	if b := p.names.Load(); b != nil {
		return *b
	}
	b, err := p.lazy.Load().Read()
	if err != nil {
		p.blind.Store(true)
		return nil
	}
	p.names.Store(&b)
	return b
}

// namesOnce is allNames for somebody who looks at all pages, once: what has not been
// read is read by r, until the next page.
func (p *page) namesOnce(r *index.Reader) []byte {
	if b := p.names.Load(); b != nil {
		return *b
	}
	b, err := r.Read(p.lazy.Load())
	if err != nil {
		p.blind.Store(true)
		return nil
	}
	return b
}

// name returns the file name of r, empty if it is not known.
func (p *page) name(r *record) []byte {
	b := p.allNames()
	if b == nil {
		return nil
	}
	return b[r.NameOff : int(r.NameOff)+int(r.NameLen)]
}

// moreOf returns the keywords of r that have no bit.
func (p *page) moreOf(r *record) []uint16 {
	if r.Mod&index.More == 0 {
		return nil
	}
	return p.more[UID(r.UID)]
}

// A dir is a run of pages: the upper level of the page list, so that a change
// in a million messages copies a short list.
type dir struct {
	pages []*page
	start []int // start[i] is the index in the dir of pages[i].recs[0]
	sum   summary
}

// summary answers for all messages below a page, a dir or a snapshot.
type summary struct {
	n       int
	unseen  int
	deleted int
	ghosts  int
	waiting int    // in new/
	last    UID    // highest
	modseq  ModSeq // highest
}

func (s *summary) add(o summary) {
	s.n += o.n
	s.unseen += o.unseen
	s.deleted += o.deleted
	s.ghosts += o.ghosts
	s.waiting += o.waiting
	s.last = max(s.last, o.last)
	s.modseq = max(s.modseq, o.modseq)
}

// A Snapshot is a mailbox as it was at one moment. It never changes, so it may
// be shared and kept without a lock. The message at index i has sequence
// number i+1 for a client whose view the snapshot is. Snapshots share the pages
// in which they do not differ.
type Snapshot struct {
	Validity uint32 // UIDVALIDITY
	Next     UID    // UIDNEXT
	ModSeq   ModSeq // highest of all changes so far

	keywords *keywordTable
	dirs     []*dir
	start    []int // start[i] is the index of the first message of dirs[i]
	sum      summary
	stale    chan struct{}
	// from is the published snapshot that a view with ghosts was made from;
	// the snapshot itself where there are none.
	from *Snapshot
	// foretold is the order of the index that it was made from; nil: it was made
	// from none.
	foretold *foretold
}

// A Message is one entry of a snapshot. Its UID, Flags and ModSeq are the
// snapshot's and never change.
type Message struct {
	UID    UID
	Flags  Flags
	ModSeq ModSeq
	page   *page
	rec    *record
}

// Ghost reports whether the message has been expunged and is kept only so that
// sequence numbers hold still (RFC 7162 section 3.2).
func (m Message) Ghost() bool { return ghost(m.rec) }

// name returns the file name, empty if it is not known: then a scan will find
// it. It is shared with the page.
func (m Message) name() []byte { return m.page.name(m.rec) }

// base returns the file name up to the first ':'.
func (m Message) base() []byte {
	n := m.name()
	return n[:min(int(m.rec.BaseLen), len(n))]
}

func (m Message) place() place { return placeOf(m.rec) }

// namesLen returns the octets of all names.
func (s *Snapshot) namesLen() (sum int64) {
	for _, d := range s.dirs {
		for _, p := range d.pages {
			sum += int64(p.namesLen())
		}
	}
	return sum
}

func (p *page) message(i int) Message {
	r := &p.recs[i]
	return Message{UID(r.UID), Flags(r.Flags), ModSeq(r.ModSeq()), p, r}
}

// Len returns the number of messages, ghosts included.
func (s *Snapshot) Len() int { return s.sum.n }

// At returns the message with sequence number i+1.
func (s *Snapshot) At(i int) Message {
	di := sort.SearchInts(s.start, i+1) - 1
	d := s.dirs[di]
	i -= s.start[di]
	pi := sort.SearchInts(d.start, i+1) - 1
	return d.pages[pi].message(i - d.start[pi])
}

// Find returns the index of the first message whose UID is at least uid, and
// whether it is uid.
func (s *Snapshot) Find(uid UID) (i int, ok bool) {
	di := sort.Search(len(s.dirs), func(i int) bool { return s.dirs[i].sum.last >= uid })
	if di == len(s.dirs) {
		return s.sum.n, false
	}
	d := s.dirs[di]
	pi := sort.Search(len(d.pages), func(i int) bool { return d.pages[i].sum.last >= uid })
	p := d.pages[pi]
	ri := p.find(uid)
	return s.start[di] + d.start[pi] + ri, UID(p.recs[ri].UID) == uid
}

// find returns the index in p of the first record with a UID of at least uid.
func (p *page) find(uid UID) int {
	return sort.Search(len(p.recs), func(i int) bool { return UID(p.recs[i].UID) >= uid })
}

// lookup returns the message with the given UID.
func (s *Snapshot) lookup(uid UID) (Message, bool) {
	i, ok := s.Find(uid)
	if !ok {
		return Message{}, false
	}
	return s.At(i), true
}

// Range calls yield for the messages with indexes lo to hi-1 in order.
func (s *Snapshot) Range(lo, hi int) iter.Seq2[int, Message] { return s.RangeSince(lo, hi, 0) }

// RangeSince is Range without the messages whose modseq is not above since; where
// nothing has changed it looks at the summaries of pages only.
func (s *Snapshot) RangeSince(lo, hi int, since ModSeq) iter.Seq2[int, Message] {
	return func(yield func(int, Message) bool) {
		if lo < 0 || lo >= hi || lo >= s.sum.n {
			return
		}
		di := sort.SearchInts(s.start, lo+1) - 1
		for ; di < len(s.dirs); di++ {
			d := s.dirs[di]
			if d.sum.modseq <= since {
				continue
			}
			for pi, p := range d.pages {
				at := s.start[di] + d.start[pi]
				if at >= hi {
					return
				}
				if at+len(p.recs) <= lo || p.sum.modseq <= since {
					continue
				}
				for i := max(0, lo-at); i < len(p.recs) && at+i < hi; i++ {
					if ModSeq(p.recs[i].ModSeq()) > since && !yield(at+i, p.message(i)) {
						return
					}
				}
			}
		}
	}
}

// waiting yields the messages whose files lie in new/, by index. It passes over
// pages without any.
func (s *Snapshot) waiting() iter.Seq2[int, Message] {
	return func(yield func(int, Message) bool) {
		for di, d := range s.dirs {
			if d.sum.waiting == 0 {
				continue
			}
			for pi, p := range d.pages {
				if p.sum.waiting == 0 {
					continue
				}
				for ri := range p.recs {
					if placeOf(&p.recs[ri]) == inNew && !yield(s.start[di]+d.start[pi]+ri, p.message(ri)) {
						return
					}
				}
			}
		}
	}
}

// Stale returns a channel that is closed when a newer snapshot than s has been
// published.
func (s *Snapshot) Stale() <-chan struct{} { return s.stale }

// Unseen returns how many messages lack \Seen.
func (s *Snapshot) Unseen() int { return s.sum.unseen }

// Ghosts returns how many messages are ghosts.
func (s *Snapshot) Ghosts() int { return s.sum.ghosts }

// Deleted returns how many messages have \Deleted.
func (s *Snapshot) Deleted() int { return s.sum.deleted }

// FirstUnseen returns the index of the first message without \Seen.
func (s *Snapshot) FirstUnseen() (i int, ok bool) {
	for di, d := range s.dirs {
		if d.sum.unseen == 0 {
			continue
		}
		for pi, p := range d.pages {
			if p.sum.unseen == 0 {
				continue
			}
			for ri := range p.recs {
				if Flags(p.recs[ri].Flags)&Seen == 0 {
					return s.start[di] + d.start[pi] + ri, true
				}
			}
		}
	}
	return 0, false
}

// Keywords returns the names of the mailbox's keywords by index; an index that
// is not in use has the name "". The caller must not change it.
func (s *Snapshot) Keywords() []string { return s.keywords.names }

// KeywordsFull reports whether there is room for another keyword.
func (s *Snapshot) KeywordsFull() bool { return s.keywords.full }

// Keyword returns the index of the keyword name, compared without regard to the
// case of ASCII letters (RFC 9051 section 2.3.2), or -1.
func (s *Snapshot) Keyword(name string) int {
	return slices.IndexFunc(s.keywords.names, func(k string) bool { return k != "" && strings.EqualFold(k, name) })
}

var systemNames = [firstKeyword]string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`}

// AppendFlagNames appends the names of the flags in f to b.
func (s *Snapshot) AppendFlagNames(b []string, f Marks) []string {
	for i, n := range systemNames {
		if f.Flags&(1<<i) != 0 {
			b = append(b, n)
		}
	}
	for i, n := range s.keywords.names {
		if n != "" && f.has(i) {
			b = append(b, n)
		}
	}
	return b
}

func (p *page) finish() *page {
	p.sum = summary{n: len(p.recs)}
	for i := range p.recs {
		r := &p.recs[i]
		if Flags(r.Flags)&Seen == 0 {
			p.sum.unseen++
		}
		if Flags(r.Flags)&Deleted != 0 {
			p.sum.deleted++
		}
		if ghost(r) {
			p.sum.ghosts++
		}
		if placeOf(r) == inNew {
			p.sum.waiting++
		}
		p.sum.modseq = max(p.sum.modseq, ModSeq(r.ModSeq()))
		p.sum.last = UID(r.UID)
	}
	return p
}

func newDir(pages []*page) *dir {
	d := &dir{pages: pages, start: make([]int, len(pages))}
	for i, p := range pages {
		d.start[i] = d.sum.n
		d.sum.add(p.sum)
	}
	return d
}

// with returns a copy of s, not stale, that consists of dirs.
func (s *Snapshot) with(dirs []*dir) *Snapshot {
	n := *s
	n.dirs = dirs
	n.start = make([]int, len(dirs))
	n.stale = make(chan struct{})
	n.sum = summary{}
	n.from = &n
	for i, d := range dirs {
		n.start[i] = n.sum.n
		n.sum.add(d.sum)
	}
	return &n
}

func newSnapshot(validity uint32, next UID, modseq ModSeq, keywords *keywordTable) *Snapshot {
	s := &Snapshot{Validity: validity, Next: next, ModSeq: modseq, keywords: keywords}
	return s.with(nil)
}
