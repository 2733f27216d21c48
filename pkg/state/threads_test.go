package state

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestThreadThatHangsIsNamed(t *testing.T) {
	tasks := t.TempDir()
	thread := func(tid, syscall, wchan string) {
		t.Helper()
		dir := filepath.Join(tasks, tid)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"syscall": syscall, "wchan": wchan} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	thread("10", fmt.Sprintf("%d 0x1 0x80 0x0 0x7ffc 0x47\n", unix.SYS_FUTEX), "futex_do_wait")
	thread("11", fmt.Sprintf("%d 0x1 0x80 0x0 0x7ffc 0x47\n", unix.SYS_EPOLL_PWAIT), "do_epoll_wait")
	thread("12", "running\n", "0")
	thread("13", "", "")
	if err := hangingThread(tasks); err != nil {
		t.Errorf("none hangs: %v", err)
	}
	thread("14", fmt.Sprintf("%d 0x1 0x80 0x0 0x7ffc 0x47\n", unix.SYS_OPENAT), "request_wait_answer")
	if err := hangingThread(tasks); err == nil || !strings.Contains(err.Error(), "thread 14 hangs in the kernel (request_wait_answer)") {
		t.Errorf("got %v", err)
	}
}

func TestThreadInAReadThatNeverEndsHangs(t *testing.T) {
	if _, err := os.ReadFile("/proc/self/syscall"); err != nil {
		t.Skipf("needs /proc/PID/syscall: %v", err)
	}
	if err := noThreadHangs(); err != nil {
		t.Errorf("at rest: %v", err)
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var b [1]byte
		unix.Read(p[0], b[:])
	}()
	var err error
	for err == nil && t.Context().Err() == nil {
		err = noThreadHangs() // the thread may not be in read yet
	}
	unix.Close(p[1])
	<-ended
	if err == nil || !strings.Contains(err.Error(), "hangs in the kernel") {
		t.Errorf("got %v", err)
	}
}
