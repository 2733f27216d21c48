package supervisor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

func TestRestartAfterTheDelayFromTheExit(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, delay: 4s}}", func(t *testing.T, b *bed) {
		b.pass(time.Minute)
		b.end(b.byPath("/bin/a")[0], 3)
		b.pass(time.Second)
		p := b.slot("a", 0)
		if p.State != view.Backoff || p.PID != 0 || *p.LastExit.Code != 3 || p.LastExit.UptimeMS != 60000 {
			t.Errorf("after the exit: %+v, last exit %+v", p, p.LastExit)
		}
		if want := p.LastExit.At.Add(4 * time.Second); !p.NextStartAt.Equal(want) {
			t.Errorf("next start at %v, want %v", p.NextStartAt, want)
		}
		b.pass(3 * time.Second)
		want := []string{
			"0s a:0.1001 Started", "1m0s a:0.1001 Exited with ExitFailure 3.", "1m4s a:0.1002 Started",
		}
		if d := cmp.Diff(want, b.printed); d != "" {
			t.Error(d)
		}
		e := b.s.State().Entry("a")
		if e.Starts != 2 || e.Exits != 1 || e.RestartLatency.Counts[0] != 1 {
			t.Errorf("%d starts, %d exits, latencies %v", e.Starts, e.Exits, e.RestartLatency.Counts)
		}
	})
}

func TestStartThatFailsIsRetriedLessAndLess(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, delay: 0}}", func(t *testing.T, b *bed) {
		b.mu.Lock()
		b.fail["/bin/a"] = syscall.ENOENT
		b.mu.Unlock()
		b.end(b.byPath("/bin/a")[0], 0)
		b.pass(3500 * time.Millisecond)
		p := b.slot("a", 0)
		if p.Incarnation != 4 || p.LastExit.Reason != view.ReasonStartFailed || p.Error != "exec /bin/a: no such file or directory" {
			t.Errorf("%+v", p)
		}
		b.mu.Lock()
		delete(b.fail, "/bin/a")
		b.mu.Unlock()
		b.pass(4 * time.Second)
		if p := b.slot("a", 0); p.State != view.Running || p.Error != "" {
			t.Errorf("after the cause was mended: %+v", p)
		}
		if e := b.s.State().Entry("a"); e.Starts != 2 || e.Exits != 1 || !cmp.Equal(e.StartFailures, []view.LabelCount{{Label: "ENOENT", N: 3}}) {
			t.Errorf("%d starts, %d exits, failures %v", e.Starts, e.Exits, e.StartFailures)
		}
	})
}

func TestUndefinedVariableIsAStartThatFailed(t *testing.T) {
	inBubble(t, "entries: {a: {command: [/bin/a, $(NOPE)]}}", func(t *testing.T, b *bed) {
		if p := b.slot("a", 0); p.State != view.Backoff || !strings.Contains(p.Error, "NOPE") {
			t.Errorf("%+v", p)
		}
	})
}

func TestCommandsSayInWhichVersionTheyTookEffect(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a}}", func(t *testing.T, b *bed) {
		before := b.s.State().Version
		seen := make(chan *view.State)
		go func() { seen <- b.s.Wait(t.Context(), before) }()
		synctest.Wait()
		v, err := b.s.Scale(t.Context(), "a", 3)
		if err != nil || v <= before {
			t.Fatalf("version %d after %d, %v", v, before, err)
		}
		if s := <-seen; s.Version < v || s.Entry("a").Count != 3 {
			t.Errorf("the waiter saw version %d with count %d, not %d", s.Version, s.Entry("a").Count, v)
		}
		synctest.Wait()
		if n := len(b.byPath("/bin/a")); n != 3 {
			t.Errorf("%d processes", n)
		}
		for _, c := range []struct {
			err  error
			kind view.ErrorKind
		}{
			{second(b.s.Scale(t.Context(), "a", -1)), view.Invalid},
			{second(b.s.Scale(t.Context(), "a", 10001)), view.Invalid},
			{second(b.s.Scale(t.Context(), "b", 1)), view.NotFound},
			{second(b.s.Signal(t.Context(), "a", 7, 1)), view.NotFound},
		} {
			var e *view.Error
			if !errors.As(c.err, &e) || e.Kind != c.kind {
				t.Errorf("got %v, want kind %d", c.err, c.kind)
			}
		}
		if b.s.State().Version != b.s.publisher.version || len(b.byPath("/bin/a")) != 3 {
			t.Error("a refused command changed something")
		}
		b.s.Stop(t.Context(), "a", -1)
		synctest.Wait()
		if _, err := b.s.Signal(t.Context(), "a", -1, 1); err == nil {
			t.Error("a signal to nothing was accepted")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		now := b.s.State().Version
		if s := b.s.Wait(ctx, now); s.Version != now {
			t.Error("a wait that timed out does not return the present state")
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestStubbornProcessesAreKilledAtTheTimeout(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, count: 3, stop: {timeout: 5s}}}", func(t *testing.T, b *bed) {
		b.stubborn = true
		procs := b.byPath("/bin/a")
		b.s.Stop(t.Context(), "a", -1)
		b.pass(4999 * time.Millisecond)
		if n := len(b.byPath("/bin/a")); n != 3 {
			t.Errorf("%d live before the timeout", n)
		}
		b.pass(time.Millisecond)
		for _, p := range procs {
			want := []int{int(syscall.SIGTERM), int(syscall.SIGCONT), int(syscall.SIGKILL)}
			if !slices.Equal(p.got, want) {
				t.Errorf("process %d got %v, want %v", p.pid, p.got, want)
			}
		}
		if p := b.slot("a", 2); p.State != view.Stopped || p.LastExit.Initiator != "command" || p.LastExit.Signal != "SIGKILL" {
			t.Errorf("%+v %+v", p, p.LastExit)
		}
	})
}

const (
	term = int(syscall.SIGTERM)
	kill = int(syscall.SIGKILL)
)

// wantSignals compares what processes got.
func (b *bed) wantSignals(t *testing.T, when string, procs []*process, want ...int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range procs {
		if !slices.Equal(p.got, want) {
			t.Fatalf("%s: process %d got %v, want %v", when, p.pid, p.got, want)
		}
	}
}

// TestContOfMany: where many are to stop, CONT comes when those that end have ended, once, and
// before SIGKILL. Where they are few it comes at once.
func TestContOfMany(t *testing.T) {
	inBubble(t, fmt.Sprintf(`entries:
  a: {command: /bin/a, count: 100, stop: {timeout: 5s}}
  b: {command: /bin/b, count: %d, stop: {timeout: 5s}}
  c: {command: /bin/c, count: %d, stop: {timeout: 5s}}
  d: {command: /bin/d, count: 100, stop: {timeout: 50ms}}
`, many, many-1), func(t *testing.T, bed *bed) {
		bed.stubborn = true
		a, b, c, d := bed.byPath("/bin/a"), bed.byPath("/bin/b"), bed.byPath("/bin/c"), bed.byPath("/bin/d")
		bed.s.Stop(t.Context(), "a", -1)
		bed.pass(contAfter / 2)
		for _, entry := range []string{"b", "c"} {
			bed.s.Stop(t.Context(), entry, -1)
		}
		bed.wantSignals(t, "at once", a, term)
		bed.wantSignals(t, "at once", b, term)
		bed.wantSignals(t, "at once, and few", c, term, cont)
		bed.pass(contAfter / 2)
		bed.wantSignals(t, "a moment later", a, term, cont)
		bed.wantSignals(t, "with the others", b, term, cont)
		bed.s.Stop(t.Context(), "d", -1)
		bed.pass(time.Second)
		bed.wantSignals(t, "once", a, term, cont)
		bed.wantSignals(t, "once", b, term, cont)
		bed.wantSignals(t, "once", c, term, cont)
		for _, p := range d {
			if !slices.Equal(p.got, []int{term, cont, kill}) {
				t.Fatalf("with a short timeout: %v", p.got)
			}
		}
	})
}

// TestContOfManyWhoAreKept: a daemon that goes leaves nobody who is to end without CONT.
func TestContOfManyWhoAreKept(t *testing.T) {
	inBubble(t, fmt.Sprintf("entries: {a: {command: /bin/a, count: %d, stop: {timeout: 5s}}}", many), func(t *testing.T, b *bed) {
		b.stubborn = true
		procs := b.byPath("/bin/a")
		b.s.Stop(t.Context(), "a", -1)
		b.s.Shutdown(t.Context(), true)
		<-b.done
		b.wantSignals(t, "when the daemon had gone", procs, term, cont)
		clear(b.procs)
		b.done <- Finished
	})
}

// TestWhoIsSignaled: whom a signal is for, and what comes after it.
func TestWhoIsSignaled(t *testing.T) {
	const config = "entries: {a: {command: /bin/a, stop: {mode: %s, timeout: 5s}}}"
	mainOnly, group, tree := fsm.ScopeMain, fsm.ScopeGroup, fsm.ScopeTree
	for _, c := range []struct {
		mode   string
		leaves bool // the main process ends, and something lives on
		got    []int
		to     []fsm.Scope
	}{
		{"process", false, []int{1, term, cont, kill}, []fsm.Scope{mainOnly, mainOnly, mainOnly, tree}},
		{"tree", false, []int{1, term, cont, kill}, []fsm.Scope{mainOnly, mainOnly, mainOnly, tree}},
		{"group", false, []int{1, term, cont, kill}, []fsm.Scope{mainOnly, group, group, tree}},
		{"tree", true, []int{1, term, cont}, []fsm.Scope{mainOnly, tree, tree}},
	} {
		inBubble(t, fmt.Sprintf(config, c.mode), func(t *testing.T, b *bed) {
			b.stubborn = true
			p := b.byPath("/bin/a")[0]
			if _, err := b.s.Signal(t.Context(), "a", -1, 1); err != nil {
				t.Fatal(err)
			}
			if c.leaves {
				b.endLeaving(p, 0)
				synctest.Wait()
			} else {
				b.s.Stop(t.Context(), "a", -1)
				b.pass(5 * time.Second)
			}
			b.mu.Lock()
			if !slices.Equal(p.got, c.got) || !slices.Equal(p.to, c.to) {
				t.Errorf("%+v: got %v to %v", c, p.got, p.to)
			}
			b.mu.Unlock()
			if c.leaves {
				b.endGroup(p)
			}
			b.stubborn = false
		})
	}
}

// TestNobodyIsStartedForNothing: starts that wait their turn are not made when they are not
// wanted any more by then.
func TestNobodyIsStartedForNothing(t *testing.T) {
	const entries = "entries: {a: {command: /bin/a, count: 1000}, b: {command: /bin/b}}"
	for what, command := range map[string]func(*bed){
		"stop":     func(b *bed) { b.s.Stop(b.t.Context(), "a", -1) },
		"scale":    func(b *bed) { b.s.Scale(b.t.Context(), "a", 0) },
		"shutdown": func(b *bed) { b.s.Shutdown(b.t.Context(), false) },
	} {
		path := filepath.Join(t.TempDir(), "test.yaml")
		synctest.Test(t, func(t *testing.T) {
			b := &bed{edge: newEdge(t), path: path}
			b.write(entries)
			b.s = New(b.options(path))
			go command(b)
			synctest.Wait() // it is the first thing that Run takes
			b.run()
			if what != "shutdown" {
				if p := b.slot("b", 0); p.State != view.Running {
					t.Errorf("%s: b is %s", what, p.State)
				}
				b.s.Start(t.Context(), "a", 7)
				synctest.Wait()
			}
			b.s.Shutdown(t.Context(), false)
			<-b.done
			// A batch of starts is asked for before anything else is looked at.
			if n := b.nextPID - 1000; n > 3*startBatch {
				t.Errorf("%s: %d processes were started", what, n)
			}
		})
	}
}

// stoppingImage is an image that cannot be executed, and hears a stop meanwhile.
type stoppingImage struct {
	image
	s *Supervisor
}

func (i stoppingImage) Exec(d *state.Daemon, files []state.File) error {
	i.s.requests <- request{
		run:  func() { i.s.step(fsm.Stop{Entry: "a", Slot: fsm.AllSlots}) },
		done: make(chan struct{}), taken: new(atomic.Bool),
	}
	return i.image.Exec(d, files)
}

// TestNothingIsHeldForNobody: the output of a slot waits for a start, and for one that is not
// made after all it waits no more.
func TestNothingIsHeldForNobody(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, delay: 0, count: 200}}", func(t *testing.T, b *bed) {
		b.slow = true
		for _, p := range b.byPath("/bin/a") {
			b.end(p, 1)
		}
		synctest.Wait()
		b.mu.Lock()
		if len(b.held) != 200 {
			t.Errorf("the output of %d slots waits for starts that were asked for", len(b.held))
		}
		b.asked = nil // they are not made before the re-exec
		b.mu.Unlock()
		b.s.Handover = stoppingImage{image{b.edge}, b.s}
		if _, err := b.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.edge.answer()
		b.pass(time.Second)
		b.mu.Lock()
		if len(b.held) > 0 {
			t.Errorf("the output of %d slots waits still", len(b.held))
		}
		b.mu.Unlock()
	})
}

// TestShutdownTellsOnce: whoever asks again is not heard by processes.
func TestShutdownTellsOnce(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, count: 3}}", func(t *testing.T, b *bed) {
		b.stubborn = true
		procs := b.byPath("/bin/a")
		for range 2 {
			b.s.Shutdown(t.Context(), false)
			b.pass(time.Second)
		}
		b.wantSignals(t, "after two", procs, term, cont)
	})
}

func TestReloadThatIsRefusedChangesNothing(t *testing.T) {
	const good = "entries: {a: {command: /bin/a}}"
	inBubble(t, good, func(t *testing.T, b *bed) {
		pid := b.byPath("/bin/a")[0].pid
		refused := func(why, contains string) {
			t.Helper()
			_, err := b.s.Reload(t.Context())
			var e *view.Error
			if !errors.As(err, &e) || e.Kind != view.BadConfig || !strings.Contains(err.Error(), contains) {
				t.Errorf("%s: %v", why, err)
			}
			synctest.Wait()
			last := b.s.State().Daemon.LastReload
			if last.OK || !strings.Contains(last.Error, contains) || last.SuccessAt == nil {
				t.Errorf("%s: last reload is %+v", why, last)
			}
			if p := b.slot("a", 0); p.PID != pid || b.suspended > 0 {
				t.Errorf("%s: something changed: %+v", why, p)
			}
		}
		b.write("entries: {a: {comand: /bin/a}}")
		refused("a misspelt key", `test.yaml:2: entries.a: unknown key "comand"`)
		b.write(good)
		b.preflight = errors.New("exit status 1")
		refused("a broken binary", "exit status 1")
	})
}

func TestReexecThatFailsCarriesOn(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a, count: 2}, b: {command: /bin/b, delay: 10s}}", func(t *testing.T, b *bed) {
		b.end(b.byPath("/bin/b")[0], 1)
		b.pass(time.Second)
		b.write("entries: {a: {command: /bin/a, count: 5}}")
		if _, err := b.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b.suspended != 1 || b.resumed != 1 || b.paused {
			t.Errorf("suspended %d, resumed %d, paused %v", b.suspended, b.resumed, b.paused)
		}
		if last := b.s.State().Daemon.LastReload; last.OK || !strings.Contains(last.Error, "exec format error") {
			t.Errorf("last reload is %+v", last)
		}
		b.pass(9 * time.Second)
		if len(b.byPath("/bin/a")) != 2 || len(b.byPath("/bin/b")) != 1 {
			t.Error("the old configuration is not carried on with")
		}
	})
}

// handedOver is what the next image would be given.
func (b *bed) handedOver() (files map[string]int) {
	files = make(map[string]int)
	for _, f := range b.files {
		files[f.Name] = f.FD
	}
	return files
}

func TestNextImageGoesOn(t *testing.T) {
	inBubble(t, `entries:
  changed: {command: /bin/old, count: 2}
  gone: {command: /bin/gone}
  same: {command: /bin/same}
  scaled: {command: /bin/scaled}
  stopped: {command: /bin/stopped}
  waits: {command: /bin/waits, delay: 10s}
`, func(t *testing.T, b *bed) {
		b.s.Scale(t.Context(), "scaled", 3)
		b.s.Stop(t.Context(), "stopped", -1)
		b.end(b.byPath("/bin/waits")[0], 7)
		b.pass(time.Second)
		pid := b.byPath("/bin/same")[0].pid
		version := b.s.State().Version
		b.write(`entries:
  changed: {command: /bin/new, count: 2}
  new: {command: /bin/added}
  same: {command: /bin/same, delay: 3s}
  scaled: {command: /bin/scaled}
  stopped: {command: /bin/stopped}
  waits: {command: /bin/waits, delay: 10s}
`)
		if _, err := b.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// What the next image does, with the first one out of the way.
		b.s.Shutdown(t.Context(), true)
		if got := <-b.done; got != Kept {
			t.Fatalf("outcome %v", got)
		}
		next, err := Resume(b.options(b.path), b.saved)
		if err != nil {
			t.Fatal(err)
		}
		next.TakeOver(b.handedOver(), func() []string { return nil })
		b.s = next
		b.run()
		st := b.s.State()
		if st.Version <= version || st.Daemon.Reexecs != 1 {
			t.Errorf("version %d after %d, %d re-execs", st.Version, version, st.Daemon.Reexecs)
		}
		if p := b.slot("same", 0); p.PID != pid || p.Incarnation != 1 || p.Adopted {
			t.Errorf("an unchanged entry was touched: %+v", p)
		}
		for path, want := range map[string]int{
			"/bin/old": 0, "/bin/new": 2, "/bin/gone": 0, "/bin/added": 1, "/bin/same": 1,
			"/bin/scaled": 3, "/bin/stopped": 0, "/bin/waits": 0,
		} {
			if got := len(b.byPath(path)); got != want {
				t.Errorf("%d processes of %s, want %d", got, path, want)
			}
		}
		if st.Entry("gone") != nil {
			t.Error("a removed entry is still there")
		}
		if e := st.Entry("changed"); e.Processes[0].LastExit.Initiator != "reload" {
			t.Errorf("initiator %q", e.Processes[0].LastExit.Initiator)
		}
		b.pass(9 * time.Second)
		if got := len(b.byPath("/bin/waits")); got != 1 {
			t.Error("a delay under way did not go on")
		}
		if e := b.s.State().Entry("waits"); e.Starts != 2 || e.Exits != 1 {
			t.Errorf("counters began anew: %d starts, %d exits", e.Starts, e.Exits)
		}
	})
}

func TestProcessThatWasNotHandedOverIsAnUnknownEnd(t *testing.T) {
	inBubble(t, "entries: {a: {command: /bin/a}}", func(t *testing.T, b *bed) {
		if _, err := b.s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.s.Shutdown(t.Context(), true)
		<-b.done
		next, err := Resume(b.options(b.path), b.saved)
		if err != nil {
			t.Fatal(err)
		}
		next.TakeOver(nil, func() []string { return nil })
		b.s = next
		b.run()
		if x := b.slot("a", 0).LastExit; x == nil || x.Reason != view.ReasonUnknown || x.Code != nil || x.CPUSeconds != nil {
			t.Errorf("last exit %+v", x)
		}
		for _, p := range b.byPath("/bin/a")[:1] { // the one nobody knows of
			delete(b.procs, p.token)
		}
	})
}

// TestGather: in the shutdown of many, ends are taken together, and those of the last
// few as they come.
func TestGather(t *testing.T) {
	const n = many + 2
	inBubble(t, fmt.Sprintf("entries: {a: {command: /bin/a, count: %d}}", n), func(t *testing.T, b *bed) {
		b.stubborn = true
		if _, err := b.s.Shutdown(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		left := func() (up int) {
			synctest.Wait()
			for _, p := range b.s.State().Entry("a").Processes {
				if p.PID != 0 {
					up++
				}
			}
			return up
		}
		b.end(b.byPath("/bin/a")[0], 0)
		b.end(b.byPath("/bin/a")[0], 0)
		if up := left(); up != n {
			t.Errorf("%d of %d are known to be up at once", up, n)
		}
		b.pass(gatherFor + 2*time.Millisecond)
		if up := left(); up != n-2 {
			t.Errorf("%d of %d are known to be up after a while", up, n)
		}
		b.pass(gatherFor)
		b.end(b.byPath("/bin/a")[0], 0)
		b.end(b.byPath("/bin/a")[0], 0)
		b.pass(2 * time.Millisecond)
		if up := left(); up != n-4 {
			t.Errorf("%d of %d are known to be up, fewer than are many", up, n)
		}
		b.end(b.byPath("/bin/a")[0], 0)
		if err := b.s.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestCommandWhileEndsGather: it is answered at once.
func TestCommandWhileEndsGather(t *testing.T) {
	inBubble(t, fmt.Sprintf("entries: {a: {command: /bin/a, count: %d}}", many), func(t *testing.T, b *bed) {
		b.stubborn = true
		for range 2 { // the second comes when ends are let gather
			began := time.Now()
			if _, err := b.s.Shutdown(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != 0 {
				t.Errorf("it took %v", took)
			}
			synctest.Wait()
		}
		if err := b.s.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
