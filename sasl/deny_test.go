package sasl

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imapd/control/config"
)

// denied is what Cyrus's cyr_deny 3.6 has written, one line for each call of it.
const denied = "ann\t2\xff\x89*,!imap\xff\x89Access to this service has been blocked\n" +
	"bob\t2\xff\x89imap,pop3\xff\x89go away\xff\x89tab\n" +
	"eve\t2\xff\x89*\xff\x89\n"

func TestDenyList(t *testing.T) {
	file := filepath.Join(t.TempDir(), "user_deny.db")
	for _, tt := range []struct {
		text, user, service string
		message             string // of a Denied
		fault               string // of another error
		in                  bool
	}{
		{denied, "ann", "imap", "", "", true},
		{denied, "ann", "imaps", "Access to this service has been blocked", "", false},
		{denied, "bob", "imap", "go away\ttab", "", false},
		{denied, "bob", "imaps", "", "", true},
		{denied, "eve", "anything", "", "", false},
		{denied, "an", "imaps", "", "", true},
		{denied, "anna", "imaps", "", "", true},
		{denied, "imap,pop3", "imap", "", "", true},
		{strings.TrimSuffix(denied, "\n"), "eve", "imap", "", "", false},
		{"eve\t2\xff\x89imap*, !imap?\xff\x89\xff\xff\xff\x8a.\xff", "eve", "imap", "\xff\n.\xff", "", false},
		{"eve\t2\xff\x89imap*, !imap?\xff\x89", "eve", "imaps", "", "", true},
		{"eve\t2\xff\x89imap", "eve", "imap", "", "", false},
		{"", "eve", "imap", "", "", true},
		{"eve\t1\xff\x89imap\xff\x89", "eve", "imap", "", "cyr_deny", false},
		{"eve\t\n", "eve", "imap", "", "cyr_deny", false},
		{"eve\t2\xff\x89[\xff\x89", "eve", "imap", "", "pattern", false},
		{"bob\t" + strings.Repeat("x", maxDenyLine), "eve", "imap", "", "long", false},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := denyList{file, tt.service, config.Open}.check(tt.user)
		var d *Denied
		switch {
		case tt.in:
			if err != nil {
				t.Errorf("%.60q: %s is kept out of %s: %v", tt.text, tt.user, tt.service, err)
			}
		case tt.fault != "":
			if err == nil || errors.As(err, &d) || !strings.Contains(err.Error(), tt.fault) || !strings.Contains(err.Error(), file) {
				t.Errorf("%.60q: %v, want a fault: %s", tt.text, err, tt.fault)
			}
		case !errors.As(err, &d):
			t.Errorf("%.60q: %s gets into %s: %v", tt.text, tt.user, tt.service, err)
		default:
			if diff := cmp.Diff(&Denied{tt.user, tt.service, tt.message}, d); diff != "" {
				t.Errorf("%.60q: (-want +got)\n%s", tt.text, diff)
			}
		}
	}
}

// TestDenied has logins of somebody who is kept out, by their own password and by that
// of others.
func TestDenied(t *testing.T) {
	dir := t.TempDir()
	text := ""
	for _, user := range []string{"admin", "proxy", "eve", "bob"} {
		text += user + ":{PLAIN}secret\n"
	}
	for name, text := range map[string]string{"passwd": text, "user_deny.db": denied,
		"imapd.conf": "configdirectory: " + dir + "\nsasl_passwd_file: " + dir + "/passwd\nadmins: admin\nproxyservers: proxy\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, problems, err := config.Load(dir+"/imapd.conf", "imap", nil)
	if err != nil {
		t.Fatal(err, problems)
	}
	a, err := New(c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		authzid, authcid, password string
		want                       error
	}{
		{"", "eve", "secret", &Denied{}},
		{"", "eve", "wrong", ErrBadPassword},
		{"", "proxy", "secret", nil},
		{"eve", "proxy", "secret", &Denied{}},
		{"eve", "admin", "secret", nil},
		{"eve", "bob", "secret", ErrNotAllowed},
	} {
		_, err := a.Login(context.Background(), tt.authzid, tt.authcid, tt.password)
		var d *Denied
		if _, deny := tt.want.(*Denied); deny != errors.As(err, &d) || !deny && !errors.Is(err, tt.want) {
			t.Errorf("%s as %q with %s: %v, want %v", tt.authcid, tt.authzid, tt.password, err, tt.want)
		}
	}
	// One that is damaged denies everybody, one that cannot be read the start.
	file := filepath.Join(dir, "user_deny.db")
	if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Login(context.Background(), "", "proxy", "secret"); err == nil || errors.Is(err, ErrBadPassword) {
		t.Errorf("with a directory for a list: %v", err)
	}
	if _, err := New(c, nil, nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("start with a directory for a list: %v", err)
	}
}
