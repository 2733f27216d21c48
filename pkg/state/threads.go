package state

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// hangGrace is how long a thread may wait for a disk and not count as one
	// that hangs.
	hangGrace = 50 * time.Millisecond
	hangPoll  = 5 * time.Millisecond
)

// noThreadHangs returns an error if a thread of this process sleeps in the
// kernel where no signal reaches it (state D in proc_pid_stat(5)), on a file
// system that does not answer, say. execve(2) ends all other threads and waits
// for that without a limit: the process would be neither the old program nor
// the new one until the file system answers.
func noThreadHangs() error {
	deadline := time.Now().Add(hangGrace)
	for {
		err := hangingThread("/proc/self/task")
		if err == nil || !time.Now().Before(deadline) {
			return err
		}
		<-time.After(hangPoll)
	}
}

// hangingThread looks once, at the threads below that directory. What it cannot
// read it takes for a thread that has ended.
func hangingThread(tasks string) error {
	dirs, err := os.ReadDir(tasks)
	if err != nil {
		return nil // without /proc nobody can tell
	}
	for _, d := range dirs {
		stat, err := os.ReadFile(filepath.Join(tasks, d.Name(), "stat"))
		if err != nil || !uninterruptible(stat) {
			continue
		}
		where, _ := os.ReadFile(filepath.Join(tasks, d.Name(), "wchan")) // "0" for who may not know
		return fmt.Errorf("thread %s hangs in the kernel (%s), which execve would wait for", d.Name(), where)
	}
	return nil
}

// uninterruptible reads the state from a line of proc_pid_stat(5). The name
// before it may hold any character.
func uninterruptible(stat []byte) bool {
	_, state, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	return ok && bytes.HasPrefix(state, []byte("D"))
}
