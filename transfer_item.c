// SPDX-License-Identifier: Apache-2.0
/* Where an item's bytes go: to a blob on disk, or through a stream. */
#include <stdlib.h>

#include "transfer_internal.h"

/* --- life --- */

int item_open(struct transfer *t, struct item *it, struct err *e)
{
	if (it->in->stream)
		return stream_open(&it->stream, t, it, e);
	struct blob_options o = t->o->blob;
	o.journal = o.journal && !item_is_small(t, it);
	return blob_open(&it->blob, t->o->partial_dirfd, &it->in->digest, it->in->size, &o, e);
}

int item_opened(struct transfer *t, struct item *it, struct err *e)
{
	struct span gap;
	uint64_t at = 0;

	it->opening = false;
	/* what an earlier run left is taken: all but the gaps */
	while (at < it->in->size) {
		if (!item_gap(it, at, &gap))
			gap = (struct span){ it->in->size, it->in->size };
		(void)spans_add(&it->taken, at, gap.start);
		at = gap.end;
	}
	atomic_fetch_add(&t->stats->done, item_done_bytes(it));
	return it->stream ? stream_start(it->stream, e) : 0;
}

bool item_in_use(const struct item *it)
{
	return it->state == ITEM_ACTIVE && !it->opening && (it->blob || it->stream);
}

struct blob *item_drop_ref(struct transfer *t, struct item *it)
{
	if (--it->refs)
		return NULL;
	if (it->stream) {
		it->next_ended = t->ended;
		t->ended = it;
	}
	return steal_ptr(&it->blob);
}

void item_close(const struct item *it, struct blob *b)
{
	if (b) /* then nobody else uses the item any more */
		blob_close(b, it->state != ITEM_DONE);
}

void item_reap(struct transfer *t)
{
	pthread_mutex_lock(&t->lock);
	while (t->ended) {
		struct item *it = t->ended;
		struct stream *s = steal_ptr(&it->stream);
		t->ended = it->next_ended;
		pthread_mutex_unlock(&t->lock);
		stream_close(s);
		pthread_mutex_lock(&t->lock);
		t->n_streams--;
		t->window_bytes -= it->window;
	}
	pthread_mutex_unlock(&t->lock);
}

void item_abandon(struct transfer *t, struct item *it)
{
	if (it->blob)
		blob_close(it->blob, !item_is_small(t, it));
	stream_close(it->stream);
	spans_release(&it->taken);
	free(it->target);
}

/* --- bytes --- */

int item_write(struct item *it, const struct part *p, const void *s, size_t n, uint64_t *ret_new, struct err *e)
{
	uint64_t pos = atomic_load(&p->pos);

	if (it->stream)
		return window_put(stream_window(it->stream), p->round, pos, s, n, ret_new, e);
	return blob_write(it->blob, pos, s, n, ret_new, e);
}

/* Half a window, so that a connection moves many bytes between two pauses. */
bool item_has_room(struct item *it, const struct part *p)
{
	if (!it->stream)
		return true;
	uint64_t pos = atomic_load(&p->pos), limit = window_limit(stream_window(it->stream));
	return limit >= it->in->size || (limit > pos && limit - pos >= it->window / 2);
}

bool item_gap(struct item *it, uint64_t from, struct span *ret)
{
	return it->stream ? window_gap(stream_window(it->stream), from, ret) : blob_gap(it->blob, from, ret);
}

uint64_t item_done_bytes(struct item *it)
{
	return it->stream ? window_put_bytes(stream_window(it->stream)) : blob_done_bytes(it->blob);
}

bool item_complete(struct item *it)
{
	return it->blob && blob_frontier(it->blob) == it->in->size;
}

uint64_t item_backlog(struct item *it)
{
	return it->blob ? blob_backlog(it->blob) : 0;
}

bool item_consuming(struct item *it)
{
	return it->stream && !window_starved_since(stream_window(it->stream));
}

bool item_waits_for(struct item *it, const struct part *p, uint64_t since_ms)
{
	struct span gap;

	if (!it->stream)
		return false;
	uint64_t since = window_starved_since(stream_window(it->stream));
	return since && since <= since_ms && item_gap(it, 0, &gap) && gap.start == atomic_load(&p->pos);
}

int item_verdict(struct item *it, bool *ret_wrong, struct err *e)
{
	if (it->stream)
		return stream_verdict(it->stream, ret_wrong, e);
	int verdict = blob_verdict(it->blob, e);
	*ret_wrong = verdict == -1 && e->code == CODE_INTEGRITY;
	return verdict;
}

int item_reset(struct item *it, struct err *e)
{
	return it->stream ? stream_reset(it->stream, e) : blob_reset(it->blob, e);
}

void item_discard(struct item *it)
{
	struct err ignored;

	if (it->stream)
		(void)stream_discard(it->stream, &ignored);
	else
		(void)blob_reset(it->blob, NULL);
}

int item_maintain(struct item *it, uint64_t now, struct err *e)
{
	return it->blob ? blob_maintain(it->blob, now, e) : 0;
}
