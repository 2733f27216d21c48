package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Signal is the number of a signal, as kill(2) takes it.
type Signal int

// The real-time signals that programs may use. The kernel's begin at 32; the
// C libraries keep the first two for themselves, and SIGRTMIN means 34 to them
// (signal(7)).
const (
	sigRTMin = 34
	sigRTMax = 64
)

const defaultStopSignal = Signal(syscall.SIGTERM)

// signalNames lists the signals of Linux that have a name (signal(7)).
var signalNames = map[Signal]string{
	Signal(syscall.SIGABRT): "SIGABRT", Signal(syscall.SIGALRM): "SIGALRM", Signal(syscall.SIGBUS): "SIGBUS",
	Signal(syscall.SIGCHLD): "SIGCHLD", Signal(syscall.SIGCONT): "SIGCONT", Signal(syscall.SIGFPE): "SIGFPE",
	Signal(syscall.SIGHUP): "SIGHUP", Signal(syscall.SIGILL): "SIGILL", Signal(syscall.SIGINT): "SIGINT",
	Signal(syscall.SIGIO): "SIGIO", Signal(syscall.SIGKILL): "SIGKILL", Signal(syscall.SIGPIPE): "SIGPIPE",
	Signal(syscall.SIGPROF): "SIGPROF", Signal(syscall.SIGPWR): "SIGPWR", Signal(syscall.SIGQUIT): "SIGQUIT",
	Signal(syscall.SIGSEGV): "SIGSEGV", Signal(syscall.SIGSTKFLT): "SIGSTKFLT", Signal(syscall.SIGSTOP): "SIGSTOP",
	Signal(syscall.SIGSYS): "SIGSYS", Signal(syscall.SIGTERM): "SIGTERM", Signal(syscall.SIGTRAP): "SIGTRAP",
	Signal(syscall.SIGTSTP): "SIGTSTP", Signal(syscall.SIGTTIN): "SIGTTIN", Signal(syscall.SIGTTOU): "SIGTTOU",
	Signal(syscall.SIGURG): "SIGURG", Signal(syscall.SIGUSR1): "SIGUSR1", Signal(syscall.SIGUSR2): "SIGUSR2",
	Signal(syscall.SIGVTALRM): "SIGVTALRM", Signal(syscall.SIGWINCH): "SIGWINCH", Signal(syscall.SIGXCPU): "SIGXCPU",
	Signal(syscall.SIGXFSZ): "SIGXFSZ",
}

// signalSynonyms are further names that are read and never written.
var signalSynonyms = map[string]Signal{
	"SIGIOT": Signal(syscall.SIGABRT), "SIGCLD": Signal(syscall.SIGCHLD), "SIGPOLL": Signal(syscall.SIGIO),
}

// String returns the name: SIGTERM, SIGRTMIN, SIGRTMIN+3. A number without a
// name gives "signal 33".
func (s Signal) String() string {
	switch name, ok := signalNames[s]; {
	case ok:
		return name
	case s == sigRTMin:
		return "SIGRTMIN"
	case s > sigRTMin && s <= sigRTMax:
		return fmt.Sprintf("SIGRTMIN+%d", s-sigRTMin)
	}
	return fmt.Sprintf("signal %d", int(s))
}

// ParseSignal reads a signal: a name with or without SIG, in capitals or not,
// SIGRTMIN+n, SIGRTMAX-n, or a number. 0, which is no signal, is refused.
func ParseSignal(text string) (Signal, error) {
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if n, err := strconv.Atoi(text); err == nil {
		s := Signal(n)
		if _, named := signalNames[s]; decimal.MatchString(text) && (named || s >= sigRTMin && s <= sigRTMax) {
			return s, nil
		}
		return 0, fmt.Errorf("unknown signal %q", text)
	}
	for s, full := range signalNames {
		if full == "SIG"+name {
			return s, nil
		}
	}
	if s, ok := signalSynonyms["SIG"+name]; ok {
		return s, nil
	}
	for _, base := range []struct {
		name string
		at   int
	}{{"RTMIN", sigRTMin}, {"RTMAX", sigRTMax}} {
		offset, ok := strings.CutPrefix(name, base.name)
		if !ok {
			continue
		}
		if offset == "" {
			return Signal(base.at), nil
		}
		n, err := strconv.Atoi(offset)
		signed := offset[0] == '+' || offset[0] == '-'
		if err == nil && signed && decimal.MatchString(offset[1:]) && base.at+n >= sigRTMin && base.at+n <= sigRTMax {
			return Signal(base.at + n), nil
		}
	}
	names := make([]string, 0, len(signalNames))
	for _, full := range signalNames {
		names = append(names, full[len("SIG"):])
	}
	// The map's order must not decide between two equally near names.
	slices.Sort(names)
	hint := didYouMean(name, names)
	return 0, fmt.Errorf("unknown signal %q%s", text, hint)
}
