// Package control is how the process lives: where its connections come from,
// who it runs as, what it logs and how it ends. It knows no IMAP; main hands
// the server in as a Handler.
//
// The order at start is what keeps a client away from what is not its own:
//
//   - Adopt takes a client's socket off the descriptors 0, 1 and 2 before
//     anything, a panic of the runtime included, can write to it.
//   - FirstCertificates reads keys that only root may read.
//   - Open binds ports that only root may bind, then gives root up.
//   - Run reads the first octet of a client.
package control

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// A Conn is a connection to one client, ready to be greeted: where TLS comes
// first, the handshake is done and what is read and written here is clear
// text.
type Conn struct {
	// Conn is the stream; a *tls.Conn where TLS is true. Deadlines may be set
	// on it always, but have no effect on a regular file.
	net.Conn

	// Host says who it is in log lines: "[192.0.2.1]", "[unix socket]", or
	// "[local]" for a pipe or terminal. It holds nothing that the client chose.
	Host string
	// TLS is true where the connection was under TLS from its first octet
	// (imaps, or imapd -s): STARTTLS is not offered.
	TLS bool
	// ProxyTLS is true where a proxy that is trusted with it says that the client
	// came to it by TLS. Between the proxy and us the octets are in the clear.
	ProxyTLS bool
	// Private is true where nobody on the way can read what passes: under TLS,
	// ours or a trusted proxy's, on a unix socket that is no proxy's, with an external
	// layer (imapd -p with 2 or more), or from a network that is trusted with that.
	// Plain text passwords are safe.
	Private bool
	// SSF is the strength in bits of a layer outside of imapd (imapd -p, and
	// 256 for a unix socket that is no proxy's), 0 for none.
	SSF int
	// Preauth is who the client is where it need not log in (a pipe or a
	// terminal: whoever started imapd), else nil.
	Preauth *Caller

	// Taken is what another process has handed over, where the client has
	// logged in there; else nil.
	Taken *Taken

	addr     netip.Addr             // of the client, as far as known
	trusted  bool                   // addr is in login_trusted_networks
	stir     func()                 // nil where no memory is given back
	loggedIn func()                 // nil where nobody counts
	moved    func(netip.Addr) error // counts the client elsewhere; nil where nobody counts
	once     sync.Once
}

// A Caller is the system user for whom a session runs without a login.
type Caller struct {
	Name     string
	UID, GID int
	Home     string // absolute
	// Admin is set where an administrator began the session, on the machine
	// itself: a shutdown notice spares it, whoever it is for.
	Admin bool
	// Ticket is what the process of the user is to be had for, where users have
	// processes of their own; else empty.
	Ticket []byte `json:",omitempty"`
}

// Authenticated takes the connection off the count of those that have yet to
// log in. The session calls it at the first successful login; more calls do
// nothing.
func (c *Conn) Authenticated() {
	if c.loggedIn != nil {
		c.once.Do(c.loggedIn)
	}
}

// Parked says that the session has fallen silent: what it has worked with may be given
// back once the others have too. It costs next to nothing.
func (c *Conn) Parked() {
	if c.stir != nil {
		c.stir()
	}
}

// Forward says that the client is at ip, in the words of its peer, and tells
// whether that counts: the peer is in login_trusted_networks, and has not said
// so before. Host has changed then. The error is a Refusal where too many
// connections come from ip.
func (c *Conn) Forward(ip netip.Addr) (bool, error) {
	if !c.trusted {
		return false, nil
	}
	c.trusted = false
	if err := c.move(ip); err != nil {
		return false, err
	}
	return true, nil
}

// move makes ip the client's address.
func (c *Conn) move(ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	c.addr, c.Host = ip, "["+ip.String()+"]"
	if c.moved == nil {
		return nil
	}
	return c.moved(ip)
}

// A Handler is the server that a Source brings connections to.
type Handler struct {
	// Serve talks to one client until it is done and returns; the Source then
	// closes the connection. When the server ends it returns by itself, after
	// the command that runs; when ctx is done it is cut short: that took too
	// long, or, with a Refusal as context.Cause, this connection has to go.
	// Serve is called from a goroutine of its own for each connection.
	Serve func(ctx context.Context, c *Conn)
	// Refuse returns what a client is sent, instead of being served, where a
	// limit has been reached: whole lines.
	Refuse func(why Refusal) string
}

// A Refusal says which limit keeps or throws a connection out.
type Refusal int

// The limits of connections.
const (
	// TooMany: no more connections in all.
	TooMany Refusal = iota + 1
	// TooManyFromAddress: no more connections from this address that have
	// yet to log in.
	TooManyFromAddress
	// Crowded: of all connections that have yet to log in, too many, this is
	// the oldest.
	Crowded
)

func (r Refusal) Error() string {
	switch r {
	case TooMany:
		return "too many connections"
	case TooManyFromAddress:
		return "too many connections from one address"
	}
	return "too many clients wait to log in"
}

// A Source brings connections to a Handler.
type Source interface {
	// Run serves until ctx is done or, where there is only one connection,
	// until that ends, and waits for what it started. It is called once. A
	// nil error means that all ended as it should.
	Run(ctx context.Context, h Handler) error
}
