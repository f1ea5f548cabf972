package tree

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"imapd/imap/wire"
	"imapd/maildir/vfs"
)

// The file subscriptions in the control directory has one name a line, in the
// encoding of the folders and without prefix. In version 1 the parts of a name
// are separated as in the layout, by '.' or '/'. Version 2 begins with "V", tab,
// "2" and an empty line, and separates by tabs, with \001 escapes in the parts.
// A file keeps its version; a new one has version 2.
const (
	subscriptionsName = "subscriptions"
	subscriptionsTmp  = "subscriptions.tmp"
	subscriptionsV2   = "V\t2\n\n"
	maxSubscriptions  = 16 << 20
)

// A subscriptions file, line by line, so that what is not understood stays.
type subscriptionFile struct {
	v2    bool
	lines []string // without LF; the header of version 2 is not among them
}

func parseSubscriptions(data []byte) subscriptionFile {
	text := string(data)
	rest, v2 := strings.CutPrefix(text, subscriptionsV2)
	if len(data) == 0 {
		v2 = true
	}
	f := subscriptionFile{v2: v2}
	for line := range strings.Lines(rest) {
		f.lines = append(f.lines, strings.TrimSuffix(line, "\n"))
	}
	return f
}

func (f *subscriptionFile) encode() []byte {
	var b bytes.Buffer
	if f.v2 {
		b.WriteString(subscriptionsV2)
	}
	for _, line := range f.lines {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

var (
	escapeTab   = strings.NewReplacer("\x00", "\x010", "\x01", "\x011", "\t", "\x01t", "\r", "\x01r", "\n", "\x01n")
	unescapeTab = strings.NewReplacer("\x010", "\x00", "\x011", "\x01", "\x01t", "\t", "\x01r", "\r", "\x01n", "\n")
)

// subscription returns the parts of the name in a line, none for INBOX, and
// false where it is no name.
func (t *Tree) subscription(f *subscriptionFile, line string) ([]string, bool) {
	line = strings.TrimSuffix(line, "\r")
	if strings.EqualFold(line, "INBOX") {
		return nil, true
	}
	var raw []string
	if f.v2 {
		raw = strings.Split(line, "\t")
		for i := range raw {
			raw[i] = unescapeTab.Replace(raw[i])
		}
	} else {
		raw = strings.Split(line, t.storageSeparator())
	}
	if strings.EqualFold(raw[0], "INBOX") {
		raw[0] = "INBOX"
	}
	return t.decode(raw)
}

// subscriptionLine is the line of a name.
func (t *Tree) subscriptionLine(f *subscriptionFile, parts []string) string {
	if len(parts) == 0 {
		return "INBOX"
	}
	raw := t.encode(parts)
	if !f.v2 {
		return strings.Join(raw, t.storageSeparator())
	}
	for i := range raw {
		raw[i] = escapeTab.Replace(raw[i])
	}
	return strings.Join(raw, "\t")
}

func (t *Tree) storageSeparator() string {
	if t.layout == FS {
		return "/"
	}
	return "."
}

// Subscriptions returns the subscribed names, whether such folders exist or
// not, in the order of the file. Lines that are no possible names are passed
// over, and stay in the file.
func (t *Tree) Subscriptions() ([]string, error) {
	leave, err := t.slot()
	if err != nil {
		return nil, err
	}
	defer leave()
	dir, err := t.open(t.control)
	if err != nil {
		return nil, ignoreNotExist(err)
	}
	defer dir.Close()
	f, err := readSubscriptions(dir)
	if err != nil {
		return nil, err
	}
	return t.subscribed(&f), nil
}

func (t *Tree) subscribed(f *subscriptionFile) []string {
	var names []string
	seen := map[string]bool{}
	for _, line := range f.lines {
		parts, ok := t.subscription(f, line)
		if !ok {
			continue
		}
		if name := t.name(parts); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

func readSubscriptions(dir vfs.Dir) (subscriptionFile, error) {
	b, _, err := vfs.ReadRegular(dir, subscriptionsName, maxSubscriptions)
	return parseSubscriptions(b), ignoreNotExist(err)
}

// Subscribe adds name, which need not exist, to the subscriptions, durably.
func (t *Tree) Subscribe(name string) error {
	parts, err := t.read(name, t.parse)
	if err != nil {
		return err
	}
	return t.editSubscriptions(func(f *subscriptionFile) bool {
		if slices.Contains(t.subscribed(f), t.name(parts)) {
			return false
		}
		f.lines = append(f.lines, t.subscriptionLine(f, parts))
		return true
	})
}

// Unsubscribe removes name from the subscriptions, durably. It is no error if it
// is not among them.
func (t *Tree) Unsubscribe(name string) error {
	parts, err := t.read(name, t.parse)
	if err != nil {
		return err
	}
	return t.editSubscriptions(func(f *subscriptionFile) bool {
		before := len(f.lines)
		f.lines = slices.DeleteFunc(f.lines, func(line string) bool {
			p, ok := t.subscription(f, line)
			return ok && slices.Equal(p, parts)
		})
		return len(f.lines) < before
	})
}

// FirstSubscriptions makes the file of subscriptions, if there is none, of names
// that another server kept, durably. They come as their parts, in modified UTF-7
// or UTF-8; what no folder can be called is left out.
func (t *Tree) FirstSubscriptions(names [][]string) error {
	if there, err := t.hasSubscriptions(); there || err != nil {
		return err
	}
	return t.editSubscriptions(func(f *subscriptionFile) bool {
		if len(f.lines) > 0 {
			return false // another was faster
		}
		for _, raw := range names {
			parts := make([]string, len(raw))
			for i, r := range raw {
				parts[i] = t.foreignPart(r)
			}
			if len(parts) == 0 || t.faults(parts) == "" {
				f.lines = append(f.lines, t.subscriptionLine(f, parts))
			}
		}
		return true
	})
}

func (t *Tree) hasSubscriptions() (bool, error) {
	leave, err := t.slot()
	if err != nil {
		return false, err
	}
	defer leave()
	control, err := t.OpenUser()
	if err != nil {
		return false, err
	}
	defer control.Close()
	return isThere(control, subscriptionsName), nil
}

// foreignPart decodes a part of a name of which it is not known how it is
// encoded: as the names of folders, most likely.
func (t *Tree) foreignPart(raw string) string {
	if same(raw) || t.Names() == UTF8 {
		return raw
	}
	if p, err := wire.DecodeUTF7(raw); err == nil {
		return p
	}
	return raw
}

// editSubscriptions replaces the file by what edit makes of it, if edit says
// that it did.
func (t *Tree) editSubscriptions(edit func(f *subscriptionFile) bool) error {
	dir, err := t.openForChange()
	if err != nil {
		return err
	}
	defer dir.Close()
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	unlock, err := t.lock(ctx, dir, subscriptionsName+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	leave, err := t.slot()
	if err != nil {
		return err
	}
	defer leave()
	f, err := readSubscriptions(dir)
	if err != nil {
		return err
	}
	if !edit(&f) {
		return nil
	}
	return replaceSubscriptions(dir, f.encode())
}

// openForChange is OpenUser with a slot.
func (t *Tree) openForChange() (vfs.Dir, error) {
	leave, err := t.slot()
	if err != nil {
		return nil, err
	}
	defer leave()
	return t.OpenUser()
}

func replaceSubscriptions(dir vfs.Dir, b []byte) error {
	if err := dir.Unlink(subscriptionsTmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := vfs.CreateLike(dir, subscriptionsTmp)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = dir.Rename(subscriptionsTmp, dir, subscriptionsName)
	}
	if err != nil {
		dir.Unlink(subscriptionsTmp)
		return err
	}
	return dir.Sync()
}
