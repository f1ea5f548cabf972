package body

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// crlfView is the CRLF view, done plainly.
func crlfView(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] == '\n' && (i == 0 || s[i-1] != '\r') {
			b.WriteByte('\r')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// checkSpan holds a span's sizes against the text.
func checkSpan(t *testing.T, text string, s Span) {
	t.Helper()
	if s.Off < 0 || s.Off > s.End || s.End > int64(len(text)) {
		t.Fatalf("span %+v outside %d octets", s, len(text))
	}
	piece := text[s.Off:s.End]
	if want := int64(len(crlfView(piece))); s.Size != want {
		t.Errorf("span %+v: size should be %d", s, want)
	}
	if want := int64(strings.Count(piece, "\n")); s.Lines != want {
		t.Errorf("span %+v: lines should be %d", s, want)
	}
}

// checkTree holds what every tree must hold: spans nest in order, and sizes add up.
func checkTree(t *testing.T, text string, root *Part) {
	t.Helper()
	if root.Header.Off != 0 || root.Body.End != int64(len(text)) {
		t.Errorf("root has [%d,%d) of %d", root.Header.Off, root.Body.End, len(text))
	}
	if root.Envelope == nil {
		t.Error("root has no envelope")
	}
	parts := 0
	var walk func(p *Part, depth int)
	walk = func(p *Part, depth int) {
		if parts++; depth > 100 || parts > 10_000 {
			t.Fatalf("depth %d, %d parts", depth, parts)
		}
		checkSpan(t, text, p.Header)
		checkSpan(t, text, p.Body)
		if p.Header.End != p.Body.Off {
			t.Errorf("header ends at %d, body begins at %d", p.Header.End, p.Body.Off)
		}
		switch {
		case p.Kind == Leaf && len(p.Parts) > 0, p.Kind == Message && len(p.Parts) != 1:
			t.Errorf("kind %d with %d children", p.Kind, len(p.Parts))
		case p.Kind == Message && (p.Parts[0].Header.Off != p.Body.Off || p.Parts[0].Body.End != p.Body.End):
			t.Errorf("embedded message %+v %+v in %+v", p.Parts[0].Header, p.Parts[0].Body, p.Body)
		}
		if p.Encoding == "" || p.IsText() && len(p.Params) == 0 {
			t.Errorf("defaults missing: %+v", p)
		}
		at := p.Body.Off
		for _, c := range p.Parts {
			if c.Header.Off < at || c.Body.End > p.Body.End {
				t.Errorf("child [%d,%d) outside [%d,%d)", c.Header.Off, c.Body.End, at, p.Body.End)
			}
			at = c.Body.End
			walk(c, depth+1)
		}
	}
	walk(root, 1)
}

func parseString(t testing.TB, s string, lim Limits) *Part {
	t.Helper()
	root, err := Parse(strings.NewReader(s), int64(len(s)), lim)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func corpus() []string {
	var all []string
	for _, g := range groups() {
		for _, s := range g.samples {
			all = append(all, s.text)
		}
	}
	return all
}

func TestTreeOfCorpus(t *testing.T) {
	t.Parallel()
	for _, text := range corpus() {
		checkTree(t, text, parseString(t, text, Limits{}))
	}
}

// TestAnywhere parses each message of the corpus inside a larger one, so that every piece of it comes to lie across
// the end of the window, and wants the same tree.
func TestAnywhere(t *testing.T) {
	t.Parallel()
	const before = "Content-Type: multipart/mixed; boundary=\"the outermost boundary\"\n\n--the outermost boundary\n\n"
	const between = "\n--the outermost boundary\nContent-Type: message/rfc822\n\n"
	for _, s := range messages {
		if last := s.text[strings.LastIndexByte(s.text, '\n')+1:]; strings.HasSuffix(last, "\r") || strings.HasPrefix(last, "--") {
			continue // the LF of the outermost boundary would end that line
		}
		want := parseString(t, s.text, Limits{})
		step := max(len(s.text)/40, 1)
		for shift := -len(s.text) - 3; shift <= 3; shift += step {
			fill := windowSize + shift - len(before) - len(between)
			head := before + strings.Repeat("0123456\n", fill/8) + strings.Repeat("x", fill%8) + between
			text := head + s.text + "\n--the outermost boundary--\n"
			root := parseString(t, text, Limits{})
			if len(root.Parts) != 2 || root.Parts[1].Kind != Message {
				t.Fatalf("%s at %d: %s", s.name, shift, structureText(root, true))
			}
			got := root.Parts[1].Parts[0]
			move(got, -int64(len(head)))
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s at %d:\n got %s\nwant %s", s.name, shift, structureText(got, true), structureText(want, true))
			}
		}
	}
}

// move shifts the file offsets of a tree.
func move(p *Part, by int64) {
	for _, s := range []*Span{&p.Header, &p.Body} {
		s.Off += by
		s.End += by
	}
	for _, c := range p.Parts {
		move(c, by)
	}
}

func TestParseHeader(t *testing.T) {
	t.Parallel()
	for _, text := range corpus() {
		want := parseString(t, text, Limits{})
		span, env, err := ParseHeader(strings.NewReader(text), int64(len(text)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if span != want.Header || !reflect.DeepEqual(env, want.Envelope) {
			t.Errorf("%q: %+v %s", clip(text), span, envelopeText(env))
		}
	}
}

// TestShortFile: a file that has become shorter than it was is what it is now.
func TestShortFile(t *testing.T) {
	t.Parallel()
	text := "Subject: x\n\nbody\n"
	root, err := Parse(strings.NewReader(text), 1000, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	checkTree(t, text, root)
}

// failing fails to read from an offset on.
type failing struct {
	io.ReaderAt
	at int64
}

var errDisk = errors.New("disk")

func (f failing) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > f.at {
		return 0, errDisk
	}
	return f.ReaderAt.ReadAt(b, off)
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("Subject: "+strings.Repeat("x", 80)+"\n", 3000) + "\n" + strings.Repeat("body\n", 30000)
	size := int64(len(text))
	r := failing{strings.NewReader(text), 100_000}
	if _, err := Parse(r, size, Limits{}); !errors.Is(err, errDisk) {
		t.Errorf("Parse: %v", err)
	}
	if _, _, err := ParseHeader(r, size, Limits{}); !errors.Is(err, errDisk) {
		t.Errorf("ParseHeader: %v", err)
	}
	if _, err := VirtualSize(r, size); !errors.Is(err, errDisk) {
		t.Errorf("VirtualSize: %v", err)
	}
	root := parseString(t, text, Limits{})
	if _, err := SelectFields(r, root.Header, NewFieldNames("Subject"), false); !errors.Is(err, errDisk) {
		t.Errorf("SelectFields: %v", err)
	}
	if _, err := HeaderField(r, root.Header, "x"); !errors.Is(err, errDisk) {
		t.Errorf("HeaderField: %v", err)
	}
	if err := root.Search(r, NewMatcher(newKeys("absent"))); !errors.Is(err, errDisk) {
		t.Errorf("Search: %v", err)
	}
	c := NewContent(r, root.Body)
	if err := c.WriteRange(io.Discard, 0, c.Size); !errors.Is(err, errDisk) {
		t.Errorf("WriteRange: %v", err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	deep := ""
	for i := range 200 {
		deep += fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
	}
	root := parseString(t, deep+"\nx\n", Limits{})
	checkTree(t, deep+"\nx\n", root)
	depth, last := 0, root
	for p := root; p != nil; depth++ {
		last = p
		if p = nil; len(last.Parts) > 0 {
			p = last.Parts[0]
		}
	}
	if depth != 100 || last.Type != "application" || last.Kind != Leaf {
		t.Errorf("multiparts: depth %d ends in %s/%s", depth, last.Type, last.Subtype)
	}

	text := strings.Repeat("Content-Type: message/rfc822\n\n", 100_000)
	root = parseString(t, text, Limits{Depth: 7})
	depth = 1
	for p := root; len(p.Parts) > 0; p = p.Parts[0] {
		depth++
	}
	if depth != 7 {
		t.Errorf("messages: depth %d", depth)
	}

	text = "Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\n", 100_000)
	root = parseString(t, text, Limits{})
	checkTree(t, text, root)
	if len(root.Parts) != 9_999 {
		t.Errorf("%d parts", len(root.Parts))
	}

	text = "To: " + strings.Repeat("a@b, ", 10_000) + "\nCc: g:" + strings.Repeat("a@b, ", 10_000) + ";\n\n"
	env := parseString(t, text, Limits{}).Envelope
	if len(env.To) != 1000 || len(env.Cc) != 1000 {
		t.Errorf("%d and %d addresses", len(env.To), len(env.Cc))
	}

	text = "Content-Type: text/plain"
	for i := range 1000 {
		text += fmt.Sprintf("; p*%d*=x", i)
	}
	if p := parseString(t, text+"\n\n", Limits{}); len(p.Params) != 2 || len(p.Params[0].Value) != 128 {
		t.Errorf("params %+v", p.Params)
	}

	text = "Subject: " + strings.Repeat("x", 1<<20) + "\n\n"
	if e := parseString(t, text, Limits{}).Envelope; len(e.Subject.S) != 64<<10 {
		t.Errorf("subject of %d", len(e.Subject.S))
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("Content-Type: multipart/mixed; boundary=b\n\n")
	for range 200 {
		b.WriteString("--b\nContent-Type: application/" + strings.Repeat("y", 100) + "; n=v\nContent-Description: " + strings.Repeat("x", 60<<10) + "\n\nbody\n")
	}
	root := parseString(t, b.String(), Limits{})
	checkTree(t, b.String(), root)
	kept := 0
	for _, p := range root.Parts {
		kept += len(p.Description.S)
	}
	if kept > 4<<20 || kept < 3<<20 {
		t.Errorf("kept %d octets", kept)
	}
	if p := root.Parts[199]; p.Description.OK {
		t.Errorf("last part has a description of %d", len(p.Description.S))
	}
	tiny := parseString(t, b.String(), Limits{Memory: 50})
	if p := tiny.Parts[0]; p.Type != "application" || p.Subtype != "octet-stream" {
		t.Errorf("type %s/%s", p.Type, p.Subtype)
	}
}

// endless is a message of 2 GB that is nowhere: a multipart with a large part.
type endless struct {
	head string
	size int64
	read int64
}

func (e *endless) ReadAt(b []byte, off int64) (int, error) {
	e.read += int64(len(b))
	n := 0
	if off < int64(len(e.head)) {
		n = copy(b, e.head[off:])
	}
	const line = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789ABCDE\n"
	for n < len(b) {
		n += copy(b[n:], line[(off+int64(n))%int64(len(line)):])
	}
	return len(b), nil
}

// TestHuge reads 2 GB once and keeps none of it.
func TestHuge(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 4 GB")
	}
	e := &endless{head: "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n", size: 2 << 30}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	root, err := Parse(e, e.size, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := root.Section(e, Section{Path: []uint32{1}})
	if err != nil {
		t.Fatal(err)
	}
	if e.read > e.size+lookahead {
		t.Errorf("%d octets read of %d", e.read, e.size)
	}
	n := count(0)
	if err := c.WriteRange(&n, 0, c.Size); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if int64(n) != c.Size || c.Size <= e.size {
		t.Errorf("%d octets written of %d", n, c.Size)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d octets allocated", used)
	}
}

// count counts what is written to it.
type count int64

func (c *count) Write(b []byte) (int, error) {
	*c += count(len(b))
	return len(b), nil
}

func TestFind(t *testing.T) {
	t.Parallel()
	root := parseString(t, nested, Limits{})
	for _, tt := range []struct {
		path string
		want string
	}{
		{"", "multipart/mixed"}, {"1", "multipart/alternative"}, {"1.2", "text/html"}, {"1.2.1", "text/html"}, {"1.2.1.1", ""}, {"2", "message/rfc822"},
		{"2.1", "text/plain"}, {"2.2", "application/octet-stream"}, {"2.3", ""}, {"3", ""}, {"0", ""}, {"1.0", ""}, {"4294967295", ""},
	} {
		got := ""
		if p := root.Find(parseSection(tt.path).Path); p != nil {
			got = p.Type + "/" + p.Subtype
		}
		if got != tt.want {
			t.Errorf("%s: %s", tt.path, got)
		}
	}
	long := make([]uint32, 5000)
	for i := range long {
		long[i] = 1
	}
	if p := root.Find(long); p != nil {
		t.Errorf("found %+v", p)
	}
}
