package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/sentryd/sentryd/internal/testenv"
	"github.com/sentryd/sentryd/internal/vmtest/job"
)

// build makes all that goes into the machines: static, so that they need no
// library, and without the race detector, which needs cgo.
func build(ctx context.Context, dir string, list []suite) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var packages []string
	for _, s := range list {
		packages = append(packages, "./"+s.pkg)
	}
	flags := []string{"-trimpath", "-ldflags", "-s -w", "-o", dir + "/"}
	for _, args := range [][]string{
		append(append([]string{"test", "-c"}, flags...), packages...),
		append(append([]string{"build"}, flags...), "./cmd/sentryd", "./internal/vmtest/guest", "cmd/test2json"),
		// What the tests would build, see built in integration.
		append(append([]string{"build"}, flags...), "./integration/testdata/passed", "./integration/testdata/numbers", "./integration/testdata/aspid"),
		{"build", "-tags", "failpoint", "-trimpath", "-ldflags", "-s -w", "-o", dir + "/sentryd-failpoint", "./cmd/sentryd"},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}

// tests turns suites into what the guest is to run under that kernel, as its own
// init and then with systemd in that place.
func tests(list []suite, k kernel, o options, limit string) (plain, systemd []job.Test) {
	for _, s := range list {
		args := []string{
			path.Join(binaries, path.Base(s.pkg)+".test"),
			"-test.v=test2json", "-test.paniconexit0", fmt.Sprintf("-test.short=%t", !o.long), "-test.count=1", "-test.timeout=" + limit,
		}
		switch {
		case o.run != "":
			args = append(args, "-test.run="+o.run)
		case o.part && s.part != "":
			args = append(args, "-test.run="+s.part)
		}
		var skip []string
		for _, left := range s.skip {
			if left.kernel != "" && left.kernel != k.series {
				continue
			}
			skip = append(skip, left.tests)
		}
		if len(skip) > 0 {
			args = append(args, "-test.skip=^("+strings.Join(skip, "|")+")$")
		}
		test := job.Test{Package: s.pkg, Dir: path.Join(repository, s.pkg), Args: args}
		if s.systemd {
			test.Env = []string{"SENTRYD_TEST_SYSTEMD=1"} // see testenv
			systemd = append(systemd, test)
		} else {
			plain = append(plain, test)
		}
	}
	return plain, systemd
}

// choose returns the suites whose packages match the expression, and the
// kernels that are in the comma-separated list; empty is all that need not be named.
func choose(kernelList, packages string) ([]kernel, []suite, error) {
	var ks []kernel
	for _, k := range kernels() {
		if kernelList == "" && !k.named || strings.Contains(","+kernelList+",", ","+k.series+",") {
			ks = append(ks, k)
		}
	}
	re, err := regexp.Compile(packages)
	if err != nil {
		return nil, nil, err
	}
	var ss []suite
	for _, s := range suites() {
		if !re.MatchString(s.pkg) {
			continue
		}
		s.skip = slices.DeleteFunc(s.skip, func(o omission) bool { return o.without != "" && testenv.LookTool(o.without) != "" })
		ss = append(ss, s)
	}
	if len(ks) == 0 || len(ss) == 0 {
		return nil, nil, errors.New("no such kernel or package: see internal/vmtest/suite.go")
	}
	return ks, ss, nil
}
