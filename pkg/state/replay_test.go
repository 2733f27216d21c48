package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden journal of this version, if there is none")

// journalBytes is a journal of that boot with these batches.
func journalBytes(t testing.TB, boot string, batches ...*Batch) []byte {
	t.Helper()
	data, err := appendJournalHead(nil, &JournalHead{BootID: boot, PID: 77, Version: "test", Format: JournalFormat})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		data = append(data, b.seal()...)
	}
	return data
}

// parseBatches parses what must be without a fault.
func parseBatches(t testing.TB, boot string, batches ...*Batch) *Recovered {
	t.Helper()
	r, err := parseJournal(journalBytes(t, boot, batches...), boot)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Report.Complete() || r.Report.Batches != len(batches) {
		t.Fatalf("not all was read: %s", &r.Report)
	}
	return r
}

// history is a life of a daemon: the batches, and what a journal with the first
// n of them says.
type history struct {
	batches []*Batch
	after   []string
}

// model is what the batches of a history amount to, kept without the journal.
type model struct {
	daemon    Daemon
	entries   map[string]Entry
	slots     map[string]map[int]Slot
	processes map[string]map[int]Process
	marks     Marks
}

// said is what a journal should say, as text.
func (m *model) said() string {
	d := m.daemon
	d.Machine.Entries = []Entry{}
	var ps []Process
	for _, name := range slices.Sorted(maps.Keys(m.entries)) {
		e := m.entries[name]
		for _, n := range slices.Sorted(maps.Keys(m.slots[name])) {
			e.Slots = append(e.Slots, m.slots[name][n])
		}
		for _, n := range slices.Sorted(maps.Keys(m.processes[name])) {
			ps = append(ps, m.processes[name][n])
		}
		d.Machine.Entries = append(d.Machine.Entries, e)
	}
	return say(&d, ps, m.marks)
}

func say(d *Daemon, ps []Process, marks Marks) string {
	b, err := json.Marshal([]any{d, ps, marks})
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (r *Recovered) said() string {
	if r == nil || r.Daemon == nil {
		return ""
	}
	return say(r.Daemon, r.Processes, r.Marks)
}

// newHistory makes n batches up, the same for the same seed.
func newHistory(t testing.TB, seed uint64, n int) *history {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := &model{
		daemon:  Daemon{Name: "sample", Config: "/etc/sentryd/sample.yaml", Args: []string{"sentryd", "start"}, Applied: []Source{{"a.yaml", []byte("entries: {}\n")}}, Checked: []Source{}},
		entries: map[string]Entry{}, slots: map[string]map[int]Slot{}, processes: map[string]map[int]Process{},
	}
	h := &history{after: []string{""}}
	names := []string{"web", "db", "x"}
	for i := range n {
		b := new(Batch)
		if i == 0 {
			if err := b.All(&m.daemon, nil, m.marks); err != nil {
				t.Fatal(err)
			}
		}
		for range 1 + rng.IntN(4) {
			name, slot := names[rng.IntN(len(names))], rng.IntN(3)
			if _, ok := m.entries[name]; !ok {
				e := Entry{Name: name, Count: rng.IntN(5), CountBy: "scale"}
				m.entries[name], m.slots[name], m.processes[name] = e, map[int]Slot{}, map[int]Process{}
				b.Entry(&e)
			}
			switch rng.IntN(9) {
			case 0:
				delete(m.entries, name)
				delete(m.slots, name)
				delete(m.processes, name)
				b.EntryGone(name)
			case 1:
				delete(m.slots[name], slot)
				delete(m.processes[name], slot)
				b.SlotGone(name, slot)
			case 2:
				delete(m.processes[name], slot)
				b.ProcessGone(name, slot)
			case 3:
				m.marks.Version += rng.Uint64N(1000)
				b.Marks(m.marks)
			case 4:
				if rng.IntN(4) == 0 {
					m.daemon.Machine.Stopping = true
					b.Shutdown()
					continue
				}
				m.daemon.Reexecs++
				m.daemon.Machine.Stopping = rng.IntN(2) == 0
				if err := b.Daemon(&m.daemon); err != nil {
					t.Fatal(err)
				}
			case 5:
				e := m.entries[name]
				e.Totals.Starts += rng.Uint64N(9)
				e.Totals.Forks += rng.Uint64N(2)
				e.Totals.DescendantExits = map[string]uint64{"success": e.Totals.Forks}
				if rng.IntN(2) == 0 {
					e.Totals.Exits, e.Uncounted = e.Totals.Exits+uint64(len(e.Uncounted)), nil
				}
				m.entries[name] = e
				b.Entry(&e)
			case 7:
				e := m.entries[name]
				e.Totals.Exits, e.Uncounted = e.Totals.Exits+uint64(len(e.Uncounted))+rng.Uint64N(9), nil
				t := e.Totals
				if rng.IntN(2) == 0 { // stays as it was
					t.Forks, t.DescendantExits = 0, nil
				} else {
					e.Totals.Forks++
					e.Totals.DescendantExits = map[string]uint64{"success": e.Totals.Forks}
					t.Forks, t.DescendantExits = e.Totals.Forks, e.Totals.DescendantExits
				}
				m.entries[name] = e
				b.Totals(name, &t)
			case 6:
				p := Process{Entry: name, Slot: slot, Incarnation: rng.Uint64N(9) + 1, PID: rng.IntN(1e6) + 1, Inode: rng.Uint64(), Handle: []byte{1, 2, 3}}
				m.processes[name][slot] = p
				b.Process(&p)
			default:
				s := Slot{Slot: slot, Incarnation: rng.Uint64N(99), State: "running", Live: true, PID: rng.IntN(1e6), StartedAt: rng.Int64()}
				if rng.IntN(2) == 0 {
					e := m.entries[name]
					s.Last = &Exit{Nth: e.Totals.Exits + uint64(len(e.Uncounted)) + 1, Code: rng.IntN(9)}
					e.Uncounted = append(slices.Clip(e.Uncounted), *s.Last)
					m.entries[name] = e
				} else if old, ok := m.slots[name][slot]; ok {
					s.Last = old.Last // which was told of
				}
				m.slots[name][slot] = s
				b.Slot(name, &s)
			}
		}
		h.batches, h.after = append(h.batches, b), append(h.after, m.said())
	}
	return h
}

func TestHistories(t *testing.T) {
	for seed := range uint64(200) {
		h := newHistory(t, seed, 20)
		for n := range h.batches {
			if got := parseBatches(t, testBoot, h.batches[:n]...).said(); got != h.after[n] {
				t.Fatalf("seed %d, after %d batches: got\n%s\nwant\n%s", seed, n, got, h.after[n])
			}
		}
	}
}

// ends are the lengths of a journal with the first n batches.
func (h *history) ends(t testing.TB) (ends []int) {
	for n := range len(h.batches) + 1 {
		ends = append(ends, len(journalBytes(t, testBoot, h.batches[:n]...)))
	}
	return ends
}

func TestJournalTruncatedAtEveryByte(t *testing.T) {
	h := newHistory(t, 1, 12)
	whole, ends := journalBytes(t, testBoot, h.batches...), h.ends(t)
	for n := range len(whole) + 1 {
		batches := 0
		for batches < len(h.batches) && ends[batches+1] <= n {
			batches++
		}
		r, err := parseJournal(whole[:n:n], testBoot)
		switch {
		case n < ends[0]:
			if !errors.Is(err, ErrTruncated) || r != nil {
				t.Fatalf("cut at %d: %v, %v", n, r, err)
			}
		case err != nil:
			t.Fatalf("cut at %d: %v", n, err)
		case r.said() != h.after[batches]:
			t.Fatalf("cut at %d: got\n%s\nwant what it was after %d batches:\n%s", n, r.said(), batches, h.after[batches])
		case r.Report.Ignored != n-ends[batches] || (r.Report.Reason != nil) != (r.Report.Ignored > 0):
			t.Fatalf("cut at %d: %s, want %d bytes ignored", n, &r.Report, n-ends[batches])
		case r.Report.Ignored > 0 && !errors.Is(r.Report.Reason, ErrTruncated):
			t.Fatalf("cut at %d: %v", n, r.Report.Reason)
		}
	}
}

func TestJournalWithEveryBitFlipped(t *testing.T) {
	h := newHistory(t, 2, 12)
	whole, ends := journalBytes(t, testBoot, h.batches...), h.ends(t)
	for bit := range 8 * len(whole) {
		data := bytes.Clone(whole)
		data[bit/8] ^= 1 << (bit % 8)
		batches := 0 // that are before the flipped bit
		for batches < len(h.batches) && ends[batches+1] <= bit/8 {
			batches++
		}
		r, err := parseJournal(data, testBoot)
		if bit/8 < ends[0] {
			if err == nil {
				t.Fatalf("bit %d of the head flipped: read as %s", bit, r.said())
			}
			continue
		}
		if err != nil || r.said() != h.after[batches] || r.Report.Reason == nil {
			t.Fatalf("bit %d flipped: %v, %s: got\n%s\nwant what it was after %d batches:\n%s", bit, err, &r.Report, r.said(), batches, h.after[batches])
		}
	}
}

func TestJournalFromElsewhere(t *testing.T) {
	h := newHistory(t, 3, 30)
	good := journalBytes(t, testBoot, h.batches...)
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"empty":                 {nil, ErrTruncated},
		"other file":            {[]byte("entries: {}\n"), ErrNotState},
		"an envelope":           {[]byte(magic + "xxxxxxxxxxxxxxxxxxxxxxxxx"), ErrNotState},
		"huge head":             {slices.Concat(good[:len(journalMagic)+4], []byte{0xff, 0xff, 0xff, 0xff}, good[len(journalMagic)+8:]), ErrTruncated},
		"head that is not JSON": {rawHead("nonsense", JournalFormat), ErrCorrupt},
	} {
		if r, err := parseJournal(c.data, testBoot); r != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, r, err, c.want)
		}
	}
	r, err := parseJournal(good, "another boot")
	if !errors.Is(err, ErrOtherBoot) || r.Daemon != nil || r.Processes != nil || r.Head.BootID != testBoot || r.Marks.Version == 0 {
		t.Errorf("another boot: %+v, %v", r, err)
	}
}

func rawHead(text string, format uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte(journalMagic), format)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = binary.BigEndian.AppendUint32(b, checksum(b, []byte(text)))
	return append(b, text...)
}

// TestJournalWithHugeLengths has lengths that no file can have, in places whose
// sums are right.
func TestJournalWithHugeLengths(t *testing.T) {
	h := newHistory(t, 4, 3)
	good := journalBytes(t, testBoot, h.batches...)
	for name, tail := range map[string][]byte{
		"batch":         {0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5},
		"zeros":         make([]byte, 4096),
		"less than one": {0, 0},
	} {
		r, err := parseJournal(slices.Concat(good, tail), testBoot)
		if err != nil || r.said() != h.after[3] || r.Report.Ignored != len(tail) {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
	}
	bad := &Batch{buf: append(make([]byte, batchHeadLen), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)}
	r, err := parseJournal(journalBytes(t, testBoot, append(h.batches, bad)...), testBoot)
	if err != nil || r.said() != h.after[3] || r.Report.Bad != 1 {
		t.Errorf("record: %v, %+v", err, r)
	}
}

// TestJournalOfANewerVersion has kinds and fields that are not known yet.
func TestJournalOfANewerVersion(t *testing.T) {
	h := newHistory(t, 5, 6)
	data := rawHead(`{"boot_id":"`+testBoot+`","pid":5,"version":"9","novelty":[1]}`, JournalFormat+8)
	for _, b := range h.batches {
		b.record(200, func(buf []byte) []byte { return append(buf, "whatever"...) })
		b.record(recProcess, func(buf []byte) []byte { // with a field of text that is a number by now
			return appendUint(appendUint(buf, 1, 7), 60, 1)
		})
		data = append(data, b.seal()...)
	}
	r, err := parseJournal(data, testBoot)
	if err != nil || r.said() != h.after[6] {
		t.Fatalf("%v: got %s\nwant %s", err, r.said(), h.after[6])
	}
	if rep := r.Report; rep.Unknown != 6 || rep.Bad != 6 || !rep.Newer || rep.Complete() {
		t.Errorf("report %+v", rep)
	}
	const want = "6 batches, of a newer format, 6 records of unknown kinds, 6 unreadable records"
	if got := r.Report.String(); got != want {
		t.Errorf("report %q, want %q", got, want)
	}
}

// TestShutdownOfNobody: there is no daemon whose shutdown it is.
func TestShutdownOfNobody(t *testing.T) {
	var b Batch
	b.Shutdown()
	if r, err := parseJournal(journalBytes(t, testBoot, &b), testBoot); err != nil || r.Report.Bad != 1 {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestSlotWithoutEntry keeps the process all the same: nobody else knows it.
func TestSlotWithoutEntry(t *testing.T) {
	var b Batch
	b.Slot("web", &Slot{Slot: 1, Incarnation: 4})
	b.Process(&Process{Entry: "web", Slot: 1, Incarnation: 4, PID: 9, Inode: 8})
	r, err := parseJournal(journalBytes(t, testBoot, &b), testBoot)
	if err != nil || len(r.Daemon.Machine.Entries) != 0 || len(r.Processes) != 1 || r.Report.Bad != 1 {
		t.Errorf("%v, %+v", err, r)
	}
}

// goldenHistory is what the golden journal of this version was made of. Its
// seed stays; a later version adds a file of its own.
func goldenHistory(t *testing.T) []*Batch {
	h := newHistory(t, 1511, 30)
	last := new(Batch)
	e, s := filled[Entry](t), filled[Slot](t)
	e.Name, s.Slot = "all", 2
	last.Entry(e)
	last.Slot("all", s)
	last.Process(&Process{Entry: "all", Slot: 2, Incarnation: s.Incarnation, PID: 4711, Inode: 1 << 40, Handle: []byte{0, 0, 0, 0xf1, 9}, Start: 77, Cgroup: "/sentryd/all/2"})
	last.Entry(&Entry{Name: "later", Count: 1, Totals: Totals{Starts: 3, Exits: 2}})
	last.Slot("later", &Slot{Incarnation: 4, State: "starting", Pending: true, Last: &Exit{At: 5, Incarnation: 3, Reason: "exited", Code: 7, Nth: 3}})
	last.Shutdown()
	return append(h.batches, last)
}

// TestGoldenJournals reads the journals that released versions wrote, one of
// each. What was written there stays readable and keeps its meaning.
func TestGoldenJournals(t *testing.T) {
	current := filepath.Join("testdata", fmt.Sprintf("format%d.journal", JournalFormat))
	if _, err := os.Stat(current); *update && errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(current, journalBytes(t, testBoot, goldenHistory(t)...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob("testdata/*.journal")
	if err != nil || !slices.Contains(files, current) {
		t.Fatalf("no %s among %v (%v): go test ./pkg/state -run Golden -update", current, files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := parseJournal(data, testBoot)
		if err != nil || !r.Report.Complete() {
			t.Errorf("%s: %v, %s", file, err, &r.Report)
			continue
		}
		var got bytes.Buffer
		if err := json.Indent(&got, []byte(r.said()), "", " "); err != nil {
			t.Fatal(err)
		}
		got.WriteByte('\n')
		text := strings.TrimSuffix(file, ".journal") + ".json"
		want, err := os.ReadFile(text)
		if *update && errors.Is(err, os.ErrNotExist) {
			want, err = got.Bytes(), os.WriteFile(text, got.Bytes(), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		var x, y any
		if json.Unmarshal(got.Bytes(), &x) != nil || json.Unmarshal(want, &y) != nil || !contains(x, y) {
			t.Errorf("%s says\n%s\nwant\n%s", file, got.Bytes(), want)
		}
	}
}

// contains reports whether got is want, and maybe has more members in objects:
// those that were added since.
func contains(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		for k, v := range want {
			ok = ok && contains(got[k], v)
		}
		return ok
	case []any:
		got, ok := got.([]any)
		return ok && slices.EqualFunc(got, want, contains)
	}
	return reflect.DeepEqual(got, want)
}

func FuzzParseJournal(f *testing.F) {
	h := newHistory(f, 6, 4)
	good := journalBytes(f, testBoot, h.batches...)
	f.Add(good)
	f.Add(good[:len(good)-5])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseJournal(data, testBoot)
		if err != nil || r.Daemon == nil {
			return
		}
		// What was understood means the same when it is written again.
		var b Batch
		if err := b.All(r.Daemon, r.Processes, r.Marks); err != nil {
			t.Fatal(err)
		}
		if again := parseBatches(t, testBoot, &b); again.said() != r.said() {
			t.Errorf("got\n%s\nthen\n%s", r.said(), again.said())
		}
	})
}

// FuzzReplay gets past the sum: the batch is made of what the fuzzer says.
func FuzzReplay(f *testing.F) {
	for _, b := range newHistory(f, 7, 10).batches {
		f.Add(b.seal()[batchHeadLen:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 {
			return
		}
		b := &Batch{buf: append(make([]byte, batchHeadLen), body...)}
		r, err := parseJournal(journalBytes(t, testBoot, b), testBoot)
		if err != nil || r.Report.Batches != 1 {
			t.Fatalf("%v, %+v", err, r)
		}
		for _, p := range r.Processes {
			if p.Entry == "" || p.Slot < 0 || p.PID <= 0 || p.Incarnation == 0 {
				t.Errorf("no process can have this identity: %+v", p)
			}
		}
		var again Batch
		if err := again.All(r.Daemon, r.Processes, r.Marks); err != nil {
			t.Fatal(err)
		}
		if twice := parseBatches(t, testBoot, &again); twice.said() != r.said() {
			t.Errorf("got\n%s\nthen\n%s", r.said(), twice.said())
		}
	})
}
