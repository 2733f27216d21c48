package lint

import (
	"go/ast"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// names bans names of packages, by import path.
func names(banned map[string][]string) func(*source) []finding {
	return func(s *source) []finding {
		return selectors(s, func(pkg, name string) bool {
			for _, b := range banned[pkg] {
				if b == name {
					return true
				}
			}
			return false
		})
	}
}

func selectors(s *source, banned func(pkg, name string) bool) (out []finding) {
	s.each(func(n ast.Node) {
		if pkg, name := s.qualified(n); pkg != "" && banned(pkg, name) {
			out = append(out, finding{n.Pos(), pkg + "." + name})
		}
	})
	return out
}

func identifiers(banned func(string) bool) func(*source) []finding {
	return func(s *source) (out []finding) {
		s.each(func(n ast.Node) {
			if id, ok := n.(*ast.Ident); ok && banned(id.Name) {
				out = append(out, finding{n.Pos(), id.Name})
			}
		})
		return out
	}
}

func literals(banned func(string) bool) func(*source) []finding {
	return func(s *source) (out []finding) {
		s.each(func(n ast.Node) {
			if text, ok := literal(n); ok && banned(text) {
				out = append(out, finding{n.Pos(), strconv.Quote(text)})
			}
		})
		return out
	}
}

func literal(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// processSignals finds calls x.Process.Kill() and x.Process.Signal(…).
func processSignals(s *source) (out []finding) {
	s.each(func(n ast.Node) {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || method.Sel.Name != "Kill" && method.Sel.Name != "Signal" {
			return
		}
		if of, ok := method.X.(*ast.SelectorExpr); ok && of.Sel.Name == "Process" {
			out = append(out, finding{n.Pos(), "Process." + method.Sel.Name})
		}
	})
	return out
}

// skips finds skips whose reason does not start with "needs ".
func skips(s *source) (out []finding) {
	s.each(func(n ast.Node) {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return
		}
		switch method.Sel.Name {
		case "SkipNow":
			out = append(out, finding{n.Pos(), "SkipNow, which gives no reason"})
		case "Skip", "Skipf":
			if len(call.Args) == 0 {
				return // not testing's
			}
			first := call.Args[0]
			for {
				sum, ok := first.(*ast.BinaryExpr)
				if !ok {
					break
				}
				first = sum.X
			}
			if text, ok := literal(first); !ok || !strings.HasPrefix(text, "needs ") {
				out = append(out, finding{n.Pos(), method.Sel.Name + " with another reason"})
			}
		}
	})
	return out
}

// excepted returns the reason why a file may break the rule, or "".
func (r *rule) excepted(path string) string {
	for where, why := range r.except {
		if path == where || strings.HasSuffix(where, "/") && strings.HasPrefix(path, where) {
			return why
		}
	}
	return ""
}

func TestRules(t *testing.T) {
	sources := load(t)
	for _, r := range rules() {
		t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
			for _, s := range sources {
				if r.excepted(s.path) != "" {
					continue
				}
				for _, f := range r.check(s) {
					t.Errorf("%s:%d: %s: %s.\n\twhy: %s\n\tinstead: %s",
						s.path, s.fset.Position(f.pos).Line, r.name, f.what, r.why, r.instead)
				}
			}
		})
	}
}

func TestRulesCatchTheirSamples(t *testing.T) {
	for _, r := range rules() {
		if r.why == "" || r.instead == "" || len(r.bad) == 0 || len(r.good) == 0 {
			t.Errorf("%s: a rule has a reason, an alternative and samples", r.name)
		}
		for _, text := range r.bad {
			if s := sample(t, text); len(r.check(s)) == 0 {
				t.Errorf("%s: lets pass:\n%s", r.name, text)
			}
		}
		for _, text := range r.good {
			if s := sample(t, text); len(r.check(s)) != 0 {
				t.Errorf("%s: catches:\n%s", r.name, text)
			}
		}
	}
}

// sample parses "PATH\nTEXT".
func sample(t *testing.T, text string) *source {
	t.Helper()
	name, body, _ := strings.Cut(text, "\n")
	s, err := parse(token.NewFileSet(), name, []byte(body))
	if err != nil {
		t.Fatalf("%v in the sample:\n%s", err, text)
	}
	return s
}
