package spawn

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A direct start is made by who asks for it: most starts follow an exit, everything
// that they need is open already, and to hand one to a spawner would cost more than
// it takes. The child is not waited for either: it is looked at a millisecond later,
// or when it ends, whether it came to its program. So nothing that a file system does
// can hang whoever asks, and nobody is woken on the CPU that the child needs.
//
// What is not as simple as that, and what fails in any way, is left to a spawner,
// which finds out why.

// maxDirect bounds the children that are on the way to their program by direct
// starts. Each has a file of ours with a low number, see files.
const maxDirect = 8

// lookAfter is the first look at a child that was started directly; later ones
// come after a quarter of the time that it took so far.
const lookAfter = time.Millisecond

// direct is what a direct start takes. All of it is guarded by Pool.mu, but what the
// child reads and writes in prog while it flies.
type direct struct {
	prog      program
	target    target
	slot      int // the number of the child's output, of /dev/null while it waits
	spec      *Spec
	child     *child
	at        time.Duration // just after the clone
	wall      int64
	condemned string // the path that it took too long on: it was killed, and reported
}

// directs are those of a Pool.
type directs struct {
	devnull int
	free    []*direct
	flying  []*direct // in the order of their starts
}

// makeDirects takes the descriptors, as long as they are low.
func (p *Pool) makeDirects() (err error) {
	d := &p.directs
	if d.devnull, err = openAbove2(unix.AT_FDCWD, "/dev/null", unix.O_RDWR, 0); err != nil {
		return err
	}
	for range maxDirect {
		slot, err := unix.FcntlInt(uintptr(d.devnull), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return err
		}
		d.free = append([]*direct{{slot: slot}}, d.free...) // the lowest is taken first
	}
	return nil
}

func (p *Pool) closeDirects() {
	for _, d := range p.directs.free {
		unix.Close(d.slot)
	}
	if p.directs.devnull > 0 {
		unix.Close(p.directs.devnull)
	}
	p.directs = directs{}
}

// simple reports whether everything that a start of s needs is open, if its cgroup is.
func (s *Spec) simple() bool {
	return strings.IndexByte(s.Path, '/') >= 0 && s.Stdin.Path == "" && s.Stdout.Dir > 0 && s.Stderr == s.Stdout &&
		len(s.Files) == 0 && s.ListenNames == nil && len(s.Place.Settings) == 0
}

// startDirect makes a direct start, or reports false. p.mu is held.
func (p *Pool) startDirect(token Token, s *Spec) bool {
	if p.fork || p.paused || !p.queue.empty() || len(p.directs.free) == 0 || !s.simple() {
		return false
	}
	k, ok := p.kept[s.Place.Cgroup]
	if !ok {
		return false
	}
	if now, _ := p.clock.now(); now-k.at >= freshFor {
		if st, err := k.files.state(); err != nil || st.populated || st.frozen {
			return false
		}
	}
	last := len(p.directs.free) - 1
	d := p.directs.free[last]
	if !d.open(&s.Stdout) {
		return false
	}
	d.target = target{path: s.Path, dir: s.Dir, args: s.Args, env: s.Env, attr: s.Attributes, oom: p.oom, cgroup: s.Place.Cgroup}
	if len(s.Args) == 0 {
		d.target.args = []string{s.Path}
	}
	if s.Attributes != nil && s.Attributes.OOMScoreAdj != nil {
		d.target.oom = s.Attributes.OOMScoreAdj
	}
	if !d.prog.setup(&d.target, &[3]int{p.directs.devnull, d.slot, d.slot}, k.files.dir, &p.orig) {
		p.release(d)
		return false
	}
	p.step("clone")
	pid := d.prog.fly()
	if pid < 0 {
		p.release(d)
		return false
	}
	delete(p.kept, s.Place.Cgroup)
	p.directs.free = p.directs.free[:last]
	d.spec = s
	d.at, d.wall = p.clock.now()
	c, err := p.add(token, pid, int(d.prog.pidfd), s.Place, k.files)
	if err != nil {
		// Nobody would learn of its exit.
		_ = unix.PidfdSendSignal(int(d.prog.pidfd), unix.SIGKILL, nil, 0)
		_, _ = waitDying(int(d.prog.pidfd))
		unix.Close(int(d.prog.pidfd))
		p.retain(k.files)
		p.release(d)
		p.directs.free = append(p.directs.free, d)
		p.emit(failed(token, &StartError{Op: "watch", Errno: errnoOf(err)}))
		return true
	}
	c.direct, d.child = d, c
	p.directs.flying = append(p.directs.flying, d)
	return true
}

// open opens the child's output under the low number. It is in a directory of ours,
// so this does not block, and the scheduler need not be told.
func (d *direct) open(out *Stdio) bool {
	name := out.Path[strings.LastIndexByte(out.Path, '/')+1:]
	fd, err := openRaw(out.Dir, name, out.Flags|unix.O_CLOEXEC|unix.O_NOCTTY)
	if err != nil {
		return false
	}
	defer closeRaw(fd)
	return dupRaw(fd, d.slot)
}

// release gives the low number back to /dev/null. p.mu is held, and no child shares
// our descriptors any more.
func (p *Pool) release(d *direct) {
	dupRaw(p.directs.devnull, d.slot)
	d.target, d.spec, d.child, d.condemned = target{}, nil, nil, ""
}

func dupRaw(from, to int) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_DUP3, uintptr(from), uintptr(to), unix.O_CLOEXEC)
	return errno == 0
}

// land ends a direct start: its child has left our memory. p.mu is held.
func (p *Pool) land(d *direct) {
	for i, o := range p.directs.flying {
		if o == d {
			p.directs.flying = append(p.directs.flying[:i], p.directs.flying[i+1:]...)
			break
		}
	}
	d.child.direct = nil
	p.release(d)
	p.directs.free = append(p.directs.free, d)
}

// lookAtDirects reports the children of direct starts that have come to their
// program, and ends those that take too long. p.mu is held.
func (p *Pool) lookAtDirects() {
	if len(p.directs.flying) == 0 {
		return
	}
	now, _ := p.clock.now()
	for i := 0; i < len(p.directs.flying); {
		d := p.directs.flying[i]
		switch {
		case d.condemned != "":
		case !d.prog.left():
			if now-d.at >= p.timeout {
				p.condemn(d)
			}
		case d.prog.arrived():
			p.begun(d, p.identify)
			continue // another is in its place
		}
		i++ // one that failed ends, which its pidfd tells
	}
}

// nextLook returns how long from now the next look is, 0 if there is none. p.mu is
// held.
func (p *Pool) nextLook() time.Duration {
	n := len(p.directs.flying)
	if n == 0 {
		return 0
	}
	now, _ := p.clock.now()
	return max(lookAfter, (now-p.directs.flying[n-1].at)/4)
}

// begun reports that the child of a direct start runs its program. p.mu is held.
func (p *Pool) begun(d *direct, withIdentity bool) {
	c := d.child
	p.step("cloned")
	e := Event{Kind: Started, Token: c.token, PID: c.pid, Cgroup: c.place.Cgroup, At: d.at, Wall: d.wall}
	if withIdentity {
		if id, err := identify(c.pid, c.pidfd); err == nil {
			e.Identity = &id
		}
	}
	p.land(d)
	p.emit(e)
}

// condemn ends a child that has not come to its program in time. p.mu is held.
func (p *Pool) condemn(d *direct) {
	err := timedOut("exec", d.target.path)
	if st, e := d.child.files.state(); e == nil && st.frozen {
		err = frozenCgroup(d.target.cgroup) // now: who is killed is not frozen any more
	}
	_ = sendSignal(d.child.pidfd, int(unix.SIGKILL))
	d.condemned = err.Path
	p.stuck[err.Path]++
	p.hung.Store(int32(len(p.stuck)))
	p.emit(failed(d.child.token, err))
}

// fell deals with the end of a child of a direct start that nobody was told of: it
// has been reaped. It reports whether the child had come to its program, and then
// that it began. Otherwise a spawner tries again, and finds out what is in the way.
// p.mu is held.
func (p *Pool) fell(c *child) (began bool) {
	d := c.direct
	if d.prog.arrived() && d.condemned == "" {
		p.begun(d, false)
		return true
	}
	p.reap(c)
	if _, vacant := c.tree.gone(); vacant {
		c.vacant, _ = p.clock.now()
	}
	again, stuck := job{c.token, d.spec}, d.condemned
	p.land(d)
	p.forget(c)
	if stuck != "" {
		if p.stuck[stuck]--; p.stuck[stuck] == 0 {
			delete(p.stuck, stuck)
		}
		p.hung.Store(int32(len(p.stuck)))
		p.idle.Broadcast()
		return false
	}
	p.enqueue(again)
	return false
}

// ground waits until no child is on the way by a direct start, at most until they
// have all come to their program or are condemned, and returns the tokens of those
// that will not come to it. p.mu is held, but not all the time.
func (p *Pool) ground() (unstarted []Token) {
	for {
		p.lookAtDirects()
		var wait *direct
		for _, d := range p.directs.flying {
			switch {
			case d.condemned != "":
			case !d.prog.left():
				wait = d
			default: // it ends without having come to its program
				_, _ = waitDying(d.child.pidfd)
				c := d.child
				unstarted = append(unstarted, c.token)
				p.land(d)
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
