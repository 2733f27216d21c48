package supervisor

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/pkg/procevents"
	"github.com/sentryd/sentryd/pkg/spawn"
	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
)

// A story is what happens around process 7, token 1, a word at a time; a word's
// place is its time, in ms, unless @N says another.
//
//	count=N     N threads were counted (begun just then)
//	thread      it gets a further thread
//	fork        a process of that pid is made
//	exec
//	exit=S      its first thread ends with the raw wait status S
//	texit=S     another thread does
//	lost        events were lost
func tell(story string) obituaries {
	os := make(obituaries)
	os.attend(7, 1)
	for i, word := range strings.Fields(story) {
		at := instant(i + 1)
		if w, t, ok := strings.Cut(word, "@"); ok {
			var n int
			if _, err := fmt.Sscan(t, &n); err != nil {
				panic(err)
			}
			word, at = w, instant(n)
		}
		word, arg, _ := strings.Cut(word, "=")
		var n uint32
		if arg != "" {
			if _, err := fmt.Sscanf(arg, "%v", &n); err != nil {
				panic(err)
			}
		}
		e := procevents.Event{PID: 7, TGID: 7, Timestamp: at}
		switch word {
		case "count":
			os.count(7, 1, int(n), at)
			continue
		case "lost":
			os.lose(whyLostEvents)
			continue
		case "thread":
			e.Kind, e.PID = procevents.Fork, 8
		case "fork":
			e.Kind = procevents.Fork
		case "exec":
			e.Kind = procevents.Exec
		case "exit":
			e.Kind, e.ExitCode = procevents.Exit, n
		case "texit":
			e.Kind, e.PID, e.ExitCode = procevents.Exit, 8, n
		default:
			panic(word)
		}
		os.apply(&e)
	}
	return os
}

func instant(ms int) fsm.Instant { return time.Hour + fsm.Instant(ms)*time.Millisecond }

func TestObituaries(t *testing.T) {
	const (
		exit3   = " exit=0x300"
		sigterm = " exit=15"
		segv    = " exit=11"
		dumped  = " exit=0x8b"
		seccomp = " exit=31"
	)
	code3 := spawn.Status{Known: true, Code: 3, NoUsage: true}
	ended := func(s unix.Signal, core bool) spawn.Status {
		return spawn.Status{Known: true, Signal: int(s), Core: core, NoUsage: true}
	}
	for story, want := range map[string]any{
		// One thread.
		"":                            whyNotCounted,
		"count=1":                     pending,
		"count=1" + exit3:             code3,
		"count=1 exit=0":              spawn.Status{Known: true, NoUsage: true},
		"count=1 exit=0xff00":         spawn.Status{Known: true, Code: 255, NoUsage: true},
		"count=1" + sigterm:           ended(unix.SIGTERM, false),
		"count=1" + segv:              ended(unix.SIGSEGV, false),
		"count=1" + dumped:            ended(unix.SIGSEGV, true),
		"count=1" + seccomp:           ended(unix.SIGSYS, false),
		"count=1 exec" + exit3:        code3,
		exit3:                         whyNotCounted,
		"exec" + exit3:                whyNotCounted,
		"count=1" + exit3 + " lost":   code3,
		"count=1" + exit3 + " exit=0": code3, // of the next process of that pid, whose fork was not heard

		// What is told before the count comes in, and is newer or older than it.
		exit3 + " count=1@0":            code3,
		exit3 + " count=1@1":            pending, // it lived after that
		"thread count=1@0" + exit3:      whySeveral,
		"thread count=1@2" + exit3:      code3,      // that thread had ended
		"thread count=1@1" + exit3:      whySeveral, // perhaps it had not
		"thread@2 count=1@1" + exit3:    whySeveral,
		"exec@2 count=9@1" + exit3:      code3,
		"exec@1 count=9@2" + exit3:      whySeveral,
		"thread exec count=9@0" + exit3: code3,
		"exec thread count=9@0" + exit3: whySeveral,

		// What was queued before the count, and is received after it.
		"count=1@9 thread@3 exit=0x300@10": code3,
		"count=2@9 exec@3 exit=0x300@10":   whySeveral,
		"count=1@9 exit=0x300@3":           pending,
		"count=1@9 fork@3 exit=0x300@10":   code3,

		// Several threads.
		"count=2" + exit3:                     whySeveral,
		"count=2 exit=0":                      whySeveral,
		"count=2":                             pending,
		"count=2" + sigterm:                   ended(unix.SIGTERM, false),
		"count=2 exit=9":                      ended(unix.SIGKILL, false),
		"count=2 exit=34":                     ended(34, false),
		"count=2" + segv:                      whySeveral, // was there a core?
		"count=2" + dumped:                    ended(unix.SIGSEGV, true),
		"count=2" + seccomp:                   whySeveral, // it may have ended this thread alone
		"count=2 exit=9@10":                   ended(unix.SIGKILL, false),
		"count=2 exit=9@2 thread texit=0x300": ended(unix.SIGKILL, false),
		"count=1 thread" + exit3:              whySeveral,
		"count=1 thread texit=0" + exit3:      whySeveral,
		"count=1 thread count=1" + exit3:      code3,
		"count=1 exit=0 texit=0x300":          spawn.Status{Known: true, NoUsage: true},

		// execve ends all other threads. Called by another, the one that led before
		// ends, with a code of its own.
		"count=3 exec" + exit3:                 code3,
		"count=3 exec":                         pending,
		"count=3 exit=0 exec" + exit3:          code3,
		"count=3 exec@5 exit=0@4 exit=0x300@6": code3, // it is late
		"count=3 exec@5 exit=0@4":              pending,
		"count=3 exec thread" + exit3:          whySeveral,
		"count=1 exec@2 thread@2" + exit3:      whySeveral, // one grain of the clock
		"count=3 exec thread exec" + exit3:     code3,

		// Losses.
		"count=1 lost" + exit3:                whyLostEvents,
		"count=1 lost count=1" + exit3:        code3,
		"count=1 thread lost count=1" + exit3: code3,
		"count=1 lost count=2" + exit3:        whySeveral,
		"count=1 lost exec" + exit3:           whyLostEvents, // whose?
		"lost":                                whyLostEvents,
		"count=2 exit=0 lost count=2 exit=9":  ended(unix.SIGKILL, false),
		"count=2 exit=9 lost":                 ended(unix.SIGKILL, false),

		// The pid is given to another.
		"count=1 fork" + exit3:                  whyNotTold,
		"count=1 fork exec" + exit3:             whyNotTold,
		"count=1" + exit3 + " fork exec exit=0": code3,
		"fork count=1@0" + exit3:                whyNotTold,
		"fork count=1@2" + exit3:                code3, // so it began itself
	} {
		os := tell(story)
		v, st, why := os.verdict(7, 1, instant(100))
		var got any = v
		switch v {
		case known:
			got = st
		case unknown:
			got = why
		}
		if got != want {
			t.Errorf("%q: %+v, want %+v", story, got, want)
		}
		if v != known && st != (spawn.Status{}) || v != unknown && why != "" {
			t.Errorf("%q: verdict %d with %+v, %q", story, v, st, why)
		}
		if v, _, why := os.verdict(7, 2, 0); v != unknown || why != "" {
			t.Errorf("%q: of another process: %d, %q", story, v, why)
		}
	}
	late := tell("count=2 exit=9@2")
	if v, _, why := late.verdict(7, 1, instant(2)+togetherWithin+1); v != unknown || why != whySeveral {
		t.Errorf("a thread that ended long before: %d, %q", v, why)
	}
	if v, _, _ := tell("count=1 exit=9@2").verdict(7, 1, 2*time.Hour); v != known {
		t.Error("of the only thread")
	}
}

// Processes of a kernel that does as exit.c does are told of in every order that
// can be, counted at any moment, with losses and pids used again: what is said to be
// known is what wait would have said.
func TestObituariesAreTrue(t *testing.T) {
	verdicts := make(map[verdict]int)
	for seed := range uint64(often(100_000)) {
		v, st, truth := simulate(rand.New(rand.NewPCG(seed, 1)))
		verdicts[v]++
		if v == known && (st.Code != truth.Code || st.Signal != truth.Signal || st.Core != truth.Core) {
			t.Fatalf("seed %d: said %+v, was %+v", seed, st, truth)
		}
	}
	for _, v := range []verdict{unknown, pending, known} {
		if verdicts[v] == 0 {
			t.Errorf("never verdict %d: %v", v, verdicts)
		}
	}
	t.Logf("verdicts: %v", verdicts)
}

// simulate lets one process live and end, and returns what is said of it and what was.
func simulate(r *rand.Rand) (verdict, spawn.Status, spawn.Status) {
	const pid = 7
	os := make(obituaries)
	now := fsm.Instant(1)
	tick := func() fsm.Instant { now += fsm.Instant(r.IntN(2)); return now }
	var queue []procevents.Event
	queued := func(kind procevents.Kind, tid int32, code uint32) {
		queue = append(queue, procevents.Event{Kind: kind, PID: tid, TGID: pid, ExitCode: code, Timestamp: tick()})
	}
	receive := func(n int) {
		for range min(n, len(queue)) {
			os.apply(&queue[0])
			queue = queue[1:]
		}
	}
	threads := []int32{pid} // that live
	leads := true           // the first does
	next := int32(100)
	queued(procevents.Fork, pid, 0)
	watched := false
	var leaderCode uint32
	dead := false
	var truth uint32
	end := func(group bool, code uint32, by int32) {
		// All that live end with the code of the group, each told of in any order.
		var exits []procevents.Event
		for _, tid := range threads {
			c := code
			if code&0x80 != 0 && tid != by {
				c &^= 0x80 // who dumps core alone has the mark
			}
			if tid == pid {
				leaderCode = c
			}
			exits = append(exits, procevents.Event{Kind: procevents.Exit, PID: tid, TGID: pid, ExitCode: c, Timestamp: tick()})
		}
		r.Shuffle(len(exits), func(i, j int) { exits[i], exits[j] = exits[j], exits[i] })
		queue = append(queue, exits...)
		truth, dead = leaderCode, true
		if group {
			truth = code
		}
		threads = nil
	}
	count := func() {
		os.attend(pid, 1)
		at := tick()
		n := len(threads)
		if !leads {
			n++ // a zombie that leads is one of them
		}
		for range r.IntN(3) { // what happens before the count comes in
			receive(r.IntN(4))
		}
		if !dead {
			os.count(pid, 1, n, at)
		}
		watched = true
	}
	for steps := 0; !dead; steps++ {
		if !watched && steps > 3 || r.IntN(8) == 0 {
			count()
		}
		receive(r.IntN(3))
		by := threads[r.IntN(len(threads))]
		switch op := r.IntN(12); {
		case op < 2:
			queued(procevents.Fork, next, 0)
			threads = append(threads, next)
			next++
		case op < 4: // exit(2) of one thread
			code := uint32(r.IntN(3)) << 8
			if len(threads) == 1 {
				// The last one: what it gives is what counts if it leads, and since
				// Linux 6.0 if it does not.
				if by == pid {
					leaderCode = code
				}
				truth = leaderCode
				if r.IntN(2) == 0 {
					truth = code
				}
				queued(procevents.Exit, by, code)
				threads, dead = nil, true
				break
			}
			queued(procevents.Exit, by, code)
			kept := threads[:0:0]
			for _, tid := range threads {
				if tid != by {
					kept = append(kept, tid)
				}
			}
			threads = kept
			if by == pid {
				leads, leaderCode = false, code
			}
		case op < 5: // seccomp ends one thread
			if len(threads) > 1 && by == pid {
				queued(procevents.Exit, by, uint32(unix.SIGSYS))
				threads = threads[1:]
				leads, leaderCode = false, uint32(unix.SIGSYS)
			}
		case op < 6: // execve
			for _, tid := range threads {
				if tid != by {
					queued(procevents.Exit, tid, 0)
				}
			}
			threads, leads = []int32{pid}, true
			queued(procevents.Exec, pid, 0)
		case op < 7:
			end(true, uint32(r.IntN(3))<<8, by)
		case op < 8:
			end(true, []uint32{9, 15, 11, 0x8b, 31}[r.IntN(5)], by)
		case op < 9: // the first leaves by exit(2) while another ends all
			if by != pid && leads && len(threads) > 1 {
				leaderCode = uint32(r.IntN(3)) << 8
				early := procevents.Event{Kind: procevents.Exit, PID: pid, TGID: pid, ExitCode: leaderCode, Timestamp: tick()}
				threads = threads[1:]
				code := uint32(r.IntN(3)) << 8
				end(true, code, by)
				at := len(queue) - r.IntN(2)
				queue = append(queue[:at], append([]procevents.Event{early}, queue[at:]...)...)
			}
		case op < 10:
			queue = queue[:0]
			os.lose(whyLostEvents)
			if watched && r.IntN(2) == 0 {
				count()
			}
		}
		tick()
	}
	// Its pid goes to another, whose end is heard perhaps when its own was not.
	lost := r.IntN(4) == 0
	if lost {
		queue = queue[:r.IntN(len(queue)+1)]
		receive(len(queue))
		os.lose(whyLostEvents)
	}
	if r.IntN(2) == 0 {
		queued(procevents.Fork, pid, 0)
		queued(procevents.Exec, pid, 0)
		queued(procevents.Exit, pid, 0x4200)
	}
	receive(r.IntN(len(queue) + 1))
	v, st, _ := os.verdict(pid, 1, now)
	w := unix.WaitStatus(truth)
	real := spawn.Status{Known: true}
	if w.Signaled() {
		real.Signal, real.Core = int(w.Signal()), w.CoreDump()
	} else {
		real.Code = w.ExitStatus()
	}
	return v, st, real
}

// often is how often a test does what it does often.
func often(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}
