package control

import (
	"crypto/tls"
	"errors"
	"log/slog"
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
// when the files change; a handshake in progress keeps what it started with. At
// the start one that cannot be used is a fault, and later, when clients depend on
// the others, each stands for itself: it is logged, once for each version of its
// files, and what was read before stays in its place. The methods may be called
// from any number of goroutines, and on nil, where TLS is not offered.
type Certificates struct {
	cert, key []string
	names     string // directory of certificates for one name each, or empty
	late      bool   // what was read is looked at when a client wants TLS
	conf      *tls.Config
	open      config.Opener
	log       *slog.Logger

	now  atomic.Pointer[func() (*chain, error)]
	next atomic.Int64 // when to look at the files again, Unix nanoseconds

	mu       sync.Mutex // one look at a time
	pairs    []pair     // what the last look has found
	unlisted string     // why names could not be read then, or empty
	watch    *certWatch // nil where nothing is watched
	blind    bool       // there are directories that cannot be watched
}

// FirstCertificates reads the certificates that conf names, opening the files by open.
// It returns nil where conf names none. log is told when changed files cannot be used.
//
// A process that serves one client may never need them for TLS: the files are read
// while they can be, and what is wrong with them is found when the client does want
// it. To make sense of a certificate and its key is a tenth of what it costs to start
// such a process.
func FirstCertificates(start Start, conf *config.Config, o *Options, open config.Opener, log *slog.Logger) (*Certificates, error) {
	c := newCertificates(conf, open, log)
	if len(c.cert) == 0 {
		return nil, nil
	}
	c.late = start == StartInetd && !o.TLS
	list, err := c.list()
	if err != nil {
		return nil, conf.At("tls_server_names_dir", err)
	}
	found := c.look(list, nil, false)
	for i := range found {
		if p := &found[i]; p.err != nil {
			return nil, conf.At(p.option(), p.wrap(p.err))
		}
	}
	c.publish(found)
	c.late = false
	return c, nil
}

func newCertificates(conf *config.Config, open config.Opener, log *slog.Logger) *Certificates {
	c := &Certificates{cert: conf.TLSServerCert, key: conf.TLSServerKey, names: conf.TLSServerNames, open: open, log: log}
	c.conf = serverSide(conf, c.choose)
	return c
}

// succeed is FirstCertificates where c, which may be nil, has counted until now. kept
// says, a line each, which of the certificates for one name cannot be used; complain
// logs them. One of tls_server_cert that cannot be used is an error: nothing counts then.
func (c *Certificates) succeed(conf *config.Config, open config.Opener, log *slog.Logger) (next *Certificates, kept []string, err error) {
	next = newCertificates(conf, open, log)
	if len(next.cert) == 0 {
		return nil, nil, nil
	}
	list, err := next.list()
	if err != nil {
		return nil, nil, conf.At("tls_server_names_dir", err)
	}
	found := next.look(list, c.last(), false)
	for i := range found {
		p := &found[i]
		switch {
		case p.err == nil:
		case p.name == "":
			err = errors.Join(err, conf.At(p.option(), p.wrap(p.err)))
		default:
			kept = append(kept, conf.At(p.option(), p.wrap(p.err)).Error())
		}
	}
	if err != nil {
		return nil, nil, err
	}
	next.publish(found)
	return next, kept, nil
}

// serverSide returns how handshakes go.
func serverSide(conf *config.Config, choose func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	low, high := conf.TLSRange()
	c := &tls.Config{
		MinVersion:     low,
		MaxVersion:     high,
		GetCertificate: choose,
		// A client that asks for other protocols only is no mail client (RFC
		// 8314 section 3, RFC 9325 section 3.8): it gets an alert.
		NextProtos: []string{"imap"},
	}
	if low >= tls.VersionTLS12 {
		c.CipherSuites = []uint16{ // of TLS 1.2 (RFC 9325 section 4.2)
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		}
	}
	return c
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

// refresh reads the files again that have changed. Certificate and key are
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
	list, err := c.list()
	if err != nil {
		if c.unlisted != err.Error() {
			c.log.Warn("certificates of names are not looked at", "err", err)
		}
		c.unlisted = err.Error()
		for _, p := range c.pairs[len(c.cert):] {
			list = append(list, p.namedPair)
		}
	} else {
		c.unlisted = ""
	}
	old := c.pairs
	c.publish(c.look(list, old, true))
	for i := range c.pairs {
		if p := &c.pairs[i]; p.fresh && p.err == nil {
			c.log.Info("certificate reloaded", "file", p.cert)
		}
	}
	now := know(c.pairs)
	for _, p := range old {
		if now.find(p.namedPair) == nil {
			c.log.Info("certificate dropped", "file", p.cert)
		}
	}
	c.complainLocked()
}

// publish has pairs be shown from now on. c.mu is held, or c nobody else's yet.
func (c *Certificates) publish(pairs []pair) {
	c.pairs = pairs
	now := sync.OnceValues(func() (*chain, error) { return newChain(pairs) })
	c.now.Store(&now)
}

// complain logs which certificates cannot be used, but for those that an earlier look
// has found so.
func (c *Certificates) complain() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.complainLocked()
}

func (c *Certificates) complainLocked() {
	for i := range c.pairs {
		p := &c.pairs[i]
		if !p.fresh || p.err == nil {
			continue
		}
		attrs := []any{"file", p.cert}
		if p.key != p.cert {
			attrs = append(attrs, "key", p.key)
		}
		c.log.Warn("certificate not reloaded", append(attrs, "err", p.err)...)
	}
}

// last returns what the last look has found.
func (c *Certificates) last() []pair {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pairs
}
