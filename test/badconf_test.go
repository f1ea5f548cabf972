package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imapd/test/peer"
)

// TestBadConfiguration starts the server with configurations that are wrong. It
// must not start, and say in one line with file and line what is wrong and why;
// imapd -t must say the same. In both cases it ends with 78.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	binary := peer.Binary(t)
	dir := peer.TempDir(t)
	write(t, dir+"/passwd", "jane:{PLAIN}x::::::\n")
	write(t, dir+"/garbage", "\x00garbage\n")
	write(t, dir+"/loop", "@include: "+dir+"/loop\n")
	write(t, dir+"/twice", "timeout: 40\n")
	mkdir(t, dir+"/directory")
	peer.Own(t, dir+"/directory")
	base := []string{"configdirectory: " + dir, "maildir: " + dir + "/Maildir", "sasl_pwcheck_method: passwd-file", "sasl_passwd_file: " + dir + "/passwd", "listen: unix:" + dir + "/socket"}
	if os.Geteuid() == 0 {
		uid, _ := peer.MailUID()
		base = append(base, fmt.Sprint("cyrus_user: ", uid))
	}
	for i, tt := range []struct {
		name  string
		lines string   // behind base
		line  int      // of lines, from 1, that is wrong; of base where there are none; 0: not known
		want  []string // on that line
	}{
		{"unknown option", "timuot: 5", 1, []string{"timuot", "timeout"}},
		{"unknown limit", "limit_lines: 5", 1, []string{"limit_lines", "limit_line"}},
		{"option twice", "timeout: 30\numask: 077\ntimeout: 40", 3, []string{"timeout"}},
		{"option of base twice", "maildir: /x", 1, []string{"maildir"}},
		{"option twice through a file", "timeout: 30\n@include: " + dir + "/twice", 0, []string{"timeout"}},
		{"no colon", "timeout 30", 1, nil},
		{"no name", ": 30", 1, nil},
		{"number that is none", "limit_literals: many", 1, []string{"limit_literals", "many"}},
		{"number too small", "limit_connections: 0", 1, []string{"limit_connections"}},
		{"negative number", "limit_connections: -1", 1, []string{"limit_connections"}},
		{"number beyond 64 bits", "limit_connections: 99999999999999999999", 1, []string{"limit_connections"}},
		{"number with more behind", "limit_connections: 5x", 1, []string{"limit_connections"}},
		{"size that is none", "maxliteral: 1Q", 1, []string{"maxliteral"}},
		{"size too large", "maxliteral: 9999999G", 1, []string{"maxliteral"}},
		{"time that is none", "timeout: soon", 1, []string{"timeout"}},
		{"time too long", "limit_preauth_time: 99999999h", 1, []string{"limit_preauth_time"}},
		{"switch that is none", "allowplaintext: maybe", 1, []string{"allowplaintext", "maybe"}},
		{"word that is none", "maildir_layout: cubic", 1, []string{"maildir_layout", "cubic"}},
		{"separator of two", "maildir_separator: //", 1, []string{"maildir_separator"}},
		{"mask that is none", "umask: 9", 1, []string{"umask"}},
		{"TLS version that is none", "tls_versions: tls9", 1, []string{"tls_versions"}},
		{"certificate that is not there", "tls_server_cert: " + dir + "/none\ntls_server_key: " + dir + "/none", 1, []string{"tls_server_cert", "/none", "no such file"}},
		{"certificate that is none", "tls_server_cert: " + dir + "/garbage\ntls_server_key: " + dir + "/garbage", 1, []string{"tls_server_cert"}},
		{"certificate without a key", "tls_server_cert: " + dir + "/garbage", 1, []string{"tls_server"}},
		{"file that is not there", "@include: " + dir + "/none", 1, []string{"/none", "no such file"}},
		{"file that is a directory", "@include: " + dir + "/directory", 1, []string{"directory"}},
		{"file that includes itself", "@include: " + dir + "/loop", 0, []string{"loop"}},
		{"passwords that are not there", "", 4, []string{"sasl_passwd_file", "/none", "no such file"}},
		{"passwords that are a directory", "", 4, []string{"sasl_passwd_file", "/directory", "not a regular file"}},
		{"user that is none", "", 0, []string{"cyrus_user", "no-such-user"}},
		{"NUL", "maildir_prefix: a\x00b", 1, nil},
		{"empty value", "limit_connections:", 1, []string{"limit_connections"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conf := filepath.Join(dir, fmt.Sprintf("%d.conf", i))
			lines := slices.Clone(base)
			lines[4] += fmt.Sprint(i)
			switch tt.name {
			case "user that is none":
				lines = append(lines[:5], "cyrus_user: no-such-user")
			case "passwords that are not there":
				lines[3] = "sasl_passwd_file: /none"
			case "passwords that are a directory":
				lines[3] = "sasl_passwd_file: " + dir + "/directory"
			}
			write(t, conf, strings.Join(lines, "\n")+"\n"+tt.lines+"\n")
			place := conf + ":"
			switch {
			case tt.lines == "" && tt.line > 0:
				place = fmt.Sprintf("%s:%d: ", conf, tt.line)
			case tt.line > 0:
				place = fmt.Sprintf("%s:%d: ", conf, len(lines)+tt.line)
			}
			for _, option := range []string{"-t", "-l"} {
				code, out := runImapd(t, binary, option, "-C", conf)
				if code != 78 {
					t.Errorf("imapd %s ends with %d: %s", option, code, out)
				}
				found := false
				for line := range strings.Lines(out) {
					found = found || (strings.Contains(line, place) || tt.line == 0) && containsAll(line, tt.want)
				}
				if !found {
					t.Errorf("imapd %s: no line with %q and %q in\n%s", option, place, tt.want, out)
				}
			}
		})
	}
}

// runImapd runs the program, which must end soon, and returns its exit code and
// what it wrote on standard error.
func runImapd(t *testing.T, binary string, args ...string) (code int, errs string) {
	t.Helper()
	c := exec.Command(binary, args...)
	var b bytes.Buffer
	c.Stderr = &b
	timer := time.AfterFunc(20*time.Second, func() { c.Process.Kill() })
	defer timer.Stop()
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), b.String()
}

func containsAll(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// TestBadConfigurationAtOnce holds that imapd -t names all faults, and that a
// configuration file that cannot be read is one.
func TestBadConfigurationAtOnce(t *testing.T) {
	t.Parallel()
	binary := peer.Binary(t)
	dir := peer.TempDir(t)
	conf := dir + "/imapd.conf"
	write(t, conf, "configdirectory: "+dir+"\ntimuot: 5\numask: 9\nlimit_line: x\nsasl_passwd_file: /none\nsasl_pwcheck_method: passwd-file\n")
	code, out := runImapd(t, binary, "-t", "-C", conf)
	if code != 78 || !containsAll(out, []string{conf + ":2: ", conf + ":3: ", conf + ":4: ", conf + ":5: "}) {
		t.Errorf("%d, %s", code, out)
	}
	for _, path := range []string{dir, dir + "/none", conf + "/x"} {
		for _, option := range []string{"-t", "-l"} {
			if code, out := runImapd(t, binary, option, "-C", path); code != 78 || !strings.Contains(out, path) {
				t.Errorf("imapd %s -C %s: %d, %s", option, path, code, out)
			}
		}
	}
}

// TestAllFaults holds that a start tells everything at once that is wrong with a
// configuration: what its lines say, and what they lead to.
func TestAllFaults(t *testing.T) {
	t.Parallel()
	dir := peer.TempDir(t)
	write(t, dir+"/msg", "a file")
	conf := dir + "/imapd.conf"
	lines := "maildir: " + dir + "/Maildir\nlisten: unix:" + dir + "/socket\ncyrus_user: no-such-user\nsasl_passwd_file: " + dir + "/none\n"
	for _, tt := range []struct {
		lines string
		want  []string
	}{
		{"timuot: 5\ntls_server_key: " + dir + "/key\n", []string{
			"configdirectory is missing", "unknown option timuot", "a key without tls_server_cert", "no-such-user", "/none: no such file"}},
		{"configdirectory: " + dir + "\n", []string{"no-such-user", "/none: no such file", "/msg: not a directory"}},
		{"configdirectory: " + dir + "\ntls_server_cert: " + dir + "/cert\n", []string{"no-such-user", "/none: no such file", "/cert: no such file"}},
	} {
		write(t, conf, tt.lines+lines)
		out, err := exec.Command(peer.Binary(t), "-l", "-C", conf).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 78 {
			t.Errorf("%s: %v", tt.lines, err)
		}
		for _, want := range tt.want {
			if strings.Count(string(out), want) != 1 {
				t.Errorf("%q is not told once in\n%s", want, out)
			}
		}
	}
}

// TestDirectoryOutOfReach holds that no server starts that could not see the
// notices: its start, and imapd -t, say why.
func TestDirectoryOutOfReach(t *testing.T) {
	t.Parallel()
	needRoot(t)
	uid, _ := peer.MailUID()
	for name, tt := range map[string]struct {
		spoil func(dir string) error
		want  string // behind the directory
	}{
		"none":           {os.Remove, ": no such file or directory"},
		"root's":         {func(dir string) error { return os.Chmod(dir, 0o700) }, ": permission denied"},
		"above it":       {func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o700) }, ": permission denied"},
		"msg is a file":  {func(dir string) error { return os.WriteFile(dir+"/msg", nil, 0o644) }, "/msg: not a directory"},
		"msg is root's":  {func(dir string) error { return os.Mkdir(dir+"/msg", 0o700) }, "/msg: permission denied"},
		"msg has no way": {func(dir string) error { return os.Mkdir(dir+"/msg", 0o744) }, "/msg: permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			top := peer.TempDir(t)
			dir, conf := top+"/above/state", top+"/imapd.conf"
			must(0, os.MkdirAll(dir, 0o755))(t)
			must(0, tt.spoil(dir))(t)
			for _, how := range []string{"shared", "none"} {
				write(t, conf, fmt.Sprintf("configdirectory: %s\nmaildir: %s/Maildir\nlisten: unix:%[2]s/socket\ncyrus_user: %d\nprivilege_separation: %s\n", dir, top, uid, how))
				for _, option := range []string{"-t", "-l"} {
					code, out := runImapd(t, peer.Binary(t), option, "-C", conf)
					if want := conf + ":1: configdirectory: "; code != 78 || strings.Count(out, want) != 1 || !strings.Contains(out, dir+tt.want) {
						t.Errorf("%s %s: %d, %s", option, how, code, out)
					}
				}
			}
			if _, err := os.Stat(top + "/socket"); !os.IsNotExist(err) {
				t.Errorf("the socket is left behind: %v", err)
			}
		})
	}
}

// TestBadConfigurationJSON holds that faults of the configuration are told in the form
// that it wants for the log, where the log would be; to who tests it they are text.
func TestBadConfigurationJSON(t *testing.T) {
	t.Parallel()
	dir := peer.TempDir(t)
	conf := dir + "/imapd.conf"
	write(t, conf, "configdirectory: "+dir+"\ntimuot: 5\nlog_format: json\ntimeout: soon\nsyslog_prefix: site\n")
	r := finish(t, exec.Command(peer.Binary(t), "-l", "-C", conf))
	lines := strings.SplitAfter(strings.TrimSuffix(r.err, "\n"), "\n")
	var told []string
	for _, line := range lines {
		var object struct{ Level, Msg, Ident string }
		if err := json.Unmarshal([]byte(line), &object); err != nil || object.Level != "ERROR" || object.Ident != "site/imap" {
			t.Errorf("%q: %v", line, err)
		}
		told = append(told, object.Msg)
	}
	if r.code != 78 || len(told) < 2 || told[0] != conf+":2: unknown option timuot; did you mean timeout?" || !strings.HasPrefix(told[1], conf+":4: timeout: ") {
		t.Errorf("exit %d, %q", r.code, told)
	}
	if r := finish(t, exec.Command(peer.Binary(t), "-t", "-C", conf)); r.code != 78 || !strings.Contains("\n"+r.err, "\n"+conf+":2: unknown option timuot") {
		t.Errorf("-t: exit %d, %q", r.code, r.err)
	}
}
