// SPDX-License-Identifier: Apache-2.0
/* The window: any order of puts, one consumer, nothing beyond its bounds. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "sys.h"
#include "window.h"

#define CAPACITY 65536
#define SIZE 300001
static uint8_t data[SIZE];

static int set_up(void **state)
{
	uint32_t x = 7;

	(void)state;
	for (size_t i = 0; i < SIZE; i++)
		data[i] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
	return 0;
}

static struct window *fresh(uint64_t from)
{
	struct window *w = NULL;
	struct err e;

	if (window_new(&w, from, SIZE, CAPACITY, &e))
		fail_msg("%s", e.msg);
	return w;
}

/* Returns what window_put did; *ret_new is UINT64_MAX where it did not say. */
static int put(struct window *w, unsigned round, uint64_t off, size_t n, uint64_t *ret_new)
{
	struct err e = { 0 };

	*ret_new = UINT64_MAX;
	return window_put(w, round, off, data + MIN(off, (uint64_t)SIZE), n, ret_new, &e);
}

static void put_new(struct window *w, uint64_t off, size_t n, uint64_t want_new)
{
	uint64_t fresh_bytes;

	assert_int_equal(put(w, 0, off, n, &fresh_bytes), 0);
	assert_int_equal(fresh_bytes, want_new);
}

static void take(struct window *w, uint64_t off, size_t want)
{
	const void *p;
	size_t n;

	assert_int_equal(window_take(w, &p, &n), 1);
	assert_int_equal(n, want);
	assert_memory_equal(p, data + off, n);
}

static void order_and_gaps(void **state)
{
	struct window *w = fresh(0);
	struct span gap;

	(void)state;
	put_new(w, 1000, 500, 500);
	put_new(w, 0, 400, 400);
	assert_true(window_gap(w, 0, &gap));
	assert_int_equal(gap.start, 400);
	assert_int_equal(gap.end, 1000);
	take(w, 0, 400); /* not what is behind the gap */
	put_new(w, 300, 800, 600); /* both ends were there */
	assert_int_equal(window_put_bytes(w), 1500);
	take(w, 400, 1100);
	put_new(w, 100, 1400, 0); /* what was handed out is not written again */
	window_free(w);
}

static void all_or_nothing(void **state)
{
	struct window *w = fresh(0);
	uint64_t n;

	(void)state;
	assert_int_equal(window_limit(w), CAPACITY);
	assert_int_equal(put(w, 0, CAPACITY - 10, 11, &n), 1);
	assert_int_equal(n, UINT64_MAX);
	assert_int_equal(window_put_bytes(w), 0);
	put_new(w, CAPACITY - 10, 10, 10);
	put_new(w, 0, CAPACITY - 10, CAPACITY - 10);
	take(w, 0, CAPACITY);
	/* taken is not given back: the consumer still looks at it */
	assert_int_equal(put(w, 0, CAPACITY, 1, &n), 1);
	window_give_back(w);
	assert_int_equal(window_limit(w), 2 * CAPACITY);
	put_new(w, CAPACITY, 1, 1);
	assert_int_equal(put(w, 0, SIZE, 1, &n), -1); /* beyond the end is nobody's mistake but the peer's */
	assert_int_equal(put(w, 0, UINT64_MAX, 2, &n), -1);
	window_free(w);
}

/* Across the end of the ring the bytes come in two pieces, each in one place. */
static void wraps(void **state)
{
	struct window *w = fresh(0);

	(void)state;
	put_new(w, 0, 60000, 60000);
	take(w, 0, 60000);
	window_give_back(w);
	put_new(w, 60000, 20000, 20000);
	take(w, 60000, CAPACITY - 60000);
	take(w, CAPACITY, 80000 - CAPACITY);
	window_free(w);
}

static void begins_in_the_middle(void **state)
{
	struct window *w = fresh(200000);
	struct span gap;
	const void *p;
	size_t n;

	(void)state;
	assert_int_equal(window_put_bytes(w), 200000);
	assert_int_equal(window_limit(w), 200000 + CAPACITY);
	assert_true(window_gap(w, 0, &gap));
	assert_int_equal(gap.start, 200000);
	put_new(w, 199000, 2000, 1000);
	take(w, 200000, 1000);
	window_free(w);
	w = fresh(SIZE);
	assert_int_equal(window_take(w, &p, &n), 0);
	assert_int_equal(window_limit(w), SIZE);
	assert_false(window_gap(w, 0, &gap));
	window_free(w);
}

static void rounds(void **state)
{
	struct window *w = fresh(64);
	uint64_t n;

	(void)state;
	put_new(w, 64, 100, 100);
	take(w, 64, 100);
	window_reset(w);
	assert_int_equal(window_put_bytes(w), 0);
	assert_int_equal(put(w, 0, 0, 50, &n), 0); /* late bytes of the first round */
	assert_int_equal(n, 0);
	assert_int_equal(put(w, 1, 0, 70, &n), 0);
	assert_int_equal(n, 70);
	take(w, 0, 70);
	window_free(w);
}

static void *stop_soon(void *arg)
{
	while (!window_starved_since(arg))
		sys_sleep_ms(1);
	window_stop(arg);
	return NULL;
}

static void stops_a_waiting_consumer(void **state)
{
	struct window *w = fresh(0);
	pthread_t thread;
	const void *p;
	uint64_t fresh_bytes;
	size_t n;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, stop_soon, w), 0);
	assert_int_equal(window_take(w, &p, &n), -1);
	pthread_join(thread, NULL);
	assert_int_equal(put(w, 0, 0, 10, &fresh_bytes), 0);
	assert_int_equal(fresh_bytes, 0);
	assert_int_equal(window_take(w, &p, &n), -1);
	window_free(w);
}

/* --- many threads --- */

struct feeder {
	struct window *w;
	atomic_uint_fast64_t *next;
	atomic_uint_fast64_t *fresh;
	unsigned seed;
};

/* Takes stretches from a common counter, puts them in small parts, and some parts twice. */
static void *feed(void *arg)
{
	struct feeder *f = arg;
	struct err e;

	for (;;) {
		uint64_t from = atomic_fetch_add(f->next, 5000), to = MIN(from + 5000, (uint64_t)SIZE);
		if (from >= SIZE)
			return NULL;
		for (uint64_t at = from; at < to;) {
			uint64_t back = f->seed % 3 == 0 ? MIN((uint64_t)700, at) : 0, new_bytes = 0;
			size_t n = (size_t)MIN(to - at, (uint64_t)(f->seed = f->seed * 1103515245u + 12345u) % 900 + 1);
			int rc = window_put(f->w, 0, at - back, data + at - back, n + (size_t)back, &new_bytes, &e);
			if (rc < 0)
				return f;
			if (rc) {
				sys_sleep_ms(1);
				continue;
			}
			atomic_fetch_add(f->fresh, new_bytes);
			at += n;
		}
	}
}

static void many_feeders(void **state)
{
	struct window *w = fresh(0);
	atomic_uint_fast64_t next = 0, fresh_bytes = 0;
	struct feeder f[3];
	pthread_t threads[3];
	const void *p;
	uint64_t at = 0;
	size_t n;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(f); i++) {
		f[i] = (struct feeder){ w, &next, &fresh_bytes, i };
		assert_int_equal(pthread_create(&threads[i], NULL, feed, &f[i]), 0);
	}
	while (window_take(w, &p, &n) == 1) {
		assert_true(n > 0 && n <= CAPACITY && at + n <= SIZE);
		assert_memory_equal(p, data + at, n);
		at += n;
		window_give_back(w);
	}
	assert_int_equal(at, SIZE);
	for (unsigned i = 0; i < ARRAY_SIZE(f); i++) {
		void *ret;
		pthread_join(threads[i], &ret);
		assert_null(ret);
	}
	assert_int_equal(atomic_load(&fresh_bytes), SIZE);
	window_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_and_gaps),
		cmocka_unit_test(all_or_nothing),
		cmocka_unit_test(wraps),
		cmocka_unit_test(begins_in_the_middle),
		cmocka_unit_test(rounds),
		cmocka_unit_test(stops_a_waiting_consumer),
		cmocka_unit_test(many_feeders),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
