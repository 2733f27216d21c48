/*
 * The board: one file, mapped by the driver and by every child, on which the
 * children of all contenders leave their marks. So every contender is measured
 * by the same means, and by nobody asking it anything.
 *
 * bench/board.go mirrors this layout. All fields are naturally aligned and written
 * whole, so a reader in another process never sees half a value. Times are
 * CLOCK_MONOTONIC in nanoseconds, which is one clock for all processes.
 */
#ifndef BENCH_BOARD_H
#define BENCH_BOARD_H

#include <stdint.h>

#define BOARD_SLOTS_AT 4096 /* the header has a page of its own */

struct board_header {
	uint32_t quit;     /* futex word: not 0 = every waiting child leaves */
	uint32_t slots;    /* slots on the board */
	uint64_t room;     /* samples there is room for, after the slots */
	uint64_t starts;   /* children that reached main, all slots */
	uint64_t samples;  /* samples taken; may exceed room */
};

/* A cache line a slot, so that children do not disturb each other. */
struct board_slot {
	uint64_t starts;   /* children that reached main in this slot */
	uint64_t start_ns; /* when the latest did */
	uint64_t exit_ns;  /* just before the latest that ended on purpose did */
	uint64_t pid;      /* of the latest, in the pid namespace of all */
	uint64_t unused[4];
};

#endif
