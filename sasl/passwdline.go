package sasl

import (
	"errors"
	"os/user"
	"strconv"
	"strings"
)

// users are the contents of one passwd-file.
type users struct {
	byName     map[string]record
	usual      secret // one whose cost most users share; none if nobody has a password
	complaints []complaint
	stamp      stamp
}

// A record is one line of the file. secret.scheme is nil where there is no password
// in it; locked says that somebody has put ! or * in its place, broken that the
// whole line is of no use.
type record struct {
	secret   secret
	locked   bool
	broken   bool
	uid, gid int
	home     string
	extra    map[string]string
}

// user returns the record as the User name.
func (r record) user(name string) User {
	return User{Name: name, UID: r.uid, GID: r.gid, Home: r.home, Extra: r.extra}
}

// A complaint is a line that keeps its user from logging in, or is not what it
// seems. It shows nothing of the password field.
type complaint struct {
	line int
	user string
	text string
	kind fault
}

// A fault is what a complaint means for the user of the line, as the log says it.
type fault string

const (
	ignored fault = "passwd-file line ignored"
	useless fault = "passwd-file line lets nobody in"
	odd     fault = "passwd-file line is odd"
)

// rules are what the configuration says of the lines of a passwd-file: names are
// looked for in lower case, and users have processes, which need their uid and gid.
type rules struct{ lower, ids bool }

// maxComplaints bounds what one reading of a file logs.
const maxComplaints = 100

// parseUsers reads the whole of a passwd-file. It never fails: a line that is
// wrong is a complaint, and its user a record without password.
func parseUsers(data string, how rules) *users {
	t := &users{byName: make(map[string]record, strings.Count(data, "\n")+1)}
	ids := idCache{}
	n, shadow := 0, false
	data = strings.TrimPrefix(data, "\ufeff") // the mark that editors put before UTF-8
	for line := range strings.Lines(data) {
		n++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if strings.TrimLeft(line, " \t") == "" || line[0] == ':' || line[0] == '#' {
			continue
		}
		f := strings.Split(line, ":")
		name := f[0]
		r, err := parseRecord(f, ids, how.ids)
		_, twice := t.byName[name]
		switch text := useful(f, how.lower); {
		case twice:
			t.complain(n, name, ignored, "user is given twice; the first line counts")
			continue
		case err != nil:
			r = record{broken: true, uid: -1, gid: -1}
			t.complain(n, name, ignored, err.Error())
		case text != "":
			t.complain(n, name, useless, text)
		case likeShadow(f) && !shadow:
			shadow = true
			t.complain(n, name, odd, shadowText+"; said once of a file")
		}
		t.byName[strings.Clone(name)] = r
	}
	t.usual = mostUsual(t.byName)
	return t
}

func (t *users) complain(line int, name string, kind fault, text string) {
	if len(t.complaints) < maxComplaints {
		t.complaints = append(t.complaints, complaint{line, strings.Clone(name), text, kind})
	}
}

// useful returns why nobody can log in by a line without a fault, or "".
func useful(f []string, lower bool) string {
	name := f[0]
	switch low := strings.ToLower(name); {
	case name[0] == ' ' || name[0] == '\t':
		return "the line begins with a blank, which is part of the name"
	case len(f) == 1:
		return "there is no colon, and so no password: a line is user:{SCHEME}hash"
	case lower && low != name:
		return "username_tolower makes what clients send " + low + "; write it so"
	}
	return ""
}

const shadowText = "it looks like a line of /etc/shadow, whose third and fourth fields are no uid and gid, and which has no home"

// likeShadow tells whether the fields are those of shadow(5): numbers of days behind
// the password.
func likeShadow(f []string) bool {
	if len(f) != 9 || f[2] == "" || f[4] == "" {
		return false
	}
	for _, days := range f[2:] {
		if strings.Trim(days, "0123456789") != "" {
			return false
		}
	}
	return true
}

// mostUsual returns a secret of the largest group of equal cost; of equally
// large ones the first in the alphabet, so that it does not change by chance.
func mostUsual(byName map[string]record) secret {
	groups := map[string]int{}
	samples := map[string]secret{}
	for _, r := range byName {
		if r.secret.scheme != nil {
			c := r.secret.cost()
			groups[c]++
			if old, ok := samples[c]; !ok || r.secret.text < old.text {
				samples[c] = r.secret
			}
		}
	}
	best := ""
	for c, n := range groups {
		if best == "" || n > groups[best] || n == groups[best] && c < best {
			best = c
		}
	}
	return samples[best]
}

// parseRecord reads the fields of one line, f[0] being the name. A user of the
// system (a number or a name) may stand for uid and gid, as in Dovecot. Where they
// do not count, which needs says, what is wrong with them is no fault.
func parseRecord(f []string, ids idCache, needs bool) (record, error) {
	r := record{uid: -1, gid: -1}
	field := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	var err error
	// "!" and "*" are what passwd(1) and others lock an account with.
	pw := field(1)
	if r.locked = strings.HasPrefix(pw, "!") || strings.HasPrefix(pw, "*"); pw != "" && !r.locked {
		if r.secret, err = parseSecret(pw); err != nil {
			return r, err
		}
		r.secret.text = strings.Clone(r.secret.text)
	}
	if needs && likeShadow(f) {
		return r, errors.New(shadowText)
	}
	if r.uid, err = ids.uid(field(2)); err != nil && needs {
		return r, err
	}
	if r.gid, err = ids.gid(field(3)); err != nil && needs {
		return r, err
	}
	r.home = strings.Clone(field(5))
	if len(f) > 7 {
		extra := strings.Join(f[7:], ":") // the last field may hold colons
		// Of old the field was empty and one with the mail location
		// followed.
		if mail, old := strings.CutPrefix(extra, ":"); old {
			extra = "userdb_mail=" + mail
		}
		if err := r.extras(strings.Fields(extra), ids, needs); err != nil {
			return r, err
		}
	}
	if !strings.HasPrefix(r.home, "/") {
		r.home = "" // Dovecot takes such a one, for sites that do not use it
	}
	return r, nil
}

// extras reads the extra fields. Those that would let fewer in than a password
// does, or everybody, make the line useless rather than weaker.
func (r *record) extras(fields []string, ids idCache, needs bool) error {
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "allow_nets", "allow_real_nets", "nologin", "nopassword", "user", "username", "proxy", "proxy_maybe", "host":
			return errors.New("extra field " + key + " is not in this version")
		}
		name, ok := strings.CutPrefix(key, "userdb_")
		if !ok {
			continue
		}
		var err error
		switch name {
		case "uid":
			r.uid, err = ids.uid(value)
		case "gid":
			r.gid, err = ids.gid(value)
		case "home":
			r.home = strings.Clone(value)
		}
		if err != nil && needs {
			return err
		}
		if r.extra == nil {
			r.extra = map[string]string{}
		}
		r.extra[strings.Clone(name)] = strings.Clone(value)
	}
	return nil
}

// idCache remembers the numbers of the users and groups that a file names.
type idCache map[string]int

func (c idCache) uid(s string) (int, error) {
	return c.number("uid", s, func() (string, error) {
		u, err := user.Lookup(s)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

func (c idCache) gid(s string) (int, error) {
	return c.number("gid", s, func() (string, error) {
		g, err := user.LookupGroup(s)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

// number returns the number that s is or that lookup finds for it: -1 for an
// empty s. 0 is an error: mail is never root's.
func (c idCache) number(kind, s string, lookup func() (string, error)) (int, error) {
	if s == "" {
		return -1, nil
	}
	key := kind + s
	n, ok := c[key]
	if !ok {
		digits := s
		if s[0] < '0' || s[0] > '9' {
			var err error
			if digits, err = lookup(); err != nil {
				return -1, errors.New(kind + " is neither a number nor known to the system")
			}
		}
		id, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || id == 0 || id >= 1<<32-1 {
			return -1, errors.New(kind + " is not a number above 0")
		}
		n = int(id)
		c[key] = n
	}
	return n, nil
}
