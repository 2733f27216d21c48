package spawn

import (
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A spawner is a goroutine that prepares the starts of children, one after the other, and
// makes them. A file system can hang it; its timer then takes the job away from it, and
// another spawner takes its place.
type spawner struct {
	p *Pool
	// timer calls overdue. It is left to run out when the spawner waits for work: to
	// set it anew for each job would wake the thread that keeps the time.
	timer *time.Timer

	// Whoever changes phase by compare-and-swap has the job.
	phase atomic.Uint32
	since atomic.Int64           // when the phase began, on the Pool's clock
	what  atomic.Pointer[string] // the path that is touched

	// Guarded by Pool.mu.
	job     job
	busy    bool   // has a job whose event is not queued yet
	waiting bool   // for work
	timed   bool   // the timer runs
	stuck   string // the path that it hangs on; it does not count as live then

	target target // of the job
	cgroup slotFiles
	above  above
}

// Phases of a spawner with a job.
const (
	done      uint32 = iota // the event is known, or there is no job
	touching                // ordinary system calls that may hang
	cloning                 // by syscall.ForkExec
	abandoned               // was touching, and the job was taken away
)

// maxStuck is how many spawners may hang at a time and be replaced. Each of
// them is a thread.
const maxStuck = 16

// addSpawner starts one. p.mu is held.
func (p *Pool) addSpawner() {
	s := &spawner{p: p, cgroup: noFiles(), above: above{fd: -1}}
	s.timer, s.timed = time.AfterFunc(p.timeout, s.overdue), true
	p.spawners[s] = struct{}{}
	p.live++
	go s.run()
}

// run takes jobs until the Pool is closed, or it is not needed any more.
func (s *spawner) run() {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for s.next() {
		p.mu.Unlock()
		o := s.start()
		p.mu.Lock()
		s.settle(o)
		s.drop()
		s.busy = false
		p.idle.Broadcast()
		if s.stuck != "" && !s.comeBack() {
			break
		}
	}
	s.timer.Stop()
	if s.stuck == "" {
		p.live--
	}
	delete(p.spawners, s)
	s.above.close()
	p.idle.Broadcast()
}

// next waits for a job and takes it. It reports false if there will be none. p.mu is held.
func (s *spawner) next() bool {
	p := s.p
	for !p.closed && (p.paused || p.queue.empty()) {
		s.waiting = true
		p.work.Wait()
	}
	if p.closed {
		return false
	}
	s.waiting = false
	if !s.timed { // else overdue sees for itself when this job began
		s.setTimer(p.timeout)
	}
	s.job, s.busy = p.queue.pop(), true
	s.enter(touching)
	return true
}

// setTimer has overdue called. p.mu is held.
func (s *spawner) setTimer(d time.Duration) {
	s.timed = true
	s.timer.Reset(d)
}

func (s *spawner) enter(phase uint32) {
	mono, _ := s.p.clock.Now()
	s.since.Store(int64(mono))
	s.phase.Store(phase)
}

// outcome is what came of a job: a child, an error, or neither if the job was
// taken away.
type outcome struct {
	flight     *flight
	pid, pidfd int // of a child that is none, by syscall.ForkExec
	err        *StartError
}

// start does one job. p.mu is not held.
func (s *spawner) start() outcome {
	if s.job.renew != "" {
		renew(s.job.renew, syscall.EINTR)
	}
	o := s.try()
	if o.err != nil && s.target.cgroup != "" && o.err.Op == "clone" && renew(s.target.cgroup, o.err.Errno) {
		s.enter(touching)
		o = s.try()
	}
	return o
}

func (s *spawner) try() outcome {
	s.drop()
	opened, err := s.prepare()
	defer closeStdio(&opened)
	next := done
	if s.p.fork && err == nil {
		next = cloning
		mono, _ := s.p.clock.Now()
		s.since.Store(int64(mono))
	}
	switch {
	case !s.phase.CompareAndSwap(touching, next):
		return outcome{}
	case err != nil:
		return outcome{err: err}
	case s.p.fork:
		return s.forkExec(&opened)
	}
	return s.launch(&opened)
}

// launch makes the child.
func (s *spawner) launch(opened *[3]int) outcome {
	p := s.p
	p.mu.Lock()
	f, err := p.await()
	if f != nil {
		s.target.limited = s.cgroup.limited || len(s.job.spec.Place.Settings) > 0
		f.job, f.target, f.touched, f.by = s.job, s.target, true, s
		f.at, f.wall = p.clock.Now()
		if !p.brief {
			p.kick() // to look at it in time
		}
	}
	if f == nil && err == nil && !p.closed {
		p.queue.push(s.job) // for Pause, which takes it from there
	}
	p.mu.Unlock()
	if f == nil {
		return outcome{err: err}
	}
	err = f.setup(opened, s.cgroup.dir, p)
	if err == nil {
		p.step("clone")
		if pid := f.fly(f.prog.fly); pid < 0 {
			err = &StartError{Op: "clone", Path: s.target.cgroup, Errno: syscall.Errno(-pid)}
		}
	}
	if err == nil {
		return outcome{flight: f}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.condemned != "" { // that was told
		p.flights.hanging--
		err = nil
	}
	p.land(f)
	return outcome{err: err}
}

// forkExec is launch where there is no clone3(2).
func (s *spawner) forkExec(opened *[3]int) outcome {
	s.p.step("clone")
	for _, fd := range s.job.spec.Files {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			s.phase.Store(done)
			return outcome{err: &StartError{Op: "pass", Errno: errnoOf(err)}}
		}
	}
	s.target.passed = s.job.spec.Files
	fds := *opened
	for i, fd := range fds {
		if fd < 0 {
			fds[i] = s.p.flights.devnull
		}
	}
	pid, pidfd, err := forkExec(&s.target, &fds, s.cgroup.dir)
	if err == nil {
		s.p.step("cloned")
	}
	s.phase.Store(done)
	return outcome{pid: pid, pidfd: pidfd, err: err}
}

// settle reports what came of the job, if that is known by now. p.mu is held.
func (s *spawner) settle(o outcome) {
	p := s.p
	if o.flight != nil && o.flight.condemned != "" { // while it was being made
		s.bury(o.flight)
		return
	}
	switch {
	case o.err != nil:
		p.emit(failed(s.job.token, o.err))
	case o.flight == nil && o.pid == 0:
	case p.closed && o.flight != nil:
		for !o.flight.prog.left() { // its memory is ours
			p.mu.Unlock()
			o.flight.prog.awaitLeft(time.Second)
			p.mu.Lock()
		}
		unix.Close(int(o.flight.prog.pidfd))
		p.land(o.flight)
	case p.closed:
		unix.Close(o.pidfd)
	default:
		if s.cgroup.events < 0 {
			s.drop() // above maxHeld nothing is kept
		}
		files := s.cgroup
		s.cgroup = noFiles() // the child's now
		if o.flight != nil {
			p.follow(o.flight, s.place(), files)
			return
		}
		p.began(s, o, files)
	}
}

// bury ends and reaps a child that was reported to have taken too long. p.mu is held.
func (s *spawner) bury(f *flight) {
	endNow(int(f.prog.pidfd))
	s.p.flights.hanging--
	s.p.land(f)
}

// began reports a child that was made by syscall.ForkExec. p.mu is held.
func (p *Pool) began(s *spawner, o outcome, files slotFiles) {
	c := p.watch(s.job.token, o.pid, o.pidfd, s.place(), files)
	if c == nil {
		return
	}
	c.ooms, c.prompt = s.target.ooms, s.job.spec.Attributes != nil
	p.emit(started(c, p.identify))
}

// place is where the child was started.
func (s *spawner) place() Place {
	place := s.job.spec.Place
	place.Cgroup = s.target.cgroup
	return place
}

// prepare does all that may hang and can be done before there is a child. What it
// opened is to be closed in any case.
func (s *spawner) prepare() (opened [3]int, err *StartError) {
	opened = [3]int{-1, -1, -1}
	spec, t := s.job.spec, &s.target
	t.fill(spec, s.p.oom)
	if t.dir != "" {
		if err = s.touch(t.dir); err != nil {
			return opened, err
		}
	}
	if t.path, err = s.lookup(spec); err != nil {
		return opened, err
	}
	if err = s.touch(abs(t.dir, t.path)); err != nil {
		return opened, err
	}
	for _, io := range [3]*Stdio{&spec.Stdin, &spec.Stdout, &spec.Stderr} {
		if err = s.goNear(&io.Path); err != nil {
			return opened, err
		}
	}
	if opened, err = openStdio(spec); err != nil {
		return opened, err
	}
	if t.listen = spec.ListenNames != nil; t.listen {
		if t.env, err = listenEnv(spec); err != nil {
			return opened, err
		}
	}
	if spec.Place.Cgroup != "" {
		if err = s.openCgroup(spec.Place.Cgroup); err != nil {
			return opened, err
		}
		if err = apply(t.cgroup, spec.Place.Settings); err != nil {
			return opened, err
		}
		if len(spec.Place.Settings) > 0 {
			// Before the child is there: it may not live until it is known.
			t.ooms = oomKills(t.cgroup)
		}
	}
	return opened, nil
}

// touch makes sure that path answers. Other errors come from the clone.
func (s *spawner) touch(path string) *StartError {
	if err := s.goNear(&path); err != nil {
		return err
	}
	if missing := s.p.touch(path); missing != "" {
		s.target.missing = missing
	}
	return nil
}

// goNear says that path is what is touched next. It fails if other spawners
// wait for the same path already.
func (s *spawner) goNear(path *string) *StartError {
	s.what.Store(path)
	if s.p.hung.Load() == 0 {
		return nil
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.p.stuck[*path] > 0 {
		return timedOut("open", *path)
	}
	return nil
}

func timedOut(op, path string) *StartError {
	return &StartError{Op: op, Path: path, Errno: syscall.ETIMEDOUT}
}
