package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// A tree is what goes into an initramfs, by absolute path. Directories on the
// way to a file need no entry of their own.
type tree map[string]node

// A node is a directory, a file with its content or a copy of a host's file, or
// a symbolic link. All belong to root.
type node struct {
	mode   fs.FileMode // type and permissions
	text   []byte      // content or, of a link, its target
	source string      // a file of the host to copy, in the place of text
}

func (t tree) dir(name string, perm fs.FileMode) { t[name] = node{mode: fs.ModeDir | perm} }
func (t tree) file(name, text string, perm fs.FileMode) {
	t[name] = node{mode: perm, text: []byte(text)}
}
func (t tree) copy(name, source string, perm fs.FileMode) {
	t[name] = node{mode: perm, source: source}
}
func (t tree) link(name, target string) {
	t[name] = node{mode: fs.ModeSymlink | 0o777, text: []byte(target)}
}

// write writes the tree as a cpio archive in the "newc" format, which is what
// the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
func (t tree) write(w io.Writer) error {
	out := &cpioWriter{w: bufio.NewWriterSize(w, 1<<20)}
	all := maps.Clone(t)
	for name := range t {
		for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all.dir(dir, 0o755)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) { // a directory before what is in it
		if err := out.add(strings.TrimPrefix(name, "/"), all[name]); err != nil {
			return fmt.Errorf("archive %s: %w", name, err)
		}
	}
	if err := out.add("TRAILER!!!", node{}); err != nil {
		return err
	}
	return out.w.Flush()
}

type cpioWriter struct {
	w     *bufio.Writer
	inode int
	n     int64 // bytes written
}

func (c *cpioWriter) add(name string, n node) error {
	var content io.Reader = strings.NewReader(string(n.text))
	size, changed := int64(len(n.text)), int64(0)
	if n.source != "" {
		f, err := os.Open(n.source)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		// Python compares the time of a file with that of its compiled form.
		content, size, changed = f, info.Size(), info.ModTime().Unix()
	}
	kind := 0o100000
	switch n.mode.Type() {
	case fs.ModeDir:
		kind = 0o040000
	case fs.ModeSymlink:
		kind = 0o120000
	}
	c.inode++
	// ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor,
	// rdevmajor, rdevminor, namesize with the NUL, check
	header := "070701"
	for _, field := range []int64{int64(c.inode), int64(kind) | int64(n.mode.Perm()), 0, 0, 1, changed, size, 0, 0, 0, 0, int64(len(name) + 1), 0} {
		header += fmt.Sprintf("%08X", field)
	}
	if err := c.put(strings.NewReader(header + name + "\x00")); err != nil {
		return err
	}
	before := c.n
	if err := c.put(io.LimitReader(content, size)); err != nil {
		return err
	}
	if c.n-before < size {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// put writes a part of a member, padded to a multiple of four.
func (c *cpioWriter) put(r io.Reader) error {
	n, err := io.Copy(c.w, r)
	if err != nil {
		return err
	}
	padding := -(c.n + n) & 3
	_, err = c.w.WriteString("\x00\x00\x00"[:padding])
	c.n += n + padding
	return err
}
