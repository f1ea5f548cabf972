package config

import "slices"

// Besides the configuration itself there are files that only root need be able
// to read. Who is to read which depends on what a process is for.

// KeyFiles returns the files of certificates and keys.
func (c *Config) KeyFiles() []string {
	return slices.Concat(c.TLSServerCert, c.TLSServerKey)
}

// PasswordFiles returns the files of passwords.
func (c *Config) PasswordFiles() []string {
	if c.PasswdFile == "" {
		return nil
	}
	return []string{c.PasswdFile}
}
