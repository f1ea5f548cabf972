package maildir

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/faultfs"
	"imapd/maildir/isync"
	"imapd/maildir/tree"
	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// A tree of files, by path; a name that ends in '/' is a directory.
type files map[string]string

func (f files) make(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "Maildir")
	for _, dir := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range f {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// courierFolder is a folder as Courier leaves it: 30 keywords of which 4 are
// rare, letters that mean nothing, mail that has no UID yet, and a stale line.
func courierFolder() files {
	f := files{
		"courierimapuiddb": "1 795455513 40\n3 1.a,S=5\n4 1.stale\n7 1.b\n9 1.c\n",
		"cur/1.a,S=5:2,S":  "a: b\n", "cur/1.b:2,Sabz": "a: b\n", "cur/1.c:2,FX": "a: b\n", "new/2.d": "a: b\n",
		"courierimapsubscribed": "INBOX\nINBOX.Work\n",
		"courierimapacl":        "owner aceilrstwx\n",
	}
	list, index := "", ""
	for i := range 30 {
		list += fmt.Sprintf("kw%02d\n", i)
		if i >= 4 {
			index += fmt.Sprintf(" %d", i)
		}
	}
	f["courierimapkeywords/:list"] = list + "\n1.a,S=5:0 1 2 3" + index + "\n1.c:" + index[1:] + "\n1.stale:0\n"
	f["courierimapkeywords/.5984852.1.c"] = "kw07\nkw29\n"
	f["courierimapkeywords/1.b"] = strings.ReplaceAll(list[4*5:], "kw08\n", "")
	return f
}

// courierWant is what must be told of it, whether a keyword has a letter or not.
func courierWant() []string {
	named := func(skip ...string) string {
		var l []string
		for i := range 30 {
			if k := fmt.Sprintf("kw%02d", i); !slices.Contains(skip, k) {
				l = append(l, k)
			}
		}
		return strings.Join(l, " ")
	}
	return []string{
		`3 1.a,S=5 \Seen ` + named(),
		`7 1.b \Seen ` + named("kw00", "kw01", "kw02", "kw03", "kw08"),
		`9 1.c \Flagged kw07 kw29`,
		`40 2.d `,
	}
}

// toldSorted is told with the flags of each message in order.
func toldSorted(m *Mailbox) []string {
	l := told(m)
	for i := range l {
		head, flags, _ := strings.Cut(l[i], " ")
		base, flags, _ := strings.Cut(flags, " ")
		all := strings.Fields(flags)
		slices.Sort(all)
		l[i] = head + " " + base + " " + strings.Join(all, " ")
	}
	return l
}

// openOnce opens INBOX of root with a host of its own.
func openOnce(t *testing.T, root string, o Options) (*Mailbox, error) {
	t.Helper()
	return openTree(t, tree.Config{Root: root, Separator: '/'}, o)
}

func openTree(t *testing.T, c tree.Config, o Options) (*Mailbox, error) {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := NewHost(o)
	s, err := h.Open(c)
	if err != nil {
		h.Close()
		return nil, err
	}
	m, err := s.Mailbox(context.Background(), "INBOX")
	if err != nil {
		h.Close()
		return nil, err
	}
	t.Cleanup(func() {
		m.Release()
		h.Close()
	})
	return m, nil
}

func TestImportCourier(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	o := Options{Log: slog.New(slog.NewTextHandler(&log, nil))}
	tree := courierFolder()
	root := tree.make(t)
	m, err := openOnce(t, root, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := toldSorted(m), courierWant(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if v := m.Snapshot().Validity; v != 795455513 {
		t.Errorf("UIDVALIDITY %d", v)
	}
	for name, text := range tree {
		if b, err := os.ReadFile(filepath.Join(root, name)); strings.HasPrefix(name, "courier") && (err != nil || string(b) != text) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	b := box{t: t, path: root}
	if left := b.files("tmp"); len(left) > 0 {
		t.Errorf("tmp has %v", left)
	}
	l, _, err := uidlist.ReadFile(m.control)
	if err != nil || l.Version != 3 || !strings.HasPrefix(l.Extra, " Zcourier.") || len(l.GUID) != 32 {
		t.Errorf("header %+v, %v", l.Header, err)
	}
	if _, err := os.Stat(filepath.Join(root, "cur/1.c:2,FXa")); err == nil {
		t.Error("the letter of kw07 is a")
	}
	// It happens once: what Courier says later does not count.
	if err := os.WriteFile(filepath.Join(root, "courierimapuiddb"), []byte("1 7 2\n1 1.a,S=5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := openOnce(t, root, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := toldSorted(again), courierWant(); !slices.Equal(got, want) {
		t.Errorf("the second time %q", got)
	}
	if n := strings.Count(log.String(), "took over"); n != 1 {
		t.Errorf("taken over %d times:\n%s", n, log.String())
	}
}

// TestImportInterrupted stops the import at each call that changes a file, and
// holds that the next look makes the same of the folder.
func TestImportInterrupted(t *testing.T) {
	t.Parallel()
	calls := 0
	for at := 1; ; at++ {
		root := courierFolder().make(t)
		var fault faultfs.FS
		fault.Arm(faultfs.At(at, unix.EIO))
		if _, err := openOnce(t, root, Options{Open: fault.Open}); err == nil && fault.Count() < at {
			break
		}
		calls++
		fault.Disarm()
		m, err := openOnce(t, root, Options{})
		if err != nil {
			t.Fatalf("after %s failed (%d): %v", fault.Hit(), at, err)
		}
		if got, want := toldSorted(m), courierWant(); !slices.Equal(got, want) || m.Snapshot().Validity != 795455513 {
			t.Errorf("after %s failed (%d) UIDVALIDITY %d, got\n%s\nwant\n%s", fault.Hit(), at, m.Snapshot().Validity, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if calls < 20 {
		t.Errorf("only %d calls", calls)
	}
}

// TestImportOddCourier holds what is made of folders that are not as Courier
// leaves them.
func TestImportOddCourier(t *testing.T) {
	t.Parallel()
	const message = "a: b\n"
	for _, tt := range []struct {
		name     string
		files    files
		validity uint32 // 0: a new one
		want     []string
	}{
		{"lines above the next UID", files{"courierimapuiddb": "1 7 3\n1 1.a\n5 1.b\n3 1.c\n", "cur/1.a:2,": message, "cur/1.b:2,": message, "cur/1.c:2,": message}, 7,
			[]string{"1 1.a ", "5 1.b ", "6 1.c "}},
		{"no first line", files{"courierimapuiddb": "nothing\n5 1.a\n", "cur/1.a:2,": message, "courierimapkeywords/1.a": "work\n"}, 0, []string{"1 1.a work"}},
		{"empty", files{"courierimapuiddb": "", "cur/1.a:2,": message}, 0, []string{"1 1.a "}},
		{"letters that Dovecot named", files{"courierimapuiddb": "1 7 3\n2 1.a\n", "cur/1.a:2,abz": message, "dovecot-keywords": "1 old\n",
			"courierimapkeywords/1.a": "OLD\nwork\n"}, 7, []string{"2 1.a work old"}},
		{"Dovecot was there", files{"courierimapuiddb": "1 7 3\n2 1.a\n", "cur/1.a:2,": message, "dovecot.index.log": ""}, 0, []string{"1 1.a "}},
		{"a list is there", files{"courierimapuiddb": "1 7 3\n2 1.a\n", "cur/1.a:2,": message, "dovecot-uidlist": "3 V9 N5 G00000000000000000000000000000001\n4 :1.a\n"}, 9, []string{"4 1.a "}},
		{"keyword that is too long", files{"courierimapuiddb": "1 7 3\n2 1.a\n", "cur/1.a:2,": message,
			"courierimapkeywords/:list": strings.Repeat("x", 3<<20) + "\nok\n\n1.a:0 1\n"}, 7, []string{"2 1.a ok"}},
		{"letters that nobody can read", files{"courierimapuiddb": "1 7 3\n2 1.a\n", "cur/1.a:2,ab": message, "dovecot-keywords/x": "",
			"courierimapkeywords/1.a": "work\n"}, 7, []string{"2 1.a work"}},
		{"keyword that is none", files{"courierimapuiddb": "1 7 3\n2 1.a\n", "cur/1.a:2,": message, "courierimapkeywords/1.a": "(x\nok\n"}, 7, []string{"2 1.a ok"}},
		{"two files of one name", files{"courierimapuiddb": "1 7 3\n2 1.a\n", "cur/1.a:2,": message, "cur/1.a:2,a": message, "courierimapkeywords/1.a": "work\n"}, 7, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := tt.files.make(t)
			if _, err := openOnce(t, root, Options{}); err != nil {
				t.Fatal(err)
			}
			m, err := openOnce(t, root, Options{}) // another process
			if err != nil {
				t.Fatal(err)
			}
			if v := m.Snapshot().Validity; tt.validity != 0 && v != tt.validity || v == 0 || tt.validity == 0 && v < 1_700_000_000 {
				t.Errorf("UIDVALIDITY %d", v)
			}
			got := told(m)
			if tt.want == nil {
				if len(got) != 2 || !strings.HasPrefix(got[0], "2 1.a") {
					t.Errorf("got %q", got)
				}
			} else if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestImportUnreadable holds that a file of Courier's that may not be read is what the
// folder is refused for, and that nothing is lost once it may.
func TestImportUnreadable(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"courierimapuiddb", "courierimapkeywords/1.b"} {
		var log bytes.Buffer
		o := Options{Log: slog.New(slog.NewTextHandler(&log, nil))}
		root := courierFolder().make(t)
		file := filepath.Join(root, name)
		if err := os.Chmod(file, 0); err != nil {
			t.Fatal(err)
		}
		var err error
		asNobody(t, root, func() { _, err = openOnce(t, root, o) })
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrNoUIDs) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(log.String(), "cannot record UIDs") || exists(open(t, root), uidlist.Name) {
			t.Errorf("%s: a list was made, or is missed:\n%s", name, log.String())
		}
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := openOnce(t, root, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := toldSorted(m), courierWant(); !slices.Equal(got, want) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// asNobody gives the Maildir root to a user without rights, and does do as that one.
func asNobody(t *testing.T, root string, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		do()
		return
	}
	const nobody = 65534
	err := os.Chmod(filepath.Dir(filepath.Dir(root)), 0o755)
	err = errors.Join(err, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, nobody, nobody))
	}))
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.SetfsuidRetUid(nobody); err != nil {
		t.Fatal(err)
	}
	defer unix.SetfsuidRetUid(0)
	do()
}

// TestImportCourierLocked holds that Courier's lock is waited for.
func TestImportCourierLocked(t *testing.T) {
	t.Parallel()
	root := courierFolder().make(t)
	lock := filepath.Join(root, "tmp", "courier.lock")
	if err := os.WriteFile(lock, []byte("1:"+hostName(t)), 0o600); err != nil { // init lives
		t.Fatal(err)
	}
	if _, err := openOnce(t, root, Options{LockWait: 50 * time.Millisecond}); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v", err)
	}
	if exists(open(t, root), uidlist.Name) {
		t.Error("a list was made")
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if _, err := openOnce(t, root, Options{}); err != nil {
		t.Error(err)
	}
}

func hostName(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func open(t *testing.T, path string) vfs.Dir {
	t.Helper()
	dir, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func TestImportIsync(t *testing.T) {
	t.Parallel()
	tree := files{
		".uidvalidity": "1795454518\n8\n", ".mbsyncstate": "x\n",
		"cur/5.1_2.vm,U=2:2,S": "a: b\n", "new/5.1_1.vm,U=1:2,": "a: b\n",
		"cur/5.1_8.vm,U=8,FMD5=x:2,F": "a: b\n",
		"cur/6.1_1.vm,U=8:2,":         "a: b\n", // a copy
		"cur/6.1_2.vm,U=9:2,":         "a: b\n", // from another folder
		"new/7.x":                     "a: b\n",
	}
	want := []string{`1 5.1_1.vm,U=1 `, `2 5.1_2.vm,U=2 \Seen`, `8 5.1_8.vm,U=8,FMD5=x \Flagged`, `9 6.1_1.vm,U=8 `, `10 6.1_2.vm,U=9 `, `11 7.x `}
	root := tree.make(t)
	locked, err := isync.Open(open(t, root))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openOnce(t, root, Options{ImportIsync: true}); !errors.Is(err, ErrBusy) {
		t.Errorf("while mbsync works: %v", err)
	}
	locked.Close()
	m, err := openOnce(t, root, Options{ImportIsync: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := told(m); !slices.Equal(got, want) || m.Snapshot().Validity != 1795454518 {
		t.Errorf("UIDVALIDITY %d, %q", m.Snapshot().Validity, got)
	}
	if m, err = openOnce(t, tree.make(t), Options{}); err != nil {
		t.Fatal(err)
	}
	if m.Snapshot().Validity == 1795454518 {
		t.Error("UIDs were taken over that nobody asked for")
	}
	odd := maps.Clone(tree)
	odd[".uidvalidity"] = "?"
	if m, err = openOnce(t, odd.make(t), Options{ImportIsync: true}); err != nil || m.Snapshot().Len() != 6 {
		t.Errorf("unreadable .uidvalidity: %v", err)
	}
}

// TestImportSubscriptions holds that Courier's are taken once.
func TestImportSubscriptions(t *testing.T) {
	t.Parallel()
	tree := files{"courierimapsubscribed": "INBOX\nINBOX.Work\nINBOX.Entw&APw-rfe\nINBOX.日本語.メール\nINBOX.Work.Projects.2022\n#shared.x\nINBOX..x\nINBOX.a/b\n"}
	root := tree.make(t)
	want := []string{"INBOX", "Work", "Entwürfe", "日本語/メール", "Work/Projects/2022"}
	s := store(t, root)
	got, err := s.Subscriptions()
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range want {
		if err := s.Unsubscribe(name); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := store(t, root).Subscriptions(); err != nil || len(got) > 0 {
		t.Errorf("after all were given up: %q, %v", got, err)
	}
	// Also if the first thing that comes is a change.
	s = store(t, tree.make(t))
	if err := s.Subscribe("More"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Subscriptions(); err != nil || !slices.Equal(got, append(want, "More")) {
		t.Errorf("%q, %v", got, err)
	}
}

func store(t *testing.T, root string) *Store {
	t.Helper()
	h := NewHost(Options{})
	t.Cleanup(func() { h.Close() })
	s, err := h.Open(tree.Config{Root: root, Separator: '/'})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestImportIndex holds what is taken from the log of Dovecot's index of a folder
// of the fixtures: of 30 keywords the four without a letter.
func TestImportIndex(t *testing.T) {
	t.Parallel()
	log, err := os.ReadFile("dovecotindex/testdata/keywords.log")
	if err != nil {
		t.Fatal(err)
	}
	tree := indexedFolder()
	tree["dovecot.index.log"] = string(log)
	m, err := openOnce(t, tree.make(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	in := m.importIndex()
	want := map[string][]string{"27.x": {"kw27"}, "28.x": {"kw28"}, "29.x": {"kw29"}, "30.x": {"kw30"}, "31.x": {"kw27", "kw30"}}
	if in.modseq != 66 || !maps.EqualFunc(in.keywords, want, slices.Equal) {
		t.Errorf("%d, %q", in.modseq, in.keywords)
	}
	for _, odd := range []string{"", strings.Repeat("x", 5000)} {
		if err := os.WriteFile(m.dir.Path()+"/dovecot.index.log", []byte(odd), 0o600); err != nil {
			t.Fatal(err)
		}
		if in := m.importIndex(); in.modseq != 0 || len(in.keywords) > 0 {
			t.Errorf("%.10q: %d, %q", odd, in.modseq, in.keywords)
		}
	}
}

// indexedFolder is the folder of that log without it.
func indexedFolder() files {
	f := files{}
	list := "3 V1795455524 N1 G00000000000000000000000000000001\n"
	for i := range 31 {
		list += fmt.Sprintf("%d :%d.x\n", i+1, i+1)
		f[fmt.Sprintf("cur/%d.x:2,", i+1)] = "a: b\n"
		if i < 26 {
			f["dovecot-keywords"] += fmt.Sprintf("%d kw%02d\n", i, i+1)
		}
	}
	f["dovecot-uidlist"] = list
	return f
}

// TestImportIndexElsewhere holds that Dovecot's index is found in indexdirectory, where
// its INDEX= was; of two the one that fits, and of two that fit the later one.
func TestImportIndexElsewhere(t *testing.T) {
	t.Parallel()
	log, err := os.ReadFile("dovecotindex/testdata/keywords.log")
	if err != nil {
		t.Fatal(err)
	}
	full := string(log)
	before := strings.ReplaceAll(full, "kw27", "old7")
	other := bytes.Clone(log)
	other[224]++ // UIDVALIDITY
	for _, tt := range []struct {
		name        string
		aside, here string // what the log says in either place; "": there is none
		asideOlder  bool
		keyword     string // of UID 27
		modseq      ModSeq
	}{
		{"here", "", full, false, "kw27", 66},
		{"elsewhere", full, "", false, "kw27", 66},
		{"later elsewhere", full, before, false, "kw27", 66},
		{"later here", before, full, true, "kw27", 66},
		{"another's here", full, string(other), true, "kw27", 66},
		{"another's elsewhere", string(other), full, false, "kw27", 66},
		{"damaged here", full, strings.Repeat("x", 5000), true, "kw27", 66},
		{"another's", string(other), "", false, "", 0},
	} {
		for _, layout := range []tree.Layout{tree.PlusPlus, tree.FS} {
			t.Run(fmt.Sprint(tt.name, " ", layout), func(t *testing.T) {
				t.Parallel()
				f := indexedFolder()
				inbox := map[tree.Layout]string{tree.PlusPlus: ".INBOX", tree.FS: "INBOX"}[layout]
				aside := "../index/" + inbox + "/dovecot.index.log"
				for path, text := range map[string]string{aside: tt.aside, "dovecot.index.log": tt.here} {
					if text != "" {
						f[path] = text
					}
				}
				root := f.make(t)
				var err error
				if older := time.Now().Add(-time.Hour); tt.asideOlder {
					err = os.Chtimes(filepath.Join(root, aside), older, older)
				} else if tt.here != "" && tt.aside != "" {
					err = os.Chtimes(filepath.Join(root, "dovecot.index.log"), older, older)
				}
				if err != nil {
					t.Fatal(err)
				}
				c := tree.Config{Root: root, Index: filepath.Join(root, "../index"), Layout: layout, Separator: '/'}
				m, err := openTree(t, c, Options{IndexSingleHost: true})
				if err != nil {
					t.Fatal(err)
				}
				if got, want := told(m)[26], strings.TrimRight("27 27.x "+tt.keyword, " "); strings.TrimRight(got, " ") != want {
					t.Errorf("%q, want %q", got, want)
				}
				if in := m.importIndex(); in.modseq != tt.modseq {
					t.Errorf("modseq %d", in.modseq)
				}
			})
		}
	}
}

// TestImportLostList holds that Courier's list is too old for a folder that has Dovecot's
// index in indexdirectory: its list has been lost.
func TestImportLostList(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		f := courierFolder()
		if lost {
			f["../index/.INBOX/dovecot.index.log"] = "x"
		}
		root := f.make(t)
		m, err := openTree(t, tree.Config{Root: root, Index: filepath.Join(root, "../index"), Separator: '/'}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if taken := m.Snapshot().Validity == 795455513; taken == lost {
			t.Errorf("lost %v: taken over %v", lost, taken)
		}
	}
}

// TestImportImpossibleModSeq holds that one wrong octet in Dovecot's files, which have no
// checksum, neither ends modseqs nor keeps the index from being written.
func TestImportImpossibleModSeq(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("dovecotindex/testdata/keywords.log")
	if err != nil {
		t.Fatal(err)
	}
	for _, highest := range []uint64{1 << 60, 1<<64 - 1} {
		binary.LittleEndian.PutUint64(data[24:], highest-20) // the records of the log add to it
		var log bytes.Buffer
		m, err := openOnce(t, files{
			"dovecot-uidlist":   "3 V1795455524 N2 G00000000000000000000000000000001\n1 :1.x\n",
			"dovecot.index.log": string(data), "cur/1.x:2,": "a: b\n",
		}.make(t), Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if most := m.now() + 2*wayAhead; !m.ModSeqs() || uint64(m.Snapshot().ModSeq) > most || uint64(m.tick()) > most {
			t.Errorf("%d: modseqs %v, HIGHESTMODSEQ %d, next %d", highest, m.ModSeqs(), m.Snapshot().ModSeq, m.tick())
		}
		if !strings.Contains(log.String(), "no possible modseq") {
			t.Errorf("%d: the log says nothing:\n%s", highest, log.String())
		}
	}
}
