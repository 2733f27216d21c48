package state

import (
	"bytes"
	"encoding/json"
	"errors"
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
		Payload: json.RawMessage(`{"entries":[{"name":"web","count":3}]}`),
		Output:  json.RawMessage(`{"FIFOs":null}`),
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
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// Encode and Decode agree on the boot that runs, and leave s alone.
	s := &Saved{Payload: json.RawMessage("null")}
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

// TestFixture reads a state that an earlier build wrote: a change of the
// format that breaks it needs a new Format.
func TestFixture(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "format1.state"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(b, testBoot)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sample(), got); d != "" {
		t.Error(d)
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
	notJSON := encoded(t, &Saved{Payload: json.RawMessage("1")})
	notJSON[headLen] = '['
	// A right checksum over wrong JSON.
	sum := checksum(notJSON[:sumAt], notJSON[headLen:])
	for i := range 4 {
		notJSON[sumAt+i] = byte(sum >> (24 - 8*i))
	}
	// Two lines with a right checksum.
	short := encoded(t, sample())
	short[bytes.LastIndexByte(short, '\n')] = ' '
	sum = checksum(short[:sumAt], short[headLen:])
	for i := range 4 {
		short[sumAt+i] = byte(sum >> (24 - 8*i))
	}
	if _, err := encode(&Saved{Payload: json.RawMessage("{\n}")}, testBoot); err == nil {
		t.Error("a payload of two lines was taken")
	}
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
		"two lines":      {short, ErrCorrupt},
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
