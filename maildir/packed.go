package maildir

import (
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imapd/maildir/unpack"
	"imapd/maildir/vfs"
)

// A file that was compressed where it lies is read as the mail that it holds:
// see package unpack. S= and W= of its name are those of the mail.

// How much of a compressed file is unpacked: always as much as freeSize, beyond
// that not more than maxRatio times what is on disk. Mail is rarely packed to
// less than a tenth.
const (
	freeSize = 64 << 20
	maxRatio = 250
)

// isPacked tells how the file fd is compressed. A name whose S= is the size of the
// file is that of a plain one, whatever it begins with, and nothing is read.
func isPacked(fd int, st *unix.Stat_t, base []byte) (unpack.Format, error) {
	if sizeField(base, ",S=") == st.Size {
		return unpack.Plain, nil
	}
	var head [unpack.SignatureSize]byte
	n, err := vfs.ReadFullAt(fd, head[:], 0)
	if err != nil && err != io.EOF {
		return unpack.Plain, err
	}
	return unpack.Detect(head[:n]), nil
}

// claimedSize returns what the name base says of the octets with CRLF, if its S= is
// size and the two can be of one message, else -1.
func claimedSize(base []byte, size int64) int64 {
	w := sizeField(base, ",W=")
	if sizeField(base, ",S=") == size && size <= w && w <= 2*size {
		return w
	}
	return -1
}

// packedSize is factOf's word on W= for a compressed file: its size is no witness,
// but that the file is compressed explains why S= is another.
func packedSize(dir vfs.Dir, name string, st *unix.Stat_t, base []byte) int64 {
	size := sizeField(base, ",S=")
	if size < 0 || size == st.Size || claimedSize(base, size) < 0 {
		return -1
	}
	fd, now, err := vfs.OpenRegular(dir, name)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	if format, err := isPacked(fd, &now, base); err != nil || format == unpack.Plain {
		return -1
	}
	return claimedSize(base, size)
}

// unpack unpacks f, which is compressed.
func (f *File) unpack(format unpack.Format, st *unix.Stat_t, base []byte) (err error) {
	key := packedKey{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano()}
	f.mail, err = f.m.host.packed.open(key, func() (*unpack.Message, error) {
		if err := f.m.gate.turn(f.ctx); err != nil {
			return nil, err
		}
		defer f.m.gate.done()
		limit := min(f.m.host.opt.MaxMessage, max(freeSize, maxRatio*st.Size))
		src := io.NewSectionReader((*rawFile)(f), 0, st.Size)
		// Beside the mail: it is the user's, and a process may have no other place.
		return unpack.Open(f.ctx, src, format, limit, func() (vfs.File, error) { return vfs.Scratch(f.m.tmp) })
	})
	if err != nil {
		return fmt.Errorf("%s: UID %d: %w", f.m.name, f.msg.UID, err)
	}
	f.st.virtual = claimedSize(base, f.mail.Size())
	return nil
}

// defaultMaxMessage is Options.MaxMessage where it is 0: what the protocol allows.
const defaultMaxMessage = math.MaxUint32

// packedCache keeps what was unpacked for a moment: programs on phones fetch a
// large message in many pieces, each of which would unpack it again.
type packedCache struct {
	mu   sync.Mutex // held briefly, never over I/O
	kept []*unpacked
}

const (
	keepUnpacked = 8 // of the whole process
	unpackedFor  = 30 * time.Second
)

// packedKey tells one state of one file.
type packedKey struct {
	dev, ino uint64
	size     int64
	mtime    int64 // nanoseconds
}

// An unpacked message is shared by those who have its file open, and by the
// cache.
type unpacked struct {
	*unpack.Message
	cache *packedCache
	key   packedKey
	refs  int // guarded by packedCache.mu
}

// open returns what make made of the file that key stands for, now or a moment
// ago, with one more reference.
func (c *packedCache) open(key packedKey, make func() (*unpack.Message, error)) (*unpacked, error) {
	c.mu.Lock()
	for _, u := range c.kept {
		if u.key == key {
			u.refs++
			c.mu.Unlock()
			return u, nil
		}
	}
	c.mu.Unlock()
	m, err := make()
	if err != nil {
		return nil, err
	}
	u := &unpacked{m, c, key, 2}
	c.mu.Lock()
	var oldest *unpacked
	if len(c.kept) == keepUnpacked {
		oldest = c.kept[0]
		c.kept = slices.Delete(c.kept, 0, 1)
	}
	c.kept = append(c.kept, u)
	c.mu.Unlock()
	if oldest != nil {
		oldest.release()
	}
	time.AfterFunc(unpackedFor, func() { c.drop(u) })
	return u, nil
}

// drop takes u out of the cache, if it is still there.
func (c *packedCache) drop(u *unpacked) {
	c.mu.Lock()
	i := slices.Index(c.kept, u)
	if i >= 0 {
		c.kept = slices.Delete(c.kept, i, i+1)
	}
	c.mu.Unlock()
	if i >= 0 {
		u.release()
	}
}

// close drops all, for good or for now.
func (c *packedCache) close() {
	c.mu.Lock()
	kept := slices.Clone(c.kept)
	c.mu.Unlock()
	for _, u := range kept {
		c.drop(u)
	}
}

// release gives a reference back.
func (u *unpacked) release() error {
	u.cache.mu.Lock()
	u.refs--
	last := u.refs == 0
	u.cache.mu.Unlock()
	if last {
		return u.Message.Close()
	}
	return nil
}
