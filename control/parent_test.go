package control

import (
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"imapd/control/config"
	"imapd/control/privsep"
)

// TestNames says which process is given which file.
func TestNames(t *testing.T) {
	t.Parallel()
	r := reading{files: map[string][]byte{"/etc/imapd.conf": nil}, conf: &config.Config{
		TLSServerCert: []string{"/etc/cert.pem"}, TLSServerKey: []string{"/etc/key.pem"}, TLSServerNames: "/etc/names", PasswdFile: "/etc/users",
	}}
	all := []string{roleServer, RoleFront, RoleAuth, RoleWorker}
	talk := []string{roleServer, RoleFront}
	for path, who := range map[string][]string{
		"/etc/imapd.conf":             all,
		"/etc/key.pem":                talk,
		"/etc/cert.pem":               talk,
		"/etc/names":                  talk,
		"/etc/names/a.pem":            talk,
		"/etc/names/a/key.pem":        talk,
		"/etc/users":                  {roleServer, RoleAuth},
		"/etc/names/a":                nil,
		"/etc/names/a/other":          nil,
		"/etc/names/a/b/key.pem":      nil,
		"/etc/names/../key.pem":       nil,
		"/etc/names/../shadow.pem":    nil,
		"/etc/names/..":               nil,
		"/etc/names/../../x/cert.pem": nil,
		"/etc/shadow":                 nil,
		"etc/key.pem":                 nil,
		"":                            nil,
	} {
		for _, role := range all {
			want := false
			for _, w := range who {
				want = want || w == role
			}
			if got := r.names(role, path); got != want {
				t.Errorf("%s for %s: %v", path, role, got)
			}
		}
	}
}

// asked sends what do answers to the other end, and returns the answer.
func asked(t *testing.T, do func(*privsep.Child) error) string {
	t.Helper()
	x, y, err := privsep.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := privsep.NewChannel(x)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := privsep.NewChannel(y)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if err := do(&privsep.Child{Channel: ours}); err != nil {
		return "broken"
	}
	message, _, err := theirs.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(message) == 5 && message[0] == answerNo {
		return syscall.Errno(binary.BigEndian.Uint32(message[1:])).Error()
	}
	return string(message)
}

// TestTellInit holds what a child can have systemd hear in root's name.
func TestTellInit(t *testing.T) {
	t.Parallel()
	self := strconv.Itoa(os.Getpid())
	for message, good := range map[string]bool{
		"": true, "READY=1": true, "READY=1\nMAINPID=" + self: true, "RELOADING=1\nMONOTONIC_USEC=17": true, "STOPPING=1": true, "WATCHDOG=1": true,
		"MAINPID=1": false, "READY=1\nMAINPID=1": false, "MAINPID=" + self + " \n": false, "FDSTORE=1": false, "READY=1\nERRNO=2": false, "\n": false,
	} {
		p := &parent{notify: &notifier{watchdog: 7}}
		want := syscall.EINVAL.Error()
		if good {
			want = string(binary.BigEndian.AppendUint64([]byte{answerYes}, 7))
		}
		if got := asked(t, func(c *privsep.Child) error { return p.tellInit(c, message) }); got != want {
			t.Errorf("%q: %q, want %q", message, got, want)
		}
	}
	if got := asked(t, func(c *privsep.Child) error { return (&parent{}).tellInit(c, "") }); got != syscall.ENOENT.Error() {
		t.Errorf("where nobody listens: %q", got)
	}
}

// TestTickets holds what the parent takes from who checks passwords, and what
// it gives for it. A ticket that is good is spent in test/.
func TestTickets(t *testing.T) {
	t.Parallel()
	p := &parent{log: slog.New(slog.DiscardHandler), held: reading{conf: &config.Config{FirstValidUID: 500}},
		tickets: map[[ticketSize]byte]vouched{}, workers: map[workerKey]*worker{}}
	vouch := func(ticket [ticketSize]byte, uid, gid int) string {
		m := binary.BigEndian.AppendUint32(ticket[:], uint32(int32(uid)))
		m = binary.BigEndian.AppendUint32(m, uint32(int32(gid)))
		m = append(append(m, 5), `alice{"Name":"alice"}`...)
		return asked(t, func(c *privsep.Child) error { return p.takeVouched(c, m) })
	}
	for i, tt := range []struct {
		uid, gid int
		want     string
	}{
		{0, 100, syscall.EPERM.Error()}, {499, 100, syscall.EPERM.Error()}, {-1, -1, syscall.EPERM.Error()},
		{1000, 0, syscall.EPERM.Error()}, {1 << 31, 1000, syscall.EPERM.Error()}, {500, 500, "y"},
	} {
		if got := vouch([ticketSize]byte{byte(i)}, tt.uid, tt.gid); got != tt.want {
			t.Errorf("%d:%d: %q, want %q", tt.uid, tt.gid, got, tt.want)
		}
	}
	if len(p.tickets) != 1 {
		t.Errorf("%d tickets", len(p.tickets))
	}
	for _, m := range []string{"", "short", "0123456789abcdef\x00\x00\x03\xe8\x00\x00\x03\xe8\x20short"} {
		if got := asked(t, func(c *privsep.Child) error { return p.takeVouched(c, []byte(m)) }); got != "broken" {
			t.Errorf("%q: %q", m, got)
		}
	}
	old := [ticketSize]byte{99}
	p.tickets[old] = vouched{workerKey{name: "alice", uid: 1000, gid: 1000}, time.Now().Add(-time.Second)}
	unknown := [ticketSize]byte{98}
	for _, ticket := range [][]byte{old[:], unknown[:]} {
		if got := asked(t, func(c *privsep.Child) error { return p.giveWorker(c, ticket) }); got != syscall.ESRCH.Error() {
			t.Errorf("%v: %q", ticket[0], got)
		}
	}
	if _, there := p.tickets[old]; there {
		t.Error("a ticket that was shown is there still")
	}
	if got := asked(t, func(c *privsep.Child) error { return p.giveWorker(c, []byte("short")) }); got != syscall.EINVAL.Error() {
		t.Errorf("short: %q", got)
	}
}

// TestInit holds what a child may have systemd told.
func TestInit(t *testing.T) {
	t.Parallel()
	told := ""
	p := &parent{notify: &notifier{relay: func(message string) { told += message + ";" }}}
	for _, tt := range []struct {
		message string
		passes  bool
	}{
		{"READY=1\nMAINPID=" + strconv.Itoa(os.Getpid()), true},
		{"WATCHDOG=1", true},
		{"MAINPID=1", false},
		{"READY=1\nMAINPID=1", false},
		{"MAINPID=" + strconv.Itoa(os.Getpid()) + "\nMAINPID=1", false},
		{"FDSTORE=1", false},
		{"READY=1\nFDSTOREREMOVE=1", false},
	} {
		told = ""
		got := asked(t, func(c *privsep.Child) error { return p.tellInit(c, tt.message) })
		if passes := got[0] == answerYes && told == tt.message+";"; passes != tt.passes || !passes && told != "" {
			t.Errorf("%q: answer %q, told %q", tt.message, got, told)
		}
	}
}

// TestDeafChild holds that a child which asks and does not listen to the answer
// keeps nobody else from the parent.
func TestDeafChild(t *testing.T) {
	t.Parallel()
	x, y, err := privsep.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	ours, err := privsep.NewChannel(x)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = ours.TrySend([]byte("full"))
	}
	ticket := [ticketSize]byte{1}
	p := &parent{log: slog.New(slog.DiscardHandler), tickets: map[[ticketSize]byte]vouched{ticket: {}}, workers: map[workerKey]*worker{}}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_ = p.giveWorker(&privsep.Child{Channel: ours}, ticket[:])
	}()
	awaitSpent(t, p)
	ours.Close()
	<-answered
}

// awaitSpent waits until p has nothing to do but for somebody, and no ticket left.
func awaitSpent(t *testing.T, p *parent) {
	t.Helper()
	spent := func() bool {
		if !p.mu.TryLock() {
			return false
		}
		defer p.mu.Unlock()
		return len(p.tickets) == 0
	}
	for limit := time.Now().Add(5 * time.Second); !spent() && !t.Failed(); runtime.Gosched() {
		if time.Now().After(limit) {
			t.Error("the parent is kept waiting")
		}
	}
}

// TestSlowStart holds that the parent can be asked for other things while it starts
// a worker.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	spawner, err := privsep.NewSpawner()
	if err != nil {
		t.Fatal(err)
	}
	defer spawner.Close()
	spawner.Args = []string{os.Args[0], "-test.list=^$"} // the worker ends at once
	ticket := [ticketSize]byte{1}
	p := newParent(StartListen, &Options{}, slog.New(slog.DiscardHandler))
	p.spawner = spawner
	p.tickets[ticket] = vouched{workerKey{name: "alice", uid: 1000, gid: 1000, identity: "{}"}, time.Now().Add(time.Minute)}
	defer p.endWorkers()
	x, y, err := privsep.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer y.Close()
	ours, err := privsep.NewChannel(x)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	answered := make(chan struct{})
	syscall.ForkLock.RLock() // no process starts
	go func() {
		defer close(answered)
		_ = p.giveWorker(&privsep.Child{Channel: ours}, ticket[:])
	}()
	awaitSpent(t, p)
	syscall.ForkLock.RUnlock()
	<-answered
}

// TestPasswordsOfReload holds that the process that checks passwords, which hears of a
// reload a moment later, gets the file until then that it goes by, and nobody else does.
func TestPasswordsOfReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	paths := map[string]string{}
	for _, name := range []string{"first", "former", "held", "last"} {
		paths[name] = filepath.Join(dir, name)
		if err := os.WriteFile(paths[name], nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	of := func(name string) reading { return reading{conf: &config.Config{PasswdFile: paths[name]}} }
	p := &parent{last: of("last"), held: of("held"), former: of("former")}
	for _, tt := range []struct{ role, can string }{
		{RoleAuth, "former held"},
		{RoleWorker, ""},
		{RoleFront, ""},
		{roleServer, "held last"},
	} {
		for name, path := range paths {
			f, err := p.open(tt.role, path)
			if err == nil {
				f.Close()
			}
			if can := slices.Contains(strings.Fields(tt.can), name); can != (err == nil) || !can && err != syscall.EPERM {
				t.Errorf("%s opens the passwords of the %s reading: %v", tt.role, name, err)
			}
		}
	}
}
