// Package state carries what a supervisor knows from one program image to the
// next: the envelope of saved bytes, the sealed file that holds them, the
// execve that keeps the process and a named list of descriptors, the check of
// a new binary before that execve, and the lock and the directory that make a
// daemon the only one of its name.
//
// It knows bytes, descriptors and files. It must not know what the bytes mean:
// a running type of the supervisor never appears here, so that a running type
// can change without changing what an older or newer image can read.
//
// A hand-over goes like this. The old image encodes a [Saved], runs the new
// binary on a copy of it ([Preflight]) while it still serves, then calls
// [Exec]. The new image asks to be told of SIGHUP first thing in main, calls
// [Inherit], takes each descriptor by its name and closes the rest.
//
//	hup := make(chan os.Signal, 1)
//	signal.Notify(hup, unix.SIGHUP) // before anything else
//	inh, err := state.Inherit()
//
// What must outlive a SIGKILL is in the [Journal]: the same saved types, as
// records that are appended while the daemon runs. A daemon that starts calls
// [ReadJournal], takes over what it tells of, and then goes on in a journal of
// its own.
//
//	r, err := state.ReadJournal(dir) // nil, nil: there was none
//	j, err := state.NewJournal(dir, version)
//	err = all.All(saved, processes, marks); err = j.Compact(&all)
//	batch.Slot("web", &slot); err = j.Append(&batch) // before it is acted on
//
// Everything here is Linux only.
package state
