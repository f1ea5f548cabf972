// Package notice tells what the administrator has to say to clients: the
// files msg/motd, msg/shutdown and msg/shutdown.SERVICE below the
// configuration directory.
//
// The files may appear, change, vanish and be renamed over at any time, and so
// may msg/ and the configuration directory itself. fsnotify says when to look;
// it is never the proof: each look opens the files again, and a slow poll
// looks where no event comes from (NFS, no inotify instance left, a directory
// that was moved away and made anew).
//
// One inotify instance serves all that control has to see. So the Watcher also
// watches log/, where directories turn telemetry on, and says only that
// something changed there.
package notice

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxText is how many octets of a notice's first line are sent.
const maxText = 4096

// settle is how long an empty shutdown file must have been empty before it
// counts. `echo text >msg/shutdown` creates the file before it writes the
// text; a look between the two would end every session without saying why.
const settle = 50 * time.Millisecond

// errUnsettled is returned for a file whose text may still be on its way.
var errUnsettled = errors.New("the file is being written")

// A notice is the text of one file and whether the file speaks at all.
type notice struct {
	text string
	on   bool
}

// readMotd returns the message of the day. An empty text says nothing.
func readMotd(dir string) (notice, error) {
	text, _, err := firstLine(filepath.Join(dir, "msg", "motd"))
	if err != nil {
		return absent(err)
	}
	return notice{text, text != ""}, nil
}

// readShutdown returns the shutdown notice for service: its own file wins over
// the one for all. A file without text shuts down as well.
func readShutdown(dir, service string) (notice, error) {
	names := []string{"shutdown." + service, "shutdown"}
	if service == "" || strings.ContainsRune(service, '/') {
		names = names[1:]
	}
	for _, name := range names {
		text, age, err := firstLine(filepath.Join(dir, "msg", name))
		if err == nil && text == "" && age >= 0 && age < settle {
			return notice{}, errUnsettled
		}
		if err == nil {
			return notice{text, true}, nil
		}
		if _, err := absent(err); err != nil {
			return notice{}, err
		}
	}
	return notice{}, nil
}

// absent returns err as the notice that it stands for: a file that is not
// there, or that may not be read, says nothing. Any other error (EMFILE, EIO)
// is no answer, and the notice must stay what it was.
func absent(err error) (notice, error) {
	for _, e := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.ENOTDIR, syscall.ELOOP, syscall.ENXIO} {
		if errors.Is(err, e) {
			return notice{}, nil
		}
	}
	return notice{}, err
}

// firstLine returns the text of a notice file: the first line, cut at CR, LF
// or NUL and at maxText octets, without the '['s at its start, which a client
// would take for a response code. age is how long ago a regular file was
// changed; it is at least settle for anything else, whose text is empty.
func firstLine(name string) (text string, age time.Duration, err error) {
	// O_NONBLOCK: a FIFO of that name must not stop the server.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	if !info.Mode().IsRegular() {
		return "", settle, nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxText))
	if err != nil {
		return "", 0, err
	}
	if i := bytes.IndexAny(b, "\r\n\x00"); i >= 0 {
		b = b[:i]
	}
	return strings.TrimLeft(string(b), "["), time.Since(info.ModTime()), nil
}
