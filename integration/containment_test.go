package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// eachContainment runs a test with cgroups, and without: in a cgroup that none
// can be made in.
func eachContainment(t *testing.T, test func(t *testing.T, o options)) {
	t.Run("cgroup2", func(t *testing.T) {
		testenv.Need(t, testenv.Root(), testenv.Cgroup2())
		test(t, options{in: newCgroup(t)})
	})
	t.Run("lineage", func(t *testing.T) {
		o := options{in: newCgroup(t)}
		if o.in != "" {
			o.in.write(t, "cgroup.max.descendants", "0")
		}
		test(t, o)
	})
}

// startContained starts a daemon and holds it to the containment that is meant.
func startContained(t *testing.T, config string, o options) *daemon {
	t.Helper()
	d := startDaemon(t, config, o)
	want := t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]
	if got := d.state().Daemon.Containment; got != want {
		t.Fatalf("containment is %q, not %q\n%s", got, want, d)
	}
	missing := slices.ContainsFunc(d.state().Daemon.Missing, func(s string) bool { return strings.HasPrefix(s, "No cgroups (") })
	if missing != (want == "lineage") {
		t.Errorf("missing: %q", d.state().Daemon.Missing)
	}
	return d
}

// only fails the test unless nothing lives in the daemon's cgroup, or of its
// mark, but the daemon itself.
func (d *daemon) only() {
	d.t.Helper()
	if d.in != "" {
		if pids := d.in.pids(); !slices.Equal(pids, []int{d.pid}) {
			d.t.Errorf("in the cgroup: %v, the daemon is %d\n%s", pids, d.pid, d)
		}
	}
	for _, p := range marked(d.t, d.mark) {
		if p.pid != d.pid && !p.gone(0) {
			d.t.Errorf("left: %d %s\n%s", p.pid, commandLine(p.pid), d)
		}
	}
}

// wild is a script whose processes leave its session, ignore every request to
// end, stop themselves and fork on; the main process rings when they are there,
// and ends at a TERM.
func wild(t *testing.T, b *bell) string {
	return script(t, `
trap '' TERM HUP INT QUIT USR1
setsid sh -c 'sh -c "kill -STOP \$\$; sleep 100000" & setsid sh -c "sleep 100000" & exit'
setsid sh -c 'while :; do sh -c "sleep 0.02 & exit"; done' &
sleep 100000 &
trap - TERM
echo there > `+b.path+`
exec sleep 100000
`)
}

// TestStopLeavesNothing stops a slot whose processes do what they can to stay,
// before and after a re-exec.
func TestStopLeavesNothing(t *testing.T) {
	eachContainment(t, func(t *testing.T, o options) {
		b := newBell(t)
		// Where processes are slow the stragglers have to be seen before it is over.
		timeout := min(testenv.Slow(time.Second), 4*time.Second)
		d := startContained(t, fmt.Sprintf("entries: {wild: {command: %q, stop: {timeout: %v}}}", wild(t, b), timeout), o)
		for i := range 2 {
			b.next()
			began := time.Now()
			d.must("stop", "--no-wait", "wild")
			// The main process is gone, and the others are named.
			named := d.await("stragglers", func(s *state) bool { return len(s.process("wild", 0).Stragglers) > 2 })
			if p := named.process("wild", 0); p.State != "stopping" || p.LastExit == nil || p.LastExit.Signal != "SIGTERM" || p.LastExit.Initiator != "command" {
				t.Errorf("%+v", p)
			}
			if i == 1 {
				d.reexec() // the stop goes on
			}
			after := d.await("stopped", func(s *state) bool { return s.process("wild", 0).State == "stopped" })
			if took := time.Since(began); took > timeout+testenv.Slow(time.Second) {
				t.Errorf("the stop took %v", took)
			}
			if p := after.process("wild", 0); len(p.Stragglers) > 0 || p.Error != "" {
				t.Errorf("%+v", p)
			}
			d.only()
			for _, text := range []string{"the main process left something behind", "SIGKILL was sent to what is left", "stragglers=", " sleep", "entry=wild"} {
				d.log.until(text, func() bool { return strings.Contains(d.log.String(), text) })
			}
			if i == 0 {
				d.reexec()
				d.must("start", "--no-wait", "wild")
			}
		}
		d.stop()
	})
}

// TestStoppedMembersEnd: what job control has stopped in a tree, or a group, hears a stop too.
func TestStoppedMembersEnd(t *testing.T) {
	eachContainment(t, func(t *testing.T, o options) {
		b := newBell(t)
		program := script(t, `
sh -c 'kill -STOP $$; exec sleep 100000' &
while ! grep -q '^State:.T' /proc/$!/status; do sleep 0.01; done
echo there > `+b.path+`
wait
`)
		const entry = "  %s: {command: %q, stop: {mode: %[1]s, timeout: 1h}}\n"
		d := startContained(t, "entries:\n"+fmt.Sprintf(entry, "tree", program)+fmt.Sprintf(entry, "group", program), o)
		for _, mode := range []string{"tree", "group"} {
			b.next()
			d.running(mode, 1)
		}
		d.must("stop", "tree", "group")
		d.only()
		d.stop()
	})
}

// TestLeftoversAreStopped: the main process ends by itself, and the next starts
// when all that it left is gone.
func TestLeftoversAreStopped(t *testing.T) {
	eachContainment(t, func(t *testing.T, o options) {
		b := newBell(t)
		program := script(t, `
setsid sh -c 'sleep 100000 & exit' &
sleep 0.1
echo there > `+b.path+`
[ $SENTRYD_INCARNATION = 3 ] && exec sleep 100000
exit 3
`)
		d := startContained(t, fmt.Sprintf("entries: {web: {command: %q, delay: 0, stop: {timeout: 30s}}}", program), o)
		for range 3 {
			b.next()
		}
		d.await("the third", func(s *state) bool {
			return s.process("web", 0).Incarnation == 3 && s.process("web", 0).State == "running"
		})
		sleepers := 0
		for _, p := range marked(t, d.mark) {
			if hasMark(p.pid, "SENTRYD_INCARNATION=3") {
				continue
			}
			if hasMark(p.pid, "SENTRYD_ENTRY=web") && !p.gone(0) {
				sleepers++
			}
		}
		if sleepers > 0 {
			t.Errorf("%d processes of earlier incarnations live\n%s", sleepers, d)
		}
		d.must("stop", "web")
		d.only()
		d.stop()
	})
}

// TestModeProcessLeaves: with mode process what the main process leaves when it
// ends by itself stays, and the next one has a tree of its own.
func TestModeProcessLeaves(t *testing.T) {
	eachContainment(t, func(t *testing.T, o options) {
		b := newBell(t)
		program := script(t, `
[ $SENTRYD_INCARNATION = 1 ] || { echo second > `+b.path+`; exec sleep 100000; }
setsid sleep 100001 &
sleep 0.1
echo $! > `+b.path+`
`)
		d := startContained(t, fmt.Sprintf("entries: {web: {command: %q, delay: 0, stop: {mode: process}}}", program), o)
		var pid int
		if _, err := fmt.Sscan(b.next(), &pid); err != nil {
			t.Fatal(err)
		}
		left := d.open([]int{pid})[0]
		b.next()
		d.must("stop", "web")
		if left.gone(0) {
			t.Errorf("what the first one left is gone\n%s", d)
		}
		d.kill(pid, unix.SIGKILL)
		if !left.gone(patience) {
			t.Error("it does not die")
		}
		d.stop()
	})
}

// bomb is a script that forks as fast as it is let, as a user of its own who
// may have 80 processes and no more, and for half a minute and no longer: unless
// all of that is seen to hold it ends, since without it the bomb would take the
// host down.
func bomb(t *testing.T, b *bell) string {
	return script(t, `
read now rest </proc/uptime
end=$((${now%%.*} + 30))
echo there > `+b.path+`
exec prlimit --nproc=80:80 setpriv --reuid=61307 --regid=61307 --clear-groups --inh-caps=-all sh -c '
[ "$(id -u)" = 61307 ] || exit 1
grep -q "^Max processes  *80  *80 " /proc/self/limits || exit 1
grep -q "^CapEff:[[:space:]]*0*$" /proc/self/status || exit 1
trap "" TERM
f() { while read now rest </proc/uptime && [ "${now%%.*}" -lt '$end' ]; do f & done; }
f 2>/dev/null'
`)
}

// TestForkBomb: the API answers while an entry forks as fast as it is let, and
// a stop ends that.
func TestForkBomb(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Tool("setpriv"), testenv.Tool("prlimit"))
	eachContainment(t, func(t *testing.T, o options) {
		b := newBell(t)
		d := startContained(t, fmt.Sprintf("entries: {bomb: {command: %q, stop: {timeout: 500ms}}}", bomb(t, b)), o)
		b.next()
		var answers []time.Duration
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			began := time.Now()
			d.state()
			answers = append(answers, time.Since(began))
		}
		slices.Sort(answers)
		// The bomb takes all of an emulated processor: there only that there are answers is
		// shown, and that it ends.
		emulated := testenv.Slow(1) != 1
		if most := answers[len(answers)-1-len(answers)/100]; most > 200*time.Millisecond && !emulated {
			t.Errorf("an answer took %v (of %d)", most, len(answers))
		}
		began := time.Now()
		d.must("stop", "bomb")
		if took := time.Since(began); took > 1500*time.Millisecond && !emulated {
			t.Errorf("the stop took %v", took)
		}
		d.only()
		d.stop()
	})
}

// TestTwoDaemonsOfOneName have different runtime directories, one cgroup above
// both, and nothing to do with each other.
func TestTwoDaemonsOfOneName(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Cgroup2())
	in := newCgroup(t)
	const config = "entries: {web: {command: sleep 100000, count: 3}}"
	a := startDaemon(t, config, options{in: in})
	b := startDaemon(t, config, options{in: in})
	a.running("web", 3)
	before := b.identities(b.running("web", 3).entry("web"))
	dirs := func() (n int) {
		for _, dir := range in.dirs() {
			if !strings.Contains(dir, "/") {
				n++
			}
		}
		return n
	}
	if n := dirs(); n != 2 {
		t.Errorf("%v", in.dirs())
	}
	a.must("scale", "web=1")
	a.reexec()
	a.must("stop", "web")
	a.stop()
	if n := dirs(); n != 1 {
		t.Errorf("%v", in.dirs())
	}
	b.same(before, b.state().entry("web"))
	b.stop()
	if dirs := in.dirs(); len(dirs) > 0 {
		t.Errorf("left: %v", dirs)
	}
}

// TestCgroupsGoWithTheirSlots: a slot has its cgroup until it goes, and a daemon
// takes away what an earlier one could not.
func TestCgroupsGoWithTheirSlots(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Cgroup2())
	d := startDaemon(t, "entries: {web: {command: sleep 100000, count: 2}}", options{})
	d.running("web", 2)
	slots := func() (names []string) {
		for _, dir := range d.in.dirs() {
			if _, name, ok := strings.Cut(dir, "/"); ok {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	if got := slots(); !slices.Equal(got, []string{"web:0", "web:1"}) {
		t.Errorf("%v", got)
	}
	d.must("stop", "web")
	if got := slots(); len(got) != 2 {
		t.Errorf("after a stop: %v", got)
	}
	d.must("scale", "web=1")
	d.await("the cgroup is gone", func(*state) bool { return len(slots()) == 1 })
	d.must("start", "web")
	// SIGKILL, and the children with it, so that nothing removes the cgroups.
	d.signal(unix.SIGKILL)
	<-d.ended
	for _, p := range marked(t, d.mark) {
		d.kill(p.pid, unix.SIGKILL)
		p.gone(patience)
	}
	d.configure("entries: {api: {command: sleep 100000}}")
	d.start(options{})
	d.running("api", 1)
	if got := slots(); !slices.Equal(got, []string{"api:0"}) {
		t.Errorf("after a new start: %v", got)
	}
	d.stop()
	if dirs := d.in.dirs(); len(dirs) > 0 {
		t.Errorf("left: %v", dirs)
	}
}

// TestFrozenSlot: a frozen cgroup is a start error that names it.
func TestFrozenSlot(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Cgroup2())
	d := startDaemon(t, "entries: {web: {command: sleep 100000}, other: {command: sleep 100000}}", options{})
	d.running("web", 1)
	d.must("stop", "web")
	dirs := d.in.dirs()
	at := slices.IndexFunc(dirs, func(dir string) bool { return strings.HasSuffix(dir, "/web:0") })
	if at < 0 {
		t.Fatalf("%v", dirs)
	}
	d.in.write(t, dirs[at]+"/cgroup.freeze", "1")
	d.must("start", "--no-wait", "web")
	s := d.await("the error", func(s *state) bool { return s.process("web", 0).Error != "" })
	if text := s.process("web", 0).Error; !strings.Contains(text, "frozen") || !strings.Contains(text, dirs[at]) {
		t.Errorf("%q", text)
	}
	if s.process("other", 0).State != "running" {
		t.Errorf("%+v", s.process("other", 0))
	}
	d.in.write(t, dirs[at]+"/cgroup.freeze", "0")
	d.running("web", 1)
	d.stop()
}
