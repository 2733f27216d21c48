package view

import "time"

// Event is something that happened to a slot, an entry or the daemon.
type Event struct {
	// Seq rises by one with each event, and never falls while the daemon lives,
	// across re-execs included.
	Seq  uint64    `json:"seq"`
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`

	Entry       string `json:"entry,omitempty"` // empty for events of the daemon
	Slot        *int   `json:"slot,omitempty"`  // nil for events of a whole entry
	Incarnation uint64 `json:"incarnation,omitempty"`
	PID         int    `json:"pid,omitempty"`

	Exit        *Exit      `json:"exit,omitempty"`          // of exited and start_failed
	NextStartAt *time.Time `json:"next_start_at,omitempty"` // of backoff
	Count       *int       `json:"count,omitempty"`         // of scaled: the number of slots now wanted; of descendant_crashes: how many
	Initiator   string     `json:"initiator,omitempty"`     // of scaled and stopping: who asked for it
	Message     string     `json:"message,omitempty"`       // for people
	Missed      uint64     `json:"missed,omitempty"`        // of missed: how many events were not kept for this reader
}

// Kinds of an Event. More may come: a reader passes over what it does not know.
const (
	EventStarted           = "started"
	EventExited            = "exited"             // the main process ended
	EventStartFailed       = "start_failed"       // there is no process; Exit.Error says why
	EventStopping          = "stopping"           // the stop signal was sent
	EventStopped           = "stopped"            // nothing of the slot is left, and nothing is wanted
	EventBackoff           = "backoff"            // waits for its next start
	EventFinished          = "finished"           // ended for good by itself
	EventFailed            = "failed"             // given up
	EventHandedOver        = "handed_over"        // PID, a descendant, is the main process now
	EventDescendantCrashes = "descendant_crashes" // Count of them within a while
	EventScaled            = "scaled"
	EventAdded             = "added"   // the entry is there
	EventRemoved           = "removed" // the entry and all of its slots are gone

	EventReloaded      = "reloaded"       // the daemon re-exec'd itself
	EventReloadRefused = "reload_refused" // and goes on as it was
	EventConnectorUp   = "connector_up"   // the proc connector is heard
	EventConnectorDown = "connector_down" // and is not, for the reason in Message

	// EventMissed is not an event but says that the reader fell behind. Its Seq
	// is that of the last event missed.
	EventMissed = "missed"
)
