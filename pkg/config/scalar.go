package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// truth reads true or false. "yes" and "on" are strings in YAML 1.2.
func (v value) truth(to *bool) {
	const want = "true or false"
	s, ok := v.scalar(want)
	is := s == "true" || s == "false"
	switch {
	case !ok:
	case is && v.plain():
		*to = s == "true"
	default:
		v.refuse(want, is)
	}
}

var (
	decimal = syntax(`^(0|-?[1-9][0-9]*)$`)
	// digits may be taken for a decimal number, and by other programs are.
	digits = syntax(`^[+-]?[0-9][0-9_]*$`)
)

// refuse reports a number, a duration, a size or a truth value that is none. quotes
// says whether its quotes, if it has any, are a mistake.
func (v value) refuse(want string, quotes bool) {
	switch s := v.node.Value; {
	case quotes && !v.plain():
		want += ", without quotes"
	case decimal.MatchString(s) || !digits.MatchString(s):
	case strings.Contains(s, "_"):
		want += ", without underscores"
	case s[0] == '+':
		want += ", without a plus"
	default:
		want += ", without leading zeros"
	}
	v.fail("%s is not %s", v.asWritten(), want)
}

// integer reads a whole number from lowest to highest, in decimal digits alone.
func (v value) integer(to *int, lowest, highest int) {
	want := fmt.Sprintf("a whole number from %d to %d", lowest, highest)
	s, ok := v.scalar(want)
	if !ok {
		return
	}
	n, err := strconv.Atoi(s)
	number := decimal.MatchString(s)
	if !v.plain() || !number || err != nil || n < lowest || n > highest {
		v.refuse(want, number)
		return
	}
	*to = n
}

// maxDuration keeps sums of a duration and a clock far from overflowing.
const maxDuration = 10 * 365 * 24 * time.Hour

var goDuration = syntax(`^(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:ns|us|µs|μs|ms|s|m|h))(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|μs|ms|s|m|h))*$`)

// duration reads whole milliseconds or a Go duration.
func (v value) duration(to *time.Duration) {
	const want = "a duration: write whole milliseconds (1500) or a number with a unit (1.5s)"
	s, ok := v.scalar(want)
	if !ok {
		return
	}
	var d time.Duration
	switch {
	case strings.HasPrefix(s, "-"):
		v.fail("%s must not be negative", v.asWritten())
		return
	case v.plain() && decimal.MatchString(s):
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil || ms > maxDuration.Milliseconds() {
			d = -1
		} else {
			d = time.Duration(ms) * time.Millisecond
		}
	case goDuration.MatchString(s):
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			d = -1 // the syntax is right: it overflows
		}
	default:
		v.refuse(want, decimal.MatchString(s))
		return
	}
	if d < 0 || d > maxDuration {
		v.fail("%s is too long: at most %dh", v.asWritten(), int(maxDuration.Hours()))
		return
	}
	*to = d
}

var (
	sizeText  = syntax(`^(0|[1-9][0-9]*) ?(B|[kKMGT]B|[KMGT]iB)?$`)
	sizeUnits = map[string]int64{
		"": 1, "B": 1,
		"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	}
)

// size reads a number of bytes: a whole number, with or without a unit.
func (v value) size(to *int64, lowest, highest int64) {
	const want = "a size: write bytes (65536) or a whole number with a unit (64MiB, 64MB)"
	s, ok := v.scalar(want)
	if !ok {
		return
	}
	m := sizeText.FindStringSubmatch(s)
	if m == nil || (m[2] == "" && !v.plain()) {
		v.refuse(want, m != nil)
		return
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	unit := sizeUnits[m[2]]
	if err != nil || n > highest/unit || n*unit < lowest {
		v.fail("%s is out of range: from %d to %d bytes", v.asWritten(), lowest, highest)
		return
	}
	*to = n * unit
}

// oneOf reads one of a few words.
func (v value) oneOf(to *string, words ...string) {
	want := strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
	s, ok := v.scalar(want)
	switch {
	case !ok:
	case slices.Contains(words, s) && v.node.Tag == "!!str":
		*to = s
	default:
		v.fail("%s is not %s%s", v.describe(), want, didYouMean(s, words))
	}
}
