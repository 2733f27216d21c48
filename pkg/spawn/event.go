package spawn

import (
	"fmt"
	"syscall"
	"time"
)

// Kind says what an Event reports.
type Kind uint8

const (
	// Started: the child runs its program. Event.PID is set.
	Started Kind = iota + 1
	// StartFailed: there is no child. Event.Err says why; nothing more comes
	// for this token.
	StartFailed
	// Exited: the main process ended and was reaped. Event.PID, Status and
	// TreeEmpty are set; with TreeEmpty nothing more comes for this token.
	Exited
	// TreeEmpty: the last process of the tree of the child is gone. It follows
	// an Exited that had TreeEmpty == false, and is the last event for this token.
	TreeEmpty
	// TreeSignaled: what Pool.SignalTree was asked for has been done. Event.Signal,
	// Members and SignalErr are set.
	TreeSignaled
	// LimitFailed: what Pool.SetLimits was asked for could not be done. Event.Err says why.
	LimitFailed
)

// String returns the name of the constant.
func (k Kind) String() string {
	switch k {
	case Started:
		return "Started"
	case StartFailed:
		return "StartFailed"
	case Exited:
		return "Exited"
	case TreeEmpty:
		return "TreeEmpty"
	case TreeSignaled:
		return "TreeSignaled"
	case LimitFailed:
		return "LimitFailed"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Event reports what became of one start.
type Event struct {
	Kind  Kind
	Token Token
	PID   int
	// At is when the Pool saw it, on CLOCK_MONOTONIC.
	At time.Duration
	// Wall is the same moment in nanoseconds since the Unix epoch.
	Wall int64

	Err      *StartError // StartFailed and LimitFailed only
	Identity *Identity   // Started only, with Options.Identify; nil if there is none
	Cgroup   string      // Started only: the one that the child was started in, see Place; "" if none
	Status   Status      // Exited only

	// OOMKills is how many processes of the tree the kernel killed for lack of
	// memory while the main process lived, in an Exited of a child with
	// Place.Settings, as far as the cgroup has a memory controller.
	OOMKills uint64
	// TreeEmpty: nothing was left of the child's tree when the child was reaped.
	TreeEmpty bool
	// Members are living processes of the tree, at most MaxMembers: after an
	// exit those that are left, with TreeSignaled those that were there before the signal.
	Members []Member

	Signal    int   // TreeSignaled only: the number of the signal
	SignalErr error // TreeSignaled only: why something of the tree did not get it, or nil
}

// Member is a process of a tree. Its pid is good for a message, not for a signal.
type Member struct {
	PID     int
	Command string // the name that the kernel has of it, proc_pid_comm(5)
}

// MaxMembers is the most processes that Event.Members names.
const MaxMembers = 32

// Status is how a process ended.
type Status struct {
	// Known is false if nobody can know how it ended; then all else is zero.
	Known bool
	// Code is the exit code, 0 if a signal ended the process.
	Code int
	// Signal is the number of the signal that ended the process, or 0.
	Signal int
	// Core: a core dump was made (or piped to a handler).
	Core bool
	// NoUsage: how it ended is known, what it used up is not; the rest is zero.
	NoUsage bool
	// UserTime and SystemTime are the CPU time of the process and of those of
	// its descendants that were waited for.
	UserTime, SystemTime time.Duration
	// MaxRSS is the largest resident set, in bytes, of the process or of one of
	// those descendants, or 0 if that is not known: Linux counts the image
	// before execve(2) in, which is the caller's, and so tells nothing of a
	// process that stayed below that.
	MaxRSS int64
}

// StartError says which step of a start failed, on what.
type StartError struct {
	// Op is the step: "lookup" (in PATH), "open" (a Stdio, or something that
	// exec needs), "chdir", "clone", "setsid", "dup", "exec", … New steps may be added.
	Op string
	// Path is what the step was about; "" where there is no such thing.
	Path string
	// Errno is what the kernel said. ETIMEDOUT: the file system did not answer
	// within Options.TouchTimeout.
	Errno syscall.Errno
}

// Error returns "OP PATH: ERRNO", for example
// "exec /usr/bin/nope: no such file or directory".
func (e *StartError) Error() string {
	if e.Path == "" {
		return e.Op + ": " + e.Errno.Error()
	}
	return e.Op + " " + e.Path + ": " + e.Errno.Error()
}

// Unwrap returns the errno, for errors.Is.
func (e *StartError) Unwrap() error { return e.Errno }
