package spawn

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestThisKernel names what the kernel has, so that a run under an old one shows
// that what the Pool does without it was done for want of it, and under a new one
// that the want was not imagined.
func TestThisKernel(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		t.Fatalf("release %q: %v", release, err)
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(self) })
	p := newTestPool(t, Options{}, nil)
	pid, pidfd := startAs(t, 0)
	watch, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	endAs(t, pidfd)
	_, kept := keptStatus(watch)
	for _, f := range []struct {
		name         string
		major, minor int
		have         bool
	}{
		{"PIDFD_SIGNAL_PROCESS_GROUP", 6, 9, p.exact},
		{"a pidfd that hangs up after the reap", 6, 9, hungUp(watch)},
		{"an inode of its own for each pidfd", 6, 9, inode(self) != 0},
		{"PIDFD_INFO_EXIT", 6, 15, kept},
	} {
		since := major > f.major || major == f.major && minor >= f.minor
		t.Logf("%s, Linux %d.%d: %t (process %d)", f.name, f.major, f.minor, f.have, pid)
		// A distributor's kernel may have what is newer than its number, but
		// not Debian's, which the virtual machines run.
		if since && !f.have || !since && f.have && os.Getenv("SENTRYD_TEST_PROGRAMS") != "" {
			t.Errorf("%s: %t under Linux %s", f.name, f.have, release)
		}
	}
}
