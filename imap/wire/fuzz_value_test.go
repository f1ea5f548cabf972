package wire

import (
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzNumSet holds the parser and the set against an oracle that expands.
func FuzzNumSet(f *testing.F) {
	for _, in := range []string{"1", "2,4:7,9,12:*", "*", "*:4,5:7", "7:3,1:2", "3,1,2", "1:*,1:*", "$", "0",
		"4294967295:*", "4294967296", "1:", ",1", "1,,2", "*:*", "1:2:3", "**", "1*", "*1", "30:*,2:5,6,4:28"} {
		f.Add(in, uint8(5))
	}
	f.Fuzz(func(t *testing.T, in string, most uint8) {
		in, _, _ = strings.Cut(in, "\n")
		d, _ := newDecoder(strings.NewReader(in+"\r\n"), AfterLogin())
		s := d.NumSet()
		err := d.End()
		o, _ := newDecoder(iotest.OneByteReader(strings.NewReader(in+"\r\n")), AfterLogin())
		if s2 := o.NumSet(); !s.Equal(s2) || kind(o.End()) != kind(err) {
			t.Fatalf("%q: octet by octet %v, %v, want %v, %v", in, s2, o.Err(), s, err)
		}
		want, ok := slowSet(strings.TrimRight(in, " "), uint32(most))
		if ok != (err == nil) {
			t.Fatalf("%q: got %v, oracle says valid=%v", in, err, ok)
		}
		if !ok {
			return
		}
		checkSet(t, s)
		if s.Saved != (want == nil) {
			t.Fatalf("%q: saved is %v", in, s.Saved)
		}
		resolved := s.Resolve(uint32(most))
		for n := uint32(1); n <= uint32(most); n++ {
			if got := s.Contains(n, uint32(most)); got != want[n] {
				t.Fatalf("%q contains %d of %d: got %v", in, n, most, got)
			}
			if got := resolved.Contains(n, 0); got != want[n] {
				t.Fatalf("%q resolved %v contains %d of %d: got %v", in, resolved, n, most, got)
			}
		}
		again, _ := newDecoder(strings.NewReader(s.String()+"\r\n"), AfterLogin())
		if s2 := again.NumSet(); !s2.Equal(s) || again.End() != nil {
			t.Fatalf("%q: %v does not come back: %v, %v", in, s, s2, again.Err())
		}
	})
}

// slowSet expands a sequence set to its numbers up to most; nil means "$".
func slowSet(in string, most uint32) (map[uint32]bool, bool) {
	if in == "$" {
		return nil, true
	}
	set := map[uint32]bool{}
	for part := range strings.SplitSeq(in, ",") {
		ends := strings.Split(part, ":")
		if len(ends) > 2 {
			return set, false
		}
		var lo, hi uint64 = 1 << 40, 0
		for _, e := range ends {
			n, err := strconv.ParseUint(e, 10, 32)
			if e == "*" {
				n, err = uint64(most), nil
			} else if n == 0 {
				return set, false
			}
			if err != nil {
				return set, false
			}
			lo, hi = min(lo, n), max(hi, n)
		}
		for n := lo; n <= min(hi, uint64(most)); n++ {
			set[uint32(n)] = true
		}
	}
	return set, true
}

// checkSet checks what NumSet promises of its ranges.
func checkSet(t *testing.T, s NumSet) {
	t.Helper()
	rs := s.Ranges()
	for i, r := range rs {
		if before(r.Stop, r.Start) || i > 0 && (rs[i-1].Stop == Star || r.Start != Star && r.Start-1 <= rs[i-1].Stop) {
			t.Fatalf("ranges %v are not in order", rs)
		}
	}
}

// FuzzUTF7 checks that what decodes is canonical, and that every name comes back.
func FuzzUTF7(f *testing.F) {
	for _, s := range []string{"INBOX", "&-", "&AGE-", "gr&APw-n", "grün", "&Jjo", "&Jjo-!", "&2D3cAA-", "😀&", "&AAA-",
		"a\x7f", "\xff", "&APw-&APw-", "&APw-&-", "~peter/mail/&U,BTFw-/&ZeVnLIqe-", "\ufffd", "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if name, err := DecodeUTF7(s); err == nil {
			if again := EncodeUTF7(name); again != s || strings.Contains(name, "\x00") {
				t.Fatalf("%q decodes to %q, which encodes to %q", s, name, again)
			}
		}
		want := strings.ToValidUTF8(s, "\ufffd")
		if want != s || strings.Contains(s, "\x00") {
			return // several octets may become one U+FFFD
		}
		if got, err := DecodeUTF7(EncodeUTF7(s)); got != s || err != nil {
			t.Fatalf("%q encodes to %q, which decodes to %q, %v", s, EncodeUTF7(s), got, err)
		}
	})
}

// FuzzString checks that every string that is written is read back.
func FuzzString(f *testing.F) {
	for _, s := range []string{"", "a", "NIL", "a b", `"\`, "ü", "\xff", "a\r\n", "]", "%", "{3+}", "inbox", "&", strings.Repeat("\"", 1025)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ReplaceAll(s, "\x00", "\x80")
		if len(s) > 1<<19 {
			return
		}
		b := AppendString(nil, s)
		b = AppendUTF8String(append(b, ' '), s)
		b = AppendNString(append(b, ' '), s, true)
		b = AppendAString(append(b, ' '), s)
		l := AfterLogin()
		l.Args = 8 << 20
		d, _ := newDecoder(strings.NewReader(string(b)+"\r\n"), l)
		for i, read := range []production{(*Decoder).String, (*Decoder).LenientAString, (*Decoder).AString, (*Decoder).AString} {
			if i > 0 {
				d.SP()
			}
			if got := read(d); got != s || d.Err() != nil {
				t.Fatalf("%q, written %q: form %d read %q, %v", s, b, i, got, d.Err())
			}
		}
		if err := d.End(); err != nil {
			t.Fatalf("%q, written %q: %v", s, b, err)
		}
		checkMailbox(t, s)
	})
}

// checkMailbox checks that a mailbox name comes back in both encodings.
func checkMailbox(t *testing.T, name string) {
	if strings.ToValidUTF8(name, "") != name || strings.EqualFold(name, "INBOX") {
		return
	}
	for _, on := range []bool{false, true} {
		d, _ := newDecoder(strings.NewReader(string(AppendMailbox(nil, name, on))+"\r\n"), AfterLogin())
		d.SetUTF8(on)
		if got := d.Mailbox(); got != name || d.End() != nil {
			t.Fatalf("mailbox %q, utf8 %v: read %q, %v", name, on, got, d.Err())
		}
	}
}
