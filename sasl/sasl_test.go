package sasl

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/google/go-cmp/cmp"

	"imapd/control/config"
)

func TestCanonical(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in, want string // "" for ErrInvalidUser
	}{
		{"alice", "alice"},
		{"Alice@Example.ORG", "alice@example.org"},
		{"a b", "a b"},
		{`o"brien,x+y=z-_~`, `o"brien,x+y=z-_~`},
		{".hidden.", ".hidden."},
		{strings.Repeat("a", 80), strings.Repeat("a", 80)},
		{strings.Repeat("a", 81), ""},
		{"", ""}, {".", ""}, {"..", ""}, {"a..b", ""}, {"../x", ""}, {"a/b", ""},
		{"a%u", ""}, {"a&b", ""}, {"a*b", ""}, {"a:b", ""}, {"a?b", ""},
		{"a\x00", ""}, {"a\n", ""}, {"a\x7f", ""}, {"\u00e4", ""}, {"a\xff", ""},
		{"anyone", ""}, {"Anybody", ""}, {"anonymous", ""},
		{"group:mail", ""}, {"alice/x", ""}, {"alice%example.org", ""}, {"user\tx", ""}, {"a\x1bb", ""},
		{"alice@", "alice@"}, {"@example.org", "@example.org"}, {"a@b@c", "a@b@c"}, {"alice+box", "alice+box"},
		{"#!$'()-;<=>[\\]^_`{|}~", "#!$'()-;<=>[\\]^_`{|}~"}, {" ", " "},
	} {
		got, err := Canonical(tt.in, true)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && err != ErrInvalidUser {
			t.Errorf("%q: got %q, %v; want %q", tt.in, got, err, tt.want)
		}
		// What is canonical must be fit for a path, and stay as it is.
		if err == nil {
			if again, err := Canonical(got, true); again != got || err != nil {
				t.Errorf("%q: again %q, %v", got, again, err)
			}
			if _, err := config.Expand("/var/mail/%u", got, ""); err != nil {
				t.Error(err)
			}
		}
	}
	if got, err := Canonical("Alice", false); got != "Alice" || err != nil {
		t.Errorf("as it is: %q, %v", got, err)
	}
}

// table is a back end of names and passwords. The password "down" makes it
// fail,
// "locked" has locked the user.
type table map[string]string

var errDown = errors.New("back end is down")

func (b table) Verify(_ context.Context, user, password string) (User, error) {
	want, ok := b[user]
	switch {
	case want == "down":
		return User{}, errDown
	case want == "locked":
		return User{}, ErrLocked
	case !ok:
		return User{}, ErrNoUser
	case want != password:
		return User{}, ErrBadPassword
	}
	return User{Name: user, UID: -1, GID: -1}, nil
}

func (b table) Lookup(_ context.Context, user string) (User, error) {
	switch want, ok := b[user]; {
	case !ok:
		return User{}, ErrNoUser
	case want == "locked":
		return User{}, ErrLocked
	}
	return User{Name: user, UID: -1, GID: -1}, nil
}

func TestLogin(t *testing.T) {
	t.Parallel()
	first := table{"alice": "a", "root": "r", "twice": "1", "ill": "down", "shut": "locked"}
	second := table{"shut": "s", "bob": "b", "twice": "2", "ill": "i", "chief": "c", "gate": "g"}
	a := NewAuthenticator([]string{"root", "chief"}, []string{"gate"}, true, first, second)
	for _, tt := range []struct {
		authzid, authcid, password string
		name, login                string
		admin                      bool
		err                        error
	}{
		{"", "alice", "a", "alice", "alice", false, nil},
		{"", "ALICE", "a", "alice", "alice", false, nil},
		{"Alice", "alice", "a", "alice", "alice", false, nil},
		{"", "bob", "b", "bob", "bob", false, nil},
		{"", "twice", "2", "twice", "twice", false, nil},
		{"", "ill", "i", "ill", "ill", false, nil},
		{"", "ill", "x", "", "", false, errDown},
		{"", "root", "r", "root", "root", true, nil},
		{"alice", "root", "r", "alice", "root", false, nil},
		{"chief", "root", "r", "chief", "root", true, nil},
		{"nobody", "root", "r", "", "", false, ErrNotAllowed},
		{"shut", "root", "r", "", "", false, ErrNotAllowed},
		{"", "shut", "locked", "", "", false, ErrLocked},
		{"", "shut", "locked", "", "", false, ErrBadPassword},
		{"", "shut", "s", "", "", false, ErrLocked},
		{"", "gate", "g", "gate", "gate", false, nil},
		{"alice", "gate", "g", "alice", "gate", false, nil},
		{"root", "gate", "g", "root", "gate", true, nil},
		{"gate", "root", "r", "gate", "root", false, nil},
		{"alice", "gate", "wrong", "", "", false, ErrBadPassword},
		{"nobody", "gate", "g", "", "", false, ErrNotAllowed},
		{"alice", "root", "wrong", "", "", false, ErrBadPassword},
		{"bob", "alice", "a", "", "", false, ErrNotAllowed},
		{"bob", "alice", "wrong", "", "", false, ErrBadPassword},
		{"", "alice", "", "", "", false, ErrBadPassword},
		{"", "alice", "a\x00", "", "", false, ErrBadPassword},
		{"", "alice", strings.Repeat("a", 2000), "", "", false, ErrBadPassword},
		{"", "nobody", "x", "", "", false, ErrNoUser},
		{"", "nobody", "x", "", "", false, ErrBadPassword},
		{"", "a/b", "x", "", "", false, ErrInvalidUser},
		{"", "", "x", "", "", false, ErrInvalidUser},
		{"../x", "root", "r", "", "", false, ErrInvalidUser},
	} {
		got, err := a.Login(context.Background(), tt.authzid, tt.authcid, tt.password)
		if !errors.Is(err, tt.err) {
			t.Errorf("%q %q %q: %v, want %v", tt.authzid, tt.authcid, tt.password, err, tt.err)
		}
		if got.Name != tt.name || got.Login != tt.login || got.Admin != tt.admin {
			t.Errorf("%q %q %q: got %+v", tt.authzid, tt.authcid, tt.password, got)
		}
	}
	if _, err := NewAuthenticator(nil, nil, true).Login(context.Background(), "", "alice", "a"); !errors.Is(err, ErrBadPassword) {
		t.Errorf("no back ends: %v", err)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	_, path, _ := open(t, sample)
	c := config.Default()
	c.PasswdFile, c.Admins = path, []string{"bob"}
	a, err := New(c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.Login(context.Background(), "alice", "Bob", "builder")
	want := Identity{Login: "bob", User: User{Name: "alice", UID: 1001, GID: 1002, Home: "/home/alice",
		Extra: map[string]string{"mail": "maildir:~/Mail", "quota_rule": "*:bytes=1G"}}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
	c.PasswdFile += ".none"
	if _, err := New(c, nil, nil); err == nil || !strings.Contains(err.Error(), "sasl_passwd_file: open "+c.PasswdFile) {
		t.Errorf("no file: %v", err)
	}
}

func TestMechanisms(t *testing.T) {
	t.Parallel()
	c := config.Default()
	if got := Mechanisms(c, false); got != nil {
		t.Errorf("in clear: %v", got)
	}
	if d := cmp.Diff([]string{"PLAIN", "LOGIN"}, Mechanisms(c, true)); d != "" {
		t.Error(d)
	}
	c.AllowPlaintext = true
	if got := Mechanisms(c, false); len(got) != 2 {
		t.Errorf("in clear with allowplaintext: %v", got)
	}
	if _, err := NewServer("CRAM-MD5", nil); err != ErrMechanism {
		t.Error(err)
	}
}

// TestDialogues drives the servers as a session does: what the client sends
// ("-" for no initial response), what the server answers.
func TestDialogues(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("x", 12<<10)
	for _, tt := range []struct {
		mech string
		send []string
		want []string // challenges, then how it ends
	}{
		{"PLAIN", []string{"\x00alice\x00a"}, []string{"ok: alice a"}},
		{"PLAIN", []string{"-", "\x00alice\x00a"}, []string{"", "ok: alice a"}},
		{"PLAIN", []string{"bob\x00alice\x00a"}, []string{"ok:bob alice a"}},
		{"PLAIN", []string{"\x00alice\x00wrong"}, []string{"refused"}},
		{"PLAIN", []string{"\x00\x00a"}, []string{"refused"}},
		{"PLAIN", []string{""}, []string{"protocol"}},
		{"PLAIN", []string{"-", ""}, []string{"", "protocol"}},
		{"PLAIN", []string{"alice\x00a"}, []string{"protocol"}},
		{"PLAIN", []string{"\x00alice\x00a\x00"}, []string{"protocol"}},
		{"PLAIN", []string{"\x00" + huge + "\x00" + huge}, []string{"refused"}},
		{"PLAIN", []string{"\x00alice\x00a", "\x00alice\x00a"}, []string{"ok: alice a", "protocol"}},
		{"PLAIN", []string{"\x00alice\x00wrong", "\x00alice\x00a"}, []string{"refused", "protocol"}},
		{"PLAIN", []string{"", "\x00alice\x00a"}, []string{"protocol", "protocol"}},
		{"LOGIN", []string{"-", "alice", "a"}, []string{"Username:", "Password:", "ok: alice a"}},
		{"LOGIN", []string{"alice", "a"}, []string{"Password:", "ok: alice a"}},
		{"LOGIN", []string{"alice", "wrong", "a"}, []string{"Password:", "refused", "protocol"}},
		{"LOGIN", []string{"", ""}, []string{"Password:", "refused"}},
		{"LOGIN", []string{"-", "-", "-"}, []string{"Username:", "Password:", "refused"}},
		{"LOGIN", []string{"-", "al\x00ice", "a"}, []string{"Username:", "Password:", "refused"}},
		{"LOGIN", []string{huge, huge}, []string{"Password:", "refused"}},
	} {
		if d := cmp.Diff(tt.want, dialogue(t, tt.mech, tt.send)); d != "" {
			t.Errorf("%s %.40q: %s", tt.mech, tt.send, d)
		}
	}
}

func dialogue(t *testing.T, mech string, send []string) []string {
	refused := errors.New("refused")
	var who string
	s, err := NewServer(mech, func(authzid, authcid, password string) error {
		who = authzid + " " + authcid + " " + password
		if authcid != "alice" || password != "a" {
			return refused
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, line := range send {
		response := []byte(line)
		if line == "-" {
			response = nil
		}
		challenge, done, err := s.Next(response)
		switch {
		case err == refused:
			got = append(got, "refused")
		case err == ErrProtocol:
			got = append(got, "protocol")
		case err != nil:
			t.Errorf("error %v", err)
		case done:
			got = append(got, "ok:"+who)
		default:
			got = append(got, string(challenge))
		}
	}
	return got
}

// TestClients runs the servers against go-sasl's clients.
func TestClients(t *testing.T) {
	t.Parallel()
	for mech, client := range map[string]sasl.Client{
		"PLAIN": sasl.NewPlainClient("", "alice", "a"),
		"LOGIN": sasl.NewLoginClient("alice", "a"),
	} {
		called := 0
		s, err := NewServer(mech, func(authzid, authcid, password string) error {
			called++
			if authzid != "" || authcid != "alice" || password != "a" {
				t.Errorf("%s: got %q %q %q", mech, authzid, authcid, password)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		_, response, err := client.Start()
		for done := false; !done && err == nil; {
			var challenge []byte
			if challenge, done, err = s.Next(response); err == nil && !done {
				response, err = client.Next(challenge)
			}
		}
		if err != nil || called != 1 {
			t.Errorf("%s: %v, checked %d times", mech, err, called)
		}
	}
}

// FuzzServer holds that no client brings a server to panic, or to ask twice.
func FuzzServer(f *testing.F) {
	f.Add("PLAIN", []byte("\x00alice\x00a\xffx"), true)
	f.Add("LOGIN", []byte("alice\xffa\xff"), false)
	f.Fuzz(func(t *testing.T, mech string, script []byte, initial bool) {
		asked := 0
		s, err := NewServer(mech, func(string, string, string) error { asked++; return ErrBadPassword })
		if err != nil {
			return
		}
		if !initial {
			_, _, _ = s.Next(nil)
		}
		over := false
		for _, part := range bytes.Split(script, []byte{0xff}) {
			_, done, err := s.Next(part)
			if over && err != ErrProtocol {
				t.Errorf("after the end: %v", err)
			}
			over = over || done || err != nil
		}
		if asked > 1 {
			t.Errorf("asked %d times", asked)
		}
	})
}
