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

#define STEP_MS 50		/* time at one level before its throughput means something */
#define PAYS_WELL 1.5	/* twice the connections brought half as much again: double once more */
#define PAYS 1.2	/* brought something: stay; less: go back */
#define REPROBE_MS 20000 /* a settled level is questioned again after this */
#define STARVED_MS 1000	/* without a byte on any connection */
#define HOLD_MS 5000	/* no growth so soon after an overload */

void plan_control_init(struct plan_control *c, unsigned start, unsigned max, uint64_t now_ms)
{
	*c = (struct plan_control){
		.target = MIN(MAX(start, 1u), max),
		.floor = 1,
		.max = max,
		.last_ms = now_ms,
		.starved_since_ms = now_ms,
	};
}

/*
 * Doubles as long as doubling pays; where it does not, the level before was enough and is taken again.
 * Doubling reaches 16 from 2 within 200 ms, which matters where each connection is capped
 * (object stores); where one connection fills the line, it ends after one try.
 */
unsigned plan_control_tick(struct plan_control *c, uint64_t now_ms, uint64_t bytes, unsigned busy)
{
	uint64_t dt = now_ms - c->last_ms;

	if (dt < STEP_MS)
		return c->target;
	double rate = (double)(bytes - c->last_bytes) / (double)dt;
	c->last_ms = now_ms;
	c->last_bytes = bytes;
	/* Only a level that was in use for the whole step can be judged */
	if (busy < c->target || now_ms < c->hold_until_ms)
		return c->target;
	if (bytes > c->starved_bytes) {
		c->starved_bytes = bytes;
		c->starved_since_ms = now_ms;
	} else if (now_ms - c->starved_since_ms >= STARVED_MS) {
		/* all of them hang: others may not, and can take their ranges over */
		c->starved_since_ms = now_ms;
		c->target = MIN(c->target * 2, c->max);
		c->last_target = 0;
	}
	if (rate <= 0)
		return c->target;
	if (!c->warm) {
		/* the first step holds connects and slow starts: it would make any second one look good */
		c->warm = true;
		return c->target;
	}
	if (c->settled) {
		if (++c->idle_ticks * STEP_MS < REPROBE_MS)
			return c->target;
		c->settled = false;
		c->last_target = 0;
	}
	if (c->last_target && c->last_target < c->target && rate < c->last_rate * PAYS_WELL) {
		c->target = rate > c->last_rate * PAYS ? c->target : c->last_target;
		c->settled = true;
		c->idle_ticks = 0;
		return c->target;
	}
	c->last_rate = rate;
	c->last_target = c->target;
	c->target = MIN(c->target * 2, c->max);
	if (c->target == c->last_target) {
		c->settled = true;
		c->idle_ticks = 0;
	}
	return c->target;
}

void plan_control_overload(struct plan_control *c, uint64_t now_ms)
{
	if (c->hold_until_ms > now_ms + HOLD_MS - 1000)
		return;
	c->target = MAX(c->target / 2, c->floor);
	c->hold_until_ms = now_ms + HOLD_MS;
	c->last_target = 0;
	c->settled = false;
}
