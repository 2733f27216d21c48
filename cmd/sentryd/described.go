package main

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/sentryd/sentryd/pkg/procinfo"
	"github.com/sentryd/sentryd/pkg/supervisor"
	"github.com/sentryd/sentryd/pkg/view"
)

// described is a supervisor whose trees say what each process is, and whose picture says
// what the output lacks.
type described struct {
	*supervisor.Supervisor
	processes *procinfo.Reader
	output    interface{ Failing() error }

	mu          sync.Mutex
	base, shown *view.State // of the last picture with something to say about the output
}

// State returns the present picture.
func (d *described) State() *view.State { return d.complete(d.Supervisor.State()) }

// Wait returns the first picture whose version is above after, or the present
// one when ctx ends.
func (d *described) Wait(ctx context.Context, after uint64) *view.State {
	return d.complete(d.Supervisor.Wait(ctx, after))
}

// complete says in a picture that output is dropped, if it is. That changes without a
// new version, as often as it likes. The same picture is the same again: who encodes it
// does so once.
func (d *described) complete(base *view.State) *view.State {
	why := d.output.Failing()
	if why == nil {
		return base
	}
	sentence := fmt.Sprintf("Standard output fails (%v): what would be printed is dropped until it works again.", why)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.base == base && slices.Contains(d.shown.Daemon.Missing, sentence) {
		return d.shown
	}
	st := *base
	st.Daemon.Missing = append(slices.Clone(st.Daemon.Missing), sentence)
	d.base, d.shown = base, &st
	return d.shown
}

// Tree returns the living processes of an entry, without those that have ended
// since it was asked which they are.
func (d *described) Tree(entry string) (*view.Tree, error) {
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
