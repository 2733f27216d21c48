package main

import (
	"errors"
	"slices"
	"testing"

	"github.com/sentryd/sentryd/pkg/view"
)

type failingOutput struct{ why error }

func (f *failingOutput) Failing() error { return f.why }

// TestOutputInPicture: the picture says that output is dropped, as long as it is, and is
// one picture for all who ask.
func TestOutputInPicture(t *testing.T) {
	out := new(failingOutput)
	d := &described{output: out}
	one := &view.State{Version: 1, Daemon: view.Daemon{Missing: []string{"No root."}}}
	two := &view.State{Version: 2, Daemon: view.Daemon{Missing: []string{}}}
	const broken = "Standard output fails (broken pipe): what would be printed is dropped until it works again."
	const full = "Standard output fails (no space left on device): what would be printed is dropped until it works again."
	if d.complete(one) != one {
		t.Error("changed though nothing is dropped")
	}
	for _, test := range []struct {
		why  string
		base *view.State
		want []string
	}{
		{"broken pipe", one, []string{"No root.", broken}}, {"no space left on device", one, []string{"No root.", full}},
		{"no space left on device", two, []string{full}},
	} {
		out.why = errors.New(test.why)
		got := d.complete(test.base)
		if !slices.Equal(got.Daemon.Missing, test.want) || got.Version != test.base.Version {
			t.Errorf("%s: %+v", test.why, got)
		}
		if d.complete(test.base) != got {
			t.Errorf("%s: made anew for who asks again", test.why)
		}
	}
	if !slices.Equal(one.Daemon.Missing, []string{"No root."}) {
		t.Errorf("the supervisor's own picture is changed: %q", one.Daemon.Missing)
	}
	out.why = nil
	if d.complete(two) != two {
		t.Error("said of an output that works again")
	}
}
