package fsm

import (
	"strconv"
	"time"
)

// Instant is a reading of CLOCK_MONOTONIC. It is the same for all processes of
// a boot and stands still in suspend, as the children do.
type Instant = time.Duration

// AllSlots, in place of a slot number, names every slot of an entry.
const AllSlots = -1

// ID names one incarnation of one slot. A pid is an attribute, never an
// identity.
type ID struct {
	Entry       string
	Slot        int
	Incarnation uint64
}

// String returns "entry:slot#incarnation".
func (id ID) String() string {
	return slotName(id.Entry, id.Slot) + "#" + strconv.FormatUint(id.Incarnation, 10)
}

func slotName(entry string, slot int) string { return entry + ":" + strconv.Itoa(slot) }

// State is the state of a slot.
type State uint8

// The states of a slot.
const (
	Stopped  State = iota // holds nothing
	Starting              // holds a pending start
	Running               // holds a live process
	Stopping              // holds a live process or what is left of its tree, and a deadline
	Backoff               // holds a deadline for the next start
	Finished              // ended, and its restart policy does not start it again
	Failed                // gave up
	numStates
)

var stateNames = [numStates]string{"stopped", "starting", "running", "stopping", "backoff", "exited", "failed"}

// String returns the state's name as the outside knows it.
func (s State) String() string { return stateNames[s] }

// ParseState is the inverse of String.
func ParseState(name string) (State, bool) {
	for i, n := range stateNames {
		if n == name {
			return State(i), true
		}
	}
	return 0, false
}

// RestartPolicy says which ends of a process by itself lead to a restart.
type RestartPolicy uint8

// The restart policies.
const (
	RestartAlways RestartPolicy = iota
	RestartOnFailure
	RestartNever
)

// StopMode says whom a stop signal is sent to. In each mode SIGKILL goes to the
// whole tree, and a slot is stopped when its tree is empty.
type StopMode uint8

// The stop modes. Their numbers are saved.
const (
	StopGroup   StopMode = iota // the process group at once
	StopProcess                 // only the main process; what it leaves when it ends by itself is let go
	StopTree                    // the main process, and when that is gone what is left of its tree
	numStopModes
)

// Entry is what the machine needs to know of an entry's configuration.
type Entry struct {
	Name             string
	Count            int // 0 to MaxCount
	Autostart        bool
	Delay            time.Duration
	MinUptime        time.Duration
	Restart          RestartPolicy
	SuccessExitCodes []int
	StopSignal       int
	StopTimeout      time.Duration
	StopMode         StopMode
	Crashes          CrashLimit
	// Handover: a main process that exits with 0 may be followed by one of its
	// descendants, see Exited.
	Handover bool
}

// CrashLimit is when descendants of a main process crash too often: more than
// Failures times Within. There is none while Within is 0.
type CrashLimit struct {
	Failures int
	Within   time.Duration
	Restart  bool // the slot then; else it is only said
}

// Initiator is who asked for an end.
type Initiator uint8

// The initiators.
const (
	ByProcess Initiator = iota // it ended by itself
	ByScale
	ByCommand
	ByReload
	ByShutdown
	ByHealth
	ByOOM // the kernel, for lack of memory
	numInitiators
)

var initiatorNames = [numInitiators]string{"process", "scale", "command", "reload", "shutdown", "health", "oom"}

// String returns the initiator's name as the outside knows it.
func (i Initiator) String() string { return initiatorNames[i] }

// ParseInitiator is the inverse of String.
func ParseInitiator(name string) (Initiator, bool) {
	for i, n := range initiatorNames {
		if n == name {
			return Initiator(i), true
		}
	}
	return 0, false
}

// Reason is the way in which an incarnation ended.
type Reason uint8

// The reasons.
const (
	ReasonExited Reason = iota
	ReasonSignaled
	ReasonStartFailed
	ReasonUnknown
	numReasons
)

var reasonNames = [numReasons]string{"exited", "signaled", "start_failed", "unknown"}

// String returns the reason's name as the outside knows it.
func (r Reason) String() string { return reasonNames[r] }

// ParseReason is the inverse of String.
func ParseReason(name string) (Reason, bool) {
	for i, n := range reasonNames {
		if n == name {
			return Reason(i), true
		}
	}
	return 0, false
}

// Status is how a process ended, as the kernel told it.
type Status struct {
	Reason    Reason
	Code      int // of ReasonExited
	Signal    int // of ReasonSignaled
	Core      bool
	UsageSet  bool // the three below are known
	User, Sys time.Duration
	MaxRSS    int64 // bytes
	OOM       bool  // the kernel killed it for lack of memory
}

// Exit is the record of an incarnation that ended or could not start.
type Exit struct {
	Status
	At          Instant
	Wall        int64 // nanoseconds since the epoch, for people; decides nothing
	PID         int
	Incarnation uint64
	Initiator   Initiator
	Error       string // of ReasonStartFailed, and why with ReasonUnknown
	Uptime      time.Duration
	Nth         uint64 // which of its entry's exits it is, from 1; 0 if it is none, but a start that failed
}

// failure reports whether the policy counts it as one.
func (e *Entry) failure(x *Exit) bool {
	if x.Reason != ReasonExited || x.Uptime < e.MinUptime {
		return true
	}
	for _, c := range e.SuccessExitCodes {
		if c == x.Code {
			return false
		}
	}
	return true
}

// after says where a slot goes whose main process ended by itself.
func (e *Entry) after(x *Exit) State {
	switch e.Restart {
	case RestartNever:
		return Finished
	case RestartOnFailure:
		if !e.failure(x) {
			return Finished
		}
	}
	return Backoff
}

const (
	minStartRetry = time.Second
	maxStartRetry = time.Minute
)

// startRetry is the wait after the nth start in a row that failed: the delay,
// at least a second, doubling to a minute.
func (e *Entry) startRetry(n int) time.Duration {
	d := max(e.Delay, minStartRetry)
	limit := max(d, maxStartRetry)
	for ; n > 1 && d < limit; n-- {
		d *= 2
	}
	return min(d, limit)
}
