package spawn

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// openCgroup opens the cgroup that the child is to be cloned into: the one
// named, made if need be, or if something lives in that, which is what an
// earlier child was allowed to leave, the next one that is empty.
func (s *spawner) openCgroup(path string) *StartError {
	name := path
	for n := 1; ; n++ {
		if err := s.goNear(&name); err != nil {
			return err
		}
		fd, errno := openOrMake(name)
		if errno != 0 {
			return &StartError{Op: "open cgroup", Path: name, Errno: errno}
		}
		st, err := readCgroup(fd, "cgroup.events")
		switch {
		case err != nil:
			unix.Close(fd)
			return &StartError{Op: "open cgroup", Path: name, Errno: errnoOf(err)}
		case st.frozen:
			// The child would be born frozen, and its vfork with it.
			unix.Close(fd)
			return &StartError{Op: "enter frozen cgroup", Path: name, Errno: syscall.EBUSY}
		case st.populated:
			unix.Close(fd)
			name = path + "~" + strconv.Itoa(n)
			continue
		}
		s.files.cgroup, s.target.cgroup = fd, name
		return nil
	}
}

func openOrMake(path string) (int, syscall.Errno) {
	for {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd, 0
		}
		if err != unix.ENOENT {
			return -1, errnoOf(err)
		}
		if err := unix.Mkdir(path, 0o755); err != nil && err != unix.EEXIST {
			return -1, errnoOf(err)
		}
	}
}

// renew removes a cgroup that nothing can be cloned into, and reports whether it
// is worth to try again: it was removed since it was opened (ENOENT, ENODEV), or the
// child before made it one that holds no processes of its own (EBUSY: it
// enabled controllers below it, EOPNOTSUPP: it made it threaded).
func renew(path string, errno syscall.Errno) bool {
	switch errno {
	case syscall.ENOENT, syscall.ENODEV, syscall.EBUSY, syscall.EOPNOTSUPP:
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
