// Package tree maps the names of IMAP mailboxes to the folders of a Maildir,
// and makes, renames, removes and lists them.
//
// # Layouts
//
// In Maildir++ the folder A/B is the directory .A.B of the root; its parent
// need not exist. In the fs layout it is A/B, and A may be a directory without
// mail, a container. INBOX is the root itself in both; or, where Config.Inbox says
// so, a directory below it, as mbsync has it. UID lists, keywords and
// subscriptions lie in the folders too, or in a control directory that has the
// same shape (and INBOX's as .INBOX or INBOX, wherever its mail is).
//
// # Names
//
// Names are UTF-8 with the separator and prefix that clients see, and INBOX.
// On disk they are modified UTF-7, or UTF-8 as Courier 5 writes them, with '.'
// (Maildir++) or '/' between their parts. One name has one directory and the
// other way round: a directory whose name does not decode, or would be encoded
// in another way, does not exist for clients.
//
// # Changes
//
// A folder is built in the root's tmp/ and renamed into place, so nobody sees
// half of one. A removed one is first renamed into ..DOVECOT-TRASHED, which
// neither server lists and both empty. Changes are made under the lock that
// Dovecot uses for this, mailboxes.lock in the root.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// Errors that callers tell apart with errors.Is. Errors of the system come
// through wrapped.
var (
	ErrExists      = errors.New("mailbox exists")
	ErrNotFound    = errors.New("no such mailbox")
	ErrName        = errors.New("mailbox name is not possible")
	ErrHasChildren = errors.New("mailbox has children and no mail of its own")
	ErrLimit       = errors.New("too many mailboxes")
	ErrBusy        = errors.New("mailboxes are locked")
	ErrLayout      = errors.New("folder layout is not supported")
)

// Limits that Config cannot change.
const (
	maxKnown   = 4096 // longest name of a folder that is there, in octets of UTF-8
	maxPart    = 255  // of one directory, in octets on disk
	maxDepth   = 64
	maxFolders = 100_000 // that a walk finds at least; more may be ErrLimit
)

// What the limits of Config are where they are 0.
const (
	defaultName    = 1000
	defaultFolders = 10_000
)

// lockWait is how long a change waits for that of another.
const lockWait = 30 * time.Second

// A Layout says where folders lie.
type Layout int

const (
	Auto     Layout = iota // as what is there looks like, else Maildir++
	PlusPlus               // .A.B
	FS                     // A/B
)

// An Encoding says how names are written on disk.
type Encoding int

const (
	AutoNames Encoding = iota // as what is there looks like, else UTF7
	UTF7                      // modified UTF-7, RFC 3501 section 5.1.3
	UTF8
)

// A Config says where a tree is and what it looks like. Root, and Control and
// Index if they are set, are absolute paths.
type Config struct {
	Root      string
	Inbox     string // path of INBOX below Root, fs layout only; "" means Root
	Control   string // for UID lists and subscriptions; "" means Root
	Index     string // for imapd.index; "" means Root
	Layout    Layout
	Names     Encoding
	Separator byte   // that clients see; 0 means '/'
	Prefix    string // of all names but INBOX; "" or it ends in Separator

	MaxName    int // longest new name in octets of UTF-8; 0 means 1,000
	MaxFolders int // number of folders beside INBOX from which on Create is ErrLimit; 0 means 10,000

	// Lock takes the dot lock file name in dir. Nil means that nobody else
	// changes the tree's files.
	Lock func(ctx context.Context, dir vfs.Dir, name string) (unlock func() error, err error)
	// Slot takes what a change, or a reading of subscriptions, needs while it asks the
	// disk for something, but not while it waits for a change of another. Nil means
	// nothing.
	Slot func() (leave func(), err error)
	// Seed writes the UID list of a new folder into its control directory.
	// Nil leaves that to the first one who opens the folder.
	Seed func(control vfs.Dir, validity uint32) error
	// Journal notes renames of several directories. Nil means that a crash
	// leaves some folders with the old name.
	Journal Journal
	// Open opens a directory; nil means vfs.Open.
	Open func(path string) (vfs.Dir, error)
	// Log gets what an administrator has to look at and nobody else notices. Nil means
	// nobody.
	Log *slog.Logger
}

// A Tree is the folders of one user. It holds no file open and is safe for use
// by several goroutines and beside other programs.
type Tree struct {
	root, control, index string
	inbox                string // the directory of INBOX, the root or below
	layout               Layout
	names                atomic.Int32 // an Encoding; AutoNames until it is found out
	separator            byte
	prefix               string
	maxName              int
	maxFolders           int
	maxWalk              int          // folders that a walk finds
	spare                atomic.Int32 // folders that can be made before they are counted
	lock                 func(context.Context, vfs.Dir, string) (func() error, error)
	slot                 func() (leave func(), err error)
	seed                 func(vfs.Dir, uint32) error
	journal              Journal
	open                 func(string) (vfs.Dir, error)
	log                  *slog.Logger // or nil
}

// Open finds out what cfg leaves open and returns the tree. It creates nothing;
// the root need not exist. The layout is Maildir++ if a directory that begins
// with '.' has a cur/, else fs if another one has, else Maildir++. The encoding of
// names is found out when it first matters: see Names.
func Open(cfg Config) (*Tree, error) {
	t := &Tree{
		root: filepath.Clean(cfg.Root), control: filepath.Clean(cfg.Control), index: filepath.Clean(cfg.Index),
		layout: cfg.Layout, separator: cfg.Separator, prefix: cfg.Prefix, lock: cfg.Lock, slot: cfg.Slot, seed: cfg.Seed, journal: cfg.Journal, open: cfg.Open,
		log: cfg.Log,
	}
	t.inbox = filepath.Join(t.root, cfg.Inbox)
	if t.inbox != t.root && (t.layout != FS || !filepath.IsLocal(cfg.Inbox)) {
		return nil, fmt.Errorf("INBOX cannot be %q below %s: %w", cfg.Inbox, t.root, ErrLayout)
	}
	t.names.Store(int32(cfg.Names))
	if cfg.Control == "" {
		t.control = t.root
	}
	if cfg.Index == "" {
		t.index = t.root
	}
	if t.maxName = cfg.MaxName; t.maxName == 0 {
		t.maxName = defaultName
	}
	if t.maxFolders = cfg.MaxFolders; t.maxFolders == 0 {
		t.maxFolders = defaultFolders
	}
	t.maxWalk = max(maxFolders, 2*t.maxFolders)
	if t.separator == 0 {
		t.separator = '/'
	}
	if t.prefix != "" && t.prefix[len(t.prefix)-1] != t.separator {
		return nil, fmt.Errorf("prefix %q does not end in the separator %q", t.prefix, t.separator)
	}
	if t.open == nil {
		t.open = vfs.Open
	}
	if t.lock == nil {
		t.lock = func(context.Context, vfs.Dir, string) (func() error, error) {
			return func() error { return nil }, nil
		}
	}
	if t.slot == nil {
		t.slot = func() (func(), error) { return func() {}, nil }
	}
	if t.layout == Auto {
		layout, err := t.detectLayout()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.root, err)
		}
		t.layout = layout
	}
	return t, nil
}

// Layout returns the layout that was set or found.
func (t *Tree) Layout() Layout { return t.layout }

// Names returns the encoding that was set or is found: UTF-8 if more than twice as
// many names need that as are modified UTF-7 with encoded characters. It looks once.
func (t *Tree) Names() Encoding {
	if e := Encoding(t.names.Load()); e != AutoNames {
		return e
	}
	var v vote
	err := t.walkNames(func(parts []string) bool {
		v.count(parts)
		return true
	})
	if err != nil && !errors.Is(err, ErrLimit) {
		return UTF7 // whoever asked will meet the error too
	}
	t.names.CompareAndSwap(int32(AutoNames), int32(v.encoding()))
	return Encoding(t.names.Load())
}

// Init makes what is missing of the root and INBOX: the root (mode 0700, and parents
// likewise), INBOX below it, its cur, new and tmp, and the control directory.
func (t *Tree) Init() error {
	root, err := t.makePath(t.root, nil)
	if err != nil {
		return err
	}
	defer root.Close()
	inbox, err := t.makePath(t.inbox, root)
	if err != nil {
		return err
	}
	defer inbox.Close()
	for _, name := range []string{"tmp", "new", "cur"} {
		if d, err := vfs.MkdirLike(inbox, name); err == nil {
			d.Close()
		} else if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	control, err := t.makePath(t.inboxBelow(t.control), inbox)
	if err != nil {
		return err
	}
	control.Close()
	return inbox.Sync()
}

// OpenControl opens the control directory of the folder mail, as Path returns
// it. If the folder came from where there was none it is made, with the mode and
// group of the folder.
func (t *Tree) OpenControl(path string, mail vfs.Dir) (vfs.Dir, error) {
	return t.makePath(path, mail)
}

// OpenIndex opens the directory that holds imapd.index of the mailbox name,
// whose directory is mail: another descriptor of that one unless Config.Index
// says otherwise. It is made if need be, with the mode and group of the folder.
func (t *Tree) OpenIndex(name string, mail vfs.Dir) (vfs.Dir, error) {
	parts, err := t.parse(name)
	switch {
	case err != nil:
		return nil, err
	case t.index == t.root:
		return mail.OpenDir(".")
	case len(parts) == 0:
		return t.makePath(t.inboxBelow(t.index), mail)
	}
	return t.makePath(t.index+"/"+t.relative(parts), mail)
}

// IndexInFolder reports whether imapd.index of a mailbox is beside its mail.
func (t *Tree) IndexInFolder() bool { return t.index == t.root }

// OpenUser opens the directory of the files that belong to the user, not to one
// folder. It is made if need be, with the mode and group of the root.
func (t *Tree) OpenUser() (vfs.Dir, error) {
	d, err := t.open(t.control)
	if !errors.Is(err, fs.ErrNotExist) || t.control == t.root {
		return d, err
	}
	root, err := t.open(t.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return t.makePath(t.control, root)
}

// UserHas reports whether there is a file name in the directory that OpenUser opens.
func (t *Tree) UserHas(name string) bool {
	var st unix.Stat_t
	return unix.Lstat(t.control+"/"+name, &st) == nil
}

// makePath opens the directory path. What is missing of it is made with the mode
// and group of like, or if like is nil with mode 0700.
func (t *Tree) makePath(path string, like vfs.Dir) (vfs.Dir, error) {
	d, err := t.open(path)
	if !errors.Is(err, fs.ErrNotExist) || path == "/" || path == "." {
		return d, err
	}
	parent, err := t.makePath(filepath.Dir(path), like)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	if like == nil {
		err = parent.Mkdir(filepath.Base(path), 0o700)
	} else if d, err = vfs.MkdirAs(parent, filepath.Base(path), like); err == nil {
		d.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := parent.Sync(); err != nil {
		return nil, err
	}
	return t.open(path)
}

// inboxBelow is where the files of INBOX lie below base, which is the root or
// where what belongs to folders lies in a tree of its own.
func (t *Tree) inboxBelow(base string) string {
	switch {
	case base == t.root:
		return t.inbox
	case t.layout == FS:
		return base + "/INBOX"
	}
	return base + "/.INBOX"
}

// sides are the trees beside that of the mail that have a directory for each
// folder. The index comes last: losing it costs least.
func (t *Tree) sides() []string {
	var s []string
	for _, base := range []string{t.control, t.index} {
		if base != t.root && !slices.Contains(s, base) {
			s = append(s, base)
		}
	}
	return s
}

// Path returns the directory of the mail of the mailbox name and that of its
// UID list, whether they exist or not. A name that no mailbox can have is
// ErrName. INBOX is known in any case.
func (t *Tree) Path(name string) (mail, control string, err error) {
	parts, err := t.parse(name)
	if err != nil {
		return "", "", err
	}
	if len(parts) == 0 {
		return t.inbox, t.inboxBelow(t.control), nil
	}
	rel := t.relative(parts)
	return t.root + "/" + rel, t.control + "/" + rel, nil
}

// Look returns what is known of one name without reading the tree: all but
// HasChildren. A name that is not there is no error.
func (t *Tree) Look(name string) (Folder, error) {
	parts, err := t.parse(name)
	if err != nil {
		return Folder{}, err
	}
	f := Folder{Name: t.name(parts)}
	path := t.inbox
	if len(parts) > 0 {
		path = t.root + "/" + t.relative(parts)
	}
	f.Exists, err = isDirectory(path + "/cur")
	if err == nil && !f.Exists && t.layout != FS && len(parts) > 0 {
		f.Exists, err = isDirectory(path + "/new")
	}
	if err == nil && !f.Exists && t.layout == FS {
		f.Container, err = isDirectory(path)
	}
	return f, err
}

// isDirectory reports whether path is a directory or leads to one.
func isDirectory(path string) (bool, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	return err == nil && st.IsDir(), err
}

// aboveInbox reports whether the directory of INBOX is that of these parts, or below it.
func (t *Tree) aboveInbox(parts []string) bool {
	return t.inbox != t.root && strings.HasPrefix(t.inbox+"/", t.root+"/"+t.relative(parts)+"/")
}

// isInbox reports whether the directory of INBOX is that of these parts, which therefore
// name no other folder.
func (t *Tree) isInbox(parts []string) bool {
	return t.inbox != t.root && t.inbox == t.root+"/"+t.relative(parts)
}

// relative is the path of a folder below the root.
func (t *Tree) relative(parts []string) string {
	if t.layout == FS {
		return strings.Join(t.encode(parts), "/")
	}
	return "." + strings.Join(t.encode(parts), ".")
}
