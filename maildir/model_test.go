package maildir

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"imapd/maildir/tree"
	"imapd/maildir/uidlist"
)

// The model: what two mailboxes hold, without files, names, events or an index.
type (
	modelBox struct {
		list []*modelMessage
		next UID // above every UID that was given
	}
	modelMessage struct {
		uid   UID // 0: no process has looked yet
		base  string
		flags []string // sorted
		past  [][]string
		text  string // as on disk
		date  int64
	}
)

func (x *modelMessage) set(flags []string) { x.past, x.flags = append(x.past, x.flags), flags }

// containsAll reports whether all of part are in all.
func containsAll(all, part []string) bool {
	return !slices.ContainsFunc(part, func(s string) bool { return !slices.Contains(all, s) })
}

func (b *modelBox) byUID(u UID) *modelMessage {
	for _, m := range b.list {
		if m.uid == u && u != 0 {
			return m
		}
	}
	return nil
}

func (b *modelBox) remove(m *modelMessage) {
	b.list = slices.DeleteFunc(b.list, func(x *modelMessage) bool { return x == m })
}

var modelNames = []string{"INBOX", "Other"}

// A modelRun is one run of the model beside the real thing.
type modelRun struct {
	*rapid.T
	root     string
	locks    uidlist.Locks
	boxes    [2]modelBox
	hosts    [2]*modelHost
	sessions [3]*modelSession // two of the first host, one of the second
	files    int
}

// A modelHost is a process.
type modelHost struct {
	*Host
	boxes [2]*Mailbox
	seen  [2]witness
}

// A modelSession is a client that believes what it is told.
type modelSession struct {
	host, box int
	view      *Snapshot
	uids      []UID
}

// Commands of three sessions in two processes, and what another program does
// between them, leave the two mailboxes as the model says, and each session with
// the sequence numbers that it was told.
func TestModel(t *testing.T) {
	t.Parallel()
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		f.Value.Set(fmt.Sprint(longer(40, 2000)))
	}
	dir := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		m := newModelRun(rt, filepath.Join(dir, fmt.Sprint(runs)))
		defer m.end()
		rt.Repeat(map[string]func(*rapid.T){
			"":        func(rt *rapid.T) { m.T = rt },
			"append":  func(rt *rapid.T) { m.T = rt; m.append() },
			"store":   func(rt *rapid.T) { m.T = rt; m.store() },
			"store ":  func(rt *rapid.T) { m.T = rt; m.store() },
			"expunge": func(rt *rapid.T) { m.T = rt; m.expunge() },
			"copy":    func(rt *rapid.T) { m.T = rt; m.copy(false) },
			"move":    func(rt *rapid.T) { m.T = rt; m.copy(true) },
			"noop":    func(rt *rapid.T) { m.T = rt; m.check(m.session()) },
			"fetch":   func(rt *rapid.T) { m.T = rt; m.fetch() },
			"restart": func(rt *rapid.T) { m.T = rt; m.restart() },
			"deliver": func(rt *rapid.T) { m.T = rt; m.deliver() },
			"rename":  func(rt *rapid.T) { m.T = rt; m.renameFile() },
			"unlink":  func(rt *rapid.T) { m.T = rt; m.unlinkFile() },
		})
		for i := range m.sessions {
			m.check(m.sessions[i])
		}
	})
}

// longer returns how many runs there are: few, or as many as before a release.
func longer(few, many int) int {
	if os.Getenv("IMAPD_SOAK") != "" {
		return many
	}
	return few
}

func newModelRun(t *rapid.T, root string) *modelRun {
	m := &modelRun{T: t, root: root}
	for _, d := range []string{"cur", "new", "tmp"} {
		m.must(os.MkdirAll(filepath.Join(root, d), 0o700))
	}
	m.boxes[0].next, m.boxes[1].next = 1, 1
	for i := range m.hosts {
		m.hosts[i] = m.start(i)
	}
	if rapid.Bool().Draw(t, "keywords are plenty") {
		for _, b := range m.hosts[0].boxes { // one more has a bit, the other none
			m.must(b.nameKeywords(manyKeywords(bitKeywords - 1)))
		}
	}
	for i := range m.sessions {
		s := &modelSession{host: i / 2, box: rapid.IntRange(0, 1).Draw(t, "box")}
		s.enter(m)
		m.sessions[i] = s
	}
	return m
}

func (m *modelRun) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

func (m *modelRun) start(i int) *modelHost {
	h := &modelHost{Host: NewHost(Options{Fsync: FsyncNever, NoNotify: i == 1})}
	h.locks = &m.locks
	st, err := h.Open(tree.Config{Root: m.root, Separator: '/'})
	m.must(err)
	for k, name := range modelNames {
		h.boxes[k], err = st.Mailbox(context.Background(), name)
		if errors.Is(err, ErrNotFound) {
			m.must(st.Create(context.Background(), name))
			h.boxes[k], err = st.Mailbox(context.Background(), name)
		}
		m.must(err)
		h.boxes[k].ModSeqs()
		h.seen[k].gone = map[UID]bool{}
	}
	return h
}

func (m *modelRun) stop(h *modelHost) {
	for _, b := range h.boxes {
		b.Release()
	}
	m.must(h.Close())
}

func (m *modelRun) end() {
	for _, h := range m.hosts {
		m.stop(h)
	}
}

func (s *modelSession) mailbox(m *modelRun) *Mailbox { return m.hosts[s.host].boxes[s.box] }

// enter selects the session's mailbox.
func (s *modelSession) enter(m *modelRun) {
	s.view = s.mailbox(m).Snapshot()
	s.uids = nil
	for _, msg := range s.view.Range(0, s.view.Len()) {
		s.uids = append(s.uids, msg.UID)
	}
}

func (m *modelRun) session() *modelSession {
	return m.sessions[rapid.IntRange(0, len(m.sessions)-1).Draw(m.T, "session")]
}

// check has the session do NOOP: the process must find what the model says, and
// what the session is told must lead it to the same.
func (m *modelRun) check(s *modelSession) {
	m.Helper()
	mb, model := s.mailbox(m), &m.boxes[s.box]
	m.must(mb.Sync(context.Background(), Serve))
	snap := mb.Snapshot()
	m.meet(model, snap)
	var want []string
	for _, x := range model.list {
		want = append(want, fmt.Sprint(x.uid, " ", x.base, " ", strings.Join(x.flags, " ")))
	}
	slices.Sort(want)
	var got []string
	for _, msg := range snap.Range(0, snap.Len()) {
		names := snap.AppendFlagNames(nil, msg.Marks())
		slices.Sort(names)
		got = append(got, fmt.Sprint(msg.UID, " ", string(msg.base()), " ", strings.Join(names, " ")))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		m.Fatalf("%s of process %d holds\n%q, the model\n%q", modelNames[s.box], s.host, got, want)
	}
	m.must(m.hosts[s.host].seen[s.box].see(snap))
	m.advance(s, snap)
}

// meet gives the model the UIDs of messages that no process had seen before.
func (m *modelRun) meet(model *modelBox, snap *Snapshot) {
	m.Helper()
	top := model.next
	for _, x := range model.list {
		if x.uid != 0 {
			continue
		}
		for _, msg := range snap.Range(0, snap.Len()) {
			if string(msg.base()) == x.base {
				x.uid = msg.UID
			}
		}
		if x.uid != 0 && x.uid < model.next {
			m.Fatalf("%q got UID %d, the next was to be %d", x.base, x.uid, model.next)
		}
		top = max(top, x.uid+1)
	}
	model.next = top
}

// advance tells the session what has changed.
func (m *modelRun) advance(s *modelSession, snap *Snapshot) {
	m.Helper()
	hold := rapid.Bool().Draw(m.T, "hold")
	view, d, err := Advance(s.view, snap, hold)
	m.must(err)
	for i, k := range d.Gone {
		if s.uids[k] != d.GoneUIDs[i] {
			m.Fatalf("EXPUNGE %d is of UID %d, the client had UID %d there", k+1, d.GoneUIDs[i], s.uids[k])
		}
		s.uids = slices.Delete(s.uids, k, k+1)
	}
	for _, msg := range view.Range(view.Len()-d.Added, view.Len()) {
		s.uids = append(s.uids, msg.UID)
	}
	s.view = view
	for i, msg := range view.Range(0, view.Len()) {
		if i >= len(s.uids) || s.uids[i] != msg.UID {
			m.Fatalf("the client has %d, the view has UID %d at %d", s.uids, msg.UID, i+1)
		}
	}
	if view.Len() != len(s.uids) {
		m.Fatalf("the client has %d messages, the view %d", len(s.uids), view.Len())
	}
}

// flagSet draws flags.
func (m *modelRun) flagSet() FlagSet {
	f := FlagSet{System: Flags(rapid.IntRange(0, int(SystemFlags)).Draw(m.T, "flags"))}
	for _, k := range []string{"red", "blue"} {
		if rapid.IntRange(0, 3).Draw(m.T, k) == 0 {
			f.Keywords = append(f.Keywords, k)
		}
	}
	return f
}

func (f FlagSet) names() []string {
	var s Snapshot
	s.keywords = new(keywordTable)
	names := append(s.AppendFlagNames(nil, Marks{Flags: f.System}), f.Keywords...)
	slices.Sort(names)
	return names
}

func (m *modelRun) append() {
	s := m.session()
	mb, model := s.mailbox(m), &m.boxes[s.box]
	set := m.flagSet()
	lines := rapid.IntRange(0, 3).Draw(m.T, "lines")
	date := time.Unix(int64(rapid.IntRange(1, 2_000_000_000).Draw(m.T, "date")), 0)
	d, err := mb.NewMessage(context.Background())
	m.must(err)
	defer d.Abort()
	d.Write([]byte(strings.Repeat("line\r\n", lines)))
	_, uids, err := mb.Append(context.Background(), []Appending{{Delivery: d, Flags: set, Date: date}})
	m.must(err)
	msg, ok := mb.Snapshot().lookup(uids[0])
	if !ok {
		m.Fatalf("UID %d was given and is not there", uids[0])
	}
	m.meet(model, mb.Snapshot())
	if model.byUID(uids[0]) != nil || uids[0] < model.next {
		m.Fatalf("UID %d was given, the next was to be %d", uids[0], model.next)
	}
	model.next = uids[0] + 1
	model.list = append(model.list, &modelMessage{uid: uids[0], base: string(msg.base()), flags: set.names(), text: strings.Repeat("line\n", lines), date: date.Unix()})
}

// pick draws a message that the session's process knows.
func (m *modelRun) pick(s *modelSession) (Message, bool) {
	snap := s.mailbox(m).Snapshot()
	m.meet(&m.boxes[s.box], snap)
	if snap.Len() == 0 {
		return Message{}, false
	}
	return snap.At(rapid.IntRange(0, snap.Len()-1).Draw(m.T, "message")), true
}

func (m *modelRun) store() {
	s := m.session()
	msg, ok := m.pick(s)
	if !ok {
		return
	}
	mb, x := s.mailbox(m), m.boxes[s.box].byUID(msg.UID)
	op, set := FlagOp(rapid.IntRange(0, 2).Draw(m.T, "op")), m.flagSet()
	known := mb.Snapshot().flagSet(msg.Marks()).names()
	done, err := mb.SetFlags(context.Background(), []UID{msg.UID}, op, set)
	m.must(err)
	if x == nil {
		return // another program was faster
	}
	if slices.Equal(applied(op, known, set), known) && done.ModSeq == 0 {
		return // as far as this process knew there was nothing to do
	}
	x.set(applied(op, x.flags, set))
}

// applied returns the names of flags that op with set makes of flags.
func applied(op FlagOp, flags []string, set FlagSet) []string {
	var out []string
	names := set.names()
	if op != ReplaceFlags {
		for _, f := range flags {
			if op == AddFlags || !slices.Contains(names, f) {
				out = append(out, f)
			}
		}
	}
	if op != RemoveFlags {
		out = append(out, names...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (m *modelRun) expunge() {
	s := m.session()
	mb, model := s.mailbox(m), &m.boxes[s.box]
	snap := mb.Snapshot()
	gone, err := mb.Expunge(context.Background(), nil)
	m.must(err)
	next := model.next
	for _, u := range gone {
		x := model.byUID(u)
		if x == nil && u >= model.next { // found and expunged at once
			i := slices.IndexFunc(model.list, func(x *modelMessage) bool { return x.uid == 0 && m.path(s.box, x) == "" })
			if i >= 0 {
				x, next = model.list[i], u+1
			}
		}
		if x == nil || !slices.Contains(x.flags, `\Deleted`) {
			m.Fatalf("UID %d was expunged, the model has %+v", u, x)
		}
		model.remove(x)
	}
	m.meet(model, mb.Snapshot())
	model.next = max(model.next, next)
	for u := range snap.deleted() {
		if x := model.byUID(u); x != nil && slices.Contains(x.flags, `\Deleted`) {
			m.Fatalf("UID %d is still there after EXPUNGE", u)
		}
	}
}

func (m *modelRun) copy(move bool) {
	s := m.session()
	msg, ok := m.pick(s)
	if !ok {
		return
	}
	from, to := s.mailbox(m), m.hosts[s.host].boxes[1-s.box]
	x, model := m.boxes[s.box].byUID(msg.UID), &m.boxes[1-s.box]
	flags := from.Snapshot().flagSet(msg.Marks()).names()
	do := from.Copy
	if move {
		do = from.Move
	}
	done, err := do(context.Background(), []UID{msg.UID}, to)
	if x == nil {
		if !errors.Is(err, ErrGone) {
			m.Fatalf("a copy of a message that is gone: %v", err)
		}
		return
	}
	m.must(err)
	if move {
		flags = x.flags
		m.boxes[s.box].remove(x)
	}
	if done.Validity != to.Snapshot().Validity || !slices.Equal(done.From, []UID{msg.UID}) || len(done.To) != 1 {
		m.Fatalf("copied: %+v", done)
	}
	m.meet(model, to.Snapshot())
	target, ok := to.Snapshot().lookup(done.To[0])
	if !ok || target.UID < model.next {
		m.Fatalf("UID %d was given, the next was to be %d; it is there: %v", done.To[0], model.next, ok)
	}
	model.next = target.UID + 1
	if got := to.Snapshot().flagSet(target.Marks()).names(); !move {
		// What others have changed meanwhile may be in the copy, or a part of it.
		if !slices.Equal(got, flags) && !slices.Equal(got, x.flags) && !containsAll(slices.Concat(append(x.past, flags, x.flags)...), got) {
			m.Fatalf("a copy has the flags %q, the message had %q and has %q", got, flags, x.flags)
		}
		flags = got
	}
	model.list = append(model.list, &modelMessage{uid: target.UID, base: string(target.base()), flags: flags, text: x.text, date: x.date})
}

func (m *modelRun) fetch() {
	s := m.session()
	msg, ok := m.pick(s)
	if !ok {
		return
	}
	mb, x := s.mailbox(m), m.boxes[s.box].byUID(msg.UID)
	f, err := mb.OpenMessage(context.Background(), msg)
	if x == nil {
		if !errors.Is(err, ErrGone) {
			m.Fatalf("a message that is gone can be opened: %v", err)
		}
		return
	}
	m.must(err)
	defer f.Close()
	text := make([]byte, f.Size())
	f.ReadAt(text, 0)
	size, err := mb.Size(msg)
	m.must(err)
	date, err := mb.Date(msg)
	m.must(err)
	if string(text) != x.text || size != int64(len(x.text)+strings.Count(x.text, "\n")) || date.Unix() != x.date || f.Date().Unix() != x.date {
		m.Fatalf("UID %d is %q of %d octets at %d, the model has %+v", msg.UID, text, size, date.Unix(), x)
	}
}

// restart ends a process and begins another one.
func (m *modelRun) restart() {
	i := rapid.IntRange(0, 1).Draw(m.T, "process")
	if rapid.Bool().Draw(m.T, "calm") {
		time.Sleep(2 * localSettle)
		for _, b := range m.hosts[i].boxes {
			m.must(b.Sync(context.Background(), Look))
		}
	}
	seen := m.hosts[i].seen
	m.stop(m.hosts[i])
	m.hosts[i] = m.start(i)
	m.hosts[i].seen = seen
	for _, s := range m.sessions {
		if s.host == i {
			s.enter(m)
		}
	}
}

func (m *modelRun) dir(box int) string {
	if box == 0 {
		return m.root
	}
	return filepath.Join(m.root, ".Other")
}

func (m *modelRun) deliver() {
	box := rapid.IntRange(0, 1).Draw(m.T, "box")
	m.files++
	x := &modelMessage{base: fmt.Sprintf("16%08d.h", m.files), text: fmt.Sprintf("theirs %d\n", m.files), date: 1_500_000_000 + int64(m.files)}
	place, name := "new", x.base
	if rapid.Bool().Draw(m.T, "read before") {
		place, name, x.flags = "cur", name+":2,S", []string{`\Seen`}
	}
	tmp := filepath.Join(m.dir(box), "tmp", x.base)
	m.must(os.WriteFile(tmp, []byte(x.text), 0o600))
	m.must(os.Chtimes(tmp, time.Time{}, time.Unix(x.date, 0)))
	m.must(os.Rename(tmp, filepath.Join(m.dir(box), place, name)))
	m.boxes[box].list = append(m.boxes[box].list, x)
}

// file draws a message and returns where its file is.
func (m *modelRun) file() (box int, x *modelMessage, path string) {
	box = rapid.IntRange(0, 1).Draw(m.T, "box")
	list := m.boxes[box].list
	if len(list) == 0 {
		return box, nil, ""
	}
	x = list[rapid.IntRange(0, len(list)-1).Draw(m.T, "message")]
	if path = m.path(box, x); path == "" {
		m.Fatalf("no file of %+v", x)
	}
	return box, x, path
}

// path returns where the file of x is, empty if it has none.
func (m *modelRun) path(box int, x *modelMessage) string {
	for _, place := range []string{"cur", "new"} {
		for _, pattern := range []string{x.base, x.base + ":*"} {
			if l, _ := filepath.Glob(filepath.Join(m.dir(box), place, pattern)); len(l) > 0 {
				return l[0]
			}
		}
	}
	return ""
}

func (m *modelRun) renameFile() {
	box, x, path := m.file()
	if x == nil {
		return
	}
	f := Flags(rapid.IntRange(0, int(SystemFlags)).Draw(m.T, "flags"))
	name := withFlags(filepath.Base(path), f|parseFlags(filepath.Base(path))&^SystemFlags)
	m.must(os.Rename(path, filepath.Join(m.dir(box), "cur", name)))
	flags := slices.DeleteFunc(slices.Clone(x.flags), func(s string) bool { return s[0] == '\\' })
	flags = append(flags, FlagSet{System: f}.names()...)
	slices.Sort(flags)
	x.set(flags)
}

func (m *modelRun) unlinkFile() {
	box, x, path := m.file()
	if x == nil {
		return
	}
	m.must(os.Remove(path))
	m.boxes[box].remove(x)
}
