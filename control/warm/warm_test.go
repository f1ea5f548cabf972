package warm

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestText holds that all of the code is mapped: more than this test has used.
func TestText(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("NOT TESTED: done on amd64 only")
	}
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	if err := unix.Madvise(page, populateRead); err == unix.EINVAL {
		t.Skip("NOT TESTED: the kernel is older than 5.14")
	}
	if !text() {
		t.Fatal("the kernel refuses, or the program lies elsewhere")
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, code, found := strings.Cut("\n"+string(smaps), "\n00400000-")
	if !found {
		t.Fatal("no code at its place")
	}
	value := func(name string) string {
		_, after, _ := strings.Cut(code, "\n"+name+":")
		return strings.TrimSpace(after[:strings.IndexByte(after, '\n')])
	}
	if size, rss := value("Size"), value("Rss"); size != rss {
		t.Errorf("%s of %s are mapped", rss, size)
	}
}
