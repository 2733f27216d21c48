package procevents

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// message builds a datagram; edit may spoil it.
func message(what uint32, data ...uint32) []byte {
	b := make([]byte, messageLen)
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], messageLen)
	ne.PutUint16(b[4:], 3)
	ne.PutUint32(b[16:], 1)
	ne.PutUint32(b[20:], 1)
	ne.PutUint16(b[32:], eventLen)
	ne.PutUint32(b[36:], what)
	for i, w := range data {
		ne.PutUint32(b[52+4*i:], w)
	}
	return b
}

func TestDecode(t *testing.T) {
	for _, tc := range []struct {
		what uint32
		data []uint32
		want Event
	}{
		{0, []uint32{1}, Event{Kind: Ack, AckErrno: 1}},
		{1, []uint32{1, 2, 3, 4}, Event{Kind: Fork, ParentPID: 1, ParentTGID: 2, PID: 3, TGID: 4}},
		{2, []uint32{1, 2}, Event{Kind: Exec, PID: 1, TGID: 2}},
		{4, []uint32{1, 2, 3, 4}, Event{Kind: UID, PID: 1, TGID: 2, RealID: 3, EffectiveID: 4}},
		{0x40, []uint32{1, 2, 3, 4}, Event{Kind: GID, PID: 1, TGID: 2, RealID: 3, EffectiveID: 4}},
		{0x80, []uint32{1, 2}, Event{Kind: SID, PID: 1, TGID: 2}},
		{0x100, []uint32{1, 2, 3, 4}, Event{Kind: Ptrace, PID: 1, TGID: 2, TracerPID: 3, TracerTGID: 4}},
		{0x200, []uint32{1, 2, 0, 0, 0, 0}, Event{Kind: Comm, PID: 1, TGID: 2}},
		{0x40000000, []uint32{1, 2, 3, 4}, Event{Kind: Coredump, PID: 1, TGID: 2, ParentPID: 3, ParentTGID: 4}},
		{0x80000000, []uint32{1, 2, 0x8b, math.MaxUint32, 5, 6},
			Event{Kind: Exit, PID: 1, TGID: 2, ExitCode: 0x8b, ExitSignal: -1, ParentPID: 5, ParentTGID: 6}},
		{0x400, []uint32{1, 2}, Event{Kind: Unknown}},
		{3, []uint32{1, 2}, Event{Kind: Unknown}},
	} {
		tc.want.What = tc.what
		got, err := Decode(message(tc.what, tc.data...))
		if err != nil || got != tc.want {
			t.Errorf("Decode(%#x): %+v, %v; want %+v", tc.what, got, err, tc.want)
		}
	}
}

func TestDecodeMalformed(t *testing.T) {
	ne := binary.NativeEndian
	for name, spoil := range map[string]func([]byte) []byte{
		"empty":             func(b []byte) []byte { return nil },
		"header only":       func(b []byte) []byte { return b[:16] },
		"truncated":         func(b []byte) []byte { return b[:len(b)-1] },
		"netlink length 0":  func(b []byte) []byte { ne.PutUint32(b, 0); return b },
		"netlink too long":  func(b []byte) []byte { ne.PutUint32(b, messageLen+1); return b },
		"netlink huge":      func(b []byte) []byte { ne.PutUint32(b, math.MaxUint32); return b },
		"netlink cuts it":   func(b []byte) []byte { ne.PutUint32(b, messageLen-4); return b },
		"netlink error":     func(b []byte) []byte { ne.PutUint16(b[4:], 2); return b },
		"other connector":   func(b []byte) []byte { ne.PutUint32(b[16:], 2); return b },
		"other value":       func(b []byte) []byte { ne.PutUint32(b[20:], 2); return b },
		"connector short":   func(b []byte) []byte { ne.PutUint16(b[32:], eventLen-1); return b },
		"connector empty":   func(b []byte) []byte { ne.PutUint16(b[32:], 0); return b },
		"connector long":    func(b []byte) []byte { ne.PutUint16(b[32:], eventLen+1); return b },
		"connector longest": func(b []byte) []byte { ne.PutUint16(b[32:], math.MaxUint16); return b },
	} {
		if e, err := Decode(spoil(message(1, 1, 1, 2, 2))); !errors.Is(err, ErrMalformed) || e != (Event{}) {
			t.Errorf("%s: %v, %v", name, e, err)
		}
	}
}

// A later kernel may send more.
func TestDecodeLonger(t *testing.T) {
	b := append(message(2, 1, 2), 1, 2, 3, 4)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[32:], eventLen+4)
	if e, err := Decode(b); err != nil || e.Kind != Exec || e.TGID != 2 {
		t.Errorf("%v, %v", e, err)
	}
}

func TestEventText(t *testing.T) {
	at := time.Second
	for want, e := range map[string]Event{
		"1.000000 fork 2 thread 3 parent 1":     {Kind: Fork, PID: 3, TGID: 2, ParentTGID: 1},
		"1.000000 ack":                          {Kind: Ack},
		"1.000000 ack operation not permitted":  {Kind: Ack, AckErrno: 1},
		"1.000000 unknown 0x400":                {Kind: Unknown, What: 0x400},
		"1.000000 exit 2 parent 0 SIGSEGV core": {Kind: Exit, PID: 2, TGID: 2, ExitCode: 11 | 0x80},
		"1.000000 exit 2 parent 0 signal 63":    {Kind: Exit, PID: 2, TGID: 2, ExitCode: 63},
		"1.000000 exit 2 parent 0 code 255":     {Kind: Exit, PID: 2, TGID: 2, ExitCode: 255 << 8},
		"1.000000 exit 2 parent 0 status 0x7f":  {Kind: Exit, PID: 2, TGID: 2, ExitCode: 0x7f},
		"1.000000 comm 2 \"0123456789abcdef\"":  {Kind: Comm, PID: 2, TGID: 2, Comm: [16]byte([]byte("0123456789abcdef"))},
		"1.000000 Kind(200) 0":                  {Kind: 200},
	} {
		e.Timestamp = at
		if got := e.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		data, _, _ := strings.Cut(string(text), "\n")
		raw, err := hex.DecodeString(data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add(message(0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || e != (Event{}) {
				t.Fatalf("%v with error %v", e, err)
			}
			return
		}
		if int(e.Kind) >= Kinds || e.Timestamp < 0 {
			t.Fatalf("%+v", e)
		}
		if e.String() == "" || strings.ContainsFunc(e.String(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("%q", e.String())
		}
		// What follows the message is not looked at.
		if again, err := Decode(append(b[:len(b):len(b)], 1, 2, 3)); err != nil || again != e {
			t.Fatalf("%v, %v; want %v", again, err, e)
		}
	})
}
