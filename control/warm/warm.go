// Package warm has the kernel map what a start needs in two goes. It is imported
// for that alone.
//
// The kernel maps a program and its memory page by page, or a few at a time, as
// they are first used: hundreds of faults before a greeting. On a virtual machine a
// fault costs 10 to 30 us, and all of them a third of the processor time of a process
// that serves one client. To ask for the code costs less than twenty faults and saves
// fifty; a piece of the heap costs five and saves fifty too. For the code it is asked
// for one page in sixteen: the kernel maps those around it as well, as it does at a
// fault, and to ask for them would have it look at each. Where faults are cheap that
// costs more than it saves.
//
// Of the program nothing is read that is not in memory already, once any imapd has
// run, and nothing is counted to the process that it does not share with all others.
// Of the heap nothing is asked for but the rest of the piece from which the runtime
// hands out pages just then: it is soon full, and when a mailbox is selected the
// process is not a tenth larger than without. To ask for the next piece too was tried:
// it saves half as much again, and every process is a third larger for good. The
// writable data were tried and gain nothing. The tables for tracebacks, a third of the
// program, are left out: a start needs a few pages of them.
//
// It helps the more the earlier it is. Packages are initialised in the order of
// their paths, as far as those that they import are: this one, which imports
// only syscall, comes before nearly all that has work to do.
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

// piece is what the runtime hands to a processor at a time, in octets: 64 pages
// of its own.
const piece = 512 << 10

// MADV_POPULATE_READ and MADV_POPULATE_WRITE, of Linux 5.14. Kernels without them
// refuse.
const (
	populateRead  = 22
	populateWrite = 23
)

// edge lies behind the code and the descriptions of types, among the constants.
const edge = "the edge of the code"

var _, _ = text(), heap()

// around is what the kernel maps at once where one page is asked for: fault_around_bytes
// of mm/memory.c.
const around = 64 << 10

// text asks for all pages of code and constants. What is not there to be had
// comes by itself later.
func text() bool {
	end := uintptr(unsafe.Pointer(unsafe.StringData(edge)))
	if runtime.GOARCH != "amd64" || end <= base || end-base > most {
		return false
	}
	for at := uintptr(base); at < end; at += around {
		if !populate(at, at+1, populateRead) {
			return false
		}
	}
	return true
}

// heap asks for the rest of the piece of heap that is in use.
func heap() bool {
	start, end := rest()
	return populate(start, end, populateWrite)
}

// rest returns where what is allocated now begins, and where its piece ends.
func rest() (start, end uintptr) {
	at := uintptr(unsafe.Pointer(new([8]*byte)))
	return at, at&^(piece-1) + piece
}

// populate asks for the pages from that of start to that of the last octet before end.
func populate(start, end, how uintptr) bool {
	page := uintptr(syscall.Getpagesize())
	start &^= page - 1
	_, _, errno := syscall.RawSyscall(syscall.SYS_MADVISE, start, (end-start+page-1)&^(page-1), how)
	return errno == 0
}
