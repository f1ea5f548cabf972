// Package dovecotindex reads, and never writes, Dovecot's own record of a
// folder: dovecot.index and its logs. Two facts about a folder stand nowhere
// else: the keywords for which no letter was left (the 27th and later), and how
// far modification sequences have been told to clients.
//
// # The files
//
// dovecot.index holds a header, extensions with a name each, and a record of
// fixed size for each message, UIDs ascending. Everything that happens is
// appended to dovecot.index.log; dovecot.index is rewritten from time to time,
// says up to which octet of which log it is complete, and need not exist at all.
// A log that has grown is renamed to dovecot.index.log.2 and a new one begun;
// both carry a sequence number and the id of the index that they belong to.
// Numbers are little-endian.
//
// What happens to flags that file names show is passed over: the files are
// the truth about those.
//
// # Damage
//
// The files are a cache in Dovecot's eyes, and it does not mind losing them.
// What comes before the first octet that makes no sense counts, and the error
// says that there was one. Whatever the files hold, the time and memory that
// they can cost is bounded.
package dovecotindex

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Names of the files in a folder. Dovecot can be told to keep them elsewhere.
const (
	indexName = "dovecot.index"
	logName   = "dovecot.index.log"
	oldName   = "dovecot.index.log.2"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrDamaged says that a file is none, or not whole.
	ErrDamaged = errors.New("index cannot be understood")
	// ErrOther says that the files tell of another UIDVALIDITY than the list.
	ErrOther = errors.New("index is of another mailbox")
)

// An Index is what Dovecot knew. The zero Index knows nothing.
type Index struct {
	// HighestModSeq is at least the HIGHESTMODSEQ that Dovecot told any client.
	HighestModSeq uint64
	Keywords      []Keyword // in Dovecot's order; some may be of no message
	Written       int64     // when the files were last, in nanoseconds since 1970
}

// A Keyword is the set of messages that have one keyword.
type Keyword struct {
	Name string
	set  set
	all  []uint32 // UIDs by bit
}

// UIDs yields the UIDs of the messages that have the keyword, ascending.
func (k Keyword) UIDs() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i := range k.set.numbers() {
			if !yield(k.all[i]) {
				return
			}
		}
	}
}

// Read reads the index files in dir of a mailbox whose UIDVALIDITY is validity.
// Where there are none the Index is zero, and that is no error. What was
// understood is returned with ErrDamaged too; not with ErrOther.
func Read(dir vfs.Dir, validity uint32) (Index, error) {
	const tries = 3
	for try := 1; ; try++ {
		s, err := read(dir)
		if errors.Is(err, errRotated) && try < tries {
			continue
		}
		switch v := s.validity(); {
		case err != nil && !errors.Is(err, ErrDamaged):
			return Index{}, fmt.Errorf("%s: %w", dir.Path(), err)
		case v != 0 && v != validity:
			return Index{}, fmt.Errorf("%s: %w: UIDVALIDITY %d, not %d", dir.Path(), ErrOther, v, validity)
		case err != nil:
			err = fmt.Errorf("%s: %w", dir.Path(), err)
		}
		if s.validity() == 0 {
			return Index{HighestModSeq: s.modseq}, err // made, and not used yet
		}
		x := s.index()
		x.Written = written(dir)
		return x, err
	}
}

// In reports whether there are index files in dir.
func In(dir vfs.Dir) bool { return written(dir) > 0 }

// written returns when the last change of the index was written, 0 if there is none.
func written(dir vfs.Dir) (last int64) {
	for _, name := range []string{indexName, logName} {
		var st unix.Stat_t
		if unix.Fstatat(dir.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			last = max(last, 1, st.Mtim.Nano())
		}
	}
	return last
}

// errRotated says that a log was rotated while we read.
var errRotated error = rotated{}

type rotated struct{}

func (rotated) Error() string        { return ErrDamaged.Error() + ": its log changes all the time" }
func (rotated) Is(target error) bool { return target == ErrDamaged }

// read reads all three files, the one that is rewritten first.
func read(dir vfs.Dir) (*state, error) {
	s := &state{}
	ierr := s.readIndex(dir)
	if errors.Is(ierr, fs.ErrNotExist) {
		ierr = nil
	}
	if ierr != nil {
		*s = state{} // the logs may hold everything
	}
	cur, cerr := readLog(dir, logName)
	old, oerr := readLog(dir, oldName)
	if cur != nil && old != nil && old.seq >= cur.seq {
		return s, errRotated
	}
	if s.id == 0 && cur != nil {
		s.id = cur.id
	}
	err := errors.Join(ierr, cerr, oerr)
	for _, l := range []*log{old, cur} {
		if l == nil || l.id != s.id {
			continue // what a crash or a rebuilt index left behind
		}
		if aerr := s.apply(l); aerr != nil {
			return s, errors.Join(err, aerr)
		}
	}
	return s, err
}

func readLog(dir vfs.Dir, name string) (*log, error) {
	b, _, err := vfs.ReadRegular(dir, name, maxLog)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unusable(err)
	}
	l, err := parseLog(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

// unusable makes damage of what is wrong with a file that cannot be read
// because of what it is: too large, a link, a FIFO.
func unusable(err error) error {
	for _, e := range []error{unix.EFBIG, unix.EINVAL, unix.ELOOP, unix.ENXIO} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	return err
}

// readIndex reads dovecot.index.
func (s *state) readIndex(dir vfs.Dir) error {
	fd, st, err := vfs.OpenRegular(dir, indexName)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return unusable(err)
	}
	defer unix.Close(fd)
	if err := s.parseIndex(reader{descriptor(fd), st.Size}); err != nil {
		return fmt.Errorf("%s: %w", indexName, err)
	}
	return nil
}

// A reader reads parts of a file of which size octets count.
type reader struct {
	file io.ReaderAt
	size int64
}

// at fills b from offset off; a file that ends before is damaged.
func (r reader) at(b []byte, off int64) error {
	if off+int64(len(b)) > r.size {
		return damaged("it is too short")
	}
	if _, err := r.file.ReadAt(b, off); err != nil {
		return damaged("it cannot be read: " + err.Error())
	}
	return nil
}

// A descriptor is an open file, as an io.ReaderAt.
type descriptor int

func (fd descriptor) ReadAt(b []byte, off int64) (int, error) { return vfs.ReadFullAt(int(fd), b, off) }

func damaged(why string) error { return fmt.Errorf("%w: %s", ErrDamaged, why) }
