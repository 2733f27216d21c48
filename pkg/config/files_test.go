package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// write makes files below a new directory; a name that ends in / is a directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestLoadAndParseAgree loads a configuration of several files, then parses
// what was recorded with the files gone.
func TestLoadAndParseAgree(t *testing.T) {
	dir := write(t, map[string]string{
		"main.yaml":         "include: [conf.d/*.yaml, 'conf.d/[ab].yaml', sub/*/x.yaml, nothing/*.yaml, extra.yml, '*.yaml']\nentries: {m: {command: x, env_file: m.env}}\n",
		"conf.d/b.yaml":     "entries: {b: {command: x, env_file: conf.d/b.env}}\n",
		"conf.d/a.yaml":     "entries: {a: {command: x, env_file: m.env}}\n",
		"conf.d/.#a.yaml":   "an editor's lock\n",
		"conf.d/a.yaml.bak": "a copy\n",
		"sub/1/x.yaml":      "entries: {s1: {command: x}}\n",
		"sub/2/x.yaml":      "entries: {s2: {command: x}}\n",
		"sub/3/":            "",
		"extra.yml":         "entries: {e: {command: x}}\n",
		"m.env":             "A=m\n",
		"conf.d/b.env":      "A=b\n",
	})
	path := filepath.Join(dir, "main.yaml")
	loaded, err := Load(path, Options{RequireOwner: -1})
	if err != nil {
		t.Fatal(err)
	}
	var names, sources []string
	for _, e := range loaded.Entries {
		names = append(names, e.Name)
	}
	for _, s := range loaded.Sources {
		name, err := filepath.Rel(dir, s.Path)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, name)
	}
	if diff := cmp.Diff([]string{"a", "b", "e", "m", "s1", "s2"}, names); diff != "" {
		t.Errorf("entries differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"main.yaml", "m.env", "conf.d/a.yaml", "conf.d/b.yaml", "conf.d/b.env", "sub/1/x.yaml", "sub/2/x.yaml", "extra.yml"}, sources); diff != "" {
		t.Errorf("sources differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]KV{{"A", "b"}}, loaded.Entry("b").EnvFileVars); diff != "" {
		t.Errorf("env file differs (-want +got):\n%s", diff)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	parsed, err := Parse(path, loaded.Sources)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(loaded, parsed, cmpopts.IgnoreUnexported(Entry{})); diff != "" {
		t.Errorf("parsed differs from loaded (-loaded +parsed):\n%s", diff)
	}
	if changes := Compare(loaded, parsed); changes.Any() {
		t.Errorf("parsed and loaded differ: %+v", changes)
	}
}

// TestNotAFile: what is no regular file of bounded size is refused at once.
func TestNotAFile(t *testing.T) {
	dir := write(t, map[string]string{"dir.yaml/": "", "large.yaml": strings.Repeat("#", maxFileSize+1)})
	fifo := filepath.Join(dir, "fifo.yaml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "dir.yaml"):   "is a directory",
		filepath.Join(dir, "large.yaml"): "is larger than 4 MiB",
		filepath.Join(dir, "gone.yaml"):  "no such file or directory",
		fifo:                             "is not a regular file",
		"/dev/zero":                      "is not a regular file",
	} {
		_, err := Load(path, Options{RequireOwner: -1})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestUnreadableIncludeIsNotEmpty(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs a plain user: root reads every directory")
	}
	dir := write(t, map[string]string{"main.yaml": "include: [d/*.yaml]\nentries: {}\n", "d/": ""})
	if err := os.Chmod(filepath.Join(dir, "d"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(filepath.Join(dir, "main.yaml"), Options{RequireOwner: -1}); err == nil {
		t.Error("accepted")
	}
}

// TestRequireOwner uses the present user in root's place.
func TestRequireOwner(t *testing.T) {
	uid := os.Geteuid()
	files := map[string]string{
		"d/main.yaml": "include: [../i/i.yaml]\nentries: {a: {command: x, env_file: ../e/e.env}}\n",
		"i/i.yaml":    "entries: {}\n", "e/e.env": "",
	}
	for _, test := range []struct {
		name, path string
		mode       os.FileMode
		want       string // "" for right
	}{
		{"as it should be", "d", 0o755, ""},
		{"file", "d/main.yaml", 0o664, "d/main.yaml: must not be writable by its group or others (mode 0664)"},
		{"directory", "d", 0o777, "d/main.yaml: its directory %/d must not be writable by its group or others (mode 0777)"},
		{"sticky directory", "d", 0o777 | os.ModeSticky, ""},
		{"include", "i/i.yaml", 0o666, "d/main.yaml:1: include[0]: %/i/i.yaml: must not be writable by its group or others (mode 0666)"},
		{"its directory", "i", 0o775, "d/main.yaml:1: include[0]: %/i/i.yaml: its directory %/i must not be writable by its group or others (mode 0775)"},
		{"env file", "e/e.env", 0o602, "d/main.yaml:2: entries.a.env_file: %/e/e.env: must not be writable by its group or others (mode 0602)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := write(t, files)
			if err := os.Chmod(filepath.Join(dir, test.path), test.mode); err != nil {
				t.Fatal(err)
			}
			_, err := Load(filepath.Join(dir, "d/main.yaml"), Options{RequireOwner: uid})
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			want := dir + "/" + strings.ReplaceAll(test.want, "%", dir)
			if err == nil || err.Error() != want {
				t.Errorf("error differs:\n got %v\nwant %s", err, want)
			}
		})
	}
	t.Run("another user's", func(t *testing.T) {
		dir := write(t, files)
		_, err := Load(filepath.Join(dir, "d/main.yaml"), Options{RequireOwner: uid + 1})
		if err == nil || !strings.Contains(err.Error(), "must belong to uid") {
			t.Error(err)
		}
	})
	t.Run("link out of an open directory", func(t *testing.T) {
		dir := write(t, files)
		link := filepath.Join(dir, "link.yaml")
		if err := os.Symlink("d/main.yaml", link); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, "d"), 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(link, Options{RequireOwner: uid}); err == nil {
			t.Error("accepted")
		}
	})
}

func TestCheckOwner(t *testing.T) {
	path := filepath.Join(write(t, map[string]string{"d/program": ""}), "d/program")
	if err := CheckOwner(path, os.Geteuid()); err != nil {
		t.Error(err)
	}
	if err := CheckOwner(path, os.Geteuid()+1); err == nil {
		t.Error("another user's was accepted")
	}
	if err := CheckOwner(path+"x", os.Geteuid()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := CheckOwner(path, os.Geteuid()); err == nil {
		t.Error("in a directory that anybody writes to it was accepted")
	}
}

func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("entries: {a: {command: &c x, stop: {signal: RTMAX-1}, environment: {A: $(B)}}, b: {command: *c}}"))
	f.Add([]byte("\r0"))
	f.Add([]byte("control: {users: [a, 1], groups: [b]}\nentries: {}\n---\nentries: {}\n"))
	f.Add([]byte("include: ['*']\ndefaults: {env_file: a.env}\nentries: {}\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		const path = "/etc/sentryd/fuzz.yaml"
		c, err := Parse(path, []Source{{path, data}})
		if err == nil {
			for _, e := range c.Entries {
				if len(e.Command) == 0 || e.Count < 0 || e.Count > MaxCount || e.Delay < 0 || e.Line < 1 {
					t.Fatalf("impossible entry %+v", e)
				}
				var undefined *UndefinedError
				if _, err := e.Template(c.Name, nil).Start(0, 1); err != nil && !errors.As(err, &undefined) && !strings.Contains(err.Error(), "names no program") {
					t.Fatal(err)
				}
			}
			if Compare(c, c).Any() {
				t.Fatal("differs from itself")
			}
			return
		}
		lines := 1 + strings.Count(string(data), "\n")
		for _, other := range []string{"\r", "\u0085", "\u2028", "\u2029"} { // they end a line in YAML 1.1
			lines += strings.Count(string(data), other)
		}
		for _, e := range err.(Errors) {
			if e.Line < 1 || e.Line > lines || e.File != path {
				t.Fatalf("line %d of %d: %v", e.Line, lines, e)
			}
			if strings.ContainsAny(e.Error(), "\n\r\x00\x1b") {
				t.Fatalf("not one clean line: %q", e.Error())
			}
		}
	})
}
