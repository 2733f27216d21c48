package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clients is how many clients a load consists of. Each waits for its answer
// before it asks again.
const clients = 4

// A load asks a web server without a pause, each request over a connection of
// its own, and counts whatever is not an answer: nothing is asked again.
type load struct {
	t        *testing.T
	url      string
	stop     context.CancelFunc
	done     sync.WaitGroup
	requests atomic.Int64
	failures atomic.Int64

	mu    sync.Mutex
	first error           // failure
	seen  map[string]bool // first words of answers since the last forget
}

// newLoad asks from now on, until the test ends.
func newLoad(t *testing.T, address string) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{t: t, url: "http://" + address + "/", stop: stop, seen: make(map[string]bool)}
	for n := range clients {
		l.done.Add(1)
		go func() {
			defer l.done.Done()
			// Addresses of their own: a port that was just used is not free again
			// for a minute.
			from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(10+n))}
			client := &http.Client{
				Timeout:   patience,
				Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{LocalAddr: from}).DialContext},
			}
			for ctx.Err() == nil {
				l.ask(client)
			}
		}()
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) ask(client *http.Client) {
	body, err := answer(client, l.url)
	l.requests.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failures.Add(1)
		if l.first == nil {
			l.first = err
		}
		return
	}
	l.seen[strings.Fields(body)[0]] = true
}

func answer(client *http.Client, url string) (string, error) {
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && (r.StatusCode != 200 || len(strings.Fields(string(body))) == 0) {
		err = fmt.Errorf("status %d, %q", r.StatusCode, body)
	}
	return string(body), err
}

// more waits until many more requests have been answered, and returns how many
// first words their answers had.
func (l *load) more(during string) int {
	l.t.Helper()
	l.mu.Lock()
	clear(l.seen)
	l.mu.Unlock()
	before, many := l.requests.Load(), int64(often(50, 200, 200))
	eventually(l.t, "answers "+during, func() error {
		if l.requests.Load() < before+many {
			return errors.New("not enough of them")
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

func (l *load) end() {
	l.stop()
	l.done.Wait()
}

// clean ends the load, which must have had an answer to every request.
func (l *load) clean() {
	l.t.Helper()
	l.end()
	if n := l.failures.Load(); n > 0 {
		l.t.Errorf("%d of %d requests failed, the first: %v", n, l.requests.Load(), l.first)
	}
	l.t.Logf("%d requests", l.requests.Load())
}

// noKeepAlive is a client whose every request has a connection of its own.
func noKeepAlive() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
}

// getUnix asks a web server over a unix socket.
func getUnix(path string) (string, error) {
	client := &http.Client{
		Timeout: patience,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}},
	}
	return answer(client, "http://socket/")
}

// echo sends a datagram and returns what comes back.
func echo(address, text string) (string, error) {
	c, err := net.Dial("udp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}
