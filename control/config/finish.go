package config

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// leastTimeout is what RFC 9051 section 5.4 gives every session.
const leastTimeout = 30 * time.Minute

// finish derives the fields that are more than one option's text, and checks
// what one option means for another.
func (l *loader) finish() {
	c := l.c
	if c.ServerName == "" {
		c.ServerName, _ = os.Hostname() // "" if the system has no name
	}
	c.AllowPlaintext = c.AllowPlaintext && !c.raw.tlsRequired
	if n, err := strconv.ParseUint(c.raw.umask, 8, 32); err == nil {
		c.Umask = int(n)
	}
	if c.UserDeny == "" && c.ConfigDirectory != "" {
		c.UserDeny = c.ConfigDirectory + "/user_deny.db"
	}
	if c.ProcPath == "" && c.ConfigDirectory != "" {
		c.ProcPath = c.ConfigDirectory + "/proc"
	}
	for i := range c.SuppressCapabilities {
		c.SuppressCapabilities[i] = strings.ToUpper(c.SuppressCapabilities[i])
	}
	c.AutocreateInboxFolders = splitFolders(c.raw.inboxFolders)
	c.AutocreateSubscribeFolders = splitFolders(c.raw.subscribedFolders)
	l.times()
	l.listen()
	c.HAProxyTrusted = l.networks("haproxy_trusted_networks", c.raw.haproxyTrusted)
	c.LoginTrusted = l.networks("login_trusted_networks", c.raw.loginTrusted)
	l.tls()
	l.sasl()
	l.names()
	c.Limits.PreauthConnections = min(c.Limits.PreauthConnections, c.Limits.Connections)
	c.Limits.PreauthPerAddress = min(c.Limits.PreauthPerAddress, c.Limits.PreauthConnections)
	c.Limits.PreauthLine = min(c.Limits.PreauthLine, c.Limits.Line)
	c.Limits.DiskPerUser = min(c.Limits.DiskPerUser, c.Limits.Disk)
}

func (l *loader) at(name string) place { return l.c.where[name] }

func (l *loader) times() {
	c := l.c
	c.IdleTimeout = c.raw.idleTimeout
	if c.IdleTimeout == 0 {
		c.IdleTimeout = c.raw.timeout
	}
	c.Timeout = max(c.raw.timeout, leastTimeout)
	if c.IdleTimeout == 0 {
		c.IdleTimeout = c.Timeout
	}
	c.raw.timeout, c.raw.idleTimeout = c.Timeout, c.IdleTimeout
}

func (l *loader) listen() {
	for _, text := range l.c.raw.listen {
		a, err := parseAddress(text)
		if err != nil {
			l.fault(l.at("listen"), "listen: %q %v", text, err)
			continue
		}
		l.c.Listen = append(l.c.Listen, a)
	}
}

// networks parses a list of networks and single addresses. Dovecot's may have
// commas between.
func (l *loader) networks(option string, list []string) []netip.Prefix {
	var nets []netip.Prefix
	for text := range strings.FieldsFuncSeq(strings.Join(list, " "), listOctet) {
		p, err := netip.ParsePrefix(text)
		if a, addrErr := netip.ParseAddr(text); err != nil && addrErr == nil && a.Zone() == "" {
			a = a.Unmap() // as those of clients are
			p, err = a.Prefix(a.BitLen())
		}
		switch {
		case err != nil:
			l.fault(l.at(option), "%s: %q must be an address or a network such as 192.0.2.0/24", option, text)
		case p.Addr().Is4In6():
			l.fault(l.at(option), "%s: %q must be written as a network of IPv4", option, text)
		case p != p.Masked():
			l.fault(l.at(option), "%s: %q is an address in the network %v", option, text, p.Masked())
		default:
			nets = append(nets, p)
		}
	}
	return nets
}

func parseAddress(text string) (Address, error) {
	if file, ok := strings.CutPrefix(text, "unix:"); ok {
		if !strings.HasPrefix(file, "/") {
			return Address{}, errors.New("must have an absolute path behind the word unix")
		}
		return Address{Network: "unix", Address: file}, nil
	}
	a := Address{Network: "tcp"}
	host, ok := strings.CutPrefix(text, "imap://")
	port := "143"
	if !ok {
		if host, ok = strings.CutPrefix(text, "imaps://"); !ok {
			return Address{}, errors.New("must be an imap://, imaps:// or unix: address")
		}
		a.TLS, port = true, "993"
	}
	host = strings.TrimSuffix(host, "/")
	if !strings.Contains(strings.TrimPrefix(host, "["), ":") || strings.HasSuffix(host, "]") {
		host += ":" + port
	}
	h, p, err := net.SplitHostPort(host)
	if err != nil || strings.ContainsAny(h, "/@") {
		return Address{}, errors.New("must be HOST:PORT, with an IPv6 address in brackets, after the scheme")
	}
	if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
		return Address{}, errors.New("must have a port from 1 to 65535")
	}
	if h == "*" { // as other servers write all addresses
		h = ""
	}
	a.Address = net.JoinHostPort(h, p)
	return a, nil
}

func (l *loader) tls() {
	c := l.c
	c.TLSServerCert, c.TLSServerKey = splitFiles(c.raw.cert), splitFiles(c.raw.key)
	if c.TLSServerKey == nil {
		c.TLSServerKey = c.TLSServerCert
	}
	if c.raw.cert == "" && c.raw.key != "" {
		l.fault(l.at("tls_server_key"), "tls_server_key: a key without tls_server_cert")
		c.TLSServerKey = nil
	}
	if len(c.TLSServerCert) != len(c.TLSServerKey) {
		at := l.at("tls_server_key")
		l.fault(at, "tls_server_key: %d files for %d of tls_server_cert", len(c.TLSServerKey), len(c.TLSServerCert))
		c.TLSServerCert, c.TLSServerKey = nil, nil
	}
	for _, file := range slices.Concat(c.TLSServerCert, c.TLSServerKey) {
		if !strings.HasPrefix(file, "/") {
			l.fault(l.at("tls_server_cert"), "tls_server_cert, tls_server_key: %q must be an absolute path", file)
			break
		}
	}
	if c.TLSServerNames != "" && c.raw.cert == "" {
		l.fault(l.at("tls_server_names_dir"), "tls_server_names_dir: needs tls_server_cert, for clients that ask for no name")
	}
	low, high := c.TLSRange()
	for _, v := range []string{"tls1_0", "tls1_1", "tls1_2", "tls1_3"} {
		if n := tlsVersion(v); low < n && n < high && !slices.Contains(c.TLSVersions, v) {
			l.warn(l.at("tls_versions"), "tls_versions: %s is accepted too, as an older and a newer one are", v)
		}
	}
}

// sasl keeps what this version has of methods and mechanisms.
func (l *loader) sasl() {
	c := l.c
	for _, m := range c.raw.methods {
		if m == "passwd-file" || m == "saslauthd" {
			c.PwcheckMethods = append(c.PwcheckMethods, m)
		} else {
			l.warn(l.at("sasl_pwcheck_method"), "sasl_pwcheck_method: %s is not in this version; passwd-file and saslauthd are", m)
		}
	}
	if len(c.PwcheckMethods) == 0 {
		l.fault(l.at("sasl_pwcheck_method"), "sasl_pwcheck_method: nobody could log in; this version has passwd-file and saslauthd")
	}
	for _, m := range c.raw.mechs {
		switch m = strings.ToUpper(m); m {
		case "PLAIN", "LOGIN":
			c.Mechanisms = append(c.Mechanisms, m)
		default:
			l.warn(l.at("sasl_mech_list"), "sasl_mech_list: %s is not in this version; PLAIN and LOGIN are", m)
		}
	}
	c.raw.methods, c.raw.mechs = c.PwcheckMethods, c.Mechanisms
	l.users("admins", c.Admins)
	l.users("proxyservers", c.ProxyServers)
	if c.VirtDomains == VirtDomainsOn {
		l.warn(l.at("virtdomains"), "virtdomains: on is taken as userid: names get no domain from an address")
	}
}

// users makes names of an option that lists users canonical.
func (l *loader) users(option string, names []string) {
	for i, name := range names {
		if strings.HasPrefix(name, "group:") {
			l.warn(l.at(option), "%s: %s: groups are not in this version", option, name)
		}
		if l.c.UsernameToLower {
			names[i] = strings.ToLower(name)
		}
	}
}

// names settles where INBOX is, the separator, the prefix and what hangs on them.
func (l *loader) names() {
	c := l.c
	c.MaildirSeparator = '/'
	if c.raw.separator == "." || c.raw.separator == "" && !c.raw.unixHierarchySep {
		c.MaildirSeparator = '.'
	}
	c.raw.separator = string(c.MaildirSeparator)
	c.raw.unixHierarchySep = c.MaildirSeparator == '/'
	p := c.MaildirPrefix
	if p != "" && (p[len(p)-1] != c.MaildirSeparator || len(p) == 1) {
		l.fault(l.at("maildir_prefix"), "maildir_prefix: %q must be a name with the separator %q at its end", p, c.raw.separator)
	}
	switch {
	case c.MaildirInbox == "":
	case !belowMaildir(c.MaildirInbox):
		l.fault(l.at("maildir_inbox"), "maildir_inbox: %q must be a path below the Maildir, such as INBOX, without ~ at its start or %%, and nothing in it may begin with .. or be cur, new or tmp", c.MaildirInbox)
	case c.MaildirLayout != LayoutFS:
		l.fault(l.at("maildir_inbox"), "maildir_inbox: needs maildir_layout: fs")
	}
}

// belowMaildir reports whether path is that of a folder below the root of an fs layout.
func belowMaildir(path string) bool {
	if strings.HasPrefix(path, "~") || strings.Contains(path, "%") {
		return false // it is no template
	}
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "", part == ".", part == "cur", part == "new", part == "tmp", strings.HasPrefix(part, ".."), len(part) > 255:
			return false
		}
	}
	return true
}

// specialUses are the attributes that xlist- options may name, as their RFCs
// spell them.
var specialUses = []string{`\All`, `\Archive`, `\Drafts`, `\Flagged`, `\Junk`, `\Sent`, `\Trash`, `\Important`, `\Memos`, `\Scheduled`, `\Snoozed`}

func (l *loader) xlist(e entry, use string) {
	for _, s := range specialUses {
		if strings.EqualFold(s[1:], use) {
			l.c.SpecialUse[s] = e.value
			return
		}
	}
	l.fault(e.place, "xlist-%s: no special use; known are: %s", use, strings.ToLower(strings.ReplaceAll(strings.Join(specialUses, " "), `\`, "")))
}

// splitFolders splits a list with "|" between its names.
func splitFolders(s string) []string {
	var list []string
	for name := range strings.SplitSeq(s, "|") {
		if name = strings.TrimSpace(name); name != "" {
			list = append(list, name)
		}
	}
	return list
}

// splitFiles splits one or two file names with a comma between.
func splitFiles(s string) []string {
	var list []string
	for file := range strings.SplitSeq(s, ",") {
		if file = strings.TrimSpace(file); file != "" {
			list = append(list, file)
		}
	}
	return list
}
