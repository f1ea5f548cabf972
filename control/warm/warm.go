// Package warm has the kernel map the program in one go. It is imported for
// that alone.
//
// The kernel maps a program page by page, or a few at a time, as they are first
// used: about a hundred faults before a greeting. On a virtual machine a fault costs
// 10 to 30 us, and all of them a tenth of the processor time of a process that
// serves one client. To ask for all pages at once costs less than four faults.
// Nothing is read that is not in memory already, once any imapd has run, and
// nothing is counted to the process that it does not share with all others.
//
// It helps the more the earlier it is. Packages are initialised in the order of
// their paths, as far as those that they import are: this one, which imports
// only syscall, comes before nearly all that has work to do. To do the same with
// the heap was tried and gains nothing.
package warm

import (
	"runtime"
	"syscall"
	"unsafe"
)

// base is where the linker puts a program on amd64, the only machine where this
// was measured.
const base = 0x400000

// most bounds what is asked for, in octets, should the program lie elsewhere.
const most = 64 << 20

// populateRead is MADV_POPULATE_READ, of Linux 5.14. Kernels without it refuse.
const populateRead = 22

// edge lies behind the code and the constants, at the start of the data.
var edge = [1]byte{1}

var _ = text()

// text asks for all pages of code and constants. What is not there to be had
// comes by itself later.
func text() bool {
	end := uintptr(unsafe.Pointer(&edge)) &^ uintptr(syscall.Getpagesize()-1)
	if runtime.GOARCH != "amd64" || end <= base || end-base > most {
		return false
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_MADVISE, base, end-base, populateRead)
	return errno == 0
}
