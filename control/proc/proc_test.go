package proc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var pid = strconv.Itoa(os.Getpid())

func TestFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "conf", "proc")
	table := Open(dir, nil)
	e := table.Begin(Info{Service: "imap", Host: "[192.0.2.1]", Session: "sid", Since: time.Unix(1000, 0)})
	name := filepath.Join(dir, pid)
	second := fmt.Sprintf("sid\t1000\t%d\n", start())
	if start() == 0 {
		t.Error("no time of the start of the process")
	}
	expect(t, name, "imap\t[192.0.2.1]\t\t\t\n"+second)
	for _, tt := range []struct{ user, mailbox, command, want string }{
		{"alice", "", "", "imap\t[192.0.2.1]\talice\t\t\n"},
		{"alice", "INBOX", "", "imap\t[192.0.2.1]\talice\tINBOX\t\n"},
		{"alice", "Entw\u00fcrfe/a\tb\r\nc\x7f", "Idle", "imap\t[192.0.2.1]\talice\tEntw\u00fcrfe/a?b??c?\tIdle\n"},
		{"alice", "", "", "imap\t[192.0.2.1]\talice\t\t\n"},
	} {
		e.Set(tt.user, tt.mailbox, tt.command)
		expect(t, name, tt.want+second)
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	e.End()
	e.End()
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// What has not changed is not written.
func TestUnchanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := Open(dir, nil).Begin(Info{})
	e.Set("alice", "INBOX", "Idle")
	name := filepath.Join(dir, pid)
	if err := os.WriteFile(name, []byte("mark"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.Set("alice", "INBOX", "Idle")
	expect(t, name, "mark")
}

// What could not be listed leaves nothing behind, however often it is tried.
func TestUnwritable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table := Open(dir, nil)
	table.Several()
	for n := range 5 {
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("%s.%d", pid, n+1)), 0o700); err != nil { // in the way
			t.Fatal(err)
		}
		e := table.Begin(Info{})
		e.Set("alice", "", "")
		e.End()
	}
	if got := files(t, dir); len(got) != 5 {
		t.Errorf("left behind: %v", got)
	}
}

// One client at a time has the plain name, each of several has none.
func TestNames(t *testing.T) {
	t.Parallel()
	one := t.TempDir()
	table := Open(one, nil)
	for range 2 {
		e := table.Begin(Info{})
		if got := files(t, one); !slices.Equal(got, []string{pid}) {
			t.Errorf("got %v", got)
		}
		e.End()
	}
	many := t.TempDir()
	table = Open(many, nil)
	table.Several()
	a, b := table.Begin(Info{}), table.Begin(Info{})
	a.End()
	c := table.Begin(Info{})
	sessions := func() []string {
		return slices.DeleteFunc(files(t, many), func(name string) bool { return strings.HasSuffix(name, suffix) })
	}
	if got, want := sessions(), []string{pid + ".2", pid + ".3"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	b.End()
	c.End()
	if got := sessions(); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// A process for several clients makes files only until it has enough of them, and
// removes them at its end. What is written again has nothing of what was there, and
// who reads a file that it has opened reads no other session's at once.
func TestAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inode := func(name string) uint64 {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
	table := Open(dir, nil)
	table.Several()
	made, written := map[uint64]int{}, 0
	var last *Entry
	for n := range 200 {
		e := table.Begin(Info{Service: "imap", Host: "[192.0.2.1]", Session: "sid", Since: time.Unix(1000, 0)})
		second := fmt.Sprintf("sid\t1000\t%d\n", start())
		look := func() {
			written++
			ino := inode(pid + "." + e.info.ID)
			if at, ok := made[ino]; ok && written-at <= restFiles {
				t.Fatalf("a file is written again after %d others", written-at)
			}
			made[ino] = written
		}
		look()
		e.Set("alice", strings.Repeat("long", n%3*100), "")
		look()
		e.Set("b", "", "")
		look()
		expect(t, filepath.Join(dir, pid+"."+e.info.ID), "imap\t[192.0.2.1]\tb\t\t\n"+second)
		if last != nil {
			last.End()
		}
		last = e
	}
	if len(made) > 4*restFiles {
		t.Errorf("%d files were made for 200 sessions", len(made))
	}
	if all, err := table.List(); err != nil || len(all) != 1 || all[0].User != "b" {
		t.Errorf("got %+v, %v", all, err)
	}
	// One that somebody has removed, and a directory that is not there any more.
	for _, name := range files(t, dir) {
		_ = os.Remove(filepath.Join(dir, name))
	}
	last.Set("carol", "", "")
	expect(t, filepath.Join(dir, pid+"."+last.info.ID), "imap\t[192.0.2.1]\tcarol\t\t\n"+fmt.Sprintf("sid\t1000\t%d\n", start()))
	last.End()
	var many []*Entry
	for range 2 * keepFiles {
		many = append(many, table.Begin(Info{}))
	}
	for _, e := range many {
		e.End()
	}
	if got := files(t, dir); len(got) > keepFiles {
		t.Errorf("%d files are kept", len(got))
	}
	late := table.Begin(Info{})
	table.Close()
	late.Set("alice", "INBOX", "")
	late.End()
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if all, err := Open(filepath.Join(dir, "none"), nil).List(); len(all) != 0 || err != nil {
		t.Errorf("got %v, %v", all, err)
	}
	table := Open(dir, nil)
	e := table.Begin(Info{Service: "imap", Host: "[192.0.2.1]", Session: "sid", Since: time.Unix(1000, 0)})
	e.Set("alice", "INBOX", "Idle")

	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	other := strconv.Itoa(child.Process.Pid)
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(other, "pop3\tlocalhost [127.0.0.1]\tbob\n") // another program's
	put(other+".1", "imap\t[192.0.2.2]\t\t\t\ns2\t2000\t1\n")
	put(pid+".7", "imap\t[192.0.2.3]\t\t\t\ns3\t2000\t1\n") // of an earlier process with our number
	put(other+".new", "")
	put("."+other+".1.new", "imap\t[192.0.2.1]\tbob\t\t\n")
	put("."+other, "imap\t[192.0.2.1]\tbob\t\t\n")
	put("0"+other, "imap\t[192.0.2.2]\t\t\t\n")
	put(other+".x", "imap\t[192.0.2.2]\t\t\t\n")
	put("README", "imap\t[192.0.2.2]\t\t\t\n")
	put(other+".3", "torn")
	if err := os.Symlink(pid, filepath.Join(dir, other+".4")); err != nil {
		t.Fatal(err)
	}

	all, err := table.List()
	if err != nil || len(all) != 2 {
		t.Fatalf("got %+v, %v", all, err)
	}
	slices.SortFunc(all, func(a, b Info) int { return strings.Compare(a.Service, b.Service) })
	if want := (Info{os.Getpid(), "", "imap", "[192.0.2.1]", "alice", "INBOX", "Idle", time.Unix(1000, 0), "sid"}); all[0] != want {
		t.Errorf("got %+v, want %+v", all[0], want)
	}
	if got := all[1]; got.PID != child.Process.Pid || got.User != "bob" || got.Host != "localhost [127.0.0.1]" || got.Mailbox != "" || time.Since(got.Since) > time.Hour {
		t.Errorf("got %+v", got)
	}
	for _, name := range []string{other + ".1", pid + ".7"} {
		if slices.Contains(files(t, dir), name) {
			t.Errorf("%s outlives its process", name)
		}
	}
	_ = child.Process.Kill()
	// It has ended as soon as it could be waited for, whether or not somebody does.
	if err := unix.Waitid(unix.P_PID, child.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	if all, err := table.List(); err != nil || len(all) != 1 {
		t.Errorf("got %+v, %v", all, err)
	}
	if got := files(t, dir); slices.Contains(got, other) || slices.Contains(got, other+".new") || slices.Contains(got, "."+other+".1.new") {
		t.Errorf("files of the dead are left: %v", got)
	}
	e.End()
}

func TestCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table := Open(dir, nil)
	table.Several()
	begin := func(service, host, user string) {
		e := table.Begin(Info{Service: service, Host: host})
		e.Set(user, "", "")
	}
	begin("imap", "h1", "alice")
	begin("imap", "h1", "bob")
	begin("imap", "h2", "alice")
	begin("imaps", "h1", "alice")
	begin("imap", "h1", "") // not logged in
	// Another process's.
	if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(os.Getppid())), []byte("imap\th1\talice\t\t\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	perUser, perHost, err := table.Count("imap", "alice", "h1")
	if perUser != 3 || perHost != 3 || err != nil {
		t.Errorf("got %d, %d, %v", perUser, perHost, err)
	}
}

// Of many that want the last places at the same time, as many get in as there
// are places.
func TestAdmit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	table := Open(dir, nil)
	table.Several()
	for _, tt := range []struct{ perUser, perHost int }{{3, 0}, {0, 3}} {
		var wg sync.WaitGroup
		var mu sync.Mutex
		in := 0
		for range 20 {
			e := table.Begin(Info{Service: "imap", Host: "h"})
			wg.Go(func() {
				if _, _, ok := e.Admit("alice", tt.perUser, tt.perHost); ok {
					mu.Lock()
					in++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if in != 3 {
			t.Errorf("%+v: %d got in", tt, in)
		}
		for e := range table.entries {
			e.End()
		}
	}
	e := table.Begin(Info{Service: "imap", Host: "h"})
	if _, _, ok := e.Admit("alice", 0, 0); !ok || e.info.User != "alice" {
		t.Errorf("without a limit: %v, %q", ok, e.info.User)
	}
	late := table.Begin(Info{Service: "imap", Host: "h"})
	if perUser, perHost, ok := late.Admit("alice", 1, 2); ok || perUser != 1 || perHost != 1 || late.info.User != "" {
		t.Errorf("got %d, %d, %v, %q", perUser, perHost, ok, late.info.User)
	}
}

// A directory that cannot be had, or none at all, costs nobody a session.
func TestNoDirectory(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", filepath.Join(file, "proc")} {
		table := Open(dir, nil)
		e := table.Begin(Info{Service: "imap", Host: "h"})
		if _, _, ok := e.Admit("alice", 1, 1); !ok {
			t.Errorf("%q: refused", dir)
		}
		e.Set("alice", "INBOX", "Idle")
		e.End()
	}
}

func BenchmarkSet(b *testing.B) {
	e := Open(b.TempDir(), nil).Begin(Info{Service: "imap", Host: "h"})
	boxes := []string{"INBOX", "Sent"}
	for n := 0; b.Loop(); n++ {
		e.Set("alice", boxes[n%2], "")
	}
}

func expect(t *testing.T, name, want string) {
	t.Helper()
	got, err := os.ReadFile(name)
	text := strings.TrimRight(strings.TrimSuffix(string(got), "\n"), " ") + "\n"
	if err != nil || text != want && string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
