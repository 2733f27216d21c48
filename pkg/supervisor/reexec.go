package supervisor

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/logs"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// Handover is what the supervisor needs of pkg/state and of the process it runs
// in, to go on as another image.
type Handover interface {
	// Binary is the path that Exec will execve.
	Binary() string
	// Preflight runs it on a copy of the state.
	Preflight(ctx context.Context, saved *state.Daemon) error
	// Check says whether the next image would know the descriptors apart, and take
	// them for what their names say. It may be called from any goroutine.
	Check(files []state.File) error
	// Exec replaces this image, with files that were checked. It returns only when that
	// failed, and then nothing has changed.
	Exec(saved *state.Daemon, files []state.File) error
}

// save returns a copy of the state, to go on with as next.
func (s *Supervisor) save(ctx context.Context, next *config.Config) (saved *state.Daemon, err error) {
	if err := s.ask(ctx, func() { saved = s.saved(next) }); err != nil {
		return nil, err
	}
	return saved, nil
}

func (s *Supervisor) saved(next *config.Config) *state.Daemon {
	out := s.savedOwn(next)
	out.Machine = saveMachine(s.machine.Snapshot())
	s.savePlaces(out)
	s.descent.save(out)
	return out
}

// savedOwn is the saved state without entries.
func (s *Supervisor) savedOwn(next *config.Config) *state.Daemon {
	d := &s.publisher.daemon
	out := &state.Daemon{
		Name: s.Identity.Name, Args: s.Identity.Args, Config: s.Identity.Config, Binary: s.Handover.Binary(),
		StartedWall: s.Identity.StartedAt.UnixNano(), ReexecedWall: wall(d.ReexecedAt), Reexecs: d.Reexecs,
		Version: s.publisher.version,
		Applied: saveSources(s.config.Sources), Checked: saveSources(next.Sources),
		Machine: state.Machine{Stopping: s.machine.Stopping(), Ignored: s.machine.Ignored()}, Counters: s.saveCounters(),
		Reload: state.Reload{Wall: d.LastReload.At.UnixNano(), OK: d.LastReload.OK, Error: d.LastReload.Error, SuccessWall: wall(d.LastReload.SuccessAt)},
	}
	out.Seq, out.Events = s.saveEvents()
	return out
}

// handOver is run by the owner: it stops spawning, takes in what has happened,
// and goes on as the next image. When it returns, everything is as it was.
func (s *Supervisor) handOver(next *config.Config, serving []Socket) error {
	if s.machine.Stopping() || s.outcome != nil {
		return view.Errorf(view.Unavailable, "the daemon is stopping")
	}
	// Nobody is answered meanwhile, and all that is garbage goes with this image.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	s.paused = true
	s.Processes.Pause()
	s.takeProcesses()
	s.settleHolds()
	s.forgetDeparted()
	s.sendLate()
	s.tellWitness()
	s.settleJournal(true)
	err := s.exec(next, serving)
	s.settleJournal(false)
	s.paused = false
	s.Processes.Resume()
	s.unstarted = nil
	var pending []fsm.ID
	for t, c := range s.children {
		if c.pid == 0 {
			pending = append(pending, c.id)
			s.forget(t)
		}
	}
	s.reissue(pending)
	return err
}

// reissue asks anew for every start that was asked for and will not happen. The
// output of the slots of those that are not wanted any more was held for them.
func (s *Supervisor) reissue(pending []fsm.ID) {
	s.step(fsm.Reissue{})
	for _, id := range pending {
		if _, again := s.tokens[id]; !again {
			s.Output.End(logs.Record{Key: logs.Key{Entry: id.Entry, Slot: id.Slot}})
		}
	}
}

func (s *Supervisor) exec(next *config.Config, serving []Socket) error {
	pipes, err := s.Output.Pause()
	if err != nil {
		return fmt.Errorf("pause the output: %w", err)
	}
	defer s.Output.Resume()
	sockets, files := s.saveSockets()
	files = append(s.handedOver(pipes, serving), files...)
	// One that is configured otherwise is opened anew by the next image.
	if conn := s.Witness.connector(); conn != nil && next.ProcConnector == s.config.ProcConnector {
		if f, err := conn.File(); err == nil {
			defer f.Close()
			files = append(files, state.File{Name: ConnectorName, FD: int(f.Fd())})
		}
	}
	checked := make(chan error, 1)
	go func() { checked <- s.Handover.Check(files) }()
	saved := s.saved(next)
	saved.Sockets, saved.Output = sockets, saveOutput(pipes)
	if s.Keeper != nil {
		saved.Kept = s.Keeper.Names()
	}
	// The preflight saw an earlier state. What the next image would refuse of
	// this one would leave the processes to nobody.
	err = checkMachine(&saved.Machine)
	if err := <-checked; err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("the state does not hold together: %w", err)
	}
	state.Failpoint("exec")
	return s.Handover.Exec(saved, files)
}

// handedOver lists the descriptors of processes, their output and serving.
func (s *Supervisor) handedOver(pipes *logs.Handover, serving []Socket) []state.File {
	children := s.Processes.Children()
	files := make([]state.File, 0, len(pipes.FIFOs)+len(children)+len(serving))
	for _, p := range pipes.FIFOs {
		if p.FD < 0 {
			continue
		}
		files = append(files, state.File{Name: pipeName(p), FD: p.FD})
	}
	for _, c := range children {
		if known := s.children[c.Token]; known != nil && c.PidFD >= 0 {
			files = append(files, state.File{Name: pidfdName(known.id), FD: c.PidFD})
		}
	}
	for _, sock := range serving {
		files = append(files, state.File{Name: sock.Name, FD: sock.FD})
	}
	return files
}

// Names of handed-over descriptors.
const (
	pidfdPrefix = state.KindPidfd + ":"
	pipePrefix  = state.KindFIFO + ":"
	// ConnectorName is that of the proc connector's socket.
	ConnectorName = state.KindNetlink + ":proc"
)

func pidfdName(id fsm.ID) string { return pidfdPrefix + id.String() }

// pipeName is unique: a FIFO that was replaced while it was read has the same
// key as the one after it.
func pipeName(p logs.HandoverFIFO) string {
	return pipePrefix + p.Key.String() + "#" + strconv.Itoa(p.FD)
}

// saveOutput is what pkg/logs hands over in its saved form.
func saveOutput(h *logs.Handover) *state.Output {
	out := &state.Output{
		FIFOs: make([]state.FIFO, 0, len(h.FIFOs)), Entries: make(map[string]state.OutputCounts, len(h.Entries)),
		Dropped: h.Dropped, Out: h.Out, Err: h.Err,
	}
	for _, p := range h.FIFOs {
		out.FIFOs = append(out.FIFOs, state.FIFO{
			Key: state.FIFOKey{Entry: p.Key.Entry, Slot: p.Key.Slot, Stream: uint8(p.Key.Stream)},
			FD:  p.FD, PID: p.PID, Incarnation: p.Incarnation, Held: p.Held, Partial: p.Partial,
		})
	}
	for entry, n := range h.Entries {
		out.Entries[entry] = state.OutputCounts(n)
	}
	return out
}

// LoadPipes returns what pkg/logs of the former image handed over, of which
// TakePipes has to be asked before it is used.
func LoadPipes(saved *state.Output) *logs.Handover {
	h := &logs.Handover{
		FIFOs: make([]logs.HandoverFIFO, 0, len(saved.FIFOs)), Entries: make(map[string]logs.Counts, len(saved.Entries)),
		Dropped: saved.Dropped, Out: saved.Out, Err: saved.Err,
	}
	for _, p := range saved.FIFOs {
		h.FIFOs = append(h.FIFOs, logs.HandoverFIFO{
			Key: logs.Key{Entry: p.Key.Entry, Slot: p.Key.Slot, Stream: logs.Stream(p.Key.Stream)},
			FD:  p.FD, PID: p.PID, Incarnation: p.Incarnation, Held: p.Held, Partial: p.Partial,
		})
	}
	for entry, n := range saved.Entries {
		h.Entries[entry] = logs.Counts(n)
	}
	return h
}

// TakePipes leaves in h the descriptors that arrived; the other pipes are opened or
// made anew when they are needed. take gives the descriptor of that name.
func TakePipes(h *logs.Handover, take func(name string) (fd int, ok bool)) {
	for i := range h.FIFOs {
		p := &h.FIFOs[i]
		if fd, ok := take(pipeName(*p)); !ok || fd != p.FD {
			p.FD = -1
		}
	}
}

// resumption is what a former image left that is not taken over yet.
type resumption struct {
	saved   *state.Daemon
	snap    fsm.Snapshot
	applied *config.Config
	slots   []takenSlot
}

// takenSlot is a slot of the former image that holds something.
type takenSlot struct {
	*child
	slot  *fsm.SlotSnapshot
	place spawn.Place
}

// Resume returns a supervisor that knows what a former image knew, and whose
// picture is that image's, so that readers need not wait until its processes are
// taken over. TakeOver does that, before Run. Only a state
// that makes no sense at all is an error.
func Resume(o Options, saved *state.Daemon) (*Supervisor, error) {
	snap, err := loadMachine(&saved.Machine)
	if err != nil {
		return nil, fmt.Errorf("saved state: %w", err)
	}
	m, err := fsm.Restore(snap)
	if err != nil {
		return nil, fmt.Errorf("saved state: %w", err)
	}
	applied, err := config.Parse(saved.Config, loadSources(saved.Applied))
	if err != nil {
		return nil, fmt.Errorf("saved state: configuration: %w", err)
	}
	s := newSupervisor(o, m)
	r := &resumption{saved: saved, snap: snap, applied: applied}
	s.resumption = r
	d := &s.publisher.daemon
	s.prevReexecAt = state.Time(saved.ReexecedWall)
	d.Reexecs, d.ReexecedAt, d.TakingOver = saved.Reexecs, s.prevReexecAt, true
	s.publisher.version = saved.Version
	s.history.restore(saved.Seq, loadEvents(saved.Events))
	s.loadCounters(&saved.Counters)
	s.descent.load(&saved.Machine)
	s.descent.show(saved.Descendants)
	s.paused = true
	s.config = o.Config
	s.prepare(applied)
	s.recall(r)
	s.publishFirst()
	return s, nil
}

// TakeOver goes on where the former image stopped. Call it once after Resume, before
// Run and in the same goroutine; commands wait until Run. files are the descriptors handed over,
// by name; those that are left in it are the caller's. missing says what Options.Missing
// did not tell yet, and may take a while. What cannot be taken over is said and, as far as a process is
// concerned, counted as an end of unknown status.
func (s *Supervisor) TakeOver(files map[string]int, missing func() []string) {
	r := s.resumption
	s.resumption = nil
	d := &s.publisher.daemon
	now := s.Clock.Wall()
	d.Reexecs, d.ReexecedAt, d.TakingOver = r.saved.Reexecs+1, &now, false
	s.counts.reexec(resultOK)

	s.adopt(r, files)
	d.Missing = append(slices.Clone(d.Missing), missing()...)
	s.adoptSockets(r.saved.Sockets, files)
	s.prepare(s.config)
	s.publisher.redescribe()
	s.retainSockets()
	restart := make(map[string]bool)
	for _, c := range config.Compare(r.applied, s.config).Entries {
		restart[c.Name] = c.Action == config.Restart
		if slices.Contains(c.Keys, "resources") {
			s.relimit(c.Name)
		}
	}
	s.step(fsm.Configure{Entries: machineEntries(s.config), Restart: restart})
	s.paused = false
	s.reissue(pendingStarts(r.snap))
	s.keepAll(&r.snap)
	s.tellDaemon(view.EventReloaded, "")
	s.significant = true
	s.publish()
}

// CheckedConfig returns the configuration that was checked before the re-exec,
// and that Resume is to go on with.
func CheckedConfig(saved *state.Daemon) (*config.Config, error) {
	return config.Parse(saved.Config, loadSources(saved.Checked))
}

// CheckState reports whether Resume could go on with a state, for a preflight.
func CheckState(saved *state.Daemon) error {
	if err := checkMachine(&saved.Machine); err != nil {
		return err
	}
	for _, sources := range [][]state.Source{saved.Applied, saved.Checked} {
		if _, err := config.Parse(saved.Config, loadSources(sources)); err != nil {
			return err
		}
	}
	return nil
}

func checkMachine(saved *state.Machine) error {
	snap, err := loadMachine(saved)
	if err != nil {
		return err
	}
	_, err = fsm.Restore(snap)
	return err
}

// recall makes the processes of the former image known. They are not watched yet.
func (s *Supervisor) recall(r *resumption) {
	n := 0
	for i := range r.snap.Entries {
		n += len(r.snap.Entries[i].Slots)
	}
	// Room that is made at once: maps that grow are what this takes longest for.
	s.children, s.tokens = make(map[spawn.Token]*child, n), make(map[fsm.ID]spawn.Token, n)
	s.descent.expect(n)
	s.Witness.expect(n)
	r.slots = make([]takenSlot, 0, n)
	for i := range r.snap.Entries {
		e := &r.snap.Entries[i]
		saved := r.saved.Machine.Entries[i].Slots // that this was made of, in the same order
		for j := range e.Slots {
			slot := &e.Slots[j]
			if !slot.Live && !slot.Tree {
				continue
			}
			id := fsm.ID{Entry: e.Name, Slot: slot.Slot, Incarnation: slot.Incarnation}
			place := s.savedPlace(r.saved, id, &saved[j])
			c := s.takeOver(id, slot, place)
			c.survivor, c.cgroup = saved[j].Survivor, place.Cgroup
			r.slots = append(r.slots, takenSlot{c, slot, place})
		}
	}
}

// adopt has the processes of the former image watched: they are our children
// still.
func (s *Supervisor) adopt(r *resumption, files map[string]int) {
	list := make([]spawn.Child, 0, len(r.slots))
	taken := make([]takenSlot, 0, len(r.slots))
	for _, t := range r.slots {
		fd, ok := files[pidfdName(t.id)]
		if ok {
			s.identify(t.child, fd)
		}
		switch {
		case !ok && t.slot.Live:
			s.lose(t.child, t.slot, fmt.Errorf("its pidfd was not handed over"))
			continue
		case !ok:
			fd = -1
		}
		list = append(list, spawn.Child{Token: t.token, PID: t.pid, PidFD: fd, Reaped: !t.slot.Live, Survivor: t.slot.Live || t.survivor, Place: t.place})
		taken = append(taken, t)
	}
	for i, err := range s.Processes.Adopt(list) {
		t := taken[i]
		if err != nil {
			s.lose(t.child, t.slot, err)
			continue
		}
		delete(files, pidfdName(t.id))
	}
	s.attendAll()
}

// takeOver makes a process of the former image known. It is not our child if it
// took over from one that was.
func (s *Supervisor) takeOver(id fsm.ID, slot *fsm.SlotSnapshot, place spawn.Place) *child {
	s.lastToken++
	c := &child{id: id, token: s.lastToken, pid: slot.PID, ended: !slot.Live, startedAt: slot.StartedAt}
	if c.ended && slot.Last != nil {
		c.pid = slot.Last.PID
	}
	s.children[c.token] = c
	s.tokens[id] = c.token
	s.begin(c)
	if slot.Live {
		s.Witness.track(c.pid, c.token, c.startedAt)
	}
	at := slot.StartedAt
	if slot.Live {
		at = s.Clock.Now() // it may have taken over long after that
	}
	s.descendIn(c, at, place.Cgroup)
	return c
}

// pendingStarts lists what was asked for when a snapshot was taken.
func pendingStarts(snap fsm.Snapshot) (ids []fsm.ID) {
	for i := range snap.Entries {
		e := &snap.Entries[i]
		for j := range e.Slots {
			if slot := &e.Slots[j]; slot.Pending {
				ids = append(ids, fsm.ID{Entry: e.Name, Slot: slot.Slot, Incarnation: slot.Incarnation})
			}
		}
	}
	return ids
}

// lose gives up a process that could not be taken over. How it ends, if it
// lives, is not for us to know any more.
func (s *Supervisor) lose(c *child, slot *fsm.SlotSnapshot, err error) {
	s.Log.Error("a process could not be taken over", "entry", c.id.Entry, "slot", c.id.Slot,
		"incarnation", c.id.Incarnation, "pid", slot.PID, "error", err)
	s.counts.failure("adopt")
	s.forget(c.token)
	now := s.Clock.Now()
	if !slot.Live && !slot.Pending {
		s.local = append(s.local, fsm.TreeEmpty{ID: c.id, At: now})
		return
	}
	s.local = append(s.local, fsm.Exited{
		ID: c.id, At: now, Wall: s.Clock.Wall().UnixNano(),
		Status: fsm.Status{Reason: fsm.ReasonUnknown}, Why: whyNotOurs, TreeEmpty: true,
	})
}

// PreviousReexec is when the daemon was last re-exec'd before this image began,
// or nil.
func (s *Supervisor) PreviousReexec() *time.Time { return s.prevReexecAt }

func saveSources(sources []config.Source) []state.Source {
	out := make([]state.Source, 0, len(sources))
	for _, src := range sources {
		out = append(out, state.Source{Path: src.Path, Data: src.Data})
	}
	return out
}

func loadSources(sources []state.Source) []config.Source {
	out := make([]config.Source, 0, len(sources))
	for _, src := range sources {
		out = append(out, config.Source{Path: src.Path, Data: src.Data})
	}
	return out
}
