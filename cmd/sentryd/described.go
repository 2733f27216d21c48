package main

import (
	"github.com/sentryd/sentryd/pkg/procinfo"
	"github.com/sentryd/sentryd/pkg/supervisor"
	"github.com/sentryd/sentryd/pkg/view"
)

// described is a supervisor whose trees say what each process is.
type described struct {
	*supervisor.Supervisor
	processes *procinfo.Reader
}

// Tree returns the living processes of an entry, without those that have ended
// since it was asked which they are.
func (d described) Tree(entry string) (*view.Tree, error) {
	t, err := d.Supervisor.Tree(entry)
	if err != nil {
		return nil, err
	}
	for i := range t.Slots {
		slot := &t.Slots[i]
		pids := make([]int, 0, len(slot.Processes))
		at := make(map[int]view.TreeProcess, len(slot.Processes))
		for _, p := range slot.Processes {
			pids = append(pids, p.PID)
			at[p.PID] = p
		}
		slot.Processes = slot.Processes[:0]
		d.processes.Describe(pids, func(pid int, state, name string, command []string) {
			p := at[pid]
			p.State, p.Name = state, name
			p.Command = append(p.Command, command...)
			slot.Processes = append(slot.Processes, p)
		})
	}
	return t, nil
}
