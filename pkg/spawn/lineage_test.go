package spawn

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestOrphanEndsWhileLookedAt: the one orphan that was found ends before it is
// watched, and leaves another. The tree is not empty.
func TestOrphanEndsWhileLookedAt(t *testing.T) {
	fifo := t.TempDir() + "/fifo"
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var orphan int // its pidfd
	var once sync.Once
	p := newTestPool(t, Options{Step: func(name string) {
		if name != "listed" {
			return
		}
		once.Do(func() {
			w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return
			}
			fmt.Fprintln(w)
			w.Close()
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(orphan), Events: unix.POLLIN}}, int(time.Minute/time.Millisecond)); n != 1 {
				t.Errorf("the orphan does not end: %v", err)
			}
		})
	}}, nil)
	place := Place{Marks: []string{"TREE=" + t.TempDir()}}
	pidfile := fifo + ".pid"
	startIn(t, p, 1, place, fmt.Sprintf("sh -c 'read x <%s; sleep 1002 & exit' & echo $! >%s; echo; exec sleep 1000", fifo, pidfile))
	text, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	if orphan, err = unix.PidfdOpen(pid, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(orphan)
	if err := signalOne(p, 1, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	ev := p.take(t, 2)
	if exit := ev[1]; exit.Kind != Exited || exit.TreeEmpty || len(exit.Members) != 1 || exit.Members[0].PID == pid {
		t.Errorf("%+v", exit)
	}
	if err := p.SignalTree(1, int(unix.SIGKILL)); err != nil {
		t.Error(err)
	}
	p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
}

// helpSibling makes a process that is no child of it, but of its parent, and ends.
func helpSibling() error {
	argv, err := syscall.SlicePtrFromStrings([]string{"sleep", "1003"})
	if err != nil {
		return err
	}
	path, err := syscall.BytePtrFromString("/bin/sleep")
	if err != nil {
		return err
	}
	env := []*byte{nil}
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_PARENT|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	switch {
	case errno != 0:
		return errno
	case pid == 0:
		unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])))
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 99, 0, 0)
	}
	fmt.Println()
	return nil
}

// TestSiblings: what a main process made with CLONE_PARENT is of its tree, though it is a
// child of the thread of ours that made that one. It is told by its session.
func TestSiblings(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := newTestPool(t, Options{}, nil)
	startIn(t, p, 1, Place{Marks: []string{"TREE=" + t.TempDir()}}, "SPAWN_TEST_HELPER=sibling exec "+exe)
	exit := p.take(t, 2)[1]
	if exit.Kind != Exited || exit.TreeEmpty || len(exit.Members) != 1 {
		t.Fatalf("%+v", exit)
	}
	if err := p.SignalTree(1, int(unix.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	p.until(t, func([]Event) bool { return len(p.Children()) == 0 })
	// It was reaped, too.
	if _, err := unix.Getsid(exit.Members[0].PID); !errors.Is(err, unix.ESRCH) {
		t.Errorf("it is still there: %v", err)
	}
}
