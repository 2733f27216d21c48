package state

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
)

// A journal is a head and then batches, each of which a reader takes whole or
// not at all. All numbers of fixed size are big endian.
//
//	head:   magic (8) format (4) length (4) CRC-32C of all before and of the text (4) text
//	batch:  length of the records (4) CRC-32C of the length and the records (4) records
//	record: length of the rest (uvarint) kind (1) payload
//
// The text of the head is JSON of a JournalHead. The first batch of a file is
// the whole state of that moment; later ones hold what changed. A record holds
// all of what it is about, not a difference, so the last one wins and to apply
// it twice does no harm. Two are less: the totals of an entry need not be complete, as an exit
// that a slot tells of, and whose number is above theirs, is to be added; and that there is a
// shutdown changes no more than that of what was recorded of the daemon.
const (
	journalMagic   = "sentryj\n"
	journalHeadLen = len(journalMagic) + 4 + 4 + 4
	batchHeadLen   = 4 + 4
)

// JournalFormat is the number of the journal's format that this package writes.
// It rises when something is added that an older reader should not do without, and
// then says that it does; what such a reader knows keeps its meaning. 2: exits that
// no totals count. 3: a shutdown that is recorded by itself, and of who stops whether he was told.
const JournalFormat = 3

// Batch gathers the records of one [Journal.Append] or [Journal.Compact]. The
// zero value is an empty batch; one that was used can be used again after
// Reset, and then allocates nothing. Not for use by several goroutines at once.
type Batch struct {
	buf []byte // with room for the head, once there is a record
}

// Reset empties the batch.
func (b *Batch) Reset() { b.buf = b.buf[:0] }

// Empty reports whether there is no record in the batch.
func (b *Batch) Empty() bool { return len(b.buf) <= batchHeadLen }

// record appends one.
func (b *Batch) record(kind byte, write func([]byte) []byte) {
	if len(b.buf) == 0 {
		b.buf = append(b.buf, make([]byte, batchHeadLen)...)
	}
	at := len(b.buf)
	b.buf = insertLength(write(append(b.buf, kind)), at)
}

// Slot records the state of a slot of an entry.
func (b *Batch) Slot(entry string, s *Slot) {
	b.record(recSlot, func(buf []byte) []byte { return appendSlot(buf, entry, s) })
}

// SlotGone records that a slot is no more, nor its process.
func (b *Batch) SlotGone(entry string, slot int) {
	b.record(recSlotGone, func(buf []byte) []byte { return appendSlotName(buf, entry, slot) })
}

// Retired records that a slot is no more, nor its process, and what outlives it.
func (b *Batch) Retired(entry string, slot int, r Retired) {
	b.record(recRetired, func(buf []byte) []byte { return appendRetired(buf, entry, slot, r) })
}

// Entry records the state of an entry, all but its slots. What is in Retired adds
// to what was recorded of that before.
func (b *Batch) Entry(e *Entry) {
	b.record(recEntry, func(buf []byte) []byte { return appendEntry(buf, e) })
}

// Totals records the counters of an entry that is recorded. What is of descendants
// stays as it was recorded unless there are DescendantExits. An exit that its slot
// tells of need not be in them, see [Entry].
func (b *Batch) Totals(entry string, t *Totals) {
	b.record(recTotals, func(buf []byte) []byte { return appendEntryTotals(buf, entry, t) })
}

// EntryGone records that an entry is no more, nor its slots and their processes.
func (b *Batch) EntryGone(name string) {
	b.record(recEntryGone, func(buf []byte) []byte { return append(buf, name...) })
}

// Process records the identity of a slot's process, in place of an earlier one.
func (b *Batch) Process(p *Process) {
	b.record(recProcess, func(buf []byte) []byte { return appendProcess(buf, p) })
}

// ProcessGone records that a slot has no process, nor anything left of one.
func (b *Batch) ProcessGone(entry string, slot int) {
	b.record(recProcessGone, func(buf []byte) []byte { return appendSlotName(buf, entry, slot) })
}

// Marks records numbers that are used up.
func (b *Batch) Marks(m Marks) {
	b.record(recMarks, func(buf []byte) []byte { return appendMarks(buf, &m) })
}

// Daemon records what is the daemon's own: all of d but its entries, its sources
// and its output.
func (b *Batch) Daemon(d *Daemon) error {
	own := *d
	own.Applied, own.Checked, own.Machine.Entries = nil, nil, nil
	text, err := json.Marshal(&own)
	if err != nil {
		return fmt.Errorf("record the daemon's state: %w", err)
	}
	b.record(recDaemon, func(buf []byte) []byte { return append(buf, text...) })
	return nil
}

// Shutdown records that one was asked for, of a daemon that is recorded.
func (b *Batch) Shutdown() {
	b.record(recShutdown, func(buf []byte) []byte { return buf })
}

// Sources records the configuration that is applied, which is the last good one.
func (b *Batch) Sources(d *Daemon) error {
	text, err := json.Marshal(sources{d.Applied, d.Checked})
	if err != nil {
		return fmt.Errorf("record the configuration: %w", err)
	}
	b.record(recSources, func(buf []byte) []byte { return append(buf, text...) })
	return nil
}

// All records a whole state, as [Journal.Compact] wants it: what d holds and
// the identities of its processes.
func (b *Batch) All(d *Daemon, processes []Process, m Marks) error {
	if err := b.Daemon(d); err != nil {
		return err
	}
	if err := b.Sources(d); err != nil {
		return err
	}
	b.Marks(m)
	for i := range d.Machine.Entries {
		e := &d.Machine.Entries[i]
		b.Entry(e)
		for j := range e.Slots {
			b.Slot(e.Name, &e.Slots[j])
		}
	}
	for i := range processes {
		b.Process(&processes[i])
	}
	return nil
}

// seal fills in the head of the batch and returns its bytes.
func (b *Batch) seal() []byte {
	body := b.buf[batchHeadLen:]
	binary.BigEndian.PutUint32(b.buf, uint32(len(body)))
	binary.BigEndian.PutUint32(b.buf[4:], checksum(b.buf[:4], body))
	return b.buf
}

// JournalHead says where a journal is from.
type JournalHead struct {
	BootID  string `json:"boot_id"`
	PID     int    `json:"pid"`     // of the daemon that wrote it
	Version string `json:"version"` // of that program, for messages only
	Format  uint32 `json:"-"`       // see JournalFormat
}

func appendJournalHead(b []byte, h *JournalHead) ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	at := len(b)
	b = append(b, journalMagic...)
	b = binary.BigEndian.AppendUint32(b, h.Format)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = binary.BigEndian.AppendUint32(b, crc32.Update(crc32.Checksum(b[at:], castagnoli), castagnoli, text))
	return append(b, text...), nil
}
