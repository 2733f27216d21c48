// Package logs moves the output of children from FIFOs to the daemon's own
// standard output, as lines that say whose they are, and prints the daemon's
// own lines in the same stream, in the right order among them.
//
// It knows FIFOs, lines and file descriptors. It must not know what a
// supervisor is, why a child runs, or what a pid stands for: a pid is a number
// in a label.
//
// # FIFOs
//
// Every slot and stream has one FIFO below Options.Dir, kept over the
// incarnations of the slot. The child opens it O_RDWR for its standard output
// and error, anew for each start, so that a child's O_NONBLOCK never reaches
// the next one. This package reads it through a descriptor that is O_RDWR too:
// a FIFO that always has a writer reports neither end of file nor EPOLLHUP,
// which would come at each exit and, edge-triggered, again at each start
// (pipe(7), fifo(7)). Since the child holds both ends itself it gets neither
// SIGPIPE nor EPIPE when the daemon is killed, and the next daemon reads what
// was written meanwhile, up to the capacity of a pipe; then the writer waits.
//
// # Order
//
// A position in the stream of a FIFO is the number of bytes read so far plus
// FIONREAD, both taken under one lock. [Output.Hold], [Output.Begin] and
// [Output.End] note the position at the moment they are called, and the reader
// goes through the stream up to that position before it acts on them, however
// late that is. So a child's lines stand between its "Started" and its
// "Exited" and under its own pid, though nobody waits for anybody. The calls of
// one incarnation are Hold before the start is asked for, Begin when it has
// happened, End when the child is dead, or Hold and End when it could not
// start. In the Seed format a child can print a line like one of the daemon's
// about itself, never one about another; the other formats tell them apart by
// the attribute "stream".
//
// # After a death
//
// What is read and not yet written is in memory that is mapped from a file beside
// the FIFOs, backlog, and so are the beginnings of lines that wait for their end. A
// process that is ended by SIGKILL leaves it as it was at that instruction, and New
// goes on from there: a line is printed once, and whole. The one thing that nobody
// sees is how far a write(2) came during which the process was killed. A regular
// file shows it; of a pipe, a socket or a terminal the lines of that write are
// printed again, 64 KiB as a rule: rather twice than not at all. A file to which
// others append too is no better. None of this costs a system call, but FIONREAD
// around a read, and for a regular file one before a write.
//
// The file takes 0.7 MiB, on tmpfs, ext4 or xfs, where a page that was allocated can
// always be written to. Elsewhere it is ordinary memory, and [Output.Volatile] says so.
//
// # Bounds
//
// One goroutine, in one thread, reads all FIFOs and writes all output; it
// sleeps in epoll_wait(2) when there is nothing to do. It stops reading while
// the output is stuck: then the FIFOs fill and the children wait. The daemon
// never does: its own lines go to a queue of fixed size, beyond which they are
// dropped, counted and, when the output flows again, the loss is said. An
// output that fails (EPIPE, ENOSPC, EBADF) loses what is written to it, which
// is counted and said as soon as it works again.
//
// A plain user with more than fs.pipe-user-pages-soft pages of pipes, 1,024
// FIFOs by default, gets smaller ones from then on (pipe(7)); that costs speed
// only.
//
// Writes are made with write(2) itself, not through [os.File], whose EPIPE on
// descriptor 1 or 2 ends a Go program that has not called signal.Notify for
// SIGPIPE. A write of such a program's own through os.Stdout still does.
package logs

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// Stream says which of a child's outputs a FIFO carries.
type Stream uint8

const (
	// Merged is standard output and standard error in one FIFO, in the order
	// in which they were written.
	Merged Stream = iota
	// Stdout is standard output alone.
	Stdout
	// Stderr is standard error alone.
	Stderr
)

// String returns the word for s that records and file names use: output,
// stdout or stderr.
func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	}
	return "output"
}

// Key names a FIFO: a stream of a slot of an entry. The zero Stream is Merged.
type Key struct {
	Entry  string
	Slot   int
	Stream Stream
}

// String returns ENTRY:SLOT, with the stream behind it when that is not Merged.
func (k Key) String() string {
	name := k.Entry + ":" + strconv.Itoa(k.Slot)
	if k.Stream == Merged {
		return name
	}
	return name + " " + k.Stream.String()
}

// file is the FIFO's name in its directory. Names of entries have no colon, so
// two keys never share a file.
func (k Key) file() string { return k.Entry + ":" + strconv.Itoa(k.Slot) + "." + k.Stream.String() }

// maxEntry is the longest name of an entry that has a FIFO.
const maxEntry = 128

// valid refuses what could leave the directory or stand for another key.
func (k Key) valid() error {
	if k.Entry == "" || len(k.Entry) > maxEntry || k.Entry[0] == '.' || strings.ContainsAny(k.Entry, "/:\x00") || k.Slot < 0 || k.Stream > Stderr {
		return fmt.Errorf("log pipe of %q slot %d: not a name of a slot", k.Entry, k.Slot)
	}
	return nil
}

// Format is the form of what is printed.
type Format uint8

const (
	// Seed is the form for people: `20:17:55 dummy.1514      text`.
	Seed Format = iota
	// Logfmt is one slog text record a line.
	Logfmt
	// JSON is one slog JSON record a line.
	JSON
)

// Record is one line of the daemon's own.
type Record struct {
	// Key is the slot that the line is about. Without an entry the line is
	// about the daemon and, in Seed, printed as it stands, without a prefix.
	Key         Key
	PID         int    // 0 when there is no process: the label is then the entry alone
	Incarnation uint64 // 0 when it does not apply
	Time        time.Time
	// Text is the line in Seed, e.g. "Started at 1334081871."
	Text string
	// Level, Msg and Attrs are the same facts for the other formats. The
	// entry, slot, pid and incarnation are added from the fields above. An
	// empty Msg stands for Text.
	Level slog.Level
	Msg   string
	Attrs []slog.Attr
	// Words fills in Text and Attrs when the line is printed, if it is not
	// nil: a caller with something more urgent to do than to find words leaves
	// that to the reader goroutine.
	Words func(*Record)
}
