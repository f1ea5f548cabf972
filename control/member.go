package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"imapd/control/config"
	"imapd/control/notice"
	"imapd/control/privsep"
)

// The roles of the processes that a parent starts.
const (
	roleServer = "server" // serves all clients, as cyrus_user
	RoleFront  = "front"  // serves all clients until they have logged in, as cyrus_user
	RoleAuth   = "auth"   // checks passwords, as auth_user
	RoleWorker = "worker" // serves one user's sessions, as that user
)

// A member is this process as its parent's child.
type member struct {
	*privsep.Member
	mu sync.Mutex // one question at a time

	hangups chan os.Signal // of RoleAuth; else nil
}

// join finds out whether a parent has started this process.
func join() (*member, error) {
	m, err := privsep.Join()
	if m == nil || err != nil {
		return nil, err
	}
	all := &member{Member: m}
	if m.Role == RoleAuth { // before it asks for anything; see parent.hold
		all.hangups = make(chan os.Signal, 1)
		signal.Notify(all.hangups, syscall.SIGHUP)
	}
	return all, nil
}

// start returns how the parent was started, and for which service, empty for the
// usual one.
func (m *member) start() (Start, string) {
	number, service, _ := strings.Cut(m.Detail, " ")
	n, _ := strconv.Atoi(number) // the parent wrote it
	return Start(n), service
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

// is tells whether this process has that role.
func (s *Stdio) is(role string) bool { return s.member != nil && s.member.Role == role }

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

// hold tells the parent, where there is one, that the configuration that this
// process has read last counts from now on: for its other children as well.
func (s *Stdio) hold() error {
	if !s.is(roleServer) && !s.is(RoleFront) {
		return nil
	}
	_, _, err := s.member.ask([]byte{tellHeld})
	return err
}

// Narrow takes out of the configuration what is for other processes: the parent
// would not give them to this one. A tunnel, whose client has come in already, reads
// neither passwords nor, without -s, keys, which its caller may not read. conf may
// be nil.
func (s *Stdio) Narrow(conf *config.Config) {
	if conf == nil {
		return
	}
	tunnel := s.Start == StartTunnel
	if s.is(RoleFront) || s.is(RoleWorker) || tunnel {
		conf.PasswdFile, conf.UserDeny = "", ""
	}
	if s.is(RoleAuth) || s.is(RoleWorker) || tunnel && !s.underTLS {
		conf.TLSServerCert, conf.TLSServerKey, conf.TLSServerNames = nil, nil, ""
	}
}

// Asks returns the Channel over which this process, a front, asks whether a
// password is right; nil for one that checks passwords itself, or serves nobody
// who has to log in.
func (s *Stdio) Asks() *os.File { return s.way(RoleFront) }

// AsksAgain returns the Channel over which this process asks from now on, since the
// process that has answered has ended. The error is EAGAIN where there is no other yet.
func (s *Stdio) AsksAgain() (*os.File, error) {
	_, files, err := s.member.ask([]byte{askAuth})
	if err == nil && len(files) != 1 {
		privsep.Close(files)
		err = syscall.EIO
	}
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// Answers returns the Channel over which this process is asked for nothing but
// passwords; nil where it is for other things.
func (s *Stdio) Answers() *os.File { return s.way(RoleAuth) }

// Hangups returns where this process, one that answers, hears that the
// configuration is to be read again.
func (s *Stdio) Hangups() <-chan os.Signal { return s.member.hangups }

func (s *Stdio) way(role string) *os.File {
	if !s.is(role) || len(s.member.Files) == 0 {
		return nil
	}
	return s.member.Files[0]
}

// HandsOver returns how sessions are given to other processes after the login,
// nil where they stay.
func (s *Stdio) HandsOver() func(context.Context, []byte, net.Conn, Handover, Home) (*Away, error) {
	if !s.is(RoleFront) {
		return nil
	}
	return s.HandOver
}

// notifier returns what tells systemd of this process through the parent, or nil
// where systemd does not listen.
func (m *member) notifier() *notifier {
	if m.Role != roleServer && m.Role != RoleFront {
		return nil
	}
	often, _, err := m.ask([]byte{tellInit})
	if err != nil || len(often) != 8 {
		return nil
	}
	return &notifier{
		relay:    func(message string) { _, _, _ = m.ask(append([]byte{tellInit}, message...)) }, // systemd finds it out
		watchdog: time.Duration(binary.BigEndian.Uint64(often)),
	}
}

// source returns the Source of what the parent has bound, of its one client, or
// of the sessions that it sends.
func (m *member) source(conf *config.Config, o *Options, certs *Certificates, log *slog.Logger) (Source, error) {
	if m.Role == RoleWorker {
		return m.newWorker(conf, o, log)
	}
	start, _ := m.start()
	if !start.Many() {
		return m.alone(conf, o, certs, log)
	}
	answer, files, err := m.ask([]byte{askDoors})
	if err != nil {
		return nil, err
	}
	doors, err := doorsOf(answer, files, conf.Listen)
	if err != nil {
		return nil, err
	}
	l := newListener(conf, o, certs, log, doors)
	l.idle, l.led = idleTime(start, o), m
	return l, nil
}

// changed returns the doors that the parent has bound for conf, and those of them
// that old has not.
func (m *member) changed(old []door, conf *config.Config) (doors, opened []door, err error) {
	answer, files, err := m.ask([]byte{askDoors})
	if err != nil {
		return nil, nil, conf.At("listen", fmt.Errorf("the parent cannot bind: %w", err))
	}
	bound, err := doorsOf(answer, files, conf.Listen)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range bound {
		if i := slices.IndexFunc(old, func(o door) bool { return o.at == d.at }); i >= 0 {
			d.Close() // a second descriptor of the same socket
			doors = append(doors, old[i])
		} else {
			doors, opened = append(doors, d), append(opened, d)
		}
	}
	return doors, opened, nil
}

// Notices is what the administrator has to say, wherever this process hears of
// it. It is to be closed.
type Notices interface {
	Motd() (text string, ok bool)
	Shutdown() (text string, ok bool)
	Refresh()
	Changed() <-chan struct{}
	Close()
}

// succeed has another process take the parent's place, and returns its process id
// when it serves. Others may ask the parent meanwhile.
func (m *member) succeed() (pid string, err error) {
	_, files, err := m.ask([]byte{askSuccessor})
	if err != nil {
		return "", err
	}
	defer privsep.Close(files)
	if len(files) != 1 {
		return "", syscall.EIO
	}
	text, err := io.ReadAll(files[0])
	if err == nil && len(text) == 0 {
		err = errors.New("the new one does not serve") // the parent has told why
	}
	return string(text), err
}

// NewNotices returns the notices for the sessions of source.
func NewNotices(source Source, o notice.Options) Notices {
	if w, ok := source.(*Worker); ok {
		return w
	}
	return notice.New(o)
}

// Vouch tells the parent who has shown the right password, and returns the
// ticket for which it gives a worker.
func (s *Stdio) Vouch(name string, uid, gid int, identity []byte) (ticket []byte, err error) {
	if len(name) > 255 || !json.Valid(identity) {
		return nil, errors.New("malformed identity")
	}
	message := append([]byte{tellTicket}, newTicket()...)
	message = binary.BigEndian.AppendUint32(message, uint32(int32(uid)))
	message = binary.BigEndian.AppendUint32(message, uint32(int32(gid)))
	message = append(append(append(message, byte(len(name))), name...), identity...)
	if _, _, err := s.member.ask(message); err != nil {
		return nil, fmt.Errorf("no process for user %s with uid %d and gid %d: %w", Escape(name), uid, gid, err)
	}
	return message[1 : 1+ticketSize], nil
}

// Confine takes from a process that a parent has started what it will not need
// from now on. What cannot be computed is not taken, and the log says so. A
// worker does so by itself, when it knows whose it is.
func (s *Stdio) Confine(conf *config.Config, log *slog.Logger) error {
	if s.member == nil || !conf.Landlock || s.is(RoleWorker) {
		return nil
	}
	var rights privsep.Rights
	if !s.is(RoleAuth) {
		rights.Write = []string{conf.ConfigDirectory, conf.ProcPath}
	}
	if s.is(roleServer) {
		for _, template := range mailTemplates(conf) {
			dir := privsep.Fixed(template)
			if dir == "" {
				log.Debug("no landlock: it cannot be said where all mail is", "template", template)
				return nil
			}
			rights.Write = append(rights.Write, dir)
		}
	}
	return confine(rights, log)
}

// mailTemplates returns the templates of the places where mail and what belongs
// to it lies.
func mailTemplates(conf *config.Config) []string {
	templates := []string{conf.Maildir}
	for _, t := range []string{conf.MaildirControl, conf.IndexDirectory} {
		if t != "" {
			templates = append(templates, t)
		}
	}
	return templates
}

// confine takes from a worker all files that are not its user's mail.
func (w *Worker) confine(identity []byte) error {
	if !w.conf.Landlock {
		return nil
	}
	var who struct{ Name, Home string }
	if err := json.Unmarshal(identity, &who); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	rights, err := WorkerRights(w.conf, who.Name, who.Home)
	if err != nil {
		return err
	}
	return confine(rights, w.log)
}

// WorkerRights returns what is left to the worker of the user name, whose home is home:
// his mail. What is to be made yet lies in a directory that is there.
func WorkerRights(conf *config.Config, name, home string) (privsep.Rights, error) {
	rights := privsep.Rights{Offline: true}
	for _, template := range mailTemplates(conf) {
		dir, err := config.Expand(template, name, home)
		if err != nil {
			return rights, err
		}
		for dir = filepath.Clean(dir); dir != "/"; dir = filepath.Dir(dir) {
			if _, err := os.Stat(dir); err == nil {
				break
			}
		}
		if dir == "/" {
			return rights, fmt.Errorf("no directory on the way to %s is there", template)
		}
		rights.Write = append(rights.Write, dir)
	}
	return rights, nil
}
