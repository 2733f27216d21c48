package spawn

import (
	"fmt"
	"os"
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
	sessions map[int]bool    // that have a member besides their leader
	outputs  map[string]bool // as Place.Output
}

// TakeSurvey reads all of /proc. Processes of which it may not be read, see
// proc_pid_fd(5), are in it by their session alone.
func TakeSurvey() (*Survey, error) {
	all, err := listPIDs("")
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	s := &Survey{sessions: make(map[int]bool), outputs: make(map[string]bool)}
	for _, pid := range all {
		if sid, err := unix.Getsid(pid); err == nil && sid != pid {
			s.sessions[sid] = true
		}
		for _, to := range outputsOf(pid) {
			s.outputs[to] = true
		}
	}
	return s, nil
}

// Left reports whether something may have lived of the tree in a place without a cgroup
// whose main process was pid, 0 if that is not known.
func (s *Survey) Left(pid int, place *Place) bool {
	return pid > 0 && s.sessions[pid] || s.outputs[place.Output]
}

// outputsOf are what a process writes to, each as Place.Output has it.
func outputsOf(pid int) (to []string) {
	for _, fd := range []string{"1", "2"} {
		path, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + fd)
		if dot := strings.LastIndexByte(path, '.'); err == nil && dot > 0 {
			to = append(to, path[:dot+1])
		}
	}
	return to
}
