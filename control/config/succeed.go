package config

import (
	"reflect"
	"slices"
)

// Succeed makes c, a configuration that was read anew, fit to follow old in the
// same process: the options that need a restart keep their values of old. It
// returns the names of those that would have others.
func (c *Config) Succeed(old *Config) (kept []string) {
	for _, o := range slices.Concat(options, limits) {
		if !o.restart {
			continue
		}
		was, is := reflect.ValueOf(o.field(old)).Elem(), reflect.ValueOf(o.field(c)).Elem()
		if !reflect.DeepEqual(was.Interface(), is.Interface()) {
			kept = append(kept, o.name)
		}
		is.Set(was)
	}
	c.Umask = old.Umask // of its text
	return kept
}
