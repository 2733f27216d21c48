package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSecretsStaySecret: no value of an environment is in anything that the
// daemon shows, to anybody, when it works and when it does not. A line number
// and a name tell what is wrong.
func TestSecretsStaySecret(t *testing.T) {
	const inherited, written, filed = "sesame-inherited-1", "sesame-written-2", "sesame-filed-3"
	configuration := func(further string) string {
		return fmt.Sprintf(`http: {listen: '127.0.0.1:0'}
entries:
  dummy:
    command: sleep 1000
    environment: {TOKEN: %q, COMBINED: "$(FILED)"}
    env_file: secret.env
  fails:
    command: [/nonexistent/program, $(FILED), $(INHERITED)]
    env_file: secret.env
  failspath:
    command: [/nonexistent/$(FILED)]
    env_file: secret.env
  failsname:
    command: [$(FILED)]
    env_file: secret.env
  failsdir:
    command: "true"
    directory: /nonexistent/$(INHERITED)
  undefined:
    command: [sleep, "$(FILED)$(NOT_THERE)"]
    env_file: secret.env
`, written) + further
	}
	dir := t.TempDir()
	env := filepath.Join(dir, "secret.env")
	replaceFile(t, env, "FILED="+filed+"\n", 0o600)
	d := startDaemon(t, configuration(""), options{dir: dir, env: []string{"INHERITED=" + inherited}})
	d.running("dummy", 1)
	d.await("what cannot start has been tried", func(s *state) bool {
		for _, name := range []string{"fails", "failspath", "failsname", "failsdir", "undefined"} {
			if p := s.process(name, 0); p.LastExit == nil || p.LastExit.Reason != "start_failed" {
				return false
			}
		}
		return true
	})
	shown := map[string]string{}
	c := clientAs(t, nil, d.runtimeFile("control.sock"))
	look := func(when string) {
		for _, r := range append([]request{{method: "GET", path: "/v1/diff"}, {method: "GET", path: "/v1/entries/fails"}, {method: "GET", path: "/v1/entries/absent"}}, reads...) {
			_, shown[when+" "+r.path] = d.send(c, r)
		}
		for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"diff"}, {"diff", "-o", "json"}, {"check"}, {"reload"}} {
			_, out, errs := d.ctl(args...)
			shown[when+" "+strings.Join(args, " ")] = out + errs
		}
	}
	look("at first")

	// Every value changes; a diff and a reload say so by the keys.
	replaceFile(t, env, "FILED="+filed+"\nMORE="+filed+"\n", 0o600)
	d.configure(configuration("    environment: {LATE: " + written + "}\n"))
	look("after a change")
	if diff := shown["after a change diff"]; !strings.Contains(diff, "restart  dummy (env_file)") || !strings.Contains(diff, "restart  undefined (environment, env_file)") {
		t.Errorf("the diff is\n%s", diff)
	}

	// Mistakes next to secrets.
	for _, text := range []string{
		"FILED " + filed + "\n", "9X=" + filed + "\n", "FILED=\"" + filed + "\n", "FILED='" + filed + "\n", "export " + filed + "\n",
	} {
		replaceFile(t, env, text, 0o600)
		look("with env_file " + text[:5])
	}
	replaceFile(t, env, "FILED="+filed+"\n", 0o600)
	for _, mistake := range []string{
		"    environment: {TOKEN: [" + written + "]}\n", "    environment: {TOKEN: {a: " + written + "}}\n",
		"    environment: [TOKEN=" + written + "]\n", "    environment: TOKEN=" + written + "\n",
		"    environment: {TOKEN: \"$(" + written + "\"}\n", "    environment: {TOKEN: \"" + written + "\\0\"}\n",
		"    environment: {TOKEN: \"$(" + written + " )\"}\n",
	} {
		d.configure(configuration(mistake))
		look(mistake)
		if code, _, _ := d.ctl("check"); code != 2 {
			t.Errorf("check takes %s", mistake)
		}
	}

	d.configure(configuration(""))
	d.signal(unix.SIGUSR2)
	d.reexec()
	for _, r := range changes[:8] {
		status, body := d.send(c, r)
		if status == http.StatusInternalServerError {
			t.Errorf("%+v: %d %s", r, status, body)
		}
		shown[r.path+r.json] = body
	}
	look("at the end")
	d.stop()
	shown["standard output"], shown["standard error"] = d.out.String(), d.log.String()

	for what, text := range shown {
		if strings.Contains(text, "sesame") {
			at := max(strings.Index(text, "sesame")-300, 0)
			t.Errorf("%s: has a secret: …%.400s", what, text[at:])
		}
	}
	if files, err := filepath.Glob(filepath.Join(d.run, "test", "*")); err == nil {
		for _, f := range files {
			if text, err := os.ReadFile(f); err == nil && strings.Contains(string(text), "sesame") {
				t.Errorf("%s has a secret", f)
			}
		}
	}
}
