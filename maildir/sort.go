package maildir

import (
	"bytes"
	"hash/maphash"
	"slices"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Sorting the names of a scan: which file is of which message, and what of it is
// new.

// A file is one that a scan found and no message of the snapshot has.
type file struct {
	name  string
	place place
	flags Flags // that the name says
	uid   UID   // from the list; 0: none yet
}

func (f file) base() string { return f.name[:baseLen(f.name)] }

// scan finds out how the directories that are not skipped differ from snap.
func (m *Mailbox) scan(snap *Snapshot, skip [2]bool) (survey, error) {
	if n := snap.Len(); cap(m.seen) < n {
		m.seen = make([]bool, n, n+n/8)
		vfs.Prefault(m.seen)
	} else {
		m.seen = m.seen[:n]
		clear(m.seen)
	}
	if skip[inCur] {
		for i := range m.seen {
			m.seen[i] = true
		}
	}
	if skip[inCur] != skip[inNew] {
		for i := range snap.waiting() {
			m.seen[i] = skip[inNew]
		}
	}
	sc := m.newScanner(snap)
	sc.atomic = m.atomic
	if snap.Len() == 0 {
		if done, err := sc.fill(); done || err != nil {
			return sc.survey, err
		}
		sc.atomic = m.atomic
	}
	if m.list.again || m.list.damaged || sc.beyond || snap.Len() == 0 {
		if err := m.list.load(m.control); err != nil {
			return sc.survey, err
		}
		m.list.remember(snap)
		err := sc.read(skip, func(piece []byte) error {
			return eachFile(piece, func(_ int, name []byte) { sc.file(name) })
		})
		return sc.survey, err
	}
	if o := snap.order(); o != nil && !skip[inCur] {
		if done, err := sc.foresee(o, skip); done {
			return sc.survey, err
		}
	}
	return sc.survey, sc.compare(skip)
}

// read calls take with what the directories that are not skipped hold, piece by
// piece.
func (sc *scanner) read(skip [2]bool, take func(piece []byte) error) error {
	m := sc.m
	for _, p := range []place{inNew, inCur} {
		if skip[p] {
			continue
		}
		sc.place = p
		m.host.scans.Add(1)
		r, err := readWhole(m.dirOf(p).Fd(), sc.expect())
		if err != nil {
			return err
		}
		sc.atomic = sc.atomic && r.atomic
		err = r.pieces(take)
		r.free()
		if err != nil {
			return err
		}
	}
	return nil
}

// expect returns how many octets of directory are to be read.
func (sc *scanner) expect() int64 {
	n, names := int64(sc.snap.Len()), sc.snap.namesLen()
	if n == 0 && sc.place == inCur {
		n, names = int64(sc.m.list.count), sc.m.list.size
	} else if w := int64(sc.snap.sum.waiting); sc.place == inNew {
		n, names = w, names*w/max(1, n)
	}
	var st unix.Stat_t
	if n == 0 && sc.place == inCur && unix.Fstat(sc.m.cur.Fd(), &st) == nil {
		return st.Size
	}
	return n*direntOctets + names
}

// compare finds out which files have not the name that a message had. Nearly every
// file has that name still, and then nothing else has to be looked at: not the UID
// list, not the record, which lies somewhere else in memory for each name that the
// kernel returns.
func (sc *scanner) compare(skip [2]bool) error {
	known := sc.snap.Len()
	if skip[inCur] {
		known = sc.snap.sum.waiting
	}
	seed, j := maphash.MakeSeed(), newNameJoin(known, known)
	defer j.free()
	j.knowNames(seed, sc.snap, skip)
	var others []file
	err := sc.read(skip, func(piece []byte) error {
		err := eachFile(piece, func(at int, name []byte) { j.find(placeHash(seed, name, sc.place), at, 0) })
		j.join(func(found mark, known int) {
			switch {
			case known < 0 || sc.m.seen[known]:
				if name := nameAt(piece, int(found.at)); messageName(name) {
					others = append(others, file{name: string(name), place: sc.place})
				}
				return
			case sc.place == inNew:
				sc.moves = append(sc.moves, sc.snap.At(known).UID)
			}
			sc.m.seen[known] = true
		})
		return err
	})
	if err != nil {
		return err
	}
	return sc.rest(others)
}

// rest sorts the files that have another name than any message had. Most are of
// messages that have not been seen yet; only for others the UID list is asked.
func (sc *scanner) rest(others []file) error {
	if len(others) == 0 {
		return nil
	}
	sc.missed = map[string]UID{}
	for i, seen := range sc.m.seen {
		if !seen {
			msg := sc.snap.At(i)
			sc.missed[string(msg.base())] = msg.UID
		}
	}
	var strange []string
	for _, f := range others {
		if _, ok := sc.missed[f.base()]; !ok {
			strange = append(strange, f.base())
		}
	}
	if err := sc.m.list.find(sc.m.control, strange); err != nil {
		return err
	}
	for _, f := range others {
		sc.place = f.place
		sc.file([]byte(f.name))
	}
	return nil
}

// A scanner sorts the names of a scan.
type scanner struct {
	survey
	m       *Mailbox
	snap    *Snapshot
	place   place
	beyond  bool            // imapd-keywords has changed
	missed  map[string]UID  // of messages that are not seen under their names, by base name
	fresh   map[UID]bool    // UIDs of survey.fresh
	strange map[string]bool // bases of survey.unknown
}

func (m *Mailbox) newScanner(snap *Snapshot) *scanner {
	return &scanner{m: m, snap: snap, beyond: m.keys.news.Any(), fresh: map[UID]bool{}, strange: map[string]bool{}}
}

// uid returns the UID that the list gives to a base name, which it has been asked
// for, or all of which is loaded.
func (sc *scanner) uid(base []byte) (UID, bool) {
	if u, ok := sc.missed[string(base)]; ok && len(base) > 0 {
		return u, true
	}
	return sc.m.list.uid(base)
}

func (sc *scanner) file(name []byte) {
	if !messageName(name) {
		return
	}
	base := name[:baseLen(name)]
	if len(base) == 0 { // nothing to know it by: it needs another name
		sc.twins = append(sc.twins, file{name: string(name), place: sc.place})
		return
	}
	uid, listed := sc.uid(base)
	if listed && uid < sc.snap.Next {
		if i, live := sc.snap.Find(uid); live {
			// A record whose name could not be read gets it from here.
			if msg := sc.snap.At(i); len(msg.name()) == 0 || bytes.Equal(msg.base(), base) {
				sc.known(i, msg, name)
				return
			}
		}
		if !sc.strange[string(base)] {
			sc.returns = append(sc.returns, string(base))
		}
		listed = false
	}
	f := file{name: string(name), place: sc.place, flags: parseFlags(name)}
	switch {
	case listed && sc.fresh[uid]:
		sc.twins = append(sc.twins, f)
	case listed:
		f.uid = uid
		sc.fresh[uid] = true
		sc.survey.fresh = append(sc.survey.fresh, f)
		sc.letters |= f.flags
	default:
		sc.stranger(f)
	}
}

// demote makes a twin of the other name that msg was found by first. It reports false
// if there was none.
func (sc *scanner) demote(msg Message) bool {
	k := slices.IndexFunc(sc.changes, func(c change) bool { return c.uid == msg.UID })
	if k < 0 {
		return false
	}
	e := sc.changes[k].entry
	sc.changes = slices.Delete(sc.changes, k, k+1)
	if e.place == inNew {
		sc.moves = slices.DeleteFunc(sc.moves, func(u UID) bool { return u == msg.UID })
	}
	sc.twins = append(sc.twins, file{name: e.name, place: e.place, uid: msg.UID})
	return true
}

// stranger takes in a file that no line of the list is of.
func (sc *scanner) stranger(f file) {
	base := f.base()
	if base == "" || sc.strange[base] {
		sc.twins = append(sc.twins, f)
		return
	}
	sc.strange[base] = true
	sc.unknown = append(sc.unknown, f)
	sc.letters |= f.flags
}

// known takes in a file of the message msg, which has index i. Of two names the one
// that it had counts, whichever the directory gives first: each process must come to
// the same.
func (sc *scanner) known(i int, msg Message, name []byte) {
	if sc.m.seen[i] && (sc.place != msg.place() || !bytes.Equal(msg.name(), name) || !sc.demote(msg)) {
		sc.twins = append(sc.twins, file{name: string(name), place: sc.place, uid: msg.UID})
		return
	}
	sc.m.seen[i] = true
	if sc.place == inNew {
		sc.moves = append(sc.moves, msg.UID)
	}
	if sc.place == msg.place() && bytes.Equal(msg.name(), name) && (!sc.beyond || sc.m.marksOf(name).Equal(msg.Marks())) {
		sc.letters |= msg.Flags
		return
	}
	e := entryOf(msg)
	e.name, e.place, e.marks, e.base = string(name), sc.place, sc.m.marksOf(name), baseLen(name)
	sc.letters |= e.marks.Flags
	sc.changes = append(sc.changes, change{uid: msg.UID, entry: e})
}
