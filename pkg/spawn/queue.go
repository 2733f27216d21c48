package spawn

// job is one start to be done.
type job struct {
	token Token
	spec  *Spec
	renew string // a cgroup in which its child was killed at once, see renew
}

// queue is an unbounded first-in first-out queue of jobs. Its room is used
// again once it was empty.
type queue struct {
	jobs []job
	head int
}

func (q *queue) empty() bool { return q.head == len(q.jobs) }

func (q *queue) len() int { return len(q.jobs) - q.head }

func (q *queue) push(j job) { q.jobs = append(q.jobs, j) }

func (q *queue) pop() job {
	j := q.jobs[q.head]
	q.jobs[q.head] = job{}
	q.head++
	if q.empty() {
		q.clear()
	} else if q.head >= 1024 && q.head >= len(q.jobs)/2 {
		n := copy(q.jobs, q.jobs[q.head:])
		clear(q.jobs[n:])
		q.jobs, q.head = q.jobs[:n], 0
	}
	return j
}

// clear empties the queue.
func (q *queue) clear() {
	clear(q.jobs)
	q.jobs, q.head = q.jobs[:0], 0
}
