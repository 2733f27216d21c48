package integration

import (
	"fmt"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// die ends the daemon by SIGKILL and waits until it is gone. Its children live.
func (d *daemon) die() {
	d.t.Helper()
	d.signal(unix.SIGKILL)
	d.gone()
}

// gone waits for the end of a daemon that does not end in good order.
func (d *daemon) gone() {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Fatalf("the daemon is still there after %v\n%s", patience, d)
	}
	unix.Close(d.pidfd)
	d.client.close()
	d.done = true
}

// rise starts the daemon again and returns the first state that it shows, and how
// long that took.
func (d *daemon) rise(o options) (*state, time.Duration) {
	d.t.Helper()
	began := time.Now()
	d.start(o)
	s := d.await("the daemon is up again", func(*state) bool { return true })
	return s, time.Since(began)
}

// allAdopted fails the test unless every process of an entry is one that was
// taken over.
func (d *daemon) allAdopted(e *entryState) {
	d.t.Helper()
	for _, p := range e.Processes {
		if p.PID != 0 && !p.Adopted {
			d.t.Errorf("%s:%d is not adopted", e.Name, p.Slot)
		}
	}
}

func TestAdoption(t *testing.T) {
	for _, n := range []int{1, 100, 1000} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			if n > 100 && testing.Short() {
				t.Skip("needs more time than -short has")
			}
			d := startDaemon(t, fmt.Sprintf("entries: {a: {command: sleep 100000, count: %d}}\n", n), options{})
			before := d.running("a", n)
			ids := d.identities(before.entry("a"))
			for round := range 2 {
				d.die()
				s, took := d.rise(options{})
				t.Logf("%d processes: %v from the start to the first answer", n, took)
				if limit := testenv.Slow(5 * time.Second); took > limit {
					t.Errorf("took %v, more than %v", took, limit)
				}
				e := s.entry("a")
				d.same(ids, e)
				d.allAdopted(e)
				if e.Starts != uint64(n) || e.Exits != 0 {
					t.Errorf("%d starts, %d exits", e.Starts, e.Exits)
				}
				if s.Version <= before.Version {
					t.Errorf("version %d after %d", s.Version, before.Version)
				}
				if got := d.metrics()["sentryd_adopted_processes_total"]; got != float64(n*(round+1)) {
					t.Errorf("sentryd_adopted_processes_total is %v", got)
				}
				before = s
			}
			d.same(ids, d.reexec().entry("a"))
			d.stop()
		})
	}
}

// TestAdoptedGoOn: what was under way goes on, and what was asked for lasts.
func TestAdoptedGoOn(t *testing.T) {
	stubborn := script(t, "trap '' TERM\nwhile :; do sleep 1000 & wait; done\n")
	d := startDaemon(t, `entries:
  fails: {command: "false", delay: 30s}
  held: {command: sleep 100000}
  scaled: {command: sleep 100000}
  stops: {command: `+stubborn+`, stop: {timeout: 3s}}
  ends: {command: "sh -c 'read x < $(SENTRYD_NAME).end; exit 7'", directory: ., delay: 10m}
`, options{})
	end := filepath.Join(d.dir, "test.end")
	if err := unix.Mkfifo(end, 0o600); err != nil {
		t.Fatal(err)
	}
	d.must("start", "ends")
	d.must("stop", "held")
	d.must("scale", "scaled=3")
	d.running("ends", 1)
	d.must("stop", "--no-wait", "stops")
	s := d.await("fails is in backoff", func(s *state) bool {
		return s.process("fails", 0).State == "backoff" && s.process("stops", 0).State == "stopping"
	})
	next := *s.process("fails", 0).NextStartAt
	d.die()
	if f, err := os.OpenFile(end, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	} else {
		f.Close() // it ends while no daemon runs
	}
	d.awaitEnd(s.process("ends", 0).PID)
	after, _ := d.rise(options{})
	if p := after.process("fails", 0); p.State != "backoff" || p.NextStartAt.Sub(next).Abs() > time.Second {
		t.Errorf("the backoff: %+v, until %v", p, next)
	}
	if e := after.entry("held"); e.State != "stopped" {
		t.Errorf("what was stopped is %s", e.State)
	}
	d.same(d.identities(s.entry("scaled")), after.entry("scaled"))
	if after.entry("scaled").Count != 3 {
		t.Errorf("scaled to %d", after.entry("scaled").Count)
	}
	p := d.await("the end of what ended meanwhile", func(s *state) bool { return s.process("ends", 0).LastExit != nil }).process("ends", 0)
	x := p.LastExit
	if known := x.Reason == "exited" && x.Code != nil && *x.Code == 7; !known && (x.Reason != "unknown" || x.Code != nil || x.Error == "") {
		t.Errorf("the exit of what ended meanwhile: %+v", x)
	}
	if e := d.state().entry("ends"); e.Exits+uint64(e.Running) != e.Starts {
		t.Errorf("%d starts, %d exits", e.Starts, e.Exits)
	}
	d.await("the stop has come to its end", func(s *state) bool { return s.process("stops", 0).State == "stopped" })
	d.stop()
}

// awaitEnd waits until a process is dead.
func (d *daemon) awaitEnd(pid int) {
	d.t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if !(proc{pid, fd}).gone(patience) {
		d.t.Fatalf("process %d does not end", pid)
	}
}

func TestAdoptionUnderABrokenConfiguration(t *testing.T) {
	good := "entries: {a: {command: sleep 100000, count: 2}}\n"
	d := startDaemon(t, good, options{})
	ids := d.identities(d.running("a", 2).entry("a"))
	d.die()
	d.configure("entries: {a: {command: sleep 100000, cuont: 3}}\n")
	s, _ := d.rise(options{})
	d.same(ids, s.entry("a"))
	if r := s.Daemon.LastReload; r.OK || !strings.Contains(r.Error, "cuont") {
		t.Errorf("last reload: %+v", r)
	}
	d.configure(strings.Replace(good, "count: 2", "count: 3", 1))
	d.must("reload")
	d.running("a", 3)
	d.stop()
}

func TestKeepIsAdopted(t *testing.T) {
	d := startDaemon(t, "entries: {a: {command: sleep 100000, count: 5}, once: {command: sleep 100000, restart: never}}\n", options{})
	d.running("once", 1)
	ids := d.identities(d.running("a", 5).entry("a"))
	for _, how := range []func(){func() { d.signal(unix.SIGQUIT) }, func() { d.must("stop", "--keep") }} {
		how()
		d.gone()
		s, _ := d.rise(options{})
		d.same(ids, s.entry("a"))
		if e := s.entry("once"); e.Starts != 1 || e.Running != 1 {
			t.Errorf("once: %+v", e)
		}
	}
	if code, out := d.again(options{}); code != 1 || !strings.Contains(out, strconv.Itoa(d.pid)) {
		t.Errorf("a second daemon: exit code %d\n%s", code, out)
	}
	d.stop()
	if _, err := os.Lstat(d.runtimeFile("journal")); err == nil {
		t.Error("a stop leaves the journal")
	}
}

// TestStoppedIsKept: who is stopped when the daemon dies stays so, and is taken over. In a process
// group of the daemon's own session it would get SIGHUP from the kernel, setpgid(2).
func TestStoppedIsKept(t *testing.T) {
	d := startDaemon(t, "entries: {a: {command: sleep 100000}}\n", options{})
	e := d.running("a", 1).entry("a")
	ids := d.identities(e)
	stopped := func() error {
		if st := procStat(t, e.Processes[0].PID)[0]; st != "T" {
			return fmt.Errorf("its state is %s", st)
		}
		return nil
	}
	d.must("signal", "STOP", "a")
	eventually(t, "the process is stopped", stopped)
	for _, end := range []func(){d.die, func() { d.must("stop", "--keep"); d.gone() }} {
		end()
		s, _ := d.rise(options{})
		d.same(ids, s.entry("a"))
		if err := stopped(); err != nil {
			t.Error(err)
		}
	}
	d.stop()
}

// TestTreesOfSurvivors: what descends from a process that was taken over is of its tree: a
// stop leaves none of it, nothing starts beside it, and a daemon that dies, or is re-exec'd,
// in between changes nothing of that.
func TestTreesOfSurvivors(t *testing.T) {
	adopt := func(d *daemon) { d.die(); d.rise(options{}) }
	restart := func(d *daemon) { d.must("restart", "--no-wait", "a") }
	stopping := func(d *daemon) {
		d.await("the main process has gone, and is not all", func(s *state) bool { return len(s.process("a", 0).Stragglers) > 0 })
	}
	for name, play := range map[string]func(d *daemon, main int){
		"stopped": func(d *daemon, _ int) { adopt(d); restart(d) },
		"ended": func(d *daemon, main int) {
			d.die()
			d.kill(main, unix.SIGKILL)
			d.rise(options{})
		},
		"ended, kept": func(d *daemon, main int) {
			d.must("stop", "--keep")
			d.gone()
			d.kill(main, unix.SIGKILL)
			d.rise(options{})
		},
		"re-exec":         func(d *daemon, _ int) { adopt(d); d.reexec(); restart(d) },
		"death in stop":   func(d *daemon, _ int) { restart(d); stopping(d); adopt(d) },
		"re-exec in stop": func(d *daemon, _ int) { adopt(d); restart(d); stopping(d); d.reexec() },
		"both in stop":    func(d *daemon, _ int) { adopt(d); restart(d); stopping(d); adopt(d); d.reexec() },
	} {
		t.Run(name, func(t *testing.T) {
			eachContainment(t, func(t *testing.T, o options) {
				b := newBell(t)
				program := script(t, `
setsid sh -c "trap '' TERM; echo there > `+b.path+`; while :; do sleep 0.1; done" &
sh -c "trap '' TERM; echo there > `+b.path+`; while :; do sleep 0.1; done" &
exec sleep 100000
`)
				timeout := 100 * time.Millisecond
				if strings.HasSuffix(name, "in stop") {
					timeout = testenv.Slow(time.Second) // it is to be under way still
				}
				// Not as the kernel names it.
				o.dir = filepath.Join(t.TempDir(), "link")
				if err := os.Symlink(t.TempDir(), o.dir); err != nil {
					t.Fatal(err)
				}
				d := startContained(t, fmt.Sprintf("entries: {a: {command: %q, delay: 0, stop: {timeout: %v}}}\n", program, timeout), o)
				main := d.running("a", 1).process("a", 0).PID
				b.next()
				b.next()
				play(d, main)
				d.alone("a", 2)
				b.next()
				b.next()
				d.must("stop", "a")
				d.only()
				d.stop()
			})
		})
	}
}

// alone waits for an incarnation of the first slot of an entry, and for nothing of the one before.
func (d *daemon) alone(entry string, incarnation uint64) {
	d.t.Helper()
	d.await("the next one runs", func(s *state) bool {
		p := s.process(entry, 0)
		return p.State == "running" && p.Incarnation == incarnation
	})
	for _, p := range marked(d.t, d.mark) {
		if hasMark(p.pid, fmt.Sprintf("SENTRYD_INCARNATION=%d", incarnation-1)) && !p.gone(0) {
			d.t.Errorf("beside incarnation %d runs %d of the one before: %s", incarnation, p.pid, commandLine(p.pid))
		}
	}
}

// TestTreeOfASurvivorsSuccessor: who takes over from a process that was taken over has a
// tree as that had.
func TestTreeOfASurvivorsSuccessor(t *testing.T) {
	eachContainment(t, func(t *testing.T, o options) {
		b := newBell(t)
		program := script(t, `
trap 'next=1' USR2
if [ "$1" ]; then
	sh -c "trap '' TERM; echo there > `+b.path+`; while :; do sleep 0.1; done" &
else
	echo there > `+b.path+`
fi
while [ -z "$next" ]; do sleep 0.1; done
$0 second &
sleep 0.3
`)
		d := startContained(t, fmt.Sprintf("entries: {a: {command: %q, delay: 0, handover: true, stop: {timeout: 100ms}}}\n", program), o)
		b.next()
		d.die()
		s, _ := d.rise(options{})
		first := s.process("a", 0).PID
		d.must("signal", "USR2", "a")
		b.next()
		d.await("the successor is the main process", func(s *state) bool { return s.process("a", 0).PID != first })
		d.must("restart", "--no-wait", "a")
		d.alone("a", 2)
		d.must("stop", "a")
		d.only()
		d.stop()
	})
}

// TestDamagedJournal: whatever the journal says, a process that lives gets no
// second copy and no signal.
func TestDamagedJournal(t *testing.T) {
	from := rand.New(rand.NewSource(1))
	damage := map[string]func([]byte) []byte{
		"gone":      func([]byte) []byte { return nil },
		"empty":     func([]byte) []byte { return []byte{} },
		"garbage":   func([]byte) []byte { return []byte(strings.Repeat("garbage\n", 1000)) },
		"truncated": func(b []byte) []byte { return b[:from.Intn(len(b))] },
		"newer":     newerJournal,
		"rebooted":  otherBoot,
		"flipped":   func(b []byte) []byte { b[from.Intn(len(b))] ^= 1 << from.Intn(8); return b },
	}
	for name, hurt := range damage {
		t.Run(name, func(t *testing.T) {
			for range often(2, 5, 100) {
				d := startDaemon(t, "entries: {a: {command: sleep 100000, count: 3}}\n", options{})
				d.running("a", 3)
				d.must("scale", "a=5")
				ids := d.identities(d.running("a", 5).entry("a"))
				d.die()
				path := d.runtimeFile("journal")
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if text = hurt(text); text == nil {
					err = os.Remove(path)
				} else {
					err = os.WriteFile(path, text, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				d.rise(options{})
				d.same(ids, d.running("a", 5).entry("a"))
				d.stop()
			}
		})
	}
}

// churn is an entry whose processes start and end all the time, and say so when two
// are in a slot at once. delay is in milliseconds.
func churn(t *testing.T, slots, delay int) (bell *bell, entry string) {
	bell = newBell(t)
	dir := t.TempDir()
	program := script(t, fmt.Sprintf(`
{ read -r old < %[1]s/$SENTRYD_SLOT; } 2>/dev/null
[ -n "$old" ] && [ "$old" != $$ ] && [ -e /proc/$old ] && [ "$(tr '\0' '\n' </proc/$old/environ 2>/dev/null | grep -cx SENTRYD_SLOT=$SENTRYD_SLOT)" = 1 ] && echo "doubled slot=$SENTRYD_SLOT $old and $$" > %[2]s
echo $$ > %[1]s/$SENTRYD_SLOT
sleep 0.0$(( ($SENTRYD_INCARNATION * 3 + $SENTRYD_SLOT) %% 7 + 1 ))
exit $(( $SENTRYD_INCARNATION %% 3 ))
`, dir, bell.path))
	return bell, fmt.Sprintf("  churn: {command: %s, count: %d, delay: %d}\n", program, slots, delay)
}

// checkChurn looks after a history that ended: everything is up and nothing twice.
func (d *daemon) checkChurn(bell *bell, slots int, steady map[int]string) {
	d.t.Helper()
	s := d.state()
	d.same(steady, s.entry("steady"))
	if e := s.entry("steady"); e.Exits != 0 || e.Starts != uint64(len(steady)) {
		d.t.Errorf("steady: %d starts, %d exits", e.Starts, e.Exits)
	}
	checkCounters(d.t, s)
	d.churned()
	incarnations := map[int]uint64{}
	for _, p := range s.entry("churn").Processes {
		incarnations[p.Slot] = p.Incarnation
	}
	d.await("churn goes on in every slot", func(s *state) bool {
		for _, p := range s.entry("churn").Processes {
			if p.Incarnation < incarnations[p.Slot]+2 {
				return false
			}
		}
		return len(s.entry("churn").Processes) == slots
	})
	if d.churned() == 0 {
		d.t.Error("no exit is counted")
	}
	select {
	case line := <-bell.lines:
		d.t.Errorf("a child wrote %q", line)
	default:
	}
}

// churned is how often churn has ended, and as many uptimes are known.
func (d *daemon) churned() (exits float64) {
	d.t.Helper()
	m := d.metrics()
	for name, n := range m {
		if strings.HasPrefix(name, "sentryd_process_exits_total{") && strings.Contains(name, `entry="churn"`) {
			exits += n
		}
	}
	if n := m[`sentryd_process_uptime_seconds_count{entry="churn"}`]; n != exits {
		d.t.Errorf("%g exits, and the uptimes of %g", exits, n)
	}
	return exits
}

func TestKilledAtRandomMoments(t *testing.T) {
	const slots, kept = 6, 10
	bell, entry := churn(t, slots, 0)
	began := time.Now()
	d := startDaemon(t, "entries:\n"+entry+fmt.Sprintf("  steady: {command: sleep 100000, count: %d}\n", kept), options{})
	ids := d.identities(d.running("steady", kept).entry("steady"))
	from := rand.New(rand.NewSource(seed(t)))
	times := often(5, 100, 1000)
	var version uint64
	for range times {
		s := d.state()
		if s.Version < version {
			t.Errorf("version %d after %d", s.Version, version)
		}
		version = s.Version
		select {
		case <-time.After(time.Duration(from.Intn(150)) * time.Millisecond): // a random moment, not a wait for anything
		case <-d.ended:
			t.Fatalf("the daemon ended by itself\n%s", d)
		}
		d.die()
		d.rise(options{})
	}
	d.checkChurn(bell, slots, ids)
	starts := d.state().entry("churn").Starts
	t.Logf("%d SIGKILLs over %d starts, %.0f a second", times, starts, float64(starts)/time.Since(began).Seconds())
	d.stop()
}

// seed is that of random decisions: SENTRYD_SEED, or the time.
func seed(t *testing.T) int64 {
	n, err := strconv.ParseInt(os.Getenv("SENTRYD_SEED"), 10, 64)
	if err != nil {
		n = time.Now().UnixNano()
	}
	t.Logf("SENTRYD_SEED=%d", n)
	return n
}

// dieAt kills the daemon and starts one that is killed when it comes to a step that has
// a name: it takes a program built for that.
func (d *daemon) dieAt(step string) {
	d.t.Helper()
	d.die()
	env := d.env
	d.env = append(append([]string{}, env...), "SENTRYD_FAILPOINT="+step)
	d.start(options{})
	d.env = env
}

// TestKilledAtNamedSteps kills the daemon at each step that has a name.
func TestKilledAtNamedSteps(t *testing.T) {
	bin := built(t, "sentryd-failpoint", "../cmd/sentryd", "-tags", "failpoint")
	for step, provoke := range map[string]func(*daemon){
		"append=20": nil, "appended=20": nil, "start=20": nil, "started=20": nil,
		"clone=20": nil, "cloned=20": nil, "reaped=20": nil, "preflight": reloadChurn, "resume": reloadChurn, "resumed": reloadChurn, "signal": stopChurn, "signaled": stopChurn,
		"scaled": scaleChurn, "exec": reloadChurn, "compact": nil, "compact-created": nil, "compact-written": nil, "compact-renamed": nil, "serve": nil,
	} {
		t.Run(strings.Map(func(r rune) rune {
			if r == '=' {
				return '-'
			}
			return r
		}, step), func(t *testing.T) {
			const slots, kept = 4, 3
			bell, entry := churn(t, slots, 100)
			d := startDaemon(t, "entries:\n"+entry+fmt.Sprintf("  steady: {command: sleep 100000, count: %d}\n", kept), options{bin: bin})
			ids := d.identities(d.running("steady", kept).entry("steady"))
			d.dieAt(step)
			if provoke != nil {
				d.await("the daemon is up", func(*state) bool { return true })
				provoke(d)
			}
			d.gone()
			d.rise(options{})
			if strings.HasPrefix(step, "signal") {
				d.await("the stop has come to its end", func(s *state) bool { return s.entry("churn").State == "stopped" })
				d.must("start", "--no-wait", "churn")
			}
			n := len(d.state().entry("churn").Processes)
			d.checkChurn(bell, n, ids)
			d.stop()
		})
	}
}

// TestKilledWhileEnding: a daemon that dies when it, or an entry, had begun to end, and had told
// its processes, or not yet, is followed by one that tells who was not told, and knows why all ended.
func TestKilledWhileEnding(t *testing.T) {
	bin := built(t, "sentryd-failpoint", "../cmd/sentryd", "-tags", "failpoint")
	for _, step := range []string{"signal", "signaled"} {
		for by, end := range map[string]func(*daemon){
			"shutdown": func(d *daemon) { d.signal(unix.SIGTERM) },
			"command":  func(d *daemon) { d.ctl("restart", "--no-wait", "--all-at-once", "a") },
		} {
			t.Run(step+"/"+by, func(t *testing.T) {
				const n = 70 // more than are told one by one
				d := startDaemon(t, fmt.Sprintf("entries: {a: {command: sleep 100000, count: %d, stop: {timeout: 2s}}}\n", n), options{bin: bin})
				d.running("a", n)
				d.dieAt(step)
				d.running("a", n)
				end(d)
				d.gone()
				d.rise(options{})
				s := d.await("all are started anew", func(s *state) bool {
					for _, p := range s.entry("a").Processes {
						if p.State != "running" || p.Incarnation != 2 {
							return false
						}
					}
					return true
				})
				for _, p := range s.entry("a").Processes {
					// Who was told and ended before there was a daemon is known by name at the most.
					if x := p.LastExit; x == nil || x.Initiator != by || step == "signal" && x.Signal != "SIGTERM" {
						t.Errorf("slot %d: ended as %+v", p.Slot, x)
					}
				}
				d.stop()
			})
		}
	}
}

// stopChurn stops it until there was something to be sent a signal.
func stopChurn(d *daemon) {
	for {
		for _, command := range []string{"stop", "start"} {
			d.ctl(command, "churn")
			select {
			case <-d.ended:
				return
			default:
			}
		}
	}
}

func scaleChurn(d *daemon)  { d.ctl("scale", "churn=6") }
func reloadChurn(d *daemon) { d.signal(unix.SIGHUP) }

// TestKilledWithAHangingStart: a child that hangs before its program has what the dead
// daemon had, its lock and its socket too, and is no obstacle.
func TestKilledWithAHangingStart(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.Cgroup2())
	d := startDaemon(t, "entries: {a: {command: sleep 100000, delay: 500}, b: {command: sleep 100000}}\n", options{})
	for range often(1, 1, 5) {
		ids := d.identities(d.running("b", 1).entry("b"))
		pid := d.running("a", 1).process("a", 0).PID
		slot, err := filepath.Glob(filepath.Join(string(d.in), "sentryd.test.*", "a:0"))
		if err != nil || len(slot) != 1 {
			t.Fatal(slot, err)
		}
		d.kill(pid, unix.SIGKILL)
		d.await("the end is seen", func(s *state) bool { return s.process("a", 0).State == "backoff" })
		// Not looked at again for a second, since it was empty a moment ago.
		cgroup(slot[0]).write(t, "cgroup.freeze", "1")
		d.await("a start hangs", func(s *state) bool { return s.process("a", 0).State == "starting" })
		d.die()
		_, took := d.rise(options{})
		t.Logf("up again after %v", took)
		cgroup(slot[0]).write(t, "cgroup.freeze", "0")
		d.same(ids, d.running("a", 1).entry("b"))
	}
	d.stop()
}

// TestSocketIsTakenBack: a listening socket of which only a child knew is the next
// daemon's again.
func TestSocketIsTakenBack(t *testing.T) {
	address := freeAddress(t)
	d := startDaemon(t, fmt.Sprintf(`entries:
  web:
    command: %s
    delay: 0
    sockets: [{name: http, listen: "tcp://%s"}]
`, passedServer(t), address), options{})
	d.running("web", 1)
	d.die()
	s, _ := d.rise(options{})
	if !s.process("web", 0).Adopted {
		t.Error("the server was not adopted")
	}
	l := newLoad(t, address)
	l.more("after the death of the daemon")
	d.must("restart", "web")
	l.more("from the next process")
	d.stop()
}

// TestPortIsAStrangers: that somebody else listens where the daemon did stops no
// adoption. The address is taken back when it is free.
func TestPortIsAStrangers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	d := startDaemon(t, "http: {listen: "+address+"}\nentries: {a: {command: sleep 100000, count: 2}}\n", options{})
	ids := d.identities(d.running("a", 2).entry("a"))
	d.die()
	stranger, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	s, _ := d.rise(options{})
	d.same(ids, s.entry("a"))
	at := func(s *state) (up bool, why string) {
		for _, l := range s.Daemon.Listeners {
			if l.Address == address {
				return l.Up, l.Error
			}
		}
		return false, "it is not listed"
	}
	if up, why := at(s); up || !strings.Contains(why, "in use") {
		t.Errorf("%s: %t, %q", address, up, why)
	}
	stranger.Close()
	d.await("the address", func(s *state) bool { up, _ := at(s); return up })
	d.stop()
}

// TestCountersGoOn: what was counted of descendants and of output does not fall
// when the daemon dies.
func TestCountersGoOn(t *testing.T) {
	d := startDaemon(t, "entries: {a: {command: \"sh -c 'for i in 1 2 3; do /bin/true; echo $i; done; exec sleep 100000'\"}}\n", options{})
	d.running("a", 1)
	counted := func(m map[string]float64) bool {
		return m[`sentryd_entry_forks_total{entry="a"}`] >= 3 && m[`sentryd_log_lines_total{entry="a"}`] == 3
	}
	eventually(t, "three forks and lines are counted", func() error {
		if m := d.metrics(); !counted(m) {
			return fmt.Errorf("%v forks, %v lines", m[`sentryd_entry_forks_total{entry="a"}`], m[`sentryd_log_lines_total{entry="a"}`])
		}
		return nil
	})
	d.reexec() // the new image writes all down; otherwise numbers may be ten seconds old
	before := d.metrics()
	d.die()
	d.rise(options{})
	for name, n := range d.metrics() {
		if strings.Contains(name, `_total{entry="a"`) && n < before[name] {
			t.Errorf("%s fell from %v to %v", name, before[name], n)
		}
	}
	d.stop()
}
