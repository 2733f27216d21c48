package procevents

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Where the connector cannot work it says so, and why.
func TestSupportedElsewhere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	if err := Supported(); err != nil {
		t.Skipf("needs the proc connector: %v", err)
	}
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	for name, tc := range map[string]struct {
		attr syscall.SysProcAttr
		want error
	}{
		"pid namespace":  {syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, ErrPIDNamespace},
		"user namespace": {syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}, ErrUserNamespace},
		"net namespace":  {syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}, ErrNetNamespace},
		"root":           {syscall.SysProcAttr{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := helper("supported")
			cmd.SysProcAttr = &tc.attr
			out, err := cmd.Output()
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) {
				t.Skipf("needs namespaces: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			var want string
			if tc.want != nil {
				want = tc.want.Error()
			}
			if got := string(out); len(got) < len(want) || got[:len(want)] != want || want == "" && got != "" {
				t.Errorf("Supported: %q, want %q", got, want)
			}
		})
	}
}

// A plain user is told what is missing, or, from Linux 6.6 on, served.
func TestSupportedPlainUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: changes user")
	}
	cmd := helper("supported")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", out)
	if got, want := string(out), ErrPermission.Error(); got != "" && (len(got) < len(want) || got[:len(want)] != want) {
		t.Errorf("Supported: %q, want nothing or %q", got, want)
	}
}

func TestExplain(t *testing.T) {
	for errno, want := range map[unix.Errno]error{
		unix.ECONNREFUSED:    ErrNetNamespace,
		unix.EPERM:           ErrPermission,
		unix.EACCES:          ErrPermission,
		unix.EPROTONOSUPPORT: ErrNoKernelSupport,
		unix.EAFNOSUPPORT:    ErrNoKernelSupport,
		unix.ENOMEM:          unix.ENOMEM,
	} {
		if err := explain("open", os.NewSyscallError("socket", errno)); !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("explain(%v) = %v", errno, err)
		}
	}
}
