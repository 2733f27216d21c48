package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const testBoot = "0b2a7f0e-1c7b-4a52-9d5c-6d0a0c7c9f11"

func sample() *Saved {
	return &Saved{
		Header:  Header{BootID: testBoot, Version: "1.2.3"},
		Files:   []File{{Name: "pidfd:web:0", FD: 7}, {Name: "netlink:proc", FD: 9}},
		Payload: []byte(`{"entries":[{"name":"web","count":3}]}`),
	}
}

func encoded(t testing.TB, s *Saved) []byte {
	t.Helper()
	b, err := encode(s, testBoot)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	want := sample()
	got, err := decode(encoded(t, want), testBoot)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(Saved{})); d != "" {
		t.Error(d)
	}
	// Encode and Decode agree on the boot that runs, and leave s alone.
	s := &Saved{Payload: []byte("null")}
	b, err := Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	if s.Header.BootID != "" {
		t.Error("Encode changed its argument")
	}
	if got, err = Decode(b); err != nil || len(got.Header.BootID) != 36 {
		t.Errorf("Decode: %+v, %v", got, err)
	}
}

// TestLeftovers: they arrive. The fixtures have none.
func TestLeftovers(t *testing.T) {
	want := sample()
	want.Leftovers = []int{12, 13}
	got, err := decode(encoded(t, want), testBoot)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(Saved{})); d != "" {
		t.Error(d)
	}
}

// TestFixtures reads states that earlier builds wrote: a change of the format that
// breaks one needs a new Format.
func TestFixtures(t *testing.T) {
	current := filepath.Join("testdata", fmt.Sprintf("format%d.state", Format))
	if _, err := os.Stat(current); *update && errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(current, encoded(t, sample()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	former := sample()
	former.lines, former.output = true, []byte(`{"FIFOs":null}`)
	for file, want := range map[string]*Saved{filepath.Join("testdata", "format1.state"): former, current: sample()} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v: go test ./pkg/state -run Fixtures -update", err)
		}
		got, err := decode(b, testBoot)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(Saved{})); d != "" {
			t.Errorf("%s: %s", file, d)
		}
	}
}

// TestFormat1 reads what the state and the output were in format 1: JSON.
func TestFormat1(t *testing.T) {
	s := &Saved{
		lines:   true,
		Payload: []byte(`{"name":"x","seq":7,"machine":{"entries":[{"name":"web","slots":[{"slot":0,"incarnation":3,"state":"running","live":true,"pid":12}]}]}}`),
		output:  []byte(`{"FIFOs":[{"Key":{"Entry":"web","Slot":0,"Stream":2},"FD":9,"PID":12,"Incarnation":3,"Held":true,"Partial":"YWI="}],"Entries":{"web":{"Bytes":5,"Lines":1}},"Dropped":4,"Out":"bw==","Err":null}`),
	}
	d, err := s.Daemon()
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "x" || d.Seq != 7 || d.Machine.Entries[0].Slots[0].PID != 12 {
		t.Errorf("%+v", d)
	}
	want := &Output{
		FIFOs:   []FIFO{{Key: FIFOKey{Entry: "web", Stream: 2}, FD: 9, PID: 12, Incarnation: 3, Held: true, Partial: []byte("ab")}},
		Entries: map[string]OutputCounts{"web": {Bytes: 5, Lines: 1}}, Dropped: 4, Out: []byte("o"),
	}
	if diff := cmp.Diff(want, d.Output); diff != "" {
		t.Error(diff)
	}
	for _, broken := range []*Saved{{lines: true, Payload: []byte("["), output: []byte("{}")}, {lines: true, Payload: []byte("{}"), output: []byte("[")}} {
		if d, err := broken.Daemon(); err == nil {
			t.Errorf("%q, %q: %+v", broken.Payload, broken.output, d)
		}
	}
}

// TestDaemonRoundTrip hands over a state with a value in every field.
func TestDaemonRoundTrip(t *testing.T) {
	want := filled[Daemon](t)
	for i := range want.Machine.Entries {
		e := &want.Machine.Entries[i]
		e.Name = []string{"a", "b"}[i] // sorted
		e.Retired = map[int]Retired{900: {Incarnation: 3, Held: true}}
		for j := range e.Slots {
			e.Slots[j].Slot = j
		}
	}
	for i := range want.Output.FIFOs {
		want.Output.FIFOs[i].Key.Slot = i
	}
	s, err := want.Saved("1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	back, err := decode(encoded(t, s), testBoot)
	if err != nil {
		t.Fatal(err)
	}
	got, err := back.Daemon()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// What a newer program adds is passed over; what cannot be read is not.
	s.Payload = append(s.Payload, 2, 0x7f, 'x')
	if _, err := s.Daemon(); err != nil {
		t.Errorf("with a record of an unknown kind: %v", err)
	}
	s.Payload = append(s.Payload, 2, recSlot, 0xff)
	if d, err := s.Daemon(); err == nil {
		t.Errorf("with a record that is damaged: %+v", d)
	}
}

func TestTruncatedAtEveryByte(t *testing.T) {
	b := encoded(t, sample())
	for n := range b {
		if s, err := decode(b[:n], testBoot); s != nil || !errors.Is(err, ErrTruncated) {
			t.Fatalf("%d of %d bytes: %v, want ErrTruncated", n, len(b), err)
		}
	}
}

func TestEveryFlippedBit(t *testing.T) {
	b := encoded(t, sample())
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			s, err := decode(b, testBoot)
			if s != nil || err == nil {
				t.Fatalf("byte %d bit %d: accepted", i, bit)
			}
			if i >= headLen && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d bit %d: %v, want ErrCorrupt", i, bit, err)
			}
			b[i] ^= 1 << bit
		}
	}
}

func TestRefused(t *testing.T) {
	b := encoded(t, sample())
	newer := append([]byte(nil), b...)
	newer[len(magic)+3] = Format + 1
	zero := append([]byte(nil), b...)
	zero[len(magic)+3] = 0
	huge := append([]byte(nil), b...)
	for i := range 8 {
		huge[len(magic)+4+i] = 0xff
	}
	resum := func(b []byte) []byte {
		sum := checksum(b[:sumAt], b[headLen:])
		for i := range 4 {
			b[sumAt+i] = byte(sum >> (24 - 8*i))
		}
		return b
	}
	// Right checksums over what makes no sense.
	notJSON := encoded(t, sample())
	notJSON[headLen+1] = '['
	resum(notJSON)
	short := encoded(t, sample())
	short[headLen]++ // takes from the next part
	resum(short)
	badFile := encoded(t, sample())
	badFile[bytes.Index(badFile, []byte("pidfd:web"))-1] = 0xff // its length
	resum(badFile)
	lines, err := os.ReadFile(filepath.Join("testdata", "format1.state"))
	if err != nil {
		t.Fatal(err)
	}
	lines[bytes.LastIndexByte(lines, '\n')] = ' '
	resum(lines)
	other, err := encode(sample(), "another")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		data []byte
		want error
	}{
		"empty":          {nil, ErrTruncated},
		"something else": {[]byte("#!/bin/sh\nexit 0\n and some more bytes"), ErrNotState},
		"trailing":       {append(b[:len(b):len(b)], 0), ErrTrailing},
		"newer":          {newer, ErrNewer},
		"newer, moved":   {newer[:headLen+3], ErrNewer},
		"format 0":       {zero, ErrCorrupt},
		"huge length":    {huge, ErrTruncated},
		"two lines":      {lines, ErrCorrupt},
		"parts":          {short, ErrCorrupt},
		"descriptors":    {badFile, ErrCorrupt},
		"no JSON object": {notJSON, ErrCorrupt},
		"other boot":     {other, ErrOtherBoot},
	} {
		if _, err := decode(tc.data, testBoot); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b := encoded(f, sample())
	f.Add(b)
	f.Add(b[:headLen])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The sum is set right, so that the fuzzer gets past it.
		if len(data) >= headLen {
			sum := checksum(data[:sumAt], data[headLen:])
			for i := range 4 {
				data[sumAt+i] = byte(sum >> (24 - 8*i))
			}
		}
		s, err := decode(data, testBoot)
		if (s == nil) == (err == nil) {
			t.Fatalf("%v and %v", s, err)
		}
		if err != nil {
			return
		}
		again, err := encode(s, testBoot)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decode(again, testBoot)
		if err != nil {
			t.Fatal(err)
		}
		third, err := encode(back, testBoot)
		if err != nil || string(again) != string(third) {
			t.Fatalf("not stable: %q, then %q (%v)", again, third, err)
		}
	})
}
