// SPDX-License-Identifier: Apache-2.0
/*
 * A bounded piece of a long run of bytes, in memory: put at any offset inside, by many threads, and taken out in order by one
 * (design D5.9). Row 1; calls plan, sys.
 *
 * It holds [given back, given back + capacity). What is taken out is a pointer into its ring: no copy. Bytes that were
 * once put are never put again, so that what was handed out stays as it was.
 * Threads: window_take, window_give_back and window_reset belong to one thread, the consumer; everything else is free.
 */
#ifndef FETCHER_WINDOW_H
#define FETCHER_WINDOW_H

#include "plan.h"
#include "log.h"

struct window;

#define WINDOW_PIECE MIB	/* most bytes that are handed out at once */

/*
 * [from, size) will go through it; what is below `from` counts as put and taken. Memory is used as far as bytes come, at
 * most `capacity` (> 0).
 */
int window_new(struct window **ret, uint64_t from, uint64_t size, size_t capacity, struct err *e);
/* Nobody may use it any more. NULL is fine. */
void window_free(struct window *w);

/*
 * n bytes at off; all or nothing: 1 = they reach beyond the window (try again when more was given back), 0 = they are in
 * it, or nobody wants them any more (stopped, or another round); -1 = CODE_INTEGRITY: beyond size; CODE_INTERNAL: too many
 * gaps. *ret_new (0 only): how many were not there before. Never blocks for long.
 */
int window_put(struct window *w, unsigned round, uint64_t off, const void *p, size_t n,
	       uint64_t *ret_new, struct err *e);

/*
 * The bytes that follow those of the last call, at most WINDOW_PIECE: 1. They stay as they are until window_give_back.
 * Blocks until some are there. 0 = the end; -1 = stopped.
 */
int window_take(struct window *w, const void **ret, size_t *ret_n);
/* What was taken is not needed any more: room for others. */
void window_give_back(struct window *w);
/* Everything from byte 0 again, in the next round (rounds count from 0): puts of earlier ones are ignored from now on. */
void window_reset(struct window *w);

/* window_take says -1 from now on, also to a thread that waits in it. */
void window_stop(struct window *w);

uint64_t window_limit(struct window *w);	/* first byte that is beyond it now */
uint64_t window_put_bytes(struct window *w);	/* that came so far, and those below `from` */
uint64_t window_starved_since(struct window *w);	/* sys_now_ms when the consumer began to wait in window_take; 0 = it does not */
/* First gap at or after from in what came so far. */
bool window_gap(struct window *w, uint64_t from, struct span *ret);

#endif
