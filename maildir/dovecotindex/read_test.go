package dovecotindex

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Of the logs in testdata, which a Dovecot wrote for the accounts of the
// fixtures.
const (
	keywordsValidity = 1795455524
	inboxValidity    = 1795455519
)

func TestRead(t *testing.T) {
	t.Parallel()
	many := map[string][]uint32{}
	for i := uint32(1); i <= 30; i++ {
		many[fmt.Sprintf("kw%02d", i)] = []uint32{i}
	}
	for _, name := range []string{"kw01", "kw26", "kw27", "kw30"} {
		many[name] = append(many[name], 31)
	}
	for _, tt := range []struct {
		file     string
		validity uint32
		keywords map[string][]uint32
		modseq   uint64
	}{
		{"keywords.log", keywordsValidity, many, 66},
		{"inbox.log", inboxValidity, map[string][]uint32{"$Forwarded": {8}, "$MDNSent": {9}, "$Junk": {10},
			"NonJunk": {11}, "work": {11}, "urgent": {11}, "from-lmtp": {12}}, 27},
	} {
		path := t.TempDir()
		put(t, path, logName, testdata(t, tt.file))
		got, err := Read(openDir(t, path), tt.validity)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.keywords, byName(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.file, diff)
		}
		if got.HighestModSeq != tt.modseq {
			t.Errorf("%s: highest modseq %d, want %d", tt.file, got.HighestModSeq, tt.modseq)
		}
		if got, err := Read(openDir(t, path), tt.validity+1); !errors.Is(err, ErrOther) || got.HighestModSeq != 0 || got.Keywords != nil {
			t.Errorf("%s of another mailbox: %v, %v", tt.file, got, err)
		}
	}
}

// TestCut holds that of a log that is cut off anywhere, as it is while Dovecot
// writes, what is whole counts and nothing else.
func TestCut(t *testing.T) {
	t.Parallel()
	whole := testdata(t, "keywords.log")
	path := t.TempDir()
	dir := openDir(t, path)
	last := 0
	for n := 40; n <= len(whole); n += 17 { // 6,500 is 40 and 380 times 17
		put(t, path, logName, whole[:n])
		x, err := Read(dir, keywordsValidity)
		if err != nil {
			t.Fatalf("%d octets: %v", n, err)
		}
		if len(x.Keywords) < last || len(x.Keywords) > last+1 {
			t.Fatalf("%d octets: %d keywords after %d", n, len(x.Keywords), last)
		}
		last = len(x.Keywords)
	}
	if last != 30 {
		t.Errorf("%d keywords", last)
	}
	for n := range 40 {
		put(t, path, logName, whole[:n])
		if x, err := Read(dir, keywordsValidity); !errors.Is(err, ErrDamaged) || x.Keywords != nil {
			t.Errorf("%d octets: %v, %v", n, x, err)
		}
	}
}

// TestNoFile holds what happens where there is no file, and where something else
// has its name.
func TestNoFile(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if x, err := Read(openDir(t, path), 1); err != nil || x.HighestModSeq != 0 || x.Keywords != nil {
		t.Errorf("%v, %v", x, err)
	}
	for what, make := range map[string]func(path string) error{
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink("/dev/zero", path) },
		"huge":      func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
	} {
		for _, name := range []string{indexName, logName, oldName} {
			path := t.TempDir()
			put(t, path, logName, testdata(t, "keywords.log"))
			if err := errors.Join(ignoreMissing(os.Remove(filepath.Join(path, name))), make(filepath.Join(path, name))); err != nil {
				t.Fatal(err)
			}
			x, err := Read(openDir(t, path), keywordsValidity)
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s instead of %s: %v", what, name, err)
			}
			if name != logName && len(x.Keywords) != 30 {
				t.Errorf("%s instead of %s: %d keywords", what, name, len(x.Keywords))
			}
		}
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// TestLog plays logs that are made here, without a dovecot.index.
func TestLog(t *testing.T) {
	t.Parallel()
	add, take := byte(0), byte(1)
	begin := []string{header(24, 7), messages(1, 2, 3, 4, 5)}
	for _, tt := range []struct {
		name    string
		records []string
		want    map[string][]uint32
		damaged bool
	}{
		{"ranges", []string{keyword(add, "a", 2, 4)}, map[string][]uint32{"a": {2, 3, 4}}, false},
		{"all", []string{keyword(add, "a", 0, 1<<32-1)}, map[string][]uint32{"a": {1, 2, 3, 4, 5}}, false},
		{"case", []string{keyword(add, "Abc", 1, 2), keyword(take, "aBC", 2, 2)}, map[string][]uint32{"Abc": {1}}, false},
		{"backwards", []string{keyword(add, "a", 4, 2)}, map[string][]uint32{"a": nil}, false},
		{"reset", []string{keyword(add, "a", 1, 5), record(typeNoKeywords, nums(2, 3))}, map[string][]uint32{"a": {1, 4, 5}}, false},
		{"expunge", []string{keyword(add, "a", 1, 5), record(typeExpunge|external, nums(1, 3))}, map[string][]uint32{"a": {4, 5}}, false},
		{"expunge by GUID", []string{keyword(add, "a", 1, 5), record(typeExpungeID|external, nums(2, 0, 0, 0, 0))}, map[string][]uint32{"a": {1, 3, 4, 5}}, false},
		{"expunge that is asked for", []string{keyword(add, "a", 1, 5), record(typeExpunge, nums(1, 3))}, map[string][]uint32{"a": {1, 2, 3, 4, 5}}, false},
		{"expunge without its guard", []string{keyword(add, "a", 1, 5), record(1|external, nums(1, 3))}, map[string][]uint32{"a": {1, 2, 3, 4, 5}}, false},
		{"unknown record", []string{record(0x8000000, "abcd"), keyword(add, "a", 1, 1)}, map[string][]uint32{"a": {1}}, false},
		{"another UIDVALIDITY", []string{keyword(add, "a", 1, 1), header(24, 8), header(24, 7), messages(1), keyword(add, "b", 1, 1)}, map[string][]uint32{"b": {1}}, false},
		{"UIDs again", []string{messages(3, 4, 6), keyword(add, "a", 1, 9)}, map[string][]uint32{"a": {1, 2, 3, 4, 5, 6}}, false},
		{"odd size", []string{keyword(add, "a", 1, 1), record(typeNoKeywords, "abcd"), keyword(add, "b", 1, 1)}, map[string][]uint32{"a": {1}}, true},
		{"no name", []string{keyword(add, "", 1, 1)}, map[string][]uint32{}, true},
		{"name beyond the record", []string{record(typeKeyword, "\x00\x00\xff\x00abcd")}, map[string][]uint32{}, true},
		{"no such change", []string{keyword(2, "a", 1, 1)}, map[string][]uint32{}, true},
		{"small record", []string{"\x80\x80\x80\x81\x04\x00\x00\x00"}, map[string][]uint32{}, true},
		{"record being written", []string{keyword(add, "a", 1, 1), "\x00\x00\x00\x06" + record(typeKeyword, "")[4:]}, map[string][]uint32{"a": {1}}, false},
		{"group being written", []string{record(typeBoundary, nums(4000)), keyword(add, "a", 1, 1)}, map[string][]uint32{}, false},
		{"work without end", []string{messages(sequence(6, 100_000)...), strings.Repeat(keyword(add, "a", 1, 100_000), 20_000)}, map[string][]uint32{"a": sequence(1, 100_000)}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir()
			put(t, path, logName, []byte(logHeader(1)+strings.Join(slices.Concat(begin, tt.records), "")))
			x, err := Read(openDir(t, path), 7)
			if errors.Is(err, ErrDamaged) != tt.damaged {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.want, byName(x)); diff != "" {
				t.Errorf("(-want +got):\n%.2000s", diff)
			}
		})
	}
}

// TestTwoLogs holds that the older log comes first, and that one of another
// index does not count.
func TestTwoLogs(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	put(t, path, oldName, []byte(logHeader(1)+header(24, 7)+messages(1, 2)+keyword(0, "a", 1, 2)))
	put(t, path, logName, []byte(logHeader(2)+messages(3)+keyword(1, "a", 2, 2)+keyword(0, "a", 3, 3)))
	x, err := Read(openDir(t, path), 7)
	if diff := cmp.Diff(map[string][]uint32{"a": {1, 3}}, byName(x)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	other := []byte(logHeader(1) + header(24, 7) + messages(1, 2, 3) + keyword(0, "b", 1, 2))
	other[4]++
	put(t, path, oldName, other)
	if x, err = Read(openDir(t, path), 7); err != nil || len(byName(x)["b"]) > 0 {
		t.Errorf("%v, %v", byName(x), err)
	}
}

func FuzzRead(f *testing.F) {
	keywords, err := os.ReadFile("testdata/keywords.log")
	if err != nil {
		f.Fatal(err)
	}
	index, err := os.ReadFile("testdata/keywords.index")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(index, keywords)
	f.Add([]byte{}, []byte(logHeader(2)+header(24, 7)+messages(3)+keyword(0, "a", 1, 9)))
	f.Fuzz(func(t *testing.T, index, journal []byte) {
		s := &state{}
		if err := s.parseIndex(reader{bytes.NewReader(index), int64(len(index))}); err != nil {
			*s = state{}
		}
		l, err := parseLog(journal)
		if err == nil {
			err = s.apply(l)
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("error %v", err)
		}
		for _, k := range s.index().Keywords {
			if k.Name == "" || !slices.IsSorted(slices.Collect(k.UIDs())) {
				t.Errorf("keyword %q: %v", k.Name, slices.Collect(k.UIDs()))
			}
		}
	})
}

func put(t *testing.T, path, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func testdata(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nums writes numbers of 32 bits.
func nums(all ...uint32) string {
	var b []byte
	for _, n := range all {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return string(b)
}

func sequence(from, to uint32) []uint32 {
	var all []uint32
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

func logHeader(seq uint32) string {
	return "\x01\x03\x28\x00" + nums(42, seq, 0, 0, 0, 1, 0, 1, 0)
}

// record is a record of a log that has been written in full.
func record(kind uint32, body string) string {
	body += strings.Repeat("\x00", pad(len(body), 4)-len(body))
	n := uint32(len(body)+8) / 4
	size := binary.BigEndian.AppendUint32(nil, 0x80808080|n&0x7f|n<<1&0x7f00|n<<2&0x7f0000|n<<3&0x7f000000)
	return string(size) + nums(kind) + body
}

func header(off uint16, value uint32) string {
	h := binary.LittleEndian.AppendUint16(nil, off)
	return record(typeHeader|external, string(binary.LittleEndian.AppendUint16(h, 4))+nums(value))
}

func messages(uids ...uint32) string {
	var body strings.Builder
	for _, u := range uids {
		body.WriteString(nums(u, 0))
	}
	return record(typeAppend|external, body.String())
}

func keyword(change byte, name string, uids ...uint32) string {
	h := string([]byte{change, 0, byte(len(name)), 0}) + name
	return record(typeKeyword, h+strings.Repeat("\x00", pad(len(name), 4)-len(name))+nums(uids...))
}
