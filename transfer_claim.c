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
#define JUDGED_BYTES (256 * KIB)	/* before that or HEDGE_IDLE_MS nothing is said about a range's speed */
#define HANGS_MS (60 * 1000)	/* what would need longer counts as not moving */

/* Lock held. How far ahead of the hash a file's ranges may be asked for: bounds what is read back from the page cache. */
static uint64_t read_back_window(const struct transfer *t)
{
	uint64_t w = 2 * MAX(t->range_size, ALONE_RANGE) * atomic_load(&t->target);

	return MIN(MAX(w, 64 * MIB), 1024 * MIB);
}

/* Lock held. */
static size_t n_waiting(const struct transfer *t)
{
	return t->files.end - t->files.next + (t->streams.end - t->streams.next);
}

/* Lock held. Bytes of all items that nobody was asked for yet, roughly: enough to size the last ranges. */
static uint64_t unclaimed(const struct transfer *t)
{
	uint64_t sum = 0;

	for (size_t i = t->files.next; i < t->files.end && sum < 4 * GIB; i++)
		sum += t->items[i].in->size;
	for (size_t i = t->streams.next; i < t->streams.end && sum < 4 * GIB; i++)
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
	bool alone = t->n_active + n_waiting(t) < t->n_lanes;
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

/*
 * Lock held. How much of the gap to ask for now; 0 = it is too far ahead. A stream's ranges lie inside its window, several of them:
 * only the first one's bytes can be consumed, and the others must have somewhere to go meanwhile. Where the consumer is what is
 * slow, the window would fill with many small ones.
 */
static uint64_t length_of_next(const struct transfer *t, const struct item *it, const struct span *gap)
{
	uint64_t len = MIN(range_length(t), gap->end - gap->start);

	if (!it->stream)
		return gap->start > blob_frontier(it->blob) + read_back_window(t) ? 0 : len;
	uint64_t most = MAX(it->window / 4 & ~(uint64_t)0xffff, MIB), limit = window_limit(stream_window(it->stream));
	/* whole ranges: a short one whenever a little room appeared would be many */
	if (gap->start + MIN(len, most) > limit)
		return 0;
	if (t->o->range_size || it->n_parts || limit - gap->start > it->window / 2)
		return MIN(len, most);
	/* nobody fetches, and half of the window waits for the consumer: one connection, paused now and then, brings more than it takes */
	return MIN(gap->end - gap->start, MAX_RANGE);
}

/*
 * Lock held. For a peer-to-peer proxy, which cuts blobs by itself, and leaves its peers aside for what is small: one request at a time
 * for as much as one can name.
 */
static bool next_of_whole(struct item *it, struct span *ret, bool *ret_ranged)
{
	*ret_ranged = it->taken.n > 0;
	*ret = (struct span){ 0, it->in->size };
	return it->n_parts == 0 && (!*ret_ranged || spans_gap(&it->taken, 0, it->in->size, ret));
}

/* Lock held. The item goes on at another server if its own has become bad; a whole body that still comes is worth waiting for. */
static bool seek_server(struct transfer *t, struct item *it)
{
	struct err e;

	if (!atomic_load(&item_server(t, it)->bad) || (it->mode == MODE_STREAM && it->n_parts))
		return true;
	if (!item_seek_server(t, it, &e))
		return true;
	transfer_fail_locked(t, &e);
	return false;
}

/* Lock held. The next range of an item, or false. */
static bool next_span(struct transfer *t, struct item *it, struct span *ret, bool *ret_ranged)
{
	struct span gap;

	if (!item_in_use(it) || !seek_server(t, it) || it->mode == MODE_PROBING)
		return false;
	if (item_server(t, it)->whole && server_gives_way(t, it->server))
		return next_of_whole(it, ret, ret_ranged);
	/* a small blob is one plain request; only the rest of a broken one is asked for by range */
	bool whole = item_is_small(t, it) && it->taken.n == 0;
	if (whole || it->no_range || it->again || it->mode == MODE_STREAM) {
		*ret = (struct span){ 0, it->in->size };
		*ret_ranged = false;
		return it->n_parts == 0 && item_gap(it, 0, &gap);
	}
	if (!spans_gap(&it->taken, 0, it->in->size, &gap))
		return false;
	uint64_t len = length_of_next(t, it, &gap);
	*ret = (struct span){ gap.start, gap.start + len };
	*ret_ranged = true;
	return len > 0;
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
		if (it->not_before_ms > now || !next_span(t, it, &s, &ranged) ||
		    !host_has_room(t, l, item_host(t, it), now))
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

/* Lock held. What a new window may take: an equal share with those that will be beside it. */
static size_t window_size(const struct transfer *t, const struct item *it)
{
	uint64_t left = t->window_budget - MIN(t->window_budget, t->window_bytes);
	uint64_t beside = MIN((uint64_t)(t->max_streams - t->n_streams), t->streams.end - t->streams.next);
	uint64_t share = MIN(MAX(left / beside, WINDOW_MIN), WINDOW_MAX);

	/* streams come smallest first: what a small one does not need is left for the others */
	return (size_t)((MIN(share, it->in->size) + 0xffff) & ~(uint64_t)0xffff);
}

/* Lock held. The smallest item that waits and may be opened now, or NULL. */
static struct item *next_waiting(struct transfer *t)
{
	bool files = t->files.next < t->files.end;
	bool streams = t->streams.next < t->streams.end && t->n_streams < t->max_streams;

	if (t->n_active >= t->max_connections + t->n_lanes)
		return NULL;
	struct item *f = files ? &t->items[t->files.next] : NULL;
	struct item *s = streams ? &t->items[t->streams.next] : NULL;
	if (s && (!f || s->in->size < f->in->size)) {
		s->window = window_size(t, s);
		t->window_bytes += s->window;
		t->n_streams++;
		t->streams.next++;
		return s;
	}
	t->files.next += files;
	return f;
}

/* Lock held, dropped meanwhile. Opens the next waiting item. false = none, or failed (then t is over). */
static bool open_next(struct transfer *t, const struct lane *l, uint64_t now)
{
	struct err e = { 0 };

	if (!host_has_room(t, l, first_host(t), now))
		return false;

	if (t->ended) { /* their windows may be what the next one waits for */
		pthread_mutex_unlock(&t->lock);
		item_reap(t);
		pthread_mutex_lock(&t->lock);
	}
	struct item *it = next_waiting(t);
	if (!it)
		return false;
	it->state = ITEM_ACTIVE;
	it->opening = true;
	it->refs = 1;
	it->next_active = t->active;
	t->active = it;
	t->n_active++;
	pthread_mutex_unlock(&t->lock);

	int failed = item_open(t, it, &e);

	pthread_mutex_lock(&t->lock);
	if (failed || item_opened(t, it, &e) || item_seek_server(t, it, &e)) {
		item_leave_active(t, it);
		it->refs = 0;
		transfer_fail_locked(t, &e);
		return false;
	}
	/* an earlier run ended between hashing and publishing: no part will end, no slice be hashed */
	if (item_complete(it)) {
		pthread_mutex_unlock(&t->lock);
		transfer_try_finish(t, it, false);
		pthread_mutex_lock(&t->lock);
	}
	return true;
}

/* Lock held. */
static bool assign(struct transfer *t, struct part *p, struct item *it, const struct span *s,
		   bool ranged)
{
	p->url = strdup(it->target ? it->target : it->url);
	if (!p->url || (ranged && spans_add(&it->taken, s->start, s->end))) {
		struct err e;
		err_oom(&e);
		transfer_fail_locked(t, &e);
		return false;
	}
	p->it = it;
	p->server = it->server;
	p->host = item_host(t, it);
	p->redirected = it->target;
	p->ranged = ranged;
	p->round = it->round;
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
	if (item_waits_for(v->it, v, now - HEDGE_IDLE_MS))
		return UINT64_MAX; /* not a byte for so long, and nothing else can go on */
	uint64_t pos = atomic_load(&v->pos), end = atomic_load(&v->end);
	uint64_t ran = now - v->claimed_ms, got = pos - v->start;

	if (pos >= end)
		return 0;
	if (got == 0 || ran == 0)
		return ran > HEDGE_IDLE_MS ? UINT64_MAX : 0;
	/* what comes with the headers took as long as they did: a range on its first packet would look like one that crawls */
	if (got < JUDGED_BYTES && ran <= HEDGE_IDLE_MS)
		return 0;
	return (end - pos) * ran / got;
}

/* Lock held. Does its range reach beyond the window? */
static bool is_long(const struct part *v)
{
	return v->it->stream && atomic_load(&v->end) > window_limit(stream_window(v->it->stream));
}

static bool can_share(const struct part *v)
{
	return v->it && v->ranged && !v->twin && !atomic_load(&v->cancel) && v->server == v->it->server &&
	       v->it->state == ITEM_ACTIVE && v->it->mode == MODE_RANGES &&
	       !(is_long(v) && item_consuming(v->it)); /* then nobody waits for it */
}

/*
 * Lock held. A range that moves is shared when nothing else of its item is left to ask for. Where only the window is full, that pays
 * when everybody waits for this one.
 */
static bool worth_a_split(struct item *it)
{
	struct span gap;

	return !it->stream || !spans_gap(&it->taken, 0, it->in->size, &gap) ||
	       (it->n_parts == 1 && !item_consuming(it));
}

/* Lock held. The range that will be last, if it is worth a second connection. */
static struct part *slowest(struct transfer *t, uint64_t now, uint64_t *ret_eta)
{
	struct part *worst = NULL;
	uint64_t worst_eta = SPLIT_ETA_MS;

	for (unsigned l = 0; l < t->n_lanes; l++) {
		for (size_t i = 0; i < t->lanes[l].n_parts; i++) {
			struct part *v = &t->lanes[l].parts[i];
			if (!can_share(v) || (part_server(t, v)->whole && server_gives_way(t, v->server)))
				continue;
			uint64_t eta = eta_ms(v, now);
			if (eta > worst_eta && (eta >= HANGS_MS || worth_a_split(v->it))) {
				worst = v;
				worst_eta = eta;
			}
		}
	}
	*ret_eta = worst_eta;
	return worst;
}

/*
 * Lock held. The consumer waits for a range beyond its window: it ends inside, as the others do, and what is behind it is there to be
 * asked for.
 */
static bool cut_back(struct transfer *t, struct part *p, struct part *v)
{
	uint64_t cut = atomic_load(&v->pos) + v->it->window / 4, end = atomic_load(&v->end);
	struct span s;
	bool ranged;

	cut = (cut + 0xffff) & ~(uint64_t)0xffff;
	if (cut >= end || spans_remove(&v->it->taken, cut, end))
		return false;
	atomic_store(&v->end, cut);
	return next_span(t, v->it, &s, &ranged) && assign(t, p, v->it, &s, ranged);
}

/*
 * Lock held. Nothing is left to ask for: take the second half of the range that will be last, or, when it
 * hardly moves, ask for all of its rest again; the first complete answer wins.
 */
static bool share_tail(struct transfer *t, struct part *p, uint64_t now)
{
	uint64_t eta;

	if (transfer_throttled(t, now))
		return false; /* it is we who are slow */
	struct part *v = slowest(t, now, &eta);
	if (!v || v->it->not_before_ms > now || !host_has_room(t, p->lane, item_host(t, v->it), now))
		return false;
	uint64_t pos = atomic_load(&v->pos), end = atomic_load(&v->end);
	bool moves = eta < HANGS_MS;
	if (is_long(v))
		return cut_back(t, p, v);
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
	while (!atomic_load(&t->over)) {
		/* as many blobs at once as can be hashed at once; more only when those have nothing to give */
		struct item *it = NULL;
		if (t->n_active >= MAX(t->n_lanes, 2u) || !n_waiting(t))
			it = pick_active(t, p->lane, now, &s, &ranged);
		if (it) {
			claimed = assign(t, p, it, &s, ranged);
			break;
		}
		if (open_next(t, p->lane, now))
			continue;
		it = pick_active(t, p->lane, now, &s, &ranged);
		claimed = it ? assign(t, p, it, &s, ranged) : share_tail(t, p, now);
		break;
	}
	pthread_mutex_unlock(&t->lock);
	return claimed;
}
