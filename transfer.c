// SPDX-License-Identifier: Apache-2.0
/* Who fetches what: items, ranges, retries, hedges. The connections themselves are in lane.c. */
#include "transfer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "transfer_internal.h"

#define DEFAULT_CONNECTIONS 16
#define START_CONNECTIONS 4
#define DEFAULT_RANGE (16 * MIB)
#define MIN_RANGE (2 * MIB)	/* the last ranges shrink to this, so that all connections end together */
#define MIN_SPLIT (1 * MIB)
#define SPLIT_ETA_MS 200	/* a range that needs longer is shared with an idle connection */
#define HEDGE_IDLE_MS 2000	/* a range without progress for so long is asked for twice */
#define HASH_SLICE (2 * MIB)
#define TICK_MS 100
#define KEEP_MS 200
#define MAX_BAD_ANSWERS 3
#define MAX_RESOLVES 4
#define MAX_REFUSALS 64	/* 401s of one blob without a good answer; all its connections may see one expiry */
#define FDS_RESERVED 24

/* --- small things --- */

void transfer_wake(struct transfer *t)
{
	for (unsigned i = 0; i < t->n_lanes; i++)
		if (t->lanes[i].m && atomic_load(&t->lanes[i].idle))
			curl_multi_wakeup(t->lanes[i].m);
}

static void wake_all(struct transfer *t)
{
	for (unsigned i = 0; i < t->n_lanes; i++)
		if (t->lanes[i].m)
			curl_multi_wakeup(t->lanes[i].m);
}

/* Lock held. */
static void fail_locked(struct transfer *t, const struct err *e)
{
	if (!t->failed) {
		t->failed = true;
		t->err = *e;
	}
	atomic_store(&t->over, true);
	pthread_cond_broadcast(&t->cond);
}

void transfer_fail(struct transfer *t, const struct err *e)
{
	pthread_mutex_lock(&t->lock);
	fail_locked(t, e);
	pthread_mutex_unlock(&t->lock);
	wake_all(t);
}

unsigned transfer_quota(const struct transfer *t, unsigned lane)
{
	unsigned target = atomic_load(&t->target);

	return target / t->n_lanes + (lane < target % t->n_lanes);
}

/* Lock held. The last user closes the blob; the close itself (unlink, journal) is quick. */
static void drop_ref(struct item *it)
{
	if (--it->refs)
		return;
	struct blob *b = it->blob;
	it->blob = NULL;
	blob_close(b, it->state != ITEM_DONE && it->in->size > 0);
}

static void leave_active(struct transfer *t, struct item *it)
{
	for (struct item **p = &t->active; *p; p = &(*p)->next_active) {
		if (*p == it) {
			*p = it->next_active;
			t->n_active--;
			return;
		}
	}
}

static bool is_small(const struct transfer *t, const struct item *it)
{
	return it->in->size <= t->range_size;
}

/* --- claims --- */

/* Lock held. How far ahead of the hash ranges may be asked for: bounds what is read back from the page cache. */
static uint64_t window(const struct transfer *t)
{
	uint64_t w = 2 * t->range_size * atomic_load(&t->target);

	return MIN(MAX(w, 64 * MIB), 1024 * MIB);
}

/* Lock held. Bytes of all items that nobody was asked for yet, roughly: enough to size the last ranges. */
static uint64_t unclaimed(const struct transfer *t)
{
	uint64_t sum = 0;

	for (size_t i = t->next_waiting; i < t->n_items && sum < 4 * GIB; i++)
		sum += t->items[i].in->size;
	for (const struct item *it = t->active; it; it = it->next_active)
		sum += it->in->size - MIN(it->in->size, spans_total(&it->taken));
	return sum;
}

/* Lock held. The next range of an item, or false. */
static bool next_span(struct transfer *t, struct item *it, struct span *ret, bool *ret_ranged)
{
	struct span gap;

	if (it->opening || !it->blob || it->state != ITEM_ACTIVE || it->mode == MODE_PROBING)
		return false;
	if (is_small(t, it) || it->no_range || it->again || it->mode == MODE_STREAM) {
		*ret = (struct span){ 0, it->in->size };
		*ret_ranged = false;
		return it->n_parts == 0 && blob_gap(it->blob, 0, &gap);
	}
	if (!spans_gap(&it->taken, 0, it->in->size, &gap))
		return false;
	if (gap.start > blob_frontier(it->blob) + window(t))
		return false;
	uint64_t share = unclaimed(t) / (2 * (uint64_t)atomic_load(&t->target));
	uint64_t len = MIN(MAX(share, MIN_RANGE), t->range_size);
	/* whole pages, so that pieces do not meet inside one */
	len &= ~(uint64_t)0xffff;
	*ret = (struct span){ gap.start, MIN(gap.end, gap.start + len) };
	*ret_ranged = true;
	return true;
}

static unsigned parts_in_lane(const struct lane *l, const struct item *it)
{
	unsigned n = 0;

	for (size_t i = 0; i < l->n_parts; i++)
		n += l->parts[i].it == it;
	return n;
}

/* Lock held. The active item with the fewest connections; among equals the one this lane knows. */
static struct item *pick_active(struct transfer *t, const struct lane *l, uint64_t now,
				struct span *ret, bool *ret_ranged)
{
	struct item *best = NULL;
	unsigned best_score = 0;

	for (struct item *it = t->active; it; it = it->next_active) {
		struct span s;
		bool ranged;
		if (it->not_before_ms > now || !next_span(t, it, &s, &ranged))
			continue;
		unsigned score = it->n_parts * 4 + (parts_in_lane(l, it) ? 0 : 1);
		if (!best || score < best_score) {
			best = it;
			best_score = score;
			*ret = s;
			*ret_ranged = ranged;
		}
	}
	return best;
}

/* Lock held, dropped meanwhile. Opens the next waiting item's blob. false = none, or failed (then t is over). */
static bool open_next(struct transfer *t)
{
	struct err e = { 0 };
	struct blob *b = NULL;

	if (t->next_waiting == t->n_items || t->n_active >= t->max_connections + t->n_lanes)
		return false;
	struct item *it = &t->items[t->next_waiting++];
	it->state = ITEM_ACTIVE;
	it->opening = true;
	it->refs = 1;
	it->next_active = t->active;
	t->active = it;
	t->n_active++;
	pthread_mutex_unlock(&t->lock);

	struct blob_options o = t->o->blob;
	o.journal = o.journal && !is_small(t, it);
	int failed = blob_open(&b, t->o->partial_dirfd, &it->in->digest, it->in->size, &o, &e);
	struct span gap;
	uint64_t at = 0;

	pthread_mutex_lock(&t->lock);
	it->opening = false;
	it->blob = b;
	if (failed) {
		leave_active(t, it);
		it->refs = 0;
		fail_locked(t, &e);
		return false;
	}
	/* what an earlier run left is taken: all but the gaps */
	while (at < it->in->size) {
		if (!blob_gap(b, at, &gap))
			gap = (struct span){ it->in->size, it->in->size };
		(void)spans_add(&it->taken, at, gap.start);
		at = gap.end;
	}
	atomic_fetch_add(&t->stats->done, blob_done_bytes(b));
	return true;
}

/* Lock held. */
static bool assign(struct transfer *t, struct part *p, struct item *it, const struct span *s,
		   bool ranged)
{
	p->url = strdup(it->target ? it->target : it->in->url);
	if (!p->url || (ranged && spans_add(&it->taken, s->start, s->end))) {
		struct err e;
		err_oom(&e);
		fail_locked(t, &e);
		return false;
	}
	p->it = it;
	p->ranged = ranged;
	p->start = s->start;
	p->asked_end = s->end;
	atomic_store(&p->pos, s->start);
	atomic_store(&p->end, s->end);
	atomic_store(&p->cancel, false);
	p->twin = NULL;
	p->claimed_ms = sys_now_ms();
	it->n_parts++;
	it->refs++;
	if (it->mode == MODE_UNKNOWN)
		it->mode = ranged ? MODE_PROBING : MODE_STREAM;
	return true;
}

/* --- tail: splits and hedges --- */

/* Lock held. Milliseconds the part still needs at its own speed; UINT64_MAX when it does not move. */
static uint64_t eta_ms(const struct part *v, uint64_t now)
{
	uint64_t pos = atomic_load(&v->pos), end = atomic_load(&v->end);
	uint64_t ran = now - v->claimed_ms, got = pos - v->start;

	if (pos >= end)
		return 0;
	if (got == 0 || ran == 0)
		return ran > HEDGE_IDLE_MS ? UINT64_MAX : 0;
	return (end - pos) * ran / got;
}

static bool can_share(const struct part *v)
{
	return v->it && v->ranged && !v->twin && !atomic_load(&v->cancel) &&
	       v->it->state == ITEM_ACTIVE && v->it->mode == MODE_RANGES;
}

/* Lock held. The range that will be last, if it is worth a second connection. */
static struct part *slowest(struct transfer *t, uint64_t now, uint64_t *ret_eta)
{
	struct part *worst = NULL;
	uint64_t worst_eta = SPLIT_ETA_MS;

	for (unsigned l = 0; l < t->n_lanes; l++) {
		for (size_t i = 0; i < t->lanes[l].n_parts; i++) {
			struct part *v = &t->lanes[l].parts[i];
			if (!can_share(v))
				continue;
			uint64_t eta = eta_ms(v, now);
			if (eta > worst_eta) {
				worst = v;
				worst_eta = eta;
			}
		}
	}
	*ret_eta = worst_eta;
	return worst;
}

/*
 * Lock held. Nothing is left to ask for: take the second half of the range that will be last, or, when it
 * hardly moves, ask for all of its rest again; the first complete answer wins.
 */
static bool share_tail(struct transfer *t, struct part *p, uint64_t now)
{
	uint64_t eta;
	struct part *v = slowest(t, now, &eta);

	if (!v || v->it->not_before_ms > now)
		return false;
	uint64_t pos = atomic_load(&v->pos), end = atomic_load(&v->end);
	bool moves = eta != UINT64_MAX && eta < 60 * 1000;
	if (moves && end - pos >= 2 * MIN_SPLIT) {
		uint64_t mid = (pos + (end - pos) / 2 + 0xffff) & ~(uint64_t)0xffff;
		atomic_store(&v->end, mid);
		return assign(t, p, v->it, &(struct span){ mid, end }, true);
	}
	if (moves && eta < HEDGE_IDLE_MS)
		return false;
	if (!assign(t, p, v->it, &(struct span){ pos, end }, true))
		return false;
	p->twin = v;
	v->twin = p;
	return true;
}

bool transfer_claim(struct transfer *t, struct part *p)
{
	struct span s;
	bool ranged = false, claimed = false;
	uint64_t now = sys_now_ms();

	pthread_mutex_lock(&t->lock);
	while (t->not_before_ms <= now && !atomic_load(&t->over)) {
		/* as many blobs at once as can be hashed at once; more only when those have nothing to give */
		struct item *it = NULL;
		if (t->n_active >= MAX(t->n_lanes, 2u) || t->next_waiting == t->n_items)
			it = pick_active(t, p->lane, now, &s, &ranged);
		if (it) {
			claimed = assign(t, p, it, &s, ranged);
			break;
		}
		if (open_next(t))
			continue;
		it = pick_active(t, p->lane, now, &s, &ranged);
		claimed = it ? assign(t, p, it, &s, ranged) : share_tail(t, p, now);
		break;
	}
	pthread_mutex_unlock(&t->lock);
	return claimed;
}

/* --- headers --- */

static void cancel_parts(struct transfer *t, const struct item *it, const struct part *but)
{
	for (unsigned l = 0; l < t->n_lanes; l++)
		for (size_t i = 0; i < t->lanes[l].n_parts; i++)
			if (t->lanes[l].parts[i].it == it && &t->lanes[l].parts[i] != but)
				atomic_store(&t->lanes[l].parts[i].cancel, true);
}

/* The server sends everything although a range was asked for: keep this one stream, from byte 0. */
static bool take_whole(struct transfer *t, struct part *p)
{
	struct item *it = p->it;

	if (it->mode == MODE_STREAM)
		return false; /* a sibling was first */
	cancel_parts(t, it, p);
	it->mode = MODE_STREAM;
	p->ranged = false;
	p->start = 0;
	atomic_store(&p->pos, 0);
	atomic_store(&p->end, it->in->size);
	return true;
}

bool transfer_headers_ok(struct transfer *t, struct part *p)
{
	struct item *it = p->it;
	uint64_t want = p->ranged ? p->asked_end - p->start : it->in->size;
	const struct content_range *r = &p->content_range;
	bool ok;

	p->result = RESULT_BAD;
	if (p->encoded)
		return false;
	if (p->status == 206) {
		if (!p->ranged || !p->has_range_header || r->start != p->start ||
		    r->end != p->asked_end - 1 || r->total != it->in->size)
			return false;
	} else {
		want = it->in->size;
	}
	if (p->content_length != UINT64_MAX && p->content_length != want)
		return false;
	pthread_mutex_lock(&t->lock);
	if (p->status == 206) {
		ok = true;
		if (it->mode == MODE_PROBING)
			it->mode = MODE_RANGES;
	} else {
		ok = p->ranged ? take_whole(t, p) : true;
	}
	it->hops = it->resolves = it->refusals = 0;
	pthread_mutex_unlock(&t->lock);
	p->result = ok ? RESULT_NONE : RESULT_CANCELLED;
	if (p->status == 206)
		transfer_wake(t);
	return ok;
}

/* --- endings --- */

enum next_step { NEXT_AGAIN, NEXT_WAIT, NEXT_FAIL };

static void forget_target(struct item *it)
{
	free(it->target);
	it->target = NULL;
	if (it->mode == MODE_RANGES)
		it->mode = MODE_UNKNOWN; /* one request finds the new place, the others wait for it */
}

static enum next_step after_redirect(struct transfer *t, struct part *p, struct err *e)
{
	const char *location = http_response_header(&p->resp, "Location", 0);
	char what[512], *target;

	http_redacted(p->url, what, sizeof(what));
	if (!location) {
		err_set(e, CODE_NETWORK, "%s: redirect %ld without Location", what, p->status);
		return NEXT_FAIL;
	}
	if (http_redirect_target(p->url, location, &target, e))
		return NEXT_FAIL;
	pthread_mutex_lock(&t->lock);
	free(p->it->target);
	p->it->target = target;
	bool loop = ++p->it->hops > LIMIT_REDIRECTS;
	pthread_mutex_unlock(&t->lock);
	if (!loop)
		return NEXT_AGAIN;
	err_set(e, CODE_NETWORK, "%s: more than %d redirects", what, LIMIT_REDIRECTS);
	return NEXT_FAIL;
}

static enum next_step after_overload(struct transfer *t, struct part *p, struct err *e)
{
	const char *after = http_response_header(&p->resp, "Retry-After", 0);
	uint64_t now = sys_now_ms();

	e->retry_after_ms = http_retry_after_ms(after, time(NULL));
	if (p->status == 429 || p->status == 503) {
		pthread_mutex_lock(&t->lock);
		plan_control_overload(&t->control, now);
		atomic_store(&t->target, t->control.target);
		if (e->retry_after_ms)
			t->not_before_ms = MAX(t->not_before_ms, now + e->retry_after_ms);
		pthread_mutex_unlock(&t->lock);
	}
	return NEXT_WAIT;
}

static enum next_step after_status(struct transfer *t, struct part *p, struct err *e)
{
	struct item *it = p->it;
	long s = p->status;
	char what[512];

	http_redacted(p->url, what, sizeof(what));
	http_status_error(s, what, &p->resp.body, e);
	if (s == 401 && p->at_origin) {
		const struct http_authority *a = it->in->authority;
		p->resp.with_credentials = p->with_credentials;
		pthread_mutex_lock(&t->lock);
		bool again = ++it->refusals <= MAX_REFUSALS;
		pthread_mutex_unlock(&t->lock);
		if (!again || a->challenged(a->ctx, &p->resp, p->generation, e))
			return NEXT_FAIL;
		return NEXT_AGAIN;
	}
	if (http_status_retryable(s))
		return after_overload(t, p, e);
	/* a signed URL that ran out, or was made for somebody else: ask the registry for a new one */
	if (!p->at_origin && (s == 400 || s == 401 || s == 403 || s == 404 || s == 410)) {
		pthread_mutex_lock(&t->lock);
		bool try = it->target && ++it->resolves <= MAX_RESOLVES;
		if (it->target && strcmp(it->target, p->url) == 0)
			forget_target(it);
		else
			try = true; /* somebody else found the new place already */
		unsigned tries = it->resolves;
		pthread_mutex_unlock(&t->lock);
		return try ? tries > 1 ? NEXT_WAIT : NEXT_AGAIN : NEXT_FAIL;
	}
	if (p->ranged && !it->no_range && (s == 400 || s == 405 || s == 406 || s == 416 || s == 501)) {
		it->no_range = true;
		return NEXT_AGAIN;
	}
	return NEXT_FAIL;
}

static enum next_step after_bad_answer(struct part *p, struct err *e)
{
	struct item *it = p->it;
	char what[512];

	http_redacted(p->url, what, sizeof(what));
	err_set(e, CODE_INTEGRITY, "%s: the answer does not fit the request (status %ld, %llu bytes of %llu)",
		what, p->status,
		p->content_length == UINT64_MAX ? 0ULL : (unsigned long long)p->content_length,
		(unsigned long long)it->in->size);
	e->retryable = true;
	it->no_range = it->no_range || p->ranged;
	return ++it->bad_answers > MAX_BAD_ANSWERS ? NEXT_FAIL : NEXT_WAIT;
}

/* What the end of a part that did not bring all its bytes means. */
static enum next_step judge(struct transfer *t, struct part *p, CURLcode rc, struct err *e)
{
	char what[512];

	http_redacted(p->url ? p->url : "", what, sizeof(what));
	switch (p->result) {
	case RESULT_CANCELLED:
		return NEXT_AGAIN;
	case RESULT_LOCAL:
		*e = p->err;
		return e->retryable ? NEXT_WAIT : NEXT_FAIL;
	case RESULT_REDIRECT:
		return after_redirect(t, p, e);
	case RESULT_STATUS:
		return after_status(t, p, e);
	case RESULT_BAD:
		return after_bad_answer(p, e);
	case RESULT_STALLED:
		err_set(e, CODE_DEADLINE, "%s: the connection stalled", what);
		e->retryable = true;
		return NEXT_WAIT;
	case RESULT_NONE:
		break;
	}
	if (rc == CURLE_OK) {
		err_set(e, CODE_NETWORK, "%s: the body ended early", what);
		e->retryable = true;
		return NEXT_WAIT;
	}
	http_curl_error(t->h, p->c, rc, p->errbuf, what, e);
	return e->retryable ? NEXT_WAIT : NEXT_FAIL;
}

/* Lock held. The part's undone bytes are free again, unless its twin is at them. */
static void give_back(struct transfer *t, struct part *p)
{
	struct item *it = p->it;
	uint64_t pos = atomic_load(&p->pos), end = atomic_load(&p->end);
	struct part *twin = p->twin;

	if (twin) {
		twin->twin = NULL;
		if (pos >= end)
			atomic_store(&twin->cancel, true);
	} else if (pos < end && p->ranged) {
		(void)spans_remove(&it->taken, pos, end);
	}
	it->n_parts--;
	p->it = NULL;
	p->twin = NULL;
	if (it->mode == MODE_PROBING && pos < end)
		it->mode = MODE_UNKNOWN;
	if (it->mode == MODE_STREAM && it->n_parts == 0)
		it->mode = MODE_UNKNOWN;
	if (it->n_parts == 0 && it->state == ITEM_ACTIVE && it->blob && it->mode == MODE_UNKNOWN) {
		/* nothing is under way: what is taken is what is on disk */
		struct span gap;
		spans_clear(&it->taken);
		for (uint64_t at = 0; at < it->in->size; at = gap.end) {
			if (!blob_gap(it->blob, at, &gap))
				gap = (struct span){ it->in->size, it->in->size };
			(void)spans_add(&it->taken, at, gap.start);
		}
	}
	drop_ref(it);
	(void)t;
}

static void schedule_retry(struct transfer *t, struct item *it, const struct err *e, bool progressed)
{
	char line[1200];

	pthread_mutex_lock(&t->lock);
	it->attempt = progressed ? 0 : it->attempt + 1;
	uint32_t wait = http_backoff_ms(it->attempt, e->retry_after_ms);
	it->not_before_ms = sys_now_ms() + wait;
	t->last = *e;
	t->last_ms = sys_now_ms();
	pthread_mutex_unlock(&t->lock);
	atomic_fetch_add(&t->stats->retries, 1);
	snprintf(line, sizeof(line), "%s; trying again in %u ms", e->msg, wait);
	if (t->o->warn)
		t->o->warn(t->o->arg, line);
}

static void tell_accepted(const struct part *p)
{
	const struct http_authority *a = p->it->in->authority;

	if (p->at_origin && p->with_credentials && p->status && p->status != 401 && a->accepted)
		a->accepted(a->ctx, p->generation);
}

void transfer_part_ended(struct transfer *t, struct part *p, CURLcode rc)
{
	struct item *it = p->it;
	struct err e = { 0 };
	enum next_step next = NEXT_AGAIN;
	bool body = p->state == PART_BODY && p->result != RESULT_LOCAL;
	bool complete = body && atomic_load(&p->pos) >= atomic_load(&p->end);

	tell_accepted(p);
	if (!complete && !atomic_load(&t->over) && !atomic_load(&p->cancel))
		next = judge(t, p, rc, &e);
	else if (p->result == RESULT_LOCAL && !e.code)
		e = p->err, next = NEXT_FAIL;
	if (next == NEXT_WAIT)
		schedule_retry(t, it, &e, p->progressed);
	pthread_mutex_lock(&t->lock);
	if (complete)
		it->attempt = 0;
	if (next == NEXT_FAIL && it->state == ITEM_ACTIVE)
		fail_locked(t, &e);
	give_back(t, p);
	pthread_mutex_unlock(&t->lock);
	if (complete)
		transfer_try_finish(t, it);
	transfer_wake(t);
}

/* --- the end of an item --- */

static void start_over(struct transfer *t, struct item *it, const struct err *why)
{
	struct err e;
	char line[1200];

	snprintf(line, sizeof(line), "%s; fetching it once more over one connection", why->msg);
	if (t->o->warn)
		t->o->warn(t->o->arg, line);
	int failed = blob_reset(it->blob, &e);
	pthread_mutex_lock(&t->lock);
	if (failed)
		fail_locked(t, &e);
	it->again = true;
	it->mode = MODE_UNKNOWN;
	it->state = ITEM_ACTIVE;
	spans_clear(&it->taken);
	atomic_fetch_sub(&t->stats->done, it->in->size);
	/* what a cache on the way answered wrongly, the origin may answer rightly */
	free(it->target);
	it->target = NULL;
	pthread_mutex_unlock(&t->lock);
}

void transfer_try_finish(struct transfer *t, struct item *it)
{
	struct err e = { 0 };

	pthread_mutex_lock(&t->lock);
	if (it->state != ITEM_ACTIVE || it->opening || !it->blob ||
	    blob_frontier(it->blob) < it->in->size) {
		pthread_mutex_unlock(&t->lock);
		return;
	}
	it->state = ITEM_FINISHING;
	cancel_parts(t, it, NULL);
	struct blob *b = it->blob;
	pthread_mutex_unlock(&t->lock);

	int verdict = blob_verdict(b, &e);
	if (verdict == -1 && e.code == CODE_INTEGRITY && !it->again) {
		start_over(t, it, &e);
		transfer_wake(t);
		return;
	}
	if (verdict == 1 && t->o->verified(t->o->arg, it->index, b, &e))
		verdict = -1;
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
		/* bytes that are known to be wrong are no use to the next run */
		if (e.code == CODE_INTEGRITY)
			(void)blob_reset(b, NULL);
		fail_locked(t, &e);
	}
	leave_active(t, it);
	drop_ref(it);
	bool over = atomic_load(&t->over);
	pthread_mutex_unlock(&t->lock);
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
		uint64_t n = it->blob && !it->opening && it->state == ITEM_ACTIVE ?
			     blob_backlog(it->blob) : 0;
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
		transfer_try_finish(t, best);
	}
	pthread_mutex_lock(&t->lock);
	if (did < 0)
		fail_locked(t, &e);
	drop_ref(best);
	pthread_mutex_unlock(&t->lock);
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
			bool use = it->state == ITEM_ACTIVE && it->blob && !it->opening && !is_small(t, it);
			it->refs += use;
			pthread_mutex_unlock(&t->lock);
			if (!use)
				continue;
			int failed = blob_maintain(it->blob, sys_now_ms(), &e);
			pthread_mutex_lock(&t->lock);
			if (failed)
				fail_locked(t, &e);
			drop_ref(it);
			pthread_mutex_unlock(&t->lock);
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

	if (done != *last_done) {
		*last_done = done;
		t->progress_ms = now;
	}
	if (stop) {
		err_set(&e, (enum code)stop, "stopped by a signal; what was fetched is kept for the next run");
		fail_locked(t, &e);
	} else if (t->o->deadline_ms && now >= t->o->deadline_ms) {
		err_set(&e, CODE_DEADLINE, "the deadline passed; what was fetched is kept for the next run");
		fail_locked(t, &e);
	} else if (t->last.code && t->last_ms > t->progress_ms && budget &&
		   now - t->progress_ms > budget) {
		e = t->last;
		err_wrap(&e, "gave up, no progress for %u s", budget / 1000);
		fail_locked(t, &e);
	}
}

static void wait_for_end(struct transfer *t)
{
	uint64_t last_done = 0;

	pthread_mutex_lock(&t->lock);
	t->progress_ms = sys_now_ms();
	while (!atomic_load(&t->over)) {
		nap(t, TICK_MS);
		uint64_t now = sys_now_ms(), done = atomic_load(&t->stats->done);
		unsigned busy = 0;
		for (struct item *it = t->active; it; it = it->next_active)
			busy += it->n_parts;
		atomic_store(&t->target, plan_control_tick(&t->control, now, done, busy));
		check_limits(t, now, done, &last_done);
		pthread_mutex_unlock(&t->lock);
		transfer_wake(t);
		if (t->o->tick)
			t->o->tick(t->o->arg);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
	wake_all(t);
}

static int by_size(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

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
	rlim_t room = r.rlim_cur > FDS_RESERVED ? (r.rlim_cur - FDS_RESERVED) / 2 : 1;
	return (unsigned)MIN((rlim_t)connections, room);
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
	}
	qsort(t->items, n, sizeof(*t->items), by_size);
	unsigned want = t->o->connections ? t->o->connections : DEFAULT_CONNECTIONS;
	t->max_connections = fit_descriptors(MIN(want, (unsigned)LIMIT_CONNECTIONS));
	t->range_size = t->o->range_size ? t->o->range_size : DEFAULT_RANGE;
	unsigned lanes = t->o->lanes ? t->o->lanes : MIN(sys_cpus(), (unsigned)LIMIT_LANES);
	t->n_lanes = MIN(MIN(lanes, (unsigned)LIMIT_LANES), t->max_connections);
	plan_control_init(&t->control, START_CONNECTIONS, t->max_connections, sys_now_ms());
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

static void tear_down(struct transfer *t)
{
	atomic_store(&t->over, true);
	wake_all(t);
	if (t->keeper_running)
		pthread_join(t->keeper, NULL);
	for (unsigned i = 0; t->lanes && i < t->n_lanes; i++)
		lane_join(&t->lanes[i]);
	for (unsigned i = 0; t->lanes && i < t->n_lanes; i++)
		lane_release(&t->lanes[i]);
	for (size_t i = 0; t->items && i < t->n_items; i++) {
		struct item *it = &t->items[i];
		if (it->blob)
			blob_close(it->blob, !is_small(t, it));
		spans_release(&it->taken);
		free(it->target);
	}
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
