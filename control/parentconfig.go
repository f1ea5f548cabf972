package control

import (
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"imapd/control/config"
	"imapd/control/privsep"
)

// All processes of a server go by the same configuration. The file may change
// at any time, and may be wrong then; it counts when the child that serves has
// read it, found nothing wrong and says so. That child gets what is in the files
// now. Those that the parent starts later, or tells to read again, get what was
// in them when they counted last.

// A reading is the configuration as it was read once, and the texts of the files
// that it was read from; nil where one could not be read. The last one may have
// faults; the held one counts.
type reading struct {
	conf  *config.Config
	files map[string][]byte
}

// names tells whether path is a file of the configuration, or one that it names
// for processes of that role: keys are for those that talk to clients, passwords
// for the one that checks them.
func (r reading) names(role, path string) bool {
	if _, ok := r.files[path]; ok {
		return true
	}
	switch {
	case r.conf == nil:
		return false
	case role == roleServer:
		return r.conf.IsKey(path) || r.conf.IsPasswords(path)
	case role == RoleFront:
		return r.conf.IsKey(path)
	case role == RoleAuth:
		return r.conf.IsPasswords(path)
	}
	return false
}

// giveFile opens path for the child, if the configuration names it. The
// configuration is read again when the child that serves asks for its own file:
// it is about to do the same.
func (p *parent) giveFile(c *privsep.Child, path string) error {
	if path == p.options.Config && (c.Role() == roleServer || c.Role() == RoleFront) {
		_ = p.load() // the child finds the fault, and tells of it
	}
	f, err := p.open(c.Role(), path)
	if err != nil {
		if err == syscall.EPERM {
			p.log.Error("a child asks for a file that is not its own", "pid", c.PID(), "file", path)
		}
		return refuse(c.Channel, err)
	}
	defer f.Close()
	return c.Send([]byte{answerYes}, f)
}

// open opens path for a process of that role. The error is EPERM itself where
// path is not for it.
func (p *parent) open(role, path string) (*os.File, error) {
	p.mu.Lock()
	other, held := p.last, p.held // a child that has refused the last reading keeps the keys that it has
	switch role {
	case RoleAuth:
		other = p.former // by which it goes until it has heard of the held one
	case RoleWorker:
		other = held
	}
	p.asked = p.asked || role == RoleAuth
	p.mu.Unlock()
	if role == RoleAuth || role == RoleWorker {
		if text, ok := held.files[path]; ok {
			return textFile(text)
		}
	}
	if !other.names(role, path) && !held.names(role, path) {
		return nil, syscall.EPERM
	}
	f, err := config.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = syscall.EINVAL
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// load reads the configuration. One with faults counts as far as it could be
// read, or else its faults could not be told.
func (p *parent) load() error {
	files := map[string][]byte{}
	conf, _, err := LoadConfig(p.options, p.start, func(path string) (*os.File, error) {
		files[path] = nil
		f, err := config.Open(path)
		if err != nil {
			return nil, err
		}
		if files[path], err = textOf(f); err != nil {
			f.Close()
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		return f, nil
	}, nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	if conf == nil {
		conf = p.last.conf
	}
	p.last = reading{conf, files}
	return err
}

// maxText is the longest text that is kept of a file, in octets; longer ones are
// refused by who reads the configuration.
const maxText = 2 << 20

// textOf returns what is in f, which stays at its beginning.
func textOf(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, 0, maxText))
}

// textFile returns a file in memory with text in it. A nil text is that of a file
// that is not there.
func textFile(text []byte) (*os.File, error) {
	if text == nil {
		return nil, syscall.ENOENT
	}
	fd, err := unix.MemfdCreate("imapd.conf", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "imapd.conf")
	if _, err := f.WriteAt(text, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// hold has the configuration that was read last count: the child that serves has
// found nothing wrong with it. New sessions of users are served by new
// processes.
func (p *parent) hold(c *privsep.Child) error {
	p.mu.Lock()
	p.former, p.held = p.held, p.last
	asked, auth := p.asked, p.auth
	p.mu.Unlock()
	p.retireAll()
	if asked { // else it has yet to read, and may not be ready for a signal
		p.signal(auth, syscall.SIGHUP)
	}
	return c.Send([]byte{answerYes})
}
