package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// DefaultName is the configuration that is looked up when none is named.
const DefaultName = "sentry"

const nameRule = "letters, digits, _, . and -, the first a letter or a digit, at most 63"

var nameSyntax = syntax(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// ValidName says whether s may be the name of an entry or of a daemon.
func ValidName(s string) bool { return nameSyntax.MatchString(s) }

// NameOf returns the NAME of the daemon that a configuration file is for: its
// base name without its ending.
func NameOf(path string) (string, error) {
	base := filepath.Base(path)
	name := strings.TrimSuffix(base, filepath.Ext(base))
	if !ValidName(name) {
		return "", fmt.Errorf("the file's name %q gives the daemon no name: %s", base, nameRule)
	}
	return name, nil
}

// Dirs returns the directories in which a configuration is looked up by name.
// home is from the user database for root, xdg is $XDG_CONFIG_HOME; each may be
// empty. The current directory is never one of them.
func Dirs(root bool, home, xdg string) []string {
	var dirs []string
	switch {
	case root:
		dirs = append(dirs, "/etc/sentryd")
	case filepath.IsAbs(xdg): // the specification has others ignored
		dirs = append(dirs, filepath.Join(xdg, "sentryd"))
	case filepath.IsAbs(home):
		dirs = append(dirs, filepath.Join(home, ".config", "sentryd"))
	}
	if filepath.IsAbs(home) {
		dirs = append(dirs, filepath.Join(home, ".sentryd", "conf"))
	}
	return dirs
}

// IsPath says whether the argument of -c is a path, and not a name to be
// looked up.
func IsPath(x string) bool {
	return strings.Contains(x, "/") || strings.HasSuffix(x, ".yaml") || strings.HasSuffix(x, ".yml")
}

// Find returns the configuration file that x, the argument of -c, stands for:
// a path as it is, a name as NAME.yaml in the first of dirs that has it, ""
// as DefaultName. A path is not checked.
func Find(x string, dirs []string) (string, error) {
	if x == "" {
		x = DefaultName
	}
	if IsPath(x) {
		return x, nil
	}
	if !ValidName(x) {
		return "", fmt.Errorf("configuration %q is not a name (%s), nor a path, which has a / or ends in .yaml", x, nameRule)
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, x+".yaml")
		_, err := os.Stat(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("configuration %s: %w", path, bare(err))
		}
	}
	return "", fmt.Errorf("configuration %q not found: no %s.yaml in %s", x, x, strings.Join(dirs, ", "))
}
