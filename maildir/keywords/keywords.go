// Package keywords reads and writes dovecot-keywords, the file that names the
// keyword letters a to z in the file names of a Maildir folder.
//
// Each line is "<index> <name>", index 0 for the letter a to 25 for z.
package keywords

import (
	"bytes"
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Name is the file's name in a folder (in its control directory).
const Name = "dovecot-keywords"

// lockName is the name under which a new file is written.
const lockName = Name + ".lock"

// maxSize is far above what 26 keywords need.
const maxSize = 1 << 20

// ErrLetters says that the file cannot be read: it is no regular file, or too large, or
// not ours to read. So nobody knows what letters mean, and none may be given a name.
var ErrLetters = errors.New("dovecot-keywords cannot be used")

// Letters is the number of keywords that file names can carry.
const Letters = 26

// A Table holds the keyword of each letter, "" where it has none.
type Table [Letters]string

// Index returns the index of the letter of a keyword, without regard to case,
// or -1.
func (t *Table) Index(keyword string) int {
	if keyword == "" {
		return -1
	}
	for i, k := range t {
		if fold(k) == fold(keyword) {
			return i
		}
	}
	return -1
}

// fold makes names that differ in the case of ASCII letters only the same.
func fold(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Free returns the lowest index without a keyword, or -1.
func (t *Table) Free() int {
	for i, k := range t {
		if k == "" {
			return i
		}
	}
	return -1
}

// Parse reads the file. The first line that has a name wins, then the last
// that has an index; lines that say neither, and indexes above 25, are
// skipped. A name reaches to the end of its line: one that was written by hand
// may hold blanks or other characters that IMAP does not allow in a keyword.
func Parse(data []byte) Table {
	var t Table
	seen := map[string]bool{}
	for line := range bytes.Lines(data) {
		if len(line) == 0 || line[len(line)-1] != '\n' {
			break // torn
		}
		number, name, ok := strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
		index, err := strconv.ParseUint(number, 10, 16)
		if !ok || err != nil || index >= Letters || name == "" || strings.ContainsAny(name, "\r\x00") {
			continue
		}
		if f := fold(name); !seen[f] {
			seen[f] = true
			t[index] = name
		}
	}
	return t
}

// Encode returns the file's content.
func (t *Table) Encode() []byte {
	var b []byte
	for i, k := range t {
		if k != "" {
			b = strconv.AppendInt(b, int64(i), 10)
			b = append(b, ' ')
			b = append(b, k...)
			b = append(b, '\n')
		}
	}
	return b
}

// A Stat tells one state of the file from another; zero says that there is no
// file. Every rewrite changes the whole seconds of the time of change.
type Stat struct {
	Dev, Ino uint64
	Size     int64
	MtimeNs  int64
}

func statOf(st *unix.Stat_t) Stat {
	return Stat{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano()}
}

// StatFile says what the file of dir looks like now.
func StatFile(dir vfs.Dir) (Stat, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir.Fd(), Name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return Stat{}, nil
	}
	if err != nil {
		return Stat{}, &fs.PathError{Op: "stat", Path: dir.Path() + "/" + Name, Err: err}
	}
	return statOf(&st), nil
}

// Read reads the file of dir. A folder without one has an empty table and a
// zero Stat. It fails with ErrLetters where there is what cannot be one.
func Read(dir vfs.Dir) (Table, Stat, error) {
	b, st, err := vfs.ReadRegular(dir, Name, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return Table{}, Stat{}, nil
	}
	if err != nil {
		return Table{}, Stat{}, unusable(ErrLetters, err)
	}
	return Parse(b), statOf(&st), nil
}

// Write replaces the file of dir, durably. The caller holds the lock of the
// folder's list and has read old, or changes what it read before, under it. A
// letter may be used in a file name only after Write has returned.
//
// Readers compare the time of change in whole seconds, so it is set at least
// one second above that of old, into the future if need be.
func Write(dir vfs.Dir, t Table, old Stat) (Stat, error) {
	text := t.Encode()
	if err := t.check(); err != nil {
		return Stat{}, err
	}
	if len(text) > maxSize {
		return Stat{}, errors.New("dovecot-keywords: too large to be read again")
	}
	if err := dir.Unlink(lockName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Stat{}, err
	}
	f, err := vfs.CreateLike(dir, lockName)
	if err != nil {
		return Stat{}, err
	}
	st, err := fill(dir, f, text, old)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		dir.Unlink(lockName)
		return Stat{}, err
	}
	return st, dir.Sync()
}

func (t *Table) check() error {
	for i, k := range t {
		if strings.ContainsAny(k, "\n\r\x00") || t.Index(k) >= 0 && t.Index(k) != i {
			return errors.New("dovecot-keywords: bad keyword or one with two letters: " + strconv.Quote(k))
		}
	}
	return nil
}

func fill(dir vfs.Dir, f vfs.File, text []byte, old Stat) (Stat, error) {
	if _, err := f.Write(text); err != nil {
		return Stat{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.Fd(), &st); err != nil {
		return Stat{}, err
	}
	if before := old.MtimeNs / int64(time.Second); old != (Stat{}) && st.Mtim.Sec <= before {
		if err := f.SetTime(time.Unix(before+1, 0)); err != nil {
			return Stat{}, err
		}
	}
	if err := f.Sync(); err != nil {
		return Stat{}, err
	}
	if err := dir.Rename(lockName, dir, Name); err != nil {
		return Stat{}, err
	}
	if err := unix.Fstat(f.Fd(), &st); err != nil {
		return Stat{}, err
	}
	return statOf(&st), nil
}
