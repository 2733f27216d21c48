package procevents

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// quietAfter is how long nothing may be heard before an event is caused: the
	// most that a listener wakes an idle host.
	quietAfter = 10 * time.Second
	// answerWithin is how long that event may take. An idle host needs
	// microseconds; one under load has other events.
	answerWithin = 2 * time.Second
	// proveWithin is the same for a new subscription.
	proveWithin = time.Second
)

// proof is an event that this process caused to see whether it arrives.
type proof struct {
	pid, tid int32
	from, to time.Duration // CLOCK_MONOTONIC before and after
}

// prove causes an event: it gives the calling thread the name that it has
// already, which changes nothing, costs some microseconds and needs no right.
func prove() (p proof, err error) {
	// Between the calls the goroutine must not change threads, or the one would
	// get the other's name.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p.pid, p.tid = int32(unix.Getpid()), int32(unix.Gettid())
	if p.from, err = monotonic(); err != nil {
		return p, err
	}
	var name [16]byte
	if _, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_GET_NAME, uintptr(unsafe.Pointer(&name)), 0); errno != 0 {
		return p, fmt.Errorf("proc connector: %w", os.NewSyscallError("prctl PR_GET_NAME", errno))
	}
	if _, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name)), 0); errno != 0 {
		return p, fmt.Errorf("proc connector: %w", os.NewSyscallError("prctl PR_SET_NAME", errno))
	}
	p.to, err = monotonic()
	return p, err
}

// is reports whether e is that event.
func (p *proof) is(e *Event) bool {
	return e.Kind == Comm && e.PID == p.tid && e.TGID == p.pid && p.from <= e.Timestamp && e.Timestamp <= p.to
}

func monotonic() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("proc connector: %w", os.NewSyscallError("clock_gettime", err))
	}
	return time.Duration(ts.Nano()), nil
}

// check is called when nothing was received for a time, or when that time ended
// while the caller was elsewhere. It causes an event if nothing was heard for
// long, and returns an error if the one that it caused before has not come.
func (l *Listener) check() error {
	now, err := monotonic()
	if err != nil {
		return err
	}
	if l.heard >= l.proof.from {
		l.asked = false
	}
	quiet := now - l.heard
	switch {
	case quiet < l.quietAfter:
		return l.checkIn(l.quietAfter - quiet)
	case !l.asked:
		if l.proof, err = prove(); err != nil {
			return err
		}
		l.asked = true
		l.proofs.Add(1)
		return l.checkIn(l.answerWithin)
	case l.readable(): // the answer may be among what is queued
		return l.checkIn(l.answerWithin)
	}
	return fmt.Errorf("%w for %.0f s, nor does one of our own; somebody may have turned them off: subscribe anew and read again what is tracked",
		ErrSilent, quiet.Seconds())
}

// answered puts the next check off when the event that was caused has come, so
// that an idle host is woken once for it.
func (l *Listener) answered() {
	l.asked = false
	_ = l.checkIn(l.quietAfter) // fails for a closed socket only, as the next read does
}

// readable reports whether anything, an error included, waits in the socket.
func (l *Listener) readable() bool {
	fds := []unix.PollFd{{Events: unix.POLLIN}}
	err := l.control(func(fd int) error {
		fds[0].Fd = int32(fd)
		_, err := unix.Poll(fds, 0)
		return err
	})
	return err != nil || fds[0].Revents != 0
}

// awaitProof waits for an event of our own, and drops all before it.
func (l *Listener) awaitProof() error {
	if err := l.SetReadDeadline(time.Now().Add(proveWithin)); err != nil {
		return err
	}
	own, err := prove()
	if err != nil {
		return err
	}
	kinds := l.kinds.Swap(uint32(allKinds)) // whatever came is to be returned
	events := make([]Event, batchLen)
	for l.heard < own.from {
		switch _, err := l.Receive(events); {
		case errors.Is(err, ErrLost): // perhaps that very event
			if own, err = prove(); err != nil {
				return err
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return ErrSilent
		case err != nil:
			return err
		}
	}
	l.kinds.Store(kinds)
	l.proof = own // which may come yet, if another was faster
	if err := l.checkIn(l.quietAfter); err != nil {
		return err
	}
	return l.SetReadDeadline(time.Time{})
}

// The socket's one deadline is the earlier of the caller's and our own.

// SetReadDeadline makes a Receive that waits, or will, fail at t with an error
// that matches [os.ErrDeadlineExceeded]. The zero time means never.
func (l *Listener) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	return l.arm()
}

// checkIn has check called after d.
func (l *Listener) checkIn(d time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checkAt = time.Now().Add(d)
	return l.arm()
}

func (l *Listener) arm() error {
	at := l.deadline
	if at.IsZero() || !l.checkAt.IsZero() && l.checkAt.Before(at) {
		at = l.checkAt
	}
	if err := l.sock.set.SetReadDeadline(at); err != nil {
		return l.ioError("set deadline", err)
	}
	return nil
}

// overdue reports whether the caller's deadline has passed.
func (l *Listener) overdue() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.deadline.IsZero() && !time.Now().Before(l.deadline)
}
