package maildir

import "time"

// Our own rename spoils the stamp, and so does a change that is too young to be
// told from one that comes in the same clock tick: the next look would scan. In
// a mailbox of ten thousand messages that is 5 ms for each command, of which all
// but a few find nothing, and STORE of messages one by one costs ten times what
// it must.
//
// So such a folder is trusted for a while, if it is as we left it: a look that
// finds the stamp of our own change, made to a folder that was as we knew it,
// puts the scan off. What can hide behind that stamp is a change that another
// program made between the two stats around ours, or, on kernels before 6.13, in
// the same 4 ms. It is told a little later, never missed, because the scan is
// only put off; changes at any other moment have another stamp and are seen by
// the next look. A stamp that is trusted is never clean.
//
// Scanning takes at most one part in trustShare of the time that way. Where a
// scan is cheap, or the clock of files is not ours, nothing is put off.
const (
	trustShare = 20
	trustMost  = time.Second            // longest delay
	cheapScan  = 500 * time.Microsecond // about a thousand messages
)

// A trust is how a folder looked when there was nothing in it that we did not
// know, but for what the stamp may hide.
type trust struct {
	stamp   stamp         // zero: none
	scanned time.Time     // end of the last scan
	cost    time.Duration // of the last scan
}

// trustUntil returns the time at which a scan must not be put off any longer.
func (m *Mailbox) trustUntil() time.Time {
	if m.trust.cost < cheapScan || m.settle != localSettle {
		return time.Time{}
	}
	return m.trust.scanned.Add(min(trustShare*m.trust.cost, trustMost))
}

// unchanged reports whether a look that finds the stamp s need not scan.
func (m *Mailbox) unchanged(s stamp) bool {
	return s == m.clean || s == m.trust.stamp && time.Now().Before(m.trustUntil())
}

// known reports whether the folder with the stamp s holds nothing but what we
// know or have put off to look for.
func (m *Mailbox) known(s stamp) bool { return s == m.clean || s == m.trust.stamp }

// spoil forgets what the folder looked like.
func (m *Mailbox) spoil() { m.clean, m.trust.stamp = stamp{}, stamp{} }

// distrust has the next look scan: a file was not where we believed it.
func (m *Mailbox) distrust() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spoil()
}

// leftAs notes the folder as our own change has left it, which was known before.
// What the change cannot have touched must be as it was: keeps says so of the
// stamp.
func (m *Mailbox) leftAs(keeps func(now stamp) bool) {
	s, err := m.stamp()
	if err == nil && len(m.missing) == 0 && keeps(s) {
		m.trust.stamp = s
	}
}

// doubt returns how long the next look should wait that takes the last doubts
// away, 0 if there are none: a change may share the clock tick of the last one.
func (m *Mailbox) doubt() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.clean != (stamp{}) {
		return 0
	}
	return max(m.settle+m.settle/4, time.Until(m.trustUntil()))
}
