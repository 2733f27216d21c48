// Package procinfo reads the processor time, memory and open descriptors of
// given processes from /proc, when asked, and each at most once a second.
//
// It knows pids and /proc. It must not know what a process is for, nor keep
// anything of one that nobody asks about any more. A pid is no identity: the
// start time that comes with every reading tells the caller when a number
// belongs to another process than before.
package procinfo

import (
	"os"
	"sync"
	"time"

	"github.com/prometheus/procfs"
)

// maxAge is how long a reading is good for.
const maxAge = time.Second

// userHZ is the unit of times in /proc/PID/stat, a hundredth of a second on
// every architecture that Go runs Linux on (proc(5)).
const userHZ = 100

// Reader reads from /proc. It is safe for concurrent use: of two callers that
// ask at the same time one reads and the other gets the same. Make it with
// [New].
type Reader struct {
	root string
	now  func() time.Time

	mu    sync.Mutex // held while reading
	cache map[int]reading
}

// reading is what was found at a pid, possibly nothing.
type reading struct {
	at     time.Time
	exists bool
	usage
}

type usage struct {
	start        uint64
	user, system float64
	rss          int64
	fds          int
}

// New returns a Reader of /proc. Where that is not mounted no process is found.
func New() *Reader {
	return &Reader{root: procfs.DefaultMountPoint, now: time.Now, cache: make(map[int]reading)}
}

// Each calls f for each of the pids that there is, in the order given and from
// the caller's goroutine. start is when the process started, in hundredths of
// a second since the boot. user and system are its processor time in seconds,
// that of its ended and waited-for children included, as wait4(2) reports it
// at its end; no reading of a process is below an earlier one. rss is its
// resident memory in bytes. fds is the number of its open descriptors, -1
// where this process may not know it (it takes ptrace rights, proc(5)).
//
// A process that ends meanwhile is left out or, as a zombie, has its last
// processor times and nothing else.
func (r *Reader) Each(pids []int, f func(pid int, start uint64, user, system float64, rss int64, fds int)) {
	for i, u := range r.read(pids) {
		if u.exists {
			f(pids[i], u.start, u.user, u.system, u.rss, u.fds)
		}
	}
}

func (r *Reader) read(pids []int) []reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	fs, err := procfs.NewFS(r.root)
	if err != nil {
		return nil
	}
	now := r.now()
	for pid, c := range r.cache {
		if now.Sub(c.at) >= maxAge {
			delete(r.cache, pid)
		}
	}
	out := make([]reading, len(pids))
	for i, pid := range pids {
		c, ok := r.cache[pid]
		if !ok {
			c.at = now
			c.usage, c.exists = readUsage(fs, pid)
			r.cache[pid] = c
		}
		out[i] = c
	}
	return out
}

func readUsage(fs procfs.FS, pid int) (usage, bool) {
	p, err := fs.Proc(pid)
	if err != nil {
		return usage{}, false
	}
	s, err := p.Stat()
	if err != nil {
		return usage{}, false
	}
	u := usage{
		start:  s.Starttime,
		user:   float64(s.UTime+uint(max(s.CUTime, 0))) / userHZ,
		system: float64(s.STime+uint(max(s.CSTime, 0))) / userHZ,
		rss:    int64(s.RSS) * int64(os.Getpagesize()),
	}
	if s.State == "Z" || s.State == "X" {
		u.rss = 0
		return u, true
	}
	// The size of /proc/PID/fd since 6.2, a count of its entries before.
	if u.fds, err = p.FileDescriptorsLen(); err != nil {
		u.fds = -1
	}
	return u, true
}
