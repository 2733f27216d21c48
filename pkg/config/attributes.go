package config

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Attributes are what the processes of an entry may use. A nil pointer, list or
// map stands for a key that is not given.
type Attributes struct {
	Umask, Nice, OOMScoreAdj *int
	CPUs                     []int             // sorted
	Rlimits                  map[string]Rlimit // by the name in the configuration, "nofile"
	Capabilities             []int             // numbers, sorted; empty for none at all
	NoNewPrivileges          bool
}

// Unlimited is a Rlimit without a limit, RLIM_INFINITY.
const Unlimited = math.MaxUint64

// Rlimit is one resource limit, see getrlimit(2).
type Rlimit struct {
	Resource   int // RLIMIT_…
	Soft, Hard uint64
}

// number reads a whole number that may be absent.
func (v value) number(to **int, lowest, highest int) {
	n := lowest - 1
	if v.integer(&n, lowest, highest); n >= lowest {
		*to = &n
	}
}

var octal = syntax(`^0?[0-7]{1,3}$`)

func readUmask(v value, d *draft) {
	const want = `an octal number in quotes, from "000" to "777"`
	text, ok := v.scalar(want)
	if !ok {
		return
	}
	if v.node.Tag != "!!str" || !octal.MatchString(text) {
		v.fail("%s is not %s", v.asWritten(), want)
		return
	}
	n, _ := strconv.ParseInt(text, 8, 32)
	umask := int(n)
	d.Umask = &umask
}

func readNice(v value, d *draft) {
	if v.number(&d.Nice, -20, 19); d.Nice != nil {
		d.host.mayBeNice(*d.Nice, v)
	}
}

// maxCPUs is the size of the kernel's set in the C library (CPU_SETSIZE).
const maxCPUs = 1024

func readAffinity(v value, d *draft) {
	cpus := make([]int, 0, len(v.node.Content))
	if !v.list(func(v value) {
		cpu := -1
		if v.integer(&cpu, 0, maxCPUs-1); cpu >= 0 {
			d.host.hasCPU(cpu, v)
		}
		cpus = append(cpus, cpu)
	}) {
		return
	}
	if len(cpus) == 0 {
		v.fail("must name a CPU: leave the key out for all that sentryd may use")
		return
	}
	slices.Sort(cpus)
	d.CPUs = slices.Compact(cpus)
}

// resource is one of those of getrlimit(2), with its number in the kernel's
// generic ABI.
type resource struct {
	number int
	bytes  bool // counted in bytes
}

var resources = map[string]resource{
	"cpu": {0, false}, "fsize": {1, true}, "data": {2, true}, "stack": {3, true}, "core": {4, true}, "rss": {5, true},
	"nproc": {6, false}, "nofile": {7, false}, "memlock": {8, true}, "as": {9, true}, "locks": {10, false},
	"sigpending": {11, false}, "msgqueue": {12, true}, "nice": {13, false}, "rtprio": {14, false}, "rttime": {15, false},
}

func readRlimits(v value, d *draft) {
	v.each(func(name string, v value) {
		r, ok := resources[name]
		if !ok {
			names := slices.Sorted(maps.Keys(resources))
			v.failAt(v.at, v.key+": not a resource: write one of "+strings.Join(names, ", ")+didYouMean(name, names))
			return
		}
		l := Rlimit{Resource: r.number}
		if v.node.Kind != yaml.MappingNode {
			if !v.limit(r, &l.Soft) {
				return
			}
			l.Hard = l.Soft
		} else {
			var soft, hard bool // given
			errors := len(*v.errs)
			meant := decode(v, []key[Rlimit]{
				{name: "soft", read: func(v value, l *Rlimit) { soft = true; v.limit(r, &l.Soft) }},
				{name: "hard", read: func(v value, l *Rlimit) { hard = true; v.limit(r, &l.Hard) }},
			}, &l)
			soft, hard = soft || slices.Contains(meant, "soft"), hard || slices.Contains(meant, "hard")
			switch {
			case !soft || !hard:
				v.fail("must have both, soft and hard: or write one number for both")
				return
			case len(*v.errs) > errors:
				return
			case l.Soft > l.Hard:
				v.fail("the soft limit is above the hard one")
				return
			}
		}
		d.host.mayLimit(name, l, v)
		if d.Rlimits == nil {
			d.Rlimits = make(map[string]Rlimit)
		}
		d.Rlimits[name] = l
	})
}

// limit reads one limit.
func (v value) limit(r resource, to *uint64) bool {
	if v.node.Kind == yaml.ScalarNode && v.node.Value == "unlimited" {
		*to = Unlimited
		return true
	}
	n := int64(-1)
	if r.bytes {
		v.size(&n, 0, math.MaxInt64)
	} else {
		count := -1
		v.integer(&count, 0, math.MaxInt)
		n = int64(count)
	}
	if n < 0 {
		return false
	}
	*to = uint64(n)
	return true
}

// capabilityNames are the capabilities by number, see capabilities(7).
var capabilityNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
	SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
	AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON
	BPF CHECKPOINT_RESTORE`)

// Those that decide what may be asked for.
const (
	capSetgid      = 6
	capSetuid      = 7
	capSetpcap     = 8
	capSysNice     = 23
	capSysResource = 24
)

func readCapabilities(v value, d *draft) {
	list, good := make([]int, 0, len(v.node.Content)), true
	isList := v.list(func(v value) {
		var text string
		if !v.text(&text) {
			good = false
			return
		}
		name := strings.TrimPrefix(strings.ToUpper(text), "CAP_")
		n := slices.Index(capabilityNames, name)
		if n < 0 {
			v.fail("%s is not a capability: write a name such as NET_BIND_SERVICE%s", v.describe(), didYouMean(name, capabilityNames))
			good = false
			return
		}
		d.host.mayGive(n, v)
		list = append(list, n)
	})
	if !isList || !good {
		return
	}
	slices.Sort(list)
	d.Capabilities = slices.Compact(list)
	d.host.mayReduce(d.Capabilities, v)
}

// capabilitiesDecide: none at all is not the same as no key.
func capabilitiesDecide(d *draft) any { return []any{d.Capabilities != nil, d.Capabilities} }
