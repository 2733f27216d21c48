package spawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// testCgroups makes a directory of cgroups for a test.
func testCgroups(t testing.TB) *Cgroups {
	t.Helper()
	g, err := OpenCgroups("spawn-test." + strings.ReplaceAll(strings.TrimPrefix(t.TempDir(), os.TempDir()+"/"), "/", "."))
	if err != nil {
		t.Skip("needs a cgroup v2 tree to write to: " + err.Error())
	}
	t.Cleanup(func() {
		if left := g.Close(); len(left) > 0 {
			t.Errorf("left in %s: %v", g.Dir(), left)
		}
	})
	return g
}

// everyTree runs a test with each way to know a tree, as on this kernel, and as
// on one before 5.14 and 6.9.
func everyTree(t *testing.T, test func(t *testing.T, p *Pool, place Place)) {
	old := func(p *Pool) { p.exact, p.noCgroupKill = false, true }
	for name, hook := range map[string]func(*Pool){"": nil, " old kernel": old} {
		t.Run("cgroup"+name, func(t *testing.T) {
			g := testCgroups(t)
			test(t, newTestPool(t, Options{}, hook), Place{Cgroup: g.Path("test:0")})
		})
		t.Run("lineage"+name, func(t *testing.T) {
			test(t, newTestPool(t, Options{}, hook), Place{Marks: []string{"TREE=" + t.TempDir()}})
		})
	}
}

// startIn is startShell at a place.
func startIn(t *testing.T, p *Pool, token Token, place Place, script string) {
	t.Helper()
	if err := startShell(p, token, t.TempDir(), script, place); err != nil {
		t.Fatal(err)
	}
}

func pidsOf(members []Member) (pids []int) {
	for _, m := range members {
		pids = append(pids, m.PID)
	}
	return pids
}

func TestTree(t *testing.T) {
	everyTree(t, func(t *testing.T, p *Pool, place Place) {
		// Three in its session, three in sessions of their own, orphans all.
		startIn(t, p, 1, place, "for i in 1 2 3; do sleep 1000 & setsid sleep 1001 & done; while [ $(ps -A -o args= | grep -c '^sleep 100') -lt 6 ]; do :; done; echo; exit 5")
		ev := p.take(t, 2)
		exit := ev[1]
		if exit.Kind != Exited || exit.Status.Code != 5 || exit.TreeEmpty || len(exit.Members) != 6 || slices.Contains(pidsOf(exit.Members), exit.PID) {
			t.Fatalf("%+v", exit)
		}
		for _, m := range exit.Members {
			if m.Command != "sleep" {
				t.Errorf("member %+v", m)
			}
		}
		if c := p.Children(); len(c) != 1 || !c[0].Reaped || c[0].Token != 1 || c[0].PidFD != -1 {
			t.Errorf("%+v", c)
		}
		if err := signalOne(p, 1, int(unix.SIGTERM)); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("signal to the dead main process: %v", err)
		}
		if err := p.SignalTree(1, int(unix.SIGTERM)); err != nil {
			t.Error(err)
		}
		// Unless the tree has gone before that could be told.
		ev = p.until(t, func(all []Event) bool { return len(all) > 0 && all[len(all)-1].Kind == TreeEmpty })
		if s := ev[0]; len(ev) == 2 && (s.Kind != TreeSignaled || s.Signal != int(unix.SIGTERM) || s.SignalErr != nil || len(s.Members) != 6) {
			t.Errorf("%+v", s)
		}
		if last := ev[len(ev)-1]; last.Kind != TreeEmpty || last.Token != 1 || last.PID != exit.PID || !last.TreeEmpty || last.At < exit.At {
			t.Errorf("%+v", last)
		}
		if err := p.SignalTree(1, int(unix.SIGTERM)); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("signal to nothing: %v", err)
		}
		if c := p.Children(); len(c) != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// stubborn is a script that writes a line when it has left behind what does not
// want to go: each in a session of its own, deaf to signals, one of them
// stopped, one that goes on to fork.
const stubborn = `
trap '' TERM HUP INT
setsid sh -c 'sh -c "kill -STOP \$\$; sleep 1000" & exit' &
setsid sh -c 'while :; do sh -c "sleep 0.05 & exit" & wait; done' &
sleep 0.2
echo
`

// TestKillTree: SIGKILL to a tree that does what it can leaves nothing of it.
func TestKillTree(t *testing.T) {
	everyTree(t, func(t *testing.T, p *Pool, place Place) {
		startIn(t, p, 1, place, stubborn+"sleep 1000")
		if err := p.SignalTree(1, int(unix.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		ev := p.until(t, func(all []Event) bool { return len(all) > 1 })
		if s := ev[1]; s.Kind != TreeSignaled || len(s.Members) < 3 {
			t.Fatalf("%+v", s)
		}
		if err := p.SignalTree(1, int(unix.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		ev = p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
		for _, e := range p.Events(ev) {
			if e.Kind == Exited && e.Status.Signal != int(unix.SIGKILL) {
				t.Errorf("%+v", e)
			}
		}
		if place.Cgroup != "" {
			if pids := appendPids(nil, place.Cgroup); len(pids) > 0 {
				t.Errorf("left in the cgroup: %v", pids)
			}
		}
	})
}

// TestKilledCgroup: a cgroup can be entered again after its processes were
// killed, by the Pool or by somebody else.
func TestKilledCgroup(t *testing.T) {
	for _, fork := range []bool{false, true} {
		t.Run(fmt.Sprintf("fork=%t", fork), func(t *testing.T) {
			g := testCgroups(t)
			p := newTestPool(t, Options{}, func(p *Pool) { p.fork = p.fork || fork })
			place := Place{Cgroup: g.Path("test:0")}
			for token := Token(1); token < 6; token++ {
				startIn(t, p, token, place, "setsid sleep 1000 & echo; exec sleep 1000")
				if err := p.SignalTree(token, int(unix.SIGKILL)); err != nil {
					t.Fatal(err)
				}
				p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
				if token == 4 && !fork { // ForkExec does not tell that its child was killed
					startIn(t, p, 10, place, "echo; exec sleep 1000")
					if err := writeFile(place.Cgroup+"/cgroup.kill", "1"); err != nil {
						t.Skip("needs cgroup.kill: " + err.Error())
					}
					p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
				}
			}
			p.Events(nil)
		})
	}
}

// TestTreeOneByOne ends a tree in such a way that the last watched member is
// not the last member.
func TestTreeOneByOne(t *testing.T) {
	everyTree(t, func(t *testing.T, p *Pool, place Place) {
		dir := t.TempDir()
		// Each process is the child of the one before, and ends when it reads a line.
		script := `f() { if [ $1 -gt 0 ]; then f $(($1-1)) & fi; echo; read x <` + dir + `/gate; }; f 9 & read x <` + dir + "/gate"
		if err := unix.Mkfifo(dir+"/gate", 0o600); err != nil {
			t.Fatal(err)
		}
		gate, err := os.OpenFile(dir+"/gate", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { gate.Close() })
		startIn(t, p, 1, place, script)
		if err := signalOne(p, 1, int(unix.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		if exit := p.take(t, 2)[1]; exit.TreeEmpty {
			t.Fatalf("%+v", exit)
		}
		for range 10 {
			if _, err := gate.WriteString("\n"); err != nil {
				t.Fatal(err)
			}
		}
		if ev := p.take(t, 1)[0]; ev.Kind != TreeEmpty {
			t.Fatalf("%+v", ev)
		}
	})
}

// TestSignalGroup: a process with a session of its own is not in the group, and
// yet in the tree.
func TestSignalGroup(t *testing.T) {
	everyTree(t, func(t *testing.T, p *Pool, place Place) {
		startIn(t, p, 1, place, "sleep 1000 & setsid sh -c 'echo; exec sleep 1000' & wait")
		if err := p.SignalGroup(1, int(unix.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		exit := p.take(t, 2)[1]
		if exit.Kind != Exited || exit.Status.Signal != int(unix.SIGTERM) || exit.TreeEmpty {
			t.Fatalf("%+v", exit)
		}
		// There is no group any more: what is left gets it.
		if err := p.SignalGroup(1, int(unix.SIGTERM)); err != nil {
			t.Fatal(err)
		}
		p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
	})
}

func TestRelease(t *testing.T) {
	everyTree(t, func(t *testing.T, p *Pool, place Place) {
		startIn(t, p, 1, place, "sleep 1000 & echo; exit 0")
		p.Release(2) // unknown
		exit := p.until(t, func(all []Event) bool { return len(all) == 2 })[1]
		if exit.TreeEmpty || len(exit.Members) != 1 {
			t.Fatalf("%+v", exit)
		}
		p.Release(1)
		if c := p.Children(); len(c) != 0 {
			t.Errorf("%+v", c)
		}
		// The next one does not share the cgroup of what was left, and its
		// tree is empty when it is.
		left, err := unix.PidfdOpen(exit.Members[0].PID, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(left)
		if place.Cgroup == "" {
			place.Marks = []string{"TREE=the next"}
		}
		startIn(t, p, 3, place, "echo; exec sleep 1000")
		if c := p.Children(); place.Cgroup != "" && c[0].Place.Cgroup != place.Cgroup+"~1" {
			t.Errorf("%+v", c)
		}
		if err := p.SignalTree(3, int(unix.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
		if dead(left) {
			t.Error("what had been released is dead")
		}
		if err := unix.PidfdSendSignal(left, unix.SIGKILL, nil, 0); err != nil {
			t.Error(err)
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(left), Events: unix.POLLIN}}, -1); err != nil {
			t.Error(err)
		}
	})
}

// TestReleaseRunning: a child that runs is not forgotten.
func TestReleaseRunning(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	p.Start(1, static(t, pause()))
	p.take(t, 1)
	p.Release(1)
	if c := p.Children(); len(c) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestAdopt(t *testing.T) {
	everyTree(t, func(t *testing.T, p *Pool, place Place) {
		old := newTestPool(t, Options{}, nil)
		startIn(t, old, 1, place, "echo; exec sleep 1000")
		other := place
		if place.Cgroup != "" {
			other.Cgroup = filepath.Dir(place.Cgroup) + "/test:1"
		} else {
			other.Marks = []string{"TREE=other"}
		}
		startIn(t, old, 2, other, "setsid sleep 1000 & sleep 0.1; echo; exit 0")
		old.take(t, 3)
		if n := len(old.Pause()); n != 0 {
			t.Errorf("%d unstarted", n)
		}
		left := old.Leftovers()
		if more := len(left) > 1; !slices.Contains(left, old.ep) || more != (place.Cgroup != "") {
			t.Errorf("leftovers %v, epoll set %d", left, old.ep)
		}
		for i, fd := range left {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC || slices.Contains(left[:i], fd) {
				t.Errorf("leftover %d of %v: flags %d, %v", fd, left, flags, err)
			}
		}
		var list []Child
		for _, c := range old.Children() {
			if c.Reaped != (c.Token == 2) {
				t.Errorf("%+v", c)
			}
			if slices.Contains(left, c.PidFD) {
				t.Errorf("%+v is among the leftovers %v", c, left)
			}
			if !c.Reaped {
				// As through execve: not close-on-exec, and the old pool gone.
				var err error
				if c.PidFD, err = unix.Dup(c.PidFD); err != nil {
					t.Fatal(err)
				}
			}
			list = append(list, c)
		}
		for i, err := range p.Adopt(list) {
			if err != nil {
				t.Fatalf("%+v: %v", list[i], err)
			}
		}
		for i, err := range p.Adopt(list) {
			if err == nil {
				t.Errorf("%+v was adopted twice", list[i])
			}
		}
		for _, c := range p.Children() {
			if c.Reaped {
				continue
			}
			if flags, err := unix.FcntlInt(uintptr(c.PidFD), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
				t.Errorf("descriptor flags %d, %v", flags, err)
			}
		}
		old.Close()
		if err := p.SignalGroup(1, int(unix.SIGTERM)); err != nil {
			t.Error(err)
		}
		if ev := p.take(t, 1)[0]; ev.Kind != Exited || ev.Token != 1 || ev.Status.Signal != int(unix.SIGTERM) {
			t.Errorf("%+v", ev)
		}
		if err := p.SignalTree(2, int(unix.SIGTERM)); err != nil {
			t.Error(err)
		}
		all := p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
		if all = p.Events(all); !slices.ContainsFunc(all, func(e Event) bool { return e.Kind == TreeEmpty && e.Token == 2 }) {
			t.Errorf("%+v", all)
		}
	})
}

func TestAdoptStranger(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	if err := p.Adopt([]Child{{Token: 1, PID: os.Getppid(), PidFD: -1}})[0]; !errors.Is(err, syscall.ECHILD) {
		t.Errorf("adopted the parent: %v", err)
	}
	if c := p.Children(); len(c) != 0 {
		t.Errorf("%+v", c)
	}
}

// TestAdoptDead: a child that ended between two images is reported by the
// second, though orphans are looked for at once.
func TestAdoptDead(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	old, err := newPool(Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(old.Close)
	startIn(t, old, 1, Place{}, "echo; exec sleep 1000")
	old.take(t, 1)
	old.Pause()
	c := old.Children()[0]
	if c.PidFD, err = unix.Dup(c.PidFD); err != nil {
		t.Fatal(err)
	}
	if err := signalOne(old, 1, int(unix.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(c.PidFD), Events: unix.POLLIN}}, -1); err != nil {
		t.Fatal(err)
	}
	// The old pool is paused, and reaps nothing, as if it were gone.
	if err := p.Adopt([]Child{{Token: 9, PID: 1, Reaped: true, PidFD: -1}, c})[1]; err != nil {
		t.Fatal(err)
	}
	ev := p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
	if !slices.ContainsFunc(p.Events(ev), func(e Event) bool {
		return e.Kind == Exited && e.Token == 1 && e.Status.Known
	}) {
		t.Errorf("%+v", ev)
	}
}

// TestOrphansAndCodes starts many children that leave orphans, which end in the
// meantime: every code is right, and no zombie stays.
func TestOrphansAndCodes(t *testing.T) {
	p := newTestPool(t, Options{}, nil)
	const n = 200
	for i := range n {
		s := sh(fmt.Sprintf("setsid true & true & exit %d", i%100+1))
		p.Start(Token(i+1), s)
	}
	all := p.until(t, func(all []Event) bool { return len(p.Children()) == 0 && len(all) >= 2*n })
	for _, e := range p.Events(all) {
		if want := int(e.Token-1)%100 + 1; e.Kind == Exited && (!e.Status.Known || e.Status.Code != want) {
			t.Errorf("%+v, want %d", e.Status, want)
		}
		if e.Kind == StartFailed {
			t.Errorf("%+v", e.Err)
		}
	}
	// Those that ended last are reaped when SIGCHLD has come.
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	orphans := func() (n int) {
		for _, pid := range childrenOf(os.Getpid()) {
			if sid, err := unix.Getsid(pid); err == nil && sid != session {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(10 * time.Second); orphans() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			for _, pid := range childrenOf(os.Getpid()) {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				t.Logf("%s", b)
			}
			t.Fatalf("%d orphans are left", orphans())
		}
	}
}

// TestFrozenCgroup: to enter a frozen cgroup would hang.
func TestFrozenCgroup(t *testing.T) {
	g := testCgroups(t)
	p := newTestPool(t, Options{TouchTimeout: 200 * time.Millisecond}, nil)
	path := g.Path("test:0")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path+"/cgroup.freeze", "1"); err != nil {
		t.Fatal(err)
	}
	spec := sh("exit 0")
	spec.Place.Cgroup = path
	p.Start(1, spec)
	ev := p.take(t, 1)[0]
	if ev.Kind != StartFailed || ev.Err.Path != path || !strings.Contains(ev.Err.Error(), "frozen") {
		t.Fatalf("%+v %v", ev, ev.Err)
	}
	if err := writeFile(path+"/cgroup.freeze", "0"); err != nil {
		t.Fatal(err)
	}
	p.Start(2, spec)
	if ev := p.take(t, 2); ev[1].Kind != Exited || !ev[1].TreeEmpty {
		t.Errorf("%+v", ev)
	}
	// Now it was empty and not frozen a moment ago, and is not looked at again.
	if err := writeFile(path+"/cgroup.freeze", "1"); err != nil {
		t.Fatal(err)
	}
	p.Start(3, spec)
	if ev := p.take(t, 1)[0]; ev.Kind != StartFailed || ev.Err.Path != path || !strings.Contains(ev.Err.Error(), "frozen") {
		t.Fatalf("%+v %v", ev, ev.Err)
	}
	if err := writeFile(path+"/cgroup.freeze", "0"); err != nil {
		t.Fatal(err)
	}
	// Until the one that hung has come back, others do not go near.
	for token := Token(4); ; token++ {
		p.Start(token, spec)
		if ev := p.take(t, 1)[0]; ev.Kind == Started {
			break
		} else if ev.Err.Errno != syscall.ETIMEDOUT {
			t.Fatalf("%+v %v", ev, ev.Err)
		}
	}
	p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
}

// TestSubCgroup: what a child moves to a cgroup below its own is of its tree.
func TestSubCgroup(t *testing.T) {
	g := testCgroups(t)
	p := newTestPool(t, Options{}, nil)
	place := Place{Cgroup: g.Path("test:0")}
	startIn(t, p, 1, place, "mkdir -p "+place.Cgroup+"/a/b; sleep 1000 & echo $! >"+place.Cgroup+"/a/b/cgroup.procs; echo; exit")
	exit := p.take(t, 2)[1]
	if exit.TreeEmpty || len(exit.Members) != 1 {
		t.Fatalf("%+v", exit)
	}
	if err := p.SignalTree(1, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
}

// TestCgroupRemoved: a cgroup that somebody removed is made anew.
func TestCgroupRemoved(t *testing.T) {
	g := testCgroups(t)
	p := newTestPool(t, Options{}, nil)
	spec := sh("exit 0")
	spec.Place.Cgroup = g.Path("test:0")
	for i := range Token(50) {
		p.Start(i+1, spec)
		removeCgroup(spec.Place.Cgroup)
		if ev := p.take(t, 2); ev[0].Kind != Started || !ev[1].TreeEmpty {
			t.Fatalf("%+v %v", ev, ev[0].Err)
		}
	}
}

func TestMountedAt(t *testing.T) {
	for _, c := range []struct{ line, own, want string }{
		{"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw", "/", "/sys/fs/cgroup/unified"},
		{"41 31 0:38 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw", "/system.slice/a.service", "/sys/fs/cgroup/system.slice/a.service"},
		{"41 31 0:38 /a /mnt/with\\040blank rw - cgroup2 none rw", "/a/b", "/mnt/with blank/b"},
		{"41 31 0:38 /a /mnt rw - cgroup2 none rw", "/a", "/mnt"},
		{"41 31 0:38 /a /mnt rw - cgroup2 none rw", "/ab", ""},
		{"41 31 0:38 / /mnt rw - cgroup2 none rw", "/../x", ""},
		{"32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu", "/", ""},
		{"", "/", ""},
	} {
		if got, ok := mountedAt(c.line, c.own); got != c.want || ok != (c.want != "") {
			t.Errorf("%q, %q: %q, %v; want %q", c.line, c.own, got, ok, c.want)
		}
	}
}

// TestTwoDirectories: what two programs have below one cgroup is apart.
func TestTwoDirectories(t *testing.T) {
	a, b := testCgroups(t), testCgroups(t)
	if a.Dir() == b.Dir() {
		t.Fatal(a.Dir())
	}
	p := newTestPool(t, Options{}, nil)
	startIn(t, p, 1, Place{Cgroup: a.Path("test:0")}, "echo; exec sleep 1000")
	startIn(t, p, 2, Place{Cgroup: b.Path("test:0")}, "echo; exec sleep 1000")
	p.take(t, 2)
	a.Sweep(func(string) bool { return false })
	if err := p.SignalTree(1, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	ev := p.until(t, func([]Event) bool { return len(p.Children()) == 1 })
	for _, e := range p.Events(ev) {
		if e.Token == 2 {
			t.Errorf("%+v", e)
		}
	}
	if left := a.Close(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if unix.Access(a.Dir(), unix.F_OK) == nil || unix.Access(b.Path("test:0"), unix.F_OK) != nil {
		t.Error("removed the wrong one")
	}
}

// TestKeptCgroup: the files of a cgroup are kept for the next child, and are of
// no harm when somebody has removed it.
func TestKeptCgroup(t *testing.T) {
	g := testCgroups(t)
	p := newTestPool(t, Options{}, nil)
	place := Place{Cgroup: g.Path("test:0")}
	kept := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		_, ok := p.kept[place.Cgroup]
		return ok
	}
	token := Token(0)
	run := func() {
		t.Helper()
		token++
		startIn(t, p, token, place, "echo; exit 3")
		if ev := p.take(t, 2); ev[0].Cgroup != place.Cgroup || ev[1].Status.Code != 3 || !ev[1].TreeEmpty {
			t.Fatalf("%+v", ev)
		}
		if !kept() {
			t.Fatal("the cgroup is not kept open")
		}
	}
	remove := func() {
		t.Helper()
		if err := unix.Rmdir(place.Cgroup); err != nil {
			t.Fatal(err)
		}
	}
	run()
	run()
	remove()
	run() // which finds out when it clones
	remove()
	p.mu.Lock()
	k := p.kept[place.Cgroup]
	k.at -= 2 * freshFor
	p.kept[place.Cgroup] = k
	p.mu.Unlock()
	run() // which looks before
	p.RemoveCgroup(place.Cgroup)
	if kept() {
		t.Error("a cgroup that is to be removed is kept open")
	}
	p.held.Store(p.mostHeld)
	defer p.held.Store(0)
	startIn(t, p, 100, Place{Cgroup: g.Path("test:1")}, "echo; exec sleep 1000")
	p.take(t, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.children[100]; c.files != noFiles() {
		t.Errorf("beyond the bound a child has %+v", c.files)
	}
}
