package control

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"slices"
	"strconv"

	"imapd/control/config"
)

// objects writes each line as a JSON object. Many programs that read JSON fail, or
// take one of them and do not say which, where a key is there twice (RFC 8259
// section 4); so each is there once:
//
//   - time, level, msg, pid and ident, which say what a line of text begins with,
//     are the line's own;
//   - an attribute of the logger whose name the line has already is left out;
//   - of a line that has a name twice the second one, such as the pid of another
//     process, has "other_" before it.
//
// A line longer than syslog takes would be cut, and be no object any more: long texts
// in it are cut instead.
type objects struct {
	w      *bytes.Buffer
	inner  slog.Handler
	prefix string      // of keys: the groups, each with a "."
	attrs  []slog.Attr // those of WithAttrs
}

// ownKeys are those that every line has.
var ownKeys = []string{slog.TimeKey, slog.LevelKey, slog.MessageKey, "pid", "ident"}

func newObjects(w *bytes.Buffer, name string) *objects {
	inner := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: nameLevel})
	return &objects{w: w, inner: inner.WithAttrs([]slog.Attr{slog.Int("pid", os.Getpid()), slog.String("ident", name)})}
}

func nameLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey && a.Value.Any() == LevelNotice {
		a.Value = slog.StringValue("NOTICE")
	}
	return a
}

func (o *objects) Enabled(context.Context, slog.Level) bool { return true }

func (o *objects) Handle(ctx context.Context, r slog.Record) error {
	attrs := make([]slog.Attr, 0, r.NumAttrs()+len(o.attrs))
	taken := func(key string) bool {
		return slices.Contains(ownKeys, key) || slices.ContainsFunc(attrs, func(a slog.Attr) bool { return a.Key == key })
	}
	r.Attrs(func(a slog.Attr) bool {
		for _, a := range flat(nil, o.prefix, a) {
			for taken(a.Key) {
				a.Key = "other_" + a.Key
			}
			attrs = append(attrs, a)
		}
		return true
	})
	for _, a := range o.attrs {
		if !taken(a.Key) {
			attrs = append(attrs, a)
		}
	}
	if err := o.write(ctx, r, attrs); err != nil {
		return err
	}
	for most := maxSyslog / 2; o.w.Len() > maxSyslog && most > 0; most /= 2 {
		r.Message = clip(r.Message, most)
		for i, a := range attrs {
			if k := a.Value.Kind(); k == slog.KindString || k == slog.KindAny {
				attrs[i].Value = slog.StringValue(clip(a.Value.String(), most))
			}
		}
		o.w.Reset()
		if err := o.write(ctx, r, attrs); err != nil {
			return err
		}
	}
	return nil
}

func (o *objects) write(ctx context.Context, r slog.Record, attrs []slog.Attr) error {
	line := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	line.AddAttrs(attrs...)
	return o.inner.Handle(ctx, line)
}

// clip returns the first octets of s.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// flat appends a to attrs, of a group what is in it.
func flat(attrs []slog.Attr, prefix string, a slog.Attr) []slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Value.Kind() != slog.KindGroup {
		a.Key = prefix + a.Key
		return append(attrs, a)
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, b := range a.Value.Group() {
		attrs = flat(attrs, prefix, b)
	}
	return attrs
}

func (o *objects) WithAttrs(attrs []slog.Attr) slog.Handler {
	p := *o
	p.attrs = slices.Clip(o.attrs)
	for _, a := range attrs {
		p.attrs = flat(p.attrs, o.prefix, a)
	}
	// What was said last counts.
	for i := len(p.attrs) - 1; i >= 0; i-- {
		if slices.ContainsFunc(p.attrs[i+1:], func(a slog.Attr) bool { return a.Key == p.attrs[i].Key }) {
			p.attrs = slices.Delete(slices.Clone(p.attrs), i, i+1)
		}
	}
	return &p
}

func (o *objects) WithGroup(name string) slog.Handler {
	p := *o
	p.prefix += name + "."
	return &p
}

// lostText returns how to say that lines were lost, which needs no page.
func lostText(conf *config.Config, name string) func(n int) string {
	if conf.LogFormat != config.LogJSON {
		return nil
	}
	return func(n int) string {
		var text bytes.Buffer
		slog.New(newObjects(&text, name)).Warn(lost(n), "lines", n)
		return string(bytes.TrimSuffix(text.Bytes(), []byte("\n")))
	}
}

func lost(n int) string { return strconv.Itoa(n) + " log lines were lost" }
