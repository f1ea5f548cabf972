package control

import (
	"strings"
	"testing"
)

func TestParseOptions(t *testing.T) {
	t.Parallel()
	plain := Options{Config: DefaultConfig, Uses: 250, Timeout: 60}
	with := func(f func(*Options)) Options {
		o := plain
		f(&o)
		return o
	}
	for _, tt := range []struct {
		args string
		want Options
	}{
		{"", plain},
		{"--", plain},
		{"-C /f", with(func(o *Options) { o.Config, o.ConfigGiven = "/f", true })},
		{"-C/f", with(func(o *Options) { o.Config, o.ConfigGiven = "/f", true })},
		{"-C -x", with(func(o *Options) { o.Config, o.ConfigGiven = "-x", true })},
		{"-U 5", with(func(o *Options) { o.Uses = 5 })},
		{"-U30", with(func(o *Options) { o.Uses = 30 })},
		{"-U -1", with(func(o *Options) { o.Uses = 0 })},
		{"-T 0", with(func(o *Options) { o.Timeout, o.TimeoutGiven = 0, true })},
		{"-D", with(func(o *Options) { o.Debugger = true })},
		{"-s -p 2", with(func(o *Options) { o.TLS, o.SSF = true, 2 })},
		{"-sp2", with(func(o *Options) { o.TLS, o.SSF = true, 2 })},
		{"-lsC/f", with(func(o *Options) { o.Listen, o.TLS, o.Config, o.ConfigGiven = true, true, "/f", true })},
		{"-t", with(func(o *Options) { o.Test = true })},
		{"-V --", with(func(o *Options) { o.Version = true })},
	} {
		o, err := ParseOptions(strings.Fields(tt.args))
		if err != nil || *o != tt.want {
			t.Errorf("%q: got %+v, %v, want %+v", tt.args, o, err, tt.want)
		}
	}
	for _, tt := range []struct{ args, want string }{
		{"-x", "unknown option -x"},
		{"-\x1b", `unknown option -\x1b`},
		{"-N", "unknown option -N"},
		{"-H", "PROXY"},
		{"-C", "-C needs an argument"},
		{"-lC", "-C needs an argument"},
		{"-U five", "-U needs a number"},
		{"-p 99999999999", "-p needs a number"},
		{"-", "unexpected argument"},
		{"file", "unexpected argument"},
		{"-l file", "unexpected argument"},
		{"-- -l", "unexpected argument"},
		{"--help", "unknown option --"},
	} {
		if o, err := ParseOptions(strings.Fields(tt.args)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %+v, %v, want %q", tt.args, o, err, tt.want)
		}
	}
}

func TestDebugCommand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"gdb %s %d", "gdb /sbin/imapd 42"},
		{"echo exe=%s pid=%d svc=%s", "echo exe=/sbin/imapd pid=42 svc=imap"},
		{"100%% %s %d %s %s", "100% /sbin/imapd 42 imap %s"},
		{"date +%Y %", "date +%Y %"},
	} {
		if got := debugCommand(tt.in, "/sbin/imapd", 42, "imap"); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}
