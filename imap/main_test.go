package imap

import (
	"testing"

	"go.uber.org/goleak"
)

// No goroutine outlives the sessions.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
