package integration

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMemoryIsGivenBack waits until a daemon that has come to rest has let go of what
// only its start, or its re-exec, needed of the program.
func TestMemoryIsGivenBack(t *testing.T) {
	d := startDaemon(t, "entries:\n  a: {command: sleep 100000, count: 3}\n", options{})
	s := d.running("a", 3)
	for i, when := range []string{"after a start", "after a re-exec"} {
		if i > 0 {
			s = d.reexec()
		}
		mapped, of := d.program()
		for deadline := time.Now().Add(patience); mapped > of/2; mapped, of = d.program() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d of %d KiB of the program are mapped\n%s", when, mapped, of, d)
			}
			// Nothing is to happen: the time to the next look.
			d.get("/v1/state?timeout=200ms&after=" + strconv.FormatUint(s.Version+1_000_000, 10))
		}
	}
	d.stop()
}

// TestStartIsNotCollected: what a start leaves behind is collected when it is over, and
// not in its midst.
func TestStartIsNotCollected(t *testing.T) {
	d := startDaemon(t, "entries:\n  a: {command: 'false', delay: 10m}\n", options{env: []string{"GOGC=90"}})
	percent := func() float64 { return d.metrics()["go_gc_gogc_percent"] }
	// It answers before it has begun to start anything; until then there is no collection at all.
	eventually(t, "GOGC is raised while an entry is about to start", func() error {
		if got := percent(); got != 400 {
			return fmt.Errorf("it is %v", got)
		}
		return nil
	})
	d.must("stop", "a")
	s := d.state()
	for deadline := time.Now().Add(patience); percent() != 90; {
		if time.Now().After(deadline) {
			t.Fatalf("at rest GOGC is %v, not what it was set to\n%s", percent(), d)
		}
		// Nothing is to happen: the time to the next look.
		d.get("/v1/state?timeout=200ms&after=" + strconv.FormatUint(s.Version+1_000_000, 10))
	}
	d.stop()
}

// program returns how much of the program's file the daemon has mapped for reading, and how
// large that is, in KiB.
func (d *daemon) program() (resident, size int) {
	d.t.Helper()
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", d.pid))
	if err != nil {
		d.t.Fatal(err)
	}
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", d.pid))
	if err != nil {
		d.t.Fatal(err)
	}
	mapping := regexp.MustCompile(`(?m)^[0-9a-f]+-[0-9a-f]+ r-.p .* ` + regexp.QuoteMeta(exe) + `\nSize: +(\d+) kB\n(?:.*\n)*?Rss: +(\d+) kB$`)
	for _, m := range mapping.FindAllStringSubmatch(string(smaps), -1) {
		n, _ := strconv.Atoi(m[1])
		size += n
		n, _ = strconv.Atoi(m[2])
		resident += n
	}
	if size == 0 {
		d.t.Fatalf("no mapping of %s:\n%s", exe, smaps)
	}
	return resident, size
}

// TestProgramKeepsNoUnusedMethod finds nothing in the program that looks methods up
// by names that are known only when it runs, as text/template does: with that the linker keeps every
// exported method, and the daemon a sixth more to have in memory.
func TestProgramKeepsNoUnusedMethod(t *testing.T) {
	program, err := os.ReadFile(docsBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(program, []byte("main.runDaemon")) {
		t.Fatal("the program has no names of functions")
	}
	for _, name := range strings.Fields("text/template.(*state).evalField html/template.(*Template).Execute") {
		if bytes.Contains(program, []byte(name)) {
			t.Errorf("%s is linked in: `go build -ldflags=-dumpdep` tells what calls it", name)
		}
	}
}
