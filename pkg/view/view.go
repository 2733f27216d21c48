// Package view is the published picture of sentryd: what the HTTP API sends,
// what the metrics show and what `sentryd status` prints.
//
// It holds types only and imports nothing of sentryd. The supervisor builds a
// new State whenever something changes and publishes it through an atomic
// pointer; from that moment on nobody writes to it. Readers may therefore
// share a *State, and everything reachable from it, between goroutines without
// a lock, and must not modify any of it.
//
// The JSON form of these types is the wire format of GET /v1/state: fields get
// added, never removed or renamed. Fields tagged `json:"-"` are counters that
// only the metrics show.
package view

import (
	"fmt"
	"time"
)

// State is everything sentryd knows, at one version.
type State struct {
	// Version rises by at least one with every change of a state, count, pid,
	// readiness or last exit, and never falls while the daemon lives, across
	// re-execs included.
	Version uint64   `json:"version"`
	Daemon  Daemon   `json:"daemon"`
	Entries []*Entry `json:"entries"` // sorted by name
}

// Entry returns the entry of that name, or nil.
func (s *State) Entry(name string) *Entry {
	for _, e := range s.Entries {
		if e.Name == name {
			return e
		}
	}
	return nil
}

// Daemon describes sentryd itself.
type Daemon struct {
	Name          string        `json:"name"`
	PID           int           `json:"pid"`
	Config        string        `json:"config"` // absolute path of the configuration file
	StartedAt     time.Time     `json:"started_at"`
	Reexecs       uint64        `json:"reexecs"`
	ReexecedAt    *time.Time    `json:"reexeced_at"` // nil before the first re-exec
	Version       string        `json:"version"`     // of the program
	Stopping      bool          `json:"stopping"`
	ProcConnector ProcConnector `json:"proc_connector"`
	Containment   string        `json:"containment"` // Cgroup2, Lineage or NoContainment
	Listeners     []Listener    `json:"listeners"`
	LastReload    Reload        `json:"last_reload"`
	// Missing lists, in whole sentences, what this host or user cannot do and
	// what follows from it. Empty on a host where everything works.
	Missing []string `json:"missing"`

	// TakingOver: this is the picture of the image before a re-exec. Its processes
	// are about to be taken over, and then the new configuration is applied.
	TakingOver bool `json:"-"`

	ReexecResults     []LabelCount `json:"-"` // by result: "ok", "failed"
	ProcEvents        []LabelCount `json:"-"` // by kind of event
	ProcEventsLost    uint64       `json:"-"` // events that were dropped before they arrived
	ProcResyncs       uint64       `json:"-"` // re-reads of everything after a loss
	ExitDetection     Histogram    `json:"-"` // seconds from the kernel's exit timestamp to our handling it
	AdoptedProcesses  uint64       `json:"-"`
	EventQueueLength  int          `json:"-"` // events drained in the last batch
	IgnoredEvents     uint64       `json:"-"` // events about an incarnation that is no more
	OutputDropped     uint64       `json:"-"` // lines dropped because sentryd's own output was stuck or closed
	UnhandledFailures []LabelCount `json:"-"` // by operation: system calls at the edge that failed and were survived
}

// ProcConnector says whether the kernel's proc connector is heard.
type ProcConnector struct {
	Up     bool   `json:"up"`
	Reason string `json:"reason"` // empty when up; else a reason a person can act on
}

// Values of Daemon.Containment: how what descends from a process is known.
const (
	Cgroup2       = "cgroup2" // by its cgroup, exactly
	Lineage       = "lineage" // by descent, as far as /proc shows it
	NoContainment = "none"    // by the process group at most
)

// Listener is one address the HTTP API is meant to listen on.
type Listener struct {
	Address string `json:"address"` // as bound, or as configured while it is not
	Up      bool   `json:"up"`
	Error   string `json:"error"`
}

// Reload is the outcome of the last attempt to load a configuration, the one
// at start included.
type Reload struct {
	At        time.Time  `json:"at"`
	OK        bool       `json:"ok"`
	Error     string     `json:"error"`
	SuccessAt *time.Time `json:"success_at"`
}

// States of a slot and, aggregated, of an entry.
const (
	Stopped  = "stopped"
	Starting = "starting"
	Running  = "running"
	Stopping = "stopping"
	Backoff  = "backoff"
	Exited   = "exited"
	Failed   = "failed"
)

// Entry is a named program specification and what became of it.
type Entry struct {
	Name    string   `json:"name"`
	Command []string `json:"command"` // as configured, before expansion of $(VAR)
	DelayMS int64    `json:"delay_ms"`
	Count   int      `json:"count"` // the number of slots now wanted
	// State is the first of failed, backoff, stopping, starting, running,
	// exited, stopped that any slot has; stopped when there is none.
	State       string     `json:"state"`
	Running     int        `json:"running"` // slots in state running
	Ready       int        `json:"ready"`
	Starts      uint64     `json:"starts"`
	Exits       uint64     `json:"exits"`
	Descendants int        `json:"descendants"`
	Processes   []*Process `json:"processes"` // one a slot, sorted by slot

	Desired        int          `json:"-"` // slots that ought to run now
	States         []LabelCount `json:"-"` // slots by state, all seven
	ExitCounts     []ExitCount  `json:"-"`
	StartFailures  []LabelCount `json:"-"` // by errno name, e.g. ENOENT
	Uptime         Histogram    `json:"-"` // seconds, of ended incarnations
	RestartLatency Histogram    `json:"-"` // seconds from exit to next start, less the configured delay
	EndedCPU       CPU          `json:"-"` // of ended incarnations
	OOMKills       uint64       `json:"-"` // processes killed for lack of memory, by the limits of the entry
	// Of the descendants of the main processes, as far as it was heard.
	Forks, Execs    uint64       `json:"-"` // execs of the main processes included
	Coredumps       uint64       `json:"-"`
	DescendantExits []LabelCount `json:"-"` // by reason
	LogLines        uint64       `json:"-"`
	LogBytes        uint64       `json:"-"`
}

// Process is one slot of an entry and the process in it, if any.
type Process struct {
	Slot        int    `json:"slot"`
	Incarnation uint64 `json:"incarnation"` // of the last start; 0 before the first
	PID         int    `json:"pid"`         // 0 while there is no process
	State       string `json:"state"`
	Ready       bool   `json:"ready"`
	Adopted     bool   `json:"adopted"`
	// StartedAt is when the present process was started; nil without one.
	StartedAt   *time.Time `json:"started_at"`
	NextStartAt *time.Time `json:"next_start_at"` // nil unless in backoff
	Error       string     `json:"error"`         // why the slot is not as wanted; empty when it is
	WaitingFor  string     `json:"waiting_for"`
	Stragglers  []int      `json:"stragglers"` // pids that outlive the main process and hold up a stop
	LastExit    *Exit      `json:"last_exit"`
}

// Reasons of an Exit.
const (
	ReasonExited      = "exited"
	ReasonSignaled    = "signaled"
	ReasonStartFailed = "start_failed"
	ReasonUnknown     = "unknown"
)

// Exit is how an incarnation ended, or why it could not start.
type Exit struct {
	At          time.Time `json:"at"`
	PID         int       `json:"pid"` // 0 for a start that failed
	Incarnation uint64    `json:"incarnation"`
	Reason      string    `json:"reason"`
	Code        *int      `json:"code"`   // nil unless Reason is exited
	Signal      string    `json:"signal"` // e.g. SIGKILL; empty unless Reason is signaled
	Core        bool      `json:"core"`
	OOM         bool      `json:"oom"`
	// Initiator is who asked for it: process (it ended by itself), scale,
	// command, reload, health, watchdog, shutdown or oom.
	Initiator   string   `json:"initiator"`
	Error       string   `json:"error"` // operation, path and errno of a start that failed; why, if Reason is unknown
	UptimeMS    int64    `json:"uptime_ms"`
	CPUSeconds  *float64 `json:"cpu_seconds"`   // user and system; nil where nobody could know
	MaxRSSBytes *int64   `json:"max_rss_bytes"` // nil where nobody could know
}

// ExitCount counts the exits of an entry that ended in one way.
type ExitCount struct {
	Reason string // exited, signaled or unknown
	Code   string // the decimal exit code, the signal's name, or empty when unknown
	N      uint64
}

// LabelCount is one value of a counter or gauge with one label.
type LabelCount struct {
	Label string
	N     uint64
}

// CPU is processor time in seconds.
type CPU struct {
	User, System float64
}

// Histogram is a set of observations, in seconds.
type Histogram struct {
	Bounds []float64 // upper bounds, ascending, without +Inf; shared, never written
	Counts []uint64  // one for each bound and one for +Inf; not cumulative
	Sum    float64
}

// Diff says what a reload would do, or did.
type Diff struct {
	Changed bool        `json:"changed"` // false when everything is kept
	Daemon  []string    `json:"daemon"`  // daemon-level keys that differ, e.g. http.listen
	Entries []EntryDiff `json:"entries"` // sorted by name
}

// Actions of an EntryDiff.
const (
	ActionKeep    = "keep"
	ActionScale   = "scale"   // only the number of slots changes
	ActionUpdate  = "update"  // changed in place, processes are not touched
	ActionRestart = "restart" // Keys say why
	ActionAdd     = "add"
	ActionRemove  = "remove"
)

// EntryDiff is what a reload does to one entry.
type EntryDiff struct {
	Name   string   `json:"name"`
	Action string   `json:"action"`
	Keys   []string `json:"keys"` // configuration keys that differ
	From   *int     `json:"from"` // for scale: slots before
	To     *int     `json:"to"`   // for scale: slots after
}

// Kinds of an Error.
type ErrorKind int

const (
	// NotFound: no such entry or slot.
	NotFound ErrorKind = iota + 1
	// Invalid: a value out of range.
	Invalid
	// Conflict: not possible in the present state, such as a signal to nothing.
	Conflict
	// Unavailable: the daemon is stopping or re-executing itself.
	Unavailable
	// BadConfig: the configuration or the new binary was refused.
	BadConfig
)

// Error is a command's refusal. Nothing was changed when a command returns one.
type Error struct {
	Kind    ErrorKind
	Message string
}

// Error implements the error interface.
func (e *Error) Error() string { return e.Message }

// Errorf returns an *Error of that kind.
func Errorf(kind ErrorKind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}
