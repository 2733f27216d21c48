package lineage

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one member.
type process[K comparable] struct {
	pid  int32
	root *root[K]

	// Its fork was not before from and not after until. They are equal once the
	// Fork itself was heard; before that they are what a listing or Add told.
	from, until time.Duration
	ticks       uint64 // start time as a listing had it, 0 before

	// parent forked it; nil when that is not known, and of no use when it ended.
	parent     *process[K]
	prev, next *process[K] // the root's other members

	sid     int32 // its session, when a member of the root made that; else 0
	sidAt   time.Duration
	comm    string
	execed  bool
	ended   bool
	free    time.Duration // while Exits are owed: its pid was not its own after that
	wasMain bool          // it ended as the main process
	looking uint64        // generation of the look that was asked for, 0: none
	waiting bool          // for that look to be handed out
	// About an Exit of the leader, see owed.go.
	orphaned bool // the one that was heard had no parent
	doubted  bool // and may have been an earlier process's
	mixed    bool // one that may have been its own was taken for an earlier process's
	unsure   bool // so the status that was heard may be another's

	// threads are the live tasks besides the leader, as far as heard of; counted
	// says that there are no others.
	threads    map[int32]struct{}
	counted    bool
	leaderGone bool
	leaderFrom time.Duration // at that moment there was a leader: it executed, or was listed
	leaderAt   time.Duration // its Exit, 0 if that was not heard
	leaderCode uint32
	lastAt     time.Duration // the latest Exit of a task, 0 if none was heard
	lastCode   uint32
	coredump   bool
}

// root is one program.
type root[K comparable] struct {
	key     K
	pid     int32         // of the main process, which led the session of this number
	at      time.Duration // at that moment it was the main process's
	begun   bool          // its main process was found, or is known to be gone
	leads   bool          // it has led a session, as it is known to
	main    *process[K]   // nil before that, and after its end
	members *process[K]   // the newest, the main process included
	counts  Counts
}

// started is the best that is known of the moment of its fork.
func (p *process[K]) started() time.Duration {
	if p.from == 0 {
		return p.until
	}
	return p.from
}

// status is the wait status that the events tell.
func (p *process[K]) status() uint32 {
	if p.leaderCode != 0 {
		return p.leaderCode
	}
	return p.lastCode
}

// Reason classes how a descendant ended.
type Reason uint8

// The reasons.
const (
	Unknown  Reason = iota // only that it is gone is known: its Exit was not heard, or may be another's
	Success                // exit code 0
	Failure                // another exit code
	Signaled               // a signal
	Reasons  int    = iota // the number of reasons
)

var reasonNames = [Reasons]string{"unknown", "success", "failure", "signaled"}

// String returns the reason in lower case, such as "signaled".
func (r Reason) String() string {
	if int(r) < Reasons {
		return reasonNames[r]
	}
	return "unknown"
}

func reasonOf(ws syscall.WaitStatus) Reason {
	switch {
	case ws.Signaled():
		return Signaled
	case ws.ExitStatus() != 0:
		return Failure
	}
	return Success
}

// Counts are a root's counters since its Add, and the number of descendants
// that live. The counters never fall. While nothing was lost, Forks + Found
// is Descendants + the sum of Exits, but for the moment in which an Exit of a
// process whose pid was reused is still on its way, and for [Tracker.Promote].
type Counts struct {
	Descendants int // living members but for the main process

	Forks     uint64          // descendants whose fork was heard
	Found     uint64          // descendants that a listing told of first
	Execs     uint64          // successful execve(2) in members, the main process included
	Exits     [Reasons]uint64 // ends of descendants, by Reason
	Coredumps uint64          // core dumps of members, the main process included
}

// Exited returns the sum of Exits.
func (c Counts) Exited() (n uint64) {
	for _, x := range c.Exits {
		n += x
	}
	return n
}

// Crash tells of a descendant that a signal ended, or that exited with a code
// other than 0.
type Crash[K comparable] struct {
	Key     K
	PID     int32
	Started time.Duration // its fork, on CLOCK_MONOTONIC
	At      time.Duration // the Exit event of its last task, on CLOCK_MONOTONIC
	Status  syscall.WaitStatus
	// Execed: it ran a program of its own. Without it this may be an execve
	// that failed, and the process still had its parent's name.
	Execed bool
	// Comm is its name as far as known, "" if not: the events tell it only when
	// a program sets it. Up to 15 bytes of anything but NUL, not to be trusted.
	Comm string
	// Coredump: a core dump was begun.
	Coredump bool
}

// commOf cuts a name at its padding.
func commOf(b []byte) string { return unix.ByteSliceToString(b) }
