// Numbers writes numbered lines of several lengths to standard output, about 12 MB a
// second, in pieces that end anywhere.
package main

import (
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	const aMillisecond = 12 << 10
	fill := strings.Repeat("x", 200)
	var text []byte
	n := 0
	for range time.Tick(time.Millisecond) {
		for len(text) < aMillisecond {
			n++
			text = strconv.AppendInt(text, int64(n), 10)
			text = append(text, ' ')
			text = append(text, fill[:n*n%len(fill)]...)
			text = append(text, '\n')
		}
		for piece := text[:aMillisecond]; len(piece) > 0; {
			k, err := os.Stdout.Write(piece[:min(len(piece), 1+n%5000)])
			if err != nil {
				os.Exit(1)
			}
			piece = piece[k:]
		}
		text = append(text[:0], text[aMillisecond:]...)
	}
}
