package test

import (
	"crypto/tls"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"imapd/test/peer"
)

// TestGoIMAPEverything sends every command that go-imap's client knows and the
// server has. The client parses strictly, and fails at what it cannot read.
func TestGoIMAPEverything(t *testing.T) {
	t.Parallel()
	peer.Each(t, func(t *testing.T, start peer.Starter) {
		s := start(t, basic(t), peer.Options{})
		goimapEverything(t, s, false)
		if s.Kind == "imapd" { // Dovecot 2.3 has no IMAP4rev2
			s = start(t, basic(t), peer.Options{})
			goimapEverything(t, s, true)
		}
	})
}

func goimapEverything(t *testing.T, s *peer.Server, rev2 bool) {
	conn := must(s.Dial())(t)
	c := must(imapclient.NewStartTLS(conn, &imapclient.Options{TLSConfig: &tls.Config{InsecureSkipVerify: true}}))(t)
	defer c.Close()
	done := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	done(c.Login(s.User, peer.Password).Wait())
	caps := must(c.Capability().Wait())(t)
	for _, want := range []imap.Cap{imap.CapIMAP4rev1, imap.CapIdle, imap.CapMove, imap.CapUIDPlus, imap.CapNamespace, imap.CapBinary, imap.CapESearch, imap.CapListStatus} {
		if !caps.Has(want) {
			t.Errorf("no %s", want)
		}
	}
	must(c.ID(&imap.IDData{Name: "test", Version: "1"}).Wait())(t)
	if rev2 {
		if enabled := must(c.Enable(imap.CapIMAP4rev2).Wait())(t); !enabled.Caps.Has(imap.CapIMAP4rev2) {
			t.Errorf("enabled: %v", enabled.Caps)
		}
	}
	if n := must(c.Namespace().Wait())(t); len(n.Personal) != 1 || n.Personal[0].Delim != '/' {
		t.Errorf("NAMESPACE: %+v", n)
	}
	done(c.Noop().Wait())
	everythingFolders(t, c, done)
	everythingFetch(t, c)
	everythingSearch(t, c)
	everythingChange(t, c, done)
	done(c.Logout().Wait())
}

func everythingFolders(t *testing.T, c *imapclient.Client, done func(error)) {
	const name = "Ärger & \"Freude\"/日本 *%"
	done(c.Create(name, nil).Wait())
	done(c.Subscribe(name).Wait())
	done(c.Rename(name, "Neu/Ü", nil).Wait())
	all := must(c.List("", "*", &imap.ListOptions{
		ReturnSubscribed: true, ReturnChildren: true, ReturnSpecialUse: true,
		ReturnStatus: &imap.StatusOptions{NumMessages: true, UIDNext: true, UIDValidity: true, NumUnseen: true, Size: true},
	}).Collect())(t)
	var found bool
	for _, l := range all {
		found = found || l.Mailbox == "Neu/Ü" && l.Status != nil && *l.Status.NumMessages == 0
	}
	if !found {
		t.Errorf("LIST: %+v", all)
	}
	for _, o := range []*imap.ListOptions{
		{SelectSubscribed: true}, {SelectSubscribed: true, SelectRecursiveMatch: true}, {SelectSpecialUse: true}, {SelectRemote: true, ReturnChildren: true},
	} {
		must(c.List("", "%", o).Collect())(t)
	}
	status := must(c.Status("INBOX", &imap.StatusOptions{NumMessages: true, UIDNext: true, UIDValidity: true, NumUnseen: true, Size: true}).Wait())(t)
	if *status.NumMessages != 4 || status.UIDNext != 8 || *status.NumUnseen != 1 || *status.Size == 0 {
		t.Errorf("STATUS: %+v", status)
	}
	done(c.Unsubscribe(name).Wait())
	done(c.Delete("Neu/Ü").Wait())
	must(c.Select("Work", &imap.SelectOptions{ReadOnly: true}).Wait())(t)
	done(c.Unselect().Wait())
}

func everythingFetch(t *testing.T, c *imapclient.Client) {
	if box := must(c.Select("INBOX", nil).Wait())(t); box.NumMessages != 4 {
		t.Errorf("SELECT: %+v", box)
	}
	options := &imap.FetchOptions{UID: true, Flags: true, Envelope: true, InternalDate: true, RFC822Size: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true}}
	partial := &imap.SectionPartial{Offset: 2, Size: 7}
	for _, part := range [][]int{nil, {1}, {1, 1}, {1, 2}, {2}, {9, 9}} {
		for _, what := range []imap.PartSpecifier{imap.PartSpecifierNone, imap.PartSpecifierHeader, imap.PartSpecifierText, imap.PartSpecifierMIME} {
			if part == nil && what == imap.PartSpecifierMIME {
				continue
			}
			options.BodySection = append(options.BodySection,
				&imap.FetchItemBodySection{Specifier: what, Part: part, Peek: true},
				&imap.FetchItemBodySection{Specifier: what, Part: part, Peek: true, Partial: partial})
		}
		options.BodySection = append(options.BodySection,
			&imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, Part: part, Peek: true, HeaderFields: []string{"Subject", "X \"y"}},
			&imap.FetchItemBodySection{Specifier: imap.PartSpecifierHeader, Part: part, Peek: true, HeaderFieldsNot: []string{"Subject", "From"}})
	}
	for _, part := range [][]int{{1}, {1, 1}, {1, 2}, {2}} {
		// Not in pieces: the client cannot read BINARY[1]<2>, although RFC 9051 section 7.5.2 has it.
		options.BinarySection = append(options.BinarySection, &imap.FetchItemBinarySection{Part: part, Peek: true})
		options.BinarySectionSize = append(options.BinarySectionSize, &imap.FetchItemBinarySectionSize{Part: part})
	}
	got := must(c.Fetch(imap.SeqSet{imap.SeqRange{Start: 1, Stop: 0}}, options).Collect())(t)
	if len(got) != 4 {
		t.Fatalf("FETCH of four: %d", len(got))
	}
	for _, m := range got {
		whole := m.FindBodySection(&imap.FetchItemBodySection{Peek: true})
		if int64(len(whole)) != m.RFC822Size || m.Envelope == nil || m.BodyStructure == nil || m.InternalDate.IsZero() || len(m.BodySection) != len(options.BodySection) {
			t.Errorf("message %d: %d octets of %d, %d sections of %d, %+v", m.UID, len(whole), m.RFC822Size, len(m.BodySection), len(options.BodySection), m.Envelope)
		}
	}
	must(c.Fetch(imap.UIDSetNum(1, 2, 3, 99), &imap.FetchOptions{BodyStructure: &imap.FetchItemBodyStructure{}}).Collect())(t)
}

func everythingSearch(t *testing.T, c *imapclient.Client) {
	day := time.Date(2024, 3, 2, 0, 0, 0, 0, time.UTC)
	for _, criteria := range []*imap.SearchCriteria{
		{}, {SeqNum: []imap.SeqSet{{imap.SeqRange{Start: 2, Stop: 0}}}}, {UID: []imap.UIDSet{imap.UIDSetNum(1, 7)}}, {Since: day}, {Before: day}, {SentSince: day}, {SentBefore: day},
		{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "café"}, {Key: "X-None"}}}, {Body: []string{"thank"}, Text: []string{"é\r\n"}},
		{Flag: []imap.Flag{imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft, "work"}}, {NotFlag: []imap.Flag{imap.FlagSeen, "work"}},
		{Larger: 10, Smaller: 1 << 30}, {Not: []imap.SearchCriteria{{Text: []string{"x"}}}}, {Or: [][2]imap.SearchCriteria{{{Text: []string{"x"}}, {Flag: []imap.Flag{imap.FlagSeen}}}}},
	} {
		for _, options := range []*imap.SearchOptions{nil, {ReturnMin: true, ReturnMax: true, ReturnAll: true, ReturnCount: true}, {ReturnCount: true}} {
			plain := must(c.Search(criteria, options).Wait())(t)
			byUID := must(c.UIDSearch(criteria, options).Wait())(t)
			if plain.Count != byUID.Count || len(plain.AllSeqNums()) != len(byUID.AllUIDs()) {
				t.Errorf("SEARCH %+v: %+v, by UID %+v", criteria, plain, byUID)
			}
		}
	}
	must(c.UIDSearch(&imap.SearchCriteria{Flag: []imap.Flag{imap.FlagSeen}}, &imap.SearchOptions{ReturnSave: true}).Wait())(t)
	// The client sends "$" and drops what comes, from any server.
	must(c.Fetch(imap.SearchRes(), &imap.FetchOptions{UID: true, Flags: true}).Collect())(t)
}

func everythingChange(t *testing.T, c *imapclient.Client, done func(error)) {
	for _, op := range []imap.StoreFlagsOp{imap.StoreFlagsAdd, imap.StoreFlagsDel, imap.StoreFlagsSet} {
		for _, silent := range []bool{false, true} {
			must(c.Store(imap.SeqSetNum(1, 2), &imap.StoreFlags{Op: op, Silent: silent, Flags: []imap.Flag{imap.FlagFlagged, "new-" + imap.Flag("x")}}, nil).Collect())(t)
			must(c.Store(imap.UIDSetNum(4, 7), &imap.StoreFlags{Op: op, Silent: silent, Flags: []imap.Flag{imap.FlagSeen}}, nil).Collect())(t)
		}
	}
	if data := must(c.Copy(imap.SeqSetNum(1, 2), "Work").Wait())(t); data.DestUIDs.String() != "2:3" {
		t.Errorf("COPY: %+v", data)
	}
	if data := must(c.Move(imap.SeqSetNum(4), "Work").Wait())(t); data.DestUIDs.String() != "4" {
		t.Errorf("MOVE: %+v", data)
	}
	const message = "Subject: x\r\n\r\nx\r\n"
	for _, options := range []*imap.AppendOptions{nil, {Flags: []imap.Flag{imap.FlagDeleted, "work"}}, {Time: time.Now()}} {
		w := c.Append("INBOX", int64(len(message)), options)
		_, err := io.WriteString(w, message)
		done(err)
		done(w.Close())
		must(w.Wait())(t)
	}
	idle := must(c.Idle())(t)
	done(idle.Close())
	done(idle.Wait())
	done(c.Noop().Wait())
	must(c.Store(imap.UIDSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Collect())(t)
	must(c.UIDExpunge(imap.UIDSetNum(1)).Collect())(t)
	gone := must(c.Expunge().Collect())(t)
	if !slices.Equal(gone, []uint32{4}) { // 2, 4, and of the appended the second
		t.Errorf("EXPUNGE: %v", gone)
	}
	done(c.UnselectAndExpunge().Wait())
	if _, err := c.Select("None", nil).Wait(); err == nil || !strings.Contains(err.Error(), "NO") {
		t.Errorf("SELECT None: %v", err)
	}
}
