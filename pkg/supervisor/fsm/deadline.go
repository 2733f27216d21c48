package fsm

import "container/heap"

// deadlineHeap holds the slots that wait for an instant, the earliest first;
// ties go by name, so that the order of a tick is the same every time. A
// deadline is a field of its slot: a stale timer cannot exist.
type deadlineHeap []*slot

func (h deadlineHeap) Len() int { return len(h) }
func (h deadlineHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	switch {
	case a.deadline != b.deadline:
		return a.deadline < b.deadline
	case a.e != b.e:
		return a.e.Name < b.e.Name
	}
	return a.n < b.n
}
func (h deadlineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i+1, j+1
}
func (h *deadlineHeap) Push(x any) {
	s := x.(*slot)
	*h = append(*h, s)
	s.heapAt = len(*h)
}
func (h *deadlineHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	s.heapAt = 0
	return s
}

func (m *Machine) arm(s *slot, at Instant) {
	s.deadline = at
	m.touch(s)
	if s.heapAt > 0 {
		heap.Fix(&m.deadlines, s.heapAt-1)
		return
	}
	heap.Push(&m.deadlines, s)
}

func (m *Machine) disarm(s *slot) {
	if s.heapAt > 0 {
		heap.Remove(&m.deadlines, s.heapAt-1)
	}
}
