package spawn

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// procStat is what is of use here of /proc/PID/stat, proc_pid_stat(5).
type procStat struct {
	state        byte
	parent       int
	session      int
	threads      int
	user, system time.Duration // with that of the children waited for
	start        uint64        // ticks since boot
	// Not for who may not trace the process, to whom these are 0, or 1 the first.
	endCode          uint64 // address; execve(2) sets it when the environment is complete
	envStart, envEnd uint64 // addresses of its environment
	exit             int    // as wait(2) gives it
}

// userHZ is the unit of times in /proc: USER_HZ, 100 on all that Go runs on.
const userHZ = 100

func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(text)
}

// parseStat counts from the last bracket: the name before it may hold anything.
func parseStat(text []byte) (st procStat, err error) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return st, fmt.Errorf("no name in %q", text)
	}
	f := bytes.Fields(text[end+1:]) // f[0] is field 3
	if len(f) < 52-2 || len(f[0]) != 1 {
		return st, fmt.Errorf("too few fields in %q", text)
	}
	num := func(field int) int64 {
		v, e := strconv.ParseInt(string(f[field-3]), 10, 64)
		if e != nil {
			err = e
		}
		return v
	}
	const tick = time.Second / userHZ
	st = procStat{
		state: f[0][0], parent: int(num(4)), session: int(num(6)), threads: int(num(20)),
		user: time.Duration(num(14)+num(16)) * tick, system: time.Duration(num(15)+num(17)) * tick,
		start: uint64(num(22)), endCode: uint64(num(27)), envStart: uint64(num(50)), envEnd: uint64(num(51)), exit: int(num(52)),
	}
	return st, err
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }
