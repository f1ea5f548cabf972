package control

import (
	"io"
	"testing"

	"imapd/control/config"
)

// BenchmarkLines has a session's logger made, and its first and last line written.
func BenchmarkLines(b *testing.B) {
	const host, id = "[192.0.2.1]", "mail.example.org-1795743405-27566-1-6c69feb295cb1252"
	for name, format := range map[string]config.LogFormat{"text": config.LogSyslog, "json": config.LogJSON} {
		l := logTo(newFileSink(io.Discard, "imapd", format == config.LogJSON), func(c *config.Config) { c.LogFormat = format })
		s := l.With("host", host, "session", id)
		for part, do := range map[string]func(){
			"with":  func() { l.With("host", host, "session", id) },
			"login": func() { LogLogin(s, Login{host, "alice", "PLAIN", true, id}) },
			"end":   func() { LogEnd(s, End{host, "alice", "logout", 2, 30, 400, id}) },
		} {
			b.Run(name+"/"+part, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					do()
				}
			})
		}
	}
}
