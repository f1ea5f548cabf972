package vfs

import (
	"sync"
	"time"
)

// keptFor is how long a file stays open that nobody uses.
const keptFor = time.Second

// A Kept holds a file that is written again and again, each time for a moment.
// To open and close it cost more than the write. So it stays open while it is in
// use, and until it has not been for a second: a server that has nothing to do
// has nothing open for writing, and a file system under it can be made read-only.
//
// Whoever takes the file owns it until it is given back, and closes one that is of
// no use any more. The zero value is ready. A Kept is safe for use by several
// goroutines.
type Kept struct {
	mu    sync.Mutex
	file  File
	since time.Time   // when it was given
	timer *time.Timer // nil: none is running
}

// Take returns the file, or nil if there is none: then the caller opens one.
func (k *Kept) Take() File {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.file
	k.file = nil
	return f
}

// Give keeps f for the next one, in place of a file that was given meanwhile.
func (k *Kept) Give(f File) {
	k.mu.Lock()
	other := k.file
	k.file, k.since = f, time.Now()
	if k.timer == nil {
		k.timer = time.AfterFunc(keptFor, k.tire)
	}
	k.mu.Unlock()
	if other != nil {
		other.Close()
	}
}

// tire closes the file if it has not been used for long enough.
func (k *Kept) tire() {
	k.mu.Lock()
	f := k.file
	switch left := keptFor - time.Since(k.since); {
	case f != nil && left > 0:
		k.timer.Reset(left)
		f = nil
	default:
		k.file, k.timer = nil, nil
	}
	k.mu.Unlock()
	if f != nil {
		f.Close()
	}
}

// Close closes the file. Another one may be given.
func (k *Kept) Close() {
	k.mu.Lock()
	f := k.file
	k.file = nil
	if k.timer != nil {
		k.timer.Stop()
		k.timer = nil
	}
	k.mu.Unlock()
	if f != nil {
		f.Close()
	}
}
