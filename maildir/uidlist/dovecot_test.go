package uidlist

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"imapd/maildir/vfs"
	"imapd/test/peer"
)

// deliver gives one new message a UID as the rules say: under the lock, after
// reading the list again, the file first and then the line.
func deliver(locks *Locks, dir vfs.Dir, base string) (uint32, error) {
	l, err := locks.Acquire(context.Background(), dir, LockName)
	if err != nil {
		return 0, err
	}
	defer l.Unlock()
	list, st, err := ReadFile(dir)
	if err != nil {
		return 0, err
	}
	if list.NeedsRewrite() {
		return 0, fmt.Errorf("list is damaged: %+v", list.Damage)
	}
	cur, err := dir.OpenDir("cur")
	if err != nil {
		return 0, err
	}
	defer cur.Close()
	f, err := vfs.CreateLike(cur, base+":2,S")
	if err != nil {
		return 0, err
	}
	_, err = f.Write([]byte("Subject: " + base + "\n\nText.\n"))
	f.Close()
	if err == nil && os.Geteuid() == 0 {
		uid, gid := peer.MailUID()
		err = os.Chown(filepath.Join(cur.Path(), base+":2,S"), uid, gid)
	}
	if err != nil {
		return 0, err
	}
	_, err = Append(dir, st, []Entry{{UID: list.Next, Base: base}})
	return list.Next, err
}

// own lets Dovecot, which runs as another user than a test does as root, work
// on what the test makes by the rights of the group.
func own(t *testing.T, path string) {
	t.Helper()
	peer.Own(t, path)
	if err := os.Chmod(path, 0o2770); err != nil {
		t.Fatal(err)
	}
}

var uidLine = regexp.MustCompile(`UID (\d+).*\{(\d+)\}`)

// TestBesideDovecot lets goroutines give UIDs beside a Dovecot that does the
// same and changes flags. In the end each message has the UID that was said of
// it when it came, for both.
func TestBesideDovecot(t *testing.T) {
	t.Parallel()
	peer.Need(t, "dovecot")
	path := filepath.Join(peer.TempDir(t), "Maildir")
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o2770); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	l := New(1646300000)
	if _, err := Rewrite(dir, &l); err != nil {
		t.Fatal(err)
	}
	own(t, path)
	d := peer.Dovecot(t, path, peer.Options{})
	clients := []*peer.Client{d.Login(t, d.User), d.Login(t, d.User)}

	const rounds = 40
	var mu sync.Mutex
	uids := map[uint32]string{} // the subject of each
	note := func(uid uint32, subject string) {
		mu.Lock()
		defer mu.Unlock()
		if was, ok := uids[uid]; ok {
			t.Errorf("UID %d is both %s and %s", uid, was, subject)
		}
		uids[uid] = subject
	}
	var locks Locks
	first := "1700000000.M0P9.host" // STORE needs a message
	uid, err := deliver(&locks, dir, first)
	if err != nil {
		t.Fatal(err)
	}
	note(uid, first)
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			for i := range rounds {
				base := fmt.Sprintf("1700000000.M%dP%d.host", i, g)
				uid, err := deliver(&locks, dir, base)
				if err != nil {
					t.Error(err)
					return
				}
				note(uid, base)
			}
		})
	}
	wg.Go(func() {
		for i := range rounds {
			subject := fmt.Sprintf("dovecot-%d", i)
			_, answer := clients[0].Try("APPEND INBOX %s", peer.Literal("Subject: "+subject+"\r\n\r\nText.\r\n"))
			code := strings.Fields(strings.Trim(answer[strings.IndexByte(answer, '[')+1:], "]"))
			uid, err := strconv.ParseUint(strings.TrimSuffix(code[2], "]"), 10, 32)
			if err != nil {
				t.Errorf("%q: %v", answer, err)
			}
			note(uint32(uid), subject)
		}
	})
	wg.Go(func() {
		clients[1].Do("SELECT INBOX")
		for i := range rounds {
			clients[1].Do("STORE 1:* %cFLAGS (\\Flagged)", "+-"[i%2])
		}
	})
	wg.Wait()
	checkUIDs(t, d, dir, uids)
	for line := range strings.Lines(d.Log()) {
		// As root we make files that Dovecot may not read until they have
		// their group; it cannot watch such a lock, and polls.
		if (strings.Contains(line, "Error") || strings.Contains(line, "Warning")) && !strings.Contains(line, "inotify_add_watch") {
			t.Errorf("Dovecot says: %s", line)
		}
	}
}

// checkUIDs compares what was said of UIDs with the list and with Dovecot.
func checkUIDs(t *testing.T, d *peer.Server, dir vfs.Dir, uids map[uint32]string) {
	t.Helper()
	list, _, err := ReadFile(dir)
	if err != nil || list.Damage.Any() || list.Validity != 1646300000 {
		t.Errorf("list: V%d, %+v, %v", list.Validity, list.Damage, err)
	}
	var want, listed []uint32
	for uid := range uids {
		want = append(want, uid)
	}
	slices.Sort(want)
	for _, e := range list.Entries {
		listed = append(listed, e.UID)
		if s := uids[e.UID]; e.Base != s && !strings.HasPrefix(s, "dovecot-") {
			t.Errorf("UID %d is %s in the list, was given to %s", e.UID, e.Base, s)
		}
	}
	if !slices.Equal(listed, want) {
		t.Errorf("UIDs in the list %v, given %v", listed, want)
	}
	c := d.Login(t, d.User)
	c.Do("SELECT INBOX")
	seen := 0
	for _, r := range c.Do("UID FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])") {
		m := uidLine.FindStringSubmatch(r.Text)
		if m == nil || len(r.Literals) != 1 {
			continue
		}
		uid, _ := strconv.ParseUint(m[1], 10, 32)
		if got := strings.TrimSpace(strings.TrimPrefix(r.Literals[0], "Subject: ")); got != uids[uint32(uid)] {
			t.Errorf("UID %d is %q for Dovecot, was given to %q", uid, got, uids[uint32(uid)])
		}
		seen++
	}
	if seen != len(uids) {
		t.Errorf("Dovecot has %d messages of %d", seen, len(uids))
	}
}

// TestDovecotReads holds that Dovecot takes a list that was damaged and that we
// rewrote, and all UIDs in it.
func TestDovecotReads(t *testing.T) {
	t.Parallel()
	peer.Need(t, "dovecot")
	files, err := filepath.Glob("testdata/mess/*")
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	root := filepath.Join(peer.TempDir(t), "Maildir")
	type folder struct {
		name string
		list List
	}
	var folders []folder
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Parse(data)
		if err != nil || l.Next > MaxUID {
			continue // needs a new UIDVALIDITY
		}
		box := filepath.Join(root, "."+filepath.Base(file))
		for _, sub := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(box, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range l.Entries {
			write(t, filepath.Join(box, "cur", e.Base+":2,"), "Subject: x\n\ny\n")
		}
		dir, err := vfs.Open(box)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Rewrite(dir, &l); err != nil {
			t.Error(err)
		}
		dir.Close()
		folders = append(folders, folder{filepath.Base(file), l})
	}
	d := peer.Dovecot(t, root, peer.Options{})
	c := d.Login(t, d.User)
	for _, f := range folders {
		want := []string{}
		for _, e := range f.list.Entries {
			want = append(want, fmt.Sprint(e.UID))
		}
		answer := c.Do("STATUS %s (UIDVALIDITY UIDNEXT)", f.name)[0].Text
		if !strings.Contains(answer, fmt.Sprintf("UIDVALIDITY %d", f.list.Validity)) || !strings.Contains(answer, fmt.Sprintf("UIDNEXT %d", f.list.Next)) {
			t.Errorf("%s: %s; want V%d N%d", f.name, answer, f.list.Validity, f.list.Next)
		}
		c.Do("SELECT %s", f.name)
		search := c.Do("UID SEARCH ALL")[0].Text
		if got := strings.Fields(search)[2:]; !slices.Equal(got, want) {
			t.Errorf("%s: UIDs %v, want %v", f.name, got, want)
		}
	}
	if len(folders) < 20 {
		t.Errorf("only %d folders", len(folders))
	}
}
