package state

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSystemCallsThatMayHang(t *testing.T) {
	for call, want := range map[string]bool{
		"running\n": false,
		"":          false,
		fmt.Sprintf("%d 0x1 0x80 0x0 0x7ffc 0x47\n", unix.SYS_FUTEX):       false,
		fmt.Sprintf("%d 0x1 0x80 0x0 0x7ffc 0x47\n", unix.SYS_EPOLL_PWAIT): false,
		fmt.Sprintf("%d 0x1 0x80 0x0 0x7ffc 0x47\n", unix.SYS_OPENAT):      true,
		"-1 0x7ffc 0x47\n": true, // a page that is not there
	} {
		if got := mayHang([]byte(call)); got != want {
			t.Errorf("%q: %v", call, got)
		}
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
