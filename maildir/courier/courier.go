// Package courier reads, and never writes, what Courier-IMAP keeps of a folder
// beside the messages: keywords, in courierimapkeywords, and of the account the
// subscribed folders, in courierimapsubscribed.
//
// The UIDs are in courierimapuiddb, which has the form of a dovecot-uidlist of
// version 1.
//
// # Keywords
//
// The directory courierimapkeywords has a file ":list": the names of keywords, one
// a line, an empty line, and lines "<base>:<index> <index>..." for the messages
// that have some. What was changed since it was written stands in a file for each
// message, one keyword a line, all that the message has: "<base>" if the change
// is of the last minutes, ".<number>.<base>" if it is older. The file without a
// number outranks those with one, and a higher number a lower one. Now and then
// Courier writes ":list" anew and removes those files.
package courier

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Names of Courier's files.
const (
	// UIDs is the list of UIDs in a folder.
	UIDs = "courierimapuiddb"
	// Lock is the dot lock, in a folder's tmp directory, that Courier holds
	// while it changes the list. It is made and broken as dovecot-uidlist.lock.
	Lock = "courier.lock"

	keywordsDir   = "courierimapkeywords"
	listName      = ":list"
	subscriptions = "courierimapsubscribed"
)

const (
	maxList          = 256 << 20 // octets of ":list"
	maxMessage       = 64 << 10  // of the keywords of one message
	maxSubscriptions = 16 << 20
	maxEach          = 1000 // keywords of one message; what is more is left out
)

// Keywords are those of one folder.
type Keywords struct {
	Names []string         // each once, without regard to case
	Of    map[string][]int // indexes in Names by base name; each once
	// Unreadable counts what is no file of Courier's: FIFOs, links, huge files.
	Unreadable int
}

// tries bounds how often the directory is read again because a file is gone that
// was there a moment ago.
const tries = 5

// ReadKeywords reads the keywords of the folder dir. Where there are none they
// are empty, and that is no error.
func ReadKeywords(dir vfs.Dir) (Keywords, error) {
	d, err := dir.OpenDir(keywordsDir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return Keywords{}, nil
	}
	if err != nil {
		return Keywords{}, err
	}
	defer d.Close()
	for try := 1; ; try++ {
		k, err := readKeywords(d)
		if try == tries || !errors.Is(err, fs.ErrNotExist) {
			return k.Keywords, err
		}
	}
}

// A reading is a Keywords that is being read.
type reading struct {
	Keywords
	index map[string]int // in Names, by fold
}

func readKeywords(d vfs.Dir) (*reading, error) {
	r := &reading{Keywords: Keywords{Of: map[string][]int{}}, index: map[string]int{}}
	b, err := r.read(d, listName, maxList)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	r.list(string(b))
	names, err := vfs.ReadNames(d)
	if err != nil {
		return r, err
	}
	for base, name := range newest(names) {
		b, err := r.read(d, name, maxMessage)
		if err != nil {
			return r, err
		}
		delete(r.Of, base)
		for line := range strings.Lines(string(b)) {
			r.give(base, r.number(strings.TrimRight(line, "\r\n")))
		}
	}
	return r, nil
}

// read reads a file that must not be larger than limit. One that is none of
// Courier's is counted, and empty.
func (r *reading) read(d vfs.Dir, name string, limit int64) ([]byte, error) {
	b, _, err := vfs.ReadRegular(d, name, limit)
	for _, e := range []error{unix.EINVAL, unix.ELOOP, unix.EFBIG, unix.ENXIO} {
		if errors.Is(err, e) {
			r.Unreadable++
			return nil, nil
		}
	}
	return b, err
}

// newest returns the file that counts for each base name.
func newest(names []string) map[string]string {
	files := map[string]string{}
	rank := map[string]uint64{}
	for _, name := range names {
		base, n, ok := parseName(name)
		if ok && n >= rank[base] {
			files[base], rank[base] = name, n
		}
	}
	return files
}

// parseName takes the name of the file of a message apart. The higher rank
// counts; 0 is none.
func parseName(name string) (base string, rank uint64, ok bool) {
	if strings.HasPrefix(name, ":") {
		return "", 0, false
	}
	rest, numbered := strings.CutPrefix(name, ".")
	if !numbered {
		return name, 1<<64 - 1, true
	}
	digits, base, ok := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(digits, 10, 62)
	return base, n + 1, ok && err == nil && base != ""
}

// list reads ":list".
func (r *reading) list(text string) {
	var byLine []int // index in Names of each name; -1: none
	head := true
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case head && line == "":
			head = false
		case head:
			byLine = append(byLine, r.number(line))
		default:
			base, numbers, ok := strings.Cut(line, ":")
			if !ok || base == "" {
				continue
			}
			for f := range strings.FieldsSeq(numbers) {
				if i, err := strconv.Atoi(f); err == nil && i >= 0 && i < len(byLine) {
					r.give(base, byLine[i])
				}
			}
		}
	}
}

// number returns the index in Names of a keyword, which is entered if need be, or
// -1 where it is none.
func (r *reading) number(name string) int {
	if name == "" || strings.ContainsAny(name, " \x00") {
		return -1
	}
	key := fold(name)
	i, ok := r.index[key]
	if !ok {
		i = len(r.Names)
		r.index[key] = i
		r.Names = append(r.Names, name)
	}
	return i
}

// give enters that the message base has keyword i.
func (r *reading) give(base string, i int) {
	if i < 0 || len(r.Of[base]) == maxEach {
		return
	}
	for _, j := range r.Of[base] {
		if i == j {
			return
		}
	}
	r.Of[base] = append(r.Of[base], i)
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

// ReadSubscriptions returns the subscribed folders of the account whose root is
// dir, each as the parts of its name, as they are written; INBOX has none. Names
// of folders of other accounts are left out. Where there is no file the result
// is empty, and that is no error.
func ReadSubscriptions(dir vfs.Dir) ([][]string, error) {
	b, _, err := vfs.ReadRegular(dir, subscriptions, maxSubscriptions)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return parseSubscriptions(string(b)), err
}

// parseSubscriptions reads one name a line, such as "INBOX.Work".
func parseSubscriptions(text string) [][]string {
	var all [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		first, rest, more := strings.Cut(line, ".")
		switch {
		case !strings.EqualFold(first, "INBOX"):
		case !more:
			all = append(all, []string{})
		default:
			all = append(all, strings.Split(rest, "."))
		}
	}
	return all
}
