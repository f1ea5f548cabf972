package faultfs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Return makes the tree in place of whatever is at path, where its calls were
// recorded. Files keep their inode numbers, and so do directories that are there
// still: what a machine finds that has lost its power, and no copy of it. Nobody
// may have anything of the tree open.
func (t *Tree) Return(path string) error {
	if t.s.keep == "" {
		return fmt.Errorf("%s: no files were kept", path)
	}
	h := home{Tree: t, now: time.Now(), aside: map[key]string{}, made: map[int]bool{}}
	if err := h.clear(path); err != nil {
		return err
	}
	if err := h.dir(path, t.s.root); err != nil {
		return err
	}
	for _, dir := range h.aside { // of directories that the tree does not have
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// A home is a tree that returns to where it was.
type home struct {
	*Tree
	now   time.Time
	aside map[key]string // empty directories, by what they are
	made  map[int]bool   // directories
}

// clear removes all files below path and puts the directories aside.
func (h *home) clear(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if !e.IsDir() {
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		if err := h.clear(name); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		id := key{uint64(st.Dev), st.Ino}
		h.aside[id] = id.in(h.s.keep) + ".dir"
		if err := os.Rename(name, h.aside[id]); err != nil {
			return err
		}
	}
	return nil
}

func (h *home) dir(path string, id int) error {
	for _, name := range sorted(h.in[id]) {
		if err := h.entry(filepath.Join(path, name), h.in[id][name]); err != nil {
			return err
		}
	}
	return nil
}

func (h *home) entry(path string, id int) error {
	n := h.s.nodes[id]
	if !n.dir {
		return h.file(path, id, n)
	}
	if h.made[id] { // a directory has one name
		return nil
	}
	h.made[id] = true
	var err error
	if dir, ok := h.aside[n.id]; ok {
		delete(h.aside, n.id)
		err = os.Rename(dir, path)
	} else {
		err = os.Mkdir(path, 0o700)
	}
	if err == nil {
		err = os.Chmod(path, fs.FileMode(n.mode))
	}
	if err != nil {
		return err
	}
	return h.dir(path, id)
}

func (h *home) file(path string, id int, n *node) error {
	if err := os.Link(n.id.in(h.s.keep), path); err != nil {
		return err
	}
	if err := os.WriteFile(path, h.data(id, n), 0); err != nil {
		return err
	}
	if err := os.Chmod(path, fs.FileMode(n.mode)); err != nil {
		return err
	}
	date := h.date(n)
	if date.IsZero() {
		date = h.now
	}
	return os.Chtimes(path, date, date)
}
