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

// Large returns n zeroed values, which are going to be written soon, in memory that
// has been asked for as by Prefault. It is the garbage collector's. T holds no pointer.
//
// The heap has no place for a large piece of memory but behind what is in use, in the
// middle of a huge page of which the kernel has given small pages already. So as much
// more is taken as it needs to begin with one of its own; none of that is touched.
func Large[T any](n int) []T {
	var zero T
	size := n * int(unsafe.Sizeof(zero))
	if size < hugePage/2 {
		b := make([]T, n)
		Prefault(b)
		return b
	}
	b := make([]byte, size+hugePage)
	b = b[-int(uintptr(unsafe.Pointer(&b[0])))&(hugePage-1):][:size:size]
	Prefault(b)
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
}

const (
	prefaultFrom = 32 << 10  // smaller pieces have been touched before, most likely
	hugeFrom     = 512 << 10 // for less a huge page is mostly waste
	hugePage     = 2 << 20
)

func advise(from, to uintptr, advice int) {
	unix.Syscall(unix.SYS_MADVISE, from, to-from, uintptr(advice))
}

// Buffer returns n zeroed values, which hold no pointer, for a short time: none is
// touched again after free. Their memory is not the garbage collector's: it goes back
// to the kernel at once, and comes from it in pages as large as it has.
func Buffer[T any](n int) (b []T, free func()) {
	var zero T
	size := n * int(unsafe.Sizeof(zero))
	// Only what has the size of huge pages, and begins and ends with one, is made of
	// them.
	whole, more := max(1, size), 0
	if size >= hugeFrom {
		whole, more = (size+hugePage-1)&^(hugePage-1), hugePage
	}
	m, err := unix.Mmap(-1, 0, whole+more, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]T, n), func() {}
	}
	o := m
	if more > 0 {
		from := -int(uintptr(unsafe.Pointer(&m[0]))) & (hugePage - 1)
		o = m[from : from+whole]
		unix.Madvise(o, unix.MADV_HUGEPAGE)
	}
	unix.Madvise(o, unix.MADV_POPULATE_WRITE)
	return unsafe.Slice((*T)(unsafe.Pointer(&o[0])), n), func() { unix.Munmap(m) }
}
