package spawn

import (
	"time"

	"golang.org/x/sys/unix"
)

// slotFiles are the files of a child's place that stay open from one child to
// the next: to find them by their path at each exit and each start costs more
// than all that is done with them. One has them at a time, and closes them or
// hands them on: the spawner, then the child, then Pool.kept, from which the next
// start takes them.
type slotFiles struct {
	dir     int    // O_PATH, the cgroup to be cloned into; or -1
	events  int    // its cgroup.events, or -1
	limited bool   // it may have a limit of memory
	out     int    // what the next child's output was opened as, or -1
	outID   uint64 // Stdio.ID of that
}

func noFiles() slotFiles { return slotFiles{dir: -1, events: -1, out: -1} }

// maxHeld bounds the cgroups that are kept open: three descriptors each, of which
// a daemon of thousands may have none to spare.
const maxHeld = 1024

// mayBeHeld is how many where so many descriptors may be open. Most are for what there
// is no doing without: two for each process.
func mayBeHeld(descriptors uint64) int32 { return int32(min(maxHeld, descriptors/8)) }

// keptCgroup is one in which nothing lives, at the instant at on the Pool's
// clock.
type keptCgroup struct {
	files slotFiles
	at    time.Duration
}

// state says what state the cgroup is in.
func (f *slotFiles) state() (cgroupState, error) {
	if f.events >= 0 {
		return readEvents(f.events)
	}
	return readCgroup(f.dir, "cgroup.events")
}

// openOut opens what the next child of s writes to, so that its direct start need not: that
// child has a file description of its own all the same. p.mu is held.
func (p *Pool) openOut(f *slotFiles, s *Spec) {
	if f.events < 0 || f.limited || s.Stdout.ID == 0 || !p.mayBeDirect(s) {
		return
	}
	if f.out >= 0 {
		if f.outID == s.Stdout.ID {
			return
		}
		closeRaw(f.out)
	}
	// Where it fails it is opened when it is needed.
	f.out, _ = s.Stdout.openRaw()
	f.outID = s.Stdout.ID
}

// takeOut takes what was opened as io before, if it was.
func (f *slotFiles) takeOut(io *Stdio) (fd int, ok bool) {
	if f.out < 0 || f.outID != io.ID {
		return -1, false
	}
	fd, f.out = f.out, -1
	return fd, true
}

// close closes files. p.mu need not be held.
func (p *Pool) close(f *slotFiles) {
	if f.dir >= 0 {
		unix.Close(f.dir)
	}
	if f.out >= 0 {
		unix.Close(f.out)
	}
	if f.events >= 0 {
		unix.Close(f.events)
		p.held.Add(-1)
	}
	*f = noFiles()
}

// keep keeps the files of the cgroup of c for the next child, if that can enter
// it, or has them closed. p.mu is held.
func (p *Pool) keep(c *child) {
	f := c.files
	c.files = noFiles()
	_, taken := p.kept[c.place.Cgroup]
	switch {
	case f.dir < 0:
	case c.vacant > 0 && f.events >= 0 && !taken && !p.closed:
		p.kept[c.place.Cgroup] = keptCgroup{files: f, at: c.vacant}
	default:
		p.retain(f)
	}
}

// discard has the files of a cgroup closed that is to be removed, if they are kept. p.mu is held.
func (p *Pool) discard(path string) (kept bool) {
	k, kept := p.kept[path]
	if kept {
		delete(p.kept, path)
		p.retain(k.files)
	}
	return kept
}

// retain has bury close files. p.mu is held.
func (p *Pool) retain(f slotFiles) {
	p.remains = append(p.remains, f.dir)
	if f.out >= 0 {
		p.remains = append(p.remains, f.out)
	}
	if f.events >= 0 {
		p.remains = append(p.remains, f.events)
		p.held.Add(-1)
	}
}
