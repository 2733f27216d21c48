package fsm

// Event is something that happened or was asked for. The types below are all
// there are.
type Event interface{ event() }

// Tick says that time has passed. It is due at NextDeadline.
type Tick struct{}

// Spawned says that an asked-for start succeeded.
type Spawned struct {
	ID   ID
	PID  int
	At   Instant
	Wall int64 // nanoseconds since the epoch
}

// SpawnFailed says that an asked-for start failed.
type SpawnFailed struct {
	ID      ID
	At      Instant
	Wall    int64
	Errno   string // the errno's name, e.g. ENOENT
	Message string // operation, path and errno, for people
}

// SpawnLost says that nobody can know what became of an asked-for start, nor
// ever will: it counts as a start and as an end of unknown status.
type SpawnLost struct {
	ID   ID
	At   Instant
	Wall int64
	Why  string // nobody can know, for people
}

// Withdrawn says that a start that was asked for will not be made, since nobody wants it any more.
type Withdrawn struct{ ID ID }

// Exited says that a main process ended. TreeEmpty is whether nothing of its
// tree is left; if not, a TreeEmpty event follows when that is so.
type Exited struct {
	ID        ID
	At        Instant
	Wall      int64
	Status    Status
	Why       string // nobody knows how, if the Status is ReasonUnknown; for people
	TreeEmpty bool
	OOMKills  uint64 // processes of its tree that the kernel killed for lack of memory
	Members   []int  // what is left, as far as known; for people
	// Successor is the pid of a process of the tree that runs the same program
	// as the main process did, 0 without one. If the entry is for that, it
	// becomes the main process and nothing has ended: HandedOver answers.
	Successor int
}

// DescendantCrashed says that a descendant of a main process was ended by a
// signal, or exited with another code than 0.
type DescendantCrashed struct {
	ID ID
	At Instant
}

// TreeEmpty says that nothing is left of an ended main process's tree.
type TreeEmpty struct {
	ID ID
	At Instant
}

// Stragglers says who lives of a tree that a signal was sent to.
type Stragglers struct {
	ID      ID
	Members []int // as far as known; for people
}

// Configure replaces the configuration. Entries in Restart are restarted, one
// slot at a time; everything else that differs is changed in place.
type Configure struct {
	Entries []Entry
	Restart map[string]bool
}

// Start asks for an entry or a slot to be up.
type Start struct {
	Entry string
	Slot  int // or AllSlots
}

// Stop asks for an entry or a slot to be down, until a Start or Restart.
type Stop struct {
	Entry string
	Slot  int
}

// Restart asks for an entry's slots, Batch at a time, or one slot to be
// replaced. Batch 0 is all at once.
type Restart struct {
	Entry string
	Slot  int
	Batch int
}

// Scale asks for another number of slots.
type Scale struct {
	Entry string
	Count int
}

// Signal asks for a signal to the main processes.
type Signal struct {
	Entry  string
	Slot   int
	Signal int
}

// Told says that the signal of a Send with Wake has been sent.
type Told struct{ ID ID }

// Retell says that who carried actions out has died, and may not have come to all of them:
// who was to end and was not told is told, and has the whole of its timeout from now on.
type Retell struct{}

// Shutdown asks for everything to be stopped for good.
type Shutdown struct{}

// KillAll sends SIGKILL to all that a Shutdown is still waiting for, starts
// under way included once they are there. Without a Shutdown it does nothing.
type KillAll struct{}

// Reissue says that no start that was asked for has happened or ever will: each
// that is still wanted is asked for again, under the present configuration.
type Reissue struct{}

func (Tick) event()              {}
func (Reissue) event()           {}
func (Withdrawn) event()         {}
func (Told) event()              {}
func (Retell) event()            {}
func (Spawned) event()           {}
func (SpawnFailed) event()       {}
func (SpawnLost) event()         {}
func (Exited) event()            {}
func (TreeEmpty) event()         {}
func (Stragglers) event()        {}
func (DescendantCrashed) event() {}
func (Configure) event()         {}
func (Start) event()             {}
func (Stop) event()              {}
func (Restart) event()           {}
func (Scale) event()             {}
func (Signal) event()            {}
func (Shutdown) event()          {}
func (KillAll) event()           {}
