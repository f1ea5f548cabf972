// Package config reads imapd.conf(5).
//
// The grammar and the names are those of Cyrus, so that a site's file keeps
// working: see the manual page for the one and known.txt for the others. One
// table of options (table.go, limits.go) feeds the parser, the check behind
// imapd -t and the test that holds the manual page against it.
//
// Nothing is looked up by name after the start: Load fills one Config, and
// whoever needs an option reads its field.
package config

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"time"
)

// A Config is what one service runs with. It does not change once Load or
// Default returned it and may be read by any number of goroutines; a reload
// makes another one. Its slices and maps belong to it.
type Config struct {
	// Service is the name of the service that the configuration is for.
	Service string
	// ConfigDirectory holds msg/, log/ and proc/. It is absolute and not
	// "/", or empty when there is no configuration file.
	ConfigDirectory string
	// ServerName is the name in the greeting and in session ids; without
	// the option the name of the host.
	ServerName string
	// ServerInfo says how much of the server's name and version clients see.
	ServerInfo ServerInfo
	// IMAPIDResponse is false where ID is answered with NIL whatever
	// ServerInfo says.
	IMAPIDResponse bool
	// Admins are the canonical names that may authorize as anybody and that
	// a shutdown notice spares.
	Admins []string
	// ProxyServers are the canonical names that may authorize as anybody
	// without being administrators themselves.
	ProxyServers []string
	// User and Group are what a server that root started becomes before it
	// accepts; empty where they are not set.
	User, Group string
	// PrivilegeSeparation is how a server that root started gives root up.
	PrivilegeSeparation Separation
	// AuthUser is who the process that checks passwords runs as where every
	// user has a process; empty where it is not set. FirstValidUID is the
	// lowest uid that gets one.
	AuthUser      string
	FirstValidUID int
	// Landlock has processes that root started give up all files but those
	// that they need.
	Landlock bool
	// ProcPath is the directory that lists who is on; empty where
	// ConfigDirectory is. So is UserDeny, the file of those who may not log in.
	ProcPath, UserDeny string
	// Umask is the file mode creation mask of the process.
	Umask int

	// ShutdownGrace is how long running commands may take to end when the
	// server ends or a shutdown notice appears.
	ShutdownGrace time.Duration

	// Listen has the addresses of imapd -l; never empty.
	Listen []Address

	// HAProxyTrusted are the networks of proxies that send PROXY headers.
	HAProxyTrusted []netip.Prefix
	// LoginTrusted are the networks whose clients may say, by ID, for whom
	// they connect, and send passwords without TLS.
	LoginTrusted []netip.Prefix

	// AllowPlaintext permits LOGIN and the plain text mechanisms without
	// TLS. It is false whenever tls_required is on.
	AllowPlaintext bool
	// TLSServerCert and TLSServerKey are the PEM files of the certificate
	// chains and their keys, pair by pair; both empty where TLS is not
	// offered.
	TLSServerCert, TLSServerKey []string
	// TLSServerNames is the directory of certificates for one server name
	// each, or empty.
	TLSServerNames string
	// TLSVersions are the words of tls_versions. See TLSRange.
	TLSVersions []string

	// PwcheckMethods are the words of sasl_pwcheck_method in the order in
	// which they are asked; only those that this version has.
	PwcheckMethods []string
	// Mechanisms are the SASL mechanisms to offer, in upper case; only
	// those that this version has.
	Mechanisms []string
	// MinimumLayer is the strength that a connection must have, as TLS and
	// imapd -p give it, for Mechanisms to be offered.
	MinimumLayer int
	// PasswdFile is the password file in Dovecot's format, or empty.
	PasswdFile string
	// SaslauthdPath is the socket of saslauthd.
	SaslauthdPath string
	// LoginRealms are what may stand behind the "@" of a name that
	// saslauthd is asked about; empty: VirtDomains decides.
	LoginRealms []string
	// VirtDomains says whether names that saslauthd is asked about may have
	// a domain.
	VirtDomains VirtDomains
	// FailedLoginPause is how long the answer to a failed login waits.
	FailedLoginPause time.Duration
	// MaxLoginsPerUser and MaxLoginsPerHost bound the sessions of one user
	// and from one host in all processes; 0 where they do not.
	MaxLoginsPerUser, MaxLoginsPerHost int
	// UsernameToLower makes user names lower case before they are used.
	UsernameToLower bool

	// Timeout ends a session that sends nothing; at least 30 minutes
	// (RFC 9051 section 5.4).
	Timeout time.Duration
	// IdleTimeout ends a session that sends nothing during IDLE; above 0.
	IdleTimeout time.Duration
	// IdlePoll is how often an idle session looks at its mailbox and at the
	// notices where no watch can tell it. 0 turns IDLE off.
	IdlePoll time.Duration

	// LiteralMinus announces LITERAL- instead of LITERAL+ (RFC 7888).
	LiteralMinus bool
	// SuppressCapabilities are left out of CAPABILITY, in upper case. Their
	// commands keep working.
	SuppressCapabilities []string

	// Maildir is the template of a user's Maildir; see Expand.
	Maildir string
	// MaildirLayout says how folders lie in it.
	MaildirLayout Layout
	// MaildirInbox is the path of INBOX below a Maildir in the fs layout, or
	// empty for the Maildir itself.
	MaildirInbox string
	// MaildirNames says how folder names are written on disk.
	MaildirNames Names
	// MaildirSeparator is the hierarchy separator that clients see: '/' or
	// '.'.
	MaildirSeparator byte
	// MaildirPrefix is put before every mailbox name but INBOX; empty or it
	// ends in MaildirSeparator.
	MaildirPrefix string
	// MaildirControl is the template of the directory for UID lists, or
	// empty for the Maildir itself.
	MaildirControl string
	// IndexDirectory is the template of the directory for imapd.index, or
	// empty for the folder itself.
	IndexDirectory string
	// IndexSingleHost promises that IndexDirectory may be of this host only
	// because each user's mail is served by one host.
	IndexSingleHost bool
	// MaildirLock says which renames happen under the UID list's lock.
	MaildirLock Lock
	// MaildirReadonly serves folders without a UID list that cannot be
	// written.
	MaildirReadonly bool
	// MaildirImportIsync takes over UIDs that mbsync wrote into file names.
	MaildirImportIsync bool
	// MaildirFsync says what is on disk before the client is told OK.
	MaildirFsync Fsync

	// AutocreateInboxFolders are made together with a new INBOX, and
	// AutocreateSubscribeFolders among them subscribed.
	AutocreateInboxFolders, AutocreateSubscribeFolders []string
	// SpecialUse maps a special-use attribute as RFC 6154 spells it
	// ("\Sent") to the mailbox that has it, named without prefix.
	SpecialUse map[string]string

	// LogFormat is the form of log lines.
	LogFormat LogFormat
	// SyslogPrefix goes before the service in the syslog ident, or empty.
	SyslogPrefix string
	// SyslogFacility is the syslog facility in lower case, "mail".
	SyslogFacility string
	// Debug lets debug messages into the log.
	Debug bool
	// Chatty logs the tag and name of every command.
	Chatty bool
	// TelemetryBySessionID names telemetry files by session id, not by
	// process id.
	TelemetryBySessionID bool
	// DebugCommand is what imapd -D runs, or empty.
	DebugCommand string

	// NotifyFD is the descriptor on which a supervisor waits for a newline; 0
	// is none.
	NotifyFD int
	// TCPKeepalive is how long a connection is silent before TCP asks
	// whether the peer lives; 0 leaves it to the system.
	TCPKeepalive time.Duration

	// Limits bound what any client can make the server do.
	Limits Limits

	raw     raw              // options whose field is derived from their text
	where   map[string]place // where each option was set, by name
	unheard []entry          // known options that have no effect here
}

// raw holds the options that finish turns into something else.
type raw struct {
	tlsRequired       bool
	listen            []string
	haproxyTrusted    []string
	loginTrusted      []string
	cert, key         string
	methods, mechs    []string
	timeout           time.Duration
	idleTimeout       time.Duration
	umask             string
	separator         string
	unixHierarchySep  bool
	inboxFolders      string
	subscribedFolders string
}

// An Address is one place where imapd -l listens.
type Address struct {
	// Network is "tcp" or "unix", Address what net.Listen takes.
	Network, Address string
	// TLS is true where the TLS handshake comes first (imaps).
	TLS bool
}

// String returns a in the form of the listen option.
func (a Address) String() string {
	switch {
	case a.Network == "unix":
		return "unix:" + a.Address
	case a.TLS:
		return "imaps://" + a.Address
	}
	return "imap://" + a.Address
}

// Separation is the choice of privilege_separation.
type Separation string

// How root is given up: a parent stays root and one process serves, or one for
// each user; the process itself gives root up.
const (
	SeparateShared Separation = "shared"
	SeparateUser   Separation = "user"
	SeparateNone   Separation = "none"
)

// ServerInfo is the choice of serverinfo.
type ServerInfo string

// What clients are told: nothing, the server's name, its name and version.
const (
	ServerInfoOff ServerInfo = "off"
	ServerInfoMin ServerInfo = "min"
	ServerInfoOn  ServerInfo = "on"
)

// VirtDomains is the choice of virtdomains.
type VirtDomains string

// Whether names have domains: no, or where one has an "@".
const (
	VirtDomainsOff    VirtDomains = "off"
	VirtDomainsUserID VirtDomains = "userid"
	VirtDomainsOn     VirtDomains = "on"
)

// Layout is the choice of maildir_layout.
type Layout string

// How folders lie in a Maildir: found out, ".Name" beside cur, or nested
// directories.
const (
	LayoutAuto    Layout = "auto"
	LayoutMaildir Layout = "maildir++"
	LayoutFS      Layout = "fs"
)

// Names is the choice of maildir_names.
type Names string

// How folder names are written on disk: found out, modified UTF-7, UTF-8.
const (
	NamesAuto Names = "auto"
	NamesUTF7 Names = "utf7"
	NamesUTF8 Names = "utf8"
)

// Lock is the choice of maildir_lock.
type Lock string

// Which renames happen under dovecot-uidlist.lock: all, or those that come
// with new UIDs.
const (
	LockAlways  Lock = "always"
	LockNewUIDs Lock = "new-uids"
)

// Fsync is the choice of maildir_fsync.
type Fsync string

// What is synced: what must not be lost, flag renames and unlinks too,
// nothing.
const (
	FsyncOptimized Fsync = "optimized"
	FsyncAlways    Fsync = "always"
	FsyncNever     Fsync = "never"
)

// LogFormat is the choice of log_format.
type LogFormat string

// The forms of log lines: those of Cyrus, one JSON object a line.
const (
	LogSyslog LogFormat = "syslog"
	LogJSON   LogFormat = "json"
)

// TLSRange returns the lowest and the highest version that tls_versions
// allows, as crypto/tls numbers them.
func (c *Config) TLSRange() (low, high uint16) {
	for _, v := range c.TLSVersions {
		n := tlsVersion(v)
		if low == 0 || n < low {
			low = n
		}
		high = max(high, n)
	}
	return low, high
}

func tlsVersion(word string) uint16 {
	switch word {
	case "tls1_0":
		return tls.VersionTLS10
	case "tls1_1":
		return tls.VersionTLS11
	case "tls1_2":
		return tls.VersionTLS12
	}
	return tls.VersionTLS13
}

// IsAdmin tells whether the canonical name user is one of Admins.
func (c *Config) IsAdmin(user string) bool {
	for _, a := range c.Admins {
		if a == user {
			return true
		}
	}
	return false
}

// At returns err as one of the option name, with the place in front where the
// configuration sets it.
func (c *Config) At(name string, err error) error {
	if place := c.Where(name); place != "" {
		return fmt.Errorf("%s: %s: %w", place, name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// Where returns "file:line" of the setting of the option name, or "" where it
// has its default, for messages about its value.
func (c *Config) Where(name string) string {
	if p, ok := c.where[name]; ok {
		return p.String()
	}
	return ""
}
