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
	dict := dictionary{}
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
// start, by the beginnings of their names. The first that fits counts.
var families = []struct{ why, starts string }{
	{"the SASL library of Cyrus reads it, which is not used here", "sasl_ force_sasl srvtab"},
	{"the option maildir says where mail is", "partition- metapartition partition_ defaultpartition defaultserver serverlist fulldirhash hashimapspool mboxname_"},
	{"mail stays in its Maildir", "archive object_storage openio caringo"},
	{"it belongs to Cyrus's ptloader", "ldap_ pts ptloader afspts_"},
	{"it belongs to Sieve, which runs where mail is delivered", "sieve tls_sieve autosieve autocreate_sieve anysieve generate_compiled_sieve rfc3028 imipnotifier"},
	{"it belongs to the delivery of mail", "lmtp tls_lmtp duplicate autocreate_post createonpost post sendmail smtp submitservers srs_ virusscan soft_noauth"},
	{"it belongs to Cyrus's pop3d", "pop tls_pop3 allowapop uidl_"},
	{"it belongs to Cyrus's nntpd", "nntp news allownewnews"},
	{"it belongs to Cyrus's httpd", "http caldav carddav calendar addressbook ischedule jmap webdav dav rss icalendar vcard websocket zoneinfo mailbox_maxmessages_"},
	{"it belongs to Cyrus's replication", "sync_ debug_log_sync restore_"},
	{"it belongs to a Cyrus murder", "mupdate proxy backend hostname_ client_ tls_client_cert tls_client_key tls_server_ca"},
	{"it belongs to Cyrus's master", "master_ prometheus_"},
	{"it belongs to Cyrus's notifyd", "notify mailnotifier event_ aps_"},
	{"it belongs to Cyrus's backup programs", "backup xbackup"},
	{"it belongs to Cyrus's search engines", "search squat defaultsearchtier"},
	{"it belongs to Cyrus's idled; here the system tells of changes", "idle"},
	{"Cyrus keeps a database there; here the Maildir holds everything", "sql_ cyrusdb_ skiplist_ statuscache conversations quota_use_conversations expire_"},
}

// whose returns to what a silent option belongs.
func whose(name string) string {
	if strings.HasSuffix(name, "_db") || strings.HasSuffix(name, "_db_path") {
		name = "sql_"
	}
	for _, f := range families {
		for start := range strings.FieldsSeq(f.starts) {
			if strings.HasPrefix(name, start) {
				return f.why
			}
		}
	}
	return "it belongs to another program of Cyrus, or cannot matter here"
}
