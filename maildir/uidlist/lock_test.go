package uidlist

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// lock writes a lock file whose times are age in the past.
func lock(t *testing.T, path, content string, age time.Duration) {
	t.Helper()
	write(t, path+"/"+LockName, content)
	then := time.Now().Add(-age)
	if err := os.Chtimes(path+"/"+LockName, then, then); err != nil {
		t.Fatal(err)
	}
}

// deadPid returns the id of a process that has ended.
func deadPid(t *testing.T) int {
	t.Helper()
	c := exec.Command("/bin/true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid
}

func TestLock(t *testing.T) {
	t.Parallel()
	var locks Locks
	dir, path := folder(t)
	l, err := locks.Try(dir, LockName)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path + "/" + LockName); string(b) != fmt.Sprintf("%d:%s", os.Getpid(), hostname()) {
		t.Errorf("lock file %q", b)
	}
	other, err := vfs.Open(path + "/.")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := locks.Try(other, LockName); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock by another path: %v", err)
	}
	if !l.Held() {
		t.Error("the lock is not held")
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
	if err := l.Unlock(); err != nil {
		t.Errorf("second unlock: %v", err)
	}
	if _, err := os.Stat(path + "/" + LockName); err == nil {
		t.Error("lock file is still there")
	}
	if len(locks.slots) != 0 {
		t.Errorf("table %v", locks.slots)
	}
}

// TestUnlockNotOurs holds that a lock that somebody took from us stays theirs.
func TestUnlockNotOurs(t *testing.T) {
	t.Parallel()
	var locks Locks
	dir, path := folder(t)
	l, err := locks.Try(dir, LockName)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path + "/" + LockName)
	write(t, path+"/"+LockName, "1:elsewhere")
	if err := l.Unlock(); err == nil {
		t.Error("no error for a lock that was taken from us")
	}
	if b, _ := os.ReadFile(path + "/" + LockName); string(b) != "1:elsewhere" {
		t.Errorf("lock file %q", b)
	}
}

func TestStale(t *testing.T) {
	t.Parallel()
	host, self := hostname(), strconv.Itoa(os.Getpid())
	parent := strconv.Itoa(os.Getppid())
	dead := strconv.Itoa(deadPid(t))
	child := exec.Command("/bin/true")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	if err := unix.Waitid(unix.P_PID, child.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	zombie := strconv.Itoa(child.Process.Pid)
	sinceBoot := time.Since(bootTime())
	for _, tt := range []struct {
		content string
		age     time.Duration
		stale   bool
	}{
		{dead + ":" + host, -time.Second, false}, // too young, for 3 seconds from now
		{dead + ":" + host, 3 * time.Second, true},
		{dead + ":" + host, -time.Hour, true}, // the clock was set
		{zombie + ":" + host, 3 * time.Second, true},
		{self + ":" + host, 3 * time.Second, true},
		{parent + ":" + host, 3 * time.Second, false},
		{parent + ":" + host, sinceBoot + time.Hour, true},
		{parent + ":elsewhere", 3 * time.Second, false},
		{dead + ":elsewhere", 3 * time.Second, false},
		{"", 3 * time.Second, false},
		{"junk", -time.Hour, false},
		{"99999999999999:" + host, 3 * time.Second, false},
	} {
		var locks Locks
		dir, path := folder(t)
		lock(t, path, tt.content, tt.age)
		l, err := locks.Try(dir, LockName)
		if tt.stale && err != nil || !tt.stale && !errors.Is(err, ErrLocked) {
			t.Errorf("%q, %v old: %v; want stale %v", tt.content, tt.age, err, tt.stale)
		}
		b, _ := os.ReadFile(path + "/" + LockName)
		if tt.stale == (string(b) == tt.content) && tt.content != self+":"+host {
			t.Errorf("%q, %v old: lock file is now %q", tt.content, tt.age, b)
		}
		if l != nil {
			l.Unlock()
		}
		want := 1
		if tt.stale {
			want = 0
		}
		if names, _ := os.ReadDir(path); len(names) != want {
			t.Errorf("files left: %v", names)
		}
	}
}

// TestForeign judges the locks of other hosts, whose ctime a test cannot set,
// by what the rule says of given times.
func TestForeign(t *testing.T) {
	t.Parallel()
	dir, path := folder(t)
	lock(t, path, "1:elsewhere", time.Hour)
	_, st, err := vfs.ReadRegular(dir, LockName, 100)
	if err != nil {
		t.Fatal(err)
	}
	l := Lock{locks: new(Locks), dir: dir, key: lockKey{name: LockName}}
	for _, tt := range []struct {
		ctime time.Duration
		stale bool
	}{{time.Minute, false}, {3 * time.Minute, true}} {
		st.Ctim.Sec = time.Now().Add(-tt.ctime).Unix()
		if stale, err := l.stale("1:elsewhere", st); err != nil || stale != tt.stale {
			t.Errorf("changed %v ago: %v, %v", tt.ctime, stale, err)
		}
	}
	write(t, path+"/"+Name, "3 V1 N1\n")
	if stale, err := l.stale("1:elsewhere", st); err != nil || stale {
		t.Errorf("the list changes: %v, %v", stale, err)
	}
}

// TestRemoveRace holds that a lock that was made after the stale one was judged
// is put back.
func TestRemoveRace(t *testing.T) {
	t.Parallel()
	dir, path := folder(t)
	lock(t, path, "1:old", time.Hour)
	_, st, err := vfs.ReadRegular(dir, LockName, 100)
	if err != nil {
		t.Fatal(err)
	}
	lock(t, path, "1:new", time.Minute)
	l := Lock{locks: new(Locks), dir: dir, key: lockKey{name: LockName}}
	if err := l.remove(st); !errors.Is(err, ErrLocked) {
		t.Errorf("remove: %v", err)
	}
	if b, _ := os.ReadFile(path + "/" + LockName); string(b) != "1:new" {
		t.Errorf("lock file %q", b)
	}
}

// Who holds the lock for long, whatever he does, is not taken for dead by another host.
func TestLongHoldIsAlive(t *testing.T) {
	dir, path := folder(t)
	synctest.Test(t, func(t *testing.T) {
		var locks Locks
		spare := Spare{Dir: dir}
		l, err := locks.AcquireWith(t.Context(), dir, LockName, &spare)
		if err != nil {
			t.Fatal(err)
		}
		age := func() time.Duration {
			t.Helper()
			synctest.Wait()
			info, err := os.Stat(path + "/" + LockName)
			if err != nil {
				t.Fatal(err)
			}
			return time.Since(info.ModTime())
		}
		for range 3 {
			time.Sleep(foreignAge)
			if a := age(); a < 0 || a > stillAlive {
				t.Errorf("the lock is %v old", a)
			}
		}
		if err := l.Unlock(); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(path+"/"+LockName, []byte("1:another host"), 0o600); err != nil {
			t.Fatal(err)
		}
		begin := age()
		time.Sleep(foreignAge)
		if a := age(); a != begin+foreignAge {
			t.Errorf("the lock of another is %v old after %v", a, foreignAge)
		}
		spare.Drop()
	})
}

func TestAcquireTimeout(t *testing.T) {
	dir, path := folder(t)
	lock(t, path, strconv.Itoa(os.Getppid())+":"+hostname(), time.Minute)
	synctest.Test(t, func(t *testing.T) {
		var locks Locks
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		_, err := locks.Acquire(ctx, dir, LockName)
		if !errors.Is(err, ErrLocked) || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if len(locks.slots) != 0 {
			t.Errorf("table %v", locks.slots)
		}
	})
}

// The worker of TestContention: takes the lock n times and adds 1 to a number
// in a file without any other protection.
func contend(locks *Locks, dir vfs.Dir, path string, n int) error {
	for range n {
		l, err := locks.Acquire(context.Background(), dir, LockName)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			sum, _ := strconv.Atoi(string(b))
			err = os.WriteFile(path, []byte(strconv.Itoa(sum+1)), 0o600)
		}
		if uerr := l.Unlock(); err == nil {
			err = uerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestContention lets goroutines of several processes count under one lock.
func TestContention(t *testing.T) {
	const goroutines, rounds, processes = 4, 25, 3
	if path := os.Getenv("UIDLIST_CONTEND"); path != "" {
		dir, err := vfs.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var locks Locks
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				if err := contend(&locks, dir, path+"/count", rounds); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return
	}
	t.Parallel()
	_, path := folder(t)
	write(t, path+"/count", "0")
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			c := exec.Command(os.Args[0], "-test.run=^TestContention$")
			c.Env = append(os.Environ(), "UIDLIST_CONTEND="+path)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	b, _ := os.ReadFile(path + "/count")
	if got := strings.TrimSpace(string(b)); got != strconv.Itoa(goroutines*rounds*processes) {
		t.Errorf("count %s, want %d", got, goroutines*rounds*processes)
	}
}

// TestLockFullDisk holds that a full disk can be locked, so that mail can be
// expunged there, and that the lock keeps others out.
func TestLockFullDisk(t *testing.T) {
	t.Parallel()
	var locks, others Locks
	dir, path := folder(t)
	l, err := locks.Try(&fullDisk{dir, 2}, LockName)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path + "/" + LockName); err != nil || len(b) != 0 {
		t.Errorf("lock file %q, %v", b, err)
	}
	then := time.Now().Add(-time.Minute)
	os.Chtimes(path+"/"+LockName, then, then)
	if _, err := others.Try(dir, LockName); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
	if names, _ := os.ReadDir(path); len(names) != 0 {
		t.Errorf("files left: %v", names)
	}
}

// linkDir is a folder where linking ends otherwise than usual.
type linkDir struct {
	vfs.Dir
	err  error
	done bool // the link was made all the same
	t    *testing.T
}

func (d linkDir) Create(name string, perm os.FileMode) (vfs.File, error) {
	if name == LockName && d.done {
		d.t.Error("the lock file was there before it said whose it is")
	}
	return d.Dir.Create(name, perm)
}

func (d linkDir) Link(name string, to vfs.Dir, newname string) error {
	if d.done {
		if err := d.Dir.Link(name, d.Dir, newname); err != nil {
			return err
		}
	}
	return d.err
}

// TestLockLinks holds that a lock file says from its first moment whose it is,
// and that file systems without links, and those that lose an answer, have
// locks too.
func TestLockLinks(t *testing.T) {
	t.Parallel()
	for _, d := range []linkDir{{done: true}, {done: true, err: unix.EEXIST}, {done: true, err: unix.EIO}, {err: unix.EPERM}, {err: unix.EOPNOTSUPP}} {
		var locks, others Locks
		dir, path := folder(t)
		d.Dir, d.t = dir, t
		l, err := locks.Try(d, LockName)
		if err != nil {
			t.Fatalf("link ends with %v: %v", d.err, err)
		}
		if b, _ := os.ReadFile(path + "/" + LockName); string(b) != fmt.Sprintf("%d:%s", os.Getpid(), hostname()) || !l.Held() {
			t.Errorf("link ends with %v: lock file %q", d.err, b)
		}
		if _, err := others.Try(d, LockName); !errors.Is(err, ErrLocked) {
			t.Errorf("link ends with %v: second lock: %v", d.err, err)
		}
		if err := l.Unlock(); err != nil {
			t.Error(err)
		}
		if names, _ := os.ReadDir(path); len(names) != 0 {
			t.Errorf("files left: %v", names)
		}
	}
}

// BenchmarkLock is what each change of a folder pays for its lock.
func BenchmarkLock(b *testing.B) {
	var locks Locks
	dir, _ := folder(b)
	for b.Loop() {
		l, err := locks.Try(dir, LockName)
		if err != nil {
			b.Fatal(err)
		}
		l.Unlock()
	}
}

// What a process left that had our process id and was killed while it took a lock
// is not in our way.
func TestLockLeftovers(t *testing.T) {
	t.Parallel()
	var locks Locks
	dir, path := folder(t)
	for i := range 5 {
		name := fmt.Sprintf("%s.%d.%d", LockName, os.Getpid(), i+1)
		if err := os.WriteFile(path+"/"+name, nil, 0o600); err != nil || !IsAside(name) {
			t.Fatal(err, name)
		}
	}
	l, err := locks.Try(dir, LockName)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
	if IsAside(LockName) || IsAside(Name) {
		t.Error("the lock is taken for a leftover")
	}
}
