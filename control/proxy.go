package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol, versions 1 and 2, as haproxy's doc/proxy-protocol.txt has
// it: before anything else, and before TLS, a proxy says for whom it has
// connected.
//
// The header is read to its last octet and no further, since TLS or IMAP
// follow. Version 2 has a length. Version 1 is a line, and what comes behind it
// may have arrived with it; so the line is read octet by octet once it is known
// to be one, which are a hundred calls of the system for a connection. (Looking
// ahead with MSG_PEEK costs fewer, but works on sockets only, and a peek that
// finds half a line returns at once for as long as the other half is missing.)

const (
	proxyV1     = "PROXY "
	proxyV2     = "\r\n\r\n\x00\r\nQUIT\n"
	proxyLine   = 107  // octets of version 1, CRLF included
	proxyLength = 1024 // octets of version 2 behind its first 16
)

// A proxyHeader is what a proxy says of its client.
type proxyHeader struct {
	// local is true where the proxy speaks for itself: to see whether the
	// server lives.
	local bool
	// client is the address of the client, IPv4 as IPv4, or not valid where
	// the proxy does not know it or it has none.
	client netip.Addr
	// tls is true where the client has come to the proxy by TLS.
	tls bool
}

var (
	errNoProxyHeader = errors.New("no PROXY header")
	errProxyHeader   = errors.New("malformed PROXY header")
)

// readProxyHeader reads a header of either version from r. The error is io.EOF
// where there is nothing at all, errNoProxyHeader where the first octets are not
// those of a header, and then r has been read no further than needed to see it.
func readProxyHeader(r io.Reader) (proxyHeader, error) {
	// The shortest header, PROXY UNKNOWN, has 15 octets; 12 tell the version.
	b := make([]byte, len(proxyV2), proxyLine)
	for n := 0; n < len(b); {
		m, err := r.Read(b[n:])
		n += m
		if n > 0 && !begins(proxyV1, b[:n]) && !begins(proxyV2, b[:n]) {
			return proxyHeader{}, errNoProxyHeader
		}
		if err != nil && n < len(b) {
			if errors.Is(err, io.EOF) && n > 0 {
				err = io.ErrUnexpectedEOF
			}
			return proxyHeader{}, err
		}
	}
	if string(b) == proxyV2 {
		return readProxyV2(r)
	}
	for !bytes.HasSuffix(b, []byte("\r\n")) {
		n := len(b)
		if n == proxyLine {
			return proxyHeader{}, errProxyHeader
		}
		b = b[:n+1]
		if _, err := io.ReadFull(r, b[n:]); err != nil {
			return proxyHeader{}, unexpected(err)
		}
	}
	return parseProxyV1(string(b[:len(b)-2]))
}

// begins tells whether b may be the first octets of a header that starts with
// signature.
func begins(signature string, b []byte) bool {
	n := min(len(signature), len(b))
	return signature[:n] == string(b[:n])
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseProxyV1 parses the line of version 1, without its CRLF.
func parseProxyV1(line string) (h proxyHeader, err error) {
	words := strings.Split(line, " ")
	if words[1] == "UNKNOWN" { // whatever follows
		return h, nil
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return h, errProxyHeader
	}
	for _, text := range words[2:4] {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Is4() != (words[1] == "TCP4") || a.Zone() != "" {
			return h, fmt.Errorf("%w: address", errProxyHeader)
		}
	}
	for _, text := range words[4:] {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || strconv.FormatUint(n, 10) != text {
			return h, fmt.Errorf("%w: port", errProxyHeader)
		}
	}
	h.client = netip.MustParseAddr(words[2]).Unmap()
	return h, nil
}

// readProxyV2 reads a header of version 2 behind its signature.
func readProxyV2(r io.Reader) (proxyHeader, error) {
	fixed := make([]byte, 4) // version and command, family, length
	if _, err := io.ReadFull(r, fixed); err != nil {
		return proxyHeader{}, unexpected(err)
	}
	size := int(binary.BigEndian.Uint16(fixed[2:]))
	if fixed[0]>>4 != 2 || size > proxyLength {
		return proxyHeader{}, errProxyHeader
	}
	rest := make([]byte, size)
	if _, err := io.ReadFull(r, rest); err != nil {
		return proxyHeader{}, unexpected(err)
	}
	switch fixed[0] & 0xf {
	case 0: // LOCAL: the addresses are to be ignored
		return proxyHeader{local: true}, nil
	case 1: // PROXY
		return parseProxyV2(fixed, rest)
	}
	return proxyHeader{}, fmt.Errorf("%w: command", errProxyHeader)
}

// parseProxyV2 parses what follows the length of a header: two addresses with
// ports, then fields.
func parseProxyV2(fixed, rest []byte) (h proxyHeader, err error) {
	var address, both int // octets of one address, and of all before the fields
	switch fixed[1] {
	case 0x00: // unknown
	case 0x11: // TCP over IPv4
		address, both = 4, 12
	case 0x21: // TCP over IPv6
		address, both = 16, 36
	case 0x31: // a stream of unix sockets, which have names only
		both = 216
	default:
		return h, fmt.Errorf("%w: family", errProxyHeader)
	}
	if len(rest) < both {
		return h, fmt.Errorf("%w: too short", errProxyHeader)
	}
	if a, ok := netip.AddrFromSlice(rest[:address]); ok {
		h.client = a.Unmap()
	}
	if fixed[1] != 0 { // else what follows is whatever the proxy likes
		err = h.fields(fixed, rest, both)
	}
	return h, err
}

// The fields that are looked at, and the bit that says that the client used
// TLS.
const (
	proxyCRC       = 0x03 // PP2_TYPE_CRC32C
	proxySSL       = 0x20 // PP2_TYPE_SSL
	proxyClientSSL = 0x01 // PP2_CLIENT_SSL
)

// fields reads the fields that start at rest[at]: type, length and value.
func (h *proxyHeader) fields(fixed, rest []byte, at int) error {
	for at < len(rest) {
		if len(rest) < at+3 {
			return fmt.Errorf("%w: field", errProxyHeader)
		}
		kind, size := rest[at], int(binary.BigEndian.Uint16(rest[at+1:]))
		at += 3
		if len(rest) < at+size {
			return fmt.Errorf("%w: field", errProxyHeader)
		}
		value := rest[at : at+size]
		at += size
		switch kind {
		case proxySSL:
			if size < 5 {
				return fmt.Errorf("%w: field", errProxyHeader)
			}
			h.tls = value[0]&proxyClientSSL != 0
		case proxyCRC:
			if size != 4 || proxySum(fixed, rest, at-size) != binary.BigEndian.Uint32(value) {
				return fmt.Errorf("%w: checksum", errProxyHeader)
			}
		}
	}
	return nil
}

// proxySum is the CRC32c of the whole header with zeros in the place of the sum
// itself, at rest[at].
func proxySum(fixed, rest []byte, at int) uint32 {
	whole := append(append([]byte(proxyV2), fixed...), rest...)
	clear(whole[len(proxyV2)+len(fixed)+at:][:4])
	return crc32.Checksum(whole, crc32.MakeTable(crc32.Castagnoli))
}
