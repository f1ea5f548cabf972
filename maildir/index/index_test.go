package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

// memory is a Source.
type memory []memoryPage

type memoryPage struct {
	recs    []Record
	names   []byte
	written *Names
}

func (m memory) Pages(yield func([]Record, int, func() ([]byte, error)) error) error {
	for _, p := range m {
		if err := yield(p.recs, len(p.names), func() ([]byte, error) { return p.names, nil }); err != nil {
			return err
		}
	}
	return nil
}

func (m memory) Order() []uint32 { return nil }

func (m memory) Written(page int, names *Names) { m[page].written = names.Of(m[page].recs) }

// messages returns n messages in pages.
func messages(n int) (m memory) {
	for uid := uint32(1); int(uid) <= n; uid++ {
		if len(m) == 0 || len(m[len(m)-1].recs) == PageLen {
			m = append(m, memoryPage{})
		}
		p := &m[len(m)-1]
		name := fmt.Sprintf("17%08d.host:2,S", uid)
		p.recs = append(p.recs, Record{
			UID: uid, NameOff: uint16(len(p.names)), NameLen: uint8(len(name)), BaseLen: uint8(len(name) - 4),
			Flags: uint64(uid) << 3, Mod: uint64(uid)*3 | uint64(uid%2)*InNew,
			Facts: Facts{Date: uid, Size: 2 * uid, Virtual: 3*uid | Counted, Saved: 4 * uid},
		})
		p.names = append(p.names, name...)
	}
	return m
}

func newFile(t *testing.T) *File {
	t.Helper()
	dir, err := vfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &File{Dir: dir}
	t.Cleanup(func() {
		f.Close()
		dir.Close()
	})
	return f
}

func lock(t *testing.T, f *File) {
	t.Helper()
	if err := f.Lock(context.Background()); err != nil {
		t.Fatal(err)
	}
}

var (
	folder = Folder{Validity: 7, GUID: "0123456789abcdef0123456789abcdef", Ino: 99, Line: 5}
	state  = State{ModSeq: 5000, Ceiling: 6000, Since: 3, Boot: [16]byte{1, 2}, Clean: true, Next: 9000, Recent: 17, Stamp: Stamp{1, 2, 14: 3}, Limit: 8000}
	gone   = []Range{{3, 9, 100}, {20, 20, 101}}
)

// What Tail has not seen of the journal is not cut off.
func TestAppendBehindOthers(t *testing.T) {
	t.Parallel()
	f := written(t, 3)
	g := &File{Dir: f.Dir}
	defer g.Close()
	if _, err := g.Load(); err != nil {
		t.Fatal(err)
	}
	var first, second Batch
	first.Gone(Range{1, 1, 50})
	second.Gone(Range{2, 2, 51})
	if err := f.Append(&first, true); err != nil {
		t.Fatal(err)
	}
	f.Unlock()
	lock(t, g)
	if err := g.Append(&second, true); !errors.Is(err, ErrReplaced) {
		t.Errorf("appended behind what was not read: %v", err)
	}
	events, err := g.Tail(true)
	if err != nil || len(events) != 1 || g.Torn {
		t.Fatalf("%+v, torn: %v, %v", events, g.Torn, err)
	}
	if err := g.Append(&second, true); err != nil {
		t.Fatal(err)
	}
	img, err := f.Load()
	if err != nil || len(img.Tail) != 2 || img.Torn {
		t.Errorf("%+v, torn: %v, %v", img.Tail, img.Torn, err)
	}
}

// traced notes when the index is opened for writing and closed, and when its lock is
// given back.
type traced struct {
	vfs.Dir
	calls *[]string
}

func (d traced) Append(name string) (vfs.File, error) {
	*d.calls = append(*d.calls, "open")
	f, err := d.Dir.Append(name)
	return tracedFile{f, d.calls}, err
}

func (d traced) Update(name string) (vfs.File, error) {
	f, err := d.Dir.Update(name)
	return tracedFile{f, d.calls}, err
}

type tracedFile struct {
	vfs.File
	calls *[]string
}

func (f tracedFile) Unlock() error {
	*f.calls = append(*f.calls, "unlock")
	return f.File.Unlock()
}

func (f tracedFile) Close() error {
	*f.calls = append(*f.calls, "close")
	return f.File.Close()
}

// An index on a file server is opened after its lock was taken, for that has the host
// ask how long it is, and closed before the lock is given back, for that has it write.
func TestFar(t *testing.T) {
	t.Parallel()
	near := written(t, 1)
	near.Unlock()
	var calls []string
	f := &File{Dir: traced{near.Dir, &calls}, Far: true}
	if _, err := f.Load(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		lock(t, f)
		calls = append(calls, "hold")
		var b Batch
		b.Gone(Range{1, 1, 50})
		if err := errors.Join(f.Append(&b, false), f.Append(&b, false)); err != nil {
			t.Fatal(err)
		}
		f.Unlock()
	}
	once := []string{"open", "hold", "close", "unlock"}
	if want := slices.Concat(once, once); !slices.Equal(calls, want) {
		t.Errorf("%q, want %q", calls, want)
	}
	f.Close()
}

// An index that is written anew without the lock has what was appended meanwhile.
// Only one process at a time writes one, and none takes the place of another index
// than it was made of.
func TestDraft(t *testing.T) {
	t.Parallel()
	f := written(t, 3)
	g := &File{Dir: f.Dir}
	defer g.Close()
	if _, err := g.Load(); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	gone := func(x *File, uid uint32) {
		t.Helper()
		var b Batch
		b.Gone(Range{uid, uid, 50})
		must(x.Append(&b, false))
	}
	draft := func(x *File) *Draft {
		t.Helper()
		d, err := x.Draft(folder, &state, nil, messages(3))
		must(err)
		return d
	}
	tmp := f.Dir.Path() + "/" + tmpName
	must(os.WriteFile(tmp, []byte("left by a crash"), 0o600))
	gone(f, 1)
	d := draft(f)
	f.Unlock()
	lock(t, g)
	if _, err := g.Draft(folder, &state, nil, messages(3)); !errors.Is(err, ErrLocked) {
		t.Errorf("two write at a time: %v", err)
	}
	_, err := g.Tail(true)
	must(err)
	gone(g, 2)
	g.Unlock()
	d.Write()
	lock(t, f)
	_, err = f.Tail(true)
	must(err)
	must(f.Install(d))
	gone(f, 3)
	if img, err := f.Load(); err != nil || img.Torn || len(img.Pages) != 1 || len(img.Tail) != 2 || img.Tail[0].Range.From != 2 || img.Tail[1].Range.From != 3 {
		t.Errorf("%+v, %v", img, err)
	}
	d = draft(f)
	f.Unlock()
	d.Write()
	lock(t, g)
	_, err = g.Load()
	must(err)
	must(g.Replace(folder, &state, nil, messages(2)))
	g.Unlock()
	lock(t, f)
	if err := f.Install(d); !errors.Is(err, ErrReplaced) {
		t.Errorf("another index was replaced: %v", err)
	}
	if img, err := f.Load(); err != nil || len(img.Pages[0].Recs) != 2 {
		t.Errorf("%+v, %v", img, err)
	}
	d = draft(f)
	d.Write()
	f.Discard(d)
	if _, err := os.Stat(tmp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the draft is there: %v", err)
	}
}

// A journal whose index could not be written anew once is long no later than others
// once it could.
func TestDefer(t *testing.T) {
	t.Parallel()
	f := written(t, 1)
	grow := func() (n int) {
		for ; !f.JournalIsLong(false); n++ {
			var b Batch
			b.Gone(Range{1, 1, 50})
			if err := f.Append(&b, false); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	first := grow()
	f.Defer()
	if n := grow(); n < first {
		t.Errorf("long again after %d batches more, %d before", n, first)
	}
	if err := f.Replace(folder, &state, gone, messages(1)); err != nil {
		t.Fatal(err)
	}
	if n := grow(); n > first {
		t.Errorf("the next journal is long after %d batches, the first was after %d", n, first)
	}
}

// written returns a File with n messages, locked.
func written(t *testing.T, n int) *File {
	t.Helper()
	f := newFile(t)
	lock(t, f)
	m := messages(n)
	if err := f.Replace(folder, &state, gone, m); err != nil {
		t.Fatal(err)
	}
	for i, p := range m {
		if b, err := p.written.Read(); err != nil || !bytes.Equal(b, p.names) {
			t.Fatalf("%d messages: the names of page %d, as written: %q, %v", n, i, b, err)
		}
	}
	return f
}

// again loads the index as another process does.
func again(t *testing.T, f *File) (*File, *Image) {
	t.Helper()
	g := &File{Dir: f.Dir}
	t.Cleanup(g.Close)
	img, err := g.Load()
	if err != nil {
		t.Fatal(err)
	}
	return g, img
}

func TestBaseIsReadAsWritten(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, PageLen, PageLen + 1, 70 * PageLen} {
		f := written(t, n)
		_, img := again(t, f)
		if d := cmp.Diff(folder, img.Folder) + cmp.Diff(state, img.State) + cmp.Diff(gone, img.Gone); d != "" {
			t.Errorf("%d messages: %s", n, d)
		}
		want := messages(n)
		if len(img.Pages) != len(want) {
			t.Fatalf("%d messages: %d pages, want %d", n, len(img.Pages), len(want))
		}
		for i, p := range img.Pages {
			names, err := p.Names.Read()
			for k := range p.Recs {
				if p.Recs[k].Mod&Placed == 0 {
					t.Fatal("a record that was loaded is in no order")
				}
				p.Recs[k].Mod &^= Placed
			}
			if d := cmp.Diff(want[i].recs, p.Recs); d != "" || err != nil || !bytes.Equal(names, want[i].names) || p.Names.Len() != len(names) {
				t.Fatalf("%d messages, page %d: %v %s", n, i, err, d)
			}
		}
	}
}

// batch returns one of each kind of event, and them as they are read.
func batch() (*Batch, []Event) {
	r := Record{UID: 5, NameLen: 6, BaseLen: 3, Flags: 1, Mod: 77 | InNew, Facts: NoFacts}
	s := state
	s.ModSeq = 8
	var b Batch
	b.Put(&r, []byte("abc:2,"))
	b.Gone(Range{1, 2, 78})
	b.Learned(5, Facts{Date: 1, Size: 2})
	b.State(&s)
	b.Floor(79)
	return &b, []Event{
		{Kind: Put, Rec: r, Name: []byte("abc:2,")},
		{Kind: Gone, Range: Range{1, 2, 78}},
		{Kind: Learned, Rec: Record{UID: 5, Facts: Facts{Date: 1, Size: 2}}},
		{Kind: Stated, State: &s},
		{Kind: Floored, Range: Range{0, 0, 79}},
	}
}

// Two processes that take turns see each other's batches, each once.
func TestJournalIsShared(t *testing.T) {
	t.Parallel()
	f := written(t, 10)
	g, _ := again(t, f)
	b, events := batch()
	if err := f.Append(b, true); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Tail(true); err != nil || len(got) > 0 {
		t.Errorf("own batch comes back: %v %v", got, err)
	}
	if !g.Changed() || f.Changed() {
		t.Error("who has changed the file?")
	}
	got, err := g.Tail(false)
	if d := cmp.Diff(events, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	f.Unlock()
	lock(t, g)
	if err := g.Append(b, false); err != nil {
		t.Fatal(err)
	}
	g.Unlock()
	got, err = f.Tail(false)
	if d := cmp.Diff(events, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	if _, img := again(t, f); len(img.Tail) != 2*len(events) {
		t.Errorf("%d events in the file, want %d", len(img.Tail), 2*len(events))
	}
}

// A batch that its writer did not finish is not seen, wherever it was cut, and
// is no harm to what is appended later.
func TestTornBatch(t *testing.T) {
	t.Parallel()
	b, events := batch()
	whole := b.bytes(time.Now())
	for cut := 1; cut < len(whole); cut += 7 {
		f := written(t, 3)
		g, _ := again(t, f)
		path := filepath.Join(f.Dir.Path(), Name)
		a, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Write(whole[:cut]); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if _, img := again(t, f); len(img.Tail) > 0 {
			t.Fatalf("cut at %d: %d events", cut, len(img.Tail))
		}
		if got, err := f.Tail(true); err != nil || len(got) > 0 {
			t.Fatalf("cut at %d: %v %v", cut, got, err)
		}
		if err := f.Append(b, true); err != nil {
			t.Fatal(err)
		}
		if got, err := g.Tail(false); err != nil || len(got) != len(events) {
			t.Fatalf("cut at %d: %d events after the repair: %v", cut, len(got), err)
		}
	}
}

// A process that had the old file open learns that there is another.
func TestReplaced(t *testing.T) {
	t.Parallel()
	f := written(t, 300)
	g, img := again(t, f)
	if err := f.Replace(folder, &state, nil, messages(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Tail(false); !errors.Is(err, ErrReplaced) {
		t.Errorf("Tail: %v", err)
	}
	if _, err := img.Pages[1].Names.Read(); err != nil {
		t.Errorf("names of the old file: %v", err)
	}
	if err := os.Remove(filepath.Join(f.Dir.Path(), Name)); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Tail(true); !errors.Is(err, ErrReplaced) {
		t.Errorf("Tail without a file: %v", err)
	}
	if _, err := g.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load without a file: %v", err)
	}
}

// No octet of the base can change without being noticed, at the latest when the
// names or the order are read; and no file makes Load fail otherwise.
func TestDamage(t *testing.T) {
	t.Parallel()
	f := written(t, 300)
	path := filepath.Join(f.Dir.Path(), Name)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 11 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if sound(t, f.Dir) && !(i >= 84 && i < 88) { // what is random in the prefix
			t.Errorf("octet %d of %d changed, and nobody noticed", i, len(good))
		}
	}
	for _, n := range []int{0, 1, 87, 88, 100, len(good) / 2, len(good) - 1} {
		if err := os.WriteFile(path, good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if sound(t, f.Dir) {
			t.Errorf("cut to %d octets, and nobody noticed", n)
		}
	}
}

func sound(t *testing.T, dir vfs.Dir) bool {
	t.Helper()
	f := &File{Dir: dir}
	defer f.Close()
	img, err := f.Load()
	if err != nil {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("Load: %v", err)
		}
		return false
	}
	if img.Torn {
		return false
	}
	for _, p := range img.Pages {
		if _, err := p.Names.Read(); err != nil {
			return false
		}
	}
	_, _, free, err := img.Order.Read()
	if err != nil {
		return false
	}
	free()
	return true
}

func FuzzLoad(f *testing.F) {
	var t testing.T
	dir, err := vfs.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	x := &File{Dir: dir}
	lock(&t, x)
	if err := x.Replace(folder, &state, gone, messages(3)); err != nil {
		f.Fatal(err)
	}
	b, _ := batch()
	if err := x.Append(b, false); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir.Path(), Name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(dir.Path(), Name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		sound(t, dir)
		parseJournal(data)
	})
}

// Whatever stands in a batch with a good checksum, what is read of it can be used
// without looking: UIDs and modseqs that can be, and names of files in the folder.
func FuzzBatch(f *testing.F) {
	b, _ := batch()
	f.Add(b.buf[batchHead:])
	f.Add([]byte{byte(Gone), 0, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		x := Batch{append(make([]byte, batchHead), body...)}
		data := x.bytes(time.Now())
		j := parseJournal(data)
		if j.size != 0 && j.size != int64(len(data)) {
			t.Fatalf("%d octets of %d", j.size, len(data))
		}
		for _, e := range j.events {
			r := e.Range
			bad := r.From > r.To || r.To > maxUID || r.ModSeq > maxSane
			switch e.Kind {
			case Put:
				name := string(e.Name)
				bad = e.Rec.UID == 0 || e.Rec.UID > maxUID || e.Rec.ModSeq() > maxSane || name == "" || filepath.Base(name) != name ||
					int(e.Rec.BaseLen) > len(name) || bytes.ContainsAny(e.Name, "\x00\n") || e.Rec.Mod&Ghost != 0
			case Stated:
				bad = e.State == nil || e.State.ModSeq > maxSane || e.State.Ceiling > maxSane
			}
			if bad {
				t.Fatalf("%+v", e)
			}
		}
	})
}

// A forged index with good checksums does not get names, UIDs or modseqs past
// Load that cannot be.
func TestForged(t *testing.T) {
	t.Parallel()
	for what, forge := range map[string]func(r *Record, s *State, name *string, gone *Range){
		"name up":        func(_ *Record, _ *State, name *string, _ *Range) { *name = "../x:2,S" },
		"name below":     func(_ *Record, _ *State, name *string, _ *Range) { *name = "a/bc:2,S" },
		"name of a dot":  func(_ *Record, _ *State, name *string, _ *Range) { *name = ".abc:2,S" },
		"name with NUL":  func(_ *Record, _ *State, name *string, _ *Range) { *name = "a\x00bc:2,S" },
		"name with LF":   func(_ *Record, _ *State, name *string, _ *Range) { *name = "a\nbc:2,S" },
		"another base":   func(r *Record, _ *State, _ *string, _ *Range) { r.BaseLen = 2 },
		"no base":        func(r *Record, _ *State, _ *string, _ *Range) { r.BaseLen = 0 },
		"UID 0":          func(r *Record, _ *State, _ *string, _ *Range) { r.UID = 0 },
		"UID too high":   func(r *Record, _ *State, _ *string, _ *Range) { r.UID = 1<<32 - 1 },
		"modseq":         func(r *Record, _ *State, _ *string, _ *Range) { r.Mod = 1<<56 - 1 },
		"state's modseq": func(_ *Record, s *State, _ *string, _ *Range) { s.ModSeq = 1<<64 - 1 },
		"ceiling":        func(_ *Record, s *State, _ *string, _ *Range) { s.Ceiling = 1<<63 - 1 },
		"gone backwards": func(_ *Record, _ *State, _ *string, gone *Range) { gone.From = gone.To + 1 },
		"gone too high":  func(_ *Record, _ *State, _ *string, gone *Range) { gone.To = 1<<32 - 1 },
		"offset":         func(r *Record, _ *State, _ *string, _ *Range) { r.NameOff = 7 },
	} {
		r, s, name, g := Record{UID: 7, BaseLen: 4, Mod: 9, Facts: NoFacts}, state, "abcd:2,S", Range{1, 2, 3}
		forge(&r, &s, &name, &g)
		r.NameLen = uint8(len(name))
		f := newFile(t)
		lock(t, f)
		if err := f.Replace(folder, &s, []Range{g}, memory{{recs: []Record{r}, names: []byte(name)}}); err != nil {
			t.Fatal(err)
		}
		if sound(t, f.Dir) {
			t.Errorf("%s: nobody noticed", what)
		}
	}
}

// A lock file that is removed under its users keeps two of them apart none the
// less.
func TestLockIsRemoved(t *testing.T) {
	t.Parallel()
	f := written(t, 1)
	f.Unlock()
	if err := os.Remove(filepath.Join(f.Dir.Path(), LockName)); err != nil {
		t.Fatal(err)
	}
	g, _ := again(t, f)
	lock(t, g)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := f.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two processes hold the lock: %v", err)
	}
	g.Unlock()
	lock(t, f)
}

// What is written over the file in place is not taken for its continuation.
func TestWrittenOver(t *testing.T) {
	t.Parallel()
	f := written(t, 300)
	path := filepath.Join(f.Dir.Path(), Name)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Replace(folder, &state, gone, messages(2)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Tail(true); !errors.Is(err, ErrReplaced) {
		t.Errorf("Tail: %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, old) {
		t.Errorf("the file was changed: %d octets, were %d: %v", len(now), len(old), err)
	}
}

// What we do to the index ourselves leaves it as we have left it. What others do to the
// file does not, but for a version of ours that does not say when it wrote.
func TestTouched(t *testing.T) {
	t.Parallel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	f := written(t, 3)
	path := filepath.Join(f.Dir.Path(), Name)
	touched := func() bool {
		t.Helper()
		_, img := again(t, f)
		return img.Touched
	}
	data := func() []byte {
		t.Helper()
		b, err := os.ReadFile(path)
		must(err)
		return b
	}
	b, _ := batch()
	for what, do := range map[string]func(){
		"written":  func() {},
		"appended": func() { must(f.Append(b, true)) },
		"cut, and the rest cut off": func() {
			must(os.WriteFile(path, append(data(), 1, 2, 3), 0o600))
			if _, err := f.Tail(true); err != nil {
				t.Fatal(err)
			}
		},
		"by an older version": func() {
			a, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			must(err)
			old := b.bytes(time.Now())
			old = old[:len(old)-5-factsSize]
			order.PutUint32(old[4:], uint32(len(old)-batchHead))
			order.PutUint32(old[8:], checksum(old[batchHead:]))
			_, err = a.Write(old)
			must(err)
			must(a.Close())
			must(os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0)))
			if touched() {
				t.Error("touched, by an older version")
			}
			if _, err := f.Tail(true); err != nil {
				t.Fatal(err)
			}
			must(f.Append(b, false))
		},
	} {
		do()
		if touched() {
			t.Errorf("%s: touched", what)
		}
	}
	info, err := os.Stat(path)
	must(err)
	for what, do := range map[string]func(){
		"touch":          func() { must(os.Chtimes(path, time.Time{}, time.Now())) },
		"times set back": func() { must(os.Chtimes(path, info.ModTime(), info.ModTime())) },
		"overwritten, times kept": func() {
			must(os.WriteFile(path, data(), 0o600))
			must(os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
		"overwritten by old times": func() {
			must(os.WriteFile(path, data(), 0o600))
			must(os.Chtimes(path, time.Unix(1e9, 5), time.Unix(1e9, 5)))
		},
	} {
		do()
		if !touched() {
			t.Errorf("%s: not touched", what)
		}
		must(f.Append(b, false))
		if touched() {
			t.Errorf("%s: still touched", what)
		}
	}
	var st unix.Stat_t
	must(unix.Stat(path, &st))
	now := time.Unix(st.Mtim.Unix())
	if at := now.Add(-time.Minute); !wasTouched(&st, at) {
		t.Error("a file with an old text in it is as we have left it")
	}
}
