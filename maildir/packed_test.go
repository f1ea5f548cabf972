package maildir

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/pierrec/lz4/v4"
)

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func lz4Frame(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// read returns what the file of a message holds.
func (b *box) read(uid UID) (string, error) {
	b.t.Helper()
	i, ok := b.Snapshot().Find(uid)
	if !ok {
		b.t.Fatalf("no UID %d", uid)
	}
	f, err := b.OpenMessage(context.Background(), b.Snapshot().At(i))
	if err != nil {
		return "", err
	}
	defer f.Close()
	p := make([]byte, f.Size())
	n, err := f.ReadAt(p, 0)
	if err == io.EOF {
		err = nil
	}
	return string(p[:n]), err
}

func TestPacked(t *testing.T) {
	t.Parallel()
	const mail = "Subject: x\n\nline\nline\n" // 22 octets, 26 with CRLF
	packed := gzipped(t, mail)
	for _, tt := range []struct {
		name string // behind the part that makes it unique
		file string
		text string // what is read
		size int64  // with CRLF
		err  error
	}{
		{",S=22,W=26:2,", packed, mail, 26, nil},
		{":2,Z", packed, mail, 26, nil},
		{",S=22:2,", packed, mail, 26, nil},
		{",S=7,W=9:2,", packed, mail, 9, nil}, // believed until it is counted, as of any other file
		{",S=26,W=22:2,", packed, mail, 26, nil},
		{fmt.Sprintf(",S=%d,W=%[1]d:2,", len(packed)), packed, packed, int64(len(packed)), nil}, // what a client has sent
		{",S=22,W=26:2,", packed[:len(packed)-1], "", 26, ErrDamaged},
		{":2,", packed[:12], "", -1, ErrDamaged},
		{":2,", packed[:2], packed[:2], 2, nil},
		{":2,", gzipped(t, strings.Repeat("x", 2<<20)), "", -1, ErrTooBig},
		{":2,", gzipped(t, strings.Repeat("0123456789\n", 50_000)), strings.Repeat("0123456789\n", 50_000), 600_000, nil},
		{":2,", gzipped(t, ""), "", 0, nil},
		{",S=22,W=26:2,", lz4Frame(t, mail), mail, 26, nil}, // which Dovecot does not read
	} {
		b := newBox(t, Options{MaxMessage: 1 << 20})
		b.deliver("cur", "1.file"+tt.name, tt.file)
		b.sync(Serve)
		msg := b.Snapshot().At(0)
		if n, err := b.Size(msg); n != tt.size && tt.size >= 0 || tt.size < 0 && !errors.Is(err, tt.err) {
			t.Errorf("%s: size %d, %v; want %d", tt.name, n, err, tt.size)
		}
		if text, err := b.read(msg.UID); text != tt.text || !errors.Is(err, tt.err) {
			t.Errorf("%s: %.40q, %v; want %.40q, %v", tt.name, text, err, tt.text, tt.err)
		}
	}
}

// TestPackedStays holds that a compressed file is copied as it is, and keeps the
// sizes in its name.
func TestPackedStays(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	if err := b.st.Create(context.Background(), "Archive"); err != nil {
		t.Fatal(err)
	}
	to := b.open("Archive")
	b.deliver("cur", "1.file,S=22,W=26:2,", gzipped(t, "Subject: x\n\nline\nline\n"))
	b.sync(Serve)
	for range 2 { // the second needs another base name
		if _, err := b.Copy(context.Background(), []UID{1}, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, msg := range to.Snapshot().Range(0, 2) {
		if n, err := to.Size(msg); n != 26 || err != nil || !bytes.Contains(msg.base(), []byte(",S=22,W=26")) {
			t.Errorf("%s: size %d, %v", msg.base(), n, err)
		}
	}
}

// TestPackedShared lets goroutines read more messages than are kept, and holds
// that one that is still kept is not unpacked again.
func TestPackedShared(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	const messages = keepUnpacked + 4
	text := func(i int) string { return fmt.Sprintf("Subject: %d\n\n%s", i, strings.Repeat("x\n", i*40_000)) }
	for i := range messages {
		b.deliver("cur", fmt.Sprintf("%d.file:2,", i+1), gzipped(t, text(i)))
	}
	b.sync(Serve)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 3 * messages {
				n := (i*(g+1) + g) % messages
				if got, err := b.read(UID(n + 1)); got != text(n) {
					t.Errorf("message %d: %d octets, %v; want %d", n, len(got), err, len(text(n)))
				}
			}
		})
	}
	wg.Wait()
	open := func() *File {
		f, err := b.OpenMessage(context.Background(), b.Snapshot().At(3))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	one, two := open(), open()
	if one.mail != two.mail || one.mail.refs != 3 {
		t.Errorf("unpacked twice, or %d references", one.mail.refs)
	}
	one.Close()
	b.host.packed.drop(two.mail)
	if two.mail.refs != 1 {
		t.Errorf("%d references", two.mail.refs)
	}
	var p [7]byte
	if _, err := two.ReadAt(p[:], 0); string(p[:]) != "Subject" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	two.Close()
	if three := open(); three.mail == two.mail {
		t.Error("what was closed is used again")
	} else {
		three.Close()
	}
}
