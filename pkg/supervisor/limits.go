package supervisor

import (
	"strconv"

	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/spawn"
)

// limits is what an entry's resources mean in its slots' cgroups, as far as the
// controllers are there; nil if it has none. What is not limited is written
// down as such: it may have been before.
func (s *Supervisor) limits(r *config.Resources) []spawn.Setting {
	if len(r.Controllers()) == 0 {
		return nil
	}
	return settings(r, s.Controllers)
}

func settings(r *config.Resources, controllers []string) (list []spawn.Setting) {
	const period = 100_000 // microseconds, what the kernel takes by itself
	for _, controller := range controllers {
		switch controller {
		case "cpu":
			quota := atMost(int64(r.CPUMax * period))
			list = append(list, spawn.Setting{File: "cpu.max", Value: quota + " " + strconv.Itoa(period)})
		case "memory":
			list = append(list, spawn.Setting{File: "memory.high", Value: atMost(r.MemoryHigh)},
				spawn.Setting{File: "memory.max", Value: atMost(r.MemoryMax)})
		case "pids":
			list = append(list, spawn.Setting{File: "pids.max", Value: atMost(int64(r.PIDsMax))})
		}
	}
	return list
}

func atMost(n int64) string {
	if n == 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// relimit has the limits of an entry, which changed, hold for its processes at
// once. A slot without a process gets them with the next one; its cgroup is made
// anew for that, without those of before.
func (s *Supervisor) relimit(entry string) {
	l := s.launchers[entry]
	if s.Cgroups == nil || l == nil {
		return
	}
	list := l.limits
	if list == nil {
		list = settings(new(config.Resources), s.Controllers)
	}
	for t, c := range s.children {
		if c.id.Entry == entry && len(list) > 0 {
			// One that was started without a cgroup can not be limited: it fails.
			_ = s.Processes.SetLimits(t, list)
		}
	}
	for _, e := range s.machine.Snapshot().Entries {
		for i := range e.Slots {
			if e.Name == entry && !e.Slots[i].Tree {
				s.Processes.RemoveCgroup(s.Cgroups.Path(cgroupName(entry, e.Slots[i].Slot)))
			}
		}
	}
}
