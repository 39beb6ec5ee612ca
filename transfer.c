// SPDX-License-Identifier: Apache-2.0
/* The run: items, threads, limits, upkeep, and the end of an item. */
#include "transfer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "transfer_internal.h"

#define DEFAULT_CONNECTIONS 16
#define DEFAULT_RANGE (16 * MIB)
#define HASH_SLICE (2 * MIB)
#define TICK_MS 25
#define KEEP_MS 200
#define FDS_RESERVED 24
#define DEFAULT_BUDGET (64 * MIB)

/* --- small things --- */

void transfer_wake(struct transfer *t)
{
	for (unsigned i = 0; i < t->n_lanes; i++)
		if (t->lanes[i].m && (atomic_load(&t->lanes[i].idle) || atomic_load(&t->lanes[i].paused)))
			curl_multi_wakeup(t->lanes[i].m);
}

static void wake_all(struct transfer *t)
{
	for (unsigned i = 0; i < t->n_lanes; i++)
		if (t->lanes[i].m)
			curl_multi_wakeup(t->lanes[i].m);
}

/* Lock held. */
void transfer_fail_locked(struct transfer *t, const struct err *e)
{
	if (!t->failed) {
		t->failed = true;
		t->err = *e;
	}
	atomic_store(&t->over, true);
	pthread_cond_broadcast(&t->cond);
}

unsigned transfer_quota(const struct transfer *t, unsigned lane)
{
	unsigned target = atomic_load(&t->target);

	return target / t->n_lanes + (lane < target % t->n_lanes);
}

void item_leave_active(struct transfer *t, struct item *it)
{
	for (struct item **p = &t->active; *p; p = &(*p)->next_active) {
		if (*p == it) {
			*p = it->next_active;
			t->n_active--;
			return;
		}
	}
}

bool item_is_small(const struct transfer *t, const struct item *it)
{
	return it->in->size <= t->range_size;
}

void item_cancel_parts(struct transfer *t, const struct item *it, const struct part *but)
{
	for (unsigned l = 0; l < t->n_lanes; l++)
		for (size_t i = 0; i < t->lanes[l].n_parts; i++)
			if (t->lanes[l].parts[i].it == it && &t->lanes[l].parts[i] != but)
				atomic_store(&t->lanes[l].parts[i].cancel, true);
}

/* --- the end of an item --- */

/* Mirrors that lied are left aside; the registry gets one more chance. */
static void start_over(struct transfer *t, struct item *it, const struct err *why)
{
	struct err e;
	char line[2400];

	pthread_mutex_lock(&t->lock);
	bool mirrors = item_blame_mirrors(t, it, why, line, sizeof(line));
	pthread_mutex_unlock(&t->lock);
	if (!mirrors)
		snprintf(line, sizeof(line), "%s; fetching it once more over one connection", why->msg);
	if (t->o->warn && *line)
		t->o->warn(t->o->arg, line);
	int failed = item_reset(it, &e);
	pthread_mutex_lock(&t->lock);
	if (failed)
		transfer_fail_locked(t, &e);
	it->again = it->again || !mirrors;
	it->round++;
	it->from = 0;
	it->mode = MODE_UNKNOWN;
	it->state = ITEM_ACTIVE;
	spans_clear(&it->taken);
	atomic_fetch_sub(&t->stats->done, it->in->size);
	/* what a cache on the way answered wrongly, the origin may answer rightly */
	free(it->target);
	it->target = NULL;
	pthread_mutex_unlock(&t->lock);
}

/* Lock held. */
static bool mirrors_took_part(const struct transfer *t, const struct item *it)
{
	for (size_t i = 0; i < t->o->n_servers; i++)
		if (it->from & (uint32_t)1 << i && server_gives_way(t, i))
			return true;
	return false;
}

void transfer_try_finish(struct transfer *t, struct item *it, bool consumed)
{
	struct err e = { 0 };
	bool wrong = false;

	pthread_mutex_lock(&t->lock);
	if (!item_in_use(it) || !(consumed || item_complete(it))) {
		pthread_mutex_unlock(&t->lock);
		return;
	}
	it->state = ITEM_FINISHING;
	item_cancel_parts(t, it, NULL);
	bool chance = !it->again || mirrors_took_part(t, it);
	pthread_mutex_unlock(&t->lock);

	int verdict = item_verdict(it, &wrong, &e);
	if (wrong && chance) {
		start_over(t, it, &e);
		transfer_wake(t);
		return;
	}
	if (verdict == 1 && t->o->verified(t->o->arg, it->index, it->blob, &e))
		verdict = -1;
	/* bytes that are known to be wrong, or may never reach the disk, are no use to the next run */
	if (verdict != 1 && (wrong || e.code == CODE_INTEGRITY || e.sys_errno == EIO))
		item_discard(it);
	pthread_mutex_lock(&t->lock);
	if (verdict == 1) {
		it->state = ITEM_DONE;
		atomic_fetch_add(&t->stats->verified_items, 1);
		if (++t->n_done == t->n_items) {
			atomic_store(&t->over, true);
			pthread_cond_broadcast(&t->cond);
		}
	} else {
		if (!e.code)
			err_set(&e, CODE_INTERNAL, "a complete blob has no verdict");
		transfer_fail_locked(t, &e);
	}
	item_leave_active(t, it);
	struct blob *closing = item_drop_ref(t, it);
	bool over = atomic_load(&t->over);
	pthread_mutex_unlock(&t->lock);
	item_close(it, closing);
	if (over)
		wake_all(t);
	else
		transfer_wake(t);
}

uint64_t transfer_hash_round(struct transfer *t, struct lane *l)
{
	struct item *best = NULL;
	uint64_t most = 0, left = 0;
	struct err e = { 0 };

	pthread_mutex_lock(&t->lock);
	for (struct item *it = t->active; it; it = it->next_active) {
		uint64_t n = item_in_use(it) ? item_backlog(it) : 0;
		if (n > most) {
			most = n;
			best = it;
		}
	}
	if (best)
		best->refs++;
	pthread_mutex_unlock(&t->lock);
	if (!best)
		return 0;
	int did = blob_hash_some(best->blob, HASH_SLICE, l->scratch, LANE_SCRATCH, &e);
	if (did == 1) {
		left = blob_backlog(best->blob);
		transfer_try_finish(t, best, false);
	}
	pthread_mutex_lock(&t->lock);
	if (did < 0)
		transfer_fail_locked(t, &e);
	struct blob *closing = item_drop_ref(t, best);
	pthread_mutex_unlock(&t->lock);
	item_close(best, closing);
	return left;
}

/* --- upkeep and the run --- */

/* Lock held. Sleeps, but not beyond the end of the transfer. */
static void nap(struct transfer *t, unsigned ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_nsec += ms * 1000000L;
	ts.tv_sec += ts.tv_nsec / 1000000000L;
	ts.tv_nsec %= 1000000000L;
	if (!atomic_load(&t->over))
		pthread_cond_timedwait(&t->cond, &t->lock, &ts);
}

/* Journals and flushes beside the lanes: a slow disk must not hold the network up. */
static void *keeper_main(void *arg)
{
	struct transfer *t = arg;

	while (!atomic_load(&t->over)) {
		pthread_mutex_lock(&t->lock);
		nap(t, KEEP_MS);
		pthread_mutex_unlock(&t->lock);
		for (size_t i = 0; i < t->n_items && !atomic_load(&t->over); i++) {
			struct item *it = &t->items[i];
			struct err e = { 0 };
			pthread_mutex_lock(&t->lock);
			bool use = item_in_use(it) && !item_is_small(t, it);
			it->refs += use;
			pthread_mutex_unlock(&t->lock);
			if (!use)
				continue;
			int failed = item_maintain(it, sys_now_ms(), &e);
			pthread_mutex_lock(&t->lock);
			if (failed)
				transfer_fail_locked(t, &e);
			struct blob *closing = item_drop_ref(t, it);
			pthread_mutex_unlock(&t->lock);
			item_close(it, closing);
		}
	}
	return NULL;
}

/* Lock held. Deadlines, signals, the retry budget. */
static void check_limits(struct transfer *t, uint64_t now, uint64_t done, uint64_t *last_done)
{
	struct err e = { 0 };
	int stop = http_stopped(t->h);
	unsigned budget = t->o->retry_budget_ms;

	/* less than one connection must bring is no progress: a trickle on each new one would keep us for ever */
	uint64_t over = MIN(now - t->progress_ms, (uint64_t)t->o->speed_time_ms);
	uint64_t least = t->o->speed_limit * over / 1000;
	if (done != *last_done && (done < *last_done || done - *last_done >= least)) {
		*last_done = done;
		t->progress_ms = now;
	}
	if (stop) {
		err_set(&e, (enum code)stop, "stopped by a signal; what was fetched is kept for the next run");
		transfer_fail_locked(t, &e);
	} else if (t->o->deadline_ms && now >= t->o->deadline_ms) {
		err_set(&e, CODE_DEADLINE, "the deadline passed; what was fetched is kept for the next run");
		transfer_fail_locked(t, &e);
	} else if (t->last.code && t->last_ms + 1000 >= t->progress_ms && budget &&
		   now - t->progress_ms > budget) {
		e = t->last;
		err_wrap(&e, "gave up, no progress for %u s", budget / 1000);
		transfer_fail_locked(t, &e);
	}
}

/* Lock held. */
static void measure(struct transfer *t, uint64_t now, uint64_t done)
{
	uint64_t dt = now - t->rate_ms;

	if (dt < TICK_MS / 2 || done < t->rate_done)
		return;
	uint64_t rate = (done - t->rate_done) * 1000 / dt;
	t->rate = t->rate ? (3 * t->rate + rate) / 4 : rate;
	t->rate_ms = now;
	t->rate_done = done;
}

/* Lock held. Percent of the time since the last call that the lanes waited. */
static unsigned idle_percent(struct transfer *t)
{
	uint64_t now = sys_now_us(), idle = atomic_load(&t->idle_us);
	uint64_t wall = (now - t->tick_us) * t->n_lanes, waited = idle - t->tick_idle_us;

	t->tick_us = now;
	t->tick_idle_us = idle;
	return wall ? (unsigned)MIN(waited * 100 / wall, (uint64_t)100) : 0;
}

static void wait_for_end(struct transfer *t)
{
	uint64_t last_done = 0;

	pthread_mutex_lock(&t->lock);
	t->progress_ms = t->rate_ms = sys_now_ms();
	t->tick_us = sys_now_us();
	while (!atomic_load(&t->over)) {
		nap(t, TICK_MS);
		uint64_t now = sys_now_ms(), done = atomic_load(&t->stats->done);
		unsigned busy = 0;
		for (struct item *it = t->active; it; it = it->next_active) {
			busy += it->n_parts;
			/* a consumer that takes its time is no fault of the network */
			if (item_in_use(it) && item_consuming(it))
				t->progress_ms = now;
		}
		/* where the limit binds, more connections bring nothing */
		unsigned idle = idle_percent(t) * !transfer_throttled(t, now);
		atomic_store(&t->target, plan_control_tick(&t->control, now, done, busy, idle));
		measure(t, now, done);
		check_limits(t, now, done, &last_done);
		pthread_mutex_unlock(&t->lock);
		item_reap(t);
		transfer_wake(t);
		if (t->o->tick)
			t->o->tick(t->o->arg);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
	wake_all(t);
}

static int by_queue_and_size(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (!x->in->stream != !y->in->stream)
		return x->in->stream ? 1 : -1;
	if (x->in->size != y->in->size)
		return x->in->size < y->in->size ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

/* Sockets and files must fit RLIMIT_NOFILE: fewer connections rather than a failure. */
static unsigned fit_descriptors(unsigned connections)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur == RLIM_INFINITY)
		return connections;
	rlim_t room = r.rlim_cur > FDS_RESERVED ? (r.rlim_cur - FDS_RESERVED) / 2 : 0;
	return (unsigned)MIN((rlim_t)connections, MAX(room, (rlim_t)1));
}

static int set_up(struct transfer *t, const struct transfer_item *items, size_t n, struct err *e)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->cond, &attr);
	pthread_condattr_destroy(&attr);
	t->items = calloc(n, sizeof(*t->items));
	t->lanes = calloc(LIMIT_LANES, sizeof(*t->lanes));
	if (!t->items || !t->lanes)
		return err_oom(e);
	t->n_items = n;
	for (size_t i = 0; i < n; i++) {
		t->items[i].in = &items[i];
		t->items[i].index = i;
		t->files.end += !items[i].stream;
	}
	if (servers_init(t, e))
		return -1;
	qsort(t->items, n, sizeof(*t->items), by_queue_and_size);
	t->streams = (struct queue){ t->files.end, n };
	unsigned want = t->o->connections ? t->o->connections : DEFAULT_CONNECTIONS;
	t->max_connections = fit_descriptors(MIN(want, (unsigned)LIMIT_CONNECTIONS));
	t->range_size = t->o->range_size ? t->o->range_size : DEFAULT_RANGE;
	unsigned lanes = t->o->lanes ? t->o->lanes : MIN(sys_cpus(), (unsigned)LIMIT_LANES);
	t->n_lanes = MIN(MIN(lanes, (unsigned)LIMIT_LANES), t->max_connections);
	if (t->o->max_per_host) /* a lane without a share would have nothing to do */
		t->n_lanes = MIN(t->n_lanes, t->o->max_per_host);
	plan_rate_init(&t->limit, t->o->rate_limit, sys_now_us());
	t->window_budget = (t->o->memory_budget ? t->o->memory_budget : DEFAULT_BUDGET) / 2;
	uint64_t streams = MIN(t->window_budget / WINDOW_MIN, (uint64_t)t->n_lanes + 1);
	t->max_streams = (unsigned)MAX(streams, (uint64_t)1);
	/* one per lane: where that fills the line, each lane hashes what it receives while it is hot */
	plan_control_init(&t->control, t->n_lanes, t->max_connections, sys_now_ms());
	atomic_store(&t->target, t->control.target);
	return 0;
}

static int start_threads(struct transfer *t, struct err *e)
{
	size_t room = t->max_connections / t->n_lanes + 1;

	for (unsigned i = 0; i < t->n_lanes; i++)
		if (lane_init(&t->lanes[i], t, i, room, e))
			return -1;
	for (unsigned i = 0; i < t->n_lanes; i++)
		if (lane_start(&t->lanes[i], e))
			return -1;
	int rc = pthread_create(&t->keeper, NULL, keeper_main, t);
	if (rc)
		return err_errno(e, CODE_INTERNAL, rc, "cannot start a thread");
	t->keeper_running = true;
	return 0;
}

/* Consumers that wait for bytes go home. */
static void stop_streams(struct transfer *t)
{
	pthread_mutex_lock(&t->lock);
	for (struct item *it = t->active; it; it = it->next_active)
		if (item_in_use(it) && it->stream)
			stream_stop(it->stream, &t->err);
	pthread_mutex_unlock(&t->lock);
}

static void tear_down(struct transfer *t)
{
	atomic_store(&t->over, true);
	wake_all(t);
	stop_streams(t);
	if (t->keeper_running)
		pthread_join(t->keeper, NULL);
	for (unsigned i = 0; t->lanes && i < t->n_lanes; i++)
		lane_join(&t->lanes[i]);
	/* consumers look at the lanes until they end */
	for (size_t i = 0; t->items && i < t->n_items; i++)
		item_abandon(t, &t->items[i]);
	for (size_t i = 0; t->items && i < t->n_items; i++)
		free(t->items[i].url);
	for (unsigned i = 0; t->lanes && i < t->n_lanes; i++)
		lane_release(&t->lanes[i]);
	servers_release(t);
	free(t->items);
	free(t->lanes);
	pthread_cond_destroy(&t->cond);
	pthread_mutex_destroy(&t->lock);
}

int transfer_run(struct http *h, const struct transfer_item *items, size_t n,
		 const struct transfer_options *o, struct transfer_stats *stats, struct err *e)
{
	struct transfer t = { .h = h, .o = o, .stats = stats };

	if (n == 0)
		return 0;
	int failed = set_up(&t, items, n, e);
	if (!failed)
		failed = start_threads(&t, e);
	if (!failed)
		wait_for_end(&t);
	tear_down(&t);
	if (!failed && t.failed) {
		if (e)
			*e = t.err;
		failed = -1;
	}
	return failed;
}
