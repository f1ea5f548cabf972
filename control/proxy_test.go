package control

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"imapd/control/config"
)

// v2 returns a header of version 2.
func v2(command, family byte, parts ...string) string {
	rest := strings.Join(parts, "")
	return proxyV2 + string(binary.BigEndian.AppendUint16([]byte{command, family}, uint16(len(rest)))) + rest
}

// field returns a field of version 2.
func field(kind byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))) + value
}

const (
	v4Addrs = "\xc0\x00\x02\x07\x7f\x00\x00\x01\x10\x00\x00\x8f"
	v6Addrs = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + "\x10\x00\x00\x8f"
)

// summed returns a header of version 2 with the checksum that it should have,
// or one that is wrong by change.
func summed(change byte) string {
	h := []byte(v2(0x21, 0x11, v4Addrs, field(proxyCRC, "\x00\x00\x00\x00"), field(0x04, "more")))
	sum := crc32.Checksum(h, crc32.MakeTable(crc32.Castagnoli))
	at := bytes.Index(h, []byte(field(proxyCRC, "\x00\x00\x00\x00"))) + 3
	binary.BigEndian.PutUint32(h[at:], sum)
	h[at] ^= change
	return string(h)
}

// Headers that are read, and what they say.
var goodProxy = []struct {
	name, text string
	want       proxyHeader
}{
	{"TCP4", "PROXY TCP4 192.0.2.7 127.0.0.1 4096 143\r\n", proxyHeader{client: netip.MustParseAddr("192.0.2.7")}},
	{"TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n", proxyHeader{client: netip.MustParseAddr("2001:db8::1")}},
	{"IPv4 in IPv6", "PROXY TCP6 ::ffff:192.0.2.7 ::1 4096 143\r\n", proxyHeader{client: netip.MustParseAddr("192.0.2.7")}},
	{"longest", "PROXY TCP6 " + longest6 + " " + longest6 + " 65535 65535\r\n", proxyHeader{client: netip.MustParseAddr(longest6)}},
	{"unknown", "PROXY UNKNOWN\r\n", proxyHeader{}},
	{"unknown with more", "PROXY UNKNOWN " + longest6 + " " + longest6 + " 65535 65535\r\n", proxyHeader{}},
	{"2 TCP4", v2(0x21, 0x11, v4Addrs), proxyHeader{client: netip.MustParseAddr("192.0.2.7")}},
	{"2 TCP6", v2(0x21, 0x21, v6Addrs), proxyHeader{client: netip.MustParseAddr("2001:db8::1")}},
	{"2 unix", v2(0x21, 0x31, strings.Repeat("x", 216)), proxyHeader{}},
	{"2 unknown", v2(0x21, 0x00), proxyHeader{}},
	{"2 unknown with anything", v2(0x21, 0x00, "anything"), proxyHeader{}},
	{"2 local", v2(0x20, 0x00), proxyHeader{local: true}},
	{"2 local with addresses", v2(0x20, 0x11, v4Addrs, "x"), proxyHeader{local: true}},
	{"2 TLS", v2(0x21, 0x11, v4Addrs, field(0x01, "imap"), field(proxySSL, "\x01\x00\x00\x00\x00"+field(0x21, "TLSv1.3")), field(0x04, "")), proxyHeader{client: netip.MustParseAddr("192.0.2.7"), tls: true}},
	{"2 no TLS", v2(0x21, 0x11, v4Addrs, field(proxySSL, "\x06\x00\x00\x00\x00")), proxyHeader{client: netip.MustParseAddr("192.0.2.7")}},
	{"2 sum", summed(0), proxyHeader{client: netip.MustParseAddr("192.0.2.7")}},
	{"2 large", v2(0x21, 0x11, v4Addrs, field(0xe0, strings.Repeat("x", proxyLength-15))), proxyHeader{client: netip.MustParseAddr("192.0.2.7")}},
}

const longest6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"

// What is no header, or a broken one.
var badProxy = map[string]string{
	"IMAP":               "a1 LOGIN jane secret\r\n",
	"HTTP":               "PUT / HTTP/1.0\r\n\r\n",
	"TLS":                "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	"another family":     "PROXY UDP4 192.0.2.7 127.0.0.1 1 2\r\n",
	"no address":         "PROXY TCP4\r\n           ",
	"lower case":         "proxy TCP4 192.0.2.7 127.0.0.1 1 2\r\n",
	"LF":                 "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\n" + strings.Repeat(" ", 107),
	"two blanks":         "PROXY TCP4  192.0.2.7 127.0.0.1 1 2\r\n",
	"a word too much":    "PROXY TCP4 192.0.2.7 127.0.0.1 1 2 3\r\n",
	"leading zero":       "PROXY TCP4 192.0.2.7 127.0.0.1 01 2\r\n",
	"sign":               "PROXY TCP4 192.0.2.7 127.0.0.1 +1 2\r\n",
	"port":               "PROXY TCP4 192.0.2.7 127.0.0.1 1 65536\r\n",
	"octal address":      "PROXY TCP4 192.0.2.07 127.0.0.1 1 2\r\n",
	"IPv6 as TCP4":       "PROXY TCP4 ::1 ::1 1 2\r\n",
	"IPv4 as TCP6":       "PROXY TCP6 192.0.2.7 127.0.0.1 1 2\r\n",
	"zone":               "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
	"name":               "PROXY TCP4 localhost 127.0.0.1 1 2\r\n",
	"too long":           "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n",
	"2 version":          proxyV2 + "\x31\x11\x00\x0c" + v4Addrs,
	"2 command":          v2(0x22, 0x11, v4Addrs),
	"2 datagrams":        v2(0x21, 0x12, v4Addrs),
	"2 family":           v2(0x21, 0x41, v4Addrs),
	"2 short":            v2(0x21, 0x11, v4Addrs[1:]),
	"2 short TCP6":       v2(0x21, 0x21, v6Addrs[1:]),
	"2 too long":         v2(0x20, 0x00, strings.Repeat("x", proxyLength+1)),
	"2 longest":          proxyV2 + "\x20\x00\xff\xff",
	"2 half a field":     v2(0x21, 0x11, v4Addrs, "\x04\x00"),
	"2 field too long":   v2(0x21, 0x11, v4Addrs, "\x04\x00\x01"),
	"2 TLS field short":  v2(0x21, 0x11, v4Addrs, field(proxySSL, "\x01")),
	"2 wrong sum":        summed(1),
	"2 sum of bad size":  v2(0x21, 0x11, v4Addrs, field(proxyCRC, "\x00")),
	"2 signature broken": strings.Replace(v2(0x20, 0x00), "QUIT", "QUIX", 1),
}

// A header is read to its last octet, however it arrives, and no further.
func TestReadProxyHeader(t *testing.T) {
	t.Parallel()
	for _, tt := range goodProxy {
		for _, follows := range []string{"", "\x16\x03\x01", "\r\n", "PROXY "} {
			whole := strings.NewReader(tt.text + follows)
			got, err := readProxyHeader(whole)
			if left := whole.Len(); err != nil || got != tt.want || left != len(follows) {
				t.Errorf("%s: got %+v, %v, %d octets left of %d", tt.name, got, err, left, len(follows))
			}
			if got, err := readProxyHeader(iotest.OneByteReader(strings.NewReader(tt.text + follows))); err != nil || got != tt.want {
				t.Errorf("%s, octet by octet: got %+v, %v", tt.name, got, err)
			}
		}
		for n := range tt.text {
			_, err := readProxyHeader(strings.NewReader(tt.text[:n]))
			if n == 0 && err != io.EOF || n > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, %d octets of it: %v", tt.name, n, err)
			}
		}
	}
	for name, text := range badProxy {
		r := strings.NewReader(text)
		if got, err := readProxyHeader(r); err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// FuzzProxyHeader holds that nothing makes the parser read on, and that what it
// makes of a header does not depend on how that arrives.
func FuzzProxyHeader(f *testing.F) {
	for _, tt := range goodProxy {
		f.Add([]byte(tt.text), "x")
	}
	for _, text := range badProxy {
		f.Add([]byte(text), "")
	}
	f.Fuzz(func(t *testing.T, text []byte, follows string) {
		r := bytes.NewReader(text)
		got, err := readProxyHeader(r)
		read := len(text) - r.Len()
		if read > 16+proxyLength {
			t.Fatalf("%d octets read", read)
		}
		again, err2 := readProxyHeader(iotest.OneByteReader(bytes.NewReader(text)))
		if got != again || (err == nil) != (err2 == nil) {
			t.Fatalf("got %+v, %v, then %+v, %v", got, err, again, err2)
		}
		if err != nil {
			return
		}
		if got.client.IsValid() && (got.client.Is4In6() || got.client.Zone() != "") {
			t.Fatalf("client %v", got.client)
		}
		more := strings.NewReader(string(text[:read]) + follows)
		if again, err := readProxyHeader(more); err != nil || again != got || more.Len() != len(follows) {
			t.Fatalf("with more behind it: %+v, %v, %d octets left", again, err, more.Len())
		}
		if _, err := readProxyHeader(bytes.NewReader(text[:read-1])); err == nil {
			t.Fatal("its last octet is not needed")
		}
	})
}

// From a trusted proxy the client is who the header says.
func TestProxy(t *testing.T) {
	t.Parallel()
	conf := loadConfig(t, "listen: imap://127.0.0.1:1", "haproxy_trusted_networks: 192.0.2.0/24 127.0.0.1", "limit_preauth_per_address: 1")
	l, _ := serve(t, conf, &Options{Proxy: true}, nil)
	addr := l.Addrs()[0]
	one := dial(t, addr)
	one.send("PROXY TCP4 198.51.100.7 127.0.0.1 1 2\r\nping\n")
	one.want(`["[198.51.100.7]",false,false]`)
	one.want("ping")
	for text, want := range map[string]string{
		"PROXY TCP4 198.51.100.7 127.0.0.1 1 2\r\n":                      "refused: too many connections from one address",
		v2(0x21, 0x21, v6Addrs):                                          `["[2001:db8::1]",false,false]`,
		v2(0x21, 0x11, v4Addrs, field(proxySSL, "\x01\x00\x00\x00\x00")): `["[192.0.2.7]",false,true]`,
		v2(0x20, 0x00):      hello,
		"PROXY UNKNOWN\r\n": hello,
		"PROXY TCP4 198.51.100.8 localhost 1 2\r\n":                             "EOF",
		"a1 LOGIN jane secret\r\n":                                              "EOF",
		"PROXY TCP4 198.51.100.9 127.0.0.1 1 2\r\nPROXY TCP4 1.1.1.1 1.1.1.1\n": `["[198.51.100.9]",false,false]`,
	} {
		c := dial(t, addr)
		c.send(text)
		if got := c.line(); got != want && !(want == "EOF" && strings.Contains(got, "reset by peer")) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	// Nobody in particular may come in any number.
	for range 3 {
		c := dial(t, addr)
		c.send(v2(0x20, 0x00))
		c.want(hello)
	}
}

// A peer that is not trusted is served as it comes, or not at all.
func TestNoProxy(t *testing.T) {
	t.Parallel()
	const header = "PROXY TCP4 198.51.100.7 127.0.0.1 1 2\r\n"
	conf := loadConfig(t, "listen: imap://127.0.0.1:1", "haproxy_trusted_networks: 192.0.2.0/24")
	l, _ := serve(t, conf, &Options{}, nil)
	c := dial(t, l.Addrs()[0])
	c.send(header)
	c.want(hello)
	c.want(strings.TrimSuffix(header, "\n"))

	l, _ = serve(t, conf, &Options{Proxy: true}, nil)
	c = dial(t, l.Addrs()[0])
	c.send(header)
	if got := c.line(); got != "EOF" && !strings.Contains(got, "reset by peer") {
		t.Errorf("with -H: got %q", got)
	}
}

// The header comes before TLS, in one piece with it or not.
func TestProxyTLS(t *testing.T) {
	t.Parallel()
	conf, certs, _ := tlsConfig(t, "haproxy_trusted_networks: 127.0.0.1")
	l, _ := serve(t, conf, &Options{TLS: true}, certs)
	c := dial(t, l.Addrs()[0])
	c.send("PROXY TCP4 198.51.100.7 127.0.0.1 1 2\r\n")
	secure := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	b := make([]byte, 100)
	n, err := secure.Read(b)
	if got := string(b[:n]); err != nil || got != `["[198.51.100.7]",true,true]`+"\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

// A proxy has three seconds for its header. What has said nothing by its end is
// not logged.
func TestProxyTime(t *testing.T) {
	t.Parallel()
	for sent, logged := range map[string]bool{"PROXY TCP4 192.0.2.7 ": true, "": false} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			var log strings.Builder
			a := admission{conf: config.Default(), log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: LevelNotice}))}
			start := time.Now()
			go func() {
				io.WriteString(ours, sent)
				if !logged {
					ours.Close()
				}
			}()
			ok, err := a.header(t.Context(), &Conn{Conn: theirs, Host: "[192.0.2.1]"})
			if took := time.Since(start); ok || err != nil || logged && took != proxyTime {
				t.Errorf("%q: %v, %v after %v", sent, ok, err, took)
			}
			if got := log.String(); (got != "") != logged {
				t.Errorf("%q: logged %q", sent, got)
			}
		})
	}
}

// A from is the server's end of a connection that comes from addr.
type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// A connection is as private, and as strong, as what its client has come by: a
// proxy's own socket says nothing of that.
func TestLayer(t *testing.T) {
	t.Parallel()
	tcp, unix := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UnixAddr{Name: "@", Net: "unix"}
	const (
		plain   = "PROXY TCP4 198.51.100.7 127.0.0.1 1 2\r\n"
		unknown = "PROXY UNKNOWN\r\n"
	)
	secure, local := v2(0x21, 0x11, v4Addrs, field(proxySSL, "\x01\x00\x00\x00\x00")), v2(0x20, 0x00)
	conf := loadConfig(t, "listen: imap://127.0.0.1:1", "haproxy_trusted_networks: 127.0.0.1")
	for _, tt := range []struct {
		name    string
		from    net.Addr
		header  string // none without -H
		ssf     int    // -p
		private bool
		strong  int
	}{
		{"TCP", tcp, plain, 0, false, 0},
		{"TCP, TLS", tcp, secure, 0, true, 0},
		{"TCP, look", tcp, local, 0, false, 0},
		{"TCP, -p 1", tcp, plain, 1, false, 1},
		{"TCP, -p 56", tcp, plain, 56, true, 56},
		{"unix, no proxy", unix, "", 0, true, 256},
		{"unix, no proxy, -p 56", unix, "", 56, true, 256},
		{"unix", unix, plain, 0, false, 0},
		{"unix, nobody in particular", unix, unknown, 0, false, 0},
		{"unix, TLS", unix, secure, 0, true, 0},
		{"unix, look", unix, local, 0, true, 256},
		{"unix, -p 56", unix, plain, 56, true, 56},
	} {
		ours, theirs := net.Pipe()
		defer ours.Close()
		go io.WriteString(ours, tt.header)
		c := newConn(from{theirs, tt.from})
		a := newAdmission(conf, &Options{Proxy: tt.header != "", SSF: tt.ssf}, nil, discard)
		if ok, err := a.admit(t.Context(), c, false); !ok || err != nil || c.Private != tt.private || c.SSF != tt.strong {
			t.Errorf("%s: %v, %v, private %v, SSF %d; want %v, %d", tt.name, ok, err, c.Private, c.SSF, tt.private, tt.strong)
		}
	}
}

// Who is trusted says once for whom it comes.
func TestForward(t *testing.T) {
	t.Parallel()
	conf := loadConfig(t, "listen: imap://127.0.0.1:1", "login_trusted_networks: 192.0.2.0/24, 127.0.0.1", "limit_preauth_per_address: 1")
	a := newAdmission(conf, &Options{}, nil, discard)
	g := newGate(conf.Limits)
	come := func(from string) *Conn {
		c, err := g.enter(a.counted(&net.TCPAddr{IP: net.ParseIP(from)}), func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		return &Conn{addr: netip.MustParseAddr(from), moved: c.move}
	}
	webmail, again, other := come("192.0.2.1"), come("192.0.2.1"), come("198.51.100.1")
	for _, c := range []*Conn{webmail, again, other} {
		if ok, err := a.admit(t.Context(), c, false); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	client := netip.MustParseAddr("203.0.113.5")
	if ok, err := other.Forward(client); ok || err != nil || other.Private {
		t.Errorf("not trusted: %v, %v, private %v", ok, err, other.Private)
	}
	if ok, err := webmail.Forward(client); !ok || err != nil || webmail.Host != "[203.0.113.5]" || !webmail.Private {
		t.Errorf("trusted: %v, %v, %+v", ok, err, webmail)
	}
	if ok, err := webmail.Forward(netip.MustParseAddr("203.0.113.6")); ok || err != nil || webmail.Host != "[203.0.113.5]" {
		t.Errorf("twice: %v, %v, %+v", ok, err, webmail)
	}
	if _, err := again.Forward(client); err != TooManyFromAddress {
		t.Errorf("one too many: %v", err)
	}
}
