package spawn

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// limitable makes a cgroup in which every controller can be had, and returns its
// directory, and how to run one of helpers in it, or in the one of that name in it.
func limitable(t *testing.T) (dir string, run func(helper string, sub ...string) string) {
	t.Helper()
	testenv.Need(t, testenv.Root())
	own, err := ownCgroup()
	if err != nil {
		t.Skip("needs cgroup v2: " + err.Error())
	}
	if have := readWords(own + "/cgroup.controllers"); !slices.Contains(have, "memory") || !slices.Contains(have, "cpu") || !slices.Contains(have, "pids") {
		t.Skipf("needs the cgroup v2 controllers cpu, memory, pids: %s has %q", own, have)
	}
	if err := writeFile(own+"/cgroup.subtree_control", "+cpu +memory +pids"); err != nil {
		t.Skip("needs the right to enable controllers where the tests run: " + err.Error())
	}
	dir, err = os.MkdirTemp(own, "spawn-test.")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir, func(helper string, sub ...string) string {
		t.Helper()
		fd, err := unix.Open(filepath.Join(append([]string{dir}, sub...)...), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "SPAWN_TEST_HELPER="+helper)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", helper, err, out)
		}
		return string(out)
	}
}

// TestControllers has a process enable each controller below its own cgroup, which
// it must leave for that, limit children, and return.
func TestControllers(t *testing.T) {
	for _, names := range []string{"cpu", "memory", "pids", "cpu memory pids"} {
		t.Run(names, func(t *testing.T) {
			dir, run := limitable(t)
			t.Setenv("SPAWN_TEST_CONTROLLERS", names)
			run("controllers")
			if left := readWords(dir + "/cgroup.subtree_control"); len(left) > 0 {
				t.Errorf("%q stay enabled", left)
			}
		})
	}
}

func helpControllers() error {
	names := strings.Fields(os.Getenv("SPAWN_TEST_CONTROLLERS"))
	g, err := OpenCgroups("limits")
	if err != nil {
		return err
	}
	above := filepath.Dir(g.Dir())
	if missing := g.Lacks(names); len(missing) > 0 {
		return fmt.Errorf("said to lack: %v", missing)
	}
	for range 2 { // the second time there is nothing to do
		if missing := g.EnableControllers(names); len(missing) > 0 {
			return fmt.Errorf("missing: %v", missing)
		}
		if own, err := ownCgroup(); err != nil || own != filepath.Join(g.Dir(), leaf) {
			return fmt.Errorf("this process is in %s: %v", own, err)
		}
	}
	// The next image finds the same directory.
	if again, err := OpenCgroups("limits"); err != nil || again.Dir() != g.Dir() {
		return fmt.Errorf("opened again: %v, %v", again, err)
	}
	values := map[string]Setting{"cpu": {"cpu.max", "50000 100000"}, "memory": {"memory.max", "67108864"}, "pids": {"pids.max", "7"}}
	var settings []Setting
	for _, name := range names {
		settings = append(settings, values[name])
	}
	p, err := New(Options{})
	if err != nil {
		return err
	}
	spec := sleeper()
	spec.Place = Place{Cgroup: g.Path("a:0"), Settings: settings}
	p.Start(1, spec)
	if ev, err := helpEvents(p, 1); err != nil || ev[0].Kind != Started {
		return fmt.Errorf("%+v: %v", ev, err)
	}
	for _, s := range settings {
		if got := strings.Join(readWords(g.Path("a:0")+"/"+s.File), " "); got != s.Value {
			return fmt.Errorf("%s is %q", s.File, got)
		}
	}
	p.killAll()
	p.Close()
	if left := g.Close(); len(left) > 0 {
		return fmt.Errorf("left: %v", left)
	}
	if own, err := ownCgroup(); err != nil || own != above {
		return fmt.Errorf("afterwards this process is in %s: %v", own, err)
	}
	return nil
}

// TestControllersRefused: where another process is in the cgroup above, no
// controller can be had, and nothing is changed by the wish for one.
func TestControllersRefused(t *testing.T) {
	dir, run := limitable(t)
	run("refused")
	if left := readWords(dir + "/cgroup.subtree_control"); len(left) > 0 {
		t.Errorf("%q are enabled", left)
	}
}

func helpRefused() error {
	g, err := OpenCgroups("limits")
	if err != nil {
		return err
	}
	other := exec.Command("cat") // until the end of its input
	in, err := other.StdinPipe()
	if err != nil {
		return err
	}
	if err := other.Start(); err != nil {
		return err
	}
	defer func() {
		in.Close()
		_ = other.Wait()
		g.Close()
	}()
	names := []string{"cpu", "memory", "pids"}
	want := fmt.Sprintf("process %d (", other.Process.Pid)
	for _, missing := range []map[string]error{g.Lacks(names), g.EnableControllers(names)} {
		for _, name := range names {
			if missing[name] == nil || !strings.Contains(missing[name].Error(), want) {
				return fmt.Errorf("%s: %v, want %q", name, missing[name], want)
			}
		}
	}
	p, err := New(Options{})
	if err != nil {
		return err
	}
	spec := sh("exit 3")
	spec.Place.Cgroup = g.Path("a:0")
	p.Start(1, spec)
	if ev, err := helpEvents(p, 2); err != nil || ev[1].Status.Code != 3 {
		return fmt.Errorf("%+v: %v", ev, err)
	}
	p.Close()
	return nil
}

// TestDelegateSubgroup is as under systemd with DelegateSubgroup=daemon: controllers
// are had without a move, and the service can be started again while they are in use.
func TestDelegateSubgroup(t *testing.T) {
	dir, run := limitable(t)
	if err := unix.Setxattr(dir, "user.delegate", []byte("1"), 0); err != nil {
		t.Skip("needs extended attributes of cgroups: Linux 5.7: " + err.Error())
	}
	sub := filepath.Join(dir, leaf)
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Rmdir(sub) })
	for range 2 {
		run("subgroup", leaf)
	}
	if err := enter(t, dir); !errors.Is(err, unix.EBUSY) {
		t.Errorf("the cgroup above takes a process (%v): this shows nothing", err)
	}
}

func helpSubgroup() error {
	own, err := ownCgroup()
	if err != nil {
		return err
	}
	g, err := OpenCgroups("limits")
	if err != nil {
		return err
	}
	names := []string{"cpu", "memory", "pids"}
	if missing := g.EnableControllers(names); g.Dir() != filepath.Join(filepath.Dir(own), "limits") || len(missing) > 0 {
		return fmt.Errorf("in %s missing: %v", g.Dir(), missing)
	}
	if now, err := ownCgroup(); now != own {
		return fmt.Errorf("moved from %s to %s (%v)", own, now, err)
	}
	p, err := New(Options{})
	if err != nil {
		return err
	}
	spec := sh("exit 3")
	spec.Place = Place{Cgroup: g.Path("a:0"), Settings: []Setting{{"pids.max", "5"}}}
	p.Start(1, spec)
	if ev, err := helpEvents(p, 2); err != nil || ev[1].Status.Code != 3 {
		return fmt.Errorf("%+v: %v", ev, err)
	}
	p.Close()
	g.Close()
	return nil
}

// TestOutOfMemory: kills for want of memory are counted with the exit of the
// child in whose cgroup they were, be they its own or not, and of no other.
func TestOutOfMemory(t *testing.T) {
	_, run := limitable(t)
	if got, want := run("hungry"), "1 0 1\n"; got != want {
		t.Errorf("kills counted: %q, want %q", got, want)
	}
}

// TestOutOfMemoryOnTheWay: a child that is killed for want of memory before it has come
// to its program shares our memory. Who set the limit makes no difference.
func TestOutOfMemoryOnTheWay(t *testing.T) {
	_, run := limitable(t)
	if got, want := run("starved"), "not started, not started\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// limitingMemory makes cgroups whose memory can be limited, and a Pool.
func limitingMemory() (*Cgroups, *Pool, error) {
	g, err := OpenCgroups("limits")
	if err != nil {
		return nil, nil, err
	}
	if missing := g.EnableControllers([]string{"memory"}); len(missing) > 0 {
		g.Close()
		return nil, nil, fmt.Errorf("missing: %v", missing)
	}
	p, err := New(Options{})
	if err != nil {
		g.Close()
	}
	return g, p, err
}

func helpStarved() error {
	g, p, err := limitingMemory()
	if err != nil {
		return err
	}
	defer g.Close()
	defer p.Close()
	ours := Place{Cgroup: g.Path("a:0"), Settings: []Setting{{"memory.max", "4096"}}}
	others := Place{Cgroup: g.Path("a:1")}
	if err := errors.Join(os.Mkdir(others.Cgroup, 0o755), writeFile(others.Cgroup+"/memory.max", "4096")); err != nil {
		return err
	}
	var said []string
	for i, place := range []Place{ours, others} {
		spec := sleeper()
		spec.Place = place
		p.Start(Token(i), spec)
		ev, err := helpEvents(p, 1)
		if err != nil {
			return err
		}
		said = append(said, map[Kind]string{StartFailed: "not started", Started: "started"}[ev[0].Kind])
	}
	fmt.Println(strings.Join(said, ", "))
	return nil
}

func helpHungry() error {
	g, p, err := limitingMemory()
	if err != nil {
		return err
	}
	defer g.Close()
	defer p.Close()
	// dd fills a buffer of that size.
	const eat = "dd if=/dev/zero of=/dev/null bs=64M count=1"
	for token, script := range []string{"exec " + eat, "exit 1", eat + "; exit 0"} {
		spec := sh(script)
		spec.Place = Place{Cgroup: g.Path("a:0"), Settings: []Setting{{"memory.max", "16777216"}}}
		p.Start(Token(token), spec)
		ev, err := helpEvents(p, 2)
		if err != nil {
			return err
		}
		if ev[1].Kind != Exited || (ev[1].Status.Signal == int(unix.SIGKILL)) != (token == 0) {
			return fmt.Errorf("%+v", ev[1])
		}
		if token > 0 {
			fmt.Print(" ")
		}
		fmt.Print(ev[1].OOMKills)
	}
	fmt.Println()
	return nil
}
