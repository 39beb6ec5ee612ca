// SPDX-License-Identifier: Apache-2.0
/* A stream: a window of the layer in memory, and the thread that hashes it in order and gives it to its consumer. */
#include <stdlib.h>
#include <string.h>

#include "transfer_internal.h"

#define STATES 8	/* hash states that are kept: a checkpoint may lie some pieces back */
#define WAKES 8		/* per window: how often the lanes hear that there is room */

struct stream {
	struct transfer *t;
	struct item *it;
	const struct transfer_stream *in;
	struct window *w;
	pthread_t thread;
	bool running;
	/* the rest is the consumer's thread's */
	struct unpack_source source;
	struct hasher hasher;
	uint64_t hashed, told;	/* told: bytes given back when the lanes were woken last */
	const void *piece;	/* that run works on; hashed when it comes back */
	size_t piece_n;
	struct {
		uint64_t at;
		uint8_t state[HASHER_STATE_MAX];
	} past[STATES];
	uint64_t n_past;	/* the newest is past[(n_past - 1) % STATES] */
	bool failed;		/* run did, and err says how */
	struct err err;
	bool again;		/* reset: one more round */
	struct err why;		/* of the stop; set once, before the window is stopped */
	atomic_bool stopped;
};

/* --- the source --- */

/* The state before the piece that is handed out next: a resumed run is given that piece again. */
static void keep_state(struct stream *s)
{
	size_t i = s->n_past++ % STATES;

	s->past[i].at = hasher_export(&s->hasher, s->past[i].state);
}

/* Only now is the piece hashed: the states that are known never pass what run has seen whole. */
static void take_back(struct stream *s)
{
	if (!s->piece)
		return;
	hasher_update(&s->hasher, s->piece, s->piece_n);
	s->hashed += s->piece_n;
	s->piece = NULL;
	window_give_back(s->w);
	if (s->hashed - s->told >= s->it->window / WAKES) {
		s->told = s->hashed;
		transfer_wake(s->t);
	}
}

static int on_read(void *arg, const void **ret, size_t *ret_n, struct err *e)
{
	struct stream *s = arg;

	take_back(s);
	int rc = window_take(s->w, &s->piece, &s->piece_n);
	if (rc < 0) {
		if (e)
			*e = s->why;
		return -1;
	}
	if (rc == 0) {
		s->piece = NULL;
		s->piece_n = 0;
	} else {
		keep_state(s);
	}
	*ret = s->piece;
	*ret_n = s->piece_n;
	return 0;
}

int transfer_stream_state(const struct unpack_source *src, uint64_t offset, uint64_t *ret_hashed_at,
			  uint8_t ret_state[static HASHER_STATE_MAX])
{
	const struct stream *s = src->arg;

	for (uint64_t i = s->n_past; i > 0 && s->n_past - i < STATES; i--) {
		size_t at = (i - 1) % STATES;
		if (s->past[at].at > offset)
			continue;
		*ret_hashed_at = s->past[at].at;
		memcpy(ret_state, s->past[at].state, HASHER_STATE_MAX);
		return 0;
	}
	return -1;
}

/* --- the consumer --- */

static bool is_about_bytes(enum code c)
{
	return c == CODE_INTEGRITY || c == CODE_UNSAFE || c == CODE_UNSUPPORTED;
}

/* One time through the layer. */
static void consume(struct stream *s)
{
	struct err e = { 0 };
	const void *p;
	size_t n;

	int rc = s->in->run(s->in->arg, &s->source, &e);
	s->failed = rc != 0;
	if (s->failed) {
		if (!e.code)
			err_set(&e, CODE_INTERNAL, "the consumer failed without an error");
		s->err = e;
		if (rc > 0 || !is_about_bytes(e.code))
			return;
	}
	/* the digest is over all of it, and says whether what run did not like is what was sent */
	while (on_read(s, &p, &n, NULL) == 0 && n)
		;
}

static void *stream_main(void *arg)
{
	struct stream *s = arg;

	do {
		s->again = false;
		consume(s);
		if (atomic_load(&s->stopped))
			break;
		transfer_try_finish(s->t, s->it, true);
	} while (s->again);
	return NULL;
}

/* --- life --- */

static int begin(struct stream *s, uint64_t *ret_at, struct err *e)
{
	const struct transfer_item *in = s->it->in;
	uint8_t state[HASHER_STATE_MAX] = { 0 };
	uint64_t at = 0, block = in->digest.alg == DIGEST_SHA512 ? 128 : 64;

	if (s->in->start && s->in->start(s->in->arg, &at, state, e))
		return -1;
	if (at > in->size || at % block)
		return err_set(e, CODE_INTERNAL, "a stream cannot start at byte %llu",
			       (unsigned long long)at);
	if (at)
		hasher_import(&s->hasher, in->digest.alg, at, state);
	else
		hasher_init(&s->hasher, in->digest.alg);
	s->hashed = s->told = *ret_at = at;
	return 0;
}

int stream_open(struct stream **ret, struct transfer *t, struct item *it, struct err *e)
{
	struct stream *s = calloc(1, sizeof(*s));
	uint64_t at = 0;

	if (!s)
		return err_oom(e);
	s->t = t;
	s->it = it;
	s->in = it->in->stream;
	s->source = (struct unpack_source){ .read = on_read, .arg = s };
	if (begin(s, &at, e) || window_new(&s->w, at, it->in->size, it->window, e)) {
		free(s);
		return -1;
	}
	*ret = s;
	return 0;
}

int stream_start(struct stream *s, struct err *e)
{
	int rc = pthread_create(&s->thread, NULL, stream_main, s);

	if (rc)
		return err_errno(e, CODE_INTERNAL, rc, "cannot start a thread");
	s->running = true;
	return 0;
}

void stream_stop(struct stream *s, const struct err *why)
{
	if (atomic_exchange(&s->stopped, true))
		return;
	s->why = *why;
	window_stop(s->w);
}

void stream_close(struct stream *s)
{
	struct err over;

	if (!s)
		return;
	err_set(&over, CODE_NETWORK, "the transfer is over");
	stream_stop(s, &over);
	if (s->running)
		pthread_join(s->thread, NULL);
	window_free(s->w);
	free(s);
}

struct window *stream_window(struct stream *s)
{
	return s->w;
}

int stream_verdict(struct stream *s, bool *ret_wrong, struct err *e)
{
	const struct transfer_item *in = s->it->in;
	struct digest computed;

	if (s->hashed == in->size) {
		struct hasher h = s->hasher;
		hasher_final(&h, &computed);
		*ret_wrong = !digest_equal(&in->digest, &computed);
		if (*ret_wrong) {
			char want[DIGEST_STR_MAX], got[DIGEST_STR_MAX];
			return err_set(e, CODE_INTEGRITY, "blob %s: the bytes received hash to %s",
				       digest_format(&in->digest, ':', want),
				       digest_format(&computed, ':', got));
		}
	}
	if (s->failed) {
		*e = s->err;
		return -1;
	}
	return s->hashed == in->size;
}

int stream_discard(struct stream *s, struct err *e)
{
	return s->in->again ? s->in->again(s->in->arg, e) : 0;
}

int stream_reset(struct stream *s, struct err *e)
{
	s->hashed = s->told = s->n_past = 0;
	hasher_init(&s->hasher, s->it->in->digest.alg);
	window_reset(s->w);
	int failed = stream_discard(s, e);
	s->again = !failed;
	return failed;
}
