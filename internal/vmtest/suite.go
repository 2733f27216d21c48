package main

// This file says what runs in the virtual machines. To add a package or a tool,
// add a line.

// kernels are those that the tests run on: the two that Debian's users have.
func kernels() []kernel {
	return []kernel{
		{series: "6.1", suite: "bookworm", mib: 2048},
		{series: "6.12", suite: "trixie", mib: 4096},
	}
}

// A suite is a package whose tests run in the machines, in its short form.
type suite struct {
	pkg  string // below the module
	skip []omission
}

// An omission is a test that is left out because another kernel could not make
// it fail, or the machine has not got what it needs.
type omission struct {
	test, why string
	without   string // only if the host has not got this tool
}

// suites are the leaves, which talk to the kernel, and the built binary.
func suites() []suite {
	return []suite{
		{pkg: "internal/testenv"},
		{pkg: "pkg/spawn"},
		{pkg: "pkg/procevents"},
		{pkg: "pkg/state"},
		{pkg: "pkg/logs"},
		{pkg: "pkg/peer"},
		{pkg: "pkg/procinfo"},
		{pkg: "integration", skip: []omission{
			{test: "TestPrometheusScrapes", why: "Prometheus is a hundred times the size of all else, and asks nothing of the kernel"},
			{test: "TestUpgrade", why: "builds a program, and there is no compiler"},
			{test: "TestRedisIsKeptRunning", why: "redis-server is not installed", without: "redis-server"},
			{test: "TestNginxIsKeptRunning", why: "nginx is not installed", without: "nginx"},
			{test: "TestWebExample", why: "redis-server is not installed", without: "redis-server"},
			{test: "TestWebExample", why: "nginx is not installed", without: "nginx"},
		}},
	}
}

// withoutKernel are the packages below pkg/ and cmd/ that are not run in the
// machines, because they ask nothing of the kernel that integration does not.
func withoutKernel() []string {
	return []string{"cmd/sentryd", "pkg/api", "pkg/config", "pkg/metrics", "pkg/supervisor", "pkg/supervisor/fsm", "pkg/view"}
}

// modules are those that a host's kernel would load by itself at first use, in
// the order of their dependencies: sock_diag's answers about TCP, /dev/fuse.
func modules() []string { return []string{"inet_diag", "tcp_diag", "fuse"} }

// A tool is a program of the host's that the tests run. It is copied with its
// libraries.
type tool struct {
	name, debian string // and the package that has it
	optional     bool   // a developer's machine may lack it; see omission
}

func tools() []tool {
	var list []tool
	for debian, names := range map[string][]string{
		"dash":       {"sh"},
		"bash":       {"bash"},
		"coreutils":  {"cat", "chmod", "cp", "cut", "date", "dd", "env", "false", "head", "id", "ls", "mkdir", "mkfifo", "mktemp", "mv", "nice", "pwd", "readlink", "rm", "seq", "sleep", "sort", "stat", "tail", "tee", "timeout", "touch", "tr", "true", "tty", "uname", "wc", "yes"},
		"curl":       {"curl"},
		"grep":       {"grep"},
		"iproute2":   {"ip"},
		"mawk":       {"awk"},
		"procps":     {"kill", "ps"},
		"sed":        {"sed"},
		"util-linux": {"setsid", "unshare"},
	} {
		for _, name := range names {
			list = append(list, tool{name: name, debian: debian})
		}
	}
	return append(list,
		tool{name: "redis-server", debian: "redis-server", optional: true},
		tool{name: "redis-cli", debian: "redis-tools", optional: true},
		tool{name: "nginx", debian: "nginx-light", optional: true},
	)
}
