package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor"
	"github.com/sentryd/sentryd/pkg/view"
)

const (
	pidFile    = "sentryd.pid"
	logDir     = "log" // of the FIFOs
	lockName   = state.KindFile + ":pid"
	checkState = "check-state" // the hidden command that a preflight runs
)

// findBinary settles which path a re-exec executes: the one that the daemon was
// started by, links and all, so that what stands there by then is what runs.
func (d *daemon) findBinary(saved *state.Daemon) error {
	if saved != nil && saved.Binary != "" {
		d.binary = saved.Binary
		return nil // checked in the preflight
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program's own path: %w", err)
	}
	d.binary = self
	if p, err := exec.LookPath(os.Args[0]); err == nil && sameFile(p, self) {
		if p, err := filepath.Abs(p); err == nil {
			d.binary = p
		}
	}
	return trustedBinary(d.binary)
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// isOpen reports whether path names the open file.
func isOpen(f *os.File, path string) bool {
	x, err1 := f.Stat()
	y, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// trustedBinary has root execute only what is root's own.
func trustedBinary(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := config.CheckOwner(path, 0); err != nil {
		return fmt.Errorf("the program %s: %w", path, err)
	}
	return nil
}

// Binary is the path that a re-exec executes.
func (d *daemon) Binary() string { return d.binary }

// Preflight runs the binary on a copy of the state.
func (d *daemon) Preflight(ctx context.Context, saved *state.Daemon) error {
	if err := trustedBinary(d.binary); err != nil {
		return err
	}
	err := checkRuntimeDir(filepath.Dir(d.lock.Name()))
	if err != nil {
		return err
	}
	if d.tried, err = fingerprintOf(d.binary); err != nil {
		return err
	}
	s, err := saved.Saved(d.version)
	if err != nil {
		return err
	}
	data, err := state.Encode(s)
	if err != nil {
		return err
	}
	return state.Preflight(ctx, d.binary, []string{checkState}, data)
}

// Check says whether the next image could tell the descriptors apart.
func (d *daemon) Check(files []state.File) error { return state.CheckFiles(files) }

// Exec replaces this image by the binary. It returns only when that failed.
func (d *daemon) Exec(saved *state.Daemon, files []state.File) error {
	s, err := saved.Saved(d.version)
	if err != nil {
		return err
	}
	files = append(files, state.File{Name: lockName, FD: int(d.lock.Fd())})
	s.Leftovers = append(d.pool.Leftovers(), d.output.EpollSet())
	if err := d.sameAsTried(); err != nil {
		return err
	}
	defer d.signals.resume()
	if !d.signals.quiet() {
		return view.Errorf(view.Unavailable, "a signal to end the daemon came first")
	}
	return state.Exec(d.binary, os.Args, os.Environ(), s, files)
}

// checkRuntimeDir refuses what keeps a daemon from starting in that directory: the
// next image would end there, and leave its children to nobody.
func checkRuntimeDir(dir string) error {
	if _, err := state.RuntimeDir(filepath.Dir(dir), filepath.Base(dir)); err != nil {
		return err
	}
	for name, kind := range map[string]uint32{logDir: unix.S_IFDIR, controlSocket: unix.S_IFSOCK} {
		path := filepath.Join(dir, name)
		var st unix.Stat_t
		switch err := unix.Lstat(path, &st); {
		case errors.Is(err, unix.ENOENT): // the next image makes it
		case err != nil:
			return fmt.Errorf("stat %s: %w", path, err)
		case st.Mode&unix.S_IFMT != kind || int(st.Uid) != os.Geteuid():
			return fmt.Errorf("%s: mode %#o, owner %d: not what this daemon made", path, st.Mode, st.Uid)
		case kind == unix.S_IFDIR && st.Mode&0o022 != 0:
			return fmt.Errorf("%s: mode %#o: writable by others", path, st.Mode)
		}
	}
	return nil
}

// fingerprint tells a file from one that takes its place or is written over it.
type fingerprint struct {
	dev, ino       uint64
	size           int64
	written, moved unix.Timespec
}

func fingerprintOf(path string) (fingerprint, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fingerprint{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return fingerprint{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}, nil
}

// sameAsTried refuses a binary that took the place of the one that the preflight
// tried: it may not be able to go on from this state.
func (d *daemon) sameAsTried() error {
	now, err := fingerprintOf(d.binary)
	if err == nil && now != d.tried {
		err = fmt.Errorf("%s was replaced after it had been tried; reload again", d.binary)
	}
	return err
}

// newCheckStateCommand is the other side of a preflight: it says whether this
// program can go on from the state in descriptor 3.
func newCheckStateCommand() *cobra.Command {
	return &cobra.Command{
		Use: checkState, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := state.ReadState(state.PreflightFD)
			if err != nil {
				return err
			}
			saved, err := s.Daemon()
			if err != nil {
				return err
			}
			if err := supervisor.CheckState(saved); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), state.PreflightOK)
			return err
		},
	}
}

// names lists what the former image handed over under such names.
func names(inherited *state.Inherited, prefix string) []string {
	if inherited == nil {
		return nil
	}
	return inherited.Names(prefix)
}
