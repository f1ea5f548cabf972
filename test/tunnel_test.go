package test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"imapd/test/peer"
)

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
