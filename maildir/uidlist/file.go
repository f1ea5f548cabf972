package uidlist

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// maxSize is the largest list that is read, and maxLines how many lines of it are: five
// million messages whose names have 200 octets. Each line costs memory, also that of a
// message that is gone.
const (
	maxSize  = 1 << 30
	maxLines = 1 << 23
)

// ErrTorn says that nothing can be appended because the file is empty or does
// not end in a LF: read it again under the lock, and Rewrite it.
var ErrTorn = errors.New("dovecot-uidlist: last line is torn")

// ErrChanged says that nothing was appended because the file is not as it was read:
// somebody has written to it without the lock, or the lock was taken from us.
var ErrChanged = errors.New("dovecot-uidlist: written to without the lock")

// ErrNoFile says that what has the name of the list cannot be one: it is no regular
// file, or larger than any list that is read.
var ErrNoFile = errors.New("dovecot-uidlist: no file that can be a list")

// A Stat tells one state of the file from another. Dev and Ino only mean
// something while a descriptor keeps the file alive: inode numbers are used
// again at once.
type Stat struct {
	Dev, Ino         uint64
	Size             int64
	MtimeNs, CtimeNs int64
}

// SameFile reports whether s and o are states of one file.
func (s Stat) SameFile(o Stat) bool { return s.Dev == o.Dev && s.Ino == o.Ino }

func statOf(st *unix.Stat_t) Stat {
	return Stat{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}

// StatFile says what the list of dir looks like now, without opening it. It
// fails with fs.ErrNotExist where there is none, and with ErrNoFile.
func StatFile(dir vfs.Dir) (Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir.Fd(), Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Stat{}, &os.PathError{Op: "stat", Path: dir.Path() + "/" + Name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxSize {
		return Stat{}, fmt.Errorf("%s: %w", dir.Path(), ErrNoFile)
	}
	return statOf(&st), nil
}

// A File is a list that is open for reading. Keeping it open keeps its inode
// number from being used again. It is not safe for use by several goroutines.
type File struct {
	fd   int
	path string
}

// Open opens the list of dir, a regular file and no symbolic link. It fails
// with fs.ErrNotExist where there is none.
func Open(dir vfs.Dir) (*File, error) {
	fd, _, err := vfs.OpenRegular(dir, Name)
	if err != nil {
		return nil, err
	}
	return &File{fd, dir.Path() + "/" + Name}, nil
}

// Close gives the descriptor back.
func (f *File) Close() error { return unix.Close(f.fd) }

// Stat returns the state of the open file, which may have been replaced by
// another meanwhile.
func (f *File) Stat() (Stat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return Stat{}, &os.PathError{Op: "stat", Path: f.path, Err: err}
	}
	return statOf(&st), nil
}

// ends is how much of either end of what was read Mark looks at.
const ends = 4096

// Mark returns a checksum of how the first size octets begin and end. A list that was
// written anew, and has grown beyond size since, has another header than one to which
// lines were appended only, or other lines before that place.
func (f *File) Mark(size int64) (uint32, error) {
	st, err := f.readable()
	if err != nil {
		return 0, err
	}
	if size < 0 || size > st.Size {
		return 0, fmt.Errorf("%s: %w", f.path, ErrTorn)
	}
	var b [2 * ends]byte
	n := min(size, ends)
	for i, off := range []int64{0, size - n} {
		if _, err := vfs.ReadFullAt(f.fd, b[int64(i)*n:int64(i+1)*n], off); err != nil {
			return 0, &os.PathError{Op: "read", Path: f.path, Err: err}
		}
	}
	return crc32.Checksum(b[:2*n], crc32.MakeTable(crc32.Castagnoli)), nil
}

// ReadFile opens, reads and closes the list of dir, and keeps all of it in memory. The
// error is ErrHeader as from Parse, or that of the read.
func ReadFile(dir vfs.Dir) (List, Stat, error) {
	f, err := Open(dir)
	if err != nil {
		return List{}, Stat{}, err
	}
	defer f.Close()
	var p parser
	l, st, err := f.Each(func(e Entry) {
		p.entries = append(p.entries, Entry{e.UID, strings.Clone(e.Base), strings.Clone(e.Extra)})
	})
	p.damage.Renumber = l.Damage.Renumber
	p.unique()
	l.Entries, l.Damage.Renumber = p.entries, p.damage.Renumber
	return l, st, err
}

// Append adds entries, UIDs ascending and above all in the file, to the list of
// dir in one write and makes them durable. The caller holds the lock and has
// read the whole file under it, when it was as old says: one that has another inode
// or size now is left alone, and the error is ErrChanged. Two writers at a time,
// because somebody has removed the lock file, would give one UID twice. Where the
// file does not end in a LF nothing is written and the error is ErrTorn; where the
// write fails, what was written of it is cut off again. The Stat is that of the file
// afterwards.
func Append(dir vfs.Dir, old Stat, entries []Entry) (Stat, error) {
	b, free := lineBuffer(len(entries))
	defer free()
	for _, e := range entries {
		if err := check(e); err != nil {
			return Stat{}, err
		}
		b = AppendEntry(b, e)
	}
	f, err := dir.Append(Name)
	if err != nil {
		return Stat{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(f.Fd(), &st); err != nil {
		return Stat{}, &os.PathError{Op: "stat", Path: dir.Path() + "/" + Name, Err: err}
	}
	if now := statOf(&st); !now.SameFile(old) || now.Size != old.Size {
		return now, fmt.Errorf("%s: %w", dir.Path(), ErrChanged)
	}
	var last [1]byte
	if st.Size == 0 {
		return statOf(&st), ErrTorn
	}
	if _, err := f.ReadAt(last[:], st.Size-1); err != nil {
		return Stat{}, err
	}
	if last[0] != '\n' {
		return statOf(&st), ErrTorn
	}
	if err := writeAll(f, b, st.Size); err != nil {
		return Stat{}, err
	}
	if err := unix.Fstat(f.Fd(), &st); err != nil {
		return Stat{}, &os.PathError{Op: "stat", Path: dir.Path() + "/" + Name, Err: err}
	}
	if st.Size != old.Size+int64(len(b)) {
		return Stat{}, fmt.Errorf("%s: %w", dir.Path(), ErrChanged)
	}
	return statOf(&st), nil
}

// lineBuffer returns an empty buffer for n lines of usual length. What is there for
// many lines at a time is not left to the garbage collector, which would wait until
// there is as much of it as of all else.
func lineBuffer(n int) (b []byte, free func()) {
	size := 80 * n
	if size < 1<<20 {
		return make([]byte, 0, size), func() {}
	}
	b, free = vfs.Buffer[byte](size)
	return b[:0], free
}

// writeAll appends b to f, whose size is size, durably or not at all.
func writeAll(f vfs.File, b []byte, size int64) error {
	_, err := f.Write(b)
	if err == nil {
		err = f.Datasync()
	}
	if err == nil {
		return nil
	}
	if cut := f.Truncate(size); cut != nil {
		return errors.Join(err, cut)
	}
	return err
}

// check refuses what would make the list unreadable.
func check(e Entry) error {
	if e.UID == 0 || e.UID > MaxUID || !ValidBase(e.Base) {
		return fmt.Errorf("dovecot-uidlist: no entry: uid %d, name %q", e.UID, e.Base)
	}
	if !plainFields(e.Extra) {
		return fmt.Errorf("dovecot-uidlist: no fields: %q", e.Extra)
	}
	return nil
}

// plainFields reports whether extra can stand behind a UID.
func plainFields(extra string) bool {
	return extra == "" || extra[0] == ' ' && plain(extra)
}

func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == '\n' || s[i] == '\r' || s[i] == 0 || s[i] == ' ' && i+1 < len(s) && s[i+1] == ':' {
			return false
		}
	}
	return true
}

// Sync makes what the list of dir says durable, whoever wrote it: UIDs that
// another program gave may be told to clients only then.
func Sync(dir vfs.Dir) error {
	f, err := dir.Append(Name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Datasync()
}

// Broken is the name that SetAside gives, or the beginning of one.
const Broken = Name + ".broken"

// SetAside renames what has the name of the list in dir and cannot be one, and returns
// how it is called now: Broken, or if that is taken Broken with a full stop and serial,
// which nothing is called. A FIFO or a device that may not be renamed is removed, and
// name is empty: to rename it takes the right to make one, which landlock(7) may have
// taken, and it holds nothing. The caller holds the lock.
func SetAside(dir vfs.Dir, serial string) (name string, err error) {
	for _, name := range []string{Broken, Broken + "." + serial} {
		if err = dir.RenameNoReplace(Name, dir, name); err == nil {
			return name, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	var st unix.Stat_t
	if errors.Is(err, fs.ErrPermission) && unix.Fstatat(dir.Fd(), Name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
			return "", dir.Unlink(Name)
		}
	}
	return "", err
}

const tmpName = Name + ".tmp"

// Rewrite replaces the list of dir by l in version 3, durably, with the mode
// and group of the folder. The caller holds the lock. l gets a GUID if it has
// none, and is then the list that is in the file: Version, Size, Lines and
// Damage say so. The Stat is that of the new file.
func Rewrite(dir vfs.Dir, l *List) (Stat, error) {
	if n := len(l.Entries); n > 0 && l.Next <= l.Entries[n-1].UID {
		l.Next = l.Entries[n-1].UID + 1
	}
	st, err := RewriteEach(dir, &l.Header, func(write func(Entry) error) error {
		for _, e := range l.Entries {
			if err := check(e); err != nil {
				return err
			}
			if err := write(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Stat{}, err
	}
	l.Size, l.Lines, l.Damage = st.Size, len(l.Entries), Damage{}
	return st, nil
}

// RewriteEach is Rewrite for a list that is in memory nowhere: each writes its entries,
// UIDs ascending and below h.Next, and ends with the error that it gets. Fields of
// theirs that no list can have are left out.
func RewriteEach(dir vfs.Dir, h *Header, each func(write func(Entry) error) error) (Stat, error) {
	if h.Validity == 0 {
		return Stat{}, errors.New("dovecot-uidlist: no UIDVALIDITY to write")
	}
	if h.GUID == "" {
		h.GUID = NewGUID()
	}
	h.Version, h.Next = 3, max(h.Next, 1)
	return replace(dir, func(w io.Writer) error {
		out := bufio.NewWriterSize(w, streamBuffer)
		out.Write(h.AppendHeader(nil)) // an error sticks
		last, line := uint32(0), []byte(nil)
		err := each(func(e Entry) error {
			if !plainFields(e.Extra) {
				e.Extra = ""
			}
			if err := check(e); err != nil {
				return err
			}
			if e.UID <= last || e.UID >= h.Next {
				return fmt.Errorf("dovecot-uidlist: uid %d between %d and %d", e.UID, last, h.Next)
			}
			last, line = e.UID, AppendEntry(line[:0], e)
			_, err := out.Write(line)
			return err
		})
		if err != nil {
			return err
		}
		return out.Flush()
	})
}

// replace writes the new file beside the old one, so that a crash leaves one
// of the two.
func replace(dir vfs.Dir, write func(io.Writer) error) (Stat, error) {
	if err := dir.Unlink(tmpName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Stat{}, err
	}
	f, err := vfs.CreateLike(dir, tmpName)
	if err != nil {
		return Stat{}, err
	}
	st, err := fill(dir, f, write)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		dir.Unlink(tmpName)
		return Stat{}, err
	}
	return st, dir.Sync()
}

func fill(dir vfs.Dir, f vfs.File, write func(io.Writer) error) (Stat, error) {
	if err := write(f); err != nil {
		return Stat{}, err
	}
	if err := f.Datasync(); err != nil {
		return Stat{}, err
	}
	if err := dir.Rename(tmpName, dir, Name); err != nil {
		return Stat{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.Fd(), &st); err != nil {
		return Stat{}, &os.PathError{Op: "stat", Path: dir.Path() + "/" + Name, Err: err}
	}
	return statOf(&st), nil
}
