package supervisor

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// Connector is what a Witness needs of pkg/procevents.
type Connector interface {
	// Receive waits for events and returns how many it put into dst, with an
	// error that is procevents.ErrOverrun when the kernel dropped some.
	Receive(dst []procevents.Event) (int, error)
	// File returns a descriptor of the subscription, for the image that goes
	// on after a re-exec.
	File() (*os.File, error)
	Close() error
}

// redialAfter is the wait before a connector that cannot be heard is tried
// again.
const redialAfter = 30 * time.Second

// Witness hears the kernel's proc connector: the second witness of exits. What
// it says is a hint to look at a pidfd now, and the kernel's own time of an
// exit; supervision is exact without it.
//
// Its reader goroutine counts every event. An exit of a tracked process that
// was not handled yet makes it look at that process's pidfd; the owner is woken
// only when the connector is lost or events were.
type Witness struct {
	dial    func() (Connector, error)
	ready   chan struct{} // holds a token when there is news for the owner
	seen    [procevents.Kinds]atomic.Uint64
	lost    atomic.Uint64
	resyncs atomic.Uint64
	delays  detection

	mu      sync.Mutex
	conn    Connector
	status  view.ProcConnector
	news    bool // status changed
	resync  bool // events were lost: everything tracked is to be looked at
	look    func(spawn.Token)
	tracked map[int32]sighting // by pid
	unheard int                // how many of them were handled, at most
}

// maxUnheard bounds what a connector that says nothing, without an error, costs.
const maxUnheard = 1 << 16

// sighting is what is known of the end of a process: when the kernel says that
// it was and when it was handled, zero while that is not known. It is forgotten
// when both are.
type sighting struct {
	token   spawn.Token
	started fsm.Instant
	kernel  fsm.Instant
	handled fsm.Instant
}

// NewWitness returns a witness that listens once Run runs. conn is a connector
// that was handed over, or nil; dial opens one. With dial nil there is none, for
// the reason given.
func NewWitness(conn Connector, dial func() (Connector, error), reason string) *Witness {
	w := &Witness{dial: dial, conn: conn, ready: make(chan struct{}, 1), tracked: make(map[int32]sighting)}
	w.status = view.ProcConnector{Up: conn != nil, Reason: reason}
	if conn == nil && reason == "" {
		w.status.Reason = "not connected yet"
	}
	return w
}

// Connect opens the connector if there is none yet, so that the first picture
// tells whether it is heard. A failure is the status, not an error.
func (w *Witness) Connect() {
	if w.dial == nil || w.connector() != nil {
		return
	}
	conn, err := w.dial()
	w.mu.Lock()
	defer w.mu.Unlock()
	status := view.ProcConnector{Up: true}
	if err != nil {
		conn, status = nil, view.ProcConnector{Reason: err.Error()}
	}
	w.conn = conn
	w.news = w.news || w.status != status
	w.status = status
}

// Status says whether the connector is heard.
func (w *Witness) Status() view.ProcConnector {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Run reads the connector until stop is closed. It is the reader goroutine.
func (w *Witness) Run(stop <-chan struct{}) {
	if w.dial == nil && w.connector() == nil {
		return
	}
	timer := time.NewTimer(redialAfter)
	defer timer.Stop()
	if w.connector() == nil { // the first Connect failed, and the owner has not been told
		w.wake()
	}
	for {
		if conn := w.connector(); conn != nil {
			w.fail(w.read(conn))
			conn.Close()
		}
		timer.Reset(redialAfter)
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		w.Connect()
		w.wake()
	}
}

// Close ends the reader's waiting for events.
func (w *Witness) Close() {
	if conn := w.connector(); conn != nil {
		conn.Close()
	}
}

func (w *Witness) connector() Connector {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conn
}

func (w *Witness) fail(err error) {
	w.mu.Lock()
	w.conn = nil
	w.status = view.ProcConnector{Reason: fmt.Sprintf("the proc connector failed: %v", err)}
	w.news = true
	clear(w.tracked)
	w.unheard = 0
	w.mu.Unlock()
	w.wake()
}

// moderation is how long the reader lets events gather once some came, as a
// network card does with its interrupts: a start and an exit are six events,
// and waking up for each costs more than all else about them. Nothing that is
// decided waits for the connector.
const moderation = time.Millisecond

func (w *Witness) read(conn Connector) error {
	events := make([]procevents.Event, 128)
	gather := time.NewTimer(moderation)
	defer gather.Stop()
	more := false // there is more than one batch to take
	for {
		if !more {
			<-gather.C
		}
		n, err := conn.Receive(events)
		exits := false
		for i := range events[:n] {
			w.seen[events[i].Kind].Add(1)
			exits = exits || events[i].Kind == procevents.Exit
		}
		if exits {
			w.hear(events[:n])
		}
		switch {
		case errors.Is(err, procevents.ErrOverrun):
			w.overrun()
		case err != nil:
			return err
		}
		if more = n == len(events); !more {
			gather.Reset(moderation)
		}
	}
}

// hear takes in exits. One of a task says "look at this process now": a leader
// thread may end long before its process does, and a process of many threads
// ends with the last of them.
func (w *Witness) hear(events []procevents.Event) {
	var hints []spawn.Token
	w.mu.Lock()
	for i := range events {
		e := &events[i]
		if e.Kind != procevents.Exit {
			continue
		}
		s, ok := w.tracked[e.TGID]
		if !ok || e.Timestamp < s.started {
			continue
		}
		if s.handled != 0 {
			w.delays.observe(s.handled - e.Timestamp)
			delete(w.tracked, e.TGID)
			w.unheard--
			continue
		}
		s.kernel = e.Timestamp
		w.tracked[e.TGID] = s
		hints = append(hints, s.token)
	}
	look := w.look
	w.mu.Unlock()
	for _, t := range hints {
		look(t)
	}
}

// overrun has the owner look at everything. What was handled and not heard of
// will not be.
func (w *Witness) overrun() {
	w.lost.Add(1)
	w.mu.Lock()
	w.resync = true
	w.forgetHandled()
	w.mu.Unlock()
	w.wake()
}

// forgetHandled gives up waiting for news of exits that were handled. mu is
// held.
func (w *Witness) forgetHandled() {
	for pid, s := range w.tracked {
		if s.handled != 0 {
			delete(w.tracked, pid)
		}
	}
	w.unheard = 0
}

func (w *Witness) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// track has the exit of a process heard of.
func (w *Witness) track(pid int, t spawn.Token, started fsm.Instant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		w.tracked[int32(pid)] = sighting{token: t, started: started}
	}
}

// handled notes that the exit of a process was handled at that instant, and
// measures how long after the kernel's own time of it that is once both are
// known.
func (w *Witness) handled(pid int, t spawn.Token, at fsm.Instant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.tracked[int32(pid)]
	if !ok || s.token != t {
		return
	}
	if s.kernel != 0 {
		w.delays.observe(at - s.kernel)
		delete(w.tracked, int32(pid))
		return
	}
	s.handled = at
	w.tracked[int32(pid)] = s
	if w.unheard++; w.unheard > maxUnheard {
		w.forgetHandled()
	}
}

// take returns the news since the last call.
func (w *Witness) take() (resync bool, status *view.ProcConnector) {
	w.mu.Lock()
	defer w.mu.Unlock()
	resync, w.resync = w.resync, false
	if w.news {
		w.news = false
		st := w.status
		status = &st
	}
	return resync, status
}

// takeTestimony acts on news of the connector: after a loss everything tracked
// is looked at again.
func (s *Supervisor) takeTestimony() {
	resync, status := s.Witness.take()
	if resync {
		s.Witness.resyncs.Add(1)
		for t, c := range s.children {
			if c.pid != 0 {
				s.Processes.Look(t)
			}
		}
	}
	if status == nil {
		return
	}
	s.publisher.daemon.ProcConnector = *status
	s.significant = true
	if !status.Up {
		s.Log.Warn("the proc connector is not heard; exits are still seen by pidfd", "reason", status.Reason)
		return
	}
	s.Log.Info("the proc connector is heard again")
	for t, c := range s.children {
		if c.pid != 0 && !c.ended {
			s.Witness.track(c.pid, t, c.startedAt)
		}
	}
}
