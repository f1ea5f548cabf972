package config

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// An Opener opens the file or directory path to be read. It is the one door to
// what only root may read (imapd.conf, keys, passwd files), so that a process
// that has given root up can ask another for it. It is safe for use by several
// goroutines; nil stands for Open.
type Opener func(path string) (*os.File, error)

// Open opens path as this process may. A FIFO of that name is not waited for.
func Open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// Open calls o, or the function Open where o is nil.
func (o Opener) Open(path string) (*os.File, error) {
	if o == nil {
		return Open(path)
	}
	return o(path)
}

// Stat is os.Stat also where only o may look.
func (o Opener) Stat(path string) (os.FileInfo, error) {
	info, err := os.Stat(path)
	if !errors.Is(err, fs.ErrPermission) {
		return info, err
	}
	f, err := o.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}
