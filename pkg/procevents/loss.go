package procevents

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrLost is matched by every [LostError].
var ErrLost = errors.New("proc connector: events were lost")

// LostError is returned by [Listener.Receive] when events were lost.
type LostError struct {
	// Events is how many, as far as the kernel has counted them; 0 if it has
	// not. Where events are filtered those are only the ones asked for, and the
	// few that prove that events arrive.
	Events uint64
	// Overrun tells that the reader was too slow for the buffer. Otherwise the
	// kernel made no message, as when it has no memory for one, and a gap in its
	// numbers shows that: only where all kinds are asked for.
	Overrun bool
}

// Error says how many were lost and why.
func (e *LostError) Error() string {
	n := "an unknown number of"
	if e.Events != 0 {
		n = fmt.Sprint(e.Events)
	}
	why := "the kernel could not send them"
	if e.Overrun {
		why = "the reader was too slow for the buffer"
	}
	return fmt.Sprintf("proc connector: %s events were lost, %s", n, why)
}

// Is makes a LostError match ErrLost.
func (e *LostError) Is(target error) bool { return target == ErrLost }

// Lost returns how many events the kernel has dropped because the buffer was
// full, since the socket was opened. The count is the kernel's (SO_MEMINFO,
// Linux 4.12; also in /proc/net/netlink) and wraps around at 32 bits.
func (l *Listener) Lost() (uint32, error) {
	var info [unix.SK_MEMINFO_VARS]uint32
	err := l.control(func(fd int) error {
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("proc connector: getsockopt SO_MEMINFO: %w", err)
	}
	return info[unix.SK_MEMINFO_DROPS], nil
}

// overrunError tells of the drops since the last one.
func (l *Listener) overrunError() error {
	e := &LostError{Overrun: true}
	if drops, err := l.Lost(); err == nil {
		e.Events = uint64(drops - l.reported)
		l.reported = drops
	}
	return e
}

// sequence finds gaps in the numbers that the messages of each CPU have. The
// kernel counts up, and sends, with that CPU held.
type sequence struct {
	next []uint32 // by CPU: the number expected
	seen []bool   // by CPU: whether there is one
	gaps uint64   // messages that were missing so far
	told uint64   // of these, reported as lost otherwise than by an overrun
}

// maxCPUs is more than any kernel is built for.
const maxCPUs = 1 << 16

// add takes in a message and returns how many are missing before it.
func (s *sequence) add(cpu, seq uint32) (missing uint32) {
	if cpu >= maxCPUs { // no kernel's
		return 0
	}
	if n := int(cpu) + 1; n > len(s.next) {
		s.next = append(s.next, make([]uint32, n-len(s.next))...)
		s.seen = append(s.seen, make([]bool, n-len(s.seen))...)
	}
	if s.seen[cpu] {
		missing = seq - s.next[cpu]
	}
	s.next[cpu], s.seen[cpu] = seq+1, true
	if missing > 1<<31 { // backwards: begun anew
		return 0
	}
	s.gaps += uint64(missing)
	return missing
}

// unexplained returns how many messages are missing that were not dropped
// because of a full buffer and not reported before. drops may have come that no
// later message has shown yet, so the result is never too high.
func (s *sequence) unexplained(drops uint32) uint64 {
	explained := uint64(drops) + s.told
	if s.gaps <= explained {
		return 0
	}
	n := s.gaps - explained
	s.told += n
	return n
}

// checkGaps is called when messages are missing. It returns an error if no
// overrun explains that.
func (l *Listener) checkGaps() error {
	drops, err := l.Lost()
	if err != nil {
		return err
	}
	if n := l.sequence.unexplained(drops); n > 0 {
		return &LostError{Events: n}
	}
	return nil
}
