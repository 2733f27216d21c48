package lint

import (
	"errors"
	"go/ast"
	"go/token"
	"go/types"
	"sort"
	"strings"
	"testing"
)

// mutableState may be package-level state all the same, by directory and name,
// each with the reason.
var mutableState = map[string]string{
	"pkg/spawn.haveClone3":    "a fact of the kernel, asked once",
	"pkg/spawn.havePidfs":     "a fact of the kernel, asked once",
	"pkg/spawn.bounding":      "a fact of this process, which nothing adds to, asked once",
	"pkg/spawn.bootID":        "a fact of this boot, read once",
	"pkg/spawn.originalLimit": "a fact of this process from before main, found once",
	"pkg/state.lostNofile":    "stands in for what package syscall keeps in a variable of its own, for the process",
	"pkg/state.chosen":        "a test build's step to die at, read once",
}

const mutableAdvice = "package-level state makes two of a thing impossible and a test depend on its neighbours; instead make it a field of the value that main wires, or a constant table that nothing writes"

// TestNoMutableGlobals bans package-level variables that change: those that
// something in the package writes, takes the address of or calls a
// pointer method on, those without a value, and those of a type that is made to
// change (channels, sync, sync/atomic). Tables, errors and compiled patterns
// that nothing writes are constants in all but the keyword.
func TestNoMutableGlobals(t *testing.T) {
	byDir := map[string][]*source{}
	for _, s := range load(t) {
		byDir[s.dir()] = append(byDir[s.dir()], s)
	}
	for dir, sources := range byDir {
		for _, f := range mutableGlobals(sources) {
			if mutableState[dir+"."+f.what] != "" {
				continue
			}
			p := sources[0].fset.Position(f.pos)
			t.Errorf("%s:%d: %s changes: %s", p.Filename, p.Line, f.what, mutableAdvice)
		}
	}
}

// noImports makes the type checker go on without what a package imports.
type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not loaded") }

// mutableGlobals takes the files of one directory and returns the package-level
// variables of its non-test files that change.
func mutableGlobals(sources []*source) []finding {
	var asts []*ast.File
	name := ""
	for _, s := range sources {
		if !s.test {
			name = s.file.Name.Name
		}
	}
	for _, s := range sources {
		if s.file.Name.Name == name { // not the external test package
			asts = append(asts, s.file)
		}
	}
	if len(asts) == 0 {
		return nil
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
	conf := types.Config{Importer: noImports{}, Error: func(error) {}, FakeImportC: true}
	// What it says of imported names is of no interest, and so are its errors.
	_, _ = conf.Check(name, sources[0].fset, asts, info)

	found := map[types.Object]bool{}
	globals := map[types.Object]bool{}
	for _, s := range sources {
		if s.test || s.file.Name.Name != name {
			continue
		}
		for _, d := range s.file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				embed := g.Doc != nil && strings.Contains(rawComment(g.Doc), "//go:embed") || v.Doc != nil && strings.Contains(rawComment(v.Doc), "//go:embed")
				for _, id := range v.Names {
					obj := info.Defs[id]
					if id.Name == "_" || obj == nil {
						continue
					}
					globals[obj] = true
					if len(v.Values) == 0 && !embed || madeToChange(s, v) {
						found[obj] = true
					}
				}
			}
		}
	}
	written := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.ParenExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.IndexExpr:
				e = x.X
			case *ast.SliceExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.Ident:
				if obj := info.Uses[x]; globals[obj] {
					found[obj] = true
				}
				return
			default:
				return
			}
		}
	}
	for _, f := range asts {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, e := range n.Lhs {
					written(e)
				}
			case *ast.IncDecStmt:
				written(n.X)
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					for _, e := range []ast.Expr{n.Key, n.Value} {
						if e != nil {
							written(e)
						}
					}
				}
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					written(n.X)
				}
			case *ast.CallExpr:
				sel, ok := n.Fun.(*ast.SelectorExpr)
				if !ok {
					break
				}
				if s := info.Selections[sel]; s != nil && s.Kind() == types.MethodVal {
					recv := s.Obj().Type().(*types.Signature).Recv()
					if _, pointer := recv.Type().(*types.Pointer); pointer {
						written(sel.X)
					}
				}
			}
			return true
		})
	}
	var out []finding
	for obj := range found {
		out = append(out, finding{obj.Pos(), obj.Name()})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].pos < out[j].pos })
	return out
}

// rawComment is a comment with its directives, which Text leaves out.
func rawComment(g *ast.CommentGroup) string {
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text + "\n")
	}
	return b.String()
}

// madeToChange says whether a variable's type or value is a channel or of sync.
func madeToChange(s *source, v *ast.ValueSpec) (yes bool) {
	look := func(n ast.Node) bool {
		if _, ok := n.(*ast.ChanType); ok {
			yes = true
		}
		if pkg, _ := s.qualified(n); pkg == "sync" || pkg == "sync/atomic" {
			yes = true
		}
		_, isFunc := n.(*ast.FuncLit)
		return !isFunc
	}
	if v.Type != nil {
		ast.Inspect(v.Type, look)
	}
	for _, e := range v.Values {
		ast.Inspect(e, look)
	}
	return yes
}

func TestMutableGlobalsSamples(t *testing.T) {
	for text, want := range map[string]string{
		"a/x.go\npackage a\nvar n = 1\nfunc f() { n++ }":                                          "n",
		"a/x.go\npackage a\nvar m = map[int]int{}\nfunc f() { m[1] = 2 }":                         "m",
		"a/x.go\npackage a\nvar p = 1\nfunc f() *int { return &p }":                               "p",
		"a/x.go\npackage a\nimport \"sync\"\nvar mu sync.Mutex":                                   "mu",
		"a/x.go\npackage a\nimport \"sync\"\nvar one = sync.OnceValue(f)":                         "one",
		"a/x.go\npackage a\nvar late string":                                                      "late",
		"a/x.go\npackage a\ntype T struct{}\nfunc (*T) M() {}\nvar t T = T{}\nfunc f() { t.M() }": "t",
		"a/x.go\npackage a\nvar n = 1\nfunc f() { n := 2; n++ }":                                  "",
		"a/x.go\npackage a\nimport \"errors\"\nvar ErrGone = errors.New(\"gone\")":                "",
		"a/x.go\npackage a\nvar table = [...]string{\"a\"}\nfunc f() string { return table[0] }":  "",
		"a/x.go\npackage a\nimport _ \"embed\"\n\n//go:embed x.html\nvar page string":             "",
		"a/x.go\npackage a\nvar _ I = T{}":                                                        "",
	} {
		var got []string
		for _, f := range mutableGlobals([]*source{sample(t, text)}) {
			got = append(got, f.what)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("found %q, want %q, in:\n%s", got, want, text)
		}
	}
}
