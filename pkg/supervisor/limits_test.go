package supervisor

import (
	"slices"
	"testing"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/spawn"
)

func TestSettings(t *testing.T) {
	all := []string{"cpu", "memory", "pids"}
	for _, c := range []struct {
		r           config.Resources
		controllers []string
		want        []spawn.Setting
	}{
		{config.Resources{}, all, []spawn.Setting{{File: "cpu.max", Value: "max 100000"}, {File: "memory.high", Value: "max"}, {File: "memory.max", Value: "max"}, {File: "pids.max", Value: "max"}}},
		{config.Resources{CPUMax: 1.5, MemoryMax: 64 << 20, MemoryHigh: 32 << 20, PIDsMax: 10}, all,
			[]spawn.Setting{{File: "cpu.max", Value: "150000 100000"}, {File: "memory.high", Value: "33554432"}, {File: "memory.max", Value: "67108864"}, {File: "pids.max", Value: "10"}}},
		{config.Resources{CPUMax: 0.01, PIDsMax: 10}, []string{"pids"}, []spawn.Setting{{File: "pids.max", Value: "10"}}},
		{config.Resources{CPUMax: 1}, nil, nil},
	} {
		if got := settings(&c.r, c.controllers); !slices.Equal(got, c.want) {
			t.Errorf("%+v, %v: %v", c.r, c.controllers, got)
		}
	}
}
