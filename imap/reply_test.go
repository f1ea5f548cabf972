package imap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"testing"

	"imapd/maildir"
	"imapd/maildir/tree"
)

// TestRefusals holds that the session outlives what goes wrong with the disk,
// and that the client is told which kind of trouble it is. An errno looks like
// an error of the network to errors.As.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		code string
	}{
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, "OVERQUOTA"},
		{fmt.Errorf("append: %w", &fs.PathError{Op: "fsync", Path: "x", Err: syscall.EDQUOT}), "OVERQUOTA"},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}, "UNAVAILABLE"},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EMFILE}, "LIMIT"},
		{syscall.EACCES, "NOPERM"},
		{&fs.PathError{Op: "open", Path: "dovecot-uidlist", Err: syscall.ELOOP}, "UNAVAILABLE"},
		{fmt.Errorf("INBOX: %w: read-only", maildir.ErrNoUIDs), "UNAVAILABLE"},
		{errors.Join(maildir.ErrNoUIDs, syscall.EROFS), "UNAVAILABLE"},
		{context.DeadlineExceeded, "INUSE"},
	} {
		if r, _, ok := refusal(tt.err); ends(tt.err) || !ok || r.Code != tt.code {
			t.Errorf("%v: ends %v, answered %+v, want [%s]", tt.err, ends(tt.err), r, tt.code)
		}
	}
	// What is wrong with a name is told.
	impossible := fmt.Errorf("create: %w", &tree.NameError{Name: "~a", Why: "it begins with '~'"})
	if r, log, ok := refusal(impossible); !ok || log || r.Code != "CANNOT" || r.Text != "Invalid mailbox name: it begins with '~'" {
		t.Errorf("a name is refused with %+v", r)
	}
	for _, err := range []error{
		io.EOF,
		readError{&net.OpError{Op: "read", Err: syscall.ECONNRESET}},
		fmt.Errorf("literal: %w", readError{syscall.EIO}),
		writeError{syscall.EPIPE},
		errCut,
	} {
		if !ends(err) {
			t.Errorf("%v does not end the session", err)
		}
	}
}
