package integration

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sentryd/sentryd/internal/testenv"
)

// ending says how a process ended, as labels of process_exits_total.
type ending struct{ reason, code string }

// endings lists every way in which a process can end by itself: codes 0 to
// 255, and each signal whose default is to end the process (signal(7)). A
// shell brings each about by the command beside it.
func endings() (list []ending, commands []string) {
	for code := range 256 {
		list = append(list, ending{"exited", strconv.Itoa(code)})
		commands = append(commands, fmt.Sprintf("exit %d", code))
	}
	harmless := []unix.Signal{unix.SIGCHLD, unix.SIGCONT, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGURG, unix.SIGWINCH}
	for s := unix.Signal(1); s <= 64; s++ {
		if slices.Contains(harmless, s) {
			continue
		}
		name := unix.SignalName(s)
		switch {
		case s == 32 || s == 33: // the C library keeps them for itself
			name = fmt.Sprintf("signal %d", s)
		case s == 34:
			name = "SIGRTMIN"
		case s > 34:
			name = fmt.Sprintf("SIGRTMIN+%d", s-34)
		}
		list = append(list, ending{"signaled", name})
		commands = append(commands, fmt.Sprintf("kill -%d $$", s))
	}
	return list, commands
}

// TestStatuses has children end in every way, thousands of times, and compares
// the daemon's counters with what they did: none missed, none twice, none
// taken for another, with the connector and without.
func TestStatuses(t *testing.T) {
	each := often(1, 16, 330) // times that every way comes about; over 100,000 in all
	for connector, up := range map[string]bool{"enabled: true": true, "events: exit": true, "buffer: 4KiB": true, "enabled: false": false} {
		t.Run("connector "+connector, func(t *testing.T) {
			if up {
				testenv.Need(t, testenv.Root(), testenv.Connector())
			}
			checkStatuses(t, each, connector, up)
		})
	}
}

func checkStatuses(t *testing.T, each int, connector string, up bool) {
	const slots = 8
	list, commands := endings()
	bell := newBell(t)
	// Slot s ends its n-th incarnation in the way number (n-1)*slots+s, over
	// and over, so that together they go through the list `each` times.
	last := (len(list)*each + slots - 1) / slots
	var cases strings.Builder
	for i, command := range commands {
		fmt.Fprintf(&cases, "%d) %s;;\n", i, command)
	}
	program := script(t, fmt.Sprintf(`ulimit -c 0
if [ $SENTRYD_INCARNATION -gt %[1]d ]; then echo done > %[2]s; exec sleep 100000; fi
[ $(($SENTRYD_INCARNATION %% 500)) = 0 ] && echo going on > %[2]s
case $(( (($SENTRYD_INCARNATION - 1) * %[3]d + $SENTRYD_SLOT) %% %[4]d )) in
%[5]sesac
`, last, bell.path, slots, len(list), cases.String()))
	want := map[ending]float64{}
	for n := range last {
		for s := range slots {
			want[list[(n*slots+s)%len(list)]]++
		}
	}

	d := startDaemon(t, fmt.Sprintf(`
proc_connector: {%s}
entries:
  a: {command: %s, count: %d, delay: 0}
`, connector, program, slots), options{})
	for range slots {
		bell.await("done")
	}
	s := d.running("a", slots)
	if m := d.metrics(); connector == "buffer: 4KiB" && (m["sentryd_proc_events_lost_total"] == 0 || m["sentryd_proc_resyncs_total"] == 0) {
		t.Errorf("with a buffer for four events %v were lost, resynced %v times", m["sentryd_proc_events_lost_total"], m["sentryd_proc_resyncs_total"])
	}
	if s.Daemon.ProcConnector.Up != up {
		t.Errorf("the connector: %+v", s.Daemon.ProcConnector)
	}
	// The bell may be heard before the picture that tells of the last exits.
	s = d.await("every exit", func(s *state) bool { return s.entry("a").Exits >= uint64(last*slots) })
	if e := s.entry("a"); e.Exits != uint64(last*slots) {
		t.Errorf("%d exits, want %d", e.Exits, last*slots)
	}
	got := map[ending]float64{}
	for sample, n := range d.metrics() {
		labels, ok := strings.CutPrefix(sample, `sentryd_process_exits_total{`)
		if !ok {
			continue
		}
		var e ending
		for _, label := range strings.Split(strings.TrimSuffix(labels, "}"), ",") {
			switch k, v, _ := strings.Cut(label, "="); k {
			case "reason":
				e.reason = strings.Trim(v, `"`)
			case "code":
				e.code = strings.Trim(v, `"`)
			}
		}
		got[e] = n
	}
	if !maps.Equal(got, want) {
		for _, e := range list {
			if got[e] != want[e] {
				t.Errorf("%v: counted %v, were %v", e, got[e], want[e])
			}
			delete(got, e)
		}
		if len(got) > 0 {
			t.Errorf("nobody ended like %v", got)
		}
	}
	d.stop()
}
