package sasl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"imapd/control/config"
	"imapd/control/privsep"
)

// TestComplete holds that what the back end knows stays, whatever the system says
// of a user of that name.
func TestComplete(t *testing.T) {
	t.Parallel()
	system, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(system.Uid)
	gid, _ := strconv.Atoi(system.Gid)
	name, home := system.Username, system.HomeDir
	for _, tt := range []struct{ have, want User }{
		{User{Name: name, UID: -1, GID: -1}, User{Name: name, UID: uid, GID: gid, Home: home}},
		{User{Name: name, UID: uid, GID: -1, Home: "/home/x"}, User{Name: name, UID: uid, GID: gid, Home: "/home/x"}},
		{User{Name: name, UID: -1, GID: 60}, User{Name: name, UID: uid, GID: 60, Home: home}},
		{User{Name: name, UID: 5003, GID: 60}, User{Name: name, UID: 5003, GID: 60, Home: home}},
		{User{Name: name, UID: 5003, GID: -1, Home: "/home/x"}, User{Name: name, UID: 5003, GID: -1, Home: "/home/x"}},
		{User{Name: "none/such", UID: -1, GID: 60}, User{Name: "none/such", UID: -1, GID: 60}},
	} {
		got := tt.have
		if err := Complete(&got); err != nil {
			t.Errorf("%+v: %v", tt.have, err)
		}
		if d := gocmp.Diff(tt.want, got); d != "" {
			t.Errorf("%+v: %s", tt.have, d)
		}
	}
}

// TestNoProcess holds that it is said of a user without a process why.
func TestNoProcess(t *testing.T) {
	t.Parallel()
	c := config.Default()
	c.PasswdFile = "/p"
	for _, tt := range []struct {
		uid, gid int
		want     string
	}{
		{1000, 1000, ""},
		{-1, 60, "user ghost has no uid in /p nor in /etc/passwd"},
		{1000, -1, "user ghost has no gid in /p nor in /etc/passwd, or another uid there"},
		{0, 60, "user ghost has uid 0 and gid 60, and mail is never root's"},
		{33, 33, "user ghost has uid 33, which is below first_valid_uid 500"},
	} {
		if err := hasProcess(c, "ghost", tt.uid, tt.gid); fmt.Sprint(err) != cmp.Or(tt.want, "<nil>") {
			t.Errorf("%d, %d: %v", tt.uid, tt.gid, err)
		}
	}
	c.PwcheckMethods = []string{"saslauthd"}
	if err := hasProcess(c, "ghost", -1, -1); err == nil || err.Error() != "user ghost has no uid in /etc/passwd" {
		t.Error(err)
	}
}

// TestRemote asks for passwords over a Channel, many at a time.
func TestRemote(t *testing.T) {
	t.Parallel()
	asks, answers, err := privsep.Pair()
	if err != nil {
		t.Fatal(err)
	}
	var other *os.File // for who asks after the first has ended
	r, err := NewRemote(asks, func() (*os.File, error) {
		if other == nil {
			return nil, syscall.EAGAIN
		}
		return other, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	channel, err := privsep.NewChannel(answers)
	if err != nil {
		t.Fatal(err)
	}
	a := &answerer{channel: channel, vouch: func(name string, uid, gid int, identity []byte) ([]byte, error) {
		if name == "nobody's" {
			return nil, errors.New("no process")
		}
		return []byte("ticket of " + string(identity)), nil
	}}
	known := table{"alice": "a\xff", "nobody's": "n", "root": "r", "ill": "down"}
	a.auth.Store(NewAuthenticator([]string{"root"}, nil, false, known))
	ended := make(chan error)
	go func() { ended <- a.run(context.Background()) }()
	var all sync.WaitGroup
	for range 50 {
		for _, tt := range []struct {
			authzid, authcid, password string
			want                       error
			text                       string
		}{
			{"", "alice", "a\xff", nil, ""},
			{"alice", "root", "r", nil, ""},
			{"", "alice", "b", ErrBadPassword, ErrBadPassword.Error()},
			{"", "carol", "b", ErrNoUser, ErrNoUser.Error()},
			{"root", "alice", "a\xff", ErrNotAllowed, "alice is not allowed to proxy"},
			{"", "a/b", "b", ErrInvalidUser, ""},
			{"", "nobody's", "n", nil, "no process"},
		} {
			all.Go(func() {
				who, err := r.Login(context.Background(), tt.authzid, tt.authcid, tt.password)
				switch {
				case tt.want != nil && !errors.Is(err, tt.want), tt.text != "" && (err == nil || !strings.Contains(err.Error(), tt.text)):
					t.Errorf("%q %q: %v", tt.authzid, tt.authcid, err)
				case tt.want == nil && tt.text == "" && (err != nil || who.Name != "alice" || !strings.HasPrefix(string(who.Ticket), `ticket of {"Name":"alice"`)):
					t.Errorf("%q %q: %+v, %v", tt.authzid, tt.authcid, who, err)
				}
			})
		}
	}
	all.Wait()
	given, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Login(given, "", "alice", "b"); err == nil {
		t.Error("a login that was given up succeeds")
	}
	r.channel.Close()
	if err := <-ended; err != nil {
		t.Errorf("the one that answers ends with %v", err)
	}
	if _, err := r.Login(context.Background(), "", "alice", "a\xff"); err == nil || errors.Is(err, ErrBadPassword) {
		t.Errorf("nobody answers: %v", err)
	}
	channel.Close()
	if other, answers, err = privsep.Pair(); err != nil {
		t.Fatal(err)
	}
	if a.channel, err = privsep.NewChannel(answers); err != nil {
		t.Fatal(err)
	}
	defer a.channel.Close()
	go func() { ended <- a.run(context.Background()) }()
	time.Sleep(retryAfter)
	if who, err := r.Login(context.Background(), "", "alice", "a\xff"); err != nil || who.Name != "alice" {
		t.Errorf("another answers %v, %v", who, err)
	}
	r.channel.Close()
	if err := <-ended; err != nil {
		t.Errorf("the other one ends with %v", err)
	}
}
