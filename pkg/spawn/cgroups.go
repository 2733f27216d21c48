package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cgroups is a directory in the cgroup v2 tree, below the cgroup of this
// process, in which each child may have a cgroup of its own: see Place.
// Nothing outside it is written to, with the one exception that
// EnableControllers names. Its methods may be called from any goroutine, but
// for EnableControllers.
type Cgroups struct {
	dir string
}

// leaf is the cgroup below Cgroups.Dir that this process moves to when
// controllers are enabled above it. No child's can have the name: it has no colon.
const leaf = "daemon"

// OpenCgroups makes the directory of that name below the cgroup of this
// process, or takes up the one that an earlier image made. Where a service manager
// started this process in a cgroup "daemon" of one that it delegated (systemd.resource-control(5),
// DelegateSubgroup=daemon, systemd 254), it is beside that: then controllers can be
// enabled above it, and the service started again, while children live. It fails where there
// is no cgroup v2 tree, where this user may not write to its part of it, and
// where clone3(2) can not enter a cgroup (Linux 5.7; a seccomp filter may forbid it).
func OpenCgroups(name string) (*Cgroups, error) {
	own, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	// A size that no kernel takes: EINVAL if there is the system call at all.
	if _, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); errno != syscall.EINVAL {
		return nil, fmt.Errorf("enter a cgroup by clone3: %w", errno)
	}
	above := own
	dir := filepath.Join(own, name)
	if parent := filepath.Dir(own); filepath.Base(own) == leaf {
		switch {
		case filepath.Base(parent) == name: // an earlier image moved
			dir = parent
		case delegated(parent):
			above, dir = parent, filepath.Join(parent, name)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", dir, err)
	}
	if int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("the cgroup %s belongs to uid %d", dir, st.Uid)
	}
	// A process may enter a cgroup if we may write to that cgroup.procs and to
	// that of the nearest cgroup above both (cgroups(7), "delegation containment").
	for _, d := range []string{own, above, dir} {
		if err := unix.Faccessat(unix.AT_FDCWD, filepath.Join(d, "cgroup.procs"), unix.W_OK, unix.AT_EACCESS); err != nil {
			return nil, fmt.Errorf("move a process from the cgroup %s: %w", d, err)
		}
	}
	return &Cgroups{dir: dir}, nil
}

// delegated reports whether systemd says that a cgroup is its service's to divide:
// CGROUP_DELEGATION.md, since systemd 251.
func delegated(path string) bool {
	b := make([]byte, 8)
	n, err := unix.Getxattr(path, "user.delegate", b)
	return err == nil && string(b[:n]) == "1"
}

// Dir is the directory's path.
func (g *Cgroups) Dir() string { return g.dir }

// Path is the path of the cgroup of that name in it. The name must contain a colon.
func (g *Cgroups) Path(name string) string { return g.dir + "/" + name }

// Sweep removes every cgroup in the directory in which nothing lives, those of
// children that are not asked to be kept.
func (g *Cgroups) Sweep(keep func(name string) bool) {
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return // it is gone, and with it all that could be removed
	}
	for _, e := range entries {
		if e.IsDir() && e.Name() != leaf && !keep(e.Name()) {
			removeCgroup(g.Path(e.Name()))
		}
	}
}

// Close removes the directory, if nothing lives in it any more but this
// process, and reports what is left in it.
func (g *Cgroups) Close() (left []string) {
	g.Sweep(func(string) bool { return false })
	g.leave()
	if unix.Rmdir(g.dir) == nil {
		return nil
	}
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() && e.Name() != leaf {
			left = append(left, e.Name())
		}
	}
	return left
}

// leave moves this process back to the cgroup that it was started in, if it had
// to leave that. Before that the cgroup must pass no controller on. Where others are
// below it this process stays: whoever made the cgroup removes it with all in it.
func (g *Cgroups) leave() {
	above := filepath.Dir(g.dir)
	if unix.Access(filepath.Join(g.dir, leaf), unix.F_OK) != nil || len(subCgroups(above)) > 1 {
		return
	}
	disableControllers(g.dir)
	disableControllers(above)
	_ = writeFile(filepath.Join(above, "cgroup.procs"), "0")
	_ = unix.Rmdir(filepath.Join(g.dir, leaf))
}

// disableControllers has a cgroup pass none on, as far as those below it do not either.
func disableControllers(path string) {
	for _, name := range readWords(filepath.Join(path, "cgroup.subtree_control")) {
		_ = writeFile(filepath.Join(path, "cgroup.subtree_control"), "-"+name)
	}
}

// removeCgroup removes a cgroup and those that children made below it, as far as
// nothing lives there. Since Linux 4.5 no controller keeps an empty one.
func removeCgroup(path string) {
	err := unix.Rmdir(path)
	if err != unix.EBUSY && err != unix.ENOTEMPTY {
		return
	}
	for _, sub := range subCgroups(path) {
		removeCgroup(sub)
	}
	_ = unix.Rmdir(path) // something lives there
}

// subCgroups lists the cgroups right below one.
func subCgroups(path string) (subs []string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			subs = append(subs, path+"/"+e.Name())
		}
	}
	return subs
}

// ownCgroup returns the directory of this process's cgroup on a mounted v2
// tree, which may stand anywhere and beside v1 ones.
func ownCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("find the cgroup of this process: %w", err)
	}
	own := ""
	for line := range strings.Lines(string(b)) {
		// The v2 tree has the number 0 and no controllers.
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			own = path
		}
	}
	if own == "" {
		return "", errors.New("find the cgroup of this process: there is no cgroup v2 tree")
	}
	if b, err = os.ReadFile("/proc/self/mountinfo"); err != nil {
		return "", fmt.Errorf("find the cgroup v2 mount: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		dir, ok := mountedAt(line, own)
		if !ok {
			continue
		}
		// Something else may be mounted over it.
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil && int64(st.Type) == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", errors.New("find the cgroup v2 mount: none shows the cgroup of this process")
}

// mountedAt returns where a line of /proc/self/mountinfo, proc_pid_mountinfo(5),
// has a cgroup of the v2 tree.
func mountedAt(line, cgroup string) (dir string, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
		return "", false
	}
	root, at := unescape(fields[3]), unescape(fields[4])
	if root == "/" {
		root = ""
	}
	rest, ok := strings.CutPrefix(cgroup, root)
	if !ok || rest != "" && rest[0] != '/' || strings.Contains(rest+"/", "/../") {
		return "", false
	}
	return filepath.Join(at, rest), true
}

// unescape undoes the \ooo with which the kernel writes blanks in a path.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// readWords returns the words of a file, none if it cannot be read.
func readWords(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// writeFile writes a word to a file of the kernel's.
func writeFile(path, word string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(word))
	return err
}

// cgroupState is what cgroup.events says of a cgroup and all below it.
type cgroupState struct {
	populated bool // something lives there; zombies do not count
	frozen    bool // by itself or by one above
}

// readCgroup reads cgroup.events of the cgroup that dirfd, which may be O_PATH,
// and path name. Like all that reads cgroups in the way of a restart it tells Go's scheduler
// nothing of its system calls: they wait for no device, and a thread that has
// lost its P meanwhile is what takes long.
func readCgroup(dirfd int, path string) (cgroupState, error) {
	fd, err := openRaw(dirfd, path, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return cgroupState{}, err
	}
	defer closeRaw(fd)
	return readEvents(fd)
}

func readEvents(fd int) (st cgroupState, err error) {
	var b [128]byte
	n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(len(b)), 0, 0, 0)
	if errno != 0 {
		return cgroupState{}, errno
	}
	if string(b[:n]) == atRest {
		return cgroupState{}, nil
	}
	return cgroupState{
		populated: bytes.Contains(b[:n], []byte("populated 1")),
		frozen:    bytes.Contains(b[:n], []byte("frozen 1")),
	}, nil
}

// atRest is what most cgroups that are looked at say.
const atRest = "populated 0\nfrozen 0\n"

// openRaw is openat(2) without a word to the scheduler, for what is in a
// file system of the kernel's.
func openRaw(dirfd int, path string, flags int) (int, error) {
	var buf [256]byte
	name := append(append(buf[:0], path...), 0)
	for {
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(dirfd), uintptr(unsafe.Pointer(&name[0])), uintptr(flags), 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
			continue
		}
		return -1, errno
	}
}

// mkdirRaw is mkdirat(2) in the same way.
func mkdirRaw(dirfd int, path string, mode uint32) error {
	var buf [256]byte
	name := append(append(buf[:0], path...), 0)
	_, _, errno := unix.RawSyscall(unix.SYS_MKDIRAT, uintptr(dirfd), uintptr(unsafe.Pointer(&name[0])), uintptr(mode))
	if errno != 0 {
		return errno
	}
	return nil
}

func closeRaw(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }
