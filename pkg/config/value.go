package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// A value is one YAML node and what an error about it has to say: the file,
// the line and the key. Its methods read the node as one type each; a method
// that takes a pointer sets it when the node is right, and reports an error
// and leaves it alone when not. So a setter is one call.
type value struct {
	node *yaml.Node // never an alias
	line int        // of a scalar its own, of a map or a list its key's
	at   int        // line of the key
	key  string     // dotted, e.g. entries.web.stop.signal; "" at the root
	file string
	errs *Errors
}

// rootValue is the value of a whole file.
func rootValue(root *yaml.Node, file string, errs *Errors) value {
	return value{file: file, errs: errs}.child(root, root.Line, "") // the first line that is no comment
}

// child is the value of a node below v whose key stands in the given line.
func (v value) child(n *yaml.Node, line int, key string) value {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	v.node, v.line, v.at = n, line, line
	if n.Kind == yaml.ScalarNode && !(isNull(n) && n.Value == "") {
		v.line = n.Line
	}
	switch {
	case v.key == "":
		v.key = key
	case strings.HasPrefix(key, "["):
		v.key += key
	default:
		v.key += "." + key
	}
	return v
}

// fail reports an error at the value.
func (v value) fail(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if v.key != "" {
		message = v.key + ": " + message
	}
	v.failAt(v.line, message)
}

// failAt reports an error in another line of the same file.
func (v value) failAt(line int, message string) {
	*v.errs = append(*v.errs, Error{File: v.file, Line: line, Message: message})
}

// wrong reports a value of another kind than the key wants.
func (v value) wrong(want string) {
	if isNull(v.node) {
		v.fail("is empty: it must be %s", want)
		return
	}
	v.fail("%s is not %s", v.describe(), want)
}

// describe names the value in an error.
func (v value) describe() string {
	switch {
	case v.node.Kind == yaml.MappingNode:
		return "a map"
	case v.node.Kind == yaml.SequenceNode:
		return "a list"
	case len(v.node.Value) > 60:
		return fmt.Sprintf("%.60q…", v.node.Value)
	default:
		return strconv.Quote(v.node.Value)
	}
}

// asWritten names the value where quotes make a difference: it has those of the file.
func (v value) asWritten() string {
	if v.node.Kind == yaml.ScalarNode && v.plain() {
		return printable(v.node.Value)
	}
	return v.describe()
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// plain says whether the value was written without quotes, so that YAML gives
// it a type by its looks.
func (v value) plain() bool {
	const quoted = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	return v.node.Style&quoted == 0
}

// tagged reports a value with an explicit tag, such as !!binary.
func (v value) tagged() bool {
	if v.node.Style&yaml.TaggedStyle == 0 {
		return false
	}
	v.fail("the tag %s is not supported", v.node.Tag)
	return true
}

// scalar returns the text of a value that is neither a list, a map nor null,
// whatever its type. want says in an error what would be right.
func (v value) scalar(want string) (string, bool) {
	switch {
	case v.node.Kind != yaml.ScalarNode || isNull(v.node):
		v.wrong(want)
		return "", false
	case v.tagged():
		return "", false
	case strings.ContainsRune(v.node.Value, 0):
		// Nothing that ends up in an execve or a path can hold one.
		v.fail("must not contain a NUL byte")
		return "", false
	}
	return v.node.Value, true
}

// text reads a string. A number or a truth value is no string: 017 and 1.10
// would not mean what they look like.
func (v value) text(to *string) bool {
	s, ok := v.scalar("a string")
	if ok && v.node.Tag != "!!str" {
		v.fail(`%s is not a string: put it in quotes`, s)
		return false
	}
	if ok {
		*to = s
	}
	return ok
}

// pattern reads a string in which $(VAR) is expanded at a start.
func (v value) pattern(to *string) bool {
	var s string
	if !v.text(&s) {
		return false
	}
	if _, err := parsePattern(s); err != nil {
		v.fail("%v", err)
		return false
	}
	*to = s
	return true
}

// list calls item for each element of a list. It reports false, and an error,
// when the value is no list.
func (v value) list(item func(v value)) bool {
	if v.node.Kind != yaml.SequenceNode {
		v.wrong("a list")
		return false
	}
	if v.tagged() {
		return false
	}
	for i, n := range v.node.Content {
		item(v.child(n, n.Line, fmt.Sprintf("[%d]", i)))
	}
	return true
}

// texts reads a list of strings, and patterns a list of those that are
// expanded. The list is not nil, and it is set when all of it is right.
func (v value) texts(to *[]string) bool    { return v.strings(to, value.text) }
func (v value) patterns(to *[]string) bool { return v.strings(to, value.pattern) }

func (v value) strings(to *[]string, read func(value, *string) bool) bool {
	list, good := make([]string, 0, len(v.node.Content)), true
	isList := v.list(func(v value) {
		var s string
		good = read(v, &s) && good
		list = append(list, s)
	})
	if isList && good {
		*to = list
	}
	return isList && good
}

// each calls f for every key of a map, in order. Repeated keys, merge keys and
// keys that are no plain words are reported, and passed over.
func (v value) each(f func(key string, v value)) bool {
	if v.node.Kind != yaml.MappingNode {
		v.wrong("a map")
		return false
	}
	if v.tagged() {
		return false
	}
	first := make(map[string]int, len(v.node.Content)/2)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		k, n := v.node.Content[i], v.node.Content[i+1]
		at := v.child(n, k.Line, printable(k.Value))
		before, repeated := first[k.Value]
		switch {
		case k.Kind != yaml.ScalarNode || isNull(k) || k.Style&yaml.TaggedStyle != 0:
			v.failAt(k.Line, v.within("a key must be a plain word"))
		case k.Tag == "!!merge":
			v.failAt(k.Line, v.within(`merge keys (<<) are not supported: use "defaults", or an alias for a single value`))
		case repeated:
			v.failAt(k.Line, v.within(fmt.Sprintf("repeated key %q: first given in line %d", k.Value, before)))
		default:
			first[k.Value] = k.Line
			f(k.Value, at)
		}
	}
	return true
}

// printable returns a key or a value as it can stand in a message of one line.
func printable(name string) string {
	quoted := strconv.Quote(name)
	switch {
	case len(name) > 80:
		return fmt.Sprintf("%.80q…", name)
	case quoted != `"`+name+`"`:
		return quoted
	}
	return name
}

// within puts the key before a message, where there is one.
func (v value) within(message string) string {
	if v.key == "" {
		return message
	}
	return v.key + ": " + message
}

// A key is one key of a map: its name, how it is read into a T, and what of T
// it decides, for the comparison of two configurations.
type key[T any] struct {
	name    string
	read    func(value, *T)
	get     func(*T) any // nil for a key that is not compared as one
	inPlace bool         // a reload changes it without a restart
}

// decode reads a map into a T by its table of keys, and returns those that unknown keys
// of the map are likely to be: that one of them is missing is said already.
func decode[T any](v value, keys []key[T], to *T) (meant []string) {
	v.each(func(name string, at value) {
		i := slices.IndexFunc(keys, func(k key[T]) bool { return k.name == name })
		if i < 0 {
			names := make([]string, len(keys))
			for i := range keys {
				names[i] = keys[i].name
			}
			at.failAt(at.at, v.within(fmt.Sprintf("unknown key %q%s", name, didYouMean(name, names))))
			meant = append(meant, nearest(name, names))
			return
		}
		keys[i].read(at, to)
	})
	return meant
}
