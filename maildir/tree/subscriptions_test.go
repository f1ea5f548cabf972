package tree

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cfg      Config
		file     string // "-" is none
		names    []string
		subbed   string // after Subscribe(X/ü)
		unsubbed string // after Unsubscribe(Work)
	}{
		{Config{Layout: PlusPlus}, "-", nil, "V\t2\n\nX\t&APw-\n", "-"},
		{Config{Layout: PlusPlus}, "", nil, "V\t2\n\nX\t&APw-\n", ""},
		{Config{Layout: PlusPlus}, "V\t2\n\nWork\nWork\tProjects\nINBOX\nGone\n", []string{"Work", "Work/Projects", "INBOX", "Gone"},
			"V\t2\n\nWork\nWork\tProjects\nINBOX\nGone\nX\t&APw-\n", "V\t2\n\nWork\tProjects\nINBOX\nGone\n"},
		{Config{Layout: PlusPlus}, "INBOX\nnames\nnames\n\n.dot\nbad/slash\nA.B\nWork\r\nlast", []string{"INBOX", "names", "A/B", "Work", "last"},
			"INBOX\nnames\nnames\n\n.dot\nbad/slash\nA.B\nWork\r\nlast\nX.&APw-\n", "INBOX\nnames\nnames\n\n.dot\nbad/slash\nA.B\nlast\n"},
		{Config{Layout: FS}, "inbox\nA/B\nA.B\nWork\n", []string{"INBOX", "A/B", "A.B", "Work"}, "inbox\nA/B\nA.B\nWork\nX/&APw-\n", "inbox\nA/B\nA.B\n"},
		{Config{Layout: FS, Names: UTF8}, "V\t2\n\nEntwürfe\nx\x01ty\nb\x01nc\n", []string{"Entwürfe", "x\ty"}, "V\t2\n\nEntwürfe\nx\x01ty\nb\x01nc\nX\tü\n", "V\t2\n\nEntwürfe\nx\x01ty\nb\x01nc\n"},
		{Config{Layout: PlusPlus}, "&bad\nEntw&APw-rfe\n", []string{"Entwürfe"}, "&bad\nEntw&APw-rfe\nX.&APw-\n", "&bad\nEntw&APw-rfe\n"},
	} {
		for _, edit := range []string{"subscribe", "unsubscribe"} {
			tt.cfg.Root = t.TempDir()
			if tt.cfg.Names == AutoNames {
				tt.cfg.Names = UTF7
			}
			tree := open(t, tt.cfg)
			path := tt.cfg.Root + "/" + subscriptionsName
			if tt.file != "-" {
				if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := tree.Subscriptions(); !slices.Equal(got, tt.names) || err != nil {
				t.Errorf("%q: %q, %v; want %q", tt.file, got, err, tt.names)
			}
			want := tt.subbed
			var err error
			for range 2 {
				if edit == "subscribe" {
					err = tree.Subscribe("X/ü")
				} else {
					err, want = tree.Unsubscribe("Work"), tt.unsubbed
				}
			}
			b, rerr := os.ReadFile(path)
			if rerr != nil {
				b = []byte("-")
			}
			if err != nil || string(b) != want {
				t.Errorf("%q: after %s %q, %v; want %q", tt.file, edit, b, err, want)
			}
		}
	}
}

func TestSubscriptionPrefix(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	tree := open(t, Config{Root: root, Separator: '.', Prefix: "INBOX."})
	for _, name := range []string{"INBOX", "INBOX.Sent", "inbox.A.B"} {
		if err := tree.Subscribe(name); err != nil {
			t.Fatal(err)
		}
	}
	b, _ := os.ReadFile(root + "/" + subscriptionsName)
	if want := "V\t2\n\nINBOX\nSent\nA\tB\n"; string(b) != want {
		t.Errorf("file %q, want %q", b, want)
	}
	if got, err := tree.Subscriptions(); !slices.Equal(got, []string{"INBOX", "INBOX.Sent", "INBOX.A.B"}) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestConcurrentSubscriptions(t *testing.T) {
	t.Parallel()
	tree := open(t, Config{Root: t.TempDir()})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 10 {
				if err := tree.Subscribe(fmt.Sprintf("%d/%d", g, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got, err := tree.Subscriptions(); len(got) != 40 || err != nil {
		t.Errorf("%d names, %v", len(got), err)
	}
}

func FuzzSubscriptions(f *testing.F) {
	f.Add([]byte("V\t2\n\nWork\nWork\tProjects\nINBOX\n"), "A/B")
	f.Add([]byte("INBOX\nnames\nnames\n\n.dot\nbad/slash"), "names")
	f.Add([]byte("V\t2\n\nx\x01ty\nb\x01nc\r\n"), "x\ty")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		for _, tree := range fuzzTrees {
			file := parseSubscriptions(data)
			names := tree.subscribed(&file)
			for _, n := range names {
				parts, err := tree.parse(n)
				if err != nil {
					t.Fatalf("%q: %v", n, err)
				}
				line := tree.subscriptionLine(&file, parts)
				if strings.ContainsRune(line, '\n') {
					t.Fatalf("%q: line %q", n, line)
				}
			}
			parts, err := tree.parse(name)
			if err != nil {
				continue
			}
			file.lines = append(file.lines, tree.subscriptionLine(&file, parts))
			again := parseSubscriptions(file.encode())
			got := tree.subscribed(&again)
			if !slices.Contains(got, tree.name(parts)) || len(got) < len(names) {
				t.Errorf("%q and %q: %q, then %q", data, name, names, got)
			}
		}
	})
}
