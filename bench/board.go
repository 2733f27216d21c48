package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The layout of c/board.h.
const (
	boardSlotsAt = 4096
	boardSlot    = 64

	offQuit    = 0
	offSlots   = 4
	offRoom    = 8
	offStarts  = 16
	offSamples = 24

	offSlotStarts = 0
	offSlotStart  = 8
	offSlotExit   = 16
	offSlotPID    = 24
)

// board is the shared page on which the children leave their marks. Its
// methods may be used while children write.
type board struct {
	path  string
	mem   []byte
	slots int
	room  int
}

// newBoard makes an empty board in dir, which ought to be on a tmpfs: there a
// mark costs a child a store and nothing else.
func newBoard(dir string, slots, room int) (*board, error) {
	b := &board{path: filepath.Join(dir, "board"), slots: slots, room: room}
	f, err := os.OpenFile(b.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size := boardSlotsAt + slots*boardSlot + room*8
	if err := f.Truncate(int64(size)); err != nil {
		return nil, err
	}
	if b.mem, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map %s: %w", b.path, err)
	}
	*(*uint32)(unsafe.Pointer(&b.mem[offSlots])) = uint32(slots)
	*b.word(offRoom) = uint64(room)
	return b, nil
}

func (b *board) word(off int) *uint64 { return (*uint64)(unsafe.Pointer(&b.mem[off])) }

func (b *board) slot(i, field int) uint64 {
	return atomic.LoadUint64(b.word(boardSlotsAt + i*boardSlot + field))
}

// starts is how many children reached main, over all slots.
func (b *board) starts() uint64 { return atomic.LoadUint64(b.word(offStarts)) }

// sampled is how many restarts were timed; no more than there was room for.
func (b *board) sampled() int { return int(min(atomic.LoadUint64(b.word(offSamples)), uint64(b.room))) }

// samples are the times from the end of a child to the start of the next.
func (b *board) samples() []time.Duration {
	s := make([]time.Duration, b.sampled())
	for i := range s {
		s[i] = time.Duration(atomic.LoadUint64(b.word(boardSlotsAt + b.slots*boardSlot + i*8)))
	}
	return s
}

// allStarted says whether every slot has seen n starts.
func (b *board) allStarted(n uint64) bool {
	if b.starts() < n*uint64(b.slots) {
		return false
	}
	for i := range b.slots {
		if b.slot(i, offSlotStarts) < n {
			return false
		}
	}
	return true
}

// startSpan is when the first and the last of the present children started.
func (b *board) startSpan() (first, last time.Duration) {
	first = math.MaxInt64
	for i := range b.slots {
		t := time.Duration(b.slot(i, offSlotStart))
		first, last = min(first, t), max(last, t)
	}
	return first, last
}

// lastExit is when the last child noted its end, and how many did.
func (b *board) lastExit() (last time.Duration, n int) {
	for i := range b.slots {
		if t := time.Duration(b.slot(i, offSlotExit)); t != 0 {
			last = max(last, t)
			n++
		}
	}
	return last, n
}

// pid of the present child of slot i, 0 if none started yet.
func (b *board) pid(i int) int { return int(b.slot(i, offSlotPID)) }

// release lets every child that waits on the board leave.
func (b *board) release() {
	quit := (*uint32)(unsafe.Pointer(&b.mem[offQuit]))
	atomic.StoreUint32(quit, 1)
	const futexWake = 1
	unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(quit)), futexWake, math.MaxInt32, 0, 0, 0)
}

func (b *board) close() {
	unix.Munmap(b.mem)
	os.Remove(b.path)
}

// monotonic is CLOCK_MONOTONIC, the clock of the marks.
func monotonic() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return time.Duration(t.Nano())
}
