package config

import (
	"fmt"
	"strings"
)

// A path of mail comes into imapd.conf from Dovecot's configuration more often
// than not, and there it is one word with what else Dovecot's mail_location knows:
// "maildir:/var/vmail/%d/%n:LAYOUT=fs:INDEX=/var/index/%d/%n". Taken as a path it
// names a directory that is not there, one is made, and to the user all mail is gone.

// locationKeys are the words that stand behind a path in mail_location, and what
// says such things here; "" where nothing does.
var locationKeys = []struct{ key, here string }{
	{"LAYOUT", "maildir_layout"}, {"INDEX", "indexdirectory"}, {"CONTROL", "maildir_control"}, {"UTF-8", "maildir_names: utf8"},
	{"INBOX", "maildir_inbox"}, {"DIRNAME", ""}, {"FULLDIRNAME", ""}, {"MAILBOXDIR", ""}, {"VOLATILEDIR", ""}, {"ALT", ""}, {"ALTNOCHECK", ""},
	{"INDEXPVT", ""}, {"INDEXCACHE", ""}, {"LISTINDEX", ""}, {"ITERINDEX", ""}, {"SUBSCRIPTIONS", ""}, {"BROKENCHAR", ""},
}

// checkLocation tells what to write where text is a mail_location.
func checkLocation(text string) error {
	path, marked := strings.CutPrefix(text, "maildir:")
	var hints []string
	for i := 0; i < len(path); i++ {
		if path[i] != ':' {
			continue
		}
		if _, _, ok := locationWord(path[i+1:]); !ok {
			continue // a colon of the path
		}
		for word := range strings.SplitSeq(path[i+1:], ":") {
			hints = append(hints, locationHint(path[:i], word))
		}
		path = path[:i]
	}
	if !marked && hints == nil {
		return nil
	}
	hints = append([]string{"the value here is " + path}, hints...)
	return fmt.Errorf("is Dovecot's mail_location: %s", strings.Join(hints, "; "))
}

// locationWord takes apart what text begins with, where that is a word of
// mail_location: one of locationKeys, or NO-NOSELECT and the like.
func locationWord(text string) (key, value string, ok bool) {
	text, _, _ = strings.Cut(text, ":")
	key, value, _ = strings.Cut(text, "=")
	if strings.HasPrefix(key, "NO-") {
		return key, value, true
	}
	for _, k := range locationKeys {
		if k.key == key {
			return key, value, true
		}
	}
	return "", "", false
}

// locationHint says what word is here that stands behind path.
func locationHint(path, word string) string {
	key, value, _ := locationWord(word)
	here := ""
	for _, k := range locationKeys {
		if k.key == key {
			here = k.here
		}
	}
	switch {
	case key == "LAYOUT" && !strings.EqualFold(value, "fs") && !strings.EqualFold(value, "maildir++"):
		return word + " is not in this version, see maildir_layout"
	case key == "LAYOUT":
		return word + " is maildir_layout: " + strings.ToLower(value)
	case key == "INDEX" && value == "MEMORY", here == "" || value == "" && key != "UTF-8":
		return word + " has no counterpart here"
	case key == "UTF-8":
		return word + " is " + here
	case key == "INBOX":
		return word + inboxHint(path, value)
	}
	return word + " is " + here + ": " + value
}

// inboxHint says what INBOX=inbox is here behind path.
func inboxHint(path, inbox string) string {
	path, inbox = strings.TrimRight(path, "/"), strings.TrimRight(inbox, "/")
	below, ok := strings.CutPrefix(inbox, path+"/")
	switch {
	case inbox == path:
		return " is how it is here"
	case ok && belowMaildir(below):
		return " is maildir_inbox: " + below
	}
	return " has no counterpart here, for it is not below " + path
}

// checkTilde tells that t has a "~" where it is only a letter: "/home/~/Maildir".
func checkTilde(t string) error {
	if strings.Contains(t, "/~") {
		return fmt.Errorf("has a ~ behind a /, where it is no home directory; ~ stands at the very start, as in ~/Maildir")
	}
	return nil
}

// Varies tells whether a template stands for another path for each user. %d alone
// does not.
func Varies(template string) bool {
	if strings.HasPrefix(template, "~") {
		return true
	}
	template = strings.ReplaceAll(template, "%%", "")
	return strings.Contains(template, "%u") || strings.Contains(template, "%n")
}
