package procevents

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Why there are no events here. [Dial] and [Supported] return errors that match
// one of these; their text is meant to be shown.
var (
	// ErrPIDNamespace: the kernel answers only processes of the initial PID
	// namespace.
	ErrPIDNamespace = errors.New("proc connector: not in the initial PID namespace (in a container?), where the kernel does not answer; run on the host or share the host's PID namespace")
	// ErrUserNamespace: the kernel answers only the initial user namespace.
	ErrUserNamespace = errors.New("proc connector: not in the initial user namespace (in a rootless container?), where the kernel does not answer; run on the host")
	// ErrNetNamespace: the connector exists only in the initial network
	// namespace.
	ErrNetNamespace = errors.New("proc connector: not in the initial network namespace, the only one that has it; share the host's network namespace")
	// ErrPermission: subscribing takes CAP_NET_ADMIN before Linux 6.6.
	ErrPermission = errors.New("proc connector: not permitted; run as root or with CAP_NET_ADMIN (Linux before 6.6 needs it), and see what a security module forbids")
	// ErrNoKernelSupport: the kernel has no connector.
	ErrNoKernelSupport = errors.New("proc connector: not in this kernel; it needs CONFIG_CONNECTOR and CONFIG_PROC_EVENTS")
	// ErrSilent: the kernel took the subscription and sends nothing. Dial returns
	// it where no reason can be found, and [Listener.Receive] when events have
	// stopped.
	ErrSilent = errors.New("proc connector: subscribed, but no event arrives")
)

// Supported reports whether events can be had here, by subscribing and waiting
// up to a second for an event of our own. It returns nil, or an error that
// matches one of those above, or one of the system's.
func Supported() error {
	l, err := Dial(Config{})
	if err != nil {
		return err
	}
	return l.Close()
}

// Inode numbers of the initial namespaces, fixed since Linux 3.8
// (include/linux/proc_ns.h; in linux/nsfs.h since 6.18).
const (
	initialUserNS = 0xEFFFFFFD
	initialPIDNS  = 0xEFFFFFFC
)

// checkNamespaces recognises the namespaces whose requests the kernel drops
// without a word. Where /proc does not tell, proving the subscription will.
func checkNamespaces() error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err == nil && st.Ino != initialPIDNS {
		return ErrPIDNamespace
	}
	if err := unix.Stat("/proc/self/ns/user", &st); err == nil && st.Ino != initialUserNS {
		return ErrUserNamespace
	}
	return nil
}

// checkKernel recognises a kernel that has the connector without the process
// events, which would take the subscription and send nothing.
func checkKernel() error {
	names, err := os.ReadFile("/proc/net/connector") // nothing to say where it cannot be read
	if err == nil && !hasProcEvents(names) {
		return ErrNoKernelSupport
	}
	return nil
}

// hasProcEvents looks for who serves the proc connector's id, CN_IDX_PROC and
// CN_VAL_PROC, in the kernel's list of a name and an id a line.
func hasProcEvents(names []byte) bool {
	for line := range bytes.Lines(names) {
		if f := bytes.Fields(line); len(f) == 2 && string(f[1]) == "1:1" {
			return true
		}
	}
	return false
}

// explain gives an error of subscribing its reason.
func explain(op string, err error) error {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w (%s: %w)", ErrNetNamespace, op, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w (%s: %w)", ErrPermission, op, err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w (%s: %w)", ErrNoKernelSupport, op, err)
	}
	return fmt.Errorf("proc connector: %s: %w", op, err)
}
