package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/sentryd/sentryd/internal/vmtest/job"
)

// packageOfSystemd is the Debian package of the host whose systemd is the
// machines' second init.
const packageOfSystemd = "systemd"

// addSystemd copies the host's systemd whole: programs, units and their links.
// It returns what needs libraries. What runs under it is one unit more.
func (t tree) addSystemd(ctx context.Context) (programs []string, err error) {
	files, err := run(ctx, "", "dpkg-query", "-L", packageOfSystemd)
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install %s", err, packageOfSystemd)
	}
	wanted := regexp.MustCompile(`^(/usr)?/(s?bin|lib)/`)
	program := regexp.MustCompile(`/s?bin/|^(/usr)?/lib/systemd/(systemd[^/]*|[a-z-]+-generators/[^/]+)$|\.so$`)
	for file := range strings.Lines(files) {
		file = strings.TrimSpace(file)
		info, err := os.Lstat(file)
		if err != nil || info.IsDir() || !wanted.MatchString(file) {
			continue
		}
		name, err := placeOf(file)
		if err != nil {
			return nil, err
		}
		if info.Mode().Type() == os.ModeSymlink {
			target, err := os.Readlink(file)
			if err != nil {
				return nil, err
			}
			t.link(name, target)
			continue
		}
		t.copy(name, file, info.Mode().Perm())
		if program.MatchString(file) {
			programs = append(programs, file)
		}
	}
	for name, text := range systemdFiles() {
		t.file(name, text, 0o644)
	}
	return programs, nil
}

// systemdFiles has systemd run the tests, and end the machine if it cannot.
func systemdFiles() map[string]string {
	const end = "reboot-immediate" // without a word to the units: the machine is thrown away
	return map[string]string{
		// Without one it is a first boot, which asks questions.
		"/etc/machine-id":          strings.Repeat("5", 32) + "\n",
		"/etc/systemd/system.conf": "[Manager]\nCrashReboot=yes\nShowStatus=no\n",
		path.Join("/etc/systemd/system", job.Target): `[Unit]
Requires=basic.target guest.service
JobTimeoutSec=10min
JobTimeoutAction=` + end + "\n",
		"/etc/systemd/system/guest.service": `[Unit]
FailureAction=` + end + `
SuccessAction=` + end + `

[Service]
Type=exec
ExecStart=/init ` + job.UnderSystemd + `
StandardOutput=tty
TTYPath=/dev/ttyS0
`,
	}
}
