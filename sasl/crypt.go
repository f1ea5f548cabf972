package sasl

import (
	"errors"
	"strconv"
	"strings"

	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/md5crypt"
	"github.com/go-crypt/crypt/algorithm/scrypt"
	"github.com/go-crypt/crypt/algorithm/shacrypt"
	"github.com/go-crypt/x/yescrypt"
)

// The hashes of crypt(3). go-crypt computes them, but takes more than crypt(3)
// does and then computes something else, or panics (argon2 with p=256), or
// takes all memory. So a form is checked here in full before go-crypt sees it.

// crypt64 is the alphabet of crypt(3); base64 without padding has "+" for ".".
const crypt64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// maxMemory is what one verification may use, in octets.
const maxMemory = 1 << 30

var errForm = errors.New("malformed hash")

// A form is a family of hashes of crypt(3), known by its prefix.
type form struct {
	prefix string
	check  func(f []string) error // the parts between "$", from the second on
	decode algorithm.DecodeFunc
	params int // how many parts, from the first, decide the cost
	// optional is set where the second of them may be left out.
	optional bool
}

func formOf(text string) *form {
	for i := range forms {
		if strings.HasPrefix(text, forms[i].prefix) {
			return &forms[i]
		}
	}
	return nil
}

var forms = []form{
	{"$1$", checkMD5, md5crypt.Decode, 1, false},
	{"$5$", checkSHA(43), shacrypt.Decode, 2, true},
	{"$6$", checkSHA(86), shacrypt.Decode, 2, true},
	{"$2a$", checkBcrypt, bcrypt.Decode, 2, false},
	{"$2b$", checkBcrypt, bcrypt.Decode, 2, false},
	{"$2y$", checkBcrypt, bcrypt.Decode, 2, false},
	{"$argon2i$", checkArgon2, argon2.Decode, 3, false},
	{"$argon2id$", checkArgon2, argon2.Decode, 3, false},
	{"$y$", checkYescrypt, scrypt.Decode, 2, false},
}

// checkCrypt returns the check of a scheme whose hashes start with prefix.
func checkCrypt(prefix string) func(string) error {
	return func(text string) error {
		f := formOf(text)
		if f == nil || !strings.HasPrefix(text, prefix) {
			return errors.New("hash of a kind that is unknown or not that of its scheme")
		}
		if len(text) > 1024 {
			return errForm
		}
		if err := f.check(strings.Split(text, "$")[2:]); err != nil {
			return err
		}
		if _, err := f.decode(text); err != nil {
			return errForm // not err: it shows parts of the hash
		}
		return nil
	}
}

func verifyCrypt(text, password string) bool {
	f := formOf(text)
	if f == nil {
		return false
	}
	d, err := f.decode(text)
	if err != nil {
		return false
	}
	return d.Match(password)
}

// costCrypt returns the parts of a hash up to its salt.
func costCrypt(text string) string {
	f := formOf(text)
	if f == nil {
		return ""
	}
	parts := strings.Split(text, "$")[1:]
	n := f.params
	if n > 1 && f.optional && !strings.HasPrefix(parts[1], "rounds=") {
		n = 1
	}
	return strings.Join(parts[:n], "$")
}

func checkMD5(f []string) error {
	if len(f) != 2 || len(f[0]) > 8 || len(f[1]) != 22 || !only(f[1], crypt64) {
		return errForm
	}
	return nil
}

// checkSHA returns the check of a hash whose last part has n digits.
func checkSHA(n int) func([]string) error {
	return func(f []string) error {
		if len(f) == 3 {
			rounds, ok := strings.CutPrefix(f[0], "rounds=")
			// crypt(3) raises fewer rounds to 1,000; no program
			// writes such a hash.
			if !ok || !between(rounds, 1000, 10_000_000) {
				return errForm
			}
			f = f[1:]
		}
		if len(f) != 2 || len(f[0]) > 16 || len(f[1]) != n || !only(f[1], crypt64) {
			return errForm
		}
		return nil
	}
}

func checkBcrypt(f []string) error {
	if len(f) != 2 || len(f[0]) != 2 || !between(f[0], 4, 20) || len(f[1]) != 53 || !only(f[1], crypt64) {
		return errForm
	}
	return nil
}

func checkArgon2(f []string) error {
	if len(f) != 4 || f[0] != "v=19" || !only(f[2]+f[3], crypt64+"+") || len(f[2]) < 11 || len(f[3]) < 16 {
		return errForm
	}
	p := strings.Split(f[1], ",")
	if len(p) != 3 {
		return errForm
	}
	for i, want := range []struct {
		name     string
		min, max int
	}{{"m=", 8, maxMemory >> 10}, {"t=", 1, 1000}, {"p=", 1, 255}} {
		n, ok := strings.CutPrefix(p[i], want.name)
		if !ok || !between(n, want.min, want.max) {
			return errForm
		}
	}
	return nil
}

func checkYescrypt(f []string) error {
	if len(f) != 3 || !only(f[0]+f[1]+f[2], crypt64) || len(f[0]) != 3 || len(f[1]) < 4 || len(f[1]) > 86 || len(f[2]) != 43 {
		return errForm
	}
	_, ln, r, err := yescrypt.DecodeSetting([]byte(f[0]))
	if err != nil || ln < 1 || ln > 30 || r < 1 || r > 1024 || int64(128*r)<<ln > maxMemory {
		return errForm
	}
	return nil
}

// only tells whether every octet of s is one of set.
func only(s, set string) bool {
	return strings.Trim(s, set) == ""
}

// between tells whether s is a decimal number from low to high.
func between(s string, low, high int) bool {
	n, err := strconv.ParseUint(s, 10, 31)
	return err == nil && int(n) >= low && int(n) <= high
}
