package peer

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestStart(t *testing.T) {
	t.Parallel()
	Each(t, func(t *testing.T, start Starter) {
		dir := TempDir(t)
		s := start(t, dir+"/%u/Maildir", Options{Users: []string{"ann", "bob"}})
		for _, user := range []string{"ann", "bob"} {
			c, err := s.DialTLS()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprintf(c, "a LOGIN %s %q\r\nb CREATE made-by-%s\r\nc LOGOUT\r\n", user, Password, user)
			r := bufio.NewScanner(c)
			var got []string
			for r.Scan() {
				if line := r.Text(); !strings.HasPrefix(line, "*") {
					got = append(got, line[:4])
				}
			}
			if want := "a OK b OK c OK"; strings.Join(got, " ") != want {
				t.Errorf("%s: got %q, want %s", user, got, want)
			}
			if _, err := os.Stat(dir + "/" + user + "/Maildir/.made-by-" + user); err != nil {
				t.Error(err)
			}
		}
		s.Stop()
		if c, err := s.Dial(); err == nil {
			c.Close()
			t.Error("still answers after Stop")
		}
	})
}
