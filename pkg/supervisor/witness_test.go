package supervisor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/spawn"
)

// received is what one Poll of a fakeConnector returns.
type received struct {
	events []procevents.Event
	err    error
}

// fakeConnector says what a test has it say, and nothing until then.
type fakeConnector struct {
	next   chan received
	told   []received // by Wait
	closed chan struct{}

	mu    sync.Mutex
	kinds []procevents.Kind // as they were last set
}

func newFakeConnector() *fakeConnector {
	return &fakeConnector{next: make(chan received), closed: make(chan struct{})}
}

func (f *fakeConnector) Poll(dst []procevents.Event) (int, error) {
	if len(f.told) == 0 {
		select {
		case r := <-f.next:
			f.told = append(f.told, r)
		case <-f.closed:
			return 0, os.ErrClosed
		default:
			return 0, nil
		}
	}
	r := f.told[0]
	f.told = f.told[1:]
	return copy(dst, r.events), r.err
}

func (f *fakeConnector) Wait() error {
	select {
	case r := <-f.next:
		f.told = append(f.told, r)
		return nil
	case <-f.closed:
		return os.ErrClosed
	}
}

func (f *fakeConnector) Buffer() int { return roomy }

func (f *fakeConnector) SetKinds(kinds ...procevents.Kind) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kinds = kinds
	return nil
}

func (f *fakeConnector) asked() []procevents.Kind {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kinds
}

func (f *fakeConnector) File() (*os.File, error) { return nil, errors.New("not in a test") }

func (f *fakeConnector) Close() error {
	select {
	case <-f.closed:
	default:
		close(f.closed)
	}
	return nil
}

// toldLineage notes what it is told.
type toldLineage struct {
	mu   sync.Mutex
	told []string
}

func (l *toldLineage) Observe(events []procevents.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range events {
		l.told = append(l.told, fmt.Sprint(events[i].Kind, " ", events[i].PID))
	}
}

func (l *toldLineage) Lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, "lost")
}

func (l *toldLineage) Silent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, "silent")
}

func (l *toldLineage) take() (told []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	told, l.told = l.told, nil
	return told
}

// testWitness runs a witness whose dials succeed while refuse is empty.
type testWitness struct {
	*Witness
	heir   toldLineage
	dials  sync.Mutex // of the two below
	conns  []*fakeConnector
	refuse string
	stop   chan struct{}
	ended  chan struct{}
}

func startWitness(t *testing.T, refuse string) *testWitness {
	w := &testWitness{refuse: refuse, stop: make(chan struct{}), ended: make(chan struct{})}
	w.Witness = NewWitness(nil, func() (Connector, error) {
		w.dials.Lock()
		defer w.dials.Unlock()
		if w.refuse != "" {
			return nil, errors.New(w.refuse)
		}
		w.conns = append(w.conns, newFakeConnector())
		return w.conns[len(w.conns)-1], nil
	}, "")
	w.Lineage = &w.heir
	w.look = func(spawn.Token) {}
	w.Connect()
	w.take()
	go func() {
		w.Run(w.stop)
		close(w.ended)
	}()
	t.Cleanup(func() {
		close(w.stop)
		w.Close()
		<-w.ended
	})
	synctest.Wait()
	return w
}

func (w *testWitness) opened() []*fakeConnector {
	w.dials.Lock()
	defer w.dials.Unlock()
	return slices.Clone(w.conns)
}

// says has the present connector say something.
func (w *testWitness) says(err error, events ...procevents.Event) {
	conns := w.opened()
	conns[len(conns)-1].next <- received{events, err}
	<-time.After(2 * calmLook)
	synctest.Wait()
}

func (w *testWitness) expect(t *testing.T, dials int, up bool, resync bool, told ...string) {
	t.Helper()
	synctest.Wait()
	if n := len(w.opened()); n != dials {
		t.Errorf("%d dials succeeded, want %d", n, dials)
	}
	if s := w.Status(); s.Up != up || up != (s.Reason == "") {
		t.Errorf("status %+v, want up %t", s, up)
	}
	if got, _, _ := w.take(); got != resync {
		t.Errorf("resync %t, want %t", got, resync)
	}
	if got := w.heir.take(); !slices.Equal(got, told) {
		t.Errorf("the lineage was told %q, want %q", got, told)
	}
}

func TestWitnessHandsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWitness(t, "")
		w.expect(t, 1, true, false, "lost")
		w.says(nil, procevents.Event{Kind: procevents.Fork, PID: 7}, procevents.Event{Kind: procevents.Exit, PID: 7})
		w.says(nil, procevents.Event{Kind: procevents.SID, PID: 8})
		w.expect(t, 1, true, false, "fork 7", "exit 7", "sid 8")
		if n := w.seen[procevents.Exit].Load(); n != 1 {
			t.Errorf("%d exits counted", n)
		}
	})
}

func TestWitnessLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWitness(t, "")
		w.expect(t, 1, true, false, "lost")
		w.says(&procevents.LostError{Events: 40, Overrun: true})
		w.says(nil, procevents.Event{Kind: procevents.Exit, PID: 9})
		w.expect(t, 1, true, true, "lost", "exit 9")
		w.says(&procevents.LostError{}) // of unknown size
		w.expect(t, 1, true, true, "lost")
		if n := w.lost.Load(); n != 41 {
			t.Errorf("%d events lost, want 41", n)
		}
	})
}

// A connector that falls silent after a long life is replaced at once, one that
// fails soon after being opened not before some time has passed.
func TestWitnessSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWitness(t, "")
		w.expect(t, 1, true, false, "lost")
		<-time.After(time.Hour)
		silent := fmt.Errorf("%w for 12 s", procevents.ErrSilent)
		w.says(silent)
		w.expect(t, 2, true, true, "silent", "lost")
		if _, _, failure := w.take(); failure != silent.Error() {
			t.Errorf("failed because of %q", failure)
		}
		began := time.Now()
		w.says(silent)
		w.expect(t, 2, false, false, "silent")
		if got := w.Status().Reason; got != silent.Error() {
			t.Errorf("reason %q", got)
		}
		for len(w.opened()) < 3 && time.Since(began) < time.Minute {
			<-time.After(time.Second)
			synctest.Wait()
		}
		if took := time.Since(began); took < holdsFor/2 || took > holdsFor+time.Second {
			t.Errorf("opened again after %v", took)
		}
		w.expect(t, 3, true, true, "lost")
	})
}

// Where there is no connector the reason is said, whatever it is, and it is
// tried again.
func TestWitnessComesBack(t *testing.T) {
	for _, reason := range []error{
		procevents.ErrPIDNamespace, procevents.ErrUserNamespace, procevents.ErrNetNamespace,
		procevents.ErrPermission, procevents.ErrNoKernelSupport, procevents.ErrSilent,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := startWitness(t, reason.Error())
			w.expect(t, 0, false, false)
			if got := w.Status().Reason; got != reason.Error() {
				t.Errorf("reason %q", got)
			}
			w.dials.Lock()
			w.refuse = ""
			w.dials.Unlock()
			<-time.After(redialAfter + time.Second)
			w.expect(t, 1, true, true, "lost")
		})
	}
}

// Turned off, it does nothing and says so.
func TestWitnessOff(t *testing.T) {
	w := NewWitness(nil, nil, "turned off")
	w.Connect()
	w.Run(nil)
	if s := w.Status(); s.Up || !strings.Contains(s.Reason, "turned off") {
		t.Errorf("status %+v", s)
	}
	w.Close()
}
