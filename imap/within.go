package imap

import "time"

// OLDER and YOUNGER compare INTERNALDATE with a time so many seconds ago, to the
// second. See RFC 5032.
var _ = register(Extension{
	Name: "WITHIN",
	RFC:  5032,
	Caps: when(loggedIn, "WITHIN"),
	Search: []SearchKey{
		{"OLDER", agoKey(func(date, then int64) bool { return date <= then })},
		{"YOUNGER", agoKey(func(date, then int64) bool { return date >= then })},
	},
})

func agoKey(is func(date, then int64) bool) func(*SearchParser) SearchTest {
	return func(p *SearchParser) SearchTest {
		p.SP()
		seconds := int64(p.NZNumber())
		return SearchTest{Cost: CostStat, Bind: func(*Box) func(*Searching) (bool, error) {
			then := time.Now().Unix() - seconds
			return func(x *Searching) (bool, error) {
				date, err := x.Box.mailbox.Date(x.Msg)
				return err == nil && is(date.Unix(), then), err
			}
		}}
	}
}
