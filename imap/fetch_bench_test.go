package imap

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkFetch asks for items of 1,000 messages of 2.4 KB in one command.
func BenchmarkFetch(b *testing.B) {
	const n = 1000
	w := newWorld(b, nil)
	for i := range n {
		text := fmt.Sprintf("Received: from mx.example.org (mx.example.org [192.0.2.1])\n\tby mail.example.org with ESMTPS id %d\n"+
			"DKIM-Signature: v=1; a=rsa-sha256; d=example.org;\n\tb=%s\nFrom: Ada Berg <ada%d@example.org>\n"+
			"To: Jane <jane@example.org>, Bob <bob@example.org>\nSubject: Report number %d\nDate: Tue, 5 Mar 2024 10:00:00 +0000\n"+
			"Message-ID: <%d@example.org>\nMIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=b\n\n"+
			"--b\nContent-Type: text/plain; charset=utf-8\n\n%s\n--b\nContent-Type: text/html\n\n%s\n--b--\n",
			i, strings.Repeat("x", 200), i, i, i, strings.Repeat("Some words of text.\n", 40), strings.Repeat("<p>Some words of text.</p>\n", 35))
		w.deliver("jane", "", fmt.Sprintf("cur/%d.h:2,S", i), text)
	}
	for _, item := range []string{"FLAGS", "RFC822.SIZE", "ENVELOPE", "BODYSTRUCTURE", "BODY.PEEK[HEADER.FIELDS (From Subject)]", "BODY.PEEK[]"} {
		b.Run(item, func(b *testing.B) {
			c := w.login("jane")
			c.must(" OK", "EXAMINE INBOX")
			b.ReportAllocs()
			for b.Loop() {
				c.send("x FETCH 1:* " + item + "\r\n")
				for {
					line, err := c.r.ReadSlice('\n')
					if err != nil {
						b.Fatal(err)
					}
					if bytes.HasPrefix(line, []byte("x OK")) {
						break
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/message")
		})
	}
}
