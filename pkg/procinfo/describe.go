package procinfo

import "github.com/prometheus/procfs"

// Describe calls f for each of the pids that there is, in the order given and
// from the caller's goroutine, with what it is: the letter of its state and its
// name, as in proc_pid_stat(5), and the words of its command line, of which there
// are none for a kernel thread, a zombie, or a process that cleared it. Nothing
// of this is cached. The environment of a process is never read.
func (r *Reader) Describe(pids []int, f func(pid int, state, name string, command []string)) {
	fs, err := procfs.NewFS(r.root)
	if err != nil {
		return
	}
	for _, pid := range pids {
		p, err := fs.Proc(pid)
		if err != nil {
			continue
		}
		s, err := p.Stat()
		if err != nil {
			continue
		}
		command, err := p.CmdLine()
		if err != nil {
			command = nil // it ended meanwhile
		}
		f(pid, s.State, s.Comm, command)
	}
}
