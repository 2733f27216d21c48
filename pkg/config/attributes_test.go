package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAttributes(t *testing.T) {
	umask, nice, oom := 0o027, -5, -500
	e, problem := withHost(nil, `
umask: "027"
nice: -5
oom_score_adj: -500
cpu_affinity: [1, 0, 1]
rlimits: {nofile: 65536, core: {soft: 0, hard: unlimited}, memlock: 64MiB, stack: unlimited}
capabilities: [NET_BIND_SERVICE, cap_chown, CAP_CHOWN]
no_new_privileges: true`)
	if problem != "" {
		t.Fatal(problem)
	}
	want := Attributes{
		Umask: &umask, Nice: &nice, OOMScoreAdj: &oom, CPUs: []int{0, 1},
		Rlimits: map[string]Rlimit{
			"nofile": {7, 65536, 65536}, "core": {4, 0, Unlimited}, "memlock": {8, 64 << 20, 64 << 20}, "stack": {3, Unlimited, Unlimited},
		},
		Capabilities: []int{0, 10}, NoNewPrivileges: true,
	}
	if diff := cmp.Diff(want, e.Attributes); diff != "" {
		t.Error(diff)
	}
	if e, problem = withHost(nil, "capabilities: []"); problem != "" || e.Capabilities == nil {
		t.Error("no capabilities at all is the same as no key")
	}
}

// TestRlimitErrorsComeOnce: that both limits must be given is not said where one is misspelt or wrong.
func TestRlimitErrorsComeOnce(t *testing.T) {
	for keys, want := range map[string]string{
		"rlimits: {nofile: {sotf: 2, hard: 1}}": `4: entries.a.rlimits.nofile: unknown key "sotf": did you mean "soft"?`,
		"rlimits: {nofile: {soft: x, hard: 1}}": `4: entries.a.rlimits.nofile.soft: x is not a whole number from 0 to 9223372036854775807`,
	} {
		if _, got := withHost(nil, keys); got != want {
			t.Errorf("%q: %s\nwant %s", keys, got, want)
		}
	}
}

// TestRlimitsMerge: an entry's limits are those of the defaults and its own.
func TestRlimitsMerge(t *testing.T) {
	c := mustParse(t, "defaults: {rlimits: {core: 0, nofile: 5}}\nentries: {a: {command: x, rlimits: {nofile: 6}}, b: {command: x}}")
	if got := c.Entry("a").Rlimits; got["core"].Hard != 0 || got["nofile"].Hard != 6 || len(got) != 2 {
		t.Errorf("a: %v", got)
	}
	if got := c.Entry("b").Rlimits; got["nofile"].Hard != 5 || len(got) != 2 {
		t.Errorf("b: %v", got)
	}
}

func TestAttributeErrors(t *testing.T) {
	for _, test := range []struct{ keys, want string }{
		{"umask: 027", `4: entries.a.umask: 027 is not an octal number in quotes, from "000" to "777"`},
		{"umask: '028'", `4: entries.a.umask: "028" is not`},
		{"umask: '1777'", `4: entries.a.umask: "1777" is not`},
		{"umask: '0o22'", `4: entries.a.umask: "0o22" is not`},
		{"umask: ''", `4: entries.a.umask: "" is not`},
		{"nice: -21", `4: entries.a.nice: -21 is not a whole number from -20 to 19`},
		{"nice: 20", `4: entries.a.nice: 20 is not`},
		{"nice: +1", `4: entries.a.nice: +1 is not a whole number from -20 to 19, without a plus`},
		{"nice: '5'", `4: entries.a.nice: "5" is not a whole number from -20 to 19, without quotes`},
		{"oom_score_adj: -1001", `4: entries.a.oom_score_adj: -1001 is not a whole number from -1000 to 1000`},
		{"oom_score_adj: 1001", `4: entries.a.oom_score_adj: 1001 is not`},
		{"cpu_affinity: 0", `4: entries.a.cpu_affinity: "0" is not a list`},
		{"cpu_affinity: []", `4: entries.a.cpu_affinity: must name a CPU`},
		{"cpu_affinity: [-1]", `4: entries.a.cpu_affinity[0]: -1 is not a whole number from 0 to 1023`},
		{"cpu_affinity: [1024]", `4: entries.a.cpu_affinity[0]: 1024 is not`},
		{"cpu_affinity: [0-1]", `4: entries.a.cpu_affinity[0]: 0-1 is not`},
		{"rlimits: {nofiles: 1}", `4: entries.a.rlimits.nofiles: not a resource: write one of as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack: did you mean "nofile"?`},
		{"rlimits: {nofile: -1}", `4: entries.a.rlimits.nofile: -1 is not a whole number`},
		{"rlimits: {nofile: 0x10}", `4: entries.a.rlimits.nofile: 0x10 is not`},
		{"rlimits: {nofile: 64MiB}", `4: entries.a.rlimits.nofile: 64MiB is not`},
		{"rlimits: {nofile: 99999999999999999999}", `4: entries.a.rlimits.nofile: 99999999999999999999 is not`},
		{"rlimits: {core: infinity}", `4: entries.a.rlimits.core: infinity is not a size`},
		{"rlimits: {nofile: {soft: 1}}", `4: entries.a.rlimits.nofile: must have both, soft and hard`},
		{"rlimits: {nofile: {soft: 2, hard: 1}}", `4: entries.a.rlimits.nofile: the soft limit is above the hard one`},
		{"rlimits: {nofile: {soft: unlimited, hard: 1}}", `4: entries.a.rlimits.nofile: the soft limit is above`},
		{"rlimits: {nofile: {sotf: 2, hard: 1}}", `4: entries.a.rlimits.nofile: unknown key "sotf": did you mean "soft"?`},
		{"rlimits: {nofile: {sotf: 2}}", "4: entries.a.rlimits.nofile: unknown key \"sotf\": did you mean \"soft\"?\n4: entries.a.rlimits.nofile: must have both, soft and hard"},
		{"rlimits: {nofile: [1, 2]}", `4: entries.a.rlimits.nofile: a list is not`},
		{"rlimits: 5", `4: entries.a.rlimits: "5" is not a map`},
		{"capabilities: NET_RAW", `4: entries.a.capabilities: "NET_RAW" is not a list`},
		{"capabilities: [NET_ROW]", `4: entries.a.capabilities[0]: "NET_ROW" is not a capability: write a name such as NET_BIND_SERVICE: did you mean "NET_RAW"?`},
		{"capabilities: [10]", `4: entries.a.capabilities[0]: 10 is not a string`},
		{"no_new_privileges: yes", `4: entries.a.no_new_privileges: yes is not true or false`},
	} {
		if _, got := withHost(nil, test.keys); !strings.HasPrefix(got, test.want) {
			t.Errorf("%q: %s\nwant %s", test.keys, got, test.want)
		}
	}
}
