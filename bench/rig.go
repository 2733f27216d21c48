package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed c/*.c c/*.h
var sources embed.FS

// rig is what all scenarios share: the built programs, a directory that goes
// away at the end, and the contenders.
type rig struct {
	verbose    bool
	children   int    // in the scenarios of many
	bin        string // directory of the built programs
	sentryd    string // the binary under test
	run        string // directory of the instances, on a tmpfs where there is one, as /run is
	contenders []*contender
	instances  int
	notes      []string // about this host, for the reader of the figures
}

// newRig builds every program and finds the peers.
func newRig(ctx context.Context, o *options) (_ *rig, err error) {
	r := &rig{verbose: o.verbose, children: o.children}
	if r.bin, err = os.MkdirTemp("", "sentryd-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.run, err = os.MkdirTemp("/dev/shm", "sentryd-bench-"); err != nil {
		if r.run, err = os.MkdirTemp("", "sentryd-bench-"); err != nil {
			return nil, err
		}
	}
	if err := r.buildC(ctx); err != nil {
		return nil, err
	}
	if o.only.MatchString(floorGo) {
		if err := build(ctx, "go", "build", "-o", r.program("floorgo"), "github.com/sentryd/sentryd/bench/floorgo"); err != nil {
			return nil, err
		}
	}
	sentryd := r.program("sentryd")
	switch {
	case !o.only.MatchString(sentrydMain) && !o.only.MatchString(sentrydBare) && !o.only.MatchString(sentrydQuiet):
		// The floors and the peers alone.
	case o.sentryd == "":
		if err := build(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", sentryd, "github.com/sentryd/sentryd/cmd/sentryd"); err != nil {
			return nil, err
		}
	default:
		if sentryd, err = filepath.Abs(o.sentryd); err != nil {
			return nil, err
		}
	}
	r.sentryd = sentryd
	for _, c := range r.allContenders(sentryd, o.dinit) {
		if o.only.MatchString(c.name) {
			r.contenders = append(r.contenders, c)
		}
	}
	if err := r.raiseLimits(o); err != nil {
		return nil, err
	}
	return r, pause(ctx, time.Second) // what was built is still being written back
}

func (r *rig) program(name string) string { return filepath.Join(r.bin, name) }

func (r *rig) buildC(ctx context.Context) error {
	src := filepath.Join(r.bin, "src")
	sub, err := fs.Sub(sources, "c")
	if err != nil {
		return err
	}
	if err := os.CopyFS(src, sub); err != nil {
		return err
	}
	for name, flags := range map[string][]string{"child": {"-static"}, "floor": {"-pthread"}, "listen": nil} {
		args := append([]string{"-O2", "-o", r.program(name), filepath.Join(src, name+".c")}, flags...)
		if err := build(ctx, "cc", args...); err != nil {
			return fmt.Errorf("needs a C compiler and a static libc (Debian: gcc libc6-dev): %w", err)
		}
	}
	return nil
}

// build runs a compiler; Go's links statically, as the Makefile does.
func build(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %v: %w\n%s", name, args, err, out)
	}
	return nil
}

// raiseLimits gives this process, and so every contender, the descriptors that
// the largest scenario may need: five a child, which is more than the target.
// Where the hard limit is lower and may not be raised (that takes
// CAP_SYS_RESOURCE) it says so and goes on: a contender may do with less.
func (r *rig) raiseLimits(o *options) error {
	need := uint64(max(o.children, o.huge)*5 + 1024)
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	hard := l.Max
	l.Cur, l.Max = need, max(need, hard)
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	if errors.Is(err, unix.EPERM) {
		r.notes = append(r.notes, fmt.Sprintf("open files are limited to %d, %.1f a child, and the limit may not be raised here", hard, float64(hard)/float64(max(o.children, o.huge))))
		l.Cur, l.Max = hard, hard
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	}
	if err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	return nil
}

func (r *rig) close() {
	os.RemoveAll(r.bin)
	os.RemoveAll(r.run)
}

// job is what a contender is asked to keep running.
type job struct {
	slots   int
	mode    string        // of c/child.c: storm, live, stay
	life    time.Duration // of a child in mode live
	samples int           // restarts to be timed, in mode live
	// attributes: sentryd's children get every attribute of an entry, from
	// umask to capabilities. The others have no such thing.
	attributes bool
}

// instance is a contender at work.
type instance struct {
	*process
	*board
	dir      string
	launched time.Duration // monotonic
	listener *listener
}

// launch starts a contender on a job. The caller must close the instance.
func (r *rig) launch(c *contender, j job) (_ *instance, err error) {
	r.instances++
	in := &instance{dir: filepath.Join(r.run, strconv.Itoa(r.instances))}
	if err := os.Mkdir(in.dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.close())
		}
	}()
	if in.board, err = newBoard(in.dir, j.slots, j.samples); err != nil {
		return nil, err
	}
	argv, err := c.prepare(in.dir, j, func(slot string) []string {
		return []string{r.program("child"), in.board.path, slot, j.mode, strconv.FormatInt(j.life.Microseconds(), 10)}
	})
	if err != nil {
		return nil, err
	}
	if c.listener {
		if in.listener, err = listen(r.program("listen")); err != nil {
			return nil, err
		}
	}
	in.launched = monotonic()
	in.process, err = start(in.dir, c, argv...)
	return in, err
}

// up waits until every slot has seen n starts.
func (in *instance) up(ctx context.Context, n uint64) error {
	return await(ctx, 2*time.Minute, fmt.Sprintf("start %d of every child", n), func() (bool, error) {
		return in.allStarted(n), in.check()
	})
}

// hold opens a pidfd for each child, verified to be a child of the contender.
func (in *instance) hold() ([]child, error) {
	cs := make([]child, 0, in.slots)
	for i := range in.slots {
		c, err := openChild(in.board.pid(i), in.process.pid)
		if err != nil {
			release(cs)
			return nil, fmt.Errorf("slot %d: %w", i, err)
		}
		cs = append(cs, c)
	}
	return cs, nil
}

func release(cs []child) {
	for _, c := range cs {
		unix.Close(c.pidfd)
	}
}

// close ends the contender and everything below it, whatever state they are
// in: TERM, then KILL, to the contender; then the children that it may have
// left behind leave through the board.
func (in *instance) close() error {
	var errs []error
	ctx := context.Background() // clean up even when the run was interrupted
	if in.process != nil {
		if in.check() == nil {
			errs = append(errs, in.signal(unix.SIGTERM))
		}
		if err := in.wait(ctx, 30*time.Second); err != nil {
			errs = append(errs, err, in.signal(unix.SIGKILL), in.wait(ctx, 10*time.Second))
		}
		in.process.close()
	}
	if in.board != nil {
		in.board.release()
		errs = append(errs, in.gone(ctx))
		in.board.close()
	}
	if in.listener != nil {
		errs = append(errs, in.listener.close())
	}
	os.RemoveAll(in.dir)
	return errors.Join(errs...)
}

// gone waits until no child of this instance is left. A pid counts only while
// its command line names this instance's board, which is no one else's.
func (in *instance) gone(ctx context.Context) error {
	return await(ctx, 20*time.Second, "children gone", func() (bool, error) {
		for i := range in.slots {
			if pid := in.board.pid(i); pid != 0 && runs(pid, in.path) {
				return false, nil
			}
		}
		return true, nil
	})
}
