package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// A way is how an adopted process ends once the gate is open.
type way struct {
	command string // of a shell
	ending  ending
	sure    bool // every kernel lets this be known: one thread, or a signal to many
}

// waysOfOne are those of a process of one thread.
func waysOfOne(step int) (ways []way) {
	list, commands := endings()
	for i, e := range list {
		if e.reason == "exited" && i%step != 0 && i != 255 {
			continue
		}
		ways = append(ways, way{commands[i], e, true})
	}
	return ways
}

// waysOfMany are those of a process that has, or had, several threads.
func waysOfMany(gate string) (ways []way) {
	const leave = "ctypes.CDLL(None).syscall(%d, 0)" // ends this thread alone, with code 0
	for _, w := range []struct {
		python string
		ending ending
		sure   bool
	}{
		{"also(lambda: (gate(), os._exit(7))); gate(); leave()", ending{"exited", "7"}, false},
		{"also(lambda: (gate(), left(), os._exit(3))); gate(); leave()", ending{"exited", "3"}, false},
		{"also(lambda: (left(), gate(), os._exit(8))); leave()", ending{"exited", "8"}, false},
		{"gate(); also(lambda: os._exit(6)); leave()", ending{"exited", "6"}, false},
		{"also(wait); gate(); os._exit(5)", ending{"exited", "5"}, false},
		{"also(gate); gate(); wait(0.1); os._exit(4)", ending{"exited", "4"}, false},
		{"also(wait); gate(); os.kill(os.getpid(), 9)", ending{"signaled", "SIGKILL"}, true},
		{"also(wait); gate(); os.kill(os.getpid(), 11); wait()", ending{"signaled", "SIGSEGV"}, false},
		{"also(wait); gate(); os.execv('/bin/sh', ['sh', '-c', 'exit 9'])", ending{"exited", "9"}, true},
	} {
		program := fmt.Sprintf(`
import ctypes, os, threading
def also(f): threading.Thread(target=f, daemon=True).start()
def wait(s=None): threading.Event().wait(s)
def gate(): open("%s")
def leave(): `+leave+`
def left():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z": wait(0.001)
`, gate, unix.SYS_EXIT) + w.python + "\n"
		ways = append(ways, way{"exec python3 -c '" + strings.ReplaceAll(program, "'", `'\''`) + "'", w.ending, w.sure})
	}
	return ways
}

// TestSurvivorsEnd has adopted processes end in every way, all at once. A status
// that is told is the true one, under every kernel; where there is a connector, or
// the kernel keeps it (Linux 6.15), it is told of nearly all that may be known.
func TestSurvivorsEnd(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Connector(), testenv.Tool("python3"))
	for _, c := range []struct {
		connector string
		reexec    bool
		told      bool
	}{
		{"enabled: true", false, true},
		{"events: exit", true, true},
		{"buffer: 4KiB", false, false},
		{"enabled: false", false, false},
	} {
		t.Run("connector "+c.connector, func(t *testing.T) { checkSurvivorsEnd(t, c.connector, c.reexec, c.told) })
	}
}

func checkSurvivorsEnd(t *testing.T, connector string, reexec, told bool) {
	gate := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	one := waysOfOne(often(16, 1, 1))
	var program strings.Builder
	var ways []way
	fmt.Fprintf(&program, "ulimit -c 0\ncase $SENTRYD_SLOT in\n")
	add := func(w way, before string) {
		fmt.Fprintf(&program, "%d) %s%s;;\n", len(ways), before, w.command)
		ways = append(ways, w)
	}
	for _, w := range one {
		add(w, ": < "+gate+"; ")
	}
	for range often(1, 4, 16) {
		for _, w := range waysOfMany(gate) {
			add(w, "")
		}
	}
	program.WriteString("esac\n")
	d := startDaemon(t, fmt.Sprintf(`
proc_connector: {%s}
entries:
  a: {command: %s, count: %d, restart: never}
`, connector, script(t, program.String()), len(ways)), options{})
	d.running("a", len(ways))
	d.die()
	s, _ := d.rise(options{})
	d.allAdopted(s.entry("a"))
	if reexec {
		d.reexec()
	}
	// Held open: who comes late finds it open too.
	open, err := os.OpenFile(gate, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	s = d.await("all have ended", func(s *state) bool { return s.entry("a").Exits >= uint64(len(ways)) })
	if e := s.entry("a"); e.Exits != uint64(len(ways)) || e.Starts != e.Exits {
		t.Errorf("%d starts and %d exits of %d", e.Starts, e.Exits, len(ways))
	}
	sure, untold := 0, 0
	why := make(map[string]int)
	for i, w := range ways {
		x := s.process("a", i).LastExit
		if w.sure {
			sure++
		}
		got := ending{x.Reason, x.Signal}
		if x.Code != nil {
			got.code = fmt.Sprint(*x.Code)
		}
		switch {
		case x.Reason == "unknown":
			why[x.Error]++
			if w.sure {
				untold++
				t.Logf("%s: %s", w.command, x.Error)
			}
			if x.Code != nil || x.Signal != "" || x.Error == "" {
				t.Errorf("%s is unknown, with %+v", w.command, x)
			}
		case got != w.ending:
			t.Errorf("%s ended like %v, and is said to have like %v", w.command, w.ending, got)
		}
	}
	t.Logf("of %d processes %d are told of surely, and %d of these were not; unknown because: %v", len(ways), sure, untold, why)
	if told && untold*20 > sure {
		t.Errorf("%d of %d were not told of", untold, sure)
	}
	d.stop()
}
