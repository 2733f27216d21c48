package main

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/view"
)

// target is an entry or one slot of it.
type target struct {
	entry string
	slot  int // or api.AllSlots
}

func (t target) String() string {
	if t.slot == api.AllSlots {
		return t.entry
	}
	return fmt.Sprintf("%s:%d", t.entry, t.slot)
}

// slots returns what of a state the target means: nothing once it has gone.
func (t target) slots(st *view.State) []*view.Process {
	e := st.Entry(t.entry)
	switch {
	case e == nil:
		return nil
	case t.slot == api.AllSlots:
		return e.Processes
	}
	return slices.DeleteFunc(slices.Clone(e.Processes), func(p *view.Process) bool { return p.Slot != t.slot })
}

// resolve turns names, of entries, slots or patterns of either, into targets,
// each once. It fails on a name that means nothing.
func resolve(st *view.State, names []string) ([]target, error) {
	var targets []target
	var unknown failures
	for _, name := range names {
		found, err := resolveOne(st, name)
		if err != nil {
			unknown = append(unknown, err)
			continue
		}
		for _, t := range found {
			if !slices.Contains(targets, t) {
				targets = append(targets, t)
			}
		}
	}
	return targets, unknown.orNil()
}

func resolveOne(st *view.State, name string) ([]target, error) {
	entry, slotText, hasSlot := strings.Cut(name, ":")
	slot := api.AllSlots
	if hasSlot {
		n, err := strconv.Atoi(slotText)
		if err != nil || n < 0 || strconv.Itoa(n) != slotText {
			return nil, usagef("%q: a slot is a number from 0", name)
		}
		slot = n
	}
	if _, err := path.Match(entry, ""); err != nil {
		return nil, usagef("%q is not a pattern: a bracket is not closed", name)
	}
	var found []target
	anyEntry := false
	for _, e := range st.Entries {
		if ok, _ := path.Match(entry, e.Name); !ok {
			continue
		}
		anyEntry = true
		t := target{e.Name, slot}
		if slot == api.AllSlots || len(t.slots(st)) > 0 {
			found = append(found, t)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case anyEntry:
		return nil, fmt.Errorf("%s: no such slot", name)
	}
	return nil, fmt.Errorf("%s: no such entry", name)
}
