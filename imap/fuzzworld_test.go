package imap

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imapd/control"
	"imapd/control/config"
	"imapd/maildir"
	"imapd/test/strict"
	"imapd/test/transcript"
)

// A fuzzWorld is a server in this process whose only account is made anew for
// each session.
type fuzzWorld struct {
	base     string // holds the template and the mail
	template string
	mail     string
	srv      *Server
	conf     *config.Config
	log      *slog.Logger
	faults   *logBuffer
}

// newFuzzWorld keeps its files in memory where it can.
func newFuzzWorld(f testing.TB) *fuzzWorld {
	f.Helper()
	base, err := os.MkdirTemp("/dev/shm", "imapd-fuzz-")
	if err != nil {
		base = f.TempDir()
	}
	f.Cleanup(func() { os.RemoveAll(base) })
	w := &fuzzWorld{base: base, template: filepath.Join(base, "template"), mail: filepath.Join(base, "mail"), faults: &logBuffer{}}
	setup, err := transcript.LoadSetup("testdata", "search")
	if err == nil {
		err = setup.Build(w.template)
	}
	if err != nil {
		f.Fatal(err)
	}
	conf := config.Default()
	conf.Maildir = filepath.Join(w.mail, "%u")
	conf.AllowPlaintext = true
	conf.FailedLoginPause = 0
	conf.Limits.BadCommands, conf.Limits.PreauthBadCommands = 50, 50
	conf.Limits.LoginTries = 20
	log := slog.New(slog.NewTextHandler(w.faults, &slog.HandlerOptions{Level: slog.LevelError}))
	w.conf, w.log = conf, log
	w.process(f)
	return w
}

// process has the sessions that begin from now on served by another process.
func (w *fuzzWorld) process(f testing.TB) {
	host := maildir.NewHost(maildir.Options{Fsync: maildir.FsyncNever, NoNotify: true, Log: w.log})
	f.Cleanup(func() { host.Close() })
	w.srv = New(Options{Config: w.conf, Host: host, Auth: passwords{}, Log: w.log, Version: "1"})
}

// session begins a session with a fresh account, in the state that the fuzzer
// wants.
func (w *fuzzWorld) session(t *testing.T, state byte) *fuzzSession {
	t.Helper()
	if err := errOf(os.RemoveAll(w.mail), os.Mkdir(w.mail, 0o700), linkTree(w.template, filepath.Join(w.mail, "u"))); err != nil {
		t.Fatal(err)
	}
	return w.join(t, state)
}

// join begins a session with the account as it is.
func (w *fuzzWorld) join(t *testing.T, state byte) *fuzzSession {
	t.Helper()
	ours, theirs := socketPair(t)
	ours.SetDeadline(time.Now().Add(30 * time.Second))
	peer := &control.Conn{Conn: theirs, Host: "[192.0.2.1]"}
	if state&fuzzUser != 0 {
		peer.Preauth = &control.Caller{Name: "u", UID: -1, GID: -1, Home: w.mail}
	}
	s := &fuzzSession{client: &client{t: t, conn: ours, done: make(chan struct{})}}
	s.r = strict.NewReader(io.TeeReader(ours, &s.out))
	go func() {
		defer close(s.done)
		w.srv.Serve(context.Background(), peer)
	}()
	if _, err := s.response(); err != nil {
		t.Fatal(err)
	}
	if state&fuzzUser != 0 {
		if state&fuzzRev2 != 0 {
			s.ready("ENABLE IMAP4rev2")
		}
		if state&fuzzSelected != 0 {
			s.ready("SELECT INBOX")
		}
	}
	return s
}

// ready sends a command that is known to succeed.
func (s *fuzzSession) ready(line string) {
	s.t.Helper()
	if err := s.command(line, &lines{}); err != nil {
		s.t.Fatal(line, err)
	}
}

// halfClose says that the client will send nothing more.
func (s *fuzzSession) halfClose() {
	s.conn.(interface{ CloseWrite() error }).CloseWrite()
}

// end closes the connection and waits for the end of the session.
func (s *fuzzSession) end() {
	s.conn.Close()
	<-s.done
}

// check looks for what a session must not leave behind.
func (w *fuzzWorld) check(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(w.faults.take()) {
		t.Error(line)
	}
	if entries, err := os.ReadDir(w.base); err != nil || len(entries) != 2 {
		t.Errorf("beside the mail: %v, %v", entries, err)
	}
}

// take returns the log and forgets it.
func (l *logBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.b.String()
	l.b.Reset()
	return text
}

// linkTree copies a Maildir: messages, which nobody writes to, by hard links.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(path, from)
		switch dir := filepath.Base(filepath.Dir(path)); {
		case d.IsDir():
			return os.Mkdir(target, 0o700)
		case dir == "cur" || dir == "new":
			return os.Link(path, target)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o600)
	})
}

// errOf returns the first error.
func errOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
