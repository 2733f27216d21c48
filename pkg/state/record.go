package state

// Process is the identity of the main process of an incarnation, as far as the
// kernel gives it one: pkg/spawn makes it and opens a pidfd by it. The boot is
// that of the journal.
type Process struct {
	Entry       string
	Slot        int
	Incarnation uint64
	PID         int
	Inode       uint64 // of its pidfds in pidfs, 0 where there is none (before 6.9)
	Handle      []byte // its file handle, nil where there is none (before 6.14)
	Start       uint64 // field 22 of /proc/PID/stat in clock ticks, 0 if not needed
	Cgroup      string // path of its control group, "" without
}

// Marks are numbers that must not fall while the runtime directory lives. They
// stand for all numbers up to and including them: a writer takes some thousands
// at a time, and need not write each.
type Marks struct {
	Version uint64 // of the published state
	Seq     uint64 // of events
}

// Kinds of records. A kind never gets another meaning; a reader skips kinds it
// does not know.
const (
	recDaemon      = 1  // JSON of Daemon, without its entries and sources
	recSources     = 2  // JSON of sources
	recMarks       = 3  // fields
	recEntry       = 4  // fields of an Entry, without its slots
	recEntryGone   = 5  // the entry's name; its slots and processes go too
	recSlot        = 6  // fields: 1 the entry's name, then those of a Slot
	recSlotGone    = 7  // fields: entry's name, slot; its process goes too
	recProcess     = 8  // fields of a Process, the only one of its slot
	recProcessGone = 9  // fields: entry's name, slot
	recRetired     = 10 // fields: entry's name, slot, and what outlives it; else as recSlotGone
	recOutput      = 11 // fields of an Output, without its FIFOs; not in a journal
	recFIFO        = 12 // fields of a FIFO; not in a journal
	recTotals      = 13 // fields: 1 the entry's name, 2 Totals; what is of descendants only with DescendantExits
	recShutdown    = 14 // nothing: the machine is Stopping
)

// sources is what recSources holds.
type sources struct {
	Applied []Source `json:"applied"`
	Checked []Source `json:"checked"`
}

func appendMarks(b []byte, m *Marks) []byte {
	b = appendUint(b, 1, m.Version)
	return appendUint(b, 2, m.Seq)
}

func (m *Marks) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.uint(&m.Version)
		case 2:
			f.uint(&m.Seq)
		}
	}
	return !f.bad
}

func appendProcess(b []byte, p *Process) []byte {
	b = appendText(b, 1, p.Entry)
	b = appendInt(b, 2, int64(p.Slot))
	b = appendUint(b, 3, p.Incarnation)
	b = appendInt(b, 4, int64(p.PID))
	b = appendUint(b, 5, p.Inode)
	b = appendText(b, 6, p.Handle)
	b = appendUint(b, 7, p.Start)
	return appendText(b, 8, p.Cgroup)
}

func (p *Process) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.string(&p.Entry)
		case 2:
			f.int(&p.Slot)
		case 3:
			f.uint(&p.Incarnation)
		case 4:
			f.int(&p.PID)
		case 5:
			f.uint(&p.Inode)
		case 6:
			f.bytes(&p.Handle)
		case 7:
			f.uint(&p.Start)
		case 8:
			f.string(&p.Cgroup)
		}
	}
	return !f.bad && p.Entry != "" && p.Slot >= 0 && p.Incarnation > 0 && p.PID > 0
}

// slotName is what says which slot a record is about.
type slotName struct {
	entry string
	slot  int
}

func appendEntryTotals(b []byte, entry string, t *Totals) []byte {
	b = appendText(b, 1, entry)
	return appendNested(b, 2, func(b []byte) []byte { return appendTotals(b, t) })
}

func readEntryTotals(f fields) (entry string, t Totals, ok bool) {
	for f.next() {
		switch f.num {
		case 1:
			f.string(&entry)
		case 2:
			f.bad = !t.read(f.nested())
		}
	}
	return entry, t, !f.bad && entry != ""
}

func appendSlotName(b []byte, entry string, slot int) []byte {
	b = appendText(b, 1, entry)
	return appendInt(b, 2, int64(slot))
}

func appendRetired(b []byte, entry string, slot int, r Retired) []byte {
	b = appendSlotName(b, entry, slot)
	b = appendUint(b, 3, r.Incarnation)
	return appendBool(b, 4, r.Held)
}

func (r *Retired) read(f fields) (n slotName, ok bool) {
	ok = n.read(f)
	for f.next() {
		switch f.num {
		case 3:
			f.uint(&r.Incarnation)
		case 4:
			f.bool(&r.Held)
		}
	}
	return n, ok && !f.bad
}

func (n *slotName) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.string(&n.entry)
		case 2:
			f.int(&n.slot)
		}
	}
	return !f.bad && n.entry != "" && n.slot >= 0
}

func appendSlot(b []byte, entry string, s *Slot) []byte {
	b = appendSlotName(b, entry, s.Slot)
	b = appendUint(b, 3, s.Incarnation)
	b = appendText(b, 4, s.State)
	b = appendBool(b, 5, s.Held)
	b = appendBool(b, 6, s.Pending)
	b = appendBool(b, 7, s.Live)
	b = appendBool(b, 8, s.Tree)
	b = appendInt(b, 9, int64(s.PID))
	b = appendBool(b, 10, s.Restart)
	b = appendText(b, 11, s.RestartBy)
	b = appendText(b, 12, s.StopBy)
	b = appendText(b, 13, s.Outcome)
	b = appendInt(b, 14, int64(s.Kills))
	b = appendPtr(b, 15, s.Deadline)
	b = appendPtr(b, 16, s.Due)
	b = appendInt(b, 17, s.StartedAt)
	b = appendInt(b, 18, s.StartedWall)
	b = appendInt(b, 19, s.ExitedAt)
	b = appendInt(b, 20, int64(s.StartFails))
	b = appendText(b, 21, s.Error)
	b = appendInts(b, 22, s.Members)
	b = appendBool(b, 23, s.Rolling)
	b = appendUint(b, 24, s.Gen)
	b = appendText(b, 26, s.Cgroup)
	b = appendBool(b, 27, s.Survivor)
	b = appendInts(b, 28, s.Crashes)
	b = appendBool(b, 29, s.Told)
	if s.Last != nil {
		b = appendNested(b, 25, func(b []byte) []byte { return appendExit(b, s.Last) })
	}
	return b
}

func (s *Slot) read(f fields) (entry string, ok bool) {
	for f.next() {
		switch f.num {
		case 1:
			f.string(&entry)
		case 2:
			f.int(&s.Slot)
		case 3:
			f.uint(&s.Incarnation)
		case 4:
			f.string(&s.State)
		case 5:
			f.bool(&s.Held)
		case 6:
			f.bool(&s.Pending)
		case 7:
			f.bool(&s.Live)
		case 8:
			f.bool(&s.Tree)
		case 9:
			f.int(&s.PID)
		case 10:
			f.bool(&s.Restart)
		case 11:
			f.string(&s.RestartBy)
		case 12:
			f.string(&s.StopBy)
		case 13:
			f.string(&s.Outcome)
		case 14:
			f.int(&s.Kills)
		case 15:
			f.ptr(&s.Deadline)
		case 16:
			f.ptr(&s.Due)
		case 17:
			f.int64(&s.StartedAt)
		case 18:
			f.int64(&s.StartedWall)
		case 19:
			f.int64(&s.ExitedAt)
		case 20:
			f.int(&s.StartFails)
		case 21:
			f.string(&s.Error)
		case 22:
			f.ints(&s.Members)
		case 23:
			f.bool(&s.Rolling)
		case 24:
			f.uint(&s.Gen)
		case 25:
			s.Last = new(Exit)
			f.bad = !s.Last.read(f.nested())
		case 26:
			f.string(&s.Cgroup)
		case 27:
			f.bool(&s.Survivor)
		case 28:
			f.ints64(&s.Crashes)
		case 29:
			f.bool(&s.Told)
		}
	}
	return entry, !f.bad && entry != "" && s.Slot >= 0
}

func appendExit(b []byte, x *Exit) []byte {
	b = appendInt(b, 1, x.At)
	b = appendInt(b, 2, x.Wall)
	b = appendInt(b, 3, int64(x.PID))
	b = appendUint(b, 4, x.Incarnation)
	b = appendText(b, 5, x.Reason)
	b = appendInt(b, 6, int64(x.Code))
	b = appendInt(b, 7, int64(x.Signal))
	b = appendBool(b, 8, x.Core)
	b = appendText(b, 9, x.Initiator)
	b = appendText(b, 10, x.Error)
	b = appendInt(b, 11, x.UptimeNS)
	b = appendBool(b, 12, x.UsageSet)
	b = appendInt(b, 13, x.UserNS)
	b = appendInt(b, 14, x.SysNS)
	b = appendInt(b, 15, x.MaxRSS)
	b = appendBool(b, 16, x.OOM)
	return appendUint(b, 17, x.Nth)
}

func (x *Exit) read(f fields) bool {
	for f.next() {
		switch f.num {
		case 1:
			f.int64(&x.At)
		case 2:
			f.int64(&x.Wall)
		case 3:
			f.int(&x.PID)
		case 4:
			f.uint(&x.Incarnation)
		case 5:
			f.string(&x.Reason)
		case 6:
			f.int(&x.Code)
		case 7:
			f.int(&x.Signal)
		case 8:
			f.bool(&x.Core)
		case 9:
			f.string(&x.Initiator)
		case 10:
			f.string(&x.Error)
		case 11:
			f.int64(&x.UptimeNS)
		case 12:
			f.bool(&x.UsageSet)
		case 13:
			f.int64(&x.UserNS)
		case 14:
			f.int64(&x.SysNS)
		case 15:
			f.int64(&x.MaxRSS)
		case 16:
			f.bool(&x.OOM)
		case 17:
			f.uint(&x.Nth)
		}
	}
	return !f.bad
}
