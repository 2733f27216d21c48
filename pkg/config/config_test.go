package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite the .want files of testdata")

// parseOne reads one file without a file system.
func parseOne(text string) (*Config, error) {
	return Parse("/etc/sentryd/test.yaml", []Source{{"/etc/sentryd/test.yaml", []byte(text)}})
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := parseOne(text)
	if err != nil {
		t.Fatalf("unexpected error:\n%v", err)
	}
	return c
}

// TestErrors compares what is said about each wrong configuration in
// testdata/bad with the .want file beside it.
func TestErrors(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			_, err := Load(path, Options{RequireOwner: -1})
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("error is %T, want Errors: %v", err, err)
			}
			dir, err := filepath.Abs("testdata/bad")
			if err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(errs.Error(), dir+"/", "") + "\n"
			want := strings.TrimSuffix(path, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(text), got); diff != "" {
				t.Errorf("errors differ (-want +got):\n%s", diff)
			}
		})
	}
}

// TestOneLineErrors holds one wrong value after another against its message.
func TestOneLineErrors(t *testing.T) {
	entry := func(keys string) string { return "entries:\n  a:\n    command: x\n    " + keys }
	const whole = "a whole number from 0 to 10000"
	const duration = "a duration: write whole milliseconds (1500) or a number with a unit (1.5s)"
	for _, test := range []struct{ name, text, want string }{
		{"octal count", entry("count: 017"), `:4: entries.a.count: 017 is not ` + whole + ", without leading zeros"},
		{"underscore count", entry("count: 1_000"), `:4: entries.a.count: 1_000 is not ` + whole + ", without underscores"},
		{"float count", entry("count: 2.0"), `:4: entries.a.count: 2.0 is not ` + whole},
		{"hex count", entry("count: 0x10"), `:4: entries.a.count: 0x10 is not ` + whole},
		{"exponent count", entry("count: 1e3"), `:4: entries.a.count: 1e3 is not ` + whole},
		{"signed count", entry("count: +5"), `:4: entries.a.count: +5 is not ` + whole + ", without a plus"},
		{"negative count", entry("count: -1"), `:4: entries.a.count: -1 is not ` + whole},
		{"large count", entry("count: 10001"), `:4: entries.a.count: 10001 is not ` + whole},
		{"overflowing count", entry("count: 9223372036854775808"), `:4: entries.a.count: 9223372036854775808 is not ` + whole},
		{"quoted count", entry(`count: "5"`), `:4: entries.a.count: "5" is not ` + whole + ", without quotes"},
		{"NaN count", entry("count: .nan"), `:4: entries.a.count: .nan is not ` + whole},
		{"no count", entry("count:"), `:4: entries.a.count: is empty: it must be ` + whole},
		{"list count", entry("count: [1]"), `:4: entries.a.count: a list is not ` + whole},
		{"octal delay", entry("delay: 017"), `:4: entries.a.delay: 017 is not ` + duration + ", without leading zeros"},
		{"underscore delay", entry("delay: 1_000"), `:4: entries.a.delay: 1_000 is not ` + duration + ", without underscores"},
		{"float delay", entry("delay: 2.0"), `:4: entries.a.delay: 2.0 is not ` + duration},
		{"sexagesimal delay", entry("delay: 1:30"), `:4: entries.a.delay: 1:30 is not ` + duration},
		{"padded delay", entry("delay: 05s"), `:4: entries.a.delay: 05s is not ` + duration},
		{"negative delay", entry("delay: -1"), `:4: entries.a.delay: -1 must not be negative`},
		{"negative Go delay", entry("delay: -1s"), `:4: entries.a.delay: -1s must not be negative`},
		{"overflowing delay", entry("delay: 9223372036854775807"), `:4: entries.a.delay: 9223372036854775807 is too long: at most 87600h`},
		{"overflowing Go delay", entry("delay: 9999999h"), `:4: entries.a.delay: 9999999h is too long: at most 87600h`},
		{"quoted delay", entry(`delay: "1000"`), `:4: entries.a.delay: "1000" is not ` + duration + ", without quotes"},
		{"yes", entry("autostart: yes"), `:4: entries.a.autostart: yes is not true or false`},
		{"quoted truth", entry(`autostart: "true"`), `:4: entries.a.autostart: "true" is not true or false, without quotes`},
		{"quoted large count", entry(`count: "10001"`), `:4: entries.a.count: "10001" is not ` + whole + ", without quotes"},
		{"quoted nonsense", entry(`count: "three"`), `:4: entries.a.count: "three" is not ` + whole},
		{"quoted octal count", entry(`count: "017"`), `:4: entries.a.count: "017" is not ` + whole + ", without leading zeros"},
		{"quoted size", "proc_connector: {buffer: '65536'}\nentries: {}", `:1: proc_connector.buffer: "65536" is not a size: write bytes (65536) or a whole number with a unit (64MiB, 64MB), without quotes`},
		{"capital truth", entry("autostart: True"), `:4: entries.a.autostart: True is not true or false`},
		{"restart", entry("restart: on-failure-"), `:4: entries.a.restart: "on-failure-" is not always, on-failure or never: did you mean "on-failure"?`},
		{"restart no", entry("restart: false"), `:4: entries.a.restart: "false" is not always, on-failure or never`},
		{"exit code", entry("success_exit_codes: [0, 256]"), `:4: entries.a.success_exit_codes[1]: 256 is not a whole number from 0 to 255`},
		{"exit codes", entry("success_exit_codes: 0"), `:4: entries.a.success_exit_codes: "0" is not a list`},
		{"signal zero", entry("stop: {signal: 0}"), `:4: entries.a.stop.signal: unknown signal "0"`},
		{"signal name", entry("stop: {signal: TREM}"), `:4: entries.a.stop.signal: unknown signal "TREM": did you mean "TERM"?`},
		{"signal reserved", entry("stop: {signal: 33}"), `:4: entries.a.stop.signal: unknown signal "33"`},
		{"crashes by half", entry("descendants: {failures: 3}"), ":4: entries.a.descendants: must have both, failures and within"},
		{"crashes misspelt", entry("descendants: {failuers: 3, within: 1s}"), `:4: entries.a.descendants: unknown key "failuers": did you mean "failures"?`},
		{"crashes within nothing", entry("descendants: {failures: 3, within: 0}"), ":4: entries.a.descendants.within: must be above 0"},
		{"crashes without end", entry("descendants: {failures: 10001, within: 1s}"), `:4: entries.a.descendants.failures: 10001 is not a whole number from 0 to 10000`},
		{"crashes and then", entry("descendants: {failures: 3, within: 1s, action: stop}"), `:4: entries.a.descendants.action: "stop" is not report or restart`},
		{"stop mode", entry("stop: {mode: all}"), `:4: entries.a.stop.mode: "all" is not tree, group or process`},
		{"stop key", entry("stop: {time_out: 1s}"), `:4: entries.a.stop: unknown key "time_out": did you mean "timeout"?`},
		{"sockets", entry("sockets: {name: a}"), `:4: entries.a.sockets: a map is not a list`},
		{"socket without keys", entry("sockets: [{}]"), ":4: entries.a.sockets[0]: the key \"name\" is missing\n/etc/sentryd/test.yaml:4: entries.a.sockets[0]: the key \"listen\" is missing"},
		{"socket key", entry("sockets: [{name: a, listn: 'tcp://:80'}]"), `:4: entries.a.sockets[0]: unknown key "listn": did you mean "listen"?`},
		{"socket keys", entry("sockets: [{nmae: a, listn: 'tcp://:80'}]"), ":4: entries.a.sockets[0]: unknown key \"nmae\": did you mean \"name\"?\n/etc/sentryd/test.yaml:4: entries.a.sockets[0]: unknown key \"listn\": did you mean \"listen\"?"},
		{"socket name", entry("sockets: [{name: 'a:b', listen: 'tcp://:80'}]"), `:4: entries.a.sockets[0].name: "a:b" is not a name: ` + nameRule},
		{"socket name twice", entry("sockets: [{name: a, listen: 'tcp://:80'}, {name: a, listen: 'udp://:80'}]"), `:4: entries.a.sockets[1].name: "a" is the name of two sockets`},
		{"socket address twice", entry("sockets: [{name: a, listen: 'tcp://[::1]:80'}]\n  b:\n    command: x\n    sockets: [{name: b, listen: 'tcp://[0:0::1]:80', reuse_port: true}]"), `:7: entries.b.sockets[0].listen: "tcp://[0:0::1]:80" is listened on by a already (/etc/sentryd/test.yaml:2)`},
		{"socket path twice", entry("sockets: [{name: a, listen: 'unix:s'}, {name: b, listen: 'unix:/etc/sentryd/./s'}]"), `:4: entries.a.sockets[1].listen: "unix:/etc/sentryd/./s" is listened on by a already (/etc/sentryd/test.yaml:2)`},
		{"socket at http.listen", entry("sockets: [{name: a, listen: 'tcp://127.0.0.1:8001'}]"), `:4: entries.a.sockets[0].listen: "tcp://127.0.0.1:8001" is sentryd's own: http.listen`},
		{"socket without scheme", entry("sockets: [{name: a, listen: '127.0.0.1:80'}]"), `:4: entries.a.sockets[0].listen: "127.0.0.1:80" is not an address: write tcp://127.0.0.1:8080, udp://127.0.0.1:8125 or unix:/run/web.sock`},
		{"socket without port", entry("sockets: [{name: a, listen: 'tcp://127.0.0.1'}]"), `:4: entries.a.sockets[0].listen: "tcp://127.0.0.1" is not an address: write tcp://127.0.0.1:8080, udp://127.0.0.1:8125 or unix:/run/web.sock`},
		{"socket port 0", entry("sockets: [{name: a, listen: 'tcp://127.0.0.1:0'}]"), `:4: entries.a.sockets[0].listen: "tcp://127.0.0.1:0" is not an address: the port must be a number from 1 to 65535`},
		{"socket port 080", entry("sockets: [{name: a, listen: 'tcp://127.0.0.1:080'}]"), `:4: entries.a.sockets[0].listen: "tcp://127.0.0.1:080" is not an address: the port must be a number from 1 to 65535`},
		{"socket host", entry("sockets: [{name: a, listen: 'tcp://localhost:80'}]"), `:4: entries.a.sockets[0].listen: "tcp://localhost:80" is not an address: the host must be an IP address, such as 127.0.0.1 or [::1], or empty for all`},
		{"socket zone", entry("sockets: [{name: a, listen: 'udp://[fe80::1%lo]:80'}]"), `:4: entries.a.sockets[0].listen: "udp://[fe80::1%lo]:80" is not an address: the host must be an IP address, such as 127.0.0.1 or [::1], or empty for all`},
		{"socket path", entry("sockets: [{name: a, listen: 'unix://run/s'}]"), `:4: entries.a.sockets[0].listen: "unix://run/s" is not the path of a socket: write unix:/run/web.sock`},
		{"socket abstract", entry("sockets: [{name: a, listen: 'unix:@s'}]"), `:4: entries.a.sockets[0].listen: "unix:@s" is not the path of a socket: abstract ones are open to everybody and not supported`},
		{"socket long path", entry("sockets: [{name: a, listen: 'unix:/" + strings.Repeat("a", 107) + "'}]"), `:4: entries.a.sockets[0].listen: "unix:/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"… is too long: the path has 108 bytes and a socket's can have 107`},
		{"socket mode", entry("sockets: [{name: a, listen: 'unix:s', mode: '0680'}]"), `:4: entries.a.sockets[0].mode: "0680" is not a mode: write three octal digits in quotes ("0660")`},
		{"socket mode as a number", entry("sockets: [{name: a, listen: 'unix:s', mode: 0660}]"), `:4: entries.a.sockets[0].mode: 0660 is not a string: put it in quotes`},
		{"socket mode for tcp", entry("sockets: [{name: a, listen: 'tcp://:80', mode: '0660'}]"), `:4: entries.a.sockets[0].mode: is for unix sockets only: they are files`},
		{"socket reuse_port for unix", entry("sockets: [{name: a, listen: 'unix:s', reuse_port: true}]"), `:4: entries.a.sockets[0].reuse_port: is for tcp and udp only`},
		{"memory", entry("resources: {memory_max: 1KiB}"), `:4: entries.a.resources.memory_max: 1KiB is out of range: from 65536 to 4611686018427387903 bytes`},
		{"cores", entry("resources: {cpu_max: 1e3}"), `:4: entries.a.resources.cpu_max: 1e3 is not a number of cores from 0.01 to 10000, such as 1.5`},
		{"few cores", entry("resources: {cpu_max: 0.001}"), `:4: entries.a.resources.cpu_max: 0.001 is not a number of cores from 0.01 to 10000, such as 1.5`},
		{"quoted cores", entry(`resources: {cpu_max: "1"}`), `:4: entries.a.resources.cpu_max: "1" is not a number of cores from 0.01 to 10000, such as 1.5, without quotes`},
		{"pids", entry("resources: {pids_max: 0}"), `:4: entries.a.resources.pids_max: 0 is not a whole number from 1 to 4194304`},
		{"resource key", entry("resources: {mem_max: 1GiB}"), `:4: entries.a.resources: unknown key "mem_max": did you mean "memory_max"?`},
		{"misspelt key", entry("delya: 5"), `:4: entries.a: unknown key "delya": did you mean "delay"?`},
		{"strange key", entry("ports: 5"), `:4: entries.a: unknown key "ports"`},
		{"key in capitals", entry("Delay: 5"), `:4: entries.a: unknown key "Delay": did you mean "delay"?`},
		{"repeated key", entry("delay: 5\n    delay: 6"), `:5: entries.a: repeated key "delay": first given in line 4`},
		{"merge key", entry("<<: {delay: 5}"), `:4: entries.a: merge keys (<<) are not supported: use "defaults", or an alias for a single value`},
		{"list key", entry("[a, b]: 5"), `:4: entries.a: a key must be a plain word`},
		{"binary", entry("directory: !!binary YQ=="), `:4: entries.a.directory: the tag !!binary is not supported`},
		{"custom tag", entry("environment: !env {A: b}"), `:4: entries.a.environment: the tag !env is not supported`},
		{"number argument", entry("args: [4]"), `:4: entries.a.args[0]: 4 is not a string: put it in quotes`},
		{"truth argument", entry("args: [true]"), `:4: entries.a.args[0]: true is not a string: put it in quotes`},
		{"string arguments", entry("args: a b"), `:4: entries.a.args: "a b" is not a list`},
		{"NUL argument", entry(`args: ["a\0b"]`), `:4: entries.a.args[0]: must not contain a NUL byte`},
		{"NUL environment", entry(`environment: {A: "a\0b"}`), `:4: entries.a.environment.A: must not contain a NUL byte`},
		{"null environment", entry("environment: {A: }"), `:4: entries.a.environment.A: is empty: it must be a value: write "" for an empty one`},
		{"environment name", entry("environment: {A=B: c}"), `:4: entries.a.environment.A=B: not the name of a variable: letters, digits, _, . and -, the first a letter or _`},
		{"environment list", entry("environment: [PASSWORD=x]"), `:4: entries.a.environment: must be a map, NAME: value`},
		{"bracket", entry("directory: /a/$(HOME"), `:4: entries.a.directory: $( is not closed: write $(NAME), or $$( for the characters themselves`},
		{"no name", entry("args: ['$(date +%s)']"), `:4: entries.a.args[0]: $(…) does not hold the name of a variable: write $(NAME), or $$( for the characters themselves`},
		{"empty directory", entry(`directory: ""`), `:4: entries.a.directory: must not be empty: leave the key out for the daemon's own directory`},
		{"empty command", "entries: {a: {command: ''}}", `:1: entries.a.command: names no program`},
		{"empty list command", "entries: {a: {command: []}}", `:1: entries.a.command: names no program`},
		{"empty word command", "entries: {a: {command: ['', b]}}", `:1: entries.a.command: names no program`},
		{"open quote", "entries: {a: {command: 'sleep \"4'}}", `:1: entries.a.command: "sleep \"4" cannot be split into words: a quote or a backslash at its end is not closed`},
		{"list and args", "entries: {a: {command: [a], args: [b]}}", `:1: entries.a.args: a command that is a list is the whole argv: put the arguments there, or make the command a string`},
		{"no command", "entries: {a: {}}", `:1: entries.a: the key "command" is missing`},
		{"command misspelt", "entries: {a: {comand: x}}", `:1: entries.a: unknown key "comand": did you mean "command"?`},
		{"another key misspelt", "entries: {a: {conut: 3}}", ":1: entries.a: unknown key \"conut\": did you mean \"count\"?\n/etc/sentryd/test.yaml:1: entries.a: the key \"command\" is missing"},
		{"command misspelt in another", "entries: {a: {comand: x}, b: {count: 3}}", ":1: entries.a: unknown key \"comand\": did you mean \"command\"?\n/etc/sentryd/test.yaml:1: entries.b: the key \"command\" is missing"},
		{"default command misspelt", "defaults: {comand: x}\nentries: {a: {}, b: {}}", `:1: defaults: unknown key "comand": did you mean "command"?`},
		{"entries misspelt", "entires: {}\n", `:1: unknown key "entires": did you mean "entries"?`},
		{"null entry", "entries:\n  a:\n", `:2: entries.a: is empty: it must be a map`},
		{"entry name", "entries: {-a: {command: x}}", `:1: entries.-a: "-a" is not a name: letters, digits, _, . and -, the first a letter or a digit, at most 63`},
		{"entry name of two lines", `entries: {"a\nb": {command: x}}`, `:1: entries."a\nb": "a\nb" is not a name: letters, digits, _, . and -, the first a letter or a digit, at most 63`},
		{"empty", "", `:1: the file is empty: it needs at least "entries: {}"`},
		{"only a comment", "# nothing\n", `:1: the file is empty: it needs at least "entries: {}"`},
		{"only a marker", "---\n", `:1: the file is empty: it needs at least "entries: {}"`},
		{"no entries", "http: {}\n", `:1: the key "entries" is missing: write "entries: {}" for none`},
		{"null entries", "entries:\n", `:1: entries: is empty: it must be a map`},
		{"list", "- a\n", `:1: a list is not a map`},
		{"second document", "entries: {}\n---\nentries: {}\n", `:2: a second document: a file holds one configuration`},
		{"second document after mistakes", "entries: {a: {command: x, count: -1}}\n---\nentries: {}\n", `:1: entries.a.count: -1 is not ` + whole + "\n/etc/sentryd/test.yaml:2: a second document: a file holds one configuration"},
		{"first document empty", "---\n---\nentries: {}\n", ":2: a second document: a file holds one configuration"},
		{"second document broken", "http: {}\n---\n}\n", `:3: not valid YAML: did not find expected node content`},
		{"tab", "entries:\n\ta: {}\n", `:2: not valid YAML: a tab in the indentation, which must be blanks`},
		{"Latin-1", "entries: {}\n# caf\xe9\n", `:2: not valid UTF-8`},
		{"UTF-16", "\xff\xfee\x00n\x00", `:1: not valid UTF-8`},
		{"alias cycle", "entries: {}\ninclude: &a [*a]\n", `:2: the alias *a holds itself`},
		{"unknown alias", "entries: *a\n", `:1: not valid YAML: unknown anchor 'a' referenced`},
		{"listen number", "http: {listen: 8001}\nentries: {}", `:1: http.listen: "8001" is not an address: write HOST:PORT (127.0.0.1:8001, "[::1]:8001"), or "none" for no TCP at all`},
		{"listen port", "http: {listen: '127.0.0.1:65536'}\nentries: {}", `:1: http.listen: "127.0.0.1:65536" is not an address: the port must be a number from 0 to 65535`},
		{"listen octal port", "http: {listen: '127.0.0.1:08001'}\nentries: {}", `:1: http.listen: "127.0.0.1:08001" is not an address: the port must be a number from 0 to 65535`},
		{"listen address", "http: {listen: '127.0.0.256:80'}\nentries: {}", `:1: http.listen: "127.0.0.256:80" is not an address: write HOST:PORT (127.0.0.1:8001, "[::1]:8001"), or "none" for no TCP at all`},
		{"listen twice", "http: {listen: ['a:1', 'a:1']}\nentries: {}", `:1: http.listen[1]: "a:1" is given twice`},
		{"host with port", "http: {hosts: ['a:1']}\nentries: {}", `:1: http.hosts: "a:1" is not the name of a host, without a port`},
		{"user", "control: {users: [07]}\nentries: {}", `:1: control.users[0]: "07" is not the name of a user, nor a number from 0 to 4294967294`},
		{"buffer", "proc_connector: {buffer: 1KiB}\nentries: {}", `:1: proc_connector.buffer: 1KiB is out of range: from 4096 to 1073741824 bytes`},
		{"events", "proc_connector: {events: exits}\nentries: {}", `:1: proc_connector.events: "exits" is not all or exit: did you mean "exit"?`},
		{"buffer unit", "proc_connector: {buffer: 64 mb}\nentries: {}", `:1: proc_connector.buffer: 64 mb is not a size: write bytes (65536) or a whole number with a unit (64MiB, 64MB)`},
		{"buffer underscore", "proc_connector: {buffer: 65_536}\nentries: {}", `:1: proc_connector.buffer: 65_536 is not a size: write bytes (65536) or a whole number with a unit (64MiB, 64MB), without underscores`},
		{"missing include", "include: [a.yaml]\nentries: {}", `:1: include[0]: /etc/sentryd/a.yaml: no such file or directory`},
		{"include of itself", "include: [./test.yaml, '*.yaml', /etc/sentryd/test.yaml]\nentries: {}", ":1: include[0]: \"./test.yaml\" is this file itself\n/etc/sentryd/test.yaml:1: include[2]: \"/etc/sentryd/test.yaml\" is this file itself"},
		{"include pattern", "include: ['[']\nentries: {}", `:1: include[0]: "[" is not a pattern: a bracket is not closed`},
		{"missing env file", entry("env_file: a.env"), `:4: entries.a.env_file: /etc/sentryd/a.env: no such file or directory`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseOne(test.text)
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff("/etc/sentryd/test.yaml"+test.want, err.Error()); diff != "" {
				t.Errorf("error differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("entries: {}\nhttp:\n  hosts: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 30 {
		at := string(rune('0'+i%10)) + string(rune('a'+i/10))
		prev := "a0"
		if i > 0 {
			prev = "b" + string(rune('0'+(i-1)%10)) + string(rune('a'+(i-1)/10))
		}
		b.WriteString("k" + at + ": &b" + at + " [" + strings.Repeat("*"+prev+", ", 9) + "*" + prev + "]\n")
	}
	_, err := parseOne(b.String())
	if err == nil || !strings.Contains(err.Error(), "the aliases of this file stand for more than 100000 values") {
		t.Errorf("alias bomb: %v", err)
	}
}

func TestManyErrorsAreBounded(t *testing.T) {
	_, err := parseOne("entries: {}\n" + strings.Repeat("? [a]\n: b\n", 2000))
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != maxErrors {
		t.Fatalf("%d errors, want %d", len(errs), maxErrors)
	}
	if got, want := errs[maxErrors-1].Message, "and 1501 more errors"; got != want {
		t.Errorf("last is %q, want %q", got, want)
	}
}

func TestDefaultsAndValues(t *testing.T) {
	c := mustParse(t, `
http:
  listen: ["127.0.0.1:0", "[::1]:8001"]
  hosts: [Example.ORG, 10.0.0.1]
control:
  users: [1000, 33, "1000"]
  groups: [4]
proc_connector: {enabled: false, events: exit, buffer: 1MiB}
defaults:
  delay: 2500
  environment: {A: from defaults, B: from defaults}
  stop: {signal: SIGINT, timeout: 1m}
  success_exit_codes: [0, 1]
entries:
  plain:
    command: sleep 4
  web:
    command: bin/web --name "a b"
    count: 3
    delay: 1.5s
    autostart: false
    restart: on-failure
    success_exit_codes: [3, 2, 3]
    min_uptime: 500ms
    stop: {signal: RTMIN+3, mode: group}
    resources: {memory_max: 64MiB, memory_high: 48MB, cpu_max: 1.5, pids_max: 100, optional: true}
    directory: srv
    environment: {B: web, N: 017, T: yes, E: ""}
    clean_env: true
  list: {command: [sh, -c, "echo a b"]}
  program: {command: /opt/my program, args: ["4", ""]}
`)
	defaults := func(name string, command ...string) *Entry {
		return &Entry{
			Name: name, Command: command, Delay: 2500 * time.Millisecond, Count: 1, Autostart: true,
			Restart: RestartAlways, SuccessExitCodes: []int{0, 1},
			Stop:        Stop{Signal: 2, Timeout: time.Minute, Mode: StopTree},
			Environment: map[string]string{"A": "from defaults", "B": "from defaults"},
			File:        "/etc/sentryd/test.yaml",
		}
	}
	web := defaults("web", "bin/web", "--name", "a b")
	web.Count, web.Delay, web.Autostart, web.Restart = 3, 1500*time.Millisecond, false, RestartOnFailure
	web.SuccessExitCodes, web.MinUptime = []int{2, 3}, 500*time.Millisecond
	web.Stop = Stop{Signal: 37, Timeout: time.Minute, Mode: StopGroup}
	web.Resources = Resources{
		MemoryMax: 64 << 20, MemoryHigh: 48_000_000, CPUMax: 1.5, PIDsMax: 100, Optional: true,
		File: "/etc/sentryd/test.yaml", Line: 26,
	}
	web.Directory, web.CleanEnv = "srv", true
	web.Environment = map[string]string{"A": "from defaults", "B": "web", "N": "017", "T": "yes", "E": ""}
	want := &Config{
		Name: "test", Path: "/etc/sentryd/test.yaml",
		HTTP:          HTTP{Listen: []string{"127.0.0.1:0", "[::1]:8001"}, Hosts: []string{"example.org", "10.0.0.1"}},
		Control:       Control{Users: []uint32{33, 1000}, Groups: []uint32{4}},
		ProcConnector: ProcConnector{Events: EventsExit, Buffer: 1 << 20},
		Entries: []*Entry{
			defaults("list", "sh", "-c", "echo a b"),
			defaults("plain", "sleep", "4"),
			defaults("program", "/opt/my program", "4", ""),
			web,
		},
	}
	ignore := cmp.Options{
		cmpopts.IgnoreUnexported(Entry{}), cmpopts.IgnoreFields(Entry{}, "Line"), cmpopts.IgnoreFields(Config{}, "Sources"),
	}
	if diff := cmp.Diff(want, c, ignore); diff != "" {
		t.Errorf("configuration differs (-want +got):\n%s", diff)
	}
	if e := c.Entry("web"); e == nil || e.Line != 17 {
		t.Errorf("web is %v, want it in line 17", e)
	}
	if c.Entry("nope") != nil {
		t.Error("found an entry that is not there")
	}
}

func TestBuiltInDefaults(t *testing.T) {
	c := mustParse(t, "\ufeffentries: {}\r\n")
	if diff := cmp.Diff([]string{"127.0.0.1:8001"}, c.HTTP.Listen); diff != "" {
		t.Error(diff)
	}
	if c.ProcConnector != (ProcConnector{Enabled: true, Events: EventsAll, Buffer: 64 << 20}) {
		t.Errorf("proc connector is %+v", c.ProcConnector)
	}
	if c := mustParse(t, "http: {listen: none}\nentries: {}"); len(c.HTTP.Listen) != 0 {
		t.Errorf("none listens on %q", c.HTTP.Listen)
	}
	e := mustParse(t, "entries: {a: {command: x}}").Entry("a")
	want := &Entry{
		Name: "a", Command: []string{"x"}, Delay: time.Second, Count: 1, Autostart: true, Restart: "always",
		SuccessExitCodes: []int{0}, Stop: Stop{Signal: 15, Timeout: 10 * time.Second, Mode: "tree"},
		Environment: map[string]string{}, File: "/etc/sentryd/test.yaml", Line: 1,
	}
	if diff := cmp.Diff(want, e, cmpopts.IgnoreUnexported(Entry{})); diff != "" {
		t.Errorf("entry differs (-want +got):\n%s", diff)
	}
}

func TestAliasesWork(t *testing.T) {
	c := mustParse(t, `
entries:
  a: {command: x, environment: &env {A: "1"}, delay: &d 5s}
  b: {command: x, environment: *env, delay: *d}
`)
	b := c.Entry("b")
	if b.Environment["A"] != "1" || b.Delay != 5*time.Second {
		t.Errorf("b is %+v", b)
	}
}

// TestSecretsStayOut: what an environment holds is in no error.
func TestSecretsStayOut(t *testing.T) {
	for _, text := range []string{
		"environment: {A: hunter2$(}", "environment: {A: 'hunter2$(b c)'}", "environment: hunter2",
		"environment: [hunter2]", `environment: {A: "hunter2\0"}`, "environment: {A: [hunter2]}", "environment: {A: !x hunter2}",
	} {
		_, err := parseOne("entries:\n  a:\n    command: x\n    " + text)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
