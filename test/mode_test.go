package test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/test/peer"
)

// TestModes holds that whatever the umask is, all that is made in a folder has the
// mode and group of the folder: others share it by their group, or nobody does.
func TestModes(t *testing.T) {
	t.Parallel()
	for _, umask := range []string{"077", "022", "000"} {
		for _, mode := range []uint32{0o2770, 0o750, 0o700} {
			for _, split := range []bool{false, true} {
				t.Run(fmt.Sprintf("umask %s, folder %o, split %v", umask, mode, split), func(t *testing.T) {
					t.Parallel()
					_, gid := peer.MailUID()
					checkModes(t, umask, mode, split, gid)
				})
			}
		}
	}
}

// TestModesOfGroup is TestModes where the group of the folders is not the one that files
// get by themselves, but another one that the server is in.
func TestModesOfGroup(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a server in another group")
	}
	for _, mode := range []uint32{0o2770, 0o750, 0o700} {
		for _, split := range []bool{false, true} {
			t.Run(fmt.Sprintf("folder %o, split %v", mode, split), func(t *testing.T) {
				t.Parallel()
				checkModes(t, "077", mode, split, 21077)
			})
		}
	}
}

// checkModes has a server make all that it makes in folders of the group gid, and looks
// at each file.
func checkModes(t *testing.T, umask string, mode uint32, split bool, gid int) {
	top := peer.TempDir(t)
	uid, own := peer.MailUID()
	dir := filepath.Join(top, "Maildir")
	for _, sub := range []string{"", "cur", "new", "tmp", ".Shared", ".Shared/cur", ".Shared/new", ".Shared/tmp"} {
		mkdir(t, filepath.Join(dir, sub))
		if err := unix.Chmod(filepath.Join(dir, sub), mode); err != nil {
			t.Fatal(err)
		}
	}
	if !split {
		write(t, filepath.Join(dir, "maildirsize"), "1000000S\n0 0\n"+strings.Repeat("1 0\n", 1400)) // to be counted anew
	}
	options := []string{"umask: " + umask}
	if split {
		options = append(options, "maildir_control: "+top+"/side/control", "indexdirectory: "+top+"/side/index")
	}
	o := peer.Options{Imapd: options}
	if gid != own {
		o.Wrap = []string{"setpriv", fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", own), fmt.Sprintf("--groups=%d", gid)}
	}
	s := peer.Imapd(t, dir, o)
	if split { // where the site keeps these its users can make directories
		mkdir(t, top+"/side")
		peer.Own(t, top)
		if err := os.Chmod(top+"/side", 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if gid != own {
		handOver(t, dir, gid)
	}
	c := s.Login(t, s.User)
	text := peer.Literal("Subject: x\r\n\r\ntext\r\n")
	c.Do("APPEND INBOX (\\Seen one) %s", text)
	c.Do("APPEND Shared (two) %s", text)
	c.Do("CREATE New")
	c.Do("CREATE New/Child")
	c.Do("SUBSCRIBE New")
	c.Do("SELECT INBOX")
	c.Do("STORE 1 +FLAGS (three)")
	c.Do("COPY 1 Shared")
	c.Do("COPY 1 New")
	c.Do("COPY 1 INBOX")
	c.Do("MOVE 1 New/Child")
	c.Do("RENAME New Other")
	control := dir
	if split {
		control = top + "/side/control"
	}
	list := filepath.Join(control, ".Shared", "dovecot-uidlist")
	before := inode(t, list)
	passed(t, list, 1500)
	c.Do("SELECT Shared")
	c.Do("STORE 1 +FLAGS (\\Deleted)")
	c.Do("EXPUNGE")
	c.Do("STORE 1 +FLAGS (%s)", manyWords(40)) // imapd-keywords
	c.Do("LOGOUT")
	eventually(t, func() string { return "the list of UIDs was not written anew" }, func() bool { return inode(t, list) != before })
	for _, name := range []string{"dovecot-keywords", "imapd-keywords"} {
		inode(t, filepath.Join(control, ".Shared", name))
	}
	looked := 0
	for _, below := range []string{dir, top + "/side/control", top + "/side/index"} {
		if !split && below != dir {
			continue
		}
		err := filepath.WalkDir(below, func(path string, e fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil {
				err = unix.Lstat(path, &st)
			}
			if err != nil {
				return err
			}
			want := unix.S_IFREG | mode&0o666
			switch {
			case e.IsDir():
				want = unix.S_IFDIR | mode
			case strings.HasPrefix(e.Name(), "dovecot-uidvalidity."):
				want = unix.S_IFREG | 0o444 // as Dovecot makes it: there is nothing to read in it
				st.Mode |= 0o444
			}
			if st.Mode != want || int(st.Gid) != gid {
				t.Errorf("%s: mode %o, group %d; want %o, %d", strings.TrimPrefix(path, top), st.Mode, st.Gid, want, gid)
			}
			looked++
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if looked < 30 {
		t.Errorf("only %d files", looked)
	}
}

// passed adds to the list of UIDs file the lines of n messages that are gone.
func passed(t *testing.T, file string, n int) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "%d :1.%d.passed\n", 1000+i, i)
	}
	if _, err := f.WriteString(lines.String()); err != nil {
		t.Fatal(err)
	}
}

func inode(t *testing.T, file string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return st.Ino
}

// manyWords returns n keywords.
func manyWords(n int) string {
	var words []string
	for i := range n {
		words = append(words, fmt.Sprintf("word%02d", i))
	}
	return strings.Join(words, " ")
}

// handOver gives dir and all below it to the group gid, as it is.
func handOver(t *testing.T, dir string, gid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if err == nil {
			err = unix.Lchown(path, -1, gid)
		}
		if err == nil {
			err = unix.Chmod(path, st.Mode&0o7777) // chown(2) takes bits away
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
