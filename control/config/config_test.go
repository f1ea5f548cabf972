package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// conf writes files into a directory of the test and returns the path of the
// first. A file's name ends at the first line of its text.
func conf(t testing.TB, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i, text := range files {
		name := "imapd.conf"
		if i > 0 {
			name = fmt.Sprintf("%d.conf", i)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "imapd.conf")
}

// load returns the Config of the text with a configdirectory, and its problems
// as lines without their directory: "W:" before a warning.
func load(t testing.TB, service string, files ...string) (*Config, []string) {
	t.Helper()
	files[0] = "configdirectory: /var/lib/imap\n" + files[0]
	file := conf(t, files...)
	c, problems, err := Load(file, service, nil)
	var lines []string
	fatal := 0
	for _, p := range problems {
		line := strings.ReplaceAll(p.String(), filepath.Dir(file)+"/", "")
		if p.Warning {
			line = "W:" + line
		} else {
			fatal++
		}
		lines = append(lines, line)
	}
	if (err != nil) != (fatal > 0) {
		t.Errorf("error %v with %d faults", err, fatal)
	}
	return c, lines
}

func TestGrammar(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"servername: a.example.org", "a.example.org"},
		{"servername:x", "x"},
		{"  \tServerName:\t two  words \t", "two  words"},
		{"servername: a # no comment", "a # no comment"},
		{"servername: \"a\" \\b", `"a" \b`},
		{"servername: a\\\nb", "ab"},
		{"servername: a\\\n  b", "a  b"},
		{"servername: a\\\n\\\nb", "ab"},
		{"servername: a\\", "a"},
		{"# a comment \\\nservername: no\nservername: yes", "yes"},
		{"\n\n   \n#\nservername: a\r\n", "a"},
		{"servername: {configdirectory}/x", "/var/lib/imap/x"},
		{"servername: x{configdirectory}", "x{configdirectory}"},
		{"@include: DIR/1.conf", "included"},
		{"@Include: 1.conf", "included"},
	} {
		files := []string{tt.text}
		if strings.Contains(tt.text, "1.conf") {
			files = append(files, "servername: included\n")
		}
		c, problems := load(t, "imap", files...)
		if c.ServerName != tt.want || problems != nil {
			t.Errorf("%q: got %q, %q", tt.text, c.ServerName, problems)
		}
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string // after one line
		want []string
	}{
		{"timeot: 3", []string{"imapd.conf:2: unknown option timeot; did you mean timeout?"}},
		{"qqqqqqqqqqqqqqq: 3", []string{"imapd.conf:2: unknown option qqqqqqqqqqqqqqq"}},
		{"allow_plaintexts: no", []string{"imapd.conf:2: unknown option allow_plaintexts; did you mean allowplaintext?"}},
		{"mail_location: maildir:~/Maildir", []string{"imapd.conf:2: unknown option mail_location; see maildir in imapd.conf(5)"}},
		{"SSL_cert: </c\nimap_ssl_key: /k\nimap_max_line_length: 1", []string{
			"imapd.conf:2: unknown option ssl_cert; see tls_server_cert in imapd.conf(5)",
			"imapd.conf:3: unknown option imap_ssl_key; see imap_tls_server_key in imapd.conf(5)",
			"imapd.conf:4: unknown option imap_max_line_length; see limit_line in imapd.conf(5)"}},
		{"mail_locatoin: x", []string{"imapd.conf:2: unknown option mail_locatoin"}},
		{"listn: imap://", []string{"imapd.conf:2: unknown option listn; did you mean listen?"}},
		{"lis: imap://", []string{"imapd.conf:2: unknown option lis"}},
		{"imap_timeot: 3", []string{"imapd.conf:2: unknown option imap_timeot; did you mean imap_timeout?"}},
		{"debug: yes\n\nDebug: no", []string{"imapd.conf:4: option debug is given twice, first at imapd.conf:2"}},
		{"sasl_x: 1\nsasl_x: 1", []string{"imapd.conf:3: option sasl_x is given twice, first at imapd.conf:2"}},
		{"debug yes", []string{"imapd.conf:2: no option: a line is a name of letters, digits, - and _, a colon right after it, and a value"}},
		{"debug : yes", []string{"imapd.conf:2: no option: a line is a name of letters, digits, - and _, a colon right after it, and a value"}},
		{"debug:", []string{"imapd.conf:2: empty value of debug; leave the line out for the default"}},
		{"debug: \\\n\\\n\nchatty:", []string{"imapd.conf:2: empty value of debug; leave the line out for the default",
			"imapd.conf:5: empty value of chatty; leave the line out for the default"}},
		{"servername: a\x00b", []string{"imapd.conf:2: NUL octet in the line"}},
		{"@exclude: x", []string{"imapd.conf:2: invalid directive @exclude; there is only @include"}},
		{"@include: DIR/none", []string{"imapd.conf:2: @include: open none: no such file or directory"}},
		{"@include: DIR/imapd.conf", []string{"imapd.conf:2: @include: imapd.conf is included twice"}},
		{"configdirectory: /x", []string{"imapd.conf:2: option configdirectory is given twice, first at imapd.conf:1"}},

		{"debug: maybe", []string{`imapd.conf:2: debug: "maybe" must be yes or no`}},
		{"timeout: 5x", []string{`imapd.conf:2: timeout: "5x" must be a time span such as 90s, 32m or 1d12h`}},
		{"failedloginpause: 2m", []string{`imapd.conf:2: failedloginpause: "2m" must be from 0 to 1m`}},
		{"limit_line: 1G", []string{`imapd.conf:2: limit_line: "1G" must be from 8000 to 64M`}},
		{"limit_connections: 0", []string{`imapd.conf:2: limit_connections: "0" must be from 1 to 1048576`}},
		{"serverinfo: sometimes", []string{`imapd.conf:2: serverinfo: "sometimes" must be one of: off min on`}},
		{"tls_versions: tls1_2 ssl3", []string{`imapd.conf:2: tls_versions: "tls1_2 ssl3" must be words of: tls1_0 tls1_1 tls1_2 tls1_3`}},
		{"sasl_passwd_file: users", []string{`imapd.conf:2: sasl_passwd_file: "users" must be an absolute path`}},
		{"umask: 088", []string{`imapd.conf:2: umask: "088" must be an octal file mode`}},
		{"umask: 1777", []string{`imapd.conf:2: umask: "1777" must be an octal file mode`}},
		{"maildir: /var/mail/%x", []string{`imapd.conf:2: maildir: "/var/mail/%x" has a % that is none of %u, %n, %d and %%`}},
		{"maildir: Maildir", []string{`imapd.conf:2: maildir: "Maildir" must start with / or ~/`}},
		{"maildir: /var/vmail/%d/%n:LAYOUT=fs", []string{`imapd.conf:2: maildir: "/var/vmail/%d/%n:LAYOUT=fs" is Dovecot's mail_location: ` +
			"the value here is /var/vmail/%d/%n; LAYOUT=fs is maildir_layout: fs"}},
		{"maildir: maildir:~/Maildir:INDEX=/i/%u:CONTROL=/c/%u:UTF-8:INBOX=~/in:NO-NOSELECT:LAYOUT=index", []string{
			`imapd.conf:2: maildir: "maildir:~/Maildir:INDEX=/i/%u:CONTROL=/c/%u:UTF-8:INBOX=~/in:NO-NOSELECT:LAYOUT=index" is Dovecot's mail_location: ` +
				"the value here is ~/Maildir; INDEX=/i/%u is indexdirectory: /i/%u; CONTROL=/c/%u is maildir_control: /c/%u; " +
				"UTF-8 is maildir_names: utf8; INBOX=~/in has no counterpart here, for it is not below ~/Maildir; NO-NOSELECT has no counterpart here; LAYOUT=index is not in this version, see maildir_layout"}},
		{"maildir: maildir:~/Mail:LAYOUT=fs:INBOX=~/Mail/INBOX/", []string{`imapd.conf:2: maildir: "maildir:~/Mail:LAYOUT=fs:INBOX=~/Mail/INBOX/" is Dovecot's mail_location: ` +
			"the value here is ~/Mail; LAYOUT=fs is maildir_layout: fs; INBOX=~/Mail/INBOX/ is maildir_inbox: INBOX"}},
		{"maildir: /m/%u:INBOX=/m/%u", []string{`imapd.conf:2: maildir: "/m/%u:INBOX=/m/%u" is Dovecot's mail_location: the value here is /m/%u; INBOX=/m/%u is how it is here`}},
		{"maildir: maildir:~/Maildir", []string{`imapd.conf:2: maildir: "maildir:~/Maildir" is Dovecot's mail_location: the value here is ~/Maildir`}},
		{"indexdirectory: /i/%u:INDEX=MEMORY", []string{`imapd.conf:2: indexdirectory: "/i/%u:INDEX=MEMORY" is Dovecot's mail_location: the value here is /i/%u; INDEX=MEMORY has no counterpart here`}},
		{"maildir: /var/mail:old/LAYOUT/%u:x", nil},
		{"maildir: /var/vmail/~/Maildir", []string{`imapd.conf:2: maildir: "/var/vmail/~/Maildir" has a ~ behind a /, where it is no home directory; ~ stands at the very start, as in ~/Maildir`}},
		{"maildir: /var/vmail~/%u", nil},
		{"admins: jane@example.org, bob", []string{`imapd.conf:2: admins: "jane@example.org, bob" has commas; words have blanks between them: jane@example.org bob`}},
		{"suppress_capabilities: IDLE,MOVE", []string{`imapd.conf:2: suppress_capabilities: "IDLE,MOVE" has commas; words have blanks between them: IDLE MOVE`}},
		{"listen: imap://:143, imaps://:993", []string{`imapd.conf:2: listen: "imap://:143, imaps://:993" has commas; words have blanks between them: imap://:143 imaps://:993`}},
		{"listen: unix:/a,b", nil},
		{"log_path: /x\nimap_logfile: /x", []string{
			"imapd.conf:2: unknown option log_path; the log goes to syslog, to the journal, or to standard error: see DIAGNOSTICS in imapd(8)",
			"imapd.conf:3: unknown option imap_logfile; the log goes to syslog, to the journal, or to standard error: see DIAGNOSTICS in imapd(8)"}},
		{"tls_require_cert: no\nidlemethod: poll\nnewsspool: /x\ntls_lmtp_cert_file: /x", nil},
		{"tls_imap_require_cert: on", []string{"imapd.conf:2: tls_imap_require_cert: on is not in this version, and to run without it would be less safe"}},
		{"listen: imap://:143 pop://", []string{`imapd.conf:2: listen: "pop://" must be an imap://, imaps:// or unix: address`}},
		{"tls_server_cert: /a,/b\ntls_server_key: /k", []string{"imapd.conf:3: tls_server_key: 1 files for 2 of tls_server_cert"}},
		{"tls_server_key: /k", []string{"imapd.conf:2: tls_server_key: a key without tls_server_cert"}},
		{"tls_server_cert: a", []string{`imapd.conf:2: tls_server_cert, tls_server_key: "a" must be an absolute path`}},
		{"maildir_prefix: INBOX", []string{`imapd.conf:2: maildir_prefix: "INBOX" must be a name with the separator "/" at its end`}},
		{"maildir_inbox: INBOX", []string{`imapd.conf:2: maildir_inbox: needs maildir_layout: fs`}},
		{"maildir_layout: fs\nmaildir_inbox: ../INBOX", []string{`imapd.conf:3: maildir_inbox: "../INBOX" must be a path below the Maildir, such as INBOX, without ~ at its start or %, and nothing in it may begin with .. or be cur, new or tmp`}},
		{"maildir_layout: fs\nmaildir_inbox: a/b/INBOX", nil},
		{"xlist-spam: Spam", []string{"imapd.conf:2: xlist-spam: no special use; known are: all archive drafts flagged junk sent trash important memos scheduled snoozed"}},
		{"sasl_pwcheck_method: auxprop pts", []string{
			"W:imapd.conf:2: sasl_pwcheck_method: auxprop is not in this version; passwd-file and saslauthd are",
			"W:imapd.conf:2: sasl_pwcheck_method: pts is not in this version; passwd-file and saslauthd are",
			"imapd.conf:2: sasl_pwcheck_method: nobody could log in; this version has passwd-file and saslauthd"}},
		{"sasl_pwcheck_method: saslauthd passwd-file\nsasl_saslauthd_path: mux\nsasl_minimum_layer: 257", []string{
			`imapd.conf:3: sasl_saslauthd_path: "mux" must be an absolute path`,
			`imapd.conf:4: sasl_minimum_layer: "257" must be from 0 to 256`}},
		{"virtdomains: on", []string{"W:imapd.conf:2: virtdomains: on is taken as userid: names get no domain from an address"}},
		{"proxyservers: gate group:wheel", []string{"W:imapd.conf:2: proxyservers: group:wheel: groups are not in this version"}},
		{"readonly: yes", []string{"imapd.conf:2: readonly: yes is not in this version, and to run without it would be less safe"}},
		{"tls_client_certs: require", []string{"imapd.conf:2: tls_client_certs: require is not in this version, and to run without it would be less safe"}},

		{"readonly: no\ntls_client_certs: optional\nhttpmodules: caldav\npartition-default: /x\nsasl_sasldb_path: /x\nlmtp_timeout: 3\nimaps_debug: yes", nil},
		{"altnamespace: no\nexpunge_mode: immediate", []string{
			"W:imapd.conf:2: option altnamespace is ignored: not in this version",
			"W:imapd.conf:3: option expunge_mode is ignored: it has no meaning for a Maildir server"}},
		{"metrics_listen: :9\nsharedprefix: x", []string{
			"W:imapd.conf:2: option metrics_listen is ignored: not in this version",
			"W:imapd.conf:3: option sharedprefix is ignored: not in this version"}},
		{"haproxy_trusted_networks: ::1 192.0.2.0/24, 2001:db8::/32,127.0.0.1", nil},
		{"haproxy_trusted_networks: proxy\nlogin_trusted_networks: 192.0.2.1/24 ::ffff:192.0.2.0/120", []string{
			`imapd.conf:2: haproxy_trusted_networks: "proxy" must be an address or a network such as 192.0.2.0/24`,
			`imapd.conf:3: login_trusted_networks: "192.0.2.1/24" is an address in the network 192.0.2.0/24`,
			`imapd.conf:3: login_trusted_networks: "::ffff:192.0.2.0/120" must be written as a network of IPv4`}},
		{"tls_cert_file: /a", []string{"W:imapd.conf:2: option tls_cert_file is now called tls_server_cert"}},
		{"quotawarn: 80", []string{"W:imapd.conf:2: option quotawarn is now called quotawarnpercent",
			"W:imapd.conf:2: option quotawarnpercent is ignored: not in this version"}},
		{"tls_versions: tls1_0 tls1_2", []string{"W:imapd.conf:2: tls_versions: tls1_1 is accepted too, as an older and a newer one are"}},
		{"sasl_mech_list: plain scram-sha-256", []string{"W:imapd.conf:2: sasl_mech_list: SCRAM-SHA-256 is not in this version; PLAIN and LOGIN are"}},
		{"admins: root group:wheel", []string{"W:imapd.conf:2: admins: group:wheel: groups are not in this version"}},
	} {
		_, got := load(t, "imap", tt.text)
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%q: %s", tt.text, d)
		}
	}
}

// TestAllAtOnce holds that every fault of a file is told, in the order of its
// lines, and that the rest of the file still counts.
func TestAllAtOnce(t *testing.T) {
	t.Parallel()
	c, got := load(t, "imap", "debug: x\n@include: 1.conf\ntimeot: 1\nchatty: yes\nlimit_line: 3\n", "umask: 9\nnonsense\n")
	want := []string{
		`imapd.conf:2: debug: "x" must be yes or no`,
		"imapd.conf:4: unknown option timeot; did you mean timeout?",
		`imapd.conf:6: limit_line: "3" must be from 8000 to 64M`,
		`1.conf:1: umask: "9" must be an octal file mode`,
		"1.conf:2: no option: a line is a name of letters, digits, - and _, a colon right after it, and a value",
	}
	less := cmpopts.SortSlices(func(a, b string) bool { return a < b })
	if d := cmp.Diff(want, got, less); d != "" {
		t.Error(d)
	}
	if !c.Chatty || c.Debug || c.Limits.Line != 2<<20 {
		t.Error("the rest of the file is lost")
	}
}

func TestConfigDirectory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"debug: yes\n", "imapd.conf: option configdirectory is missing"},
		{"configdirectory: /\n", "imapd.conf:1: configdirectory: must not be /"},
		{"configdirectory: //./\n", "imapd.conf:1: configdirectory: must not be /"},
		{"configdirectory: lib\n", `imapd.conf:1: configdirectory: "lib" must be an absolute path`},
	} {
		file := conf(t, tt.text)
		_, problems, err := Load(file, "imap", nil)
		if err == nil || len(problems) != 1 || strings.TrimPrefix(err.Error(), filepath.Dir(file)+"/") != tt.want {
			t.Errorf("%q: %v, %v", tt.text, err, problems)
		}
	}
}

func TestNoFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "none")
	c, problems, err := Load(file, "imap", nil)
	if c != nil || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, %v", c, err)
	}
	want := []Problem{{File: file, Text: "configuration file: no such file or directory"}}
	if d := cmp.Diff(want, problems); d != "" {
		t.Error(d)
	}
	if _, _, err := Load(t.TempDir(), "imap", nil); err == nil {
		t.Error("a directory is taken")
	}
	if _, _, err := Load("/dev/zero", "imap", nil); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("without end: %v", err)
	}
}

func TestService(t *testing.T) {
	t.Parallel()
	const text = "imap_debug: yes\ndebug: no\ntimeout: 40\nimaps_timeout: 50\nimap_xlist-sent: Gone\nxlist-sent: Sent\nimap_sasl_mech_list: PLAIN\n"
	for _, tt := range []struct {
		service string
		debug   bool
		timeout time.Duration
		sent    string
		mechs   int
	}{
		{"imap", true, 40 * time.Minute, "Gone", 1},
		{"IMAPS", false, 50 * time.Minute, "Sent", 2},
		{"", false, 40 * time.Minute, "Sent", 2},
	} {
		c, problems := load(t, tt.service, text)
		if problems != nil {
			t.Errorf("%s: %q", tt.service, problems)
		}
		if c.Debug != tt.debug || c.Timeout != tt.timeout || c.SpecialUse[`\Sent`] != tt.sent || len(c.Mechanisms) != tt.mechs {
			t.Errorf("%s: debug %v, timeout %v, %v, %v", tt.service, c.Debug, c.Timeout, c.SpecialUse, c.Mechanisms)
		}
	}
}

func TestRenamed(t *testing.T) {
	t.Parallel()
	c, problems := load(t, "imap", "tls_server_cert: /new\ntls_cert_file: /old\n")
	if c.raw.cert != "/new" || len(problems) != 1 {
		t.Errorf("got %s, %q", c.raw.cert, problems)
	}
	c, _ = load(t, "imap", "tls_cert_file: /old\nautocreateinboxfolders: Sent|Trash\n")
	if d := cmp.Diff([]string{"/old"}, c.TLSServerKey); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"Sent", "Trash"}, c.AutocreateInboxFolders); d != "" {
		t.Error(d)
	}
}

// TestMark holds that the octets which some editors put before UTF-8 belong to no name.
func TestMark(t *testing.T) {
	t.Parallel()
	file := conf(t, "\ufeffconfigdirectory: /x\n@include: DIR/1.conf\n", "\ufeff# text\nservername: y\n")
	c, problems, err := Load(file, "imap", nil)
	if err != nil || problems != nil || c.ConfigDirectory != "/x" || c.ServerName != "y" {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestDebian loads what Debian has in /etc/imapd.conf, as it comes and with all
// that is commented out there. The one fault is that nobody could log in: the method
// that it names is not in this version.
func TestDebian(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/debian-3.6.1.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, names, _ := strings.Cut(string(data), "there.\n")
	given := map[string]bool{}
	var all strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(names, "#", "")) {
		name, value, _ := strings.Cut(line, ":")
		if !given[name] && strings.TrimSpace(value) != "" {
			all.WriteString(line)
		}
		given[name] = true
	}
	if len(given) < 60 {
		t.Errorf("only %d names", len(given))
	}
	for _, text := range []string{names, all.String()} {
		_, problems, err := Load(conf(t, text), "imap", nil)
		if err == nil || !strings.Contains(err.Error(), "sasl_pwcheck_method: nobody could log in") || strings.Contains(err.Error(), "more)") {
			t.Errorf("%v: %v", err, problems)
		}
	}
}

// TestRenamedForService holds that the old name of an option for one service counts
// for that one only, and there more than the general name.
func TestRenamedForService(t *testing.T) {
	t.Parallel()
	for service, want := range map[string]string{"imap": "/own", "imaps": "/all"} {
		c, problems := load(t, service, "tls_cert_file: /all\ntls_imap_cert_file: /own\n")
		if c.raw.cert != want || len(problems) != 2 {
			t.Errorf("%s: %s, %q", service, c.raw.cert, problems)
		}
	}
	if c, _ := load(t, "imap", "imap_tls_server_cert: /new\ntls_imap_cert_file: /old\n"); c.raw.cert != "/new" {
		t.Errorf("got %s", c.raw.cert)
	}
}

// TestDerived covers the fields that are more than the text of their option.
func TestDerived(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text  string
		field func(*Config) any
		want  any
	}{
		{"timeout: 1", func(c *Config) any { return []any{c.Timeout, c.IdleTimeout} }, []any{30 * time.Minute, time.Minute}},
		{"timeout: 0", func(c *Config) any { return []any{c.Timeout, c.IdleTimeout} }, []any{30 * time.Minute, 30 * time.Minute}},
		{"timeout: 1h\nimapidletimeout: 2h", func(c *Config) any { return []any{c.Timeout, c.IdleTimeout} }, []any{time.Hour, 2 * time.Hour}},
		{"allowplaintext: yes", func(c *Config) any { return c.AllowPlaintext }, true},
		{"allowplaintext: yes\ntls_required: yes", func(c *Config) any { return c.AllowPlaintext }, false},
		{"umask: 027", func(c *Config) any { return c.Umask }, 0o27},
		{"unixhierarchysep: no", func(c *Config) any { return c.MaildirSeparator }, byte('.')},
		{"unixhierarchysep: no\nmaildir_separator: /", func(c *Config) any { return c.MaildirSeparator }, byte('/')},
		{"maildir_separator: .\nmaildir_prefix: INBOX.", func(c *Config) any { return c.MaildirPrefix }, "INBOX."},
		{"admins: Root  cyrus", func(c *Config) any { return c.Admins }, []string{"root", "cyrus"}},
		{"admins: Root\nusername_tolower: no", func(c *Config) any { return c.IsAdmin("Root") }, true},
		{"suppress_capabilities: idle Move", func(c *Config) any { return c.SuppressCapabilities }, []string{"IDLE", "MOVE"}},
		{"listen: imap://*:1143 imaps://*", func(c *Config) any { return c.Listen }, []Address{{"tcp", ":1143", false}, {"tcp", ":993", true}}},
		{"syslog_facility: LOCAL3", func(c *Config) any { return c.SyslogFacility }, "local3"},
		{"serverinfo: no", func(c *Config) any { return c.ServerInfo }, ServerInfoOff},
		{"maildir_layout: fs", func(c *Config) any { return c.MaildirLayout }, LayoutFS},
		{"maildir_layout: fs\nmaildir_inbox: a/INBOX", func(c *Config) any { return c.MaildirInbox }, "a/INBOX"},
		{"maxmessagesize: 10 MB", func(c *Config) any { return c.Limits.AppendLimit() }, int64(10 << 20)},
		{"debug: no", func(c *Config) any { return c.Limits.AppendLimit() }, int64(4294967295)},
		{"maxargssize: 0", func(c *Config) any { return c.Limits.Args }, int64(1 << 20)},
		{"limit_connections: 10", func(c *Config) any { return []int{c.Limits.PreauthConnections, c.Limits.PreauthPerAddress} }, []int{10, 10}},
		{"imapidlepoll: 0", func(c *Config) any { return c.IdlePoll }, time.Duration(0)},
		{"tls_server_cert: /c, /d\ntls_server_key: /k,/l", func(c *Config) any { return c.TLSServerKey }, []string{"/k", "/l"}},
		{"tls_versions: tls1_3 tls1_1 tls1_2", func(c *Config) any { a, b := c.TLSRange(); return []uint16{a, b} }, []uint16{0x302, 0x304}},
		{"debug: no", func(c *Config) any { a, b := c.TLSRange(); return []uint16{a, b} }, []uint16{0x303, 0x304}},
		{"listen: imap://127.0.0.1:1143 imaps://mail.example.org imap://[::1] imaps://[::1]:9 unix:/run/imap", func(c *Config) any { return c.Listen }, []Address{
			{Network: "tcp", Address: "127.0.0.1:1143"}, {Network: "tcp", Address: "mail.example.org:993", TLS: true},
			{Network: "tcp", Address: "[::1]:143"}, {Network: "tcp", Address: "[::1]:9", TLS: true}, {Network: "unix", Address: "/run/imap"}}},
		{"xlist-sent: Gesendet", func(c *Config) any { return c.SpecialUse }, map[string]string{`\Sent`: "Gesendet"}},
	} {
		c, problems := load(t, "imap", tt.text)
		if d := cmp.Diff(tt.want, tt.field(c)); d != "" || problems != nil {
			t.Errorf("%q: %q %s", tt.text, problems, d)
		}
	}
}

func TestBelowMaildir(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"INBOX", "a/b", ".INBOX", "curl", "a b"} {
		if !belowMaildir(path) {
			t.Errorf("%q is refused", path)
		}
	}
	for _, path := range []string{"", "/", "/INBOX", "INBOX/", "a//b", ".", "a/.", "..", "a/..", "..a", "~/INBOX", "%u", "cur", "a/new", "tmp/a", strings.Repeat("x", 256)} {
		if belowMaildir(path) {
			t.Errorf("%q is accepted", path)
		}
	}
}

func TestListenFaults(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "143", "imap://", "imap://a:b", "imap://a:0", "imap://a:65536", "imap://::1:143", "imap://u@h:1", "imap://h:1/x", "unix:x", "imap:///x"} {
		if a, err := parseAddress(text); err == nil && text != "imap://" {
			t.Errorf("%q: got %v", text, a)
		}
	}
	for _, text := range []string{"imap://:143", "imaps://[::1]:993", "unix:/run/x"} {
		if a, err := parseAddress(text); err != nil || a.String() != text {
			t.Errorf("%q: got %v, %v", text, a, err)
		}
	}
}

// TestTable holds that the table is sound: defaults parse, each field is an
// own one, names are in order and none is in known.txt as well.
func TestTable(t *testing.T) {
	t.Parallel()
	c := &Config{}
	seen := map[any]string{}
	names := map[string]bool{}
	for _, o := range append(append([]option(nil), options...), limits...) {
		if names[o.name] {
			t.Errorf("%s is twice in the table", o.name)
		}
		names[o.name] = true
		field := o.field(c)
		if other, ok := seen[field]; ok {
			t.Errorf("%s and %s have the same field", o.name, other)
		}
		seen[field] = o.name
		if o.def != "" {
			if err := o.set(c, o.def); err != nil {
				t.Errorf("%s: default: %v", o.name, err)
			}
		}
		if o.prose == "" || !strings.HasSuffix(o.prose, ".") {
			t.Errorf("%s: prose %q", o.name, o.prose)
		}
		if (o.kind == duration) != (o.unit == "seconds" || o.unit == "minutes") || (o.kind == size) != (o.unit == "octets") {
			t.Errorf("%s: unit %q", o.name, o.unit)
		}
		if strings.Contains(knownText, "\n"+o.name+" ") {
			t.Errorf("%s is in known.txt too", o.name)
		}
	}
	fields := reflect.TypeFor[Limits]().NumField()
	if len(limits) != fields {
		t.Errorf("%d rows for the %d limits", len(limits), fields)
	}
	if len(Default().Listen) != 2 || Default().ConfigDirectory != "" {
		t.Error("Default is not what it says")
	}
}

func TestKnown(t *testing.T) {
	t.Parallel()
	names := maps.Collect(dictionary{}.all)
	for name, k := range names {
		switch k.fate {
		case "here", "silent", "ignored", "later":
		case "refuse":
			if k.arg == "" {
				t.Errorf("%s: no value", name)
			}
		case "renamed":
			if _, _, now, ok := (dictionary{}).split(k.arg); !ok || now.fate == "renamed" {
				t.Errorf("%s: renamed %s, which is no name", name, k.arg)
			}
		default:
			t.Errorf("%s: fate %q", name, k.fate)
		}
	}
	for name, k := range (dictionary{}).lines {
		if k.fate != "foreign" {
			continue
		}
		if _, ok := names[name]; ok {
			t.Errorf("%s is an option", name)
		}
		if names[k.arg].fate != "here" {
			t.Errorf("%s: %s is nothing that works here", name, k.arg)
		}
	}
	if len(names) < 600 {
		t.Errorf("only %d names", len(names))
	}
}

// TestWrite holds that what is written loads to the same configuration.
func TestWrite(t *testing.T) {
	t.Parallel()
	c, problems := load(t, "imap", `timeout: 5
admins: root Cyrus
maildir: /var/mail/%d/%n
unixhierarchysep: no
maildir_prefix: INBOX.
tls_required: yes
allowplaintext: yes
tls_server_cert: {configdirectory}/cert.pem
xlist-sent: Sent
xlist-junk: Junk
autocreate_inbox_folders: Sent | Junk
limit_idle_keepalive: 90s
maxliteral: 200000
limit_connections: 100
sasl_mech_list: login
umask: 0022
lmtp_timeout: 3
httpmodules: x
`)
	if problems != nil {
		t.Fatal(problems)
	}
	var b strings.Builder
	if err := c.Write(&b); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"timeout: 30m\n", "imapidletimeout: 5m\n", "maildir_separator: .\n", "limit_idle_keepalive: 90s\n", "maxliteral: 200000\n",
		"limit_preauth_connections: 100\n", "# cyrus_user: (not set)\n", "allowplaintext: no\n", "xlist-junk: Junk\nxlist-sent: Sent\n",
		"# no effect: lmtp_timeout (" + c.where["timeout"].file + ":18)\n", "# no effect: httpmodules (" + c.where["timeout"].file + ":19)\n"} {
		if !strings.Contains("\n"+b.String(), "\n"+line) {
			t.Errorf("no line %q in:\n%s", line, b.String())
		}
	}
	again, problems2, err := Load(conf(t, b.String()), "imap", nil)
	if err != nil || problems2 != nil {
		t.Fatal(err, problems2)
	}
	opts := []cmp.Option{cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateEmpty()}
	if d := cmp.Diff(c, again, opts...); d != "" {
		t.Error(d)
	}
}

func BenchmarkLoad(b *testing.B) {
	file := conf(b, "configdirectory: /x\nadmins: root\ntimeout: 40\nlmtpsocket: /x\n")
	for b.Loop() {
		if _, _, err := Load(file, "imap", nil); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("configdirectory: /x\ntimeout: 1d2h3m4s5\nmaxword: 10 KiB\nimap_x: \\\n y\n@include: x\n")
	f.Add("configdirectory: /x\nlisten: imap://[::1]:143 unix:/x\nmaildir: ~/%u%%\nxlist-sent: a\numask: 7\n")
	f.Add("configdirectory:/x\nquotawarn: 3\nlmtp_timeout:3\nadmins: group:x\ntls_server_cert: /a,/b\nlimit_connections: 0x10")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "@") {
			return // no other files
		}
		r := new(reader)
		r.text("fuzz", text)
		lines := strings.Count(text, "\n") + 1
		if len(r.entries)+len(r.problems) > lines {
			t.Errorf("%d entries and %d problems of %d lines", len(r.entries), len(r.problems), lines)
		}
		l := loader{c: defaults(), file: "fuzz", service: "imap", problems: r.problems}
		l.choose(r.entries)
		l.assign()
		l.finish()
		sortProblems(l.problems)
		c := l.c
		if c.Timeout < leastTimeout || c.IdleTimeout <= 0 || c.Limits.Line < 512 || len(c.ServerName) > len(text)+64 {
			t.Errorf("timeout %v, idle %v, limits %+v", c.Timeout, c.IdleTimeout, c.Limits)
		}
		for _, p := range l.problems {
			if p.Line < 0 || p.Line > lines || strings.Contains(p.Text, "\n") {
				t.Errorf("problem %+v", p)
			}
		}
		// What is right, written, is right again.
		if verdict(l.problems) == nil {
			var b strings.Builder
			if err := c.Write(&b); err != nil {
				t.Fatal(err)
			}
			again := new(reader)
			again.text("again", b.String())
			l2 := loader{c: defaults(), file: "again", service: "imap", problems: again.problems}
			l2.choose(again.entries)
			l2.assign()
			l2.finish()
			if d := cmp.Diff(c, l2.c, cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateEmpty()); d != "" || verdict(l2.problems) != nil {
				t.Errorf("%v %s", l2.problems, d)
			}
		}
	})
}

// TestExamples holds that the files that sites copy have nothing wrong.
func TestExamples(t *testing.T) {
	t.Parallel()
	files, _ := filepath.Glob("../../contrib/*.conf")
	tested := 0
	for _, file := range files {
		if strings.HasPrefix(filepath.Base(file), "imapd") {
			tested++
			if _, problems, err := Load(file, "imap", nil); len(problems) > 0 || err != nil {
				t.Error(problems, err)
			}
		}
	}
	if tested < 2 {
		t.Errorf("%d files", tested)
	}
}
