// Package index reads and writes imapd.index, what this server knows of a
// folder beyond what the files in it say: when each message changed last
// (modseq, RFC 7162), which messages have been expunged and when, what stat(2)
// and counting found out about each file, who was told of new mail, and how the
// folder looked when all this was true.
//
// # The problem
//
// A folder of a million messages must open in the time of a few page reads, a
// change must cost a hundred octets, several processes use the file at once,
// any of them may be killed at any moment, and no client may ever be left with
// a flag that it believes is current and is not. Yet the files are the truth:
// the index may be deleted at any time, and a backup may bring an old one back.
//
// # The choice
//
// One file: a base that is written once, and a journal of batches behind it.
//
//	prefix    88 octets: which folder and file this is about, where the trailer is
//	records   40 octets a message, ascending by UID
//	names     the file names, page by page
//	order     hashes of the names, in the order in which the directories have them
//	gone      ranges of UIDs that were expunged, ascending by modseq
//	trailer   State, and for each page its lengths and checksums
//	journal   batches, each with a length and a checksum
//
// The records are read at once and the names of a page when they are first
// asked for: what a client asks after SELECT needs none. The order is read by a
// process that has to read the directories (Order). The journal is short:
// when it has grown to a part of the base the file is written anew under another
// name, while others go on (Draft), and renamed into place.
//
// A batch is appended under a lock on imapd.index.lock, a file that is never
// renamed, and so the one that says how far modseqs have gone where the index is lost
// (limit.go). Whoever holds it reads first what others have appended, so that
// modseqs are given in one order. A batch that is torn, because its writer was
// killed, is ignored by readers and cut off by the next writer.
//
// Version 1 had no order. Such an index is read, and written anew when its time comes.
//
// Each batch says when it was written. A file that was written over by a copy of an
// older one, on the same inode, has other times than that (journal.go).
//
// Numbers are little-endian. Checksums are CRC-32C.
//
// # Rejected
//
// A map of the file into memory: a process that truncates it would end ours, and
// what was checked once may change under our hands. A database: see package
// maildir.
package index
