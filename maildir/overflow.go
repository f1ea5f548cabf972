package maildir

import (
	"slices"
	"time"

	"imapd/maildir/index"
	"imapd/maildir/keywords"
)

// Keywords beyond the letters of file names are in imapd-keywords. They are part
// of a message's flags like the letters: whatever reads a file name adds what that
// file says of its base name. It is appended to under the lock only.
//
// Another process of ours that has the folder open must learn of it, and a
// change of nothing but such a keyword renames no file. A fourth stat in each
// look would do for the next command but would wake nobody who is in IDLE, and a
// watch on the folder would wake everybody each time the lock comes and goes. So
// whoever appends makes a change in cur/ as well, a file that comes and goes: it
// is to others what a rename is, and the common look costs three stats as before.

// nudgeName is the file that nudge makes. A dot file is no message to anybody.
const nudgeName = ".imapd-keywords"

// nudge changes cur/ without changing what is in it. Where there is no room for a
// file its time is set, which the next look of others sees as well.
func (m *Mailbox) nudge() {
	f, err := m.cur.Create(nudgeName, 0o600)
	if err == nil {
		f.Close()
	}
	if m.cur.Unlink(nudgeName) != nil {
		m.dir.SetTime("cur", time.Now())
	}
}

// marksOf returns the flags of a file with the name, wherever they are recorded.
func (m *Mailbox) marksOf(name []byte) Marks {
	f := m.keys.overflow(name[:baseLen(name)])
	f.Flags |= parseFlags(name)
	return f
}

// rereadKeywords brings the keywords up to what another process has recorded.
func (m *Mailbox) rereadKeywords() {
	if err := m.keys.read(m.control); err != nil {
		m.host.opt.Log.Warn("cannot read keywords", "mailbox", m.name, "err", err)
	}
}

// readMore returns the keywords without a bit of the messages in p, a page from
// the index.
func (m *Mailbox) readMore(p *page) map[UID][]uint16 {
	var all map[UID][]uint16
	for i := range p.recs {
		r := &p.recs[i]
		if r.Mod&index.More == 0 {
			continue
		}
		if all == nil {
			all = map[UID][]uint16{}
			m.rereadKeywords()
		}
		msg := p.message(i)
		if more := m.keys.overflow(msg.base()).more; len(more) > 0 { // else taken away since: the look that comes will tell
			all[msg.UID] = more
		}
	}
	return all
}

// fillMore gives what another process has recorded its keywords without a bit.
func (m *Mailbox) fillMore(changes map[UID]change, added map[UID]entry) {
	for u, c := range changes {
		if !c.remove {
			c.entry.marks.more = m.keys.overflow([]byte(c.entry.name[:c.entry.base])).more
			changes[u] = c
		}
	}
	for u, e := range added {
		e.marks.more = m.keys.overflow([]byte(e.name[:e.base])).more
		added[u] = e
	}
}

// reread sets the flags of changes to what is recorded: something was not.
func (m *Mailbox) reread(changes []change) {
	for i := range changes {
		e := &changes[i].entry
		e.marks = m.marksOf([]byte(e.name))
	}
}

// readKeywords brings the keywords up to what the files say now and publishes
// what other processes have changed in imapd-keywords. The lock is held, if
// anything is to be changed there.
func (m *Mailbox) readKeywords() error {
	if err := m.keys.read(m.control); err != nil {
		return err
	}
	news := m.keys.news
	if !news.Any() {
		return nil
	}
	m.keys.news = keywords.Changes{}
	snap := m.Snapshot()
	var changes []change
	see := func(msg Message) {
		if f := m.marksOf(msg.name()); !f.Equal(msg.Marks()) {
			e := entryOf(msg)
			e.marks = f
			changes = append(changes, change{uid: msg.UID, entry: e})
		}
	}
	if news.All {
		for _, msg := range snap.Range(0, snap.Len()) {
			see(msg)
		}
	} else {
		if err := m.list.load(m.control); err != nil {
			return err
		}
		for _, u := range m.uidsOf(news.Bases) {
			if msg, ok := snap.lookup(u); ok {
				see(msg)
			}
		}
	}
	if len(changes) == 0 {
		return nil
	}
	_, err := m.record(snap, changes, nil, snap.Next)
	return err
}

// uidsOf returns the UIDs that the list gives to base names, ascending, each once.
func (m *Mailbox) uidsOf(bases []string) []UID {
	var uids []UID
	for _, b := range bases {
		if u, ok := m.list.uid([]byte(b)); ok {
			uids = append(uids, u)
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids)
}

// recordOverflow says in imapd-keywords what newcomers have, before their files
// come: a base name may have an old entry there.
func (m *Mailbox) recordOverflow(add []newcomer) error {
	var sets []keywords.Set
	for _, a := range add {
		if set, differs := m.keys.overflowSet([]byte(a.base), nil, a.marks); differs {
			sets = append(sets, set)
		}
	}
	return m.keys.enter(m.control, nil, sets)
}

// addOverflow gives messages, by base name, keywords that need no letter, beside
// those that they have: what another server kept where no file name says it. It
// returns the names for which there is no room. The lock and m.mu are held.
func (m *Mailbox) addOverflow(add map[string][]string) (dropped []string, err error) {
	if err := m.keys.read(m.control); err != nil {
		return nil, err
	}
	var names []string
	number := map[string]uint16{}
	var sets []keywords.Set
	for base, kws := range add {
		set := slices.Clone(m.keys.over.Of([]byte(base)))
		for _, k := range kws {
			n, ok := number[k]
			if !ok {
				i := m.keys.number(k, &names)
				if i < 0 {
					dropped = append(dropped, k)
					continue
				}
				n = uint16(i)
				number[k] = n
			}
			set = append(set, n)
		}
		slices.Sort(set)
		set = slices.Compact(set)
		if !slices.Equal(set, m.keys.over.Of([]byte(base))) {
			sets = append(sets, keywords.Set{Base: base, Numbers: set})
			m.keys.news.Bases = append(m.keys.news.Bases, base)
		}
	}
	slices.SortFunc(sets, keywords.Set.Compare)
	slices.Sort(dropped)
	if err := m.keys.enter(m.control, names, sets); err != nil {
		return nil, err
	}
	m.nudge()
	return slices.Compact(dropped), nil
}

// compactKeywords writes imapd-keywords anew if most of its lines mean nothing any
// more. A look under the lock has just published all that it found, which proves
// that the others are gone only where scans are atomic, or where events told of
// them: what these leave out has not changed.
func (m *Mailbox) compactKeywords(proof bool) {
	lines := m.keys.over.Lines()
	if lines < max(fewLines, m.keys.compactAt) {
		return
	}
	snap := m.Snapshot()
	live := 0
	for _, msg := range snap.Range(0, snap.Len()) {
		if len(m.keys.over.Of(msg.base())) > 0 {
			live++
		}
	}
	if m.keys.compactAt = 2 * (live + len(m.keys.over.Names())); lines < m.keys.compactAt {
		return
	}
	if err := m.list.load(m.control); err != nil {
		return
	}
	err := m.keys.over.Compact(m.control, func(base string) bool {
		u, listed := m.list.uid([]byte(base))
		if listed {
			_, listed = snap.lookup(u)
		}
		return listed || !proof
	})
	m.keys.compactAt = 2 * m.keys.over.Lines()
	if err != nil {
		m.host.opt.Log.Warn("cannot shorten the file of keywords", "mailbox", m.name, "err", err)
	}
}

// sayUnusable logs once that there is a file of keywords that is none.
func (m *Mailbox) sayUnusable() {
	say := func(t *trouble, what string) {
		if t.err != nil && !t.said {
			m.host.opt.Log.Warn(what, "mailbox", m.name, "err", t.err)
		}
		t.said = t.err != nil
	}
	say(&m.keys.letters, "keywords that have a letter are not served")
	say(&m.keys.beyond, "keywords beyond 26 are not served")
}

// fewLines is how long imapd-keywords may become before it is looked at whether it
// can be shorter.
const fewLines = 500
