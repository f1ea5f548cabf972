// Package privsep splits a server that root has started into processes, so that
// no octet of a client is read by one that is root's.
//
// The problem is what a mistake in a parser may cost. A server needs root
// for little: ports below 1024, files of keys and passwords, becoming the user
// whose mail it serves. It reads for years what anybody on the net chooses to
// send. Both in one process means that the first mistake gives away the machine.
//
// The choice, where all mail has one owner (privilege_separation: shared):
//
//	parent  root, reads nothing but what its children and its configuration say
//	server  cyrus_user, does everything else
//
// The parent binds the addresses and opens the files that only root can read,
// once at the start and again at each reload, and hands the descriptors over
// (SCM_RIGHTS). It reads the configuration itself, as root, and opens a file
// only if that configuration names it: a child says which file it wants, and
// never learns whether another one is there. It passes signals on, starts
// nothing twice, and ends with the exit code of its child. The child dies with
// its parent (PR_SET_PDEATHSIG).
//
// A child is this program, executed again: Go cannot fork, and a new address
// space holds nothing of root's. What it is for stands in the environment, and
// counts only with a Channel on descriptor 3 that a parent of root's has made
// (Join). A child is started with no_new_privs and as the user it shall be,
// tries to become root again before it does anything else, leaves no core dump
// and cannot be looked into by others of its user (Harden), and gives up the
// files that it will not need (Confine).
//
// What is asked and answered is a few octets in messages of a SOCK_SEQPACKET
// pair, read without a decoder that could have mistakes of its own: one octet
// says what, the rest is a path or a number. A child can make the parent do
// nothing that the configuration does not allow to everybody who serves.
//
// Rejected: setuid in the process that has bound (keys cannot be read again, and
// what root's process had in memory stays there); capabilities instead of a
// parent (CAP_DAC_READ_SEARCH reads every file of the machine); seccomp (Go's
// runtime and the kernel's ways to say the same thing make the list of calls a
// matter of luck).
package privsep
