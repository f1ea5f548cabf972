package test

import (
	"fmt"
	"testing"

	"imapd/test/peer"
)

// BenchmarkSearch searches 10,000 messages through each server: the second and
// later times, when Dovecot has in its cache what it caches.
func BenchmarkSearch(b *testing.B) {
	maildir := searchMaildir(b, 7, 10_000)
	for _, start := range []peer.Starter{peer.Dovecot, peer.Imapd} {
		s := start(b, maildir, peer.Options{})
		c := s.Login(b, s.User)
		c.Do("SELECT INBOX")
		for _, program := range []string{
			"UNSEEN", "SUBJECT nosuchword", "FROM nosuchword", "BODY nosuchword", "TEXT nosuchword", "UNDELETED BODY Budget", "SINCE 1-Feb-2024", "LARGER 1000",
		} {
			c.Do("UID SEARCH %s", program)
			b.Run(fmt.Sprintf("%s/%s", program, s.Kind), func(b *testing.B) {
				for b.Loop() {
					c.Do("UID SEARCH %s", program)
				}
			})
		}
		s.Stop()
	}
}
