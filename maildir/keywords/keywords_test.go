package keywords

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

func TestParse(t *testing.T) {
	t.Parallel()
	odd, err := os.ReadFile("testdata/odd") // made by hand, read by Dovecot
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		in   string
		want Table
	}{
		{"", Table{}},
		{"0 $Forwarded\n1 $MDNSent\n25 last\n", Table{0: "$Forwarded", 1: "$MDNSent", 25: "last"}},
		{string(odd), Table{0: "first", 2: "third extra words", 5: "bad(kw", 25: "again"}},
		{"0 a\r\n1 b\r\n", Table{0: "a", 1: "b"}},
		{"0 a\n1 A\n2 b\n2 c\n3 b\n", Table{0: "a", 2: "c"}},
		{"0 a\n1 tor", Table{0: "a"}},
		{"-1 a\n+1 b\n 2 c\n3  d\n26 e\n4294967296 f\n\n7\n8 \n9 x\x00y\n", Table{3: " d"}},
	} {
		if got := Parse([]byte(tt.in)); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	table := Table{0: "$Forwarded", 2: "Work"}
	for name, want := range map[string]int{"$forwarded": 0, "WORK": 2, "none": -1, "": -1} {
		if got := table.Index(name); got != want {
			t.Errorf("%q: %d, want %d", name, got, want)
		}
	}
	if table.Free() != 1 {
		t.Errorf("free %d", table.Free())
	}
	for i := range table {
		table[i] = strings.Repeat("x", i+1)
	}
	if table.Free() != -1 {
		t.Errorf("free %d in a full table", table.Free())
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.Chmod(path, 0o770); err != nil {
		t.Fatal(err)
	}
	dir, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	table, stat, err := Read(dir)
	if table != (Table{}) || stat != (Stat{}) || err != nil {
		t.Fatalf("no file: %v, %v, %v", table, stat, err)
	}
	if err := os.WriteFile(path+"/"+lockName, []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		table[i] = strings.Repeat("k", i+1)
		next, err := Write(dir, table, stat)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && next.MtimeNs/int64(time.Second) <= stat.MtimeNs/int64(time.Second) {
			t.Errorf("write %d: time of change %d after %d", i, next.MtimeNs, stat.MtimeNs)
		}
		got, st, err := Read(dir)
		if got != table || st != next || err != nil {
			t.Errorf("read %q, %+v, %v; wrote %q, %+v", got, st, err, table, next)
		}
		if now, err := StatFile(dir); now != next || err != nil {
			t.Errorf("stat %+v, %v", now, err)
		}
		stat = next
	}
	if info, _ := os.Stat(path + "/" + Name); info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v", info.Mode())
	}
	for _, bad := range []Table{{0: "a\nb"}, {0: "a", 1: "A"}, {3: "\x00"}, {0: strings.Repeat("x", maxSize)}} {
		if _, err := Write(dir, bad, stat); err == nil {
			t.Errorf("%.100q was written", bad)
		}
	}
	if names, _ := os.ReadDir(path); len(names) != 1 {
		t.Errorf("files left: %v", names)
	}
	os.Remove(path + "/" + Name)
	if err := unix.Mkfifo(path+"/"+Name, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(dir); err == nil {
		t.Error("a FIFO was read")
	}
}

func FuzzKeywords(f *testing.F) {
	odd, err := os.ReadFile("testdata/odd")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(odd)
	f.Add([]byte("0 a\n1 A\n2 b\n2 c\n3 b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		table := Parse(data)
		if err := table.check(); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		if again := Parse(table.Encode()); again != table {
			t.Errorf("%q: %q, then %q", data, table, again)
		}
	})
}
