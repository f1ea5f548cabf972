package sasl

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"strings"
)

// A secret is a stored password, checked and ready to be compared.
type secret struct {
	scheme *scheme
	text   string // as the scheme wants it; for PLAIN the password itself
}

// A scheme is a way to store passwords. The names are Dovecot's.
type scheme struct {
	name string
	// decoded is set where the text is octets that the file holds as
	// base64 or hexadecimal digits; size is their number, 0 where a salt
	// follows.
	decoded bool
	size    int
	// check tells what is wrong with a stored text, in words that do not
	// show it. Only what passed is ever verified.
	check func(text string) error
	// verify compares in a time that does not depend on the password.
	verify func(text, password string) bool
	// cost returns what two texts have in common that take about the same
	// time; nil where all do.
	cost func(text string) string
}

// schemeOf finds a scheme by name; the argument is in upper case.
func schemeOf(name string) *scheme {
	switch name {
	case "CLEAR", "CLEARTEXT":
		name = "PLAIN"
	case "SHA":
		name = "SHA1"
	case "MD5":
		name = "MD5-CRYPT"
	}
	for i := range schemes {
		if schemes[i].name == name {
			return &schemes[i]
		}
	}
	return nil
}

// As in Dovecot, the names for crypt(3) other than MD5-CRYPT do not bind: the
// hash itself says what it is.
var schemes = []scheme{
	{name: "PLAIN", check: notEmpty, verify: equal},
	{name: "CRYPT", check: checkCrypt(""), verify: verifyCrypt, cost: costCrypt},
	{name: "MD5-CRYPT", check: checkCrypt("$1$"), verify: verifyCrypt, cost: costCrypt},
	{name: "SHA256-CRYPT", check: checkCrypt(""), verify: verifyCrypt, cost: costCrypt},
	{name: "SHA512-CRYPT", check: checkCrypt(""), verify: verifyCrypt, cost: costCrypt},
	{name: "BLF-CRYPT", check: checkCrypt(""), verify: verifyCrypt, cost: costCrypt},
	{name: "ARGON2I", check: checkCrypt("$argon2"), verify: verifyCrypt, cost: costCrypt},
	{name: "ARGON2ID", check: checkCrypt("$argon2"), verify: verifyCrypt, cost: costCrypt},
	digest("PLAIN-MD5", md5.New, md5.Size, false),
	digest("LDAP-MD5", md5.New, md5.Size, false),
	digest("SMD5", md5.New, md5.Size, true),
	digest("SHA1", sha1.New, sha1.Size, false),
	digest("SSHA", sha1.New, sha1.Size, true),
	digest("SHA256", sha256.New, sha256.Size, false),
	digest("SSHA256", sha256.New, sha256.Size, true),
	digest("SHA512", sha512.New, sha512.Size, false),
	digest("SSHA512", sha512.New, sha512.Size, true),
}

// digest makes the scheme that stores h(password), or with salted
// h(password + salt) + salt.
func digest(name string, h func() hash.Hash, size int, salted bool) scheme {
	s := scheme{name: name, decoded: true}
	if !salted {
		s.size = size
	}
	s.check = func(text string) error {
		if len(text) < size || !salted && len(text) > size || len(text) > size+256 {
			return errors.New("wrong length of the hash")
		}
		return nil
	}
	s.verify = func(text, password string) bool {
		d := h()
		d.Write([]byte(password))
		d.Write([]byte(text[size:]))
		return subtle.ConstantTimeCompare(d.Sum(nil), []byte(text[:size])) == 1
	}
	return s
}

func notEmpty(text string) error {
	if text == "" {
		return errors.New("empty password")
	}
	return nil
}

// equal hashes both first, so that not even the length shows in the time.
func equal(text, password string) bool {
	a, b := sha256.Sum256([]byte(text)), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// parseSecret reads the password field of a passwd-file: {SCHEME}text, or text
// for crypt(3). The error does not show any of the field that could be secret.
func parseSecret(field string) (secret, error) {
	name, text := "CRYPT", field
	if rest, ok := strings.CutPrefix(field, "{"); ok {
		var found bool
		if name, text, found = strings.Cut(rest, "}"); !found {
			return secret{}, errors.New("{SCHEME} without its end")
		}
	}
	name, encoding, _ := strings.Cut(strings.ToUpper(name), ".")
	if (name == "MD5" || name == "MD5-CRYPT") && !strings.HasPrefix(text, "$") {
		name = "PLAIN-MD5" // what the name once stood for
	}
	s := schemeOf(name)
	if s == nil {
		return secret{}, errors.New("password scheme that is unknown or not supported")
	}
	text, err := s.decode(text, encoding)
	if err != nil {
		return secret{}, err
	}
	if err := s.check(text); err != nil {
		return secret{}, err
	}
	return secret{s, text}, nil
}

// decode undoes the encoding that the file names, or that the scheme has
// without a name.
func (s *scheme) decode(text, encoding string) (string, error) {
	if encoding == "" && s.decoded {
		encoding = "B64"
		if s.size > 0 && len(text) == 2*s.size {
			encoding = "HEX"
		}
	}
	var b []byte
	var err error
	switch encoding {
	case "":
		return text, nil
	case "HEX":
		b, err = hex.DecodeString(text)
	case "B64", "BASE64":
		b, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	default:
		return "", errors.New("encoding of the password scheme that is unknown")
	}
	if err != nil {
		return "", errors.New("hash that does not decode")
	}
	return string(b), nil
}

func (s secret) verify(password string) bool { return s.scheme.verify(s.text, password) }

// cost names the group of secrets that take about as long to verify.
func (s secret) cost() string {
	if s.scheme.cost == nil {
		return s.scheme.name
	}
	return s.scheme.cost(s.text)
}
