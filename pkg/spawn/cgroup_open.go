package spawn

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// openCgroup opens the cgroup that the child is to be cloned into: the one
// named, made if need be, or if something lives in that, which is what an
// earlier child was allowed to leave, the next one that is empty.
//
// One that was seen to be empty and not frozen within the last second, when the
// child before ended, is not looked at again: what a crash loop would spend most
// on. If it has been frozen since, overdue ends what hangs, and names it.
func (s *spawner) openCgroup(path string) *StartError {
	name := path
	for n := 1; ; n++ {
		if err := s.goNear(&name); err != nil {
			return err
		}
		st, err := s.take(name)
		if err != nil {
			return &StartError{Op: "open cgroup", Path: name, Errno: errnoOf(err)}
		}
		switch {
		case st.frozen:
			// The child would be born frozen.
			s.drop()
			return frozenCgroup(name)
		case st.populated:
			s.drop()
			name = beside(path, n)
			continue
		}
		s.target.cgroup = name
		return nil
	}
}

func frozenCgroup(path string) *StartError {
	return &StartError{Op: "enter frozen cgroup", Path: path, Errno: syscall.EBUSY}
}

// take opens a cgroup, or takes it from those that are kept open, and says what
// state it is in.
func (s *spawner) take(name string) (st cgroupState, err error) {
	p := s.p
	p.mu.Lock()
	k, ok := p.kept[name]
	delete(p.kept, name)
	p.mu.Unlock()
	if ok {
		s.cgroup = k.files
		now, _ := p.clock.Now()
		if now-k.at < freshFor {
			return cgroupState{}, nil
		}
		if st, err = s.cgroup.state(); err == nil {
			return st, nil
		}
		s.drop()
	}
	for range maxPasses {
		var made bool
		if made, err = s.open(name); err != nil || made {
			return cgroupState{}, err
		}
		if st, err = s.cgroup.state(); err == nil {
			return st, nil
		}
		s.drop() // somebody has removed it
	}
	return cgroupState{}, err
}

// open opens a cgroup, and says whether it made it for that.
func (s *spawner) open(name string) (made bool, err error) {
	dir, made, err := s.openOrMake(name)
	if err != nil {
		return false, err
	}
	// A limit of memory may be anybody's.
	s.cgroup = slotFiles{dir: dir, events: -1, out: -1, limited: unix.Faccessat(dir, "memory.max", unix.F_OK, 0) == nil}
	if s.p.held.Load() < s.p.mostHeld {
		// Where it fails, for want of descriptors say, it is opened when it is needed.
		if fd, err := openRaw(dir, "cgroup.events", unix.O_RDONLY|unix.O_CLOEXEC); err == nil {
			s.cgroup.events = fd
			s.p.held.Add(1)
		}
	}
	return made, nil
}

// drop closes the cgroup that the spawner has.
func (s *spawner) drop() {
	s.p.close(&s.cgroup)
}

// openOrMake opens a cgroup, and says whether it made it for that. Most are to be
// made: those that were made before are kept open.
func (s *spawner) openOrMake(path string) (fd int, made bool, err error) {
	for range maxPasses {
		above, name := s.above.open(path)
		err = mkdirRaw(above, name, 0o755)
		made = err == nil
		if made || err == unix.EEXIST {
			fd, err = openRaw(above, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
		}
		if err != unix.ENOENT {
			break
		}
		s.above.close() // it was removed, or the cgroup since it was made
	}
	return fd, made, err
}

// above is the directory that a spawner made the last cgroup in, which stays open:
// a path is looked up in it, and not from the root.
type above struct {
	path string
	fd   int // O_PATH, or -1
}

// open returns what path is to be looked up in, and as what.
func (a *above) open(path string) (fd int, name string) {
	at := strings.LastIndexByte(path, '/') + 1
	if dir := path[:at]; a.fd < 0 || a.path != dir {
		a.close()
		var err error
		if a.fd, err = openRaw(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC); err != nil {
			return unix.AT_FDCWD, path // which fails in the same way, and is reported
		}
		a.path = dir
	}
	return a.fd, path[at:]
}

func (a *above) close() {
	if a.fd >= 0 {
		closeRaw(a.fd)
	}
	*a = above{fd: -1}
}

// renew removes a cgroup that nothing can be cloned into, and reports whether it
// is worth to try again: it was removed since it was opened (ENOENT, ENODEV), the
// child before made it one that holds no processes of its own (EBUSY: it
// enabled controllers below it, EOPNOTSUPP: it made it threaded), or the child
// was killed at once (EINTR), as it is after somebody's cgroup.kill: see Pool.retire.
func renew(path string, errno syscall.Errno) bool {
	switch errno {
	case syscall.ENOENT, syscall.ENODEV, syscall.EBUSY, syscall.EOPNOTSUPP, syscall.EINTR:
		removeCgroup(path)
		return true
	}
	return false
}

// RemoveCgroup has the cgroup of a Place, and those that were made beside it
// since something lived there, removed as far as they are empty. It does not
// wait for that. A start that enters it meanwhile makes it anew.
func (p *Pool) RemoveCgroup(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.discard(path)
	for n := 1; p.discard(beside(path, n)); n++ {
	}
	p.unused = append(p.unused, path)
	p.wakeWalker()
}

// beside is the cgroup that is taken if something lives in path, and in n-1 others.
func beside(path string, n int) string { return path + "~" + strconv.Itoa(n) }

func removePlace(path string) {
	removeCgroup(path)
	for n := 1; ; n++ {
		name := beside(path, n)
		if unix.Access(name, unix.F_OK) != nil {
			return
		}
		removeCgroup(name)
	}
}
