package spawn

import (
	"bytes"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cloneArgs is struct clone_args of clone3(2) as of Linux 5.7.
type cloneArgs struct {
	flags, pidfd uint64
	childTID     uint64
	parentTID    uint64
	exitSignal   uint64
	_, _, _      uint64 // stack, stack_size, tls
	_, _         uint64 // set_tid, set_tid_size
	cgroup       uint64
}

// step is one system call of the child. An error ends the child. Its layout is
// known to the assembly.
type step struct {
	nr   uintptr // of the system call, or writePID
	args [5]uintptr
}

// writePID is a step that is no system call: it writes the child's own pid, in
// decimal and with a NUL, to the address that is its argument. The memory is
// ours, so only then does it exist anywhere.
const writePID = ^uintptr(0)

// result is what the child leaves for us. Its layout is known to the assembly.
type result struct {
	begun uintptr // number of steps begun
	errno uintptr // of the last of them, 0 if it did not return
}

// program is all that a child reads and writes between clone and execve,
// prepared beforehand: a list of system calls, the strings they point to, and
// a place for the result. The child runs no Go code at all, so it needs
// neither stack nor scheduler, can not meet a lock, and a further attribute of
// a child is a further step. Each spawner has one and uses it again; it lives
// on the heap, where nothing moves.
type program struct {
	args  cloneArgs
	pidfd int32  // set by the kernel before the child runs
	pid   int32  // so is this; 0 again once the start is reported
	alive uint32 // 0 again when the child has left our memory, see fly
	res   result
	noSet uint64 // an empty signal set
	dfl   sigaction
	limit unix.Rlimit // RLIMIT_NOFILE
	data  attributeData
	steps []step
	names []stepName // of each step, for errors
	text  []byte     // C strings
	ptrs  []uintptr  // argv, envp: addresses in text
}

// stepName says what a step is, in the words of StartError.
type stepName struct{ op, path string }

// The highest number of a signal, and the size of the kernel's signal set.
const (
	lastSignal = 64
	sigsetSize = lastSignal / 8
)

// setup fills in the program for a child with these descriptors. fds and
// t.passed must all be above 2. cgroup is that of the directory to be cloned into,
// or below 0. It reports false if a string contains a NUL.
func (g *program) setup(t *target, fds *[3]int, cgroup int, p *Pool) bool {
	g.steps, g.names = g.steps[:0], g.names[:0]
	g.res = result{}
	atomic.StoreInt32(&g.pidfd, -1) // both may be looked at, see condemn
	atomic.StoreUint32(&g.alive, 1)
	g.args = cloneArgs{
		flags: unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_PIDFD | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID |
			unix.CLONE_CLEAR_SIGHAND,
		pidfd:      uint64(uintptr(unsafe.Pointer(&g.pidfd))),
		childTID:   uint64(uintptr(unsafe.Pointer(&g.alive))),
		parentTID:  uint64(uintptr(unsafe.Pointer(&g.pid))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if t.oom != nil || t.limited {
		// Without it the kernel has all who share the memory have that score, us too
		// (__set_oom_adj), and where it kills one of them for want of memory, as it
		// never does who is in vfork(2), it kills all (__oom_kill_process).
		g.args.flags |= unix.CLONE_VFORK
	}
	if cgroup >= 0 {
		g.args.flags |= unix.CLONE_INTO_CGROUP
		g.args.cgroup = uint64(cgroup)
	}
	a, ok := g.strings(t)
	if !ok {
		return false
	}

	// The table of descriptors is shared until this step copies the lowest
	// part. A plain clone copies all of it and execve closes all of that: with
	// the pidfds of 10,000 children it would cost more than everything else.
	// It also means that no child holds a copy of another's pidfd.
	last := max(fds[0], fds[1], fds[2])
	for _, fd := range t.passed {
		last = max(last, fd)
	}
	g.step("close_range", "", unix.SYS_CLOSE_RANGE, uintptr(last+1), uintptr(^uint32(0)), unix.CLOSE_RANGE_UNSHARE)
	g.step("setsid", "", unix.SYS_SETSID)
	// CLONE_CLEAR_SIGHAND resets handlers, but leaves ignored signals ignored.
	for _, sig := range p.ignored {
		g.step("sigaction", "", unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&g.dfl)), 0, sigsetSize)
	}
	for i, fd := range fds {
		g.step("dup", "", unix.SYS_DUP3, uintptr(fd), uintptr(i), 0)
	}
	free := 3 + g.pass(t.passed, last+1)
	// What this process was started with, by a shell script say, is not
	// close-on-exec.
	g.step("close_range", "", unix.SYS_CLOSE_RANGE, uintptr(free), uintptr(^uint32(0)), 0)
	g.privileged(t, free)
	if !t.attr.limits(unix.RLIMIT_NOFILE) && p.orig.restore(&g.limit, t.looked) {
		g.step("setrlimit", "nofile", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&g.limit)))
	}
	g.identity(t.attr)
	if a.dir != 0 { // as whom the child is
		g.step("chdir", t.dir, unix.SYS_CHDIR, a.dir)
	}
	g.step("sigprocmask", "", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&g.noSet)), 0, sigsetSize)
	if a.pid != 0 {
		g.step("getpid", "", writePID, a.pid)
	}
	g.step("exec", t.path, unix.SYS_EXECVE, a.path, a.argv, a.envp)
	return true
}

// step appends a system call. A start follows an exit, when no cache has its code:
// to copy that to each call would make it longer.
//
//go:noinline
func (g *program) step(op, path string, nr uintptr, args ...uintptr) {
	s := step{nr: nr}
	copy(s.args[:], args)
	g.steps = append(g.steps, s)
	g.names = append(g.names, stepName{op, path})
}

// addresses are those of what strings laid out; 0 for what is not there.
type addresses struct{ dir, path, argv, envp, pid uintptr }

// strings lays out the C strings and the two vectors. It reports false if a string
// contains a NUL.
func (g *program) strings(t *target) (a addresses, ok bool) {
	n, ends := len(t.dir)+len(t.path)+2, 1+len(t.args)+len(t.env)
	for _, s := range t.args {
		n += len(s) + 1
	}
	for _, s := range t.env {
		n += len(s) + 1
	}
	if t.last != "" {
		n += len(t.last) + 1
		ends++
	}
	if t.listen {
		n += len(listenPID) + pidDigits + 1
		ends++
	}
	if cap(g.text) < n {
		g.text = make([]byte, 0, n+n/2)
	}
	if n := len(t.args) + len(t.env) + 4; cap(g.ptrs) < n {
		g.ptrs = make([]uintptr, 0, n+n/2)
	}
	g.text, g.ptrs = g.text[:0], g.ptrs[:0]
	base := uintptr(unsafe.Pointer(unsafe.SliceData(g.text)))
	put := func(s string) uintptr {
		p := base + uintptr(len(g.text))
		g.text = append(append(g.text, s...), 0)
		return p
	}
	if t.dir != "" {
		a.dir = put(t.dir)
		ends++
	}
	a.path = put(t.path)
	table := uintptr(unsafe.Pointer(unsafe.SliceData(g.ptrs)))
	for _, s := range t.args {
		g.ptrs = append(g.ptrs, put(s))
	}
	g.ptrs = append(g.ptrs, 0)
	a.argv, a.envp = table, table+uintptr(len(g.ptrs))*unsafe.Sizeof(table)
	for _, s := range t.env {
		g.ptrs = append(g.ptrs, put(s))
	}
	if t.last != "" {
		g.ptrs = append(g.ptrs, put(t.last))
	}
	if t.listen {
		// Last in text: the child writes over its end.
		p := put(listenPID)
		g.ptrs = append(g.ptrs, p)
		a.pid = p + uintptr(len(listenPID))
	}
	g.ptrs = append(g.ptrs, 0)
	return a, bytes.Count(g.text, []byte{0}) == ends
}

// ignoredSignals returns the signals that this process ignores, as os/signal knows it.
func ignoredSignals() (list []syscall.Signal) {
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		if signal.Ignored(sig) {
			list = append(list, sig)
		}
	}
	return list
}

// fly makes the child and does not wait for it, see left, unless it has to (CLONE_VFORK).
// It returns the pid, or a negative errno.
func (g *program) fly() (pid int) {
	// CLONE_CHILD_CLEARTID has the kernel write 0 when the child leaves our memory
	// (mm_release), just before it would wake one who waits in vfork(2).
	pid = int(cloneSyscall(&g.args, &g.steps[0], uintptr(len(g.steps)), &g.res))
	runtime.KeepAlive(g)
	return pid
}

// flyRaw is fly for who is not to be kept waiting by Go's scheduler, which is not told.
// The child must be one that it does not wait for.
func (g *program) flyRaw() (pid int) {
	pid = int(rawCloneSyscall(&g.args, &g.steps[0], uintptr(len(g.steps)), &g.res))
	runtime.KeepAlive(g)
	return pid
}

// left reports whether the child has left our memory.
func (g *program) left() bool { return atomic.LoadUint32(&g.alive) == 0 }

// awaitLeft waits until it has, or for d.
func (g *program) awaitLeft(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	const wait = 0 // FUTEX_WAIT, and not FUTEX_PRIVATE_FLAG: the kernel wakes without
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&g.alive)), wait, 1, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// arrived reports whether the child, which has left our memory, did so by execve(2).
func (g *program) arrived() bool {
	return g.res.errno == 0 && g.res.begun == uintptr(len(g.steps))
}

// failure says why it did not: a step failed, or the child was killed on the way.
func (g *program) failure(t *target) *StartError {
	err := &StartError{Op: "clone", Errno: syscall.EINTR}
	if g.res.begun > 0 {
		name := g.names[g.res.begun-1]
		err.Op, err.Path = name.op, name.path
	}
	if g.res.errno != 0 {
		err.Errno = syscall.Errno(g.res.errno)
	}
	return t.explain(err)
}
