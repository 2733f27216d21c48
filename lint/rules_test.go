package lint

import (
	"fmt"
	"go/ast"
	"strings"
)

// A rule is a ban that one file at a time can be held to.
type rule struct {
	name    string
	why     string
	instead string
	check   func(*source) []finding
	// except names files, or directories with a slash at their end, that may
	// break the rule, each with its reason.
	except map[string]string
	bad    []string // samples that must be caught, each a file: "PATH\nTEXT"
	good   []string // samples that must pass
}

func rules() []rule {
	return []rule{
		{
			name:    "no kill(2)",
			why:     "a pid is an attribute, not an identity: it may be a stranger's by the time the signal goes out, and -1 from a failed start would signal every process of the machine",
			instead: "signal through a pidfd (pkg/spawn, unix.PidfdSendSignal)",
			check: names(map[string][]string{
				"syscall":               {"Kill", "SYS_KILL", "SYS_TKILL", "SYS_TGKILL"},
				"golang.org/x/sys/unix": {"Kill", "Tgkill", "SYS_KILL", "SYS_TKILL", "SYS_TGKILL"},
				"os":                    {"FindProcess", "StartProcess"},
			}),
			bad: []string{
				"a/x.go\npackage a\nimport \"syscall\"\nfunc f() { syscall.Kill(1, 9) }",
				"a/x_test.go\npackage a\nimport \"golang.org/x/sys/unix\"\nfunc f() { unix.Syscall(unix.SYS_KILL, 1, 9, 0) }",
				"a/x.go\npackage a\nimport \"os\"\nfunc f() { os.FindProcess(1) }",
			},
			good: []string{"a/x.go\npackage a\nimport \"golang.org/x/sys/unix\"\nfunc f() { unix.PidfdSendSignal(3, 15, nil, 0) }"},
		},
		{
			name:    "os.Process signals nobody",
			why:     "os.Process falls back to kill(2) without a word where it has no pidfd",
			instead: "in a test, signal a child of your own that you have not waited for, as cmd.Process in a _test.go file that is listed here; elsewhere use pkg/spawn",
			check:   processSignals,
			except: map[string]string{
				"pkg/state/preflight.go": "below Linux 5.4, where there is no pidfd: a child of its own, not waited for",
				"integration/":           "starts the built binary and signals it as an operator would, not waited for",
			},
			bad: []string{
				"a/x.go\npackage a\nfunc f(cmd *C) { cmd.Process.Kill() }",
				"a/x_test.go\npackage a\nfunc f(cmd *C) { _ = cmd.Process.Signal(nil) }",
			},
			good: []string{"a/x.go\npackage a\nfunc f(p *Pool) { p.Signal(1) }"},
		},
		{
			name:    "no killing by name",
			why:     "a name is anybody's",
			instead: "keep the pidfd of what you start",
			check: literals(func(s string) bool {
				return s == "pkill" || s == "killall" || strings.HasPrefix(s, "pkill ") || strings.HasPrefix(s, "killall ")
			}),
			except: map[string]string{"lint/": "names them to ban them"},
			bad:    []string{"a/x_test.go\npackage a\nvar x = run(\"pkill\", \"-f\", \"sentryd\")"},
			good:   []string{"a/x_test.go\npackage a\nvar x = run(\"skill\")"},
		},
		{
			name:    "nothing reaps any child",
			why:     "a status taken by the wrong wait is lost to its owner",
			instead: "waitid(P_PIDFD) on the one child that is yours",
			check: names(map[string][]string{
				"syscall":               {"Wait4"},
				"golang.org/x/sys/unix": {"Wait4", "P_ALL", "P_PGID"},
			}),
			except: map[string]string{
				"internal/vmtest/guest/main.go": "is PID 1 of a machine of its own, where orphans are its to reap",
				"pkg/spawn/zombie.go":           "asks which child is to be reaped, with WNOWAIT: it reaps none",
				"pkg/procevents/kinds_test.go":  "waits for the ptrace stop of one child of its own, which waitid on a pidfd does not report",
			},
			bad:  []string{"a/x.go\npackage a\nimport \"syscall\"\nfunc f() { syscall.Wait4(-1, nil, 0, nil) }"},
			good: []string{"a/x.go\npackage a\nimport \"golang.org/x/sys/unix\"\nfunc f() { unix.Waitid(unix.P_PIDFD, 3, nil, 0, nil) }"},
		},
		{
			name:    "no sleep",
			why:     "a sleep is too short on a busy machine and too long on any other; whoever wants one lacks an event",
			instead: "wait on a channel, an event, a deadline or a state version",
			check:   names(map[string][]string{"time": {"Sleep"}}),
			bad:     []string{"a/x_test.go\npackage a\nimport \"time\"\nfunc f() { time.Sleep(1) }"},
			good:    []string{"a/x_test.go\npackage a\nimport \"time\"\nvar d = 2 * time.Second"},
		},
		{
			name:    "no clock in the machine",
			why:     "time is an input of the machine: that is what makes its transcripts repeat and its tests take microseconds",
			instead: "take now from Step, and give out a deadline",
			check: func(s *source) []finding {
				if !s.in("pkg/supervisor/fsm") || s.test {
					return nil
				}
				return selectors(s, func(pkg, name string) bool {
					switch name {
					case "Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour":
						return false
					}
					return pkg == "time"
				})
			},
			bad: []string{
				"pkg/supervisor/fsm/x.go\npackage fsm\nimport \"time\"\nvar t = time.Now()",
				"pkg/supervisor/fsm/x.go\npackage fsm\nimport \"time\"\nvar t = time.After(1)",
			},
			good: []string{"pkg/supervisor/fsm/x.go\npackage fsm\nimport \"time\"\nvar t = 3 * time.Second"},
		},
		{
			name:    "no concurrency in the machine",
			why:     "the machine is a value that one goroutine owns; the edge does what waits",
			instead: "return an action",
			check: func(s *source) (out []finding) {
				if !s.in("pkg/supervisor/fsm") || s.test {
					return nil
				}
				s.each(func(n ast.Node) {
					switch n.(type) {
					case *ast.GoStmt, *ast.SelectStmt, *ast.ChanType, *ast.SendStmt:
						out = append(out, finding{n.Pos(), fmt.Sprintf("%T", n)})
					}
				})
				return out
			},
			bad:  []string{"pkg/supervisor/fsm/x.go\npackage fsm\nfunc f() { go f() }", "pkg/supervisor/fsm/x.go\npackage fsm\nvar c chan int"},
			good: []string{"pkg/supervisor/x.go\npackage supervisor\nfunc f() { go f() }"},
		},
		{
			name:    "no init function",
			why:     "what runs before main cannot be tested, ordered or left out, and a re-exec'd image has to be listening for SIGHUP first of all",
			instead: "a constructor that main calls",
			check: func(s *source) (out []finding) {
				for _, d := range s.file.Decls {
					if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
						out = append(out, finding{f.Pos(), "func init"})
					}
				}
				return out
			},
			except: map[string]string{
				"pkg/lineage/real_test.go":    "the same",
				"pkg/procevents/task_test.go": "only init runs on the thread that leads the process, which the test has end first",
			},
			bad:  []string{"a/x.go\npackage a\nfunc init() {}"},
			good: []string{"a/x.go\npackage a\nfunc (t T) init() {}"},
		},
		{
			name:    "no PDEATHSIG",
			why:     "it fires when the thread that made the child ends, and execve ends every thread but one: a re-exec would kill the children",
			instead: "nothing: children outlive the daemon by design",
			check: identifiers(func(name string) bool {
				return name == "Pdeathsig" || name == "PR_SET_PDEATHSIG"
			}),
			bad:  []string{"a/x.go\npackage a\nvar a = A{Pdeathsig: 9}"},
			good: []string{"a/x.go\npackage a\nvar a = A{Setsid: true}"},
		},
		{
			name:    "SIGPIPE is never ignored",
			why:     "an ignored signal is inherited through exec, and the children did not ask for it",
			instead: "signal.Notify on a channel that is read",
			check: func(s *source) (out []finding) {
				s.each(func(n ast.Node) {
					call, ok := n.(*ast.CallExpr)
					if !ok {
						return
					}
					if pkg, name := s.qualified(call.Fun); pkg != "os/signal" || name != "Ignore" {
						return
					}
					for _, arg := range call.Args {
						if _, name := s.qualified(arg); name == "SIGPIPE" {
							out = append(out, finding{n.Pos(), "signal.Ignore(SIGPIPE)"})
						}
					}
				})
				return out
			},
			bad:  []string{"a/x.go\npackage a\nimport (\"os/signal\"; \"syscall\")\nfunc f() { signal.Ignore(syscall.SIGPIPE) }"},
			good: []string{"a/x.go\npackage a\nimport (\"os/signal\"; \"syscall\")\nfunc f() { signal.Notify(c, syscall.SIGPIPE) }"},
		},
		{
			name:    "overruns are heard",
			why:     "NETLINK_NO_ENOBUFS hides that events were lost, and supervision would go on from a wrong picture",
			instead: "handle ENOBUFS: drain, then read everything again",
			check:   identifiers(func(name string) bool { return name == "NETLINK_NO_ENOBUFS" || name == "NoENOBUFS" }),
			bad:     []string{"a/x.go\npackage a\nvar x = unix.NETLINK_NO_ENOBUFS"},
			good:    []string{"a/x.go\npackage a\nvar x = unix.ENOBUFS"},
		},
		{
			name:    "no os/exec in the packages",
			why:     "os/exec makes goroutines and waits for each child in a thread; a supervisor's children come from one place",
			instead: "pkg/spawn",
			check: func(s *source) (out []finding) {
				if s.test || !s.in("pkg") {
					return nil
				}
				for _, spec := range s.file.Imports {
					if spec.Path.Value == `"os/exec"` {
						out = append(out, finding{spec.Pos(), "os/exec"})
					}
				}
				return out
			},
			except: map[string]string{"pkg/state/preflight.go": "tries the new binary, with a deadline, before the running one gives way to it"},
			bad:    []string{"pkg/a/x.go\npackage a\nimport _ \"os/exec\""},
			good:   []string{"pkg/a/x_test.go\npackage a\nimport _ \"os/exec\"", "bench/x.go\npackage main\nimport _ \"os/exec\""},
		},
		{
			name:    "no work left in comments",
			why:     "a note in the code is read by nobody who plans the work",
			instead: "do it, or file an issue",
			check: func(s *source) (out []finding) {
				for _, g := range s.file.Comments {
					for _, c := range g.List {
						for _, word := range []string{"TODO", "FIXME", "XXX"} {
							if strings.Contains(c.Text, word) {
								out = append(out, finding{c.Pos(), word})
							}
						}
					}
				}
				return out
			},
			bad:  []string{"a/x.go\npackage a\n// TODO: more\nvar x = 1"},
			good: []string{"a/x.go\npackage a\n// The rest.\nvar x = \"TODO\""},
		},
		{
			name:    "a skip says what it needs",
			why:     "the full run tells skips that are expected from those that hide a test, by their reasons",
			instead: `testenv.Need, or t.Skip("needs …: why it is not there")`,
			check:   skips,
			except: map[string]string{
				"internal/testenv/": "writes the reasons",
			},
			bad: []string{
				"a/x_test.go\npackage a\nfunc f(t T) { t.Skip(\"flaky\") }",
				"a/x_test.go\npackage a\nfunc f(t T) { t.SkipNow() }",
				"a/x_test.go\npackage a\nfunc f(t T) { t.Skip(why) }",
			},
			good: []string{
				"a/x_test.go\npackage a\nfunc f(t T) { t.Skip(\"needs root: \" + why) }",
				"a/x_test.go\npackage a\nfunc f(t T) { b.Skipf(\"needs %s\", why) }",
			},
		},
	}
}
