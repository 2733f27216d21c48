package procevents

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFilterFor(t *testing.T) {
	for release, want := range map[string]filter{
		"5.10.0-30-amd64": socketFilter,
		"6.1.0-49-amd64":  socketFilter,
		"6.5.13":          socketFilter,
		"6.6.0":           noFilter,
		"6.6":             noFilter,
		"6.6.17-1":        noFilter,
		"6.6.18":          connectorFilter,
		"6.6.100":         connectorFilter,
		"6.7.0":           noFilter,
		"6.7-rc3":         noFilter,
		"6.7.5-arch1-1":   noFilter,
		"6.7.6":           connectorFilter,
		"6.12.38+deb13":   connectorFilter,
		"6.18.0-rc1":      connectorFilter,
		"7.0":             connectorFilter,
		"10.1":            connectorFilter,
		"":                socketFilter,
		"what":            socketFilter,
	} {
		if got := filterFor(release); got != want {
			t.Errorf("filterFor(%q) = %d, want %d", release, got, want)
		}
	}
}

func TestKindsOf(t *testing.T) {
	for _, tc := range []struct {
		kinds []Kind
		want  kindSet
		mask  uint32
	}{
		{nil, allKinds, 0xC00003C7},
		{[]Kind{Exit}, 1 << Exit, 0x80000200},
		{[]Kind{Fork, Exec, Exit, Coredump}, 1<<Fork | 1<<Exec | 1<<Exit | 1<<Coredump, 0xC0000203},
	} {
		got, err := kindsOf(tc.kinds)
		if err != nil || got != tc.want || got.mask() != tc.mask {
			t.Errorf("kindsOf(%v) = %b, mask %#x, %v", tc.kinds, got, got.mask(), err)
		}
	}
	for _, k := range []Kind{Ack, Unknown, Kind(Kinds), 255} {
		if _, err := Dial(Config{Kinds: []Kind{Exit, k}}); err == nil {
			t.Errorf("%v can be asked for", k)
		}
	}
}

// Each way of filtering, on the real kernel: what was asked for comes, nothing
// else is returned, and only the last way lets the socket have the rest.
func TestFilters(t *testing.T) {
	listen(t, Config{}) // or skips
	for f, name := range map[filter]string{noFilter: "none", connectorFilter: "connector", socketFilter: "socket"} {
		for _, kinds := range [][]Kind{{Exit}, {Fork, Exec}} {
			t.Run(fmt.Sprint(name, kinds), func(t *testing.T) {
				if f == connectorFilter && filterFor(release()) != f {
					t.Skipf("needs a kernel that can: %s", release())
				}
				set, err := kindsOf(kinds)
				if err != nil {
					t.Fatal(err)
				}
				l, err := dial(Config{}, set, f)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				cmd := exec.Command("/bin/true")
				if err := cmd.Run(); err != nil {
					t.Fatal(err)
				}
				pid := int32(cmd.Process.Pid)
				want := set.mask()
				b := l.batch
				got := map[Kind]int{}
				for got[kinds[len(kinds)-1]] == 0 {
					buf := make([]Event, batchLen)
					n, err := l.Receive(buf)
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range buf[:n] {
						if !set.has(e.Kind) {
							t.Errorf("%v was not asked for", e)
						}
						if e.PID == pid {
							got[e.Kind]++
						}
					}
					for i := range b.n {
						e, err := Decode(b.data[i][:b.headers[i].Len])
						if err != nil {
							t.Error(err)
						}
						if f != noFilter && e.What&want == 0 {
							t.Errorf("%v was queued", e)
						}
					}
				}
				for _, k := range kinds {
					if got[k] != 1 {
						t.Errorf("%d events of kind %v", got[k], k)
					}
				}
			})
		}
	}
}

// SetKinds widens and narrows what comes, with each way of filtering, on a socket
// that was handed over too.
func TestSetKinds(t *testing.T) {
	listen(t, Config{}) // or skips
	for f, name := range map[filter]string{noFilter: "none", connectorFilter: "connector", socketFilter: "socket"} {
		for _, handedOver := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " handed over=", handedOver), func(t *testing.T) {
				if f == connectorFilter && filterFor(release()) != f {
					t.Skipf("needs a kernel that can: %s", release())
				}
				l, err := dial(Config{}, 1<<Exit, f)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { l.Close() })
				if handedOver {
					file, err := l.File()
					if err != nil {
						t.Fatal(err)
					}
					if l, err = FromFile(file, Config{Kinds: []Kind{Exit}}); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { l.sock.close() })
				}
				checkKinds(t, l, Exit)
				if err := l.SetKinds(Fork, Exec, Exit); err != nil {
					t.Fatal(err)
				}
				checkKinds(t, l, Fork, Exec, Exit)
				if err := l.SetKinds(Exit); err != nil {
					t.Fatal(err)
				}
				checkKinds(t, l, Exit)
				if err := l.SetKinds(Ack); err == nil {
					t.Error("an Ack can be asked for")
				}
			})
		}
	}
}

// checkKinds runs a program and fails unless just these kinds of events come, the
// last of them last.
func checkKinds(t *testing.T, l *Listener, kinds ...Kind) {
	t.Helper()
	if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := int32(cmd.Process.Pid)
	got := make(map[Kind]int)
	last := func(e *Event) bool { return e.Kind == Exit && e.PID == pid }
	for _, e := range until(t, l, last, func(e *Event) bool { return e.PID == pid }) {
		got[e.Kind]++
	}
	for k := range Kind(Kinds) {
		want := 0
		if slices.Contains(kinds, k) {
			want = 1
		}
		if got[k] != want {
			t.Errorf("asked for %v: %d events of kind %v", kinds, got[k], k)
		}
	}
}

// The program on a socket where any datagram can be sent: the words of a message
// are found in the host's order, and what it does not know passes.
func TestProgram(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	p := program(whats[Exit] | whats[Fork])
	if err := unix.SetsockoptSockFprog(fds[0], unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		datagram []byte
		passes   bool
	}{
		"exit":         {message(whats[Exit]), true},
		"fork":         {message(whats[Fork]), true},
		"exec":         {message(whats[Exec]), false},
		"comm":         {message(whats[Comm]), false},
		"ack":          {message(0), false},
		"unknown":      {message(0x400), false},
		"turned round": {message(0x80), false},
		"two messages": {append(message(whats[Exec]), message(whats[Exit])...), true},
		"short":        {message(whats[Exec])[:60], true},
		"longer":       {append(message(whats[Exec]), 0), true},
		"empty":        {nil, true},
	} {
		if _, err := unix.Write(fds[1], tc.datagram); err != nil {
			t.Fatal(err)
		}
		_, err := unix.Read(fds[0], make([]byte, 256))
		if passed := err == nil; passed != tc.passes || !passed && err != unix.EAGAIN {
			t.Errorf("%s: passes %t (%v)", name, passed, err)
		}
	}
}

func TestHasProcEvents(t *testing.T) {
	for text, want := range map[string]bool{
		"Name            ID\ncn_proc         1:1\n":  true,
		"Name            ID\n":                       false,
		"Name            ID\nw1              3:1\n":  false,
		"Name            ID\ncn_proc         1:10\n": false,
		"": false,
	} {
		if got := hasProcEvents([]byte(text)); got != want {
			t.Errorf("hasProcEvents(%q) = %t", text, got)
		}
	}
}
