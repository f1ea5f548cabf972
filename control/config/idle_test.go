package config

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestIdle holds that each option of a file that has no effect is told of, with
// the reason.
func TestIdle(t *testing.T) {
	t.Parallel()
	c, _ := load(t, "imap", "sievedir: /s\ntimeout: 1h\nreject8bit: yes\nimaps_timeout: 1h\nsync_host: h\nsubscription_db: x\nibm_db: x\ndefaultdomain: x\nsasl_sasldb_path: /x\nreverseacls: 1\n")
	var got []string
	for _, i := range c.Idle() {
		got = append(got, fmt.Sprintf("%s:%d: %s: %s", filepath.Base(i.File), i.Line, i.Name, i.Why))
	}
	want := []string{
		"imapd.conf:2: sievedir: it belongs to Sieve, which runs where mail is delivered",
		"imapd.conf:4: reject8bit: it is not in this version",
		"imapd.conf:5: imaps_timeout: it is for the service imaps",
		"imapd.conf:6: sync_host: it belongs to Cyrus's replication",
		"imapd.conf:7: subscription_db: Cyrus keeps a database there; here the Maildir holds everything",
		"imapd.conf:9: defaultdomain: it is not in this version",
		"imapd.conf:10: sasl_sasldb_path: the SASL library of Cyrus reads it, which is not used here",
		"imapd.conf:11: reverseacls: it belongs to another program of Cyrus, or cannot matter here",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestFamilies holds that each beginning of a name is that of an option.
func TestFamilies(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for name, k := range (dictionary{}).all {
		if k.fate == "silent" {
			seen[whose(name)] = true
		}
	}
	for _, f := range families {
		if !seen[f.why] {
			t.Errorf("nothing is told that %s", f.why)
		}
	}
}
