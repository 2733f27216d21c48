package state

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// hangGrace is how long a thread may be in one system call that may wait
	// for a file system.
	hangGrace = 50 * time.Millisecond
	hangPoll  = 5 * time.Millisecond
)

// noThreadHangs returns an error if a thread of this process waits for
// something that may never come, a file system that does not answer, say.
// execve(2) ends all other threads and waits for that without a limit; if one
// does not obey (FUSE, once its daemon has read the request) the process would
// be neither the old program nor the new one, and obey no signal.
func noThreadHangs() error {
	const tasks = "/proc/self/task"
	runtime.LockOSThread() // the one that looks is in a system call itself
	defer runtime.UnlockOSThread()
	self := strconv.Itoa(unix.Gettid())
	hang := waiting(tasks, self)
	for deadline := time.Now().Add(hangGrace); len(hang) > 0 && time.Now().Before(deadline); {
		<-time.After(hangPoll)
		now := waiting(tasks, self)
		maps.DeleteFunc(hang, func(tid, call string) bool { return now[tid] != call })
	}
	for tid := range hang {
		// "0" for who may not know.
		where, _ := os.ReadFile(filepath.Join(tasks, tid, "wchan"))
		return fmt.Errorf("thread %s hangs in the kernel (%s), which execve would wait for", tid, where)
	}
	return nil
}

// waiting returns what the threads below that directory, but one, wait in that
// may hang. What it cannot read it takes for a thread that has ended.
func waiting(tasks, but string) map[string]string {
	found := make(map[string]string)
	dirs, err := os.ReadDir(tasks)
	if err != nil {
		return nil // without /proc nobody can tell
	}
	var buf [256]byte
	for _, d := range dirs {
		if d.Name() == but {
			continue
		}
		if call := readShort(filepath.Join(tasks, d.Name(), "syscall"), buf[:]); mayHang(call) {
			found[d.Name()] = string(call)
		}
	}
	return found
}

// readShort reads the beginning of a file into buf; what cannot be read is empty. os.ReadFile
// takes twice as long, and nobody is answered meanwhile.
func readShort(path string, buf []byte) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

// mayHang reads proc_pid_syscall(5): "running", or the number of the system
// call that the thread waits in, -1 for none, and its arguments. A Go program
// at rest has threads in a few of them, which any signal ends. Whether the
// state is S or D says nothing: it may become D only when execve sends SIGKILL.
func mayHang(call []byte) bool {
	number, _, _ := bytes.Cut(call, []byte(" "))
	n, err := strconv.Atoi(string(number))
	return err == nil && !slices.Contains([]int{
		unix.SYS_FUTEX, unix.SYS_EPOLL_PWAIT, sysEpollWait, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP,
	}, n)
}
