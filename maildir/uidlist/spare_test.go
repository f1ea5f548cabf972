package uidlist

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// A file that is kept is the lock each time: it says whose it is, is as old as the
// lock, and wakes a program that waits as Dovecot does.
func TestSpare(t *testing.T) {
	t.Parallel()
	var locks Locks
	dir, path := folder(t)
	keep, kept := folder(t)
	s := Spare{Dir: keep}
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var first uint64
	for i := range 6 {
		l, err := locks.AcquireWith(t.Context(), dir, LockName, &s)
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = inode(t, path+"/"+LockName)
		} else if n := inode(t, path+"/"+LockName); n != first {
			t.Errorf("lock %d is another file", i)
		}
		if b, _ := os.ReadFile(path + "/" + LockName); string(b) != fmt.Sprintf("%d:%s", os.Getpid(), hostname()) || !l.Held() {
			t.Errorf("lock %d: %q", i, b)
		}
		if info, err := os.Stat(path + "/" + LockName); err != nil || time.Since(info.ModTime()) > deadAge {
			t.Errorf("lock %d is of %v", i, info.ModTime())
		}
		if _, err := unix.InotifyAddWatch(fd, path+"/"+LockName, unix.IN_DELETE_SELF|unix.IN_MODIFY); err != nil {
			t.Fatal(err)
		}
		if err := l.Unlock(); err != nil {
			t.Error(err)
		}
		if n, err := unix.Read(fd, make([]byte, 4096)); n <= 0 {
			t.Errorf("lock %d: no event: %v", i, err)
		}
		if names, _ := os.ReadDir(path); len(names) != 0 {
			t.Errorf("files left: %v", names)
		}
		names, _ := os.ReadDir(kept)
		if len(names) != 1 || !IsAside(names[0].Name()) {
			t.Fatalf("kept: %v", names)
		}
		if i%2 == 0 { // an hour passes
			old := time.Now().Add(-time.Hour)
			s.signed = old
			if err := os.Chtimes(kept+"/"+names[0].Name(), old, old); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			s.file.Close()
		}
		if i == 3 { // somebody sweeps
			os.Remove(kept + "/" + names[0].Name())
			first = 0
		}
	}
	s.Drop()
	s.Drop()
	if names, _ := os.ReadDir(kept); len(names) != 0 {
		t.Errorf("kept: %v", names)
	}
}

// apart is a folder that no file can be linked from.
type apart struct{ vfs.Dir }

func (apart) Link(string, vfs.Dir, string) error { return unix.EXDEV }

// What cannot be kept there is not kept, and a lock of somebody else is one.
func TestSpareElsewhere(t *testing.T) {
	t.Parallel()
	var locks, others Locks
	dir, path := folder(t)
	keep, kept := folder(t)
	for _, s := range []*Spare{{Dir: apart{keep}}, {Dir: &fullDisk{keep, 0}}, {}} {
		for range 2 {
			l, err := locks.AcquireWith(t.Context(), dir, LockName, s)
			if err != nil {
				t.Fatal(err)
			}
			short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			other := Spare{Dir: keep}
			if _, err := others.AcquireWith(short, dir, LockName, &other); !errors.Is(err, ErrLocked) {
				t.Errorf("second lock: %v", err)
			}
			cancel()
			other.Drop()
			if err := l.Unlock(); err != nil {
				t.Error(err)
			}
		}
		s.Drop()
	}
	for _, p := range []string{path, kept} {
		if names, _ := os.ReadDir(p); len(names) != 0 {
			t.Errorf("files left: %v", names)
		}
	}
}

// hold takes the lock n times in a row, beside whoever else does.
func hold(t *testing.T, locks *Locks, dir vfs.Dir, s *Spare, n int, held func()) {
	for range n {
		l, err := locks.AcquireWith(context.Background(), dir, LockName, s)
		if err != nil {
			t.Error(err)
			return
		}
		held()
		if err := l.Unlock(); err != nil {
			t.Error(err)
		}
	}
}

// Who waits in the process gets the file from the one before, and nobody leaves it
// behind.
func TestHandOver(t *testing.T) {
	t.Parallel()
	var locks Locks
	dir, path := folder(t)
	keep, _ := folder(t)
	s := Spare{Dir: keep}
	l, err := locks.AcquireWith(t.Context(), dir, LockName, &s)
	if err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-time.Minute) // a mark that a new lock would not have
	if err := os.Chtimes(path+"/"+LockName, then, then); err != nil {
		t.Fatal(err)
	}
	got := make(chan bool)
	go hold(t, &locks, dir, &s, 1, func() {
		info, err := os.Stat(path + "/" + LockName)
		got <- err == nil && time.Since(info.ModTime()) > 30*time.Second
	})
	for !locks.wanted(l) {
		runtime.Gosched()
	}
	l.since = time.Now()
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
	if !<-got {
		t.Error("the lock was made anew")
	}
	// Those who give up while it is left to them.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*time.Microsecond)
				if l, err := locks.AcquireWith(ctx, dir, LockName, &s); err == nil && l.Unlock() != nil {
					t.Error("the lock was lost")
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if _, err := os.Lstat(path + "/" + LockName); err == nil || len(locks.slots) > 0 {
		t.Errorf("left behind: %v, %v", err, locks.slots)
	}
}

// A process in which the lock goes from hand to hand all the time lets others have
// it.
func TestChainEnds(t *testing.T) {
	t.Parallel()
	var busy, other Locks
	dir, _ := folder(t)
	keep, _ := folder(t)
	ours, theirs := Spare{Dir: keep}, Spare{Dir: keep}
	stop, work := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					hold(t, &busy, dir, &ours, 20, func() {
						select {
						case work <- struct{}{}:
						case <-time.After(100 * time.Microsecond):
						}
					})
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 3 {
		for range 50 {
			<-work
		}
		start := time.Now()
		l, err := other.AcquireWith(ctx, dir, LockName, &theirs)
		if err != nil {
			t.Fatalf("time %d: %v", i, err)
		}
		t.Logf("waited %v", time.Since(start))
		l.Unlock()
	}
	close(stop)
	wg.Wait()
}
