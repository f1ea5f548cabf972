package imap

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/control"
	"imapd/control/config"
	"imapd/maildir"
)

// FuzzSession sends anything at all, before and after a login. Whatever comes,
// the session ends without a panic, every line that it sends is whole, and no
// tag is answered that was not sent.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"a NOOP\r\nb LOGOUT\r\n", "a SELECT INBOX\r\nb IDLE\r\nDONE\r\nc CLOSE\r\n",
		"a LOGIN {4+}\r\nuser {3}\r\nx\r\n", "a AUTHENTICATE PLAIN\r\n*\r\n", "a ENABLE IMAP4rev2\r\nb EXAMINE \"INBOX\"\r\nc UID EXPUNGE 1:*\r\n",
		"a ID (\"a\" NIL)\r\n", "((((((\r\n", "a SELECT {9999999+}\r\n", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01", "a STARTTLS\r\nb NOOP\r\n",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	root := f.TempDir()
	conf := config.Default()
	conf.Maildir = filepath.Join(root, "%u")
	conf.AllowPlaintext = true
	conf.FailedLoginPause = 0
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	host := maildir.NewHost(maildir.Options{Log: log, NoNotify: true})
	defer host.Close()
	panics := &logBuffer{}
	srv := New(Options{Config: conf, Host: host, Auth: passwords{}, Log: slog.New(slog.NewTextHandler(panics, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err := os.MkdirAll(filepath.Join(root, "u", "cur"), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, input []byte, in bool) {
		ours, theirs := net.Pipe()
		conn := &control.Conn{Conn: theirs, Host: "[test]"}
		if in {
			conn.Preauth = &control.Caller{Name: "u", UID: -1, GID: -1, Home: root}
		}
		ours.SetDeadline(time.Now().Add(10 * time.Second))
		sent := append(slices.Clip(input), "\r\nDONE\r\n\r\nz LOGOUT\r\n"...)
		ended := make(chan struct{})
		go func() {
			srv.Serve(context.Background(), conn)
			close(ended)
		}()
		go func() {
			ours.Write(sent)
			time.AfterFunc(20*time.Millisecond, func() { ours.Close() })
		}()
		out, _ := io.ReadAll(ours)
		ours.Close()
		<-ended
		for _, l := range strings.SplitAfter(string(out), "\r\n") {
			if !strings.HasSuffix(l, "\r\n") {
				continue // cut off where we closed
			}
			tag, _, ok := strings.Cut(l, " ")
			if !ok || tag != "*" && tag != "+" && !strings.Contains(string(sent), tag) {
				t.Errorf("line %q", l)
			}
		}
		if log := panics.String(); strings.Contains(log, "panic") {
			t.Fatal(log)
		}
	})
}
