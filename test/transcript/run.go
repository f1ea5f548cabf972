package transcript

import (
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"imapd/test/peer"
)

// A Host makes accounts: fresh copies of a setup on a running server.
type Host interface {
	// Start makes sure that a server with the setup's configuration runs, until
	// the end of t. It is called for each setup before the first Account.
	Start(t testing.TB, s *Setup)
	// Account returns a new account, on a server that it may share with others.
	Account(t testing.TB, s *Setup) Account
}

// Run plays all scripts of dir against h, each in all its forms, as parallel
// subtests of t.
func Run(t *testing.T, dir string, h Host) {
	t.Helper()
	all, err := scripts(dir)
	if err != nil {
		t.Fatal(err)
	}
	var plays, rows atomic.Int32
	t.Cleanup(func() { t.Logf("%d scripts, %d plays, %d known differences", len(all), plays.Load(), rows.Load()) })
	for _, s := range all {
		setup, err := LoadSetup(dir, s.Setup)
		if err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		h.Start(t, setup)
		t.Run(strings.TrimSuffix(s.Name, ".txt"), func(t *testing.T) {
			t.Parallel()
			for _, f := range Forms {
				if !s.Plays(f) {
					continue
				}
				a := h.Account(t, setup)
				if a.Dovecot && s.Not["dovecot"] != "" {
					rows.Add(1)
					return
				}
				if a.Dovecot && f == Pipelined {
					continue // it answers pipelined commands in an order of its own
				}
				if lacks := lacking(t, s, a); len(lacks) > 0 && a.Dovecot {
					t.Logf("not played: Dovecot lacks %v", lacks)
					return
				} else if len(lacks) > 0 {
					t.Fatalf("the server lacks %v", lacks)
				}
				plays.Add(1)
				if err := s.Play(setup, a, f); err != nil {
					t.Errorf("%s: %v", f, err)
					return // the other forms would fail alike
				}
			}
			for _, step := range s.Steps {
				if step.Differs {
					rows.Add(1)
				}
			}
		})
	}
}

// lacking returns the capabilities that s needs and the server has not.
func lacking(t testing.TB, s *Script, a Account) []string {
	t.Helper()
	if len(s.Needs) == 0 {
		return nil
	}
	probe := &Script{Name: "capabilities", Login: true, Steps: []Step{
		{Client: "1", Kind: Send, Lines: []Line{{{Text: "a CAPABILITY"}}}},
		{Client: "1", Kind: Expect, Lines: []Line{{{Text: "* CAPABILITY ..."}}}},
		{Client: "1", Kind: Expect, Lines: []Line{{{Text: "a OK [*]"}}}},
	}}
	var lacks []string
	for _, word := range s.Needs {
		probe.Steps[1].Lines[0][0].Text = "* CAPABILITY " + word + " ..."
		if probe.Play(nil, a, Plain) != nil {
			lacks = append(lacks, word)
		}
	}
	return lacks
}

// A PeerHost makes accounts on servers of package peer, one server for each
// configuration that the setups ask for.
type PeerHost struct {
	start   peer.Starter
	users   []string
	next    atomic.Int32
	servers map[string]*serverAt // by configuration
}

type serverAt struct {
	*peer.Server
	root string
}

// NewPeerHost returns a host that has no server yet.
func NewPeerHost(start peer.Starter) *PeerHost {
	h := &PeerHost{start: start, servers: map[string]*serverAt{}}
	for i := range 2000 {
		h.users = append(h.users, userName(i))
	}
	return h
}

// userName returns the name of the i-th account: three letters after a u.
func userName(i int) string {
	return "u" + string([]byte{'a' + byte(i/676%26), 'a' + byte(i/26%26), 'a' + byte(i%26)})
}

// Start implements Host.
func (h *PeerHost) Start(t testing.TB, s *Setup) {
	t.Helper()
	key := configKey(s)
	if h.servers[key] != nil {
		return
	}
	root := peer.TempDir(t)
	server := h.start(t, filepath.Join(root, "%u", "Maildir"), peer.Options{
		Users: h.users, FS: s.FS, Imapd: s.Imapd, Dovecot: append([]string{"mail_fsync = never"}, s.Dovecot...),
	})
	h.servers[key] = &serverAt{server, root}
}

func configKey(s *Setup) string {
	layout := "maildir++"
	if s.FS {
		layout = "fs"
	}
	return layout + "\n" + strings.Join(s.Imapd, "\n") + "\n\n" + strings.Join(s.Dovecot, "\n")
}

// Account implements Host.
func (h *PeerHost) Account(t testing.TB, s *Setup) Account {
	t.Helper()
	server := h.servers[configKey(s)]
	user := h.users[int(h.next.Add(1))-1]
	maildir := filepath.Join(server.root, user, "Maildir")
	if err := s.Build(maildir); err != nil {
		t.Fatal(err)
	}
	peer.Own(t, filepath.Dir(maildir))
	return Account{
		Dial: func(string) (net.Conn, error) { return server.Dial() },
		User: user, Password: peer.Password, Maildir: maildir, Dovecot: server.Kind == "dovecot",
	}
}
