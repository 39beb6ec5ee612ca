// SPDX-License-Identifier: Apache-2.0
/*
 * Interval sets, concurrency control, a rate limit. Pure. Row 1.
 */
#ifndef FETCHER_PLAN_H
#define FETCHER_PLAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "caps.h"

/* Disjoint, sorted, merged half-open intervals. Zero-initialise; release frees. */
struct span {
	uint64_t start, end;
};
struct spans {
	struct span *v;
	size_t n, cap;
};
void spans_release(struct spans *s);
void spans_clear(struct spans *s);
/* 0, or -1: out of memory or more than LIMIT_RANGES intervals (set unchanged). */
int spans_add(struct spans *s, uint64_t start, uint64_t end);
int spans_remove(struct spans *s, uint64_t start, uint64_t end);
uint64_t spans_total(const struct spans *s);
bool spans_contain(const struct spans *s, uint64_t start, uint64_t end);
/* First gap of the set at or after `from` and below `limit`. false = none. */
bool spans_gap(const struct spans *s, uint64_t from, uint64_t limit, struct span *ret);
/* End of the interval that covers `at` (at itself when none does). */
uint64_t spans_covered_to(const struct spans *s, uint64_t at);
int spans_copy(struct spans *to, const struct spans *from);

/*
 * How many connections to keep. Starts low. As long as the threads mostly wait for the network, more
 * connections cost nothing and usually help (each is capped, or its latency is): the number doubles. Where the
 * threads are busy, more would only be more work. What falls after growth goes back; overload (429, 503) halves.
 */
struct plan_control {
	unsigned target;	/* connections wanted now */
	unsigned max;
	uint64_t step_ms, step_bytes;	/* start of the current step */
	uint64_t long_ms, long_bytes;	/* start of the current long step */
	double long_rate;	/* bytes per ms of the long step before the last growth */
	unsigned grown_from;	/* level before the growth under watch; 0 = none */
	uint64_t hold_until_ms;	/* no growth before */
	uint64_t overload_ms;	/* no overload is new before */
	uint64_t starved_since_ms;
};
void plan_control_init(struct plan_control *c, unsigned start, unsigned max, uint64_t now_ms);
/*
 * Feeds the byte counter, how many connections are busy, and how much of the time since the last call the threads waited
 * (0..100). Returns the target. Call every 25 ms or so.
 */
unsigned plan_control_tick(struct plan_control *c, uint64_t now_ms, uint64_t bytes, unsigned busy,
			   unsigned idle_percent);
/* A 429/503: halve, at most once per second. */
void plan_control_overload(struct plan_control *c, uint64_t now_ms);

/*
 * A rate that many share: a token bucket, kept as the time at which all that was taken is paid for (GCRA). Who is let in may take
 * more than there is; everybody waits then until that is paid. Any thread; no locks.
 */
struct plan_rate {
	uint64_t limit;		/* bytes per second; 0 = none: the functions are not called then */
	atomic_uint_fast64_t paid_ns;
};
void plan_rate_init(struct plan_rate *r, uint64_t limit, uint64_t now_us);
bool plan_rate_open(const struct plan_rate *r, uint64_t now_us);
void plan_rate_take(struct plan_rate *r, uint64_t bytes, uint64_t now_us);

#endif
