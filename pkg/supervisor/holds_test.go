package supervisor

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/view"
)

// deathbed is a supervisor with one survivor, of whose end the connector alone
// will tell.
type deathbed struct {
	*bed
	conn *fakeConnector // nil: refused
	p    *process
}

// inDeathbed has a survivor with so many threads.
func inDeathbed(t *testing.T, threads int, test func(t *testing.T, d *deathbed)) {
	t.Helper()
	inDeathbedOf(t, "entries: {a: {command: /bin/a, delay: 10s, stop: {timeout: 1h}}}", threads, test)
}

func inDeathbedOf(t *testing.T, yaml string, threads int, test func(t *testing.T, d *deathbed)) {
	t.Helper()
	path := t.TempDir() + "/test.yaml"
	synctest.Test(t, func(t *testing.T) {
		d := &deathbed{bed: &bed{edge: newEdge(t), path: path}}
		d.edge.dial = func() (Connector, error) {
			if threads == 0 {
				return nil, errors.New("not today")
			}
			d.conn = newFakeConnector()
			return d.conn, nil
		}
		d.write(yaml)
		d.s = New(d.options(path))
		stop := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			d.s.Witness.Run(stop)
			close(ended)
		}()
		d.run()
		d.p = d.byPath("/bin/a")[0]
		d.survive(max(threads, 1))
		test(t, d)
		d.s.Shutdown(t.Context(), false)
		<-d.done
		if n := len(d.s.Witness.obituaries); n > 0 {
			t.Errorf("%d obituaries are left", n)
		}
		if d.s.Witness.connector() != nil && !slices.Equal(d.conn.asked(), []procevents.Kind{procevents.Exit}) {
			t.Errorf("asked for %v when nobody needs it", d.conn.asked())
		}
		close(stop)
		d.s.Witness.Close()
		<-ended
	})
}

// survive makes the process a survivor.
func (d *deathbed) survive(threads int) {
	d.mu.Lock()
	d.p.threads = threads
	d.mu.Unlock()
	if err := d.s.ask(d.t.Context(), d.s.attendAll); err != nil {
		d.t.Fatal(err)
	}
	d.pass(time.Millisecond)
}

// dies has the pidfd tell of the end.
func (d *deathbed) dies() {
	d.mu.Lock()
	d.exit(d.p, spawn.Status{})
	d.mu.Unlock()
	synctest.Wait()
}

// hears has the connector say something about the process.
func (d *deathbed) hears(err error, events ...procevents.Event) {
	for i := range events {
		e := &events[i]
		e.TGID = int32(d.p.pid)
		if e.PID == 0 {
			e.PID = e.TGID
		}
		e.Timestamp = d.now()
	}
	d.conn.next <- received{events, err}
	d.pass(2 * calmLook)
}

// handedOn is the state that the next image gets, nil before it does.
func (d *deathbed) handedOn() *state.Daemon {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.saved
}

func exitEvent(status uint32) procevents.Event {
	return procevents.Event{Kind: procevents.Exit, ExitCode: status}
}

// expect fails unless the end is told so: "held", or the reason, code and signal
// and, of an unknown one, a part of why.
func (d *deathbed) expect(want string) {
	d.t.Helper()
	x := d.slot("a", 0).LastExit
	got := "held"
	switch {
	case x != nil && x.Reason == "exited":
		got = "exited " + string(rune('0'+*x.Code))
	case x != nil && x.Reason == "signaled":
		got = x.Signal
	case x != nil:
		got = x.Error
		if !strings.HasPrefix(got, whyReaped) {
			d.t.Errorf("why is %q", got)
		}
	}
	if got != want && !strings.HasSuffix(got, "; "+want) {
		d.t.Errorf("the end is told as %q, want %q", got, want)
	}
}

func TestHeldUntilItIsTold(t *testing.T) {
	inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
		if want := []procevents.Kind{procevents.Fork, procevents.Exec, procevents.Exit}; !slices.Equal(d.conn.asked(), want) {
			t.Errorf("asked for %v, want %v", d.conn.asked(), want)
		}
		d.dies()
		died := d.now()
		d.pass(heldFor / 2)
		d.expect("held")
		if q := d.slot("a", 0); q.State != view.Running {
			t.Errorf("while it is held: %+v", q)
		}
		d.hears(nil, exitEvent(3<<8))
		d.expect("exited 3")
		// The delay counts from the end.
		d.pass(10*time.Second - (d.now() - died) - time.Millisecond)
		if q := d.slot("a", 0); q.State != view.Backoff {
			t.Errorf("before the delay has passed: %+v", q)
		}
		d.pass(2 * time.Millisecond)
		if q := d.slot("a", 0); q.State != view.Running || q.Incarnation != 2 {
			t.Errorf("after it: %+v", q)
		}
	})
}

func TestToldBefore(t *testing.T) {
	inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
		d.hears(nil, exitEvent(15))
		d.dies()
		d.pass(2 * time.Millisecond)
		d.expect("SIGTERM")
	})
}

func TestHeldInVain(t *testing.T) {
	inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
		d.dies()
		d.pass(heldFor - time.Millisecond)
		d.expect("held")
		d.pass(3 * time.Millisecond)
		d.expect(whyNotTold)
		d.hears(nil, exitEvent(3<<8)) // too late
		d.expect(whyNotTold)
	})
}

func TestNothingIsHeldFor(t *testing.T) {
	t.Run("no connector", func(t *testing.T) {
		inDeathbed(t, 0, func(t *testing.T, d *deathbed) {
			d.dies()
			d.pass(2 * time.Millisecond)
			d.expect(whyNotHeard)
		})
	})
	t.Run("several threads", func(t *testing.T) {
		inDeathbed(t, 2, func(t *testing.T, d *deathbed) {
			d.hears(nil, exitEvent(0))
			d.dies()
			d.pass(2 * time.Millisecond)
			d.expect(whySeveral)
		})
	})
	t.Run("our own", func(t *testing.T) {
		inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
			d.mu.Lock()
			d.exit(d.p, spawn.Status{Known: true, Code: 4})
			d.mu.Unlock()
			d.pass(2 * time.Millisecond)
			d.expect("exited 4")
		})
	})
}

func TestHeldWithSeveralThreads(t *testing.T) {
	inDeathbed(t, 2, func(t *testing.T, d *deathbed) {
		d.dies()
		d.expect("held")
		d.hears(nil, exitEvent(9))
		d.expect("SIGKILL")
	})
	inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
		d.hears(nil, procevents.Event{Kind: procevents.Fork, PID: 1})
		d.dies()
		d.hears(nil, exitEvent(3<<8))
		d.expect(whySeveral)
	})
}

func TestEventsAreLost(t *testing.T) {
	t.Run("in the hold", func(t *testing.T) {
		inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
			d.dies()
			d.hears(&procevents.LostError{Events: 9, Overrun: true})
			d.expect(whyLostEvents)
		})
	})
	t.Run("before it", func(t *testing.T) {
		inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
			d.hears(&procevents.LostError{Events: 9, Overrun: true}) // its threads are counted anew
			d.dies()
			d.expect("held")
			d.hears(nil, exitEvent(3<<8))
			d.expect("exited 3")
		})
	})
	t.Run("no connector any more", func(t *testing.T) {
		inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
			d.dies()
			d.hears(procevents.ErrSilent)
			d.expect(whyNotHeard)
		})
	})
	t.Run("another connector", func(t *testing.T) {
		inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
			old := d.conn
			d.pass(time.Hour)
			d.hears(procevents.ErrSilent)
			if d.conn == old {
				t.Fatal("no other")
			}
			d.dies()
			d.hears(nil, exitEvent(3<<8))
			d.expect("exited 3")
		})
	})
}

// What comes after a held end waits for it.
func TestTreeOfAHeldEnd(t *testing.T) {
	inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
		d.mu.Lock()
		d.p.ended = true
		d.emit(spawn.Event{Kind: spawn.Exited, Token: d.p.token, PID: d.p.pid, Members: []spawn.Member{{PID: 1, Command: "left"}}})
		d.mu.Unlock()
		d.pass(time.Millisecond)
		d.endGroup(d.p)
		d.pass(time.Millisecond)
		d.expect("held")
		d.hears(nil, exitEvent(3<<8))
		d.expect("exited 3")
		if q := d.slot("a", 0); q.State != view.Backoff || len(q.Stragglers) > 0 {
			t.Errorf("its tree is empty: %+v", q)
		}
	})
}

func TestStopInTheHold(t *testing.T) {
	inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
		d.dies()
		if _, err := d.s.Stop(t.Context(), "a", -1); err != nil {
			t.Fatal(err)
		}
		if q := d.slot("a", 0); q.State != view.Stopping {
			t.Errorf("a stop in the hold: %+v", q)
		}
		d.hears(nil, exitEvent(3<<8))
		d.expect("exited 3")
		if q := d.slot("a", 0); q.State != view.Stopped {
			t.Errorf("after it: %+v", q)
		}
	})
}

func TestShutdownInTheHold(t *testing.T) {
	inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
		d.dies()
		d.s.Shutdown(t.Context(), false)
		d.hears(nil, exitEvent(3<<8))
		if o := <-d.done; o != Finished {
			t.Errorf("outcome %v", o)
		}
		d.done <- Finished // for who waits again
		d.expect("exited 3")
	})
}

// Who leaves its children waits for what is held of their ends.
func TestKeepInTheHold(t *testing.T) {
	inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
		d.dies()
		d.s.Shutdown(t.Context(), true)
		synctest.Wait()
		d.hears(nil, exitEvent(3<<8))
		if o := <-d.done; o != Kept {
			t.Errorf("outcome %v", o)
		}
		d.done <- Kept
		d.expect("exited 3")
	})
}

// So does who goes on as another image, which is told of it.
func TestReexecInTheHold(t *testing.T) {
	for _, told := range []bool{true, false} {
		inDeathbed(t, 1, func(t *testing.T, d *deathbed) {
			d.dies()
			if _, err := d.s.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if d.handedOn() != nil {
				t.Fatal("gone in the hold")
			}
			want := "unknown"
			if told {
				want = "exited"
				d.hears(nil, exitEvent(3<<8))
			} else {
				d.pass(heldFor)
			}
			saved := d.handedOn()
			if saved == nil {
				t.Fatal("the re-exec does not come")
			}
			x := saved.Machine.Entries[0].Slots[0].Last
			if x == nil || x.Reason != want || told && x.Code != 3 {
				t.Errorf("told=%t: the next image gets %+v", told, x)
			}
			d.pass(time.Millisecond) // the fake's execve fails
			if q := d.slot("a", 0); q.State != view.Backoff {
				t.Errorf("told=%t: after a re-exec that failed: %+v", told, q)
			}
		})
	}
}
