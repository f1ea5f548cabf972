package transcript

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Setup is a Maildir and a configuration that scripts start from, described
// by a file setups/NAME:
//
//	# comment
//	fs                                  folders lie in each other; else Maildir++
//	imapd: option: value                a line of our configuration
//	dovecot: option = value             and its counterpart
//	subscribed: INBOX Work              names without spaces
//	folder: Work 1700000002             a folder and its UIDVALIDITY
//	keywords: $Forwarded work           the folder's, letters a, b, ...
//	3 2024-02-29T12:00:00Z plain.eml FSa
//	new 2024-03-01T00:00:00Z plain.eml  a message that has no UID yet, in new/
//
// A message has its UID, INTERNALDATE, file in files/ and flag letters ("-" or
// nothing for none). Of a compressed file, NAME.eml.SUFFIX, the name has the sizes
// of NAME.eml. UIDNEXT follows the highest UID. Names are as on disk: modified
// UTF-7, with "/" as separator.
type Setup struct {
	Name           string
	FS             bool
	Imapd, Dovecot []string
	Subscribed     []string
	Folders        []Folder
	dir            string
}

// A Folder is one folder of a setup.
type Folder struct {
	Name     string
	Validity uint32
	Keywords []string
	Messages []Message
}

// A Message is one message of a folder. UID 0 lies in new/.
type Message struct {
	UID   int
	Date  time.Time
	File  string
	Flags string
}

// LoadSetup reads the setup of that name below dir, the directory of the
// scripts.
func LoadSetup(dir, name string) (*Setup, error) {
	text, err := os.ReadFile(filepath.Join(dir, "setups", name))
	if err != nil {
		return nil, err
	}
	s := &Setup{Name: name, dir: dir}
	for n, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		if err := s.line(line); err != nil {
			return nil, fmt.Errorf("setups/%s:%d: %w", name, n+1, err)
		}
	}
	return s, nil
}

func (s *Setup) line(line string) error {
	key, value, _ := strings.Cut(line, ": ")
	words := strings.Fields(value)
	switch {
	case line == "fs":
		s.FS = true
	case key == "imapd":
		s.Imapd = append(s.Imapd, value)
	case key == "dovecot":
		s.Dovecot = append(s.Dovecot, value)
	case key == "subscribed":
		s.Subscribed = words
	case key == "folder":
		cut := strings.LastIndexByte(value, ' ')
		validity, err := strconv.ParseUint(value[cut+1:], 10, 32)
		if err != nil || cut < 1 {
			return errors.New("a folder's name and UIDVALIDITY are wanted")
		}
		s.Folders = append(s.Folders, Folder{Name: value[:cut], Validity: uint32(validity)})
	case len(s.Folders) == 0:
		return errors.New("no folder yet")
	case key == "keywords":
		s.Folders[len(s.Folders)-1].Keywords = words
	default:
		return s.message(strings.Fields(line))
	}
	return nil
}

func (s *Setup) message(words []string) error {
	if len(words) < 3 || len(words) > 4 {
		return errors.New("a message has a UID, date, file and flags")
	}
	m := Message{File: words[2]}
	var err error
	if words[0] != "new" {
		m.UID, err = strconv.Atoi(words[0])
	}
	if err == nil {
		m.Date, err = time.Parse(time.RFC3339, words[1])
	}
	if len(words) == 4 && words[3] != "-" {
		m.Flags = words[3]
	}
	f := &s.Folders[len(s.Folders)-1]
	f.Messages = append(f.Messages, m)
	return err
}

// Build makes the Maildir at root, which must not exist.
func (s *Setup) Build(root string) error {
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return err
	}
	for _, f := range s.Folders {
		if err := s.buildFolder(root, f); err != nil {
			return fmt.Errorf("setup %s, folder %s: %w", s.Name, f.Name, err)
		}
	}
	var b strings.Builder
	b.WriteString("V\t2\n\n")
	for _, name := range s.Subscribed {
		b.WriteString(strings.ReplaceAll(name, "/", "\t") + "\n")
	}
	return os.WriteFile(filepath.Join(root, "subscriptions"), []byte(b.String()), 0o600)
}

// folderPath returns the directory of a folder.
func (s *Setup) folderPath(root, name string) string {
	switch {
	case name == "INBOX":
		return root
	case s.FS:
		return filepath.Join(root, name)
	default:
		return filepath.Join(root, "."+strings.ReplaceAll(name, "/", "."))
	}
}

func (s *Setup) buildFolder(root string, f Folder) error {
	dir := s.folderPath(root, f.Name)
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return err
		}
	}
	if !s.FS && dir != root {
		if err := os.WriteFile(filepath.Join(dir, "maildirfolder"), nil, 0o600); err != nil {
			return err
		}
	}
	var list strings.Builder
	next := 1
	for _, m := range f.Messages {
		next = max(next, m.UID+1)
	}
	fmt.Fprintf(&list, "3 V%d N%d G%032x\n", f.Validity, next, f.Validity)
	for i, m := range f.Messages {
		base, err := s.buildMessage(dir, i, m)
		if err != nil {
			return err
		}
		if m.UID > 0 {
			fmt.Fprintf(&list, "%d :%s\n", m.UID, base)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "dovecot-uidlist"), []byte(list.String()), 0o600); err != nil {
		return err
	}
	if len(f.Keywords) == 0 {
		return nil
	}
	var words strings.Builder
	for i, k := range f.Keywords {
		fmt.Fprintf(&words, "%d %s\n", i, k)
	}
	return os.WriteFile(filepath.Join(dir, "dovecot-keywords"), []byte(words.String()), 0o600)
}

// buildMessage writes the file of the i-th message of a folder and returns its
// base name.
func (s *Setup) buildMessage(dir string, i int, m Message) (base string, err error) {
	text, err := os.ReadFile(filepath.Join(s.dir, "files", m.File))
	if err != nil {
		return "", err
	}
	mail := text
	if plain, _, packed := strings.Cut(m.File, ".eml."); packed {
		if mail, err = os.ReadFile(filepath.Join(s.dir, "files", plain+".eml")); err != nil {
			return "", err
		}
	}
	base = fmt.Sprintf("%d.M%dP1Q%d.example,S=%d,W=%d", m.Date.Unix(), i, m.UID, len(mail), len(crlf(mail)))
	path := filepath.Join(dir, "cur", base+":2,"+m.Flags)
	if m.UID == 0 {
		path = filepath.Join(dir, "new", base)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", err
	}
	return base, os.Chtimes(path, m.Date, m.Date)
}

// outside does what another program does to the Maildir at root: see the
// package comment. The delivered file gets the time and the owner of root.
func (s *Setup) outside(root string, args []string, n int) error {
	if len(args) < 3 {
		return fmt.Errorf("%v: too few words", args)
	}
	dir := s.folderPath(root, args[1])
	if args[0] == "deliver" {
		return s.deliver(dir, args[2], n)
	}
	found, err := filepath.Glob(filepath.Join(dir, "cur", "*Q"+args[2]+".example*"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("%v: found %v, %v", args, found, err)
	}
	if args[0] == "remove" {
		return os.Remove(found[0])
	}
	flags := ""
	if len(args) > 3 {
		flags = args[3]
	}
	base, _, _ := strings.Cut(found[0], ":2,")
	return os.Rename(found[0], base+":2,"+flags)
}

func (s *Setup) deliver(dir, file string, n int) error {
	text, err := os.ReadFile(filepath.Join(s.dir, "files", file))
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d.M%dP2Q%d.example", time.Now().Unix(), n, 1000+n)
	tmp := filepath.Join(dir, "tmp", name)
	if err := os.WriteFile(tmp, bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), 0o600); err != nil {
		return err
	}
	if err := ownAs(tmp, dir); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "new", name))
}

// scripts lists the scripts below dir in order.
func scripts(dir string) ([]*Script, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no scripts in %s", dir)
	}
	slices.Sort(files)
	var all []*Script
	for _, f := range files {
		s, err := Load(f)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}
