package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

const sleepers = `
entries:
  a: {command: sleep 100000, count: 3}
`

// TestUnitStarts: READY=1 comes, and what it says is so; every key of the unit that
// has to do with the children has the effect that its comment names.
func TestUnitStarts(t *testing.T) {
	s := install(t, sleepers)
	s.do("start")
	// The command returns when READY=1 has come.
	st := s.state()
	if ready, err := get(api + "/-/ready"); err != nil || !strings.Contains(ready, "eady") {
		t.Errorf("%q, %v", ready, err)
	}
	s.expect("after the start", map[string]string{
		"ActiveState": "active", "SubState": "running", "MainPID": strconv.Itoa(st.Daemon.PID), "NRestarts": "0", "Result": "success",
	})
	st = s.running("a")
	if st.Daemon.Containment != "cgroup2" {
		t.Errorf("containment %s: %q", st.Daemon.Containment, st.Daemon.Missing)
	}
	service := strings.TrimPrefix(s.cgroup(), "/sys/fs/cgroup")
	for slot := range 3 {
		p := st.process("a", slot)
		if at := fromProc(t, p.PID, "cgroup"); !strings.HasPrefix(at, "0::"+service+"/sentryd.sentry.") || !strings.HasSuffix(at, fmt.Sprintf("/a:%d", slot)) {
			t.Errorf("a:%d is in %q", slot, at)
		}
		if score := fromProc(t, p.PID, "oom_score_adj"); score != "0" {
			t.Errorf("a:%d has the OOM score %s", slot, score)
		}
	}
	if score := fromProc(t, st.Daemon.PID, "oom_score_adj"); score != "-900" {
		t.Errorf("the daemon has the OOM score %s", score)
	}
	if out, code := s.sentryd("status"); code != 0 {
		t.Errorf("status: exit code %d: %s", code, out)
	}
	if out, code := s.sentryd("check"); code != 0 {
		t.Errorf("check: exit code %d: %s", code, out)
	}
	for _, text := range st.Daemon.Missing {
		t.Errorf("missing: %s", text)
	}
}

// TestLimits: the cgroup that systemd delegates has controllers, and they limit.
func TestLimits(t *testing.T) {
	s := install(t, `
entries:
  few: {command: "sh -c 'sleep 100000 & sleep 100000 & sleep 100000 & wait'", restart: never, resources: {pids_max: 3}}
  hungry: {command: dd if=/dev/zero of=/dev/null bs=256M count=1, restart: never, resources: {memory_max: 32MiB}}
  web: {command: sleep 100000, resources: {memory_max: 64MiB, cpu_max: 0.5}}
`)
	if out, code := s.sentryd("check"); code != 0 {
		t.Errorf("check: exit code %d: %s", code, out)
	}
	s.do("start")
	var st state
	s.await("the ends", func() (string, bool) {
		st = s.state()
		return fmt.Sprintf("%+v", st), st.process("hungry", 0).State == "exited" && st.process("few", 0).State == "exited"
	})
	if x := st.process("hungry", 0).LastExit; x == nil || !x.OOM {
		t.Errorf("hungry: %+v", x)
	}
	if x := st.process("few", 0).LastExit; x == nil || x.Code == nil || *x.Code != 2 { // dash cannot fork
		t.Errorf("few: %+v", x)
	}
	// OOMPolicy=continue
	s.expect("after the kernel killed for memory", map[string]string{"ActiveState": "active", "MainPID": strconv.Itoa(st.Daemon.PID), "NRestarts": "0"})
	s.limits(st.process("web", 0).PID, map[string]string{"memory.max": "67108864", "cpu.max": "50000 100000"})
}

// TestReload: the daemon is another program afterwards, and systemd's main process
// and the children are the same.
func TestReload(t *testing.T) {
	s := install(t, sleepers)
	s.do("start")
	st := s.running("a")
	children := s.hold(st, "a")
	s.write(confFile, sleepers+"  b: {command: sleep 100000}\n")
	s.do("reload")
	after := s.running("a", "b")
	s.same(children, after)
	if after.Daemon.Reexecs != 1 || after.process("b", 0).State != "running" {
		t.Errorf("after the reload: %+v", after)
	}
	same := map[string]string{"ActiveState": "active", "SubState": "running", "MainPID": strconv.Itoa(st.Daemon.PID), "NRestarts": "0"}
	s.expect("after the reload", same)
	s.do("kill", "--kill-whom=main", "--signal=HUP")
	s.await("reloaded", func() (string, bool) {
		after = s.state()
		return fmt.Sprint(after.Daemon.Reexecs), after.Daemon.Reexecs == 2
	})
	s.same(children, after)
	s.expect("after SIGHUP", same)

	s.write(confFile, "entries: {a: {comand: x}}\n")
	if out, err := s.systemctl("reload"); err == nil {
		t.Errorf("a reload with a mistake succeeds: %s", out)
	}
	s.same(children, s.state())
	s.expect("after a reload with a mistake", same)
	if out := s.journal(); !strings.Contains(out, confFile+":1: ") || !strings.Contains(out, "comand") {
		t.Errorf("the journal does not name the mistake")
	}
}

// TestStop leaves nothing: no process, no cgroup, nothing in the store.
func TestStop(t *testing.T) {
	s := install(t, `
entries:
  a: {command: sleep 100000, count: 3, resources: {memory_max: 64MiB}}
  stubborn:
    command: "sh -c 'trap \"\" TERM; (sleep 100000 & setsid sleep 100000 &) ; while :; do sleep 100000; done'"
    stop: {timeout: 1s}
`)
	s.do("start")
	st := s.running("a", "stubborn")
	children := s.hold(st, "a", "stubborn")
	dir := s.cgroup()
	s.do("reload") // which systemd gives a cgroup of its own below the service's
	s.do("stop")
	s.expect("after the stop", map[string]string{"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0", "NFileDescriptorStore": "0"})
	for _, h := range children {
		if !h.ended() {
			t.Errorf("%s:%d lives", h.name, h.slot)
		}
		if left := processesOf(t, h.name, h.slot); len(left) > 0 {
			t.Errorf("of %s:%d there are %v", h.name, h.slot, left)
		}
	}
	if left, err := filepath.Glob(dir + "/*/cgroup.procs"); err != nil || len(left) > 0 {
		t.Errorf("below the unit's cgroup there is %v, %v", left, err)
	}
	s.do("start")
	s.running("a")
}

// TestNoRestart: a bad configuration does not get better by trying.
func TestNoRestart(t *testing.T) {
	s := install(t, "entries: {a: {comand: x}}\n")
	if out, err := s.systemctl("start"); err == nil {
		t.Errorf("it starts with a mistake: %s", out)
	}
	s.expect("after it failed", map[string]string{"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0", "Result": "exit-code"})
}

// crashing are entries of each kind for a crash of the daemon. The gate is what
// holds up the next daemon.
const crashing = `
entries:
  lives: {command: sleep 100000, count: 3}
  limited: {command: sleep 100000, resources: {memory_max: 64MiB, pids_max: 20}}
  code: {command: "sh -c 'read x < /run/end; echo last words; exit 7'", delay: 1h}
  web:
    command: %s
    delay: 0
    sockets: [{name: http, listen: "tcp://` + passed + `"}]
`

const gate = `[Service]
ExecStartPre=/bin/sh -c 'read x < /run/gate || true'
`

// TestCrash: after SIGKILL of the daemon systemd starts it again, and nothing has
// happened to the children. What ended meanwhile is counted once, as far as the
// kernel tells with its status; who connects meanwhile waits.
func TestCrash(t *testing.T) {
	testenv.Need(t, testenv.Systemd())
	for _, fifo := range []string{"/run/end", "/run/gate"} {
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(fifo)
	}
	s := install(t, fmt.Sprintf(crashing, filepath.Join(os.Getenv("SENTRYD_TEST_PROGRAMS"), "passed")), gate)
	// The first start waits at the gate as well.
	started := make(chan error, 1)
	go func() {
		_, err := s.systemctl("start")
		started <- err
	}()
	s.open("/run/gate")
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	st := s.running("lives", "limited", "code", "web")
	children := s.hold(st, "lives", "limited")
	ending := s.hold(st, "code", "web")
	// Of each process a pidfd, where they can be kept, and its output; two listeners.
	kept := 6 + 2
	if numbered(ending[0].pidfd) {
		kept += 6
	}
	s.awaitProperty("NFileDescriptorStore", strconv.Itoa(kept))
	s.crash()
	s.awaitProperty("SubState", "start-pre")
	s.expect("before the next start", map[string]string{"MainPID": "0"})
	s.open("/run/end")
	if err := unix.PidfdSendSignal(ending[1].pidfd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	s.await("the ends", func() (string, bool) {
		return fmt.Sprintf("code %v, web %v", ending[0].ended(), ending[1].ended()), ending[0].ended() && ending[1].ended()
	})
	answers := make(chan error, 2)
	for _, url := range []string{"http://" + passed + "/", api + "/v1/state"} {
		go func() {
			_, err := get(url)
			answers <- err
		}()
	}
	s.open("/run/gate")
	for range 2 {
		if err := <-answers; err != nil {
			t.Errorf("who connected while no daemon ran: %v", err)
		}
	}
	s.awaitProperty("SubState", "running")
	st = s.running("lives", "limited", "web")
	s.same(children, st)
	s.expect("after the crash", map[string]string{"ActiveState": "active", "NRestarts": "1", "MainPID": strconv.Itoa(st.Daemon.PID)})
	if st.Daemon.Containment != "cgroup2" {
		t.Errorf("containment %s: %q", st.Daemon.Containment, st.Daemon.Missing)
	}
	for _, h := range children {
		if p := st.process(h.name, h.slot); !p.Adopted {
			t.Errorf("%s:%d is not adopted", h.name, h.slot)
		}
	}
	x := st.process("code", 0).LastExit
	switch {
	case x == nil:
		t.Errorf("code: no end: %+v", st.process("code", 0))
	case keepsStatus(ending[0].pidfd):
		if x.Reason != "exited" || x.Code == nil || *x.Code != 7 {
			t.Errorf("code: %+v", x)
		}
	case x.Reason != "unknown" || x.Code != nil:
		t.Errorf("code: %+v, which nobody could know", x)
	}
	for _, e := range st.Entries {
		if e.Name == "code" && (e.Starts != 1 || e.Exits != 1) {
			t.Errorf("code started %d times and ended %d times", e.Starts, e.Exits)
		}
	}
	if out := s.journal(); strings.Count(out, "last words") != 1 {
		t.Errorf("the last words are not in the journal once:\n%s", out)
	}
	s.limits(st.process("limited", 0).PID, map[string]string{"memory.max": "67108864", "pids.max": "20"})
	s.do("stop")
	for _, h := range children {
		if !h.ended() {
			t.Errorf("%s:%d outlives the stop", h.name, h.slot)
		}
	}
}

const lasting = `
entries:
  lives: {command: sleep 100000, count: 3}
  limited: {command: sleep 100000, resources: {memory_max: 64MiB, pids_max: 20}}
`

// TestCrashLoop: a daemon that dies as soon as it is up, several times.
func TestCrashLoop(t *testing.T) {
	s := install(t, lasting, "[Unit]\nStartLimitIntervalSec=0\n")
	s.do("start")
	children := s.hold(s.running("lives", "limited"), "lives", "limited")
	for i := range 4 {
		s.crash()
		s.awaitProperty("NRestarts", strconv.Itoa(i+1))
		s.awaitProperty("SubState", "running")
		st := s.running("lives", "limited")
		s.same(children, st)
		s.limits(st.process("limited", 0).PID, map[string]string{"memory.max": "67108864", "pids.max": "20"})
	}
}

// TestStopKeep: the service is over, its processes are not, and the next start of
// the service takes them over.
func TestStopKeep(t *testing.T) {
	s := install(t, lasting)
	s.do("start")
	children := s.hold(s.running("lives", "limited"), "lives", "limited")
	if out, code := s.sentryd("stop", "--keep"); code != 0 {
		t.Fatalf("stop --keep: exit code %d: %s", code, out)
	}
	s.awaitProperty("ActiveState", "inactive")
	s.expect("after stop --keep", map[string]string{"Result": "success", "ExecMainStatus": "0", "NRestarts": "0"})
	s.do("start")
	st := s.running("lives", "limited")
	s.same(children, st)
	s.limits(st.process("limited", 0).PID, map[string]string{"memory.max": "67108864", "pids.max": "20"})
}

// TestPlainUser: what systemd hands over to a plain user is enough for cgroups, limits
// and a crash.
func TestPlainUser(t *testing.T) {
	const how = " --runtime-dir /run/sentryd -c " + confFile
	s := install(t, lasting, `[Service]
User=nobody
ExecStart=
ExecStart=`+binary+` start`+how+`
ExecReload=
ExecReload=`+binary+` reload`+how+"\n")
	s.do("start")
	st := s.running("lives", "limited")
	if st.Daemon.Containment != "cgroup2" {
		t.Errorf("containment %s: %q", st.Daemon.Containment, st.Daemon.Missing)
	}
	if id := fromProc(t, st.process("lives", 0).PID, "status"); !strings.Contains(id, "\nUid:\t65534\t65534\t65534\t65534\n") {
		t.Errorf("whose is it? %s", id)
	}
	children := s.hold(st, "lives", "limited")
	s.do("reload")
	s.same(children, s.running("lives", "limited"))
	s.crash()
	s.awaitProperty("NRestarts", "1")
	s.awaitProperty("SubState", "running")
	st = s.running("lives", "limited")
	s.same(children, st)
	s.limits(st.process("limited", 0).PID, map[string]string{"memory.max": "67108864", "pids.max": "20"})
	s.do("stop")
	s.expect("after the stop", map[string]string{"ActiveState": "inactive", "Result": "success"})
}

// limits waits until the cgroup of a process limits it to that.
func (s *service) limits(pid int, want map[string]string) {
	s.t.Helper()
	at := "/sys/fs/cgroup" + strings.TrimPrefix(fromProc(s.t, pid, "cgroup"), "0::")
	for file, want := range want {
		s.await(file+" "+want, func() (string, bool) {
			text, err := os.ReadFile(filepath.Join(at, file))
			return fmt.Sprintf("%q, %v", text, err), err == nil && strings.TrimSpace(string(text)) == want
		})
	}
}

// open lets who reads a FIFO go on, or will.
func (s *service) open(fifo string) {
	s.t.Helper()
	s.await("read: "+fifo, func() (string, bool) {
		f, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0) // ENXIO without a reader
		if err != nil {
			return err.Error(), false
		}
		f.Close()
		return "", true
	})
}
