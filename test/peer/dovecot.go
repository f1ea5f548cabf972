package peer

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Dovecot starts Dovecot 2.3 on maildir.
func Dovecot(t testing.TB, maildir string, o Options) *Server {
	t.Helper()
	Need(t, "dovecot")
	s := &Server{Kind: "dovecot", User: o.users()[0], Maildir: maildir, dir: TempDir(t)}
	s.conf = filepath.Join(s.dir, "dovecot.conf")
	Own(t, parentOf(maildir))
	s.CertFile = Certificate(t, s.dir)
	s.start(t, func() []string {
		if err := os.WriteFile(s.conf, []byte(s.dovecotConf(o)), 0o644); err != nil {
			t.Fatal(err)
		}
		return []string{"dovecot", "-F", "-c", s.conf}
	})
	return s
}

// dovecotConf is a configuration that touches nothing outside s.dir and the
// Maildir. Any user name is good: the list of users is ours alone.
func (s *Server) dovecotConf(o Options) string {
	layout := ""
	if o.FS {
		layout = ":LAYOUT=fs"
	}
	if o.Inbox != "" {
		layout += ":INBOX=" + s.Maildir + "/" + o.Inbox
	}
	uid, gid := MailUID()
	lines := []string{
		"base_dir = " + s.dir + "/base",
		"state_dir = " + s.dir + "/state",
		"log_path = " + s.dir + "/server.log",
		"protocols = imap",
		"listen = 127.0.0.1",
		"ssl = yes",
		"ssl_cert = <" + s.CertFile,
		"ssl_key = <" + s.dir + "/key.pem",
		"disable_plaintext_auth = no",
		"auth_mechanisms = plain login",
		"auth_failure_delay = 0",
		"mail_max_userip_connections = 1000",
		"first_valid_uid = 1",
		"first_valid_gid = 1",
		"mail_location = maildir:" + s.Maildir + layout,
		fmt.Sprintf("passdb {\n driver = static\n args = password=%s\n}", Password),
		fmt.Sprintf("userdb {\n driver = static\n args = uid=%d gid=%d home=%s/home/%%u\n}", uid, gid, s.dir),
		"namespace inbox {\n inbox = yes\n separator = /",
	}
	for _, name := range specialUse {
		lines = append(lines, fmt.Sprintf(" mailbox %s {\n  special_use = \\%s\n }", name, name))
	}
	lines = append(lines, "}",
		// One process serves one session after the other: a login in 1 ms instead of 8.
		"service imap-login {\n inet_listener imap {\n  port = "+port(s.Addr)+"\n }\n inet_listener imaps {\n  port = "+port(s.TLSAddr)+"\n  ssl = yes\n }\n service_count = 0\n}",
		// Wrong passwords of one test must not slow the logins of the next.
		"service anvil {\n unix_listener anvil-auth-penalty {\n  mode = 0\n }\n}",
		"service imap {\n service_count = 1000\n}", "service auth {\n client_limit = 5000\n}")
	if os.Geteuid() != 0 {
		name, group := names(uid, gid)
		lines = append(lines, "default_login_user = "+name, "default_internal_user = "+name, "default_internal_group = "+group,
			"service imap-login {\n chroot =\n}", "service anvil {\n chroot =\n}", "service auth {\n user = $default_internal_user\n}")
	}
	return strings.Join(append(lines, o.Dovecot...), "\n") + "\n"
}

// specialUse are the mailboxes that both servers mark with the attribute of
// their name.
var specialUse = []string{"Drafts", "Sent", "Trash", "Junk", "Archive"}

// names returns the names of a user and a group, or the numbers of the nameless.
func names(uid, gid int) (name, group string) {
	name, group = strconv.Itoa(uid), strconv.Itoa(gid)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return name, group
}
