// Package body is a message as IMAP sees it: a tree of parts with byte offsets, ENVELOPE, BODYSTRUCTURE, sections,
// decoded text for SEARCH. It knows no IMAP syntax: it returns structs and streams, and the session writes them.
//
// # The problem
//
// A Maildir file may hold LF, CRLF or both; the wire has CRLF, and every size that IMAP gives out counts octets of
// that CRLF view. A FETCH must say a literal's length before its first octet, a client may ask for octets 65536 to
// 131071 of part 1.2.3, and the message may be damaged in any way and be 2 GB long.
//
// # The choice
//
// Parse reads the file once, front to back, through one window of 64 KB. While it does so it keeps a mark: file
// offset, octets of the CRLF view, line ends. Each part is two pairs of marks (Span), so that all sizes are
// differences and a parent's size needs no sum. Between lines that begin with "--" nothing is looked at but line
// ends, and these only with the vector instructions behind bytes.Index and bytes.Count. The tree holds offsets and
// the few header values that IMAP shows; the octets stay in the file and are streamed from there (Content).
//
// Malformed input is never an error; only reading is. Where RFC 5322 and RFC 2045 do not say what a broken header
// means, the answer is the one that Dovecot gives: testdata holds the messages, Dovecot's replies, and the list of
// the places where we differ on purpose.
//
// The CRLF view of a file: an LF that no CR precedes counts and is sent as CR LF; a CR LF pair stays; a CR alone
// stays; a last line without line end gets none. A NUL, which RFC 9051 section 9 keeps out of literals, is sent as
// octet 0x80, except in BINARY, so no size changes.
//
// # Rejected
//
// go-message and net/mail: their readers know no offsets, give up at the first line without a colon, fail a whole
// address list for one bad address, and cost 40 to 75 us for a message that takes 11 us here. Two passes (structure,
// then sizes): the second costs as much as the first. Keeping line tables for partial fetches: 8 octets a line for
// something that a cursor (Content.Mark) answers.
//
// # Limits
//
// See Limits. What lies beyond a limit is left out of the tree and never out of the octets: a part too deep is an
// opaque leaf, an address too many is not shown. Nothing is recursive over depth, and no step costs more than the
// octets it consumes.
package body
