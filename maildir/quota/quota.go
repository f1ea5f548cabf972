// Package quota keeps maildirsize in step, the file in which Courier, Dovecot,
// maildrop and Exim count what a user's folders hold (Maildir++).
//
// Its first line is the limits, such as "1000000S,100C". Each further line is a
// number of octets and a number of messages, which may be negative; the usage is
// their sum. Whoever changes a folder appends a line with one write, without a
// lock. Once the file has 5120 octets, or says what cannot be, somebody counts
// again and replaces it by one with a single such line. The limits are for others
// to enforce, and are kept as they are.
//
// Which messages count is not agreed on, see Rule. To be in step is to go on by the
// rule of whoever counted last: a change by another one would be counted twice, or
// not at all. Courier pads its numbers with blanks, Dovecot and Exim do not, so the
// line that a count has left says whose it is. We count, and write, as it was before.
package quota

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Name is the file's name in the directory of the user's other control files.
const Name = "maildirsize"

// lockName is the name under which a new file is written. Dovecot locks with it.
const lockName = Name + ".lock"

const (
	fullSize  = 5120             // octets from which on the file is counted anew
	lockStale = 30 * time.Second // as in Dovecot
)

// A Usage is what messages take: of a change it may be negative.
type Usage struct {
	Octets   int64 // on disk, by S= in the name if it is there
	Messages int64
}

// A Rule says which messages count.
type Rule uint8

const (
	None    Rule = iota // there is no maildirsize: nothing is to be kept in step
	All                 // Dovecot and Exim: every message
	Courier             // and maildrop: none with \Deleted, and none in the folder Trash
)

// Counts reports whether a message counts that is in Trash, or has \Deleted.
func (r Rule) Counts(trash, deleted bool) bool { return r == All || r == Courier && !trash && !deleted }

// ruleOf returns by what rule the file counts whose lines behind the first are lines.
func ruleOf(lines []byte) Rule {
	first, _, _ := bytes.Cut(lines, []byte{'\n'})
	if bytes.HasPrefix(first, []byte{' '}) || bytes.Contains(first, []byte("  ")) {
		return Courier
	}
	return All
}

// format returns the line of usage that a count by r leaves.
func (r Rule) format(u Usage) string {
	if r == Courier {
		return fmt.Sprintf("%12d %12d\n", u.Octets, u.Messages)
	}
	return fmt.Sprintf("%d %d\n", u.Octets, u.Messages)
}

// Add returns the sum of u and v.
func (u Usage) Add(v Usage) Usage { return Usage{u.Octets + v.Octets, u.Messages + v.Messages} }

// Minus returns what is left of u without v.
func (u Usage) Minus(v Usage) Usage { return Usage{u.Octets - v.Octets, u.Messages - v.Messages} }

// ErrRecount says that the file is full or cannot be right: count the messages
// and Replace it.
var ErrRecount = errors.New("maildirsize must be counted anew")

// A File is what a maildirsize says.
type File struct {
	Limits string // the first line
	Rule   Rule
	Usage  Usage
	Lines  int // with usage
}

// Parse reads the file. It fails with ErrRecount where a line is damaged or torn,
// and where the sum is negative; Limits and Rule are good even then, unless empty.
func Parse(data []byte) (File, error) {
	var f File
	first, rest, ok := bytes.Cut(data, []byte{'\n'})
	if !ok || !isLimits(string(first)) {
		return f, ErrRecount
	}
	f.Limits, f.Rule = string(first), ruleOf(rest)
	for len(rest) > 0 {
		var line []byte
		if line, rest, ok = bytes.Cut(rest, []byte{'\n'}); !ok {
			return f, ErrRecount
		}
		u, ok := parseLine(string(line))
		if !ok {
			return f, ErrRecount
		}
		f.Usage = f.Usage.Add(u)
		f.Lines++
	}
	if f.Usage.Octets < 0 || f.Usage.Messages < 0 {
		return f, ErrRecount
	}
	return f, nil
}

// isLimits reports whether line can be the first: numbers with a letter behind each
// and commas between. It may be empty: there are no limits.
func isLimits(line string) bool {
	if line = strings.TrimSpace(line); line == "" {
		return true
	}
	for limit := range strings.SplitSeq(line, ",") {
		n := len(limit) - 1
		if n < 1 || strings.Trim(limit[:n], "0123456789") != "" || !('A' <= limit[n] && limit[n] <= 'Z') {
			return false
		}
	}
	return true
}

func parseLine(line string) (u Usage, ok bool) {
	f := strings.Fields(line)
	if len(f) != 2 {
		return u, false
	}
	var err, err2 error
	u.Octets, err = strconv.ParseInt(f[0], 10, 64)
	u.Messages, err2 = strconv.ParseInt(f[1], 10, 64)
	// Sums of these cannot overflow: the file is small.
	const most = 1 << 50
	return u, err == nil && err2 == nil && -most < u.Octets && u.Octets < most && -most < u.Messages && u.Messages < most
}

// RuleOf returns by what rule the file of dir counts.
func RuleOf(dir vfs.Dir) Rule {
	b, err := beginning(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return None
	case err != nil:
		return All // whoever wants to write will say why that cannot be
	}
	_, lines, _ := bytes.Cut(b, []byte{'\n'})
	return ruleOf(lines)
}

// beginning returns what the file of dir begins with, its first two lines at least,
// however long it has become.
func beginning(dir vfs.Dir) ([]byte, error) {
	fd, _, err := vfs.OpenRegular(dir, Name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, fullSize)
	n, err := vfs.ReadFullAt(fd, b, 0)
	if err != nil && err != io.EOF {
		return nil, &os.PathError{Op: "read", Path: dir.Path() + "/" + Name, Err: err}
	}
	return b[:n], nil
}

// Append notes change in the file of dir, if there is one. ErrRecount says that it
// was noted, but that the file needs more.
func Append(dir vfs.Dir, change Usage) error {
	if change == (Usage{}) {
		return nil
	}
	f, err := dir.Append(Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, fullSize)
	n, err := f.ReadAt(data, 0)
	if err != nil && err != io.EOF {
		return err
	}
	line := fmt.Appendf(nil, "%d %d\n", change.Octets, change.Messages)
	if n > 0 && n < fullSize && data[n-1] != '\n' { // the last line is torn: not ours too
		line = append([]byte{'\n'}, line...)
	}
	if _, err := f.Write(line); err != nil {
		return err
	}
	if n+len(line) >= fullSize {
		return ErrRecount
	}
	_, err = Parse(append(data[:n], line...))
	return err
}

// Replace makes the file of dir, which is there, one that has the first line of
// before and one with usage. If another program is about to do that it is left to
// it.
func Replace(dir vfs.Dir, usage Usage) error {
	b, err := beginning(dir)
	if err != nil {
		return err
	}
	old, _ := Parse(b) // what the lines sum up to does not matter
	f, err := lock(dir)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, old.Limits+"\n"+old.Rule.format(usage))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = dir.Rename(lockName, dir, Name)
	}
	if err != nil {
		dir.Unlink(lockName)
	}
	return err
}

// lock makes the file that becomes the new one. One that was left is removed.
func lock(dir vfs.Dir) (vfs.File, error) {
	f, err := vfs.CreateLike(dir, lockName)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	var st unix.Stat_t
	if unix.Fstatat(dir.Fd(), lockName, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && time.Since(time.Unix(st.Ctim.Unix())) > lockStale {
		if err := dir.Unlink(lockName); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return vfs.CreateLike(dir, lockName)
	}
	return nil, err
}
