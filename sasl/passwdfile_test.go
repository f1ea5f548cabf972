package sasl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"imapd/control/config"
)

// write puts text at path in one step.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, text string) (*PasswdFile, string, *bytes.Buffer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passwd")
	write(t, path, text)
	var log bytes.Buffer
	p, err := OpenPasswdFile(withFile(path), nil, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return p, path, &log
}

// withFile returns a configuration in which uid and gid of the lines of path count.
func withFile(path string) *config.Config {
	c := config.Default()
	c.PasswdFile, c.PrivilegeSeparation = path, config.SeparateUser
	return c
}

const sample = `# users of example.org
alice:{PLAIN}wonder:1001:1002:Alice:/home/alice:/bin/sh:userdb_mail=maildir:~/Mail userdb_quota_rule=*:bytes=1G
bob:{plain}builder::::/srv/bob
carol:{SHA256}QQTTb42iwlQ0n4WDZ5Pr4CngyVcGOjTJHC6SAxh7VjE=
:no:name
dave

erin:{NOPE}x:::
frank:!{PLAIN}locked
gina:{PLAIN}pw:1001:1001::relative
hugo:{PLAIN}pw:0:0
ivan:{PLAIN}pw:::::: allow_nets=127.0.0.1
alice:{PLAIN}second
judy:{PLAIN}pw::::::nopassword
karl@example.org:{PLAIN}pw:1003:1003::/home/karl::userdb_home=/srv/karl userdb_uid=1004
lara:{PLAIN}pw:root:
mike:{PLAIN}pw:nobody:
old:{PLAIN}pw:::::::/var/mail/old:INBOX=/x
`

func TestPasswdFile(t *testing.T) {
	t.Parallel()
	p, _, log := open(t, sample+"dos:{PLAIN}pw\r\ncolon:{PLAIN}a:b\n")
	none := User{}
	for _, tt := range []struct {
		user, password string
		want           User
		err            error
	}{
		{"alice", "wonder", User{Name: "alice", UID: 1001, GID: 1002, Home: "/home/alice",
			Extra: map[string]string{"mail": "maildir:~/Mail", "quota_rule": "*:bytes=1G"}}, nil},
		{"alice", "second", none, ErrBadPassword},
		{"alice", "wonde", none, ErrBadPassword},
		{"bob", "builder", User{Name: "bob", UID: -1, GID: -1, Home: "/srv/bob"}, nil},
		{"carol", "correct horse", User{Name: "carol", UID: -1, GID: -1}, nil},
		{"Alice", "wonder", none, ErrNoUser},
		{"nobody", "wonder", none, ErrNoUser},
		{"dave", "", none, ErrBadPassword},
		{"dave", "wonder", none, ErrBadPassword},
		{"erin", "x", none, ErrLocked},
		{"frank", "locked", none, ErrLocked},
		{"gina", "pw", User{Name: "gina", UID: 1001, GID: 1001}, nil},
		{"hugo", "pw", none, ErrLocked},
		{"ivan", "pw", none, ErrLocked},
		{"judy", "pw", none, ErrLocked},
		{"karl@example.org", "pw", User{Name: "karl@example.org", UID: 1004, GID: 1003, Home: "/srv/karl",
			Extra: map[string]string{"home": "/srv/karl", "uid": "1004"}}, nil},
		{"lara", "pw", none, ErrLocked},
		{"mike", "pw", User{Name: "mike", UID: 65534, GID: -1}, nil},
		{"old", "pw", User{Name: "old", UID: -1, GID: -1, Extra: map[string]string{"mail": "/var/mail/old:INBOX=/x"}}, nil},
		{"dos", "pw", User{Name: "dos", UID: -1, GID: -1}, nil},
		{"colon", "a:b", none, ErrLocked},
		{"colon", "a", none, ErrLocked},
		{"# users of example.org", "", none, ErrNoUser},
		{"", "no", none, ErrNoUser},
	} {
		got, err := p.Verify(context.Background(), tt.user, tt.password)
		if err != tt.err {
			t.Errorf("%s, %s: error %v, want %v", tt.user, tt.password, err, tt.err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s, %s: %s", tt.user, tt.password, d)
		}
	}
	for _, line := range []string{"line=6 user=dave", "line=8 user=erin", "line=11 user=hugo", "line=12 user=ivan", "line=13 user=alice", "line=14 user=judy", "line=16 user=lara", "line=20 user=colon"} {
		if n := strings.Count(log.String(), line+" "); n != 1 {
			t.Errorf("%q is logged %d times", line, n)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 8 {
		t.Errorf("%d lines logged:\n%s", n, log)
	}
	for _, secret := range []string{"wonder", "second", "locked", "NOPE"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
}

// TestLinesOfNoUse holds that a line by which nobody can log in is told of, and one
// with a fault in fields that do not count is not refused.
func TestLinesOfNoUse(t *testing.T) {
	t.Parallel()
	const text = "\ufeffjane\nBob:{PLAIN}x\n carl:{PLAIN}x\n   \n\nhugo:{PLAIN}x:0:-\nina:{PLAIN}x::::::: userdb_gid=0\n" +
		"s1:{PLAIN}x:19000:0:99999:7:::\ns2:{PLAIN}x:19000:1:99999:7:::\nn:{PLAIN}x:1000:1000:::::\n"
	for _, tt := range []struct {
		name    string
		change  func(*config.Config)
		want    []string // of the log
		in, out []string
	}{
		{"one uid for all", func(c *config.Config) { c.PrivilegeSeparation = config.SeparateShared }, []string{
			`ERROR "passwd-file line lets nobody in" 1 jane`, `ERROR "passwd-file line lets nobody in" 2 Bob`,
			`ERROR "passwd-file line lets nobody in" 3 " carl"`, `WARN "passwd-file line is odd" 8 s1`,
		}, []string{"hugo", "ina", "s1", "s2", "n"}, []string{"bob"}},
		{"a uid for each", func(c *config.Config) { c.UsernameToLower = false }, []string{
			`ERROR "passwd-file line lets nobody in" 1 jane`, `ERROR "passwd-file line lets nobody in" 3 " carl"`,
			`ERROR "passwd-file line ignored" 6 hugo`, `ERROR "passwd-file line ignored" 7 ina`,
			`ERROR "passwd-file line ignored" 8 s1`, `ERROR "passwd-file line ignored" 9 s2`,
		}, []string{"Bob", "n"}, []string{"hugo", "ina", "s1", "s2"}},
	} {
		path := filepath.Join(t.TempDir(), "passwd")
		write(t, path, text)
		c := withFile(path)
		tt.change(c)
		var log bytes.Buffer
		p, err := OpenPasswdFile(c, nil, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		line := regexp.MustCompile(`level=(\S+) msg=(".*?") file=\S+ line=(\d+) user=(".*?"|\S+) `)
		for _, m := range line.FindAllStringSubmatch(log.String(), -1) {
			got = append(got, strings.Join(m[1:], " "))
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s\n%s", tt.name, d, log.String())
		}
		for _, user := range tt.in {
			if _, err := p.Verify(context.Background(), user, "x"); err != nil {
				t.Errorf("%s: %s: %v", tt.name, user, err)
			}
		}
		for _, user := range tt.out {
			if _, err := p.Verify(context.Background(), user, "x"); err == nil {
				t.Errorf("%s: %s is let in", tt.name, user)
			}
		}
		problems, several := Inspect(c, nil)
		if len(problems) != len(tt.want) || !several {
			t.Errorf("%s: %v, several %v", tt.name, problems, several)
		}
		if want := path + `:1: user "jane": there is no colon`; !problems[0].Warning || !strings.HasPrefix(problems[0].String(), want) {
			t.Errorf("%s: %v", tt.name, problems[0])
		}
	}
}

// TestInspect holds who counts as several users.
func TestInspect(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "passwd")
	write(t, path, "jane:{PLAIN}x\n")
	for methods, want := range map[string]bool{"passwd-file": false, "saslauthd": true, "passwd-file saslauthd": true} {
		c := withFile(path)
		c.PwcheckMethods = strings.Fields(methods)
		if problems, several := Inspect(c, nil); several != want || problems != nil {
			t.Errorf("%s: %v, %v", methods, several, problems)
		}
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	p, _, _ := open(t, sample)
	for _, tt := range []struct {
		user string
		err  error
	}{{"alice", nil}, {"dave", nil}, {"frank", nil}, {"erin", ErrLocked}, {"zoe", ErrNoUser}} {
		u, err := p.Lookup(context.Background(), tt.user)
		if err != tt.err || err == nil && u.Name != tt.user {
			t.Errorf("%s: got %v, %v", tt.user, u, err)
		}
	}
}

func TestPasswdFileChanges(t *testing.T) {
	t.Parallel()
	p, path, log := open(t, "a:{PLAIN}one\nb:{NOPE}x\n")
	verify := func(user, password string) error {
		_, err := p.Verify(context.Background(), user, password)
		return err
	}
	if err := verify("a", "one"); err != nil {
		t.Fatal(err)
	}
	// The same size, in the same moment: only the inode differs.
	write(t, path, "a:{PLAIN}two\nb:{NOPE}x\n")
	if err := verify("a", "one"); err != ErrBadPassword {
		t.Errorf("old password: %v", err)
	}
	if err := verify("a", "two"); err != nil {
		t.Errorf("new password: %v", err)
	}
	// Written in place, in the same moment.
	if err := os.WriteFile(path, []byte("a:{PLAIN}six\nb:{NOPE}x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := verify("a", "six"); err != nil {
		t.Errorf("password written in place: %v", err)
	}
	if n := strings.Count(log.String(), "user=b"); n != 1 {
		t.Errorf("a line that stayed wrong is logged %d times", n)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := verify("a", "six"); err == nil || errors.Is(err, ErrBadPassword) {
		t.Errorf("without the file: %v, want a temporary error", err)
	}
	write(t, path, "a:{PLAIN}ten\n")
	if err := verify("a", "ten"); err != nil {
		t.Errorf("the file is back: %v", err)
	}
}

// TestPasswdFileKeeps holds that a file which does not change is read once.
func TestPasswdFileKeeps(t *testing.T) {
	t.Parallel()
	p, path, _ := open(t, "a:{PLAIN}one\n")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	first := p.users.Load()
	if first.stamp != (stamp{}) {
		t.Error("a file written a moment ago has a stamp")
	}
	first.stamp = stampOf(info)
	for range 3 {
		if _, err := p.Verify(context.Background(), "a", "one"); err != nil {
			t.Fatal(err)
		}
	}
	if p.users.Load() != first {
		t.Error("the file was read again")
	}
}

// TestPasswdFileHidden holds that it is also read once where only the opener may
// look into its directory, and again when it has changed.
func TestPasswdFileHidden(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "passwd")
	write(t, path, "a:{PLAIN}one\n")
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	opener := func(string) (*os.File, error) {
		fd, err := unix.Dup(int(file.Fd()))
		if err != nil {
			return nil, err
		}
		_, err = unix.Seek(fd, 0, io.SeekStart)
		return os.NewFile(uintptr(fd), path), err
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(path), 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(filepath.Dir(path), 0o700) // to be removed
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 {
		defer unix.Setfsuid(0)
		if err := unix.Setfsuid(65534); err != nil { // of this thread
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("look at the file: %v", err)
	}
	p, err := OpenPasswdFile(withFile(path), opener, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := p.users.Load()
	first.stamp = stampOf(info)
	for range 3 {
		if _, err := p.Verify(context.Background(), "a", "one"); err != nil {
			t.Fatal(err)
		}
	}
	if p.users.Load() != first {
		t.Error("the file was read again")
	}
	if _, err := file.WriteAt([]byte("b:{PLAIN}two\n"), info.Size()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verify(context.Background(), "b", "two"); err != nil {
		t.Errorf("added: %v", err)
	}
}

func TestPasswdFileUnfit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := OpenPasswdFile(withFile(filepath.Join(dir, "none")), nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := OpenPasswdFile(withFile(dir), nil, nil); err == nil {
		t.Error("a directory is taken")
	}
}

// TestUnknownUserCosts holds that an unknown or locked user runs exactly one
// hash, the one of the file's most usual cost.
func TestUnknownUserCosts(t *testing.T) {
	t.Parallel()
	crypt := "$6$salt$" + strings.Repeat("a", 86)
	p, _, _ := open(t, "a:{PLAIN}one\nb:"+crypt+"\nc:"+crypt+"\nd:!\ne:{NOPE}\n")
	var ran []string
	p.verify = func(s secret, _ string) bool {
		ran = append(ran, s.cost())
		return true // whatever the dummy says does not count
	}
	for _, tt := range []struct {
		user string
		cost string
		err  error
	}{{"a", "PLAIN", nil}, {"b", "6", nil}, {"d", "6", ErrLocked}, {"e", "6", ErrLocked}, {"nobody", "6", ErrNoUser}} {
		ran = nil
		_, err := p.Verify(context.Background(), tt.user, "pw")
		if err != tt.err {
			t.Errorf("%s: %v, want %v", tt.user, err, tt.err)
		}
		if d := cmp.Diff([]string{tt.cost}, ran); d != "" {
			t.Errorf("%s: %s", tt.user, d)
		}
	}
}

func TestHashingIsBounded(t *testing.T) {
	t.Parallel()
	p, _, _ := open(t, "a:{PLAIN}one\n")
	var mu sync.Mutex
	running, most := 0, 0
	hold := make(chan struct{})
	entered := make(chan struct{}, 100)
	p.verify = func(secret, string) bool {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		entered <- struct{}{}
		<-hold
		mu.Lock()
		running--
		mu.Unlock()
		return true
	}
	var wg sync.WaitGroup
	for range 3 * cap(p.slots) {
		wg.Go(func() {
			if _, err := p.Verify(context.Background(), "a", "one"); err != nil {
				t.Error(err)
			}
		})
	}
	for range cap(p.slots) {
		<-entered
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := p.Verify(ctx, "a", "one"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrBadPassword) {
		t.Errorf("all slots taken: %v", err)
	}
	close(hold)
	wg.Wait()
	if most > cap(p.slots) {
		t.Errorf("%d at a time, want %d", most, cap(p.slots))
	}
}

// TestPasswdFileSwapped holds that logins succeed all the while that the file
// is replaced, as long as each version of it lets them.
func TestPasswdFileSwapped(t *testing.T) {
	t.Parallel()
	p, path, _ := open(t, "a:{PLAIN}one\n")
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := p.Verify(context.Background(), "a", "one"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 200 {
		write(t, path, strings.Repeat("#\n", i)+"a:{PLAIN}one\n")
	}
	close(done)
	wg.Wait()
}

// BenchmarkVerify compares what the answers cost; those for a wrong password
// and for an unknown user should be alike.
func BenchmarkVerify(b *testing.B) {
	p, _, _ := open(b, "a:$2y$05$KQmM4nxY9MN5ox0RAEzGAOaeBvmKZFiKLZfU4DtZEw0HwuBSkEdH2\nb:{PLAIN}x\nc:$2y$05$v9HrMY27.y7gVZoZ.0Vb7.AjsFtepQCk5jrcJbUMhZMoVnkd4TRVS\n")
	for _, user := range []string{"a", "nobody"} {
		b.Run(user, func(b *testing.B) {
			for b.Loop() {
				if _, err := p.Verify(context.Background(), user, "wrong"); err == nil {
					b.Fatal("let in")
				}
			}
		})
	}
}

func FuzzPasswdFile(f *testing.F) {
	f.Add(sample)
	f.Add("a:b:c:d:e:f:g:h:i:j\n::::\na\x00b:{PLAIN}\n")
	f.Add("a:{\r\n")
	f.Fuzz(func(t *testing.T, data string) {
		u := parseUsers(data, rules{lower: true, ids: true})
		lines := strings.Count(data, "\n") + 1
		if len(u.byName) > lines || len(u.complaints) > maxComplaints {
			t.Errorf("%d users, %d complaints of %d lines", len(u.byName), len(u.complaints), lines)
		}
		usable := 0
		for name, r := range u.byName {
			if name == "" || name[0] == '#' || strings.ContainsAny(name, ":\n") {
				t.Errorf("user %q", name)
			}
			if r.broken && r.secret.scheme != nil {
				t.Errorf("%q is broken and can log in", name)
			}
			if r.uid == 0 || r.gid == 0 || r.home != "" && r.home[0] != '/' {
				t.Errorf("%q has uid %d, gid %d, home %q", name, r.uid, r.gid, r.home)
			}
			if r.secret.scheme != nil {
				usable++
			}
		}
		if usable > 0 && u.usual.scheme == nil {
			t.Error("no usual secret")
		}
	})
}

func BenchmarkParseUsers(b *testing.B) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "user%d@example.org:{BLF-CRYPT}$2y$05$v9HrMY27.y7gVZoZ.0Vb7.AjsFtepQCk5jrcJbUMhZMoVnkd4TRVS:1001:1001::/srv/mail/user%d::\n", i, i)
	}
	for b.Loop() {
		parseUsers(text.String(), rules{lower: true, ids: true})
	}
}
