package logs

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// split cuts a stream that comes in these chunks into lines, as the reader does.
func split(chunks ...string) (lines []string) {
	var text []byte
	for i := range len(chunks) + 1 {
		from, last := len(text), i == len(chunks)
		if last {
			from = 0
		} else {
			text = append(text, chunks[i]...)
		}
		for {
			line, used := nextLine(text, from, last)
			if used == 0 {
				break
			}
			lines = append(lines, string(line))
			text, from = text[used:], max(0, from-used)
		}
	}
	return lines
}

func TestSplit(t *testing.T) {
	long := strings.Repeat("a", maxLine)
	for name, c := range map[string]struct {
		in   []string
		want []string
	}{
		"nothing":            {nil, nil},
		"one":                {[]string{"a\n"}, []string{"a"}},
		"empty lines":        {[]string{"\n\n"}, []string{"", ""}},
		"no end":             {[]string{"a"}, []string{"a"}},
		"in parts":           {[]string{"a", "b\nc", "\n"}, []string{"ab", "c"}},
		"CRLF":               {[]string{"a\r\nb\r", "\n"}, []string{"a", "b"}},
		"CR inside":          {[]string{"a\rb\n"}, []string{"a\rb"}},
		"CR at the end":      {[]string{"a\r"}, []string{"a"}},
		"NUL":                {[]string{"a\x00b\n"}, []string{"a\x00b"}},
		"longest":            {[]string{long, "\n"}, []string{long}},
		"longest with CRLF":  {[]string{long + "\r", "\n"}, []string{long}},
		"one more":           {[]string{long + "b", "\n"}, []string{long, "b"}},
		"one more, at once":  {[]string{long + "b\n"}, []string{long, "b"}},
		"one more, no end":   {[]string{long, "b"}, []string{long, "b"}},
		"three":              {[]string{long + long, long + "\nx"}, []string{long, long, long, "x"}},
		"character at a cut": {[]string{long[1:] + "é\n"}, []string{long[1:], "é"}},
	} {
		if d := cmp.Diff(c.want, split(c.in...)); d != "" {
			t.Errorf("%s: %.300s", name, d)
		}
	}
}

func TestAppendSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, 12345678":          "plain text, 12345678",
		"tab\there":                     "tab\there",
		"\x1b[2J\x1b[H":                 `\x1b[2J\x1b[H`,
		"a\rb":                          `a\x0db`,
		"nul\x00 bel\x07 del\x7f":       `nul\x00 bel\x07 del\x7f`,
		"héllo → 世界 🙂":                  "héllo → 世界 🙂",
		"bad \xff\xc3( end\xe4\xb8":     `bad \xff\xc3( end\xe4\xb8`,
		"csi \u009b2J":                  `csi \u009b2J`,
		"raw csi \x9b2J":                `raw csi \x9b2J`,
		"line\u2028sep nel\u0085":       `line\u2028sep nel\u0085`,
		"turn \u202e back \u2066":       `turn \u202e back \u2066`,
		"a replacement \ufffd stays":    "a replacement \ufffd stays",
		`back\slash`:                    `back\slash`,
		"\n20:17:55 other.1     forged": `\x0a20:17:55 other.1     forged`,
		"12345678\x7f9":                 `12345678\x7f9`,
		"1234567\x80":                   `1234567\x80`,
	} {
		if got := string(appendSafe(nil, []byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestPlain compares the eight-bytes-at-a-time search with the plain one, for
// each byte at each place and beside each kind of neighbour.
func TestPlain(t *testing.T) {
	for _, fill := range []byte{' ', 'a', '~'} {
		for at := range 19 {
			for c := range 256 {
				b := bytes.Repeat([]byte{fill}, 19)
				b[at] = byte(c)
				want := len(b)
				if c < 0x20 || c >= 0x7f {
					want = at
				}
				if got := plain(b); got != want {
					t.Fatalf("%q: %d, want %d", b, got, want)
				}
			}
		}
	}
}

// FuzzLines feeds a stream in two different divisions: the lines must be the
// same, must hold all of the stream, and printed must be one line each that
// can do no harm.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\nb\x1b[2J\n\xff\x00tail"), uint16(3), uint8(0))
	f.Add([]byte("é\u2028\u202e\u009b"), uint16(1), uint8(255))
	f.Add([]byte("\r\n\r\r\n"), uint16(2), uint8(254))
	f.Fuzz(func(t *testing.T, in []byte, at uint16, pad uint8) {
		// Some inputs begin near the place where a long line is cut.
		if pad > 200 {
			in = append(bytes.Repeat([]byte{'p'}, maxLine-(255-int(pad))), in...)
		}
		n := min(int(at), len(in))
		one := split(string(in))
		two := split(string(in[:n]), string(in[n:]))
		if !slices.Equal(one, two) {
			t.Fatalf("divided at %d: %.1000s", n, cmp.Diff(one, two))
		}
		want := strings.ReplaceAll(string(in), "\r\n", "\n")
		want = strings.TrimSuffix(want, "\r")
		if got := strings.Join(one, ""); got != strings.ReplaceAll(want, "\n", "") {
			t.Fatalf("%.300q became %.300q", want, got)
		}
		for _, line := range one {
			if len(line) > maxLine {
				t.Fatalf("line of %d bytes", len(line))
			}
			safe := appendSafe(nil, []byte(line))
			if !utf8.Valid(safe) {
				t.Fatalf("%q is no UTF-8", safe)
			}
			for _, r := range string(safe) {
				if r < 0x20 && r != '\t' || r == 0x7f || moves(r) {
					t.Fatalf("%q from %q", safe, line)
				}
			}
			if again := appendSafe(nil, safe); !bytes.Equal(again, safe) {
				t.Fatalf("%q escaped twice is %q", safe, again)
			}
		}
	})
}
