package procevents

import (
	"bytes"
	"fmt"
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Kind says what happened. The values are dense, so that an array indexed by
// Kind, of length [Kinds], can count events.
type Kind uint8

// The kinds of events.
const (
	Unknown  Kind = iota // a kind that this package does not know; see Event.What
	Ack                  // the answer to somebody's request to listen or to stop
	Fork                 // a process or thread was made
	Exec                 // execve(2) succeeded
	UID                  // real or effective user changed
	GID                  // real or effective group changed
	SID                  // the process leads a new session, setsid(2)
	Ptrace               // a tracer attached or detached
	Comm                 // a thread was renamed: prctl(PR_SET_NAME), /proc/PID/comm
	Coredump             // a core dump begins
	Exit                 // a task ended
	Kinds    int  = iota // the number of kinds
)

var kindNames = [Kinds]string{"unknown", "ack", "fork", "exec", "uid", "gid", "sid", "ptrace", "comm", "coredump", "exit"}

// String returns the kind's name in lower case, such as "fork".
func (k Kind) String() string {
	if int(k) < Kinds {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Event is one message of the connector. It is a plain value; fields that do
// not apply to the kind are zero.
//
// PID and TGID are named as in the kernel: TGID is what user space calls the
// process id, and PID is that of the thread, the same for the first one. All
// ids are those of the initial namespaces.
type Event struct {
	Kind Kind
	What uint32 // the kernel's PROC_EVENT_ value, of use with Unknown
	CPU  uint32 // where it happened, or an Ack's request was made
	Seq  uint32 // counts the messages of that CPU, those hidden by a filter and Acks too

	// Timestamp is when it happened, on CLOCK_MONOTONIC.
	Timestamp time.Duration

	// PID and TGID are the subject: in a Fork the child, in a Ptrace the traced.
	PID, TGID int32
	// ParentPID and ParentTGID are set in Fork, and in Exit and Coredump unless
	// the kernel had lost them already.
	ParentPID, ParentTGID int32

	// RealID and EffectiveID are the new ids in UID and GID.
	RealID, EffectiveID uint32

	// TracerPID and TracerTGID are set in a Ptrace that attaches and zero in
	// one that detaches.
	TracerPID, TracerTGID int32

	// ExitCode is the raw wait status of an Exit; see ExitStatus.
	ExitCode uint32
	// ExitSignal is the signal that the parent of an ended process gets, as a
	// rule SIGCHLD, and -1 for a thread.
	ExitSignal int32

	// AckErrno is zero in an Ack that grants, else why the request was refused.
	AckErrno uint32

	// Comm is the new name in a Comm, padded with NUL; see Name.
	Comm [16]byte
}

// IsThread reports whether the subject is a thread other than its process's
// first. Most readers are interested in processes only.
func (e *Event) IsThread() bool { return e.PID != e.TGID }

// ExitStatus returns the task's wait status of an Exit: its exit code, or the
// signal that ended it and whether the kernel dumped core. It is what wait4(2)
// would report if the process had this one thread.
func (e *Event) ExitStatus() syscall.WaitStatus { return syscall.WaitStatus(e.ExitCode) }

// Name returns the new name in a Comm. It is up to 15 bytes of anything but
// NUL: not necessarily UTF-8, and not to be trusted on a terminal.
func (e *Event) Name() string {
	name, _, _ := bytes.Cut(e.Comm[:], []byte{0})
	return string(name)
}

// String returns one line for people: time, kind and what else the kind has.
// Names in it are quoted.
func (e Event) String() string {
	s := fmt.Sprintf("%.6f %s", e.Timestamp.Seconds(), e.Kind)
	if e.Kind != Ack && e.Kind != Unknown {
		s += fmt.Sprintf(" %d", e.TGID)
		if e.IsThread() {
			s += fmt.Sprintf(" thread %d", e.PID)
		}
	}
	switch e.Kind {
	case Unknown:
		s += fmt.Sprintf(" %#x", e.What)
	case Ack:
		if e.AckErrno != 0 {
			s += " " + syscall.Errno(e.AckErrno).Error()
		}
	case Fork, Coredump:
		s += fmt.Sprintf(" parent %d", e.ParentTGID)
	case UID, GID:
		s += fmt.Sprintf(" real %d effective %d", e.RealID, e.EffectiveID)
	case Ptrace:
		if e.TracerTGID == 0 {
			s += " detached"
		} else {
			s += fmt.Sprintf(" tracer %d", e.TracerTGID)
		}
	case Comm:
		s += fmt.Sprintf(" %q", e.Name())
	case Exit:
		s += fmt.Sprintf(" parent %d %s", e.ParentTGID, statusText(e.ExitStatus()))
	}
	return s
}

func statusText(ws syscall.WaitStatus) string {
	switch {
	case ws.Exited():
		return fmt.Sprintf("code %d", ws.ExitStatus())
	case ws.Signaled():
		name := unix.SignalName(ws.Signal())
		if name == "" {
			name = fmt.Sprintf("signal %d", int(ws.Signal()))
		}
		if ws.CoreDump() {
			name += " core"
		}
		return name
	}
	return fmt.Sprintf("status %#x", uint32(ws))
}

// timestamp clamps what no clock shows, so that a hostile message cannot give a
// time before the boot.
func timestamp(ns uint64) time.Duration {
	return time.Duration(min(ns, math.MaxInt64))
}
