package main

// This file says what runs in the virtual machines. To add a package or a tool,
// add a line.

// kernels are those that the tests run on: the two that Debian's users have, and one
// that they will have, which is another one every few weeks.
func kernels() []kernel {
	return []kernel{
		{series: "6.1", suite: "bookworm", mib: 2048},
		{series: "6.12", suite: "trixie", mib: 4096}, // for TestTenThousand,
		{series: newest, suite: "trixie-backports", mib: 4096, named: true},
	}
}

// A suite is a package whose tests run in the machines, in its short form.
type suite struct {
	pkg  string // below the module
	skip []omission
	part string // regexp of the tests that -part runs; empty is all

	systemd bool // after all others, with systemd as PID 1
}

// An omission is tests that are left out, and why. All others run, so that a
// new test needs no line here.
type omission struct {
	tests   string // as in "TestA|TestB"
	why     string
	without string // only if the host has not got this tool
	kernel  string // only under this kernel
}

// suites are the leaves, which talk to the kernel, and the built binary.
func suites() []suite {
	return []suite{
		{pkg: "internal/testenv"},
		{pkg: "pkg/spawn"},
		{pkg: "pkg/procevents"},
		{pkg: "pkg/lineage", skip: []omission{
			{tests: "TestSimulated", why: "a simulated kernel is the same under every kernel"},
		}},
		{pkg: "pkg/state", part: "Lock|Exec|Reexecs|Seal|Inherit|Hang|Preflight|RuntimeDir|JournalWithoutRoom|JournalOutlives", skip: []omission{
			{tests: "TestHistories|TestJournalWithEveryBitFlipped", why: "bytes are the same under every kernel"},
		}},
		{pkg: "pkg/logs", skip: []omission{
			{tests: "TestHandovers|TestStuckReader", why: "a pause gives a reader 50 ms, in which an emulated processor may come to nothing"},
		}},
		{pkg: "pkg/sockets"},
		{pkg: "pkg/fdstore"},
		{pkg: "pkg/peer"},
		{pkg: "pkg/procinfo"},
		// What rests on the kernel most: limits, containment, adoption.
		{pkg: "integration", part: "Limit|Delegated|OutOfMemory|Cgroups|FrozenSlot|Leftovers|StopLeaves|TwoDaemons|IdentityAnd|KilledAtRandom|SurvivorsEnd", skip: []omission{
			{tests: "TestCommands|TestCompletion|TestStatusExitCodes|TestStatusTable|TestStatusOfManySlots|TestStatusWatch|TestStateIsAsDocumented|TestColours|TestLogFormats|TestSeedTranscript",
				why: "what is printed is the same under every kernel"},
			{tests: "TestDocumentation|TestFences|TestMatches|TestQuickstart|TestExamplesAreValid|TestBadStarts|TestEveryMistakeIsReported",
				why: "what is written is the same under every kernel"},
			{tests: "TestNoDaemon|TestWhichDaemon|TestDiffAndReloadSayTheSame|TestRefusedReload|TestPlacesOfAPlainUser|TestRootTrustsRootOnly|TestRootsHome",
				why: "files and configurations are the same under every kernel"},
			{tests: "TestMonitoringRoutes|TestMetricsAreDocumented|TestLongPoll|TestCurl|TestScaleTakesCountsOnly|TestProxiesAndPagesAreRefused|TestHalfOfTheConnections|TestSecretsStaySecret|TestLineWithoutEnd",
				why: "HTTP and bytes are the same under every kernel"},
			{tests: "TestPrometheusScrapes", why: "Prometheus is a hundred times the size of all else, and asks nothing of the kernel"},
			{tests: "TestUpgrade", why: "builds a program, and there is no compiler"},
			{tests: "TestRedisIsKeptRunning|TestWebExample", why: "redis-server is not installed", without: "redis-server"},
			{tests: "TestNginxIsKeptRunning|TestWebExample|TestHandover", why: "nginx is not installed", without: "nginx"},
		}},
		{pkg: "integration/systemd", systemd: true, part: "UnitStarts|Limits|Crash$"},
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

// packagesOfTools are the Debian packages whose programs the tests run, beside
// Python. All of their programs are copied, with the libraries they need.
func packagesOfTools() []string {
	return []string{"dash", "bash", "coreutils", "grep", "sed", "mawk", "procps", "util-linux", "mount", "iproute2", "curl"}
}

// optionalPackages are those that a developer's machine may lack; see omission.
func optionalPackages() []string {
	return []string{"redis-server", "redis-tools", "nginx", "nginx-light"}
}
