package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// This file finds out what a daemon left that died: which of its processes live,
// by its journal, and by what processes say of themselves where that does not
// tell. What follows from it is in adopt.go.

// Remains are what an earlier daemon left.
type Remains struct {
	// Problem says what is wrong with the journal; nil if nothing is, or there
	// was none.
	Problem error
	// Notes are sentences about what was done about it.
	Notes []string

	saved     *state.Daemon // nil: nothing is known but marks
	marks     state.Marks
	ended     map[fsm.ID]spawn.Status // how processes ended of which the journal has the identity
	known     map[fsm.ID]*remnant     // processes of which the journal has the identity
	marked    map[slotKey]*remnant    // of each slot the one of the highest incarnation, by its environment
	processes map[fsm.ID]state.Process
}

type slotKey struct {
	entry string
	slot  int
}

// remnant is a living process, or a zombie.
type remnant struct {
	id      fsm.ID
	pid     int
	pidfd   int
	cgroup  string
	started fsm.Instant
}

// Search says where to look for what a daemon left.
type Search struct {
	Name    string  // of the daemon
	Cgroups Cgroups // nil: none
	// Output is the directory of the FIFOs that the daemon's processes write to.
	Output string
	// Kept is what a service manager kept. What is used is taken out of it.
	Kept KeptFDs
}

// KeptFDs are descriptors that outlived a daemon: pidfds by their inode, and sockets of
// entries by their cookie.
type KeptFDs struct {
	Pidfds  map[uint64]int
	Sockets map[uint64]int
}

// unexecedPatience is how long a child may take to end that hangs between clone
// and execve.
const unexecedPatience = 2 * time.Second

var markNames = []string{"SENTRYD_NAME", "SENTRYD_ENTRY", "SENTRYD_SLOT", "SENTRYD_INCARNATION"}

// Find looks for what the daemon left that wrote a journal; recovered and problem
// are what reading it gave. The lock of the runtime directory is held, so nobody
// adds to it. With no journal, or one that cannot be used, processes are found by
// their environment alone.
func Find(in Search, recovered *state.Recovered, problem error) *Remains {
	r := &Remains{
		Problem: problem, ended: make(map[fsm.ID]spawn.Status), known: make(map[fsm.ID]*remnant), marked: make(map[slotKey]*remnant),
		processes: make(map[fsm.ID]state.Process),
	}
	if recovered != nil {
		r.marks = recovered.Marks
		r.saved = recovered.Daemon
		if recovered.Head.Format < toldSince {
			takeAsTold(r.saved)
		}
		if problem == nil && !recovered.Report.Complete() {
			r.Problem = fmt.Errorf("journal: %s", recovered.Report.String())
		}
	}
	if r.saved != nil {
		if err := checkMachine(&r.saved.Machine); err != nil {
			r.saved, r.Problem = nil, fmt.Errorf("journal: %w", err)
		}
	}
	args := os.Args
	if r.saved != nil && len(r.saved.Args) > 0 {
		args = r.saved.Args
	}
	if recovered != nil || problem != nil {
		n, err := spawn.EndUnexeced(args, unexecedPatience)
		if err != nil {
			r.note("Children of the dead daemon may hang before their program: %v.", err)
		}
		if n > 0 {
			r.note("Ended %d children of the dead daemon that had not come to their program.", n)
		}
	}
	if r.saved != nil {
		r.open(in.Kept.Pidfds, recovered.Head.BootID, recovered.Processes)
	}
	r.lookAround(in)
	return r
}

// toldSince is the format of the journal from which on a slot that stops says whether its process
// was told.
const toldSince = 3

// takeAsTold takes it for granted: hardly anybody was not, and to some who are told twice that
// means to make haste.
func takeAsTold(d *state.Daemon) {
	if d == nil {
		return
	}
	for i := range d.Machine.Entries {
		slots := d.Machine.Entries[i].Slots
		for j := range slots {
			slots[j].Told = slots[j].State == fsm.Stopping.String()
		}
	}
}

func (r *Remains) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Any reports whether anything lives of what the daemon ran.
func (r *Remains) Any() bool { return len(r.known)+len(r.marked) > 0 }

// None reports whether an earlier daemon left nothing at all to go on from: no
// process, no state, and not even numbers that must not fall.
func (r *Remains) None() bool {
	return !r.Any() && r.saved == nil && r.marks == (state.Marks{})
}

// LastGood returns the configuration that the dead daemon worked by.
func (r *Remains) LastGood() (*config.Config, error) {
	if r.saved == nil {
		return nil, fmt.Errorf("no configuration is known that worked")
	}
	return config.Parse(r.saved.Config, loadSources(r.saved.Applied))
}

// Close lets go of what was found.
func (r *Remains) Close() {
	for _, p := range r.known {
		unix.Close(p.pidfd)
	}
	for _, p := range r.marked {
		unix.Close(p.pidfd)
	}
	r.known, r.marked = nil, nil
}

// open opens the processes that the journal names, as far as they are there.
func (r *Remains) open(kept map[uint64]int, boot string, processes []state.Process) {
	for i := range processes {
		p := &processes[i]
		id := fsm.ID{Entry: p.Entry, Slot: p.Slot, Incarnation: p.Incarnation}
		r.processes[id] = *p
		who := spawn.Identity{BootID: boot, PID: p.PID, Inode: p.Inode, Handle: p.Handle, Start: p.Start}
		fd, ok := kept[p.Inode]
		delete(kept, p.Inode)
		if !ok {
			var err error
			if fd, err = who.Open(func(pid int) bool { return says(pid, id) }); err != nil {
				continue
			}
		}
		if st, ended := spawn.ExitStatus(fd); ended && st.Known {
			r.ended[id] = st
			unix.Close(fd)
			continue
		}
		r.known[id] = &remnant{id: id, pid: p.PID, pidfd: fd, cgroup: p.Cgroup}
	}
}

// says reports whether a process was started as that incarnation.
func says(pid int, id fsm.ID) bool {
	environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	for _, mark := range marks(id) {
		if !slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(kv []byte) bool { return string(kv) == mark }) {
			return false
		}
	}
	return true
}

// lookAround finds processes by what they say of themselves. The name of a daemon
// is not its own: so they must be in one of its cgroups too, or write to one of
// its FIFOs.
func (r *Remains) lookAround(in Search) {
	if in.Cgroups != nil && !holds(in.Cgroups.Dir(), fs.ModeDir) && !holds(in.Output, fs.ModeNamedPipe) {
		return // so there is none, and /proc, which is slow, need not be read
	}
	leaders, err := spawn.FindLeaders("", markNames)
	if err != nil {
		r.note("Processes of the dead daemon were looked for in its journal alone: %v.", err)
		return
	}
	for _, l := range leaders { // the one that began first comes first
		p, ok := leftBy(in, l)
		key := slotKey{p.id.Entry, p.id.Slot}
		old := r.marked[key]
		if !ok || r.known[p.id] != nil || old != nil && old.id.Incarnation >= p.id.Incarnation {
			unix.Close(l.PidFD)
			continue
		}
		if old != nil {
			unix.Close(old.pidfd)
		}
		r.marked[key] = &p
	}
}

// holds reports whether a directory has anything of a type, as far as it can be
// read.
func holds(dir string, of fs.FileMode) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Type() == of })
}

// leftBy reports whether a process was started by a daemon of that runtime
// directory, and as what.
func leftBy(in Search, l spawn.Leader) (p remnant, ok bool) {
	if l.Values[0] != in.Name {
		return p, false
	}
	slot, err1 := strconv.Atoi(l.Values[2])
	incarnation, err2 := strconv.ParseUint(l.Values[3], 10, 64)
	if err1 != nil || err2 != nil || slot < 0 || slot >= fsm.MaxCount || incarnation == 0 || l.Values[1] == "" {
		return p, false
	}
	p = remnant{
		id:  fsm.ID{Entry: l.Values[1], Slot: slot, Incarnation: incarnation},
		pid: l.PID, pidfd: l.PidFD, started: sinceBoot(l.Start),
	}
	if in.Cgroups != nil {
		if name, in2 := cgroupOf(l.PID, in.Cgroups); in2 {
			p.cgroup = in.Cgroups.Path(name)
			base, _, _ := strings.Cut(name, "~")
			return p, base == cgroupName(p.id.Entry, p.id.Slot)
		}
	}
	return p, slices.Contains(spawn.OutputsOf(l.PID), outputOf(in.Output, p.id))
}

// cgroupOf returns the name of the cgroup of a process right below those of the
// daemon.
func cgroupOf(pid int, all Cgroups) (name string, ok bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(text)) {
		path, unified := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		_, below, in := strings.Cut(path+"/", "/"+filepath.Base(all.Dir())+"/")
		if unified && in && below != "" {
			name, _, _ = strings.Cut(below, "/")
			return name, true
		}
	}
	return "", false
}

// unmarked looks in the cgroup of a slot for the process of a start that the
// journal only has the intent of, and that has written over its environment. What
// an earlier incarnation left there began before that had ended.
func unmarked(in Search, id fsm.ID, since fsm.Instant) *remnant {
	if in.Cgroups == nil {
		return nil
	}
	base := in.Cgroups.Path(cgroupName(id.Entry, id.Slot))
	paths, err := filepath.Glob(base + "~*")
	if err != nil {
		paths = nil
	}
	var found *remnant
	for _, path := range append([]string{base}, paths...) {
		leaders, err := spawn.FindLeaders(path, markNames)
		if err != nil {
			continue // there is no such cgroup
		}
		for _, l := range leaders {
			started := sinceBoot(l.Start)
			if found != nil || started+tick < since {
				unix.Close(l.PidFD)
				continue
			}
			found = &remnant{id: id, pid: l.PID, pidfd: l.PidFD, cgroup: path, started: started}
		}
	}
	return found
}

// tick is the unit in which the kernel tells when a process began, USER_HZ: 100 on
// every architecture that Go knows.
const tick = 10 * time.Millisecond

// sinceBoot turns ticks of CLOCK_BOOTTIME into an instant of CLOCK_MONOTONIC.
func sinceBoot(ticks uint64) fsm.Instant {
	var boot, mono unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
		return 0
	}
	return time.Duration(ticks)*tick - time.Duration(boot.Nano()-mono.Nano())
}

// populated reports whether something lives in a cgroup.
func populated(path string) bool {
	text, err := os.ReadFile(path + "/cgroup.events")
	return err == nil && bytes.Contains(text, []byte("populated 1"))
}
