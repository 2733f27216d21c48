package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// setUp mounts what a host has mounted, enables every controller of cgroup v2,
// loads the modules and brings the loopback device up.
func setUp() error {
	// Tests run programs in /tmp, some of them with capabilities.
	const nosuid = unix.MS_NOSUID
	for _, m := range []struct {
		kind, dir, options string
		flags              uintptr
	}{
		{"proc", "/proc", "", nosuid},
		{"sysfs", "/sys", "", nosuid},
		{"devtmpfs", "/dev", "", nosuid},
		{"devpts", "/dev/pts", "ptmxmode=0666", nosuid},
		{"tmpfs", "/dev/shm", "mode=1777", nosuid},
		{"tmpfs", "/run", "mode=0755", nosuid},
		{"tmpfs", "/tmp", "mode=1777", 0},
		{"cgroup2", "/sys/fs/cgroup", "nsdelegate", nosuid},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.dir, err)
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	if err := enableControllers("/sys/fs/cgroup"); err != nil {
		return err
	}
	if err := keepPatches("/sys/fs/cgroup"); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	// As systemd sets them: a low soft limit and a high hard one.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 524288}); err != nil {
		return fmt.Errorf("set RLIMIT_NOFILE: %w", err)
	}
	return loopbackUp()
}

func enableControllers(root string) error {
	text, err := os.ReadFile(root + "/cgroup.controllers")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(text)) {
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+"+name), 0); err != nil {
			return fmt.Errorf("enable the controller %s: %w", name, err)
		}
	}
	return nil
}

// keepPatches makes a cgroup that stays, with a limit of CPU. The kernel patches
// its own code when the first cgroup with a controller comes and when the last
// one goes, in the allocator of pages for cpuset, for memory in the network's, and
// with the first and last limit of CPU in the scheduler. qemu's emulation of two
// processors does not always bear that: one of them can run into the breakpoint of
// a patch that is long done, and the kernel panics ("Oops: int3"), within seconds
// if cgroups or limits come and go.
func keepPatches(root string) error {
	dir := root + "/kept"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(dir+"/cpu.max", []byte("100000 100000"), 0)
}

func loadModules() error {
	j, err := readJob()
	if err != nil {
		return err
	}
	for _, path := range j.Modules {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}
