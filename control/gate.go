package control

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"

	"imapd/control/config"
)

// A gate counts connections and says who may come in.
type gate struct {
	limits config.Limits

	mu      sync.Mutex
	total   int
	waiting list.List            // *ticket of those that have yet to log in, oldest first
	from    map[netip.Prefix]int // how many of them come from each network
}

// A ticket is one connection's place in the count.
type ticket struct {
	gate   *gate
	net    netip.Prefix            // not valid where addresses are not counted
	leave  context.CancelCauseFunc // ends the connection
	place  *list.Element           // in gate.waiting, nil once it has left there
	inside bool                    // counted in gate.total
}

func newGate(l config.Limits) *gate {
	return &gate{limits: l, from: map[netip.Prefix]int{}}
}

// enter counts a connection from addr in, or says why not. leave is called, at
// most once and with Crowded, when it has to make room.
func (g *gate) enter(addr net.Addr, leave context.CancelCauseFunc) (*ticket, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := &ticket{gate: g, net: network(addr), leave: leave, inside: true}
	if g.total >= g.limits.Connections {
		return nil, TooMany
	}
	if t.net.IsValid() && g.from[t.net] >= g.limits.PreauthPerAddress {
		return nil, TooManyFromAddress
	}
	if g.waiting.Len() >= g.limits.PreauthConnections {
		oldest := g.waiting.Front().Value.(*ticket)
		oldest.stopWaiting()
		oldest.leave(Crowded)
	}
	g.total++
	t.place = g.waiting.PushBack(t)
	if t.net.IsValid() {
		g.from[t.net]++
	}
	return t, nil
}

// loggedIn takes t out of those that have yet to log in.
func (t *ticket) loggedIn() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.stopWaiting()
}

// exit takes t out of all counts.
func (t *ticket) exit() {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	t.stopWaiting()
	if t.inside {
		t.inside = false
		t.gate.total--
	}
}

// stopWaiting needs gate.mu.
func (t *ticket) stopWaiting() {
	if t.place == nil {
		return
	}
	g := t.gate
	g.waiting.Remove(t.place)
	t.place = nil
	if t.net.IsValid() {
		if g.from[t.net]--; g.from[t.net] == 0 {
			delete(g.from, t.net)
		}
	}
}

// network returns what counts as one place on the net: an IPv4 address or an
// IPv6 /64, which is the least that a site gets. It is not valid for other
// addresses.
func network(addr net.Addr) netip.Prefix {
	ip := addrOf(addr)
	if !ip.IsValid() {
		return netip.Prefix{}
	}
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	return netip.PrefixFrom(ip, bits).Masked()
}

// addrOf returns the IP address of addr without a zone, IPv4 as IPv4; not valid
// where it has none.
func addrOf(addr net.Addr) netip.Addr {
	if t, ok := addr.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// hostText returns who addr is, for log lines. Names are not looked up: the
// owner of an address chooses its name.
func hostText(addr net.Addr) string {
	if ip := addrOf(addr); ip.IsValid() {
		return "[" + ip.String() + "]"
	}
	if addr != nil && addr.Network() == "unix" {
		return "[unix socket]"
	}
	return "[local]"
}
