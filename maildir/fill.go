package maildir

import (
	"bytes"
	"errors"
	"hash/maphash"
	"slices"

	"imapd/maildir/index"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// Opening a folder of which nothing is known but its UID list is the dearest thing
// that a client can ask for: 100,000 names are in the list in the order of their
// UIDs, and in the directory in no order. What it costs is memory: each name that is
// copied, each record that is sorted, each entry of a table that is looked up is
// somewhere else, most of it for the first time.
//
// So nothing is copied and nothing is sorted. The list is read once for the hashes
// of its base names. The directory is compared with them (nameJoin): what a file
// name has behind its base, a few octets of which there are few kinds, is noted for
// its line. Then the list is read again, and the messages are written down one
// after the other as the lines come. A folder of a million messages takes hardly
// more memory for that than its names and records have.
//
// Where there is anything odd (two files or two lines of one name), the folder is
// looked at file by file, as usual.

// shortDirent is how many octets a file takes of a directory that is read, at least on
// the average.
const shortDirent = 56

// fillFrom is how many lines make that worth while.
const fillFrom = 1000

// A filling is how the files of a folder are called, by the lines of its list.
type filling struct {
	sc     *scanner
	infos  []info
	known  map[string]uint32 // number of an info
	last   uint32            // that was asked for last
	lines  []uint16          // number of the info of the line's file + 1, 0: it has no file; and fileInNew
	order  []uint32          // the lines of the files, as they were found, + 1; 0: of a file without one
	others []file
}

// An info is what follows the base in file names.
type info struct {
	text  string
	flags Flags
	bad   bool // no message has it
}

const (
	fileInNew = 1 << 15
	mostInfos = fileInNew - 1
)

// errOdd says that a folder must be looked at file by file.
var errOdd = errors.New("not every file has a line of its own")

// fill scans a folder of which nothing is known but the list. It reports false if
// it is not one.
func (sc *scanner) fill() (bool, error) {
	m, l := sc.m, sc.m.list.lines
	if l == nil || len(l.uids) < fillFrom || sc.snap.Next > 1 || m.list.damaged || m.past.on || m.past.lost {
		return false, nil
	}
	f := filling{sc: sc, known: map[string]uint32{}, lines: make([]uint16, len(l.uids))}
	err := f.match(l)
	if err == nil {
		sc.filled, err = f.build(l)
	}
	if errors.Is(err, errOdd) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, o := range f.others {
		sc.place = o.place
		sc.stranger(o)
	}
	for _, i := range f.infos {
		sc.letters |= i.flags
	}
	m.found = f.order[:0]
	for _, line := range f.order {
		if line > 0 {
			m.found = append(m.found, uint32(l.uids[line-1]))
		}
	}
	return true, nil
}

// match notes for each line what its file is called.
func (f *filling) match(l *lines) error {
	j := newNameJoin(len(l.uids), min(len(l.uids), maxScan/shortDirent))
	defer j.free()
	for i, h := range l.hashes {
		j.know(h, i)
	}
	f.order = make([]uint32, 0, len(l.uids)+len(l.uids)/16)
	vfs.Prefault(f.order)
	var at []uint32 // of the files in a piece
	return f.sc.read([2]bool{}, func(piece []byte) error {
		at = slices.Grow(at[:0], len(piece)/direntOctets/2)
		begin := len(f.order)
		err := eachFile(piece, func(here int, name []byte) {
			base := bytes.IndexByte(name, ':')
			if base < 0 {
				base = len(name)
			}
			j.find(l.hash(name[:base]), len(at), f.info(name[base:]))
			at, f.order = append(at, uint32(here)), append(f.order, 0)
		})
		single := j.join(func(found mark, line int) {
			i := &f.infos[found.tag]
			switch {
			case i.bad:
			case line < 0:
				if name := nameAt(piece, int(at[found.at])); messageName(name) {
					f.others = append(f.others, file{name: string(name), place: f.sc.place, flags: parseFlags(name)})
				}
			case f.lines[line] != 0:
				err = errOdd
			default:
				f.lines[line] = uint16(found.tag) + 1
				f.order[begin+int(found.at)] = uint32(line) + 1
				if f.sc.place == inNew {
					f.lines[line] |= fileInNew
				}
			}
		})
		if !single || len(f.infos) >= mostInfos {
			return errOdd
		}
		return err
	})
}

// info returns the number of what follows a base name.
func (f *filling) info(text []byte) uint32 {
	if len(f.infos) > 0 && f.infos[f.last].text == string(text) {
		return f.last
	}
	i, ok := f.known[string(text)]
	if !ok {
		i = uint32(len(f.infos))
		f.infos = append(f.infos, info{string(text), parseFlags(text), len(text) > 0 && !messageName(text)})
		f.known[f.infos[i].text] = i
	}
	f.last = i
	return i
}

// build makes the messages of the lines that have files.
func (f *filling) build(l *lines) ([]*dir, error) {
	m := f.sc.m
	mod := m.tick()
	m.past.state.ModSeq = max(m.past.state.ModSeq, uint64(mod))
	b := bulkBuilder{left: len(l.uids), drop: len(l.uids) >= dropFrom}
	only := m.keys.lettersOnly()
	line, odd := -1, false
	_, _, err := m.list.file.Each(func(e uidlist.Entry) {
		if line++; line >= len(l.uids) || odd {
			return // appended meanwhile
		}
		b.left--
		odd = l.uids[line] != UID(e.UID) || l.hashes[line] != maphash.String(l.seed, e.Base)
		n := f.lines[line]
		if n == 0 || odd {
			return
		}
		i := &f.infos[n&^fileInNew-1]
		r := record{UID: e.UID, BaseLen: uint8(len(e.Base)), Flags: uint64(i.flags), Mod: uint64(mod), Facts: index.NoFacts}
		if n&fileInNew != 0 {
			r.Mod |= index.InNew
		}
		if !only {
			o := m.keys.overflow([]byte(e.Base))
			r.Flags |= uint64(o.Flags)
			b.add(r, e.Base, i.text, o.more)
			return
		}
		b.add(r, e.Base, i.text, nil)
	})
	if err == nil && (odd || line+1 < len(l.uids)) {
		err = errOdd // it was written over meanwhile
	}
	return b.dirs(), err
}

// A bulkBuilder makes many full pages, whose records and names lie side by side in
// memory that comes in few pieces. Names that stay in memory get no more of it than they
// need: how long they are is known at the end of a page only.
type bulkBuilder struct {
	left  int  // messages to come, at most
	drop  bool // there are so many that their names go with the first index
	recs  []record
	names []byte
	more  map[UID][]uint16 // of the page that is being made
	r, n  int              // where its records and names begin
	pages []*page
}

// namesPiece is how large a piece of memory for names is: that of many pages.
const namesPiece = 1 << 20

func (b *bulkBuilder) add(r record, base, info string, more []uint16) {
	if len(b.recs)-b.r == pageLen {
		b.end()
	}
	if len(b.recs) == cap(b.recs) {
		b.recs, b.r = make([]record, 0, min(dirLen*pageLen, b.left+1)), 0
		vfs.Prefault(b.recs)
	}
	if len(b.names) == b.n && cap(b.names)-b.n < pageLen*255 {
		size := pageLen * 255
		if b.drop {
			size = namesPiece
		}
		b.names, b.n = make([]byte, 0, size), 0
		vfs.Prefault(b.names)
	}
	if len(more) > 0 {
		r.Mod |= index.More
		if b.more == nil {
			b.more = map[UID][]uint16{}
		}
		b.more[UID(r.UID)] = more
	}
	r.NameOff, r.NameLen = uint16(len(b.names)-b.n), uint8(len(base)+len(info))
	b.names = append(append(b.names, base...), info...)
	b.recs = append(b.recs, r)
}

// end ends a page.
func (b *bulkBuilder) end() {
	if len(b.recs) > b.r {
		names := b.names[b.n:len(b.names):len(b.names)]
		if !b.drop {
			names, b.names = slices.Clone(names), b.names[:0]
		}
		p := newPage(b.recs[b.r:len(b.recs):len(b.recs)], names)
		p.more, b.more = b.more, nil
		b.pages = append(b.pages, p.finish())
	}
	b.r, b.n = len(b.recs), len(b.names)
}

func (b *bulkBuilder) dirs() (dirs []*dir) {
	b.end()
	for part := range slices.Chunk(b.pages, dirLen) {
		dirs = append(dirs, newDir(part))
	}
	return dirs
}
