// SPDX-License-Identifier: Apache-2.0
/* What an answer means: headers before the body, and how a part ended: redirects, refusals, retries. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "transfer_internal.h"

#define MAX_BAD_ANSWERS 3
#define MAX_RESOLVES 4
#define MAX_REFUSALS 64	/* 401s of one blob without a good answer; all its connections may see one expiry */

/* --- headers --- */

/* Lock held. The server sends everything although a range was asked for: keep this one stream, from byte 0. */
static bool take_whole(struct transfer *t, struct part *p)
{
	struct item *it = p->it;

	if (it->mode == MODE_STREAM || p->server != it->server)
		return false; /* a sibling was first */
	if (it->mode == MODE_RANGES && !it->bad_answers) {
		/* it knew ranges: one such answer of a cache on the way is not worth sending all of it again */
		p->result = RESULT_BAD;
		return false;
	}
	item_cancel_parts(t, it, p);
	it->mode = MODE_STREAM;
	p->ranged = false;
	p->start = 0;
	atomic_store(&p->pos, 0);
	atomic_store(&p->end, it->in->size);
	return true;
}

/*
 * The answer is exactly the range that was asked for. Dragonfly's dfdaemon before 1.3.9 says 200 where it means 206
 * (dragonflyoss/client#1874): from a mirror that counts when range and length leave no doubt.
 */
static bool is_partial(const struct transfer *t, const struct part *p)
{
	const struct content_range *r = &p->content_range;

	if (!p->ranged || !p->has_range_header || r->start != p->start || r->end != p->asked_end - 1 ||
	    r->total != p->it->in->size)
		return false;
	return p->status == 206 || (server_gives_way(t, p->server) && p->content_length == p->asked_end - p->start);
}

bool transfer_headers_ok(struct transfer *t, struct part *p)
{
	struct item *it = p->it;
	bool partial = is_partial(t, p), ok;
	uint64_t want = partial ? p->asked_end - p->start : it->in->size;

	p->result = RESULT_BAD;
	if (p->encoded || (p->status == 206 && !partial))
		return false;
	if (p->content_length != UINT64_MAX && p->content_length != want)
		return false;
	/* a mirror's 200 with the range of something else: who knows what it sends */
	const struct content_range *r = &p->content_range;
	if (p->has_range_header && !partial && server_gives_way(t, p->server) && (r->start || r->end != it->in->size - 1))
		return false;
	p->result = RESULT_CANCELLED;
	pthread_mutex_lock(&t->lock);
	if (partial) {
		ok = true;
		/* a late answer from where the blob was before says nothing about where it is asked for now */
		if (it->mode == MODE_PROBING && p->probe)
			it->mode = MODE_RANGES;
	} else {
		ok = p->ranged ? take_whole(t, p) : true;
	}
	p->probe = false;
	if (ok && p->round == it->round)
		it->from |= (uint32_t)1 << p->server;
	if (p->server == it->server)
		it->hops = it->resolves = it->refusals = 0;
	pthread_mutex_unlock(&t->lock);
	if (ok)
		p->result = RESULT_NONE;
	if (partial)
		transfer_wake(t);
	return ok;
}

/* --- endings --- */

enum next_step {
	NEXT_AGAIN,
	NEXT_WAIT,
	NEXT_FAIL,
	NEXT_SERVER,		/* the mirror is in trouble */
	NEXT_MISS,		/* it lacks the blob */
};

static void forget_target(struct item *it)
{
	free(it->target);
	it->target = NULL;
	if (it->mode == MODE_RANGES)
		it->mode = MODE_UNKNOWN; /* one request finds the new place, the others wait for it */
}

/* Lock held. False: another connection was sent elsewhere since, so this answer leads nowhere new. */
static bool is_current(const struct part *p)
{
	return p->server == p->it->server && strcmp(p->url, p->it->target ? p->it->target : p->it->url) == 0;
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
	bool loop = false;
	if (is_current(p)) {
		char *old = p->it->target;
		p->it->target = target;
		p->it->target_host = host_of(t, target);
		target = old;
		loop = ++p->it->hops > LIMIT_REDIRECTS;
	}
	pthread_mutex_unlock(&t->lock);
	free(target);
	if (!loop)
		return NEXT_AGAIN;
	err_set(e, CODE_NETWORK, "%s: more than %d redirects", what, LIMIT_REDIRECTS);
	return NEXT_FAIL;
}

/*
 * Who is asked too often does not always say 429: GHCR answers many small requests with 403, others put TOOMANYREQUESTS, the code
 * of the distribution spec, under another status.
 */
static bool limits_rate(const struct part *p)
{
	static const char *const words[] = { "TOOMANYREQUESTS", "TOO_MANY_REQUESTS", "rate limit" };

	if (p->status == 429 || p->status == 503)
		return true;
	if (p->status == 403 && http_response_header(&p->resp, "Retry-After", 0))
		return true;
	for (size_t i = 0; p->status != 401 && p->resp.body.len && i < ARRAY_SIZE(words); i++)
		if (strcasestr(buf_cstr(&p->resp.body), words[i]))
			return true;
	return false;
}

/* What one connection is told holds for all: fewer of them, and none to that host before it wants to be asked again. */
static enum next_step after_overload(struct transfer *t, struct part *p, struct err *e)
{
	const char *after = http_response_header(&p->resp, "Retry-After", 0);
	uint64_t now = sys_now_ms();

	e->retry_after_ms = http_retry_after_ms(after, time(NULL));
	if (limits_rate(p)) {
		pthread_mutex_lock(&t->lock);
		plan_control_overload(&t->control, now);
		atomic_store(&t->target, t->control.target);
		p->host->not_before_ms = MAX(p->host->not_before_ms, now + e->retry_after_ms);
		pthread_mutex_unlock(&t->lock);
	}
	return NEXT_WAIT;
}

/* The registry's words stay, but nothing is wrong with the credentials. */
static void rate_error(const struct part *p, const char *what, struct err *e)
{
	const char *from = strchr(e->msg + MIN(strlen(what), strlen(e->msg)), '('), *to = from ? strrchr(from, ')') : NULL;
	char words[520] = "";

	if (to)
		snprintf(words, sizeof(words), " %.*s", (int)MIN(to - from + 1, (ptrdiff_t)512), from);
	err_set(e, CODE_NETWORK, "%s: the server limits how often it may be asked, %ld%s", what, p->status, words);
	e->http_status = (int)p->status;
	e->retryable = true;
}

/* The origin wants other credentials: true = ask again with what there is now. */
static bool after_challenge(struct transfer *t, struct part *p, struct err *e)
{
	const struct http_authority *a = part_server(t, p)->authority;

	p->resp.with_credentials = p->with_credentials;
	pthread_mutex_lock(&t->lock);
	bool again = ++p->it->refusals <= MAX_REFUSALS;
	pthread_mutex_unlock(&t->lock);
	return again && a->challenged(a->ctx, &p->resp, p->generation, e) == 0;
}

/*
 * A signed URL that ran out, or was made for somebody else: the server that gave it is asked for a new one. Returns how often in a
 * row that was so; 0 = somebody found out, and perhaps the new place, already.
 */
static unsigned target_refused(struct transfer *t, struct part *p)
{
	pthread_mutex_lock(&t->lock);
	bool mine = is_current(p);
	unsigned tries = mine ? ++p->it->resolves : 0;
	if (mine)
		forget_target(p->it);
	pthread_mutex_unlock(&t->lock);
	return tries;
}

static bool refuses_target(const struct part *p)
{
	long s = p->status;

	/* redirected: it may be on the server's own host */
	return p->redirected && (s == 400 || s == 401 || s == 403 || s == 404 || s == 410);
}

static enum next_step after_status(struct transfer *t, struct part *p, struct err *e)
{
	_cleanup_buf_ struct buf credentials = BUF_INIT(512);
	const struct http_authority *a = p->at_origin ? part_server(t, p)->authority : NULL;
	struct item *it = p->it;
	long s = p->status;
	char what[512];

	http_redacted(p->url, what, sizeof(what));
	if (a && a->describe)
		a->describe(a->ctx, &credentials);
	http_answer_error(s, &p->resp, what, buf_cstr(&credentials), e);
	if (s == 401 && p->at_origin && part_server(t, p)->authority)
		return after_challenge(t, p, e) ? NEXT_AGAIN : NEXT_FAIL;
	if (http_status_retryable(s))
		return after_overload(t, p, e);
	if (limits_rate(p)) {
		if (!e->retryable)
			rate_error(p, what, e);
		return after_overload(t, p, e);
	}
	if (refuses_target(p)) {
		unsigned tries = target_refused(t, p);
		return tries > MAX_RESOLVES ? NEXT_FAIL : tries > 1 ? NEXT_WAIT : NEXT_AGAIN;
	}
	if (!p->ranged || (s != 400 && s != 405 && s != 406 && s != 416 && s != 501))
		return NEXT_FAIL;
	pthread_mutex_lock(&t->lock);
	it->no_range = true; /* siblings that were asked before may say the same: no new requests come of them */
	pthread_mutex_unlock(&t->lock);
	return NEXT_AGAIN;
}

/* Lock held. Connections that were under way together fail together: that is one failure. */
static bool is_news(const struct part *p)
{
	return p->claimed_ms > p->it->failed_ms;
}

static void bad_answer_error(const struct part *p, const char *what, struct err *e)
{
	err_set(e, CODE_INTEGRITY, "%s: the answer does not fit the request (status %ld, %llu bytes of %llu)",
		what, p->status,
		p->content_length == UINT64_MAX ? 0ULL : (unsigned long long)p->content_length,
		(unsigned long long)p->it->in->size);
	e->retryable = true;
}

static enum next_step after_bad_answer(struct transfer *t, struct part *p, struct err *e)
{
	struct item *it = p->it;
	char what[512];

	http_redacted(p->url, what, sizeof(what));
	bad_answer_error(p, what, e);
	pthread_mutex_lock(&t->lock);
	it->bad_answers += is_news(p);
	/* who gave ranges before gets a second chance: without them everything would be sent again */
	if (p->ranged && (it->mode != MODE_RANGES || it->bad_answers > 1))
		it->no_range = true;
	bool enough = it->bad_answers > MAX_BAD_ANSWERS;
	pthread_mutex_unlock(&t->lock);
	return enough ? NEXT_FAIL : NEXT_WAIT;
}

static enum next_step stall_error(const struct transfer *t, const struct part *p, const char *what, struct err *e)
{
	if (p->crawls)
		err_set(e, CODE_DEADLINE, "%s: the server brings %llu bytes/s in all, less than %s", what, (unsigned long long)p->crawls,
			server_gives_way(t, p->server) ? "--mirror-speed-limit" : "a mirror did");
	else if (p->slow)
		err_set(e, CODE_DEADLINE, "%s: the connection stalled, it brought less than %llu bytes/s", what,
			(unsigned long long)t->o->speed_limit);
	else
		err_set(e, CODE_DEADLINE, "%s: the connection stalled", what);
	e->retryable = true;
	return NEXT_WAIT;
}

/* --- a mirror's endings: no patience, since the next server can be asked at once --- */

static enum next_step after_mirror_status(struct transfer *t, struct part *p, const char *what, struct err *e)
{
	const struct blob_server *s = part_server(t, p);
	const char *type = http_response_header(&p->resp, "X-Dragonfly-Error-Type", 0);
	bool known = type && (!strcmp(type, "backend") || !strcmp(type, "proxy") || !strcmp(type, "dfdaemon"));

	http_status_error(p->status, what, &p->resp.body, e);
	if (known)
		err_wrap(e, "Dragonfly's %s is in trouble", type);
	/* what a mirror that asks for us says of the registry's credentials must not name a place to send them to */
	if (p->status == 401 && p->at_origin && s->authority && !s->on_behalf && after_challenge(t, p, e))
		return NEXT_AGAIN;
	if (refuses_target(p) && target_refused(t, p) <= 1)
		return NEXT_AGAIN;
	return p->status == 404 || p->status == 410 ? NEXT_MISS : NEXT_SERVER;
}

static enum next_step judge_mirror(struct transfer *t, struct part *p, CURLcode rc, struct err *e)
{
	char what[512];

	http_redacted(p->url ? p->url : "", what, sizeof(what));
	switch (p->result) {
	case RESULT_CANCELLED:
		return NEXT_AGAIN;
	case RESULT_LOCAL:
		*e = p->err;
		return e->retryable ? NEXT_WAIT : NEXT_FAIL;
	case RESULT_AUTH:
		*e = p->err;
		return NEXT_SERVER;
	case RESULT_REDIRECT:
		return after_redirect(t, p, e) == NEXT_AGAIN ? NEXT_AGAIN : NEXT_SERVER;
	case RESULT_STATUS:
		return after_mirror_status(t, p, what, e);
	case RESULT_BAD:
		bad_answer_error(p, what, e);
		return NEXT_SERVER;
	case RESULT_STALLED:
		(void)stall_error(t, p, what, e);
		return NEXT_SERVER;
	case RESULT_NONE:
		break;
	}
	if (rc == CURLE_OK)
		err_set(e, CODE_NETWORK, "%s: the body ended early", what);
	else
		http_curl_error(p->http, p->c, rc, p->errbuf, what, e);
	return rc == CURLE_OUT_OF_MEMORY ? NEXT_FAIL : NEXT_SERVER;
}

/* What the end of a part that did not bring all its bytes means. */
static enum next_step judge(struct transfer *t, struct part *p, CURLcode rc, struct err *e)
{
	char what[512];

	if (server_gives_way(t, p->server))
		return judge_mirror(t, p, rc, e);
	http_redacted(p->url ? p->url : "", what, sizeof(what));
	switch (p->result) {
	case RESULT_CANCELLED:
		return NEXT_AGAIN;
	case RESULT_LOCAL:
	case RESULT_AUTH:
		*e = p->err;
		return e->retryable ? NEXT_WAIT : NEXT_FAIL;
	case RESULT_REDIRECT:
		return after_redirect(t, p, e);
	case RESULT_STATUS:
		return after_status(t, p, e);
	case RESULT_BAD:
		return after_bad_answer(t, p, e);
	case RESULT_STALLED:
		return stall_error(t, p, what, e);
	case RESULT_NONE:
		break;
	}
	if (rc == CURLE_OK) {
		err_set(e, CODE_NETWORK, "%s: the body ended early", what);
		e->retryable = true;
		return NEXT_WAIT;
	}
	http_curl_error(p->http, p->c, rc, p->errbuf, what, e);
	/* no HTTP at all, from a server that spoke it before: something on the way hiccups */
	if (rc == CURLE_UNSUPPORTED_PROTOCOL || rc == CURLE_WEIRD_SERVER_REPLY) {
		pthread_mutex_lock(&t->lock);
		p->it->bad_answers += is_news(p);
		e->retryable = p->it->bad_answers <= MAX_BAD_ANSWERS;
		pthread_mutex_unlock(&t->lock);
	}
	return e->retryable ? NEXT_WAIT : NEXT_FAIL;
}

/* Lock held. Bytes are free again, but for those that came: a twin or the part that shared the tail may have brought them. */
static void free_bytes(struct item *it, uint64_t from, uint64_t to)
{
	struct span gap;

	for (uint64_t at = from; at < to && item_gap(it, at, &gap) && gap.start < to; at = gap.end)
		(void)spans_remove(&it->taken, gap.start, MIN(gap.end, to));
}

/* Lock held. The part's undone bytes are free again, unless its twin is at them. Returns a blob to close. */
static struct blob *give_back(struct part *p)
{
	struct item *it = p->it;
	uint64_t pos = atomic_load(&p->pos), end = atomic_load(&p->end);
	struct part *twin = p->twin;

	if (twin) {
		twin->twin = NULL;
		if (pos >= end)
			atomic_store(&twin->cancel, true);
	} else if (pos < end && p->ranged && p->round == it->round) {
		free_bytes(it, pos, end);
	}
	it->n_parts--;
	p->it = NULL;
	p->twin = NULL;
	if (it->mode == MODE_PROBING && p->probe)
		it->mode = MODE_UNKNOWN;
	if (it->mode == MODE_STREAM && it->n_parts == 0)
		it->mode = MODE_UNKNOWN;
	if (it->n_parts == 0 && item_in_use(it)) {
		/* nothing is under way: what is taken is what came, also where memory was short above */
		struct span gap;
		spans_clear(&it->taken);
		for (uint64_t at = 0; at < it->in->size; at = gap.end) {
			if (!item_gap(it, at, &gap))
				gap = (struct span){ it->in->size, it->in->size };
			(void)spans_add(&it->taken, at, gap.start);
		}
	}
	return item_drop_ref(p->lane->t, it);
}

/* Lock held. */
static void schedule_retry(struct transfer *t, struct part *p, const struct err *e, char *line, size_t n)
{
	struct item *it = p->it;

	it->attempt = p->progressed ? 0 : it->attempt + is_news(p);
	it->failed_ms = sys_now_ms();
	uint32_t wait = http_backoff_ms(it->attempt, e->retry_after_ms);
	it->not_before_ms = sys_now_ms() + wait;
	t->last = *e;
	t->last_ms = sys_now_ms();
	atomic_fetch_add(&t->stats->retries, 1);
	snprintf(line, n, "%s; trying again in %u ms", e->msg, wait);
}

static void tell_accepted(const struct part *p)
{
	const struct blob_server *s = part_server(p->lane->t, p);
	const struct http_authority *a = s->authority;

	if (p->at_origin && p->with_credentials && !s->on_behalf && p->status && p->status != 401 && a->accepted)
		a->accepted(a->ctx, p->generation);
}

void transfer_part_ended(struct transfer *t, struct part *p, CURLcode rc)
{
	struct item *it = p->it;
	struct err e = { 0 };
	enum next_step next = NEXT_AGAIN;
	bool body = p->state == PART_BODY && p->result != RESULT_LOCAL;
	bool complete = body && atomic_load(&p->pos) >= atomic_load(&p->end), tell = false;
	char line[1400];

	tell_accepted(p);
	if (!complete && !atomic_load(&t->over) && !atomic_load(&p->cancel))
		next = judge(t, p, rc, &e);
	else if (p->result == RESULT_LOCAL && !e.code)
		e = p->err, next = NEXT_FAIL;
	pthread_mutex_lock(&t->lock);
	if ((next == NEXT_WAIT || next == NEXT_FAIL) && p->result != RESULT_LOCAL &&
	    item_go_back(t, p, next == NEXT_FAIL, &e, line, sizeof(line))) {
		next = NEXT_AGAIN;
		tell = *line;
	}
	if (next == NEXT_WAIT) {
		schedule_retry(t, p, &e, line, sizeof(line));
		tell = true;
	}
	if (complete)
		it->attempt = 0;
	if (next == NEXT_FAIL && it->state == ITEM_ACTIVE)
		transfer_fail_locked(t, &e);
	if (next == NEXT_SERVER || next == NEXT_MISS)
		tell = item_give_way(t, p, next == NEXT_MISS, &e, line, sizeof(line));
	struct blob *closing = give_back(p);
	pthread_mutex_unlock(&t->lock);
	if (tell && t->o->warn)
		t->o->warn(t->o->arg, line);
	else if (next == NEXT_SERVER || next == NEXT_MISS)
		http_trace(p->http, "%s; the next server is asked", e.msg);
	item_close(it, closing);
	if (complete)
		transfer_try_finish(t, it, false);
	transfer_wake(t);
}
