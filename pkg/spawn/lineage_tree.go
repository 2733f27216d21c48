package spawn

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lineageTree is the tree of a child without a cgroup, by descent: what /proc
// shows below its main process, and orphans of it, which the kernel gives to
// this process because it is a child subreaper. What lives is always below this
// process, therefore, and nothing is overlooked; only whose an orphan is can be
// in doubt, when it has left its session and does not have the environment of
// the child any more (see owner). Of a survivor the orphans are elsewhere, see Survey.
type lineageTree struct {
	p *Pool
	c *child
}

// gone looks where orphans of c would be. p.mu is held.
func (t *lineageTree) gone() (gone, vacant bool) {
	return !t.c.survivor && t.p.subreaper && !t.p.mayLeave(t.c), false
}

func (t *lineageTree) pids() []int {
	var pids []int
	t.p.mu.Lock()
	if !t.c.ended {
		pids = append(pids, t.c.pid)
	}
	t.p.mu.Unlock()
	pids = append(pids, t.left()...)
	seen := make(map[int]bool)
	for _, pid := range pids {
		seen[pid] = true
	}
	for i := 0; i < len(pids); i++ {
		for _, pid := range childrenOf(pids[i]) {
			if !seen[pid] && pid != os.Getpid() { // a pid can be given out anew meanwhile
				seen[pid] = true
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// left are the processes that stand at the top of what is left of the tree:
// orphans, of a survivor who is known to be of its tree, since its orphans went to somebody else.
func (t *lineageTree) left() (pids []int) {
	if t.c.survivor {
		return t.strays()
	}
	for pid, owner := range t.p.orphans {
		if owner == t.c.token {
			pids = append(pids, pid)
		}
	}
	return pids
}

// strays are members of the session that the main process led, and who writes to where it did.
// The number of a session is not given out again as long as it has a member; a stranger's that
// came after it is told by the environment.
func (t *lineageTree) strays() []int {
	s := t.p.surveyed()
	if s == nil {
		return nil
	}
	return slices.DeleteFunc(s.strays(t.c.pid, &t.c.place), func(pid int) bool {
		return !t.c.place.marked(t.p.environOf(pid))
	})
}

// kill stops everything first: what is stopped does not fork, and keeps its
// place under RLIMIT_NPROC, so that not even a fork bomb outruns this.
func (t *lineageTree) kill() error {
	pids := func() []int {
		t.p.reapOrphans()
		return t.pids()
	}
	_ = signalEach(pids, int(unix.SIGSTOP))
	return signalEach(pids, int(unix.SIGKILL))
}

// maxWatched is how many orphans of a tree are watched at a time. When the last
// of them is gone the tree is looked at again, so one would be right as well; a
// few make a tree that ends one by one cheap.
const maxWatched = 4

func (t *lineageTree) watch() (fds []int, events uint32, settled bool) {
	seen := make(map[int]bool)
	for range maxPasses {
		var pids []int
		left := func() []int {
			now := t.left()
			pids = append(pids, now...)
			return now
		}
		withPidfds(left, nil, func(_, pidfd int) (kept bool) {
			if len(fds) == maxWatched {
				return false
			}
			fds = append(fds, pidfd)
			return true
		})
		// All of them ended since they were found, and what they made came to us, or in a
		// session to somebody else. Of a session zombies stay that nobody reaps.
		fresh := slices.ContainsFunc(pids, func(pid int) bool { return !seen[pid] })
		if len(fds) > 0 || len(pids) == 0 || t.c.survivor && !fresh {
			return fds, unix.EPOLLIN | unix.EPOLLET, true
		}
		for _, pid := range pids {
			seen[pid] = true
		}
		t.p.survey = nil
		if !t.c.survivor && !t.p.reapOrphans() {
			break
		}
	}
	return nil, 0, false
}

func (t *lineageTree) stirred(int) bool { return true }

// childrenOf lists the children of a process: /proc/PID/task/TID/children,
// proc_tid_children(5), where the kernel has that, else all of /proc is read.
func childrenOf(pid int) (pids []int) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	d, err := os.Open(dir)
	if err != nil {
		return nil // it is gone
	}
	tids, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return nil
	}
	for _, tid := range tids {
		b, err := os.ReadFile(dir + "/" + tid + "/children")
		if err != nil {
			if unix.Access(dir+"/"+tid+"/stat", unix.F_OK) == nil && unix.Access(dir+"/"+tid+"/children", unix.F_OK) != nil {
				return childrenByParent(pid)
			}
			continue // the thread is gone
		}
		for _, word := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(word); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// childrenByParent is childrenOf without CONFIG_PROC_CHILDREN.
func childrenByParent(parent int) (pids []int) {
	all, err := listPIDs("")
	if err != nil {
		return nil
	}
	for _, pid := range all {
		if st, err := readStat(pid); err == nil && st.parent == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}
