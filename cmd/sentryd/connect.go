package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sentryd/sentryd/pkg/api"
	"github.com/sentryd/sentryd/pkg/config"
	"github.com/sentryd/sentryd/pkg/peer"
)

// systemRuntimeDir is where root's daemons are.
const systemRuntimeDir = "/run/sentryd"

// home returns the user's home directory, or "". Root's comes from the user
// database: what is in the environment may be the user's who called sudo.
func home() string {
	if h := os.Getenv("HOME"); os.Geteuid() != 0 && filepath.IsAbs(h) {
		return h
	}
	if u, err := user.LookupId(fmt.Sprint(os.Geteuid())); err == nil {
		return u.HomeDir
	}
	return ""
}

// configPath returns the configuration file that -c stands for.
func (c *cli) configPath() (string, error) {
	path, err := config.Find(c.config, config.Dirs(os.Geteuid() == 0, home(), os.Getenv("XDG_CONFIG_HOME")))
	if err != nil {
		return "", usagef("%v", err)
	}
	return path, nil
}

// runtimeBase returns the directory in which the daemon's NAME directory is,
// and whether the user chose it.
func (c *cli) runtimeBase() (dir string, chosen bool, err error) {
	dir = c.runtimeDir
	if dir == "" {
		dir = os.Getenv("SENTRYD_RUNTIME_DIR")
	}
	if dir != "" {
		dir, err = filepath.Abs(dir)
		return dir, true, err
	}
	if os.Geteuid() == 0 {
		return systemRuntimeDir, false, nil
	}
	if xdg := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(xdg) {
		return filepath.Join(xdg, "sentryd"), false, nil
	}
	if h := home(); h != "" {
		return filepath.Join(h, ".sentryd", "run"), false, nil
	}
	return "", false, errors.New("no runtime directory: neither XDG_RUNTIME_DIR nor a home directory; use --runtime-dir")
}

// daemonName returns the NAME of the daemon to talk to. Its configuration need
// not be there.
func (c *cli) daemonName() (string, error) {
	switch {
	case c.config == "":
		return config.DefaultName, nil
	case config.IsPath(c.config):
		name, err := config.NameOf(c.config)
		if err != nil {
			return "", usagef("%v", err)
		}
		return name, nil
	case !config.ValidName(c.config):
		return "", usagef("%q is not the name of a daemon", c.config)
	}
	return c.config, nil
}

// connect returns a client of the daemon that the flags name.
func (c *cli) connect() (*api.Client, error) {
	socket := c.socket
	if socket == "" {
		socket = os.Getenv("SENTRYD_SOCKET")
	}
	if strings.HasPrefix(socket, "http://") {
		client, err := api.NewTCPClient(socket)
		if err != nil {
			return nil, usagef("%v", err)
		}
		return client, nil
	}
	if socket != "" {
		return c.dial(socket)
	}
	name, err := c.daemonName()
	if err != nil {
		return nil, err
	}
	base, chosen, err := c.runtimeBase()
	if err != nil {
		return nil, err
	}
	client, err := c.dial(filepath.Join(base, name, controlSocket))
	if !chosen && base != systemRuntimeDir && errors.Is(err, api.ErrNoDaemon) {
		// The user runs none of that name; perhaps the system does.
		if system, systemErr := c.dial(filepath.Join(systemRuntimeDir, name, controlSocket)); systemErr == nil {
			return system, nil
		}
	}
	return client, err
}

// dial returns a client of the socket at path if somebody listens there, and notes who.
func (c *cli) dial(path string) (*api.Client, error) {
	conn, err := net.Dial("unix", path)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nothing listens on %s", api.ErrNoDaemon, path)
	case err != nil:
		return nil, fmt.Errorf("connect to the daemon: %w", err)
	}
	defer conn.Close()
	if cred, err := peer.Unix(conn.(*net.UnixConn)); err == nil {
		c.peer = cred.PID
	}
	return api.NewClient(path), nil
}
