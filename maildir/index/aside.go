package index

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// BrokenName is where an index is kept that was of no use. There is one: the last.
const BrokenName = Name + ".broken"

// newer is the version of an index that a server which is to come has written: for
// us it is as good as damaged.
type newer uint32

func (v newer) Error() string        { return fmt.Sprintf("version %d is newer than %d", uint32(v), version) }
func (v newer) Is(target error) bool { return target == ErrDamaged }

// SetAside renames the index, which Load has found damaged, to BrokenName. The lock
// is held since before that Load. A server that has it open, and can use it, finds it
// replaced.
func (f *File) SetAside() error {
	err := f.Dir.Rename(Name, f.Dir, BrokenName)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTDIR) { // one of the two is a directory
		if f.Dir.Unlink(BrokenName) != nil {
			f.Dir.Rmdir(BrokenName)
		}
		err = f.Dir.Rename(Name, f.Dir, BrokenName)
	}
	return err
}
