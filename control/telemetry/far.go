package telemetry

import (
	"os"

	"golang.org/x/sys/unix"
)

// Lend is Open for a session that goes on in another process, which may not look
// into the configuration directory. give is called with every file that the
// log is to go to, and with nil when it has ended: now, or later by whoever calls
// Scan. It must not wait, nor keep the file.
func (l *Logs) Lend(name, session string, give func(*os.File)) *Tap {
	return l.open(&Tap{logs: l, user: name, session: session, give: give})
}

// A Far is the Tap of a session whose log another process opens. The zero value
// logs nothing.
type Far struct{ tap Tap }

// In and Out are those of a Tap.

func (f *Far) In(p []byte)  { f.tap.In(p) }
func (f *Far) Out(p []byte) { f.tap.Out(p) }

// On tells whether anything is logged now.
func (f *Far) On() bool { return f.tap.On() }

// Take has the log go to lent from now on, which stays the caller's; nil ends
// it.
func (f *Far) Take(lent *os.File) {
	f.Close()
	if lent == nil {
		return
	}
	if fd, err := unix.FcntlInt(lent.Fd(), unix.F_DUPFD_CLOEXEC, 3); err == nil {
		f.tap.file.Store(os.NewFile(uintptr(fd), lent.Name()))
	}
}

// Close ends the log. It may be called by several goroutines.
func (f *Far) Close() {
	if old := f.tap.file.Swap(nil); old != nil {
		old.Close()
	}
}
