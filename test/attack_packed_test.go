package test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
)

// gzipped compresses a message that begins as text does and goes on with n MiB of
// zeros.
func gzipped(t *testing.T, text string, n int) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	for zeros := make([]byte, 1<<20); n > 0 && err == nil; n-- {
		_, err = w.Write(zeros)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// packedRows are compressed messages that hold more than they should, or cannot be
// unpacked. They cost the client this one message, and no other.
func packedRows(t *testing.T) []rotten {
	const read = "a UID FETCH 1:* (FLAGS RFC822.SIZE BODY.PEEK[])\r\nb SEARCH TEXT real\r\nc UID FETCH 1 BODY.PEEK[TEXT]\r\n"
	const damaged, big = "a NO [CORRUPTION], b OK, c OK", "a NO [LIMIT], b OK, c OK"
	good := gzipped(t, "Subject: packed\n\nreal\n", 0)
	bomb := gzipped(t, "Subject: bomb\n\n", 80)
	rows := []rotten{
		{name: "gzip", make: file("cur/3.gz:2,", good), count: 2},
		{name: "gzip with the sizes of its mail", make: file("cur/3.gz,S=22,W=25:2,", good), count: 2},
		{name: "gzip, cut off", make: file("cur/3.gz:2,", good[:len(good)-9]), want: damaged, count: 2},
		{name: "gzip, cut off in its header", make: file("cur/3.gz:2,", good[:5]), want: damaged, count: 2},
		{name: "gzip with another checksum", make: file("cur/3.gz:2,", good[:len(good)-8]+"abcd"+good[len(good)-4:]), want: damaged, count: 2},
		{name: "gzip with something behind it", make: file("cur/3.gz:2,", good+"Subject: x\n\n"), want: damaged, count: 2},
		{name: "gzip bomb of 80 MB", make: file("cur/3.gz:2,", bomb), want: big, count: 2},
		{name: "gzip bomb with sizes", make: file("cur/3.gz,S=100,W=100:2,", bomb), want: big, count: 2},
		{name: "gzip of gzip", make: file("cur/3.gz:2,", gzipped(t, bomb, 0)), count: 2},
		{name: "zstd that wants 2 TB", make: file("cur/3.zst:2,", "\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00"), want: big, count: 2},
		{name: "xz of nothing", make: file("cur/3.xz:2,", "\xfd7zXZ\x00"+strings.Repeat("\x00", 100)), want: damaged, count: 2},
		{name: "lz4 of nothing", make: file("cur/3.lz4:2,", "\x04\x22\x4d\x18"+strings.Repeat("\xff", 100)), want: damaged, count: 2},
		{name: "Dovecot's lz4 in chunks of 4 GB", make: file("cur/3.lz4:2,", "Dovecot-LZ4\x0d\x2a\x9b\xc5\xff\xff\xff\xff\xff\xff\xff\xff"), want: damaged, count: 2},
		{name: "what only looks like bzip2", make: file("cur/3.txt:2,", "BZh9: x\n\ntext\n"), count: 2},
	}
	for i := range rows {
		rows[i].send = read
	}
	return rows
}

// TestAttackPacked has compressed messages that are made to hurt.
func TestAttackPacked(t *testing.T) {
	t.Parallel()
	attackFolders(t, packedRows(t))
}
