package admin

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// tailPoll is how often tail looks without being told.
	tailPoll = 2 * time.Second
	// tailStart is how many octets of the newest log are shown at first.
	tailStart = 8 << 10
	// tailPiece is how many octets are read at a time.
	tailPiece = 64 << 10
)

// A tailer follows all the logs in one directory. It holds none of them open:
// there may be one for each of many sessions.
type tailer struct {
	c     *call
	dir   string
	logs  map[string]*transcript
	shown string // the log of the last line
}

// tail prints the end of the newest log, and then what is written to any, until
// the directory goes.
func (c *call) tail(dir, user string) error {
	var events chan fsnotify.Event
	w, err := fsnotify.NewWatcher()
	if err == nil {
		defer w.Close()
		if err = w.Add(dir); err == nil {
			events = w.Events
		}
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fail(exitNoInput, "telemetry of %s is off: imapctl telemetry %s on", user, user)
	} else if err != nil {
		return err
	}
	poll := time.NewTicker(tailPoll)
	defer poll.Stop()
	t := &tailer{c: c, dir: dir, logs: map[string]*transcript{}}
	if err := t.begin(); err != nil {
		return err
	}
	for {
		err := t.look()
		if errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(c.err, "imapctl: telemetry of %s has been turned off\n", user)
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-events:
		case <-poll.C:
		}
	}
}

// begin takes note of the logs that are there: what is in them is old, but for
// the end of the newest.
func (t *tailer) begin() error {
	files, err := t.files()
	if err != nil {
		return err
	}
	for _, f := range files {
		t.logs[f.Name()] = t.transcript(f.Size())
	}
	if len(files) > 0 {
		newest := slices.MaxFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
		t.logs[newest.Name()] = t.transcript(max(0, newest.Size()-tailStart))
	}
	return nil
}

func (t *tailer) transcript(at int64) *transcript {
	return &transcript{at: at, lost: at > 0, colour: t.c.colour()}
}

// files returns the logs in the order of their last change.
func (t *tailer) files() ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return nil, err
	}
	var files []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
		}
	}
	slices.SortStableFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	return files, nil
}

// look prints what has been written since the last look.
func (t *tailer) look() error {
	files, err := t.files()
	if err != nil {
		return err
	}
	for _, f := range files {
		log := t.logs[f.Name()]
		if log == nil || f.Size() < log.at {
			log = t.transcript(0)
			t.logs[f.Name()] = log
		}
		if f.Size() > log.at {
			if err := t.read(f.Name(), log); err != nil {
				return err
			}
		}
	}
	return nil
}

// read prints what is new in one log.
func (t *tailer) read(name string, log *transcript) error {
	f, err := os.OpenFile(filepath.Join(t.dir, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // look finds out whether the directory is gone
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, tailPiece)
	for {
		n, err := f.ReadAt(b, log.at)
		log.at += int64(n)
		if lines := log.feed(b[:n]); lines != "" {
			if t.shown != name {
				lines = "==> " + printable(name) + " <==\n" + lines
				t.shown = name
			}
			if _, err := io.WriteString(t.c.out, lines); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
