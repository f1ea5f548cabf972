package maildir

import (
	"fmt"
	"os"
	"testing"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"

	"imapd/maildir/uidlist"
	"imapd/maildir/vfs"
)

// deaf has the kernel tell nothing more, so that a test can say what it tells, and
// when: events that are on their way, that is.
func (b *box) deaf() {
	b.t.Helper()
	b.host.hub.mu.Lock()
	defer b.host.hub.mu.Unlock()
	for _, dir := range []vfs.Dir{b.cur, b.new} {
		if err := b.host.hub.watcher.Remove(watchPath(dir)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// listed appends a line to the UID list as another program does.
func (b *box) listed(line string) {
	b.t.Helper()
	f, err := os.OpenFile(b.in(uidlist.Name, ""), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		b.t.Fatal(err)
	}
	f.Close()
}

// A message that another server has delivered and listed, and renames while we look
// what became of its file, has the UID of its line.
func TestListedFileRenamedMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	b.followed()
	b.deaf()
	b.listed("2 :2.h")
	// In new/ when the fence was rung, in cur/ when its file is asked about.
	b.deliver("cur", "2.h:2,S", "x\n")
	b.track.note(inNew, fsnotify.Create, "2.h")
	b.sync(Serve)
	b.track.note(inNew, fsnotify.Rename, "2.h")
	b.track.note(inCur, fsnotify.Create, "2.h:2,S")
	b.sync(Serve)
	b.want("1 1.h ", `2 2.h \Seen`)
}

// That some name has gone is no news of a message that had another one.
func TestAnotherNameUnlinked(t *testing.T) {
	t.Parallel()
	for what, events := range map[string]func(b *box){
		"link told before": func(*box) {},
		"link told now":    func(b *box) { b.track.note(inCur, fsnotify.Create, "1.h:2,F") },
	} {
		b := newBox(t, Options{})
		b.deliver("cur", "1.h:2,", "x\n")
		b.followed()
		b.deaf()
		// The second name goes, and then the first becomes another one, of which
		// the events are on their way.
		b.renamed("1.h:2,", "1.h:2,S")
		events(b)
		b.track.note(inCur, fsnotify.Remove, "1.h:2,F")
		b.sync(Serve)
		if l := told(b.Mailbox); len(l) != 1 || l[0][:5] != "1 1.h" {
			t.Errorf("%s: %q", what, l)
		}
	}
}

// Of two names of one file the one that the message had counts, whether files are known
// by it or by the list, and whichever the directory gives first.
func TestTwoNamesOneCounts(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{NoNotify: true})
	const n = 20
	for i := range n {
		b.deliver("cur", fmt.Sprintf("%d.h:2,%s", i, []string{"", "R"}[i%2]), "x\n")
	}
	b.remembering().sync(Serve)
	want := told(b.Mailbox)
	b.end()
	for i := range n {
		if err := os.Link(b.in("cur", fmt.Sprintf("%d.h:2,%s", i, []string{"", "R"}[i%2])), b.in("cur", fmt.Sprintf("%d.h:2,%s", i, []string{"R", ""}[i%2]))); err != nil {
			t.Fatal(err)
		}
	}
	b.start(Options{NoNotify: true})
	b.sync(Serve)
	if d := cmp.Diff(want, told(b.Mailbox)); d != "" {
		t.Errorf("by their names: %s", d)
	}
	b.mu.Lock()
	b.clean, b.Mailbox.list.again = stamp{}, true
	b.mu.Unlock()
	b.sync(Serve)
	if d := cmp.Diff(want, told(b.Mailbox)); d != "" {
		t.Errorf("by the list: %s", d)
	}
}

// What takes the name of a message and is no file is no message.
func TestLinkInPlaceOfMessage(t *testing.T) {
	t.Parallel()
	b := newBox(t, Options{})
	b.deliver("cur", "1.h:2,", "x\n")
	b.deliver("cur", "2.h:2,", "x\n")
	b.followed()
	if err := os.Symlink("/etc/hostname", b.in("tmp", "l")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(b.in("tmp", "l"), b.in("cur", "1.h:2,")); err != nil {
		t.Fatal(err)
	}
	b.sync(Serve)
	b.want("2 2.h ")
}
