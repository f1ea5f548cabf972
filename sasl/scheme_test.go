package sasl

import (
	"os"
	"strings"
	"testing"
)

// vectors returns the lines of testdata/hashes.txt: passwords and their hashes
// as Dovecot and crypt(3) made them.
func vectors(t testing.TB) [][2]string {
	data, err := os.ReadFile("testdata/hashes.txt")
	if err != nil {
		t.Fatal(err)
	}
	var list [][2]string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSuffix(line, "\n"); line[0] != '#' {
			password, stored, ok := strings.Cut(line, "\t")
			if !ok {
				t.Fatalf("no tab in %q", line)
			}
			list = append(list, [2]string{password, stored})
		}
	}
	if len(list) < 140 {
		t.Fatalf("only %d vectors", len(list))
	}
	return list
}

func TestSchemes(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, v := range vectors(t) {
		password, stored := v[0], v[1]
		s, err := parseSecret(stored)
		if err != nil {
			t.Errorf("%s: %v", stored, err)
			continue
		}
		seen[s.scheme.name] = true
		if !s.verify(password) {
			t.Errorf("%s: %q is refused", stored, password)
		}
		wrong := "b" + password[1:]
		if password == "a" {
			wrong = "a "
		}
		if s.verify(wrong) {
			t.Errorf("%s: %q is taken", stored, wrong)
		}
	}
	for _, s := range schemes {
		if !seen[s.name] {
			t.Errorf("no vector for %s", s.name)
		}
	}
}

func TestSchemeFaults(t *testing.T) {
	t.Parallel()
	bcrypt := "$2y$05$v9HrMY27.y7gVZoZ.0Vb7.AjsFtepQCk5jrcJbUMhZMoVnkd4TRVS"
	for _, tt := range []struct{ stored, want string }{
		{"{", "without its end"},
		{"{PLAIN}", "empty"},
		{"{DES-CRYPT}.EoFycHuXuxEE", "unknown or not supported"},
		{".EoFycHuXuxEE", "of a kind that is unknown"},
		{"secret", "of a kind that is unknown"},
		{"{hunter2}hunter2", "unknown or not supported"},
		{"{MD5-CRYPT}" + bcrypt, "not that of its scheme"},
		{"{ARGON2ID}" + bcrypt, "not that of its scheme"},
		{"{BLF-CRYPT}" + bcrypt[:59], "malformed"},
		{"{BLF-CRYPT}" + strings.Replace(bcrypt, "$05", "$03", 1), "malformed"},
		{"{BLF-CRYPT}" + strings.Replace(bcrypt, "$05", "$31", 1), "malformed"},
		{"{BLF-CRYPT}" + strings.Replace(bcrypt, "Vb7", "V!7", 1), "malformed"},
		{"{SHA256}short", "does not decode"},
		{"{SHA256}c2hvcnQ=", "wrong length"},
		{"{SHA256.ROT13}c2hvcnQ=", "encoding"},
		{"{SHA256.HEX}zz", "does not decode"},
		{"{SHA512-CRYPT}$6$rounds=999999999$salt$" + strings.Repeat("a", 86), "malformed"},
		{"{SHA512-CRYPT}$6$rounds=10$salt$" + strings.Repeat("a", 86), "malformed"},
		{"{SHA512-CRYPT}$6$seventeenletters!$" + strings.Repeat("a", 86), "malformed"},
		{"{ARGON2ID}$argon2id$v=19$m=99999999,t=3,p=1$E9QNSnRZMSFu/ApF1wPlAQ$rO64ccx3Vu+NkI+v/va1Kf", "malformed"},
		{"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=256$E9QNSnRZMSFu/ApF1wPlAQ$rO64ccx3Vu+NkI+v/va1Kf", "malformed"},
		{"{ARGON2ID}$argon2id$v=19$m=65536,t=3$E9QNSnRZMSFu/ApF1wPlAQ$rO64ccx3Vu+NkI+v/va1Kf", "malformed"},
		{"$y$jzT$F5Jx5fExrKuPp53xLKQ..1$aEFV0VcEI5Jx.rzUhLbfRgipTKSbuNF0ldHPkDpnco3", "malformed"},
		{"$y$k75$F5Jx5fExrKuPp53xLKQ..1$aEFV0VcEI5Jx.rzUhLbfRgipTKSbuNF0ldHPkDpnco3", "malformed"},
	} {
		_, err := parseSecret(tt.stored)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.stored, err, tt.want)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows it: %v", tt.stored, err)
		}
	}
}

func TestCost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ stored, want string }{
		{"{PLAIN}x", "PLAIN"},
		{"$6$salt$" + strings.Repeat("a", 86), "6"},
		{"$6$rounds=1000$salt$" + strings.Repeat("a", 86), "6$rounds=1000"},
		{"$2y$05$v9HrMY27.y7gVZoZ.0Vb7.AjsFtepQCk5jrcJbUMhZMoVnkd4TRVS", "2y$05"},
		{"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$r1VYMPzBXOj7LZTM8rhRBg$MSYAtADCbF2ak3vWh5pF+OVoKfF7XkNPGCDsnmUAdSk", "argon2id$v=19$m=65536,t=3,p=1"},
		{"$1$a$aaaaaaaaaaaaaaaaaaaaaa", "1"},
	} {
		s, err := parseSecret(tt.stored)
		if err != nil {
			t.Errorf("%s: %v", tt.stored, err)
		} else if got := s.cost(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.stored, got, tt.want)
		}
	}
}

// FuzzSecret holds that what passes the check is what go-crypt takes: it
// decodes, and where hashing is cheap it runs without a panic.
func FuzzSecret(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v[1])
	}
	f.Add("$2y$04$")
	f.Fuzz(func(t *testing.T, stored string) {
		s, err := parseSecret(stored)
		if err != nil {
			return
		}
		s.cost()
		form := formOf(s.text)
		if s.scheme.cost == nil || form.prefix == "$1$" {
			s.verify("x")
			return
		}
		if _, err := form.decode(s.text); err != nil {
			t.Errorf("%s passed the check: %v", s.text, err)
		}
	})
}
