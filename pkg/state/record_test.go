package state

import (
	"bytes"
	"reflect"
	"testing"
)

// fill gives every field that is reachable from v a value of its own that is
// not zero.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(t, v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, val := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, key, n)
			fill(t, val, n)
			v.SetMapIndex(key, val)
		}
	case reflect.String:
		v.SetString("text" + string(rune('a'+*n%26)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n) * 1_000_003 * int64(1-2*(*n%2))) // either sign
	case reflect.Float64:
		v.SetFloat(float64(*n) / 4)
	case reflect.Uint8:
		v.SetUint(uint64(*n%255 + 1))
	case reflect.Uint64:
		v.SetUint(^uint64(*n))
	default:
		t.Fatalf("no value for a %s", v.Type())
	}
}

// filled is a T without a zero field.
func filled[T any](t *testing.T) *T {
	v, n := new(T), 0
	fill(t, reflect.ValueOf(v).Elem(), &n)
	return v
}

// TestRecordsKeepEveryField fails for a field that was added to a saved type
// and not to its record.
func TestRecordsKeepEveryField(t *testing.T) {
	e := filled[Entry](t)
	e.Slots = nil
	var gotEntry Entry
	if !gotEntry.read(fields{rest: appendEntry(nil, e)}) || !reflect.DeepEqual(&gotEntry, e) {
		t.Errorf("entry: got %+v\nwant %+v", gotEntry, e)
	}
	s := filled[Slot](t)
	s.Slot = 7
	var gotSlot Slot
	if name, ok := gotSlot.read(fields{rest: appendSlot(nil, "web", s)}); !ok || name != "web" || !reflect.DeepEqual(&gotSlot, s) {
		t.Errorf("slot of %q: got %+v\nwant %+v", name, gotSlot, s)
	}
	p := filled[Process](t)
	p.Slot, p.PID = 7, 12
	var gotProcess Process
	if !gotProcess.read(fields{rest: appendProcess(nil, p)}) || !reflect.DeepEqual(&gotProcess, p) {
		t.Errorf("process: got %+v\nwant %+v", gotProcess, p)
	}
	m := filled[Marks](t)
	var gotMarks Marks
	if !gotMarks.read(fields{rest: appendMarks(nil, m)}) || gotMarks != *m {
		t.Errorf("marks: got %+v\nwant %+v", gotMarks, m)
	}
	d := filled[Daemon](t)
	d.Output = nil
	d.Machine.Entries = []Entry{{Name: "a"}}
	var b Batch
	if err := b.All(d, nil, *m); err != nil {
		t.Fatal(err)
	}
	r := parseBatches(t, testBoot, &b)
	if !reflect.DeepEqual(r.Daemon, d) {
		t.Errorf("daemon: got %+v\nwant %+v", r.Daemon, d)
	}
}

func TestZeroRecords(t *testing.T) {
	zero := int64(0)
	for _, s := range []Slot{{}, {Deadline: &zero}, {Last: &Exit{}}, {Deadline: &zero, Due: &zero}} {
		var got Slot
		if _, ok := got.read(fields{rest: appendSlot(nil, "a", &s)}); !ok || !reflect.DeepEqual(got, s) {
			t.Errorf("got %+v, want %+v", got, s)
		}
	}
}

// TestRecordsOfAnotherVersion reads fields that this version does not know.
func TestRecordsOfAnotherVersion(t *testing.T) {
	s := filled[Slot](t)
	s.Slot = 1
	b := appendText(appendUint(nil, 63, 5), 62, "new")
	b = appendSlot(b, "web", s)
	b = appendNested(b, 61, func(b []byte) []byte { return appendSlot(b, "x", s) })
	var got Slot
	if name, ok := got.read(fields{rest: b}); !ok || name != "web" || !reflect.DeepEqual(&got, s) {
		t.Errorf("slot of %q: got %+v", name, got)
	}
}

func TestRecordsThatDoNotFit(t *testing.T) {
	good := appendSlot(nil, "web", filled[Slot](t))
	for n := range good {
		var s Slot
		s.read(fields{rest: good[:n:n]}) // does not panic, nor read beyond
	}
	for name, rec := range map[string][]byte{
		"text where a number belongs":  appendText(appendSlotName(nil, "web", 1), 3, "x"),
		"a number where text belongs":  appendUint(appendSlotName(nil, "web", 1), 4, 1),
		"a number in place of a list":  appendUint(appendSlotName(nil, "web", 1), 22, 1),
		"a list that ends in a number": appendText(appendSlotName(nil, "web", 1), 22, "\x80"),
		"a length beyond the end":      append(appendSlotName(nil, "web", 1), 4<<1|wireBytes, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"an endless number":            append(appendSlotName(nil, "web", 1), 3<<1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"no entry":                     appendInt(nil, 2, 1),
		"slot below zero":              appendSlotName(nil, "web", -1),
		"a damaged exit":               appendText(appendSlotName(nil, "web", 1), 25, "\x80"),
	} {
		var s Slot
		if _, ok := s.read(fields{rest: rec}); ok {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
	for name, p := range map[string]Process{
		"no pid":         {Entry: "a", Incarnation: 1},
		"pid below zero": {Entry: "a", Incarnation: 1, PID: -1},
		"no incarnation": {Entry: "a", PID: 5},
	} {
		var got Process
		if got.read(fields{rest: appendProcess(nil, &p)}) {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func TestBatchIsReusable(t *testing.T) {
	var b Batch
	s := Slot{Slot: 3, Incarnation: 2, State: "running"}
	b.Slot("web", &s)
	first := bytes.Clone(b.seal())
	b.Reset()
	if !b.Empty() {
		t.Error("not empty after Reset")
	}
	b.Slot("web", &s)
	if !bytes.Equal(first, b.seal()) {
		t.Error("not the same the second time")
	}
	if n := testing.AllocsPerRun(100, func() { b.Reset(); b.Slot("web", &s) }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func BenchmarkSlotRecord(b *testing.B) {
	var batch Batch
	at := int64(123456789012345)
	s := Slot{Slot: 3, Incarnation: 17, State: "running", Live: true, Tree: true, PID: 123456, StartedAt: at, StartedWall: at * 1000,
		Last: &Exit{At: at, Wall: at, PID: 1234, Incarnation: 16, Reason: "exited", Initiator: "process", UptimeNS: at, UsageSet: true, UserNS: 1e6, SysNS: 1e6, MaxRSS: 1 << 20}}
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		batch.Slot("some-entry", &s)
	}
	b.ReportMetric(float64(len(batch.buf)), "bytes")
}

func BenchmarkEntryRecord(b *testing.B) {
	var batch Batch
	e := Entry{Name: "some-entry", Count: 3, CountBy: "scale", Totals: Totals{Starts: 1e6, Exits: 1e6,
		ByStatus: []StatusTotal{{"exited", 0, 100}, {"exited", 1, 100}, {"signaled", 9, 5}},
		Uptime:   Histogram{Counts: make([]uint64, 12), SumNS: 1e12}, Latency: Histogram{Counts: make([]uint64, 12), SumNS: 1e12}}}
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		batch.Entry(&e)
	}
	b.ReportMetric(float64(len(batch.buf)), "bytes")
}

func BenchmarkJournalAppend(b *testing.B) {
	dir := b.TempDir()
	j, err := NewJournal(dir, "test")
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	var all, batch Batch
	all.Marks(Marks{Version: 1})
	s := Slot{Slot: 3, Incarnation: 17, State: "running", Live: true, Tree: true, PID: 123456, StartedAt: 1e15, StartedWall: 1e18}
	b.ReportAllocs()
	for b.Loop() {
		if j.Due() {
			if err := j.Compact(&all); err != nil {
				b.Fatal(err)
			}
		}
		batch.Reset()
		batch.Slot("some-entry", &s)
		if err := j.Append(&batch); err != nil {
			b.Fatal(err)
		}
	}
}
