package imap

import (
	"errors"

	"imapd/imap/wire"
	"imapd/maildir"
)

// The status item SIZE is the sum of the RFC822.SIZE of all messages. See RFC
// 8438, or RFC 9051 section 6.3.11.
var _ = register(Extension{
	Name:   "STATUS=SIZE",
	RFC:    8438,
	Caps:   when(loggedIn, "STATUS=SIZE"),
	Status: []StatusItem{{Name: "SIZE", Append: appendSize}},
})

func appendSize(b []byte, st Status) ([]byte, error) {
	var sum int64
	for _, m := range st.Now.Range(0, st.Now.Len()) {
		n, err := st.Mailbox.Size(m)
		if errors.Is(err, maildir.ErrGone) {
			continue // it has gone this very moment
		}
		if err == nil {
			err = st.ctx.Err()
		}
		if err != nil {
			return b, err
		}
		sum += n
	}
	return wire.AppendNumber(b, sum), nil
}
