package test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// duration is how long the tests of this file disturb a Maildir.
func duration() time.Duration {
	if soaking() {
		return 10 * time.Minute
	}
	return 8 * time.Second
}

// A worker changes messages that nobody else changes, and knows what must have
// become of them.
type worker struct {
	*mirror
	rand *rand.Rand
	own  map[int]*message // in INBOX
	work map[int]*message // in Work
	done int              // commands
}

var stored = []string{`\Answered`, `\Flagged`, `\Seen`, `\Draft`, "$Forwarded", "urgent", "later"}

var uidCode = regexp.MustCompile(`\[(?:APPENDUID|COPYUID) \d+ (?:\d+ )?(\d+)\]`)

// run changes the mailbox at full speed until the world stops.
func (k *worker) run() {
	for !k.stop.Load() {
		uids := slices.Sorted(maps.Keys(k.own))
		i := k.rand.IntN(len(uids))
		uid := uids[i]
		switch n := k.rand.IntN(20); {
		case n < 4:
			k.append()
		case n < 6:
			k.copy(uid)
		case n < 7:
			k.move(uid)
		case n < 8:
			k.expunge(uid)
		case n < 14:
			k.store(uids[i : i+1])
		default:
			k.store(uids[i:min(i+300, len(uids))])
		}
		k.done++
	}
}

// must asks for something that has no reason to fail.
func (k *worker) must(format string, args ...any) string {
	said, answer := k.ask(format, args...)
	if !strings.HasPrefix(answer, "OK") {
		k.Errorf("%s: %.80s: %s", k.name, fmt.Sprintf(format, args...), answer)
	}
	for _, r := range said {
		answer += r.Text // where MOVE has its COPYUID
	}
	return answer
}

func (k *worker) append() {
	text, flags := k.text(k.name), k.someFlags()
	answer := k.must("APPEND INBOX (%s) %s", strings.Join(flags, " "), peer.Literal(text))
	k.own[k.uidIn(answer)] = &message{BodyHash: hash(text), Flags: flags}
}

// uidIn returns the UID that APPENDUID or COPYUID gives.
func (k *worker) uidIn(answer string) int {
	uid := number(first(uidCode, answer))
	if uid == 0 {
		k.Errorf("%s: no UID in %s", k.name, answer)
	}
	return uid
}

func (k *worker) someFlags() []string {
	return slices.DeleteFunc(slices.Clone(stored), func(string) bool { return k.rand.IntN(3) > 0 })
}

// store changes the flags of some messages, one or hundreds.
func (k *worker) store(uids []int) {
	f := k.someFlags()
	op := []string{"", "+", "-"}[k.rand.IntN(3)]
	var set []string
	for _, uid := range uids {
		set = append(set, strconv.Itoa(uid))
	}
	k.must("UID STORE %s %sFLAGS.SILENT (%s)", strings.Join(set, ","), op, strings.Join(f, " "))
	for _, uid := range uids {
		m := k.own[uid]
		m.Flags = slices.DeleteFunc(slices.Clone(m.Flags), func(x string) bool { return op == "" || slices.Contains(f, x) })
		if op != "-" {
			m.Flags = append(m.Flags, f...)
		}
	}
}

func (k *worker) copy(uid int) {
	m := *k.own[uid]
	k.work[k.uidIn(k.must("UID COPY %d Work", uid))] = &m
}

func (k *worker) move(uid int) {
	if k.pinned(uid) {
		return
	}
	k.gone.Store(uid, true)
	k.work[k.uidIn(k.must("UID MOVE %d Work", uid))] = k.own[uid]
	delete(k.own, uid)
}

func (k *worker) expunge(uid int) {
	if k.pinned(uid) {
		return
	}
	k.must(`UID STORE %d +FLAGS.SILENT (\Deleted)`, uid)
	k.gone.Store(uid, true)
	k.must("UID EXPUNGE %d", uid)
	delete(k.own, uid)
}

// pinned reports whether a message was there at the beginning: these stay.
func (k *worker) pinned(uid int) bool {
	_, first := k.kept.Load(k.own[uid].BodyHash)
	return first
}

// TestBeside holds that our server and a Dovecot, or another process of ours,
// can work on one Maildir at the same time, with deliveries going on: nobody is
// told of a message that is gone which is not, no UID changes its message, no
// change of a flag is lost, and in the end both see the same.
func TestBeside(t *testing.T) {
	t.Parallel()
	peer.Each(t, func(t *testing.T, start peer.Starter) {
		w := newWorld(t, 2500)
		w.beside(peer.Imapd(t, w.dir, peer.Options{}), start(t, w.dir, peer.Options{}))
	})
}

func (w *world) beside(ours, other *peer.Server) {
	before := askMailbox(other.Login(w, other.User), "INBOX")
	if len(before.Messages) != 2504 {
		w.Fatalf("%d messages at the beginning", len(before.Messages))
	}
	var workers []*worker
	for i, s := range []*peer.Server{ours, other} {
		k := &worker{mirror: w.mirror(s, "worker"), rand: rand.New(rand.NewPCG(1, uint64(i))), own: map[int]*message{}, work: map[int]*message{}}
		for _, m := range before.Messages {
			if m.UID%2 == i {
				k.own[m.UID] = &message{BodyHash: m.BodyHash, Flags: m.Flags}
				w.kept.Store(m.BodyHash, true)
			}
		}
		workers = append(workers, k)
	}
	var all sync.WaitGroup
	for _, k := range workers {
		all.Go(k.run)
	}
	watchers := []*mirror{w.mirror(ours, "watcher"), w.mirror(other, "watcher"), w.mirror(ours, "idler"), w.mirror(other, "idler")}
	for i, m := range watchers {
		if i < 2 {
			all.Go(m.watch)
		} else {
			all.Go(m.idle)
		}
	}
	var dropped int
	all.Go(func() { dropped = w.deliveries(50 * time.Millisecond) })
	<-time.After(duration())
	w.stop.Store(true)
	all.Wait()
	w.Logf("%d commands here, %d at the other %s; %d deliveries", workers[0].done, workers[1].done, other.Kind, dropped)
	if w.Failed() {
		return
	}
	w.compare(ours, other, before, workers, watchers, dropped)
	for _, s := range []*peer.Server{ours, other} {
		uncomplaining(w.T, s)
	}
}

// uncomplaining holds that a server has found nothing wrong with its mail.
func uncomplaining(t *testing.T, s *peer.Server) {
	t.Helper()
	for line := range strings.Lines(s.Log()) {
		// How many may watch is for the machine to say, not for the mail.
		if complaint.MatchString(line) && !strings.Contains(line, "Inotify instance limit") {
			t.Errorf("%s complains: %s", s.Kind, line)
		}
	}
}

var complaint = regexp.MustCompile(`(?i)warning|error|panic|fatal|mending|went back|cannot|refused`)

// watch asks for news at full speed.
func (m *mirror) watch() {
	for !m.stop.Load() {
		m.ask("NOOP")
	}
}

// idle waits for news, and asks for the rest of it when there is some.
func (m *mirror) idle() {
	for !m.stop.Load() {
		m.Send("i IDLE")
		m.Wait("+ ")
		var said []peer.Response
		for line := ""; !strings.HasSuffix(line, "EXISTS") && !strings.HasSuffix(line, "EXPUNGE"); {
			r := m.Wait("* ")
			line, said = r.Text, append(said, r)
		}
		m.Send("DONE")
		for r := m.Wait(""); !strings.HasPrefix(r.Text, "i OK"); r = m.Wait("") {
			said = append(said, r)
		}
		m.take(said)
		m.ask("NOOP")
	}
}

// deliveries delivers every so often until the world stops, and once more, so
// that those who idle wake up; it returns how many there were.
func (w *world) deliveries(every time.Duration) int {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		last := w.stop.Load()
		text := w.text("lda")
		w.kept.Store(hash(text), true)
		drop(w, w.dir, strings.ReplaceAll(text, "\r\n", "\n"))
		if last {
			return n
		}
		<-tick.C
	}
}

// compare holds that both servers, the clients and those who made the changes
// agree in the end on what there is.
func (w *world) compare(ours, other *peer.Server, before mailbox, workers []*worker, watchers []*mirror, dropped int) {
	w.Helper()
	for _, name := range []string{"INBOX", "Work"} {
		c := ours.Login(w, ours.User)
		c.Do("SELECT %s", name) // gives UIDs to the last deliveries
		got := askMailbox(c, name)
		if diff := cmp.Diff(got, askMailbox(other.Login(w, other.User), name)); diff != "" {
			w.Errorf("%s (-ours +other):\n%s", name, diff)
		}
		byUID := map[int]message{}
		hashes := map[string]int{}
		for _, m := range got.Messages {
			byUID[m.UID] = m
			hashes[m.BodyHash]++
		}
		want := 1 // Work had one message, INBOX gets the deliveries
		if name == "INBOX" {
			want = dropped
			w.kept.Range(func(h, _ any) bool {
				if hashes[h.(string)] != 1 {
					w.Errorf("a message is there %d times", hashes[h.(string)])
				}
				return true
			})
			if got.UIDValidity != before.UIDValidity {
				w.Errorf("UIDVALIDITY was %d and is %d", before.UIDValidity, got.UIDValidity)
			}
		}
		for _, k := range workers {
			own := k.own
			if name == "Work" {
				own = k.work
			}
			want += len(own)
			for uid, m := range own {
				if has := byUID[uid]; has.BodyHash != m.BodyHash || !slices.Equal(has.Flags, flags(m.Flags)) {
					w.Errorf("%s: UID %d of the %s has the flags %q and the text %.8s, not %q and %.8s", name, uid, k.name, has.Flags, has.BodyHash, flags(m.Flags), m.BodyHash)
				}
			}
		}
		if len(got.Messages) != want {
			w.Errorf("%s has %d messages, want %d", name, len(got.Messages), want)
		}
		if name == "INBOX" {
			for _, m := range append(watchers, workers[0].mirror, workers[1].mirror) {
				m.ask("NOOP")
				m.ask("NOOP")
				if !slices.Equal(m.uids, slices.Sorted(maps.Keys(byUID))) {
					w.Errorf("%s believes in %d messages, there are %d", m.name, len(m.uids), len(byUID))
				}
			}
		}
	}
}

// TestUnlockedRenames holds that a program that renames messages all the time
// without any lock, as mail readers do, costs no message its UID.
func TestUnlockedRenames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3000)
	s := peer.Imapd(t, w.dir, peer.Options{})
	before := askMailbox(s.Login(t, s.User), "INBOX")
	watchers := []*mirror{w.mirror(s, "watcher"), w.mirror(s, "second watcher")}
	storer := w.mirror(s, "storer")
	var all sync.WaitGroup
	for _, m := range watchers {
		all.Go(m.watch)
	}
	all.Go(func() {
		for uid := 10; !w.stop.Load(); uid++ {
			if _, answer := storer.ask("UID STORE %d FLAGS (later)", uid); !strings.HasPrefix(answer, "OK") {
				t.Errorf("STORE: %s", answer)
			}
		}
	})
	renames := 0
	all.Go(func() { renames = w.rename() })
	<-time.After(duration())
	w.stop.Store(true)
	all.Wait()
	after := askMailbox(s.Login(t, s.User), "INBOX")
	t.Logf("%d renames", renames)
	for i := range before.Messages {
		before.Messages[i].Flags = nil
	}
	for i := range after.Messages {
		after.Messages[i].Flags = nil
	}
	before.Unseen, after.Unseen = 0, 0
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	for _, m := range watchers {
		if m.ask("NOOP"); len(m.uids) != len(before.Messages) {
			t.Errorf("%s believes in %d messages", m.name, len(m.uids))
		}
	}
}

// rename gives the messages other flags by turns until the world stops, and
// returns how often.
func (w *world) rename() (n int) {
	cur := filepath.Join(w.dir, "cur")
	for i := 0; !w.stop.Load(); i++ {
		entries, err := os.ReadDir(cur)
		if err != nil {
			w.Error(err)
			return n
		}
		for _, e := range entries {
			base, _, _ := strings.Cut(e.Name(), ":2,")
			if os.Rename(filepath.Join(cur, e.Name()), filepath.Join(cur, base+":2,"+[]string{"F", "S", "FS", ""}[i%4])) == nil {
				n++
			}
			if w.stop.Load() {
				break
			}
		}
	}
	return n
}
