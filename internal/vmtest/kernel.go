package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A kernel is one series of Linux, and where Debian has it.
type kernel struct {
	series string // "6.1", or "newest" for whatever the suite has
	suite  string // the release of Debian that lives with it
	mib    int    // memory of its machine
	named  bool   // only booted when -kernel names it
}

// newest is the series of a suite in which it changes.
const newest = "newest"

// metaPackage depends on the newest image of a suite's kernel for clouds: small,
// with the drivers of virtual machines and every cgroup controller.
const metaPackage = "linux-image-cloud-amd64"

// An unpacked kernel is what its package has.
type unpacked struct {
	release string // as uname prints it
	image   string // path of vmlinuz
	modules string // directory of the modules
	builtin string // modules.builtin, the names of those that are compiled in; "" if it is not there
}

// fetch returns the kernel from the cache, or brings the newest of its series
// there: with apt, whose keys and proxies are the host's, but with a source and
// lists of our own, so that the host's configuration stays as it is.
func (k kernel) fetch(ctx context.Context, cache, mirror string) (unpacked, error) {
	dir := filepath.Join(cache, "linux-"+k.series)
	if u, err := k.find(dir); err == nil {
		return u, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return unpacked{}, err
	}
	apt, err := newApt(filepath.Join(cache, "apt-"+k.suite), k.suite, mirror)
	if err != nil {
		return unpacked{}, err
	}
	if _, err := apt.run(ctx, "apt-get", "-q", "update"); err != nil {
		return unpacked{}, err
	}
	depends, err := apt.run(ctx, "apt-cache", "depends", metaPackage)
	if err != nil {
		return unpacked{}, err
	}
	image, err := k.imagePackage(depends)
	if err != nil {
		return unpacked{}, err
	}
	if depends, err = apt.run(ctx, "apt-cache", "depends", image); err != nil {
		return unpacked{}, err
	}
	// Unpacked beside its place and then moved: what has the name is whole.
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return unpacked{}, err
	}
	for _, name := range append(partsOf(depends), image) {
		if _, err := apt.run(ctx, "apt-get", "-q", "download", name); err != nil {
			return unpacked{}, err
		}
		debs, err := filepath.Glob(filepath.Join(apt.dir, name+"_*.deb"))
		if err != nil || len(debs) != 1 {
			return unpacked{}, fmt.Errorf("download %s: found %d packages of that name, want 1", name, len(debs))
		}
		if _, err := run(ctx, "", "dpkg-deb", "-x", debs[0], part); err != nil {
			return unpacked{}, err
		}
	}
	if err := os.Rename(part, dir); err != nil {
		return unpacked{}, err
	}
	return k.find(dir)
}

// imagePackage finds the image in what apt-cache says of the meta package.
func (k kernel) imagePackage(depends string) (string, error) {
	version := regexp.QuoteMeta(k.series)
	if k.series == newest {
		version = `\d+`
	}
	re := regexp.MustCompile(`Depends: (linux-image-` + version + `\.\S+-cloud-amd64)`)
	m := re.FindStringSubmatch(depends)
	if m == nil {
		return "", fmt.Errorf("%s of Debian %s does not depend on a Linux %s: %s", metaPackage, k.suite, k.series, strings.TrimSpace(depends))
	}
	return m[1], nil
}

// partsOf finds the packages that what apt-cache says of an image puts the kernel and
// its modules in; none where the image has them itself, as it did up to Debian 13.
func partsOf(depends string) (parts []string) {
	for _, m := range regexp.MustCompile(`Depends: (linux-(?:binary|modules)-\S+)`).FindAllStringSubmatch(depends, -1) {
		parts = append(parts, m[1])
	}
	return parts
}

// find looks into an unpacked package.
func (k kernel) find(dir string) (unpacked, error) {
	series := k.series
	if series == newest {
		series = "*"
	}
	var images []string
	// With the modules since Debian 14.
	for _, pattern := range []string{"boot/vmlinuz-" + series + ".*", "usr/lib/modules/" + series + ".*/vmlinuz"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return unpacked{}, err
		}
		images = append(images, found...)
	}
	if len(images) != 1 {
		return unpacked{}, fmt.Errorf("%s has %d kernels %s, want 1", dir, len(images), k.series)
	}
	u := unpacked{image: images[0], release: strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")}
	if u.release == "vmlinuz" {
		u.release = filepath.Base(filepath.Dir(images[0]))
	}
	for _, lib := range []string{"usr/lib", "lib"} { // /usr was merged between the two
		u.modules = filepath.Join(dir, lib, "modules", u.release)
		if _, err := os.Stat(filepath.Join(u.modules, "kernel")); err != nil {
			continue
		}
		// In several packages it is made when they are installed.
		builtin, err := os.ReadFile(filepath.Join(u.modules, "modules.builtin"))
		if err == nil || k.series == newest && errors.Is(err, os.ErrNotExist) {
			u.builtin = string(builtin)
			return u, nil
		}
	}
	return unpacked{}, fmt.Errorf("%s has no modules for %s", dir, u.release)
}

// module returns the path of a module's file, or "" if it is compiled in.
func (u unpacked) module(name string) (string, error) {
	if strings.Contains(u.builtin, "/"+name+".ko\n") {
		return "", nil
	}
	found := ""
	err := filepath.WalkDir(u.modules, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.TrimSuffix(d.Name(), ".xz") == name+".ko" {
			found = path
			return filepath.SkipAll
		}
		return err
	})
	if err == nil && found == "" && u.builtin != "" {
		err = errors.New("no such file")
	}
	if err != nil {
		return "", fmt.Errorf("module %s of Linux %s: %w", name, u.release, err)
	}
	return found, nil
}

// hostMirror returns the mirror that this host's own apt gets packages from.
func hostMirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its mirror: %w", err)
	}
	for _, site := range strings.Fields(string(out)) {
		if strings.HasSuffix(site, "/debian") {
			return site, nil
		}
	}
	return "", errors.New("apt has no mirror of Debian: give one by -mirror")
}

// An apt is a private view of one suite of Debian.
type apt struct {
	dir     string // downloads come here
	options []string
}

func newApt(dir, suite, mirror string) (apt, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return apt{}, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return apt{}, err
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return apt{}, err
		}
	}
	source := filepath.Join(dir, "debian.sources")
	text := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nArchitectures: amd64\nTargets: Packages\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n", mirror, suite)
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		return apt{}, err
	}
	return apt{dir, []string{
		"-o", "Dir::Etc::sourcelist=" + source, "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"-o", "Acquire::Retries=3",
		"-o", "APT::Sandbox::User=", // the user _apt may not reach our directory
	}}, nil
}

func (a apt) run(ctx context.Context, tool string, args ...string) (string, error) {
	return run(ctx, a.dir, tool, append(a.options, args...)...)
}

// run runs a command to its end and returns what it printed. What it printed on
// standard error is part of the error.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, exit.Stderr)
		}
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(out), nil
}
