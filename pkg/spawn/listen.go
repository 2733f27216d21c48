package spawn

import (
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The variables by which sockets are passed, see sd_listen_fds(3). The last one
// is completed by the child: nobody else knows its pid before it runs.
const (
	listenFDs   = "LISTEN_FDS="
	listenNames = "LISTEN_FDNAMES="
	listenPID   = "LISTEN_PID="
)

// pidDigits is how long a pid is at most: pid_max is below 2^22 (proc_sys_kernel(5)).
const pidDigits = 7

// listenEnv returns env with what ListenNames asks for, but for LISTEN_PID.
func listenEnv(s *Spec) ([]string, *StartError) {
	if len(s.ListenNames) != len(s.Files) || slices.ContainsFunc(s.ListenNames, func(n string) bool { return strings.Contains(n, ":") }) {
		return nil, &StartError{Op: "pass", Path: "LISTEN_FDNAMES", Errno: syscall.EINVAL}
	}
	env := make([]string, 0, len(s.Env)+2)
	for _, kv := range s.Env {
		if !strings.HasPrefix(kv, listenFDs) && !strings.HasPrefix(kv, listenNames) && !strings.HasPrefix(kv, listenPID) {
			env = append(env, kv)
		}
	}
	return append(env, listenFDs+strconv.Itoa(len(s.Files)), listenNames+strings.Join(s.ListenNames, ":")), nil
}

// pass appends the steps that make fds 3, 4, … and returns how many those are.
// From unused on no descriptor is open in the child.
func (g *program) pass(fds []int, unused int) int {
	end := 3 + len(fds)
	unused = max(unused, end)
	// One that is in the way of another is moved aside first.
	for i, fd := range fds {
		if fd < end {
			g.step("dup", "", unix.SYS_DUP3, uintptr(fd), uintptr(unused+i), 0)
		}
	}
	for i, fd := range fds {
		if fd < end {
			fd = unused + i
		}
		g.step("dup", "", unix.SYS_DUP3, uintptr(fd), uintptr(3+i), 0)
	}
	return len(fds)
}
