package config

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Default returns the configuration of a server without a file: every option
// at its default, no ConfigDirectory.
func Default() *Config {
	c := defaults()
	l := loader{c: c}
	l.finish()
	return c
}

func defaults() *Config {
	c := &Config{Service: "imap", where: map[string]place{}, SpecialUse: map[string]string{}}
	for _, table := range [][]option{options, limits} {
		for i := range table {
			if o := &table[i]; o.def != "" {
				_ = o.set(c, o.def) // a test sets each
			}
		}
	}
	return c
}

// Load reads the configuration file for service, the name of the service in
// cyrus.conf(5) or "imap"; its options "service_option" win over the general
// ones. It opens its files by open.
//
// The problems are all that is wrong with the file, in the order of its lines.
// The error is not nil if one of them is more than a warning, and then says
// the first; it matches fs.ErrNotExist, fs.ErrPermission and the like where
// the file could not be read at all, and then the Config is nil. Otherwise the
// Config has the defaults for what was wrong: good to be shown, not to run.
func Load(file, service string, open Opener) (*Config, []Problem, error) {
	r := &reader{open: open}
	if err := r.file(file); err != nil {
		p := Problem{File: file, Text: "configuration file: " + reason(err)}
		return nil, []Problem{p}, fmt.Errorf("configuration file: %w", err)
	}
	l := loader{c: defaults(), file: file, service: strings.ToLower(service), problems: r.problems}
	l.c.Service = service
	l.choose(r.entries)
	l.assign()
	l.finish()
	sortProblems(l.problems)
	return l.c, l.problems, verdict(l.problems)
}

// reason strips the path from err; the reader of a Problem has it already.
func reason(err error) string {
	if p, ok := err.(*fs.PathError); ok {
		return p.Err.Error()
	}
	return err.Error()
}

// verdict makes one error of the problems that are more than warnings.
func verdict(problems []Problem) error {
	var first Problem
	n := 0
	for _, p := range problems {
		if !p.Warning {
			if n == 0 {
				first = p
			}
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%v", first)
	}
	return fmt.Errorf("%v (and %d more)", first, n-1)
}

// sortProblems brings those of one file together, in the order of its lines;
// what was found first stays first.
func sortProblems(problems []Problem) {
	order := map[string]int{}
	for _, p := range problems {
		if _, ok := order[p.File]; !ok {
			order[p.File] = len(order)
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		if a.File != b.File {
			return order[a.File] - order[b.File]
		}
		return a.Line - b.Line
	})
}

// loader turns entries into a Config.
type loader struct {
	c        *Config
	file     string
	service  string
	dict     dictionary
	chosen   map[string]entry // by name, service and old names resolved
	problems []Problem
}

func (l *loader) fault(at place, format string, args ...any) {
	l.problems = append(l.problems, Problem{File: at.file, Line: at.line, Text: fmt.Sprintf(format, args...)})
}

func (l *loader) warn(at place, format string, args ...any) {
	l.problems = append(l.problems, Problem{File: at.file, Line: at.line, Text: fmt.Sprintf(format, args...), Warning: true})
}

// choose decides for every option which entry counts, and reports the names
// that do not.
func (l *loader) choose(entries []entry) {
	l.chosen = make(map[string]entry, len(entries))
	seen := make(map[string]place, len(entries))
	specific := map[string]bool{}
	var old []entry // under names that were changed since
	for _, e := range entries {
		if first, ok := seen[e.name]; ok {
			l.fault(e.place, "option %s is given twice, first at %v", e.name, first)
			continue
		}
		seen[e.name] = e.place
		service, name, k, ok := l.dict.split(e.name)
		switch {
		case !ok:
			l.unknown(e)
		case service != "" && service != l.service:
			l.c.unheard = append(l.c.unheard, e)
		case k.fate == "here" || k.fate == "xlist":
			if service != "" || !specific[name] {
				l.chosen[name] = e
				specific[name] = service != ""
			}
		case k.fate == "renamed":
			l.warn(e.place, "option %s is now called %s", name, k.arg)
			old = append(old, entry{e.place, k.arg, e.value})
		default:
			l.idle(e, name, k)
		}
	}
	for _, e := range old {
		service, name, k, _ := l.dict.split(e.name)
		_, have := l.chosen[name]
		switch {
		case service != "" && service != l.service:
			l.c.unheard = append(l.c.unheard, e)
		case k.fate != "here":
			l.idle(e, name, k)
		case !have || service != "" && !specific[name]:
			l.chosen[name] = e
			specific[name] = service != ""
		}
	}
}

// unknown reports a name that is no option, with what was probably meant.
func (l *loader) unknown(e entry) {
	prefix, name := "", e.name
	k, _ := l.dict.find(name)
	if rest, ok := strings.CutPrefix(name, l.service+"_"); ok && k.fate == "" {
		prefix, name = l.service+"_", rest
		k, _ = l.dict.find(name)
	}
	if k.fate == "foreign" && k.arg == "syslog_facility" {
		l.fault(e.place, "unknown option %s; the log goes to syslog, to the journal, or to standard error: see DIAGNOSTICS in imapd(8)", e.name)
	} else if k.fate == "foreign" {
		l.fault(e.place, "unknown option %s; see %s in imapd.conf(5)", e.name, prefix+k.arg)
	} else if near := l.dict.nearest(name); near != "" {
		l.fault(e.place, "unknown option %s; did you mean %s?", e.name, prefix+near)
	} else {
		l.fault(e.place, "unknown option %s", e.name)
	}
}

// idle notes an option that has no effect in this server.
func (l *loader) idle(e entry, name string, k known) {
	l.c.unheard = append(l.c.unheard, e)
	switch k.fate {
	case "ignored":
		l.warn(e.place, "option %s is ignored: it has no meaning for a Maildir server", name)
	case "later":
		l.warn(e.place, "option %s is ignored: not in this version", name)
	case "refuse":
		on, err := parseSwitch(e.value)
		if e.value == k.arg || err == nil && on && k.arg == "yes" {
			l.fault(e.place, "%s: %s is not in this version, and to run without it would be less safe", name, e.value)
			return
		}
	}
}

// assign sets the fields of the chosen entries.
func (l *loader) assign() {
	if e, ok := l.chosen["configdirectory"]; !ok {
		l.fault(place{file: l.file}, "option configdirectory is missing")
	} else if strings.HasPrefix(e.value, "/") && path.Clean(e.value) == "/" {
		l.fault(e.place, "configdirectory: must not be /")
		delete(l.chosen, "configdirectory")
	}
	for _, table := range [][]option{options, limits} {
		for i := range table { // configdirectory comes first
			o := &table[i]
			e, ok := l.chosen[o.name]
			if !ok {
				continue
			}
			value := e.value
			if o.kind == str || o.kind == pathname || o.kind == template {
				if rest, ok := strings.CutPrefix(value, "{configdirectory}"); ok {
					value = l.c.ConfigDirectory + rest
				}
			}
			l.c.where[o.name] = e.place
			if err := o.set(l.c, value); err != nil {
				l.fault(e.place, "%s: %q %v", o.name, e.value, err)
			}
		}
	}
	for name, e := range l.chosen {
		if use, ok := strings.CutPrefix(name, "xlist-"); ok {
			l.xlist(e, use)
		}
	}
}
