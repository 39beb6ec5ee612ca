// SPDX-License-Identifier: Apache-2.0
#include "window.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "buf.h"
#include "sys.h"

struct window {
	pthread_mutex_t lock;
	pthread_cond_t arrived;	/* bytes at `taken`, or a stop */
	pthread_cond_t settled;	/* no thread copies any more */
	uint8_t *ring;		/* byte x of the run lies at x % capacity */
	size_t capacity;
	uint64_t size;
	uint64_t given_back;	/* everything below: its place is free */
	uint64_t taken;		/* end of what is handed out */
	struct spans claimed;	/* put, or being copied by somebody */
	struct spans filled;
	unsigned round;
	unsigned copying;	/* threads that write to the ring outside the lock */
	uint64_t starved_ms;	/* since when the consumer waits; 0 = it does not */
	bool stopped;
};

int window_new(struct window **ret, uint64_t from, uint64_t size, size_t capacity, struct err *e)
{
	struct window *w = calloc(1, sizeof(*w));

	if (!w)
		return err_oom(e);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->arrived, NULL);
	pthread_cond_init(&w->settled, NULL);
	w->size = size;
	w->capacity = capacity;
	w->given_back = w->taken = from;
	/* pages that no byte touched take no memory, and all of them go back at the end */
	w->ring = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w->ring == MAP_FAILED || spans_add(&w->claimed, 0, from) || spans_add(&w->filled, 0, from)) {
		if (w->ring == MAP_FAILED)
			w->ring = NULL;
		window_free(w);
		return err_oom(e);
	}
	*ret = w;
	return 0;
}

void window_free(struct window *w)
{
	if (!w)
		return;
	if (w->ring)
		munmap(w->ring, w->capacity);
	spans_release(&w->claimed);
	spans_release(&w->filled);
	pthread_cond_destroy(&w->arrived);
	pthread_cond_destroy(&w->settled);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* --- in --- */

/* Of [from, to), which lies inside the window: nobody else writes there, and it is not handed out. */
static void copy_in(struct window *w, uint64_t from, uint64_t to, const uint8_t *p)
{
	size_t at = (size_t)(from % w->capacity), n = (size_t)(to - from);
	size_t first = MIN(n, w->capacity - at);

	memcpy(w->ring + at, p, first);
	memcpy(w->ring, p + first, n - first);
}

/* Lock held, dropped meanwhile: one stretch that nobody put before. */
static int put_span(struct window *w, const struct span *s, const uint8_t *p, struct err *e)
{
	if (spans_add(&w->claimed, s->start, s->end))
		return err_set(e, CODE_INTERNAL, "too many gaps in what arrived");
	w->copying++;
	pthread_mutex_unlock(&w->lock);
	copy_in(w, s->start, s->end, p);
	pthread_mutex_lock(&w->lock);
	if (--w->copying == 0)
		pthread_cond_signal(&w->settled);
	if (spans_add(&w->filled, s->start, s->end))
		return err_set(e, CODE_INTERNAL, "too many gaps in what arrived");
	if (w->starved_ms && s->start <= w->taken && w->taken < s->end)
		pthread_cond_signal(&w->arrived);
	return 0;
}

int window_put(struct window *w, unsigned round, uint64_t off, const void *p, size_t n,
	       uint64_t *ret_new, struct err *e)
{
	uint64_t end, fresh = 0;
	struct span s;
	int rc = 0;

	if (!u64_add(off, n, &end) || end > w->size)
		return err_set(e, CODE_INTEGRITY, "more bytes than the manifest says");
	pthread_mutex_lock(&w->lock);
	if (w->stopped || round != w->round)
		end = off; /* wanted by nobody */
	else if (end > w->given_back + w->capacity)
		rc = 1;
	/* usually one stretch; more only where another connection was faster */
	for (uint64_t at = off; !rc && round == w->round && spans_gap(&w->claimed, at, end, &s); at = s.end) {
		rc = put_span(w, &s, (const uint8_t *)p + (s.start - off), e);
		fresh += s.end - s.start;
	}
	pthread_mutex_unlock(&w->lock);
	if (!rc)
		*ret_new = fresh;
	return rc;
}

/* --- out --- */

int window_take(struct window *w, const void **ret, size_t *ret_n)
{
	int rc = 1;

	pthread_mutex_lock(&w->lock);
	while (!w->stopped && w->taken < w->size && spans_covered_to(&w->filled, w->taken) == w->taken) {
		if (!w->starved_ms)
			w->starved_ms = sys_now_ms();
		pthread_cond_wait(&w->arrived, &w->lock);
	}
	w->starved_ms = 0;
	if (w->stopped)
		rc = -1;
	else if (w->taken == w->size)
		rc = 0;
	if (rc == 1) {
		size_t at = (size_t)(w->taken % w->capacity);
		uint64_t n = MIN(spans_covered_to(&w->filled, w->taken) - w->taken, WINDOW_PIECE);
		*ret = w->ring + at;
		*ret_n = (size_t)MIN(n, (uint64_t)(w->capacity - at));
		w->taken += *ret_n;
	}
	pthread_mutex_unlock(&w->lock);
	return rc;
}

void window_give_back(struct window *w)
{
	pthread_mutex_lock(&w->lock);
	w->given_back = w->taken;
	pthread_mutex_unlock(&w->lock);
}

void window_reset(struct window *w)
{
	pthread_mutex_lock(&w->lock);
	w->round++;
	while (w->copying)
		pthread_cond_wait(&w->settled, &w->lock);
	w->given_back = w->taken = 0;
	spans_clear(&w->claimed);
	spans_clear(&w->filled);
	pthread_mutex_unlock(&w->lock);
}

void window_stop(struct window *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopped = true;
	pthread_cond_broadcast(&w->arrived);
	pthread_mutex_unlock(&w->lock);
}

/* --- questions --- */

uint64_t window_limit(struct window *w)
{
	pthread_mutex_lock(&w->lock);
	uint64_t limit = MIN(w->given_back + w->capacity, w->size);
	pthread_mutex_unlock(&w->lock);
	return limit;
}

uint64_t window_put_bytes(struct window *w)
{
	pthread_mutex_lock(&w->lock);
	uint64_t n = spans_total(&w->filled);
	pthread_mutex_unlock(&w->lock);
	return n;
}

uint64_t window_starved_since(struct window *w)
{
	pthread_mutex_lock(&w->lock);
	uint64_t since = w->starved_ms;
	pthread_mutex_unlock(&w->lock);
	return since;
}

bool window_gap(struct window *w, uint64_t from, struct span *ret)
{
	pthread_mutex_lock(&w->lock);
	bool found = spans_gap(&w->filled, from, w->size, ret);
	pthread_mutex_unlock(&w->lock);
	return found;
}
