package faultfs

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"imapd/maildir/vfs"
)

// A Tree is one of those that may be found after a power cut.
type Tree struct {
	Name string // what was lost
	s    *State
	data func(id int, n *node) []byte
	date func(n *node) time.Time
	in   []map[string]int
}

// lots is how many trees of Cuts leave to chance what is lost.
const lots = 3

// Cuts returns trees that may be found if the power fails now. All file
// systems keep what was synced; they differ in what else they keep:
//
//   - nothing else: what POSIX promises, and the worst for what was made;
//   - all of it, as after a kill;
//   - all names, but of files that were not synced no data, half of it, or its
//     length in NULs (delayed allocation);
//   - the first half of the names, in the order of the calls (a journal);
//   - the names of one directory alone, or those of all but one, in any order
//     towards the others (log trees, soft updates);
//   - each name by lot, in its own order only. The lots come from seed.
//
// Times that were not synced become those of the cut. Trees that are the same
// come once.
func (s *State) Cuts(seed uint64) []*Tree {
	all, in := s.unsettled()
	every := func(change, int) bool { return true }
	none := func(change, int) bool { return false }
	lost := func(_ int, n *node) []byte { return n.safe }
	whole := func(_ int, n *node) []byte { return n.data }
	trees := []*Tree{
		s.tree("nothing but what was synced", none, lost),
		s.tree("everything", every, whole),
		s.tree("all names, no data", every, lost),
		s.tree("all names, half of the data", every, func(_ int, n *node) []byte { return n.half() }),
		s.tree("all names, NULs for data", every, func(_ int, n *node) []byte { return n.zeros() }),
	}
	if len(all) > 1 {
		middle := all[len(all)/2].seq
		first := func(c change, _ int) bool { return c.seq < middle }
		trees = append(trees, s.tree("half of the names", first, whole), s.tree("half of the names, no data", first, lost))
	}
	dirs := []int{}
	for _, c := range all {
		if d := in[c.seq]; !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	for _, d := range dirs {
		trees = append(trees,
			s.tree(fmt.Sprintf("names of directory %d alone", d), func(_ change, at int) bool { return at == d }, whole),
			s.tree(fmt.Sprintf("names of all but directory %d", d), func(_ change, at int) bool { return at != d }, whole))
	}
	for i := range lots {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		trees = append(trees, s.tree(fmt.Sprintf("lot %d", i), func(change, int) bool { return r.IntN(2) == 0 },
			func(id int, n *node) []byte {
				return [][]byte{n.data, n.safe, n.half(), n.zeros()}[(int(seed)+id*7+i)%4]
			}))
	}
	seen := map[uint64]bool{}
	return slices.DeleteFunc(trees, func(t *Tree) bool {
		k := t.Key()
		defer func() { seen[k] = true }()
		return seen[k]
	})
}

func (s *State) tree(name string, keep func(change, int) bool, data func(int, *node) []byte) *Tree {
	whole := name == "everything"
	return &Tree{Name: name, s: s, in: s.with(keep), data: data, date: func(n *node) time.Time {
		if whole {
			return n.date
		}
		return n.settled
	}}
}

// common returns how many octets in front are the same in both versions.
func (n *node) common() int {
	i := 0
	for i < len(n.data) && i < len(n.safe) && n.data[i] == n.safe[i] {
		i++
	}
	return i
}

// half is the new data as far as the middle of what is new.
func (n *node) half() []byte {
	i := n.common()
	return n.data[:i+(len(n.data)-i)/2]
}

// zeros is the new data with NULs in place of what is new.
func (n *node) zeros() []byte {
	b := make([]byte, len(n.data))
	copy(b, n.data[:n.common()])
	return b
}

var seed = maphash.MakeSeed()

// Key tells trees apart.
func (t *Tree) Key() uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	t.hash(&h, t.s.root, 0)
	return h.Sum64()
}

func (t *Tree) hash(h *maphash.Hash, id, depth int) {
	n := t.s.nodes[id]
	if !n.dir {
		data := t.data(id, n)
		maphash.WriteComparable(h, [4]int64{int64(id), int64(n.mode), t.date(n).Unix(), int64(len(data))})
		h.Write(data)
		return
	}
	names := sorted(t.in[id])
	maphash.WriteComparable(h, [2]int{int(n.mode), len(names)})
	for _, name := range names {
		maphash.WriteComparable(h, name)
		if depth < 100 {
			t.hash(h, t.in[id][name], depth+1)
		}
	}
}

func sorted(m map[string]int) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Write makes the tree at path, an empty directory. Two names of one file are
// that again. Inode numbers are new, as in a copy: what the code above wrote down
// by inode number it does not find, though it would after a power cut. See Return.
func (t *Tree) Write(path string) error {
	d, err := vfs.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	w := writer{Tree: t, now: time.Now(), made: map[int]placed{}}
	defer func() {
		for _, sub := range w.open {
			sub.Close()
		}
	}()
	return w.dir(d, t.s.root)
}

// placed is where a file has its first name.
type placed struct {
	dir  vfs.Dir
	name string
}

type writer struct {
	*Tree
	now  time.Time
	made map[int]placed
	open []vfs.Dir // kept for links to what is in them
}

func (w *writer) dir(d vfs.Dir, id int) error {
	for _, name := range sorted(w.in[id]) {
		if err := w.entry(d, name, w.in[id][name]); err != nil {
			return fmt.Errorf("%s/%s: %w", d.Path(), name, err)
		}
	}
	return nil
}

func (w *writer) entry(d vfs.Dir, name string, id int) error {
	n := w.s.nodes[id]
	first, again := w.made[id]
	switch {
	case again && n.dir: // a directory has one name
		return nil
	case again:
		return first.dir.Link(first.name, d, name)
	}
	if n.dir {
		if err := d.Mkdir(name, os.FileMode(n.mode)); err != nil {
			return err
		}
	}
	w.made[id] = placed{d, name}
	if !n.dir {
		return w.file(d, name, id, n)
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	w.open = append(w.open, sub)
	return w.dir(sub, id)
}

func (w *writer) file(d vfs.Dir, name string, id int, n *node) error {
	f, err := d.Create(name, os.FileMode(n.mode))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(w.data(id, n)); err != nil {
		return err
	}
	date := w.date(n)
	if date.IsZero() {
		date = w.now
	}
	return f.SetTime(date)
}

// Load reads the tree at path, to be written elsewhere.
func Load(path string) (*Tree, error) {
	s, err := load(path, "")
	if err != nil {
		return nil, err
	}
	return s.tree("everything", func(change, int) bool { return true }, func(_ int, n *node) []byte { return n.data }), nil
}
