package imap_test

import (
	"testing"

	"imapd/test/peer"
	"imapd/test/transcript"
)

func TestTranscriptsDovecot(t *testing.T) {
	t.Parallel()
	transcript.Run(t, "testdata", transcript.NewPeerHost(peer.Dovecot))
}

func TestTranscriptsImapd(t *testing.T) {
	t.Parallel()
	transcript.Run(t, "testdata", transcript.NewPeerHost(peer.Imapd))
}
