package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sentryd/sentryd/internal/vmtest/job"
)

// Where things are in the machine.
const (
	repository = "/sentryd" // every file of the repository
	binaries   = "/tests"   // the test binaries and the sentryd under test
)

// An imageMaker puts an initramfs together. What all machines have in common is
// made once.
type imageMaker struct {
	common tree
	path   string // PATH in the machine
}

// newImage gathers the tools of the host, the repository's files and what was
// built into dir.
func newImage(ctx context.Context, built string, full bool) (*imageMaker, error) {
	t := tree{}
	for name, text := range accounts() {
		t.file(name, text, 0o644)
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} { // as Debian has it
		t.dir("/usr/"+dir, 0o755)
		t.link("/"+dir, "usr/"+dir)
	}
	t.dir("/root", 0o700)
	t.dir("/var/log", 0o755)
	t.dir("/var/tmp", 0o755|os.ModeSticky)
	t.copy("/init", filepath.Join(built, "guest"), 0o755)
	t.copy("/usr/bin/test2json", filepath.Join(built, "test2json"), 0o755)
	entries, err := os.ReadDir(built)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		t.copy(path.Join(binaries, e.Name()), filepath.Join(built, e.Name()), 0o755)
	}
	files, err := run(ctx, "", "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return nil, err
	}
	for _, name := range strings.Split(strings.TrimRight(files, "\x00"), "\x00") {
		info, err := os.Stat(name)
		if err != nil {
			continue // deleted, and not committed yet
		}
		t.copy(path.Join(repository, name), name, info.Mode().Perm())
	}
	if err := t.addTools(ctx, full); err != nil {
		return nil, err
	}
	return &imageMaker{common: t, path: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}, nil
}

// accounts are the files of users and groups, and what else of /etc a C library
// or a test looks at.
func accounts() map[string]string {
	return map[string]string{
		"/etc/passwd": "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n" +
			"www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"/etc/group":         "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n",
		"/etc/hosts":         "127.0.0.1 localhost guest\n::1 localhost\n",
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
	}
}

// addTools copies the programs of packages with the libraries that ldd names, to
// the places where they are on the host. In the full run no package may be
// missing.
func (t tree) addTools(ctx context.Context, full bool) error {
	var programs []string
	for _, name := range append(packagesOfTools(), optionalPackages()...) {
		files, err := run(ctx, "", "dpkg-query", "-L", name)
		if err != nil && (full || !slices.Contains(optionalPackages(), name)) {
			return fmt.Errorf("%w: apt-get install %s", err, name)
		}
		for file := range strings.Lines(files) {
			file = strings.TrimSpace(file)
			info, err := os.Stat(file)
			if err != nil || !info.Mode().IsRegular() || !regexp.MustCompile(`^(/usr)?/s?bin/`).MatchString(file) {
				continue
			}
			if err := t.copyHost(file); err != nil {
				return err
			}
			programs = append(programs, file)
		}
	}
	python, err := t.addPython()
	if err != nil {
		return err
	}
	systemd, err := t.addSystemd(ctx)
	if err != nil {
		return err
	}
	programs = append(append(programs, python...), systemd...)
	// It fails for the scripts among them, and says all that it has to say.
	libraries, _ := exec.CommandContext(ctx, "ldd", programs...).Output()
	found := regexp.MustCompile(`(/\S+) \(0x`).FindAllStringSubmatch(string(libraries), -1)
	if len(found) == 0 {
		return errors.New("ldd names no library of any tool")
	}
	for _, m := range found {
		if err := t.copyHost(m[1]); err != nil {
			return err
		}
	}
	return nil
}

// addPython copies Debian's Python with its library, and returns what of it needs
// other libraries. The first python3 in PATH may be another.
func (t tree) addPython() (programs []string, err error) {
	name, err := os.Readlink("/usr/bin/python3")
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install python3", err)
	}
	t.link("/usr/bin/python3", name)
	programs = append(programs, "/usr/bin/"+name)
	if err := t.copyHost(programs[0]); err != nil {
		return nil, err
	}
	// The largest, which nobody imports.
	unused := regexp.MustCompile(`^(config-.*|distutils|lib2to3|pydoc_data|test)$`)
	return programs, filepath.WalkDir("/usr/lib/"+name, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && unused.MatchString(d.Name()):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		case strings.HasSuffix(file, ".so"):
			programs = append(programs, file)
		}
		t.copy(file, file, 0o644)
		return nil
	})
}

// copyHost copies a file of the host to where it is there, seen without the
// symbolic links on the way, so that /bin and /lib may be links here.
func (t tree) copyHost(file string) error {
	name, err := placeOf(file)
	if err != nil {
		return err
	}
	t.copy(name, file, 0o755)
	return nil
}

func placeOf(file string) (string, error) {
	dir, err := filepath.Abs(filepath.Dir(file))
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	return path.Join(dir, path.Base(file)), err
}

// write makes the initramfs of one kernel, with what there is to do.
func (m *imageMaker) write(ctx context.Context, name string, u unpacked, plain, systemd []job.Test, slow int) error {
	t := tree{}
	for k, v := range m.common {
		t[k] = v
	}
	j := job.Job{
		Path:  m.path,
		Env:   []string{"SENTRYD_BIN=" + binaries + "/sentryd", "SENTRYD_TEST_PROGRAMS=" + binaries, fmt.Sprintf("SENTRYD_TEST_SLOW=%d", slow)},
		Tests: plain, Systemd: systemd,
	}
	for _, name := range modules() {
		file, err := u.module(name)
		if err != nil {
			return err
		}
		if file == "" {
			continue
		}
		in := "/usr/lib/modules/" + name + ".ko"
		j.Modules = append(j.Modules, in)
		if !strings.HasSuffix(file, ".xz") {
			t.copy(in, file, 0o644)
			continue
		}
		text, err := run(ctx, "", "xz", "--decompress", "--stdout", file)
		if err != nil {
			return err
		}
		t.file(in, text, 0o644)
	}
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	t.file(job.Path, string(text), 0o644)
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := t.write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
