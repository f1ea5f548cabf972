package test

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imapd/test/peer"
)

// How launchers are started, each as its own manual says. All take what imapd's
// command line is to be.

// A starter starts a launcher for imapd with a command line, in a room.
type starter func(r *peer.Room, t *testing.T, imapd []string) launched

// inetd is openbsd-inetd. -d has it say how its children end.
func inetd(wait string) starter {
	return func(r *peer.Room, t *testing.T, imapd []string) launched {
		return inetdAt(r, t, peer.FreeAddr(t), "tcp", wait, imapd)
	}
}

// inetd6 is inetd with nowait over IPv6.
func inetd6(r *peer.Room, t *testing.T, imapd []string) launched {
	return inetdAt(r, t, peer.FreeAddr6(t), "tcp6", "nowait", imapd)
}

func inetdAt(r *peer.Room, t *testing.T, addr, protocol, wait string, imapd []string) launched {
	line := fmt.Sprintf("%s stream %s %s root %s imapd -T1 %s\n", addr, protocol, wait, peer.Binary(t), strings.Join(imapd, " "))
	r.Start("inetd", "/usr/sbin/inetd", "-d", r.File("inetd.conf", line))
	return launched{addr: addr}
}

// xinetd is not installed beside inetd: its package is unpacked.
func xinetd(wait string) starter {
	return func(r *peer.Room, t *testing.T, imapd []string) launched {
		addr := peer.FreeAddr(t)
		host, port, _ := net.SplitHostPort(addr)
		conf := r.File("xinetd.conf", fmt.Sprintf(`service imap
{
	type = UNLISTED
	socket_type = stream
	protocol = tcp
	bind = %s
	port = %s
	wait = %s
	user = root
	server = %s
	server_args = -T1 %s
	log_type = SYSLOG daemon
	log_on_success = PID HOST EXIT
}
`, host, port, wait, peer.Binary(t), strings.Join(imapd, " ")))
		r.Start("xinetd", peer.Unpacked(t, "xinetd", "usr/sbin/xinetd"), "-dontfork", "-f", conf)
		return launched{addr: addr}
	}
}

// The sockets of systemd's, by number.
const (
	plainSocket = iota
	tlsSocket
	unixSocket
	plain6Socket
)

// activate is systemd-socket-activate with all those sockets, or with options only
// the one of which the client makes use.
func activate(which int, options ...string) starter {
	return func(r *peer.Room, t *testing.T, imapd []string) launched {
		addrs := []string{peer.FreeAddr(t), peer.FreeAddr(t), r.Dir + "/imap", peer.FreeAddr6(t)}
		at := launched{addr: addrs[which], tls: which == tlsSocket}
		// So that the log goes where it goes under systemd.
		args := []string{"systemd-socket-activate", "-E", "JOURNAL_STREAM=1:1"}
		args = append(args, options...)
		if len(options) == 0 {
			args = append(args, "--fdname=imap:imaps:local:six")
		} else {
			addrs = addrs[which : which+1]
		}
		for _, a := range addrs {
			args = append(args, "-l", a)
		}
		p := r.Start("activate", append(append(args, peer.Binary(t), "-T1"), imapd...)...)
		if !strings.Contains(strings.Join(options, " "), "-a") {
			at.process = p // it becomes the server
		}
		return at
	}
}

// standalone is nobody: imapd listens itself.
func standalone(r *peer.Room, t *testing.T, imapd []string) launched {
	addr, last := peer.FreeAddr(t), len(imapd)-1 // where -C has its file
	lines := strings.Split(strings.TrimSpace(read(t, imapd[last])), "\n")
	conf := r.File("alone.conf", strings.Join(peer.MergeOptions(lines, []string{"listen: imap://" + addr}), "\n")+"\n")
	return launched{addr: addr, process: r.Start("imapd", slices.Concat([]string{peer.Binary(t), "-l"}, imapd[:last], []string{conf})...)}
}

func stunnel(r *peer.Room, t *testing.T, imapd []string) launched {
	addr := peer.FreeAddr(t)
	cert := peer.Certificate(t, r.Dir)
	conf := r.File("stunnel.conf", fmt.Sprintf(`foreground = yes
debug = 7
pid =
cert = %s
key = %s
[imaps]
accept = %s
exec = %s
execArgs = imapd -p 128 %s
`, cert, r.Dir+"/key.pem", addr, peer.Binary(t), strings.Join(imapd, " ")))
	r.Start("stunnel", "stunnel4", conf)
	return launched{addr: addr, tls: true}
}

func tcpserver(r *peer.Room, t *testing.T, imapd []string) launched {
	addr := peer.FreeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	r.Start("tcpserver", append([]string{"tcpserver", "-v", "-R", "-H", "-l0", host, port, peer.Binary(t)}, imapd...)...)
	return launched{addr: addr}
}

func ipcserver(r *peer.Room, t *testing.T, imapd []string) launched {
	addr := r.Dir + "/imap"
	r.Start("s6-ipcserver", append([]string{"s6-ipcserver", "-v", "-a", "0666", addr, peer.Binary(t)}, imapd...)...)
	return launched{addr: addr}
}

// From here on the client starts the server itself, as the user whose mail it is.

// ssh is sshd, and a client of its that makes a terminal for the server or does
// not.
func ssh(terminal string) starter {
	return func(r *peer.Room, t *testing.T, imapd []string) launched {
		peer.Need(t, "ssh", "ssh-keygen")
		addr := peer.FreeAddr(t)
		host, port, _ := net.SplitHostPort(addr)
		for _, key := range []string{"host", "mine"} {
			run(t, r.Dir, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", r.Dir+"/"+key)
		}
		uid, gid := peer.MailUID()
		users := r.File("users", fmt.Sprintf("jane:x:%d:%d::/:/bin/sh\n%s", uid, gid, read(t, "/etc/passwd")))
		must(0, os.Chmod(users, 0o644))(t)
		conf := r.File("sshd_config", fmt.Sprintf("ListenAddress %s\nHostKey %s/host\nAuthorizedKeysFile %[2]s/mine.pub\nStrictModes no\nUsePAM no\nPidFile none\n", addr, r.Dir))
		r.Start("sshd", "sh", "-c", `mount --bind "$0" /etc/passwd; exec /usr/sbin/sshd -D -e -f "$1"`, users, conf)
		peer.Dial(t, "tcp", addr, "").Close()
		return typed(r, `\* PREAUTH `, "ssh", terminal, "-q", "-p", port, "-i", r.Dir+"/mine", "-b", "127.0.0.7", "-F", "none", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile="+r.Dir+"/known", "jane@"+host, "exec "+peer.Binary(t)+" "+strings.Join(imapd, " "))
	}
}

// byHand is a terminal of this machine.
func byHand(r *peer.Room, t *testing.T, imapd []string) launched {
	return typed(r, `imapd: this is IMAP with the mail of jane; .*\* PREAUTH `,
		asJane(r, t, "script", "-qec", "exec "+peer.Binary(t)+" "+strings.Join(imapd, " "), "/dev/null")...)
}

// typed is a command on whose standard input somebody types, with lines that end in
// LF.
func typed(r *peer.Room, greeting string, args ...string) launched {
	p, keys := r.Type("typed", args...)
	return launched{process: p, enter: func() (leave func()) {
		io.WriteString(keys, "a SELECT INBOX\n")
		r.Told(`(?s)` + greeting + `.*\na OK `)
		return func() {
			io.WriteString(keys, "b LOGOUT\n")
			r.Told(`\nb OK `)
		}
	}}
}

// mutt has its server on two pipes. It is run in a terminal.
func mutt(r *peer.Room, t *testing.T, imapd []string) launched {
	rc := r.File("rc", "set tunnel=\""+tunnelCommand(r, t, imapd)+"\"\nset folder=imap://example.org/\nset spoolfile=+INBOX\n")
	peer.Own(t, rc)
	p, keys := r.Type("mutt", asJane(r, t, "env", "TERM=xterm", "LINES=24", "COLUMNS=80", "script", "-qec", "mutt -F "+rc, "/dev/null")...)
	return launched{process: p, enter: func() (leave func()) {
		r.Told("Report with attachment") // it shows INBOX
		return func() { io.WriteString(keys, "q") }
	}}
}

// mbsync has its server on a socket pair. It is stopped before it speaks, and goes
// on when it is told to leave.
func mbsync(r *peer.Room, t *testing.T, imapd []string) launched {
	near := r.Dir + "/near"
	must(0, os.Mkdir(near, 0o700))(t)
	rc := r.File("rc", fmt.Sprintf("IMAPStore far\nTunnel %q\n\nMaildirStore near\nInbox %s/INBOX\n\nChannel all\nFar :far:\nNear :near:\nCreate Near\nSyncState *\n",
		"kill -STOP $PPID; "+tunnelCommand(r, t, imapd), near))
	peer.Own(t, near)
	peer.Own(t, rc)
	p := r.Start("mbsync", asJane(r, t, "mbsync", "-c", rc, "all")...)
	return launched{process: p, enter: func() (leave func()) {
		return func() { p.Signal(syscall.SIGCONT) }
	}}
}

// tunnelEnded is what tunnelCommand tells of a server that ends well.
const tunnelEnded = `the tunnel ends with 0\n`

// tunnelCommand is a command for the shell that starts the server and tells its
// exit code.
func tunnelCommand(r *peer.Room, t *testing.T, imapd []string) string {
	out := r.File("tunnel.out", "")
	peer.Own(t, out)
	return peer.Binary(t) + " " + strings.Join(imapd, " ") + "; echo the tunnel ends with $? >>" + out
}

// asJane is a command that is run by the owner of the mail, who has that name.
func asJane(r *peer.Room, t *testing.T, args ...string) []string {
	peer.Need(t, "setpriv", args[0])
	uid, gid := peer.MailUID()
	return append([]string{"env", "USER=jane", "HOME=" + r.Dir, "setpriv", fmt.Sprint("--reuid=", uid), fmt.Sprint("--regid=", gid), fmt.Sprint("--groups=", gid)}, args...)
}
