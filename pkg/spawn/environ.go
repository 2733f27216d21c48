package spawn

import (
	"os"
	"runtime"
	"time"
)

// readEnviron returns the environment that a process was started with, as
// proc_pid_environ(5) has it; nothing if it may not be read.
//
// execve(2) gives the old memory up before the new one is complete, and the
// environment comes last: the file is empty meanwhile, in which nobody who looks
// for a variable must believe. So it is read again until the process has an
// environment, be it one of no variables; but not for longer than patience. While
// the kernel fills it in it looks like one of none.
func readEnviron(pid int, patience time.Duration) []byte {
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		text, err := os.ReadFile(procPath(pid, "environ"))
		if len(text) > 0 || err != nil {
			return text
		}
		st, err := readStat(pid)
		switch {
		case err != nil, st.state == 'Z', st.state == 'X': // it has no memory, and will have none
			return nil
		case st.endCode != 0 && st.envEnd != 0 && st.envEnd == st.envStart: // of no variables
			return nil
		case time.Now().After(deadline):
			return nil
		}
	}
}
