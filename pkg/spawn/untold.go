package spawn

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Who has another witness of ends than pidfds, the proc connector for example,
// learns here of whom to ask it, and whether what it says of one thread is true
// of its process.

// Untold returns the survivors that were not reaped yet, as far as known here, and of
// whose status the kernel keeps nothing once they are: all of them before Linux 6.15,
// none from then on. Whether it does is found out by trying, once, when there
// is the first survivor.
func (p *Pool) Untold() []Token {
	var list []Token
	p.mu.Lock()
	for t, c := range p.children {
		if c.survivor && !c.ended {
			list = append(list, t)
		}
	}
	p.mu.Unlock()
	if len(list) > 0 && p.keeps() {
		return nil
	}
	return list
}

// Threads returns how many threads the process of a survivor has, and an instant
// on CLOCK_MONOTONIC before they were counted. It is false if the token is not
// a survivor's, or that is dead by now; else it lived when they were counted. A
// first thread that has ended counts as long as others go on.
func (p *Pool) Threads(token Token) (n int, at time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.children[token]
	if c == nil || !c.survivor || c.ended {
		return 0, 0, false
	}
	// Not p.clock, which may be a little fast.
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0, 0, false
	}
	st, err := readStat(c.pid)
	// While it lives the pid is its own.
	if err != nil || dead(c.pidfd) {
		return 0, 0, false
	}
	return st.threads, time.Duration(now.Nano()), true
}

// keepsStatus reports whether pidfs keeps the status of what was reaped
// (PIDFD_INFO_EXIT, Linux 6.15). A thread of our own shows it, which the kernel
// reaps by itself: no child has to be made.
func keepsStatus() bool {
	tid := make(chan int)
	end := make(chan struct{})
	go ownThread(tid, end)
	fd, err := unix.PidfdOpen(<-tid, unix.PIDFD_THREAD) // Linux 6.9
	close(end)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// The end of the thread is told before the reap, which is told by HUP.
	for {
		fds := [1]unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(fds[:], int(threadPatience.Milliseconds()))
		if err != unix.EINTR {
			break
		}
	}
	_, ok := keptStatus(fd)
	return ok
}

// ownThread tells of a thread that ends when end is closed.
func ownThread(tid chan<- int, end <-chan struct{}) {
	runtime.LockOSThread() // locked, it ends with the goroutine
	if unix.Gettid() != unix.Getpid() {
		tid <- unix.Gettid()
		<-end
		return
	}
	// But the first thread never does. As long as it is held here the next
	// goroutine has another.
	defer runtime.UnlockOSThread()
	var next sync.WaitGroup
	next.Go(func() { ownThread(tid, end) })
	next.Wait()
}

// threadPatience bounds the wait for a thread that has nothing left to do. A
// kernel that does not tell of its end keeps no status either.
const threadPatience = time.Second
