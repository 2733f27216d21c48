package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Setting is what is written to a file of a cgroup: a limit, for example
// {"memory.max", "67108864"}. See Documentation/admin-guide/cgroup-v2.rst.
type Setting struct {
	File, Value string
}

// EnableControllers has the cgroups in the directory limit what these
// controllers ("cpu", "memory", "pids") are for. It returns those that could not
// be had, each with the reason.
//
// A controller comes from the cgroup above: for that, and for nothing else, the
// cgroup that this process was started in is written to. A cgroup that passes
// controllers on may have no process of its own (cgroups(7), "no internal
// processes"; the root is excepted), so this process first moves to one of its own in
// the directory. Where others are in it too, there are no controllers.
// To be called before children are started, by one goroutine at a time.
func (g *Cgroups) EnableControllers(names []string) map[string]error {
	missing := make(map[string]error)
	for _, name := range names {
		if err := g.enable(name); err != nil {
			missing[name] = err
		}
	}
	return missing
}

// Controllers lists those that are enabled, be it by an earlier image.
func (g *Cgroups) Controllers() []string { return g.words("cgroup.subtree_control") }

// Lacks is EnableControllers without doing it: it names those that are certainly
// not to be had. It may be called at any time.
func (g *Cgroups) Lacks(names []string) map[string]error {
	missing := make(map[string]error)
	for _, name := range names {
		if slices.Contains(g.words("cgroup.controllers"), name) {
			continue
		}
		err := g.above(name)
		if err == nil {
			_, err = g.alone()
		}
		if err != nil {
			missing[name] = err
		}
	}
	return missing
}

// HostLacks names those of the controllers that no cgroup of this host can have,
// as far as this process sees it, each with the reason. Others may be had in one
// cgroup and not in another.
func HostLacks(names []string) map[string]error {
	missing := make(map[string]error)
	top, err := ownCgroup()
	for err == nil && unix.Access(filepath.Join(filepath.Dir(top), "cgroup.controllers"), unix.F_OK) == nil {
		top = filepath.Dir(top)
	}
	have := readWords(filepath.Join(top, "cgroup.controllers"))
	for _, name := range names {
		switch {
		case err != nil:
			missing[name] = err
		case !slices.Contains(have, name):
			missing[name] = fmt.Errorf("the cgroup v2 tree at %s does not have it", top)
		}
	}
	return missing
}

func (g *Cgroups) words(file string) []string { return readWords(filepath.Join(g.dir, file)) }

// above reports an error if the cgroup above does not have the controller.
func (g *Cgroups) above(name string) error {
	above := filepath.Dir(g.dir)
	if !slices.Contains(readWords(filepath.Join(above, "cgroup.controllers")), name) {
		return fmt.Errorf("the cgroup %s does not have it", above)
	}
	return nil
}

// alone reports an error if a process other than this one is in the cgroup above,
// and whether this one is. The kernel itself would refuse the memory controller
// there, but let the others make it a cgroup of threads, below which nothing can be started.
func (g *Cgroups) alone() (there bool, err error) {
	above := filepath.Dir(g.dir)
	if isRootCgroup(above) {
		return false, nil
	}
	for _, word := range readWords(filepath.Join(above, "cgroup.procs")) {
		if word == strconv.Itoa(os.Getpid()) {
			there = true
		} else if pid, err := strconv.Atoi(word); err == nil {
			return false, fmt.Errorf("process %d (%s) is in the cgroup %s as well, which may have no other to pass it on: a service with Delegate=yes has one of its own", pid, comm(pid), above)
		}
	}
	return there, nil
}

// isRootCgroup: only the root of the tree, as no cgroup namespace shows it, has no type.
func isRootCgroup(path string) bool {
	return errors.Is(unix.Access(filepath.Join(path, "cgroup.type"), unix.F_OK), unix.ENOENT)
}

func (g *Cgroups) enable(name string) error {
	if slices.Contains(g.Controllers(), name) {
		return nil
	}
	if !slices.Contains(g.words("cgroup.controllers"), name) {
		if err := g.above(name); err != nil {
			return err
		}
		above := filepath.Dir(g.dir)
		err := g.vacate()
		if err == nil {
			err = writeFile(filepath.Join(above, "cgroup.subtree_control"), "+"+name)
		}
		if err != nil {
			return fmt.Errorf("enable it below %s: %w", above, err)
		}
	}
	if err := writeFile(filepath.Join(g.dir, "cgroup.subtree_control"), "+"+name); err != nil {
		return fmt.Errorf("enable it below %s: %w", g.dir, err)
	}
	return nil
}

// vacate takes this process out of the cgroup that it was started in, if that
// leaves none there.
func (g *Cgroups) vacate() error {
	if there, err := g.alone(); err != nil || !there {
		return err
	}
	path := filepath.Join(g.dir, leaf)
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return writeFile(filepath.Join(path, "cgroup.procs"), "0")
}

// apply writes the settings to a cgroup. An empty list costs nothing.
func apply(path string, settings []Setting) *StartError {
	for _, s := range settings {
		file := path + "/" + s.File
		// Since Linux 6.16 a lower memory.max is not waited for then.
		fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err == nil {
			_, err = unix.Write(fd, []byte(s.Value))
			unix.Close(fd)
		}
		if err != nil {
			return &StartError{Op: "write " + s.Value + " to", Path: file, Errno: errnoOf(err)}
		}
	}
	return nil
}

// oomKills reads how many processes of a cgroup and below it the kernel has
// killed for lack of memory, 0 if it does not tell: memory.events, oom_kill.
func oomKills(path string) uint64 {
	b, err := os.ReadFile(path + "/memory.events")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if n, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("oom_kill ")); ok {
			kills, err := strconv.ParseUint(string(n), 10, 64)
			if err != nil {
				return 0
			}
			return kills
		}
	}
	return 0
}

// SetLimits has the settings written to the cgroup of a child that lives, in
// place of those that it was started with. It does not wait for that; LimitFailed
// follows if it can not be done. It fails with an error that wraps syscall.ESRCH if
// there is no such child any more, or not yet, or if it has no cgroup.
func (p *Pool) SetLimits(token Token, settings []Setting) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.children[token]
	if c == nil || c.place.Cgroup == "" || p.closed {
		return fmt.Errorf("set limits of child %d: %w", token, syscall.ESRCH)
	}
	c.place.Settings = settings
	p.orders = append(p.orders, order{child: c, settings: settings})
	p.wakeWalker()
	return nil
}
