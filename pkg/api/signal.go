package api

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// Real-time signals as the C library numbers them (signal(7)); 32 and 33 are
// its own.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// ParseSignal returns the number of a signal written SIGTERM or TERM,
// SIGRTMIN+3 or SIGRTMAX-2, in upper case. Numbers are not accepted.
func ParseSignal(name string) (int, error) {
	short := strings.TrimPrefix(name, "SIG")
	if n, ok := signalNumber(short); ok {
		return n, nil
	}
	if n, ok := realtime(short); ok {
		return n, nil
	}
	return 0, fmt.Errorf("%q is not the name of a signal", name)
}

// realtime reads RTMIN, RTMAX and the distances from them.
func realtime(short string) (int, bool) {
	n, rest, sign := sigRTMin, "", 1
	switch {
	case strings.HasPrefix(short, "RTMIN"):
		rest = strings.TrimPrefix(short, "RTMIN")
	case strings.HasPrefix(short, "RTMAX"):
		n, rest, sign = sigRTMax, strings.TrimPrefix(short, "RTMAX"), -1
	default:
		return 0, false
	}
	if rest == "" {
		return n, true
	}
	if (rest[0] == '+') != (sign > 0) || (rest[0] == '-') != (sign < 0) {
		return 0, false
	}
	d, err := strconv.ParseUint(rest[1:], 10, 8)
	if err != nil || d > sigRTMax-sigRTMin || strconv.FormatUint(d, 10) != rest[1:] {
		return 0, false
	}
	return n + sign*int(d), true
}

func signalNumber(short string) (int, bool) {
	for _, s := range [...]struct {
		name   string
		number syscall.Signal
	}{
		{"ABRT", syscall.SIGABRT}, {"ALRM", syscall.SIGALRM}, {"BUS", syscall.SIGBUS},
		{"CHLD", syscall.SIGCHLD}, {"CLD", syscall.SIGCHLD}, {"CONT", syscall.SIGCONT},
		{"FPE", syscall.SIGFPE}, {"HUP", syscall.SIGHUP}, {"ILL", syscall.SIGILL},
		{"INT", syscall.SIGINT}, {"IO", syscall.SIGIO}, {"IOT", syscall.SIGABRT},
		{"KILL", syscall.SIGKILL}, {"PIPE", syscall.SIGPIPE}, {"POLL", syscall.SIGIO},
		{"PROF", syscall.SIGPROF}, {"PWR", syscall.SIGPWR}, {"QUIT", syscall.SIGQUIT},
		{"SEGV", syscall.SIGSEGV}, {"STKFLT", syscall.SIGSTKFLT}, {"STOP", syscall.SIGSTOP},
		{"SYS", syscall.SIGSYS}, {"TERM", syscall.SIGTERM}, {"TRAP", syscall.SIGTRAP},
		{"TSTP", syscall.SIGTSTP}, {"TTIN", syscall.SIGTTIN}, {"TTOU", syscall.SIGTTOU},
		{"URG", syscall.SIGURG}, {"USR1", syscall.SIGUSR1}, {"USR2", syscall.SIGUSR2},
		{"VTALRM", syscall.SIGVTALRM}, {"WINCH", syscall.SIGWINCH}, {"XCPU", syscall.SIGXCPU},
		{"XFSZ", syscall.SIGXFSZ},
	} {
		if s.name == short {
			return int(s.number), true
		}
	}
	return 0, false
}
