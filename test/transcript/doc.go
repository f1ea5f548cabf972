// Package transcript plays scripts of one or several IMAP clients against a
// server and compares what it answers.
//
// # A script
//
// Lines before the first step say what the script needs:
//
//	# comment            (anywhere, at the start of a line)
//	setup: basic         the Maildir and configuration to start from: setups/basic
//	needs: IDLE MOVE     capabilities; a server that lacks one is not asked
//	login: no            clients start at the greeting; else they are logged in
//	select: INBOX        clients have selected this mailbox; or "examine: INBOX"
//	not: pipelined WHY   forms that the script is not played in, and why; see below.
//	                     "not: dovecot WHY": it is not played against Dovecot
//
// Then each line is a step of the client whose name it starts with; a client
// connects at its first step.
//
//	1 C: a SELECT INBOX       the client sends this line
//	1 S: * 3 EXISTS           the next response must be this
//	1 S*: * OK [UNSEEN 1] | * FLAGS (\Seen)
//	                          the next two must be these, in any order; S* lines
//	                          that follow each other make one group
//	1 D: * 4 EXISTS  # thread     what Dovecot answers instead of the step above, and why
//	1 D*: ...        # RFC 3501   the same, in any order
//	1 D: nothing     # RFC 3501   Dovecot does not send what is above
//	1 closed                  the server has closed the connection
//	1 tls                     the client starts TLS on the connection
//	! deliver Work new.eml    another program delivers files/new.eml into new/
//	! mark INBOX 2 FS         ... gives the file of the setup's UID 2 these flag letters
//	! remove INBOX 2          ... removes it
//
// At the end every client that is still connected logs out, and the server must
// not have anything else to say.
//
// # Text
//
// Where a line ends in a literal's head ({5}, {5+}, ~{5}) the literal's octets
// are those of the lines that follow, with CRLF at each line end, and the rest
// of the line on which they end continues the command or response. If a step
// follows instead, only the head is sent. "<<name" stands for the file
// files/name as a literal, its line ends made CRLF. A client waits for "+"
// before it sends a literal with a head like {5}.
//
// $name, lower case letters and digits, stands for a word that is not known
// beforehand: the first response that has it decides, and what follows must be
// equal; the client may send it. "$name" in quotes stands for a whole quoted
// string. $user, $password and $plain (SASL PLAIN for both) are known. $_ is
// anything. $$ is a dollar sign, needed only before a small letter.
//
// After OK, NO, BAD, BYE, PREAUTH, a response code and + the text for humans is
// not compared unless it is written as ="text". A code is: [*] stands for
// any code or none. A line that ends in " ..." names words that must all be
// there, in any order, among others.
//
// The same are: a quoted string and a literal; in any order lists of flags, of
// attributes in LIST and LSUB, numbers in SEARCH, pairs in ESEARCH and STATUS,
// items in FETCH; names of header fields in either case. An empty literal fails,
// but for Dovecot's: iOS Mail hangs on it.
//
// # Forms
//
// Each script is played in each of these forms: plain, as written; bytes, each
// octet in a write of its own; pipelined, all that the client says before
// reading (for one client, and not to Dovecot, which answers such commands out
// of order); literals and literals+, every astring as a
// synchronizing or non-synchronizing literal.
package transcript
