package transcript

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"imapd/test/peer"
)

func TestRecord(t *testing.T) {
	files := strings.Fields(os.Getenv("REC"))
	h := NewPeerHost(peer.Dovecot)
	if os.Getenv("PEER") == "imapd" {
		h = NewPeerHost(peer.Imapd)
	}
	for _, f := range files {
		s, err := Load(f)
		if err != nil {
			fmt.Println(err)
			continue
		}
		setup, err := LoadSetup("../../imap/testdata", s.Setup)
		if err != nil {
			t.Fatal(err)
		}
		s.dir = "../../imap/testdata"
		h.Start(t, setup)
		a := h.Account(t, setup)
		p := &player{Script: s, setup: setup, account: a, form: Plain, clients: map[string]*client{}, vars: vars{"user": a.User, "password": a.Password, "plain": "xx"}}
		var out strings.Builder
		raw, _ := os.ReadFile(f)
		for _, l := range strings.Split(string(raw), "\n") {
			if headerPattern.MatchString(l) {
				fmt.Fprintln(&out, l)
			}
			if strings.HasPrefix(l, "1 ") || strings.HasPrefix(l, "2 ") || strings.HasPrefix(l, "! ") {
				break
			}
			if strings.HasPrefix(l, "#") {
				fmt.Fprintln(&out, l)
			}
		}
		for _, st := range s.Steps {
			if st.Kind == Outside {
				fmt.Fprintf(&out, "! %s\n", strings.Join(st.Args, " "))
				if err := p.step(&st); err != nil {
					fmt.Println(err)
				}
				continue
			}
			if st.Kind != Send {
				continue
			}
			src := strings.Split(string(raw), "\n")[st.At-1]
			_ = src
			c, err := p.client(st.Client)
			if err != nil {
				t.Fatal(err)
			}
			if !p.Login && !c.done2() {
				r, _ := c.response()
				fmt.Fprintf(&out, "%s S: %s\n", st.Client, show(r))
				seen[c] = true
			}
			fmt.Fprintf(&out, "%s C: %s\n", st.Client, strings.TrimPrefix(linesFrom(string(raw), st.At), st.Client+" C: "))
			if err := p.send(c, st.Lines[0]); err != nil {
				fmt.Fprintf(&out, "ERR %v\n", err)
				break
			}
			tag, _, _ := strings.Cut(st.Lines[0][0].Text, " ")
			var group []string
			for {
				r, err := c.response()
				if err != nil {
					fmt.Fprintf(&out, "ERR %v\n", err)
					break
				}
				cmd := strings.ToUpper(st.Lines[0][0].Text)
				if (strings.Contains(cmd, " SELECT ") || strings.Contains(cmd, " EXAMINE ") || strings.Contains(cmd, " LIST ") || strings.Contains(cmd, " LSUB ")) && strings.HasPrefix(r[0].Text, "* ") {
					group = append(group, show(r))
					continue
				}
				if len(group) > 0 {
					star := "*"
					if len(group) == 1 {
						star = ""
					}
					fmt.Fprintf(&out, "%s S%s: %s\n", st.Client, star, strings.Join(group, " | "))
					group = nil
				}
				fmt.Fprintf(&out, "%s S: %s\n", st.Client, show(r))
				if strings.HasPrefix(r[0].Text, "+") || strings.HasPrefix(r[0].Text, tag+" ") {
					break
				}
				if tag == "DONE" && strings.HasPrefix(r[0].Text, "b ") {
					break
				}
				if w := strings.Fields(r[0].Text); len(w) > 1 && w[0] != "*" && (w[1] == "OK" || w[1] == "NO" || w[1] == "BAD") {
					break
				}
			}
		}
		for _, c := range p.clients {
			c.Close()
		}
		fmt.Printf("=== %s\n%s", f, out.String())
		if os.Getenv("WRITE") != "" {
			os.WriteFile("../../imap/testdata/"+s.Name, []byte(out.String()), 0o644)
		}
	}
	_ = bufio.NewReader
}

var seen = map[*client]bool{}

func (c *client) done2() bool { return seen[c] }

func linesFrom(raw string, at int) string {
	lines := strings.Split(raw, "\n")[at-1:]
	out := lines[0]
	for _, l := range lines[1:] {
		if stepPattern.MatchString(l) || wordPattern.MatchString(l) || outsidePattern.MatchString(l) || strings.HasPrefix(l, "#") || l == "" {
			break
		}
		out += "\n" + l
	}
	return out
}

func show(l Line) string {
	text := l.String()
	if m := statusPattern.FindStringSubmatch(text); m != nil {
		if os.Getenv("TEXT") != "" {
			return text
		}
		return m[1] + m[2]
	}
	if strings.HasPrefix(text, "+") {
		return "+"
	}
	return text
}
