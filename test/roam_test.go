package test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// A roam is a Maildir on which clients work that come and go, beside another program,
// and whose servers and indexes meet with what they may meet.
type roam struct {
	*world
	seed    uint64
	rand    *rand.Rand
	folders map[string]string // the directory of each mailbox
	// apart says that each client has a process of its own, as inetd starts them, but
	// for the first one, which the standalone server serves.
	apart   bool
	server  *peer.Server
	dead    atomic.Bool // the server was killed
	clients []*roamer
	unknown atomic.Int64 // how often NOMODSEQ was said
	checked int          // how many mailboxes were found as they are
	happens []string     // what was done between the rounds

	mu    sync.Mutex
	told  map[string]uint64            // the highest modseq told of each mailbox
	bases map[string]map[uint32]string // the file that each UID stands for

	back map[string][]string // the base names that came back to a directory since servers have looked

	before  map[string]savedIndex
	answers atomic.Int64
	killAt  int64
}

// roamed are the mailboxes that clients keep.
var roamed = []string{"INBOX", "Work"}

// A savedIndex is an imapd.index of earlier.
type savedIndex struct {
	text []byte
	time time.Time
}

// roamLength is how long clients roam in each mode, or 0: for one seed.
func roamLength() time.Duration {
	if soaking() {
		return time.Minute
	}
	return 0
}

// TestRoamers holds that whatever becomes of the servers and of imapd.index, a client
// with QRESYNC that comes back ends with the messages and flags that are there, each
// modseq is above what was told before, and no UID changes its message. IMAPD_SEED is the
// seed to begin with; what is drawn depends on it alone, which of those at work comes
// first does not.
func TestRoamers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		apart bool
	}{{"daemon", false}, {"processes", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			begin, seed := time.Now(), uint64(1)
			if soaking() {
				seed = uint64(begin.UnixNano())
			}
			if text := os.Getenv("IMAPD_SEED"); text != "" {
				seed = uint64(number(text))
			}
			for first := true; first || time.Since(begin) < roamLength() && !t.Failed(); first = false {
				t.Run(fmt.Sprint(seed), func(t *testing.T) { newRoam(t, seed, tt.apart).run(6) })
				seed++
			}
		})
	}
}

func newRoam(t *testing.T, seed uint64, apart bool) *roam {
	w := &roam{world: newWorld(t, 12), seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), apart: apart,
		told: map[string]uint64{}, bases: map[string]map[uint32]string{"INBOX": {}, "Work": {}},
		before: map[string]savedIndex{}, back: map[string][]string{}}
	w.folders = map[string]string{"INBOX": w.dir, "Work": filepath.Join(w.dir, ".Work")}
	for _, dir := range w.folders {
		if err := os.Mkdir(filepath.Join(dir, "away"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		w.clients = append(w.clients, w.roamer(i))
	}
	return w
}

// run has clients work and the servers suffer, by turns.
func (w *roam) run(rounds int) {
	defer w.report()
	for round := range rounds + 1 {
		for _, x := range w.clients {
			if x.conn == nil && w.rand.IntN(4) > 0 {
				w.admit(x)
			}
		}
		for _, x := range w.clients {
			w.compare(x)
		}
		w.settled()
		if w.Failed() || round == rounds {
			break
		}
		w.work(round)
		w.upset()
	}
}

// report has all clients leave, and says how it went.
func (w *roam) report() {
	for _, x := range w.clients {
		x.leave()
	}
	w.Logf("%d times a mailbox was as its client knew it, %d times NOMODSEQ", w.checked, w.unknown.Load())
	if w.Failed() {
		w.Logf("seed %d: %s", w.seed, strings.Join(w.happens, "; "))
		for _, x := range w.clients {
			w.Logf("%s:\n%s", x.name, x.log.text)
		}
	}
}

// admit connects x to a server.
func (w *roam) admit(x *roamer) {
	if w.server == nil {
		w.server = peer.Imapd(w, w.dir, peer.Options{})
	}
	if !w.apart || x == w.clients[0] {
		pid := w.server.PID
		x.kill, x.wait = func() {
			w.dead.Store(true)
			syscall.Kill(pid, syscall.SIGKILL)
		}, func() {}
		conn, err := w.server.Dial()
		if err != nil {
			w.Fatal(err)
		}
		x.connect(conn)
		return
	}
	conn, process, err := w.server.Inetd(w)
	if err != nil {
		w.Fatal(err)
	}
	x.kill, x.wait = func() { process.Process.Kill() }, sync.OnceFunc(func() { process.Wait() })
	x.connect(conn)
}

// work has everybody at work at the same time, at times until servers are killed.
func (w *roam) work(round int) {
	w.answers.Store(0)
	w.killAt = 0
	if w.rand.IntN(2) == 0 {
		w.killAt = 1 + w.rand.Int64N(60)
	}
	var all sync.WaitGroup
	for _, x := range w.clients {
		all.Go(func() {
			for i := 0; i < 12 && x.conn != nil; i++ {
				x.act()
			}
		})
	}
	all.Go(func() { w.disturb(rand.New(rand.NewPCG(w.seed, uint64(100+round))), w.rand.IntN(25)) })
	all.Wait()
	w.killAt = 0
}

// answered counts an answer. After some of them servers are killed.
func (w *roam) answered() {
	if w.answers.Add(1) != w.killAt {
		return
	}
	for i, x := range w.clients {
		if !w.apart || (w.seed+uint64(w.killAt))>>i&1 == 0 {
			x.doomed.Store(true)
			x.kill()
		}
	}
}

// disturb does n things that another program does, without the lock. It takes some
// messages away and brings them back under their old names.
func (w *roam) disturb(r *rand.Rand, n int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range n {
		<-tick.C
		dir := w.folders[roamed[r.IntN(2)]]
		from := filepath.Join(dir, []string{"cur", "cur", "cur", "cur", "away"}[r.IntN(5)])
		entries, err := os.ReadDir(from)
		if err != nil {
			w.Error(err)
			return
		}
		if r.IntN(60) == 0 {
			w.forgetAway(dir)
			os.Remove(filepath.Join(dir, "imapd.index")) // if it is there
		}
		if r.IntN(8) == 0 {
			drop(w, dir, strings.ReplaceAll(w.text("lda"), "\r\n", "\n"))
			continue
		}
		if len(entries) == 0 {
			continue
		}
		name := entries[r.IntN(len(entries))].Name()
		base, _, _ := strings.Cut(name, ":2,")
		flagged := base + ":2," + []string{"", "S", "F", "FS", "RS"}[r.IntN(5)]
		switch r.IntN(8) {
		case 0:
			err = os.Remove(filepath.Join(from, name))
		case 1:
			err = os.Rename(filepath.Join(from, name), filepath.Join(dir, "away", flagged))
		default:
			if filepath.Base(from) == "away" {
				w.back[dir] = append(w.back[dir], base)
			}
			err = os.Rename(filepath.Join(from, name), filepath.Join(dir, "cur", flagged))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.Error(err)
		}
	}
}

// forgetAway has the other program never bring back what it has taken away, and take
// again what it has just brought back. Once the index is lost nobody knows that a client
// was told of that, and the list of UIDs would give the messages the UIDs which they had.
func (w *roam) forgetAway(dir string) {
	away := filepath.Join(dir, "away")
	err := os.RemoveAll(away)
	if err == nil {
		err = os.Mkdir(away, 0o700)
	}
	for _, base := range w.back[dir] {
		names, _ := filepath.Glob(filepath.Join(dir, "cur", base+":2,*"))
		for _, name := range names {
			if gone := os.Remove(name); !errors.Is(gone, fs.ErrNotExist) {
				err = errors.Join(err, gone)
			}
		}
	}
	delete(w.back, dir)
	if err != nil {
		w.Error(err)
	}
}

// note notes that a modseq was told.
func (w *roam) note(box string, modseq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told[box] = max(w.told[box], modseq)
}

// upset does to servers and indexes what may happen to them.
func (w *roam) upset() {
	did := []string{}
	for _, x := range w.clients {
		switch w.rand.IntN(6) {
		case 0:
			x.cut()
		case 1:
			x.leave()
		}
	}
	if w.server != nil && (w.dead.Load() || w.rand.IntN(2) == 0) {
		did = append(did, w.end())
	}
	for _, box := range roamed {
		path := filepath.Join(w.folders[box], "imapd.index")
		if what := w.spoil(box, path); what != "" {
			did = append(did, what)
		}
		info, err := os.Stat(path)
		if err == nil && w.rand.IntN(3) == 0 {
			text := []byte(read(w.T, path))
			w.before[box] = savedIndex{text, info.ModTime()}
		}
	}
	w.happens = append(w.happens, fmt.Sprint(did))
}

// end ends all processes, in one way or another.
func (w *roam) end() string {
	what := "an end"
	if w.dead.Load() {
		what = "a kill at work"
	} else if w.rand.IntN(2) == 0 {
		what = "a kill"
		for _, x := range w.clients {
			if x.conn != nil {
				x.doomed.Store(true)
				x.kill()
			}
		}
	}
	for _, x := range w.clients {
		x.leave()
	}
	w.server.Stop()
	w.server = nil
	w.dead.Store(false)
	return what
}

// spoil does something to the index of a mailbox, perhaps, and says what.
func (w *roam) spoil(box, path string) (what string) {
	old, any := w.before[box]
	n := w.rand.IntN(8)
	if n > 2 || n > 0 && !any || n == 2 && w.server != nil {
		return ""
	}
	w.forgetAway(filepath.Dir(path))
	var err error
	switch n {
	case 0:
		what = "the loss"
		err = os.Remove(path)
	case 1:
		what = "an old one in the place"
		w.put(path+".old", old)
		err = os.Rename(path+".old", path)
	case 2:
		what = "an old one written over that"
		w.put(path, old)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.Error(err)
	}
	return what + " of " + box
}

// put writes an index as cp -a does.
func (w *roam) put(path string, old savedIndex) {
	err := os.WriteFile(path, old.text, 0o600)
	if err == nil {
		err = os.Chtimes(path, old.time, old.time)
	}
	if err != nil {
		w.Error(err)
	}
	peer.Own(w, path)
}

// compare has x come back to both mailboxes and holds what it knows of them against
// what a new session sees.
func (w *roam) compare(x *roamer) {
	for _, box := range roamed {
		if x.conn == nil {
			return
		}
		if x.box == box && w.rand.IntN(2) == 0 {
			if !x.do("NOOP") || !x.learn() {
				return
			}
		} else {
			told, validity := w.told[box], x.caches[box].Validity
			if !x.enter(box) {
				return
			}
			if !x.plain && x.high < told && x.caches[box].Validity == validity {
				x.wrong("HIGHESTMODSEQ of %s is %d, and %d was told before", box, x.high, told)
			}
		}
		if diff := cmp.Diff(w.fresh(box), x.caches[box].Flags); diff != "" {
			x.wrong("%s (-there +known):\n%s", box, diff)
			return
		}
		w.checked++
	}
}

// fresh returns the flags of the messages of a mailbox, by UID, as a client without a
// past sees them.
func (w *roam) fresh(box string) map[uint32]string {
	dial := w.server.Dial
	if w.apart && w.rand.IntN(2) == 0 {
		dial = func() (net.Conn, error) {
			conn, process, err := w.server.Inetd(w)
			if err == nil {
				w.Cleanup(func() { process.Wait() })
			}
			return conn, err
		}
	}
	conn, err := dial()
	if err != nil {
		w.Fatal(err)
	}
	defer conn.Close()
	c := w.server.LoginOn(w, conn, peer.User)
	c.Do("SELECT %s", box)
	all := map[uint32]string{}
	for _, r := range c.Do("UID FETCH 1:* (FLAGS)") {
		if uid := number(first(fetchUID, r.Text)); uid > 0 {
			all[uint32(uid)] = strings.Join(flags(strings.Fields(first(fetchFlag, r.Text))), " ")
		}
	}
	return all
}

// settled holds that what a new session sees is what the files are, and that UIDs
// stand for the files for which they have always stood.
func (w *roam) settled() {
	if w.Failed() || w.server == nil {
		return
	}
	letters := map[string]string{`\Seen`: "S", `\Flagged`: "F", `\Answered`: "R", `\Draft`: "D", `\Deleted`: "T"}
	for box, dir := range w.folders {
		seen, there := map[int]string{}, onDisk(w.T, dir)
		for uid, names := range w.fresh(box) {
			var all []string
			for _, name := range strings.Fields(names) {
				all = append(all, letters[name])
			}
			slices.Sort(all)
			seen[int(uid)] = strings.Join(all, "")
		}
		for uid, all := range there {
			there[uid] = strings.TrimRight(all, "abcdefghijklmnopqrstuvwxyz")
		}
		if diff := cmp.Diff(there, seen); diff != "" {
			w.Errorf("%s (-files +session):\n%s", box, diff)
		}
		for base, uid := range uidsByBase(w.T, dir) {
			if was, ok := w.bases[box][uid]; ok && was != base {
				w.Errorf("UID %d of %s was %s and is %s", uid, box, was, base)
			}
			w.bases[box][uid] = base
		}
	}
	clear(w.back)
}
