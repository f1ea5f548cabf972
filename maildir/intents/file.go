package intents

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"imapd/maildir/vfs"
)

// What follows reads and writes the file's content. Every line is sealed (package
// vfs) and has a text of one of these forms; id is the offset at which the
// intent begins in the file:
//
//	B <id> <kind> <validity> <target>    an intent begins
//	S <id> <dev> <ino> <n> <from> <to>   a step of it; from has n octets
//	E <id> <steps>                       it is complete
//	D <id>                               it is done, or was given up

// maxSteps bounds what is believed of one file.
const maxSteps = 4 << 20

func (i *Intent) append(b []byte, id int64) []byte {
	head := func(b []byte, kind byte) []byte {
		return strconv.AppendInt(append(b, kind, ' '), id, 10)
	}
	b = vfs.AppendSealed(b, func(b []byte) []byte {
		return fmt.Appendf(head(b, 'B'), " %c %d %s", i.Kind, i.Validity, i.Target)
	})
	for _, s := range i.Steps {
		b = vfs.AppendSealed(b, func(b []byte) []byte {
			return fmt.Appendf(head(b, 'S'), " %d %d %d %s %s", s.Dev, s.Ino, len(s.From), s.From, s.To)
		})
	}
	return vfs.AppendSealed(b, func(b []byte) []byte {
		return strconv.AppendInt(append(head(b, 'E'), ' '), int64(len(i.Steps)), 10)
	})
}

func appendDone(b []byte, id int64) []byte {
	return vfs.AppendSealed(b, func(b []byte) []byte { return strconv.AppendInt(append(b, "D "...), id, 10) })
}

// possible reports whether i can be written.
func (i *Intent) possible() bool {
	ok := plain(i.Target)
	for _, s := range i.Steps {
		ok = ok && plain(s.From) && plain(s.To)
	}
	return ok
}

func plain(s string) bool { return len(s) <= 4096 && !strings.ContainsAny(s, "\n\x00") }

// noted is an intent of the file.
type noted struct {
	Intent
	id    int64
	whole bool // its last line is there
}

// parse returns the intents of the file that are complete and not done, in its
// order. Lines that are not sealed, and those of intents without an end, mean
// nothing.
func parse(data []byte) []noted {
	open := map[int64]*noted{}
	steps := 0
	for line := range bytes.Lines(data) {
		text, ok := vfs.Unseal(bytes.TrimSuffix(line, []byte{'\n'}))
		if !ok || len(text) < 3 || text[1] != ' ' || steps > maxSteps {
			continue
		}
		number, rest, _ := strings.Cut(string(text[2:]), " ")
		id, err := strconv.ParseInt(number, 10, 64)
		if err != nil || id < 0 || id >= mutexAt {
			continue
		}
		n := open[id]
		switch {
		case text[0] == 'B':
			if n := begin(rest); n != nil {
				n.id = id
				open[id] = n
			}
		case n == nil:
		case text[0] == 'D':
			delete(open, id)
		case n.whole:
		case text[0] == 'S':
			if s, ok := step(rest); ok {
				n.Steps = append(n.Steps, s)
				steps++
			}
		case text[0] == 'E':
			n.whole = rest == strconv.Itoa(len(n.Steps))
		}
	}
	var list []noted
	for _, n := range open {
		if n.whole {
			list = append(list, *n)
		}
	}
	slices.SortFunc(list, func(a, b noted) int { return int(min(max(a.id-b.id, math.MinInt32), math.MaxInt32)) })
	return list
}

func begin(text string) *noted {
	kind, rest, _ := strings.Cut(text, " ")
	number, target, ok := strings.Cut(rest, " ")
	validity, err := strconv.ParseUint(number, 10, 32)
	if !ok || err != nil || len(kind) != 1 {
		return nil
	}
	return &noted{Intent: Intent{Kind: Kind(kind[0]), Validity: uint32(validity), Target: target}}
}

func step(text string) (s Step, ok bool) {
	var field [3]uint64
	for i := range field {
		var number string
		var err error
		number, text, ok = strings.Cut(text, " ")
		if field[i], err = strconv.ParseUint(number, 10, 64); !ok || err != nil {
			return s, false
		}
	}
	n := field[2]
	if n >= uint64(len(text)) || text[n] != ' ' {
		return s, false
	}
	return Step{Dev: field[0], Ino: field[1], From: text[:n], To: text[n+1:]}, true
}
