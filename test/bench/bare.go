package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// bare does what the disk must do for an APPEND of 4 KB and nothing else: create,
// write, fsync, rename, fsync of the directory, append and fdatasync of a list.
// clients do it n times each at the same time, in folders of their own below dir,
// which it removes. It returns how many milliseconds one took.
func bare(dir string, clients, n int) (float64, error) {
	top, err := os.MkdirTemp(dir, "bare")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(top)
	for _, sub := range []string{"tmp", "cur"} {
		if err := os.Mkdir(filepath.Join(top, sub), 0o700); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	err = parallel(clients, func(client int) error {
		for i := range n {
			if err := bareAppend(top, fmt.Sprintf("%d.%d", client, i)); err != nil {
				return err
			}
		}
		return nil
	})
	return time.Since(begin).Seconds() * 1000 / float64(clients*n), err
}

func bareAppend(top, name string) error {
	from, to := filepath.Join(top, "tmp", name), filepath.Join(top, "cur", name)
	if err := synced(from, os.O_CREATE|os.O_EXCL|os.O_WRONLY, letter(0), (*os.File).Sync); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if err := synced(filepath.Dir(to), os.O_RDONLY, "", (*os.File).Sync); err != nil {
		return err
	}
	return synced(filepath.Join(top, "list"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, name+"\n",
		func(f *os.File) error { return unix.Fdatasync(int(f.Fd())) })
}

// synced opens a file, writes text and syncs.
func synced(path string, how int, text string, sync func(*os.File) error) error {
	f, err := os.OpenFile(path, how, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if text != "" {
		if _, err := f.WriteString(text); err != nil {
			return err
		}
	}
	return sync(f)
}

// reading returns the processor time of reading a directory once, in large pieces.
func reading(dir string) (time.Duration, error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, 32<<20)
	clear(buf) // so that its pages are there
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin, err := threadTime()
	if err != nil {
		return 0, err
	}
	for n := 1; n > 0; {
		if n, err = unix.Getdents(int(f.Fd()), buf); err != nil {
			return 0, err
		}
	}
	end, err := threadTime()
	return end - begin, err
}

// threadTime returns the processor time of this thread.
func threadTime() (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano()), err
}
