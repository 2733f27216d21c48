package main

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sentryd/sentryd/"

// TestEveryPackageIsDecidedUpon keeps a new package from being forgotten: it
// runs in the machines, or suite.go says that it need not.
func TestEveryPackageIsDecidedUpon(t *testing.T) {
	out, err := exec.Command("go", "list", module+"pkg/...", module+"cmd/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	known := withoutKernel()
	for _, s := range suites() {
		known = append(known, s.pkg)
	}
	for line := range strings.Lines(string(out)) {
		name := strings.TrimPrefix(strings.TrimSpace(line), module)
		if !slices.Contains(known, name) {
			t.Errorf("%s is in neither list of suite.go", name)
		}
	}
}

// TestOmissionsExist finds each test that is left out, so that none stays in the
// list after its test has another name.
func TestOmissionsExist(t *testing.T) {
	for _, s := range suites() {
		if len(s.skip) == 0 {
			continue
		}
		out, err := exec.Command("go", "test", "-list", "^Test", module+s.pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range s.skip {
			for name := range strings.SplitSeq(o.tests, "|") {
				if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `$`).Match(out) {
					t.Errorf("%s has no %s", s.pkg, name)
				}
			}
		}
	}
}

func TestImagePackage(t *testing.T) {
	k := kernel{series: "6.1", suite: "bookworm"}
	got, err := k.imagePackage("linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\n")
	if got != "linux-image-6.1.0-50-cloud-amd64" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := k.imagePackage("linux-image-cloud-amd64\n  Depends: linux-image-6.12.117+deb13-cloud-amd64\n"); err == nil {
		t.Errorf("takes %q for a Linux 6.1", got)
	}
}

// TestParts: a kernel may come in one package or in several.
func TestParts(t *testing.T) {
	k := kernel{series: newest, suite: "x"}
	if got, err := k.imagePackage("linux-image-cloud-amd64\n  Depends: linux-base-cloud-amd64\n  Depends: linux-image-7.3.4+deb13-cloud-amd64\n"); got != "linux-image-7.3.4+deb13-cloud-amd64" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got := partsOf("linux-image-x\n  PreDepends: linux-base\n  Depends: linux-binary-x\n  Depends: linux-modules-x\n"); !slices.Equal(got, []string{"linux-binary-x", "linux-modules-x"}) {
		t.Errorf("%q", got)
	}
	if got := partsOf("linux-image-x\n  Depends: kmod\n"); got != nil {
		t.Errorf("%q", got)
	}
}

// TestKernelsToBoot: one that has to be named is not booted without that.
func TestKernelsToBoot(t *testing.T) {
	for list, want := range map[string]int{"": 2, "6.1": 1, "6.1,newest": 2, newest: 1} {
		if ks, _, err := choose(list, ""); err != nil || len(ks) != want {
			t.Errorf("%q boots %v, %v", list, ks, err)
		}
	}
}

// TestPart: what -part runs is a part of its package.
func TestPart(t *testing.T) {
	list := []suite{{pkg: "pkg/x", part: "TestA"}, {pkg: "pkg/y"}}
	jobs, _ := tests(list, kernel{}, options{part: true}, "1m")
	if !slices.Contains(jobs[0].Args, "-test.run=TestA") || slices.ContainsFunc(jobs[1].Args, func(a string) bool { return strings.HasPrefix(a, "-test.run") }) {
		t.Errorf("%+v", jobs)
	}
	for _, s := range suites() {
		if _, err := regexp.Compile(s.part); err != nil {
			t.Error(err)
		}
	}
}

func TestTestsUnderAKernel(t *testing.T) {
	list := []suite{{pkg: "pkg/x", skip: []omission{{tests: "TestA|TestB"}, {tests: "TestC", kernel: "6.12"}}}}
	for series, want := range map[string]string{"6.1": "-test.skip=^(TestA|TestB)$", "6.12": "-test.skip=^(TestA|TestB|TestC)$"} {
		jobs, _ := tests(list, kernel{series: series}, options{run: "TestX"}, "1m")
		job := jobs[0]
		if !slices.Contains(job.Args, want) || !slices.Contains(job.Args, "-test.run=TestX") || job.Args[0] != "/tests/x.test" || job.Dir != "/sentryd/pkg/x" {
			t.Errorf("%s: %+v, want %s", series, job, want)
		}
	}
}

// TestTestsUnderSystemd come in a list of their own.
func TestTestsUnderSystemd(t *testing.T) {
	plain, systemd := tests([]suite{{pkg: "a", systemd: true}, {pkg: "b"}}, kernel{}, options{}, "1m")
	if len(plain) != 1 || plain[0].Package != "b" || len(systemd) != 1 || systemd[0].Package != "a" {
		t.Errorf("%+v and %+v", plain, systemd)
	}
}
