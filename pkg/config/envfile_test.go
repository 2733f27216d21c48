package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseEnvFile(t *testing.T) {
	const text = "\ufeff# a comment\n" +
		"\n  \t\n" +
		"PLAIN=value\n" +
		"  INDENTED = no\n" + // the blank before = is an error, see below
		"export EXPORTED=yes\r\n" +
		"EXPORT=1\n" +
		"EMPTY=\n" +
		"BLANKS=  a b\t \n" +
		"HASH=a # b\n" +
		"DOLLAR=$HOME $(X) \\n\n" +
		"SINGLE='a \\n \"b\" # c' \n" +
		"DOUBLE=\"a\\tb \\\"c\\\" \\\\ \\$ \\x\"\n" +
		"LINES=\"one\ntwo\"\n" +
		"dotted.name-x=1\n" +
		"PLAIN=last\n" +
		"NOEND=x"
	want := []KV{
		{"PLAIN", "last"}, {"EXPORTED", "yes"}, {"EXPORT", "1"}, {"EMPTY", ""}, {"BLANKS", "a b"}, {"HASH", "a # b"},
		{"DOLLAR", `$HOME $(X) \n`}, {"SINGLE", `a \n "b" # c`}, {"DOUBLE", "a\tb \"c\" \\ $ \\x"}, {"LINES", "one\ntwo"},
		{"dotted.name-x", "1"}, {"NOEND", "x"},
	}
	got, err := ParseEnvFile("a.env", []byte(strings.Replace(text, "  INDENTED = no\n", "\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("variables differ (-want +got):\n%s", diff)
	}
	_, err = ParseEnvFile("a.env", []byte(text))
	if err == nil || !strings.HasPrefix(err.Error(), "a.env:5: ") {
		t.Errorf("a blank before the =: %v", err)
	}
}

func TestParseEnvFileErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"hunter2\n", "a.env:1: no = in the line: write NAME=VALUE"},
		{"A=1\nhunter2+/x=y\n", "a.env:2: what stands before the = is not the name of a variable (letters, digits and _)"},
		{"=hunter2", "a.env:1: what stands before the = is not the name of a variable (letters, digits and _)"},
		{"A='hunter2\n\nB=1\n", "a.env:1: A: the quote ' is not closed"},
		{"A=\"1\n2\"\nB='hunter2' x\n", "a.env:3: B: something follows the closing quote"},
		{"A=hunter2\x00\nB\n", "a.env:1: A: must not contain a NUL byte\na.env:2: no = in the line: write NAME=VALUE"},
	} {
		_, err := ParseEnvFile("a.env", []byte(test.text))
		if err == nil || err.Error() != test.want {
			t.Errorf("%q:\n got %v\nwant %s", test.text, err, test.want)
		}
	}
}

func FuzzEnvFile(f *testing.F) {
	for _, s := range []string{"", "A=1\n", "export A='x\ny'\n", "A=\"\\n\\\"\"", "#\n\r\n=", "A=\"\\", "export", "export \n", "\ufeffA=b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		vars, err := ParseEnvFile("a.env", data)
		if err != nil {
			lines := strings.Count(string(data), "\n") + 1
			for _, e := range err.(Errors) {
				if e.Line < 1 || e.Line > lines {
					t.Fatalf("line %d of %d: %v", e.Line, lines, e)
				}
			}
			return
		}
		seen := map[string]bool{}
		for _, kv := range vars {
			if !environmentName.MatchString(kv.Name) || strings.Contains(kv.Value, "\x00") || seen[kv.Name] {
				t.Fatalf("bad variable %q=%q", kv.Name, kv.Value)
			}
			seen[kv.Name] = true
		}
	})
}
