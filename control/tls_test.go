package control

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"imapd/control/config"
)

// certificate writes cert.pem and key.pem for a name to dir.
func certificate(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}} {
		write(t, dir+"/"+file, string(pem.EncodeToMemory(block)))
	}
}

func tlsConfig(t *testing.T, lines ...string) (*config.Config, *Certificates, string) {
	t.Helper()
	dir := t.TempDir()
	certificate(t, dir, "one.example")
	conf := loadConfig(t, append(lines, "listen: imaps://127.0.0.1:1", "tls_server_cert: "+dir+"/cert.pem", "tls_server_key: "+dir+"/key.pem")...)
	certs, err := FirstCertificates(StartListen, conf, &Options{}, config.Open, discard)
	if err != nil {
		t.Fatal(err)
	}
	return conf, certs, dir
}

func shake(addr net.Addr, conf *tls.Config) (*tls.Conn, error) {
	conf.InsecureSkipVerify = true
	return tls.Dial("tcp", addr.String(), conf)
}

// nameAt returns the name in the certificate that addr shows.
func nameAt(t *testing.T, addr net.Addr) string {
	t.Helper()
	c, err := shake(addr, &tls.Config{NextProtos: []string{"imap"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.ConnectionState().NegotiatedProtocol; got != "imap" {
		t.Errorf("protocol %q", got)
	}
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// A process for one client reads the files at once, as it may not be able to later, and
// finds out at the handshake what they are good for.
func TestLateCertificates(t *testing.T) {
	t.Parallel()
	conf, _, dir := tlsConfig(t)
	var log strings.Builder
	late := func() (tls.ConnectionState, error) {
		t.Helper()
		certs, err := FirstCertificates(StartInetd, conf, &Options{}, config.Open, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"cert.pem", "key.pem"} {
			if err := os.Rename(dir+"/"+file, dir+"/"+file+".old"); err != nil {
				t.Fatal(err)
			}
		}
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		go tls.Server(theirs, certs.Config()).Handshake()
		c := tls.Client(ours, &tls.Config{InsecureSkipVerify: true})
		err = c.Handshake()
		return c.ConnectionState(), err
	}
	if state, err := late(); err != nil || state.PeerCertificates[0].Subject.CommonName != "one.example" {
		t.Errorf("%v", err)
	}
	certificate(t, dir, "one.example")
	write(t, dir+"/key.pem", "no key")
	log.Reset()
	if _, err := late(); err == nil || !strings.Contains(log.String(), dir+"/key.pem") {
		t.Errorf("%v, log %q", err, log.String())
	}
	if _, err := FirstCertificates(StartInetd, conf, &Options{}, config.Open, discard); err == nil {
		t.Error("files that are missing are no fault")
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	conf, certs, dir := tlsConfig(t)
	l, _ := serve(t, conf, &Options{}, certs)
	addr := l.Addrs()[0]
	name := func() string { return nameAt(t, addr) }
	if got := name(); got != "one.example" {
		t.Errorf("got %s", got)
	}
	old, err := shake(addr, &tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	session := bufio.NewReader(old)
	if line, err := session.ReadString('\n'); line != `["[127.0.0.1]",true,true]`+"\n" {
		t.Errorf("got %q, %v", line, err)
	}

	// New files count when the next look is due.
	certificate(t, dir, "three.example")
	certs.next.Store(0)
	if got := name(); got != "three.example" {
		t.Errorf("got %s", got)
	}
	// A broken file changes nothing.
	write(t, dir+"/cert.pem", "no certificate")
	certs.next.Store(0)
	if got := name(); got != "three.example" {
		t.Errorf("got %s", got)
	}
	if err := os.Remove(dir + "/key.pem"); err != nil {
		t.Fatal(err)
	}
	certs.next.Store(0)
	if got := name(); got != "three.example" {
		t.Errorf("got %s", got)
	}
	// The session that was there before lives.
	if _, err := old.Write([]byte("ping\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := session.ReadString('\n'); line != "ping\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

// TestEachCertificate holds that a file that cannot be used keeps no other from being
// read, and takes nothing from the name that it is for.
func TestEachCertificate(t *testing.T) {
	t.Parallel()
	names := t.TempDir()
	named := func(file, name string) {
		t.Helper()
		dir := t.TempDir()
		certificate(t, dir, name)
		write(t, names+"/"+file, read(t, dir+"/cert.pem")+read(t, dir+"/key.pem"))
	}
	named("a.example.pem", "a1")
	named("b.example.pem", "b1")
	conf, _, dir := tlsConfig(t, "tls_server_names_dir: "+names)
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	certs, err := FirstCertificates(StartListen, conf, &Options{}, config.Open, logger)
	if err != nil {
		t.Fatal(err)
	}
	shown := func(name string) string {
		t.Helper()
		cert, err := certs.choose(&tls.ClientHelloInfo{ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}})
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf.Subject.CommonName
	}
	want := func(names map[string]string) {
		t.Helper()
		for name, want := range names {
			if got := shown(name); got != want {
				t.Errorf("%q gets %s, want %s", name, got, want)
			}
		}
	}
	logged := func(what ...string) {
		t.Helper()
		lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
		if log.Len() == 0 {
			lines = nil
		}
		for i, line := range lines {
			if len(lines) != len(what) || !regexp.MustCompile(what[i]).MatchString(line) {
				t.Errorf("logged %q, want %q", log.String(), what)
				break
			}
		}
		if len(lines) == 0 && len(what) > 0 {
			t.Errorf("nothing is logged, want %q", what)
		}
		log.Reset()
	}
	want(map[string]string{"a.example": "a1", "b.example": "b1", "": "one.example"})
	certs.refresh()
	logged()

	certificate(t, dir, "two.example")
	write(t, names+"/a.example.pem", "broken")
	write(t, names+"/bad.example.pem", "broken")
	named("b.example.pem", "b2")
	named("new.example.pem", "new")
	certs.refresh()
	want(map[string]string{"a.example": "a1", "b.example": "b2", "bad.example": "two.example", "new.example": "new", "": "two.example"})
	broken := []string{"level=WARN .*not reloaded.* file=" + names + "/a.example.pem err=.*PEM", "level=WARN .*not reloaded.* file=" + names + "/bad.example.pem err=.*PEM"}
	logged(append([]string{"certificate reloaded.* file=" + dir + "/cert.pem", "reloaded.* file=" + names + "/b.example.pem", "reloaded.* file=" + names + "/new.example.pem"}, broken...)...)
	certs.refresh()
	logged()

	// So it is where somebody asks for it.
	named("b.example.pem", "b3")
	write(t, dir+"/key.pem", "broken")
	if _, _, err := certs.succeed(conf, config.Open, logger); err == nil || !strings.Contains(err.Error(), "tls_server_cert: certificate "+dir) {
		t.Fatalf("a broken certificate for all: %v", err)
	}
	certs.refresh()
	logged("reloaded.* file="+names+"/b.example.pem", "not reloaded.* file="+dir+"/cert.pem key="+dir+"/key.pem err=.*PEM")
	certificate(t, dir, "two.example")
	next, kept, err := certs.succeed(conf, config.Open, logger)
	if err != nil || len(kept) != 2 || !strings.Contains(kept[1], names+"/bad.example.pem") {
		t.Fatalf("%q, %v", kept, err)
	}
	certs = next
	certs.complain()
	logged()
	want(map[string]string{"a.example": "a1", "b.example": "b3", "bad.example": "two.example", "": "two.example"})

	// What is mended counts, what is taken away counts no more.
	named("bad.example.pem", "good")
	if err := os.Remove(names + "/a.example.pem"); err != nil {
		t.Fatal(err)
	}
	certs.refresh()
	want(map[string]string{"a.example": "two.example", "bad.example": "good"})
	logged("reloaded.* file="+names+"/bad.example.pem", "dropped.* file="+names+"/a.example.pem")

	// At the start each fault is one.
	write(t, names+"/bad.example.pem", "broken")
	certificate(t, dir, "one.example")
	if _, err := FirstCertificates(StartListen, conf, &Options{}, config.Open, logger); err == nil || !strings.Contains(err.Error(), names+"/bad.example.pem") {
		t.Errorf("at the start: %v", err)
	}
	var none *Certificates
	if _, kept, err := none.succeed(conf, config.Open, logger); err != nil || len(kept) != 1 {
		t.Errorf("TLS is new: %q, %v", kept, err)
	}
	write(t, dir+"/key.pem", "broken")
	if _, _, err := none.succeed(conf, config.Open, logger); err == nil {
		t.Error("a server without any certificate for most clients")
	}
}

func TestHandshakesThatFail(t *testing.T) {
	t.Parallel()
	conf, certs, _ := tlsConfig(t, "limit_tls_handshake_time: 1s")
	l, _ := serve(t, conf, &Options{}, certs)
	for _, tt := range []struct {
		name string
		conf *tls.Config
		want string
	}{
		{"another protocol", &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, "no application protocol"},
		{"an old version", &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, "protocol version"},
		{"an old cipher", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, "handshake failure"},
	} {
		if c, err := shake(l.Addrs()[0], tt.conf); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
			if c != nil {
				c.Close()
			}
		}
	}
	// Who says nothing is hung up on, without a word in clear.
	dial(t, l.Addrs()[0]).want("EOF")
}

func TestOldVersionsWhereAllowed(t *testing.T) {
	t.Parallel()
	conf, certs, _ := tlsConfig(t, "tls_versions: tls1_1 tls1_2")
	l, _ := serve(t, conf, &Options{}, certs)
	c, err := shake(l.Addrs()[0], &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS11})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if c, err := shake(l.Addrs()[0], &tls.Config{MinVersion: tls.VersionTLS13}); err == nil {
		c.Close()
		t.Error("TLS 1.3 although not listed")
	}
}

// -s puts all addresses under TLS.
func TestTLSEverywhere(t *testing.T) {
	t.Parallel()
	conf, certs, _ := tlsConfig(t)
	conf.Listen = []config.Address{{Network: "tcp", Address: "127.0.0.1:0"}}
	l, _ := serve(t, conf, &Options{TLS: true}, certs)
	c, err := shake(l.Addrs()[0], &tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestNoCertificate(t *testing.T) {
	t.Parallel()
	var none *Certificates
	if none.Config() != nil {
		t.Error("something comes of nothing")
	}
	conf := loadConfig(t, "listen: imaps://127.0.0.1:1")
	if _, err := Listen(conf, &Options{}, nil, discard); err == nil || !strings.Contains(err.Error(), "tls_server_cert") {
		t.Errorf("got %v", err)
	}
	if wrong := Check(conf, nil); len(wrong) != 1 || !strings.Contains(wrong[0].Error(), "imapd.conf:2: listen") {
		t.Errorf("got %v", wrong)
	}
	conf = loadConfig(t, "tls_server_cert: /nonexistent", "tls_server_key: /nonexistent", "cyrus_user: no-such-user")
	if wrong := Check(conf, nil); len(wrong) != 2 || !strings.Contains(wrong[0].Error(), "imapd.conf:2: tls_server_cert: ") || !strings.Contains(wrong[1].Error(), "imapd.conf:4: cyrus_user: ") {
		t.Errorf("got %v", wrong)
	}
}
