package supervisor

import (
	"errors"
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
	// Wait waits until there are events, and takes none.
	Wait() error
	// Receive waits for events and returns how many it put into dst. An error is
	// a *procevents.LostError when some were lost; after any other the connector
	// is of no more use.
	Receive(dst []procevents.Event) (int, error)
	// File returns a descriptor of the subscription, for the image that goes
	// on after a re-exec.
	File() (*os.File, error)
	Close() error
}

// Lineage is told what happens to the processes of this host, by the witness's
// goroutine. Lost comes before anything else.
type Lineage interface {
	// Observe takes events in, in the order in which they were received. The
	// slice is the caller's again afterwards.
	Observe(events []procevents.Event)
	// Lost says that what happened up to now may not have been observed: once
	// when the witness begins, after a loss, and when the connector is heard
	// again. What is read from /proc or a cgroup from then on is newer than the
	// gap.
	Lost()
	// Silent says that nothing is observed until Lost is called again.
	Silent()
}

const (
	// redialAfter is the wait before a connector that could not be opened is
	// tried again.
	redialAfter = 30 * time.Second
	// holdsFor is how long one that was opened has to hold before it is opened
	// again at once: less than it takes to notice silence.
	holdsFor = 10 * time.Second
)

// Witness hears the kernel's proc connector: the second witness of exits. What
// it says is a hint to look at a pidfd now, and the kernel's own time of an
// exit; supervision is exact without it.
//
// Its reader goroutine counts every event. An exit of a tracked process that
// was not handled yet makes it look at that process's pidfd; the owner is woken
// only when the connector is lost or events were.
type Witness struct {
	// Lineage may be nil. It is set before Run, or never.
	Lineage Lineage

	dial    func() (Connector, error)
	ready   chan struct{} // holds a token when there is news for the owner
	seen    [procevents.Kinds]atomic.Uint64
	lost    atomic.Uint64
	resyncs atomic.Uint64
	delays  detection

	mu      sync.Mutex
	conn    Connector
	status  view.ProcConnector
	failure string // why it was last not heard
	news    bool   // status changed
	resync  bool   // events were lost: everything tracked is to be looked at
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
	// The first picture tells that it is heard; all else is news.
	news := w.failure != "" && w.status != status
	if err != nil {
		conn, status = nil, view.ProcConnector{Reason: err.Error()}
		news, w.failure = w.status != status, status.Reason
	}
	w.conn, w.status, w.news = conn, status, w.news || news
	if w.news {
		w.wake()
	}
}

// Status says whether the connector is heard.
func (w *Witness) Status() view.ProcConnector {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Run reads the connector until stop is closed, and opens it anew when it fails:
// at once, unless that was done a short time ago. It is the reader goroutine.
func (w *Witness) Run(stop <-chan struct{}) {
	if w.dial == nil && w.connector() == nil {
		return
	}
	timer := time.NewTimer(w.patience())
	defer timer.Stop()
	if w.connector() != nil {
		w.missed()
	}
	for {
		if conn := w.connector(); conn != nil {
			err := w.read(conn)
			conn.Close()
			w.fail(err)
		}
		select {
		case <-stop: // before a timer that may have ended long ago
			return
		default:
		}
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		if w.dial == nil { // the one that was handed over is gone
			return
		}
		if w.Connect(); w.connector() != nil {
			w.missed()
			w.again()
		}
		timer.Reset(w.patience())
	}
}

// patience is how long after an attempt there is no other.
func (w *Witness) patience() time.Duration {
	if w.connector() != nil {
		return holdsFor
	}
	return redialAfter
}

// missed tells the lineage that it may have missed something.
func (w *Witness) missed() {
	if w.Lineage != nil {
		w.Lineage.Lost()
	}
}

// again has the owner look at everything after a time without the connector.
func (w *Witness) again() {
	w.mu.Lock()
	w.resync = true
	w.mu.Unlock()
	w.wake()
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
	w.status = view.ProcConnector{Reason: err.Error()}
	w.failure = w.status.Reason
	w.news = true
	clear(w.tracked)
	w.unheard = 0
	w.mu.Unlock()
	if w.Lineage != nil {
		w.Lineage.Silent()
	}
	w.wake()
}

// moderation is how long the reader lets events gather when some have come, as a
// network card does with its interrupts: a start and an exit are six events,
// and waking up for each costs more than all else about them. Nothing that is
// decided waits for the connector, and the restart that follows on an exit gets
// the CPU first. Where that many gathered as a storm of forks
// makes, they may do so for longer: the default buffer holds half a second of
// the worst, and that of a plain user a few milliseconds.
const (
	moderation      = time.Millisecond
	stormModeration = 4 * time.Millisecond
	storm           = 16 // events in a millisecond
)

func (w *Witness) read(conn Connector) error {
	events := make([]procevents.Event, 128)
	gather := time.NewTimer(moderation)
	defer gather.Stop()
	<-gather.C
	gathered := 0 // since the reader last waited
	wait := moderation
	for {
		if gathered == 0 {
			if err := conn.Wait(); err != nil {
				return err
			}
			gather.Reset(wait)
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
		if n > 0 && w.Lineage != nil {
			w.Lineage.Observe(events[:n])
		}
		var loss *procevents.LostError
		switch {
		case errors.As(err, &loss):
			w.overrun(loss.Events)
		case err != nil:
			return err
		}
		gathered += n
		if n == len(events) { // there is more
			continue
		}
		wait = moderation
		if gathered >= storm && err == nil {
			wait = stormModeration
		}
		gathered = 0
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

// overrun has the owner look at everything after a loss of n events, or of an
// unknown number. What was handled and not heard of will not be.
func (w *Witness) overrun(n uint64) {
	w.lost.Add(max(n, 1))
	w.missed()
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

// handled is an exit that the owner has handled, and when.
type handled struct {
	pid   int
	token spawn.Token
	at    fsm.Instant
}

// handled notes which exits were handled, and measures how long after the
// kernel's own time of it each was, once both are known.
func (w *Witness) handled(exits []handled) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range exits {
		s, ok := w.tracked[int32(x.pid)]
		if !ok || s.token != x.token {
			continue
		}
		if s.kernel != 0 {
			w.delays.observe(x.at - s.kernel)
			delete(w.tracked, int32(x.pid))
			continue
		}
		s.handled = x.at
		w.tracked[int32(x.pid)] = s
		if w.unheard++; w.unheard > maxUnheard {
			w.forgetHandled()
		}
	}
}

// take returns the news since the last call, and with a status why the
// connector was last not heard.
func (w *Witness) take() (resync bool, status *view.ProcConnector, failure string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	resync, w.resync = w.resync, false
	if w.news {
		w.news = false
		st := w.status
		status = &st
	}
	return resync, status, w.failure
}

// takeTestimony acts on news of the connector: after a loss everything tracked
// is looked at again.
func (s *Supervisor) takeTestimony() {
	for _, c := range s.descent.takeCrashes() {
		s.step(fsm.DescendantCrashed{ID: c.Key, At: c.At})
	}
	resync, status, failure := s.Witness.take()
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
		s.tellDaemon(view.EventConnectorDown, status.Reason)
		s.Log.Warn("the proc connector is not heard; exits are still seen by pidfd", "reason", status.Reason)
		return
	}
	s.tellDaemon(view.EventConnectorUp, "")
	s.Log.Info("the proc connector is heard again", "after", failure)
	for t, c := range s.children {
		if c.pid != 0 && !c.ended {
			s.Witness.track(c.pid, t, c.startedAt)
		}
	}
}
