package sasl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"imapd/control/config"
)

// A PasswdFile is a back end over a file in Dovecot's passwd-file format:
//
//	user:{SCHEME}hash:uid:gid:gecos:home:shell:extra
//
// The file is looked at before every login and read again when it has changed,
// so that a rename over it takes effect at once. While it cannot be read nobody
// logs in. A line with a fault keeps only its own user out.
type PasswdFile struct {
	path  string
	rules rules
	open  config.Opener
	log   *slog.Logger
	slots chan struct{} // one for each password that is being hashed

	users atomic.Pointer[users] // what was read last

	mu       sync.Mutex                // held while the file is read again
	reported map[complaint]bool        // what was logged of the present file
	verify   func(secret, string) bool // secret.verify, or a test's
}

// stamp tells one state of a file from another.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func stampOf(info os.FileInfo) stamp {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}
	}
	return stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}

// settle is the age at which a file's times are believed to show every later
// change: above the coarsest ones that file systems keep.
const settle = 2 * time.Second

// maxPasswdFile is the largest file that is read, in octets.
const maxPasswdFile = 256 << 20

// queueTime is how long a login waits for its turn to be hashed.
const queueTime = 30 * time.Second

var errBusy = errors.New("too many logins at a time")

// OpenPasswdFile reads the passwd-file of c, which is opened by open. The error says
// why it cannot be read; faults of its lines go to log.
func OpenPasswdFile(c *config.Config, open config.Opener, log *slog.Logger) (*PasswdFile, error) {
	p := &PasswdFile{
		path:   c.PasswdFile,
		rules:  rulesOf(c),
		open:   open,
		log:    log,
		slots:  make(chan struct{}, max(1, runtime.GOMAXPROCS(0))),
		verify: secret.verify,
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if _, err := p.current(); err != nil {
		return nil, err
	}
	return p, nil
}

func rulesOf(c *config.Config) rules {
	return rules{lower: c.UsernameToLower, ids: c.PrivilegeSeparation == config.SeparateUser}
}

// Inspect looks into the sources of passwords that c names. It returns what is wrong
// with their lines, as warnings: each is about one user; and whether there are several
// users. A file that cannot be read has none; whoever opens it says why.
func Inspect(c *config.Config, open config.Opener) (problems []config.Problem, several bool) {
	several = slices.Contains(c.PwcheckMethods, "saslauthd")
	if c.PasswdFile == "" || !slices.Contains(c.PwcheckMethods, "passwd-file") {
		return nil, several
	}
	p := &PasswdFile{path: c.PasswdFile, rules: rulesOf(c), open: open}
	t, err := p.read()
	if err != nil {
		return nil, several
	}
	for _, w := range t.complaints {
		text := fmt.Sprintf("user %q: %s", w.user, w.text)
		problems = append(problems, config.Problem{File: c.PasswdFile, Line: w.line, Text: text, Warning: true})
	}
	return problems, several || len(t.byName) > 1
}

// Verify implements Backend. For a user that is not there, or has no usable
// password, it does the work for one that most users of the file cost, so that
// the time does not tell which names exist.
func (p *PasswdFile) Verify(ctx context.Context, user, password string) (User, error) {
	t, err := p.current()
	if err != nil {
		return User{}, err
	}
	e, found := t.byName[user]
	stored, usable := e.secret, found && e.secret.scheme != nil
	if !usable {
		stored = t.usual
	}
	right := false
	if stored.scheme != nil {
		if right, err = p.hash(ctx, stored, password); err != nil {
			return User{}, err
		}
	}
	switch {
	case !found:
		return User{}, ErrNoUser
	case e.locked || e.broken:
		return User{}, ErrLocked
	case !usable || !right:
		return User{}, ErrBadPassword
	}
	return e.user(user), nil
}

// Lookup implements Backend. An administrator may act for a user who is locked.
func (p *PasswdFile) Lookup(_ context.Context, user string) (User, error) {
	t, err := p.current()
	if err != nil {
		return User{}, err
	}
	e, found := t.byName[user]
	switch {
	case !found:
		return User{}, ErrNoUser
	case e.broken:
		return User{}, ErrLocked
	}
	return e.user(user), nil
}

// hash compares in one of the slots: hashes are made to be slow and to need
// memory, and more at a time than cores would only make all of them late.
func (p *PasswdFile) hash(ctx context.Context, s secret, password string) (bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, queueTime, errBusy)
	defer cancel()
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return false, fmt.Errorf("wait to verify a password: %w", context.Cause(ctx))
	}
	defer func() { <-p.slots }()
	return p.verify(s, password), nil
}

// current returns the users of the file as it is now.
func (p *PasswdFile) current() (*users, error) {
	if t := p.users.Load(); t != nil && p.unchanged(t) {
		return t, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.users.Load(); t != nil && p.unchanged(t) {
		return t, nil
	}
	t, err := p.read()
	if err != nil {
		return nil, err
	}
	p.report(t.complaints)
	p.users.Store(t)
	return t, nil
}

// unchanged tells whether the file is the one that t was read from.
func (p *PasswdFile) unchanged(t *users) bool {
	info, err := p.open.Stat(p.path)
	return err == nil && t.stamp != (stamp{}) && stampOf(info) == t.stamp
}

// read reads the file. Where somebody writes into it meanwhile, or just did,
// the result has no stamp and is good for one login.
func (p *PasswdFile) read() (*users, error) {
	now := time.Now()
	f, err := p.open.Open(p.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: p.path, Err: errors.New("not a regular file")}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPasswdFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxPasswdFile {
		return nil, &os.PathError{Op: "read", Path: p.path, Err: errors.New("too large")}
	}
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	t := parseUsers(string(data), p.rules)
	s := stampOf(after)
	// The inode's change time cannot be set by hand, so it is the one that
	// says how long ago the last write was.
	if s == stampOf(before) && now.Sub(time.Unix(s.ctime.Unix())) > settle {
		t.stamp = s
	}
	return t, nil
}

// report logs what was not yet wrong with the file when it was last read. The
// caller holds mu.
func (p *PasswdFile) report(found []complaint) {
	reported := make(map[complaint]bool, len(found))
	for _, c := range found {
		if !p.reported[c] {
			level := slog.LevelError
			if c.kind == odd {
				level = slog.LevelWarn
			}
			p.log.Log(context.Background(), level, string(c.kind), "file", p.path, "line", c.line, "user", c.user, "reason", c.text)
		}
		reported[c] = true
	}
	p.reported = reported
}
