package supervisor

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sentryd/sentryd/pkg/procevents"
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
// Its reader goroutine counts every event and passes on the exits of processes
// that are tracked. It knows nothing else of them.
type Witness struct {
	dial    func() (Connector, error)
	ready   chan struct{} // holds a token when there is testimony
	tracked pidSet
	seen    [procevents.Kinds]atomic.Uint64
	lost    atomic.Uint64
	resyncs atomic.Uint64

	mu     sync.Mutex
	conn   Connector
	status view.ProcConnector
	news   bool // status changed
	exits  []testimony
	resync bool // events were lost: everything tracked is to be looked at
	spare  []testimony
}

// testimony is the exit of a task, as the kernel told it.
type testimony struct {
	pid int // of its process
	at  fsm.Instant
}

// NewWitness returns a witness that listens once Run runs. conn is a connector
// that was handed over, or nil; dial opens one. With dial nil there is none, for
// the reason given.
func NewWitness(conn Connector, dial func() (Connector, error), reason string) *Witness {
	w := &Witness{dial: dial, conn: conn, ready: make(chan struct{}, 1)}
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
	w.mu.Unlock()
	w.wake()
}

func (w *Witness) read(conn Connector) error {
	events := make([]procevents.Event, 256)
	var exits []testimony
	for {
		n, err := conn.Receive(events)
		exits = exits[:0]
		for i := range events[:n] {
			e := &events[i]
			w.seen[e.Kind].Add(1)
			if e.Kind == procevents.Exit && w.tracked.has(int(e.TGID)) {
				exits = append(exits, testimony{pid: int(e.TGID), at: e.Timestamp})
			}
		}
		overrun := errors.Is(err, procevents.ErrOverrun)
		if overrun {
			w.lost.Add(1)
		}
		if len(exits) > 0 || overrun {
			w.mu.Lock()
			w.exits = append(w.exits, exits...)
			w.resync = w.resync || overrun
			w.mu.Unlock()
			w.wake()
		}
		if err != nil && !overrun {
			return err
		}
	}
}

func (w *Witness) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// take returns what was heard since the last call. The slice is valid until
// the next one.
func (w *Witness) take() (exits []testimony, resync bool, status *view.ProcConnector) {
	w.mu.Lock()
	defer w.mu.Unlock()
	exits, w.exits, w.spare = w.exits, w.spare[:0], w.exits
	resync, w.resync = w.resync, false
	if w.news {
		w.news = false
		st := w.status
		status = &st
	}
	return exits, resync, status
}

// The rest is the owner's.

const maxAwaited = 1024

// watch has the connector's reader pass on the exit of a child.
func (s *Supervisor) watch(c *child) {
	s.byPID[c.pid] = c
	s.Witness.tracked.add(c.pid)
}

// testify notes that the exit of a child was handled now, and measures how long
// after the kernel's own time of it that is, if that is known already.
func (s *Supervisor) testify(c *child, now fsm.Instant) {
	c.exitedAt = now
	if c.kernelAt >= c.startedAt && c.kernelAt > 0 {
		s.counts.detection.observe(now - c.kernelAt)
		s.unwatch(c)
		return
	}
	s.awaited = append(s.awaited, c)
	if len(s.awaited) > maxAwaited {
		s.unwatch(s.awaited[0])
		s.awaited = s.awaited[1:]
	}
}

func (s *Supervisor) unwatch(c *child) {
	if s.byPID[c.pid] == c {
		delete(s.byPID, c.pid)
		s.Witness.tracked.remove(c.pid)
	}
}

// takeTestimony acts on what the connector said: an exit means "look at this
// pidfd now", since a leader thread may end long before its process does.
func (s *Supervisor) takeTestimony() {
	exits, resync, status := s.Witness.take()
	for _, t := range exits {
		c := s.byPID[t.pid]
		if c == nil || t.at < c.startedAt && c.exitedAt == 0 {
			continue
		}
		c.kernelAt = max(c.kernelAt, t.at)
		if c.exitedAt == 0 {
			s.Processes.Look(c.token)
		}
	}
	for _, t := range exits {
		if c := s.byPID[t.pid]; c != nil && c.exitedAt != 0 && c.kernelAt != 0 {
			s.counts.detection.observe(c.exitedAt - c.kernelAt)
			s.unwatch(c)
		}
	}
	if resync {
		s.Witness.resyncs.Add(1)
		for t, c := range s.children {
			if c.pid != 0 && c.exitedAt == 0 {
				s.Processes.Look(t)
			}
		}
	}
	if status != nil {
		s.publisher.daemon.ProcConnector = *status
		s.significant = true
		if !status.Up {
			s.Log.Warn("the proc connector is not heard; exits are still seen by pidfd", "reason", status.Reason)
		}
	}
}

// pidSet is a set of pids that one goroutine changes and another asks, without
// a lock. Pages of it are made as they are needed.
type pidSet struct {
	pages [pidPages]atomic.Pointer[pidPage]
}

const (
	pidPages    = 1024
	pidsPerPage = 4096 // 1024 pages of these are PID_MAX_LIMIT, 4 Mi
)

type pidPage [pidsPerPage / 64]atomic.Uint64

func (p *pidSet) add(pid int) {
	if slot := p.word(pid, true); slot != nil {
		slot.Or(1 << (pid % 64))
	}
}

func (p *pidSet) remove(pid int) {
	if slot := p.word(pid, false); slot != nil {
		slot.And(^uint64(1 << (pid % 64)))
	}
}

func (p *pidSet) has(pid int) bool {
	slot := p.word(pid, false)
	return slot != nil && slot.Load()&(1<<(pid%64)) != 0
}

func (p *pidSet) word(pid int, make bool) *atomic.Uint64 {
	if pid < 0 || pid >= pidPages*pidsPerPage {
		return nil
	}
	at := &p.pages[pid/pidsPerPage]
	page := at.Load()
	if page == nil {
		if !make {
			return nil
		}
		page = new(pidPage)
		at.Store(page)
	}
	return &page[pid%pidsPerPage/64]
}
