package wire

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

// benchSet is a FETCH of n UIDs with gaps, as SOGo sends it.
func benchSet(n int) []byte {
	b := []byte("a UID FETCH ")
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendNumber(b, uint32(100000+i*3))
	}
	return append(b, " (FLAGS)\r\n"...)
}

func benchDecode(b *testing.B, in []byte, read func(d *Decoder)) {
	b.Helper()
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	src := bytes.NewReader(nil)
	r := bufio.NewReaderSize(src, 4096)
	d := NewDecoder(r, AfterLogin(), func() error { return nil })
	for b.Loop() {
		src.Reset(in)
		r.Reset(src)
		d.Begin()
		read(d)
		if err := d.End(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNumSet200k(b *testing.B) {
	benchDecode(b, benchSet(200_000), func(d *Decoder) {
		d.Tag()
		d.SP()
		d.Keyword()
		d.SP()
		d.Keyword()
		d.SP()
		if n := d.NumSet().Len(); n != 200_000 {
			b.Fatal(n)
		}
		d.SP()
		d.List(func() { d.Keyword() })
	})
}

func BenchmarkCommand(b *testing.B) {
	benchDecode(b, []byte("A123 UID STORE 4711 +FLAGS.SILENT (\\Seen $Forwarded)\r\n"), func(d *Decoder) {
		d.Tag()
		d.SP()
		d.Keyword()
		d.SP()
		d.Keyword()
		d.SP()
		d.NumSet()
		d.SP()
		d.Keyword()
		d.SP()
		d.FlagList()
	})
}

func BenchmarkLiteral1M(b *testing.B) {
	in := append(AppendLiteralHeader(nil, 1<<20), strings.Repeat("x", 1<<20)...)
	benchDecode(b, append(in, "\r\n"...), func(d *Decoder) { d.AString() })
}

func BenchmarkSkip2M(b *testing.B) {
	in := append(bytes.Repeat([]byte("{1"), 1<<20), "\r\n"...)
	benchDecode(b, in, func(d *Decoder) {
		if err := d.Skip(); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkAppendString(b *testing.B) {
	b.ReportAllocs()
	buf := make([]byte, 0, 4096)
	for b.Loop() {
		buf = AppendString(buf[:0], "Re: the grammar of IMAP, and what it costs to write")
	}
}
