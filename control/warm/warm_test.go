package warm

import (
	"bytes"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestHeap holds that the rest of the piece of heap that is in use is mapped: more
// than this test has used.
func TestHeap(t *testing.T) {
	t.Parallel()
	able(t)
	if !heap() {
		t.Error("the kernel refuses")
	}
	page := uintptr(os.Getpagesize())
	start, end := rest()
	start = (start + page - 1) &^ (page - 1)
	if !populate(start, end) {
		t.Fatal("the kernel refuses")
	}
	there := make([]byte, (end-start)/page)
	if len(there) == 0 {
		return
	}
	if _, _, err := unix.Syscall(unix.SYS_MINCORE, start, end-start, uintptr(unsafe.Pointer(&there[0]))); err != 0 {
		t.Fatal(err)
	}
	if n := bytes.Count(there, []byte{1}); n != len(there) {
		t.Errorf("%d of %d pages are mapped", n, len(there))
	}
}

// able skips the test on kernels that cannot do it.
func able(t *testing.T) {
	t.Helper()
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	if err := unix.Madvise(page, populateWrite); err == unix.EINVAL {
		t.Skip("NOT TESTED: the kernel is older than 5.14")
	}
}
