package config

import "slices"

// RootFiles returns the files besides the configuration itself that only root
// need be able to read: certificates, keys, passwords.
func (c *Config) RootFiles() []string {
	return slices.Concat(c.KeyFiles(), c.PasswordFiles())
}

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
