package vfs

import (
	"bytes"
	"testing"
)

func TestPrefault(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, prefaultFrom - 1, prefaultFrom, prefaultFrom + 5, 3*hugePage + 1} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i)
		}
		before := bytes.Clone(b)
		Prefault(b)
		Prefault(b[:n/2])
		Prefault(b[n/3:])
		if !bytes.Equal(b, before) {
			t.Errorf("%d octets have changed", n)
		}
	}
	Prefault([]uint64(nil))
}

func TestBuffer(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 4096, hugePage + 1} {
		b, free := Buffer[byte](n)
		if len(b) != n || bytes.Trim(b, "\x00") != nil && len(bytes.Trim(b, "\x00")) > 0 {
			t.Errorf("a buffer of %d octets has %d, or something in them", n, len(b))
		}
		b[n-1] = 1
		free()
	}
}
