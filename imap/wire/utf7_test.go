package wire

import "testing"

func TestUTF7(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ wire, name string }{
		{"", ""},
		{"INBOX", "INBOX"},
		{" !~/.\\\"", " !~/.\\\""},
		{"&-", "&"},
		{"a&-b&-", "a&b&"},
		{"&APw-", "ü"},
		{"gr&APw-n", "grün"},
		{"~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"}, // RFC 3501 section 5.1.3
		{"&Jjo-!", "☺!"},
		{"&2D3eAA-", "😀"},
		{"&AH8-", "\x7f"},
		{"&AAo-", "\n"},
		{"&,,3,,Q-", "\ufffd\ufffd"},
	} {
		if got, err := DecodeUTF7(tt.wire); got != tt.name || err != nil {
			t.Errorf("decode %q: got %q, %v, want %q", tt.wire, got, err, tt.name)
		}
		if got := EncodeUTF7(tt.name); got != tt.wire {
			t.Errorf("encode %q: got %q, want %q", tt.name, got, tt.wire)
		}
	}
}

func TestUTF7Bad(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want error
	}{
		{"&", errUTF7Open},
		{"a&b", errUTF7Open},
		{"&Jjo", errUTF7Open},
		{"&Jjo!-", errUTF7Base64},
		{"&AP/-", errUTF7Base64},
		{"&APw=-", errUTF7Base64},
		{"&AGE-", errUTF7Canonical},      // "a"
		{"&AC8-", errUTF7Canonical},      // "/"
		{"&AC4ALg-", errUTF7Canonical},   // ".."
		{"&AOQA5AAm-", errUTF7Canonical}, // "&" inside a shift sequence
		{"&A-", errUTF7Canonical},        // too short for a unit
		{"&AP-", errUTF7Canonical},       // the same
		{"&APwA-", errUTF7Canonical},     // six bits too many
		{"&APx-", errUTF7Canonical},      // bits that are not zero
		{"&APw-&APw-", errUTF7Canonical}, // should be one sequence
		{"&2D0-", errUTF7Surrogate},      // a high one alone
		{"&3gA-", errUTF7Surrogate},      // a low one alone
		{"&2D3YPQ-", errUTF7Surrogate},   // two high ones
		{"&2D0A5A-", errUTF7Surrogate},   // a high one and a letter
		{"&AAA-", errNUL},                // U+0000
		{"a\x00", errUTF7Octet},          // NUL itself
		{"a\tb", errUTF7Octet},           // control
		{"\x7f", errUTF7Octet},           // DEL
		{"gr\xc3\xbcn", errUTF7Octet},    // UTF-8
		{"&APw-\xff", errUTF7Octet},      // an octet after a sequence
		{"&APw-&", errUTF7Open},          // open at the end
		{"&-&APw-&-&", errUTF7Open},      // the same
	} {
		if got, err := DecodeUTF7(tt.in); got != "" || err != tt.want {
			t.Errorf("%q: got %q, %v, want %v", tt.in, got, err, tt.want)
		}
	}
	if got := EncodeUTF7("a\xffb"); got != "a&,,0-b" {
		t.Errorf("bad UTF-8 becomes %q", got)
	}
}
