package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TempDir makes a directory that any user may enter, and removes it after the
// test. Its path is short, as those of Unix sockets must be.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "imapd-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// MailUID returns the user and group that the mail of the tests belongs to.
func MailUID() (uid, gid int) {
	if os.Geteuid() == 0 {
		return 21000, 21000
	}
	return os.Geteuid(), os.Getegid()
}

// Own gives dir and all below it to MailUID.
func Own(t testing.TB, dir string) {
	t.Helper()
	uid, gid := MailUID()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || os.Geteuid() != 0 {
			return gone(err, path == dir)
		}
		// Who has it already is left alone: to an index a chown is the work of others.
		var st unix.Stat_t
		if err = unix.Lstat(path, &st); err == nil && (int(st.Uid) != uid || int(st.Gid) != gid) {
			err = os.Lchown(path, uid, gid)
		}
		return gone(err, path == dir)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// gone returns err, but for that of a file that is not there any more: a server is
// at work.
func gone(err error, top bool) error {
	if errors.Is(err, fs.ErrNotExist) && !top {
		return nil
	}
	return err
}

// parentOf returns the last directory above maildir that is the same for all
// users, or maildir itself if that is.
func parentOf(maildir string) string {
	fixed, _, many := strings.Cut(maildir, "%")
	if !many {
		return maildir
	}
	return filepath.Dir(fixed + "x")
}

// CopyTree copies a directory with the modes and times of its files and
// directories: in a Maildir an mtime is an INTERNALDATE. What to names must
// not exist.
func CopyTree(t testing.TB, from, to string) {
	t.Helper()
	type stamp struct {
		path string
		time time.Time
	}
	var dirs []stamp
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		target := filepath.Join(to, rel)
		if d.IsDir() {
			dirs = append(dirs, stamp{target, info.ModTime()})
			return os.Mkdir(target, info.Mode().Perm())
		}
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(target, text, info.Mode().Perm())
		}
		if err == nil {
			err = os.Chtimes(target, info.ModTime(), info.ModTime())
		}
		return err
	})
	for _, d := range dirs {
		if err == nil {
			err = os.Chtimes(d.path, d.time, d.time)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Renew puts another certificate in the place of the server's.
func (s *Server) Renew(t testing.TB) { Certificate(t, s.dir) }

// Certificate writes a self-signed certificate for names, or for localhost, into
// dir as cert.pem, whose path it returns, and its key as key.pem.
func Certificate(t testing.TB, dir string, names ...string) string {
	t.Helper()
	if len(names) == 0 {
		names = []string{"localhost"}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: names[0]},
		DNSNames:     names,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "cert.pem")
	for path, block := range map[string]*pem.Block{
		file:                          {Type: "CERTIFICATE", Bytes: der},
		filepath.Join(dir, "key.pem"): {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}
