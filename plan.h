// SPDX-License-Identifier: Apache-2.0
/*
 * Interval sets and concurrency control. Pure. Row 1.
 */
#ifndef FETCHER_PLAN_H
#define FETCHER_PLAN_H

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
 * How many connections to keep. Starts low, grows while the throughput per connection holds, halves on overload (429, 503), and
 * stops growing where more connections brought no more bytes.
 */
struct plan_control {
	unsigned target;	/* connections wanted now */
	unsigned floor, max;
	bool warm;		/* bytes flow */
	bool settled;		/* growth brought nothing: stay */
	uint64_t last_ms, last_bytes;
	double last_rate;	/* bytes per ms at the previous step */
	unsigned last_target;
	uint64_t hold_until_ms;	/* no growth before */
	uint64_t starved_since_ms, starved_bytes;
	unsigned idle_ticks;
};
void plan_control_init(struct plan_control *c, unsigned start, unsigned max, uint64_t now_ms);
/* Feeds the byte counter; returns the target. Call every 50 ms or so while connections are busy. */
unsigned plan_control_tick(struct plan_control *c, uint64_t now_ms, uint64_t bytes, unsigned busy);
/* A 429/503 or a collapse: halve, at most once per second. */
void plan_control_overload(struct plan_control *c, uint64_t now_ms);

#endif
