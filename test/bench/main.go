// Bench measures our server beside a real Dovecot and prints how the two
// compare.
//
//	go run ./test/bench [-n 10000] [-rounds 5] [-large] [-million] [-only regexp] [-skip regexp]
//
// # How it measures
//
// Both servers run at the same time on the same machine, each on its own copy
// of one generated corpus; the copies share the files' contents through hard
// links. A client of ours sends both the same octets. In each round every piece
// of work is done by the one and at once by the other, the first taking turns,
// so that whatever else the machine does meets both. Time is taken from before
// the command is sent until its tagged response is there; preparing, reading
// apart and comparing the answers is outside.
//
// What one server answers must be what the other answers, item by item, in
// every round. Only what RFC 9051 leaves to a server's taste is evened out: the
// order of the items of a FETCH and of the flags of a list, quoted or literal
// strings, texts for humans, UIDVALIDITY of mailboxes made in the run. Where
// answers differ, no figure is printed: that work shows the first difference,
// and the program ends with status 1.
//
// A figure is the median of the rounds, and the least. The ratio is our median
// divided by Dovecot's: below 1 we are faster, and it, not the time, is what
// can be compared between machines. The second ratio is of processor time, all
// threads and processes of a server added up, the median of the rounds, which
// stands before it: on a machine that has other work too it is the steadier one.
//
// What has no counterpart at Dovecot's stands in two tables of its own: what a
// process costs that serves one client, as inetd starts it, beside what it costs
// to read the folder once, and to greet and nothing else; and what commands cost
// in folders of many sizes.
//
// Dovecot is set up for speed rather than as it comes: its processes serve one
// session after the other. Its full-text search is not used, nor is there one
// in our server. Both sync to disk by their default rules.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
)

func main() {
	var o options
	flag.IntVar(&o.messages, "n", 10000, "messages in the mailbox")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds")
	flag.BoolVar(&o.large, "large", false, "also measure a mailbox of ten times as many messages")
	flag.BoolVar(&o.million, "million", false, "also measure our server alone on a hundred times as many messages")
	flag.Func("only", "do only the groups of work whose name matches `regexp`", o.pick(&o.only))
	flag.Func("skip", "leave out the groups of work whose name matches `regexp`", o.pick(&o.skip))
	flag.Parse()
	o.small, o.clients, o.deliveries = 200, 200, 200
	t := &program{}
	err := run(t, o, os.Stdout)
	t.finish()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options say how much is measured. All counts are at least 1.
type options struct {
	messages   int // in the mailbox
	rounds     int
	small      int // repetitions of work on single messages, and folders
	clients    int // idle connections
	deliveries int // to clients that idle
	large      bool
	million    bool
	only, skip *regexp.Regexp // of names of groups; nil: all, none
}

// pick parses a regular expression into to.
func (o *options) pick(to **regexp.Regexp) func(string) error {
	return func(s string) (err error) {
		*to, err = regexp.Compile(s)
		return err
	}
}

// wants reports whether the group name is to be measured.
func (o *options) wants(name string) bool {
	return (o.only == nil || o.only.MatchString(name)) && (o.skip == nil || !o.skip.MatchString(name))
}
