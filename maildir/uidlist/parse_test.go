package uidlist

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"imapd/maildir/vfs"
)

const messGUID = "00112233445566778899aabbccddeeff"

// name is the base name of message i in testdata/mess.
func name(i int) string { return fmt.Sprintf("164630000%d.M%dP1.mx.example.org", i, i) }

// TestSalvage reads the damaged lists of testdata/mess. Dovecot gives most of
// them a new UIDVALIDITY; see the package comment for what we keep instead.
func TestSalvage(t *testing.T) {
	t.Parallel()
	three := []Entry{{5, name(0), ""}, {7, name(1), ""}, {30, name(2), ""}}
	for _, tt := range []struct {
		file   string
		next   uint32
		want   []Entry
		damage Damage
	}{
		{"good", 50, three, Damage{}},
		{"crlf", 50, three, Damage{}},
		{"info", 50, three, Damage{}},
		{"v1", 50, three, Damage{}},
		{"v1-colon", 50, three, Damage{}},
		{"v1-low", 31, three, Damage{}},
		{"lowN", 31, three, Damage{}},
		{"noN", 8, three[:2], Damage{NoNext: true, NoGUID: true}},
		{"noG", 50, three, Damage{NoGUID: true}},
		{"badG", 50, three, Damage{NoGUID: true}},
		{"blank", 50, three, Damage{Bad: 1}},
		{"slash", 50, three[1:], Damage{Bad: 1}},
		{"spaces", 50, []Entry{three[0], {7, name(1), "  S300"}, three[2]}, Damage{}},
		{"ext", 50, []Entry{{5, name(0), " S308 W320 Gguid-of-five"}, {7, name(1), " Xabc"}, {30, name(2), " xlower"}}, Damage{}},
		{"desc", 50, []Entry{{30, name(0), ""}, {31, name(2), ""}}, Damage{Renumber: []string{name(1)}}},
		{"dupuid", 50, []Entry{three[0], three[2]}, Damage{Renumber: []string{name(1)}}},
		{"dupname", 50, []Entry{{7, name(0), ""}, three[2]}, Damage{}},
		{"maxuid", MaxUID + 1, []Entry{three[0], {MaxUID, name(1), ""}}, Damage{Bad: 1, Renumber: []string{name(2)}}},
		{"nonl", 50, three[:2], Damage{Torn: 34, Cut: three[2]}},
		{"trunc", 50, three[:2], Damage{Torn: 10, Cut: Entry{30, "164630", ""}}},
		{"trunc2", 50, three[:2], Damage{Torn: 2}},
		{"nul", 50, three[:1], Damage{Torn: 64}},
		{"v2", 50, nil, Damage{Bad: 1, NoGUID: true}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			data := mess(t, tt.file)
			l, err := Parse(data)
			if err != nil || l.Validity != 1646300000 || l.Next != tt.next {
				t.Errorf("V%d N%d, %v; want V1646300000 N%d", l.Validity, l.Next, err, tt.next)
			}
			if !slices.Equal(l.Entries, tt.want) {
				t.Errorf("entries %v, want %v", l.Entries, tt.want)
			}
			if d := cmp.Diff(tt.damage, l.Damage); d != "" {
				t.Error(d)
			}
			if l.Size != int64(len(data)-tt.damage.Torn) {
				t.Errorf("size %d of %d", l.Size, len(data))
			}
			if hasGUID := l.GUID == messGUID; l.Version == 3 && hasGUID == tt.damage.NoGUID {
				t.Errorf("GUID %q", l.GUID)
			}
		})
	}
	if l, _ := Parse(mess(t, "ext")); l.Extra != " Zq" {
		t.Errorf("header fields %q", l.Extra)
	}
}

// TestLostHeader holds that entries are found even where the caller must know
// UIDVALIDITY from elsewhere.
func TestLostHeader(t *testing.T) {
	t.Parallel()
	for file, entries := range map[string]int{
		"empty": 0, "allnul": 0, "hdronly": 0, "noV": 2, "zeroV": 1, "bigV": 2,
	} {
		l, err := Parse(mess(t, file))
		if !errors.Is(err, ErrHeader) || len(l.Entries) != entries {
			t.Errorf("%s: %d entries, %v; want %d and ErrHeader", file, len(l.Entries), err, entries)
		}
	}
}

func mess(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "mess", file))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCut reads last lines without an end.
func TestCut(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Entry{
		"3 V1 N9\n5 :a\n7 :b": {7, "b", ""}, "3 V1 N9\n5 :a\n7 W5 :b": {7, "b", " W5"}, "3 V1 N9\n5 :a\n7 :b:2,S": {7, "b", ""},
		"3 V1 N9\n5 :a\n7 :": {}, "3 V1 N9\n5 :a\n7": {}, "3 V1 N9\n5 :a\n7 W5": {}, "3 V1 N9\n5 :a\n5 :b": {}, "3 V1 N9\n5 :a\n7 :a": {},
		"3 V1 N9\n5 :a\n7 :b/c": {}, "3 V1 N9\n5 :a\n7 :b\x00": {}, "3 V1 N9\n5 :a\n\x00\x00": {}, "3 V1 N9\n5 :a\n": {},
		"1 1 9\n5 a\n7 b": {7, "b", ""}, "2 1 9\n5 a\n7 b": {}, "3 V1 N9": {}, "3 V1 N9\n7 :b": {7, "b", ""},
	} {
		if l, _ := Parse([]byte(text)); l.Damage.Cut != want {
			t.Errorf("%q: %v, want %v", text, l.Damage.Cut, want)
		}
	}
}

// TestGlued reads what Dovecot leaves when it appends behind a torn line.
func TestGlued(t *testing.T) {
	t.Parallel()
	const head = "3 V1 N1 G" + messGUID + "\n5 :a\n"
	for _, tt := range []struct {
		lines    string
		want     []Entry
		renumber []string
		next     uint32
	}{
		{"30 :16463006 :b\n7 :c\n", []Entry{{5, "a", ""}, {6, "b", ""}, {7, "c", ""}}, nil, 31},
		{"30 :16463006 W3 Gx :b\n", []Entry{{5, "a", ""}, {6, "b", " W3 Gx"}}, nil, 31},
		{"30 :16463008 :b\n", []Entry{{5, "a", ""}}, []string{"b"}, 31},
		{"6 :x.host6 :y\n", []Entry{{5, "a", ""}, {6, "y", ""}}, nil, 7},
		{"6 :two words :2,S\n", []Entry{{5, "a", ""}, {6, "two words ", ""}}, nil, 7},
		{"6 :b:2,S\n", []Entry{{5, "a", ""}, {6, "b", ""}}, nil, 7},
		{"\x00\x00\x006 :b\n7 :c\n", []Entry{{5, "a", ""}, {7, "c", ""}}, []string{"b"}, 8},
		{"\x00\x00\x006 :b\n7 :b\n", []Entry{{5, "a", ""}, {7, "b", ""}}, nil, 8},
		{"5 :b\n4 :b\n", []Entry{{5, "a", ""}}, []string{"b"}, 6},
		{"6 :" + strings.Repeat("x", 256) + "\n", []Entry{{5, "a", ""}}, nil, 7},
	} {
		l, err := Parse([]byte(head + tt.lines))
		if err != nil || !slices.Equal(l.Entries, tt.want) || !slices.Equal(l.Damage.Renumber, tt.renumber) || l.Next != tt.next {
			t.Errorf("%q: %v, renumber %q, next %d, %v", tt.lines, l.Entries, l.Damage.Renumber, l.Next, err)
		}
	}
}

// TestTail holds that reading a list as it grows gives what reading it at once
// does.
func TestTail(t *testing.T) {
	t.Parallel()
	data := mess(t, "good")
	for cut := bytes.IndexByte(data, '\n') + 1; cut <= len(data); cut++ {
		l, err := Parse(data[:cut])
		if err != nil {
			t.Fatal(err)
		}
		last := uint32(0)
		if n := len(l.Entries); n > 0 {
			last = l.Entries[n-1].UID
		}
		tail, more := parseTail(data[l.Size:], last)
		all := slices.Concat(l.Entries, more)
		if l.Size+tail.Size != int64(len(data)) || l.Lines+tail.Lines != 3 || len(all) != 3 || all[2].UID != 30 || tail.Damage.Any() {
			t.Fatalf("cut at %d: %+v then %+v", cut, l, tail)
		}
	}
	tail, entries := parseTail([]byte("29 :x\n30 :y\n31 W5 :z\n33"), 30)
	if want := []Entry{{31, "z", " W5"}}; !slices.Equal(entries, want) || tail.Damage.Torn != 2 || tail.Damage.Renumber != nil || tail.Next != 32 {
		t.Errorf("%+v", tail)
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	l := New(1646300000)
	if l.GUID == NewGUID() || !isGUID(l.GUID) {
		t.Errorf("GUID %q", l.GUID)
	}
	l.Extra = " P1 Zq"
	l.Entries = []Entry{{1, "a", ""}, {4, "b c", " W309 Gabc"}}
	l.Next = 9
	got, err := Parse(l.Encode())
	if err != nil || got.Header != l.Header || !slices.Equal(got.Entries, l.Entries) || got.NeedsRewrite() {
		t.Errorf("%+v, %v; want %+v", got, err, l)
	}
	if g, ok := got.Entries[1].Field('G'); g != "abc" || !ok {
		t.Errorf("field G %q", g)
	}
}

// large is a list of n messages as Dovecot writes it.
func large(n int) []byte {
	l := New(1646300000)
	for i := range n {
		l.Entries = append(l.Entries, Entry{uint32(i + 1), fmt.Sprintf("%d.M%dP%d.mx.example.org,S=%d,W=%d", 1646300000+i, i*7%1000000, i%32768, 2000+i, 2050+i), ""})
	}
	return l.Encode()
}

// TestParseAllocations holds that a large list costs a few allocations, not one
// a line.
func TestParseAllocations(t *testing.T) {
	data := large(100_000)
	n := testing.AllocsPerRun(3, func() {
		if l, err := Parse(data); err != nil || len(l.Entries) != 100_000 {
			t.Errorf("%d entries, %v", len(l.Entries), err)
		}
	})
	if n > 10 {
		t.Errorf("%v allocations", n)
	}
}

// TestParseMemory holds that lines which are no entries cost nothing beyond a copy of
// the text, and room for a list of a usual length.
func TestParseMemory(t *testing.T) {
	const size = 2 << 20
	for what, line := range map[string]string{"empty lines": "\n", "no UIDs": "x :a\n", "descending UIDs": "1 :%d\n"} {
		var text strings.Builder
		text.WriteString("3 V1 N5 G" + messGUID + "\n4 :x\n")
		for i := 0; text.Len() < size; i++ {
			text.WriteString(strings.ReplaceAll(line, "%d", strconv.Itoa(i)))
		}
		data := []byte(text.String())
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		l, err := Parse(data)
		runtime.ReadMemStats(&after)
		if err != nil || len(l.Entries) != 1 || !l.NeedsRewrite() || len(l.Damage.Renumber) > maxRenumber {
			t.Errorf("%s: %d entries, %d to be renumbered, damage %v, %v", what, len(l.Entries), len(l.Damage.Renumber), l.Damage.Any(), err)
		}
		if took, most := after.TotalAlloc-before.TotalAlloc, uint64(2*size+maxExpected*unsafe.Sizeof(Entry{})); took > most {
			t.Errorf("%s: %d octets take %d, want %d", what, size, took, most)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	data := large(100_000)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		Parse(data)
	}
}

func FuzzUidlist(f *testing.F) {
	files, err := filepath.Glob("testdata/mess/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no corpus")
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("3 V1 N1\n5 :a\n30 :16463006 W3 :b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if err != nil {
			return
		}
		checkSalvaged(t, &l)
		l.Version = 3
		if l.GUID == "" {
			l.GUID = NewGUID()
		}
		for _, e := range l.Entries {
			if check(e) != nil {
				return // fields that no list of ours would get
			}
		}
		again, err := Parse(l.Encode())
		if err != nil || again.NeedsRewrite() || again.Header != l.Header || !slices.Equal(again.Entries, l.Entries) {
			t.Errorf("%q\nread    %+v\nwritten %q\nread    %+v, %v", data, l, l.Encode(), again, err)
		}
	})
}

// checkSalvaged holds what must be true of any list that was read.
func checkSalvaged(t *testing.T, l *List) {
	t.Helper()
	last, seen := uint32(0), map[string]bool{}
	for _, e := range l.Entries {
		if e.UID <= last || e.UID >= l.Next || seen[e.Base] || !ValidBase(e.Base) {
			t.Errorf("entry %+v after %d in list of next %d", e, last, l.Next)
		}
		last, seen[e.Base] = e.UID, true
	}
	for _, base := range l.Damage.Renumber {
		if seen[base] || !ValidBase(base) {
			t.Errorf("renumber %q", base)
		}
		seen[base] = true
	}
}

// TestEach holds that a list that is read piece by piece says what it does at
// once, wherever the pieces end.
func TestEach(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/mess/*")
	if err != nil || len(files) == 0 {
		t.Fatal("no corpus")
	}
	lists := map[string][]byte{
		"large":     large(20_000),
		"torn":      large(20_000)[:800_000],
		"long line": slices.Concat(large(9000), []byte("9001 :"), bytes.Repeat([]byte("x"), 3*streamBuffer), []byte("\n9005 :y\n")),
		"long end":  slices.Concat(large(9000), []byte("9001 :"), bytes.Repeat([]byte("x"), 3*streamBuffer)),
		"glued":     []byte("3 V1 N1 G" + messGUID + "\n5 :a\n30 :16463006 W3 Gx :b\n31 :a\n7"),
	}
	for _, f := range files {
		lists[f] = mess(t, filepath.Base(f))
	}
	for what, data := range lists {
		path := filepath.Join(t.TempDir(), Name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		dir, err := vfs.Open(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		f, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var got List
		byBase := map[string]int{}
		var entries []Entry
		got, _, gotErr := f.Each(func(e Entry) {
			e = Entry{e.UID, strings.Clone(e.Base), strings.Clone(e.Extra)}
			if i, ok := byBase[e.Base]; ok {
				entries[i].UID = 0
			}
			byBase[e.Base] = len(entries)
			entries = append(entries, e)
		})
		got.Entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.UID == 0 })
		want, wantErr := Parse(data)
		if len(got.Damage.Renumber) > 0 {
			got.Damage.Renumber = slices.DeleteFunc(got.Damage.Renumber, func(b string) bool { _, ok := byBase[b]; return ok })
		}
		if errors.Is(gotErr, ErrHeader) != errors.Is(wantErr, ErrHeader) {
			t.Errorf("%s: %v, want %v", what, gotErr, wantErr)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
}
