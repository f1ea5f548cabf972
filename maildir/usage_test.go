package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imapd/maildir/quota"
	"imapd/maildir/vfs"
)

// usage returns what the user's maildirsize says, and whether it is one line.
func (b *box) usage() quota.File {
	b.t.Helper()
	dir, err := vfs.Open(b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer dir.Close()
	f, err := quota.Read(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}

// counted returns what the files of the user take.
func (b *box) counted() (u quota.Usage) {
	b.t.Helper()
	for _, pattern := range []string{"cur/*", "new/*", ".*/cur/*", ".*/new/*"} {
		files, err := filepath.Glob(filepath.Join(b.path, pattern))
		if err != nil {
			b.t.Fatal(err)
		}
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil {
				b.t.Fatal(err)
			}
			u = u.Add(quota.Usage{Octets: info.Size(), Messages: 1})
		}
	}
	return u
}

// TestUsage holds that maildirsize is what a count gives after each operation.
func TestUsage(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := newBox(t, Options{})
	file := filepath.Join(b.path, quota.Name)
	check := func(what string) {
		t.Helper()
		if got, want := b.usage(), b.counted(); got.Usage != want || got.Limits != "9000S,50C" {
			t.Errorf("%s: %+v, counted %+v", what, got, want)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b.append(b.Mailbox, "no file yet\n", FlagSet{})
	if _, err := os.Stat(file); err == nil {
		t.Error("a maildirsize was made")
	}
	b.deliver("cur", "1.h:2,", "without its size\n")
	b.deliver("cur", "2.h:2,", "without its size either\n")
	u := b.counted()
	do(os.WriteFile(file, fmt.Appendf(nil, "9000S,50C\n%12d %12d\n", u.Octets, u.Messages), 0o600))
	b.sync(Serve)
	check("at first")

	do(b.st.Create(ctx, "Sub"))
	do(b.st.Create(ctx, "Other"))
	sub := b.open("Sub")
	uid := b.append(b.Mailbox, "one\r\ntwo\r\n", FlagSet{})
	check("APPEND")
	_, err := b.Copy(ctx, []UID{1, 2, uid}, sub)
	do(err)
	check("COPY")
	_, err = b.Copy(ctx, []UID{1, 2}, b.Mailbox)
	do(err)
	check("COPY into itself")
	_, err = b.Move(ctx, []UID{1, uid}, sub)
	do(err)
	check("MOVE")
	_, err = sub.SetFlags(ctx, []UID{1, 2, 5}, AddFlags, FlagSet{System: Deleted})
	do(err)
	check("STORE")
	_, err = sub.Expunge(ctx, nil)
	do(err)
	check("EXPUNGE")
	do(b.st.Rename(ctx, "Sub", "Renamed"))
	check("RENAME")
	do(b.st.Rename(ctx, "INBOX", "Old"))
	check("RENAME of INBOX")
	sub.Release()
	do(b.st.Delete(ctx, "Renamed"))
	check("DELETE")
	do(b.st.Delete(ctx, "Old"))
	check("DELETE of all")
	if got := b.counted(); got != (quota.Usage{}) {
		t.Errorf("%+v are left", got)
	}
}

// TestUsageRecount holds that a file which is full, damaged or negative is written
// anew, with its limits.
func TestUsageRecount(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"9000S,50C\n" + strings.Repeat("         100            1\n", 210),
		"9000S,50C\n100 1\ntorn",
		"9000S,50C\n-1000000 -1000\n",
		"9000S,50C\njunk\n",
	} {
		b := newBox(t, Options{})
		if err := b.st.Create(context.Background(), "Sub"); err != nil {
			t.Fatal(err)
		}
		b.append(b.open("Sub"), "in Sub\n", FlagSet{})
		b.deliver("new", "1.h", "new\n")
		if err := os.WriteFile(filepath.Join(b.path, quota.Name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b.append(b.Mailbox, "x\n", FlagSet{})
		if got := b.usage(); got.Usage != b.counted() || got.Lines != 1 || got.Limits != "9000S,50C" {
			t.Errorf("%.30q: %+v, counted %+v", text, got, b.counted())
		}
	}
}
