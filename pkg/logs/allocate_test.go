package logs

import (
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestAllocateUnderSignals: a signal that arrives while a file is given memory is not
// the end of it. SIGURG is the one by which Go preempts, and is always handled. Later
// kernels than 6.1 let only deadly signals end it: there this shows nothing.
func TestAllocateUnderSignals(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.MemfdCreate("allocate", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	began := time.Now()
	const size = 8 << 20
	if err := unix.Fallocate(fd, 0, 0, size); err != nil {
		t.Fatal(err)
	}
	signalEvery(t, max(time.Millisecond, 3*time.Since(began)))
	interrupted := 0
	for n := 0; n < 50 && interrupted < 3; n++ {
		for _, f := range []func() error{
			func() error {
				err := unix.Fallocate(fd, 0, 0, size)
				if err == unix.EINTR {
					interrupted++
				}
				return nil
			},
			func() error { return allocate(fd, 0, size) },
		} {
			if err := unix.Ftruncate(fd, 0); err != nil {
				t.Fatal(err)
			}
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("signals ended %d allocations early", interrupted)
}

// signalEvery has a timer send SIGURG to this thread, see timer_create(2).
func signalEvery(t *testing.T, d time.Duration) {
	event := struct {
		value          uint64
		signal, notify int32
		tid            int32
		_              [44]byte
	}{signal: int32(unix.SIGURG), notify: 4 /* SIGEV_THREAD_ID */, tid: int32(unix.Gettid())}
	var id int32
	_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id)))
	if errno != 0 {
		t.Fatalf("timer_create: %v", errno)
	}
	t.Cleanup(func() { unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(id), 0, 0) })
	spec := [2]unix.Timespec{unix.NsecToTimespec(int64(d)), unix.NsecToTimespec(int64(d))}
	if _, _, errno = unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(id), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); errno != 0 {
		t.Fatalf("timer_settime: %v", errno)
	}
}
