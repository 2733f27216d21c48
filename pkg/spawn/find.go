package spawn

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A parent that dies after clone and before it has written down what it made
// leaves a child that nobody knows. It goes on to execve: SIGKILL ends the
// threads of a process, not a vfork child that shares its memory. Between the
// two it is ended by EndUnexeced; after that FindLeaders finds it by variables
// that only its environment has. In this order nothing slips through, once the
// parent is dead: there is nobody to make more.

// Leader is a session leader, as every child is that a Pool starts.
type Leader struct {
	PID   int
	PidFD int    // the caller's, close-on-exec
	Start uint64 // ticks since boot, as Identity.Start
	// Values are those of the variables asked for, in that order; nil if the
	// process was not started with all of them, or has written over them.
	Values []string

	inode uint64
}

// FindLeaders returns the living session leaders that were started with all of
// these variables in their environment: among all processes, or in the control
// group of that directory and those below, where it also returns leaders without
// them. What a process started with it passes on, so a descendant that made a session
// of its own has the same values: the first of the list, which is the one that
// began first, is the process meant unless that is dead. Not seen are
// processes whose environment may not be read, see proc_pid_environ(5).
func FindLeaders(cgroup string, names []string) ([]Leader, error) {
	pids, err := listPIDs(cgroup)
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	var found []Leader
	for _, pid := range pids {
		if l, ok := lookAt(pid, names); ok && (l.Values != nil || cgroup != "") {
			found = append(found, l)
		} else if ok {
			unix.Close(l.PidFD)
		}
	}
	slices.SortFunc(found, func(a, b Leader) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.inode, b.inode), cmp.Compare(a.PID, b.PID))
	})
	return found, nil
}

// findPatience is how long a process may take to come to the end of an execve(2)
// and still be known by its environment. Who takes longer is held up by a file
// system that does not answer.
const findPatience = time.Second

// lookAt returns what is known of a process if it leads a session.
func lookAt(pid int, names []string) (l Leader, ok bool) {
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		return l, false // most of them: before anything is opened
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return l, false
	}
	defer func() {
		if !ok {
			unix.Close(fd)
		}
	}()
	st, err := readStat(pid)
	if err != nil || st.session != pid {
		return l, false
	}
	environ := readEnviron(pid, findPatience)
	l = Leader{PID: pid, PidFD: fd, Start: st.start, Values: values(environ, names), inode: inode(fd)}
	// What was read was of the process of fd, if that lives still.
	return l, !dead(fd)
}

// values picks variables out of an environment; nil if one of them is not there.
func values(environ []byte, names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		ok := false
		for kv := range bytes.SplitSeq(environ, []byte{0}) {
			if v, is := strings.CutPrefix(string(kv), name+"="); is {
				out[i], ok = v, true
				break
			}
		}
		if !ok {
			return nil
		}
	}
	return out
}

// listPIDs lists all other processes, or those of a control group: that this one was started
// by what it takes over does not make it a part of that.
func listPIDs(cgroup string) (pids []int, err error) {
	self := os.Getpid()
	if cgroup == "" {
		dir, err := os.Open("/proc")
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		names, err := dir.Readdirnames(-1)
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil && pid != self {
				pids = append(pids, pid)
			}
		}
		return pids, err
	}
	err = filepath.WalkDir(cgroup, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			if path != cgroup && errors.Is(err, fs.ErrNotExist) {
				return nil // removed meanwhile
			}
			return err
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil && path == cgroup {
			return err
		}
		for line := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 0 && pid != self { // 0: outside our namespace
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids, err
}

// EndUnexeced ends the children that a dead process of this program left between
// clone and execve: none of them has run anything of its own. args is the dead
// process's command line, which they still show, as they share its memory. It
// returns how many it ended, when they are gone; what has not gone after
// timeout, since a file system hangs, is named in the error.
//
// Call it only when the process that made them is dead, and this one has begun
// after its death. One that reaches execve while it is looked at may be ended
// there: as if it had been killed at its first instruction.
func EndUnexeced(args []string, timeout time.Duration) (ended int, err error) {
	deadline := time.Now().Add(timeout)
	self, err := readStat(os.Getpid())
	if err != nil {
		return 0, fmt.Errorf("end unexeced children: %w", err)
	}
	cmdline := []byte(strings.Join(args, "\x00") + "\x00")
	for range maxPasses {
		pids, err := listPIDs("")
		if err != nil {
			return ended, fmt.Errorf("end unexeced children: %w", err)
		}
		var stuck []string
		before := ended
		for _, pid := range pids {
			fd := openUnexeced(pid, cmdline, self.start)
			if fd < 0 {
				continue
			}
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // fails if it is dead
			if waitDead(fd, deadline) {
				ended++
			} else {
				stuck = append(stuck, strconv.Itoa(pid))
			}
			unix.Close(fd)
		}
		if len(stuck) > 0 {
			return ended, fmt.Errorf("end unexeced children: these do not end: %s", strings.Join(stuck, " "))
		}
		if ended == before {
			return ended, nil
		}
	}
	return ended, errors.New("end unexeced children: there are always more: their parent lives")
}

// openUnexeced returns a pidfd of a process that is between clone and execve, or
// -1. It shows the command line of the dead process, as a living process of
// this program may; but it has one thread and catches no signal, as no Go
// program does, began before this process did, and has lost its parent.
func openUnexeced(pid int, cmdline []byte, began uint64) int {
	if pid == os.Getpid() {
		return -1
	}
	if text, err := os.ReadFile(procPath(pid, "cmdline")); err != nil || !bytes.Equal(text, cmdline) {
		return -1
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	if unexeced(pid, cmdline, began) && !dead(fd) {
		return fd
	}
	unix.Close(fd)
	return -1
}

func unexeced(pid int, cmdline []byte, began uint64) bool {
	st, err := readStat(pid)
	if err != nil || st.threads != 1 || st.start > began {
		return false
	}
	parent, err := os.ReadFile(procPath(st.parent, "cmdline"))
	if err != nil || bytes.Equal(parent, cmdline) {
		return false // another's, who lives and was started in the same way
	}
	text, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return false
	}
	_, caught, ok := bytes.Cut(text, []byte("\nSigCgt:"))
	if !ok {
		return false
	}
	caught, _, _ = bytes.Cut(caught, []byte("\n"))
	if mask, err := strconv.ParseUint(string(bytes.TrimSpace(caught)), 16, 64); err != nil || mask != 0 {
		return false
	}
	again, err := os.ReadFile(procPath(pid, "cmdline"))
	return err == nil && bytes.Equal(again, cmdline)
}

// waitDead waits for the end of a process until the deadline.
func waitDead(pidfd int, deadline time.Time) bool {
	fds := [1]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds[:], int(max(0, time.Until(deadline).Milliseconds())))
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}
