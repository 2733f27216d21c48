package spawn

import (
	"strconv"
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
		fd, made, errno := openOrMake(name)
		if errno != 0 {
			return &StartError{Op: "open cgroup", Path: name, Errno: errno}
		}
		st, err := s.look(fd, name, made)
		switch {
		case err != nil:
			unix.Close(fd)
			return &StartError{Op: "open cgroup", Path: name, Errno: errnoOf(err)}
		case st.frozen:
			// The child would be born frozen, and its vfork with it.
			unix.Close(fd)
			return frozenCgroup(name)
		case st.populated:
			unix.Close(fd)
			name = path + "~" + strconv.Itoa(n)
			continue
		}
		s.files.cgroup, s.target.cgroup = fd, name
		return nil
	}
}

func frozenCgroup(path string) *StartError {
	return &StartError{Op: "enter frozen cgroup", Path: path, Errno: syscall.EBUSY}
}

// look says what state a cgroup is in.
func (s *spawner) look(fd int, name string, made bool) (cgroupState, error) {
	p := s.p
	now, _ := p.clock.now()
	p.mu.Lock()
	at, ok := p.vacant[name]
	delete(p.vacant, name) // good for one child
	p.mu.Unlock()
	if made || ok && now-at < freshFor {
		return cgroupState{}, nil
	}
	return readCgroup(fd, "cgroup.events")
}

// openOrMake opens a cgroup, and says whether it made it for that.
func openOrMake(path string) (fd int, made bool, errno syscall.Errno) {
	for {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd, made, 0
		}
		if err != unix.ENOENT {
			return -1, false, errnoOf(err)
		}
		err = unix.Mkdir(path, 0o755)
		if err != nil && err != unix.EEXIST {
			return -1, false, errnoOf(err)
		}
		made = err == nil
	}
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
	p.unused = append(p.unused, path)
	p.wakeWalker()
}

func removePlace(path string) {
	removeCgroup(path)
	for n := 1; ; n++ {
		name := path + "~" + strconv.Itoa(n)
		if unix.Access(name, unix.F_OK) != nil {
			return
		}
		removeCgroup(name)
	}
}
