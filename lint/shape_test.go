package lint

import (
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// longFiles may have more than hardLimit lines, each with the reason.
var longFiles = map[string]string{}

const (
	softLimit = 400 // over it a file is listed
	hardLimit = 800 // over it a file is refused
)

func TestFileLengths(t *testing.T) {
	for _, s := range load(t) {
		switch {
		case s.lines > hardLimit && longFiles[s.path] == "":
			t.Errorf("%s has %d lines, more than %d: split it by what is in it", s.path, s.lines, hardLimit)
		case s.lines > softLimit:
			t.Logf("%s has %d lines: is it about one thing?", s.path, s.lines)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	documented := map[string]bool{} // directories whose package has a comment
	for _, s := range load(t) {
		if s.test {
			continue
		}
		if s.file.Doc != nil {
			documented[s.dir()] = true
		} else if _, seen := documented[s.dir()]; !seen {
			documented[s.dir()] = false
		}
		for _, f := range undocumented(s) {
			t.Errorf("%s:%d: %s has no doc comment: say what it is, its units, its errors and who may call it at once",
				s.path, s.fset.Position(f.pos).Line, f.what)
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment: say what the package knows and what it must not know", dir)
		}
	}
}

// undocumented lists the exported names of a file without a comment. A comment
// on a group of constants or variables counts for each of them.
func undocumented(s *source) (out []finding) {
	for _, d := range s.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || ast.IsExported(receiver(d))) {
				out = append(out, finding{d.Pos(), "func " + d.Name.Name})
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if spec.Name.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
						out = append(out, finding{spec.Pos(), "type " + spec.Name.Name})
					}
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						if name.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
							out = append(out, finding{name.Pos(), d.Tok.String() + " " + name.Name})
						}
					}
				}
			}
		}
	}
	return out
}

func receiver(d *ast.FuncDecl) string {
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func TestExportedNamesSamples(t *testing.T) {
	for text, want := range map[string]int{
		"a/x.go\npackage a\nfunc F() {}":                              1,
		"a/x.go\npackage a\n// F does.\nfunc F() {}":                  0,
		"a/x.go\npackage a\nfunc (t *T) M() {}":                       1,
		"a/x.go\npackage a\nfunc (t t) M() {}":                        0,
		"a/x.go\npackage a\ntype T int":                               1,
		"a/x.go\npackage a\n// Kinds.\nconst (\n\tA = 1\n\tB = 2\n)":  0,
		"a/x.go\npackage a\nvar (\n\tA = 1 // one\n\tB = 2\n\tc = 3)": 1,
	} {
		if got := len(undocumented(sample(t, text))); got != want {
			t.Errorf("%d findings, want %d, in:\n%s", got, want, text)
		}
	}
}

// TestNoWorkLeftInTexts holds the files that are no Go to the rule for comments.
func TestNoWorkLeftInTexts(t *testing.T) {
	for _, name := range files(t) {
		switch path.Ext(name) {
		case ".go", ".sum", ".png", ".gz":
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			for _, word := range []string{"TODO", "FIXME", "XXX"} {
				if strings.Contains(line, word) {
					t.Errorf("%s:%d: %s: do it, or file an issue", name, n, word)
				}
			}
		}
	}
}
