package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// A table holds what was measured.
type table struct{ rows []*row }

// A row is one piece of work: for each side, a figure a round and the processor
// time behind it, 0 where that was not measured.
type row struct {
	name    string
	unit    string
	size    float64 // see step
	figures [2][]float64
	used    [2][]float64
	differs string // what the servers did not agree on; "": they did
}

func (t *table) row(name string) *row {
	for _, r := range t.rows {
		if r.name == name {
			return r
		}
	}
	r := &row{name: name}
	t.rows = append(t.rows, r)
	return r
}

// note adds one figure of side k to a row of the step st.
func (t *table) note(name string, st step, k int, figure, used float64) {
	r := t.row(name)
	r.unit, r.size = st.unit, st.size
	if r.unit == "" {
		r.unit = "ms"
	}
	r.figures[k] = append(r.figures[k], figure)
	r.used[k] = append(r.used[k], used)
}

// differ notes that the servers did not answer alike.
func (t *table) differ(names []string, what string) {
	for _, n := range names {
		t.row(n).differs = what
	}
}

// verdict returns an error if any answers differed.
func (t *table) verdict() error {
	var all []error
	for _, r := range t.rows {
		if r.differs != "" {
			all = append(all, fmt.Errorf("%s: answers differ: %s", r.name, r.differs))
		}
	}
	return errors.Join(all...)
}

// write writes the table in Markdown, below the lines about.
func (t *table) write(out io.Writer, about []string) error {
	var b strings.Builder
	for _, line := range about {
		b.WriteString(line + "\n")
	}
	if len(t.rows) == 0 {
		_, err := io.WriteString(out, b.String())
		return err
	}
	b.WriteString("\n| work | imapd | Dovecot | ratio | CPU | CPU | ratio |\n|---|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range t.rows {
		b.WriteString(r.String() + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (r *row) String() string {
	if r.differs != "" {
		return fmt.Sprintf("| %s | answers differ, no figure | | | |", r.name)
	}
	if len(r.figures[0]) == 0 || len(r.figures[1]) == 0 {
		return fmt.Sprintf("| %s | not measured to the end | | | |", r.name)
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |", r.name, r.side(0), r.side(1),
		ratio(median(r.figures[0]), median(r.figures[1])), r.cpu(0), r.cpu(1), ratio(median(r.used[0]), median(r.used[1])))
}

// side writes the median, in brackets the least figure, and the rate where the
// work moves a size that is worth one.
func (r *row) side(k int) string {
	usual := median(r.figures[k])
	text := digits(usual)
	if len(r.figures[k]) > 1 {
		text += " (" + digits(slices.Min(r.figures[k])) + ")"
	}
	text += " " + r.unit
	if r.size > 0 && usual > 0 {
		text += fmt.Sprintf(", %.0f MB/s", r.size/usual*1000)
	}
	return text
}

// cpu writes the processor time of a side, in the unit of its figures.
func (r *row) cpu(k int) string {
	if used := median(r.used[k]); used > 0 {
		return digits(used)
	}
	return "-"
}

// ratio writes a/b, or a dash where one was not measured.
func ratio(a, b float64) string {
	if a <= 0 || b <= 0 {
		return "-"
	}
	if a/b < 0.095 {
		return fmt.Sprintf("%.4f", a/b)
	}
	return fmt.Sprintf("%.2f", a/b)
}

// digits writes x with three significant digits, all that are before the point.
func digits(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// median returns the middle of x, which is not empty, or the mean of the two in
// the middle.
func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// quantile returns the least of x that no more than the share 1-q of x exceeds.
func quantile(x []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[int(math.Ceil(q*float64(len(s))))-1]
}
