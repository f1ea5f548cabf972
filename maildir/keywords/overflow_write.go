package keywords

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Add gives the keywords names the next numbers and says which keywords the
// messages of sets have from now on, durably or not at all. The caller holds
// the lock of the folder's list and has Read the file under it. A folder without
// the file gets one.
func (o *Overflow) Add(dir vfs.Dir, names []string, sets []Set) error {
	if len(names) == 0 && len(sets) == 0 {
		return nil
	}
	var b []byte
	for i, name := range names {
		n := len(o.names) + i
		if !Possible(name) || n > maxNumber {
			return fmt.Errorf("imapd-keywords: no keyword: %d %q", n, name)
		}
		b = appendName(b, n, name)
	}
	for _, s := range sets {
		if n := len(s.Numbers); !validBase(s.Base) || !slices.IsSorted(s.Numbers) || n > 0 && s.Numbers[n-1] > maxNumber {
			return fmt.Errorf("imapd-keywords: no entry: %v %q", s.Numbers, s.Base)
		}
		b = appendSet(b, s)
	}
	return o.add(dir, b)
}

// RaiseCeiling makes Ceiling return at least c, durably, in this process and in
// those that come after. The caller holds the lock and has Read the file.
func (o *Overflow) RaiseCeiling(dir vfs.Dir, c uint64) error {
	if c <= o.ceiling {
		return nil
	}
	return o.add(dir, appendCeiling(nil, c))
}

// add appends lines.
func (o *Overflow) add(dir vfs.Dir, b []byte) error {
	if o.future {
		return fmt.Errorf("%s/%s: %w: a later version wrote it", dir.Path(), OverflowName, ErrOverflow)
	}
	if o.stat == (overflowStat{}) || o.torn || o.foreign {
		return o.rewrite(dir, func(string) bool { return true }, b)
	}
	f, err := dir.Append(OverflowName)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(f.Fd(), &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir.Path() + "/" + OverflowName, Err: err}
	}
	if err := o.expect(dir, st); err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Datasync()
	}
	if err != nil {
		// What was written of it is not what clients are told.
		return errors.Join(err, f.Truncate(o.size))
	}
	if err := unix.Fstat(f.Fd(), &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir.Path() + "/" + OverflowName, Err: err}
	}
	o.stat = overflowStatOf(&st)
	o.take(b)
	return nil
}

// expect refuses to change a file that is not as it was read: somebody does not
// respect the lock.
func (o *Overflow) expect(dir vfs.Dir, st unix.Stat_t) error {
	if overflowStatOf(&st) != o.stat {
		return &os.PathError{Op: "append", Path: dir.Path() + "/" + OverflowName, Err: unix.EAGAIN}
	}
	return nil
}

// Compact writes the file anew with one line for each message that has keywords,
// without those for whose base name keep returns false: the caller has proof that
// they are gone, and holds the lock.
func (o *Overflow) Compact(dir vfs.Dir, keep func(base string) bool) error {
	if o.future || o.stat == (overflowStat{}) {
		return nil
	}
	return o.rewrite(dir, keep, nil)
}

// rewrite replaces the file by what is known and kept of it, followed by more.
func (o *Overflow) rewrite(dir vfs.Dir, keep func(base string) bool, more []byte) error {
	old, err := o.whole(dir)
	if err != nil {
		return err
	}
	b := append(o.encode(o.listSets(old), keep), more...)
	if o.foreign {
		// It may be worth something to whoever put it there.
		dir.Unlink(overflowBroken)
		dir.Link(OverflowName, dir, overflowBroken)
	}
	st, err := replaceOverflow(dir, b)
	if err != nil {
		return err
	}
	o.reset()
	o.stat = st
	o.take(b)
	return nil
}

// encode returns the file that says what o knows of names and the ceiling, and
// those of sets that are kept.
func (o *Overflow) encode(sets []Set, keep func(base string) bool) []byte {
	b := appendIdentity([]byte(overflowHead))
	if o.ceiling > 0 {
		b = appendCeiling(b, o.ceiling)
	}
	for n, name := range o.names {
		if name != "" {
			b = appendName(b, n, name)
		}
	}
	for _, s := range sets {
		if len(s.Numbers) > 0 && keep(s.Base) {
			b = appendSet(b, s)
		}
	}
	return b
}

// whole reads the file as it was read last.
func (o *Overflow) whole(dir vfs.Dir) ([]byte, error) {
	if o.stat == (overflowStat{}) {
		return nil, nil
	}
	fd, st, err := vfs.OpenRegular(dir, OverflowName)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := o.expect(dir, st); err != nil {
		return nil, err
	}
	b, err := tail(fd, 0, st.Size)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: dir.Path() + "/" + OverflowName, Err: err}
	}
	return b, nil
}

// listSets returns the sets of a whole file with their base names, in its order.
func (o *Overflow) listSets(b []byte) []Set {
	var sets []Set
	at := map[string]int{}
	for line := range bytes.Lines(b) {
		r, ok := parseRecord(bytes.TrimSuffix(line, []byte{'\n'}))
		if !ok || r.kind != 'S' || line[len(line)-1] != '\n' {
			continue
		}
		numbers, ok := o.intern(r.numbers)
		if !ok {
			continue
		}
		i, seen := at[r.text]
		if !seen {
			i = len(sets)
			at[r.text] = i
			sets = append(sets, Set{Base: r.text})
		}
		sets[i].Numbers = numbers
	}
	return sets
}

// replaceOverflow writes the new file beside the old one, so that a crash leaves
// one of the two.
func replaceOverflow(dir vfs.Dir, b []byte) (overflowStat, error) {
	var none overflowStat
	if err := dir.Unlink(overflowTmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return none, err
	}
	f, err := vfs.CreateLike(dir, overflowTmp)
	if err != nil {
		return none, err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		err = dir.Rename(overflowTmp, dir, OverflowName)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(f.Fd(), &st)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		dir.Unlink(overflowTmp)
		return none, err
	}
	return overflowStatOf(&st), dir.Sync()
}

func appendIdentity(b []byte) []byte {
	return vfs.AppendSealed(b, func(b []byte) []byte { return fmt.Appendf(b, "I %016x", rand.Uint64()) })
}

func appendName(b []byte, number int, name string) []byte {
	return vfs.AppendSealed(b, func(b []byte) []byte {
		b = strconv.AppendInt(append(b, "K "...), int64(number), 10)
		return append(append(b, ' '), name...)
	})
}

func appendCeiling(b []byte, c uint64) []byte {
	return vfs.AppendSealed(b, func(b []byte) []byte { return strconv.AppendUint(append(b, "C "...), c, 10) })
}

func appendSet(b []byte, s Set) []byte {
	return vfs.AppendSealed(b, func(b []byte) []byte {
		b = append(b, "S "...)
		for i, n := range s.Numbers {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(b, uint64(n), 10)
		}
		if len(s.Numbers) == 0 {
			b = append(b, '-')
		}
		return append(append(b, ' '), s.Base...)
	})
}
