package maildir

import (
	"context"
	"time"
)

// freshFor is for how long a folder that was all known needs no proof that it is
// still, while one edit follows the other. It is what a client whose commands take
// 0.2 ms each would else wait for between any two of them.
const freshFor = 20 * time.Millisecond

// SyncEdited is Sync at the end of a command that has just renamed or removed files
// here. What others did before comes before our own events, and those come by
// themselves: where they have, and nothing else with them, there is nothing to
// look at, and it costs no call. In a burst of such commands what others did in the
// last freshFor may be left to the next. access is how the caller has the mailbox
// selected.
func (m *Mailbox) SyncEdited(ctx context.Context, access Access) error {
	m.mu.Lock()
	known := m.nothingForeign(access, freshFor)
	m.mu.Unlock()
	if known {
		return nil
	}
	return m.Sync(ctx, access)
}

// nothingForeign reports whether all that has happened up to our last change is
// what we did ourselves, but for what others did in the last fresh, and no look is due
// for another reason. m.mu is held, and the last edit has changed something.
func (m *Mailbox) nothingForeign(access Access, fresh time.Duration) bool {
	t := &m.track
	if !m.tracked() || t.mute || m.unfinished || m.past.others || m.list.again || m.keys.news.Any() ||
		len(t.heard)+len(m.missing) > 0 || access == Serve && m.waiting() > 0 && !m.stuck {
		return false
	}
	var timer *time.Timer
	for t.gather(false) && len(t.todo) == 0 {
		if len(t.ours) == 0 {
			t.fenced = time.Now()
			return true
		}
		if time.Since(t.fenced) < fresh {
			return true
		}
		if timer == nil {
			timer = time.NewTimer(fenceWait / 10)
			defer timer.Stop()
		}
		if !t.await(timer.C) {
			break
		}
	}
	return false
}

// await waits until something has been noted, or is missing. It reports false if
// end came first.
func (t *tracker) await(end <-chan time.Time) bool {
	t.mu.Lock()
	if len(t.notes) > 0 || t.lost {
		t.mu.Unlock()
		return true
	}
	more := make(chan struct{})
	t.more = more
	t.mu.Unlock()
	select {
	case <-more:
		return true
	case <-end:
		return false
	}
}

// stir wakes who awaits. t.mu is held.
func (t *tracker) stir() {
	if t.more != nil {
		close(t.more)
		t.more = nil
	}
}

// isTracked is tracked for who does not hold m.mu.
func (m *Mailbox) isTracked() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tracked()
}

// tracked reports whether events tell all that happens in the folder. m.mu is
// held.
func (m *Mailbox) tracked() bool {
	return m.track.sound && m.track.following && m.host.hub.has(m)
}
