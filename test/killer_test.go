package test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A killer runs a program, counts the system calls by which it changes files
// below a directory, over all threads together, and kills it before one of them
// takes effect, or has that one fail. (strace counts each thread for itself, and
// goroutines move between threads.)
//
// It is a process of its own, this test binary once more: the waits of the tests
// for their servers would take away what the kernel tells a tracer.
type killer struct {
	under string
	at    int        // the call, from 1; 0: none
	errno unix.Errno // that it fails with; 0: the program is killed
	pid   int
	n     int                // calls so far
	what  string             // the one at which it happened
	skips map[int]unix.Errno // threads whose call is being passed over
	over  atomic.Bool        // nothing is to happen any more: SIGUSR1 says so
}

// underKiller returns what is put before the command of a server so that it runs
// under a killer; file tells in the end how many calls there were.
func underKiller(under string, at int, errno unix.Errno, file string) []string {
	return []string{os.Args[0], "-test.run=^TestKiller$", "--", under, strconv.Itoa(at), strconv.Itoa(int(errno)), file}
}

// killerCalls returns what the killer has written to file.
func killerCalls(t *testing.T, file string) (n int, what string) {
	t.Helper()
	if _, err := fmt.Sscan(read(t, file), &n, &what); err != nil {
		t.Fatal(err)
	}
	return n, what
}

// TestKiller is no test but the killer.
func TestKiller(t *testing.T) {
	if flag.NArg() < 5 {
		return
	}
	k := &killer{under: flag.Arg(0), at: number(flag.Arg(1)), errno: unix.Errno(number(flag.Arg(2))), skips: map[int]unix.Errno{}}
	if err := k.run(flag.Args()[4:]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(flag.Arg(3), fmt.Appendf(nil, "%d %s-", k.n, k.what), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Exit(0)
}

// run runs a program until it ends, in this thread.
func (k *killer) run(args []string) error {
	runtime.LockOSThread()
	p, err := os.StartProcess(args[0], args, &os.ProcAttr{
		Files: []*os.File{nil, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return err
	}
	k.pid = p.Pid
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGUSR1)
	go func() {
		for s := range stop {
			if s == unix.SIGUSR1 {
				k.over.Store(true)
			} else {
				unix.Kill(k.pid, unix.SIGTERM)
			}
		}
	}()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(k.pid, &ws, unix.WALL, nil); err != nil {
		return err
	}
	if err := unix.PtraceSetOptions(k.pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		return err
	}
	if err := unix.PtraceSyscall(k.pid, 0); err != nil {
		return err
	}
	for {
		tid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case ws.Stopped():
			k.stopped(tid, ws)
		case tid == k.pid:
			return nil
		}
	}
}

// stopped deals with one stop of one thread.
func (k *killer) stopped(tid int, ws unix.WaitStatus) {
	pass := 0
	switch sig := ws.StopSignal(); {
	case sig == unix.SIGTRAP|0x80:
		k.call(tid)
	case sig != unix.SIGTRAP && sig != unix.SIGSTOP: // those are the kernel's own, to us
		pass = int(sig)
	}
	unix.PtraceSyscall(tid, pass) // fails if it has just been killed
}

func ptrace(request, tid int, addr, data uintptr) error {
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// changing are the calls that change files, with the arguments that are
// descriptors of what they change.
var changing = map[uint64]struct {
	name string
	fds  []int
}{
	unix.SYS_OPENAT:    {"openat", []int{0}}, // that make files
	unix.SYS_WRITE:     {"write", []int{0}},
	unix.SYS_PWRITE64:  {"pwrite64", []int{0}},
	unix.SYS_FSYNC:     {"fsync", []int{0}},
	unix.SYS_FDATASYNC: {"fdatasync", []int{0}},
	unix.SYS_FTRUNCATE: {"ftruncate", []int{0}},
	unix.SYS_FCHMOD:    {"fchmod", []int{0}},
	unix.SYS_FCHOWN:    {"fchown", []int{0}},
	unix.SYS_UTIMENSAT: {"utimensat", []int{0}},
	unix.SYS_MKDIRAT:   {"mkdirat", []int{0}},
	unix.SYS_UNLINKAT:  {"unlinkat", []int{0}},
	unix.SYS_LINKAT:    {"linkat", []int{0, 2}},
	unix.SYS_RENAMEAT:  {"renameat", []int{0, 2}},
	unix.SYS_RENAMEAT2: {"renameat2", []int{0, 2}},
}

// call looks at a call that a thread is about to make, or has made.
func (k *killer) call(tid int) {
	// struct ptrace_syscall_info: octet 0 is 1 at the beginning of a call, whose
	// number is at 24, and six arguments follow.
	var info [128]byte
	if ptrace(unix.PTRACE_GET_SYSCALL_INFO, tid, uintptr(len(info)), uintptr(unsafe.Pointer(&info[0]))) != nil {
		return
	}
	if errno, ok := k.skips[tid]; ok && info[0] != 1 {
		setResult(tid, errno)
		delete(k.skips, tid)
	}
	if info[0] != 1 {
		return
	}
	c, ok := changing[binary.NativeEndian.Uint64(info[24:])]
	if !ok || c.name == "openat" && k.errno == 0 && binary.NativeEndian.Uint64(info[32+2*8:])&unix.O_CREAT == 0 {
		return // there is no point in dying before a file is only read
	}
	if !slices.ContainsFunc(c.fds, func(i int) bool {
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", k.pid, int32(binary.NativeEndian.Uint64(info[32+i*8:]))))
		return err == nil && strings.HasPrefix(path, k.under+"/")
	}) {
		return
	}
	if k.n++; k.n != k.at || k.over.Load() {
		return
	}
	k.what = c.name
	if k.errno == 0 {
		unix.Kill(k.pid, unix.SIGKILL)
	} else if skipCall(tid) == nil {
		k.skips[tid] = k.errno
	}
}

// age lets the locks below dir be of a time when the dead were alive, so that
// nobody has to wait for seconds.
func age(t *testing.T, dir string) {
	t.Helper()
	old := time.Now().Add(-3 * time.Second)
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(path, ".lock") {
			err = os.Chtimes(path, old, old)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
