package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroup2 returns where the tree of cgroup v2 is mounted, "" if it is not.
func cgroup2() string {
	text, err := os.ReadFile("/proc/self/mounts") // proc_pid_mounts(5)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1]
		}
	}
	return ""
}

// hiding returns a way to start a program that sees nothing at dir, in a mount
// namespace of its own (mount_namespaces(7)). It costs the program nothing at its start.
func hiding(dir string) func(*exec.Cmd) error {
	return func(cmd *exec.Cmd) error {
		started := make(chan error)
		go func() {
			// For good: the thread ends with this goroutine, and no other is to
			// run in its namespace.
			runtime.LockOSThread()
			started <- func() error {
				if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
					return fmt.Errorf("make a mount namespace: %w", err)
				}
				if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
					return fmt.Errorf("make the mounts private: %w", err)
				}
				if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
					return fmt.Errorf("hide %s: %w", dir, err)
				}
				return cmd.Start()
			}()
		}()
		return <-started
	}
}
