// Placeholder until the real package lands here: delete this file then.
package tree

import (
	"errors"
	"os"
	"path/filepath"
	"time"
)

var (
	ErrExists      = errors.New("exists")
	ErrNotFound    = errors.New("not found")
	ErrName        = errors.New("name")
	ErrHasChildren = errors.New("children")
)

type Layout int
type Encoding int
type Config struct {
	Root, Control string
	Layout        Layout
	Names         Encoding
	Separator     byte
	Prefix        string
}
type Folder struct {
	Name, Path, ControlPath string
	Exists, HasChildren     bool
}
type Tree struct{ c Config }

func Open(c Config) (*Tree, error)      { return &Tree{c}, nil }
func (t *Tree) List() ([]Folder, error) { return nil, nil }
func (t *Tree) Path(n string) (string, string, error) {
	if n == "INBOX" {
		return t.c.Root, t.c.Root, nil
	}
	p := filepath.Join(t.c.Root, "."+n)
	return p, p, nil
}
func (t *Tree) Create(n string) error {
	for _, d := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(t.c.Root, "."+n, d), 0700); err != nil {
			return err
		}
	}
	return nil
}
func (t *Tree) Delete(n string) error            { return nil }
func (t *Tree) Rename(a, b string) error         { return nil }
func (t *Tree) NextValidity() (uint32, error)    { return uint32(time.Now().Unix()), nil }
func (t *Tree) Subscriptions() ([]string, error) { return nil, nil }
func (t *Tree) Subscribe(string) error           { return nil }
func (t *Tree) Unsubscribe(string) error         { return nil }
