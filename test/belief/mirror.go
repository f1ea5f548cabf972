package belief

import (
	"fmt"
	"maps"
	"slices"

	"imapd/maildir"
)

// News is what a client is told that comes back to a mailbox: the answer to SELECT
// with QRESYNC (RFC 7162 section 3.2.5).
type News struct {
	Vanished []maildir.UID
	Flags    map[maildir.UID]string // of the messages that are new or have changed
}

// Told notes that a client has been told what stands in all, each up to its ModSeq.
// It may go away now and come back after the crash with what it knows: security
// rules I15 and I16. A folder without modseqs is none to come back to.
func (k *Known) Told(all ...Folder) {
	for _, f := range all {
		same := func(m Folder) bool { return m.Validity == f.Validity && m.ModSeq == f.ModSeq && m.Next == f.Next }
		if f.ModSeq != 0 && f.Validity != 0 && !slices.ContainsFunc(k.mirrors, same) {
			k.mirrors = append(k.mirrors, f)
		}
	}
}

// After returns what is known once all has been told to clients. Those that went
// away before may still come back.
func (k *Known) After(all map[string]Folder) *Known {
	n := New(all, false)
	n.Told(k.mirrors...)
	return n
}

// Stale has each client come back to the mailbox that it knew, whatever that is
// called now, and says where one then believes what is not so. ask gets the name of
// the mailbox, and what the client knows of it. It returns how many came back.
func (k *Known) Stale(all map[string]Folder, ask func(name string, mirror Folder) (News, error)) (asked int, v []string) {
	for name, now := range all {
		for _, m := range k.mirrors {
			if m.Validity != now.Validity || now.ModSeq == 0 && k.Unsaid {
				continue
			}
			say := func(format string, args ...any) {
				v = append(v, fmt.Sprintf("%s: who came back with modseq %d of %d: ", name, m.ModSeq, now.ModSeq)+fmt.Sprintf(format, args...))
			}
			if now.ModSeq < m.ModSeq {
				say("HIGHESTMODSEQ has fallen")
			}
			news, err := ask(name, m)
			if err != nil {
				say("%v", err)
				continue
			}
			asked++
			for _, wrong := range news.misleads(m, now) {
				say("%s", wrong)
			}
		}
	}
	return asked, v
}

// misleads says where a client that knew m, and has had the news, is wrong about
// now.
func (n News) misleads(m, now Folder) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	flags := map[maildir.UID]string{}
	for u, mail := range m.Mails {
		flags[u] = mail.Flags
	}
	for _, u := range n.Vanished {
		delete(flags, u)
	}
	maps.Copy(flags, n.Flags)
	for u, f := range flags {
		mail, there := now.Mails[u]
		was, knew := m.Mails[u]
		switch {
		case !there:
			say("UID %d is gone, and has not vanished", u)
		case f != mail.Flags:
			say("UID %d is believed to have the flags %q and has %q", u, f, mail.Flags)
		case knew && was.Text != "" && (was.Text != mail.Text || was.Date != mail.Date):
			say("UID %d is %+v, was %+v", u, mail, was)
		}
	}
	for u := range now.Mails {
		if _, ok := flags[u]; !ok {
			say("nobody has told of UID %d", u)
		}
	}
	return wrong
}
