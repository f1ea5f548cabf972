package unpack

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"imapd/maildir/vfs"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pack compresses text in the formats that have a writer in Go.
func pack(t testing.TB, f Format, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch f {
	case Gzip:
		w = gzip.NewWriter(&b)
	case Zstd:
		var err error
		if w, err = zstd.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	case LZ4:
		w = lz4.NewWriter(&b)
	case DovecotLZ4:
		return packDovecot(t, text)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packDovecot writes chunks of 64 KB, as Dovecot does.
func packDovecot(t testing.TB, text []byte) []byte {
	t.Helper()
	b := binary.BigEndian.AppendUint32([]byte("Dovecot-LZ4\x0d\x2a\x9b\xc5"), 64<<10)
	for len(text) > 0 {
		chunk := text[:min(len(text), 64<<10)]
		text = text[len(chunk):]
		// Octets that do not compress are a block of literals.
		block := make([]byte, lz4.CompressBlockBound(len(chunk)))
		n, err := lz4.CompressBlock(chunk, block, nil)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(n)), block[:n]...)
	}
	return b
}

func open(f Format, b []byte, limit int64) ([]byte, error) {
	m, err := Open(context.Background(), bytes.NewReader(b), f, limit, func() (vfs.File, error) { return vfs.Scratch(nil) })
	if err != nil {
		return nil, err
	}
	defer m.Close()
	out := make([]byte, m.Size())
	n, err := m.ReadAt(out, 0)
	if err == io.EOF {
		err = nil
	}
	if err == nil && n != len(out) {
		err = io.ErrUnexpectedEOF
	}
	return out, err
}

func TestFormats(t *testing.T) {
	t.Parallel()
	mail := read(t, "mail.txt")
	large := bytes.Repeat(mail, 10*Memory/len(mail))
	for _, tt := range []struct {
		name   string
		format Format
		packed []byte
		want   []byte
	}{
		{"plain", Plain, mail, mail},
		{"gzip", Gzip, pack(t, Gzip, mail), mail},
		{"zstd", Zstd, pack(t, Zstd, mail), mail},
		{"lz4", LZ4, pack(t, LZ4, mail), mail},
		{"Dovecot's lz4", DovecotLZ4, pack(t, DovecotLZ4, large[:200]), large[:200]},
		{"bzip2", Bzip2, read(t, "mail.bz2"), mail},
		{"xz", XZ, read(t, "mail.xz"), mail},
		{"xz with CRC32", XZ, read(t, "mail-crc32.xz"), mail},
		{"gzip of nothing", Gzip, pack(t, Gzip, nil), nil},
		{"gzip, large", Gzip, pack(t, Gzip, large), large},
		{"zstd, large", Zstd, pack(t, Zstd, large), large},
		{"lz4, large", LZ4, pack(t, LZ4, large), large},
		{"Dovecot's lz4, large", DovecotLZ4, pack(t, DovecotLZ4, large), large},
	} {
		if f := Detect(tt.packed); f != tt.format {
			t.Errorf("%s: detected as %d", tt.name, f)
		}
		if got, err := open(tt.format, tt.packed, 1<<30); err != nil || !bytes.Equal(got, tt.want) {
			t.Errorf("%s: %d octets, want %d, %v", tt.name, len(got), len(tt.want), err)
		}
		if tt.format == DovecotLZ4 || tt.format == Plain {
			continue // no files that can be joined
		}
		twice := bytes.Repeat(tt.packed, 2)
		if got, err := open(tt.format, twice, 1<<30); err != nil || !bytes.Equal(got, bytes.Repeat(tt.want, 2)) {
			t.Errorf("%s, two members: %d octets, want %d, %v", tt.name, len(got), 2*len(tt.want), err)
		}
	}
}

// TestDetect holds that no message is taken for a compressed one.
func TestDetect(t *testing.T) {
	t.Parallel()
	for _, head := range []string{
		"", "\x1f", "\x1f\x8b", "\x1f\x8b\x07", "BZh9", "BZh: yes\nSubject: x", "BZh9: a header", "BZh01AY&SY", "BZhx1AY&SY", "BZh91AY&S",
		"Dovecot-LZ4: x\n\n", "From alice", "Return-Path: <>", "\xfd7zX", "\n", "(\xb5/",
	} {
		if f := Detect([]byte(head)); f != Plain {
			t.Errorf("%q: %d", head, f)
		}
	}
}

// packedMails is one small mail in each format.
func packedMails(t testing.TB) map[Format][]byte {
	mail := read(t, "mail.txt")
	return map[Format][]byte{
		Gzip: pack(t, Gzip, mail), Zstd: pack(t, Zstd, mail), LZ4: pack(t, LZ4, mail),
		DovecotLZ4: pack(t, DovecotLZ4, bytes.Repeat(mail, 3)), Bzip2: read(t, "mail.bz2"), XZ: read(t, "mail-crc32.xz"),
	}
}

// step is 1 in the long form of the tests, where all octets have their turn.
func step() int {
	if os.Getenv("IMAPD_SOAK") != "" {
		return 1
	}
	return 3
}

// TestTruncated cuts files off after their octets.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for f, whole := range packedMails(t) {
		for n := 1; n < len(whole); n += step() {
			if f == DovecotLZ4 && n == 19 {
				continue // the end of a chunk is that of a shorter file
			}
			if got, err := open(f, whole[:n], 1<<20); !errors.Is(err, ErrDamaged) {
				t.Errorf("format %d, %d of %d octets: %q, %v", f, n, len(whole), got, err)
			}
		}
	}
}

// TestFlipped changes octets. Most formats have a checksum, so that what comes
// out is the mail or nothing.
func TestFlipped(t *testing.T) {
	t.Parallel()
	mail := read(t, "mail.txt")
	for f, whole := range packedMails(t) {
		for i := 0; i < len(whole); i += step() {
			for _, bits := range []byte{0x01, 0x80} {
				b := bytes.Clone(whole)
				b[i] ^= bits
				got, err := open(f, b, 1<<20)
				if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrTooBig) {
					t.Errorf("format %d, octet %d: %v", f, i, err)
				}
				if err == nil && f != DovecotLZ4 && !bytes.Equal(got, mail) {
					t.Errorf("format %d, octet %d: %q", f, i, got)
				}
			}
		}
	}
}

func TestBombs(t *testing.T) {
	t.Parallel()
	zeros := make([]byte, 4<<20)
	var window bytes.Buffer // a frame that wants 2 TB
	window.WriteString("\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00")
	// A block header that wants a dictionary of 4 GB, with its checksum.
	dict := bytes.Clone(read(t, "mail.xz"))
	dict[16] = 40
	size := (int(dict[12]) + 1) * 4
	binary.LittleEndian.PutUint32(dict[12+size-4:], crc32.ChecksumIEEE(dict[12:12+size-4]))
	for name, tt := range map[string]struct {
		format Format
		packed []byte
	}{
		"gzip": {Gzip, pack(t, Gzip, zeros)}, "zstd": {Zstd, pack(t, Zstd, zeros)}, "lz4": {LZ4, pack(t, LZ4, zeros)},
		"Dovecot's lz4": {DovecotLZ4, pack(t, DovecotLZ4, zeros)},
		"bzip2":         {Bzip2, read(t, "bomb.bz2")}, "window": {Zstd, window.Bytes()}, "dictionary": {XZ, dict},
	} {
		if got, err := open(tt.format, tt.packed, 1<<20); !errors.Is(err, ErrTooBig) {
			t.Errorf("%s: %d octets, %v", name, len(got), err)
		}
	}
}

// TestOtherErrors holds that what is not the fault of the file is not blamed on it.
func TestOtherErrors(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	large := pack(t, Gzip, []byte(strings.Repeat("x", 2*Memory)))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	scratch := func() (vfs.File, error) { return nil, failed }
	for name, open := range map[string]func() (*Message, error){
		"file": func() (*Message, error) {
			src := io.MultiReader(bytes.NewReader(large[:30]), iotest.ErrReader(failed))
			return Open(context.Background(), src, Gzip, 1<<30, func() (vfs.File, error) { return vfs.Scratch(nil) })
		},
		"scratch": func() (*Message, error) {
			return Open(context.Background(), bytes.NewReader(large), Gzip, 1<<30, scratch)
		},
		"context": func() (*Message, error) {
			m, err := Open(ctx, bytes.NewReader(large), Gzip, 1<<30, func() (vfs.File, error) { return vfs.Scratch(nil) })
			if errors.Is(err, context.Canceled) {
				err = failed
			}
			return m, err
		},
	} {
		if _, err := open(); !errors.Is(err, failed) || errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, b := range packedMails(f) {
		f.Add(b)
		f.Add(append(bytes.Clone(b), b...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := open(Detect(b), b, 1<<20)
		if err == nil && len(got) > 1<<20 {
			t.Errorf("%d octets", len(got))
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrTooBig) {
			t.Error(err)
		}
	})
}
