// SPDX-License-Identifier: Apache-2.0
/* Who fetches what next: ranges, windows, splits and hedges of the tail. */
#include <string.h>

#include "transfer_internal.h"

#define MIN_RANGE (4 * MIB)	/* the last ranges shrink to this, so that all connections end together */
#define ALONE_RANGE (32 * MIB)	/* most, where one blob is all there is to hash */
#define MAX_RANGE (256 * MIB)
#define MIN_SPLIT (2 * MIB)
#define SPLIT_ETA_MS 500	/* a range that needs longer is shared with an idle connection; what is in flight then is lost */
#define HEDGE_IDLE_MS 2000	/* a range without progress for so long is asked for twice */

/* Lock held. How far ahead of the hash ranges may be asked for: bounds what is read back from the page cache. */
static uint64_t window(const struct transfer *t)
{
	uint64_t w = 2 * MAX(t->range_size, ALONE_RANGE) * atomic_load(&t->target);

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

/*
 * Lock held. How much to ask for at once. A request costs the registry milliseconds (docker-registry allocates 4 MiB for
 * each), so a range should last about a second; a blob that is hashed alone wants its
 * ranges close together, and at the end all connections should finish at the same time.
 */
static uint64_t range_length(const struct transfer *t)
{
	uint64_t per_connection = t->rate / MAX(atomic_load(&t->target), 1u); /* bytes per second */
	bool alone = t->n_active + (t->n_items - t->next_waiting) < t->n_lanes;
	uint64_t most = t->range_size, least = MIN_RANGE;

	if (!t->o->range_size) {
		most = MAX(most, MIN(per_connection, alone ? ALONE_RANGE : MAX_RANGE));
		least = MIN(MAX(least, per_connection / 20), t->range_size);
	}
	uint64_t share = unclaimed(t) * 2 / (3 * (uint64_t)atomic_load(&t->target));
	uint64_t len = MIN(MAX(share, least), most);
	/* whole pages, so that pieces do not meet inside one */
	return MAX(len & ~(uint64_t)0xffff, (uint64_t)0x10000);
}

/* Lock held. The next range of an item, or false. */
static bool next_span(struct transfer *t, struct item *it, struct span *ret, bool *ret_ranged)
{
	struct span gap;

	if (it->opening || !it->blob || it->state != ITEM_ACTIVE || it->mode == MODE_PROBING)
		return false;
	/* a small blob is one plain request; only the rest of a broken one is asked for by range */
	bool whole = item_is_small(t, it) && it->taken.n == 0;
	if (whole || it->no_range || it->again || it->mode == MODE_STREAM) {
		*ret = (struct span){ 0, it->in->size };
		*ret_ranged = false;
		return it->n_parts == 0 && blob_gap(it->blob, 0, &gap);
	}
	if (!spans_gap(&it->taken, 0, it->in->size, &gap))
		return false;
	if (gap.start > blob_frontier(it->blob) + window(t))
		return false;
	*ret = (struct span){ gap.start, MIN(gap.end, gap.start + range_length(t)) };
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
	o.journal = o.journal && !item_is_small(t, it);
	int failed = blob_open(&b, t->o->partial_dirfd, &it->in->digest, it->in->size, &o, &e);
	struct span gap;
	uint64_t at = 0;

	pthread_mutex_lock(&t->lock);
	it->opening = false;
	it->blob = b;
	if (failed) {
		item_leave_active(t, it);
		it->refs = 0;
		transfer_fail_locked(t, &e);
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
	/* an earlier run ended between hashing and publishing: no part will end, no slice be hashed */
	if (blob_frontier(b) == it->in->size) {
		pthread_mutex_unlock(&t->lock);
		transfer_try_finish(t, it);
		pthread_mutex_lock(&t->lock);
	}
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
		transfer_fail_locked(t, &e);
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
	p->probe = ranged && it->mode == MODE_UNKNOWN;
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
