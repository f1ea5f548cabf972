package control

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"imapd/control/config"
)

// stale is how often a handshake looks whether the certificate files changed,
// for where no event tells of it.
const stale = time.Second

// Certificates are the server's certificates and keys. They are read again
// when the files change and at Reload; a handshake in progress keeps what it
// started with. The methods may be called from any number of goroutines, and
// on nil, where TLS is not offered.
type Certificates struct {
	cert, key []string
	names     string // directory of certificates for one name each, or empty
	late      bool   // what was read is looked at when a client wants TLS
	conf      *tls.Config
	open      config.Opener
	log       *slog.Logger

	now  atomic.Pointer[func() (*chain, error)]
	next atomic.Int64 // when to look at the files again, Unix nanoseconds

	mu    sync.Mutex // one reload at a time
	seen  []stamp    // of the files, when they were last read
	watch *certWatch // nil where nothing is watched
	blind bool       // there are directories that cannot be watched
}

// chain is what was read of the files at one time.
type chain struct {
	usual  []tls.Certificate
	byName map[string]*tls.Certificate // in lower case; "*.example.org" is for one label
}

// stamp tells one version of a file from the next.
type stamp struct {
	name    string
	changed time.Time
	size    int64
	info    os.FileInfo
}

// LoadCertificates reads the certificates that conf names, opening the files by
// open. It returns nil where conf names none. log is told
// when changed files cannot be used; the old certificates stay then.
func LoadCertificates(conf *config.Config, open config.Opener, log *slog.Logger) (*Certificates, error) {
	return load(conf, &Certificates{open: open, log: log})
}

// FirstCertificates is LoadCertificates at the start. A process that serves one client
// may never need them for TLS: the files are read while they can be, and what is wrong
// with them is found when the client does want it. To make sense of a certificate and
// its key is a tenth of what it costs to start such a process.
func FirstCertificates(start Start, conf *config.Config, o *Options, open config.Opener, log *slog.Logger) (*Certificates, error) {
	return load(conf, &Certificates{open: open, log: log, late: start == StartInetd && !o.TLS})
}

func load(conf *config.Config, c *Certificates) (*Certificates, error) {
	if len(conf.TLSServerCert) == 0 {
		return nil, nil
	}
	c.cert, c.key, c.names = conf.TLSServerCert, conf.TLSServerKey, conf.TLSServerNames
	if err := c.Reload(); err != nil {
		return nil, at(conf, "tls_server_cert", err)
	}
	low, high := conf.TLSRange()
	c.conf = &tls.Config{
		MinVersion:     low,
		MaxVersion:     high,
		GetCertificate: c.choose,
		// A client that asks for other protocols only is no mail client (RFC
		// 8314 section 3, RFC 9325 section 3.8): it gets an alert.
		NextProtos: []string{"imap"},
	}
	if low >= tls.VersionTLS12 {
		c.conf.CipherSuites = []uint16{ // of TLS 1.2 (RFC 9325 section 4.2)
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		}
	}
	return c, nil
}

// Config returns the configuration of the server's side of a handshake, for
// imaps and STARTTLS alike, or nil where TLS is not offered. It is always the
// same one, which keeps session tickets valid, and must not be changed.
func (c *Certificates) Config() *tls.Config {
	if c == nil {
		return nil
	}
	return c.conf
}

// Reload reads the files again. On an error the old certificates stay.
func (c *Certificates) Reload() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = c.stamps()
	return c.read()
}

// choose returns the certificate for the name that the client asks for, else the
// first that suits the client, or the first.
func (c *Certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now().UnixNano()
	if next := c.next.Load(); now >= next && c.next.CompareAndSwap(next, now+int64(stale)) {
		c.refresh()
	}
	all, err := (*c.now.Load())()
	if err != nil {
		c.log.Error("no TLS", "err", err)
		return nil, err
	}
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if cert := all.byName[name]; cert != nil {
		return cert, nil
	}
	if _, domain, ok := strings.Cut(name, "."); ok {
		if cert := all.byName["*."+domain]; cert != nil {
			return cert, nil
		}
	}
	for i := range all.usual {
		if hello.SupportsCertificate(&all.usual[i]) == nil {
			return &all.usual[i], nil
		}
	}
	return &all.usual[0], nil
}

// refresh reads the files again if they changed. Certificate and key are
// replaced one after the other: between the two they do not fit and the old
// pair stays, until the second one changes.
func (c *Certificates) refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watch != nil && c.blind {
		c.next.Store(time.Now().Add(blindly).UnixNano())
	} else if c.watch != nil {
		c.next.Store(time.Now().Add(backup).UnixNano())
	}
	stamps := c.stamps()
	same := len(stamps) == len(c.seen)
	for i := 0; same && i < len(stamps); i++ {
		same = stamps[i].equal(c.seen[i])
	}
	if same {
		return
	}
	c.seen = stamps
	if err := c.read(); err != nil {
		c.log.Warn("certificate not reloaded", "err", err)
		return
	}
	c.log.Info("certificate reloaded", "file", c.cert[0])
}

// read loads all pairs and publishes them. c.mu is held.
func (c *Certificates) read() error {
	var all []pemPair
	for i := range c.cert {
		all = append(all, pemPair{namedPair: namedPair{cert: c.cert[i], key: c.key[i]}})
	}
	named, err := c.named()
	if err != nil {
		return err
	}
	for _, n := range named {
		all = append(all, pemPair{namedPair: n})
	}
	for i := range all {
		if err := c.fetch(&all[i]); err != nil {
			return err
		}
	}
	now := sync.OnceValues(func() (*chain, error) { return newChain(all) })
	if !c.late || c.now.Load() != nil { // or the old ones would be lost
		if _, err := now(); err != nil {
			return err
		}
	}
	c.now.Store(&now)
	return nil
}

// A pemPair is what was read of the files of a certificate and its key; it has no name
// where it is for all.
type pemPair struct {
	namedPair
	chain, secret []byte
}

// newChain makes sense of what was read.
func newChain(pairs []pemPair) (*chain, error) {
	all := &chain{byName: map[string]*tls.Certificate{}}
	for _, p := range pairs {
		pair, err := tls.X509KeyPair(p.chain, p.secret)
		switch {
		case err != nil:
			return nil, p.wrap(err)
		case p.name == "":
			all.usual = append(all.usual, pair)
		default:
			all.byName[p.name] = &pair
		}
	}
	return all, nil
}

func (p *pemPair) wrap(err error) error {
	return fmt.Errorf("certificate %s and key %s: %w", p.cert, p.key, err)
}

// A namedPair is the certificate of one server name.
type namedPair struct{ name, cert, key string }

// named returns what lies in the directory of names: NAME.pem with both in it,
// or NAME/ with cert.pem and key.pem, or as certbot calls them. Other entries are
// nothing to us. A NAME that begins with "_." stands for "*.".
func (c *Certificates) named() ([]namedPair, error) {
	if c.names == "" {
		return nil, nil
	}
	dir, err := c.open.Open(c.names)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var all []namedPair
	for _, e := range entries {
		path := filepath.Join(c.names, e.Name())
		name, single := strings.CutSuffix(e.Name(), ".pem")
		if rest, wild := strings.CutPrefix(name, "_."); wild {
			name = "*." + rest
		}
		name = strings.ToLower(name)
		switch {
		case strings.HasPrefix(name, "."):
		case single:
			all = append(all, namedPair{name, path, path})
		case e.IsDir() || e.Type()&os.ModeSymlink != 0:
			for _, files := range [][2]string{{"fullchain.pem", "privkey.pem"}, {"cert.pem", "key.pem"}} {
				if f, err := c.open.Open(filepath.Join(path, files[0])); err == nil {
					f.Close()
					all = append(all, namedPair{name, filepath.Join(path, files[0]), filepath.Join(path, files[1])})
					break
				}
			}
		}
	}
	return all, nil
}

// fetch reads the files of p.
func (c *Certificates) fetch(p *pemPair) (err error) {
	if p.chain, err = c.file(p.cert); err == nil {
		p.secret, err = c.file(p.key)
	}
	if err != nil {
		return p.wrap(err)
	}
	return nil
}

// maxPEM is the largest file of a certificate or key that is read, in octets.
const maxPEM = 1 << 20

func (c *Certificates) file(name string) ([]byte, error) {
	f, err := c.open.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxPEM))
}

// files returns the names of all files that are read, in a fixed order.
func (c *Certificates) files() []string {
	var files []string
	for i := range c.cert {
		files = append(files, c.cert[i], c.key[i])
	}
	named, err := c.named()
	if err != nil {
		return files
	}
	for _, n := range named {
		files = append(files, n.cert, n.key)
	}
	return files
}

func (c *Certificates) stamps() []stamp {
	var stamps []stamp
	for _, name := range c.files() {
		s := stamp{name: name}
		if info, err := c.open.Stat(name); err == nil {
			s = stamp{name, info.ModTime(), info.Size(), info}
		}
		stamps = append(stamps, s)
	}
	return stamps
}

func (s stamp) equal(t stamp) bool {
	if s.name != t.name {
		return false
	}
	if s.info == nil || t.info == nil {
		return s.info == nil && t.info == nil
	}
	return s.changed.Equal(t.changed) && s.size == t.size && os.SameFile(s.info, t.info)
}
