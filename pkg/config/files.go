package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// maxFileSize bounds every file that is read.
const maxFileSize = 4 << 20

// Source is a file as it was read.
type Source struct {
	Path string // absolute
	Data []byte
}

// Options say how Load treats the files.
type Options struct {
	// RequireOwner is a uid that each file, and the directory that holds it,
	// must belong to, with nobody else allowed to write there (a sticky
	// directory is no objection): else another user decides what root runs.
	// -1 turns the check off.
	RequireOwner int
}

// files is where a configuration is read from.
type files interface {
	read(path string) ([]byte, error)             // the path is absolute
	match(base, pattern string) ([]string, error) // sorted; a pattern without wildcards must exist
	sources() []Source                            // what read has returned so far
	lack(path string) bool                        // it was not recorded: whether there is such a file is not known
}

// diskFiles reads the file system.
type diskFiles struct {
	requireOwner int
	all          []Source
}

func (d *diskFiles) sources() []Source { return d.all }

func (d *diskFiles) lack(string) bool { return false }

func (d *diskFiles) read(path string) ([]byte, error) {
	if i := slices.IndexFunc(d.all, func(s Source) bool { return s.Path == path }); i >= 0 {
		return d.all[i].Data, nil
	}
	data, err := readRegular(path, d.requireOwner)
	if err != nil {
		return nil, err
	}
	d.all = append(d.all, Source{path, data})
	return data, nil
}

// readRegular reads a regular file of bounded size. Anything else (a FIFO that
// would block, a device that never ends) is refused before it is opened.
func readRegular(path string, owner int) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, bare(err)
	}
	if err := regular(info); err != nil {
		return nil, err
	}
	// O_NONBLOCK: the file may have become a FIFO since.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, bare(err)
	}
	if err := regular(info); err != nil {
		return nil, err
	}
	if owner >= 0 {
		if err := trusted(path, info, owner); err != nil {
			return nil, err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, bare(err)
	}
	if len(data) > maxFileSize {
		return nil, tooLarge()
	}
	return data, nil
}

func regular(info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return errors.New("is a directory")
	case !info.Mode().IsRegular():
		return errors.New("is not a regular file")
	case info.Size() > maxFileSize:
		return tooLarge()
	}
	return nil
}

func tooLarge() error { return fmt.Errorf("is larger than %d MiB", maxFileSize>>20) }

// bare drops the operation and the path of an os error: the caller names the file.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// CheckOwner reports what is wrong with a file for a daemon of that uid to
// execute or read: it, its directory and the one that really holds it must be
// the owner's and writable by nobody else. A sticky directory may be.
func CheckOwner(path string, owner int) error {
	info, err := os.Stat(path)
	if err != nil {
		return bare(err)
	}
	return trusted(path, info, owner)
}

// trusted checks the owner and mode of an opened file, of the directory that
// its path names and of the one that really holds it.
func trusted(path string, info fs.FileInfo, owner int) error {
	if problem := untrusted(info, owner); problem != "" {
		return errors.New(problem)
	}
	dirs := []string{filepath.Dir(path)}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return bare(err)
	}
	if d := filepath.Dir(real); d != dirs[0] {
		dirs = append(dirs, d)
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			return bare(err)
		}
		if problem := untrusted(info, owner); problem != "" {
			return fmt.Errorf("its directory %s %s", dir, problem)
		}
	}
	return nil
}

// untrusted says what is wrong with the owner or the mode.
func untrusted(info fs.FileInfo, owner int) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int64(st.Uid) != int64(owner) {
		return fmt.Sprintf("must belong to uid %d", owner)
	}
	sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0
	if info.Mode().Perm()&0o022 != 0 && !sticky {
		return fmt.Sprintf("must not be writable by its group or others (mode %04o)", info.Mode().Perm())
	}
	return ""
}

// match walks the pattern a component at a time: unlike filepath.Glob it
// reports a directory that cannot be read, which must not look like one that is
// empty and take every included entry away.
func (d *diskFiles) match(base, pattern string) ([]string, error) {
	parts, err := splitPattern(base, pattern)
	if err != nil {
		return nil, err
	}
	found := []string{parts.base}
	for _, part := range parts.rest {
		var next []string
		for _, dir := range found {
			if !hasWildcard(part) {
				next = append(next, filepath.Join(dir, part))
				continue
			}
			names, err := os.ReadDir(dir)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", dir, bare(err))
			}
			for _, name := range names {
				if matchPart(part, name.Name()) {
					next = append(next, filepath.Join(dir, name.Name()))
				}
			}
		}
		found = next
	}
	if parts.wild {
		found = slices.DeleteFunc(found, func(path string) bool {
			_, err := os.Lstat(path)
			return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
		})
	}
	slices.Sort(found)
	return found, nil
}

// memoryFiles reads recorded sources.
type memoryFiles struct {
	all  []Source
	used []Source
}

func (m *memoryFiles) sources() []Source { return m.used }

func (m *memoryFiles) lack(path string) bool { return m.index(path) < 0 }

func (m *memoryFiles) index(path string) int {
	return slices.IndexFunc(m.all, func(s Source) bool { return s.Path == path })
}

func (m *memoryFiles) read(path string) ([]byte, error) {
	i := m.index(path)
	if i < 0 {
		return nil, syscall.ENOENT
	}
	if !slices.ContainsFunc(m.used, func(s Source) bool { return s.Path == path }) {
		m.used = append(m.used, m.all[i])
	}
	return m.all[i].Data, nil
}

func (m *memoryFiles) match(base, pattern string) ([]string, error) {
	parts, err := splitPattern(base, pattern)
	if err != nil {
		return nil, err
	}
	if !parts.wild {
		return []string{filepath.Join(append([]string{parts.base}, parts.rest...)...)}, nil
	}
	var found []string
	for _, s := range m.all {
		below, err := filepath.Rel(parts.base, s.Path)
		if err != nil {
			continue
		}
		names := strings.Split(below, "/")
		if slices.EqualFunc(parts.rest, names, matchPart) {
			found = append(found, s.Path)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// pathPattern is a pattern of paths: a directory taken as it stands, and the
// components below it.
type pathPattern struct {
	base string
	rest []string
	wild bool // some component has a wildcard
}

func splitPattern(base, pattern string) (pathPattern, error) {
	if filepath.IsAbs(pattern) {
		base = "/"
	}
	p := pathPattern{base: base, wild: hasWildcard(pattern)}
	for _, part := range strings.Split(filepath.Clean(pattern), "/") {
		switch part {
		case "", ".":
		case "..":
			if len(p.rest) > 0 {
				return p, fmt.Errorf("%q: .. must not follow a wildcard", pattern)
			}
			p.base = filepath.Dir(p.base)
		default:
			if _, err := filepath.Match(part, ""); err != nil {
				return p, fmt.Errorf("%q is not a pattern: a bracket is not closed", pattern)
			}
			p.rest = append(p.rest, part)
		}
	}
	return p, nil
}

func hasWildcard(s string) bool { return strings.ContainsAny(s, `*?[\`) }

// matchPart matches one component. As in a shell, a wildcard does not match
// the dot of a hidden file: editors leave their locks and copies there.
func matchPart(pattern, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") {
		return false
	}
	ok, err := filepath.Match(pattern, name)
	return err == nil && ok
}
