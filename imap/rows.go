package imap

import (
	"imapd/imap/wire"
	"imapd/maildir"
)

// Cost is what one message costs to answer for, cheapest first. FETCH uses it
// to leave out of a ghost's answer what needs the file (a ghost was expunged,
// but this client has not been told yet); SEARCH tests cheap keys first.
type Cost uint8

const (
	CostRecord Cost = iota // the message's record in the snapshot
	CostStat               // size or date: the record, or a stat of the file
	CostHeader             // the header of the file, or what is cached of it
	CostFile               // the whole file
)

// A FetchItem is a data item of FETCH. It is parsed once a command; what
// Parse returns runs once a message and must not allocate.
type FetchItem struct {
	Name string // upper case, what stands before '[' or '<' or the next space: "BODY.PEEK"

	// Parse reads what follows the name, for most items nothing. An error is
	// left in the decoder.
	Parse func(*wire.Decoder) FetchPart
}

// A FetchPart is a parsed data item.
type FetchPart struct {
	Cost  Cost
	Seen  bool // sets \Seen in a mailbox that is not read-only
	Write func(*Fetching) error
}

// Fetching is one message in the course of a FETCH. Write appends to Session.out
// the item's name and value, without surrounding space, and calls
// Session.spill between pieces of something large.
type Fetching struct {
	*Session
	Box *Box
	Msg maildir.Message
	Seq int // sequence number, from 1
}

// A SearchKey is a key of SEARCH. It is parsed once a command.
type SearchKey struct {
	Name string // upper case

	// Parse reads what follows the name. An error is left in the decoder.
	Parse func(*wire.Decoder) SearchTest
}

// A SearchTest is a parsed key. Match runs once a message and must not change it.
type SearchTest struct {
	Cost  Cost
	Match func(*Searching) (bool, error)
}

// Searching is one message in the course of a SEARCH.
type Searching struct {
	*Session
	Box *Box
	Msg maildir.Message
	Seq int // sequence number, from 1
}

// A StatusItem is an item of STATUS, of LIST RETURN (STATUS), or both.
type StatusItem struct {
	Name string // upper case

	// Append appends the value (not the name) to b.
	Append func(b []byte, m *maildir.Mailbox, now *maildir.Snapshot) ([]byte, error)
}

// A ListOption is a selection or a return option of LIST (RFC 5258). Parse reads
// what follows the name and notes the option in the arguments.
type ListOption struct {
	Name  string // upper case
	Parse func(*wire.Decoder, *ListArgs)
}

// ListArgs are the arguments of a LIST command.
type ListArgs struct {
	Ref      string
	Patterns []string
	Filter   ListBits // selection options given
	Return   ListBits // return options given
	Status   []*StatusItem
}

// ListBits is a set of LIST options.
type ListBits uint16

const (
	ListSubscribed ListBits = 1 << iota
	ListRemote
	ListRecursiveMatch
	ListSpecialUse
	ListChildren
	ListStatus
)

// A SelectParam is a parameter of SELECT and EXAMINE (RFC 4466 section 2.1).
type SelectParam struct {
	Name  string // upper case
	Parse func(*wire.Decoder, *SelectArgs)
}

// An EnableWord is a word that ENABLE takes (RFC 5161).
type EnableWord struct {
	Name  string // upper case; answered as Show
	Show  string // as ENABLED spells it; empty: Name
	Props Props
}
