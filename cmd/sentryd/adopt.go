package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor"
)

// This file is the start of a daemon after the death of another: the journal is
// read, what lives is found, and the supervisor goes on from there.

// adopted is what a start knows of the daemon before it.
type adopted struct {
	journal *state.Journal      // nil if there can be none
	remains *supervisor.Remains // nil after a re-exec
	search  supervisor.Search
	// otherBoot says so if the journal is of a boot that is over.
	otherBoot error
	ended     int   // children of the dead daemon that had its lock
	broken    error // why the configuration could not be read, if the last good one is used
}

// leftSomething reports whether there may be something to take over, although the
// configuration cannot be read.
func (d *daemon) leftSomething() bool {
	name, err := config.NameOf(d.config)
	if err != nil {
		return false
	}
	_, err = os.Lstat(filepath.Join(d.runtimeDir, name, state.JournalName))
	return err == nil
}

// nameOf returns the daemon's name, which does not hang on what its configuration
// says.
func (d *daemon) nameOf(cfg *config.Config) (string, error) {
	if cfg != nil {
		return cfg.Name, nil
	}
	return config.NameOf(d.config)
}

// endUnexeced ends children of a dead daemon that hang before they have come to
// their program: they still have what it had, its lock too. Whoever holds it meanwhile
// has a living parent, so that nobody's children are ended but those of the dead.
func (d *daemon) endUnexeced(dir string) {
	args := os.Args
	if left, err := state.ReadJournal(dir); err == nil && left != nil && left.Daemon != nil && len(left.Daemon.Args) > 0 {
		args = left.Daemon.Args
	}
	// What came of it is seen by the lock, and find says what is left.
	d.ended, _ = spawn.EndUnexeced(args, lockPatience)
}

// find looks for what an earlier daemon left. This one has the lock.
func (d *daemon) find(name, dir string) {
	recovered, err := state.ReadJournal(dir)
	if errors.Is(err, state.ErrOtherBoot) {
		d.otherBoot, err = err, nil // nothing of it lives
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // as /proc shows it
	}
	d.search = supervisor.Search{Name: name, Cgroups: d.cgroupsOf(), Output: filepath.Join(dir, logDir), Kept: d.left}
	d.remains = supervisor.Find(d.search, recovered, err)
	if d.ended > 0 {
		d.remains.Notes = append(d.remains.Notes, fmt.Sprintf("Ended %d children of the dead daemon that still had its lock.", d.ended))
	}
}

// goodConfig is the configuration to go by: the last good one where processes are
// there to be taken over and the present one is broken.
func (d *daemon) goodConfig(cfg *config.Config, broken error) (*config.Config, error) {
	if broken == nil {
		return cfg, nil
	}
	if !d.remains.Any() {
		d.remains.Close()
		return nil, broken
	}
	good, err := d.remains.LastGood()
	if err != nil {
		d.remains.Close()
		return nil, broken
	}
	d.broken = broken
	return good, nil
}

// configPath is where the next reload reads the configuration.
func (d *daemon) configPath(cfg *config.Config) string {
	if d.broken == nil {
		return cfg.Path
	}
	if path, err := filepath.Abs(d.config); err == nil {
		return path
	}
	return cfg.Path
}

// openJournal opens the journal. A daemon without one goes on.
func (d *daemon) openJournal(dir string) (missing []string) {
	var err error
	if d.journal, err = state.NewJournal(dir, d.version); err != nil {
		return []string{fmt.Sprintf("No journal (%v): a daemon that is started after the death of this one finds its processes by their environment alone.", err)}
	}
	return nil
}

// journalOf is the supervisor's view of it, which knows no nil pointer.
func (d *daemon) journalOf() supervisor.Journal {
	if d.journal == nil {
		return nil
	}
	return d.journal
}

// begin makes the supervisor of a daemon that was started, and not re-exec'd.
func (d *daemon) begin(o supervisor.Options) error {
	log := d.output.Logger()
	if d.remains.Problem != nil {
		log.Error("the journal of the daemon before this one cannot be read, or not all of it", "error", d.remains.Problem)
	}
	if d.otherBoot != nil {
		log.Info("nothing that the journal names lives; entries start afresh", "why", d.otherBoot)
	}
	for _, note := range d.remains.Notes {
		log.Warn(note)
	}
	if d.broken != nil {
		log.Error("the configuration cannot be read; going on under the last good one", "error", d.broken)
	}
	if d.remains.None() {
		d.sup = supervisor.New(o)
	} else {
		var err error
		if d.sup, err = supervisor.Adopt(o, d.search, d.remains, d.broken); err != nil {
			return err
		}
	}
	if err := d.output.Sweep(); err != nil {
		log.Warn("what nobody writes to any more is left behind", "error", err)
	}
	return nil
}
