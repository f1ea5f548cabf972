package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imapd/maildir/quota"
)

// usage returns what the user's maildirsize says, and whether it is one line.
func (b *box) usage() quota.File {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.path, quota.Name))
	if err != nil {
		b.t.Fatal(err)
	}
	f, err := quota.Parse(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}

// counted returns what the files of the user take by rule.
func (b *box) counted(rule quota.Rule) (u quota.Usage) {
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
			_, letters, _ := strings.Cut(info.Name(), ":2,")
			if rule == quota.All || !strings.Contains(f, "/.Trash/") && !strings.Contains(letters, "T") {
				u = u.Add(quota.Usage{Octets: info.Size(), Messages: 1})
			}
		}
	}
	return u
}

// TestUsage holds that maildirsize is what a count gives after each operation, by
// Dovecot's rule and by Courier's, whichever it was counted by before.
func TestUsage(t *testing.T) {
	t.Parallel()
	for rule, line := range map[quota.Rule]string{quota.All: "%d %d\n", quota.Courier: "%12d %12d\n"} {
		testUsage(t, rule, line)
	}
}

func testUsage(t *testing.T, rule quota.Rule, line string) {
	ctx := context.Background()
	b := newBox(t, Options{})
	file := filepath.Join(b.path, quota.Name)
	check := func(what string) {
		t.Helper()
		if got, want := b.usage(), b.counted(rule); got.Usage != want || got.Limits != "9000S,50C" || got.Rule != rule {
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
	u := b.counted(rule)
	do(os.WriteFile(file, fmt.Appendf(nil, "9000S,50C\n"+line, u.Octets, u.Messages), 0o600))
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
	_, err = sub.SetFlags(ctx, []UID{2}, ReplaceFlags, FlagSet{System: Flagged})
	do(err)
	check("STORE back")
	_, err = b.Copy(ctx, []UID{2}, sub)
	do(err)
	_, err = sub.Copy(ctx, []UID{1}, b.Mailbox)
	do(err)
	check("COPY of what is deleted")
	b.append(b.Mailbox, "deleted\n", FlagSet{System: Deleted})
	check("APPEND of what is deleted")
	_, err = sub.Expunge(ctx, nil)
	do(err)
	check("EXPUNGE")
	do(b.st.Create(ctx, "Trash"))
	trash := b.open("Trash")
	b.append(trash, "trash\n", FlagSet{})
	b.append(trash, "trash, and deleted\n", FlagSet{System: Deleted})
	_, err = sub.Copy(ctx, []UID{2, 3}, trash)
	do(err)
	_, err = sub.Move(ctx, []UID{2}, trash)
	do(err)
	check("into Trash")
	_, err = trash.SetFlags(ctx, []UID{1, 3}, AddFlags, FlagSet{System: Deleted})
	do(err)
	_, err = trash.Move(ctx, []UID{3, 4}, sub)
	do(err)
	check("out of Trash")
	_, err = trash.Expunge(ctx, nil)
	do(err)
	check("EXPUNGE in Trash")
	do(b.st.Rename(ctx, "Trash", "Was"))
	check("RENAME of Trash")
	b.append(b.open("Was"), "trash no more\n", FlagSet{})
	check("APPEND to what was Trash")
	do(b.st.Rename(ctx, "Was", "Trash"))
	check("RENAME to Trash")
	trash.Release()
	do(b.st.Delete(ctx, "Trash"))
	check("DELETE of Trash")
	do(b.st.Rename(ctx, "Sub", "Renamed"))
	check("RENAME")
	do(b.st.Rename(ctx, "INBOX", "Old"))
	check("RENAME of INBOX")
	do(b.st.Delete(ctx, "Renamed"))
	check("DELETE of what somebody has open by its old name")
	sub.Release()
	do(b.st.Delete(ctx, "Old"))
	check("DELETE of all")
	if got := b.counted(quota.All); got != (quota.Usage{}) {
		t.Errorf("%+v are left", got)
	}
}

// TestUsageRecount holds that a file which is full, damaged or negative is written
// anew, with its limits.
func TestUsageRecount(t *testing.T) {
	t.Parallel()
	for text, rule := range map[string]quota.Rule{
		"9000S,50C\n" + strings.Repeat("         100            1\n", 210): quota.Courier,
		"9000S,50C\n" + strings.Repeat("1000000 100\n", 430):               quota.All,
		"9000S,50C\n100 1\ntorn":                                           quota.All,
		"9000S,50C\n-1000000 -1000\n":                                      quota.All,
		"9000S,50C\njunk\n":                                                quota.All,
	} {
		b := newBox(t, Options{})
		if err := b.st.Create(context.Background(), "Sub"); err != nil {
			t.Fatal(err)
		}
		b.append(b.open("Sub"), "in Sub\n", FlagSet{})
		b.deliver("new", "1.h", "new\n")
		b.deliver("cur", "2.h:2,ST", "deleted\n")
		if err := os.WriteFile(filepath.Join(b.path, quota.Name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b.append(b.Mailbox, "x\n", FlagSet{})
		if got, want := b.usage(), b.counted(rule); got.Usage != want || got.Lines != 1 || got.Limits != "9000S,50C" || got.Rule != rule {
			t.Errorf("%.30q: %+v, counted %+v", text, got, want)
		}
	}
}
