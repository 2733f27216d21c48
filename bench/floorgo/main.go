// Floorgo is bench/c/floor.c in Go: the least that a supervisor written in Go
// can do with the standard library's own start of a process. It shows how much
// of a supervisor's distance from the floor is Go's and how much is its own.
//
// Usage: floorgo SLOTS CHILD BOARD MODE LIFE_US
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// spawners is the number of goroutines that wait, reap and start, each on a
// thread of its own: vfork holds its caller until exec, so two start more than
// one.
const spawners = 2

// stop is the epoll datum of the descriptor that ends the loops.
const stop = -1

// slot belongs to the goroutine that took its event. The next event for it
// exists only once EPOLL_CTL_ADD has published it again.
type slot struct {
	argv       []string
	pidfd      int
	generation int32 // tells a late event of an earlier child
}

type loop struct {
	epfd  int
	env   []string
	slots []slot
	next  atomic.Int32
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "floorgo:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 5 {
		return errors.New("usage: floorgo SLOTS CHILD BOARD MODE LIFE_US")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	// A thread in vfork keeps its P: without spare ones the runtime stands still.
	runtime.GOMAXPROCS(runtime.NumCPU() + spawners)

	l := &loop{env: os.Environ(), slots: make([]slot, n)}
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	for i := range l.slots {
		l.slots[i].argv = []string{args[1], args[2], strconv.Itoa(i), args[3], args[4]}
	}
	stopfd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	// Level-triggered, so that every goroutine sees it.
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, stopfd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: stop}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	go func() {
		<-term
		unix.Write(stopfd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}()

	var wg sync.WaitGroup
	errs := make(chan error, spawners)
	for range spawners {
		wg.Go(func() {
			if err := l.work(); err != nil {
				errs <- err
				unix.Write(stopfd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			}
		})
	}
	wg.Wait()
	for i := range l.slots {
		unix.PidfdSendSignal(l.slots[i].pidfd, unix.SIGTERM, nil, 0)
	}
	for i := range l.slots {
		unix.Waitid(unix.P_PIDFD, l.slots[i].pidfd, nil, unix.WEXITED, nil)
	}
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func (l *loop) work() error {
	runtime.LockOSThread()
	for {
		i := int(l.next.Add(1)) - 1
		if i >= len(l.slots) {
			break
		}
		if err := l.start(i); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, 1) // one at a time, so that the work is shared
	for {
		n, err := unix.EpollWait(l.epfd, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		if n <= 0 {
			continue
		}
		if events[0].Fd == stop {
			return nil
		}
		i := int(events[0].Fd)
		s := &l.slots[i]
		if s.generation != events[0].Pad {
			continue
		}
		pid, status, err := wait(s.pidfd)
		if err != nil || pid == 0 {
			return fmt.Errorf("waitid: pid %d: %w", pid, err)
		}
		if status >= 100 {
			return fmt.Errorf("child %d exited %d", i, status)
		}
		// DEL before close: a child between clone and exec holds a copy.
		unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, s.pidfd, nil)
		unix.Close(s.pidfd)
		if err := l.start(i); err != nil {
			return err
		}
	}
}

func (l *loop) start(i int) error {
	s := &l.slots[i]
	_, err := syscall.ForkExec(s.argv[0], s.argv, &syscall.ProcAttr{
		Env:   l.env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{PidFD: &s.pidfd},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", s.argv[0], err)
	}
	s.generation++
	// ONESHOT: the reap wakes once more, which is not for us.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(i), Pad: s.generation}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, s.pidfd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait reaps without blocking. pid is 0 if the child still lives; status is
// the exit code, or 0 if a signal ended it.
func wait(pidfd int) (pid, status int, err error) {
	// siginfo_t as waitid(2) fills it on 64-bit Linux.
	var info struct {
		signo, errno, code, _ int32
		pid, uid, status      int32
		_                     [100]byte
	}
	if err := unix.Waitid(unix.P_PIDFD, pidfd, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG, nil); err != nil {
		return 0, 0, err
	}
	if info.code == 1 { // CLD_EXITED
		status = int(info.status)
	}
	return int(info.pid), status, nil
}
