package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// A fence is a tagged block of a page: three backquotes, a language and tags.
type fence struct {
	line int    // of the opening backquotes
	lang string // yaml, console
	verb string // check, check-fails, daemon, run
	file string // file=F
	body []string
}

// fences returns the tagged blocks of a Markdown text. A block with a language
// alone is for reading only.
func fences(text string) ([]fence, error) {
	var out []fence
	var open *fence
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\n")
		info, mark := strings.CutPrefix(line, "```")
		switch {
		case mark && open == nil:
			f, err := parseInfo(info)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			f.line = n
			open = &f
		case mark:
			if open.verb != "" {
				out = append(out, *open)
			}
			open = nil
		case open != nil:
			open.body = append(open.body, line)
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: the block has no end", open.line)
	}
	return out, nil
}

func parseInfo(info string) (fence, error) {
	var f fence
	for i, word := range strings.Fields(info) {
		name, isFile := strings.CutPrefix(word, "file=")
		switch {
		case i == 0:
			f.lang = word
		case isFile:
			f.file = name
		case f.verb == "":
			f.verb = word
		default:
			return f, fmt.Errorf("%q: one verb is enough", info)
		}
	}
	switch f.lang + " " + f.verb {
	case "yaml check", "yaml check-fails", "yaml daemon":
		if f.file == "" {
			return f, fmt.Errorf("%q: file=NAME is missing", info)
		}
	case "console run", "console daemon":
	default:
		if f.verb != "" {
			return f, fmt.Errorf("%q: no such verb", info)
		}
	}
	return f, nil
}

// A step is one command of a console block and what it ought to print.
type step struct {
	command string
	want    []string
	code    int
}

// steps takes a console block apart.
func steps(body []string) ([]step, error) {
	var out []step
	for _, line := range body {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			out = append(out, step{command: command})
			continue
		}
		if len(out) == 0 {
			return nil, fmt.Errorf("%q stands before the first command", line)
		}
		last := &out[len(out)-1]
		if _, err := fmt.Sscanf(line, "[exit code %d]", &last.code); err == nil {
			continue
		}
		last.want = append(last.want, line)
	}
	return out, nil
}

// anything is what the expected output has for text that differs.
const anything = "…"

// variable is what differs from run to run by its nature: a time of day, a
// span of time, a number of four or more digits, a run of blanks, and what
// stands as anything.
var variable = regexp.MustCompile(`\d\d:\d\d:\d\d|` + span + `|\d{4,}|[ \t]+|` + anything)

// span is a span of time as `sentryd status` writes it.
const span = `\b(?:\d+[dhms])+\b`

// linePattern makes a regular expression of a line of expected output.
func linePattern(want string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("^")
	rest := want
	for {
		at := variable.FindStringIndex(rest)
		if at == nil {
			break
		}
		b.WriteString(regexp.QuoteMeta(rest[:at[0]]))
		switch text := rest[at[0]:at[1]]; {
		case text == anything:
			b.WriteString(".*")
		case text[0] == ' ' || text[0] == '\t':
			b.WriteString(`[ \t]+`)
		case strings.Contains(text, ":"):
			b.WriteString(`\d\d:\d\d:\d\d`)
		case strings.ContainsAny(text, "dhms"):
			b.WriteString(span)
		default:
			b.WriteString(`\d+`)
		}
		rest = rest[at[1]:]
	}
	b.WriteString(regexp.QuoteMeta(rest) + "$")
	return regexp.MustCompile(b.String())
}

// lack is at the start of a line of `sentryd status` about what the host or the
// user cannot do.
const lack = "! "

// matches says whether got is what want describes: line by line, where a line
// of anything alone stands for any number of lines. There may be more lines of
// lacks than want has.
func matches(want, got []string) bool {
	if len(got) > 0 && strings.HasPrefix(got[0], lack) && matches(want, got[1:]) {
		return true
	}
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == anything {
		for i := 0; i <= len(got); i++ {
			if matches(want[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && linePattern(want[0]).MatchString(got[0]) && matches(want[1:], got[1:])
}

func TestFences(t *testing.T) {
	text := "a\n```yaml check file=a.yaml\nentries: {}\n```\n```json\n{}\n```\n```console run\n$ false\nno\n[exit code 3]\n```\n"
	got, err := fences(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].file != "a.yaml" || got[0].line != 2 || got[1].verb != "run" {
		t.Fatalf("got %+v", got)
	}
	s, err := steps(got[1].body)
	if err != nil || len(s) != 1 || s[0].command != "false" || s[0].code != 3 || len(s[0].want) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, bad := range []string{"```yaml check\n```\n", "```console rnu\n```\n", "```yaml\n"} {
		if _, err := fences(bad); err == nil {
			t.Errorf("takes %q", bad)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"20:17:51 dummy.1514      Started at 1334081871.", "09:00:00 dummy.7    Started at 1764000000.", true},
		{"20:17:51 dummy.1514      Started at 1334081871.", "09:00:00 dummz.7    Started at 1764000000.", false},
		{"400", "403", false},
		{"…:4: …delay…", "/tmp/x.yaml:4: did you mean delay?", true},
		{"a\n…\nb", "a\nb", true},
		{"a\n…\nb", "a\nx\ny\nb", true},
		{"a\n…\nb", "a\nx", false},
		{"…", "", true},
		{"a", "a\nb", false},
		{"up 12s", "up 1m03s", true},
		{"up 12s", "up 12", false},
		{"! a\nb", "! c\n! a\n! d\nb", true},
		{"! a\nb", "! c\nb", false},
	} {
		split := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, "\n")
		}
		if got := matches(split(c.want), split(c.got)); got != c.ok {
			t.Errorf("%q against %q: %v", c.want, c.got, got)
		}
	}
}
