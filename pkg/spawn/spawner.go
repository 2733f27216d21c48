package spawn

import (
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A spawner is a goroutine that starts children, one after the other. What it
// does for one of them can hang in two phases; its timer then takes the job
// away from it, and another spawner takes its place.
type spawner struct {
	p     *Pool
	files *files
	prog  program
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
	cgroup cgroupFiles
	above  above
}

// Phases of a spawner with a job.
const (
	done      uint32 = iota // the event is known, or there is no job
	touching                // ordinary system calls that may hang
	cloning                 // from clone to execve
	abandoned               // was touching, and the job was taken away
	condemned               // was cloning; the child is killed, and the start has failed
)

// maxStuck is how many spawners may hang at a time and be replaced. Each of
// them is a thread.
const maxStuck = 16

// addSpawner starts one. p.mu is held.
func (p *Pool) addSpawner() error {
	f, err := newFiles()
	if err != nil {
		return err
	}
	s := &spawner{p: p, files: f, cgroup: noFiles(), above: above{fd: -1}}
	s.timer, s.timed = time.AfterFunc(p.timeout, s.overdue), true
	p.spawners[s] = struct{}{}
	p.live++
	go s.run()
	return nil
}

// run takes jobs until the Pool is closed, or it is not needed any more.
func (s *spawner) run() {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for s.next() {
		p.mu.Unlock()
		o := s.start()
		if o.pid > 0 {
			p.step("cloned")
		}
		if p.identify && o.pid > 0 && o.err == nil {
			if id, err := identify(o.pid, o.pidfd); err == nil {
				o.identity = &id
			}
		}
		p.mu.Lock()
		s.settle(o)
		s.drop()
		atomic.StoreInt32(&s.prog.pid, 0)
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
	s.files.close()
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
	mono, _ := s.p.clock.now()
	s.since.Store(int64(mono))
	s.phase.Store(phase)
}

// outcome is what came of a job: a child, an error, or neither if the job was
// taken away.
type outcome struct {
	pid, pidfd int
	identity   *Identity
	err        *StartError
}

// start does one job. p.mu is not held.
func (s *spawner) start() outcome {
	o := s.try()
	if o.err != nil && s.target.cgroup != "" && (o.err.Op == "clone" || o.err.Errno == syscall.EINTR) && renew(s.target.cgroup, o.err.Errno) {
		s.enter(touching)
		o = s.try()
	}
	return o
}

func (s *spawner) try() outcome {
	defer s.files.release()
	s.drop()
	fds, err := s.prepare()
	if err != nil {
		if !s.phase.CompareAndSwap(touching, done) {
			return outcome{}
		}
		return outcome{err: err}
	}
	mono, _ := s.p.clock.now()
	s.since.Store(int64(mono))
	if !s.phase.CompareAndSwap(touching, cloning) {
		return outcome{}
	}
	s.p.step("clone")
	if s.p.fork {
		pid, pidfd, err := forkExec(&s.target, &fds, s.cgroup.dir)
		s.phase.Store(done)
		return outcome{pid: pid, pidfd: pidfd, err: err}
	}
	pid, pidfd, err := s.prog.run(&s.target)
	if !s.phase.CompareAndSwap(cloning, done) {
		s.bury(pidfd)
		return outcome{}
	}
	if err != nil {
		s.bury(pidfd)
	}
	return outcome{pid: pid, pidfd: pidfd, err: err}
}

// bury ends and reaps a child that nobody was told of.
func (s *spawner) bury(pidfd int) {
	if pidfd < 0 {
		return
	}
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // fails if it is dead
	_, _ = waitDying(pidfd)
	s.p.mu.Lock() // overdue may be about to send a signal to it
	defer s.p.mu.Unlock()
	unix.Close(pidfd)
}

// settle reports what came of the job. p.mu is held.
func (s *spawner) settle(o outcome) {
	p := s.p
	switch {
	case o.err != nil:
		p.emit(failed(s.job.token, o.err))
	case o.pid == 0:
	case p.closed:
		unix.Close(o.pidfd)
	default:
		if s.cgroup.events < 0 {
			s.drop() // above maxHeld nothing is kept
		}
		c, err := p.add(s.job.token, o.pid, o.pidfd, s.place(), s.cgroup)
		if err != nil {
			// Nobody would learn of its exit.
			_ = unix.PidfdSendSignal(o.pidfd, unix.SIGKILL, nil, 0)
			_, _ = waitDying(o.pidfd)
			unix.Close(o.pidfd)
			p.emit(failed(s.job.token, &StartError{Op: "watch", Errno: errnoOf(err)}))
			return
		}
		s.cgroup, c.ooms = noFiles(), s.target.ooms // the child's now
		p.emit(Event{Kind: Started, Token: s.job.token, PID: o.pid, Identity: o.identity, Cgroup: s.target.cgroup})
	}
}

// place is where the child was started.
func (s *spawner) place() Place {
	place := s.job.spec.Place
	place.Cgroup = s.target.cgroup
	return place
}

// prepare does all that may hang and can be done before there is a child.
func (s *spawner) prepare() (fds [3]int, err *StartError) {
	spec, t := s.job.spec, &s.target
	t.dir, t.args, t.env, t.missing, t.cgroup = spec.Dir, spec.Args, spec.Env, "", ""
	if len(t.args) == 0 {
		t.args = []string{spec.Path}
	}
	if t.dir != "" {
		if err = s.touch(t.dir); err != nil {
			return fds, err
		}
	}
	if t.path, err = s.lookup(spec); err != nil {
		return fds, err
	}
	if err = s.touch(abs(t.dir, t.path)); err != nil {
		return fds, err
	}
	for _, io := range [3]*Stdio{&spec.Stdin, &spec.Stdout, &spec.Stderr} {
		if err = s.goNear(&io.Path); err != nil {
			return fds, err
		}
	}
	t.attr, t.oom = spec.Attributes, s.p.oom
	if t.attr != nil && t.attr.OOMScoreAdj != nil {
		t.oom = t.attr.OOMScoreAdj
	}
	if fds, err = s.files.open(spec); err != nil {
		return fds, err
	}
	if t.passed, err = s.files.pass(spec.Files); err != nil {
		return fds, err
	}
	if t.listen = spec.ListenNames != nil; t.listen {
		if t.env, err = listenEnv(spec); err != nil {
			return fds, err
		}
	}
	if spec.Place.Cgroup != "" {
		if err = s.openCgroup(spec.Place.Cgroup); err != nil {
			return fds, err
		}
		if err = apply(t.cgroup, spec.Place.Settings); err != nil {
			return fds, err
		}
		if len(spec.Place.Settings) > 0 {
			// Before the child is there: it may not live until it is known.
			t.ooms = oomKills(t.cgroup)
		}
	}
	if !s.p.fork && !s.prog.setup(t, &fds, s.cgroup.dir, &s.p.orig) {
		err = &StartError{Op: "exec", Path: t.path, Errno: syscall.EINVAL}
	}
	return fds, err
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
