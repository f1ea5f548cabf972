// Package privsep splits a server that root has started into processes, so that
// no octet of a client is read by one that is root's.
//
// The problem is what a mistake in a parser may cost. A server needs root
// for little: ports below 1024, files of keys and passwords, becoming the user
// whose mail it serves. It reads for years what anybody on the net chooses to
// send. Both in one process means that the first mistake gives away the machine.
//
// The choice, where all mail has one owner (privilege_separation: shared) and
// many clients are served:
//
//	parent  root, reads nothing but what its children and its configuration say
//	server  cyrus_user, does everything else
//
// The parent binds the addresses, or has them from a launcher, and opens the
// files that only root can read, once at the start and again at each reload, and
// hands the descriptors over (SCM_RIGHTS). It reads the configuration itself, as root, and opens a file
// only if that configuration names it: a child says which file it wants, and
// never learns whether another one is there. It passes signals on, starts
// nothing twice, and ends with the exit code of its child. The child dies with
// its parent (PR_SET_PDEATHSIG).
//
// Where every user of the system owns mail (privilege_separation: user):
//
//	parent  root, as above; knows which user gets which process
//	front   cyrus_user: TLS, its keys, all clients until they have logged in; no
//	        mail, no passwords
//	auth    auth_user: alone reads the sources of passwords; no client, no mail
//	worker  one for each user, with that user's uid, gid and groups: sessions that
//	        have logged in; no keys, no passwords, nobody else's mail
//
// The front has a name and a password from a client and asks auth. If they are
// right auth draws a ticket, tells the parent whose it is (name, uid, gid, and
// what the worker is to know), and only when the parent has noted that gives the
// ticket to the front. The front shows the ticket to the parent, which spends it:
// the front gets one end of a Channel, that user's worker the other, with the
// identity that auth has told. So a front in wrong hands can use up the tickets
// of those who log in meanwhile, but it cannot name a user, and it cannot have
// a session of one who has logged in an hour ago. The parent refuses uid 0 and
// those below first_valid_uid, whoever vouches.
//
// Over the Channel the front sends the session: the descriptor of the client's
// connection, what it has read of it beyond the login, and the tag that waits for
// an answer. Keys stay where they are, so under TLS it sends one end of a pair
// of sockets and copies. The worker says that it has taken the session before it
// touches it; until then the front can still answer the client. From then on
// the Channel is the session: the administrator's wishes go one way, what the
// list of who is on is to show the other way, and when either end is closed
// the session is over. A worker is this server with sessions that start
// authenticated; there is no second session code. One that dies takes its
// user's sessions with it, and the next login starts another. One that has
// been idle says how many sessions it has had, and the parent, which knows whether
// one more is on its way, lets it go.
//
// It is the same where a launcher starts a process for each client: the parent
// takes over the client's socket and hands it to the front, and all of them end
// with that client. (With one owner of all mail such a process has no parent. It
// becomes cyrus_user before it reads, and lives too short for a second one.)
//
// The administrator's session without a login (imapctl session) has a parent too
// where no daemon serves it: imapctl, which root has started. It looks the user
// up, starts a server, or with a uid for each user a front and a worker, and vouches
// itself: no process that talks to clients is told to believe a name. The one
// client is the other end of a pair of sockets, between which and its own standard
// input and output imapctl copies.
//
// A child is this program, executed again: Go cannot fork, and a new address
// space holds nothing of root's. What it is for stands in the environment, and
// counts only with a Channel on descriptor 3 that a parent of root's, or of the
// same user, has made (Join). A child is started with no_new_privs and as the user it shall be,
// tries to become root again before it does anything else, leaves no core dump
// and cannot be looked into by others of its user (Harden), and gives up the
// files that it will not need (Confine).
//
// What the parent is asked and answers is a few octets in messages of a
// SOCK_SEQPACKET pair, read without a decoder that could have mistakes of its own: one octet
// says what, the rest is a path, numbers and what the parent does not look into. A child can make the parent do
// nothing that the configuration does not allow to everybody who serves.
//
// Rejected: setuid in the process that has bound (keys cannot be read again, and
// what root's process had in memory stays there); capabilities instead of a
// parent (CAP_DAC_READ_SEARCH reads every file of the machine); seccomp (Go's
// runtime and the kernel's ways to say the same thing make the list of calls a
// matter of luck).
package privsep
