package config

import (
	"path/filepath"
	"slices"
	"strings"
)

// Besides the configuration itself there are files that only root need be able
// to read. Who is to read which depends on what a process is for.

// IsKey tells whether path is the file of a certificate or a key, or the
// directory of those for one server name or what may count in it.
func (c *Config) IsKey(path string) bool {
	if slices.Contains(c.TLSServerCert, path) || slices.Contains(c.TLSServerKey, path) {
		return true
	}
	if c.TLSServerNames == "" || filepath.Clean(path) != path {
		return false
	}
	below, err := filepath.Rel(c.TLSServerNames, path)
	if err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return false
	}
	name, file, deeper := strings.Cut(below, "/")
	switch {
	case below == ".":
		return true
	case strings.HasPrefix(name, "."):
		return false
	case !deeper:
		return strings.HasSuffix(name, ".pem")
	}
	return slices.Contains([]string{"fullchain.pem", "privkey.pem", "cert.pem", "key.pem"}, file)
}

// IsPasswords tells whether path is a file that says who may log in.
func (c *Config) IsPasswords(path string) bool {
	return path != "" && (path == c.PasswdFile || path == c.UserDeny)
}
