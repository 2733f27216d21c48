package config

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// readListen reads one address, a list of them, or "none".
func readListen(v value, f *file) {
	var list []string
	one := func(v value) {
		text, ok := v.scalar("an address: write HOST:PORT (127.0.0.1:8001)")
		if !ok {
			return
		}
		if problem := checkAddress(text); problem != "" {
			v.fail("%s %s", v.describe(), problem)
			return
		}
		if slices.Contains(list, text) {
			v.fail("%s is given twice", v.describe())
			return
		}
		list = append(list, text)
	}
	switch {
	case v.node.Kind == yaml.SequenceNode:
		v.list(one)
	case v.node.Kind == yaml.ScalarNode && v.node.Value == "none":
	default:
		one(v)
	}
	f.HTTP.Listen = list
}

var (
	portText = syntax(`^(0|[1-9][0-9]{0,4})$`)
	hostName = syntax(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)
)

// checkAddress returns what is wrong with an address to listen on, or "".
func checkAddress(text string) string {
	const want = `is not an address: write HOST:PORT (127.0.0.1:8001, "[::1]:8001"), or "none" for no TCP at all`
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return want
	}
	if n, _ := strconv.Atoi(port); !portText.MatchString(port) || n > 65535 {
		return "is not an address: the port must be a number from 0 to 65535"
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !isHostName(host) {
		return want
	}
	return ""
}

// isHostName says whether s looks like a host's name. One of digits and dots
// alone is an address gone wrong.
func isHostName(s string) bool {
	return len(s) <= 253 && hostName.MatchString(s) && strings.Trim(s, "0123456789.") != ""
}

func readHosts(v value, f *file) {
	var hosts []string
	if !v.texts(&hosts) {
		return
	}
	for i, h := range hosts {
		if _, err := netip.ParseAddr(h); err != nil && !isHostName(h) {
			v.fail("%q is not the name of a host, without a port", h)
		}
		hosts[i] = strings.ToLower(h)
	}
	f.HTTP.Hosts = hosts
}
