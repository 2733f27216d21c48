package systemd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// Where the unit expects things.
const (
	unit     = "sentryd.service"
	units    = "/etc/systemd/system/"
	binary   = "/usr/local/bin/sentryd"
	confFile = "/etc/sentryd/sentry.yaml"
	api      = "http://127.0.0.1:8001"
	passed   = "127.0.0.1:8091" // of the entry web
)

var patience = testenv.Slow(10 * time.Second)

// service is sentryd as the unit in examples/ has it.
type service struct{ t *testing.T }

// install puts the unit, the binary and the configuration where the unit says, and
// starts it. What the test leaves is stopped and removed.
func install(t *testing.T, config string, dropIns ...string) *service {
	t.Helper()
	testenv.Need(t, testenv.Systemd())
	s := &service{t}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command("journalctl", "--boot", "--no-pager", "--output=short-monotonic", "--unit="+unit).CombinedOutput()
			t.Logf("the journal:\n%s", out)
		}
		s.do("stop")
		_ = exec.Command("systemctl", "reset-failed", unit).Run() // it need not have failed
		for _, left := range []string{units + unit + ".d", "/run/sentryd"} {
			if err := os.RemoveAll(left); err != nil {
				t.Error(err)
			}
		}
	})
	text, err := os.ReadFile("../../examples/sentryd.service")
	if err != nil {
		t.Fatal(err)
	}
	s.write(units+unit, string(text))
	for i, text := range dropIns {
		s.write(fmt.Sprintf("%s%s.d/%d.conf", units, unit, i), text)
	}
	if _, err := os.Lstat(binary); err != nil {
		program, err := os.ReadFile(os.Getenv("SENTRYD_BIN"))
		if err != nil {
			t.Fatal(err)
		}
		s.write(binary, string(program))
		if err := os.Chmod(binary, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.write(confFile, config)
	s.do("daemon-reload")
	return s
}

func (s *service) write(path, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// systemctl runs a verb on the unit to its end.
func (s *service) systemctl(args ...string) (out string, err error) {
	if args[0] != "daemon-reload" {
		args = append(args, unit)
	}
	text, err := exec.Command("systemctl", args...).CombinedOutput()
	return string(text), err
}

// do is a verb that must succeed.
func (s *service) do(verb ...string) {
	s.t.Helper()
	if out, err := s.systemctl(verb...); err != nil {
		s.t.Fatalf("systemctl %v: %v: %s", verb, err, out)
	}
}

// show is what systemd knows of the unit: the values of these properties.
func (s *service) show(properties ...string) map[string]string {
	s.t.Helper()
	out, err := s.systemctl("show", "--property="+strings.Join(properties, ","))
	if err != nil {
		s.t.Fatalf("systemctl show: %v: %s", err, out)
	}
	values := make(map[string]string)
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		values[name] = value
	}
	return values
}

// expect compares properties of the unit.
func (s *service) expect(when string, want map[string]string) {
	s.t.Helper()
	got := s.show(slices.Sorted(maps.Keys(want))...)
	for property, value := range want {
		if got[property] != value {
			s.t.Errorf("%s %s is %q, want %q", when, property, got[property], value)
		}
	}
}

// awaitProperty waits until a property has a value.
func (s *service) awaitProperty(property, want string) {
	s.t.Helper()
	s.await(property+"="+want, func() (string, bool) {
		got := s.show(property)[property]
		return got, got == want
	})
}

// sentryd runs a command of the binary.
func (s *service) sentryd(args ...string) (out string, code int) {
	s.t.Helper()
	cmd := exec.Command(binary, args...)
	text, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// state is what the tests read of GET /v1/state.
type state struct {
	Daemon struct {
		PID         int
		Reexecs     int
		Containment string
		Missing     []string
	}
	Entries []struct {
		Name      string
		State     string
		Starts    int
		Exits     int
		Processes []process
	}
}

type process struct {
	Slot        int
	Incarnation int
	PID         int
	State       string
	Adopted     bool
	Error       string
	LastExit    *struct {
		Reason string
		Code   *int
		OOM    bool
	} `json:"last_exit"`
}

// get returns the answer to a request, for which it waits.
func get(url string) (string, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return string(text), err
}

func (s *service) state() (st state) {
	s.t.Helper()
	text, err := get(api + "/v1/state")
	if err == nil {
		err = json.Unmarshal([]byte(text), &st)
	}
	if err != nil {
		s.t.Fatalf("%v: %s", err, text)
	}
	return st
}

func (st *state) process(entry string, slot int) (p process) {
	for _, e := range st.Entries {
		if e.Name == entry && slot < len(e.Processes) {
			p = e.Processes[slot]
		}
	}
	return p
}

// await asks until the answer is ok; what a manager or another process does tells
// nobody when it is done.
func (s *service) await(what string, ok func() (is string, ok bool)) {
	s.t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(patience); ; <-again.C {
		is, ok := ok()
		if ok {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("after %v still not %s: %s", patience, what, is)
		}
	}
}

// running waits until every process of the entries runs, and returns that state.
func (s *service) running(entries ...string) (st state) {
	s.t.Helper()
	s.await(fmt.Sprintf("%v running", entries), func() (string, bool) {
		st = s.state()
		for _, name := range entries {
			for _, e := range st.Entries {
				if e.Name == name && (e.State != "running" || len(e.Processes) == 0) {
					return fmt.Sprintf("%+v", e), false
				}
			}
		}
		return "", true
	})
	return st
}

// A held is a process that the test holds on to: it and no other of its pid.
type held struct {
	name      string
	pid, slot int
	pidfd     int
}

// hold takes hold of all processes of entries.
func (s *service) hold(st state, entries ...string) (list []held) {
	s.t.Helper()
	for _, name := range entries {
		for _, e := range st.Entries {
			for _, p := range e.Processes {
				if e.Name != name {
					continue
				}
				pidfd, err := unix.PidfdOpen(p.PID, 0)
				if err != nil {
					s.t.Fatalf("%s: pidfd of %d: %v", name, p.PID, err)
				}
				s.t.Cleanup(func() { unix.Close(pidfd) })
				list = append(list, held{name, p.PID, p.Slot, pidfd})
			}
		}
	}
	return list
}

// ended reports whether the process has ended.
func (h held) ended() bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.pidfd), Events: unix.POLLIN}}, 0)
	return err != nil || n > 0
}

// numbered reports whether a pidfd has a number of its own, by which it can be kept
// (Linux 6.9).
func numbered(pidfd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(pidfd, &fs) == nil && fs.Type == unix.PID_FS_MAGIC
}

// keepsStatus reports whether the pidfd of a process that another has reaped tells
// how it ended (Linux 6.15).
func keepsStatus(pidfd int) bool {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	return unix.IoctlPidfdInfo(pidfd, &info) == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0
}

// same checks that the processes are the ones that are held, that they live, and
// that there is no other.
func (s *service) same(list []held, st state) {
	s.t.Helper()
	for _, h := range list {
		if h.ended() {
			s.t.Errorf("%s:%d, process %d, has ended", h.name, h.slot, h.pid)
		}
		if p := st.process(h.name, h.slot); p.PID != h.pid || p.State != "running" {
			s.t.Errorf("%s:%d was process %d and is %+v", h.name, h.slot, h.pid, p)
		}
		if mine := processesOf(s.t, h.name, h.slot); len(mine) != 1 || mine[0] != h.pid {
			s.t.Errorf("%s:%d is process %d, and there are %v", h.name, h.slot, h.pid, mine)
		}
	}
}

// processesOf finds all processes of a slot that live anywhere, by what sentryd put
// into their environment; of a tree the first.
func processesOf(t *testing.T, entry string, slot int) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		env, _ := os.ReadFile(file) // it may have ended
		if bytes.Contains(env, []byte("SENTRYD_ENTRY="+entry+"\x00")) && bytes.Contains(env, []byte(fmt.Sprintf("SENTRYD_SLOT=%d\x00", slot))) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// crash ends the daemon by SIGKILL, as nothing announces it.
func (s *service) crash() {
	s.t.Helper()
	s.do("kill", "--kill-whom=main", "--signal=KILL")
}

// cgroup is where systemd put the unit.
func (s *service) cgroup() string {
	s.t.Helper()
	return "/sys/fs/cgroup" + s.show("ControlGroup")["ControlGroup"]
}

// fromProc reads a file of a process.
func fromProc(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// journal is what the unit printed since the boot.
func (s *service) journal() string {
	s.t.Helper()
	out, err := exec.Command("journalctl", "--boot", "--no-pager", "--output=cat", "--unit="+unit).Output()
	if err != nil {
		s.t.Fatalf("journalctl: %v", err)
	}
	return string(out)
}
