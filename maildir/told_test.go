package maildir

import (
	"os"
	"testing"

	"github.com/fsnotify/fsnotify"

	"imapd/maildir/uidlist"
)

// deaf has the kernel tell nothing more, so that a test can say what it tells, and
// when: events that are on their way, that is.
func (b *box) deaf() {
	b.t.Helper()
	b.host.hub.mu.Lock()
	defer b.host.hub.mu.Unlock()
	for _, dir := range []string{"cur", "new"} {
		if err := b.host.hub.watcher.Remove(b.in(dir, "")); err != nil {
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
