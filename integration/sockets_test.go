package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sentryd/sentryd/internal/testenv"
)

// passedServer builds the server that takes what it is passed.
func passedServer(t *testing.T) string {
	t.Helper()
	return built(t, "passed", "./testdata/passed")
}

// TestNoConnectionIsRefused: a server in Go and one in Python, scaled up and
// down, restarted, reloaded and re-exec'd while clients ask without a pause.
func TestNoConnectionIsRefused(t *testing.T) {
	for name, command := range map[string]func(*testing.T) string{
		"go": passedServer,
		"python": func(t *testing.T) string {
			testenv.Need(t, testenv.Tool("python3"))
			server, err := filepath.Abs("../examples/server.py")
			if err != nil {
				t.Fatal(err)
			}
			return "python3 " + server
		},
	} {
		t.Run(name, func(t *testing.T) {
			address, command := freeAddress(t), command(t)
			config := func(delay string) string {
				return fmt.Sprintf(`entries:
  web:
    command: %s
    delay: %s
    sockets: [{name: http, listen: "tcp://%s"}]
    stop: {timeout: 60s}
`, command, delay, address)
			}
			d := startDaemon(t, config("1s"), options{})
			d.running("web", 1)
			restart := func() { d.must("restart", "web", "--timeout", patience.String()) } // one after the other
			l := newLoad(t, address)
			l.more("at first")

			d.must("scale", "web=8")
			d.running("web", 8)
			if n := l.more("with 8 slots"); name == "go" && n < 2 {
				t.Error("8 slots, and one answers all")
			}
			restart()
			l.more("after a rolling restart")
			d.reexec()
			l.more("after a re-exec")
			d.configure(config("2s"))
			d.must("reload")
			l.more("after a reload")
			restart()
			d.running("web", 8)
			l.more("after another rolling restart")
			d.must("scale", "web=1")
			d.running("web", 1)
			l.more("with 1 slot again")
			restart() // nobody there for a moment: clients wait
			l.more("after a restart of one slot")
			l.clean()
			for _, p := range d.state().entry("web").Processes {
				if x := p.LastExit; x == nil || x.Code == nil || *x.Code != 0 {
					t.Errorf("a server ended with %+v", x)
				}
			}
			d.stop()
			if c, err := net.Dial("tcp", address); err == nil {
				c.Close()
				t.Error("the socket outlives the daemon")
			}
		})
	}
}

// TestEveryKindOfSocket: three sockets with names, kept over restart and
// re-exec, and gone with the entry.
func TestEveryKindOfSocket(t *testing.T) {
	dir, tcp, udp := t.TempDir(), freeAddress(t), freeAddress(t)
	d := startDaemon(t, fmt.Sprintf(`entries:
  web:
    command: %s
    sockets:
      - {name: http, listen: "tcp://%s"}
      - {name: echo, listen: "udp://%s"}
      - {name: local, listen: "unix:web.sock", mode: "0660"}
`, passedServer(t), tcp, udp), options{dir: dir})
	d.running("web", 1)
	path := filepath.Join(dir, "web.sock")
	check := func(when string) {
		t.Helper()
		for at, ask := range map[string]func() (string, error){
			"tcp":  func() (string, error) { return answer(noKeepAlive(), "http://"+tcp+"/") },
			"unix": func() (string, error) { return getUnix(path) },
		} {
			if got, err := ask(); err != nil || !strings.HasSuffix(got, " http:echo:local\n") {
				t.Errorf("%s, over %s: %q, %v", when, at, got, err)
			}
		}
		if got, err := echo(udp, "hello"); err != nil || got != "hello" {
			t.Errorf("%s, over udp: %q, %v", when, got, err)
		}
		if fi, err := os.Lstat(path); err != nil || fi.Mode() != os.ModeSocket|0o660 {
			t.Errorf("%s: %v, %v", when, fi, err)
		}
	}
	check("at first")
	d.reexec()
	check("after a re-exec")
	d.must("restart", "web")
	check("after a restart")
	d.configure("entries: {}\n")
	d.must("reload")
	d.await("the entry is gone", func(s *state) bool { return len(s.Entries) == 0 })
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path is left (%v)", err)
	}
	if c, err := net.Dial("tcp", tcp); err == nil {
		c.Close()
		t.Error("the TCP socket is left")
	}
	d.stop()
}

// descriptorsOf lists the numbers of a process' open descriptors.
func descriptorsOf(t *testing.T, pid int) string {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var numbers []string
	for _, fd := range list {
		numbers = append(numbers, fd.Name())
	}
	return strings.Join(numbers, " ")
}

// TestAddressOfASocketThatIsTaken: a start error, tried again; in a reload a
// reason to refuse it.
func TestAddressOfASocketThatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	entry := fmt.Sprintf("command: sleep 100000\n    sockets: [{name: http, listen: 'tcp://%s'}]\n", address)
	d := startDaemon(t, "entries:\n  a:\n    "+entry, options{})
	want := "bind tcp://" + address + ": address already in use"
	d.await("a start error", func(s *state) bool {
		x := s.process("a", 0).LastExit
		return x != nil && x.Reason == "start_failed" && x.Error == want
	})
	d.configure("entries: {}\n")
	d.must("reload")
	d.configure("entries:\n  b:\n    " + entry)
	if code, out, errs := d.ctl("reload"); code != 2 || !strings.Contains(out+errs, want) {
		t.Errorf("a reload with a new address that is taken: exit code %d\n%s%s", code, out, errs)
	}
	taken.Close()
	d.must("reload")
	pid := d.running("b", 1).process("b", 0).PID
	eventually(t, "its loader is done with its own files", func() error {
		if got := descriptorsOf(t, pid); got != "0 1 2 3" {
			return fmt.Errorf("it has descriptors %s", got)
		}
		return nil
	})
	d.stop()
}
