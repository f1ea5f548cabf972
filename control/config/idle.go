package config

import (
	"strings"
)

// An Idle is an option of the file that has no effect here.
type Idle struct {
	File string
	Line int
	Name string
	Why  string
}

// Idle returns the options of the file that have no effect, in its order, and
// why.
func (c *Config) Idle() []Idle {
	var all []Idle
	dict := readDictionary()
	for _, e := range c.unheard {
		service, name, k, _ := dict.split(e.name)
		i := Idle{File: e.file, Line: e.line, Name: e.name}
		switch {
		case k.fate == "later" || k.fate == "refuse":
			i.Why = "it is not in this version"
		case k.fate == "ignored":
			i.Why = "it has no meaning for a Maildir server"
		case k.fate == "silent":
			i.Why = whose(name)
		default:
			i.Why = "it is for the service " + service
		}
		all = append(all, i)
	}
	return all
}

// families say to what the options belong that nothing is said about at the
// start. The first that fits counts.
var families = []struct {
	start, end string // of the name
	why        string
}{
	{start: "sasl_", why: "the SASL library of Cyrus reads it, which is not used here"},
	{start: "partition-", why: "the option maildir says where mail is"},
	{start: "metapartition-", why: "the option maildir says where mail is"},
	{start: "archive", why: "mail stays in its Maildir"},
	{end: "_db", why: "Cyrus keeps a database there; here the Maildir holds everything"},
	{end: "_db_path", why: "Cyrus keeps a database there; here the Maildir holds everything"},
	{start: "ldap_", why: "it belongs to Cyrus's ptloader"},
	{start: "pts", why: "it belongs to Cyrus's ptloader"},
	{start: "afspts_", why: "it belongs to Cyrus's ptloader"},
	{start: "sieve", why: "it belongs to Sieve, which runs where mail is delivered"},
	{start: "autocreate_sieve", why: "it belongs to Sieve, which runs where mail is delivered"},
	{start: "anysievefolder", why: "it belongs to Sieve, which runs where mail is delivered"},
	{start: "lmtp", why: "it belongs to Cyrus's lmtpd"},
	{start: "duplicate", why: "it belongs to Cyrus's lmtpd"},
	{start: "pop", why: "it belongs to Cyrus's pop3d"},
	{start: "allowapop", why: "it belongs to Cyrus's pop3d"},
	{start: "nntp", why: "it belongs to Cyrus's nntpd"},
	{start: "news", why: "it belongs to Cyrus's nntpd"},
	{start: "allownewnews", why: "it belongs to Cyrus's nntpd"},
	{start: "http", why: "it belongs to Cyrus's httpd"},
	{start: "caldav", why: "it belongs to Cyrus's httpd"},
	{start: "carddav", why: "it belongs to Cyrus's httpd"},
	{start: "calendar", why: "it belongs to Cyrus's httpd"},
	{start: "addressbook", why: "it belongs to Cyrus's httpd"},
	{start: "ischedule", why: "it belongs to Cyrus's httpd"},
	{start: "jmap", why: "it belongs to Cyrus's httpd"},
	{start: "webdav", why: "it belongs to Cyrus's httpd"},
	{start: "dav", why: "it belongs to Cyrus's httpd"},
	{start: "rss", why: "it belongs to Cyrus's httpd"},
	{start: "sync_", why: "it belongs to Cyrus's replication"},
	{start: "mupdate", why: "it belongs to a Cyrus murder"},
	{start: "proxy", why: "it belongs to a Cyrus murder"},
	{start: "backend", why: "it belongs to a Cyrus murder"},
	{start: "idle", why: "it belongs to Cyrus's idled; here the system tells of changes"},
	{start: "notify", why: "it belongs to Cyrus's notifyd"},
	{start: "mailnotifier", why: "it belongs to Cyrus's notifyd"},
	{start: "event_", why: "it belongs to Cyrus's notifyd"},
	{start: "backup", why: "it belongs to Cyrus's backup programs"},
	{start: "search", why: "it belongs to Cyrus's search engines"},
	{start: "squat", why: "it belongs to Cyrus's search engines"},
}

// whose returns to what a silent option belongs.
func whose(name string) string {
	for _, f := range families {
		if strings.HasPrefix(name, f.start) && strings.HasSuffix(name, f.end) {
			return f.why
		}
	}
	return "it belongs to another program of Cyrus, or cannot matter here"
}
