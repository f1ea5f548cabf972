package imap

import (
	"bufio"
	"bytes"
	"reflect"
	"strings"
	"testing"

	"imapd/imap/wire"
	"imapd/maildir"
)

// FuzzFetch parses the arguments of FETCH and STORE.
func FuzzFetch(f *testing.F) {
	for _, seed := range []string{
		"1:* (UID FLAGS)", "1 ALL", "2,4:* FULL", "1 BODY", "1 BODY[]<0.100>", "1 (BODY.PEEK[1.2.HEADER.FIELDS.NOT (a \"b\" {1+}\r\nc)]<5.6> ENVELOPE)",
		"1 BINARY[1.2]<0.9>", "1 BINARY.SIZE[3]", "1 RFC822.TEXT", "1 (FLAGS FLAGS UID)", "1 FLAGS (CHANGEDSINCE 1)", "1 BODY[1.", "1 BODY[0]",
		"1 +FLAGS.SILENT (\\Seen a)", "1 -FLAGS \\Seen", "$ FLAGS ()", "1 (UNCHANGEDSINCE 1) FLAGS ()",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, args string) {
		for _, set := range []func(*wire.Decoder) Set{seqSet, uidSet} {
			d := decoderOf(" " + args + "\r\n")
			a := parseFetch(set)(d)
			if d.End() == nil && (len(a.parts) == 0 || a.set.UID && !a.uid) {
				t.Errorf("%q: %+v", args, a)
			}
			d = decoderOf(" " + args + "\r\n")
			b := parseStore(set)(d)
			if d.End() == nil && b.op > maildir.ReplaceFlags {
				t.Errorf("%q: %+v", args, b)
			}
		}
	})
}

// FuzzSection parses sections. As they are answered they are the same section.
func FuzzSection(f *testing.F) {
	for _, seed := range []string{
		"[]", "[1.2.3]", "[HEADER]", "[1.HEADER.FIELDS (a \"b c\" {2+}\r\n\xc3\xa9)]", "[HEADER.FIELDS.NOT (NIL \"\")]", "[1.MIME]", "[4294967295.TEXT]",
		"[TEXT", "[MIME]", "[1.]", "[header.fields (a]b)]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s, again section
		d := decoderOf(text + "\r\n")
		name := s.parse(d, "BODY")
		if d.Err() != nil {
			return
		}
		d = decoderOf(strings.TrimPrefix(name, "BODY") + "\r\n")
		got := again.parse(d, "BODY")
		if err := d.End(); err != nil || got != name || !reflect.DeepEqual(again.Section, s.Section) {
			t.Errorf("%q: answered as %q, which is %q (%v)", text, name, got, err)
		}
	})
}

// decoderOf returns a decoder inside a command, before text.
func decoderOf(text string) *wire.Decoder {
	r := bufio.NewReader(bytes.NewReader([]byte(text)))
	d := wire.NewDecoder(r, wire.AfterLogin(), func() error { return nil })
	d.Begin()
	return d
}
