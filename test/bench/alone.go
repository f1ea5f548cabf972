package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"imapd/test/peer"
)

// sizes returns the numbers of messages of the folders that our server is alone
// on.
func (b *bench) sizes() []int {
	all := []int{max(1, b.messages/10), b.messages}
	if b.large {
		all = append(all, 10*b.messages)
	}
	if b.million {
		all = append(all, 100*b.messages)
	}
	return all
}

// An alone is our server on the folders of this part, each with a user.
type alone struct {
	*bench
	side
	plains map[int]*plain // by the number of messages
	stored bool           // the flag that store changes is set
}

func aloneUser(n int) string { return fmt.Sprintf("alone-%d", n) }

// alone measures what has no counterpart at Dovecot's, and writes two tables.
func (b *bench) alone(out io.Writer) error {
	process, flat := b.wants("process"), b.wants("flat")
	if !process && !flat {
		return nil
	}
	b.stop()
	var users []string
	for _, n := range b.sizes() {
		users = append(users, aloneUser(n))
	}
	root, err := os.MkdirTemp(b.dir, "alone")
	if err == nil {
		err = os.Chmod(root, 0o755)
	}
	if err != nil {
		return err
	}
	a := &alone{bench: b, side: side{root: root}, plains: map[int]*plain{}}
	for _, n := range b.sizes() {
		b.t.Logf("a folder of %d messages", n)
		if err := os.Mkdir(filepath.Join(root, aloneUser(n)), 0o755); err != nil {
			return err
		}
		if a.plains[n], err = newPlain(a.maildir(aloneUser(n)), n); err != nil {
			return err
		}
	}
	a.Server = peer.Imapd(b.t, root+"/%u/Maildir", peer.Options{Users: users})
	if process {
		err = a.processes(out)
	}
	if err == nil && flat {
		err = a.flat(out)
	}
	a.logOut()
	a.Stop()
	return err
}

// A visit is what one process cost that served one client.
type visit struct {
	took     float64 // ms that SELECT took
	used     float64 // ms of processor time for it
	whole    float64 // ms of processor time of the process
	resident float64 // MB after the SELECT
	most     float64 // MB at most
}

// visit has a new process serve one client that selects INBOX.
func (a *alone) visit(user string) (v visit, err error) {
	n, process, err := a.Inetd(a.t)
	if err != nil {
		return v, err
	}
	defer process.Wait()
	defer n.Close()
	c, err := greeted(n, &a.buf)
	if err != nil {
		return v, err
	}
	if err := c.login(user); err != nil {
		return v, err
	}
	pid := process.Process.Pid
	used, begin := processorTime(pid), time.Now()
	if _, err := c.do("SELECT INBOX"); err != nil {
		return v, err
	}
	v.took = milliseconds(time.Since(begin))
	v.used = milliseconds(processorTime(pid) - used)
	if v.resident, v.most, err = resident(pid); err != nil {
		return v, err
	}
	c.close()
	process.Wait()
	v.whole = milliseconds(process.ProcessState.UserTime() + process.ProcessState.SystemTime())
	return v, nil
}

// store has a new process change a flag of one message.
func (a *alone) store(p *plain) error {
	n, process, err := a.Inetd(a.t)
	if err != nil {
		return err
	}
	defer process.Wait()
	defer n.Close()
	c, err := greeted(n, &a.buf)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.login(aloneUser(p.n)); err != nil {
		return err
	}
	a.stored = !a.stored
	sign := "-"
	if a.stored {
		sign = "+"
	}
	for _, command := range []string{"SELECT INBOX", fmt.Sprintf(`STORE %d %sFLAGS.SILENT (\Draft)`, p.n/2, sign)} {
		if _, err := c.do(command); err != nil {
			return err
		}
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// resident returns how many megabytes a process has in memory, and had at most.
func resident(pid int) (now, most float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) == 3 && (f[0] == "VmRSS:" || f[0] == "VmHWM:") {
			kib, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				return 0, 0, err
			}
			if f[0] == "VmRSS:" {
				now = kib / 1024
			} else {
				most = kib / 1024
			}
		}
	}
	return now, most, nil
}

// processes measures new processes on folders of all sizes but the smallest, in
// all states that a folder can be in.
func (a *alone) processes(out io.Writer) error {
	fmt.Fprintf(out, "\n| SELECT by a process for one client, %d rounds, medians | ms | CPU | CPU of all its life | CPU / reading | resident, most (MB) |\n|---|--:|--:|--:|--:|--:|\n", a.rounds)
	for _, n := range a.sizes()[1:] {
		p := a.plains[n]
		for _, st := range []struct {
			name    string
			prepare func() error
		}{
			{"neither list nor index", func() error { return p.forget(false) }},
			{"no state but the list", func() error { return p.forget(true) }},
			{"quiet since the last", func() error { return nil }},
			{"after a foreign change of flags", func() error { return p.rename(0) }},
			{"after a delivery", p.deliver},
			{"after a STORE by the one before", func() error { return a.store(p) }},
		} {
			if err := a.visits(out, p, st.name, st.prepare); err != nil {
				return fmt.Errorf("%s: %w", st.name, err)
			}
		}
	}
	return a.greetings(out)
}

// greetings measures what a new process costs until it has greeted, beside a
// program that does nothing else and links what any server links.
func (a *alone) greetings(out io.Writer) error {
	runs := 10 * a.rounds
	a.t.Logf("process, greetings")
	plain, err := a.PlainConf()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n| exec to greeting, %d runs, medians | CPU | CPU of the floor | ratio |\n|---|--:|--:|--:|\n", runs)
	floor, ours := peer.Floor(a.t), peer.Binary(a.t)
	for _, start := range []struct{ name, conf string }{{"without TLS", plain}, {"with a certificate", a.ConfFile()}} {
		var least, used []float64
		for range runs {
			f, err := peer.Greeted("* OK ready", floor)
			if err != nil {
				return fmt.Errorf("floor: %w", err)
			}
			u, err := peer.Greeted("* OK [CAPABILITY IMAP4rev1 ", ours, "-C", start.conf)
			if err != nil {
				return fmt.Errorf("%s: %w", start.name, err)
			}
			least, used = append(least, milliseconds(f)), append(used, milliseconds(u))
		}
		_, err := fmt.Fprintf(out, "| exec to greeting %s | %s | %s | %s |\n", start.name, digits(median(used)), digits(median(least)), digits(median(used)/median(least)))
		if err != nil {
			return err
		}
	}
	return nil
}

// visits writes one row.
func (a *alone) visits(out io.Writer, p *plain, name string, prepare func() error) error {
	a.t.Logf("process, %d messages, %s", p.n, name)
	var took, used, whole, now, most, read []float64
	for range a.rounds {
		if err := p.withdraw(); err != nil {
			return err
		}
		if err := p.rest(); err != nil {
			return err
		}
		if name != "neither list nor index" && name != "no state but the list" {
			if _, err := a.visit(aloneUser(p.n)); err != nil { // who leaves the folder as he knows it
				return err
			}
		}
		if err := prepare(); err != nil {
			return err
		}
		v, err := a.visit(aloneUser(p.n))
		if err != nil {
			return err
		}
		once, err := reading(filepath.Join(p.dir, "cur"))
		if err != nil {
			return err
		}
		took, used, whole = append(took, v.took), append(used, v.used), append(whole, v.whole)
		now, most, read = append(now, v.resident), append(most, v.most), append(read, milliseconds(once))
	}
	_, err := fmt.Fprintf(out, "| %s, %d messages | %s | %s | %s | %s / %s | %s, %s |\n", name, p.n, digits(median(took)), digits(median(used)),
		digits(median(whole)), digits(median(used)), digits(median(read)), digits(median(now)), digits(median(most)))
	return err
}
