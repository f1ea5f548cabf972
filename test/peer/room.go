package peer

import (
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Room is a place where launchers of the system run without disturbing it or
// each other: a mount namespace whose /dev/log is read by the test and whose
// /run is empty but for sshd's directory. It needs root.
type Room struct {
	Dir  string   // of the test's own, seen in the room too; removed with the test
	Wrap []string // is put before the commands of programs that are started

	t      testing.TB
	socket *net.UnixConn

	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed when there are more lines
}

// NewRoom makes a Room that ends with the test.
func NewRoom(t testing.TB) *Room {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("launchers are started by root")
	}
	Need(t, "unshare", "mount")
	r := &Room{Dir: TempDir(t), t: t, more: make(chan struct{})}
	log := filepath.Join(r.Dir, "syslog")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: log, Net: "unixgram"})
	if err == nil {
		err = os.Chmod(log, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.socket = socket
	var reading sync.WaitGroup
	reading.Go(r.read)
	t.Cleanup(func() {
		socket.Close()
		reading.Wait()
		if t.Failed() {
			t.Logf("syslog:\n%s", r.Syslog())
		}
	})
	return r
}

func (r *Room) read() {
	b := make([]byte, 16384)
	for {
		n, err := r.socket.Read(b)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.lines = append(r.lines, strings.TrimRight(string(b[:n]), "\n\x00"))
		close(r.more)
		r.more = make(chan struct{})
		r.mu.Unlock()
	}
}

// Syslog returns what programs in the room have logged until now.
func (r *Room) Syslog() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n") + "\n"
}

// Logged waits for a line that pattern matches, and returns the match and its
// groups. The test ends if none comes.
func (r *Room) Logged(pattern string) []string {
	r.t.Helper()
	re, limit := regexp.MustCompile(pattern), time.After(20*time.Second)
	for {
		r.mu.Lock()
		more := r.more
		r.mu.Unlock()
		if m := re.FindStringSubmatch(r.Syslog()); m != nil {
			return m
		}
		select {
		case <-more:
		case <-limit:
			r.t.Fatalf("nothing like %q in the log", pattern)
		}
	}
}

// Left is where a descriptor leads that is open in whatever is started in a Room:
// launchers forget to close some.
const Left = "/dev/zero"

// enter makes a /dev with the few files that programs use, and a log.
const enter = `set -e
dev=$1/dev; mkdir -p $dev; mount -t tmpfs none $dev
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx /dev/fd /dev/stdin /dev/stdout /dev/stderr $dev
mkdir $dev/pts $dev/shm; mount --bind /dev/pts $dev/pts; ln -s $1/syslog $dev/log
mount --move $dev /dev; mount -t tmpfs none /run; mkdir -m 755 /run/sshd
shift; exec 9<` + Left + `; exec "$@"`

// Start runs a program in the room with its output in the file NAME.out of Dir,
// until the test ends.
func (r *Room) Start(name string, args ...string) *Process {
	r.t.Helper()
	return r.start(name, nil, args)
}

// Type is Start with a pipe as standard input, of which it returns the other end.
func (r *Room) Type(name string, args ...string) (*Process, io.Writer) {
	r.t.Helper()
	in, keys, err := os.Pipe()
	if err != nil {
		r.t.Fatal(err)
	}
	defer in.Close()
	r.t.Cleanup(func() { keys.Close() })
	return r.start(name, in, args), keys
}

func (r *Room) start(name string, stdin io.Reader, args []string) *Process {
	r.t.Helper()
	Need(r.t, args[0])
	all := slices.Concat([]string{"-m", "--propagation", "private", "sh", "-c", enter, "sh", r.Dir}, r.Wrap, args)
	c := exec.Command("unshare", all...)
	c.Dir, c.Stdin = r.Dir, stdin
	// Whoever runs the tests may have left descriptors open.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		r.t.Fatal(err)
	}
	out := filepath.Join(r.Dir, name+".out")
	p, err := startProcess(c, out)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		p.Stop()
		if text, err := os.ReadFile(out); r.t.Failed() {
			r.t.Logf("output of %s:\n%s%v", name, text, err)
		}
	})
	return p
}

// Told waits until one of the room's programs has written or logged what pattern
// matches. The test ends if none does.
func (r *Room) Told(pattern string) []string {
	r.t.Helper()
	re, limit := regexp.MustCompile(pattern), time.After(20*time.Second)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		all := r.Syslog()
		names, _ := filepath.Glob(filepath.Join(r.Dir, "*.out"))
		for _, name := range names {
			text, _ := os.ReadFile(name)
			all += string(text)
		}
		if m := re.FindStringSubmatch(all); m != nil {
			return m
		}
		select {
		case <-look.C:
		case <-limit:
			r.t.Fatalf("nobody says anything like %q", pattern)
		}
	}
}

// File writes a file into the room's directory, and returns its path.
func (r *Room) File(name, text string) string {
	r.t.Helper()
	path := filepath.Join(r.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// Dial connects to a server that is about to listen at addr, from the IP address
// from, or from any where that is empty.
func Dial(t testing.TB, network, addr, from string) net.Conn {
	t.Helper()
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	limit := time.After(20 * time.Second)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		c, err := d.Dial(network, addr)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		select {
		case <-look.C:
		case <-limit:
			t.Fatal(err)
		}
	}
}

// FreeAddr returns an address of the loopback interface on which nobody listens.
func FreeAddr(t testing.TB) string { return freeAddr(t, "127.0.0.1") }

// FreeAddr6 is FreeAddr over IPv6.
func FreeAddr6(t testing.TB) string { return freeAddr(t, "::1") }

// unpacking is held while a package is unpacked.
var unpacking sync.Mutex

// Unpacked returns the path of a file of a Debian package that cannot be
// installed beside others: it is downloaded and unpacked into .tools.
func Unpacked(t testing.TB, pkg, file string) string {
	t.Helper()
	unpacking.Lock()
	defer unpacking.Unlock()
	dir := filepath.Join(filepath.Dir(Binary(t)), "packages", pkg)
	path := filepath.Join(dir, file)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	get := exec.Command("sh", "-c", `set -e; mkdir -p "$1.new"; cd "$1.new"; apt-get download "$2"; dpkg -x ./*.deb .; rm -rf "$1"; mv "$1.new" "$1"`, "sh", dir, pkg)
	if out, err := get.CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", pkg, err, out)
	}
	return path
}
