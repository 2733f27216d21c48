package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sentryd/sentryd/pkg/logs"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// Processes is what the supervisor needs of pkg/spawn.
type Processes interface {
	Wait(time.Duration)
	Wake()
	Events(dst []spawn.Event) []spawn.Event
	Start(spawn.Token, *spawn.Spec)
	Signal([]spawn.Signal) []error
	SignalGroup(t spawn.Token, signal int) error
	SignalTree(t spawn.Token, signal int) error
	Release(spawn.Token)
	RemoveCgroup(path string)
	SetLimits(t spawn.Token, settings []spawn.Setting) error
	Look(spawn.Token)
	Adopt([]spawn.Child) []error
	Pause() []spawn.Token
	Resume()
	Children() []spawn.Child
	Untold() []spawn.Token
	Threads(spawn.Token) (n int, at time.Duration, ok bool)
}

// Output is what the supervisor needs of pkg/logs.
type Output interface {
	AddFor(k logs.Key, uid int) (id uint64, err error)
	Adopt(k logs.Key, pid int, incarnation uint64) error
	Path(logs.Key) string
	Dir() int
	Remove(logs.Key)
	Hold(logs.Key)
	Begin(logs.Record)
	End(logs.Record)
	Flush()
	Forget(entry string)
	Pause() (*logs.Handover, error)
	Resume()
}

// sendAll sends the signals among what the machine decided, and reports whether the
// machine has been told of any.
func (s *Supervisor) sendAll(actions []fsm.Action) (told bool) {
	asked := false
	for _, a := range actions {
		if a, ok := a.(fsm.Send); ok {
			s.send(a)
			asked = asked || a.Wake
		}
	}
	s.sendSignals()
	if !asked {
		return false
	}
	for _, a := range actions {
		a, ok := a.(fsm.Send)
		c := s.children[s.tokens[a.ID]]
		switch {
		case !ok || !a.Wake || c == nil:
		case a.Scope == fsm.ScopeTree:
			c.asked = a.Signal // that takes a while, see translate
		default:
			s.decide(fsm.Told{ID: a.ID})
			told = true
		}
	}
	return told
}

// carryOut does what the machine decided, but for the signals, which went first. What
// there is to tell of it is told later, see tellHappenings. It returns the
// refusal, if the step's command was refused.
func (s *Supervisor) carryOut(actions []fsm.Action) (refusal *view.Error) {
	for _, a := range actions {
		switch a := a.(type) {
		case fsm.Send:
			continue
		case fsm.Spawn:
			s.spawn(a.ID)
			continue
		case fsm.Release:
			if t, ok := s.tokens[a.ID]; ok {
				s.Processes.Release(t)
				s.forget(t)
			}
		case fsm.Started:
			s.printBegin(a.ID, a.PID, a.Wall, "Started at %d.", "started")
		case fsm.HandedOver:
			s.takeOverFrom(a)
		case fsm.CrashLoop:
			s.logCrashes(a)
		case fsm.Ended:
			s.printEnd(a)
		case fsm.Scaled:
			state.Failpoint("scaled")
		case fsm.EntryGone:
			s.forgetDeparted()
			s.descent.drop(a.Entry)
		case fsm.SlotGone:
			key := logs.Key{Entry: a.Entry, Slot: a.Slot}
			s.Output.Remove(key)
			s.forgetPipe(key)
			if s.Cgroups != nil {
				s.Processes.RemoveCgroup(s.Cgroups.Path(cgroupName(a.Entry, a.Slot)))
			}
			s.dropSockets(a.Entry, a.Slot)
			if l := s.launchers[a.Entry]; l != nil {
				delete(l.latest, a.Slot)
			}
		case fsm.Refused:
			refusal = &view.Error{Kind: refusalKinds[a.Kind], Message: a.Message}
		case fsm.Done:
			s.end(Finished)
		}
		s.happenings = append(s.happenings, a)
	}
	return refusal
}

var refusalKinds = map[fsm.RefusalKind]view.ErrorKind{
	fsm.NotFound: view.NotFound, fsm.Invalid: view.Invalid,
	fsm.Conflict: view.Conflict, fsm.Unavailable: view.Unavailable,
}

func (s *Supervisor) end(o Outcome) {
	if s.outcome == nil {
		s.outcome = &o
	}
}

// startBatch is how many starts are asked for before anything else is looked
// at: a FIFO has to be made for the first start of a slot, and scaling to
// thousands should keep no other command waiting.
const startBatch = 64

// spawn notes that an incarnation is to be started.
func (s *Supervisor) spawn(id fsm.ID) {
	if s.paused {
		return // Reissue asks for it again
	}
	s.lastToken++
	c := &child{id: id, token: s.lastToken}
	s.children[c.token] = c
	s.tokens[id] = c.token
	s.unstarted = append(s.unstarted, c)
}

// startSome asks pkg/spawn for the next incarnations, and reports whether it
// asked for any. What keeps one from being asked for comes back as an event,
// like any start that failed.
func (s *Supervisor) startSome() bool {
	n := min(len(s.unstarted), startBatch)
	for _, c := range s.unstarted[:n] {
		if s.children[c.token] != c {
			continue // given up meanwhile
		}
		key := logs.Key{Entry: c.id.Entry, Slot: c.id.Slot}
		if !s.machine.Wants(c.id) {
			s.forget(c.token)
			s.local = append(s.local, fsm.Withdrawn{ID: c.id})
			s.Output.End(logs.Record{Key: key}) // that was held for it before a re-exec that failed, say
			continue
		}
		spec, err := s.spec(c.id, key)
		if err != nil {
			s.notLaunched(c, err)
			continue
		}
		if list := s.launchers[c.id.Entry].sockets; len(list) > 0 {
			s.forgetDeparted() // they do not have them any more
			s.openSockets(c, spec, list)
			continue
		}
		s.launch(c, spec)
	}
	s.unstarted = slices.Delete(s.unstarted, 0, n)
	if len(s.local) > 0 {
		s.decideLocal()
		s.act()
	}
	return n > 0
}

// launch asks pkg/spawn for a child.
func (s *Supervisor) launch(c *child, spec *spawn.Spec) {
	if s.scribe.own {
		s.writeDown()
	}
	s.Output.Hold(logs.Key{Entry: c.id.Entry, Slot: c.id.Slot})
	s.begin(c)
	state.Failpoint("start")
	s.Processes.Start(c.token, spec)
}

// notLaunched says why pkg/spawn was not asked.
func (s *Supervisor) notLaunched(c *child, err error) {
	s.forget(c.token)
	s.local = append(s.local, s.failed(c.id, s.Clock.Now(), s.Clock.Wall().UnixNano(), err))
}

func (s *Supervisor) spec(id fsm.ID, key logs.Key) (*spawn.Spec, error) {
	l := s.launchers[id.Entry]
	if l == nil {
		return nil, fmt.Errorf("no configuration for entry %s", id.Entry)
	}
	fifo, err := s.Output.AddFor(key, l.uid)
	if err != nil {
		return nil, err
	}
	s.keepPipe(key)
	if spec := l.again(id); spec != nil {
		spec.Stdout.ID, spec.Stderr.ID = fifo, fifo
		if s.Cgroups == nil {
			spec.Place = s.place(id) // which names the incarnation
		}
		return spec, nil
	}
	out := spawn.Stdio{Path: s.Output.Path(key), Dir: s.Output.Dir(), Flags: syscall.O_RDWR, ID: fifo}
	spec, err := l.spec(id, out)
	if err != nil {
		return nil, err
	}
	spec.Place = s.place(id)
	l.keep(id.Slot, *spec)
	return spec, nil
}

// send sends a signal, or has it sent with those to other main processes.
func (s *Supervisor) send(a fsm.Send) {
	if a.Scope == fsm.ScopeMain {
		s.sends = append(s.sends, a)
		return
	}
	t, ok := s.tokens[a.ID]
	if !ok {
		return
	}
	send := s.Processes.SignalTree
	if a.Scope == fsm.ScopeGroup {
		send = s.Processes.SignalGroup
	}
	state.Failpoint("signal")
	defer state.Failpoint("signaled")
	signals := []int{a.Signal, cont}
	if !a.Wake {
		signals = signals[:1]
	}
	for _, signal := range signals {
		if err := send(t, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.signalFailed(a.ID, signal, a.Scope, err)
		}
	}
}

// CONT, which hardly anybody needs, is sent when all have got what it is to wake them
// up for. Where those are many, most end before that, and need none.
const (
	cont      = int(syscall.SIGCONT)
	many      = 64
	contAfter = 100 * time.Millisecond
)

// sendSignals sends those that wait for it.
func (s *Supervisor) sendSignals() {
	if len(s.sends) == 0 {
		return
	}
	s.sendNow(s.sends)
	conts := s.sends[:0]
	for _, a := range s.sends {
		if a.Wake {
			conts = append(conts, fsm.Send{ID: a.ID, Signal: cont})
		}
	}
	if len(conts) >= many {
		if len(s.late) == 0 {
			s.lateAt = s.Clock.Now() + contAfter
		}
		s.late = append(s.late, conts...)
	} else {
		s.sendNow(conts)
	}
	s.sends = s.sends[:0]
}

// sendLate sends what sendSignals left, to those that have not ended.
func (s *Supervisor) sendLate() {
	s.sendNow(slices.DeleteFunc(s.late, func(a fsm.Send) bool {
		c := s.children[s.tokens[a.ID]]
		return c == nil || c.ended
	}))
	s.late = nil
}

// sendNow sends signals to main processes.
func (s *Supervisor) sendNow(sends []fsm.Send) {
	if len(sends) == 0 {
		return
	}
	list := make([]spawn.Signal, 0, len(sends))
	for _, a := range sends {
		list = append(list, spawn.Signal{Token: s.tokens[a.ID], Signal: a.Signal})
	}
	state.Failpoint("signal")
	defer state.Failpoint("signaled")
	for i, err := range s.Processes.Signal(list) {
		if a := sends[i]; err != nil && !errors.Is(err, syscall.ESRCH) {
			s.signalFailed(a.ID, a.Signal, a.Scope, err)
		}
	}
}

func (s *Supervisor) signalFailed(id fsm.ID, signal int, to fsm.Scope, err error) {
	s.counts.failure("signal")
	s.Log.Warn("could not send a signal", "entry", id.Entry, "slot", id.Slot, "incarnation", id.Incarnation,
		"signal", signalName(signal), "to", to.String(), "error", err)
}

// translate turns news of a child from pkg/spawn into an event of the machine. why
// is what else is known of why the status of an end is not.
func (s *Supervisor) translate(c *child, e *spawn.Event, why string) fsm.Event {
	switch e.Kind {
	case spawn.Started:
		state.Failpoint("started")
		c.pid, c.startedAt, c.cgroup, c.identity = e.PID, e.At, e.Cgroup, e.Identity
		s.scribe.started = append(s.scribe.started, c)
		s.keepChild(c)
		s.Witness.track(c.pid, c.token, c.startedAt)
		s.descend(c)
		return fsm.Spawned{ID: c.id, PID: e.PID, At: e.At, Wall: e.Wall}
	case spawn.StartFailed:
		s.forget(c.token)
		return s.failed(c.id, e.At, e.Wall, s.shown(c.id, e.Err))
	case spawn.Exited:
		s.handled = append(s.handled, handled{c.pid, c.token, s.Clock.Now()})
		c.ended = true
		if e.TreeEmpty {
			s.departed = append(s.departed, c.token)
		}
		st := status(e.Status)
		st.OOM = e.OOMKills > 0 && e.Status.Signal == int(syscall.SIGKILL)
		ev := fsm.Exited{
			ID: c.id, At: e.At, Wall: e.Wall, Status: st, OOMKills: e.OOMKills,
			TreeEmpty: e.TreeEmpty, Members: pids(e.Members),
		}
		if !e.Status.Known {
			ev.Why = whyReaped
			if why != "" {
				ev.Why += "; " + why
			}
		}
		s.Witness.ignore(c.pid, c.token)
		s.findSuccessor(c, &ev, e.Members)
		if !e.TreeEmpty && ev.Successor == 0 {
			s.nameStragglers(c, "the main process left something behind", e.Members)
		}
		return ev
	case spawn.TreeEmpty:
		s.forget(c.token)
		return fsm.TreeEmpty{ID: c.id, At: e.At}
	case spawn.TreeSignaled:
		if e.SignalErr != nil {
			s.signalFailed(c.id, e.Signal, fsm.ScopeTree, e.SignalErr)
		}
		if c.asked > 0 && e.Signal == c.asked {
			c.asked = 0
			s.decide(fsm.Told{ID: c.id})
		}
		if e.Signal == int(syscall.SIGKILL) {
			s.nameStragglers(c, "SIGKILL was sent to what is left", e.Members)
		}
		return fsm.Stragglers{ID: c.id, Members: pids(e.Members)}
	case spawn.LimitFailed:
		s.counts.failure("limit")
		s.Log.Warn("could not change a limit", "entry", c.id.Entry, "slot", c.id.Slot, "incarnation", c.id.Incarnation, "error", e.Err)
	}
	return nil
}

// nameStragglers says in the log which processes hold up a stop.
func (s *Supervisor) nameStragglers(c *child, msg string, members []spawn.Member) {
	names := make([]string, 0, len(members))
	for _, m := range members {
		names = append(names, fmt.Sprintf("%d %s", m.PID, m.Command))
	}
	s.Log.Warn(msg, "entry", c.id.Entry, "slot", c.id.Slot, "incarnation", c.id.Incarnation, "pid", c.pid,
		"stragglers", strings.Join(names, ", "))
}

func pids(members []spawn.Member) []int {
	out := make([]int, 0, len(members))
	for _, m := range members {
		out = append(out, m.PID)
	}
	return out
}

func (s *Supervisor) failed(id fsm.ID, at fsm.Instant, wall int64, err error) fsm.Event {
	ev := fsm.SpawnFailed{ID: id, At: at, Wall: wall, Errno: "other", Message: err.Error()}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		ev.Errno = errnoName(errno)
	}
	return ev
}

// shown is why a start failed, without what variables in its path stand for.
func (s *Supervisor) shown(id fsm.ID, err *spawn.StartError) error {
	l := s.launchers[id.Entry]
	if l == nil {
		return err
	}
	e := *err
	e.Path = l.template.Shown(id.Slot, id.Incarnation, e.Path)
	return &e
}

// Why the end of a process is unknown.
const (
	whyReaped  = "another process reaped it, and the kernel does not tell (Linux 6.15 does)"
	whyAbsent  = "it ended while no daemon was running"
	whyStart   = "its start was under way when the daemon died, and left no trace"
	whyNotOurs = "it could not be taken over"
)

// begin notes that pkg/spawn knows a child from now on.
func (s *Supervisor) begin(c *child) {
	c.begun = true
	s.begun[c.id.Entry]++
}

func (s *Supervisor) forget(t spawn.Token) {
	if c := s.children[t]; c != nil {
		s.descent.remove(c.id)
	}
	s.untie(t)
}

// forgetDeparted forgets those of which nothing is left. That is done when the start
// that follows an exit was asked for: nothing waits for it.
func (s *Supervisor) forgetDeparted() {
	for _, t := range s.departed {
		s.forget(t)
	}
	s.departed = s.departed[:0]
}

// untie forgets a token; the incarnation may go on under another one.
func (s *Supervisor) untie(t spawn.Token) {
	c := s.children[t]
	if c == nil {
		return
	}
	if c.begun {
		if s.begun[c.id.Entry]--; s.begun[c.id.Entry] == 0 {
			delete(s.begun, c.id.Entry)
		}
	}
	if c.kept != "" {
		s.Keeper.Forget(c.kept)
	}
	s.Witness.ignore(c.pid, t)
	delete(s.children, t)
	delete(s.tokens, c.id)
}

func status(st spawn.Status) fsm.Status {
	out := fsm.Status{UsageSet: st.Known && !st.NoUsage, User: st.UserTime, Sys: st.SystemTime, MaxRSS: st.MaxRSS}
	switch {
	case !st.Known:
		out.Reason = fsm.ReasonUnknown
	case st.Signal != 0:
		out.Reason, out.Signal, out.Core = fsm.ReasonSignaled, st.Signal, st.Core
	default:
		out.Reason, out.Code = fsm.ReasonExited, st.Code
	}
	return out
}

// printBegin prints that a process is the main one from now on. text has a %d for
// the time in seconds.
func (s *Supervisor) printBegin(id fsm.ID, pid int, wall int64, text, msg string) {
	s.Output.Begin(logs.Record{
		Key: logs.Key{Entry: id.Entry, Slot: id.Slot}, PID: pid, Incarnation: id.Incarnation,
		Time: time.Unix(0, wall), Level: slog.LevelInfo, Msg: msg,
		Words: func(r *logs.Record) { r.Text = fmt.Sprintf(text, r.Time.Unix()) },
	})
}

// printEnd has the end of an incarnation printed. The words are found when it
// is: at this moment a start may be waited for.
func (s *Supervisor) printEnd(a fsm.Ended) {
	r := logs.Record{
		Key: logs.Key{Entry: a.ID.Entry, Slot: a.ID.Slot}, PID: a.Exit.PID, Incarnation: a.ID.Incarnation,
		Time: time.Unix(0, a.Exit.Wall), Level: slog.LevelInfo, Msg: "exited",
		Words: func(r *logs.Record) { r.Text, r.Attrs = endWords(a.Exit) },
	}
	if a.Exit.Reason == fsm.ReasonStartFailed {
		r.PID, r.Level, r.Msg = 0, slog.LevelError, "failed to start"
	}
	s.Output.End(r)
}

// endWords says how an incarnation ended.
func endWords(x *fsm.Exit) (text string, attrs []slog.Attr) {
	at := x.Wall / int64(time.Second)
	var how string
	switch x.Reason {
	case fsm.ReasonStartFailed:
		return fmt.Sprintf("Failed to start at %d: %s.", at, x.Error), []slog.Attr{slog.String("error", x.Error)}
	case fsm.ReasonExited:
		how = "ExitSuccess"
		if x.Code != 0 {
			how = "ExitFailure " + strconv.Itoa(x.Code)
		}
		attrs = append(attrs, slog.Int("code", x.Code))
	case fsm.ReasonSignaled:
		how = "signal " + signalName(x.Signal)
		attrs = append(attrs, slog.String("signal", signalName(x.Signal)), slog.Bool("core", x.Core), slog.Bool("oom", x.OOM))
	default:
		how = "unknown status"
		if x.Error != "" {
			attrs = append(attrs, slog.String("error", x.Error))
		}
	}
	attrs = append(attrs, slog.String("reason", x.Reason.String()), slog.String("initiator", x.Initiator.String()),
		slog.Duration("uptime", x.Uptime))
	return fmt.Sprintf("Exited at %d with %s.", at, how), attrs
}
