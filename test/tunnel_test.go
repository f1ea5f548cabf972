package test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

// TestTunnelNeedsNoSecrets has a user read his mail through a tunnel by the
// configuration of the daemon, whose keys and passwords are root's alone.
func TestTunnelNeedsNoSecrets(t *testing.T) {
	t.Parallel()
	peer.Need(t, "setpriv")
	dir, home := basic(t), peer.TempDir(t)
	peer.Own(t, dir)
	cert := peer.Certificate(t, home)
	write(t, home+"/passwd", "")
	write(t, home+"/imapd.conf", fmt.Sprintf("configdirectory: %s\nmaildir: %s\ncyrus_user: nobody\ntls_server_cert: %s\ntls_server_key: %[1]s/key.pem\nsasl_passwd_file: %[1]s/passwd\n", home, dir, cert))
	must(0, os.Chmod(home+"/imapd.conf", 0o644))(t)
	must(0, os.Chmod(cert, 0o644))(t)
	for _, name := range []string{"/key.pem", "/passwd"} {
		must(0, os.Chown(home+name, 0, 0))(t)
		must(0, os.Chmod(home+name, 0o600))(t)
	}
	uid, gid := peer.MailUID()
	tunnel := func(args ...string) string {
		c := exec.Command("setpriv", append([]string{fmt.Sprint("--reuid=", uid), fmt.Sprint("--regid=", gid), "--clear-groups", peer.Binary(t), "-C", home + "/imapd.conf"}, args...)...)
		c.Env = append(os.Environ(), "USER=somebody", "HOME="+home)
		c.Stdin = strings.NewReader("a SELECT INBOX\r\nb LOGOUT\r\n")
		out, err := c.CombinedOutput()
		return fmt.Sprintf("%s%v", out, err)
	}
	if got := tunnel(); !strings.HasPrefix(got, "* PREAUTH ") || !strings.Contains(got, "\na OK ") || !strings.HasSuffix(got, "<nil>") {
		t.Errorf("got %s", got)
	}
	// Who wants TLS needs the key, and is told of nothing else.
	if got := tunnel("-s"); !strings.Contains(got, "key.pem: permission denied") || strings.Contains(got, "sasl_passwd_file") {
		t.Errorf("got %s", got)
	}
	write(t, home+"/imapd.conf", "configdirectory: "+home+"\ntls_server_cert: "+cert+"\ntls_server_key: "+home+"/key.pem\nmaildir: nowhere\n")
	if got := tunnel(); !strings.Contains(got, "maildir") || strings.Contains(got, "key.pem") {
		t.Errorf("got %s", got)
	}
}

// TestTunnel lets mbsync start the server itself, as it does through ssh: on a
// pipe the caller is greeted with PREAUTH and sees the Maildir.
func TestTunnel(t *testing.T) {
	t.Parallel()
	peer.Need(t, "mbsync")
	dir, home := basic(t), peer.TempDir(t)
	peer.Own(t, dir)
	write(t, home+"/imapd.conf", fmt.Sprintf("configdirectory: %s\nmaildir: %s\n", home, dir))
	write(t, home+"/rc", fmt.Sprintf(`
IMAPStore far
Tunnel %q

MaildirStore near
Path %s/near/
Inbox %s/near/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Near
SyncState *
`, peer.Binary(t)+" -C "+home+"/imapd.conf", home, home))
	if err := os.Mkdir(home+"/near", 0o700); err != nil {
		t.Fatal(err)
	}
	// The socket between the two says who calls, so that is the mail's owner.
	mbsync := []string{"mbsync", "-c", home + "/rc", "-a"}
	if os.Geteuid() == 0 {
		peer.Need(t, "setpriv")
		uid, gid := peer.MailUID()
		mbsync = append([]string{"setpriv", fmt.Sprint("--reuid=", uid), fmt.Sprint("--regid=", gid), "--clear-groups"}, mbsync...)
	}
	sync := func() {
		t.Helper()
		peer.Own(t, home)
		run(t, home, mbsync[0], mbsync[1:]...)
	}
	sync()
	for far, near := range map[string]string{dir: "/near/INBOX", dir + "/.Work": "/near/Work", dir + "/.Sent": "/near/Sent"} {
		if diff := cmp.Diff(contents(t, far), contents(t, home+near)); diff != "" {
			t.Errorf("%s (-server +client):\n%s", near, diff)
		}
	}
	rename(t, home+"/near/INBOX", "Minutes of the meeting", "FS")
	sync()
	if got := onDisk(t, dir)[1]; strings.Trim(got, "S") != "F" {
		t.Errorf("flags of UID 1 on disk: %q", got)
	}
}
