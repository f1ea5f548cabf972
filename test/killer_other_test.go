//go:build !amd64

package test

import (
	"errors"

	"golang.org/x/sys/unix"
)

const refusable = false

func skipCall(int) error { return errors.ErrUnsupported }

func setResult(int, unix.Errno) error { return errors.ErrUnsupported }
