package body

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"slices"
	"strings"
	"testing"

	gomessage "github.com/emersion/go-message"
)

// build writes a message of depth levels with go-message's writer.
func build(t *testing.T, r *rand.Rand, w *gomessage.Writer, depth int) {
	t.Helper()
	for range 1 + r.Intn(3) {
		var h gomessage.Header
		if depth > 0 && r.Intn(3) == 0 {
			h.SetContentType("multipart/"+[]string{"mixed", "alternative", "related"}[r.Intn(3)], nil)
			sub, err := w.CreatePart(h)
			if err != nil {
				t.Fatal(err)
			}
			build(t, r, sub, depth-1)
			sub.Close()
			continue
		}
		charset := []string{"utf-8", "us-ascii"}[r.Intn(2)]
		h.SetContentType("text/plain", map[string]string{"charset": charset})
		h.Set("Content-Transfer-Encoding", []string{"base64", "quoted-printable", "7bit"}[r.Intn(3)])
		part, err := w.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(part, strings.Repeat(fmt.Sprintf("line %d of a part =3D.\r\n", r.Intn(1000)), r.Intn(20)))
		part.Close()
	}
}

// leaves returns the type and the decoded text of every leaf, as go-message reads
// them.
func leaves(t *testing.T, e *gomessage.Entity) (all []string) {
	t.Helper()
	if mr := e.MultipartReader(); mr != nil {
		for {
			p, err := mr.NextPart()
			if err == io.EOF {
				return all
			}
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, leaves(t, p)...)
		}
	}
	kind, _, _ := e.Header.ContentType()
	text, err := io.ReadAll(e.Body)
	if err != nil {
		t.Fatal(err)
	}
	return append(all, kind+" "+string(text))
}

// ourLeaves is leaves as this package has them.
func ourLeaves(t *testing.T, p *Part, r io.ReaderAt) (all []string) {
	t.Helper()
	if p.Kind == Multipart {
		for _, c := range p.Parts {
			all = append(all, ourLeaves(t, c, r)...)
		}
		return all
	}
	c, err := p.Binary(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return append(all, p.Type+"/"+p.Subtype+" "+string(text))
}

// What go-message writes, go-message and we read alike, with either line end.
func TestAgainstGoMessage(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewSource(1))
	for round := range 200 {
		var h gomessage.Header
		h.SetContentType("multipart/mixed", nil)
		h.SetText("Subject", "Prüfung")
		var b bytes.Buffer
		w, err := gomessage.CreateWriter(&b, h)
		if err != nil {
			t.Fatal(err)
		}
		build(t, r, w, 3)
		w.Close()
		e, err := gomessage.Read(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		want := leaves(t, e)
		for _, raw := range [][]byte{b.Bytes(), bytes.ReplaceAll(b.Bytes(), []byte("\r\n"), []byte("\n"))} {
			file := bytes.NewReader(raw)
			root, err := Parse(file, int64(len(raw)), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if got := ourLeaves(t, root, file); !slices.Equal(got, want) {
				t.Fatalf("round %d: leaves\n%q, want\n%q of\n%s", round, got, want, raw)
			}
			if root.Envelope == nil || DecodeHeader([]byte(root.Envelope.Subject.S)) != "Prüfung" {
				t.Fatalf("round %d: Subject %q", round, root.Envelope.Subject.S)
			}
		}
	}
}
