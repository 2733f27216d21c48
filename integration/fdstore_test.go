package integration

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// manager stands in for systemd: it keeps the descriptors that a daemon sends, and
// passes them to the next one.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string

	mu    sync.Mutex
	names []string
	files []*os.File
	ready int
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.receive()
	}()
	t.Cleanup(func() {
		m.conn.Close()
		<-done
		for _, f := range m.files {
			f.Close()
		}
	})
	return m
}

func (m *manager) receive() {
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, k, _, _, err := m.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		said := map[string]string{}
		for line := range strings.Lines(string(buf[:n])) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			said[key] = value
		}
		m.mu.Lock()
		if said["READY"] == "1" {
			m.ready++
		}
		if said["FDSTOREREMOVE"] == "1" {
			for i := len(m.names) - 1; i >= 0; i-- {
				if m.names[i] == said["FDNAME"] {
					m.files[i].Close()
					m.names, m.files = slices.Delete(m.names, i, i+1), slices.Delete(m.files, i, i+1)
				}
			}
		}
		control, _ := unix.ParseSocketControlMessage(oob[:k])
		for i := range control {
			fds, err := unix.ParseUnixRights(&control[i])
			if err != nil {
				m.t.Error(err)
			}
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				if said["FDSTORE"] != "1" || said["FDPOLL"] != "0" || slices.Contains(m.names, said["FDNAME"]) {
					m.t.Errorf("a descriptor came with %q", buf[:n])
				}
				m.names, m.files = append(m.names, said["FDNAME"]), append(m.files, os.NewFile(uintptr(fd), said["FDNAME"]))
			}
		}
		m.mu.Unlock()
	}
}

// kept counts what is kept, by kind.
func (m *manager) kept() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := map[string]int{}
	for _, name := range m.names {
		n[name[:1]]++
	}
	return n
}

// options start a daemon as the manager does.
func (m *manager) options(most int) options {
	m.mu.Lock()
	defer m.mu.Unlock()
	return options{files: slices.Clone(m.files), env: []string{
		"NOTIFY_SOCKET=" + m.path, fmt.Sprintf("FDSTORE=%d", most),
		fmt.Sprintf("LISTEN_FDS=%d", len(m.files)), "LISTEN_FDNAMES=" + strings.Join(m.names, ":"),
	}}
}

// await waits until the manager has what it should.
func (m *manager) await(what string, ok func() bool) {
	m.t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(patience); !ok(); <-again.C {
		if time.Now().After(end) {
			m.t.Fatalf("after %v still not: %s; kept is %v", patience, what, m.kept())
		}
	}
}

// startedBy is a script that does what a manager does between fork and exec.
func startedBy(t *testing.T) string {
	return script(t, "LISTEN_PID=$$\nexport LISTEN_PID\nexec "+docsBinary(t)+" \"$@\"\n")
}

// TestStoreOfDescriptors: what ends while no daemon runs keeps its status, what it
// wrote last is printed, and who connects waits.
func TestStoreOfDescriptors(t *testing.T) {
	testenv.Need(t, testenv.Kernel(6, 15))
	m := newManager(t)
	http1, passed := freeAddress(t), freeAddress(t)
	end := filepath.Join(t.TempDir(), "end")
	if err := unix.Mkfifo(end, 0o600); err != nil {
		t.Fatal(err)
	}
	o := m.options(100)
	o.bin = startedBy(t)
	d := newDaemon(t, fmt.Sprintf(`http: {listen: "%s"}
entries:
  code: {command: "sh -c 'read x < %s; echo last words; exit 7'", delay: 1h}
  killed: {command: sleep 100000, delay: 1h}
  lives: {command: sleep 100000}
  web:
    command: %s
    delay: 0
    sockets: [{name: http, listen: "tcp://%s"}]
`, http1, end, passedServer(t), passed), o)
	d.rise(o)
	for _, name := range []string{"code", "killed", "lives", "web"} {
		d.running(name, 1)
	}
	m.await("all is kept", func() bool { n := m.kept(); return n["p"] == 4 && n["f"] == 4 && n["s"] == 2 })
	if m.ready != 1 {
		t.Errorf("READY=1 came %d times", m.ready)
	}
	before := d.reexec()
	d.must("restart", "web")
	m.await("the next server is kept", func() bool { n := m.kept(); return n["p"] == 4 && n["f"] == 4 && n["s"] == 2 })
	ids := d.identities(before.entry("lives"))
	d.die()

	if f, err := os.OpenFile(end, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	} else {
		f.Close()
	}
	d.awaitEnd(before.process("code", 0).PID)
	server := d.last("web")
	for _, pid := range []int{before.process("killed", 0).PID, server} {
		if !d.kill(pid, unix.SIGKILL) {
			t.Fatalf("process %d is not there", pid)
		}
		d.awaitEnd(pid)
	}
	answers := make(chan error, 2)
	for _, url := range []string{"http://" + passed + "/", "http://" + http1 + "/v1/state"} {
		go func() {
			_, err := answer(&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}, url)
			answers <- err
		}()
	}
	again := m.options(100)
	s, _ := d.rise(again)
	d.same(ids, s.entry("lives"))
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	s = d.await("the ends are told", func(s *state) bool {
		return s.process("code", 0).LastExit != nil && s.process("killed", 0).LastExit != nil
	})
	if x := s.process("code", 0).LastExit; x.Reason != "exited" || x.Code == nil || *x.Code != 7 {
		t.Errorf("code: %+v", x)
	}
	if x := s.process("killed", 0).LastExit; x.Reason != "signaled" || x.Signal != "SIGKILL" {
		t.Errorf("killed: %+v", x)
	}
	pid := before.process("code", 0).PID
	d.out.expect(fmt.Sprintf("20:17:55 %-15s last words", fmt.Sprintf("code.%d", pid)),
		fmt.Sprintf("20:17:55 %-15s Exited at 1334081875 with ExitFailure 7.", fmt.Sprintf("code.%d", pid)))
	m.await("what has ended is kept no more", func() bool { n := m.kept(); return n["p"] == 2 && n["f"] == 4 && n["s"] == 2 })
	checkCounters(t, d.state())
	d.stop()
}

// last is the pid of an entry's only process by the last state that was seen.
func (d *daemon) last(entry string) int {
	d.t.Helper()
	for _, p := range marked(d.t, d.mark) {
		if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid)); err == nil && strings.Contains(string(env), "SENTRYD_ENTRY="+entry+"\x00") {
			return p.pid
		}
	}
	d.t.Fatalf("no process of %s", entry)
	return 0
}

// TestStoreIsFull: what has no room is said, and supervision goes on.
func TestStoreIsFull(t *testing.T) {
	m := newManager(t)
	o := m.options(2)
	o.bin = startedBy(t)
	d := startDaemon(t, "entries: {a: {command: sleep 100000, count: 5}}\n", o)
	d.running("a", 5)
	d.await("it is said", func(s *state) bool { return len(storeMissing(s)) == 1 })
	if n := len(m.options(0).files); n != 2 {
		t.Errorf("%d descriptors are kept", n)
	}
	d.must("scale", "a=6")
	d.running("a", 6)
	d.stop()
}

// TestStoreRefuses: a manager that does not listen is no obstacle.
func TestStoreRefuses(t *testing.T) {
	m := newManager(t)
	o := m.options(100)
	m.conn.Close()
	os.Remove(m.path)
	d := startDaemon(t, "entries: {a: {command: sleep 100000}}\n", o)
	d.running("a", 1)
	d.await("it is said", func(s *state) bool { return len(storeMissing(s)) == 1 })
	d.stop()
}

func storeMissing(s *state) (out []string) {
	for _, text := range s.Daemon.Missing {
		if strings.HasPrefix(text, "The service manager does not keep") {
			out = append(out, text)
		}
	}
	return out
}
