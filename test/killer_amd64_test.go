package test

import "golang.org/x/sys/unix"

// refusable says that calls can be made to fail on this machine.
const refusable = true

// skipCall has the kernel pass over the call that the thread is about to make.
func skipCall(tid int) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Orig_rax = ^uint64(0)
	return unix.PtraceSetRegs(tid, &r)
}

// setResult sets what the call returns that the thread has made, or not made.
func setResult(tid int, e unix.Errno) error {
	var r unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Rax = uint64(-int64(e))
	return unix.PtraceSetRegs(tid, &r)
}
