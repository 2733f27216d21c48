package main

import (
	"testing"

	"github.com/sentryd/sentryd/pkg/view"
)

func TestSettled(t *testing.T) {
	for _, tt := range []struct {
		states []string
		want   bool
	}{
		{nil, true},
		{[]string{view.Running, view.Stopped, view.Exited, view.Failed}, true},
		{[]string{view.Running, view.Starting}, false},
		{[]string{view.Stopping}, false},
		{[]string{view.Backoff, view.Running}, false},
	} {
		st := &view.State{}
		for _, s := range tt.states {
			st.Entries = append(st.Entries, &view.Entry{State: s})
		}
		if got := settled(st); got != tt.want {
			t.Errorf("%v: %v", tt.states, got)
		}
	}
}
