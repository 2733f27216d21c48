package spawn

import (
	"time"

	"golang.org/x/sys/unix"
)

// cgroupFiles are the open files of a cgroup, which stay open from one child to
// the next: to find them by their path at each exit and each start costs more
// than all that is done with them. One has them at a time, and closes them or
// hands them on: the spawner, then the child, then Pool.kept, from which the next
// start takes them.
type cgroupFiles struct {
	dir     int  // O_PATH, to be cloned into; or -1
	events  int  // its cgroup.events, or -1
	limited bool // it may have a limit of memory
}

func noFiles() cgroupFiles { return cgroupFiles{dir: -1, events: -1} }

// maxHeld bounds the cgroups that are kept open: two descriptors each, of which
// a daemon of thousands may have none to spare.
const maxHeld = 1024

// keptCgroup is one in which nothing lives, at the instant at on the Pool's
// clock.
type keptCgroup struct {
	files cgroupFiles
	at    time.Duration
}

// state says what state the cgroup is in.
func (f *cgroupFiles) state() (cgroupState, error) {
	if f.events >= 0 {
		return readEvents(f.events)
	}
	return readCgroup(f.dir, "cgroup.events")
}

// close closes files. p.mu need not be held.
func (p *Pool) close(f *cgroupFiles) {
	if f.dir >= 0 {
		unix.Close(f.dir)
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

// discard has the files of a cgroup closed that is to be removed. p.mu is held.
func (p *Pool) discard(path string) {
	if k, ok := p.kept[path]; ok {
		delete(p.kept, path)
		p.retain(k.files)
	}
}

// retain has bury close files. p.mu is held.
func (p *Pool) retain(f cgroupFiles) {
	p.remains = append(p.remains, f.dir)
	if f.events >= 0 {
		p.remains = append(p.remains, f.events)
		p.held.Add(-1)
	}
}
