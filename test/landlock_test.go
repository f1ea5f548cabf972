package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imapd/test/peer"
)

// Links that lead out of where a process may go show what the real processes have
// given up: by mode and owner all that they lead to is open to them.

// TestLandlockLinks follows links of a user's mail in the process that serves it,
// and that of imapctl's socket in the
// process that greets.
func TestLandlockLinks(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, how := range []string{"shared", "user"} {
		for _, landlock := range []string{"yes", "no"} {
			t.Run(how+" "+landlock, func(t *testing.T) {
				t.Parallel()
				out := peer.TempDir(t)
				must(0, os.Mkdir(out+"/socket", 0o700))(t)
				basicIn(t, out)
				state := peer.TempDir(t)
				must(0, os.Symlink(out+"/socket", state+"/socket"))(t)
				peer.Own(t, state)
				peer.Own(t, out)
				var s *peer.Server
				dir, owner := basic(t), 0
				o := peer.Options{Imapd: []string{"landlock: " + landlock, "configdirectory: " + state}}
				if how == "user" {
					s = usersSite(t, o)
					dir, owner = filepath.Join(s.Maildir, "alice/Maildir"), aliceUID
				} else {
					s = peer.Imapd(t, dir, o)
					owner, _ = peer.MailUID()
				}
				must(0, filepath.Walk(out+"/Maildir", func(name string, _ os.FileInfo, err error) error {
					if err != nil {
						return err
					}
					return os.Lchown(name, owner, owner)
				}))(t)
				must(0, os.Symlink(out+"/Maildir", dir+"/.Out"))(t)

				_, answer := s.Login(t, s.User).Try("SELECT Out")
				if free := landlock == "no"; strings.HasPrefix(answer, "OK") != free || strings.HasPrefix(answer, "NO [NOPERM]") == free {
					t.Errorf("SELECT: %s", answer)
				}
				if named := strings.Contains(s.Log(), "a link leads out of what landlock leaves"); named == (landlock == "no") {
					t.Errorf("the log says %s", s.Log())
				}
				if shut := strings.Contains(s.Log(), "imapctl will not reach this server"); shut == (landlock == "no") {
					t.Errorf("the log says %s", s.Log())
				}
			})
		}
	}
}

// TestLandlockDeepLink has links below where the template begins to vary.
func TestLandlockDeepLink(t *testing.T) {
	t.Parallel()
	needRoot(t)
	top := peer.TempDir(t)
	must(0, os.Mkdir(top+"/jane", 0o755))(t)
	must(0, os.Symlink(basic(t), top+"/jane/jane"))(t)
	s := peer.Imapd(t, top+"/%n/%n", peer.Options{})
	conn := must(s.Dial())(t)
	fmt.Fprintf(conn, "a LOGIN jane %s\r\nb LOGOUT\r\n", peer.Password)
	if said, err := untilEnd(conn); err != nil || !strings.Contains(said, "a NO [UNAVAILABLE]") {
		t.Errorf("LOGIN: %q, %v", said, err)
	}
	if !strings.Contains(s.Log(), "a link leads out of what landlock leaves") {
		t.Errorf("the log says %s", s.Log())
	}
}
