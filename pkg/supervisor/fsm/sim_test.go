package fsm

import (
	"math/rand"
	"reflect"
	"strconv"
	"testing"
	"time"
)

func (w *world) config() Configure {
	c := Configure{Restart: make(map[string]bool)}
	for _, name := range []string{"api", "web"} {
		if w.from.Intn(4) == 0 {
			continue
		}
		c.Entries = append(c.Entries, Entry{
			Name: name, Count: w.from.Intn(4), Autostart: w.from.Intn(4) > 0,
			Delay: time.Duration(w.from.Intn(3)) * time.Second, MinUptime: time.Duration(w.from.Intn(2)) * time.Second,
			Restart: RestartPolicy(w.from.Intn(3)), SuccessExitCodes: []int{0},
			StopSignal: []int{15, 15, 9}[w.from.Intn(3)], StopTimeout: time.Duration(w.from.Intn(5)) * time.Second, StopMode: StopMode(w.from.Intn(int(numStopModes))),
			Handover: w.from.Intn(2) == 0,
			Crashes:  CrashLimit{Failures: w.from.Intn(3), Within: time.Duration(w.from.Intn(3)) * time.Second, Restart: w.from.Intn(2) == 0},
		})
		c.Restart[name] = w.from.Intn(3) == 0
	}
	return c
}

// command gives one, which may be nonsense.
func (w *world) command() {
	w.t.Helper()
	name := []string{"api", "web", "api", "web", "nope"}[w.from.Intn(5)]
	slot := max(AllSlots, w.from.Intn(7)-3)
	switch w.from.Intn(13) {
	case 12:
		w.succeed()
	case 0, 1:
		w.step(Scale{Entry: name, Count: w.from.Intn(6) - 1})
	case 2:
		w.step(Start{Entry: name, Slot: slot})
	case 3, 4:
		w.step(Stop{Entry: name, Slot: slot})
	case 5, 6:
		w.step(Restart{Entry: name, Slot: slot, Batch: w.from.Intn(4) - 1})
	case 7:
		w.step(Signal{Entry: name, Slot: slot, Signal: 1})
	case 8:
		w.step(w.config())
	case 9:
		w.reexec()
	case 10:
		w.repeat()
	case 11:
		w.step(KillAll{}) // does nothing without a shutdown
	}
}

// play goes through a history as long as more says so, and ends it.
func (w *world) play(more func() bool) {
	w.t.Helper()
	w.step(w.config())
	for more() {
		switch w.from.Intn(12) {
		case 0, 1, 2:
			w.command()
		case 3, 4:
			w.pass()
		case 5:
			w.now += time.Duration(w.from.Intn(150)) * 10 * time.Millisecond
		default:
			w.happen()
		}
	}
	w.step(Shutdown{})
	if w.from.Intn(2) == 0 {
		w.step(KillAll{})
	}
	w.step(w.config()) // which is too late
	for i := 0; w.m.busy > 0; i++ {
		if i > 10000 {
			w.fatalf("a shutdown does not end")
		}
		if !w.happen() {
			w.pass()
		}
	}
	if _, ok := w.m.NextDeadline(); ok {
		w.fatalf("a deadline outlives the shutdown")
	}
	if !w.m.done || !w.m.Stopping() {
		w.fatalf("no Done")
	}
}

// times returns a function that is true n times.
func times(n int) func() bool {
	return func() bool { n--; return n >= 0 }
}

func TestRandomHistories(t *testing.T) {
	n := 600
	if testing.Short() {
		n = 60
	}
	for seed := range n {
		t.Run("seed="+strconv.Itoa(seed), func(t *testing.T) {
			newWorld(t, rand.New(rand.NewSource(int64(seed)))).play(times(200))
		})
	}
}

func TestSameEventsSameTranscript(t *testing.T) {
	for seed := range 20 {
		var logs [2][]step
		for i := range logs {
			w := newWorld(t, rand.New(rand.NewSource(int64(seed))))
			w.record = true
			w.play(times(200))
			logs[i] = w.log
		}
		if !reflect.DeepEqual(logs[0], logs[1]) {
			t.Fatalf("seed %d: two runs differ", seed)
		}
	}
}

// FuzzMachine reads a history from bytes: each is one decision of the world.
func FuzzMachine(f *testing.F) {
	for seed := range int64(6) {
		data := make([]byte, 300)
		rand.New(rand.NewSource(seed)).Read(data)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 4096 // decisions: enough for any history worth telling
		from := newBytesSource(data[:min(len(data), limit)])
		w := newWorld(t, from)
		w.play(func() bool { return len(from.data) > 0 })
	})
}
