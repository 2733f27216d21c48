package lint

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sentryd/sentryd"

var update = flag.Bool("update", false, "write the import table into doc/DESIGN.md")

// A row of the import table says whom one package may know, by what its files
// import directly; tests may import what they like. All of the standard library
// is allowed but for what bans names, unless std lists what is.
type row struct {
	pkg     string   // below the module; "…" at the end stands for all below
	what    string   // the purpose, in one phrase
	sentryd []string // packages of this module, below it; "*" is any
	modules []string // packages of other modules, by prefix; "*" is any
	std     []string // when set, no more of the standard library than this
	bans    []ban
}

// A ban is one thing that a package must not know, and why.
type ban struct{ what, why string }

const (
	leaf       = "a leaf knows nothing of supervision: it is tested alone, and of use to others"
	noDecision = "it tells who descends from whom; who starts, signals and restarts them is not its concern"
	noServer   = "the edge publishes a picture; who shows it, and how, is not its concern"
	noEdge     = "it reads the published picture and nothing else, so that no reader can hold up or change the machine"
)

func importTable() []row {
	leafBans := []ban{{"pkg/", leaf}}
	return []row{
		{pkg: "pkg/procevents", what: "hears the kernel's proc connector", modules: []string{"github.com/mdlayher/netlink", "golang.org/x/sys"}, bans: leafBans},
		{pkg: "pkg/spawn", what: "starts, signals and reaps children", modules: []string{"golang.org/x/sys"}, bans: leafBans},
		// Its events are procevents' types; x/sys reads the clock that they carry.
		{pkg: "pkg/lineage", what: "keeps who descends from which program", sentryd: []string{"pkg/procevents"}, modules: []string{"golang.org/x/sys"},
			bans: []ban{{"pkg/supervisor", noDecision}, {"pkg/supervisor/fsm", noDecision}, {"pkg/spawn", noDecision}, {"os/exec", noDecision}}},
		{pkg: "pkg/state", what: "saves state and hands it through execve", modules: []string{"golang.org/x/sys"}, bans: leafBans},
		{pkg: "pkg/config", what: "turns YAML into a checked configuration", modules: []string{"gopkg.in/yaml.v3", "github.com/kballard/go-shellquote"}, bans: leafBans},
		{pkg: "pkg/logs", what: "carries children's output", modules: []string{"golang.org/x/sys"}, bans: leafBans},
		{pkg: "pkg/fdstore", what: "has a service manager keep descriptors while a daemon is dead", modules: []string{"golang.org/x/sys"}, bans: leafBans},
		{pkg: "pkg/sockets", what: "opens and keeps the sockets that children are started with", modules: []string{"golang.org/x/sys"}, bans: leafBans},
		{pkg: "pkg/procinfo", what: "reads CPU, memory and descriptors of processes", modules: []string{"github.com/prometheus/procfs"}, bans: leafBans},
		{pkg: "pkg/peer", what: "says which uid is at the other end", modules: []string{"github.com/mdlayher/netlink", "golang.org/x/sys"}, bans: leafBans},
		{pkg: "pkg/view", what: "the published picture: types only",
			bans: []ban{{"os", "types do nothing"}, {"net", "types do nothing"}, {"sync", "a picture is never written again, so it needs no lock"}, {"pkg/", "everybody may import it, so it imports nobody"}}},
		{pkg: "pkg/supervisor/fsm", what: "decides", std: []string{"cmp", "container/heap", "encoding/binary", "errors", "fmt", "hash/fnv", "hash/maphash", "iter", "maps", "math", "math/bits", "slices", "sort", "strconv", "strings", "time"},
			bans: []ban{
				{"os", "the machine reads no file"}, {"net", "the machine talks to nobody"}, {"syscall", "the machine makes no system call"},
				{"sync", "one goroutine owns the machine"}, {"context", "nothing in the machine waits"},
				{"log/slog", "the machine tells what it did by its actions"}, {"math/rand", "same events, same transcript: jitter is a hash"},
				{"pkg/", "the edge translates, so that the machine is tested without any of it"},
			}},
		{pkg: "pkg/supervisor", what: "runs the owner goroutine and publishes the view",
			sentryd: []string{"pkg/supervisor/fsm", "pkg/view", "pkg/procevents", "pkg/spawn", "pkg/lineage", "pkg/state", "pkg/config", "pkg/logs", "pkg/sockets"},
			modules: []string{"golang.org/x/sys"},
			bans:    []ban{{"pkg/api", noServer}, {"pkg/metrics", noServer}, {"net/http", noServer}, {"github.com/prometheus", noServer}}},
		{pkg: "pkg/metrics", what: "shows the view as Prometheus metrics", sentryd: []string{"pkg/view"}, modules: []string{"github.com/prometheus/client_golang", "github.com/prometheus/client_model", "github.com/prometheus/common"},
			bans: []ban{{"pkg/supervisor", noEdge}, {"pkg/supervisor/fsm", noEdge}, {"pkg/spawn", noEdge}}},
		{pkg: "pkg/api", what: "HTTP server, Go client and their wire types", sentryd: []string{"pkg/view", "pkg/peer"}, modules: []string{"golang.org/x/sys"},
			bans: []ban{{"pkg/supervisor", noEdge}, {"pkg/supervisor/fsm", noEdge}, {"pkg/spawn", noEdge}, {"github.com/prometheus", "the metrics are a handler that main passes in"}}},
		{pkg: "cmd/sentryd", what: "commands and wiring", sentryd: []string{"*"}, modules: []string{"*"}},
		{pkg: "bench/…", what: "measures the built binary", modules: []string{"golang.org/x/sys"}, bans: []ban{{"pkg/", "what is measured is the binary, as a user has it"}}},
		{pkg: "integration/…", what: "tests the built binary", sentryd: []string{"internal/testenv"}, modules: []string{"*"}},
		{pkg: "internal/testenv", what: "says what a test needs of the host", modules: []string{"golang.org/x/sys"}, bans: leafBans},
		{pkg: "internal/verdict", what: "judges go test's stream and its skips", bans: leafBans},
		{pkg: "internal/gotest", what: "runs go test", sentryd: []string{"internal/verdict"}, bans: leafBans},
		{pkg: "internal/vmtest/…", what: "runs tests under other kernels", sentryd: []string{"internal/verdict", "internal/testenv"}, modules: []string{"golang.org/x/sys"}, bans: leafBans},
		{pkg: "lint", what: "holds these rules", bans: leafBans},
	}
}

// unsafeUsers may import unsafe, each for a kernel structure that x/sys does
// not wrap. All others have no business with it.
var unsafeUsers = map[string]string{
	"pkg/spawn":      "clone3, the child's steps up to exec, waitid with rusage",
	"pkg/procevents": "recvmmsg, SO_MEMINFO",
	"pkg/peer":       "SO_PEERGROUPS",
	"pkg/logs":       "words in mapped memory that are written with one instruction",
	"pkg/state":      "rt_sigaction, to ignore SIGHUP over execve without a word to os/signal",
	"bench/…":        "a page shared with the children, futex, waitid",
}

// A listed is what go list says of a package.
type listed struct {
	ImportPath string
	Imports    []string
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Imports"}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var pkgs []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("decode go list's output: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestImports(t *testing.T) {
	for _, p := range goList(t, "./...") {
		pkg := strings.TrimPrefix(p.ImportPath, module+"/")
		r := rowOf(pkg)
		if r == nil {
			t.Errorf("%s is not in the import table: add a row to lint/imports_test.go, then go test ./lint -update", pkg)
			continue
		}
		for _, imported := range p.Imports {
			if why := r.refuses(strings.TrimPrefix(imported, module+"/"), imported); why != "" {
				t.Errorf("%s imports %s: %s\n\tinstead: declare a small interface in %s and let cmd/sentryd pass the thing in; if the table is wrong, change it deliberately, with the reason",
					pkg, imported, why, pkg)
			}
		}
	}
}

func rowOf(pkg string) *row {
	table := importTable()
	for i := range table {
		r := &table[i]
		if base, all := strings.CutSuffix(r.pkg, "/…"); r.pkg == pkg || all && (pkg == base || strings.HasPrefix(pkg, base+"/")) {
			return r
		}
	}
	return nil
}

// refuses returns why the package may not import that path, or "". The name is
// the path without the module, if it is of this module.
func (r *row) refuses(name, path string) string {
	own := name != path
	for _, b := range r.bans {
		if name == b.what || !own && strings.HasPrefix(name, b.what+"/") {
			return b.why
		}
	}
	switch {
	case own:
		for _, s := range r.sentryd {
			if s == "*" || s == name {
				return ""
			}
		}
		if base, all := strings.CutSuffix(r.pkg, "/…"); all && strings.HasPrefix(name, base+"/") {
			return ""
		}
		for _, b := range r.bans {
			if strings.HasSuffix(b.what, "/") && strings.HasPrefix(name, b.what) {
				return b.why
			}
		}
		return "the import table does not have it"
	case path == "C":
		return "cgo: sentryd is one static binary"
	case path == "unsafe":
		if unsafeUsers[r.pkg] == "" {
			return "unsafe is for the packages in unsafeUsers, each with its reason"
		}
	case !strings.Contains(strings.SplitN(path, "/", 2)[0], "."): // of the standard library
		if r.std == nil {
			return ""
		}
		for _, s := range r.std {
			if s == path {
				return ""
			}
		}
		return "only pure packages of the standard library, and of those the listed ones"
	default:
		for _, m := range r.modules {
			if m == "*" || path == m || strings.HasPrefix(path, m+"/") {
				return ""
			}
		}
		return "the import table does not have that module"
	}
	return ""
}

func TestImportSamples(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		ok            bool
	}{
		{"pkg/spawn", "golang.org/x/sys/unix", true},
		{"pkg/spawn", "unsafe", true},
		{"pkg/view", "unsafe", false},
		{"pkg/spawn", module + "/pkg/logs", false},
		{"pkg/supervisor/fsm", "time", true},
		{"pkg/supervisor/fsm", "os", false},
		{"pkg/supervisor/fsm", "os/signal", false},
		{"pkg/supervisor/fsm", "math/rand/v2", false},
		{"pkg/supervisor/fsm", "io", false},
		{"pkg/supervisor", "net/http", false},
		{"pkg/supervisor", module + "/pkg/supervisor/fsm", true},
		{"pkg/api", module + "/pkg/supervisor", false},
		{"pkg/api", module + "/pkg/view", true},
		{"pkg/config", "github.com/kballard/go-shellquote", true},
		{"pkg/config", "github.com/spf13/cobra", false},
		{"cmd/sentryd", "github.com/spf13/cobra", true},
		{"bench/floorgo", "golang.org/x/sys/unix", true},
		{"pkg/logs", "C", false},
	} {
		why := rowOf(c.pkg).refuses(strings.TrimPrefix(c.imported, module+"/"), c.imported)
		if (why == "") != c.ok {
			t.Errorf("%s importing %s: refused with %q", c.pkg, c.imported, why)
		}
	}
}

// TestDesignShowsTheTable keeps the table in doc/DESIGN.md the one that is held.
func TestDesignShowsTheTable(t *testing.T) {
	const begin, end = "<!-- import table: begin (go test ./lint -update) -->\n", "<!-- import table: end -->"
	file := filepath.Join(root, "doc", "DESIGN.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the marks of the import table", file)
	}
	want := before + begin + tableMarkdown() + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(text) {
		t.Error("the import table of doc/DESIGN.md is not the one held: go test ./lint -update")
	}
}

// tableMarkdown is the table as doc/DESIGN.md shows it, the reasons below it.
func tableMarkdown() string {
	var b strings.Builder
	b.WriteString("| package | does | may import, besides the standard library | never |\n|---|---|---|---|\n")
	var reasons []string
	for _, r := range importTable() {
		may := append(append([]string(nil), r.sentryd...), r.modules...)
		for i, m := range may {
			switch m {
			case "*":
				m = "anything"
			default:
				m = "`" + strings.TrimPrefix(m, "pkg/") + "`"
			}
			may[i] = m
		}
		if r.std != nil {
			may = []string{"nothing, and of the standard library only `" + strings.Join(r.std, "`, `") + "`"}
		}
		if len(may) == 0 {
			may = []string{"–"}
		}
		var never []string
		for _, x := range r.bans {
			what := "`" + x.what + "`"
			if x.what == "pkg/" {
				what = "other packages of sentryd"
			}
			if !slices.Contains(reasons, x.why) {
				reasons = append(reasons, x.why)
			}
			never = append(never, fmt.Sprintf("%s [%d]", what, slices.Index(reasons, x.why)+1))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.pkg, r.what, strings.Join(slices.Compact(may), ", "), strings.Join(never, ", "))
	}
	b.WriteString("\n")
	for i, why := range reasons {
		fmt.Fprintf(&b, "%d. %s\n", i+1, why)
	}
	return b.String()
}
