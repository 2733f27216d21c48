package spawn

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// aheadSlot is a slot whose children write to a FIFO, and what a test sees of that.
type aheadSlot struct {
	*Pool
	t    *testing.T
	spec Spec
	last Token
}

func newAheadSlot(t *testing.T) *aheadSlot {
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	out := Stdio{Path: filepath.Join(dir, "out"), Dir: fd, Flags: unix.O_RDWR, ID: 1}
	a := &aheadSlot{
		t:    t,
		spec: Spec{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Stdout: out, Stderr: out, Place: Place{Cgroup: testCgroups(t).Path("test:0")}},
	}
	a.Pool = newTestPool(t, Options{}, nil)
	a.makeFIFO(1)
	return a
}

// makeFIFO makes another one at the path.
func (a *aheadSlot) makeFIFO(id uint64) {
	a.t.Helper()
	os.Remove(a.spec.Stdout.Path)
	if err := unix.Mkfifo(a.spec.Stdout.Path, 0o600); err != nil {
		a.t.Fatal(err)
	}
	a.spec.Stdout.ID, a.spec.Stderr.ID = id, id
}

// next ends the child, if there is one, starts another, and returns its output, in the
// description that the child has.
func (a *aheadSlot) next() (out int) {
	a.t.Helper()
	if a.last > 0 {
		a.end()
	}
	a.last++
	spec := a.spec
	a.Start(a.last, &spec)
	ev := a.take(a.t, 1)[0]
	if ev.Kind != Started {
		a.t.Fatalf("%+v", ev)
	}
	pidfd, err := unix.PidfdOpen(ev.PID, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if out, err = unix.PidfdGetfd(pidfd, 1, 0); err != nil {
		a.t.Fatal(err)
	}
	return out
}

// end ends the child.
func (a *aheadSlot) end() {
	a.t.Helper()
	if err := signalOne(a.Pool, a.last, int(unix.SIGKILL)); err != nil {
		a.t.Fatal(err)
	}
	if ev := a.take(a.t, 1)[0]; ev.Kind != Exited || !ev.TreeEmpty {
		a.t.Fatalf("%+v", ev)
	}
}

// keptOut is ready while no child runs.
func (a *aheadSlot) keptOut() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.kept[a.spec.Place.Cgroup].files.out
}

// ready returns what is open for the next child, or -1.
func (a *aheadSlot) ready() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.children[a.last].files.out
}

func inodeOf(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestOpenedAhead: what the next child writes to is opened while the one before it runs, and is
// all the same that child's own, of the file that is there by then.
func TestOpenedAhead(t *testing.T) {
	a := newAheadSlot(t)
	first := a.next()
	if _, err := unix.FcntlInt(uintptr(first), unix.F_SETFL, unix.O_RDWR|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		ready := a.ready()
		if ready < 0 || inodeOf(t, ready) != inodeOf(t, first) {
			t.Fatalf("%d is open for the next child", ready)
		}
		// What becomes of it shows whether that child gets it.
		if _, err := unix.FcntlInt(uintptr(ready), unix.F_SETFL, unix.O_RDWR|unix.O_APPEND); err != nil {
			t.Fatal(err)
		}
		out := a.next()
		flags, err := unix.FcntlInt(uintptr(out), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK != 0 || flags&unix.O_APPEND == 0 {
			t.Errorf("the output has the flags %#o (%v)", flags, err)
		}
		unix.Close(out)
	}
	a.makeFIFO(2)
	out := a.next()
	if inodeOf(t, out) == inodeOf(t, first) || inodeOf(t, a.ready()) != inodeOf(t, out) {
		t.Error("the child writes to a FIFO that is gone, or the next one will")
	}
	unix.Close(out)
	unix.Close(first)

	// A direct start that fails leaves it to the spawner.
	inode := inodeOf(t, a.ready())
	a.end()
	bad := a.spec
	bad.EnvLast = "A=\x00"
	a.mu.Lock()
	started := a.startDirect(a.last+1, &bad)
	a.mu.Unlock()
	if started || inodeOf(t, a.keptOut()) != inode {
		t.Errorf("started: %t, or what was open for the child is not kept", started)
	}
	a.last = 0
	unix.Close(a.next())
	if list := a.Leftovers(); !slices.Contains(list, a.ready()) {
		t.Errorf("%d is not in %v", a.ready(), list)
	}

	// Who does not know the file has it opened at each start.
	a.makeFIFO(0)
	for range 2 {
		out := a.next()
		var st unix.Stat_t
		if err := unix.Stat(a.spec.Stdout.Path, &st); err != nil || st.Ino != inodeOf(t, out) {
			t.Errorf("the child writes to another FIFO than the one at the path (%v)", err)
		}
		unix.Close(out)
		a.makeFIFO(0)
	}
}

// TestNotOpenedAhead: nothing is opened for a child that will not be started directly.
func TestNotOpenedAhead(t *testing.T) {
	score := 0
	for name, change := range map[string]func(*aheadSlot){
		"score of ours":  func(a *aheadSlot) { a.oom = &score },
		"score":          func(a *aheadSlot) { a.spec.Attributes = &Attributes{OOMScoreAdj: &score} },
		"unknown":        func(a *aheadSlot) { a.spec.Stdout.ID, a.spec.Stderr.ID = 0, 0 },
		"apart":          func(a *aheadSlot) { a.spec.Stderr = Stdio{} },
		"not kept open":  func(a *aheadSlot) { a.held.Add(a.mostHeld) },
		"limited memory": nil,
	} {
		t.Run(name, func(t *testing.T) {
			a := newAheadSlot(t)
			if change == nil {
				files := noFiles()
				files.events, files.limited = 0, true
				if a.openOut(&files, &a.spec); files.out >= 0 {
					t.Errorf("%d", files.out)
				}
				return
			}
			change(a)
			unix.Close(a.next())
			if fd := a.ready(); fd >= 0 {
				t.Errorf("%d", fd)
			}
		})
	}
}

// TestPlaceIsLetGo: all that is open for a place is closed with it, and with one beside it.
func TestPlaceIsLetGo(t *testing.T) {
	a := newAheadSlot(t)
	place := a.spec.Place.Cgroup
	a.spec.Place.Cgroup = beside(place, 1)
	unix.Close(a.next())
	a.end()
	if fd := a.keptOut(); fd <= 2 {
		t.Fatalf("%d is kept", fd)
	}
	a.RemoveCgroup(place)
	a.mu.Lock()
	kept, held := len(a.kept), a.held.Load()
	a.mu.Unlock()
	if kept != 0 || held != 0 {
		t.Errorf("%d places are kept, %d held", kept, held)
	}
	files := noFiles()
	var err error
	if files.out, err = unix.FcntlInt(uintptr(a.wakefd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
		t.Fatal(err)
	}
	out := files.out
	a.close(&files)
	if _, err := unix.FcntlInt(uintptr(out), unix.F_GETFD, 0); err != unix.EBADF || files.out >= 0 {
		t.Errorf("%d is open still (%v)", out, err)
	}
}
