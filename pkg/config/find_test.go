package config

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDirs(t *testing.T) {
	for _, test := range []struct {
		root      bool
		home, xdg string
		want      []string
	}{
		{true, "/root", "/ignored", []string{"/etc/sentryd", "/root/.sentryd/conf"}},
		{false, "/home/u", "", []string{"/home/u/.config/sentryd", "/home/u/.sentryd/conf"}},
		{false, "/home/u", "/xdg", []string{"/xdg/sentryd", "/home/u/.sentryd/conf"}},
		{false, "/home/u", "relative", []string{"/home/u/.config/sentryd", "/home/u/.sentryd/conf"}},
		{false, "", "", nil},
	} {
		if diff := cmp.Diff(test.want, Dirs(test.root, test.home, test.xdg)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test, diff)
		}
	}
}

func TestFind(t *testing.T) {
	dir := write(t, map[string]string{"a/": "", "a/web.yaml": "", "b/web.yaml": "", "b/sentry.yaml": ""})
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, test := range []struct{ x, want string }{
		{"web", a + "/web.yaml"},
		{"", b + "/sentry.yaml"},
		{"./web", "./web"},
		{"web.yaml", "web.yaml"},
		{"web.yml", "web.yml"},
	} {
		if got, err := Find(test.x, []string{a, b}); got != test.want || err != nil {
			t.Errorf("%q: %q, %v, want %q", test.x, got, err, test.want)
		}
	}
	for x, want := range map[string]string{
		"nope": `configuration "nope" not found: no nope.yaml in ` + a + ", " + b,
		"-x":   `configuration "-x" is not a name`,
	} {
		if got, err := Find(x, []string{a, b}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %q, %v, want %s", x, got, err, want)
		}
	}
}

func TestNameOf(t *testing.T) {
	for path, want := range map[string]string{
		"/etc/sentryd/web.yaml": "web", "web.yml": "web", "./my.app.yaml": "my.app", "./web": "web",
		"/etc/.yaml": "", "/etc/a b.yaml": "", strings.Repeat("x", 64) + ".yaml": "",
	} {
		if got, err := NameOf(path); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", path, got, err, want)
		}
	}
}

func TestSignals(t *testing.T) {
	for text, want := range map[string]Signal{
		"TERM": 15, "SIGTERM": 15, "sigterm": 15, "term": 15, "15": 15, "KILL": 9, "IOT": 6, "CLD": 17, "POLL": 29,
		"RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX": 64, "RTMAX-1": 63, "SIGRTMIN+30": 64, "34": 34, "64": 64, "1": 1,
	} {
		if got, err := ParseSignal(text); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "SIG", "0", "-1", "015", "32", "33", "65", "1e1", "NOPE", "RTMIN3", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMIN+", "RTMIN+03", "SIGSIGTERM"} {
		if got, err := ParseSignal(text); err == nil {
			t.Errorf("%q: accepted as %d", text, got)
		}
	}
	for s := Signal(1); s <= 64; s++ {
		if s == 32 || s == 33 {
			continue
		}
		if got, err := ParseSignal(s.String()); got != s || err != nil {
			t.Errorf("%v: %d, %v", s, got, err)
		}
	}
	if got := Signal(33).String(); got != "signal 33" {
		t.Errorf("33 is %q", got)
	}
}
