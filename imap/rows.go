package imap

import (
	"time"

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
	Key  string // of an item with arguments: items with the same are sent once
	Cost Cost
	Seen bool // sets \Seen in a mailbox that is not read-only
	Tree bool // calls Fetching.tree, so that all share one pass over the file
	// ModSeq: the mailbox must have modseqs, and the client wants them from now on.
	ModSeq bool
	Write  func(*Fetching) error
}

// Fetching is one message in the course of a FETCH. Write appends to Session.out
// the item's name and value, without surrounding space, and calls
// Session.spill between pieces of something large. If it appends nothing, the
// item is not there. If it fails, what it has appended is taken back, and the
// command goes on with the next item and ends with the error.
//
// The file of the message is behind document: open, header, tree, content.
type Fetching struct {
	*Session
	Box *Box
	Msg maildir.Message
	Seq int // sequence number, from 1

	newSeen bool      // this command has set \Seen
	heeded  time.Time // when the session was last asked whether it has to end
	document
}

// A FetchModifier is a modifier of FETCH (RFC 4466 section 2.4). Parse reads what
// follows the name.
type FetchModifier struct {
	Name  string // upper case
	Parse func(*wire.Decoder, *FetchArgs)
}

// A StoreModifier is a modifier of STORE (RFC 4466 section 2.5). Parse reads what
// follows the name.
type StoreModifier struct {
	Name  string // upper case
	Parse func(*wire.Decoder, *StoreArgs)
}

// A SearchKey is a key of SEARCH. It is parsed once a command.
type SearchKey struct {
	Name string // upper case

	// Parse reads what follows the name. An error is left in the parser.
	Parse func(*SearchParser) SearchTest
}

// A SearchTest is a parsed key: either Match or All says what it matches.
type SearchTest struct {
	Cost Cost
	// Match runs at most once a message and level of cost, for several messages
	// at a time, and must change nothing but the Searching.
	Match func(*Searching) (bool, error)
	// Bind, if not nil, is called when the command runs, and returns Match for
	// the mailbox as it is then.
	Bind func(*Box) func(*Searching) (bool, error)
	// Range, if not nil, returns the indexes lo to hi-1 of the view outside of
	// which nothing matches.
	Range func(*Box) (lo, hi int)

	All []SearchTest // matches what all of these match
	Not bool         // matches what it would not match otherwise
}

// A SearchReturn is a return option of SEARCH (RFC 4466 section 2.6.1).
type SearchReturn struct {
	Name  string // upper case
	Needs SearchNeeds

	// Parse reads what follows the name, and notes what it has to; nil: nothing.
	Parse func(*SearchParser, *SearchArgs)
	// Write appends a space and the data to Session.out, or nothing; nil: never
	// anything.
	Write func(*Session, *SearchOutcome) error
}

// SearchNeeds is what a return option must know of the messages that were found.
type SearchNeeds uint8

const (
	NeedFirst SearchNeeds = 1 << iota // the one with the lowest number
	NeedLast                          // the one with the highest number
	NeedAll
)

// A StatusItem is an item of STATUS, of LIST RETURN (STATUS), or both.
type StatusItem struct {
	Name   string // upper case
	Enable Props  // that asking for the item implies, as HIGHESTMODSEQ does

	// Append appends the value (not the name) to b.
	Append func(b []byte, st Status) ([]byte, error)
}

// Status is one mailbox in the course of a STATUS.
type Status struct {
	*Session
	Mailbox *maildir.Mailbox
	Now     *maildir.Snapshot
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
	Extended bool     // written in the extended syntax (RFC 9051 section 6.3.9)
	Filter   ListBits // selection options given
	Return   ListBits // return options given, or implied
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
