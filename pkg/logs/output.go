package logs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Options say where FIFOs live and where lines go.
type Options struct {
	// Dir is the directory of the FIFOs; it is made when missing, its parent
	// is not. No symbolic link is followed to it or in it.
	Dir string
	// Out takes the lines of children and the daemon's own. Its descriptor is
	// duplicated: the file stays the caller's.
	Out *os.File
	// Err takes the diagnostics of Logger in the Seed format. Nil is Out.
	Err    *os.File
	Format Format
	Color  bool // colour labels by entry; Seed only
	// Level is the least level that Logger passes on. Nil is slog.LevelInfo.
	Level slog.Leveler
	// Handover returns what Pause of the image before returned; nil where there is no such
	// image. It is called once, in a goroutine of its own, so it may take a while.
	Handover func() *Handover
}

// Output reads FIFOs and prints lines. Its methods are safe for concurrent
// use; calls about one slot take effect in the order in which they are made.
type Output struct {
	dir    *directory
	logger *slog.Logger
	diag   *diagnostics
	queue  queue
	epfd   int
	poller *poller // waits for epfd
	boot   string

	dropped atomic.Uint64
	failing atomic.Pointer[error] // why writing to Options.Out failed the last time; nil: it did not

	life sync.Mutex // serialises Pause, Resume and Close; taken before mu

	mu       sync.Mutex // may be held when fifo.mu is taken, never the other way round
	byKey    map[Key]*fifo
	byID     map[uint64]*fifo
	nextID   uint64
	orphans  []*fifo // that are not open, and of which something was read
	entries  map[string]*counts
	state    lifecycle
	volatile error

	reader *reader
}

// lifecycle says whether the reader goroutine runs.
type lifecycle uint8

const (
	running lifecycle = iota
	paused
	stuck // asked to stop, but held up in a write
	closed
)

var (
	errClosed = errors.New("logs: output is closed")
	errStuck  = errors.New("logs: output is held up in a write")
)

// New opens the directory and starts reading. With a Handover, which is the
// Output's from then on, it goes on where the image before stopped: a FIFO that
// cannot be taken over is reported through Logger, and Add makes it anew. Without
// one it goes on where a daemon stopped that died, with what that had read and not
// written.
func New(o Options) (*Output, error) {
	if o.Out == nil {
		return nil, errors.New("logs: no output")
	}
	if o.Err == nil {
		o.Err = o.Out
	}
	dir, err := openDirectory(o.Dir)
	if err != nil {
		return nil, err
	}
	out := &Output{
		dir:     dir,
		byKey:   make(map[Key]*fifo),
		byID:    make(map[uint64]*fifo),
		nextID:  firstFIFO,
		entries: make(map[string]*counts),
		epfd:    -1,
		queue:   queue{event: -1},
	}
	if err := out.open(o); err != nil {
		out.closeAll()
		return nil, err
	}
	if o.Handover == nil {
		out.reader.hold(newBacklog(dir, out.boot))
		found, err := recoverBacklog(dir, out.boot, o.Out)
		if err != nil {
			out.logger.Warn("what the daemon before had read and not printed is lost", "error", err)
		}
		if found != nil {
			out.restore(found)
		}
		out.publish()
		out.reader.start()
		return out, nil
	}
	// The caller has other things to take over meanwhile, and somebody waits
	// for all of it. Whoever needs the FIFOs waits for the locks.
	out.life.Lock()
	out.mu.Lock()
	go func() {
		defer out.life.Unlock()
		out.reader.hold(newBacklog(dir, out.boot))
		out.restore(o.Handover())
		out.publish()
		out.mu.Unlock()
		out.reader.start()
	}()
	return out, nil
}

// open makes what New needs besides the directory.
func (o *Output) open(opt Options) error {
	var err error
	if o.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("logs: epoll_create1: %w", err)
	}
	if o.poller, err = newPoller(o.epfd); err != nil {
		return fmt.Errorf("logs: wait for epoll set: %w", err)
	}
	if o.queue.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("logs: eventfd: %w", err)
	}
	if err := epollAdd(o.epfd, o.queue.event, wakeID, unix.EPOLLIN|unix.EPOLLET); err != nil {
		return fmt.Errorf("logs: epoll_ctl eventfd: %w", err)
	}
	o.diag = &diagnostics{output: o, aside: opt.Format == Seed}
	format := opt.Format
	if format == Seed {
		format = Logfmt
	}
	o.logger = slog.New(newHandler(format, o.diag, &slog.HandlerOptions{Level: opt.Level, ReplaceAttr: withUnit}))
	o.boot = bootID()
	o.reader = newReader(o, newSink(opt.Out), newSink(opt.Err), newFormatter(opt.Format, opt.Color))
	return nil
}

// publish has a daemon that is started after the death of this one find what it has
// in hand. From here on what a daemon before left is not looked at again.
func (o *Output) publish() {
	if err := o.reader.backlog.publish(o.dir); err != nil {
		o.volatile = err
		o.logger.Warn("what is read and not yet printed is lost if this daemon is killed", "error", err)
	}
}

// Failing says why lines are dropped, as the last write to Options.Out failed; nil when
// it did not.
func (o *Output) Failing() error {
	if why := o.failing.Load(); why != nil {
		return *why
	}
	return nil
}

// Volatile says why what was read and is not yet printed would be lost if this
// process were killed; nil when it would not.
func (o *Output) Volatile() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.volatile
}

// Logger returns a logger for the daemon's diagnostics. In the Seed format its
// records go to Options.Err as slog text, in the others into the stream of
// Options.Out. It never waits for either; what does not fit is dropped and
// counted.
func (o *Output) Logger() *slog.Logger { return o.logger }
