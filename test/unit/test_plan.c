// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "plan.h"

/* Every operation is compared with a plain bitmap of this many bytes. */
#define SIZE 200

static void check(const struct spans *s, const uint8_t map[SIZE])
{
	uint64_t total = 0;

	for (uint64_t at = 0; at < SIZE; at++) {
		uint64_t covered = at;
		while (covered < SIZE && map[covered])
			covered++;
		total += map[at];
		assert_int_equal(spans_covered_to(s, at), covered);

		struct span gap = { 0 };
		uint64_t start = covered, end = start;
		while (end < SIZE && !map[end])
			end++;
		bool found = spans_gap(s, at, SIZE, &gap);
		assert_int_equal(found, start < SIZE);
		if (found) {
			assert_int_equal(gap.start, start);
			assert_int_equal(gap.end, end);
		}
	}
	assert_int_equal(spans_total(s), total);
	for (size_t i = 0; i < s->n; i++) {
		assert_true(s->v[i].start < s->v[i].end);
		assert_true(i == 0 || s->v[i - 1].end < s->v[i].start);
	}
}

static uint32_t next_random(uint32_t *x)
{
	*x = *x * 1664525u + 1013904223u;
	return *x >> 8;
}

static void spans_agree_with_a_bitmap(void **state)
{
	(void)state;
	for (uint32_t seed = 1; seed <= 60; seed++) {
		struct spans s = { 0 }, copy = { 0 };
		uint8_t map[SIZE] = { 0 };
		uint32_t x = seed;
		for (int step = 0; step < 60; step++) {
			uint64_t a = next_random(&x) % SIZE, n = next_random(&x) % 30;
			uint64_t b = a + n > SIZE ? SIZE : a + n;
			bool add = next_random(&x) % 3 != 0;
			assert_int_equal((add ? spans_add : spans_remove)(&s, a, b), 0);
			memset(map + a, add, b - a);
			check(&s, map);
		}
		assert_int_equal(spans_copy(&copy, &s), 0);
		check(&copy, map);
		spans_release(&s);
		spans_release(&copy);
	}
}

static void spans_at_the_edges(void **state)
{
	struct spans s = { 0 };

	(void)state;
	assert_int_equal(spans_add(&s, 5, 5), 0); /* empty: nothing */
	assert_int_equal(s.n, 0);
	assert_int_equal(spans_add(&s, UINT64_MAX - 10, UINT64_MAX), 0);
	assert_true(spans_contain(&s, UINT64_MAX - 10, UINT64_MAX));
	assert_false(spans_contain(&s, UINT64_MAX - 11, UINT64_MAX));
	assert_true(spans_contain(&s, 7, 7));
	spans_clear(&s);
	assert_int_equal(spans_total(&s), 0);
	spans_release(&s);
}

static void spans_are_capped(void **state)
{
	struct spans s = { 0 };
	uint64_t i;

	(void)state;
	for (i = 0; i < LIMIT_RANGES; i++)
		assert_int_equal(spans_add(&s, i * 10, i * 10 + 5), 0);
	assert_int_equal(spans_add(&s, i * 10, i * 10 + 5), -1);
	assert_int_equal(spans_total(&s), (uint64_t)LIMIT_RANGES * 5);
	assert_int_equal(spans_add(&s, 0, 15), 0); /* merging needs no room */
	assert_int_equal(s.n, LIMIT_RANGES - 1);
	spans_release(&s);
}

/* --- concurrency control, against a simulated line --- */

struct line {
	double total, per_connection;	/* bytes per ms; 0 = no limit */
	unsigned collapse_at;		/* from so many connections on the line carries a tenth */
	unsigned idle;			/* percent */
	double bytes;
	uint64_t now;
};

static void run(struct plan_control *c, struct line *l, uint64_t ms)
{
	for (uint64_t end = l->now + ms; l->now < end; l->now += 25) {
		double rate = l->per_connection ? l->per_connection * c->target : l->total;
		if (l->total && rate > l->total)
			rate = l->total;
		if (l->collapse_at && c->target >= l->collapse_at)
			rate /= 10;
		l->bytes += rate * 25;
		plan_control_tick(c, l->now + 25, (uint64_t)l->bytes, c->target, l->idle);
	}
}

static void control_reaches_the_limit_fast_where_threads_wait(void **state)
{
	struct plan_control c;
	struct line l = { .per_connection = 32768, .idle = 90 };

	(void)state;
	plan_control_init(&c, 2, 16, 0);
	run(&c, &l, 75);
	assert_int_equal(c.target, 16);
	run(&c, &l, 5000);
	assert_int_equal(c.target, 16);
}

static void control_stays_low_where_threads_are_busy(void **state)
{
	struct plan_control c;
	struct line l = { .total = 500000, .idle = 30 };

	(void)state;
	plan_control_init(&c, 2, 16, 0);
	run(&c, &l, 5000);
	assert_int_equal(c.target, 2);
}

static void control_goes_back_where_growth_does_harm(void **state)
{
	struct plan_control c;
	struct line l = { .per_connection = 1000, .collapse_at = 8, .idle = 10 };

	(void)state;
	plan_control_init(&c, 4, 16, 0);
	run(&c, &l, 3000);
	l.idle = 90; /* the network got slower than the threads */
	run(&c, &l, 2100);
	assert_int_equal(c.target, 4);
	run(&c, &l, 10000);
	assert_int_equal(c.target, 4); /* and is not tried again at once */
}

static void control_halves_on_overload_once_and_recovers(void **state)
{
	struct plan_control c;
	struct line l = { .per_connection = 32768, .idle = 90 };

	(void)state;
	plan_control_init(&c, 4, 16, 0);
	run(&c, &l, 1000);
	assert_int_equal(c.target, 16);
	for (int i = 0; i < 16; i++) /* all connections report the same trouble */
		plan_control_overload(&c, l.now);
	assert_int_equal(c.target, 8);
	run(&c, &l, 3000);
	assert_int_equal(c.target, 8); /* held */
	run(&c, &l, 5000);
	assert_int_equal(c.target, 16);
	for (int i = 0; i < 100; i++) {
		l.now += 60000;
		plan_control_overload(&c, l.now);
	}
	assert_int_equal(c.target, 1); /* never none */
}

/* Growth that did harm holds for long; an overload meanwhile halves all the same. */
static void control_halves_on_overload_while_it_settles(void **state)
{
	struct plan_control c;

	(void)state;
	plan_control_init(&c, 4, 16, 0);
	c.target = 8;
	c.hold_until_ms = 20000;
	plan_control_overload(&c, 5000);
	assert_int_equal(c.target, 4);
	assert_int_equal(c.hold_until_ms, 20000);
	plan_control_overload(&c, 5500);
	assert_int_equal(c.target, 4);
	plan_control_overload(&c, 6000);
	assert_int_equal(c.target, 2);
}

/* Takes pieces whenever it may, looking every step_us, for a minute. Returns bytes per second. */
static uint64_t taken_per_second(uint64_t limit, uint64_t piece, uint64_t step_us)
{
	const uint64_t start = UINT64_C(1000000) * 86400 * 365, end = start + 60 * 1000000;
	struct plan_rate r;
	uint64_t sum = 0;

	plan_rate_init(&r, limit, start);
	for (uint64_t now = start; now < end; now += step_us)
		for (; plan_rate_open(&r, now); sum += piece)
			plan_rate_take(&r, piece, now);
	return sum / 60;
}

static void rate_is_what_was_asked_for(void **state)
{
	static const uint64_t limits[] = { 10000, MIB, 100 * MIB, 10 * GIB };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		uint64_t piece = MIN(MAX(limits[i] / 64, KIB), 256 * KIB), steps[] = { 1000, 25000, 90000 };
		for (size_t k = 0; k < ARRAY_SIZE(steps); k++)
			assert_in_range(taken_per_second(limits[i], piece, steps[k]), limits[i] * 95 / 100, limits[i] * 105 / 100);
	}
}

static void rate_saves_little_for_later(void **state)
{
	struct plan_rate r;
	uint64_t now = 1000000, sum = 0;

	(void)state;
	plan_rate_init(&r, MIB, now);
	now += 3600 * UINT64_C(1000000);
	for (; plan_rate_open(&r, now); sum += KIB)
		plan_rate_take(&r, KIB, now);
	assert_in_range(sum, MIB / 10, MIB / 9);
}

static void control_opens_more_where_all_connections_hang(void **state)
{
	struct plan_control c;

	(void)state;
	plan_control_init(&c, 2, 16, 0);
	for (uint64_t now = 50; now <= 900; now += 50)
		plan_control_tick(&c, now, 0, c.target, 100);
	assert_int_equal(c.target, 2);
	for (uint64_t now = 950; now <= 10000; now += 50)
		plan_control_tick(&c, now, 0, c.target, 100);
	assert_int_equal(c.target, 16);
}

static void control_does_not_judge_a_level_that_was_not_used(void **state)
{
	struct plan_control c;

	(void)state;
	plan_control_init(&c, 4, 16, 0);
	for (uint64_t now = 100; now < 3000; now += 100)
		plan_control_tick(&c, now, now * 1000, 1, 90);
	assert_int_equal(c.target, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spans_agree_with_a_bitmap),
		cmocka_unit_test(spans_at_the_edges),
		cmocka_unit_test(spans_are_capped),
		cmocka_unit_test(control_reaches_the_limit_fast_where_threads_wait),
		cmocka_unit_test(control_stays_low_where_threads_are_busy),
		cmocka_unit_test(control_goes_back_where_growth_does_harm),
		cmocka_unit_test(control_halves_on_overload_once_and_recovers),
		cmocka_unit_test(control_halves_on_overload_while_it_settles),
		cmocka_unit_test(rate_is_what_was_asked_for),
		cmocka_unit_test(rate_saves_little_for_later),
		cmocka_unit_test(control_opens_more_where_all_connections_hang),
		cmocka_unit_test(control_does_not_judge_a_level_that_was_not_used),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
