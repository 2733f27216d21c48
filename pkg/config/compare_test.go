package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompareKeys(t *testing.T) {
	const before = "command: x\ncount: 2\nenv_file: a.env\nenvironment: {A: b}"
	for _, test := range []struct{ name, after, want string }{
		{"nothing", before, "keep"},
		{"order and spelling", "environment: {A: \"b\"}\nenv_file: /etc/sentryd/a.env\ncount: 2\ncommand: [x]\ndelay: 1s\nstop: {signal: 15}", "keep"},
		{"count", before + "\ncount!: 3", "scale count"},
		{"delay", before + "\ndelay: 2s", "update delay"},
		{"count and delay", before + "\ncount!: 3\ndelay: 2s", "update delay count"},
		{"resources", before + "\nresources: {pids_max: 5}", "update resources"},
		{"resources without any", "resources: {}\n" + before, "keep"},
		{"stop", before + "\nstop: {timeout: 1s}", "update stop"},
		{"all in place", before + "\nautostart: false\nrestart: never\nsuccess_exit_codes: []\nmin_uptime: 1",
			"update autostart restart success_exit_codes min_uptime"},
		{"what is below", before + "\nhandover: true\ndescendants: {failures: 0, within: 1s}", "update handover descendants"},
		{"command", before + "\ncommand!: y", "restart command"},
		{"args", before + "\nargs: ['1']", "restart args"},
		{"args written in the command", before + "\ncommand!: x 1", "restart command"},
		{"command and count", before + "\ncommand!: y\ncount!: 3", "restart command count"},
		{"directory", before + "\ndirectory: /", "restart directory"},
		{"environment", before + "\nenvironment!: {A: c}", "restart environment"},
		{"clean", before + "\nclean_env: true", "restart clean_env"},
		{"sockets", before + "\nsockets: [{name: a, listen: 'tcp://:80'}]", "restart sockets"},
		{"no sockets", before + "\nsockets: []", "keep"},
		{"env file by content", before + "\nenv_file!: b.env", "restart env_file"},
		{"env file of the same content", before + "\nenv_file!: c.env", "keep"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := Compare(withEntry(t, before), withEntry(t, test.after))
			got := strings.Join(append([]string{string(c.Entries[0].Action)}, c.Entries[0].Keys...), " ")
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
			if c.Any() != (test.want != "keep") || len(c.Daemon) != 0 {
				t.Errorf("changes are %+v", c)
			}
		})
	}
}

// withEntry parses an entry; "key!:" replaces an earlier "key:".
func withEntry(t *testing.T, keys string) *Config {
	t.Helper()
	var lines []string
	for line := range strings.SplitSeq(keys, "\n") {
		if key, v, ok := strings.Cut(line, "!:"); ok {
			for i := range lines {
				if strings.HasPrefix(lines[i], key+":") {
					lines[i] = key + ":" + v
				}
			}
			continue
		}
		lines = append(lines, line)
	}
	c, err := Parse("/etc/sentryd/t.yaml", []Source{
		{"/etc/sentryd/t.yaml", []byte("entries:\n  a:\n    " + strings.Join(lines, "\n    "))},
		{"/etc/sentryd/a.env", []byte("A=1\nB=2\n")}, {"/etc/sentryd/b.env", []byte("A=2\n")},
		{"/etc/sentryd/c.env", []byte("# the same\nB='2'\nA=1\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCompareConfigs(t *testing.T) {
	a := mustParse(t, "entries: {b: {command: x}, d: {command: x}, e: {command: x}}")
	b := mustParse(t, "http: {listen: none, hosts: [h]}\ncontrol: {users: [1], groups: [2]}\nproc_connector: {enabled: false, events: exit, buffer: 4KiB}\nentries: {a: {command: x}, c: {command: x}, d: {command: x}, f: {command: x}}")
	c := Compare(a, b)
	var got []string
	for _, e := range c.Entries {
		got = append(got, fmt.Sprintf("%s %s %t %t", e.Name, e.Action, e.Old != nil, e.New != nil))
	}
	want := []string{"a add false true", "b remove true false", "c add false true", "d keep true true", "e remove true false", "f add false true"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes differ (-want +got):\n%s", diff)
	}
	daemon := []string{"http.listen", "http.hosts", "control.users", "control.groups", "proc_connector.enabled", "proc_connector.events", "proc_connector.buffer"}
	if diff := cmp.Diff(daemon, c.Daemon); diff != "" {
		t.Errorf("daemon keys differ (-want +got):\n%s", diff)
	}
	if !c.Any() || Compare(a, a).Any() {
		t.Error("Any is wrong")
	}
}
