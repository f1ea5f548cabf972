package vfs

import (
	"os"
	"testing"
)

func TestScratch(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for name, make := range map[string]func() (File, error){
		"unnamed": func() (File, error) { return Scratch(d) }, "elsewhere": func() (File, error) { return Scratch(nil) },
		"by name": func() (File, error) { return scratchByName(d) },
	} {
		f, err := make()
		if err != nil {
			t.Fatal(err)
		}
		var b [5]byte
		if _, err := f.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		if _, err := f.ReadAt(b[:], 0); err != nil || string(b[:]) != "hello" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
			t.Errorf("%s: left %v, %v", name, names, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Setenv("TMPDIR", dir+"/nowhere")
	if _, err := Scratch(nil); err == nil {
		t.Error("a file in no directory")
	}
}
