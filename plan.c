// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <stdlib.h>
#include <string.h>

#include "buf.h"

void spans_release(struct spans *s)
{
	free(s->v);
	*s = (struct spans){ 0 };
}

void spans_clear(struct spans *s)
{
	s->n = 0;
}

/* Index of the first interval whose end is at or after `at`. */
static size_t first_touching(const struct spans *s, uint64_t at)
{
	size_t lo = 0, hi = s->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (s->v[mid].end < at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int reserve(struct spans *s, size_t n)
{
	if (n > LIMIT_RANGES)
		return -1;
	if (n <= s->cap)
		return 0;
	size_t cap = s->cap ? s->cap * 2 : 8;
	struct span *v = realloc(s->v, cap * sizeof(*v));
	if (!v)
		return -1;
	s->v = v;
	s->cap = cap;
	return 0;
}

int spans_add(struct spans *s, uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	size_t i = first_touching(s, start), j = i;
	/* v[i..j) touch or overlap the new one and melt into it */
	while (j < s->n && s->v[j].start <= end) {
		start = MIN(start, s->v[j].start);
		end = MAX(end, s->v[j].end);
		j++;
	}
	if (i == j && reserve(s, s->n + 1))
		return -1;
	memmove(&s->v[i + 1], &s->v[j], (s->n - j) * sizeof(*s->v));
	s->n = s->n - (j - i) + 1;
	s->v[i] = (struct span){ start, end };
	return 0;
}

int spans_remove(struct spans *s, uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	for (size_t i = first_touching(s, start); i < s->n && s->v[i].start < end;) {
		struct span v = s->v[i];
		if (v.end <= start) {
			i++;
		} else if (v.start < start && v.end > end) {
			if (reserve(s, s->n + 1))
				return -1;
			memmove(&s->v[i + 2], &s->v[i + 1], (s->n - i - 1) * sizeof(*s->v));
			s->n++;
			s->v[i].end = start;
			s->v[i + 1] = (struct span){ end, v.end };
			return 0;
		} else if (v.start < start) {
			s->v[i++].end = start;
		} else if (v.end > end) {
			s->v[i++].start = end;
		} else {
			memmove(&s->v[i], &s->v[i + 1], (s->n - i - 1) * sizeof(*s->v));
			s->n--;
		}
	}
	return 0;
}

uint64_t spans_total(const struct spans *s)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->n; i++)
		sum += s->v[i].end - s->v[i].start;
	return sum;
}

bool spans_contain(const struct spans *s, uint64_t start, uint64_t end)
{
	return start >= end || spans_covered_to(s, start) >= end;
}

uint64_t spans_covered_to(const struct spans *s, uint64_t at)
{
	size_t i = first_touching(s, at);

	/* an interval that ends exactly at `at` does not cover it, the next may */
	if (i < s->n && s->v[i].end == at)
		i++;
	return i < s->n && s->v[i].start <= at ? s->v[i].end : at;
}

bool spans_gap(const struct spans *s, uint64_t from, uint64_t limit, struct span *ret)
{
	uint64_t start = spans_covered_to(s, from);

	if (start >= limit)
		return false;
	size_t i = first_touching(s, start);
	while (i < s->n && s->v[i].end <= start)
		i++;
	uint64_t end = i < s->n ? MIN(s->v[i].start, limit) : limit;
	*ret = (struct span){ start, end };
	return true;
}

int spans_copy(struct spans *to, const struct spans *from)
{
	if (from->n > to->cap) {
		struct span *v = realloc(to->v, from->n * sizeof(*v));
		if (!v)
			return -1;
		to->v = v;
		to->cap = from->n;
	}
	if (from->n)
		memcpy(to->v, from->v, from->n * sizeof(*from->v));
	to->n = from->n;
	return 0;
}

/* --- concurrency --- */

#define STEP_MS 25	/* between two growths: 2 to 16 connections take 75 ms */
#define LONG_MS 1000	/* time over which throughput is compared */
#define IDLE_PERCENT 50	/* threads that wait so much of the time can serve more connections */
#define FELL 0.7	/* of the throughput before growth: it did harm */
#define SETTLE_MS 20000	/* then no growth for so long */
#define STARVED_MS 1000	/* without a byte on any connection */
#define HOLD_MS 5000	/* no growth so soon after an overload */
#define OVERLOAD_MS 1000 /* all connections report the same one */

void plan_control_init(struct plan_control *c, unsigned start, unsigned max, uint64_t now_ms)
{
	*c = (struct plan_control){
		.target = MIN(MAX(start, 1u), max),
		.max = max,
		.step_ms = now_ms,
		.long_ms = now_ms,
		.starved_since_ms = now_ms,
	};
}

static void grow(struct plan_control *c)
{
	if (!c->grown_from)
		c->grown_from = c->target;
	c->target = MIN(c->target * 2, c->max);
}

/* Once a second: did the last growth do harm? */
static void compare(struct plan_control *c, uint64_t now_ms, uint64_t bytes)
{
	double rate = (double)(bytes - c->long_bytes) / (double)(now_ms - c->long_ms);

	if (c->grown_from && c->long_rate > 0 && rate < c->long_rate * FELL) {
		c->target = c->grown_from;
		c->hold_until_ms = now_ms + SETTLE_MS;
	}
	c->grown_from = 0;
	c->long_rate = rate;
	c->long_ms = now_ms;
	c->long_bytes = bytes;
}

unsigned plan_control_tick(struct plan_control *c, uint64_t now_ms, uint64_t bytes, unsigned busy,
			   unsigned idle_percent)
{
	if (now_ms - c->step_ms < STEP_MS)
		return c->target;
	bool moves = bytes > c->step_bytes;
	c->step_ms = now_ms;
	c->step_bytes = bytes;
	if (now_ms - c->long_ms >= LONG_MS)
		compare(c, now_ms, bytes);
	if (moves || busy < c->target)
		c->starved_since_ms = now_ms;
	/* a level that is not in use says nothing about the next one */
	if (busy < c->target || now_ms < c->hold_until_ms || c->target == c->max)
		return c->target;
	if (moves && idle_percent > IDLE_PERCENT) {
		grow(c);
	} else if (now_ms - c->starved_since_ms >= STARVED_MS) {
		/* all of them hang: others may not, and can take their ranges over */
		c->starved_since_ms = now_ms;
		grow(c);
	}
	return c->target;
}

void plan_control_overload(struct plan_control *c, uint64_t now_ms)
{
	if (now_ms < c->overload_ms)
		return;
	c->target = MAX(c->target / 2, 1u);
	c->overload_ms = now_ms + OVERLOAD_MS;
	c->hold_until_ms = MAX(c->hold_until_ms, now_ms + HOLD_MS);
	c->grown_from = 0;
}

/* --- rate --- */

#define BURST_NS ((uint64_t)100 * 1000 * 1000)	/* what nobody took is kept so long: connections are woken every 25 ms or so */

void plan_rate_init(struct plan_rate *r, uint64_t limit, uint64_t now_us)
{
	r->limit = limit;
	atomic_store(&r->paid_ns, now_us * 1000);
}

bool plan_rate_open(const struct plan_rate *r, uint64_t now_us)
{
	return atomic_load_explicit(&r->paid_ns, memory_order_relaxed) <= now_us * 1000;
}

void plan_rate_take(struct plan_rate *r, uint64_t bytes, uint64_t now_us)
{
	uint64_t now = now_us * 1000, cost = bytes * 1000000000 / r->limit;
	uint_fast64_t old = atomic_load_explicit(&r->paid_ns, memory_order_relaxed), paid;

	do
		paid = MAX(old, now - MIN(now, BURST_NS)) + cost;
	while (!atomic_compare_exchange_weak(&r->paid_ns, &old, paid));
}
