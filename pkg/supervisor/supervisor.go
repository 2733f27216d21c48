// Package supervisor runs the owner goroutine: the one that owns the machine.
//
// Events about processes, commands and the passing of time come in, each goes
// through fsm.Machine.Step, the actions that come out are carried out by the
// leaves (pkg/spawn, pkg/logs), and the new picture is published. Everything
// that may block or fail lives in the leaves; everything that is decided is
// decided in pkg/supervisor/fsm. Readers load the picture from an atomic pointer
// and never queue behind the owner.
//
// The package knows the machine and the leaves. It must not know HTTP, metrics
// or the command line: whoever serves the picture is told of a re-exec through
// the Serving interface.
package supervisor

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/sockets"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// Options are what a Supervisor is made of. All but Journal, Keeper, Cgroups, Controllers,
// Moderation and Missing are required.
type Options struct {
	Identity Identity
	Config   *config.Config
	// Load reads the configuration anew, for a reload.
	Load func() (*config.Config, error)
	// Environ is the environment that children inherit.
	Environ   []string
	Processes Processes
	Output    Output
	Sockets   Sockets
	Witness   *Witness
	// Forks says that the Witness hears of every fork, exec and exit: then what
	// descends from the processes is known by that.
	Forks    bool
	Serving  Serving
	Handover Handover
	Clock    Clock
	// Moderation is the least time between two pictures, but for those that a
	// command waits for: what a storm of exits would otherwise spend most on.
	Moderation time.Duration
	Log        *slog.Logger
	// Journal is where the state is written down before it is acted on; nil if
	// it cannot be.
	Journal Journal
	// Keeper keeps descriptors while no daemon is there; nil if nobody does.
	Keeper Keeper
	// Cgroups is where each slot has a cgroup; nil where there can be none.
	Cgroups Cgroups
	// Controllers are those that limit what is in Cgroups, sorted.
	Controllers []string
	// Containment is how the trees of processes are known: view.Cgroup2,
	// view.Lineage or view.NoContainment.
	Containment string
	// Missing says, in whole sentences, what this host or user cannot do.
	Missing []string
}

// Identity is who this daemon is. It is the same over re-execs.
type Identity struct {
	Name      string
	PID       int
	Version   string // of the program
	StartedAt time.Time
	Config    string // absolute path of the configuration file
	// Args is its command line, which a child shows until it has called execve.
	Args []string
}

// Clock tells the time. Now is CLOCK_MONOTONIC and decides; Wall is for people.
type Clock struct {
	Now  func() fsm.Instant
	Wall func() time.Time
}

// Outcome is why Run returned.
type Outcome uint8

// The outcomes.
const (
	// Finished: a shutdown is complete and nothing runs.
	Finished Outcome = iota
	// Kept: the daemon ends and the children run on.
	Kept
)

// Supervisor keeps the entries of a configuration running. Run owns the
// machine; all other methods may be called from any goroutine.
type Supervisor struct {
	Options
	machine   *fsm.Machine
	config    *config.Config
	launchers map[string]*launcher
	outputs   string // the directory of the FIFOs, as the kernel names it

	// Which token of pkg/spawn is which incarnation. Tokens are never used
	// twice, so news of an incarnation that is no more finds nothing here.
	lastToken spawn.Token
	children  map[spawn.Token]*child
	tokens    map[fsm.ID]spawn.Token
	actions   []fsm.Action // decided, and not yet carried out
	spare     []fsm.Action // room for the next ones
	local     []fsm.Event  // events that carrying out an action gave rise to
	batch     []spawn.Event
	handled   []handled     // exits that the witness was not told of yet
	untold    bool          // something happened since the picture was published
	toldAt    fsm.Instant   // when it was
	pause     time.Duration // until the next may be
	startedAt fsm.Instant   // when a start was first asked for after that
	unstarted []*child      // starts that pkg/spawn was not asked for yet, in order
	sends     []fsm.Send    // signals to main processes, to be sent together
	late      []fsm.Send    // more of them, for lateAt
	lateAt    fsm.Instant
	departed  []spawn.Token // children that are to be forgotten

	happenings []fsm.Action // done, and not yet told

	scribe    scribe
	keptNames keptNames
	descent   *descent
	heirs     map[fsm.ID]*heir // found for the exits that are being handled
	holds     []*hold          // ends that the machine was not told of yet, by their time

	history  history
	begun    map[string]int  // children of an entry that pkg/spawn knows
	reserved []*sockets.Spec // opened for the next image

	picture     picture
	publisher   publisher
	significant bool // something of the daemon itself changed since the last picture
	counts      counts

	requests     chan request
	reloading    chan struct{} // holds a token while a reload is under way
	ended        chan struct{} // closed when Run has returned for good
	outcome      *Outcome
	gathering    bool        // see gather
	paused       bool        // spawning is stopped for a re-exec
	resumption   *resumption // between Resume and TakeOver
	prevReexecAt *time.Time
}

// child is a process, or an asked-for start, of an incarnation.
type child struct {
	id        fsm.ID
	token     spawn.Token
	pid       int  // 0 until it has started
	begun     bool // pkg/spawn knows it
	ended     bool // the main process has, and something of its tree lives on
	survivor  bool // a daemon that died since started it
	asked     int  // the stop signal that its tree is being sent, 0: none is
	startedAt fsm.Instant
	cgroup    string          // that it was started in, "" if none
	identity  *spawn.Identity // nil if it has none
	kept      string          // its name with the Keeper, "" if it has none
	held      *hold           // its end, while that is held
}

// request is a function to be run by the owner goroutine.
type request struct {
	run  func()
	done chan struct{}
	// taken is set by whoever comes first: the owner, or the one who asks and
	// gives up waiting.
	taken *atomic.Bool
}

// maxRequests wait for the owner; who asks beyond that waits to be one of them.
const maxRequests = 64

// New returns a supervisor for a fresh start. Nothing is started before Run.
func New(o Options) *Supervisor {
	s := newSupervisor(o, fsm.New())
	s.config = o.Config
	s.prepare(o.Config)
	o.Processes.Adopt(nil) // there is nothing to take over: whatever comes is an orphan
	s.step(fsm.Configure{Entries: machineEntries(o.Config)})
	s.publishFirst()
	return s
}

func newSupervisor(o Options, m *fsm.Machine) *Supervisor {
	children := 0
	for _, e := range o.Config.Entries {
		if e.Autostart {
			children += e.Count
		}
	}
	s := &Supervisor{
		Options: o, machine: m,
		launchers: make(map[string]*launcher),
		children:  make(map[spawn.Token]*child, children),
		tokens:    make(map[fsm.ID]spawn.Token, children),
		heirs:     make(map[fsm.ID]*heir),
		begun:     make(map[string]int),
		requests:  make(chan request, maxRequests),
		reloading: make(chan struct{}, 1),
		ended:     make(chan struct{}),
		untold:    true,
		outputs:   nameOf(o.Output.Dir()),
	}
	o.Witness.look, o.Witness.rouse = o.Processes.Look, o.Processes.Wake
	o.Sockets.Notify(o.Processes.Wake)
	o.Witness.listenFor(o.Forks)
	s.descent = newDescent(o.Clock.Now, o.Forks, o.Witness.wake)
	if o.Forks {
		o.Witness.Lineage = s.descent
	}
	now := o.Clock.Wall()
	s.publisher = publisher{
		daemon: view.Daemon{
			Name: o.Identity.Name, PID: o.Identity.PID, Config: o.Identity.Config,
			StartedAt: o.Identity.StartedAt, Version: o.Identity.Version, Containment: o.Containment,
			LastReload:    view.Reload{At: now, OK: true, SuccessAt: &now},
			Missing:       append([]string{}, o.Missing...),
			ProcConnector: o.Witness.Status(),
			Listeners:     o.Serving.Listeners(),
		},
		describe: s.describe,
		adopted:  s.adopted,
		wallAt: func(at fsm.Instant) time.Time {
			return o.Clock.Wall().Add(at - o.Clock.Now())
		},
	}
	return s
}

func (s *Supervisor) publishFirst() {
	s.significant = true
	s.picture.store(&view.State{Entries: []*view.Entry{}})
	s.publish()
}

// Run is the owner goroutine: it returns when the daemon is to end. Call it
// once.
func (s *Supervisor) Run() Outcome {
	defer close(s.ended)
	if s.Forks {
		go s.descent.run(s.ended)
	}
	for s.outcome == nil {
		started := s.startSome()
		s.untold = s.untold || started
		s.forgetDeparted()
		due := s.tell(started)
		s.gather(due)
		s.Processes.Wait(s.patience(due))
		s.takeProcesses()
		select {
		case r := <-s.requests:
			s.untold = true
			s.answer(r)
			runtime.Gosched() // who asked goes first
		default:
		}
		select {
		case <-s.Sockets.Ready():
			s.untold = true
			s.takeSockets()
		default:
		}
		select {
		case <-s.Witness.ready:
			s.untold = true
			s.takeTestimony()
		default:
		}
		if at, ok := s.deadline(); ok && at <= s.Clock.Now() {
			s.untold = true
			s.releaseHolds()
			s.sendLate() // also before its time: a SIGKILL may be due
			s.step(fsm.Tick{})
		}
	}
	if *s.outcome == Kept {
		// No start may be under way that nobody would hear of.
		s.paused = true
		s.Processes.Pause()
		s.takeProcesses()
		s.settleHolds()
		s.forgetDeparted()
		s.sendLate()
		s.closeJournal()
	}
	if *s.outcome == Finished {
		s.Sockets.Close()
		s.removeJournal()
	}
	s.publish()
	s.Output.Flush()
	return *s.outcome
}

// maxPauses is how many Options.Moderations a picture may come after the one before.
const maxPauses = 16

// tell publishes the picture and lets lines be printed, unless that was done
// a moment ago; then, or when a start was asked for just
// now and its outcome is about to come, it returns the instant at which it is
// to be done. An exit and the start that follows are so told of together, and
// the start, which the child's program waits for, goes first.
func (s *Supervisor) tell(started bool) (due fsm.Instant) {
	s.tellHappenings()
	if !s.untold {
		return 0
	}
	now := s.Clock.Now()
	due = s.toldAt + s.pause
	if started {
		if s.startedAt < s.toldAt {
			s.startedAt = now
		}
		due = max(due, s.startedAt+s.Moderation)
	}
	if now < due {
		return due
	}
	s.publish()
	s.Output.Flush()
	s.tellWitness()
	s.toldAt, s.untold = now, false
	// With thousands of processes a picture takes its time, which those have not that
	// wait for a CPU: a tenth of it is for telling.
	s.pause = min(max(s.Moderation, 9*(s.Clock.Now()-now)), maxPauses*s.Moderation)
	runtime.Gosched() // who was told goes first, see Processes.Wait
	return 0
}

// tellWitness tells the connector's reader which exits were handled.
func (s *Supervisor) tellWitness() {
	s.Witness.handled(s.handled)
	s.handled = s.handled[:0]
}

// patience returns how long the owner may wait for events: until the deadline, or
// the instant at which something is to be told, if there is either; below 0 it is
// for as long as nothing happens.
func (s *Supervisor) patience(tell fsm.Instant) time.Duration {
	if len(s.unstarted) > 0 || len(s.requests) > 0 {
		return 0
	}
	at, ok := s.deadline()
	switch {
	case !ok && tell == 0:
		return -1
	case !ok || tell != 0 && tell < at:
		at = tell
	}
	return max(0, at-s.Clock.Now())
}

// deadline returns when there is something to do though nothing has happened.
func (s *Supervisor) deadline() (at fsm.Instant, ok bool) {
	at, ok = s.machine.NextDeadline()
	if again := s.scribe.retryAt; again != 0 && (!ok || again < at) {
		at, ok = again, true
	}
	if len(s.late) > 0 && (!ok || s.lateAt < at) {
		at, ok = s.lateAt, true
	}
	if len(s.holds) > 0 && (!ok || s.holds[0].until < at) {
		at, ok = s.holds[0].until, true
	}
	return at, ok
}

// step gives the machine an event and does what it answers. It returns the
// refusal of a command.
func (s *Supervisor) step(ev fsm.Event) *view.Error {
	s.decide(ev)
	return s.act()
}

// decide gives the machine an event. What it answers waits for act.
func (s *Supervisor) decide(ev fsm.Event) {
	s.actions = append(s.actions, s.machine.Step(s.Clock.Now(), ev)...)
}

// act writes down what was decided and then carries it out, and likewise with
// whatever events that gave rise to. It returns the refusal of a command.
func (s *Supervisor) act() (refusal *view.Error) {
	for {
		s.writeDown()
		now := s.actions
		s.actions = s.spare[:0]
		told := s.sendAll(now)
		if r := s.carryOut(now); r != nil {
			refusal = r
		}
		if told {
			s.writeDown()
		}
		clear(now)
		s.spare = now
		if len(s.local) == 0 {
			return refusal
		}
		s.decideLocal()
	}
}

func (s *Supervisor) decideLocal() {
	for _, ev := range s.local {
		s.decide(ev)
	}
	clear(s.local)
	s.local = s.local[:0]
}

func (s *Supervisor) takeProcesses() {
	if s.batch = s.Processes.Events(s.batch[:0]); len(s.batch) == 0 {
		return
	}
	s.untold, s.gathering = true, s.machine.Stopping()
	s.counts.queueLength.Store(int64(len(s.batch)))
	for i := range s.batch {
		s.take(&s.batch[i])
	}
	s.act()
	s.dropHeirs()
}

// ListenersChanged says that the addresses listened on are not what they were.
func (s *Supervisor) ListenersChanged() {
	s.ask(context.Background(), func() { s.setListeners(s.Serving.Listeners()) })
}

func (s *Supervisor) setListeners(l []view.Listener) {
	s.publisher.daemon.Listeners = l
	s.significant = true
}

// ConfigChanged reports whether the configuration's files differ from the
// configuration in use, or cannot be read.
func (s *Supervisor) ConfigChanged() bool {
	now, err := s.Load()
	return err != nil || !slices.EqualFunc(now.Sources, s.config.Sources, func(a, b config.Source) bool {
		return a.Path == b.Path && bytes.Equal(a.Data, b.Data)
	})
}

// publish makes what changed visible.
func (s *Supervisor) publish() {
	s.tellHappenings()
	s.counts.ignored.Store(s.machine.Ignored())
	s.ensureMarks()
	c := s.machine.TakeChanges()
	if len(c.Entries) == 0 && len(c.Removed) == 0 && !s.significant {
		return
	}
	for _, name := range c.Removed {
		s.Output.Forget(name)
	}
	s.publisher.daemon.Stopping = s.machine.Stopping()
	s.picture.store(s.publisher.apply(c, s.significant))
	s.significant = false
}
