package config

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// host is what this process may ask of the kernel, as far as that can be known
// before it is asked: so that what is bound to fail at each start is an error of
// the configuration. A nil host knows nothing, and has no objection.
type host struct {
	uid, gid  uint32
	effective uint64 // capabilities
	permitted uint64
	bounding  uint64
	nice      int    // the lowest without CAP_SYS_NICE
	cpus      string // that are online, "0-3,6"; "" if that is not known
	files     uint64 // fs.nr_open, the highest RLIMIT_NOFILE; 0 if that is not known
	hard      func(resource int) uint64
}

// newHost looks at this host and this process; nil if /proc does not say.
func newHost() *host {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	h := &host{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), hard: hardLimit}
	for line := range strings.Lines(string(status)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ":")
		to := map[string]*uint64{"CapEff": &h.effective, "CapPrm": &h.permitted, "CapBnd": &h.bounding}[name]
		if to == nil {
			continue
		}
		if *to, err = strconv.ParseUint(strings.TrimSpace(text), 16, 64); err != nil {
			return nil
		}
	}
	// The system call says 20 - nice, and so does the limit (getpriority(2)).
	h.nice = 19
	if prio, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err == nil {
		h.nice = 20 - prio
	}
	var l syscall.Rlimit
	if err := syscall.Getrlimit(resources["nice"].number, &l); err == nil {
		h.nice = min(h.nice, 20-int(min(l.Cur, 40)))
	}
	online, _ := os.ReadFile("/sys/devices/system/cpu/online") // not known then
	h.cpus = strings.TrimSpace(string(online))
	if text, err := os.ReadFile("/proc/sys/fs/nr_open"); err == nil {
		h.files, _ = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	}
	return h
}

func hardLimit(resource int) uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(resource, &l); err != nil {
		return math.MaxUint64
	}
	return l.Max
}

func (h *host) can(capability int) bool { return h.effective&(1<<capability) != 0 }

const onlyRoot = ": only root, or a process with %s, can do that"

// mayBe reports a user that this process cannot give to a child.
func (h *host) mayBe(uid uint32, v value) bool {
	if h == nil || uid == h.uid || h.can(capSetuid) {
		return true
	}
	v.fail("%s is not the user that sentryd runs as, %d"+onlyRoot, v.describe(), h.uid, "CAP_SETUID")
	return false
}

// mayHave reports a group that this process cannot give to a child.
func (h *host) mayHave(gid uint32, v value) {
	if h != nil && gid != h.gid && !h.can(capSetgid) {
		v.fail("group %d is not that of sentryd, %d"+onlyRoot, gid, h.gid, "CAP_SETGID")
	}
}

func (h *host) maySetGroups(v value) {
	if h != nil && !h.can(capSetgid) {
		v.fail("cannot be set"+onlyRoot, "CAP_SETGID")
	}
}

func (h *host) mayBeNice(nice int, v value) {
	if h != nil && nice < h.nice && !h.can(capSysNice) {
		v.fail("%d is below %d: only root, or a process with CAP_SYS_NICE, can go there", nice, h.nice)
	}
}

func (h *host) hasCPU(cpu int, v value) {
	if h != nil && h.cpus != "" && !inRanges(h.cpus, cpu) {
		v.fail("there is no CPU %d here: online are %s", cpu, h.cpus)
	}
}

// inRanges says whether n is in a list such as "0-3,6".
func inRanges(list string, n int) bool {
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		low, err1 := strconv.Atoi(from)
		high, err2 := strconv.Atoi(to)
		if err1 == nil && err2 == nil && low <= n && n <= high {
			return true
		}
	}
	return false
}

func (h *host) mayLimit(name string, l Rlimit, v value) {
	if h == nil {
		return
	}
	if own := h.hard(l.Resource); l.Hard > own && !h.can(capSysResource) {
		v.fail("%s is above sentryd's own hard limit, %d: only root, or a process with CAP_SYS_RESOURCE, can raise it", limitText(l.Hard), own)
		return
	}
	if name == "nofile" && h.files > 0 && l.Hard > h.files {
		v.fail("%s is above the highest that the kernel allows, %d (fs.nr_open)", limitText(l.Hard), h.files)
	}
}

func limitText(n uint64) string {
	if n == Unlimited {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

func (h *host) mayGive(capability int, v value) {
	if h != nil && h.permitted&(1<<capability) == 0 {
		v.fail("sentryd itself does not have %s, and cannot give it", capabilityNames[capability])
	}
}

func (h *host) mayReduce(keep []int, v value) {
	if h == nil || h.can(capSetpcap) {
		return
	}
	rest := h.bounding
	for _, n := range keep {
		rest &^= 1 << n
	}
	if rest != 0 {
		v.fail("the bounding set cannot be reduced: only root, or a process with CAP_SETPCAP, can do that")
	}
}
