// Suite runs every check and every test of the project, prints what it is
// doing and what failed, and ends with one line of counts.
//
//	go run ./test/suite [-only lint|unit|e2e|fuzz] [-timeout 8m] [-fuzztime 30s]
//
// It runs in the top directory. As root it first installs the programs that
// the tests talk to, and then a program that is missing is a failure; for
// anybody else, what could not be run is listed and counted as skipped.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// staticcheck is pinned so that a new release cannot turn an old commit red.
const staticcheck = "honnef.co/go/tools/cmd/staticcheck@v0.8.2"

// A suite counts what was run. The zero value is ready for use.
type suite struct {
	passed, failed int
	skipped        []string // what was left out, and why
	root           bool
	timeout        time.Duration
	fuzztime       time.Duration
}

func main() {
	only := flag.String("only", "", "run only lint, unit, e2e or fuzz")
	s := suite{root: os.Geteuid() == 0}
	flag.DurationVar(&s.timeout, "timeout", 8*time.Minute, "longest time for each of the two test runs")
	flag.DurationVar(&s.fuzztime, "fuzztime", 30*time.Second, "time for each fuzz target")
	flag.Parse()
	os.Exit(s.run(*only))
}

// run runs the parts that only names, or all but the fuzzing, and returns the
// exit status.
func (s *suite) run(only string) int {
	begin := time.Now()
	if s.root && only != "fuzz" {
		s.check("install", exec.Command("test/install.sh"))
	}
	parts := []struct {
		name string
		run  func()
	}{{"lint", s.lint}, {"unit", s.unit}, {"e2e", s.e2e}, {"fuzz", s.fuzz}}
	for _, p := range parts {
		if only == p.name || only == "" && p.name != "fuzz" {
			p.run()
		}
	}
	if len(s.skipped) > 0 {
		fmt.Printf("\nLEFT OUT:\n")
		for _, what := range s.skipped {
			fmt.Println("  " + what)
		}
	}
	fmt.Printf("\n%s\n", time.Since(begin).Round(time.Second))
	fmt.Printf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skipped))
	if s.failed > 0 || s.passed == 0 {
		return 1
	}
	return 0
}

// lint runs the checks that read the source without running it.
func (s *suite) lint() {
	s.silent("gofmt", exec.Command("gofmt", append([]string{"-l"}, goFiles()...)...))
	s.check("go vet", exec.Command("go", "vet", "./..."))
	if tool := s.staticcheck(); tool != "" {
		s.check("staticcheck", exec.Command(tool, "./..."))
	}
	pages, _ := filepath.Glob("man/*.[1-8]")
	if s.have("mandoc") && len(pages) > 0 {
		s.silent("mandoc", exec.Command("mandoc", append([]string{"-Tlint", "-W", "warning"}, pages...)...))
	}
}

// unit runs the tests of every package but those below test/, under the race
// detector where there is a C compiler for it.
func (s *suite) unit() {
	plain := []string{"test", "-json", "-vet=off", "-timeout", s.timeout.String()}
	bare, args := len(plain), slices.Clone(plain)
	if s.have("gcc") {
		args = append(args, "-race")
	}
	unraced := weighing
	if os.Getenv("IMAPD_SOAK") == "" {
		unraced += "|" + sweep
	}
	s.gotest(append(slices.Clone(plain), "-run", unraced, "./imap", "./maildir"))
	args = append(args, "-skip", unraced)
	packages, err := exec.Command("go", "list", "./...").Output()
	if err != nil {
		s.fail("go list", err.Error())
		return
	}
	for _, p := range strings.Fields(string(packages)) {
		switch {
		case strings.Contains(p+"/", "/test/"):
		case slices.Contains(alone, p) && os.Getenv("IMAPD_SOAK") == "":
			plain = append(plain, p)
		default:
			args = append(args, p)
		}
	}
	if len(plain) > bare {
		s.gotest(plain)
	}
	s.gotest(args)
}

// alone are packages whose code shares nothing but pools of buffers: the race
// detector, which makes them five times as slow, looks at them in the long form only.
var alone = []string{"imapd/imap/body", "imapd/imap/wire"}

// weighing are tests of memory, of which the race detector needs some itself.
const weighing = "^TestIdleMemory"

// sweep is a test with the work of all others together and one goroutine
// to a site: it is left to the race detector in the long form only, too.
const sweep = "^TestCrash$"

// e2e runs the tests below test/, which talk to real programs and wait for them for
// more than half of their time: hence twice as many at once.
func (s *suite) e2e() {
	s.gotest([]string{"test", "-json", "-vet=off", "-parallel", strconv.Itoa(2 * runtime.GOMAXPROCS(0)), "-timeout", s.timeout.String(), "./test/..."})
}

// check runs a command that must succeed; its output is shown if it does not.
func (s *suite) check(name string, c *exec.Cmd) {
	fmt.Printf("%-12s ", name)
	out, err := c.CombinedOutput()
	if err != nil {
		fmt.Println("FAILED")
		s.fail(name, string(out)+err.Error())
		return
	}
	fmt.Println("ok")
	s.passed++
}

// silent is check for commands that say what is wrong on their output.
func (s *suite) silent(name string, c *exec.Cmd) {
	out, err := c.CombinedOutput()
	if err != nil || len(out) > 0 {
		s.fail(name, fmt.Sprintf("%s%v", out, err))
		return
	}
	fmt.Printf("%-12s ok\n", name)
	s.passed++
}

func (s *suite) fail(name, text string) {
	s.failed++
	fmt.Printf("FAILED: %s\n%s\n", name, strings.TrimRight(text, "\n"))
}

// have reports whether a program is there. As root its absence is a failure.
func (s *suite) have(program string) bool {
	if _, err := exec.LookPath(program); err == nil {
		return true
	}
	if s.root {
		s.fail(program, "not found, although test/install.sh ran")
	} else {
		s.skipped = append(s.skipped, program+": not found (test/install.sh, run as root, installs it)")
	}
	return false
}

// staticcheck returns the path of the pinned tool, built on first use.
func (s *suite) staticcheck() string {
	dir, err := filepath.Abs(".tools")
	if err != nil {
		s.fail("staticcheck", err.Error())
		return ""
	}
	_, version, _ := strings.Cut(staticcheck, "@")
	tool := filepath.Join(dir, "staticcheck")
	if built, err := exec.Command("go", "version", "-m", tool).Output(); err == nil && strings.Contains(string(built), version) {
		return tool
	}
	fmt.Println("building staticcheck " + version)
	c := exec.Command("go", "install", staticcheck)
	c.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		if s.root {
			s.fail("staticcheck", string(out)+err.Error())
		} else {
			s.skipped = append(s.skipped, "staticcheck: could not be built: "+err.Error())
		}
		return ""
	}
	return tool
}

// goFiles lists the Go files of the project, tools and examples of others left out.
func goFiles() []string {
	var files []string
	filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() && path != "." && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			files = append(files, path)
		}
		return nil
	})
	return files
}
