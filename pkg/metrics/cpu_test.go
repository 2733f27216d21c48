package metrics

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sentryd/sentryd/pkg/view"
)

func entry(starts uint64, ended float64, procs ...*view.Process) []*view.Entry {
	return []*view.Entry{{Name: "web", Starts: starts, EndedCPU: view.CPU{User: ended}, Processes: procs}}
}

func process(incarnation uint64, pid int) *view.Process {
	return &view.Process{Incarnation: incarnation, PID: pid}
}

func using(user float64, start uint64) usage { return usage{start: start, cpu: view.CPU{User: user}} }

// TestCPU follows one entry over the scrapes of each case.
func TestCPU(t *testing.T) {
	type scrape struct {
		entries []*view.Entry
		now     map[int]usage
		want    float64
	}
	for name, scrapes := range map[string][]scrape{
		"live, then ended": {
			{entry(1, 0, process(1, 7)), map[int]usage{7: using(5, 1)}, 5},
			{entry(1, 5.5), nil, 5.5},
		},
		"gone before the state knows": {
			{entry(1, 0, process(1, 7)), map[int]usage{7: using(5, 1)}, 5},
			{entry(1, 0, process(1, 7)), nil, 5},
			{entry(2, 5.5, process(2, 8)), map[int]usage{8: using(1, 2)}, 6.5}, // counted once
		},
		"a stranger has its pid": {
			{entry(1, 0, process(1, 7)), map[int]usage{7: using(5, 1)}, 5},
			{entry(1, 0, process(1, 7)), map[int]usage{7: using(1000, 2)}, 5},
			{entry(1, 5.5), nil, 5.5},
		},
		"the next incarnation has its pid": {
			{entry(1, 0, process(1, 7)), map[int]usage{7: using(5, 1)}, 5},
			{entry(2, 6, process(2, 7)), map[int]usage{7: using(1, 1)}, 7},
		},
		"nobody knows what an adopted one used": {
			{entry(1, 0, process(1, 7)), map[int]usage{7: using(100, 1)}, 100},
			{entry(1, 0), nil, 100},
			{entry(2, 0, process(2, 8)), map[int]usage{8: using(3, 2)}, 103},
		},
		"another entry of that name": {
			{entry(9, 50), nil, 50},
			{entry(0, 0), nil, 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := cpuBook{}
			for i, s := range scrapes {
				if got := b.take(s.entries, s.now)[0].cpu.User; got != s.want {
					t.Errorf("scrape %d: %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

// TestCPUNeverFalls runs random histories: whatever is lost, late or unknown,
// the counter does not fall, and where nothing is unknown it ends exact.
func TestCPUNeverFalls(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		b := cpuBook{}
		unknown := seed%2 == 1
		var ended view.CPU
		var last view.CPU
		live := map[*view.Process]*usage{}
		starts := uint64(0)
		for step := range 200 {
			switch r.IntN(4) {
			case 0:
				starts++
				live[process(starts, 1+r.IntN(5)+10*int(starts))] = &usage{start: starts}
			case 1:
				for p, u := range live {
					if !unknown || r.IntN(3) > 0 {
						ended.User += u.cpu.User + 0.001
						ended.System += u.cpu.System
					}
					delete(live, p)
					break
				}
			default:
				for _, u := range live {
					u.cpu.User += r.Float64()
					u.cpu.System += 0.1
				}
			}
			now := map[int]usage{}
			procs := []*view.Process{}
			for p, u := range live {
				procs = append(procs, p)
				if r.IntN(5) > 0 {
					now[p.PID] = *u
				}
			}
			e := &view.Entry{Name: "web", Starts: starts, EndedCPU: ended, Processes: procs}
			got := b.take([]*view.Entry{e}, now)[0].cpu
			if got.User < last.User || got.System < last.System {
				t.Fatalf("seed %d step %d: %+v after %+v", seed, step, got, last)
			}
			last = got
		}
		if unknown {
			continue
		}
		for p, u := range live {
			ended.User += u.cpu.User
			ended.System += u.cpu.System
			delete(live, p)
		}
		got := b.take([]*view.Entry{{Name: "web", Starts: starts, EndedCPU: ended}}, nil)[0].cpu
		if d := ended.User - got.User; d > 1e-6 || d < -1e-6 {
			t.Fatalf("seed %d: %+v, want %+v: %s", seed, got, ended, cmp.Diff(ended, got))
		}
	}
}
