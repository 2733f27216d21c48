package api

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// checkHost refuses, on a loopback address, a request for another host than
// that address, localhost or one of the configured names: a page that a name of
// its own leads here (DNS rebinding) names itself. The port is not looked at: a
// tunnel has another, and a page cannot choose it apart from the name.
func checkHost(d *door, hosts []string, host string) error {
	if !d.loopback.IsValid() {
		return nil
	}
	name, ok := hostName(host)
	if ok {
		if strings.EqualFold(name, "localhost") {
			return nil
		}
		if ip, err := netip.ParseAddr(name); err == nil && ip.Unmap() == d.loopback {
			return nil
		}
		for _, h := range hosts {
			if strings.EqualFold(name, h) {
				return nil
			}
		}
	}
	return problemf(http.StatusMisdirectedRequest, "host %q is not served here; see `http.hosts`", host)
}

// hostName returns a Host header without its port and the brackets of an IPv6
// address.
func hostName(host string) (string, bool) {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name, port = host[:i], host[i+1:]
	}
	if strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		name = name[1 : len(name)-1]
		return name, strings.Contains(name, ":")
	}
	return name, name != "" && !strings.ContainsAny(name, ":[]")
}

// checkOrigin refuses what a browser sends for a page of another origin, null
// included; a request without the header is not a page's. Requests that change
// something are refused also when only Sec-Fetch-Site says so.
func checkOrigin(r *http.Request) error {
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" ||
			u.Scheme+"://"+u.Host != origin || !sameAuthority(u.Scheme, u.Host, r.Host) {
			return problemf(http.StatusForbidden, "requests from pages of another origin are refused")
		}
	}
	if safe(r.Method) {
		return nil
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if site != "same-origin" && site != "none" {
			return problemf(http.StatusForbidden, "requests from pages of another site are refused")
		}
	}
	return nil
}

// sameAuthority compares host:port of an origin with a Host header, which may
// both leave out the scheme's default port.
func sameAuthority(scheme, a, b string) bool {
	port := ":80"
	if scheme == "https" {
		port = ":443"
	}
	full := func(s string) string {
		if _, p, err := net.SplitHostPort(s); err == nil && p != "" {
			return s
		}
		return strings.TrimSuffix(s, ":") + port
	}
	return strings.EqualFold(full(a), full(b))
}

// safe says whether a method only reads (RFC 9110, 9.2.1).
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}
