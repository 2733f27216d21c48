package spawn

import (
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A flight is a child on the way from clone to its program. Nobody waits for it, as
// vfork(2) would: it is looked at a millisecond later, or when it ends, or when
// another start wants its place. So a program that is slow to come holds up no
// thread, and nobody is woken on the CPU that the child needs.

// maxFlights bounds the children on the way, but for those that hang. More would take
// the CPUs from each other.
const maxFlights = 8

// lookAfter is the first look at a child on the way; later ones come after a quarter
// of the time that it took so far.
const lookAfter = time.Millisecond

// flight is what such a child needs of us. All of it is guarded by Pool.mu, or is that
// of who makes it until follow, but for what the child reads and writes in prog.
type flight struct {
	prog      program
	target    target
	files     *files
	job       job
	touched   bool     // by a spawner: what is in its way is final
	by        *spawner // that makes it; nil from follow on
	child     *child   // nil until follow
	at        time.Duration
	wall      int64
	maker     int    // the thread that made the child, without a cgroup
	condemned string // the path that it took too long on: it was killed, and reported
}

// flights are those of a Pool.
type flights struct {
	low     *Low
	devnull int
	free    []*flight // the one with the lowest numbers last
	flying  []*flight // in the order in which they were taken
	hanging int       // of flying, those that are condemned
}

func (p *Pool) makeFlights() (err error) {
	fs := &p.flights
	if p.fork {
		fs.low.Close() // the whole table is copied
	}
	if fs.devnull = fs.low.take(); fs.devnull < 0 {
		if fs.devnull, err = openAbove2(unix.AT_FDCWD, "/dev/null", unix.O_RDWR, 0); err != nil {
			return err
		}
	}
	for range maxFlights {
		if p.fork {
			break // they need no more
		}
		if err := fs.add(); err != nil {
			return err
		}
	}
	slices.Reverse(fs.free)
	return nil
}

// add makes another one.
func (fs *flights) add() error {
	files, err := newFiles(fs.devnull, fs.low)
	if err == nil {
		fs.free = append(fs.free, &flight{files: files})
	}
	return err
}

// close gives back what no flight needs; the last one that lands gives back the rest.
func (fs *flights) close() {
	for _, f := range fs.free {
		f.files.close()
	}
	fs.free = nil
	if len(fs.flying) == 0 {
		if fs.devnull > 0 {
			unix.Close(fs.devnull)
			fs.devnull = 0
		}
		fs.low.Close()
	}
}

// take takes a free one.
func (fs *flights) take() *flight {
	last := len(fs.free) - 1
	f := fs.free[last]
	fs.free = fs.free[:last]
	fs.flying = append(fs.flying, f)
	return f
}

// await takes a free one when there is one. It returns nil once the Pool is paused or
// closed, and an error if as many hang as may. p.mu is held, but not all the time.
func (p *Pool) await() (*flight, *StartError) {
	fs := &p.flights
	for {
		if p.closed || p.paused {
			return nil, nil
		}
		if len(fs.free) > 0 {
			return fs.take(), nil
		}
		if p.lookAtFlights(); len(fs.free) > 0 {
			continue
		}
		if len(fs.flying) == fs.hanging {
			return nil, &StartError{Op: "clone", Errno: syscall.EAGAIN}
		}
		at := slices.IndexFunc(fs.flying, func(f *flight) bool { return f.child != nil && f.condemned == "" && !f.prog.left() })
		if at < 0 {
			p.idle.Wait() // for a spawner, or for the end of one that failed
			continue
		}
		f := fs.flying[at]
		p.mu.Unlock()
		f.prog.awaitLeft(lookAfter)
		p.mu.Lock()
	}
}

// setup makes everything ready for fly. The child's files are the caller's to close.
func (f *flight) setup(opened *[3]int, cgroup int, p *Pool) *StartError {
	fds, errno := f.files.take(opened)
	if errno != 0 {
		return &StartError{Op: "dup", Errno: errno}
	}
	var err *StartError
	if f.target.passed, err = f.files.pass(f.job.spec.Files); err != nil {
		return err
	}
	if !f.prog.setup(&f.target, &fds, cgroup, p) {
		return &StartError{Op: "exec", Path: f.target.path, Errno: syscall.EINVAL}
	}
	return nil
}

// fly makes the child by one of the ways to do so, and notes which thread did it: where
// there is no cgroup that may matter, see mayLeave.
func (f *flight) fly(clone func() (pid int)) (pid int) {
	if f.target.cgroup != "" {
		return clone()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f.maker = unix.Gettid()
	return clone()
}

// follow makes the child of a flight that has begun known and watched. It has the
// cgroup's files. p.mu is held.
func (p *Pool) follow(f *flight, place Place, files slotFiles) {
	f.at, f.wall = p.clock.Now()
	c := p.watch(f.job.token, int(f.prog.pid), int(f.prog.pidfd), place, files)
	if c == nil {
		p.land(f)
		return
	}
	c.flight, f.child, f.by, c.ooms = f, c, nil, f.target.ooms
	if place.Cgroup == "" {
		c.maker = f.maker
		if f.job.spec.simple() {
			c.fifo = f.job.spec.Stdout.Path
		}
	}
	// A user's zombies count against his limit of processes.
	c.prompt = f.job.spec.Attributes != nil
	if !p.brief {
		p.kick() // to look at it
	}
}

// land ends a flight: its child, if there is one, has left our memory. p.mu is held.
func (p *Pool) land(f *flight) {
	fs := &p.flights
	at := slices.Index(fs.flying, f)
	fs.flying = slices.Delete(fs.flying, at, at+1)
	if f.child != nil {
		f.child.flight = nil
	}
	atomic.StoreInt32(&f.prog.pid, 0)
	f.target, f.job, f.child, f.by, f.touched, f.condemned = target{}, job{}, nil, nil, false, ""
	if p.closed {
		f.files.close()
		fs.close()
		return
	}
	f.files.release()
	if len(fs.free)+len(fs.flying)-fs.hanging < maxFlights {
		fs.free = append(fs.free, f)
	} else {
		f.files.close() // another is in its place
	}
	p.idle.Broadcast()
}

// lookAtFlights reports the children that have come to their program, and ends those
// that take too long. p.mu is held.
func (p *Pool) lookAtFlights() {
	if len(p.flights.flying) == 0 {
		return
	}
	now, _ := p.clock.Now()
	for i := 0; i < len(p.flights.flying); {
		f := p.flights.flying[i]
		switch {
		case f.child == nil && f.by == nil || f.condemned != "":
		case !f.prog.left():
			if now-f.at >= p.timeout {
				p.condemn(f)
			}
		case f.by != nil: // tells
		case f.prog.arrived():
			p.begun(f, p.identify)
			continue // another is in its place
		}
		i++ // one that failed ends, which its pidfd tells
	}
}

// nextLook returns how long from now the next look is, 0 if there is none. p.mu is
// held.
func (p *Pool) nextLook() time.Duration {
	for _, f := range slices.Backward(p.flights.flying) {
		if (f.child != nil || f.by != nil) && f.condemned == "" {
			now, _ := p.clock.Now()
			return max(lookAfter, (now-f.at)/4)
		}
	}
	return 0
}

// begun reports that a child runs its program. p.mu is held.
func (p *Pool) begun(f *flight, withIdentity bool) {
	c := f.child
	p.step("cloned")
	e := started(c, withIdentity)
	e.At, e.Wall = f.at, f.wall
	p.openOut(&c.files, f.job.spec)
	p.land(f)
	p.emit(e)
}

// condemn ends a child that has not come to its program in time. p.mu is held.
func (p *Pool) condemn(f *flight) {
	fs := &p.flights
	err := timedOut("exec", f.target.path)
	if f.target.cgroup != "" { // now: who is killed is not frozen any more
		if st, e := readCgroup(unix.AT_FDCWD, f.target.cgroup+"/cgroup.events"); e == nil && st.frozen {
			err = frozenCgroup(f.target.cgroup)
		}
	}
	// The kernel wrote it before the child ran. If it is not there yet the clone itself
	// hangs, and the spawner ends the child when it has one.
	if pidfd := atomic.LoadInt32(&f.prog.pidfd); pidfd >= 0 {
		_ = sendSignal(int(pidfd), int(unix.SIGKILL))
	}
	f.condemned = err.Path
	fs.hanging++
	if fs.hanging <= maxStuck {
		// Without descriptors for another one those that are left have to do.
		_ = fs.add()
	}
	if f.by != nil {
		f.by.getStuck(err.Path)
	} else {
		p.stick(err.Path)
	}
	p.emit(failed(f.job.token, err))
}

// fell deals with the end of a child on the way, which nobody was told of. It reports
// whether the child had come to its program, and then that it began. p.mu is held.
func (p *Pool) fell(c *child) (began bool) {
	f := c.flight
	if f.prog.arrived() && f.condemned == "" {
		p.begun(f, false)
		return true
	}
	p.reap(c)
	c.fifo = "" // the next one is prepared by a spawner
	if c.place.Cgroup != "" {
		if _, vacant := c.tree.gone(); vacant {
			c.vacant, _ = p.clock.Now()
		}
	}
	again, touched, stuck := f.job, f.touched, f.condemned
	err := f.prog.failure(&f.target)
	if stuck != "" {
		p.flights.hanging--
		p.unstick(stuck)
	}
	signaled := c.killed || c.signals > 0
	killed := err.Errno == syscall.EINTR && c.place.Cgroup != "" && again.renew == "" && !signaled
	if killed {
		c.vacant, again.renew = 0, c.place.Cgroup
	}
	p.land(f)
	p.forget(c)
	switch {
	case stuck != "": // that was told
	case touched && !killed || signaled:
		p.emit(failed(again.token, err))
	default:
		p.enqueue(again)
	}
	return false
}

// awaitSpawners waits until no spawner has a job. p.mu is held, but not all the time.
func (p *Pool) awaitSpawners() {
	for p.cloning() {
		p.lookAtFlights()
		at := slices.IndexFunc(p.flights.flying, func(f *flight) bool { return f.by != nil && f.condemned == "" && !f.prog.left() })
		if at < 0 {
			if p.cloning() {
				p.idle.Wait()
			}
			continue
		}
		f := p.flights.flying[at]
		p.mu.Unlock()
		f.prog.awaitLeft(max(lookAfter, p.timeout/16))
		p.mu.Lock()
	}
}

// ground waits until no child is on the way, but for those that hang, and returns the
// tokens of those that will not come to their program. No other flight may begin.
// p.mu is held, but not all the time.
func (p *Pool) ground() (unstarted []Token) {
	for {
		p.lookAtFlights()
		var wait *flight
		for _, f := range slices.Clone(p.flights.flying) {
			switch {
			case f.child == nil:
			case f.condemned != "":
				if c := f.child; f.prog.left() && dead(c.pidfd) {
					c.unreaped = true
					_ = p.fell(c) // the next image does not know it
				}
			case !f.prog.left():
				wait = f
			case f.prog.arrived():
				p.begun(f, p.identify)
			default: // it ends without having come to its program
				c := f.child
				_, _ = waitDying(c.pidfd)
				unstarted = append(unstarted, c.token)
				p.land(f)
				p.forget(c)
			}
		}
		if wait == nil {
			return unstarted
		}
		p.mu.Unlock()
		wait.prog.awaitLeft(max(lookAfter, p.timeout/16))
		p.mu.Lock()
	}
}
