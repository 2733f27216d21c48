package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadStarts: the daemon's own exit codes, before it runs.
func TestBadStarts(t *testing.T) {
	d := newDaemon(t, "entries: {}\n", options{})
	for _, c := range []struct {
		config, want string
		args         []string
		code         int
	}{
		{"", "test.yaml:1: the file is empty: it needs at least \"entries: {}\"", nil, 2},
		{"http: {listen: none}\n", "entries", nil, 2},
		{"entries: {}\n---\nentries: {}\n", "test.yaml:2: ", nil, 2},
		{"entries: {}\n", "--log.format: \"xml\" is not logfmt or json", []string{"--log.format", "xml"}, 2},
		{"entries: {}\n", "control socket", []string{"--runtime-dir", d.dir + "/" + strings.Repeat("long/", 40)}, 1},
	} {
		replaceFile(t, d.configPath(), c.config, 0o644)
		code, out, errs := d.ctl(append([]string{"start"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) || strings.Contains(out, "Sentry started") {
			t.Errorf("start of %q %v: exit code %d, want %d\n%s%s", c.config, c.args, code, c.code, out, errs)
		}
	}
	if code, out := d.runAs(nil, d.cli, "start", "-c", "no-such-configuration"); code != 2 || !strings.HasPrefix(out, "sentryd: ") {
		t.Errorf("start of no configuration: exit code %d\n%s", code, out)
	}
}

// TestEveryMistakeIsReported runs `sentryd check` on the configurations that
// pkg/config's tests have.
func TestEveryMistakeIsReported(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bad")
	if err := os.CopyFS(dir, os.DirFS("../pkg/config/testdata/bad")); err != nil {
		t.Fatal(err)
	}
	configs, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(configs) == 0 {
		t.Fatalf("no configurations: %v", err)
	}
	bin := docsBinary(t)
	for _, c := range configs {
		want, err := os.ReadFile(strings.TrimSuffix(c, ".yaml") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"check", "start"} {
			cmd := exec.Command(bin, command, "-c", c)
			var out, errs strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &errs
			code := exitCodeOf(cmd.Run())
			if got := strings.ReplaceAll(errs.String(), dir+"/", ""); code != 2 || out.String() != "" || got != string(want) {
				t.Errorf("%s of %s: exit code %d\n%s%swant\n%s", command, filepath.Base(c), code, out.String(), got, want)
			}
		}
	}
}
