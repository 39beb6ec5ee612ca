// SPDX-License-Identifier: Apache-2.0
/* One thread's connections: requests, header judgement, bytes to the blob, stalls. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "transfer_internal.h"

#define RECEIVE_BUFFER (256 * KIB)	/* one per lane, shared by its connections */
#define POLL_MS 100
#define POLL_HUNGRY_MS 25		/* with room to spare: others may give work back */
#define CHECK_MS 250
#define HASH_ROUNDS 32			/* slices hashed between two looks at the sockets, at most */
#define LANE_STACK (512 * KIB)

/* --- response --- */

static int keep_header(struct part *p, struct str name, struct str value)
{
	struct http_response *r = &p->resp;
	struct http_header *v = realloc(r->headers, (r->n_headers + 1) * sizeof(*v));

	if (!v)
		return -1;
	r->headers = v;
	v[r->n_headers].name = strndup(name.p, name.n);
	v[r->n_headers].value = strndup(value.p, value.n);
	r->n_headers++;
	return v[r->n_headers - 1].name && v[r->n_headers - 1].value ? 0 : -1;
}

static void forget_response(struct part *p)
{
	http_response_release(&p->resp);
	buf_init(&p->resp.body, LIMIT_ERROR_BODY);
	p->status = 0;
	p->has_range_header = p->encoded = p->hit = false;
	p->content_length = UINT64_MAX;
	p->header_bytes = 0;
}

static int one_header(struct part *p, struct str name, struct str value)
{
	if (str_caseeq(name, "Content-Range")) {
		char text[128];
		snprintf(text, sizeof(text), "%.*s", (int)MIN(value.n, sizeof(text) - 1), value.p);
		/* two of them contradict each other at best */
		if (p->has_range_header || !http_parse_content_range(text, &p->content_range))
			p->content_range = (struct content_range){ 0 };
		p->has_range_header = true;
	} else if (str_caseeq(name, "Content-Length")) {
		if (!str_u64(value, &p->content_length))
			p->encoded = true; /* nonsense: treated as an unusable body */
	} else if (str_caseeq(name, "Content-Encoding")) {
		p->encoded = p->encoded || !str_caseeq(value, "identity");
	} else if (str_caseeq(name, "Content-Type")) {
		p->encoded = p->encoded || (value.n >= 20 &&
			     strncasecmp(value.p, "multipart/byteranges", 20) == 0);
	} else if (str_caseeq(name, "X-Dragonfly-Task-Download-Finished")) {
		p->hit = str_caseeq(value, "true");
	} else if (str_caseeq(name, "Location") || str_caseeq(name, "Retry-After") ||
		   str_caseeq(name, "WWW-Authenticate") || str_caseeq(name, "X-Dragonfly-Error-Type")) {
		return keep_header(p, name, value);
	}
	return 0;
}

/* From here on its speed is judged. */
static void begin_window(struct part *p, uint64_t now)
{
	p->window_ms = now;
	p->window_pos = atomic_load(&p->pos);
	p->window_total = atomic_load_explicit(&part_server(p->lane->t, p)->bytes, memory_order_relaxed);
}

/* The blank line: decides what happens with the body before a byte of it is seen. */
static int judge_headers(struct part *p)
{
	struct transfer *t = p->lane->t;

	if (p->status < 200)
		return 0; /* interim; the real one follows */
	p->resp.status = p->status;
	if (p->status == 200 || p->status == 206) {
		if (transfer_headers_ok(t, p)) {
			p->state = PART_BODY;
			begin_window(p, p->last_byte_ms);
			atomic_fetch_add(&part_server(t, p)->hits, p->hit);
			return 0;
		}
		return -1; /* p->result says why; the connection is closed, nothing of the body is read */
	}
	p->state = PART_DROP;
	bool redirect = p->status == 301 || p->status == 302 || p->status == 303 ||
			p->status == 307 || p->status == 308;
	p->result = redirect ? RESULT_REDIRECT : RESULT_STATUS;
	return 0;
}

static size_t on_header(char *s, size_t size, size_t nmemb, void *arg)
{
	struct part *p = arg;
	size_t n = size * nmemb;
	struct str line = { s, n };

	p->last_byte_ms = sys_now_ms();
	p->header_bytes += n;
	if (p->header_bytes > LIMIT_HEADERS) {
		p->result = RESULT_BAD;
		return 0;
	}
	while (line.n && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n'))
		line.n--;
	if (line.n >= 5 && memcmp(line.p, "HTTP/", 5) == 0) {
		forget_response(p);
		return n;
	}
	if (line.n == 0) {
		/* trailers of a chunked body come here, too, when the body is over */
		if (p->state != PART_SENT)
			return n;
		curl_easy_getinfo(p->c, CURLINFO_RESPONSE_CODE, &p->status);
		return judge_headers(p) ? 0 : n;
	}
	const char *colon = memchr(line.p, ':', line.n);
	if (!colon || p->state != PART_SENT)
		return n;
	struct str name = { line.p, (size_t)(colon - line.p) };
	struct str value = str_trim((struct str){ colon + 1, line.n - name.n - 1 });
	if (one_header(p, name, value)) {
		p->result = RESULT_LOCAL;
		err_oom(&p->err);
		return 0;
	}
	return n;
}

/* curl keeps the bytes and gives them again when the connection goes on. */
static size_t pause_part(struct part *p)
{
	p->paused = true;
	begin_window(p, p->last_byte_ms);
	atomic_fetch_add(&p->lane->paused, 1);
	return CURL_WRITEFUNC_PAUSE;
}

/* Returning another number than n ends the exchange; p->result says why. */
static size_t on_body(char *s, size_t size, size_t nmemb, void *arg)
{
	struct part *p = arg;
	struct transfer *t = p->lane->t;
	size_t n = size * nmemb;

	p->last_byte_ms = sys_now_ms();
	if (atomic_load(&t->over) || atomic_load(&p->cancel)) {
		p->result = RESULT_CANCELLED;
		return 0;
	}
	if (p->state != PART_BODY) {
		atomic_fetch_add_explicit(&t->stats->wire, n, memory_order_relaxed);
		size_t room = p->resp.body.max - p->resp.body.len;
		(void)buf_add(&p->resp.body, s, MIN(n, room));
		/* a refusal's body is read to keep the connection, but not for ever */
		return room ? n : 0;
	}
	if (t->limit.limit && !plan_rate_open(&t->limit, sys_now_us())) {
		atomic_store(&t->throttled_ms, p->last_byte_ms);
		return pause_part(p);
	}
	uint64_t pos = atomic_load(&p->pos), end = atomic_load(&p->end);
	size_t take = pos < end ? (size_t)MIN((uint64_t)n, end - pos) : 0;
	uint64_t fresh = 0;
	int rc = take ? item_write(p->it, p, s, take, &fresh, &p->err) : 0;
	if (rc == ITEM_FULL)
		return pause_part(p);
	if (t->limit.limit)
		plan_rate_take(&t->limit, n, sys_now_us());
	atomic_fetch_add_explicit(&t->stats->wire, n, memory_order_relaxed);
	atomic_fetch_add_explicit(&part_server(t, p)->bytes, n, memory_order_relaxed);
	if (rc) {
		p->result = RESULT_LOCAL;
		return 0;
	}
	/* bytes that came twice are no progress: a server may send the same first ones for ever */
	p->progressed = p->progressed || fresh;
	atomic_fetch_add_explicit(&t->stats->done, fresh, memory_order_relaxed);
	atomic_store(&p->pos, pos + take);
	/* more than `end` is right only when another part took the tail over */
	return take == n ? n : 0;
}

/* --- request --- */

static int add_header(struct part *p, const char *line)
{
	struct curl_slist *l = curl_slist_append(p->headers, line);

	if (!l)
		return -1;
	p->headers = l;
	return 0;
}

/*
 * Credentials and headers go to the server's own scheme, host and port, nowhere else (design D5.5). A mirror that asks the registry
 * on our behalf gets the registry's; where there are none it is asked without, since it may have the blob at hand.
 */
static int authorize(struct part *p, const struct blob_server *s, struct err *e)
{
	const struct http_authority *a = s->authority;
	_cleanup_buf_ struct buf value = BUF_INIT(LIMIT_TOKEN);
	_cleanup_buf_ struct buf line = BUF_INIT(LIMIT_TOKEN + 32);
	int failed = 0;

	p->with_credentials = false;
	if (!p->at_origin)
		return 0;
	for (size_t i = 0; s->headers && s->headers[i]; i++)
		if (add_header(p, s->headers[i]))
			return err_oom(e);
	if (!a || (!s->on_behalf && !http_same_origin(p->url, a->origin)))
		return 0;
	if (a->authorize(a->ctx, &value, &p->generation, e)) {
		p->result = RESULT_AUTH;
		return s->on_behalf ? 0 : -1;
	}
	if (value.len) {
		buf_addf(&line, "Authorization: %s", value.data);
		failed = line.failed || add_header(p, line.data) ? err_oom(e) : 0;
		p->with_credentials = true;
		explicit_bzero(value.data, value.len);
		if (line.data)
			explicit_bzero(line.data, line.len);
	}
	return failed;
}

/*
 * libcurl shares connections by host and port alone, but whom a mirror's anchors vouch for is not whom the registry's do, and what a
 * mirror's client certificate opens is not for who redirects there. So no redirect over TLS meets a connection of another http.
 */
static bool needs_own_connection(const struct transfer *t, const struct part *p)
{
	if (p->at_origin || strncasecmp(p->url, "https:", 6) != 0)
		return false;
	for (size_t i = 0; i < t->o->n_servers; i++)
		if (t->servers[i].host == p->host && t->servers[i].s->http != p->http)
			return true;
	return p->http != t->o->servers[t->o->n_servers - 1]->http;
}

/* A handle is bound to the http that it was made with: each server has trust anchors of its own. */
static int part_handle(struct part *p, const struct blob_server *s, struct err *e)
{
	const struct transfer *t = p->lane->t;

	if (p->c && p->http != s->http) {
		http_easy_free(p->http, p->c);
		p->c = NULL;
	}
	if (!p->c && !(p->c = http_easy_new(s->http)))
		return err_oom(e);
	p->http = s->http;
	const char *origin = t->servers[p->server].host->origin;
	p->at_origin = !p->redirected || (origin && http_same_origin(p->url, origin));
	bool foreign = s->http != t->o->servers[t->o->n_servers - 1]->http, apart = needs_own_connection(t, p);
	curl_easy_setopt(p->c, CURLOPT_FRESH_CONNECT, (long)apart);
	curl_easy_setopt(p->c, CURLOPT_FORBID_REUSE, (long)apart);
	/* nor is its TLS session: one that goes on shows no certificate, and libcurl files it under the host alone */
	curl_easy_setopt(p->c, CURLOPT_SSL_SESSIONID_CACHE, (long)!foreign);
	return 0;
}

/* Less at once where that would be much of what a second may bring. */
static long receive_buffer(const struct transfer *t)
{
	return (long)(t->limit.limit ? MIN(MAX(t->limit.limit / 64, KIB), RECEIVE_BUFFER) : RECEIVE_BUFFER);
}

static int part_prepare(struct part *p, struct err *e)
{
	const struct blob_server *s = part_server(p->lane->t, p);

	if (part_handle(p, s, e))
		return -1;
	curl_slist_free_all(p->headers);
	p->headers = NULL;
	forget_response(p);
	p->errbuf[0] = '\0';
	p->result = RESULT_NONE;
	p->progressed = false;
	p->state = PART_SENT;
	p->paused = p->slow = false;
	p->crawls = 0;
	if (add_header(p, "Accept-Encoding: identity"))
		return err_oom(e);
	if (authorize(p, s, e))
		return -1;
	p->result = RESULT_NONE;
	/* credentials took their time: another connection may have taken the end over meanwhile */
	p->asked_end = atomic_load(&p->end);
	if (p->ranged)
		snprintf(p->range, sizeof(p->range), "%llu-%llu", (unsigned long long)p->start,
			 (unsigned long long)p->asked_end - 1);
	if (http_easy_target(s->http, p->c, p->url, (unsigned)(p - p->lane->parts) * LIMIT_LANES + p->lane->index, e))
		return -1;
	curl_easy_setopt(p->c, CURLOPT_RANGE, p->ranged ? p->range : NULL);
	curl_easy_setopt(p->c, CURLOPT_HTTPHEADER, p->headers);
	curl_easy_setopt(p->c, CURLOPT_ERRORBUFFER, p->errbuf);
	curl_easy_setopt(p->c, CURLOPT_BUFFERSIZE, receive_buffer(p->lane->t));
	curl_easy_setopt(p->c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(p->c, CURLOPT_HEADERDATA, p);
	curl_easy_setopt(p->c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(p->c, CURLOPT_WRITEDATA, p);
	curl_easy_setopt(p->c, CURLOPT_PRIVATE, p);
	p->sent_ms = p->last_byte_ms = sys_now_ms();
	begin_window(p, p->sent_ms);
	atomic_fetch_add(&part_server(p->lane->t, p)->requests, 1);
	return 0;
}

static void part_idle(struct part *p)
{
	if (p->paused)
		atomic_fetch_sub(&p->lane->paused, 1);
	p->paused = false;
	free(p->url);
	p->url = NULL;
	p->state = PART_IDLE;
	p->lane->busy--;
}

static void part_over(struct part *p, CURLcode rc)
{
	http_mask_sent(p->headers, &p->resp.body);
	/* an end that we made, but for a stall, says nothing of the address */
	if (p->result == RESULT_STALLED)
		http_easy_done(p->http, p->c, CURLE_OPERATION_TIMEDOUT);
	else if (rc != CURLE_ABORTED_BY_CALLBACK && p->result != RESULT_LOCAL && p->result != RESULT_AUTH)
		http_easy_done(p->http, p->c, rc == CURLE_WRITE_ERROR ? CURLE_OK : rc);
	transfer_part_ended(p->lane->t, p, rc);
	part_idle(p);
}

static struct part *free_part(struct lane *l)
{
	for (size_t i = 0; i < l->n_parts; i++)
		if (l->parts[i].state == PART_IDLE)
			return &l->parts[i];
	return NULL;
}

/* Tops the lane up to its share of the connections. */
static void lane_fill(struct lane *l)
{
	struct transfer *t = l->t;
	struct part *p;

	while (l->busy < transfer_quota(t, l->index) && !atomic_load(&t->over) &&
	       (p = free_part(l)) && transfer_claim(t, p)) {
		l->busy++;
		if (part_prepare(p, &p->err)) {
			if (p->result != RESULT_AUTH)
				p->result = RESULT_LOCAL;
			part_over(p, CURLE_OK);
			continue;
		}
		atomic_fetch_add(&t->stats->requests, 1);
		curl_multi_add_handle(l->m, p->c);
	}
}

static void lane_drain(struct lane *l)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(l->m, &left))) {
		struct part *p = NULL;
		CURLcode rc = msg->data.result;
		CURL *c = msg->easy_handle;
		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(c, CURLINFO_PRIVATE, (char **)&p);
		long connects = 0;
		curl_easy_getinfo(c, CURLINFO_NUM_CONNECTS, &connects);
		atomic_fetch_add(&l->t->stats->connections, (uint64_t)connects);
		curl_multi_remove_handle(l->m, c);
		part_over(p, rc);
	}
}

static bool too_slow(const struct transfer *t, struct part *p, uint64_t now)
{
	const struct transfer_options *o = t->o;
	const struct blob_server *s = part_server(t, p);
	uint64_t pos = atomic_load(&p->pos), last = p->last_byte_ms;
	uint64_t silence = o->stall_timeout_ms, time = o->speed_time_ms;

	if (server_gives_way(t, p->server)) { /* others can be asked: no patience, and heads that trickle are no answer */
		if (s->first_byte_ms)
			silence = MIN(silence, s->first_byte_ms);
		time = MIN(time, silence);
		if (p->state == PART_SENT)
			last = p->sent_ms;
	}
	if (now > last && now - last > silence)
		return true;
	if (!time || now - p->window_ms < time)
		return false;
	p->slow = (o->speed_limit && pos - p->window_pos < o->speed_limit * time / 1000) || server_crawls(t, p, now);
	begin_window(p, now);
	return p->slow;
}

/* Ends exchanges that stall or are not wanted any more; they would not end by themselves. */
static void lane_check(struct lane *l)
{
	uint64_t now = sys_now_ms();

	if (now - l->last_check_ms < CHECK_MS)
		return;
	l->last_check_ms = now;
	for (size_t i = 0; i < l->n_parts; i++) {
		struct part *p = &l->parts[i];
		if (p->state == PART_IDLE)
			continue;
		bool cancelled = atomic_load(&p->cancel);
		if (p->paused) { /* it is we who do not move */
			p->last_byte_ms = now;
			begin_window(p, now);
		}
		if (!cancelled && !too_slow(l->t, p, now))
			continue;
		p->result = cancelled ? RESULT_CANCELLED : RESULT_STALLED;
		curl_multi_remove_handle(l->m, p->c);
		part_over(p, CURLE_ABORTED_BY_CALLBACK);
	}
}

/*
 * Lets connections go on for which there is room again. Who makes room wakes lanes that have paused ones, and this looks
 * at the room after the connection was counted: one of both sees it.
 */
static void lane_resume(struct lane *l)
{
	const struct plan_rate *limit = &l->t->limit;

	l->turn++;
	for (size_t i = 0; i < l->n_parts && atomic_load(&l->paused); i++) {
		struct part *p = &l->parts[(i + l->turn) % l->n_parts]; /* where bytes are rationed all get some */
		if (!p->paused || (limit->limit && !plan_rate_open(limit, sys_now_us())) || !item_has_room(p->it, p))
			continue;
		p->paused = false;
		atomic_fetch_sub(&l->paused, 1);
		p->last_byte_ms = sys_now_ms();
		begin_window(p, p->last_byte_ms);
		CURLcode rc = curl_easy_pause(p->c, CURLPAUSE_CONT); /* may call on_body */
		if (rc == CURLE_OK)
			continue;
		curl_multi_remove_handle(l->m, p->c);
		part_over(p, rc);
	}
}

/* --- thread --- */

static void *lane_main(void *arg)
{
	struct lane *l = arg;
	struct transfer *t = l->t;
	int running;

	while (!atomic_load(&t->over)) {
		lane_fill(l);
		curl_multi_perform(l->m, &running);
		lane_drain(l);
		lane_check(l);
		lane_resume(l);
		/*
		 * Hashing goes before receiving: only a blob without backlog is hashed from the receive
		 * buffer, and meanwhile the kernel's buffers and the other lanes receive.
		 */
		uint64_t backlog = transfer_hash_round(t, l);
		for (int i = 1; i < HASH_ROUNDS && backlog && !atomic_load(&t->over); i++)
			backlog = transfer_hash_round(t, l);
		bool hungry = l->busy < transfer_quota(t, l->index);
		atomic_store(&l->idle, hungry);
		if (backlog) {
			curl_multi_poll(l->m, NULL, 0, 0, NULL);
			continue;
		}
		uint64_t before = sys_now_us();
		curl_multi_poll(l->m, NULL, 0, hungry ? POLL_HUNGRY_MS : POLL_MS, NULL);
		atomic_fetch_add(&t->idle_us, sys_now_us() - before);
	}
	for (size_t i = 0; i < l->n_parts; i++) {
		struct part *p = &l->parts[i];
		if (p->state == PART_IDLE)
			continue;
		p->result = RESULT_CANCELLED;
		curl_multi_remove_handle(l->m, p->c);
		part_over(p, CURLE_ABORTED_BY_CALLBACK);
	}
	return NULL;
}

int lane_init(struct lane *l, struct transfer *t, unsigned index, size_t room, struct err *e)
{
	l->t = t;
	l->index = index;
	l->n_parts = room;
	l->parts = calloc(room, sizeof(*l->parts));
	l->scratch = malloc(LANE_SCRATCH);
	l->m = curl_multi_init();
	if (!l->parts || !l->scratch || !l->m)
		return err_oom(e);
	for (size_t i = 0; i < room; i++)
		l->parts[i].lane = l;
	curl_multi_setopt(l->m, CURLMOPT_MAXCONNECTS, (long)room + 2);
	/* host_has_room asks for no more; this is for idle connections that a request cannot use */
	unsigned most = t->o->max_per_host;
	if (most)
		curl_multi_setopt(l->m, CURLMOPT_MAX_HOST_CONNECTIONS, (long)(most / t->n_lanes + (index < most % t->n_lanes)));
	return 0;
}

int lane_start(struct lane *l, struct err *e)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	/* musl's default of 128 KiB is little for a TLS handshake */
	pthread_attr_setstacksize(&attr, LANE_STACK);
	int rc = pthread_create(&l->thread, &attr, lane_main, l);
	pthread_attr_destroy(&attr);
	if (rc)
		return err_errno(e, CODE_INTERNAL, rc, "cannot start a thread");
	l->running = true;
	return 0;
}

void lane_join(struct lane *l)
{
	if (l->running)
		pthread_join(l->thread, NULL);
	l->running = false;
}

void lane_release(struct lane *l)
{
	for (size_t i = 0; l->parts && i < l->n_parts; i++) {
		struct part *p = &l->parts[i];
		http_response_release(&p->resp);
		curl_slist_free_all(p->headers);
		if (p->c)
			http_easy_free(p->http, p->c);
		free(p->url);
	}
	if (l->m)
		curl_multi_cleanup(l->m);
	free(l->parts);
	free(l->scratch);
}
