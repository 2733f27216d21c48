package spawn

import (
	"errors"
	"os"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestIdentity(t *testing.T) {
	p := newTestPool(t, Options{Identify: true}, nil)
	p.Start(1, &Spec{Path: "sleep", Args: []string{"sleep", "1000"}})
	e := p.take(t, 1)[0]
	if e.Identity == nil || e.Identity.PID != e.PID {
		t.Fatalf("%+v", e)
	}
	id, err := Identify(p.Children()[0].PidFD)
	if err != nil || !reflect.DeepEqual(id, *e.Identity) {
		t.Errorf("identified as %+v (%v), started as %+v", id, err, *e.Identity)
	}
	for name, id := range map[string]Identity{
		"whole":          id,
		"without handle": {BootID: id.BootID, PID: id.PID, Inode: id.Inode, Start: id.Start},
	} {
		fd, err := id.Open(func(int) bool { return true })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if now, err := Identify(fd); err != nil || now.PID != e.PID || now.Inode != id.Inode {
			t.Errorf("%s: opened %+v, %v", name, now, err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: not close-on-exec", name)
		}
		unix.Close(fd)
	}
	other := id
	other.BootID = "another"
	if _, err := other.Open(nil); !errors.Is(err, ErrGone) {
		t.Errorf("another boot: %v", err)
	}
	if _, err := (Identity{BootID: id.BootID}).Open(nil); !errors.Is(err, ErrStranger) {
		t.Errorf("no pid: %v", err)
	}
	if _, err := Identify(0); err == nil {
		t.Error("identified what is no pidfd")
	}

	mine, err := TakeBack(p.Children()[0].PidFD, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(mine)
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(mine, &a), unix.Stat("/dev/null", &b)); err != nil || a.Rdev != b.Rdev || a.Ino != b.Ino {
		t.Errorf("took back %+v (%v), want %+v", a, err, b)
	}
	if _, err := TakeBack(p.Children()[0].PidFD, 99); !errors.Is(err, unix.EBADF) {
		t.Errorf("took back what is not there: %v", err)
	}
}

// devnulls are good for the first three descriptors of a child.
func devnulls(t *testing.T) [3]int {
	t.Helper()
	fd, err := openAbove2(unix.AT_FDCWD, "/dev/null", unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return [3]int{fd, fd, fd}
}

// run makes a child and waits until it has come to its program, or not.
func run(g *program, to *target) (pid, pidfd int, err *StartError) {
	pid = g.fly()
	if pid < 0 {
		return 0, -1, &StartError{Op: "clone", Errno: unix.Errno(-pid)}
	}
	for !g.left() {
		g.awaitLeft(time.Second)
	}
	if !g.arrived() {
		err = g.failure(to)
	}
	return pid, int(g.pidfd), err
}

// newProgram returns one on the heap, where a flight has its own: the kernel
// writes into it, and a stack may move.
//
//go:noinline
func newProgram() *program { return new(program) }

// startAs starts a program with that pid, or with any if it is 0: clone3(2)'s
// set_tid, which takes CAP_CHECKPOINT_RESTORE. The caller reaps it.
func startAs(t *testing.T, pid int) (int, int) {
	t.Helper()
	fds := devnulls(t)
	orig, err := originalLimit()
	if err != nil {
		t.Fatal(err)
	}
	g, to := newProgram(), &target{path: "/bin/sleep", args: []string{"sleep", "1000"}}
	if !g.setup(to, &fds, -1, &Pool{orig: orig}) {
		t.Fatal("setup")
	}
	tid := int32(pid)
	if pid != 0 {
		args := (*[11]uint64)(unsafe.Pointer(&g.args))
		args[8], args[9] = uint64(uintptr(unsafe.Pointer(&tid))), 1
	}
	got, pidfd, serr := run(g, to)
	if serr != nil {
		if serr.Errno == unix.EEXIST {
			return 0, -1 // taken by somebody
		}
		t.Fatal(serr)
	}
	return got, pidfd
}

func endAs(t *testing.T, pidfd int) {
	t.Helper()
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
		t.Error(err)
	}
	if _, errno := waitDying(pidfd); errno != 0 {
		t.Error(errno)
	}
	unix.Close(pidfd)
}

// TestPidReuse gives the pid of a dead process to another one at once.
func TestPidReuse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: to choose a pid")
	}
	if !haveClone3() {
		t.Skip("needs clone3 with set_tid: Linux 5.5")
	}
	reused := 0
	for range 100 {
		pid, pidfd := startAs(t, 0)
		id, err := Identify(pidfd)
		if err != nil {
			t.Fatal(err)
		}
		old, err := startTime(pid, pidfd)
		if err != nil {
			t.Fatal(err)
		}
		endAs(t, pidfd)
		if _, err := id.Open(nil); !errors.Is(err, ErrGone) && !errors.Is(err, ErrStranger) {
			t.Fatalf("of a dead process: %v", err)
		}
		next, nextfd := startAs(t, pid)
		if next == 0 {
			continue
		}
		reused++
		now, err := startTime(next, nextfd)
		if err != nil {
			t.Fatal(err)
		}
		noHandle, byTime := id, id
		noHandle.Handle = nil
		byTime.Handle, byTime.Inode, byTime.Start = nil, 0, now // as if it had begun in the same tick
		if fd, err := id.Open(nil); err == nil || !errors.Is(err, ErrGone) && !errors.Is(err, ErrStranger) {
			t.Fatalf("opened %d: %v", fd, err)
		}
		yes, no := func(int) bool { return true }, func(int) bool { return false }
		if fd, err := noHandle.Open(yes); id.Inode != 0 && !errors.Is(err, ErrStranger) {
			t.Fatalf("by inode: opened %d: %v", fd, err)
		}
		for _, verify := range []func(int) bool{nil, no} {
			if fd, err := byTime.Open(verify); !errors.Is(err, ErrStranger) {
				t.Fatalf("by an equal start time: opened %d: %v", fd, err)
			}
		}
		if byTime.Start = old; old != now {
			if fd, err := byTime.Open(yes); !errors.Is(err, ErrStranger) {
				t.Fatalf("by another start time: opened %d: %v", fd, err)
			}
		}
		byTime.Start = now
		fd, err := byTime.Open(yes)
		if err != nil {
			t.Fatalf("by start time and verified: %v", err)
		}
		unix.Close(fd)
		endAs(t, nextfd)
	}
	if reused < 50 {
		t.Errorf("only %d pids were used again", reused)
	}
}

func BenchmarkIdentify(b *testing.B) {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(self)
	for b.Loop() {
		if _, err := identify(os.Getpid(), self); err != nil {
			b.Fatal(err)
		}
	}
}
