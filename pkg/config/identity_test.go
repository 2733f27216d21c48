package config

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const testPasswd = `root:x:0:0:root:/root:/bin/bash
# a comment
+nis::::::
deploy:x:1000:1000:Deploy,,,:/home/deploy:/bin/zsh
www-data:x:33:33::/var/www:
broken:x:one:33::/:/bin/sh
overflow:x:4294967295:33::/:/bin/sh
`

const testGroup = `root:x:0:
deploy:x:1000:
www-data:x:33:deploy
adm:x:4:root,deploy
docker:x:999:deploy,www-data
broken:x:-1:deploy
`

// withHost parses entries.a in a host of our own making.
func withHost(h *host, keys string) (*Entry, string) {
	const path = "/etc/sentryd/t.yaml"
	text := "entries:\n  a:\n    command: x\n    " + strings.ReplaceAll(keys, "\n", "\n    ")
	c, err := load(path, &memoryFiles{all: []Source{{path, []byte(text)}, {passwdFile, []byte(testPasswd)}, {groupFile, []byte(testGroup)}}}, h)
	if err != nil {
		return nil, strings.ReplaceAll("\n"+err.Error(), "\n"+path+":", "\n")[1:]
	}
	return c.Entries[0], ""
}

func rootHost() *host {
	return &host{effective: ^uint64(0), permitted: ^uint64(0), bounding: ^uint64(0), nice: 0, cpus: "0-2,5", files: 1 << 20,
		hard: func(int) uint64 { return 1000 }}
}

func plainHost() *host {
	h := rootHost()
	h.uid, h.gid, h.effective, h.permitted = 12345, 12345, 0, 0
	return h
}

func TestIdentity(t *testing.T) {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	if uid == 1000 || uid == 33 {
		t.Skip("needs to be none of the users of this test")
	}
	deploy := &Account{Name: "deploy", Home: "/home/deploy", Shell: "/bin/zsh"}
	for keys, want := range map[string]*Identity{
		"{}":                            nil,
		"user: deploy":                  {User: "deploy", UID: 1000, GID: 1000, Groups: []uint32{4, 33, 999, 1000}, Account: deploy},
		"user: 1000":                    {User: "1000", UID: 1000, GID: 1000, Groups: []uint32{4, 33, 999, 1000}, Account: deploy},
		"user: '1000'":                  {User: "1000", UID: 1000, GID: 1000, Groups: []uint32{4, 33, 999, 1000}, Account: deploy},
		"user: deploy\ngroup: www-data": {User: "deploy", UID: 1000, GID: 33, Groups: []uint32{4, 33, 999}, Account: deploy},
		"user: deploy\ngroup: 7":        {User: "deploy", UID: 1000, GID: 7, Groups: []uint32{4, 7, 33, 999}, Account: deploy},
		"user: deploy\ngroups: []":      {User: "deploy", UID: 1000, GID: 1000, Groups: []uint32{}, Account: deploy},
		"user: deploy\ngroups: [docker, 5, adm, 5]": {User: "deploy", UID: 1000, GID: 1000, Groups: []uint32{4, 5, 999}, Account: deploy},
		"user: www-data":                             {User: "www-data", UID: 33, GID: 33, Groups: []uint32{33, 999}, Account: &Account{Name: "www-data", Home: "/var/www", Shell: "/bin/sh"}},
		"user: 4242\ngroup: 4294967294":              {User: "4242", UID: 4242, GID: 4294967294, Groups: []uint32{4294967294}},
		"user: 4242\ngroup: adm\ngroups: [docker]":   {User: "4242", UID: 4242, GID: 4, Groups: []uint32{999}},
		"group: docker":                              {UID: uid, GID: 999},
		"groups: [docker]":                           {UID: uid, GID: gid, Groups: []uint32{999}},
		"user: " + decimalText(uid):                  {User: decimalText(uid), UID: uid, GID: gid, Account: accountOf(uid)},
		"user: " + decimalText(uid) + "\ngroup: adm": {User: decimalText(uid), UID: uid, GID: 4, Account: accountOf(uid)},
	} {
		if keys == "{}" {
			keys = "count: 1"
		}
		e, err := withHost(nil, keys)
		if err != "" {
			t.Errorf("%q: %s", keys, err)
			continue
		}
		if diff := cmp.Diff(want, e.Identity, cmpopts.IgnoreUnexported(Identity{}, Account{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", keys, diff)
		}
	}
}

func decimalText(n uint32) string { return limitText(uint64(n)) }

// accountOf is root's account, if the test runs as root.
func accountOf(uid uint32) *Account {
	if uid != 0 {
		return nil
	}
	return &Account{Name: "root", Home: "/root", Shell: "/bin/bash"}
}

func TestIdentityErrors(t *testing.T) {
	for _, test := range []struct{ keys, want string }{
		{"user: 0x0", `4: entries.a.user: "0x0" is not the name of a user, nor a number from 0 to 4294967294`},
		{"user: '0x0'", `4: entries.a.user: "0x0" is not the name`},
		{"user: +1", `4: entries.a.user: "+1" is not the name`},
		{"user: ' 1'", `4: entries.a.user: " 1" is not the name`},
		{"user: -1", `4: entries.a.user: "-1" is not the name`},
		{"user: 017", `4: entries.a.user: "017" is not the name`},
		{"user: 1_000", `4: entries.a.user: "1_000" is not the name`},
		{"user: 1e3", `4: entries.a.user: "1e3" is not the name`},
		{"user: 4294967295", `4: entries.a.user: "4294967295" is not the name`},
		{"user: 4294967296", `4: entries.a.user: "4294967296" is not the name`},
		{"user: 99999999999999999999", `4: entries.a.user: "99999999999999999999" is not the name`},
		{"user: true", `4: entries.a.user: "true" is not the name`},
		{"user: ''", `4: entries.a.user: "" is not the name`},
		{"user:", `4: entries.a.user: is empty: it must be the name or the number of a user`},
		{"user: [deploy]", `4: entries.a.user: a list is not the name or the number of a user`},
		{"user: a/b", `4: entries.a.user: "a/b" is not the name`},
		{"user: deplyo", `4: entries.a.user: there is no user "deplyo" in /etc/passwd: did you mean "deploy"?`},
		{"user: broken", `4: entries.a.user: there is no user "broken"`},
		{"user: overflow", `4: entries.a.user: there is no user "overflow"`},
		{"user: 4242", `4: entries.a.user: user 4242 is not in /etc/passwd: its group must be given as well`},
		{"group: 0x0", `4: entries.a.group: "0x0" is not the name of a group`},
		{"group: dockr", `4: entries.a.group: there is no group "dockr" in /etc/group: did you mean "docker"?`},
		{"groups: docker", `4: entries.a.groups: "docker" is not a list`},
		{"groups: [docker, -1]", `4: entries.a.groups[1]: "-1" is not the name of a group`},
		{"user: nosuch\ngroup: nosuch1", "4: entries.a.user: there is no user \"nosuch\" in /etc/passwd\n5: entries.a.group: there is no group \"nosuch1\" in /etc/group"},
		{"user: deploy\ngroup: nosuch2\ngroups: [adm, nosuch3, nosuch4]", "5: entries.a.group: there is no group \"nosuch2\" in /etc/group\n6: entries.a.groups[1]: there is no group \"nosuch3\" in /etc/group\n6: entries.a.groups[2]: there is no group \"nosuch4\" in /etc/group"},
		{"user: 4242\ngroups: [nosuch]", "4: entries.a.user: user 4242 is not in /etc/passwd: its group must be given as well\n5: entries.a.groups[0]: there is no group \"nosuch\""},
		{"user: a/b\ngroup: nosuch\ngroups: [-1, nosuch]", "4: entries.a.user: \"a/b\" is not the name of a user, nor a number from 0 to 4294967294\n5: entries.a.group: there is no group \"nosuch\" in /etc/group\n" +
			"6: entries.a.groups[0]: \"-1\" is not the name of a group, nor a number from 0 to 4294967294\n6: entries.a.groups[1]: there is no group \"nosuch\" in /etc/group"},
		{"groups: [docker, nope]", `4: entries.a.groups[1]: there is no group "nope"`},
	} {
		if _, got := withHost(nil, test.keys); !strings.HasPrefix(got, test.want) {
			t.Errorf("%q: %s\nwant %s", test.keys, got, test.want)
		}
	}
}

// TestMay: what this process may not is an error of the configuration.
func TestMay(t *testing.T) {
	for _, test := range []struct {
		host *host
		keys string
		want string
	}{
		{plainHost(), "user: deploy", `4: entries.a.user: "deploy" is not the user that sentryd runs as, 12345: only root, or a process with CAP_SETUID, can do that`},
		{plainHost(), "user: deploy\ngroup: nosuch\ngroups: [adm]", "4: entries.a.user: \"deploy\" is not the user that sentryd runs as, 12345: only root, or a process with CAP_SETUID, can do that\n" +
			"5: entries.a.group: there is no group \"nosuch\" in /etc/group\n6: entries.a.groups: cannot be set: only root, or a process with CAP_SETGID, can do that"},
		{plainHost(), "nice: -1", `4: entries.a.nice: -1 is below 0: only root, or a process with CAP_SYS_NICE`},
		{plainHost(), "nice: 0", ""},
		{plainHost(), "rlimits: {nofile: 1001}", `4: entries.a.rlimits.nofile: 1001 is above sentryd's own hard limit, 1000: only root`},
		{plainHost(), "rlimits: {core: unlimited}", `4: entries.a.rlimits.core: unlimited is above`},
		{plainHost(), "rlimits: {nofile: {soft: 10, hard: 1000}}", ""},
		{plainHost(), "capabilities: []", `4: entries.a.capabilities: the bounding set cannot be reduced: only root, or a process with CAP_SETPCAP`},
		{plainHost(), "capabilities: [net_raw]", `4: entries.a.capabilities[0]: sentryd itself does not have NET_RAW, and cannot give it`},
		{plainHost(), "no_new_privileges: true", ""},
		{plainHost(), "cpu_affinity: [0]", ""},
		{rootHost(), "user: deploy\ngroups: [adm]\nnice: -20\nrlimits: {nofile: 1048576}\ncapabilities: [net_raw]", ""},
		{rootHost(), "rlimits: {nofile: 1048577}", `4: entries.a.rlimits.nofile: 1048577 is above the highest that the kernel allows, 1048576 (fs.nr_open)`},
		{rootHost(), "rlimits: {nofile: unlimited}", `4: entries.a.rlimits.nofile: unlimited is above`},
		{rootHost(), "cpu_affinity: [0, 3]", `4: entries.a.cpu_affinity[1]: there is no CPU 3 here: online are 0-2,5`},
		{rootHost(), "cpu_affinity: [5, 0, 5]", ""},
	} {
		if _, got := withHost(test.host, test.keys); test.want == "" && got != "" || !strings.HasPrefix(got, test.want) {
			t.Errorf("%q: %s\nwant %s", test.keys, got, test.want)
		}
	}
	gid := plainHost()
	gid.uid, gid.gid = uint32(os.Geteuid()), uint32(os.Getegid())
	for keys, want := range map[string]string{
		"group: 77":                     `4: entries.a.group: group 77 is not that of sentryd`,
		"groups: []":                    `4: entries.a.groups: cannot be set: only root, or a process with CAP_SETGID`,
		"user: " + decimalText(gid.uid): "",
	} {
		if _, got := withHost(gid, keys); want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("%q: %s\nwant %s", keys, got, want)
		}
	}
	lacking := rootHost()
	lacking.permitted &^= 1 << capSysResource
	if _, got := withHost(lacking, "capabilities: [SYS_RESOURCE]"); got != `4: entries.a.capabilities[0]: sentryd itself does not have SYS_RESOURCE, and cannot give it` {
		t.Error(got)
	}
	if newHost() == nil {
		t.Error("nothing is known of this host")
	}
}

// TestAccountEnvironment: the user's variables come after `environment` and
// before sentryd's own, and $(VAR) sees them.
func TestAccountEnvironment(t *testing.T) {
	if uid := os.Geteuid(); uid == 1000 || uid == 4242 {
		t.Skip("needs to be none of the users of this test")
	}
	inherited := []string{"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash", "LANG=C"}
	for _, test := range []struct{ keys, argument, want string }{
		{"user: deploy\nenvironment: {HOME: /x, A: $(HOME)}", "/home/deploy",
			"A=/home/deploy HOME=/home/deploy LANG=C LOGNAME=deploy SENTRYD_ENTRY=a SENTRYD_INCARNATION=7 SENTRYD_NAME=t SENTRYD_SLOT=0 SHELL=/bin/zsh USER=deploy"},
		{"user: 4242\ngroup: 1\nenvironment: {HOME: /x}", "",
			"HOME=/x LANG=C SENTRYD_ENTRY=a SENTRYD_INCARNATION=7 SENTRYD_NAME=t SENTRYD_SLOT=0"},
		{"group: adm", "/root",
			"HOME=/root LANG=C LOGNAME=root SENTRYD_ENTRY=a SENTRYD_INCARNATION=7 SENTRYD_NAME=t SENTRYD_SLOT=0 SHELL=/bin/bash USER=root"},
	} {
		if test.argument != "" {
			test.keys += "\nargs: [$(HOME)]"
		}
		e, problem := withHost(nil, test.keys)
		if problem != "" {
			t.Fatal(problem)
		}
		s, err := e.Template("t", inherited).Start(0, 7)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(slices.Sorted(slices.Values(append(s.Env, s.Last))), " "); got != test.want {
			t.Errorf("%q\n%s\nwant\n%s", test.keys, got, test.want)
		}
		if test.argument != "" && s.Argv[1] != test.argument {
			t.Errorf("%q: %v", test.keys, s.Argv)
		}
	}
}

// TestIdentityTravels: a re-exec resolves names as the check before it did,
// whatever became of the user database.
func TestIdentityTravels(t *testing.T) {
	const path = "/etc/sentryd/t.yaml"
	sources := []Source{{path, []byte("entries: {a: {command: x, user: deploy}}")}, {passwdFile, []byte(testPasswd)}, {groupFile, []byte(testGroup)}}
	c, err := Parse(path, sources)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(path, c.Sources)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Sources) != 3 || Compare(c, again).Any() {
		t.Errorf("%d sources", len(c.Sources))
	}
	if c, err = Parse(path, []Source{{path, []byte("entries: {a: {command: x}}")}, sources[1], sources[2]}); err != nil || len(c.Sources) != 1 {
		t.Errorf("the user database is read without need: %v", err)
	}
}

// TestControl: whom control names is looked up where entries' users are.
func TestControl(t *testing.T) {
	for _, test := range []struct {
		control       string
		users, groups []uint32
		sources       int
	}{
		{"users: [www-data, deploy, 4242, '0']", []uint32{0, 33, 1000, 4242}, nil, 3},
		{"groups: [docker, adm, adm]", nil, []uint32{4, 999}, 3},
		{"users: [4242], groups: [4294967294]", []uint32{4242}, []uint32{4294967294}, 1},
		{"users: []", nil, nil, 1},
	} {
		c, err := withControl(test.control, "{}")
		if err != nil {
			t.Errorf("%s: %v", test.control, err)
			continue
		}
		if diff := cmp.Diff(Control{test.users, test.groups}, c.Control, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.control, diff)
		}
		if len(c.Sources) != test.sources {
			t.Errorf("%s: %d sources", test.control, len(c.Sources))
		}
	}
}

func withControl(control, entries string) (*Config, error) {
	const path = "/etc/sentryd/test.yaml"
	return Parse(path, []Source{
		{path, []byte("control: {" + control + "}\nentries: " + entries)},
		{passwdFile, []byte(testPasswd)}, {groupFile, []byte(testGroup)},
	})
}

// TestControlErrors: they come with all others.
func TestControlErrors(t *testing.T) {
	const noName = " is not the name of a user, nor a number from 0 to 4294967294"
	for _, test := range []struct {
		control string
		want    []string
	}{
		{"users: [nosuch, deplyo], groups: [nosuch]", []string{
			`1: control.users[0]: there is no user "nosuch" in /etc/passwd`,
			`1: control.users[1]: there is no user "deplyo" in /etc/passwd: did you mean "deploy"?`,
			`1: control.groups[0]: there is no group "nosuch" in /etc/group`,
		}},
		{"users: [-1, 4294967295, 0x10, '', a b]", []string{
			`1: control.users[0]: "-1"` + noName, `1: control.users[1]: "4294967295"` + noName, `1: control.users[2]: "0x10"` + noName,
			`1: control.users[3]: ""` + noName, `1: control.users[4]: "a b"` + noName,
		}},
		{"groups: adm", []string{`1: control.groups: "adm" is not a list`}},
	} {
		_, err := withControl(test.control, "{a: {command: x, count: -1}}")
		if err == nil {
			t.Errorf("%s: accepted", test.control)
			continue
		}
		want := append(test.want, "2: entries.a.count: -1 is not a whole number from 0 to 10000")
		got := strings.Split(strings.ReplaceAll(err.Error(), "/etc/sentryd/test.yaml:", ""), "\n")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.control, diff)
		}
	}
}

// TestControlOfFormerVersions: they did not record the user database for control, and
// the daemon goes on from what they did.
func TestControlOfFormerVersions(t *testing.T) {
	c, err := parseOne("control: {users: [deploy, 1000], groups: [adm]}\nentries: {}")
	if err != nil || !slices.Equal(c.Control.Users, []uint32{1000}) || len(c.Control.Groups) > 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestCompareIdentity(t *testing.T) {
	for _, test := range []struct{ before, after, want string }{
		{"user: deploy", "user: 1000", ""},
		{"user: deploy", "user: www-data", "user"},
		{"user: deploy", "user: deploy\ngroups: []", "user groups"},
		{"groups: []", "count: 1", "groups"},
		{"group: adm", "group: 4", ""},
		{"group: adm", "group: 5", "group"},
		{"umask: '022'", "umask: '22'", ""},
		{"umask: '022'", "umask: '027'", "umask"},
		{"nice: 0", "count: 1", "nice"},
		{"oom_score_adj: 1", "oom_score_adj: 2", "oom_score_adj"},
		{"cpu_affinity: [0, 1]", "cpu_affinity: [1, 0]", ""},
		{"cpu_affinity: [0, 1]", "cpu_affinity: [0]", "cpu_affinity"},
		{"rlimits: {nofile: 5, core: 0}", "rlimits: {core: 0, nofile: {soft: 5, hard: 5}}", ""},
		{"rlimits: {nofile: 5}", "rlimits: {nofile: 6}", "rlimits"},
		{"capabilities: [CAP_KILL, chown]", "capabilities: [chown, kill]", ""},
		{"capabilities: []", "count: 1", "capabilities"},
		{"no_new_privileges: true", "count: 1", "no_new_privileges"},
	} {
		a, problem := withHost(nil, test.before)
		b, problem2 := withHost(nil, test.after)
		if problem != "" || problem2 != "" {
			t.Fatal(problem, problem2)
		}
		c := compareEntry(a, b)
		if got := strings.Join(c.Keys, " "); got != test.want || test.want != "" && c.Action != Restart {
			t.Errorf("%q to %q: %s %q, want %q", test.before, test.after, c.Action, got, test.want)
		}
	}
}
