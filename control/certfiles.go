package control

import (
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A namedPair is the files of a certificate and its key; it has no name where it is
// for all.
type namedPair struct{ name, cert, key string }

// A pair is what looks at the files of a namedPair have found.
type pair struct {
	namedPair
	seen [2]stamp // of the files, when they were last read
	// made makes sense of what could last be used, or nil. err is why what is in
	// the files now cannot be.
	made func() (tls.Certificate, error)
	err  error
	// fresh tells that the look before has found something else.
	fresh bool
}

// stamp tells one version of a file from the next.
type stamp struct {
	name    string
	changed time.Time
	size    int64
	info    os.FileInfo
}

// chain is what was read of the files at one time.
type chain struct {
	usual  []tls.Certificate
	byName map[string]*tls.Certificate // in lower case; "*.example.org" is for one label
}

// newChain makes sense of what was read.
func newChain(pairs []pair) (*chain, error) {
	all := &chain{byName: map[string]*tls.Certificate{}}
	for i := range pairs {
		p := &pairs[i]
		if p.made == nil {
			continue
		}
		cert, err := p.made()
		switch {
		case err != nil:
			return nil, p.wrap(err)
		case p.name == "":
			all.usual = append(all.usual, cert)
		default:
			all.byName[p.name] = &cert
		}
	}
	return all, nil
}

func (n namedPair) wrap(err error) error {
	return fmt.Errorf("certificate %s and key %s: %w", n.cert, n.key, err)
}

// option returns the option that the certificate is of.
func (n namedPair) option() string {
	if n.name != "" {
		return "tls_server_names_dir"
	}
	return "tls_server_cert"
}

// known finds pairs by their files and by their names.
type known struct {
	files map[namedPair]*pair
	names map[string]*pair
}

func know(pairs []pair) known {
	k := known{map[namedPair]*pair{}, map[string]*pair{}}
	for i := range pairs {
		k.files[pairs[i].namedPair] = &pairs[i]
		if pairs[i].name != "" {
			k.names[pairs[i].name] = &pairs[i]
		}
	}
	return k
}

// find returns the pair of the same files as n, or of the same name, or nil.
func (k known) find(n namedPair) *pair {
	if p := k.files[n]; p != nil {
		return p
	}
	return k.names[n.name]
}

// look looks at the files of list after old was found. Of those that cannot be used
// what old has made stays. With trust, files whose stamps are the same have the same
// in them. A pair with a fault is tried again each time: a new mode shows in no stamp.
func (c *Certificates) look(list []namedPair, old []pair, trust bool) []pair {
	all := make([]pair, len(list))
	former := know(old)
	for i, n := range list {
		p := &all[i]
		*p = pair{namedPair: n, seen: [2]stamp{c.stamp(n.cert), c.stamp(n.key)}, fresh: true}
		before := former.find(n)
		same := before != nil && p.seen[0].equal(before.seen[0]) && p.seen[1].equal(before.seen[1])
		if same && trust && before.err == nil {
			p.made, p.fresh = before.made, false
			continue
		}
		if p.made, p.err = c.fetch(n); p.err != nil && before != nil {
			p.made = before.made
			p.fresh = !same || before.err == nil || before.err.Error() != p.err.Error()
		}
	}
	return all
}

// fetch reads the files of n.
func (c *Certificates) fetch(n namedPair) (made func() (tls.Certificate, error), err error) {
	chain, err := c.file(n.cert)
	if err != nil {
		return nil, err
	}
	secret, err := c.file(n.key)
	if err != nil {
		return nil, err
	}
	made = sync.OnceValues(func() (tls.Certificate, error) { return tls.X509KeyPair(chain, secret) })
	if !c.late {
		if _, err := made(); err != nil {
			return nil, err
		}
	}
	return made, nil
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

// list returns all pairs that there are, first those of tls_server_cert, which it
// returns with an error too.
func (c *Certificates) list() ([]namedPair, error) {
	var all []namedPair
	for i := range c.cert {
		all = append(all, namedPair{cert: c.cert[i], key: c.key[i]})
	}
	named, err := c.named()
	return append(all, named...), err
}

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

func (c *Certificates) stamp(name string) stamp {
	info, err := c.open.Stat(name)
	if err != nil {
		return stamp{name: name}
	}
	return stamp{name, info.ModTime(), info.Size(), info}
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
