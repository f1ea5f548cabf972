package imap

import (
	"slices"

	"imapd/imap/wire"
)

// An Extension is everything that one specification adds to the server. Each
// is registered by the file named after it, and nothing else mentions it.
type Extension struct {
	Name string // as the manual and the transcript testdata/<name>.txt spell it
	RFC  int

	Caps     func(*Session) []string // what CAPABILITY lists now; nil for nothing
	Commands []Command
	Fetch    []FetchItem     // data items of FETCH
	FetchMod []FetchModifier // modifiers of FETCH
	StoreMod []StoreModifier // modifiers of STORE
	Search   []SearchKey     // keys of SEARCH (SORT, THREAD)
	Results  []SearchReturn  // return options of SEARCH
	Status   []StatusItem    // items of STATUS
	Filters  []ListOption    // LIST selection options
	Returns  []ListOption    // LIST return options
	Select   []SelectParam   // parameters of SELECT and EXAMINE
	Enable   []EnableWord    // words of ENABLE

	next *Extension // in the list of all
}

// A Command is one row of the dispatch table. Make it with always, unauthed,
// authed or selected, or with one of the stream forms: the type of the handler
// says in which states the command may run.
type Command struct {
	Name string
	Mode Mode

	need  state
	gates []func(*Session) error
	bind  func(*wire.Decoder) (func(*Session) error, error)
}

// Mode says how a command bears on what the client knows of its mailbox.
type Mode uint8

const (
	// UsesSeq: the command takes or returns sequence numbers, so no EXPUNGE
	// may be sent while it runs (RFC 9051 section 7.5.1).
	UsesSeq Mode = 1 << iota
	// Silent: no look at the mailbox and no mailbox data before the tagged reply.
	Silent
)

// state is a set of the states of RFC 9051 section 3.
type state uint8

const (
	stateUnauthed state = 1 << iota
	stateAuthed
	stateSelected

	loggedIn = stateAuthed | stateSelected
	anyState = stateUnauthed | loggedIn
)

// command ties a parser to its handler and hides the argument type A. The
// handler runs after the whole command has been read and found well-formed.
func command[A any](name string, need state, parse func(*wire.Decoder) A, run func(*Session, A) error) Command {
	return Command{Name: name, need: need, bind: func(d *wire.Decoder) (func(*Session) error, error) {
		args := parse(d)
		if err := d.End(); err != nil {
			return nil, err
		}
		return func(s *Session) error { return run(s, args) }, nil
	}}
}

// always makes a command that may run in every state.
func always[A any](name string, parse func(*wire.Decoder) A, run func(*Session, A) error) Command {
	return command(name, anyState, parse, run)
}

// unauthed makes a command that may run only before login.
func unauthed[A any](name string, parse func(*wire.Decoder) A, run func(*Session, A) error) Command {
	return command(name, stateUnauthed, parse, run)
}

// authed makes a command that may run after login, with or without a mailbox.
func authed[A any](name string, parse func(*wire.Decoder) A, run func(*Session, *User, A) error) Command {
	return command(name, loggedIn, parse, func(s *Session, a A) error { return run(s, s.user, a) })
}

// selected makes a command that needs a selected mailbox.
func selected[A any](name string, parse func(*wire.Decoder) A, run func(*Session, *Box, A) error) Command {
	return command(name, stateSelected, parse, func(s *Session, a A) error { return run(s, s.box, a) })
}

// stream makes a command whose handler reads its arguments itself, because
// they do not fit into memory (APPEND), because lines follow that are no
// commands (AUTHENTICATE, IDLE), or both. The decoder stands behind the
// command's name, before the space. The handler calls End; whatever it leaves
// unread, in particular when it returns early with an error, is skipped.
func stream(name string, need state, run func(*Session, *wire.Decoder) error) Command {
	return Command{Name: name, need: need, bind: func(d *wire.Decoder) (func(*Session) error, error) {
		return func(s *Session) error { return run(s, d) }, nil
	}}
}

// unauthedStream is unauthed for a handler that reads its arguments itself.
func unauthedStream(name string, run func(*Session, *wire.Decoder) error) Command {
	return stream(name, stateUnauthed, run)
}

// authedStream is authed for a handler that reads its arguments itself.
func authedStream(name string, run func(*Session, *User, *wire.Decoder) error) Command {
	return stream(name, loggedIn, func(s *Session, d *wire.Decoder) error { return run(s, s.user, d) })
}

// with returns the command with a mode added.
func (c Command) with(m Mode) Command {
	c.Mode |= m
	return c
}

// unless returns the command with a gate: it is asked at dispatch, when all
// earlier commands have run, and before a single argument is read. If it
// returns an error, that is the reply, and a synchronizing literal among the
// arguments is not asked for.
func (c Command) unless(gate func(*Session) error) Command {
	c.gates = append(slices.Clip(c.gates), gate)
	return c
}

// selectedStream is selected for a handler that reads its arguments itself.
func selectedStream(name string, run func(*Session, *Box, *wire.Decoder) error) Command {
	return stream(name, stateSelected, func(s *Session, d *wire.Decoder) error { return run(s, s.box, d) })
}

// none is the argument of a command without arguments.
type none struct{}

// noArgs parses a command without arguments.
func noArgs(*wire.Decoder) none { return none{} }

// extensions is the first of all, which hang together by next in the order of
// their names. It is filled while the package is initialised, by register only,
// and never changes afterwards.
//
// There is no map of words: the rows are few, to look at each costs less than
// what is done with it, and every process, also one for a single client that
// uses five of them, would have to make the maps before it can greet.
var extensions *Extension

// A table finds the row of a word among those of all extensions. Words are in
// upper case.
type table[V any] struct {
	rows func(*Extension) []V
	name func(*V) string
}

var (
	commands     = table[Command]{func(x *Extension) []Command { return x.Commands }, func(r *Command) string { return r.Name }}
	fetchItems   = table[FetchItem]{func(x *Extension) []FetchItem { return x.Fetch }, func(r *FetchItem) string { return r.Name }}
	fetchMods    = table[FetchModifier]{func(x *Extension) []FetchModifier { return x.FetchMod }, func(r *FetchModifier) string { return r.Name }}
	storeMods    = table[StoreModifier]{func(x *Extension) []StoreModifier { return x.StoreMod }, func(r *StoreModifier) string { return r.Name }}
	searchKeys   = table[SearchKey]{func(x *Extension) []SearchKey { return x.Search }, func(r *SearchKey) string { return r.Name }}
	resultOpts   = table[SearchReturn]{func(x *Extension) []SearchReturn { return x.Results }, func(r *SearchReturn) string { return r.Name }}
	statusItems  = table[StatusItem]{func(x *Extension) []StatusItem { return x.Status }, func(r *StatusItem) string { return r.Name }}
	listFilters  = table[ListOption]{func(x *Extension) []ListOption { return x.Filters }, func(r *ListOption) string { return r.Name }}
	listReturns  = table[ListOption]{func(x *Extension) []ListOption { return x.Returns }, func(r *ListOption) string { return r.Name }}
	selectParams = table[SelectParam]{func(x *Extension) []SelectParam { return x.Select }, func(r *SelectParam) string { return r.Name }}
	enableWords  = table[EnableWord]{func(x *Extension) []EnableWord { return x.Enable }, func(r *EnableWord) string { return r.Name }}
)

// all yields every row.
func (t table[V]) all(yield func(*V) bool) {
	for x := extensions; x != nil; x = x.next {
		rows := t.rows(x)
		for i := range rows {
			if !yield(&rows[i]) {
				return
			}
		}
	}
}

// find returns the row of word, nil where there is none.
func (t table[V]) find(word string) *V {
	for r := range t.all {
		if t.name(r) == word {
			return r
		}
	}
	return nil
}

// words returns the words of all rows, sorted.
func (t table[V]) words() []string {
	var all []string
	for r := range t.all {
		all = append(all, t.name(r))
	}
	slices.Sort(all)
	return all
}

// register adds x. A test holds that no two extensions have one name, or a word
// of one table. Inlined in forty places, all of which run once, it would double the
// time that they take.
//
//go:noinline
func register(x Extension) *Extension {
	at := &extensions
	for *at != nil && (*at).Name < x.Name {
		at = &(*at).next
	}
	x.next, *at = *at, &x
	return &x
}

// Extensions returns the names of all registered extensions, sorted. Tests
// hold them against the manual and the transcripts.
func Extensions() []string {
	var all []string
	for x := extensions; x != nil; x = x.next {
		all = append(all, x.Name)
	}
	return all
}

// Commands returns the names of all commands, sorted.
func Commands() []string { return commands.words() }

// when returns a Caps function for fixed capabilities in the states st.
func when(st state, caps ...string) func(*Session) []string {
	return func(s *Session) []string {
		if s.state()&st == 0 {
			return nil
		}
		return caps
	}
}
