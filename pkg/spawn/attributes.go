package spawn

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attributes are who a child is and what it may use. The zero value asks for
// nothing: then the child has what this process has, but for what package
// spawn promises of every child. They need clone3(2), but for a Credential:
// without it the start fails with ENOSYS.
type Attributes struct {
	Credential *Credential // nil: as this process
	Umask      *int        // 0 to 0777, see umask(2)
	Nice       *int        // -20 to 19, see setpriority(2)
	// OOMScoreAdj is -1000 to 1000, see proc_pid_oom_score_adj(5). Without it
	// a child has that of this process, but never less than 0.
	OOMScoreAdj *int
	CPUs        []int   // numbers from 0, below 1024; nil: as this process; see sched_setaffinity(2)
	Limits      []Limit // each resource once
	// Capabilities, when not nil, are the numbers of those that the child has
	// in its permitted, effective, inheritable, ambient and bounding set; it
	// has no others in any of them. See capabilities(7).
	Capabilities    []int
	NoNewPrivileges bool // see PR_SET_NO_NEW_PRIVS(2const)
}

// Credential is who a child is. Unless Attributes say otherwise, a child under
// another user than this process's, and not root, has no capabilities.
type Credential struct {
	UID, GID uint32
	// Groups are the supplementary groups; nil: those of this process.
	Groups []uint32
	// Name of the user, for errors.
	Name string
}

// Limit is one resource limit, see setrlimit(2).
type Limit struct {
	Resource   int    // unix.RLIMIT_NOFILE, …
	Soft, Hard uint64 // unix.RLIM_INFINITY: none
	Name       string // of the resource, for errors
}

// The highest number of resources, and what the kernel calls the score.
const (
	maxLimits = 16
	oomFile   = "/proc/self/oom_score_adj\x00"
)

// attributeData is what the steps of a child with Attributes point to.
type attributeData struct {
	oom    [8]byte
	cpus   unix.CPUSet
	limits [maxLimits]unix.Rlimit
	header unix.CapUserHeader
	caps   [2]unix.CapUserData
}

// privileged appends the steps that come while the child is still who we are:
// what raises a limit needs our rights, and RLIMIT_NPROC counts from the
// moment at which the user changes. The lowest descriptor that is not open is
// free.
func (g *program) privileged(t *target, free int) {
	if t.oom != nil {
		// Raising it needs no right. It is the child's alone: for a vfork(2)
		// the kernel does not set it in others that share the memory.
		text := strconv.AppendInt(g.data.oom[:0], int64(*t.oom), 10)
		name := strconv.Itoa(*t.oom)
		g.step("oom_score_adj", name, unix.SYS_OPENAT, ^uintptr(-unix.AT_FDCWD-1), uintptr(unsafe.Pointer(unsafe.StringData(oomFile))), unix.O_WRONLY|unix.O_CLOEXEC)
		g.step("oom_score_adj", name, unix.SYS_WRITE, uintptr(free), uintptr(unsafe.Pointer(&g.data.oom)), uintptr(len(text)))
		g.step("oom_score_adj", name, unix.SYS_CLOSE, uintptr(free))
	}
	a := t.attr
	if a == nil {
		return
	}
	if a.Nice != nil {
		g.step("setpriority", strconv.Itoa(*a.Nice), unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(*a.Nice))
	}
	if a.CPUs != nil {
		g.data.cpus.Zero()
		for _, cpu := range a.CPUs {
			g.data.cpus.Set(cpu)
		}
		g.step("sched_setaffinity", "", unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(g.data.cpus), uintptr(unsafe.Pointer(&g.data.cpus)))
	}
	for i := range a.Limits {
		l, to := &a.Limits[i], &g.data.limits[i]
		*to = unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		g.step("setrlimit", l.Name, unix.SYS_PRLIMIT64, 0, uintptr(l.Resource), uintptr(unsafe.Pointer(to)))
	}
	if a.Umask != nil {
		g.step("umask", "", unix.SYS_UMASK, uintptr(*a.Umask)) // the child's alone: no CLONE_FS
	}
}

// identity appends the steps after which the child is who it is to be.
//
// It shares our memory until execve(2), under another user already, who may
// stop it there. That he may not write to it as well is for the kernel to see
// to: a change of user makes the memory undumpable (commit_creds), so that
// ptrace(2) and /proc/PID/mem are for root alone. It is ours too, and stays so
// for good: PR_SET_DUMPABLE in the wrong moment would open a child of another
// spawner. Besides, the permitted set is left whole, for execve to reduce:
// only who has as many capabilities may trace the child, even where
// fs.suid_dumpable is 1. But with no_new_privs execve measures by that set what
// would be gained by file capabilities, so it is reduced then.
func (g *program) identity(a *Attributes) {
	if a == nil {
		return
	}
	c := a.Credential
	caps, reduce := uint64(0), a.reduces()
	for _, n := range a.Capabilities {
		caps |= 1 << n
	}
	if a.Capabilities != nil {
		for rest, n := bounding()&^caps, 0; rest != 0; rest, n = rest>>1, n+1 {
			if rest&1 != 0 {
				g.step("drop capability", strconv.Itoa(n), unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0)
			}
		}
	}
	if c != nil {
		if reduce {
			g.step("keep capabilities", "", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
		}
		if c.Groups != nil {
			// The array belongs to the Spec, which the job holds on to.
			g.step("setgroups", c.Name, unix.SYS_SETGROUPS, uintptr(len(c.Groups)), uintptr(unsafe.Pointer(unsafe.SliceData(c.Groups))))
		}
		g.step("setgid", strconv.Itoa(int(c.GID)), unix.SYS_SETRESGID, uintptr(c.GID), uintptr(c.GID), uintptr(c.GID))
		g.step("setuid", c.Name, unix.SYS_SETRESUID, uintptr(c.UID), uintptr(c.UID), uintptr(c.UID))
	}
	if reduce {
		g.capset(caps, a.NoNewPrivileges)
	}
	if a.NoNewPrivileges {
		g.step("no_new_privs", "", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
}

// capset appends the steps by which the child has these capabilities and no
// others, once it has called execve(2), or now.
func (g *program) capset(caps uint64, now bool) {
	h, d := &g.data.header, &g.data.caps
	*h = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	_ = unix.Capget(h, &d[0]) // it fails for a bad version or pid alone
	for i := range d {
		half := uint32(caps >> (32 * i))
		d[i].Effective, d[i].Inheritable = half, half
		if now {
			d[i].Permitted = half
		}
	}
	g.step("capset", "", unix.SYS_CAPSET, uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(d)))
	for n := 0; caps != 0; caps, n = caps>>1, n+1 {
		if caps&1 != 0 {
			g.step("raise capability", strconv.Itoa(n), unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0)
		}
	}
}

// reduces reports whether capabilities are to be taken from the child.
func (a *Attributes) reduces() bool {
	c := a.Credential
	return a.Capabilities != nil || c != nil && c.UID != 0 && int(c.UID) != unix.Geteuid()
}

// limits reports whether a sets this resource.
func (a *Attributes) limits(resource int) bool {
	if a == nil {
		return false
	}
	for i := range a.Limits {
		if a.Limits[i].Resource == resource {
			return true
		}
	}
	return false
}

// bounding is our bounding set. Nothing adds to it.
var bounding = sync.OnceValue(func() (set uint64) {
	for n := range 64 {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		if err != nil {
			break // the kernel knows no more
		}
		set |= uint64(in) << n
	}
	return set
})

// ownOOMScoreAdj is the oom_score_adj of this process. Where there is no such
// file, children cannot be told theirs either.
func ownOOMScoreAdj() int {
	text, err := os.ReadFile(strings.TrimSuffix(oomFile, "\x00"))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}
