package admin

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imapd/control/config"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site makes a configuration directory and returns it and the file that names
// it.
func site(t *testing.T) (dir, conf string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl-") // short, as the path of a socket must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf = filepath.Join(dir, "imapd.conf")
	if err := os.WriteFile(conf, []byte("configdirectory: "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, conf
}

// imapctl runs the program and returns what it prints and its exit code.
func imapctl(args ...string) (out, complaints string, code int) {
	var o, e bytes.Buffer
	c := &call{in: os.Stdin, out: &o, err: &e, version: "test"}
	code = c.main(args)
	return o.String(), e.String(), code
}

func TestUsage(t *testing.T) {
	t.Parallel()
	_, conf := site(t)
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"", 64, "subcommand is missing"},
		{"frobnicate", 64, `unknown subcommand "frobnicate"`},
		{"-x who", 64, `unknown option "-x"`},
		{"-C", 64, "needs an argument"},
		{"-S a/b who", 64, "name of a service"},
		{"-C" + conf + " who --yaml", 64, `unknown option "--yaml" of who`},
		{"-C " + conf + " who x", 64, "usage: imapctl who [--json]"},
		{"-C " + conf + " kick", 64, "usage: imapctl kick"},
		{"-C " + conf + " kick -- -x", 67, "-x is not on"},
		{"-C /nonexistent who", 78, "no such file"},
		{"-C " + conf + " reload", 69, "no daemon runs"},
		{"-C " + conf + " session jane", 69, "there is no user jane"},
		{"-C " + conf + " session a/b", 64, "no name of a user"},
		{"-C " + conf + " telemetry jane", 64, "usage: imapctl telemetry"},
		{"-C " + conf + " telemetry jane on --delete", 64, "goes with off"},
		{"-C " + conf + " who", 0, ""},
		{"-C " + conf + " -S imap who --json", 0, "[]\n"},
		{"version", 0, "imapctl test\n"},
		{"-V", 0, "imapctl test\n"},
		{"--help", 0, "usage: imapctl"},
	} {
		out, complaints, code := imapctl(strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(out+complaints, tt.want) || code != 0 && out != "" {
			t.Errorf("%q: exit %d, %q, %q; want %d and %q", tt.args, code, out, complaints, tt.code, tt.want)
		}
		if (code == 64) != strings.Contains(complaints, "usage: imapctl [-C") {
			t.Errorf("%q: exit %d, says %q", tt.args, code, complaints)
		}
	}
}

func TestNotices(t *testing.T) {
	t.Parallel()
	dir, conf := site(t)
	for _, tt := range []struct {
		args []string
		file string
		want string // "" for none
	}{
		{[]string{"motd", "Hello,", "world"}, "motd", "Hello, world\n"},
		{[]string{"motd", "--", "--off"}, "motd", "--off\n"},
		{[]string{"motd"}, "motd", ""},
		{[]string{"shutdown", "größer"}, "shutdown", "größer\n"},
		{[]string{"-S", "imaps", "shutdown", "x"}, "shutdown.imaps", "x\n"},
		{[]string{"shutdown", "--off"}, "shutdown", ""},
		{[]string{"shutdown", "--off"}, "shutdown", ""},
		{[]string{"shutdown", "", "x"}, "shutdown", " x\n"},
	} {
		if _, complaints, code := imapctl(append([]string{"-C", conf}, tt.args...)...); code != 0 {
			t.Errorf("%q: exit %d: %s", tt.args, code, complaints)
		}
		text, err := os.ReadFile(filepath.Join(dir, "msg", tt.file))
		if string(text) != tt.want || os.IsNotExist(err) != (tt.want == "") {
			t.Errorf("%q: %s is %q, %v", tt.args, tt.file, text, err)
		}
	}
	for _, text := range []string{"a\nb", "a\x1b[31m", "[ALERT] x", strings.Repeat("x", 5000)} {
		if _, _, code := imapctl("-C", conf, "motd", text); code != 64 {
			t.Errorf("%.20q: exit %d", text, code)
		}
	}
	left, err := os.ReadDir(filepath.Join(dir, "msg"))
	if err != nil || len(left) != 2 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestForeignLink holds that a directory which the server's user has replaced
// by a link is not followed by root.
func TestForeignLink(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can")
	}
	dir, conf := site(t)
	elsewhere := t.TempDir()
	link := filepath.Join(dir, "log")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[int]int{12345: 71, 0: 0} {
		if err := os.Lchown(link, uid, uid); err != nil {
			t.Fatal(err)
		}
		if _, complaints, code := imapctl("-C", conf, "telemetry", "jane", "on"); code != want {
			t.Errorf("a link of %d: exit %d, want %d: %s", uid, code, want, complaints)
		}
	}
}

// TestForeignLinkRace is TestForeignLink while that user lets the link and a
// directory change places all the time.
func TestForeignLinkRace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can")
	}
	dir, conf := site(t)
	elsewhere := t.TempDir()
	msg, link := filepath.Join(dir, "msg"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(msg, 0o755), os.Symlink(elsewhere, link), os.Lchown(link, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, msg, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 300 {
		imapctl("-C", conf, "motd", "text") // works or fails
	}
	close(stop)
	<-stopped
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) > 0 {
		t.Errorf("root has written elsewhere: %v, %v", left, err)
	}
}

// TestForeignList holds that root, who looks who is on, removes nothing that the
// server's user could not.
func TestForeignList(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can")
	}
	dir, conf := site(t)
	elsewhere, _ := site(t)
	dead, own := filepath.Join(elsewhere, "999999999.new"), filepath.Join(dir, "own")
	if err := errors.Join(os.WriteFile(dead, nil, 0o644), os.Mkdir(own, 0o700), os.WriteFile(own+"/999999999.new", nil, 0o644),
		os.Chmod(dir, 0o755), os.Chmod(elsewhere, 0o755), os.Chown(own, 12345, 12345), os.Symlink(elsewhere, filepath.Join(dir, "proc"))); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, append(text, "cyrus_user: 12345\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, complaints, code := imapctl("-C", conf, "who"); code != 0 {
		t.Errorf("exit %d: %s", code, complaints)
	}
	if _, err := os.Stat(dead); err != nil {
		t.Errorf("root has removed what is another's: %v", err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "proc")), os.Rename(own, filepath.Join(dir, "proc"))); err != nil {
		t.Fatal(err)
	}
	imapctl("-C", conf, "who")
	if _, err := os.Stat(filepath.Join(dir, "proc", "999999999.new")); !os.IsNotExist(err) {
		t.Errorf("what a dead process left is still there: %v", err)
	}
}

// TestFormerUser has directories that belong to whom the server was before: root is
// told what to do.
func TestFormerUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can")
	}
	dir, conf := site(t)
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(conf, []byte("configdirectory: "+dir+"\ncyrus_user: 12345\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, complaints, code := imapctl("-C", conf, "reload"); code != 69 || !strings.Contains(complaints, "no daemon runs with configdirectory") {
		t.Errorf("reload: exit %d, %s", code, complaints)
	}
	for _, name := range []string{"proc", "socket"} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o700), os.Chown(filepath.Join(dir, name), 12346, 12346)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		word, dir string
		code      int
	}{{"who", "/proc", 77}, {"reload", "/socket", 69}} {
		_, complaints, code := imapctl("-C", conf, tt.word)
		if code != tt.code || !strings.Contains(complaints, ": chown -R 12345 "+dir+tt.dir+"\n") {
			t.Errorf("%s: exit %d, %s", tt.word, code, complaints)
		}
	}
}

// TestGive holds that root gives away only what it has just made, whatever the
// server's user has put in its place meanwhile.
func TestGive(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can")
	}
	dir := t.TempDir()
	in, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for name, make := range map[string]func(path string) error{
		"empty":  func(path string) error { return os.Mkdir(path, 0o700) },
		"full":   func(path string) error { return os.MkdirAll(filepath.Join(path, "key"), 0o700) },
		"file":   func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"theirs": func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, 12345, 0)) },
		"link":   func(path string) error { return errors.Join(os.Symlink("full", path), os.Lchown(path, 12345, 0)) },
	} {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		c := &call{conf: &config.Config{User: "4321"}}
		if err := c.give(in, name, 0o755); (err == nil) != (name == "empty") {
			t.Errorf("%s: %v", name, err)
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		given := info.Sys().(*syscall.Stat_t).Uid == 4321
		if given != (name == "empty") || given && info.Mode().Perm() != 0o755 {
			t.Errorf("%s: given %v, %v", name, given, info.Mode())
		}
	}
}

// TestManual holds that imapctl(8) has a row for every subcommand, with its
// options, and no other; and that the completion knows them all.
func TestManual(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../man/imapctl.8")
	if err != nil {
		t.Fatal(err)
	}
	completion, err := os.ReadFile("../../contrib/imapctl.bash")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	name := ""
	_, section, _ := strings.Cut(string(page), ".Sh SUBCOMMANDS\n")
	section, _, _ = strings.Cut(section, ".Sh ")
	for line := range strings.Lines(section) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == ".It" && f[1] == "Cm" {
			name = f[2]
			rows[name] = ""
		}
		rows[name] += line
	}
	delete(rows, "")
	words := regexp.MustCompile(`[a-z-]+`)
	for _, name := range names() {
		row, ok := rows[name]
		if !ok {
			t.Errorf("%s has no row", name)
		}
		delete(rows, name)
		for _, o := range commands[name].Options {
			if !strings.Contains(row, `Fl \-`+o.long) {
				t.Errorf("the row of %s does not tell of --%s", name, o.long)
			}
			if !strings.Contains(string(completion), "--"+o.long) {
				t.Errorf("the completion does not know --%s", o.long)
			}
		}
		if !slices.Contains(words.FindAllString(string(completion), -1), name) {
			t.Errorf("the completion does not know %s", name)
		}
	}
	for name := range rows {
		t.Errorf("a row of no subcommand: %s", name)
	}
}
