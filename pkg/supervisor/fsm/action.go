package fsm

import "time"

// Action is something for the edge to do. The types below are all there are.
type Action interface{ action() }

// Spawn asks for a process. It is answered by Spawned or SpawnFailed.
type Spawn struct{ ID ID }

// Scope says whom a signal is for.
type Scope uint8

// The scopes.
const (
	ScopeMain  Scope = iota // the main process
	ScopeGroup              // its process group
	ScopeTree               // all that is left of its tree
)

// String names the scope in transcripts.
func (s Scope) String() string { return [...]string{"main", "group", "tree"}[s] }

// Send asks for a signal. Nothing answers it; an exit may follow.
type Send struct {
	ID     ID
	Signal int
	Scope  Scope
	// Wake: this asks for an end. SIGCONT follows: what is stopped by job control would
	// not see it. Told answers.
	Wake bool
}

// Release says that what is left of a tree is nobody's concern any more.
type Release struct{ ID ID }

// Started reports a start, for people.
type Started struct {
	ID   ID
	PID  int
	Wall int64
}

// Ended reports an exit or a failed start, for people. Exit is not written to
// any more.
type Ended struct {
	ID   ID
	Exit *Exit
}

// HandedOver says that another process is the slot's main process now.
type HandedOver struct {
	ID   ID
	From int // the pid of the one that exited
	PID  int
	Wall int64
}

// CrashLoop reports that descendants of a main process crashed too often, for
// people.
type CrashLoop struct {
	ID      ID
	Count   int // of crashes
	Within  time.Duration
	Restart bool // the slot is restarted for it
}

// Entered reports that a slot is in another state, for people.
type Entered struct {
	ID    ID
	State State
	By    Initiator // of Stopping: who asked for it
	Next  Instant   // of Backoff: when the next start is due
}

// Scaled reports that another number of slots is wanted, for people.
type Scaled struct {
	Entry string
	Count int
	By    Initiator
}

// EntryAdded reports a new entry, for people.
type EntryAdded struct{ Entry string }

// EntryGone reports that an entry and the last of its slots are no more, for
// people.
type EntryGone struct{ Entry string }

// SlotGone says that a slot no longer exists.
type SlotGone struct {
	Entry string
	Slot  int
}

// Refused says that the command of this step was refused and nothing changed.
type Refused struct {
	Kind    RefusalKind
	Message string
}

// RefusalKind is why a command was refused.
type RefusalKind uint8

// The kinds of refusal.
const (
	NotFound RefusalKind = iota + 1
	Invalid
	Conflict
	Unavailable
)

// Done says that a Shutdown is complete: nothing runs and nothing is pending.
type Done struct{}

func (Spawn) action()      {}
func (Send) action()       {}
func (Release) action()    {}
func (Started) action()    {}
func (Ended) action()      {}
func (HandedOver) action() {}
func (CrashLoop) action()  {}
func (Entered) action()    {}
func (Scaled) action()     {}
func (EntryAdded) action() {}
func (EntryGone) action()  {}
func (SlotGone) action()   {}
func (Refused) action()    {}
func (Done) action()       {}
