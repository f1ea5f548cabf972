// Package imap serves IMAP4rev1 (RFC 3501) and IMAP4rev2 (RFC 9051) on one
// connection at a time: sessions, the table of commands, replies, and waiting.
//
// # How a command travels
//
// Server.Serve runs a Session. Session.wait blocks until a client sends
// something (link.go has the connection, wait.go the reasons to wake up).
// Session.command reads the tag and the name, finds the row in the table
// commands, asks whether the state allows it, lets the row parse its
// arguments, runs the handler, and has the reply written (dispatch.go). Before
// the tagged reply, Session.report tells the client what changed in its
// mailbox.
//
// There is one place for each of these, and no second one may be made:
//
//   - an error becomes a tagged reply in Session.reply or, where the command is OK
//     nevertheless, a warning in Session.warn, BYE is sent by Session.bye (reply.go);
//   - EXISTS, RECENT, EXPUNGE, VANISHED and FETCH that nobody asked for are written by
//     Session.report (report.go);
//   - a session waits in Session.wait (wait.go);
//   - what ENABLE changes is set by Session.enable (session.go).
//
// # How to add a command
//
// Make a file named after it. Register a row whose constructor says in which
// states the command may run, by the type of its handler:
//
//	// FROB turns messages over. See RFC 99999 section 3.
//	var _ = register(Extension{
//		Name:     "FROB",
//		RFC:      99999,
//		Caps:     when(loggedIn, "FROB"),
//		Commands: []Command{
//			selected("FROB", parseFrob, (*Session).frob).with(UsesSeq),
//			selected("UID FROB", parseUIDFrob, (*Session).frob),
//		},
//	})
//
//	type frobArgs struct {
//		set  Set
//		name string
//	}
//
//	func parseFrob(d *wire.Decoder) (a frobArgs) {
//		d.SP()
//		a.set = seqSet(d)
//		d.SP()
//		a.name = d.Mailbox()
//		return a
//	}
//
//	func (s *Session) frob(b *Box, a frobArgs) error {
//		if err := b.writable(); err != nil {
//			return err
//		}
//		messages, err := b.find(a.set)
//		if err != nil {
//			return err
//		}
//		for i, m := range messages {
//			s.out = append(s.out, "* "...)
//			s.out = wire.AppendNumber(s.out, i+1)
//			...
//			if err := s.spill(); err != nil {
//				return err
//			}
//		}
//		s.ok("FROBBED", "")
//		return nil
//	}
//
// The rules:
//
//   - always, unauthed, authed, selected: see extension.go. A handler gets the
//     *User or the *Box that its state promises; they are never nil.
//   - A parser is a plain sequence of decoder calls from behind the name, that
//     is, it begins with d.SP(); errors stick in the decoder. It knows no session.
//     The line end is read for it. A UID form is a row of its own.
//   - A handler runs when all earlier commands have been answered. It appends
//     to Session.out and calls Session.spill between pieces; it flushes only
//     if the client must see something before the command goes on.
//   - It returns nil (the tagged OK; Session.ok adds a response code), no(code,
//     text), bad(text), or any error of the packages below: reply.go has the
//     table. It writes no tagged reply and no mailbox data of its own.
//   - UsesSeq: for every command that takes or returns sequence numbers; no
//     message is numbered anew while it runs. What was expunged meanwhile is a
//     ghost in Box.view: Message.Ghost. Silent: no report before the reply.
//   - A handler that changes flags itself and was told to keep silent, or has
//     sent the FETCH responses already, says so with Box.tell.
//   - Something that has to happen behind the tagged reply goes into Session.then.
//   - Large arguments: the stream constructors give the handler the decoder.
//     It reads to d.End(); what it leaves is skipped behind it.
//   - A command that must be refused before its arguments are read (a
//     password, a literal) gets a gate: Command.unless.
//   - Long work checks s.ctx; work that takes a look at the clock, a file or
//     a mailbox passes it on.
//
// # How to add a FETCH item, a SEARCH key or return option, a STATUS item, a
// LIST option, a SELECT parameter, a word of ENABLE
//
// Each is one row of an Extension: its type in rows.go says what the row has
// to bring. Nothing else mentions it. Whatever it makes other commands do
// differently is a property in Props, asked with Session.props.Has.
package imap
