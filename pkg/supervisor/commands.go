package supervisor

import (
	"context"
	"sync/atomic"

	"github.com/sentryd/sentryd/pkg/supervisor/fsm"
	"github.com/sentryd/sentryd/pkg/view"
)

// State returns the present picture. It never waits for the owner.
func (s *Supervisor) State() *view.State { return s.descent.decorate(s.picture.load()) }

// Picture is State without the counts of descendants, which have to be looked for.
func (s *Supervisor) Picture() *view.State { return s.picture.load() }

// Wait returns the first picture whose version is above after, or the present
// one when ctx ends.
func (s *Supervisor) Wait(ctx context.Context, after uint64) *view.State {
	return s.descent.decorate(s.picture.wait(ctx, after))
}

// Start asks for an entry, or one slot of it unless slot is negative, to be up.
// Like all commands it returns the version in which it took effect, or a
// *view.Error when it was refused.
func (s *Supervisor) Start(ctx context.Context, entry string, slot int) (uint64, error) {
	return s.command(ctx, fsm.Start{Entry: entry, Slot: slotNumber(slot)})
}

// Stop asks for it to be down, until a Start or a Restart.
func (s *Supervisor) Stop(ctx context.Context, entry string, slot int) (uint64, error) {
	return s.command(ctx, fsm.Stop{Entry: entry, Slot: slotNumber(slot)})
}

// Restart replaces its processes, batch at a time; all at once if batch is 0.
func (s *Supervisor) Restart(ctx context.Context, entry string, slot, batch int) (uint64, error) {
	return s.command(ctx, fsm.Restart{Entry: entry, Slot: slotNumber(slot), Batch: batch})
}

// Scale sets the number of slots of an entry.
func (s *Supervisor) Scale(ctx context.Context, entry string, count int) (uint64, error) {
	return s.command(ctx, fsm.Scale{Entry: entry, Count: count})
}

// Signal sends a signal to its main processes.
func (s *Supervisor) Signal(ctx context.Context, entry string, slot, signal int) (uint64, error) {
	return s.command(ctx, fsm.Signal{Entry: entry, Slot: slotNumber(slot), Signal: signal})
}

// Shutdown ends the daemon: with keep at once and without its children, else
// when everything is stopped. It returns when that has begun.
func (s *Supervisor) Shutdown(ctx context.Context, keep bool) (uint64, error) {
	var version uint64
	err := s.ask(ctx, func() {
		if keep {
			s.end(Kept)
		} else {
			s.shutDown()
			s.publish()
		}
		version = s.publisher.version
	})
	return version, err
}

// Kill sends SIGKILL to everything that a Shutdown is still waiting for, and
// begins one if none has begun.
func (s *Supervisor) Kill(ctx context.Context) error {
	if _, err := s.Shutdown(ctx, false); err != nil {
		return err
	}
	_, err := s.command(ctx, fsm.KillAll{})
	return err
}

func slotNumber(slot int) int {
	if slot < 0 {
		return fsm.AllSlots
	}
	return slot
}

// command has the owner step the machine and returns the version of the
// picture in which the command took effect.
func (s *Supervisor) command(ctx context.Context, ev fsm.Event) (version uint64, err error) {
	err2 := s.ask(ctx, func() {
		if refusal := s.step(ev); refusal != nil {
			err = refusal
			return
		}
		s.publish()
		version = s.publisher.version
	})
	if err2 != nil {
		return 0, err2
	}
	return version, err
}

// ask runs a function in the owner goroutine and waits for it.
func (s *Supervisor) ask(ctx context.Context, run func()) error {
	r := request{run: run, done: make(chan struct{}), taken: new(atomic.Bool)}
	queue, gaveUp := s.requests, error(nil)
	for gaveUp == nil {
		select {
		case queue <- r:
			queue = nil // once
			s.Processes.Wake()
		case <-r.done:
			return nil
		case <-s.ended:
			gaveUp = view.Errorf(view.Unavailable, "the daemon has stopped")
		case <-ctx.Done():
			gaveUp = view.Errorf(view.Unavailable, "gave up waiting for the supervisor: %v", context.Cause(ctx))
		}
	}
	if r.taken.CompareAndSwap(false, true) {
		return gaveUp
	}
	<-r.done // the owner runs what it has taken, also as the last thing
	return nil
}

// answer does what was asked for, unless nobody waits for it any more.
func (s *Supervisor) answer(r request) {
	if !r.taken.CompareAndSwap(false, true) {
		return
	}
	r.run()
	s.publish()
	close(r.done)
}
