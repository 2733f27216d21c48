package procevents

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// received returns a Listener that has just received these datagrams from the
// kernel.
func received(datagrams ...[]byte) *Listener {
	l := &Listener{batch: newBatch(nil)}
	l.kinds.Store(uint32(allKinds))
	for i, d := range datagrams {
		copy(l.batch.data[i][:], d)
		l.batch.headers[i].Len = uint32(len(d))
		l.batch.names[i].Family = unix.AF_NETLINK
	}
	l.batch.n = len(datagrams)
	return l
}

func join(messages ...[]byte) (datagram []byte) {
	for _, m := range messages {
		datagram = append(datagram, m...)
	}
	return datagram
}

// A datagram may hold several messages, though no kernel sends such, and dst
// may be full in the middle of it.
func TestSeveralMessages(t *testing.T) {
	fork, exec, exit := message(1, 1, 1, 2, 2), message(2, 2, 2), message(0x80000000, 2, 2)
	bad := message(2, 9, 9)
	binary.NativeEndian.PutUint16(bad[4:], 1) // not NLMSG_DONE, but its length holds
	endless := message(2, 9, 9)
	binary.NativeEndian.PutUint32(endless, 1000)
	for name, tc := range map[string]struct {
		datagrams [][]byte
		want      []Kind
		malformed uint64
	}{
		"one each":         {[][]byte{fork, exec, exit}, []Kind{Fork, Exec, Exit}, 0},
		"two and one":      {[][]byte{join(fork, exec), exit}, []Kind{Fork, Exec, Exit}, 0},
		"one that is none": {[][]byte{join(bad, exec), exit}, []Kind{Exec, Exit}, 1},
		"a length too far": {[][]byte{join(endless, exec), exit}, []Kind{Exit}, 1},
		"a rest":           {[][]byte{join(fork, exec[:20]), exit}, []Kind{Fork, Exit}, 1},
		"empty":            {[][]byte{{}, exit}, []Kind{Exit}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for size := 1; size <= 4; size++ {
				l := received(tc.datagrams...)
				var got []Kind
				dst := make([]Event, size)
				for n := l.decode(dst); n > 0; n = l.decode(dst) {
					for _, e := range dst[:n] {
						got = append(got, e.Kind)
					}
				}
				if len(got) != len(tc.want) {
					t.Fatalf("%d at a time: %v, want %v", size, got, tc.want)
				}
				for i, k := range tc.want {
					if got[i] != k {
						t.Errorf("%d at a time: %v, want %v", size, got, tc.want)
					}
				}
				if n := l.malformed.Load(); n != tc.malformed {
					t.Errorf("%d at a time: %d malformed, want %d", size, n, tc.malformed)
				}
			}
		})
	}
}

// Whatever arrives, every Receive comes to an end and returns no more than fits.
func FuzzReceive(f *testing.F) {
	f.Add(message(1, 1, 1, 2, 2), message(0x80000000, 2, 2), uint32(0))
	f.Add(join(message(2, 2, 2), message(2, 2, 2)), []byte{}, uint32(7))
	f.Fuzz(func(t *testing.T, a, b []byte, port uint32) {
		l := received(a[:min(len(a), slotLen)], b[:min(len(b), slotLen)])
		l.batch.names[1].Pid = port
		dst := make([]Event, 1)
		for total := 0; ; total++ {
			n := l.decode(dst)
			if n == 0 {
				break
			}
			if n != 1 || total > 2*slotLen/messageLen {
				t.Fatalf("%d events after %d", n, total)
			}
		}
		if l.batch.next != l.batch.n {
			t.Errorf("stopped at datagram %d of %d", l.batch.next, l.batch.n)
		}
	})
}
