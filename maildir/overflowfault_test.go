package maildir

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"imapd/maildir/faultfs"
	"imapd/maildir/tree"
)

// Each call of a command that fails, in each way: the command says so, and what it
// leaves is what is shown, and what the next process finds.
func TestOverflowFaults(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	set := FlagSet{Seen, []string{"kw03", "kw26", "beyond"}}
	for name, do := range map[string]func(b *box, to *Mailbox) error{
		"STORE": func(b *box, _ *Mailbox) error {
			_, err := b.SetFlags(ctx, []UID{1}, ReplaceFlags, set)
			return err
		},
		"APPEND": func(b *box, _ *Mailbox) error {
			d, err := b.NewMessage(ctx)
			if err != nil {
				return err
			}
			defer d.Abort()
			d.Write([]byte("two\r\n"))
			_, _, err = b.Append(ctx, []Appending{{Delivery: d, Flags: set}})
			return err
		},
		"COPY": func(b *box, to *Mailbox) error {
			_, err := b.Copy(ctx, []UID{1}, to)
			return err
		},
		"MOVE": func(b *box, to *Mailbox) error {
			_, err := b.Move(ctx, []UID{1}, to)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done, faults := overflowed(t, 0, 0, do), 0
			for at := 1; done != ""; at++ {
				hit := false
				for i, errno := range []unix.Errno{unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.EMFILE, unix.EACCES, unix.ESTALE} {
					if os.Getenv("IMAPD_SOAK") == "" && at%6 != i {
						continue
					}
					switch got := overflowed(t, at, errno, do); got {
					case "":
					case "failed", done:
						hit = true
						faults++
					default:
						t.Errorf("%v at call %d, answered OK:\n%s\nwithout it:\n%s", errno, at, got, done)
					}
				}
				if !hit {
					break
				}
			}
			t.Logf("%d faults", faults)
			if faults < 8 {
				t.Error("too few")
			}
		})
	}
}

// overflowed makes a command in a folder that has more keywords than letters, whose
// call number at fails with errno, and holds that the next process finds the keywords
// that this one shows. It returns these, "failed" if the command has, and "" if it
// has no such call.
func overflowed(t *testing.T, at int, errno unix.Errno, do func(b *box, to *Mailbox) error) string {
	t.Helper()
	var f faultfs.FS
	b := newBox(t, Options{Open: f.Open})
	if err := b.st.Create(t.Context(), "Other"); err != nil {
		t.Fatal(err)
	}
	to := b.open("Other")
	b.append(b.Mailbox, "one\r\n", FlagSet{Keywords: manyKeywords(27)})
	b.append(to, "other\r\n", FlagSet{Keywords: manyKeywords(60)[30:]})
	f.Arm(faultfs.At(at, errno))
	err := do(b, to)
	hit := f.Hit()
	f.Disarm()
	if at > 0 && hit.N == 0 {
		return ""
	}
	shown := func(boxes ...*Mailbox) (text string) {
		for _, m := range boxes {
			if err := m.Sync(t.Context(), Look); err != nil {
				t.Fatal(err)
			}
			for _, msg := range m.Snapshot().Range(0, m.Snapshot().Len()) {
				words := keywordsOf(m, msg.UID)
				slices.Sort(words)
				text += fmt.Sprintln(m.Name(), msg.UID, words)
			}
		}
		return text
	}
	got := shown(b.Mailbox, to)
	again := *b
	again.host = NewHost(Options{})
	t.Cleanup(func() { again.host.Close() })
	failed := err
	if again.st, err = again.host.Open(tree.Config{Root: b.path, Separator: '/'}); err != nil {
		t.Fatal(err)
	}
	if now := shown(again.open("INBOX"), again.open("Other")); now != got {
		t.Errorf("%v at %v: shown is\n%s\nin the files is\n%s", errno, hit, got, now)
	}
	if failed != nil {
		return "failed"
	}
	return got
}
