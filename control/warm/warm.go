// Package warm has the kernel map at once some of the memory that a start needs. It is
// imported for that alone.
//
// The kernel maps memory page by page as it is first used: a hundred faults before a
// greeting are of the heap. On a virtual machine a fault costs up to 30 us. To ask for
// the rest of the piece from which the runtime hands out pages just then costs as much
// as a few and saves fifty: it is soon full, and when a mailbox is selected the process
// is not a tenth larger than without. To ask for the next piece too was tried: it saves
// half as much again, and every process is a third larger for good. The writable data
// were tried and gain nothing. The code was asked for as well: that gains where a fault
// is dear, and costs more than it saves where it is not, since the kernel maps sixteen
// pages of a file at each fault by itself.
//
// It helps the more the earlier it is. Packages are initialised in the order of
// their paths, as far as those that they import are: this one, which imports
// only syscall, comes before nearly all that has work to do.
package warm

import (
	"syscall"
	"unsafe"
)

// piece is what the runtime hands to a processor at a time, in octets: 64 pages
// of its own.
const piece = 512 << 10

// populateWrite is MADV_POPULATE_WRITE, of Linux 5.14. Kernels without it refuse.
const populateWrite = 23

var _ = heap()

// heap asks for the rest of the piece of heap that is in use.
func heap() bool {
	start, end := rest()
	return populate(start, end)
}

// rest returns where what is allocated now begins, and where its piece ends.
func rest() (start, end uintptr) {
	at := uintptr(unsafe.Pointer(new([8]*byte)))
	return at, at&^(piece-1) + piece
}

// populate asks for the pages from that of start to that of the last octet before end.
func populate(start, end uintptr) bool {
	page := uintptr(syscall.Getpagesize())
	start &^= page - 1
	_, _, errno := syscall.RawSyscall(syscall.SYS_MADVISE, start, (end-start+page-1)&^(page-1), populateWrite)
	return errno == 0
}
