package imap

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRandomSessions has three sessions and another program work on one
// mailbox, each step drawn by lot. What a client knows from the responses alone
// must at every moment make sense, and at the end be what is there.
func TestRandomSessions(t *testing.T) {
	t.Parallel()
	w := newFuzzWorld(t)
	for seed := range uint64(randomRuns()) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := &randomRun{Rand: rand.New(rand.NewPCG(seed, 7)), t: t, dir: filepath.Join(w.mail, "u")}
			for i := range 3 {
				state := byte(fuzzUser | fuzzSelected)
				if r.IntN(3) == 0 {
					state |= fuzzRev2
				}
				if i == 0 {
					r.sessions = append(r.sessions, w.session(t, state))
				} else {
					r.sessions = append(r.sessions, w.join(t, state))
				}
			}
			for _, s := range r.sessions {
				r.command(s, "UID FETCH 1:* FLAGS")
			}
			for range 60 {
				if r.IntN(6) == 0 {
					r.outside()
				} else {
					r.command(r.sessions[r.IntN(3)], r.draw())
				}
			}
			r.compare(w.join(t, fuzzUser|fuzzSelected))
			for _, s := range r.sessions {
				s.end()
			}
			w.check(t)
		})
	}
}

// randomRuns is how many runs there are: ten, or hours of them.
func randomRuns() int {
	if os.Getenv("IMAPD_SOAK") != "" {
		return 20000
	}
	return 30
}

type randomRun struct {
	*rand.Rand
	t        *testing.T
	dir      string
	sessions []*fuzzSession
	log      []string
	new      int // messages delivered
}

// command sends a line; the answer may be OK or NO, and all else is checked by
// the session.
func (r *randomRun) command(s *fuzzSession, line string) {
	r.t.Helper()
	who := slices.Index(r.sessions, s)
	r.log = append(r.log, fmt.Sprint(who, " ", line))
	rest := &lines{}
	if head, text, ok := strings.Cut(line, "\n"); ok {
		line, rest = head, &lines{[]byte(text)}
	}
	if err := s.command(line, rest); err != nil {
		r.t.Fatalf("%v\n%s\nsession %d: %v", err, strings.Join(r.log, "\n"), who, s.out.String())
	}
	r.log = append(r.log, s.out.String())
	s.out.Reset()
}

// draw returns a command drawn by lot.
func (r *randomRun) draw() string {
	switch r.IntN(16) {
	case 0, 1:
		return "UID STORE " + r.set() + " " + r.sign() + "FLAGS (" + r.flags() + ")"
	case 2, 3:
		return "STORE " + r.set() + " " + r.sign() + "FLAGS (" + r.flags() + ")"
	case 4:
		return "UID STORE " + r.set() + " +FLAGS (\\Deleted)"
	case 5:
		return "EXPUNGE"
	case 6:
		return "UID EXPUNGE " + r.set()
	case 7:
		return "APPEND INBOX (" + r.flags() + ") {11+}\nSubject: x\n"
	case 8:
		return "UID COPY " + r.set() + " INBOX"
	case 9:
		return "UID MOVE " + r.set() + " Work"
	case 10:
		return "FETCH " + r.set() + " (UID FLAGS BODY[HEADER.FIELDS (Subject)])"
	case 11:
		return "UID FETCH " + r.set() + " (FLAGS ENVELOPE)"
	case 12:
		return "SEARCH " + []string{"UNSEEN", "ALL", "TEXT x", "DELETED", "RETURN (COUNT MIN) FLAGGED"}[r.IntN(5)]
	case 13:
		return "IDLE\nDONE\n"
	case 14:
		return "STATUS Work (MESSAGES UNSEEN)"
	}
	return "NOOP"
}

func (r *randomRun) set() string {
	switch n := 1 + r.IntN(20); r.IntN(4) {
	case 0:
		return fmt.Sprintf("%d:%d", n, 1+r.IntN(20))
	case 1:
		return fmt.Sprintf("%d,%d", n, 1+r.IntN(20))
	case 2:
		return fmt.Sprintf("%d:*", n)
	default:
		return fmt.Sprint(n)
	}
}

func (r *randomRun) sign() string { return []string{"", "+", "-"}[r.IntN(3)] }

func (r *randomRun) flags() string {
	all := []string{`\Seen`, `\Flagged`, `\Answered`, `\Deleted`, `\Draft`, "work", "$Forwarded", fmt.Sprint("k", r.IntN(5))}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return strings.Join(all[:r.IntN(4)], " ")
}

// outside does what another program does: deliver, rename, remove.
func (r *randomRun) outside() {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, "cur", "*"))
	what := r.IntN(3)
	if what == 0 || len(files) == 0 {
		r.new++
		name := fmt.Sprintf("17000%05d.M%dP1Q1.example", r.new, r.IntN(1000000))
		r.log = append(r.log, "deliver "+name)
		tmp := filepath.Join(r.dir, "tmp", name)
		err = errOf(err, os.WriteFile(tmp, []byte("Subject: new\n\ntext\n"), 0o600), os.Rename(tmp, filepath.Join(r.dir, "new", name)))
	} else {
		file := files[r.IntN(len(files))]
		base, _, _ := strings.Cut(file, ":2,")
		if what == 1 {
			r.log = append(r.log, "remove "+file)
			err = errOf(err, os.Remove(file))
		} else {
			to := base + ":2," + []string{"", "S", "FS", "RST", "T", "Sa"}[r.IntN(6)]
			r.log = append(r.log, "rename "+file+" "+to)
			err = errOf(err, os.Rename(file, to))
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// compare lets all sessions hear of everything, and holds what they know
// against what a new one sees.
func (r *randomRun) compare(fresh *fuzzSession) {
	r.t.Helper()
	r.sessions = append(r.sessions, fresh)
	for _, s := range r.sessions {
		r.command(s, "NOOP")
	}
	r.command(fresh, "UID FETCH 1:* FLAGS")
	want := fresh.mirror.Messages()
	for i, s := range r.sessions {
		got := s.mirror.Messages()
		for j := range got {
			m := &got[j]
			if j >= len(want) {
				break
			}
			m.Size = want[j].Size
			if m.UID == 0 {
				m.UID = want[j].UID
			}
			if m.Flags == "?" {
				m.Flags = want[j].Flags
			}
		}
		if !slices.Equal(got, want) {
			r.t.Errorf("session %d knows\n%v\nbut there is\n%v\n%s", i, got, want, strings.Join(r.log, "\n"))
		}
	}
}
