package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestFormerUser starts a server in a configdirectory that another user has served
// before: what it must go on without is told once for each directory, with what to do,
// and without msg it does not start.
func TestFormerUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := peer.TempDir(t)
	must(0, os.Chmod(dir, 0o755))(t)
	const former = 12345
	for _, name := range []string{"msg", "log", "proc", "socket"} {
		must(0, os.Mkdir(filepath.Join(dir, name), 0o700))(t)
		must(0, os.Chown(filepath.Join(dir, name), former, former))(t)
	}
	uid, _ := peer.MailUID()
	r := peer.NewRoom(t)
	conf := r.File("imapd.conf", fmt.Sprintf("configdirectory: %s\nmaildir: %[1]s/Maildir\nlisten: unix:%s/imap\ncyrus_user: %d\n", dir, r.Dir, uid))
	must(0, os.Chmod(r.Dir, 0o755))(t)
	p := r.Start("refused", peer.Binary(t), "-l", "-C", conf)
	_ = p.Wait() // its code is that of unshare
	r.Told(fmt.Sprintf(`imapd\.conf:1: configdirectory: %s/msg: permission denied for %d, who serves: chown -R %[2]d %[1]s/msg\n`, dir, uid))
	must(0, os.Chmod(dir+"/msg", 0o755))(t)
	r.Start("served", peer.Binary(t), "-l", "-C", conf)
	r.Told(`ready version`)
	out := read(t, r.Dir+"/served.out") + r.Syslog()
	for _, name := range []string{"log", "proc", "socket"} {
		if want := fmt.Sprintf(": chown -R %d %s/%s\n", uid, dir, name); strings.Count(out, want) != 1 {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
