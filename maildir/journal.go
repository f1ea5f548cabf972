package maildir

import (
	"strings"

	"imapd/maildir/intents"
	"imapd/maildir/tree"
	"imapd/maildir/vfs"
)

// A journal notes renames of folders in imapd-intents of the root, beside what
// INBOX notes there.
type journal struct{ host *Host }

// What a path in a note is relative to.
const (
	inMail    = "mail/"
	inControl = "control/"
)

func (j journal) Intend(root vfs.Dir, moves []tree.Move) (end func(finished bool)) {
	i := intents.Intent{Kind: intents.Rename}
	for _, m := range moves {
		prefix := inMail
		if m.Control {
			prefix = inControl
		}
		i.Steps = append(i.Steps, intents.Step{From: prefix + m.From, To: prefix + m.To})
	}
	h, err := intents.Begin(root, i)
	if err == nil && j.host.opt.Fsync != FsyncNever {
		err = h.Sync()
	}
	if err != nil {
		j.host.opt.Log.Warn("cannot note what is to be done", "root", root.Path(), "err", err)
	}
	return ending(h)
}

func ending(h *intents.Held) func(finished bool) {
	return func(finished bool) {
		if finished {
			h.Done()
		}
		h.Close()
	}
}

func (j journal) Waiting(root vfs.Dir) bool { return intents.Waiting(root) }

func (j journal) Unfinished(root vfs.Dir) (notes [][]tree.Move, end func(finished bool)) {
	h, err := intents.Claim(root, func(k intents.Kind) bool { return k == intents.Rename })
	if err != nil {
		j.host.opt.Log.Warn("cannot look at what was left undone", "root", root.Path(), "err", err)
	}
	if h == nil {
		return nil, nil
	}
	for _, i := range h.Intents {
		var moves []tree.Move
		for _, s := range i.Steps {
			from, c1 := strings.CutPrefix(s.From, inControl)
			to, c2 := strings.CutPrefix(s.To, inControl)
			if !c1 && !c2 {
				from, to = strings.TrimPrefix(from, inMail), strings.TrimPrefix(to, inMail)
			}
			moves = append(moves, tree.Move{Control: c1, From: from, To: to})
		}
		j.host.opt.Log.Info("finishing a rename after a crash", "root", root.Path(), "folders", len(moves))
		notes = append(notes, moves)
	}
	return notes, ending(h)
}
