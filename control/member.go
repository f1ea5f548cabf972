package control

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"syscall"

	"imapd/control/config"
	"imapd/control/privsep"
)

// The roles of the processes that a parent starts.
const roleServer = "server" // serves all clients, as cyrus_user

// A member is this process as its parent's child.
type member struct {
	*privsep.Member
	mu sync.Mutex // one question at a time
}

// join finds out whether a parent has started this process.
func join() (*member, error) {
	m, err := privsep.Join(func(string) int { return 0 })
	if m == nil || err != nil {
		return nil, err
	}
	return &member{Member: m}, nil
}

// start returns how the parent was started.
func (m *member) start() Start {
	n, _ := strconv.Atoi(m.Detail) // the parent wrote it
	return Start(n)
}

// ask asks the parent and returns what its answer says. The error is a
// syscall.Errno where the parent refuses.
func (m *member) ask(question []byte) ([]byte, []*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.Send(question); err != nil {
		return nil, nil, fmt.Errorf("question to the parent: %w", err)
	}
	answer, files, err := m.Recv()
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("answer of the parent: %w", err)
	case answer[0] == answerYes:
		return answer[1:], files, nil
	}
	privsep.Close(files)
	err = syscall.EIO
	if len(answer) == 5 {
		err = syscall.Errno(binary.BigEndian.Uint32(answer[1:]))
	}
	return nil, nil, err
}

// Open opens a file that the configuration names, or the configuration itself:
// it is the config.Opener of this process. Where there is a parent, that one
// opens it.
func (s *Stdio) Open(path string) (*os.File, error) {
	if s.member == nil {
		return config.Open(path)
	}
	_, files, err := s.member.ask(append([]byte{askFile}, path...))
	if err == nil && len(files) != 1 {
		privsep.Close(files)
		err = syscall.EIO
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return files[0], nil
}

// source returns the Source of what the parent has bound.
func (m *member) source(conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (Source, error) {
	answer, files, err := m.ask([]byte{askDoors})
	if err != nil {
		return nil, err
	}
	doors, err := doorsOf(answer, files)
	if err != nil {
		return nil, err
	}
	l := newListener(conf, o, certs, log, doors)
	l.idle = idleTime(m.start(), o)
	return l, nil
}

// Confine takes from a process that a parent has started what it will not need
// from now on. What cannot be computed is not taken, and the log says so.
func (s *Stdio) Confine(conf *config.Config, log *slog.Logger) error {
	if s.member == nil || !conf.Landlock {
		return nil
	}
	rights := privsep.Rights{Write: []string{conf.ConfigDirectory, conf.ProcPath}}
	for _, template := range []string{conf.Maildir, conf.MaildirControl, conf.IndexDirectory} {
		if template == "" {
			continue
		}
		dir := privsep.Fixed(template)
		if dir == "" {
			log.Debug("no landlock: it cannot be said where all mail is", "template", template)
			return nil
		}
		rights.Write = append(rights.Write, dir)
	}
	return privsep.Confine(rights)
}
