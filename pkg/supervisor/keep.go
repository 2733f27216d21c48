package supervisor

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/logs"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// This file has a service manager keep descriptors while no daemon is there: pidfds,
// so that the end of a process is known that came meanwhile; FIFOs, so that what
// was written into one outlives who wrote it; and the sockets of entries.

// Keeper is what the supervisor needs of pkg/fdstore.
type Keeper interface {
	// Keep has a descriptor kept, unless it is, and returns its name.
	Keep(fd int) (name string)
	// Forget has it kept no more.
	Forget(name string)
	// Names lists what is kept, for the next image.
	Names() []string
}

// keptNames are the names of what is kept.
type keptNames struct {
	pipes   map[logs.Key]string
	sockets []string
}

// keepChild has a process kept that has just started.
func (s *Supervisor) keepChild(c *child) {
	if s.Keeper == nil || c.identity == nil || c.identity.Inode == 0 {
		return
	}
	fd, err := c.identity.Open(nil)
	if err != nil {
		return // it has ended, which pkg/spawn will tell
	}
	c.kept = s.Keeper.Keep(fd)
	unix.Close(fd)
}

// keepPipe has the FIFO of a slot kept.
func (s *Supervisor) keepPipe(k logs.Key) {
	if s.Keeper == nil || s.keptNames.pipes[k] != "" {
		return
	}
	fd, err := unix.Open(s.Output.Path(k), unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return // pkg/logs says so
	}
	defer unix.Close(fd)
	if s.keptNames.pipes == nil {
		s.keptNames.pipes = make(map[logs.Key]string)
	}
	s.keptNames.pipes[k] = s.Keeper.Keep(fd)
}

func (s *Supervisor) forgetPipe(k logs.Key) {
	if name := s.keptNames.pipes[k]; name != "" {
		s.Keeper.Forget(name)
		delete(s.keptNames.pipes, k)
	}
}

// keepSockets has the sockets of entries kept that are open, and no others.
func (s *Supervisor) keepSockets() {
	if s.Keeper == nil {
		return
	}
	var names []string
	for _, r := range s.Sockets.Records() {
		names = append(names, s.Keeper.Keep(r.FD))
	}
	for _, name := range s.keptNames.sockets {
		if !slices.Contains(names, name) {
			s.Keeper.Forget(name)
		}
	}
	s.keptNames.sockets = names
}

// keepAll has everything kept that was taken over.
func (s *Supervisor) keepAll(snap *fsm.Snapshot) {
	if s.Keeper == nil {
		return
	}
	for _, c := range s.Processes.Children() {
		if known := s.children[c.Token]; known != nil && c.PidFD >= 0 {
			known.kept = s.Keeper.Keep(c.PidFD)
		}
	}
	for i := range snap.Entries {
		for j := range snap.Entries[i].Slots {
			if slot := &snap.Entries[i].Slots[j]; slot.Incarnation > 0 {
				s.keepPipe(logs.Key{Entry: snap.Entries[i].Name, Slot: slot.Slot})
			}
		}
	}
	s.keepSockets()
}

// keptMissing is what follows when the service manager keeps less than it should.
const keptMissing = "The service manager does not keep every descriptor: how a process ends while no daemon runs may stay unknown, and what it wrote last be lost."

// NotKept says that something could not be kept.
func (s *Supervisor) NotKept(err error) {
	s.counts.failure("fdstore")
	s.Log.Warn("the service manager does not keep every descriptor; supervision goes on", "error", err)
	s.ask(context.Background(), func() {
		if d := &s.publisher.daemon; !slices.Contains(d.Missing, keptMissing) {
			d.Missing = append(slices.Clone(d.Missing), keptMissing)
			s.significant = true
		}
	})
}
