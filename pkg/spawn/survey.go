package spawn

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What descends from a survivor is not below this process: an orphan of it went to
// somebody else. Whose it is is told by what it has from the survivor: its session, or
// what it writes to, which nobody but processes of that slot ever did; and by its
// environment, for the incarnation.

// Survey is who lived at a moment, by what tells of which survivor's tree a process may
// be. It does not change; any goroutine may use it.
type Survey struct {
	sessions map[int][]int    // the members of each, but for its leader
	outputs  map[string][]int // who writes to what, as Place.Output
}

// TakeSurvey reads all of /proc. Processes of which it may not be read, see
// proc_pid_fd(5), are in it by their session alone, and this one is not.
func TakeSurvey() (*Survey, error) {
	all, err := listPIDs("")
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	s := &Survey{sessions: make(map[int][]int), outputs: make(map[string][]int)}
	for _, pid := range all {
		if sid, err := unix.Getsid(pid); err == nil && sid > 0 && sid != pid { // 0: the kernel's
			s.sessions[sid] = append(s.sessions[sid], pid)
		}
		for _, to := range OutputsOf(pid) {
			s.outputs[to] = append(s.outputs[to], pid)
		}
	}
	return s, nil
}

// Left reports whether something may have lived of the tree in a place without a cgroup
// whose main process was pid, 0 if that is not known.
func (s *Survey) Left(pid int, place *Place) bool {
	return len(s.sessions[pid])+len(s.outputs[place.Output]) > 0
}

// strays are who may be of that tree and is still as he was found, without the main process.
func (s *Survey) strays(main int, place *Place) (pids []int) {
	seen := map[int]bool{main: true}
	for _, pid := range s.sessions[main] {
		if sid, err := unix.Getsid(pid); err == nil && sid == main && !seen[pid] {
			seen[pid] = true
			pids = append(pids, pid)
		}
	}
	for _, pid := range s.outputs[place.Output] {
		if !seen[pid] && slices.Contains(OutputsOf(pid), place.Output) {
			seen[pid] = true
			pids = append(pids, pid)
		}
	}
	return pids
}

// OutputsOf are what a process writes to on standard output and standard error, each as
// Place.Output has it; none if that may not be read, see proc_pid_fd(5).
func OutputsOf(pid int) (to []string) {
	for _, fd := range []string{"1", "2"} {
		path, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + fd)
		if dot := strings.LastIndexByte(path, '.'); err == nil && dot > 0 {
			to = append(to, path[:dot+1])
		}
	}
	return to
}
