package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// validityName is the counter for UIDVALIDITY, shared with Dovecot: its value N
// is in the name of the empty file dovecot-uidvalidity.N (8 hex digits), and
// the next one is taken by renaming that file, which only one can do. The file
// without suffix holds a copy, so that nobody has to look for the name.
const validityName = "dovecot-uidvalidity"

// validityTries is how many values are tried after another has taken ours.
const validityTries = 10

// NextValidity returns a UIDVALIDITY that no folder of the tree has had, durably.
// The first one is the time in seconds since 1970.
func (t *Tree) NextValidity() (uint32, error) {
	base, err := t.OpenUser()
	if err != nil {
		return 0, err
	}
	defer base.Close()
	v, err := takeValidity(base)
	if err != nil {
		return 0, fmt.Errorf("next UIDVALIDITY: %w", err)
	}
	if err := base.Sync(); err != nil {
		return 0, err
	}
	err = writeValidity(base, v)
	if noRegular(err) { // the counter is right without it
		if t.log != nil {
			t.log.Warn("something else is in the place of the copy of the UIDVALIDITY counter", "err", err)
		}
		err = nil
	}
	return v, err
}

// noRegular reports whether err says that a name is that of a directory, a link, a FIFO
// or a device, none of which is followed or waited for.
func noRegular(err error) bool {
	return errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENXIO)
}

// takeValidity renames the counter.
func takeValidity(base vfs.Dir) (uint32, error) {
	if b, _, err := vfs.ReadRegular(base, validityName, 64); err == nil {
		if v, ok := parseValidity(string(b)); ok {
			v, err := countUp(base, v)
			if !errors.Is(err, fs.ErrNotExist) {
				return v, err
			}
		}
	}
	for range validityTries {
		v, err := searchValidity(base)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			return v, err
		}
	}
	return 0, errors.New("the counter changes all the time")
}

// countUp renames the counter from v, or the values that others made it
// meanwhile. It fails with fs.ErrNotExist where it has none of them.
func countUp(base vfs.Dir, v uint32) (uint32, error) {
	var err error
	for range validityTries {
		next := v + 1
		if next == 0 || next == math.MaxUint32 {
			next = 1
		}
		err = base.Rename(counterName(v), base, counterName(next))
		if !errors.Is(err, fs.ErrNotExist) {
			return next, err
		}
		v = next
	}
	return 0, err
}

// searchValidity finds the counter among the names of base, and makes the
// first. Of several, which a restored backup may bring, the highest counts.
func searchValidity(base vfs.Dir) (uint32, error) {
	names, err := vfs.ReadNames(base)
	if err != nil {
		return 0, err
	}
	highest, found := uint32(0), false
	for _, n := range names {
		if digits, ok := strings.CutPrefix(n, validityName+"."); ok {
			if v, ok := parseValidity(digits); ok {
				highest, found = max(highest, v), true
			}
		}
	}
	if found {
		return countUp(base, highest)
	}
	v := uint32(time.Now().Unix())
	f, err := vfs.CreateLike(base, counterName(v))
	if err != nil {
		return 0, err
	}
	return v, errors.Join(f.Chmod(0o444), f.Close()) // as Dovecot has it
}

func counterName(v uint32) string { return fmt.Sprintf("%s.%08x", validityName, v) }

func parseValidity(s string) (uint32, bool) {
	if len(s) != 8 {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 16, 32)
	return uint32(v), err == nil && v > 0
}

// writeValidity writes the copy. It is not made durable: one that is too low,
// or torn, costs its reader a search.
func writeValidity(base vfs.Dir, v uint32) error {
	f, err := base.Append(validityName)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = vfs.CreateLike(base, validityName)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // another has made it just now, and writes
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.Write(fmt.Appendf(nil, "%08x", v))
	return err
}
