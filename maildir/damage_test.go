package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imapd/maildir/uidlist"
)

// usedUp gives the folder of b a list that ends with UID last, and starts b anew, with
// its log in log.
func (b *box) usedUp(last uint32, log io.Writer) (validity uint32) {
	b.t.Helper()
	validity = b.Snapshot().Validity
	b.Mailbox.Release()
	b.host.Close()
	list := fmt.Sprintf("3 V%d N50 G%032x\n3 :1.h\n20 :gone\n%d :2.h\n", validity, 1, last)
	if err := os.WriteFile(filepath.Join(b.path, uidlist.Name), []byte(list), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.deliver("cur", "1.h:2,S", "x\n")
	b.deliver("cur", "2.h:2,F", "xxxxx\n")
	b.start(Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	b.want(`3 1.h \Seen`, fmt.Sprintf(`%d 2.h \Flagged`, last))
	return validity
}

// TestNoUIDLeft holds that in a folder whose UIDs have been used up mail that others
// deliver makes a new UIDVALIDITY, and that all keep their order.
func TestNoUIDLeft(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	before := b.usedUp(uidlist.MaxUID, io.Discard)
	for i, want := range []int64{3, 7} {
		if n, err := b.Size(b.Snapshot().At(i)); n != want || err != nil {
			t.Errorf("size %d, %v", n, err)
		}
	}
	if v := b.Snapshot().Validity; v != before {
		t.Errorf("UIDVALIDITY %d before there is need", v)
	}
	b.deliver("new", "3.h", "x\n")
	b.sync(Serve)
	b.want(`1 1.h \Seen`, `3 2.h \Flagged`, `4 3.h `)
	if v := b.Snapshot().Validity; v <= before {
		t.Errorf("UIDVALIDITY %d after %d", v, before)
	}
	if n, err := b.Size(b.Snapshot().At(1)); n != 7 || err != nil {
		t.Errorf("size %d of the second, %v", n, err)
	}
	text, err := os.ReadFile(filepath.Join(b.path, uidlist.Name))
	if err != nil || !strings.Contains(string(text), fmt.Sprintf("G%032x", 1)) {
		t.Errorf("list %q, %v", text, err)
	}
}

// TestNoUIDLeftForClients holds that the last UID is given, that what clients want to
// add then is refused and leaves nothing behind, once for the log, and that an empty
// list with a higher UIDVALIDITY is a way forward, without a restart.
func TestNoUIDLeftForClients(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	var log bytes.Buffer
	before := b.usedUp(uidlist.MaxUID-1, &log)
	if err := b.st.Create(t.Context(), "Other"); err != nil {
		t.Fatal(err)
	}
	source := b.open("Other")
	b.append(source, "other\n", FlagSet{System: Draft})
	ops := map[string]func() error{
		"APPEND":      func() error { return b.tryAppend(1) },
		"MULTIAPPEND": func() error { return b.tryAppend(2) },
		"COPY":        func() error { _, err := source.Copy(t.Context(), []UID{1}, b.Mailbox); return err },
		"MOVE":        func() error { _, err := source.Move(t.Context(), []UID{1}, b.Mailbox); return err },
	}
	if err := ops["MULTIAPPEND"](); !errors.Is(err, ErrUsedUp) {
		t.Errorf("two messages for one UID: %v", err)
	}
	if err := ops["APPEND"](); err != nil || b.Snapshot().At(2).UID != uidlist.MaxUID {
		t.Fatalf("the last UID was not given: %q, %v", told(b.Mailbox), err)
	}
	last, files := told(b.Mailbox), b.files("cur")
	for name, op := range ops {
		if err := op(); !errors.Is(err, ErrUsedUp) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.sync(Serve)
	b.want(last...)
	if got := b.files("cur"); !slices.Equal(got, files) || len(b.files("tmp")) > 0 || source.Snapshot().Len() != 1 {
		t.Errorf("left behind: %q, %q, %q in the source", got, b.files("tmp"), told(source))
	}
	if n := strings.Count(log.String(), "all UIDs have been used"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}

	list := filepath.Join(b.path, uidlist.Name)
	err := os.WriteFile(list+".new", fmt.Appendf(nil, "3 V%d N1\n", before+1), 0o600)
	if err == nil {
		err = os.Rename(list+".new", list)
	}
	if err == nil {
		err = ops["MOVE"]()
	}
	if err != nil {
		t.Fatal(err)
	}
	got := told(b.Mailbox)
	if len(got) != 4 || got[0] != `1 1.h \Seen` || got[1] != `2 2.h \Flagged` || !strings.HasSuffix(got[3], ` \Draft`) || b.Snapshot().Validity != before+1 {
		t.Errorf("with a new list: UIDVALIDITY %d after %d, %q", b.Snapshot().Validity, before, got)
	}
}

// TestNoUIDLeftRestored holds that a list which is restored from the index has no UID
// left where there were few: the last ones may have been told.
func TestNoUIDLeftRestored(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	validity := b.usedUp(uidlist.MaxUID-5, io.Discard)
	b.ModSeqs()
	if _, err := b.SetFlags(t.Context(), []UID{uidlist.MaxUID - 5}, AddFlags, FlagSet{System: Deleted}); err != nil {
		t.Fatal(err)
	}
	if gone, err := b.Expunge(t.Context(), nil); err != nil || len(gone) != 1 {
		t.Fatal(gone, err)
	}
	b.Mailbox.Release()
	b.host.Close()
	if err := os.Remove(filepath.Join(b.path, uidlist.Name)); err != nil {
		t.Fatal(err)
	}
	b.start(Options{Log: slog.New(slog.DiscardHandler)})
	b.want(`3 1.h \Seen`)
	if err := b.tryAppend(1); !errors.Is(err, ErrUsedUp) || b.Snapshot().Validity != validity {
		t.Errorf("UIDVALIDITY %d, was %d: %v, %q", b.Snapshot().Validity, validity, err, told(b.Mailbox))
	}
}

// tryAppend adds n messages.
func (b *box) tryAppend(n int) error {
	b.t.Helper()
	msgs := make([]Appending, n)
	for i := range msgs {
		d, err := b.NewMessage(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
		defer d.Abort()
		fmt.Fprint(d, "x\r\n")
		msgs[i].Delivery = d
	}
	_, _, err := b.Append(b.t.Context(), msgs)
	return err
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
