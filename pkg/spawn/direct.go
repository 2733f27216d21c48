package spawn

import "strings"

// A direct start is made by who asks for it: most starts follow an exit, what
// they need is there already, and to hand one to a spawner would cost more than
// it takes. Nothing that a file system does can hang it.
//
// What is not as simple as that, and what fails in any way, is left to a spawner,
// which finds out why.

// simple reports whether everything that a start of s needs is at hand, if its cgroup is open.
func (s *Spec) simple() bool {
	return strings.IndexByte(s.Path, '/') >= 0 && s.Stdin.Path == "" && s.Stdout.Dir > 0 && s.Stderr == s.Stdout &&
		len(s.Files) == 0 && s.ListenNames == nil && len(s.Place.Settings) == 0
}

// mayBeDirect reports whether s can be started so, in a cgroup whose memory is not limited: a
// child with an oom_score_adj of its own is waited for.
func (p *Pool) mayBeDirect(s *Spec) bool {
	return !p.fork && p.oom == nil && (s.Attributes == nil || s.Attributes.OOMScoreAdj == nil) && s.simple()
}

// startDirect makes a direct start, or reports false. p.mu is held.
func (p *Pool) startDirect(token Token, s *Spec) bool {
	if p.paused || !p.queue.empty() || len(p.flights.free) == 0 || !p.mayBeDirect(s) {
		return false
	}
	now, _ := p.clock.Now()
	files := noFiles()
	if s.Place.Cgroup == "" {
		if !p.vacated[s.Stdout.Path] {
			return false
		}
	} else {
		k, ok := p.kept[s.Place.Cgroup]
		if !ok || k.files.limited {
			return false
		}
		if now-k.at >= freshFor {
			if st, err := k.files.state(); err != nil || st.populated || st.frozen {
				return false
			}
		}
		files = k.files
	}
	fd, ahead := files.takeOut(&s.Stdout)
	if !ahead {
		var err error
		if fd, err = s.Stdout.openRaw(); err != nil {
			return false
		}
	}
	started := false
	defer func() {
		if started || !ahead { // else it is kept
			closeRaw(fd)
		}
	}()
	f := p.flights.take()
	f.job = job{token: token, spec: s}
	f.target.fill(s, p.oom)
	f.target.path, f.target.cgroup, f.target.looked = s.Path, s.Place.Cgroup, p.orig.look(now)
	if f.setup(&[3]int{-1, fd, fd}, files.dir, p) != nil {
		p.land(f)
		return false
	}
	p.step("clone")
	if f.fly(f.prog.flyRaw) < 0 {
		p.land(f)
		return false
	}
	delete(p.kept, s.Place.Cgroup)
	p.follow(f, s.Place, files)
	started = true
	return true
}
