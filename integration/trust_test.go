package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sentryd/sentryd/internal/testenv"
)

// TestRootTrustsRootOnly: what says what runs as root is root's alone.
func TestRootTrustsRootOnly(t *testing.T) {
	testenv.Need(t, testenv.Root(), testenv.User("nobody"))
	who := nobody(t)
	const good = "http: {listen: none}\n"
	for _, c := range []struct {
		name, want string
		spoil      func(dir string) error
	}{
		{"group-writable", "test.yaml: must not be writable by its group or others (mode 0664)", func(dir string) error { return os.Chmod(dir+"/test.yaml", 0o664) }},
		{"world-writable", "test.yaml: must not be writable by its group or others (mode 0646)", func(dir string) error { return os.Chmod(dir+"/test.yaml", 0o646) }},
		{"nobody's", "test.yaml: must belong to uid 0", func(dir string) error { return os.Chown(dir+"/test.yaml", int(who.Uid), 0) }},
		{"directory writable", "test.yaml: its directory %s must not be writable by its group or others (mode 0777)", func(dir string) error { return os.Chmod(dir, 0o777) }},
		{"directory nobody's", "test.yaml: its directory %s must belong to uid 0", func(dir string) error { return os.Chown(dir, int(who.Uid), 0) }},
		{"included", "more.yaml: must not be writable by its group or others (mode 0666)", func(dir string) error { return os.Chmod(dir+"/more.yaml", 0o666) }},
		{"env_file", "web.env: must not be writable by its group or others (mode 0666)", func(dir string) error { return os.Chmod(dir+"/web.env", 0o666) }},
		{"reached by a link", "test.yaml: its directory %s/open must not be writable by its group or others (mode 0777)", func(dir string) error {
			if err := os.Mkdir(dir+"/open", 0); err != nil {
				return err
			}
			if err := os.Chmod(dir+"/open", 0o777); err != nil {
				return err
			}
			if err := os.Rename(dir+"/test.yaml", dir+"/open/real.yaml"); err != nil {
				return err
			}
			return os.Symlink(dir+"/open/real.yaml", dir+"/test.yaml")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "etc")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			replaceFile(t, dir+"/more.yaml", "entries: {web: {command: sleep 1000, env_file: web.env}}\n", 0o644)
			replaceFile(t, dir+"/web.env", "A=b\n", 0o644)
			d := newDaemon(t, good+"include: [more.yaml]\nentries: {}\n", options{dir: dir})
			if code, out, errs := d.ctl("check"); code != 0 {
				t.Fatalf("check: exit code %d\n%s%s", code, out, errs)
			}
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(c.want, "%s", dir)
			for _, command := range []string{"check", "start"} {
				code, out, errs := d.ctl(command)
				if code != 2 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
					t.Errorf("%s: exit code %d, want 2 and %q\n%s%s", command, code, want, out, errs)
				}
			}
		})
	}
	t.Run("sticky directory", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "tmp")
		if err := os.Mkdir(dir, 0); err != nil {
			t.Fatal(err)
		}
		d := newDaemon(t, good+"entries: {}\n", options{dir: dir})
		if err := os.Chmod(dir, os.ModeSticky|0o777); err != nil {
			t.Fatal(err)
		}
		d.must("check")
	})
	t.Run("program", func(t *testing.T) {
		home, bin := openDir(t)
		d := newDaemon(t, good+"entries: {}\n", options{dir: home, bin: bin})
		if err := os.Chmod(bin, 0o777); err != nil {
			t.Fatal(err)
		}
		if code, out := d.again(options{}); code != 1 || out != "sentryd: the program "+bin+": must not be writable by its group or others (mode 0777)\n" {
			t.Errorf("exit code %d\n%s", code, out)
		}
	})
	t.Run("reload", func(t *testing.T) {
		d := startDaemon(t, good+"entries: {web: {command: sleep 1000}}\n", options{})
		before := d.identities(d.running("web", 1).entry("web"))
		if err := os.Chmod(d.configPath(), 0o666); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := d.ctl("reload"); code != 2 || !strings.Contains(errs, "must not be writable") {
			t.Errorf("exit code %d\n%s", code, errs)
		}
		d.same(before, d.state().entry("web"))
	})
}

// TestRootsHome comes from the user database: HOME may be that of who called
// sudo.
func TestRootsHome(t *testing.T) {
	testenv.Need(t, testenv.Root())
	home := t.TempDir()
	conf := filepath.Join(home, ".sentryd", "conf")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "entries: {}\n", options{env: []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home}})
	const name = "sentryd-integration-test"
	replaceFile(t, filepath.Join(conf, name+".yaml"), "entries: {}\n", 0o644)
	code, out := d.runAs(nil, d.bin, "check", "-c", name)
	if code != 2 || strings.Contains(out, home) || !strings.Contains(out, "/etc/sentryd") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
