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

// Probe makes the kernel send an event that is ours: it gives the calling
// thread the name that it has already, which changes nothing and costs some
// microseconds. The receiving goroutine recognises the event by
// [Listener.IsProbe]. If none has come after a time that is long for the
// machine, a second say, and no overrun either, then the connector is silent
// and the subscription should be made anew.
func (l *Listener) Probe() error {
	// Between the two calls the goroutine must not change threads, or the one
	// would get the other's name.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return fmt.Errorf("proc connector: probe: %w", os.NewSyscallError("clock_gettime", err))
	}
	l.probed.Store(ts.Nano())
	var name [16]byte
	if _, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_GET_NAME, uintptr(unsafe.Pointer(&name)), 0); errno != 0 {
		return fmt.Errorf("proc connector: probe: %w", os.NewSyscallError("prctl PR_GET_NAME", errno))
	}
	if _, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name)), 0); errno != 0 {
		return fmt.Errorf("proc connector: probe: %w", os.NewSyscallError("prctl PR_SET_NAME", errno))
	}
	return nil
}

// IsProbe reports whether e was caused by this process no earlier than the last
// Probe, and so shows that events arrive.
func (l *Listener) IsProbe(e *Event) bool {
	return e.Kind == Comm && int(e.TGID) == os.Getpid() && int64(e.Timestamp) >= l.probed.Load()
}

// prove waits for an event of our own, and drops all before it.
func (l *Listener) prove(timeout time.Duration) error {
	if err := l.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return fmt.Errorf("proc connector: %w", err)
	}
	if err := l.Probe(); err != nil {
		return err
	}
	events := make([]Event, batchLen)
	for {
		n, err := l.Receive(events)
		switch {
		case errors.Is(err, ErrOverrun): // perhaps of that very event
			if err := l.Probe(); err != nil {
				return err
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			return ErrSilent
		case err != nil:
			return err
		}
		for i := range events[:n] {
			if l.IsProbe(&events[i]) {
				return l.conn.SetReadDeadline(time.Time{})
			}
		}
	}
}
