package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// root is the top of the repository, seen from this package's directory, where
// go test runs its tests.
const root = ".."

// A source is one parsed Go file.
type source struct {
	path    string // slash-separated, from the top of the repository
	test    bool
	lines   int
	file    *ast.File
	fset    *token.FileSet
	imports map[string]string // name in this file → import path
}

// A finding is one place where a rule is broken.
type finding struct {
	pos  token.Pos
	what string
}

// dir is the file's directory, which is its package's path below the module.
func (s *source) dir() string { return path.Dir(s.path) }

// in says whether the file is in dir or below it.
func (s *source) in(dir string) bool {
	return s.dir() == dir || strings.HasPrefix(s.path, dir+"/")
}

// qualified returns the import path and name of an expression pkg.Name, or "".
func (s *source) qualified(e ast.Node) (pkg, name string) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	return s.imports[id.Name], sel.Sel.Name
}

// each calls f for every node of the file.
func (s *source) each(f func(ast.Node)) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		if n != nil {
			f(n)
		}
		return true
	})
}

// parse makes a source of a file's text.
func parse(fset *token.FileSet, name string, text []byte) (*source, error) {
	f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	s := &source{
		path: name, test: strings.HasSuffix(name, "_test.go"), file: f, fset: fset,
		lines: strings.Count(string(text), "\n"), imports: map[string]string{},
	}
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		local := path.Base(p)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		s.imports[local] = p
	}
	return s, nil
}

// files lists the repository's files, without what is not its own.
func files(t *testing.T) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(p, root+string(filepath.Separator)))
		if d.IsDir() {
			switch d.Name() {
			case ".git", "bin", "cover", "testdata", ".vagrant":
				return filepath.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(names)
	return names
}

// load parses every Go file of the repository.
func load(t *testing.T) []*source {
	t.Helper()
	fset := token.NewFileSet()
	var out []*source
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		s, err := parse(fset, name, text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		t.Fatal("no Go file found: the lint looks in the wrong place")
	}
	return out
}
