package test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"

	"imapd/test/peer"
)

// A terminal is a program that runs in a tmux of its own, where a test can
// press keys and read the screen.
type terminal struct {
	t      *testing.T
	socket string
	env    []string
}

// newTerminal runs command in a terminal that ends with the test.
func newTerminal(t *testing.T, home, command string) *terminal {
	t.Helper()
	peer.Need(t, "tmux")
	term := &terminal{t, home + "/tmux", append(os.Environ(), "HOME="+home, "LC_ALL=C.UTF-8", "TERM=xterm", "TMUX=")}
	term.tmux("new-session", "-d", "-x", "100", "-y", "30", command)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen:\n%s", term.screen())
		}
		term.command("kill-server").Run()
	})
	return term
}

func (term *terminal) command(args ...string) *exec.Cmd {
	c := exec.Command("tmux", append([]string{"-f", "/dev/null", "-S", term.socket}, args...)...)
	c.Env = term.env
	return c
}

func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	out, err := term.command(args...).CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (term *terminal) screen() string {
	out, _ := term.command("capture-pane", "-p").Output() // empty when the program has ended
	return string(out)
}

// press sends keys by their tmux names.
func (term *terminal) press(keys ...string) {
	term.t.Helper()
	term.tmux(append([]string{"send-keys"}, keys...)...)
}

// shows waits until the screen holds text.
func (term *terminal) shows(text string) {
	term.t.Helper()
	eventually(term.t, func() string { return "the screen never showed " + text }, func() bool { return strings.Contains(term.screen(), text) })
}

// TestMutt reads, flags, deletes, moves and copies with mutt, as a person does.
func TestMutt(t *testing.T) {
	t.Parallel()
	peer.Need(t, "mutt", "tmux")
	peer.Each(t, func(t *testing.T, start peer.Starter) {
		dir := basic(t)
		s := start(t, dir, peer.Options{})
		home := peer.TempDir(t)
		write(t, home+"/rc", fmt.Sprintf(`
set imap_user=%s
set imap_pass=%s
set folder="imaps://localhost:%s/"
set spoolfile="+INBOX"
set certificate_file=%s
set sort=mailbox-order
set delete=yes
set move=no
set confirmappend=no
set confirmcreate=no
set mark_old=no
set wait_key=no
set record=""
set mail_check=1
set timeout=1
`, s.User, peer.Password, port(s.TLSAddr), s.CertFile))
		mutt := newTerminal(t, home, "mutt -F "+home+"/rc")
		mutt.shows("Report with attachment")

		mutt.press("1", "Enter", "F") // flag the first
		mutt.press("2", "Enter", "Enter")
		mutt.shows("see you in the café") // read the second, decoded
		mutt.press("i")
		mutt.shows("Fwd: Minutes")
		mutt.press("4", "Enter", "d", "$") // delete the last, and tell the server all that
		disk := func(folder string, want map[int]string) {
			t.Helper()
			eventually(t, func() string { return fmt.Sprintf("%s on disk: %v, want %v", folder, onDisk(t, folder), want) },
				func() bool { return maps.Equal(onDisk(t, folder), want) })
		}
		disk(dir, map[int]string{1: "FS", 2: "Sa", 4: "FS"})

		mutt.press("3", "Enter", "s")
		mutt.shows("Save to mailbox")
		mutt.press("C-u", "=Trash", "Enter")
		disk(dir+"/.Trash", map[int]string{1: "FS"})
		mutt.press("$")
		disk(dir, map[int]string{1: "FS", 2: "Sa"})

		mutt.press("1", "Enter", "C")
		mutt.shows("Copy to mailbox")
		mutt.press("C-u", "=Made", "Enter")
		eventually(t, func() string { return "no new folder" }, func() bool {
			_, err := os.Stat(dir + "/.Made/dovecot-uidlist")
			return err == nil
		})
		disk(dir+"/.Made", map[int]string{1: "FS"})

		write(t, home+"/new.eml", text(t, "new.eml"))
		c := s.Login(t, s.User)
		c.Do(`APPEND INBOX %s`, peer.Literal(strings.ReplaceAll(text(t, "new.eml"), "\n", "\r\n")))
		mutt.shows("Just arrived") // noticed without a key
		mutt.press("q")
		eventually(t, func() string { return "mutt has not ended" }, func() bool { return mutt.screen() == "" })
	})
}
