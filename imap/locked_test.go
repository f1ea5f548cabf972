package imap

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imapd/control/config"
	"imapd/maildir"
)

// TestLockedNotice holds that clients whose commands wait for a mailbox that another
// program holds are told so, also those that wait behind others.
func TestLockedNotice(t *testing.T) {
	t.Parallel()
	const wait = 15 * time.Second
	w := newWorld(t, func(_ *config.Config, o *Options) {
		o.Host = maildir.NewHost(maildir.Options{Log: o.Log, LockWait: wait})
	})
	t.Cleanup(func() { w.opt.Host.Close() })
	w.deliver("u", "", "cur/1.m.h:2,S", "Subject: a\n\n")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	commands := []string{"APPEND INBOX {12+}\r\nSubject: x\r\n", "APPEND INBOX {12+}\r\nSubject: y\r\n", `STORE 1 +FLAGS (\Answered)`, "EXPUNGE", "COPY 1 INBOX"}
	clients := make([]*client, len(commands))
	for i := range clients {
		clients[i] = w.login("u")
		clients[i].must(" OK", "SELECT INBOX")
	}
	lock := filepath.Join(w.root, "u", "dovecot-uidlist.lock")
	if err := os.WriteFile(lock, fmt.Appendf(nil, "%d:%s", os.Getppid(), host), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		c.send("x " + commands[i] + "\r\n")
	}
	for i, c := range clients {
		var left int
		got := c.line()
		if _, err := fmt.Sscanf(got, "* NO Mailbox is locked, will abort in %d seconds", &left); err != nil || left < 1 || left > 10 {
			t.Errorf("%.10s: %s", commands[i], got)
		}
	}
	// Those that are let in answer as always.
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		for {
			got := c.line()
			if strings.HasPrefix(got, "x OK ") {
				break
			}
			if strings.HasPrefix(got, "x ") || strings.HasPrefix(got, "* NO") {
				t.Fatalf("%.10s: %s", commands[i], got)
			}
		}
	}
	if got := w.log.String(); strings.Count(got, "waiting for a lock") != 1 {
		t.Errorf("logged\n%s", got)
	}
}
