package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imapd/test/peer"
)

// TestCompletion asks bash what it would offer behind the words of a command
// line, with a session on.
func TestCompletion(t *testing.T) {
	t.Parallel()
	peer.Need(t, "bash", "awk")
	s := peer.Imapd(t, basicMany(t, false), peer.Options{Users: []string{"ann", `$(id)`}})
	s.Login(t, "ann")
	s.Login(t, `"$(id)"`)
	bin := peer.TempDir(t)
	binary := must(filepath.Abs(peer.Binary(t)))(t)
	if err := os.Symlink(binary, bin+"/imapctl"); err != nil {
		t.Fatal(err)
	}
	conf := []string{"-C", s.ConfFile()}
	ann := who(t, s)[0]
	for _, tt := range []struct {
		words []string
		want  []string
	}{
		{[]string{"r"}, []string{"reload"}},
		{[]string{"-S", "imap", "dr"}, []string{"drain"}},
		{[]string{"-"}, []string{"-C", "-S"}},
		{[]string{"-S", "i"}, []string{"imap"}}, // a daemon has no other service
		{[]string{"-C", s.ConfFile()[:len(s.ConfFile())-3]}, []string{s.ConfFile()}},
		{[]string{"who", "--"}, []string{"--json"}},
		{[]string{"telemetry", "ann", ""}, []string{"on", "off", "tail"}},
		{[]string{"telemetry", "ann", "off", "-"}, []string{"--delete"}},
		{[]string{"motd", "x"}, nil},
		{append(conf, "kick", "ann"), []string{"ann"}},
		{append(conf, "kick", ann.ID), []string{ann.ID}},
		{append(conf, "session", "$"), []string{`\$\(id\)`}}, // or the shell would do it
		{append(conf, "kick", "--user", "an"), []string{"ann"}},
	} {
		c := exec.Command("bash", append([]string{"-c", `. ../contrib/imapctl.bash
			COMP_WORDS=(imapctl "$@") COMP_CWORD=$#
			_imapctl
			printf '%s\n' "${COMPREPLY[@]}"`, "bash"}, tt.words...)...)
		c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := c.CombinedOutput()
		if got := strings.Fields(string(out)); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %q, %v, want %q", tt.words, got, err, tt.want)
		}
	}
	out, err := exec.Command("bash", "-c", ". ../contrib/imapctl.bash; complete -p imapctl").CombinedOutput()
	if err != nil || string(out) != "complete -F _imapctl imapctl\n" {
		t.Errorf("got %q, %v", out, err)
	}
}
