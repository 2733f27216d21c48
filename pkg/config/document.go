package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// maxAliased bounds how many nodes the aliases of a file may stand for. A few
// lines of aliases to aliases stand for billions ("billion laughs").
const maxAliased = 100_000

const emptyFile = `the file is empty: it needs at least "entries: {}"`

// parseDocument returns the root node of the first YAML document in data, or nil
// if there is none to go on with. The tree may hold aliases; they are free of cycles
// and stand for a bounded number of nodes. What is wrong is told to fail.
func parseDocument(data []byte, fail func(line int, problem string)) *yaml.Node {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if line, ok := validUTF8(data); !ok {
		fail(line, "not valid UTF-8")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	doc, err := decodeNode(dec)
	switch {
	case errors.Is(err, io.EOF):
		fail(1, emptyFile)
		return nil
	case err != nil:
		fail(syntaxError(err, data))
		return nil
	}
	root := doc.Content[0]
	second, err := decodeNode(dec)
	switch {
	case err == nil:
		fail(second.Line, "a second document: a file holds one configuration")
		if isNull(root) {
			return nil
		}
	case !errors.Is(err, io.EOF):
		fail(syntaxError(err, data)) // there may be more of the first one
		return nil
	case isNull(root):
		fail(1, emptyFile)
		return nil
	}
	budget := maxAliased
	if n, problem := checkAliases(root, &budget, false, map[*yaml.Node]bool{}); problem != "" {
		fail(n.Line, problem)
		return nil
	}
	return root
}

// decodeNode reads the next document. The library panics on some inputs that
// it calls internal errors (a tail comment in an unexpected place), which must
// not be the end of a supervisor.
func decodeNode(dec *yaml.Decoder) (doc *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			doc, err = nil, fmt.Errorf("yaml: the parser gave up: %v", r)
		}
	}()
	doc = new(yaml.Node)
	if err := dec.Decode(doc); err != nil {
		return nil, err
	}
	return doc, nil
}

var yamlErrorText = syntax(`^yaml: (?:line ([0-9]+): )?((?s).*)$`)

// syntaxError turns an error of the YAML parser, which carries its line in the
// text alone, into a line and a message.
func syntaxError(err error, data []byte) (line int, problem string) {
	m := yamlErrorText.FindStringSubmatch(err.Error())
	if m == nil {
		return 1, err.Error()
	}
	line, _ = strconv.Atoi(m[1]) // "" when the parser was still on the first line
	line = max(line, 1)
	lines := bytes.Split(data, []byte("\n"))
	if line <= len(lines) && bytes.HasPrefix(bytes.TrimLeft(lines[line-1], " "), []byte("\t")) {
		return line, "not valid YAML: a tab in the indentation, which must be blanks"
	}
	if strings.HasPrefix(m[2], "did not find expected") {
		// For these the library gives the line in which the surrounding map or
		// list begins. Where it stopped reading is nearer to the mistake.
		line = lineReached(data)
	}
	return line, "not valid YAML: " + strings.ReplaceAll(m[2], "\n", " ")
}

// lineReached returns the line up to which the parser reads before it fails.
func lineReached(data []byte) int {
	r := &byteReader{data: data}
	dec := yaml.NewDecoder(r)
	for {
		if _, err := decodeNode(dec); err != nil {
			return 1 + bytes.Count(data[:max(r.read-1, 0)], []byte("\n"))
		}
	}
}

// byteReader hands out one byte at a time, and knows how many.
type byteReader struct {
	data []byte
	read int
}

func (r *byteReader) Read(p []byte) (int, error) {
	if r.read == len(r.data) {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	p[0] = r.data[r.read]
	r.read++
	return 1, nil
}

// validUTF8 says whether data is UTF-8, and if not in which line it ceases to be.
func validUTF8(data []byte) (line int, ok bool) {
	if utf8.Valid(data) {
		return 0, true
	}
	line = 1
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		if r == utf8.RuneError && size == 1 {
			break
		}
		if r == '\n' {
			line++
		}
		data = data[size:]
	}
	return line, false
}

// checkAliases walks the tree as the decoder will, through its aliases, and
// returns the node where an alias holds itself or the budget is used up.
func checkAliases(n *yaml.Node, budget *int, aliased bool, open map[*yaml.Node]bool) (*yaml.Node, string) {
	if aliased {
		if *budget--; *budget < 0 {
			return n, fmt.Sprintf("the aliases of this file stand for more than %d values", maxAliased)
		}
	}
	if n.Kind == yaml.AliasNode {
		if open[n.Alias] {
			return n, fmt.Sprintf("the alias *%s holds itself", n.Value)
		}
		return checkAliases(n.Alias, budget, true, open)
	}
	if len(n.Content) == 0 {
		return nil, ""
	}
	open[n] = true
	defer delete(open, n)
	for _, c := range n.Content {
		if at, problem := checkAliases(c, budget, aliased, open); problem != "" {
			return at, problem
		}
	}
	return nil, ""
}
