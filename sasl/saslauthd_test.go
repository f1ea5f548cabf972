package sasl

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/control/config"
)

// A daemon is in saslauthd's place: it reads a question and answers as it is
// told.
type daemon struct {
	path  string
	heard chan []byte // the questions, octet for octet
}

// fake starts a daemon that sends answer, and then closes the connection; with
// hold it waits for the other side to do so.
func fake(t *testing.T, answer string, hold bool) *daemon {
	t.Helper()
	d := &daemon{path: filepath.Join(socketDir(t), "mux"), heard: make(chan []byte, 100)}
	l, err := net.Listen("unix", d.path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				d.heard <- question(c)
				io.WriteString(c, answer)
				if hold {
					io.Copy(io.Discard, c)
				}
			})
		}
	})
	return d
}

// question reads the four texts of a question.
func question(r io.Reader) []byte {
	var all []byte
	for range 4 {
		n := make([]byte, 2)
		if _, err := io.ReadFull(r, n); err != nil {
			return append(all, err.Error()...)
		}
		text := make([]byte, binary.BigEndian.Uint16(n))
		io.ReadFull(r, text)
		all = append(append(all, n...), text...)
	}
	return all
}

// socketDir is short enough for the name of a socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sasl-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// ask returns a back end that asks path, for users who need no home.
func ask(path string, change func(*config.Config)) *Saslauthd {
	c := config.Default()
	c.SaslauthdPath, c.Maildir = path, "/var/mail/%u"
	if change != nil {
		change(c)
	}
	return NewSaslauthd(c)
}

// TestSaslauthdQuestion holds what goes to the daemon.
func TestSaslauthdQuestion(t *testing.T) {
	t.Parallel()
	d := fake(t, "\x00\x02OK", false)
	s := ask(d.path, func(c *config.Config) { c.VirtDomains = config.VirtDomainsUserID })
	for _, tt := range []struct{ name, password, want string }{
		{"alice", "pwalice", "\x00\x05alice\x00\x07pwalice\x00\x04imap\x00\x00"},
		{"alice@example.org", "p", "\x00\x05alice\x00\x01p\x00\x04imap\x00\x0bexample.org"},
		{"a@b@c", "p", "\x00\x03a@b\x00\x01p\x00\x04imap\x00\x01c"},
		{"alice", "\u00e4\r\n", "\x00\x05alice\x00\x04\u00e4\r\n\x00\x04imap\x00\x00"},
		{"alice", strings.Repeat("x", 256), "\x00\x05alice\x01\x00" + strings.Repeat("x", 256) + "\x00\x04imap\x00\x00"},
	} {
		got, err := s.Verify(t.Context(), tt.name, tt.password)
		if d := cmp.Diff(User{Name: tt.name, UID: -1, GID: -1}, got); d != "" || err != nil {
			t.Error(err, d)
		}
		if heard := string(<-d.heard); heard != tt.want {
			t.Errorf("%s %s: sent %q", tt.name, tt.password, heard)
		}
	}
	// These are not worth a question.
	for name, password := range map[string]string{"@example.org": "x", "alice": strings.Repeat("x", 257)} {
		if _, err := s.Verify(t.Context(), name, password); !errors.Is(err, ErrBadPassword) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(d.heard) > 0 {
		t.Errorf("sent %q", <-d.heard)
	}
}

// TestSaslauthdAnswer holds what an answer means: yes, no, or that there is none.
func TestSaslauthdAnswer(t *testing.T) {
	t.Parallel()
	const yes, no, none = "yes", "no", "none"
	long := strings.Repeat("x", 65533)
	for _, tt := range []struct{ answer, want string }{
		{"\x00\x02OK", yes}, {"\x00\x0cOK \"Success.\"", yes}, {"\x00\x04OKAY", yes}, {"\x00\x02OKtoo much", yes},
		{"\xff\xffOK" + long, yes},
		{"\x00\x02NO", no}, {"\x00\x11NO PAM auth error", no}, {"\x00\x02ok", no}, {"\x00\x03 OK", no}, {"\x00\x02\x00\x00", no},
		{"\xff\xffNO" + long, no},
		{"", none}, {"\x00", none}, {"\x00\x02", none}, {"\x00\x02O", none}, {"\x00\x03OK", none}, {"\x00\x00", none}, {"\x00\x01O", none},
		{"OK", none}, {"\xff\xffOK", none},
	} {
		d := fake(t, tt.answer, false)
		_, err := ask(d.path, nil).Verify(t.Context(), "alice", "p")
		got := none
		switch {
		case err == nil:
			got = yes
		case errors.Is(err, ErrBadPassword):
			got = no
		}
		if got != tt.want {
			t.Errorf("%.20q: %s (%v), want %s", tt.answer, got, err, tt.want)
		}
	}
}

// TestSaslauthdSilence holds that a daemon which is not there, or says nothing,
// is never a wrong password, and that nobody waits for it longer than he has to.
func TestSaslauthdSilence(t *testing.T) {
	t.Parallel()
	none := filepath.Join(socketDir(t), "none")
	_, err := ask(none, nil).Verify(t.Context(), "alice", "p")
	if !errors.Is(err, syscall.ENOENT) || errors.Is(err, ErrBadPassword) || !strings.HasPrefix(err.Error(), "cannot connect to saslauthd server: ") {
		t.Errorf("no socket: %v", err)
	}
	d := fake(t, "\x00\x02O", true)
	s := ask(d.path, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client has gone")
	go func() {
		<-d.heard
		cancel(gone)
	}()
	if _, err := s.Verify(ctx, "alice", "p"); !errors.Is(err, gone) {
		t.Errorf("context done: %v", err)
	}
	s.patience = time.Millisecond
	if _, err := s.Verify(t.Context(), "alice", "p"); !errors.Is(err, errSilent) {
		t.Errorf("no answer: %v", err)
	}
	for range questions {
		s.slots <- struct{}{}
	}
	if _, err := s.Verify(t.Context(), "alice", "p"); !errors.Is(err, errSilent) {
		t.Errorf("no turn: %v", err)
	}
}

// TestSaslauthdCrowd holds that more logins than the daemon's queue takes wait
// for it, where the system would turn them away.
func TestSaslauthdCrowd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDir(t), "mux")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	const logins = 40
	s := ask(path, nil)
	results := make(chan error, logins)
	for range logins {
		go func() {
			_, err := s.Verify(t.Context(), "alice", "p")
			results <- err
		}()
	}
	for range logins {
		c, _, err := syscall.Accept(fd)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(c), "client")
		question(f)
		io.WriteString(f, "\x00\x02OK")
		f.Close()
	}
	for range logins {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// TestSaslauthdRealms holds whose names are asked about. A daemon without -r
// does not look at the realm, and would know alice of any.
func TestSaslauthdRealms(t *testing.T) {
	t.Parallel()
	d := fake(t, "\x00\x02OK", false)
	for _, tt := range []struct {
		realms      []string
		domains     config.VirtDomains
		name        string
		want, asked bool
	}{
		{nil, config.VirtDomainsOff, "alice", true, true},
		{nil, config.VirtDomainsOff, "alice@example.org", false, false},
		{nil, config.VirtDomainsOff, "alice@", false, false},
		{nil, config.VirtDomainsUserID, "alice@example.org", true, true},
		{nil, config.VirtDomainsUserID, "alice@", false, false},
		{nil, config.VirtDomainsOn, "alice@example.org", true, true},
		{[]string{"Example.ORG", "x"}, config.VirtDomainsOff, "alice@example.org", true, true},
		{[]string{"Example.ORG", "x"}, config.VirtDomainsOff, "alice@X", true, true},
		{[]string{"Example.ORG", "x"}, config.VirtDomainsUserID, "alice@example", false, false},
		{[]string{"Example.ORG", "x"}, config.VirtDomainsUserID, "alice", true, true},
	} {
		s := ask(d.path, func(c *config.Config) { c.LoginRealms, c.VirtDomains = tt.realms, tt.domains })
		for what, question := range map[string]func() (User, error){
			"Verify": func() (User, error) { return s.Verify(t.Context(), tt.name, "p") },
			"Lookup": func() (User, error) { return s.Lookup(t.Context(), tt.name) },
		} {
			if _, err := question(); (err == nil) != tt.want || err != nil && !errors.Is(err, ErrNoUser) {
				t.Errorf("%v %s: %s of %s: %v", tt.realms, tt.domains, what, tt.name, err)
			}
		}
		if asked := len(d.heard) > 0; asked != tt.asked {
			t.Errorf("%v %s: %s: asked %v", tt.realms, tt.domains, tt.name, asked)
		} else if asked {
			<-d.heard
		}
	}
}

// TestSaslauthdHomes holds where the facts about a user come from.
func TestSaslauthdHomes(t *testing.T) {
	t.Parallel()
	d := fake(t, "\x00\x02OK", false)
	s := ask(d.path, func(c *config.Config) { c.IndexDirectory = "~/.index" })
	broken := errors.New("the list cannot be read")
	s.lookUp = func(name string) (*user.User, error) {
		switch name {
		case "alice":
			return &user.User{Uid: "1001", Gid: "1002", HomeDir: "/home/alice"}, nil
		case "root":
			return &user.User{Uid: "0", Gid: "0", HomeDir: "/root"}, nil
		case "odd":
			return nil, broken
		}
		return nil, user.UnknownUserError(name)
	}
	unknown := func(name string) User { return User{Name: name, UID: -1, GID: -1} }
	for _, tt := range []struct {
		name             string
		verified         User
		verify, lookedUp error
	}{
		{"alice", User{Name: "alice", UID: 1001, GID: 1002, Home: "/home/alice"}, nil, nil},
		{"root", unknown("root"), nil, ErrNoUser},
		{"nobody", unknown("nobody"), nil, ErrNoUser},
		{"odd", unknown("odd"), broken, broken},
	} {
		got, err := s.Verify(t.Context(), tt.name, "p")
		if d := cmp.Diff(tt.verified, got); d != "" || !errors.Is(err, tt.verify) {
			t.Errorf("Verify: %v %s", err, d)
		}
		got, err = s.Lookup(t.Context(), tt.name)
		if d := cmp.Diff(tt.verified, got); !errors.Is(err, tt.lookedUp) || d != "" {
			t.Errorf("Lookup: %v %s", err, d)
		}
	}
}

// TestSeveralMethods holds that methods are tried in their order, and that one
// which cannot be asked is not taken for a wrong password.
func TestSeveralMethods(t *testing.T) {
	t.Parallel()
	_, file, _ := open(t, sample)
	for _, tt := range []struct {
		methods, answer string
		user, password  string
		want            error
	}{
		{"passwd-file saslauthd", "\x00\x02NO", "bob", "builder", nil},
		{"passwd-file saslauthd", "\x00\x02OK", "bob", "another", nil},
		{"passwd-file saslauthd", "", "bob", "builder", nil},
		{"saslauthd passwd-file", "", "bob", "builder", nil},
		{"saslauthd passwd-file", "\x00\x02NO", "bob", "wrong", ErrBadPassword},
		{"saslauthd passwd-file", "", "bob", "wrong", io.EOF},
		{"passwd-file saslauthd", "", "nobody", "x", io.EOF},
		// Who is locked in one is not asked of the next: by ! in front of the hash, by a
		// field, by a line with a fault. An empty password is no lock.
		{"passwd-file saslauthd", "\x00\x02OK", "frank", "locked", ErrLocked},
		{"passwd-file saslauthd", "\x00\x02OK", "frank", "another", ErrLocked},
		{"passwd-file saslauthd", "\x00\x02OK", "ivan", "pw", ErrLocked},
		{"passwd-file saslauthd", "\x00\x02OK", "erin", "x", ErrLocked},
		{"passwd-file saslauthd", "\x00\x02OK", "dave", "x", nil},
		{"saslauthd passwd-file", "\x00\x02NO", "frank", "x", ErrBadPassword},
		{"saslauthd passwd-file", "\x00\x02OK", "frank", "x", nil},
		{"saslauthd", "\x00\x02NO", "bob", "builder", ErrBadPassword},
		{"passwd-file", "\x00\x02OK", "nobody", "x", ErrNoUser},
	} {
		d := fake(t, tt.answer, false)
		c := config.Default()
		c.Maildir, c.PasswdFile, c.SaslauthdPath = "/var/mail/%u", file, d.path
		c.PwcheckMethods = strings.Fields(tt.methods)
		a, err := New(c, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := a.Login(t.Context(), "", tt.user, tt.password); !errors.Is(err, tt.want) || err == nil && got.Name != tt.user {
			t.Errorf("%s, %q, %s, %s: %v, %v", tt.methods, tt.answer, tt.user, tt.password, got, err)
		}
		if tt.methods != "passwd-file saslauthd" {
			continue
		}
		// Nor does saslauthd say where the mail is of somebody whose line has a fault.
		for user, want := range map[string]error{"erin": ErrLocked, "frank": nil, "nobody": nil} {
			if _, err := a.Lookup(t.Context(), user); !errors.Is(err, want) {
				t.Errorf("%s, %s: %v", tt.methods, user, err)
			}
		}
	}
}
