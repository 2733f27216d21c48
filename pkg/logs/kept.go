package logs

import (
	"encoding/binary"
	"fmt"
)

// This file keeps the beginnings of lines in the backlog, in blocks, since there may
// be very many and each may be long. A block says whose it is and which of that
// one's blocks; the first begins with the FIFO's owner.

// A block begins with the id of its FIFO, 0 when it is free, its number among the
// blocks of that FIFO, and the length of what is in it.
const (
	blockIndex = 8
	blockLen   = 12
	blockHead  = 16
)

// block is a block of the file.
func (b *backlog) block(n uint32) []byte {
	at := blocksAt + int(n)*blockSize
	return b.mem[at : at+blockSize : at+blockSize]
}

// keep stores text, the beginning of a line of f, in place of what was kept of it.
// The chunk holds until done, so a death in between loses nothing.
func (b *backlog) keep(f *fifo, text []byte) error {
	if b.fd < 0 {
		return nil
	}
	b.release(f)
	if len(text) == 0 {
		return nil
	}
	n := putOwner(b.owner[:], f)
	head := b.owner[:n]
	for index := uint32(0); len(head)+len(text) > 0; index++ {
		at, err := b.take()
		if err != nil {
			b.release(f)
			return err
		}
		f.blocks = append(f.blocks, at)
		block := b.block(at)
		n := copy(block[blockHead:], head)
		k := copy(block[blockHead+n:], text)
		head, text = head[n:], text[k:]
		binary.NativeEndian.PutUint32(block[blockIndex:], index)
		binary.NativeEndian.PutUint32(block[blockLen:], uint32(n+k))
		b.word(blocksAt + int(at)*blockSize).Store(f.id)
	}
	return nil
}

// release gives back the blocks of f.
func (b *backlog) release(f *fifo) {
	for _, at := range f.blocks {
		b.word(blocksAt + int(at)*blockSize).Store(0)
		b.free = append(b.free, at)
	}
	f.blocks = f.blocks[:0]
}

// take returns a free block. When there is none the file grows.
func (b *backlog) take() (uint32, error) {
	if len(b.free) == 0 {
		if b.blocks == maxBlocks {
			return 0, fmt.Errorf("the beginnings of lines take more than %d MiB", maxBlocks*blockSize>>20)
		}
		at := blocksAt + int64(b.blocks)*blockSize
		if err := allocate(b.fd, at, growBlocks*blockSize); err != nil {
			return 0, fmt.Errorf("fallocate: %w", err)
		}
		for n := range uint32(growBlocks) {
			b.free = append(b.free, b.blocks+growBlocks-1-n)
		}
		b.blocks += growBlocks
	}
	last := len(b.free) - 1
	at := b.free[last]
	b.free = b.free[:last]
	return at, nil
}

// ownerSize is the most that putOwner takes.
const ownerSize = 32 + maxEntry

// putOwner writes down which FIFO and incarnation something is of, and returns how
// long that is.
func putOwner(p []byte, f *fifo) int {
	binary.NativeEndian.PutUint64(p[0:], f.id)
	binary.NativeEndian.PutUint64(p[8:], uint64(f.label.pid))
	binary.NativeEndian.PutUint64(p[16:], f.label.incarnation)
	binary.NativeEndian.PutUint32(p[24:], uint32(f.key.Slot))
	p[28], p[29] = byte(f.key.Stream), byte(len(f.key.Entry))
	return 30 + copy(p[30:], f.key.Entry)
}

// owner is what putOwner wrote.
type owner struct {
	id  uint64
	of  HandoverFIFO
	end int
}

func getOwner(p []byte) (o owner, ok bool) {
	if len(p) < 30 || len(p) < 30+int(p[29]) {
		return o, false
	}
	o.id = binary.NativeEndian.Uint64(p[0:])
	o.end = 30 + int(p[29])
	o.of = HandoverFIFO{
		Key: Key{Entry: string(p[30:o.end]), Slot: int(binary.NativeEndian.Uint32(p[24:])), Stream: Stream(p[28])},
		FD:  -1, PID: int(binary.NativeEndian.Uint64(p[8:])), Incarnation: binary.NativeEndian.Uint64(p[16:]),
	}
	return o, o.of.Key.valid() == nil
}
