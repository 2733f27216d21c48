package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report prints the figures as they come and keeps them for the end.
type report struct {
	options *options
	rig     *rig
	started time.Time
	done    []*scenario
}

func newReport(o *options, r *rig) *report {
	return &report{options: o, rig: r, started: time.Now()}
}

func (r *report) host() string {
	var u unix.Utsname
	unix.Uname(&u)
	load, _ := os.ReadFile("/proc/loadavg")
	load1, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("Linux %s, %d CPUs, %s, load %s at the start", unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), runtime.Version(), load1)
}

func (r *report) printHead() {
	fmt.Printf("%s\n\n", r.host())
	for _, c := range r.rig.contenders {
		about := c.about
		if c.missing != "" {
			about = "not measured: " + c.missing
		}
		fmt.Printf("  %-22s %s\n", c.name, about)
	}
	for _, n := range r.rig.notes {
		fmt.Printf("  note: %s\n", n)
	}
	fmt.Print("\nFigures are medians of the rounds, with least–most; ratios are medians of the ratios to\n" +
		"the C floor of the same round. Targets are sentryd's, with the connector on; ratios may be\n" +
		"15 % worse where it has a cgroup for each slot than they have to be where it has none.\n\n")
}

// add prints a scenario that has been played.
func (r *report) add(s *scenario) {
	r.done = append(r.done, s)
	fmt.Printf("%s: %s (%s, %.0f s)\n", s.name, s.about, plural(s.rounds, "round"), s.took.Seconds())
	if s.took == 0 {
		fmt.Print("  not measured: none of its contenders takes part\n\n")
		return
	}
	for _, m := range s.metrics {
		fmt.Printf("  %s\n", strings.TrimSuffix(fmt.Sprintf("%s, %s", m.title, m.unit), ", "))
		for _, c := range r.rig.contenders {
			if v := m.value(c.name); !math.IsNaN(v) {
				fmt.Println(strings.TrimRight(r.line(m, c.name, v), " "))
			}
		}
	}
	if s.others > 0.1 {
		fmt.Printf("  The rest of the host used %.1f CPUs meanwhile: take these figures with care.\n", s.others)
	}
	for _, f := range s.failures {
		fmt.Printf("  FAILED: %s\n", f)
	}
	fmt.Println()
}

func (r *report) line(m *metric, contender string, v float64) string {
	span := ""
	if len(m.rounds[contender]) > 1 {
		least, most := m.span(contender)
		span = fmt.Sprintf("%.*f–%.*f", m.digits, least, m.digits, most)
	}
	ratio := ""
	if x := m.ratio(contender); !math.IsNaN(x) && !math.IsInf(x, 0) {
		ratio = fmt.Sprintf("%.2f x", x)
	}
	verdict := ""
	if text, met := m.verdict(contender); text != "" {
		verdict = text + ": " + word(met)
	}
	return fmt.Sprintf("    %-22s %10.*f  %-15s %9s  %s", contender, m.digits, v, span, ratio, verdict)
}

func word(met bool) string {
	if met {
		return "met"
	}
	return "NOT MET"
}

// printSummary lists the targets in one table.
func (r *report) printSummary() {
	fmt.Printf("Targets (%s)\n", time.Since(r.started).Round(time.Second))
	for _, s := range r.done {
		care := ""
		if s.others > 0.1 {
			care = fmt.Sprintf("  (others used %.1f CPUs)", s.others)
		}
		for _, m := range s.metrics {
			for _, name := range judged() {
				text, met := m.verdict(name)
				if text == "" {
					continue
				}
				got := fmt.Sprintf("%.*f %s", m.digits, m.value(name), m.unit)
				if m.target.ratio {
					got = fmt.Sprintf("%.2f x", m.ratio(name))
				}
				fmt.Printf("  %-20s %-8s %-44s %12s  %-12s %s%s\n", name, s.name, m.title, got, text, word(met), care)
			}
		}
	}
}

// writeJSON writes everything that was measured.
func (r *report) writeJSON(path string) error {
	type figure struct {
		Scenario, Metric, Contender, Unit string
		Value                             float64
		Ratio                             *float64  `json:",omitempty"`
		Rounds                            []float64 // of the rounds that worked
		Target                            string    `json:",omitempty"`
		Met                               *bool     `json:",omitempty"`
	}
	out := struct {
		Host    string
		Started time.Time
		Short   bool
		Missing map[string]string
		Notes   []string
		Others  map[string]float64 // CPUs that the rest of the host used, by scenario
		Failed  []string
		Figures []figure
	}{Host: r.host(), Started: r.started, Short: r.options.short, Missing: map[string]string{}, Notes: r.rig.notes, Others: map[string]float64{}}
	for _, c := range r.rig.contenders {
		if c.missing != "" {
			out.Missing[c.name] = c.missing
		}
	}
	for _, s := range r.done {
		out.Others[s.name] = s.others
		for _, f := range s.failures {
			out.Failed = append(out.Failed, s.name+": "+f)
		}
		for _, m := range s.metrics {
			for _, c := range r.rig.contenders {
				v := m.value(c.name)
				if math.IsNaN(v) {
					continue
				}
				f := figure{Scenario: s.name, Metric: m.name, Contender: c.name, Unit: m.unit, Value: v}
				for _, x := range m.rounds[c.name] {
					if !math.IsNaN(x) {
						f.Rounds = append(f.Rounds, x)
					}
				}
				if x := m.ratio(c.name); !math.IsNaN(x) && !math.IsInf(x, 0) {
					f.Ratio = &x
				}
				if text, met := m.verdict(c.name); text != "" {
					f.Target, f.Met = text, &met
				}
				out.Figures = append(out.Figures, f)
			}
		}
	}
	data, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
