package state

import (
	"bytes"
	"fmt"
	"os"
)

// Format is the number of the saved format that this package writes, and the
// highest that it reads. It rises when an older reader would misunderstand
// what is written, not when a field is added.
const Format = 2

// Saved is one saved state. Its types are apart from the running ones: fields
// get added, never renamed or given another meaning within one [Format].
type Saved struct {
	Header Header
	Files  []File // set by Exec: the descriptors handed over
	// Leftovers are descriptors that the next image is given only to close them, when it
	// has the time; see [Inherited.CloseLeftovers]. The caller of Exec sets them.
	Leftovers []int
	// Payload is the state, as [Daemon.Saved] makes it.
	Payload []byte

	// Of format 1: all of it is JSON, and the state of the output is apart.
	lines  bool
	output []byte
}

// Header says where a saved state is from.
type Header struct {
	BootID  string `json:"boot_id"` // of the boot it was saved in; filled in by Encode
	Version string `json:"version"` // of the program that saved it, for messages only
}

// File is a named descriptor to hand over. The name is a kind, optionally
// followed by a colon and anything that is unique, such as "pidfd:web:0"; the
// kind is one of the Kind constants and is verified on the other side.
type File struct {
	Name string `json:"name"`
	FD   int    `json:"fd"`
}

// Kinds of descriptors, the part of [File.Name] before the first colon.
const (
	KindPidfd    = "pidfd"
	KindListener = "listener" // a socket that listens
	KindSocket   = "socket"   // any other socket
	KindNetlink  = "netlink"  // an AF_NETLINK socket
	KindFIFO     = "fifo"     // a FIFO or a pipe
	KindFile     = "file"     // a regular file, such as the locked pid file
)

// bootIDFile names the random identity of this boot, random(4).
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// BootID returns the identity of the running boot, 36 characters, proc(5).
// Two boots never have the same, so a saved pid, inode or CLOCK_MONOTONIC time
// means something only together with it.
func BootID() (string, error) {
	b, err := os.ReadFile(bootIDFile)
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	id := string(bytes.TrimSpace(b))
	if id == "" {
		return "", fmt.Errorf("read boot id: %s is empty", bootIDFile)
	}
	return id, nil
}
