package vfs

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Each page of memory that a process touches for the first time is a trip into the
// kernel, and under a hypervisor that may be a far longer one than to fill the page.
// A process that opens a large folder touches thousands. What is known to be filled
// soon is therefore asked for at once.

// Prefault has the kernel provide the memory of b, up to its capacity, which is
// going to be written: in pages as large as it has, and at once. It is advice; where
// it fails the pages come one by one.
func Prefault[T any](b []T) {
	var zero T
	size := uintptr(cap(b)) * unsafe.Sizeof(zero)
	if size < prefaultFrom {
		return
	}
	from := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	if size >= hugeFrom {
		// What lies around b in its huge pages is the heap's too.
		advise(from&^(hugePage-1), (from+size+hugePage-1)&^(hugePage-1), unix.MADV_HUGEPAGE)
	}
	page := uintptr(os.Getpagesize())
	advise((from+page-1)&^(page-1), (from+size)&^(page-1), unix.MADV_POPULATE_WRITE) // Linux 5.14
}

const (
	prefaultFrom = 32 << 10  // smaller pieces have been touched before, most likely
	hugeFrom     = 512 << 10 // for less a huge page is mostly waste
	hugePage     = 2 << 20
)

func advise(from, to uintptr, advice int) {
	unix.Syscall(unix.SYS_MADVISE, from, to-from, uintptr(advice))
}

// Buffer returns n octets of memory for a short time, none of which is touched
// again after free. It is not the garbage collector's: it goes back to the kernel at
// once, and comes from it in pages as large as it has.
func Buffer(n int) (b []byte, free func()) {
	// Only what has the size of huge pages, and begins and ends with one, is made of
	// them.
	size, more := n, 0
	if n >= hugeFrom {
		size, more = (n+hugePage-1)&^(hugePage-1), hugePage
	}
	m, err := unix.Mmap(-1, 0, size+more, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]byte, n), func() {}
	}
	b = m
	if more > 0 {
		from := -int(uintptr(unsafe.Pointer(&m[0]))) & (hugePage - 1)
		b = m[from : from+size]
		unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
	unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	return b[:n:n], func() { unix.Munmap(m) }
}
