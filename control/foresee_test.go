package control

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imapd/control/config"
)

// nothing is an Inspector that finds nothing wrong, and one user.
func nothing(*config.Config, config.Opener) ([]config.Problem, bool) { return nil, false }

// TestForesee holds what is told of a configuration that is right and yet serves
// nobody in some way of starting; and that the usual ones have nothing of the kind.
func TestForesee(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // for whom cyrus_user names
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	certificate(t, dir, "one.example")
	write(t, dir+"/passwd", "jane:{PLAIN}x\n")
	crowd := func(*config.Config, config.Opener) ([]config.Problem, bool) {
		return []config.Problem{{File: "/p", Line: 7, Text: "odd", Warning: true}}, true
	}
	const user, listen = "cyrus_user: 12345", "listen: unix:/x"
	pw := "sasl_passwd_file: " + dir + "/passwd"
	tls := []string{"tls_server_cert: " + dir + "/cert.pem", "tls_server_key: " + dir + "/key.pem"}
	for _, tt := range []struct {
		name    string
		inspect Inspector
		lines   []string
		want    []string // the end of each warning behind FILE
	}{
		{"nothing", nothing, []string{user, pw, listen}, nil},
		{"TLS", nothing, append(tls, user, pw), nil},
		{"no user", nothing, []string{pw, listen}, []string{`: for a start by root: add the line "cyrus_user: NAME", where NAME is the user who owns the mail`}},
		{"no certificate", nothing, []string{user, pw}, []string{`: for -l: the default of listen has imaps://:993, which needs tls_server_cert and tls_server_key; set them, or "listen: imap://:143"`}},
		{"no way to log in", nothing, []string{user, pw, "listen: imap://:143"}, []string{":4: listen: for -l: nobody can log in over the net, with neither tls_server_cert nor allowplaintext: yes"}},
		{"in the clear", nothing, []string{user, pw, "listen: imap://:143", "allowplaintext: yes"}, nil},
		{"behind a proxy", nothing, []string{user, pw, "listen: imap://:143", "login_trusted_networks: ::1"}, nil},
		{"no passwords", nothing, []string{user, listen}, []string{": nobody can log in: sasl_passwd_file is missing (who starts imapd for himself, on a pipe, needs no password)"}},
		{"saslauthd", nothing, []string{user, listen, "sasl_pwcheck_method: saslauthd"}, nil},
		{"saslauthd and no file", nothing, []string{user, listen, "sasl_pwcheck_method: saslauthd passwd-file"}, []string{":4: sasl_pwcheck_method: passwd-file has no effect without sasl_passwd_file"}},
		{"one Maildir, one user", nothing, []string{user, pw, listen, "maildir: " + dir}, nil},
		{"one Maildir", crowd, []string{user, pw, listen, "maildir: /tmp/%%u/x"}, []string{"/p:7: odd",
			":5: maildir: all users would have one /tmp/%%u/x; %u or %n in it, or ~ at its start, stands for the user"}},
		{"one index", crowd, []string{user, pw, listen, "maildir: " + dir + "/%d/%n", "indexdirectory: " + dir + "/%d"}, []string{"/p:7: odd",
			":6: indexdirectory: all users would have one " + dir + "/%d; %u or %n in it, or ~ at its start, stands for the user"}},
		{"no directory", nothing, []string{user, pw, listen, "maildir: /proc/none/%d/%n"}, []string{":5: maildir: /proc/none: no such file or directory, and uid 12345 may not make it: no mail can be served"}},
		{"file in the way", nothing, []string{user, pw, listen, "maildir: " + dir + "/passwd/x%u"}, []string{":5: maildir: " + dir + "/passwd: not a directory"}},
	} {
		if os.Geteuid() != 0 && (tt.name == "no user" || tt.name == "no directory") {
			continue // it depends on who looks
		}
		file := testConfig(t, tt.lines...)
		conf, problems, err := config.Load(file, Service, config.Open)
		if err != nil {
			t.Fatal(err, problems)
		}
		var got []string
		for _, err := range Foresee(conf, file, config.Open, tt.inspect) {
			got = append(got, strings.TrimPrefix(err.Error(), file))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		if wrong := Check(conf, nil); len(wrong) > 0 {
			t.Errorf("%s: %v", tt.name, wrong)
		}
	}
}

// TestCheckSources holds that password sources which cannot serve are faults.
func TestCheckSources(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for lines, want := range map[string]string{
		"sasl_pwcheck_method: saslauthd\nsasl_saslauthd_path: " + dir + "/": ":3: sasl_saslauthd_path: " + dir + " is a directory; the socket in it is " + dir + "/mux",
		"sasl_pwcheck_method: saslauthd\nsasl_saslauthd_path: /nonexistent": "",
		"sasl_saslauthd_path: " + dir:                                       "",
	} {
		wrong := Check(loadConfig(t, lines), nil)
		if len(wrong) != min(len(want), 1) || want != "" && !strings.HasSuffix(wrong[0].Error(), want) {
			t.Errorf("%q: %v", lines, wrong)
		}
	}
}

// TestCheckSecrets holds that files which are root's alone are told of where no process
// of root's is there to open them.
func TestCheckSecrets(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can")
	}
	conf, _, dir := tlsConfig(t)
	for name, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755, dir + "/key.pem": 0o600} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir+"/passwd", "jane:{PLAIN}x\n")
	conf.PasswdFile, conf.User, conf.Maildir = dir+"/passwd", "12345", "~/Maildir"
	for _, how := range []config.Separation{config.SeparateNone, config.SeparateShared} {
		for _, mode := range []os.FileMode{0o600, 0o644} {
			if err := os.Chmod(dir+"/passwd", mode); err != nil {
				t.Fatal(err)
			}
			conf.PrivilegeSeparation = how
			wrong, warned := Check(conf, nil), Foresee(conf, "/f", nil, nothing)
			if text := fmt.Sprint(wrong); (len(wrong) > 0) != (how == config.SeparateNone && mode == 0o600) ||
				len(wrong) > 0 && !strings.Contains(text, "sasl_passwd_file: open "+dir+"/passwd: permission denied for 12345, with privilege_separation: none") {
				t.Errorf("%s, %o: %v", how, mode, wrong)
			}
			if text := fmt.Sprint(warned); strings.Contains(text, "key.pem: permission denied for 12345") != (how == config.SeparateNone) {
				t.Errorf("%s, %o: %v", how, mode, warned)
			}
		}
	}
}

// TestTestPrints holds that imapd -t has nothing but the faults to say where there are
// any, and else the warnings last: hundreds of lines of options stand behind neither.
func TestTestPrints(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lines, last string
		code        int
		options     bool
	}{
		{"cyrus_user: no-such-user\nvirtdomains: on", `cyrus_user: no user "no-such-user"`, ExitConfig, false},
		{"timeout: x", "timeout: ", ExitConfig, false},
		{"virtdomains: on", "odd", ExitOK, true},
	} {
		file := testConfig(t, tt.lines)
		conf, problems, _ := config.Load(file, Service, config.Open)
		var out strings.Builder
		code := Test(conf, file, problems, nil, func(*config.Config, config.Opener) ([]config.Problem, bool) {
			return []config.Problem{{File: "/p", Line: 7, Text: "odd", Warning: true}}, false
		}, &out, &out)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if code != tt.code || strings.Contains(out.String(), "\numask: ") != tt.options || !strings.Contains(lines[len(lines)-1], tt.last) {
			t.Errorf("%q: %d, %s", tt.lines, code, out.String())
		}
	}
}
