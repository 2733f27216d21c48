package supervisor

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/view"
)

// Connector is what a Witness needs of pkg/procevents.
type Connector interface {
	// Wait waits until there are events, and takes none.
	Wait() error
	// Poll puts those that there are into dst and returns how many. An error is
	// a *procevents.LostError when some were lost; after any other the connector
	// is of no more use.
	Poll(dst []procevents.Event) (int, error)
	// Buffer is how much room there is for events that were not taken, in bytes.
	Buffer() int
	// File returns a descriptor of the subscription, for the image that goes
	// on after a re-exec.
	File() (*os.File, error)
	// SetKinds changes which kinds of events come.
	SetKinds(...procevents.Kind) error
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
// is not handled a second later makes it look at that process's pidfd; the
// owner is woken only when the connector is lost or events were.
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
	rouse   func()             // has the owner look at ready
	tracked map[int32]sighting // by pid
	unheard int                // how many of them were handled, at most
	doubts  []doubt            // that are not resolved

	// For survivors, see attend.go.
	exitsOnly  bool // forks are not asked for at all times
	wide       bool // but now
	era        uint64
	obituaries obituaries
	attending  atomic.Bool // there are obituaries
}

// NewWitness returns a witness that listens once Run runs. conn is a connector
// that was handed over, or nil; dial opens one. With dial nil there is none, for
// the reason given.
func NewWitness(conn Connector, dial func() (Connector, error), reason string) *Witness {
	w := &Witness{dial: dial, conn: conn, ready: make(chan struct{}, 1), tracked: make(map[int32]sighting), obituaries: make(obituaries)}
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
	w.wide = false
	w.forgetAll(whyNotHeard)
	w.mu.Unlock()
	if w.Lineage != nil {
		w.Lineage.Silent()
	}
	w.wake()
}

// When the reader looks at what has come. An event wakes it only after a time
// without any, and the restart that follows on an exit gets the CPU first; while
// events come it looks by the clock, as a network card's driver does: a start and an
// exit are six events, and to be woken for each costs more than all else about
// them. Nothing that is decided waits for the connector.
const (
	firstLook = time.Millisecond
	calmLook  = 10 * time.Millisecond
	// A storm of forks has it look more often: the default buffer holds half a
	// second of the worst, but that of a plain user a few milliseconds.
	stormLook = 4 * time.Millisecond
	storm     = 64 // events between two looks
	roomy     = 1 << 20
)

func (w *Witness) read(conn Connector) error {
	events := make([]procevents.Event, 128)
	calm := calmLook
	if conn.Buffer() < roomy {
		calm = firstLook
	}
	look := time.NewTimer(firstLook)
	defer look.Stop()
	for {
		<-look.C
		n, err := w.takeIn(conn, events)
		switch {
		case err != nil:
			return err
		case n >= storm:
			look.Reset(min(calm, stormLook))
		case n > 0 || len(w.doubts) > 0:
			look.Reset(calm)
		default:
			if err := conn.Wait(); err != nil {
				return err
			}
			look.Reset(firstLook)
		}
	}
}

// takeIn takes in what has come, and returns how much that was.
func (w *Witness) takeIn(conn Connector, events []procevents.Event) (total int, err error) {
	w.resolve()
	for {
		n, err := conn.Poll(events)
		exits := false
		for i := range events[:n] {
			w.seen[events[i].Kind].Add(1)
			exits = exits || events[i].Kind == procevents.Exit
		}
		if exits || w.attending.Load() {
			w.hear(events[:n])
		}
		if n > 0 && w.Lineage != nil {
			w.Lineage.Observe(events[:n])
		}
		total += n
		var loss *procevents.LostError
		switch {
		case errors.As(err, &loss):
			w.overrun(loss.Events)
			total++
		case err != nil:
			return total, err
		case n < len(events):
			return total, nil
		}
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
	w.forgetAll(whyLostEvents)
	w.mu.Unlock()
	w.wake()
}

func (w *Witness) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
	if w.rouse != nil {
		w.rouse()
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
