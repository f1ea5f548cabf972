package test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestNoTunnel starts our server so that a network client looks like a tunnel's:
// it must not be served without a login.
func TestNoTunnel(t *testing.T) {
	t.Parallel()
	s := peer.Imapd(t, basic(t), peer.Options{})
	r := peer.NewRoom(t)
	addr := peer.FreeAddr(t)
	cert := peer.Certificate(t, r.Dir)
	conf := r.File("stunnel.conf", fmt.Sprintf("foreground = yes\npid =\ncert = %s\nkey = %s/key.pem\n[imaps]\naccept = %s\npty = yes\nexec = %s\nexecArgs = imapd -C %s\n",
		cert, r.Dir, addr, peer.Binary(t), s.ConfFile()))
	r.Start("stunnel", "stunnel4", conf)
	other := peer.FreeAddr(t)
	r.Start("socat", "socat", "TCP-LISTEN:"+port(other)+",bind=127.0.0.1,fork", "EXEC:"+peer.Binary(t)+" -C "+s.ConfFile()+",pipes")
	third := peer.FreeAddr(t)
	// Neither a socket on standard input nor a word in the environment.
	script := r.File("logged", "#!/bin/sh\ntee "+r.Dir+"/input | "+peer.Binary(t)+" -C "+s.ConfFile()+"\n")
	must(0, os.Chmod(script, 0o755))(t)
	// Nothing that could be seen of a socket at all.
	fourth := peer.FreeAddr(t)
	hidden := r.File("hidden", "#!/bin/sh\ntee "+r.Dir+"/input2 | "+peer.Binary(t)+" -C "+s.ConfFile()+" 2>/dev/null | tee "+r.Dir+"/output\n")
	must(0, os.Chmod(hidden, 0o755))(t)
	host, number, _ := net.SplitHostPort(third)
	_, hiddenNumber, _ := net.SplitHostPort(fourth)
	r.Start("inetd", "/usr/sbin/inetd", "-d", r.File("inetd.conf", fmt.Sprintf("%s:%s stream tcp nowait root %s logged\n%[1]s:%[4]s stream tcp nowait root %[5]s hidden\n",
		host, number, script, hiddenNumber, hidden)))
	for name, conn := range map[string]net.Conn{
		"stunnel":   tls.Client(peer.Dial(t, "tcp", addr, ""), &tls.Config{InsecureSkipVerify: true}),
		"socat":     peer.Dial(t, "tcp", other, ""),
		"tee":       peer.Dial(t, "tcp", third, ""),
		"tee twice": peer.Dial(t, "tcp", fourth, ""),
	} {
		if strings.HasPrefix(name, "tee") { // it waits for us to end as well
			fmt.Fprint(conn, "a CAPABILITY\r\n")
			must(0, conn.(*net.TCPConn).CloseWrite())(t)
		}
		got, err := io.ReadAll(conn)
		if strings.Contains(string(got), "PREAUTH") || strings.Contains(string(got), "* OK") {
			t.Errorf("%s: the client got %q, %v", name, got, err)
		}
	}
	r.Told(`imapd\[\d+\]: a network server hands over its client without a socket`)
	r.Logged(`imapd\[\d+\]: root cannot be the client on a pipe`)
}

// TestNoStorm has inetd start a server that cannot start, with wait: for each
// client it does so once, and the client sees its connection closed.
func TestNoStorm(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ conf, logged string }{
		"nothing can be read": {"configdirectory: nowhere\n", `configdirectory: "nowhere"`},
		// The parent never looks at that.
		"no certificate": {"configdirectory: /tmp\ncyrus_user: 65534\ntls_server_cert: /dev/null\ntls_server_key: /dev/null\n", `tls_server_cert`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := peer.NewRoom(t)
			at := inetd("wait")(r, t, []string{"-C", r.File("imapd.conf", tt.conf)})
			const clients = 5
			for range clients {
				conn := at.connect(t, "")
				if out, err := untilEnd(conn); err != nil || out != "" {
					t.Errorf("the client gets %q, %v", out, err)
				}
			}
			r.Logged(`imapd\[\d+\]: .*/imapd\.conf:\d+: ` + tt.logged)
			out, err := os.ReadFile(r.Dir + "/inetd.out")
			if n := strings.Count(string(out), " execv "); err != nil || n != clients {
				t.Errorf("%d processes for %d clients, %v", n, clients, err)
			}
		})
	}
}
