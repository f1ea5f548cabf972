package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"imapd/test/peer"
)

func TestGoIMAP(t *testing.T) {
	t.Parallel()
	peer.Each(t, func(t *testing.T, start peer.Starter) {
		dir := basic(t)
		s := start(t, dir, peer.Options{})
		// What the server says unasked while the client idles.
		told := make(chan uint32, 10)
		c := must(imapclient.DialTLS(s.TLSAddr, &imapclient.Options{
			TLSConfig: &tls.Config{InsecureSkipVerify: true},
			UnilateralDataHandler: &imapclient.UnilateralDataHandler{Mailbox: func(d *imapclient.UnilateralDataMailbox) {
				if d.NumMessages != nil {
					told <- *d.NumMessages
				}
			}},
		}))(t)
		defer c.Close()
		if err := c.Authenticate(sasl.NewPlainClient("", s.User, peer.Password)); err != nil {
			t.Fatal(err)
		}
		box := must(c.Select("INBOX", nil).Wait())(t)
		if box.NumMessages != 4 || box.UIDValidity != 1700000001 || box.UIDNext != 8 {
			t.Errorf("SELECT: %+v", box)
		}
		goimapRead(t, c)
		goimapWrite(t, c, dir)
		goimapIdle(t, c, dir, told)
		if err := c.Logout().Wait(); err != nil {
			t.Error(err)
		}
	})
}

// must ends the test if a call failed, and passes on what it returned.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func goimapRead(t *testing.T, c *imapclient.Client) {
	t.Helper()
	whole := &imap.FetchItemBodySection{Peek: true}
	part := &imap.FetchItemBodySection{Peek: true, Part: []int{1, 2}, Partial: &imap.SectionPartial{Offset: 3, Size: 5}}
	got := must(c.Fetch(imap.UIDSetNum(2, 4), &imap.FetchOptions{
		UID: true, Flags: true, Envelope: true, InternalDate: true, RFC822Size: true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true}, BodySection: []*imap.FetchItemBodySection{whole, part},
	}).Collect())(t)
	if len(got) != 2 {
		t.Fatalf("FETCH of two: %d", len(got))
	}
	reply, report := got[0], got[1]
	if reply.Envelope.Subject != "Re: Minutes – café" || len(reply.Envelope.To) != 5 || reply.Envelope.From[0].Name != "Doe, Jane" {
		t.Errorf("ENVELOPE: %+v", reply.Envelope)
	}
	want := strings.ReplaceAll(text(t, "multipart.eml"), "\n", "\r\n")
	if string(report.FindBodySection(whole)) != want || report.RFC822Size != int64(len(want)) {
		t.Errorf("message: %q, %d octets", report.FindBodySection(whole), report.RFC822Size)
	}
	if b := report.FindBodySection(part); string(b) != "Hello" {
		t.Errorf("part: %q", b)
	}
	var types []string
	report.BodyStructure.Walk(func(path []int, part imap.BodyStructure) bool {
		types = append(types, fmt.Sprint(path, part.MediaType()))
		return true
	})
	if want := []string{"[]multipart/mixed", "[1]multipart/alternative", "[1 1]text/plain", "[1 2]text/html", "[2]application/octet-stream"}; !slices.Equal(types, want) {
		t.Errorf("BODYSTRUCTURE: %q, want %q", types, want)
	}
	if !report.InternalDate.Equal(time.Date(2024, 3, 2, 23, 45, 30, 0, time.UTC)) || !slices.Contains(report.Flags, imap.FlagFlagged) {
		t.Errorf("INTERNALDATE %v, FLAGS %v", report.InternalDate, report.Flags)
	}
	found := must(c.UIDSearch(&imap.SearchCriteria{Flag: []imap.Flag{imap.FlagSeen}, Text: []string{"minutes"}}, &imap.SearchOptions{ReturnAll: true, ReturnCount: true}).Wait())(t)
	if uids := found.AllUIDs(); !slices.Equal(uids, []imap.UID{1, 7}) || found.Count != 2 {
		t.Errorf("SEARCH: %v, count %d", uids, found.Count)
	}
	list := must(c.List("", "%", &imap.ListOptions{ReturnChildren: true, ReturnStatus: &imap.StatusOptions{NumMessages: true, UIDNext: true}}).Collect())(t)
	counts := map[string]uint32{}
	for _, l := range list {
		counts[l.Mailbox] = *l.Status.NumMessages
	}
	if want := map[string]uint32{"INBOX": 4, "Work": 1, "Sent": 1, "Drafts": 0, "Trash": 0, "Ärger": 0}; !maps.Equal(counts, want) {
		t.Errorf("LIST: %v, want %v", counts, want)
	}
}

func goimapWrite(t *testing.T, c *imapclient.Client, dir string) {
	t.Helper()
	stored := must(c.Store(imap.UIDSetNum(2), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagSeen, "Urgent"}}, nil).Collect())(t)
	if len(stored) != 1 || !slices.Contains(stored[0].Flags, "Urgent") {
		t.Errorf("STORE: %+v", stored)
	}
	copied := must(c.Copy(imap.UIDSetNum(1, 4), "Ärger").Wait())(t)
	if copied.UIDValidity != 1700000007 || copied.SourceUIDs.String() != "1,4" || copied.DestUIDs.String() != "1:2" {
		t.Errorf("COPYUID: %+v", copied)
	}
	moved := must(c.Move(imap.UIDSetNum(4), "Trash").Wait())(t)
	if moved.UIDValidity != 1700000006 || moved.DestUIDs.String() != "1" {
		t.Errorf("MOVE: %+v", moved)
	}
	const message = "Subject: by go-imap\r\n\r\nBody.\r\n"
	date := time.Date(2023, 7, 17, 2, 44, 25, 0, time.FixedZone("", 7200))
	w := c.Append("Drafts", int64(len(message)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagDraft}, Time: date})
	if _, err := io.WriteString(w, message); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	appended := must(w.Wait())(t)
	if appended.UID != 1 || appended.UIDValidity != 1700000005 {
		t.Errorf("APPENDUID: %+v", appended)
	}
	if err := c.Rename("Drafts", "Entwürfe/Neu", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string]map[int]string{
		"": {1: "S", 2: "Sac", 7: "RSb"}, "/.&AMQ-rger": {1: "S", 2: "FS"}, "/.Trash": {1: "FS"}, "/.Entw&APw-rfe.Neu": {1: "D"},
	} {
		if got := onDisk(t, dir+folder); !maps.Equal(got, want) {
			t.Errorf("%s on disk: %v, want %v", folder, got, want)
		}
	}
	if got, want := contents(t, dir+"/.Entw&APw-rfe.Neu"), []string{strings.ReplaceAll(message, "\r\n", "\n")}; !slices.Equal(got, want) {
		t.Errorf("appended: %q", got)
	}
}

func goimapIdle(t *testing.T, c *imapclient.Client, dir string, told <-chan uint32) {
	t.Helper()
	for len(told) > 0 {
		<-told // of what this session did itself
	}
	idle := must(c.Idle())(t)
	deliver(t, dir, text(t, "new.eml"), time.Now())
	select {
	case n := <-told:
		if n != 4 {
			t.Errorf("told of %d messages while idle", n)
		}
	case <-time.After(20 * time.Second):
		t.Error("not told of a delivery while idle")
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	if err := idle.Wait(); err != nil {
		t.Error(err)
	}
}
