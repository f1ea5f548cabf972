package imap

import (
	"strings"
	"time"

	"imapd/imap/wire"
	"imapd/maildir"
)

// searchKeyRows are the keys of RFC 9051 section 6.4.4, and those of RFC 3501
// that it leaves out: NEW, OLD and RECENT.
var searchKeyRows = []SearchKey{
	{"ALL", fixed(SearchTest{})},
	{"NOT", parseNot},
	{"OR", parseOr},
	{"UID", parseUIDKey},

	{"ANSWERED", flagKey(maildir.Answered)},
	{"DELETED", fixed(deletedTest)},
	{"DRAFT", flagKey(maildir.Draft)},
	{"FLAGGED", flagKey(maildir.Flagged)},
	{"SEEN", flagKey(maildir.Seen)},
	{"UNANSWERED", negated(flagKey(maildir.Answered))},
	{"UNDELETED", negated(fixed(deletedTest))},
	{"UNDRAFT", negated(flagKey(maildir.Draft))},
	{"UNFLAGGED", negated(flagKey(maildir.Flagged))},
	{"UNSEEN", fixed(unseenTest)},
	{"KEYWORD", parseKeyword},
	{"UNKEYWORD", negated(parseKeyword)},
	{"RECENT", fixed(recentTest)},
	{"OLD", negated(fixed(recentTest))},
	{"NEW", func(*SearchParser) SearchTest { return SearchTest{All: []SearchTest{recentTest, unseenTest}} }},

	{"BEFORE", dayKey(func(day, want int64) bool { return day < want })},
	{"ON", dayKey(func(day, want int64) bool { return day == want })},
	{"SINCE", dayKey(func(day, want int64) bool { return day >= want })},
	{"SENTBEFORE", sentKey(func(day, want int64) bool { return day < want })},
	{"SENTON", sentKey(func(day, want int64) bool { return day == want })},
	{"SENTSINCE", sentKey(func(day, want int64) bool { return day >= want })},
	{"LARGER", sizeKey(func(size, than int64) bool { return size > than })},
	{"SMALLER", sizeKey(func(size, than int64) bool { return size < than })},

	{"BCC", headerKey("Bcc", addressField)},
	{"CC", headerKey("Cc", addressField)},
	{"FROM", headerKey("From", addressField)},
	{"TO", headerKey("To", addressField)},
	{"SUBJECT", headerKey("Subject", phraseField)},
	{"HEADER", parseHeaderKey},
	{"BODY", textKey(false)},
	{"TEXT", textKey(true)},
}

// fixed is the parser of a key without arguments.
func fixed(t SearchTest) func(*SearchParser) SearchTest {
	return func(*SearchParser) SearchTest { return t }
}

// negated is the parser of the key that matches what another one does not.
func negated(parse func(*SearchParser) SearchTest) func(*SearchParser) SearchTest {
	return func(p *SearchParser) SearchTest {
		return not(parse(p))
	}
}

func not(t SearchTest) SearchTest {
	t.Not = !t.Not
	return t
}

func parseNot(p *SearchParser) SearchTest {
	p.SP()
	return not(p.Key())
}

// parseOr makes "a or b" of "not both: not a and not b".
func parseOr(p *SearchParser) SearchTest {
	p.SP()
	a := p.Key()
	p.SP()
	b := p.Key()
	return SearchTest{Not: true, All: []SearchTest{not(a), not(b)}}
}

func parseUIDKey(p *SearchParser) SearchTest {
	p.SP()
	return setTest(Set{NumSet: p.NumSet(), UID: true})
}

// setTest matches the messages of a set. A number that is not in use is no
// error here, and matches nothing.
func setTest(set Set) SearchTest {
	if set.UID || set.Saved {
		return SearchTest{
			Bind: func(b *Box) func(*Searching) (bool, error) {
				uids := b.uids(set)
				return func(x *Searching) (bool, error) { return uids.Contains(uint32(x.Msg.UID), 0), nil }
			},
			Range: func(b *Box) (lo, hi int) {
				from, to := bounds(b.uids(set))
				lo, _ = b.view.Find(maildir.UID(from))
				hi, there := b.view.Find(maildir.UID(to))
				if there {
					hi++
				}
				return lo, hi
			},
		}
	}
	return SearchTest{
		Bind: func(b *Box) func(*Searching) (bool, error) {
			numbers := set.Resolve(uint32(b.view.Len()))
			return func(x *Searching) (bool, error) { return numbers.Contains(uint32(x.Seq), 0), nil }
		},
		Range: func(b *Box) (lo, hi int) {
			from, to := bounds(set.Resolve(uint32(b.view.Len())))
			return int(from) - 1, int(to)
		},
	}
}

func flagKey(f maildir.Flags) func(*SearchParser) SearchTest {
	return fixed(SearchTest{Match: func(x *Searching) (bool, error) { return x.Msg.Flags&f != 0, nil }})
}

// unseenTest knows where the unread mail begins: in a mailbox that is read from
// top to bottom it looks at the last few messages only.
var unseenTest = SearchTest{
	Match: func(x *Searching) (bool, error) { return x.Msg.Flags&maildir.Seen == 0, nil },
	Range: func(b *Box) (lo, hi int) {
		i, ok := b.view.FirstUnseen()
		if !ok {
			return 0, 0
		}
		return i, b.view.Len()
	},
}

// deletedTest knows whether there is anything to look for.
var deletedTest = SearchTest{
	Match: func(x *Searching) (bool, error) { return x.Msg.Flags&maildir.Deleted != 0, nil },
	Range: func(b *Box) (lo, hi int) {
		if b.view.Deleted() == 0 {
			return 0, 0
		}
		return 0, b.view.Len()
	},
}

var recentTest = SearchTest{Match: func(x *Searching) (bool, error) { return x.Box.isRecent(x.Msg.UID), nil }}

func parseKeyword(p *SearchParser) SearchTest {
	p.SP()
	name := p.Flag()
	if strings.HasPrefix(name, `\`) {
		p.FailText("", "Not a keyword")
	}
	return SearchTest{Bind: func(b *Box) func(*Searching) (bool, error) {
		k := b.view.Keyword(name) // -1 if the mailbox does not have it
		return func(x *Searching) (bool, error) { return x.Msg.HasKeyword(k), nil }
	}}
}

const secondsPerDay = 24 * 60 * 60

// day returns the number of the day that t falls on in its zone.
func day(t time.Time) int64 {
	_, offset := t.Zone()
	n := t.Unix() + int64(offset)
	if n < 0 {
		n -= secondsPerDay - 1
	}
	return n / secondsPerDay
}

// dayKey compares the day of INTERNALDATE in the server's own zone.
func dayKey(is func(day, want int64) bool) func(*SearchParser) SearchTest {
	return func(p *SearchParser) SearchTest {
		p.SP()
		want := day(p.Date())
		return SearchTest{Cost: CostStat, Match: func(x *Searching) (bool, error) {
			date, err := x.Box.mailbox.Date(x.Msg)
			return err == nil && is(day(date), want), err
		}}
	}
}

// sentKey compares the day that the Date field has in the zone that it names. A
// message without a Date that can be read counts as of 1970: the specification
// is silent, and so it is in Dovecot.
func sentKey(is func(day, want int64) bool) func(*SearchParser) SearchTest {
	return func(p *SearchParser) SearchTest {
		p.SP()
		want := day(p.Date())
		p.strings.date = true
		return SearchTest{Cost: CostHeader, Match: func(x *Searching) (bool, error) {
			date, err := x.sent()
			return err == nil && is(day(date), want), err
		}}
	}
}

func sizeKey(is func(size, than int64) bool) func(*SearchParser) SearchTest {
	return func(p *SearchParser) SearchTest {
		p.SP()
		than := p.Number64()
		return SearchTest{Cost: CostStat, Match: func(x *Searching) (bool, error) {
			size, err := x.Box.mailbox.Size(x.Msg)
			return err == nil && is(size, than), err
		}}
	}
}

// bounds returns the first and the last number of a set without "*", 1 and 0 if
// it is empty.
func bounds(set wire.NumSet) (from, to uint32) {
	r := set.Ranges()
	if len(r) == 0 {
		return 1, 0
	}
	return r[0].Start, r[len(r)-1].Stop
}
