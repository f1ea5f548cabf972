package imap_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imapd/control"
	"imapd/control/config"
	"imapd/imap"
	"imapd/maildir"
	"imapd/sasl"
	"imapd/test/peer"
	"imapd/test/transcript"
)

// TestTranscripts plays all transcripts against a server in this process: the
// quick way to see what a change does, and the one that the race detector sees.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	transcript.Run(t, "testdata", &local{servers: map[string]*localServer{}})
}

// local is a transcript.Host in this process.
type local struct {
	servers map[string]*localServer // by the setup's options
	next    atomic.Int32
}

type localServer struct {
	*imap.Server
	root string
	wg   sync.WaitGroup
}

// oneSecret knows the users u<number>, whose password is "secret".
type oneSecret struct{}

func (oneSecret) Login(_ context.Context, authzid, authcid, password string) (sasl.Identity, error) {
	name, err := sasl.Canonical(authcid, true)
	if err != nil {
		return sasl.Identity{}, err
	}
	if _, err := strconv.Atoi(strings.TrimPrefix(name, "u")); err != nil || authzid != "" && authzid != name {
		return sasl.Identity{}, sasl.ErrNoUser
	}
	if password != "secret" {
		return sasl.Identity{}, sasl.ErrBadPassword
	}
	return sasl.Identity{User: sasl.User{Name: name, UID: -1, GID: -1}, Login: name}, nil
}

// Start implements transcript.Host.
func (l *local) Start(t testing.TB, s *transcript.Setup) {
	key := strings.Join(s.Imapd, "\n")
	if l.servers[key] != nil {
		return
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "imapd.conf")
	lines := peer.MergeOptions([]string{
		"configdirectory: " + dir, "allowplaintext: yes", "failedloginpause: 0", "maildir_fsync: never",
		"maildir: " + filepath.Join(dir, "mail", "%u"), "sasl_mech_list: PLAIN LOGIN", "limit_login_tries: 100",
	}, s.Imapd)
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf, problems, err := config.Load(file, "imap", config.Open)
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	host := maildir.NewHost(maildir.Options{Fsync: maildir.FsyncNever, Log: log})
	server := &localServer{root: filepath.Join(dir, "mail"), Server: imap.New(imap.Options{
		Config: conf, Host: host, Auth: oneSecret{}, TLS: certificate(t), Log: log, Version: "test",
	})}
	l.servers[key] = server
	t.Cleanup(func() {
		server.wg.Wait()
		host.Close()
	})
}

// Account implements transcript.Host.
func (l *local) Account(t testing.TB, s *transcript.Setup) transcript.Account {
	server := l.servers[strings.Join(s.Imapd, "\n")]
	user := "u" + strconv.Itoa(int(l.next.Add(1)))
	root := filepath.Join(server.root, user)
	if err := s.Build(root); err != nil {
		t.Fatal(err)
	}
	return transcript.Account{
		Dial: func(string) (net.Conn, error) { return server.dial() },
		User: user, Password: "secret", Maildir: root,
	}
}

// dial begins a session over TCP.
func (s *localServer) dial() (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	ours, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	theirs, err := l.Accept()
	if err != nil {
		return nil, err
	}
	s.wg.Go(func() {
		s.Serve(context.Background(), &control.Conn{Conn: theirs, Host: "[127.0.0.1]"})
	})
	return ours, nil
}

// certificate returns a TLS configuration with a certificate of its own.
func certificate(t testing.TB) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}
