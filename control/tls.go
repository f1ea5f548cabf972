package control

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"imapd/control/config"
)

// stale is how often a handshake looks whether the certificate files changed.
const stale = time.Second

// Certificates are the server's certificates and keys. They are read again
// when the files change and at Reload; a handshake in progress keeps what it
// started with. The methods may be called from any number of goroutines, and
// on nil, where TLS is not offered.
type Certificates struct {
	cert, key []string
	conf      *tls.Config
	open      config.Opener
	log       *slog.Logger

	now  atomic.Pointer[[]tls.Certificate]
	next atomic.Int64 // when to look at the files again, Unix nanoseconds

	mu   sync.Mutex // one reload at a time
	seen []stamp    // of cert and key, when they were last read
}

// stamp tells one version of a file from the next.
type stamp struct {
	changed time.Time
	size    int64
	info    os.FileInfo
}

// LoadCertificates reads the certificates that conf names, opening the files by
// open. It returns nil where conf names none. log is told when changed files cannot be used; the old
// certificates stay then.
func LoadCertificates(conf *config.Config, open config.Opener, log *slog.Logger) (*Certificates, error) {
	if len(conf.TLSServerCert) == 0 {
		return nil, nil
	}
	c := &Certificates{cert: conf.TLSServerCert, key: conf.TLSServerKey, open: open, log: log}
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

// choose returns the first certificate that suits the client, or the first.
func (c *Certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now().UnixNano()
	if next := c.next.Load(); now >= next && c.next.CompareAndSwap(next, now+int64(stale)) {
		c.refresh()
	}
	certs := *c.now.Load()
	for i := range certs {
		if hello.SupportsCertificate(&certs[i]) == nil {
			return &certs[i], nil
		}
	}
	return &certs[0], nil
}

// refresh reads the files again if they changed. Certificate and key are
// replaced one after the other: between the two they do not fit and the old
// pair stays, until the second one changes.
func (c *Certificates) refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps := c.stamps()
	same := true
	for i, s := range stamps {
		same = same && s.equal(c.seen[i])
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
	certs := make([]tls.Certificate, 0, len(c.cert))
	for i := range c.cert {
		pair, err := c.pair(c.cert[i], c.key[i])
		if err != nil {
			return fmt.Errorf("certificate %s and key %s: %w", c.cert[i], c.key[i], err)
		}
		certs = append(certs, pair)
	}
	if len(certs) == 0 {
		return errors.New("no certificate")
	}
	c.now.Store(&certs)
	return nil
}

func (c *Certificates) pair(cert, key string) (tls.Certificate, error) {
	chain, err := c.file(cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	secret, err := c.file(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(chain, secret)
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

func (c *Certificates) stamps() []stamp {
	var stamps []stamp
	for i := range c.cert {
		for _, name := range []string{c.cert[i], c.key[i]} {
			var s stamp
			if info, err := os.Stat(name); err == nil {
				s = stamp{info.ModTime(), info.Size(), info}
			}
			stamps = append(stamps, s)
		}
	}
	return stamps
}

func (s stamp) equal(t stamp) bool {
	if s.info == nil || t.info == nil {
		return s.info == nil && t.info == nil
	}
	return s.changed.Equal(t.changed) && s.size == t.size && os.SameFile(s.info, t.info)
}
