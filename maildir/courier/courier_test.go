package courier

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"imapd/maildir/vfs"
)

func TestKeywords(t *testing.T) {
	t.Parallel()
	list := "work\nurgent\n$Junk\n\n1.a,S=3:0 2\n2.b:1\n3.c:7 x -1 2\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  map[string]string // names with a blank between them
		bad   int
	}{
		{"nothing", nil, map[string]string{}, 0},
		{"list", map[string]string{":list": list}, map[string]string{"1.a,S=3": "work $Junk", "2.b": "urgent", "3.c": "$Junk"}, 0},
		{"newer file", map[string]string{":list": list, "2.b": "later\nWORK\n"}, map[string]string{"1.a,S=3": "work $Junk", "2.b": "later work", "3.c": "$Junk"}, 0},
		{"none any more", map[string]string{":list": list, "2.b": "", ".5.1.a,S=3": ""}, map[string]string{"3.c": "$Junk"}, 0},
		{"highest number", map[string]string{".9.2.b": "nine\n", ".10.2.b": "ten\n", ".8.2.b": "eight\n"}, map[string]string{"2.b": "ten"}, 0},
		{"without a number", map[string]string{".4000000000.2.b": "old\n", "2.b": "new"}, map[string]string{"2.b": "new"}, 0},
		{"no list", map[string]string{"2.b": "x\r\nx\nX\n\n"}, map[string]string{"2.b": "x"}, 0},
		{"other files", map[string]string{".x.2.b": "x\n", ".7": "x", ":other": "x", ".8.": "x"}, map[string]string{}, 0},
		{"garbage", map[string]string{":list": "a\x00b\n\x01\xff\n\n:0\nno colon\nx:0 1\n"}, map[string]string{"x": "\x01\xff"}, 0},
		{"list that does not end", map[string]string{":list": "a\nb"}, map[string]string{}, 0},
		{"huge", map[string]string{"2.b": strings.Repeat("k\n", maxMessage), "1.a": "x"}, map[string]string{"1.a": "x"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t, tt.files)
			k, err := ReadKeywords(dir)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for base, all := range k.Of {
				var names []string
				for _, i := range all {
					names = append(names, k.Names[i])
				}
				got[base] = strings.Join(names, " ")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || k.Unreadable != tt.bad {
				t.Errorf("%d unreadable (-want +got):\n%s", k.Unreadable, diff)
			}
		})
	}
}

// TestNotFiles holds that nothing but a regular file is opened.
func TestNotFiles(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{":list": "a\n\n1.a:0\n"})
	path := filepath.Join(dir.Path(), keywordsDir)
	if err := errors.Join(unix.Mkfifo(path+"/1.b", 0o600), os.Symlink("/dev/zero", path+"/1.c"), os.Mkdir(path+"/1.d", 0o700)); err != nil {
		t.Fatal(err)
	}
	k, err := ReadKeywords(dir)
	if err != nil || k.Unreadable != 3 || len(k.Of) != 1 {
		t.Errorf("%+v, %v", k, err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	for _, make := range []func() error{func() error { return os.WriteFile(path, nil, 0o600) }, func() error { return unix.Mkfifo(path, 0o600) }} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if k, err := ReadKeywords(dir); err != nil || len(k.Names) > 0 {
			t.Errorf("%+v, %v", k, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	dir := folder(t, nil)
	if all, err := ReadSubscriptions(dir); err != nil || all != nil {
		t.Errorf("%v, %v", all, err)
	}
	text := "INBOX\nINBOX.Work\r\ninbox.Work.Projects.2022\nINBOX.日本語.メール\n#shared.bob.x\nINBOXES\n\nINBOX.Entw&APw-rfe &- Co"
	if err := os.WriteFile(filepath.Join(dir.Path(), subscriptions), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := ReadSubscriptions(dir)
	want := [][]string{{}, {"Work"}, {"Work", "Projects", "2022"}, {"日本語", "メール"}, {"Entw&APw-rfe &- Co"}}
	if diff := cmp.Diff(want, all); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func FuzzList(f *testing.F) {
	f.Add("work\nurgent\n\n1.a,S=3:0 1\n2.b:1\n")
	f.Add("\n\n:\n:0")
	f.Fuzz(func(t *testing.T, text string) {
		r := &reading{Keywords: Keywords{Of: map[string][]int{}}, index: map[string]int{}}
		r.list(text)
		for base, all := range r.Of {
			slices.Sort(all)
			if base == "" || all[0] < 0 || all[len(all)-1] >= len(r.Names) || len(slices.Compact(slices.Clone(all))) != len(all) {
				t.Errorf("%q: %v of %d", base, all, len(r.Names))
			}
		}
		parseSubscriptions(text)
	})
}

// folder makes a folder with the files of its courierimapkeywords, which is
// missing where files is nil.
func folder(t *testing.T, files map[string]string) vfs.Dir {
	t.Helper()
	path := t.TempDir()
	if files != nil {
		if err := os.Mkdir(filepath.Join(path, keywordsDir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(path, keywordsDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}
