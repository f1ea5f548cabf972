package maildir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imapd/maildir/uidlist"
)

// TestNoUIDLeft holds that a folder whose UIDs have been used up gets a new
// UIDVALIDITY as soon as it needs another UID, and keeps its order.
func TestNoUIDLeft(t *testing.T) {
	t.Parallel()
	for name, grow := range map[string]func(b *box){
		"delivery": func(b *box) {
			b.deliver("new", "3.h", "x\n")
			b.sync(Serve)
		},
		"APPEND": func(b *box) { b.append(b.Mailbox, "x\n", FlagSet{}) },
		"COPY": func(b *box) {
			if _, err := b.Copy(context.Background(), []UID{4294967294}, b.Mailbox); err != nil {
				t.Error(err)
			}
		},
	} {
		b := newBox(t, Options{})
		before := b.Snapshot().Validity
		b.Mailbox.Release()
		b.host.Close()
		list := fmt.Sprintf("3 V%d N50 G%032x\n3 :1.h\n20 :gone\n4294967294 :2.h\n", before, 1)
		if err := os.WriteFile(filepath.Join(b.path, uidlist.Name), []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		b.deliver("cur", "1.h:2,S", "x\n")
		b.deliver("cur", "2.h:2,F", "xxxxx\n")
		b.start(Options{})
		b.want(`3 1.h \Seen`, `4294967294 2.h \Flagged`)
		if v := b.Snapshot().Validity; v != before {
			t.Errorf("%s: UIDVALIDITY %d before there is need", name, v)
		}
		for uid, want := range map[int]int64{0: 3, 1: 7} {
			if n, err := b.Size(b.Snapshot().At(uid)); n != want || err != nil {
				t.Errorf("%s: size %d, %v", name, n, err)
			}
		}
		grow(b)
		got := told(b.Mailbox)
		if len(got) != 3 || got[0] != `1 1.h \Seen` || got[1] != `3 2.h \Flagged` || !strings.HasPrefix(got[2], "4 ") {
			t.Errorf("%s: %q", name, got)
		}
		if v := b.Snapshot().Validity; v <= before {
			t.Errorf("%s: UIDVALIDITY %d after %d", name, v, before)
		}
		if n, err := b.Size(b.Snapshot().At(1)); n != 7 || err != nil {
			t.Errorf("%s: size %d of the second, %v", name, n, err)
		}
		text, err := os.ReadFile(filepath.Join(b.path, uidlist.Name))
		if err != nil || !strings.Contains(string(text), fmt.Sprintf("G%032x", 1)) {
			t.Errorf("%s: list %q, %v", name, text, err)
		}
	}
}

// TestNameless holds that a file whose name has nothing before its info part
// becomes a message under a name of its own.
func TestNameless(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	b.deliver("cur", ":2,FS", "y\n")
	b.deliver("new", ":2,", "z\n")
	b.sync(Serve)
	got := told(b.Mailbox)
	if len(got) != 3 || got[0] != "1 1.h " || !strings.Contains(got[1]+got[2], `\Seen \Flagged`) {
		t.Fatalf("%q", got)
	}
	b.sync(Serve)
	b.want(got...)
}

// TestOddKeywords holds that a keyword which no client could send is shown as one
// that it can, and is the same keyword.
func TestOddKeywords(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	file := filepath.Join(b.path, "dovecot-keywords")
	const text = "0 to do\n1 to_do\n2 a(b)\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.deliver("cur", "1.h:2,c", "x\n")
	b.deliver("cur", "2.h:2,ac", "x\n")
	b.sync(Serve)
	b.want("1 1.h a_b_", "2 2.h a_b_")
	for op, flags := range map[FlagOp]string{RemoveFlags: "A_B_", AddFlags: "to_do"} {
		if _, err := b.SetFlags(context.Background(), []UID{2}, op, FlagSet{Keywords: []string{flags}}); err != nil {
			t.Error(err)
		}
	}
	b.want("1 1.h a_b_", "2 2.h to_do")
	if got, err := os.ReadFile(file); string(got) != text {
		t.Errorf("%q, %v", got, err)
	}
	if files := b.files("cur"); files[1] != "2.h:2,ab" {
		t.Errorf("%q", files)
	}
}

// TestMendedAtOnce holds that a list which Dovecot would throw away is mended by
// the first look, though every message has its UID.
func TestMendedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.Mailbox.Release()
	b.host.Close()
	file := filepath.Join(b.path, uidlist.Name)
	if err := os.WriteFile(file, []byte("3 V1 N9 Gxyz\n5 :1.h\n\n7 :2.h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.deliver("cur", "1.h:2,S", "x\n")
	b.deliver("cur", "2.h:2,S", "x\n")
	b.start(Options{})
	b.want(`5 1.h \Seen`, `7 2.h \Seen`)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := uidlist.Parse(data); err != nil || l.NeedsRewrite() || l.Validity != 1 || l.Next != 9 {
		t.Errorf("%q: %v", data, err)
	}
}
