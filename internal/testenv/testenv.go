// Package testenv says what a test needs of the host it runs on.
//
// It is for tests only and knows nothing of sentryd: it probes the host by
// trying the thing itself, never by a version, and skips with a reason that
// starts with "needs ". It must not decide whether a skip is acceptable:
// internal/gotest does that for the whole run, from the reasons.
package testenv

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Requirement is one thing that a test cannot do without.
type Requirement struct {
	name    string
	missing func() string // why the host lacks it; empty when it is there
}

// Need skips the test unless the host meets every requirement. The reason of
// the skip names the first one that is missing: "needs root: the uid is 1000".
func Need(t testing.TB, reqs ...Requirement) {
	t.Helper()
	for _, r := range reqs {
		if why := r.missing(); why != "" {
			t.Skipf("needs %s: %s", r.name, why)
		}
	}
}

// Check requires what only one test can say: missing returns why the host lacks
// it, or "".
func Check(name string, missing func() string) Requirement {
	return Requirement{name, missing}
}

// Root requires an effective uid of 0.
func Root() Requirement {
	return Requirement{"root", func() string {
		if uid := os.Geteuid(); uid != 0 {
			return fmt.Sprintf("the uid is %d", uid)
		}
		return ""
	}}
}

// NotRoot requires a plain user without capabilities.
func NotRoot() Requirement {
	return Requirement{"a plain user", func() string {
		if os.Geteuid() == 0 {
			return "the uid is 0"
		}
		return ""
	}}
}

// SysResource requires the capability CAP_SYS_RESOURCE, which root in a
// container lacks as a rule: to protect a process from the OOM killer, and to
// raise a hard limit.
func SysResource() Requirement {
	return Requirement{"CAP_SYS_RESOURCE", func() string {
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&h, &data[0]); err != nil {
			return err.Error()
		}
		if data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
			return "this process lacks it"
		}
		return ""
	}}
}

// Tool requires a program of that name in PATH, or, as Debian keeps daemons
// there and a plain user's PATH lacks them, in /usr/sbin or /sbin.
func Tool(name string) Requirement {
	return Requirement{name, func() string {
		if LookTool(name) == "" {
			return "not in PATH"
		}
		return ""
	}}
}

// LookTool returns the path of a program as Tool finds it, or "".
func LookTool(name string) string {
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	return ""
}

// User requires an account of that name, such as "nobody".
func User(name string) Requirement {
	return Requirement{"the user " + name, func() string {
		if _, err := user.Lookup(name); err != nil {
			return err.Error()
		}
		return ""
	}}
}

// Connector requires that this process may hear the kernel's proc connector:
// the initial PID and user namespaces, where alone it answers, and a netlink
// socket of its family that can join the group, which takes CAP_NET_ADMIN.
// See drivers/connector/cn_proc.c in the kernel.
func Connector() Requirement {
	return Requirement{"the proc connector", func() string {
		// The initial namespaces have fixed inode numbers (include/linux/proc_ns.h).
		for name, want := range map[string]string{"user": "user:[4026531837]", "pid": "pid:[4026531836]"} {
			got, err := os.Readlink("/proc/self/ns/" + name)
			if err != nil {
				return err.Error()
			}
			if got != want {
				return "not in the initial " + name + " namespace"
			}
		}
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
		if err != nil {
			return "socket: " + err.Error()
		}
		defer unix.Close(fd)
		const cnIdxProc = 1
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}); err != nil {
			return "bind: " + err.Error()
		}
		return ""
	}}
}

// Kernel requires a kernel of at least that release. It is for tests of what
// cannot be probed from outside, such as an order of events.
func Kernel(major, minor int) Requirement {
	return Requirement{fmt.Sprintf("Linux %d.%d", major, minor), func() string {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return err.Error()
		}
		release := unix.ByteSliceToString(u.Release[:])
		var ma, mi int
		if _, err := fmt.Sscanf(release, "%d.%d", &ma, &mi); err != nil {
			return "release " + release + ": " + err.Error()
		}
		if ma < major || ma == major && mi < minor {
			return "this is " + release
		}
		return ""
	}}
}

// Cgroup2 requires a mounted cgroup v2 tree, alone or beside a v1 one.
func Cgroup2() Requirement {
	return Requirement{"cgroup v2", func() string {
		f, err := os.Open("/proc/self/mounts")
		if err != nil {
			return err.Error()
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if fields := strings.Fields(s.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
				return ""
			}
		}
		return "not mounted"
	}}
}

// Slow stretches the longest time that a test waits for something by the factor
// in SENTRYD_TEST_SLOW, which whoever runs the tests on a slow host sets, such
// as an emulated one. It is for limits alone that only a failure reaches.
func Slow(d time.Duration) time.Duration {
	factor, err := strconv.ParseFloat(os.Getenv("SENTRYD_TEST_SLOW"), 64)
	if err != nil || factor < 1 {
		return d
	}
	return time.Duration(float64(d) * factor)
}

// Descriptors requires that a process may have n descriptors open: a hard limit
// as high.
func Descriptors(n uint64) Requirement {
	return Requirement{fmt.Sprintf("%d descriptors", n), func() string {
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			return err.Error()
		}
		if l.Max >= n {
			return ""
		}
		return fmt.Sprintf("the hard limit is %d", l.Max)
	}}
}

// Long requires that the run is not a -short one.
func Long() Requirement {
	return Requirement{"a run without -short", func() string {
		if testing.Short() {
			return "it takes long"
		}
		return ""
	}}
}

// Systemd requires systemd as PID 1 of a virtual machine that is thrown away:
// tests that need it write below /etc and stop units.
func Systemd() Requirement {
	return Requirement{"systemd in a virtual machine", func() string {
		if os.Getenv("SENTRYD_TEST_SYSTEMD") != "1" {
			return "make vm-test boots one"
		}
		if _, err := os.Stat("/run/systemd/system"); err != nil { // sd_booted(3)
			return err.Error()
		}
		return ""
	}}
}
