package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/index"
	"imapd/maildir/vfs"
)

// A trip fails calls that change the index: the at-th one, counted while it is
// armed, or with stay all from there on.
type trip struct {
	armed, stay bool
	at, n       int
	err         error
	what        string                       // the first call that failed
	spares      func(what, name string) bool // calls that do not fail; may be nil
	renamed     bool                         // the next sync of the folder is for the index
}

func (t *trip) open(path string) (vfs.Dir, error) {
	d, err := vfs.Open(path)
	return tripDir{d, t}, err
}

func (t *trip) try(what, name string) error {
	if !t.armed || !strings.HasPrefix(name, index.Name) || t.spares != nil && t.spares(what, name) {
		return nil
	}
	if t.n++; t.n != t.at && !(t.stay && t.n > t.at) {
		return nil
	}
	if t.what == "" {
		t.what = what + " " + name
	}
	return &os.PathError{Op: what, Path: name, Err: t.err}
}

type tripDir struct {
	vfs.Dir
	t *trip
}

func (d tripDir) OpenDir(name string) (vfs.Dir, error) {
	sub, err := d.Dir.OpenDir(name)
	return tripDir{sub, d.t}, err
}

func (d tripDir) file(f vfs.File, err error, name string) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return tripFile{f, d.t, name}, nil
}

func (d tripDir) Create(name string, perm os.FileMode) (vfs.File, error) {
	if err := d.t.try("create", name); err != nil {
		return nil, err
	}
	f, err := d.Dir.Create(name, perm)
	return d.file(f, err, name)
}

func (d tripDir) Append(name string) (vfs.File, error) {
	if err := d.t.try("open", name); err != nil {
		return nil, err
	}
	f, err := d.Dir.Append(name)
	return d.file(f, err, name)
}

func (d tripDir) Update(name string) (vfs.File, error) {
	if err := d.t.try("open", name); err != nil {
		return nil, err
	}
	f, err := d.Dir.Update(name)
	return d.file(f, err, name)
}

func (d tripDir) Rename(name string, to vfs.Dir, newname string) error {
	if err := d.t.try("rename", name); err != nil {
		return err
	}
	if t, ok := to.(tripDir); ok {
		to = t.Dir
	}
	d.t.renamed = newname == index.Name
	return d.Dir.Rename(name, to, newname)
}

func (d tripDir) Unlink(name string) error {
	if err := d.t.try("unlink", name); err != nil {
		return err
	}
	return d.Dir.Unlink(name)
}

func (d tripDir) Sync() error {
	if d.t.renamed {
		d.t.renamed = false
		if err := d.t.try("fsync the folder of", index.Name); err != nil {
			return err
		}
	}
	return d.Dir.Sync()
}

type tripFile struct {
	vfs.File
	t    *trip
	name string
}

func (f tripFile) Write(p []byte) (int, error) {
	if err := f.t.try("write", f.name); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f tripFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.t.try("overwrite", f.name); err != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.File.WriteAt(p, off)
}

func (f tripFile) Datasync() error {
	if err := f.t.try("fdatasync", f.name); err != nil {
		return err
	}
	return f.File.Datasync()
}

func (f tripFile) Truncate(size int64) error {
	if err := f.t.try("truncate", f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// Whatever call on the index fails, once or from then on, commands do what they
// are asked to, and when the disk is well again there is a history again that
// clients can rely on.
func TestIndexFaults(t *testing.T) {
	t.Parallel()
	errs := []error{unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.EMFILE, unix.EACCES, unix.ESTALE}
	faults := 0
	for _, stay := range []bool{false, true} {
		for at := 1; ; at++ {
			x := &trip{at: at, stay: stay, err: errs[at%len(errs)]}
			if !indexFault(t, x) {
				break
			}
			faults++
			if t.Failed() {
				t.Fatalf("%v at call %d, %s; from then on: %v", x.err, at, x.what, stay)
			}
		}
	}
	if faults < 40 {
		t.Errorf("only %d faults", faults)
	}
	t.Logf("%d faults", faults)
}

// indexFault runs some commands with x armed. It reports whether a call failed.
func indexFault(t *testing.T, x *trip) bool {
	b := &box{t: t, path: filepath.Join(t.TempDir(), "Maildir")}
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(b.path, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b.start(Options{Open: x.open, NoNotify: true})
	for i := range 4 {
		b.deliver("cur", fmt.Sprintf("%d.h:2,", i), "x\n")
	}
	b.sync(Serve)
	w, client := witness{gone: map[UID]bool{}}, mirror{}
	see := func() {
		if err := w.see(b.Snapshot()); err != nil {
			t.Error(err)
		}
	}
	for round := range 2 {
		if round == 1 {
			b.past.retry = time.Time{}
			b.remembering()
			if err := client.reconnect(b.Mailbox); err != nil {
				t.Error(err)
			}
			if err := b.swell(); err != nil {
				t.Error(err)
			}
		}
		x.armed = true
		b.ModSeqs()
		b.flag(UID(2*round + 1))
		see()
		b.append(b.Mailbox, "mine\r\n", FlagSet{System: Deleted})
		see()
		if gone, err := b.Expunge(t.Context(), nil); err != nil || len(gone) != 1 {
			t.Errorf("expunged %d: %v", gone, err)
		}
		see()
		b.ClaimRecent()
		b.deliver("new", fmt.Sprintf("new%d.h", round), "x\n")
		b.sync(Serve)
		see()
		b.mu.Lock()
		b.save(round == 1)
		b.mu.Unlock()
		x.armed = false
	}
	b.past.retry = time.Time{}
	if !b.ModSeqs() {
		t.Error("no history when the disk is well again")
	}
	b.flag(2)
	see()
	want := []string{`1 0.h \Flagged`, `2 1.h \Flagged`, `3 2.h \Flagged`, "4 3.h ", "6 new0.h ", "8 new1.h "}
	if got := told(b.Mailbox); !slices.Equal(got, want) {
		t.Errorf("mailbox holds %q", got)
	}
	p := b.process(Options{NoNotify: true})
	p.remembering()
	for range 2 {
		p.sync(Serve)
		b.sync(Serve)
	}
	if !t.Failed() {
		sameHistory(t, b, p)
	}
	if err := client.reconnect(p.Mailbox); err != nil {
		t.Error(err)
	}
	return x.what != ""
}

// swell makes the journal so long that the index is written anew.
func (b *box) swell() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := &b.past.file
	if !b.past.on {
		return nil
	}
	if err := f.Lock(b.t.Context()); err != nil {
		return err
	}
	defer f.Unlock()
	if b.takeOthers(); !b.past.on {
		return nil
	}
	var batch index.Batch
	for range 4000 {
		batch.Learned(1, index.Facts{Date: 1, Size: 2, Virtual: 3})
	}
	return f.Append(&batch, false)
}
