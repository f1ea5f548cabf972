package config

import "time"

// kind is the form that the value of an option takes.
type kind int

const (
	str      kind = iota // any text
	pathname             // a file or directory; absolute
	template             // a path with the variables of Expand
	toggle               // on or off
	integer              // a number
	duration             // a time span
	size                 // a number of octets
	word                 // one of words
	words                // any number of words
	octal                // a file mode
)

// An option is a row of the table: one name of imapd.conf(5) that this server
// acts upon. The manual page has the same rows; a test compares them.
type option struct {
	name string
	kind kind
	unit string // of a bare number of a duration ("seconds") or size ("octets")
	def  string // default as imapd.conf would say it; "" for none
	min  int64  // bounds of a number; of a duration in nanoseconds
	max  int64
	// words are the values of a word option, in lower case, and fold says
	// that case does not matter.
	words []string
	fold  bool
	// commas is set where words may have commas between them.
	commas bool
	// zeroDefault is set where 0, for Cyrus no limit, means the default.
	zeroDefault bool
	// restart is set where a process keeps the value that it began with.
	restart bool
	field   func(*Config) any // pointer to what the option fills
	prose   string            // what it does, in one sentence
}

const longest = int64(10 * 365 * 24 * time.Hour)

// options are the rows but for the limits.
var options = []option{
	{name: "configdirectory", kind: pathname, restart: true,
		field: func(c *Config) any { return &c.ConfigDirectory },
		prose: "Directory of the files that the server shares with its administrator: notices in msg, telemetry in log."},
	{name: "servername", kind: str,
		field: func(c *Config) any { return &c.ServerName },
		prose: "Name of the server in its greeting and in session ids; without it the name of the host."},
	{name: "serverinfo", kind: word, def: "on", words: []string{"off", "min", "on"},
		field: func(c *Config) any { return &c.ServerInfo },
		prose: "What clients are told about the server: on gives its name and version, min its name, off nothing."},
	{name: "imapidresponse", kind: toggle, def: "yes",
		field: func(c *Config) any { return &c.IMAPIDResponse },
		prose: "Whether ID is answered with the server's name and version as far as serverinfo allows."},
	{name: "admins", kind: words,
		field: func(c *Config) any { return &c.Admins },
		prose: "Users who may log in as any other user and whose sessions a shutdown notice does not end."},
	{name: "proxyservers", kind: words,
		field: func(c *Config) any { return &c.ProxyServers },
		prose: "Users who may log in as any other user, an administrator too, without being administrators themselves."},
	{name: "cyrus_user", kind: str, restart: true,
		field: func(c *Config) any { return &c.User },
		prose: "User that a server started by root becomes before it accepts its first connection."},
	{name: "cyrus_group", kind: str, restart: true,
		field: func(c *Config) any { return &c.Group },
		prose: "Group that a server started by root becomes a member of; without it the group of cyrus_user."},
	{name: "privilege_separation", kind: word, restart: true, def: "shared", words: []string{"shared", "user", "none"},
		field: func(c *Config) any { return &c.PrivilegeSeparation },
		prose: "How a server that root has started gives root up."},
	{name: "auth_user", kind: str, restart: true,
		field: func(c *Config) any { return &c.AuthUser },
		prose: "User that the process which checks passwords runs as with privilege_separation: user."},
	{name: "first_valid_uid", kind: integer, def: "500", min: 1, max: 1<<31 - 1,
		field: func(c *Config) any { return &c.FirstValidUID },
		prose: "Lowest uid whose mail is served with privilege_separation: user."},
	{name: "landlock", kind: toggle, restart: true, def: "yes",
		field: func(c *Config) any { return &c.Landlock },
		prose: "Whether processes that serve beside one of root's give up all files but those that they need."},
	{name: "umask", kind: octal, restart: true, def: "077", min: 0, max: 0777,
		field: func(c *Config) any { return &c.raw.umask },
		prose: "File mode creation mask of the server, in octal; files in a Maildir take the mode of their folder instead."},
	{name: "proc_path", kind: pathname, restart: true,
		field: func(c *Config) any { return &c.ProcPath },
		prose: "Directory with a file for each client that is on, in Cyrus's format; without it proc in configdirectory."},

	{name: "shutdown_grace", kind: duration, unit: "seconds", def: "60s", min: 0, max: int64(time.Hour),
		field: func(c *Config) any { return &c.ShutdownGrace },
		prose: "Time that running commands have to end when the server is stopped, a shutdown notice appears or imapctl kick is used; after it they are cut short."},

	{name: "listen", kind: words, def: "imap://:143 imaps://:993",
		field: func(c *Config) any { return &c.raw.listen },
		prose: "Addresses on which a server started with -l listens: imap://HOST:PORT, imaps://HOST:PORT or unix:/PATH."},
	{name: "notify_fd", kind: integer, restart: true, def: "0", min: 0, max: 1023,
		field: func(c *Config) any { return &c.NotifyFD },
		prose: "Descriptor on which a supervisor such as s6 waits for a newline, which tells that clients are served; 0 for none."},
	{name: "haproxy_trusted_networks", kind: words, commas: true,
		field: func(c *Config) any { return &c.raw.haproxyTrusted },
		prose: "Networks and addresses of proxies, which begin every connection with a header of the PROXY protocol."},
	{name: "login_trusted_networks", kind: words, commas: true,
		field: func(c *Config) any { return &c.raw.loginTrusted },
		prose: "Networks and addresses of webmail servers and proxies that may say by ID for whom they connect, and log in without TLS."},
	{name: "tcp_keepalive_idle", kind: duration, unit: "seconds", def: "5m", min: 0, max: longest,
		field: func(c *Config) any { return &c.TCPKeepalive },
		prose: "Time after which TCP asks a silent client whether it is still there; 0 leaves that to the system."},

	{name: "tls_server_cert", kind: str,
		field: func(c *Config) any { return &c.raw.cert },
		prose: "PEM file of the server's certificate chain, or two such files with a comma between; without it TLS is not offered."},
	{name: "tls_server_key", kind: str,
		field: func(c *Config) any { return &c.raw.key },
		prose: "PEM file of the private key that belongs to tls_server_cert, or two; without it the key is looked for in the file of the certificate."},
	{name: "tls_server_names_dir", kind: pathname,
		field: func(c *Config) any { return &c.TLSServerNames },
		prose: "Directory of certificates for one server name each, which clients that ask for that name get instead of tls_server_cert."},
	{name: "tls_versions", kind: words, def: "tls1_2 tls1_3",
		words: []string{"tls1_0", "tls1_1", "tls1_2", "tls1_3"},
		field: func(c *Config) any { return &c.TLSVersions },
		prose: "Versions of TLS that are accepted: tls1_0, tls1_1, tls1_2, tls1_3."},
	{name: "tls_required", kind: toggle, def: "no",
		field: func(c *Config) any { return &c.raw.tlsRequired },
		prose: "Refuse every login without TLS, whatever allowplaintext says."},

	{name: "allowplaintext", kind: toggle, def: "no",
		field: func(c *Config) any { return &c.AllowPlaintext },
		prose: "Let clients without TLS log in with a password that anybody on the way can read."},
	{name: "sasl_pwcheck_method", kind: words, def: "passwd-file",
		field: func(c *Config) any { return &c.raw.methods },
		prose: "How passwords are checked, one way after the other until one says yes: passwd-file, saslauthd."},
	{name: "sasl_passwd_file", kind: pathname,
		field: func(c *Config) any { return &c.PasswdFile },
		prose: "File of users and password hashes in the format of Dovecot's passwd-file; a change takes effect at the next login."},
	{name: "sasl_saslauthd_path", kind: pathname, def: "/run/saslauthd/mux",
		field: func(c *Config) any { return &c.SaslauthdPath },
		prose: "Socket of saslauthd, the socket itself and not its directory."},
	{name: "userdeny_db_path", kind: pathname,
		field: func(c *Config) any { return &c.UserDeny },
		prose: "File in which Cyrus's cyr_deny lists users who may not log in; without it user_deny.db in configdirectory."},
	{name: "loginrealms", kind: words,
		field: func(c *Config) any { return &c.LoginRealms },
		prose: "Realms that may stand behind the @ of a name that saslauthd is asked about; without it virtdomains decides."},
	{name: "virtdomains", kind: word, def: "off", words: []string{"off", "userid", "on"},
		field: func(c *Config) any { return &c.VirtDomains },
		prose: "Whether saslauthd is asked about names with any domain behind an @ (userid) or, but for loginrealms, about none (off)."},
	{name: "sasl_mech_list", kind: words, def: "PLAIN LOGIN",
		field: func(c *Config) any { return &c.raw.mechs },
		prose: "SASL mechanisms that are offered; this version has PLAIN and LOGIN."},
	{name: "sasl_minimum_layer", kind: integer, def: "0", min: 0, max: 256,
		field: func(c *Config) any { return &c.MinimumLayer },
		prose: "Strength in bits that a connection needs, by TLS or imapd -p, before SASL mechanisms are offered; LOGIN is not touched."},
	{name: "failedloginpause", kind: duration, unit: "seconds", def: "3s", min: 0, max: int64(time.Minute),
		field: func(c *Config) any { return &c.FailedLoginPause },
		prose: "Time for which the answer to a failed login is held back."},
	{name: "maxlogins_per_user", kind: integer, def: "0", min: 0, max: 1 << 30,
		field: func(c *Config) any { return &c.MaxLoginsPerUser },
		prose: "Most sessions that a user may have at a time with a service, in all processes; 0 for any number."},
	{name: "maxlogins_per_host", kind: integer, def: "0", min: 0, max: 1 << 30,
		field: func(c *Config) any { return &c.MaxLoginsPerHost },
		prose: "Most sessions that one host may have logged in at a time with a service, in all processes; 0 for any number."},
	{name: "username_tolower", kind: toggle, def: "yes",
		field: func(c *Config) any { return &c.UsernameToLower },
		prose: "Turn user names into lower case before they are looked up."},

	{name: "timeout", kind: duration, unit: "minutes", def: "32m", min: 0, max: longest,
		field: func(c *Config) any { return &c.raw.timeout },
		prose: "Time after which a session that sends nothing is ended; less than 30 minutes counts as 30 minutes."},
	{name: "imapidletimeout", kind: duration, unit: "minutes", min: int64(time.Minute), max: longest,
		field: func(c *Config) any { return &c.raw.idleTimeout },
		prose: "Time after which a session that sends nothing is ended while it is in IDLE; without it that of timeout, which may be less than 30 minutes here."},
	{name: "imapidlepoll", kind: duration, restart: true, unit: "seconds", def: "60s", min: 0, max: int64(time.Hour),
		field: func(c *Config) any { return &c.IdlePoll },
		prose: "How often an idle session looks for changes where the system cannot tell it of them at once; 0 turns IDLE off."},
	{name: "literalminus", kind: toggle, def: "no",
		field: func(c *Config) any { return &c.LiteralMinus },
		prose: "Announce LITERAL- instead of LITERAL+, so that clients ask before they send more than 4096 octets."},
	{name: "suppress_capabilities", kind: words,
		field: func(c *Config) any { return &c.SuppressCapabilities },
		prose: "Capabilities that are not announced, for the sake of clients that misuse them; their commands keep working."},

	{name: "maildir", kind: template, def: "~/Maildir",
		field: func(c *Config) any { return &c.Maildir },
		prose: "Where the Maildir of a user is: %u is the user, %n the part before the last @, %d the part after it, ~ at the start the home directory, %% a percent sign."},
	{name: "maildir_layout", kind: word, def: "auto", words: []string{"auto", "maildir++", "fs"},
		field: func(c *Config) any { return &c.MaildirLayout },
		prose: "How folders lie in a Maildir: maildir++ has .Name.Sub beside cur, fs has Name/Sub, auto finds out."},
	{name: "maildir_inbox", kind: str,
		field: func(c *Config) any { return &c.MaildirInbox },
		prose: "Directory of INBOX below the Maildir, as mbsync has it, for maildir_layout: fs; without it INBOX is the Maildir itself."},
	{name: "maildir_names", kind: word, def: "auto", words: []string{"auto", "utf7", "utf8"},
		field: func(c *Config) any { return &c.MaildirNames },
		prose: "How folder names are written on disk: in modified UTF-7, in UTF-8, or auto for as they are found."},
	{name: "maildir_separator", kind: word, words: []string{"/", "."},
		field: func(c *Config) any { return &c.raw.separator },
		prose: "Hierarchy separator that clients see, / or a dot; without it that of unixhierarchysep."},
	{name: "unixhierarchysep", kind: toggle, def: "yes",
		field: func(c *Config) any { return &c.raw.unixHierarchySep },
		prose: "Use / as hierarchy separator, or with no a dot, where maildir_separator is not set."},
	{name: "maildir_prefix", kind: str,
		field: func(c *Config) any { return &c.MaildirPrefix },
		prose: "Text before the name of every mailbox but INBOX, such as INBOX. for users who come from Courier; it ends in the separator."},
	{name: "maildir_control", kind: template, restart: true,
		field: func(c *Config) any { return &c.MaildirControl },
		prose: "Where dovecot-uidlist, dovecot-keywords and subscriptions of a user are, as CONTROL= in Dovecot; without it in the Maildir."},
	{name: "indexdirectory", kind: template, restart: true,
		field: func(c *Config) any { return &c.IndexDirectory },
		prose: "Where the indexes of a user are, imapd.index of each folder; without it in the folder itself."},
	{name: "index_single_host", kind: toggle, restart: true, def: "no",
		field: func(c *Config) any { return &c.IndexSingleHost },
		prose: "Promise that a user's mail is served by one host only, so that indexdirectory may be on a disk of that host."},
	{name: "maildir_lock", kind: word, restart: true, def: "always", words: []string{"always", "new-uids"},
		field: func(c *Config) any { return &c.MaildirLock },
		prose: "When renames of messages lock the UID list: always is needed beside a running Dovecot, new-uids locks only to give UIDs."},
	{name: "maildir_readonly", kind: toggle, restart: true, def: "no",
		field: func(c *Config) any { return &c.MaildirReadonly },
		prose: "Serve folders without a UID list in which none can be written, with UIDs that do not last."},
	{name: "maildir_import_isync", kind: toggle, restart: true, def: "no",
		field: func(c *Config) any { return &c.MaildirImportIsync },
		prose: "Take over UIDs from mbsync's native scheme (.uidvalidity, and ,U= in file names) when a folder is opened that no server has had."},
	{name: "maildir_fsync", kind: word, restart: true, def: "optimized", words: []string{"optimized", "always", "never"},
		field: func(c *Config) any { return &c.MaildirFsync },
		prose: "What is safe on disk before a client is told OK: optimized means messages and their UIDs, always flags and removals too, never nothing."},
	{name: "autocreate_inbox_folders", kind: str,
		field: func(c *Config) any { return &c.raw.inboxFolders },
		prose: "Mailboxes, with | between them, that are made for a user who has no Maildir yet."},
	{name: "autocreate_subscribe_folders", kind: str,
		field: func(c *Config) any { return &c.raw.subscribedFolders },
		prose: "Those of autocreate_inbox_folders, with | between them, that the user is subscribed to."},

	{name: "log_format", kind: word, restart: true, def: "syslog", words: []string{"syslog", "json"},
		field: func(c *Config) any { return &c.LogFormat },
		prose: "Form of log lines: syslog for those of Cyrus, json for one object a line."},
	{name: "syslog_prefix", kind: str, restart: true,
		field: func(c *Config) any { return &c.SyslogPrefix },
		prose: "Text before the service name in log lines and in session ids."},
	{name: "syslog_facility", kind: word, restart: true, def: "mail", fold: true,
		words: []string{"mail", "daemon", "news", "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"},
		field: func(c *Config) any { return &c.SyslogFacility },
		prose: "Facility of log lines: mail, daemon, news, user or local0 to local7."},
	{name: "debug", kind: toggle, restart: true, def: "no",
		field: func(c *Config) any { return &c.Debug },
		prose: "Log messages of level debug too."},
	{name: "chatty", kind: toggle, def: "no",
		field: func(c *Config) any { return &c.Chatty },
		prose: "Log the tag and the name of every command."},
	{name: "telemetry_bysessionid", kind: toggle, restart: true, def: "no",
		field: func(c *Config) any { return &c.TelemetryBySessionID },
		prose: "Name telemetry files by session id instead of process id."},
	{name: "debug_command", kind: str,
		field: func(c *Config) any { return &c.DebugCommand },
		prose: "Shell command that -D runs at the start; %s, %d and %s in it stand for the program, the process id and the service."},
}
