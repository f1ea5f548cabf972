package maildir

import (
	"maps"
	"slices"
)

// Reboot has the machine be in another boot than it is, as far as h can tell. What
// is open, or kept, is not in use meanwhile.
func (h *Host) Reboot() {
	h.mu.Lock()
	boxes := slices.Collect(maps.Values(h.boxes))
	h.mu.Unlock()
	for _, m := range boxes {
		m.mu.Lock()
		defer m.mu.Unlock()
	}
	id := h.boot()
	id[0]++
	h.boot = func() [16]byte { return id }
}
