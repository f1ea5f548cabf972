// Package maildir keeps a user's mail in Maildir folders, in the very files
// that Dovecot uses, beside Dovecot and any other program that knows Maildir.
//
// # The problem
//
// A Maildir has no server. Deliveries appear in new/, mail readers rename files
// in cur/ whenever they like, another IMAP server gives UIDs. An IMAP client
// believes that a UID means one message for ever, that sequence numbers hold
// still while a command uses them, and that what was answered OK is on disk.
// Servers that trusted one readdir(3), or one modification time, have told
// clients that hundreds of messages were gone which nobody had touched.
//
// # The choice
//
// Files are the truth; the snapshot in memory is what we called them. A change
// is made in the files first, recorded second, published third, and answered
// last. A Mailbox publishes immutable Snapshots; a session holds one as its view
// and asks Advance what its client must be told. Nothing is queued per session.
//
// The rules, each of which has a test:
//
//   - A scan is one getdents64 call that takes the whole directory, new/ before
//     cur/. Where the file system makes that atomic against rename, a file that
//     one scan lacks is gone. Elsewhere two calm scans, or five over a second,
//     the last under the lock, must lack it, and lstat of its name must fail.
//   - A stamp is what stat(2) says of cur/, new/ and dovecot-uidlist. It lets a
//     look be skipped only if it was taken around a look, unchanged, and was
//     old enough not to share a clock tick with a change: 10 ms on local file
//     systems, a second where a time is a whole one, 2 s elsewhere. Our own renames spoil it: one modification time
//     cannot tell our change from another that came with it.
//   - In a folder that the kernel tells us everything of, a look takes what has
//     happened from the events, up to a fence that it rings itself, and asks
//     lstat about what it takes for gone. Events that may be missing, or do not
//     say enough, are made up for by a scan (track.go). After an edit its own
//     events are the fence (edited.go).
//   - What a look finds and an edit does is recorded in the index before it is
//     published, under a lock that all our processes share, below what they
//     have recorded: one change has one modseq (history.go).
//   - A folder that comes from a backup goes on above all UIDs that may have been given
//     since (skipUIDs); a list that is behind what was published is mended.
//   - Modseqs are told only where all who serve the mailbox, on any host, have one
//     history (onehistory.go).
//   - An index that is of no use is set aside by one process for all, and what it
//     may have told clients is told again (indexaside.go).
//   - A mailbox that nobody has open is kept for a while, as a cache: whoever
//     opens it again looks as if it had been open (keep.go).
//   - Every rename, link or unlink of ours in cur/ and new/ is made under
//     dovecot-uidlist.lock, one lock for each edit; only the files in tmp/ are
//     free. A running Dovecot that meets an unlocked renamer loses UIDs. Edits
//     that wait for each other take the lock over from one another, for a bounded
//     time (package uidlist).
//   - The lock is waited for with nothing else held. Then comes Mailbox.mu, then
//     a disk slot. Never two mailboxes at once: MOVE is durable in the target
//     before it begins in the source.
//   - Whatever asks a disk for something has a slot: of the user, of the file system,
//     of the process. Whoever has one waits for nothing that another holds (slots.go).
//   - The list of UIDs is read before the directories. New UIDs are greater
//     than every UID that was ever published. A UID is published only after its
//     line was synced to disk, by us if another process wrote it. A line above all
//     that was published whose file a scan may have missed holds back those above
//     it until that is settled (unfound.go).
//   - Of two lines with one base name the last one counts. A base name is free
//     only if no file and no line has it. A file that comes back under an
//     expunged base gets a new UID.
//   - Lines below UIDNEXT whose UID is not published are of messages that are gone.
//     When they are many the list is written anew without them (compact.go).
//   - A look never moves mail from new/ to cur/, unless a session has the
//     mailbox selected for writing.
//   - The file name is the compare-and-swap of flags: rename from the exact old
//     name; if that is gone, find the file again and apply the same change to
//     what it says now. EXPUNGE unlinks only a name that carries T.
//   - The keywords of a message are its letters and what imapd-keywords says of
//     its base name (overflow.go). That is appended under the lock, synced before
//     the reply, and followed by a change in cur/ that others see.
//   - What is done to several files, and must be done to all or none, is noted on
//     disk before it begins; whoever has the lock next finishes or undoes what a
//     process that is gone has left (redo.go).
//   - What we create takes mode and group from its folder.
//
// # Rejected
//
// A database or a change of the file names: neither could live beside the
// programs that people have. go-maildir for more than flag letters and tests:
// it loses messages without an info part and syncs nothing. Trusting events
// alone, or a modification time alone.
package maildir
