package faultfs

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// A State is a tree of files as programs see it, and with it what of that is
// durable.
//
// A file's data, size and times are durable after Sync, data and size after
// Datasync; the names in a directory after its Sync, and not before, whatever
// was synced besides. What one call did to one directory is done whole or not
// at all. A rename between two directories may be found half done, the file
// under both names, but never under none: on journaling file systems it is one
// transaction, on others the new name is written first.
type State struct {
	root  int
	keep  string // see FS.Record
	ids   map[key]int
	nodes []*node // by id
	seq   int
}

type node struct {
	id   key
	dir  bool
	mode uint32

	data, safe    []byte // of a file: what programs read; what is durable
	date, settled time.Time

	names, kept map[string]int // of a directory: the ids; those that are durable
	pending     []change       // of names, in their order
}

// A change is what one call did to the names of one directory.
type change struct {
	seq  int
	set  map[string]int // name to id; -1: removed
	need int            // seq of the change of another directory that comes first; 0: none
	in   int            // the id of that directory
}

// load reads the tree at root, and links its files to keep, unless that is empty.
func load(root, keep string) (*State, error) {
	s := &State{keep: keep, ids: map[key]int{}}
	d, err := vfs.Open(root)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	id, st, err := keyOf(d.Fd())
	if err != nil {
		return nil, err
	}
	s.root = s.add(id, st.Mode)
	return s, s.loadDir(d, s.root)
}

func (s *State) loadDir(d vfs.Dir, at int) error {
	entries, err := os.ReadDir(d.Path())
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, err := s.loadEntry(d, e)
		if err != nil {
			return err
		}
		s.nodes[at].names[e.Name()] = id
		s.nodes[at].kept[e.Name()] = id
	}
	return nil
}

func (s *State) loadEntry(d vfs.Dir, e os.DirEntry) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.Fd(), e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, err
	}
	if id, ok := s.ids[key{uint64(st.Dev), st.Ino}]; ok {
		return id, nil
	}
	id := s.add(key{uint64(st.Dev), st.Ino}, st.Mode)
	n := s.nodes[id]
	if n.dir {
		sub, err := d.OpenDir(e.Name())
		if err != nil {
			return 0, err
		}
		defer sub.Close()
		return id, s.loadDir(sub, id)
	}
	if s.keep != "" {
		if err := os.Link(d.Path()+"/"+e.Name(), n.id.in(s.keep)); err != nil {
			return 0, err
		}
	}
	data, _, err := vfs.ReadRegular(d, e.Name(), 1<<30)
	n.data, n.safe = data, data
	n.date = time.Unix(st.Mtim.Unix())
	n.settled = n.date
	return id, err
}

func (s *State) add(k key, mode uint32) int {
	n := &node{id: k, dir: mode&unix.S_IFMT == unix.S_IFDIR, mode: mode & 0o7777, date: time.Now()}
	if n.dir {
		n.names, n.kept = map[string]int{}, map[string]int{}
	}
	s.nodes = append(s.nodes, n)
	s.ids[k] = len(s.nodes) - 1
	return len(s.nodes) - 1
}

// at returns what has the key k. Something that was made outside of the record
// is a mistake of the test.
func (s *State) at(k key) *node {
	id, ok := s.ids[k]
	if !ok {
		panic(fmt.Sprintf("faultfs: inode %d came from elsewhere", k.ino))
	}
	return s.nodes[id]
}

func (s *State) child(dir key, name string) int {
	id, ok := s.at(dir).names[name]
	if !ok {
		panic("faultfs: " + name + " came from elsewhere")
	}
	return id
}

// change sets names of a directory.
func (s *State) change(dir key, c change) int {
	n := s.at(dir)
	s.seq++
	c.seq = s.seq
	n.pending = append(n.pending, c)
	n.apply(n.names, c)
	return c.seq
}

func (n *node) apply(names map[string]int, c change) {
	for name, id := range c.set {
		if id < 0 {
			delete(names, name)
		} else {
			names[name] = id
		}
	}
}

func (s *State) make(dir key, name string, k key, mode uint32) {
	s.change(dir, change{set: map[string]int{name: s.add(k, mode)}})
}

func (s *State) link(dir key, name string, to key, newname string) {
	s.change(to, change{set: map[string]int{newname: s.child(dir, name)}})
}

func (s *State) unlink(dir key, name string) {
	s.change(dir, change{set: map[string]int{name: -1}})
}

func (s *State) rename(dir key, name string, to key, newname string) {
	id := s.child(dir, name)
	switch {
	case dir != to:
		first := s.change(to, change{set: map[string]int{newname: id}})
		s.change(dir, change{set: map[string]int{name: -1}, need: first, in: s.ids[to]})
	case name != newname:
		s.change(dir, change{set: map[string]int{name: -1, newname: id}})
	}
}

func (s *State) syncDir(dir key) {
	n := s.at(dir)
	for _, c := range n.pending {
		if c.need > 0 {
			s.settle(s.nodes[c.in], c.need)
		}
		n.apply(n.kept, c)
	}
	n.pending = nil
}

// settle makes the changes of n durable up to the one with the number seq.
func (s *State) settle(n *node, seq int) {
	for len(n.pending) > 0 && n.pending[0].seq <= seq {
		c := n.pending[0]
		n.pending = n.pending[1:]
		if c.need > 0 {
			s.settle(s.nodes[c.in], c.need)
		}
		n.apply(n.kept, c)
	}
}

func (s *State) write(k key, p []byte, pos int64) {
	n := s.at(k)
	if pos < 0 {
		pos = int64(len(n.data))
	}
	data := slices.Clone(n.data)
	if gap := pos + int64(len(p)) - int64(len(data)); gap > 0 {
		data = append(data, make([]byte, gap)...)
	}
	copy(data[pos:], p)
	n.data, n.date = data, time.Now()
}

func (s *State) truncate(k key, size int64) {
	n := s.at(k)
	if size <= int64(len(n.data)) {
		n.data = slices.Clone(n.data[:size])
	} else {
		n.data = append(slices.Clone(n.data), make([]byte, size-int64(len(n.data)))...)
	}
	n.date = time.Now()
}

func (s *State) setTime(k key, t time.Time) { s.at(k).date = t }

func (s *State) setTimeAt(dir key, name string, t time.Time) { s.nodes[s.child(dir, name)].date = t }

func (s *State) chmod(k key, mode os.FileMode) { s.at(k).mode = uint32(mode.Perm()) }

func (s *State) syncFile(k key, times bool) {
	n := s.at(k)
	n.safe = n.data
	if times {
		n.settled = n.date
	}
}

// unsettled returns all changes of names that are not durable, in their order,
// and the directory of each.
func (s *State) unsettled() (all []change, in map[int]int) {
	in = map[int]int{}
	for id, n := range s.nodes {
		for _, c := range n.pending {
			all = append(all, c)
			in[c.seq] = id
		}
	}
	slices.SortFunc(all, func(a, b change) int { return a.seq - b.seq })
	return all, in
}

// with returns the names of each directory where of the changes that are not
// durable only those have been made for which keep is true, as far as what must
// come before them has.
func (s *State) with(keep func(c change, dir int) bool) []map[string]int {
	names := make([]map[string]int, len(s.nodes))
	for id, n := range s.nodes {
		names[id] = maps.Clone(n.kept)
	}
	type entry struct {
		dir  int
		name string
	}
	lost := map[entry]bool{} // a change of the name was left out
	left := map[int]bool{}   // by seq
	all, in := s.unsettled()
	for _, c := range all {
		dir := in[c.seq]
		ok := keep(c, dir) && !left[c.need]
		for name := range c.set {
			ok = ok && !lost[entry{dir, name}]
		}
		if ok {
			s.nodes[dir].apply(names[dir], c)
			continue
		}
		left[c.seq] = true
		for name := range c.set {
			lost[entry{dir, name}] = true
		}
	}
	return names
}
