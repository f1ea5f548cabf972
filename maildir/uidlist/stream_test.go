package uidlist

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// keep returns a function that collects entries.
func keep(all *[]Entry) func(Entry) {
	return func(e Entry) { *all = append(*all, Entry{e.UID, strings.Clone(e.Base), strings.Clone(e.Extra)}) }
}

// parseTail is what ReadTail reads, of a text in memory.
func parseTail(data []byte, after uint32) (Tail, []Entry) {
	after = min(after, MaxUID)
	p := parser{skip: after, last: after, next: after + 1}
	p.lines(data)
	return Tail{Size: p.size, Lines: p.count, Next: p.next, Damage: p.damage}, p.entries
}

// opened returns data as an open list.
func opened(t testing.TB, data []byte) *File {
	t.Helper()
	dir, path := folder(t)
	if err := os.WriteFile(path+"/"+Name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// collected is what unique makes of entries that were yielded.
func collected(entries []Entry, d *Damage) []Entry {
	p := parser{entries: entries, damage: Damage{Renumber: d.Renumber}}
	p.unique()
	d.Renumber = p.damage.Renumber
	return p.entries
}

// compareStream holds that a list that is read through a buffer of some size, and what
// of it is read as a tail, is what Parse says of all of it.
func compareStream(t *testing.T, f *File, data []byte, buffer int64) {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s := f.stream(0, st, buffer)
	var entries []Entry
	s.each = keep(&entries)
	got, gotErr := s.list()
	got.Entries = collected(entries, &got.Damage)
	want, wantErr := Parse(data)
	if slices.ContainsFunc(got.Entries, func(e Entry) bool { return e.Base == got.Damage.Cut.Base }) {
		got.Damage.Cut = Entry{} // the caller knows what it has
	}
	if !errors.Is(gotErr, wantErr) {
		t.Errorf("buffer %d, %q: %v, want %v", buffer, data, gotErr, wantErr)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("buffer %d, %q: %s", buffer, data, d)
	}

	from := int64(len(data) / 2)
	after := uint32(len(data) % 7)
	s = f.stream(from, st, buffer)
	entries = nil
	s.each = keep(&entries)
	tail, err := s.tail(after)
	entries = collected(entries, &tail.Damage)
	wantTail, wantEntries := parseTail(data[from:], after)
	if d := cmp.Diff(wantTail, tail, cmpopts.EquateEmpty()); d != "" || err != nil {
		t.Errorf("buffer %d, tail of %q: %s, %v", buffer, data, d, err)
	}
	if d := cmp.Diff(wantEntries, entries, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("buffer %d, tail of %q: %s", buffer, data, d)
	}
}

// damaged returns a list with things in it that are none. Its lines are shorter than
// 250 octets.
func damaged(r *rand.Rand) []byte {
	head := []string{"3 V7 N5 G" + messGUID, "3 V7 N2", "3 V7 N900 G" + messGUID + " P1 Zx", "1 7 5", "2 7 5", "3 V0 N1", "junk"}
	b := append([]byte(head[min(r.IntN(30), len(head)-1)*(r.IntN(2))]), '\n')
	uid := uint32(1)
	for range r.IntN(60) {
		switch r.IntN(25) {
		case 0:
			uid -= min(uid-1, uint32(r.IntN(4)))
		case 1:
			b = append(b, "\x00\x00\x00"...)
		case 2:
			b = append(b, '\n')
		case 3:
			b = append(b, "30 :1646"...)
		case 4:
			b = append(b, strings.Repeat("A ", r.IntN(60))...)
		case 5:
			b = append(b, '\r', '\n')
		default:
			uid += uint32(r.IntN(3))
		}
		extra := []string{"", "", "", " W17", " Gab S4", " lower"}[r.IntN(6)]
		b = fmt.Appendf(b, "%d%s :%d.M%dP1.host%s\n", uid, extra, r.IntN(50), r.IntN(4), []string{"", "", ":2,S", "/"}[r.IntN(4)])
	}
	for range r.IntN(3) {
		if len(b) > 0 {
			b[r.IntN(len(b))] = byte(r.IntN(256))
		}
	}
	if r.IntN(3) == 0 {
		b = b[:r.IntN(len(b)+1)]
	}
	for rest := b; len(rest) > 0; {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		if len(line) > 250 {
			line[100] = '\n'
			continue // once more
		}
		rest = after
	}
	return b
}

// A list says the same whether it is read piece by piece or at once, wherever the
// pieces end.
func TestStreamIsParse(t *testing.T) {
	t.Parallel()
	lists := uint64(150)
	if os.Getenv("IMAPD_SOAK") != "" {
		lists = 1500
	}
	for i := range lists {
		data := damaged(rand.New(rand.NewPCG(i, 1)))
		f := opened(t, data)
		for _, buffer := range []int64{256, 257, 300, 511, 512, 1000, int64(max(256, len(data)-1)), int64(max(256, len(data))), int64(max(256, len(data)+1))} {
			compareStream(t, f, data, buffer)
		}
		f.Close()
	}
}

func FuzzStream(f *testing.F) {
	files, err := filepath.Glob("testdata/mess/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no corpus")
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint16(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, buffer uint16) {
		longest := 0
		for line := range bytes.Lines(data) {
			longest = max(longest, len(line))
		}
		for line := range bytes.Lines(data[len(data)/2:]) {
			longest = max(longest, len(line))
		}
		compareStream(t, opened(t, data), data, int64(longest+1)+int64(buffer))
	})
}

// sparse makes a list of size octets that begins with text and is a hole else.
func sparse(t *testing.T, text string, size int64) *File {
	t.Helper()
	dir, path := folder(t)
	write(t, path+"/"+Name, text)
	if err := os.Truncate(path+"/"+Name, size); err != nil {
		t.Fatal(err)
	}
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A list of a gigabyte that is none takes no memory, and hardly time.
func TestHole(t *testing.T) {
	const head = "3 V7 N5 G" + messGUID + "\n1 :a\n4 :b\n"
	f := sparse(t, head, maxSize)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	var got []Entry
	l, _, err := f.Each(keep(&got))
	if want := []Entry{{1, "a", ""}, {4, "b", ""}}; err != nil || !slices.Equal(got, want) || l.Next != 5 || l.Size != int64(len(head)) || l.Damage.Torn != maxSize-len(head) {
		t.Errorf("%v, %+v, %v", got, l, err)
	}
	tail, _, err := f.ReadTail(int64(len(head)), 4, keep(&got))
	if err != nil || len(got) != 2 || tail.Next != 5 || tail.Damage.Torn != maxSize-len(head) {
		t.Errorf("tail %+v, %v", tail, err)
	}
	took := time.Since(begin)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 4*streamBuffer || took > 10*time.Second {
		t.Errorf("%d octets, %v", used, took)
	}
}

// What stands behind a hole is read.
func TestBehindHole(t *testing.T) {
	t.Parallel()
	const head, hole = "3 V7 N5 G" + messGUID + "\n1 :a\n4 :b\n", 40 << 20
	f := sparse(t, head, hole)
	w, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("6 :c\n7 :d\n9 :e\n"); err != nil {
		t.Fatal(err)
	}
	var got []Entry
	l, st, err := f.Each(keep(&got))
	want := []Entry{{1, "a", ""}, {4, "b", ""}, {7, "d", ""}, {9, "e", ""}}
	if err != nil || !slices.Equal(got, want) || l.Next != 10 || l.Lines != 5 || l.Size != st.Size || l.Damage.Bad != 1 || l.Damage.Torn != 0 {
		t.Errorf("%v, %+v, %v", got, l, err)
	}
}

// Of more lines than a list has only that UIDs were given is known.
func TestTooManyLines(t *testing.T) {
	t.Parallel()
	dir, path := folder(t)
	b := append([]byte("3 V7 N5 G"+messGUID+"\n1 :a\n"), bytes.Repeat([]byte("\n"), maxLines+streamBuffer)...)
	b = append(b, "2000 :b\n"...)
	if err := os.WriteFile(path+"/"+Name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l, st, err := ReadFile(dir)
	if err != nil || len(l.Entries) != 1 || l.Next != 2001 || l.Size != st.Size || l.Lines != maxLines+streamBuffer+2 || !l.NeedsRewrite() {
		t.Errorf("%+v, %v", l.Header, err)
	}
}

// A line that has a hundred thousand fields takes no more time than its length.
func TestGluedFields(t *testing.T) {
	t.Parallel()
	line := "30 :x7" + strings.Repeat(" A", streamBuffer/2-100) + " :y\n"
	f := opened(t, []byte("3 V7 N5 G"+messGUID+"\n1 :a\n"+strings.Repeat(line, 8)))
	begin := time.Now()
	if _, _, err := f.Each(func(Entry) {}); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("%v", took)
	}
}

// RewriteEach writes no list that it would not read.
func TestRewriteEach(t *testing.T) {
	t.Parallel()
	dir, path := folder(t)
	write(t, path+"/"+Name, "as it was")
	for what, entries := range map[string][]Entry{
		"descending": {{5, "a", ""}, {4, "b", ""}}, "above the next": {{9, "a", ""}}, "no name": {{5, "", ""}}, "no UID": {{0, "a", ""}},
	} {
		_, err := RewriteEach(dir, &Header{Validity: 7, Next: 9}, func(write func(Entry) error) error {
			for _, e := range entries {
				if err := write(e); err != nil {
					return err
				}
			}
			return nil
		})
		if b, _ := os.ReadFile(path + "/" + Name); err == nil || string(b) != "as it was" {
			t.Errorf("%s: %v, the file is %q", what, err, b)
		}
	}
	h := Header{Validity: 7, Next: 9, GUID: messGUID}
	st, err := RewriteEach(dir, &h, func(write func(Entry) error) error {
		return errors.Join(write(Entry{4, "a", " W\x00"}), write(Entry{5, "b", " S2"}))
	})
	want := "3 V7 N9 G" + messGUID + "\n4 :a\n5 S2 :b\n"
	if b, _ := os.ReadFile(path + "/" + Name); err != nil || string(b) != want || st != mustStat(t, dir) || h.Version != 3 {
		t.Errorf("%v, the file is %q", err, b)
	}
}
