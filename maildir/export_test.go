package maildir

// Reboot has the machine be in another boot than it is, as far as h can tell.
func (h *Host) Reboot() { h.boot[0]++ }
