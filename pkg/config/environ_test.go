package config

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// startOf parses one entry "a" and starts slot 2, incarnation 7 of it.
func startOf(t *testing.T, keys string, inherited ...string) (Start, error) {
	t.Helper()
	return templateOf(t, keys, inherited...).Start(2, 7)
}

func templateOf(t *testing.T, keys string, inherited ...string) *Template {
	t.Helper()
	c, err := Parse("/etc/sentryd/test.yaml", []Source{
		{"/etc/sentryd/test.yaml", []byte("entries:\n  a:\n    " + strings.ReplaceAll(keys, "\n", "\n    "))},
		{"/etc/sentryd/a.env", []byte("FILE=from file\nBOTH=file\nPATH=/file/bin\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c.Entry("a").Template("test", inherited)
}

var own = []string{"SENTRYD_NAME=test", "SENTRYD_ENTRY=a"}

func TestStart(t *testing.T) {
	last, inc := []string{"SENTRYD_SLOT=2"}, "SENTRYD_INCARNATION=7"
	for _, test := range []struct {
		name, keys string
		inherited  []string
		want       Start
	}{{
		"nothing to expand", "command: sleep 4", []string{"HOME=/root"},
		Start{"sleep", []string{"sleep", "4"}, slices.Concat([]string{"HOME=/root"}, own, last), inc, ""},
	}, {
		"order of the environment",
		"command: x\nenv_file: a.env\nenvironment: {BOTH: 'own', PATH: '/own/bin:$(PATH)', Z: '$(BOTH) $(FILE)'}",
		[]string{"PATH=/bin", "HOME=/root", "HOME=/second", "junk", "SENTRYD_SLOT=9", "SENTRYD_NAME=outer"},
		Start{"x", []string{"x"}, slices.Concat([]string{
			"PATH=/own/bin:/file/bin", "HOME=/root", "SENTRYD_NAME=test", "FILE=from file", "BOTH=own", "SENTRYD_ENTRY=a",
			"Z=file from file"}, last), inc, ""},
	}, {
		"clean", "command: x\nclean_env: true\nenvironment: {A: b}", []string{"PATH=/bin"},
		Start{"x", []string{"x"}, slices.Concat(own, []string{"A=b"}, last), inc, ""},
	}, {
		"sentryd's own win", "command: x\nenvironment: {SENTRYD_SLOT: '5', SENTRYD_NAME: y}", nil,
		Start{"x", []string{"x"}, slices.Concat(own, last), inc, ""},
	}, {
		"slot and incarnation",
		"command: ./serve\nargs: ['--port=80$(SENTRYD_SLOT)', '$(SENTRYD_ENTRY).$(SENTRYD_INCARNATION)']\ndirectory: data/$(SENTRYD_SLOT)\nenvironment: {PORT: '80$(SENTRYD_SLOT)'}", nil,
		Start{"/etc/sentryd/data/2/serve", []string{"./serve", "--port=802", "a.7"}, slices.Concat(own, []string{"PORT=802"}, last), inc, "/etc/sentryd/data/2"},
	}, {
		"list command", "command: ['$(SHELL)', -c, 'echo $$(date) $$HOME $HOME $']", []string{"SHELL=/bin/sh"},
		Start{"/bin/sh", []string{"/bin/sh", "-c", "echo $(date) $HOME $HOME $"}, slices.Concat([]string{"SHELL=/bin/sh"}, own, last), inc, ""},
	}, {
		"expanded once, not split", "command: echo $(A)", []string{"A=$(B) c"},
		Start{"echo", []string{"echo", "$(B) c"}, slices.Concat([]string{"A=$(B) c"}, own, last), inc, ""},
	}, {
		"relative program without a directory", "command: bin/x", nil,
		Start{"/etc/sentryd/bin/x", []string{"bin/x"}, slices.Concat(own, last), inc, ""},
	}, {
		"absolute directory from a variable", "command: x\ndirectory: $(HOME)/d", []string{"HOME=/home/u"},
		Start{"x", []string{"x"}, slices.Concat([]string{"HOME=/home/u"}, own, last), inc, "/home/u/d"},
	}} {
		t.Run(test.name, func(t *testing.T) {
			got, err := startOf(t, test.keys, test.inherited...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("start differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUndefined(t *testing.T) {
	for _, test := range []struct {
		keys string
		want UndefinedError
	}{
		{"command: $(NOPE)", UndefinedError{"command", "NOPE"}},
		{"command: x\nargs: [a, '$(NOPE)']", UndefinedError{"args[1]", "NOPE"}},
		{"command: x\ndirectory: $(NOPE)", UndefinedError{"directory", "NOPE"}},
		{"command: x\nenvironment: {A: '1', B: '$(A)'}", UndefinedError{"environment.B", "A"}}, // not against itself
		{"command: x\nclean_env: true\nenvironment: {B: '$(PATH)'}", UndefinedError{"environment.B", "PATH"}},
	} {
		_, err := startOf(t, test.keys, "PATH=/bin")
		var undefined *UndefinedError
		if !errors.As(err, &undefined) || *undefined != test.want {
			t.Errorf("%q: error is %v, want %v", test.keys, err, &test.want)
		}
	}
	if _, err := startOf(t, "command: $(EMPTY)", "EMPTY="); err == nil {
		t.Error("a program without a name was accepted")
	}
}

// TestUncheckedEntry: an Entry that no file was read for must not bring the
// daemon down.
func TestUncheckedEntry(t *testing.T) {
	e := &Entry{Name: "a", Command: []string{"$("}}
	if _, err := e.Template("test", nil).Start(0, 1); err == nil {
		t.Error("accepted")
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "$(A)", "$(", "$()", "a$(A)$$$(B)b$", "$$(A)", "$(A B)", "$(SENTRYD_SLOT)"} {
		f.Add(s, "value")
	}
	f.Fuzz(func(t *testing.T, s, v string) {
		p, err := parsePattern(s)
		if err != nil {
			if !strings.Contains(s, "$(") {
				t.Fatalf("%q has no bracket: %v", s, err)
			}
			return
		}
		if len(p.text) != len(p.names)+1 {
			t.Fatalf("%q: %d texts for %d names", s, len(p.text), len(p.names))
		}
		text, ok := p.bind(func(string) (string, bool) { return v, true }).constant()
		if !ok {
			t.Fatalf("%q: something is left to bind", s)
		}
		if !strings.Contains(s, "$") && text != s {
			t.Fatalf("%q became %q", s, text)
		}
		// Doubling every $ is the way to say exactly s.
		p, err = parsePattern(strings.ReplaceAll(s, "$", "$$"))
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := p.constant(); !ok || text != s {
			t.Fatalf("%q escaped became %q", s, text)
		}
	})
}

// TestSteady: what the next incarnation is started with differs in Last alone just where the
// template is steady.
func TestSteady(t *testing.T) {
	for keys, steady := range map[string]bool{
		"command: x":                                                 true,
		"command: x\nargs: [$(SENTRYD_SLOT)]":                        true,
		"command: x\nenvironment: {A: b, Z: c}":                      true,
		"command: $(SENTRYD_INCARNATION)":                            false,
		"command: x\nargs: [a$(SENTRYD_INCARNATION)]":                false,
		"command: x\ndirectory: /srv/$(SENTRYD_INCARNATION)":         false,
		"command: x\nenvironment: {A: $(SENTRYD_INCARNATION), B: c}": false,
	} {
		tmpl := templateOf(t, keys, "PATH=/bin", "HOME=/root")
		first, err := tmpl.Start(2, 7)
		if err != nil {
			t.Fatal(err)
		}
		second, err := tmpl.Start(2, 12)
		if err != nil {
			t.Fatal(err)
		}
		if tmpl.Steady() != steady {
			t.Errorf("%q: steady: %t", keys, tmpl.Steady())
		}
		first.Last = Incarnation(12)
		if cmp.Equal(first, second) != steady {
			t.Errorf("%q: %s", keys, cmp.Diff(first, second))
		}
	}
}

func BenchmarkStart(b *testing.B) {
	c, err := parseOne("entries: {a: {command: 'sleep 4', environment: {PORT: '80$(SENTRYD_SLOT)'}}}")
	if err != nil {
		b.Fatal(err)
	}
	inherited := make([]string, 30)
	for i := range inherited {
		inherited[i] = "VARIABLE_" + string(rune('A'+i)) + "=some value"
	}
	t := c.Entry("a").Template("test", inherited)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := t.Start(3, 12345); err != nil {
			b.Fatal(err)
		}
	}
}

func TestShown(t *testing.T) {
	inherited := []string{"SECRET=sesame", "PROG=prog"}
	for _, test := range []struct{ keys, path, want string }{
		{"command: /opt/$(SECRET)/x", "/opt/sesame/x", "/opt/$(SECRET)/x"},
		{"command: x\ndirectory: /srv/$(SECRET)", "/srv/sesame", "/srv/$(SECRET)"},
		{"command: bin/x\ndirectory: $(SECRET)", "/etc/sentryd/sesame/bin/x", "/etc/sentryd/$(SECRET)/bin/x"},
		{"command: bin/$(SECRET)", "/etc/sentryd/bin/sesame", "/etc/sentryd/bin/$(SECRET)"},
		{"command: $(PROG)", "prog", "$(PROG)"},
		{"command: $(PROG)", "/usr/bin/prog", "/usr/bin/$(PROG)"},
		{"command: x\ndirectory: /srv/$(SENTRYD_ENTRY).$(SENTRYD_SLOT).$(SENTRYD_INCARNATION)", "/srv/a.2.7", "/srv/a.2.7"},
		{"command: /opt/x", "/lib/ld.so", "/lib/ld.so"},
		{"command: $(NOPE)", "/lib/ld.so", "/lib/ld.so"},
	} {
		got := templateOf(t, test.keys, inherited...).Shown(2, 7, test.path)
		if got != test.want {
			t.Errorf("%q: %s, want %s", test.keys, got, test.want)
		}
	}
}
