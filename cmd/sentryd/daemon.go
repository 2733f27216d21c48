package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/logs"
	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/sockets"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/state"
	"github.com/sentryd/sentryd/pkg/supervisor"
)

// spawners is how many goroutines prepare starts: each may wait for a file system.
const spawners = 2

// spareThreads are made at start and kept: Go aborts when it cannot make one
// later, in a host whose pids are used up. What runs, spareProcs included, and what
// waits in system calls are fewer.
const spareThreads = 24

// spareProcs is how much higher than Go makes it GOMAXPROCS is. A thread that waits in
// a system call keeps its P, as the owner's does and those of spawners. Where none is
// idle Go's monitor takes it away after 20 us, and goes on looking every 20 us, and
// the thread has to get another before it can go on. A quota or a set of CPUs that
// changes later is seen at the next reload.
const spareProcs = 6

// gcWhileStarting is the least GOGC of a daemon until it rests. A collection takes all
// processors for a while, and a start of 1,000 would see four.
const gcWhileStarting = 400

// lockPatience is how long a child of a dead daemon may take to give up its lock.
const lockPatience = 5 * time.Second

// daemonOptions is what the command line says about a daemon.
type daemonOptions struct {
	config     string // path of the configuration file
	runtimeDir string // the directory in which NAME is made
	format     logs.Format
	color      bool
	version    string
}

// daemon is the wiring of one program image.
type daemon struct {
	daemonOptions
	signals  *signals
	outdated bool // the configuration's files changed during the re-exec
	binary   string
	tried    fingerprint // of the binary, when a preflight tried it
	lock     *os.File
	output   *logs.Output
	pooled   chan struct{} // closed when there are pool and poolErr
	piped    chan struct{} // closed when the FIFOs are taken from the former image; nil: there are none
	pool     *spawn.Pool
	poolErr  error
	cgroups  *spawn.Cgroups // nil where there can be none
	containment
	witness *supervisor.Witness
	serving *serving
	sup     *supervisor.Supervisor
	adopted // what an earlier daemon left
	keeping // what a service manager keeps
	stop    chan struct{}
}

// runDaemon runs the daemon in the foreground, until it is to end.
func runDaemon(o daemonOptions, sig *signals) error {
	d := &daemon{daemonOptions: o, signals: sig, stop: make(chan struct{})}
	return d.run()
}

func (d *daemon) run() (err error) {
	// Nobody is answered until the state is read. What that takes is bounded by its
	// size, so the collector may wait.
	collect := debug.SetGCPercent(-1)
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareProcs)
	}
	low := spawn.TakeLow()
	d.inheritKept()
	// Beside reading the state: nobody is answered until that is done.
	d.pooled = make(chan struct{})
	go func() {
		d.pool, d.poolErr = spawn.New(spawn.Options{Spawners: spawners, Identify: true, OwnSIGCHLD: true, Low: low, Step: state.Failpoints()})
		close(d.pooled)
	}()
	inherited, saved, inheritErr := inherit()
	warm := sync.OnceFunc(func() { spawn.Prewarm(spareThreads) })
	if saved == nil {
		go warm() // after a re-exec somebody waits for the processors
	}
	cfg, broken := d.load(saved)
	if broken != nil && (saved != nil || !d.leftSomething()) {
		return broken
	}
	name, err := d.nameOf(cfg)
	if err != nil {
		return err
	}
	dir, err := d.directory(name, inherited)
	if err != nil {
		return cmp.Or(broken, err)
	}
	d.contain(name, dir)
	defer func() {
		if err != nil && d.cgroups != nil && d.remains != nil && !d.remains.Any() {
			d.cgroups.Close() // nothing came of it
		}
	}()
	if saved == nil {
		d.find(name, dir)
		if cfg, err = d.goodConfig(cfg, broken); err != nil {
			os.Remove(d.lock.Name())
			return err
		}
	}
	if err := d.restrain(cfg); err != nil && saved == nil && !d.remains.Any() {
		d.remains.Close()
		os.Remove(d.lock.Name())
		d.lock.Close()
		return err
	}
	if err := d.open(cfg, dir, saved, inherited); err != nil {
		return err
	}
	d.openStore(saved)
	log := d.output.Logger()
	if inheritErr != nil {
		log.Error("not all of the former image's state could be read", "error", inheritErr)
	}
	if saved != nil {
		state.Failpoint("resume")
	}
	if err := d.supervise(cfg, dir, saved); err != nil {
		return err
	}
	d.serving.start(d.sup)
	state.Failpoint("serve")
	if saved != nil {
		runtime.Gosched() // who waits is answered first
		d.takeOver(saved, inherited)
		state.Failpoint("resumed")
	}
	if inherited != nil {
		inherited.Close() // what nobody can tell the use of
		if err := inherited.Wrong(); err != nil {
			log.Error("not all of the former image's descriptors could be taken over", "error", err)
		}
	}
	warm()
	d.settleKept()
	if collect >= 0 {
		debug.SetGCPercent(max(collect, gcWhileStarting))
	}
	return d.serve(func() {
		debug.SetGCPercent(collect)
		giveBack()
	})
}

// inherit reads what the former image left. saved is nil if there is none that can
// be read.
func inherit() (inherited *state.Inherited, saved *state.Daemon, err error) {
	inherited, err = state.Inherit()
	if inherited == nil || inherited.Saved == nil {
		return inherited, nil, err
	}
	saved, savedErr := inherited.Saved.Daemon()
	return inherited, saved, errors.Join(err, savedErr)
}

// load returns the configuration: after a re-exec the one that was checked
// before it.
func (d *daemon) load(saved *state.Daemon) (*config.Config, error) {
	if saved == nil {
		return config.Load(d.config, loadOptions())
	}
	return supervisor.CheckedConfig(saved)
}

// loadOptions has root insist that its configuration is root's own.
func loadOptions() config.Options {
	if os.Geteuid() == 0 {
		return config.Options{RequireOwner: 0}
	}
	return config.Options{RequireOwner: -1}
}

// directory makes the runtime directory and takes its lock.
func (d *daemon) directory(name string, inherited *state.Inherited) (string, error) {
	dir, err := state.RuntimeDir(d.runtimeDir, name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, pidFile)
	var holder int
	if fd, ok := take(inherited, lockName); ok {
		d.lock = os.NewFile(uintptr(fd), path)
		holder, err = state.Relock(d.lock)
		if err == nil && !isOpen(d.lock, path) {
			// Somebody removed it: what keeps a second daemon out is a lock
			// on the file that it will open.
			d.lock.Close()
			d.lock, holder, err = state.Lock(path)
		}
	} else {
		d.lock, holder, err = state.Lock(path)
	}
	if errors.Is(err, state.ErrLocked) && holder > 0 && state.Dead(holder) {
		d.endUnexeced(dir)
		d.lock, holder, err = state.AwaitLock(path, lockPatience)
	}
	if errors.Is(err, state.ErrLocked) {
		return "", fmt.Errorf("%s is running already (PID: %d, %s)", name, holder, path)
	}
	return dir, err
}

// open makes the leaves.
func (d *daemon) open(cfg *config.Config, dir string, saved *state.Daemon, inherited *state.Inherited) error {
	if err := d.findBinary(saved); err != nil {
		return err
	}
	var pipes func() *logs.Handover
	if saved != nil && saved.Output != nil {
		d.piped = make(chan struct{})
		pipes = func() *logs.Handover {
			defer close(d.piped)
			p := supervisor.LoadPipes(saved.Output)
			supervisor.TakePipes(p, inherited.Take)
			return p
		}
	}
	var err error
	d.output, err = logs.New(logs.Options{
		Dir: filepath.Join(dir, logDir), Out: os.Stdout, Err: os.Stderr,
		Format: d.format, Color: d.color, Handover: pipes,
	})
	if err != nil {
		return err
	}
	<-d.pooled
	if d.poolErr != nil {
		return d.poolErr
	}
	d.witness = d.newWitness(cfg, inherited)
	d.witness.Connect()
	if d.serving, err = newServing(d, cfg, dir, inherited); err != nil {
		return err
	}
	d.serving.serve()
	runtime.Gosched() // who waits is answered first
	return nil
}

// newWitness listens to the proc connector, on the socket of the former image
// if there is one.
func (d *daemon) newWitness(cfg *config.Config, inherited *state.Inherited) *supervisor.Witness {
	fd, handedOver := take(inherited, supervisor.ConnectorName)
	if !cfg.ProcConnector.Enabled {
		if handedOver {
			unix.Close(fd)
		}
		return supervisor.NewWitness(nil, nil, "turned off by proc_connector.enabled")
	}
	listen := procevents.Config{Buffer: int(cfg.ProcConnector.Buffer)}
	if cfg.ProcConnector.Events == config.EventsExit {
		listen.Kinds = []procevents.Kind{procevents.Exit}
	}
	dial := func() (supervisor.Connector, error) {
		l, err := procevents.Dial(listen)
		if err != nil {
			return nil, err
		}
		return l, nil
	}
	if handedOver {
		if l, err := procevents.FromFile(os.NewFile(uintptr(fd), supervisor.ConnectorName), listen); err == nil {
			return supervisor.NewWitness(l, dial, "")
		}
	}
	return supervisor.NewWitness(nil, dial, "")
}

// supervise makes the supervisor. After a re-exec it knows what the former image did, and
// takes over nothing yet: who asks for the picture is answered meanwhile.
func (d *daemon) supervise(cfg *config.Config, dir string, saved *state.Daemon) (err error) {
	log := d.output.Logger()
	started := time.Now()
	if saved != nil {
		started = time.Unix(0, saved.StartedWall)
	}
	lacks := append(d.lacking, d.openJournal(dir)...)
	if saved == nil {
		lacks = append(lacks, d.volatile()...)
	}
	o := supervisor.Options{
		Identity: supervisor.Identity{
			Name: cfg.Name, PID: os.Getpid(), Version: d.version, StartedAt: started, Config: cfg.Path,
			Args: os.Args,
		},
		Config: cfg, Load: func() (*config.Config, error) { return d.reloadable(d.configPath(cfg)) },
		Environ: childEnviron(os.Environ()), Processes: d.pool, Output: d.output, Sockets: sockets.NewSet(), Witness: d.witness,
		Forks:   cfg.ProcConnector.Enabled && cfg.ProcConnector.Events == config.EventsAll,
		Serving: d.serving, Handover: d, Log: log,
		Journal: d.journalOf(), Keeper: d.keeper(), Cgroups: d.cgroupsOf(), Controllers: d.controllers, Containment: d.kind, Missing: append(lacks, missing()...),
		Clock: supervisor.Clock{Now: monotonic(), Wall: time.Now}, Moderation: time.Millisecond,
	}
	if saved == nil {
		d.sayStarted(filepath.Join(dir, pidFile))
		for _, sentence := range o.Missing {
			log.Warn(sentence)
		}
		if err := d.begin(o); err != nil {
			return err
		}
		d.sweepCgroups()
		return nil
	}
	d.sup, err = supervisor.Resume(o, saved)
	return err
}

// takeOver goes on where the former image stopped.
func (d *daemon) takeOver(saved *state.Daemon, inherited *state.Inherited) {
	if d.piped != nil {
		<-d.piped // what is left then is no output's
	}
	files := inherited.TakeAll()
	inherited.CloseLeftovers()
	// Before anybody is told that the reload is done: what is written after that is
	// for the next one.
	d.outdated = d.sup.ConfigChanged()
	d.sup.TakeOver(files, d.volatile)
	for _, fd := range files {
		unix.Close(fd) // of what could not be taken over, which is said
	}
	d.sayReexeced(time.Unix(0, saved.StartedWall), d.sup.PreviousReexec())
}

// volatile says what follows if output is not kept. It waits until the pipes of a
// former image are taken over.
func (d *daemon) volatile() []string {
	err := d.output.Volatile()
	if err == nil {
		return nil
	}
	return []string{fmt.Sprintf("Output is not kept in a file (%v): what is read and not yet printed is lost if this daemon is killed.", err)}
}

// serve runs until the daemon is to end, and calls rested when all that is to be started
// has been, or rest's patience is over.
func (d *daemon) serve(rested func()) error {
	go d.witness.Run(d.stop)
	go d.obey()
	go d.answer()
	go d.reload()
	go rest(d.stop, d.sup, rested)
	d.sayReady()
	outcome := d.sup.Run()
	close(d.stop)
	d.witness.Close()
	d.serving.stop()
	if outcome == supervisor.Kept {
		d.sayKept()
	} else {
		d.removePipes()
		d.removeCgroups()
	}
	d.output.Print(logs.Record{Time: time.Now(), Text: "Bye.", Level: slog.LevelInfo, Msg: "ended"})
	d.output.Close(time.Second)
	if outcome == supervisor.Finished {
		d.pool.Close()
	}
	if d.store != nil {
		d.store.Close()
	}
	os.Remove(d.lock.Name())
	return nil
}

// removePipes leaves no pipe behind that nobody writes to any more.
func (d *daemon) removePipes() {
	for _, e := range d.sup.Picture().Entries {
		for _, p := range e.Processes {
			d.output.Remove(logs.Key{Entry: e.Name, Slot: p.Slot})
		}
	}
}

// obey acts on the signals that end the daemon.
func (d *daemon) obey() {
	ctx := context.Background()
	stopping := false
	d.signals.obey(func(sig os.Signal) {
		switch {
		case sig == unix.SIGQUIT:
			d.sup.Shutdown(ctx, true)
		case stopping:
			d.sup.Kill(ctx)
		default:
			stopping = true
			d.sup.Shutdown(ctx, false)
		}
	})
}

// answer acts on the signals that ask for something.
func (d *daemon) answer() {
	for sig := range d.signals.user {
		switch sig {
		case unix.SIGUSR1:
			d.output.Logger().Info("there are no log files to reopen")
		case unix.SIGUSR2:
			d.logState()
		}
	}
}

// reload acts on SIGHUP, one after the other. Why one was refused is in the log.
// One that came during a re-exec shows as files that have changed since.
func (d *daemon) reload() {
	if d.outdated {
		d.signals.reload()
	}
	for range d.signals.hup {
		d.sup.Reload(context.Background())
	}
}

func (d *daemon) logState() {
	b, err := json.Marshal(d.sup.State())
	if err != nil {
		d.output.Logger().Error("the state could not be written", "error", err)
		return
	}
	d.output.Logger().Info("state", "state", string(b))
}

func (d *daemon) sayStarted(pidPath string) {
	d.output.Print(logs.Record{
		Time: time.Now(), Level: slog.LevelInfo, Msg: "sentryd started",
		Text:  fmt.Sprintf("Sentry started (PID: %d saved in %s).", os.Getpid(), pidPath),
		Attrs: []slog.Attr{slog.Int("pid", os.Getpid()), slog.String("pid_file", pidPath)},
	})
}

func (d *daemon) sayReexeced(started time.Time, previous *time.Time) {
	if previous == nil {
		previous = &started
	}
	d.output.Print(logs.Record{
		Time: time.Now(), Level: slog.LevelInfo, Msg: "sentryd re-exec'd",
		Text:  fmt.Sprintf("Sentry reexec'd. Initially started at %d (Previously reexec'd at %d).", started.Unix(), previous.Unix()),
		Attrs: []slog.Attr{slog.Time("started_at", started), slog.Time("previously_reexeced_at", *previous)},
	})
}

func (d *daemon) sayKept() {
	n := 0
	for _, e := range d.sup.State().Entries {
		n += e.Running
	}
	if n > 0 {
		d.output.Logger().Info("processes are left running for the next start", "processes", n)
	}
}

// childEnviron is what children inherit of the daemon's environment: without
// what its own service manager said to it alone (sd_notify(3),
// sd_listen_fds(3), sd_watchdog_enabled(3)).
func childEnviron(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "NOTIFY_SOCKET", "FDSTORE", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES":
			return true
		}
		return false
	})
}

// monotonic returns a reading of CLOCK_MONOTONIC, which is the same over re-execs.
func monotonic() func() time.Duration {
	clock := spawn.NewClock()
	return func() time.Duration {
		now, _ := clock.Now()
		return now
	}
}

// missing says what this user cannot do, and what follows.
func missing() []string {
	var out []string
	if !spawn.CanClone3() {
		out = append(out, "No clone3: starts that ask for umask, nice, oom_score_adj, cpu_affinity, rlimits, capabilities, no_new_privileges or sockets fail.")
	}
	if os.Geteuid() != 0 {
		out = append(out, "Not root: everything runs as this user, and only this user, root and those that `control` names may change anything.")
	}
	return out
}

func take(inherited *state.Inherited, name string) (int, bool) {
	if inherited == nil {
		return -1, false
	}
	return inherited.Take(name)
}
