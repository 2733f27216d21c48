package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
)

// Recovered is what a journal tells.
type Recovered struct {
	Head JournalHead
	// Daemon is the state after the last whole batch, entries sorted by name
	// and slots by number, as [Saved.Daemon] would return it; nil if not even
	// the first batch is whole.
	Daemon *Daemon
	// Processes are the identities, sorted by entry and slot. One is good only
	// for the incarnation that it names.
	Processes []Process
	Marks     Marks
	Report    JournalReport
}

// JournalReport says how much of a journal was understood.
type JournalReport struct {
	Batches int   // whole ones
	Ignored int   // bytes at the end
	Reason  error // why those were ignored: ErrTruncated or ErrCorrupt, or nil
	// Unknown counts records of kinds that this program does not know, Bad those
	// that it could not read, in batches whose sum is right: a newer program
	// wrote them.
	Unknown, Bad int
	// Newer: the journal is of a newer format than JournalFormat. What is known
	// was used.
	Newer bool
}

// Complete reports that all of the journal was understood.
func (r *JournalReport) Complete() bool {
	return r.Ignored == 0 && r.Unknown == 0 && r.Bad == 0 && !r.Newer
}

// String says what was not understood, for a message.
func (r *JournalReport) String() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d batches", r.Batches)
	if r.Newer {
		b.WriteString(", of a newer format")
	}
	if r.Ignored > 0 {
		fmt.Fprintf(&b, ", %d bytes at the end ignored: %v", r.Ignored, r.Reason)
	}
	if r.Unknown > 0 {
		fmt.Fprintf(&b, ", %d records of unknown kinds", r.Unknown)
	}
	if r.Bad > 0 {
		fmt.Fprintf(&b, ", %d unreadable records", r.Bad)
	}
	return b.String()
}

// ParseJournal reads the bytes of a journal. Whatever they are, what it returns
// is the state after some number of the batches that were appended, in order,
// and never part of one: it stops at the first that is not whole.
//
// An error, which is one of [Decode]'s, means that nothing of it is usable.
// With [ErrOtherBoot] the Head and the Marks are: no process of that boot lives.
// ParseJournal never panics, and allocates only in proportion to len(data).
func ParseJournal(data []byte) (*Recovered, error) {
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	return parseJournal(data, boot)
}

// parseJournal is pure.
func parseJournal(data []byte, boot string) (*Recovered, error) {
	head, rest, err := readJournalHead(data)
	if err != nil {
		return nil, err
	}
	p := newReplay()
	p.report.Newer = head.Format > JournalFormat
	for len(rest) > 0 && p.report.Reason == nil {
		var body []byte
		if body, rest, p.report.Reason = readBatch(rest); p.report.Reason == nil {
			p.batch(body)
		}
	}
	p.report.Ignored = len(rest)
	r := &Recovered{Head: *head, Marks: p.marks, Report: p.report}
	if head.BootID != boot {
		return r, fmt.Errorf("%w: %q, this is %q", ErrOtherBoot, head.BootID, boot)
	}
	r.Daemon = p.result(&r.Report)
	for _, x := range p.processes {
		r.Processes = append(r.Processes, *x)
	}
	slices.SortFunc(r.Processes, func(a, b Process) int {
		return compareSlots(slotName{a.Entry, a.Slot}, slotName{b.Entry, b.Slot})
	})
	return r, nil
}

func readJournalHead(data []byte) (*JournalHead, []byte, error) {
	n := min(len(data), len(journalMagic))
	if string(data[:n]) != journalMagic[:n] {
		return nil, nil, ErrNotState
	}
	if len(data) < journalHeadLen {
		return nil, nil, fmt.Errorf("%w: %d bytes, the head alone is %d", ErrTruncated, len(data), journalHeadLen)
	}
	h := &JournalHead{}
	format := binary.BigEndian.Uint32(data[len(journalMagic):])
	length := binary.BigEndian.Uint32(data[len(journalMagic)+4:])
	sum := binary.BigEndian.Uint32(data[len(journalMagic)+8:])
	rest := data[journalHeadLen:]
	if uint64(length) > uint64(len(rest)) {
		return nil, nil, fmt.Errorf("%w: %d of %d bytes of the head's text", ErrTruncated, len(rest), length)
	}
	text, rest := rest[:length], rest[length:]
	if crc32.Update(crc32.Checksum(data[:journalHeadLen-4], castagnoli), castagnoli, text) != sum {
		return nil, nil, fmt.Errorf("%w: checksum of the head differs", ErrCorrupt)
	}
	if err := json.Unmarshal(text, h); err != nil {
		return nil, nil, fmt.Errorf("%w: head: %v", ErrCorrupt, err)
	}
	h.Format = format
	return h, rest, nil
}

// readBatch takes a batch off data. With an error rest is data.
func readBatch(data []byte) (body, rest []byte, err error) {
	if len(data) < batchHeadLen {
		return nil, data, fmt.Errorf("%w: %d bytes of a batch", ErrTruncated, len(data))
	}
	length := binary.BigEndian.Uint32(data)
	body = data[batchHeadLen:]
	if length == 0 {
		return nil, data, fmt.Errorf("%w: an empty batch", ErrCorrupt)
	}
	if uint64(length) > uint64(len(body)) {
		return nil, data, fmt.Errorf("%w: %d of %d bytes of a batch", ErrTruncated, len(body), length)
	}
	body, rest = body[:length], body[length:]
	if checksum(data[:4], body) != binary.BigEndian.Uint32(data[4:]) {
		return nil, data, fmt.Errorf("%w: checksum of a batch differs", ErrCorrupt)
	}
	return body, rest, nil
}

// replay is a state while batches are applied to it.
type replay struct {
	daemon    *Daemon
	sources   sources
	marks     Marks
	entries   map[string]*Entry
	slots     map[string]map[int]*Slot // by entry and number
	retired   map[slotName]Retired
	uncounted map[string]map[uint64]bool // by entry: the Nth of its Uncounted
	processes map[slotName]*Process
	output    *Output
	report    JournalReport
}

func newReplay() *replay {
	return &replay{
		entries:   make(map[string]*Entry),
		slots:     make(map[string]map[int]*Slot),
		retired:   make(map[slotName]Retired),
		uncounted: make(map[string]map[uint64]bool),
		processes: make(map[slotName]*Process),
	}
}

// batch applies the records of a batch whose sum was right.
func (p *replay) batch(body []byte) {
	p.report.Batches++
	f := fields{rest: body}
	for len(f.rest) > 0 {
		n := f.uvarint()
		if f.bad || n == 0 || n > uint64(len(f.rest)) {
			p.report.Bad++
			return
		}
		kind, payload := f.rest[0], f.rest[1:n]
		f.rest = f.rest[n:]
		if !p.record(kind, payload) {
			p.report.Bad++
		}
	}
}

// record applies one, and reports whether it could be read.
func (p *replay) record(kind byte, payload []byte) bool {
	switch kind {
	case recDaemon:
		d := new(Daemon)
		if json.Unmarshal(payload, d) != nil {
			return false
		}
		p.daemon = d
	case recShutdown:
		if p.daemon == nil {
			return false
		}
		p.daemon.Machine.Stopping = true
	case recSources:
		var s sources
		if json.Unmarshal(payload, &s) != nil {
			return false
		}
		p.sources = s
	case recMarks:
		var m Marks
		if !m.read(fields{rest: payload}) {
			return false
		}
		p.marks = m
	case recEntry:
		e := new(Entry)
		if !e.read(fields{rest: payload}) {
			return false
		}
		for n, r := range e.Retired {
			p.retired[slotName{e.Name, n}] = r
		}
		e.Retired = nil
		exits := e.Uncounted
		p.counted(e)
		p.entries[e.Name] = e
		for i := range exits {
			p.keep(e, &exits[i])
		}
	case recTotals:
		name, t, ok := readEntryTotals(fields{rest: payload})
		e := p.entries[name]
		if !ok || e == nil {
			return false
		}
		if old := &e.Totals; t.DescendantExits == nil {
			t.Forks, t.Execs, t.Coredumps, t.DescendantExits = old.Forks, old.Execs, old.Coredumps, old.DescendantExits
		}
		e.Totals = t
		p.counted(e)
	case recEntryGone:
		p.entryGone(string(payload))
	case recSlot:
		s := new(Slot)
		entry, ok := s.read(fields{rest: payload})
		if !ok {
			return false
		}
		if p.slots[entry] == nil {
			p.slots[entry] = make(map[int]*Slot)
		}
		p.slots[entry][s.Slot] = s
		p.count(entry, s.Last)
		delete(p.retired, slotName{entry, s.Slot})
	case recProcess:
		x := new(Process)
		if !x.read(fields{rest: payload}) {
			return false
		}
		p.processes[slotName{x.Entry, x.Slot}] = x
	case recOutput:
		o := new(Output)
		if !o.read(fields{rest: payload}) {
			return false
		}
		p.output = o
	case recFIFO:
		var x FIFO
		if p.output == nil || !x.read(fields{rest: payload}) {
			return false
		}
		p.output.FIFOs = append(p.output.FIFOs, x)
	case recRetired:
		var r Retired
		n, ok := r.read(fields{rest: payload})
		if !ok {
			return false
		}
		delete(p.slots[n.entry], n.slot)
		delete(p.processes, n)
		p.retired[n] = r
	case recSlotGone, recProcessGone:
		var n slotName
		if !n.read(fields{rest: payload}) {
			return false
		}
		delete(p.processes, n)
		if kind == recSlotGone {
			delete(p.slots[n.entry], n.slot)
		}
	default:
		p.report.Unknown++
	}
	return true
}

// count keeps an exit that the totals of its entry do not count.
func (p *replay) count(entry string, x *Exit) {
	if e := p.entries[entry]; e != nil && x != nil && x.Nth > e.Totals.Exits {
		p.keep(e, x)
	}
}

// keep adds an exit to those that are not counted, once.
func (p *replay) keep(e *Entry, x *Exit) {
	seen := p.uncounted[e.Name]
	if seen == nil {
		seen = make(map[uint64]bool)
		p.uncounted[e.Name] = seen
	}
	if !seen[x.Nth] {
		seen[x.Nth] = true
		e.Uncounted = append(e.Uncounted, *x)
	}
}

// counted forgets those exits of an entry: its totals count them.
func (p *replay) counted(e *Entry) {
	delete(p.uncounted, e.Name)
	e.Uncounted = nil
}

func (p *replay) entryGone(name string) {
	delete(p.entries, name)
	delete(p.uncounted, name)
	delete(p.slots, name)
	for n := range p.retired {
		if n.entry == name {
			delete(p.retired, n)
		}
	}
	for n := range p.processes {
		if n.entry == name {
			delete(p.processes, n)
		}
	}
}

// result puts the state together. A slot whose entry could not be read is left
// out, and counted; its process is not.
func (p *replay) result(report *JournalReport) *Daemon {
	if p.report.Batches == 0 {
		return nil
	}
	d := p.daemon
	if d == nil {
		d = new(Daemon)
	}
	d.Applied, d.Checked = p.sources.Applied, p.sources.Checked
	for entry, list := range p.slots {
		e := p.entries[entry]
		if e == nil {
			report.Bad += len(list)
			continue
		}
		if len(list) > 0 {
			e.Slots = make([]Slot, 0, len(list))
		}
		for _, n := range slices.Sorted(maps.Keys(list)) {
			e.Slots = append(e.Slots, *list[n])
		}
	}
	for n, r := range p.retired {
		if e := p.entries[n.entry]; e != nil {
			if e.Retired == nil {
				e.Retired = make(map[int]Retired)
			}
			e.Retired[n.slot] = r
		}
	}
	d.Machine.Entries = []Entry{}
	for _, name := range slices.Sorted(maps.Keys(p.entries)) {
		d.Machine.Entries = append(d.Machine.Entries, *p.entries[name])
	}
	return d
}

func compareSlots(a, b slotName) int {
	return cmp.Or(cmp.Compare(a.entry, b.entry), cmp.Compare(a.slot, b.slot))
}
