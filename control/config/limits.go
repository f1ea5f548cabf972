package config

import "time"

// Limits bound what a client, known or not, can make the server do. Every
// field has a row of options and of the manual page. Sizes are in octets. No
// limit can be turned off; 0 has a meaning only where it is said.
type Limits struct {
	// Connections is the number of connections at a time.
	Connections int
	// PreauthConnections is how many of them may be not logged in; when one
	// more comes, the oldest is closed.
	PreauthConnections int
	// PreauthPerAddress is how many not logged in connections may come from
	// one IPv4 address or one IPv6 /64.
	PreauthPerAddress int
	// PreauthTime is how long a client may take to log in, in all.
	PreauthTime time.Duration
	// HandshakeTime is how long a TLS handshake may take.
	HandshakeTime time.Duration
	// WriteTime is how long a client may refuse to take output.
	WriteTime time.Duration
	// LoginTries is the number of failed logins on one connection.
	LoginTries int
	// SASLResponse is the longest line of an AUTHENTICATE dialogue.
	SASLResponse int

	// PreauthLine and Line are the longest command outside its literals,
	// before and after login.
	PreauthLine, Line int64
	// PreauthBadCommands and BadCommands are how many bad commands are
	// answered with BAD before the connection is closed: before login in
	// all, after login in a row.
	PreauthBadCommands, BadCommands int
	// PreauthLiteral is the longest literal before login.
	PreauthLiteral int64
	// Literal, Quoted and Word are the longest literal (but for message
	// data), quoted string and atom.
	Literal, Quoted, Word int64
	// Literals is the number of literals in one command.
	Literals int
	// Args is the sum of the strings held for one command.
	Args int64
	// ListDepth is how deep parentheses nest.
	ListDepth int
	// Skip is how much of a refused command is read away before the
	// connection is given up.
	Skip int64

	// Message is the largest message that APPEND takes; 0 means that only
	// the protocol's 4,294,967,295 octets bound it. See AppendLimit.
	Message int64
	// Messages is the number of messages in one APPEND.
	Messages int

	// MailboxName is the longest mailbox name or pattern.
	MailboxName int
	// Patterns is the number of patterns in one LIST.
	Patterns int
	// Mailboxes is the number of mailboxes of one user.
	Mailboxes int

	// SearchKeys and SearchDepth are the number of keys in a SEARCH and how
	// deep they nest.
	SearchKeys, SearchDepth int
	// SearchTime is how long one SEARCH may take.
	SearchTime time.Duration

	// MIMEDepth and MIMEParts bound the part tree of a message; what is
	// beyond is one opaque part.
	MIMEDepth, MIMEParts int

	// DiskPerUser and Disk are how many operations wait for the disk at a
	// time, for one user and in all.
	DiskPerUser, Disk int

	// IdleKeepalive is how long an idle client hears nothing before it is
	// sent an untagged OK.
	IdleKeepalive time.Duration
}

// AppendLimit returns the largest message that APPEND takes in octets, as
// APPENDLIMIT announces it (RFC 7889).
func (l Limits) AppendLimit() int64 {
	if l.Message == 0 {
		return 1<<32 - 1
	}
	return l.Message
}

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// limits are the rows of the Limits. Their defaults are in the order of what
// well-behaved clients were seen to need, times several.
var limits = []option{
	{name: "limit_connections", kind: integer, def: "10000", min: 1, max: 1 << 20,
		field: func(c *Config) any { return &c.Limits.Connections },
		prose: "Number of connections that are served at a time; one more gets BYE."},
	{name: "limit_preauth_connections", kind: integer, def: "1000", min: 1, max: 1 << 20,
		field: func(c *Config) any { return &c.Limits.PreauthConnections },
		prose: "Number of connections that have not logged in; when one more comes, the oldest of them is closed."},
	{name: "limit_preauth_per_address", kind: integer, def: "20", min: 1, max: 1 << 20,
		field: func(c *Config) any { return &c.Limits.PreauthPerAddress },
		prose: "Number of connections that have not logged in from one IPv4 address or one IPv6 /64 network."},
	{name: "limit_preauth_time", kind: duration, unit: "seconds", def: "180s", min: int64(time.Second), max: int64(time.Hour),
		field: func(c *Config) any { return &c.Limits.PreauthTime },
		prose: "Time in which a client must have logged in, however busy it is."},
	{name: "limit_tls_handshake_time", kind: duration, unit: "seconds", def: "20s", min: int64(time.Second), max: int64(time.Hour),
		field: func(c *Config) any { return &c.Limits.HandshakeTime },
		prose: "Time in which a TLS handshake must be over."},
	{name: "limit_write_time", kind: duration, unit: "seconds", def: "60s", min: int64(time.Second), max: int64(time.Hour),
		field: func(c *Config) any { return &c.Limits.WriteTime },
		prose: "Time for which a client may refuse to take output before its connection is closed."},
	{name: "limit_login_tries", kind: integer, def: "3", min: 1, max: 1000,
		field: func(c *Config) any { return &c.Limits.LoginTries },
		prose: "Number of failed logins after which a connection is closed."},
	{name: "limit_sasl_response", kind: size, unit: "octets", def: "12K", min: 512, max: 1 * mib,
		field: func(c *Config) any { return &c.Limits.SASLResponse },
		prose: "Longest line that a client may send within an AUTHENTICATE command."},

	{name: "limit_preauth_line", kind: size, unit: "octets", def: "8K", min: 512, max: 1 * mib,
		field: func(c *Config) any { return &c.Limits.PreauthLine },
		prose: "Longest command before login, its literals not counted; a longer one ends the connection."},
	{name: "limit_line", kind: size, unit: "octets", def: "2M", min: 8000, max: 64 * mib,
		field: func(c *Config) any { return &c.Limits.Line },
		prose: "Longest command after login, its literals not counted; a longer one ends the connection."},
	{name: "limit_preauth_bad_commands", kind: integer, def: "3", min: 0, max: 1000,
		field: func(c *Config) any { return &c.Limits.PreauthBadCommands },
		prose: "Number of bad commands before login that are answered with BAD; the next one ends the connection."},
	{name: "limit_bad_commands", kind: integer, def: "20", min: 0, max: 1000000,
		field: func(c *Config) any { return &c.Limits.BadCommands },
		prose: "Number of bad commands in a row after login that are answered with BAD; the next one ends the connection."},
	{name: "limit_preauth_literal", kind: size, unit: "octets", def: "4K", min: 256, max: 1 * mib,
		field: func(c *Config) any { return &c.Limits.PreauthLiteral },
		prose: "Largest literal before login."},
	{name: "maxliteral", kind: size, unit: "octets", def: "128K", min: 1 * kib, max: 1 * gib, zeroDefault: true,
		field: func(c *Config) any { return &c.Limits.Literal },
		prose: "Largest literal after login, the messages of APPEND not counted."},
	{name: "maxquoted", kind: size, unit: "octets", def: "128K", min: 1 * kib, max: 1 * gib, zeroDefault: true,
		field: func(c *Config) any { return &c.Limits.Quoted },
		prose: "Longest quoted string."},
	{name: "maxword", kind: size, unit: "octets", def: "128K", min: 1 * kib, max: 1 * gib, zeroDefault: true,
		field: func(c *Config) any { return &c.Limits.Word },
		prose: "Longest word, which is anything else without a blank but a set of message numbers."},
	{name: "limit_literals", kind: integer, def: "1000", min: 8, max: 1000000,
		field: func(c *Config) any { return &c.Limits.Literals },
		prose: "Number of literals in one command."},
	{name: "maxargssize", kind: size, unit: "octets", def: "1M", min: 8 * kib, max: 1 * gib, zeroDefault: true,
		field: func(c *Config) any { return &c.Limits.Args },
		prose: "Sum of the sizes of all arguments of one command, the messages of APPEND and sets of message numbers not counted."},
	{name: "limit_list_depth", kind: integer, def: "32", min: 8, max: 1000,
		field: func(c *Config) any { return &c.Limits.ListDepth },
		prose: "Number of parentheses that may be open at a time in a command."},
	{name: "limit_skip", kind: size, unit: "octets", def: "64M", min: 64 * kib, max: 1 << 40,
		field: func(c *Config) any { return &c.Limits.Skip },
		prose: "Number of octets of a refused command that are read away to keep the connection; beyond that it is closed."},
	{name: "maxmessagesize", kind: size, unit: "octets", def: "0", min: 0, max: 1 << 40,
		field: func(c *Config) any { return &c.Limits.Message },
		prose: "Largest message that APPEND takes; 0 means that only the protocol's limit of 4294967295 octets holds."},
	{name: "limit_append", kind: integer, def: "10000", min: 1, max: 1000000,
		field: func(c *Config) any { return &c.Limits.Messages },
		prose: "Number of messages in one APPEND command."},

	{name: "limit_mailbox_name", kind: size, unit: "octets", def: "1000", min: 64, max: 4000,
		field: func(c *Config) any { return &c.Limits.MailboxName },
		prose: "Longest name of a new mailbox, and longest pattern of LIST."},
	{name: "limit_list_patterns", kind: integer, def: "100", min: 1, max: 10000,
		field: func(c *Config) any { return &c.Limits.Patterns },
		prose: "Number of patterns in one LIST command."},
	{name: "limit_mailboxes", kind: integer, def: "10000", min: 1, max: 1000000,
		field: func(c *Config) any { return &c.Limits.Mailboxes },
		prose: "Number of mailboxes up to which a user may create further ones."},
	{name: "limit_search_keys", kind: integer, def: "1000", min: 10, max: 1000000,
		field: func(c *Config) any { return &c.Limits.SearchKeys },
		prose: "Number of search keys in one SEARCH command."},
	{name: "limit_search_depth", kind: integer, def: "100", min: 5, max: 1000,
		field: func(c *Config) any { return &c.Limits.SearchDepth },
		prose: "Number of search keys that may be nested in each other."},
	{name: "search_maxtime", kind: duration, unit: "seconds", def: "10m", min: int64(time.Second), max: longest,
		field: func(c *Config) any { return &c.Limits.SearchTime },
		prose: "Time after which a SEARCH that has not ended is given up."},
	{name: "boundary_limit", kind: integer, def: "100", min: 10, max: 1000,
		field: func(c *Config) any { return &c.Limits.MIMEDepth },
		prose: "Number of MIME parts that may be nested in each other; what is deeper is one part without structure."},
	{name: "limit_mime_parts", kind: integer, def: "10000", min: 100, max: 1000000,
		field: func(c *Config) any { return &c.Limits.MIMEParts },
		prose: "Number of MIME parts of one message; the rest of the message is one part without structure."},
	{name: "limit_disk_per_user", kind: integer, restart: true, def: "8", min: 1, max: 1000,
		field: func(c *Config) any { return &c.Limits.DiskPerUser },
		prose: "Number of operations of one user that wait for the disk at a time."},
	{name: "limit_disk", kind: integer, restart: true, def: "64", min: 1, max: 10000,
		field: func(c *Config) any { return &c.Limits.Disk },
		prose: "Number of operations of all users that wait for one file system at a time; for all of them together 1024, or this if it is more."},
	{name: "limit_idle_keepalive", kind: duration, unit: "minutes", def: "29m", min: int64(10 * time.Second), max: int64(24 * time.Hour),
		field: func(c *Config) any { return &c.Limits.IdleKeepalive },
		prose: "Time after which a client that idles and hears nothing is sent an untagged OK, so that nothing between takes the connection for dead."},
}
