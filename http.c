// SPDX-License-Identifier: Apache-2.0
#include "http_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "secret.h"
#include "sys.h"
#include "tls.h"

#define DEFAULT_CONNECT_MS 10000
#define DEFAULT_STALL_MS 30000
#define DEFAULT_BUDGET_MS 300000
#define POLL_MS 100
#define HANDSHAKES_MAX 4	/* TLS handshakes that failed: a wrong kind of server does not get better */
#define CHALLENGES_MAX 4	/* 401s answered within one http_get */

/* --- life --- */

static int start_tls(struct http *h, const struct http_options *o, struct err *e)
{
	const struct tls_options t = {
		.ca_file = o->ca_file,
		.extra_ca_files = o->extra_ca_files,
		.proxy_ca_file = o->proxy_ca_file,
		.insecure = o->insecure,
		.tls13 = o->tls13,
	};

	if (tls_new(&h->tls, &t, e))
		return -1;
	return o->cert_file ? tls_client_certificate(h->tls, o->cert_file, o->key_file,
						     o->cert_origin ? o->cert_origin : "", e) : 0;
}

int http_new(struct http **ret, const struct http_options *o, struct err *e)
{
	struct http *h = calloc(1, sizeof(*h));

	if (!h)
		return err_oom(e);
	h->o = *o;
	if (!h->o.connect_timeout_ms)
		h->o.connect_timeout_ms = DEFAULT_CONNECT_MS;
	if (!h->o.stall_timeout_ms)
		h->o.stall_timeout_ms = DEFAULT_STALL_MS;
	if (!h->o.retry_budget_ms)
		h->o.retry_budget_ms = DEFAULT_BUDGET_MS;
	pthread_mutex_init(&h->lock, NULL);
	if (!!o->cert_file != !!o->key_file) {
		http_free(h);
		return err_set(e, CODE_USAGE, "--cert-file and --key-file must be given together");
	}
	if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		http_free(h);
		return err_set(e, CODE_INTERNAL, "libcurl could not start");
	}
	if (http_peer_new(h, e) || ((!o->plain || proxy_env_wants_tls(h->proxies)) && start_tls(h, o, e))) {
		http_free(h);
		return -1;
	}
	h->o.cert_origin = NULL; /* tls has its copy */
	*ret = h;
	return 0;
}

void http_free(struct http *h)
{
	if (!h)
		return;
	if (h->idle)
		curl_multi_cleanup(h->idle);
	http_peer_free(h);
	tls_free(h->tls);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

int http_stopped(const struct http *h)
{
	return h->o.stop ? atomic_load_explicit(h->o.stop, memory_order_relaxed) : 0;
}

static void tell(void (*fn)(void *, const char *), void *arg, const char *fmt, va_list ap)
{
	char line[1024];

	vsnprintf(line, sizeof(line), fmt, ap);
	fn(arg, line);
}

void http_trace(struct http *h, const char *fmt, ...)
{
	va_list ap;

	if (!h->o.trace)
		return;
	va_start(ap, fmt);
	tell(h->o.trace, h->o.trace_arg, fmt, ap);
	va_end(ap);
}

static void __attribute__((format(printf, 2, 3))) warn(struct http *h, const char *fmt, ...)
{
	va_list ap;

	if (!h->o.warn)
		return;
	va_start(ap, fmt);
	tell(h->o.warn, h->o.warn_arg, fmt, ap);
	va_end(ap);
}

CURL *http_easy_new(struct http *h)
{
	CURL *c = curl_easy_init();
	struct easy *x = c ? http_peer_add(h, c) : NULL;

	if (!x) {
		curl_easy_cleanup(c);
		return NULL;
	}
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, h->o.plain ? "http" : "http,https");
	/* the end of a handle must not wait for a name server that is silent */
	curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)h->o.connect_timeout_ms);
	curl_easy_setopt(c, CURLOPT_USERAGENT, h->o.user_agent ? h->o.user_agent : "fetcher");
	curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	/* digests name exact bytes: dot segments and encodings of a URL are left alone */
	curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	if (h->o.insecure) {
		curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (h->tls)
		tls_apply(&x->peer, c);
	return c;
}

void http_easy_free(struct http *h, CURL *c)
{
	/* in this order: another thread may get the same address for a new handle */
	http_peer_remove(h, c);
	curl_easy_cleanup(c);
}

void http_mask_sent(const struct curl_slist *headers, struct buf *body)
{
	static const char name[] = "Authorization:";

	for (; headers && body->data; headers = headers->next) {
		if (strncasecmp(headers->data, name, sizeof(name) - 1) != 0)
			continue;
		const char *value = headers->data + sizeof(name) - 1;
		value += strspn(value, " \t");
		const char *space = strchr(value, ' '); /* behind the scheme */
		secret_mask_bytes(body->data, body->len, space ? space + 1 : value);
	}
}

/* --- responses --- */

void http_response_release(struct http_response *r)
{
	for (size_t i = 0; i < r->n_headers; i++) {
		free(r->headers[i].name);
		free(r->headers[i].value);
	}
	free(r->headers);
	buf_release(&r->body);
	free(r->url);
	*r = (struct http_response){ 0 };
}

const char *http_response_header(const struct http_response *r, const char *name, size_t i)
{
	for (size_t k = 0; k < r->n_headers; k++)
		if (strcasecmp(r->headers[k].name, name) == 0 && i-- == 0)
			return r->headers[k].value;
	return NULL;
}

struct exchange {
	struct http_response *r;
	uint64_t max_body;
	size_t header_bytes;
	bool too_big, oom;
	uint64_t last_byte_ms;
};

static void drop_headers(struct http_response *r)
{
	for (size_t i = 0; i < r->n_headers; i++) {
		free(r->headers[i].name);
		free(r->headers[i].value);
	}
	r->n_headers = 0;
}

static size_t on_header(char *p, size_t size, size_t nmemb, void *arg)
{
	struct exchange *x = arg;
	size_t n = size * nmemb;
	struct str line = { p, n };

	x->last_byte_ms = sys_now_ms();
	x->header_bytes += n;
	if (x->header_bytes > LIMIT_HEADERS)
		return 0;
	if (n >= 5 && memcmp(p, "HTTP/", 5) == 0) {
		drop_headers(x->r); /* an interim response came before */
		return n;
	}
	while (line.n && (line.p[line.n - 1] == '\r' || line.p[line.n - 1] == '\n'))
		line.n--;
	const char *colon = memchr(line.p, ':', line.n);
	if (!colon)
		return n;
	struct http_header *v = realloc(x->r->headers, (x->r->n_headers + 1) * sizeof(*v));
	if (!v) {
		x->oom = true;
		return 0;
	}
	x->r->headers = v;
	struct str name = { line.p, (size_t)(colon - line.p) };
	struct str value = str_trim((struct str){ colon + 1, line.n - name.n - 1 });
	v[x->r->n_headers].name = strndup(name.p, name.n);
	v[x->r->n_headers].value = strndup(value.p, value.n);
	x->r->n_headers++;
	x->oom = !v[x->r->n_headers - 1].name || !v[x->r->n_headers - 1].value;
	return x->oom ? 0 : n;
}

static size_t on_body(char *p, size_t size, size_t nmemb, void *arg)
{
	struct exchange *x = arg;
	size_t n = size * nmemb;

	x->last_byte_ms = sys_now_ms();
	if (buf_add(&x->r->body, p, n) == 0)
		return n;
	if (x->r->body.len + n > x->r->body.max) {
		x->too_big = true;
	} else {
		x->oom = true;
	}
	return 0;
}

/* --- one exchange --- */

static CURLM *take_multi(struct http *h)
{
	pthread_mutex_lock(&h->lock);
	CURLM *m = h->idle;
	h->idle = NULL;
	pthread_mutex_unlock(&h->lock);
	return m ? m : curl_multi_init();
}

static void give_multi(struct http *h, CURLM *m)
{
	pthread_mutex_lock(&h->lock);
	if (!h->idle) {
		h->idle = m;
		m = NULL;
	}
	pthread_mutex_unlock(&h->lock);
	if (m)
		curl_multi_cleanup(m);
}

int http_check_over(struct http *h, struct err *e)
{
	if (http_stopped(h))
		return err_set(e, (enum code)http_stopped(h), "stopped by a signal");
	if (h->o.deadline_ms && sys_now_ms() >= h->o.deadline_ms)
		return err_set(e, CODE_DEADLINE, "the deadline passed");
	return 0;
}

/* Runs c to its end. 0 with *ret_rc, or -1 with e (stopped, stalled). */
static int run(struct http *h, CURLM *m, CURL *c, struct exchange *x, const char *what,
	       CURLcode *ret_rc, struct err *e)
{
	int running = 1;

	x->last_byte_ms = sys_now_ms();
	while (running) {
		if (curl_multi_perform(m, &running))
			return err_set(e, CODE_INTERNAL, "libcurl failed");
		if (!running)
			break;
		if (http_check_over(h, e))
			return -1;
		uint64_t limit = h->o.stall_timeout_ms;
		curl_off_t connected = 0;
		curl_easy_getinfo(c, CURLINFO_CONNECT_TIME_T, &connected);
		if (!connected)
			limit += h->o.connect_timeout_ms;
		if (sys_now_ms() - x->last_byte_ms > limit) {
			err_set(e, CODE_DEADLINE, "%s: no byte for %u s", what,
				h->o.stall_timeout_ms / 1000);
			if (e)
				e->retryable = true;
			return -1;
		}
		curl_multi_poll(m, NULL, 0, POLL_MS, NULL);
	}
	int left;
	CURLMsg *msg = curl_multi_info_read(m, &left);
	*ret_rc = msg ? msg->data.result : CURLE_FAILED_INIT;
	return 0;
}

static void set_method(CURL *c, const struct http_request *q)
{
	if (strcmp(q->method, "HEAD") == 0) {
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
	} else if (strcmp(q->method, "GET") == 0) {
		curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
	} else {
		curl_easy_setopt(c, CURLOPT_POST, 1L);
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, q->method);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, q->body ? q->body : "");
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_len);
	}
}

static int add_line(struct curl_slist **list, const char *line)
{
	struct curl_slist *l = curl_slist_append(*list, line);

	if (!l)
		return -1;
	*list = l;
	return 0;
}

static int request_headers(const struct http_request *q, struct curl_slist **ret)
{
	int bad = add_line(ret, "Accept-Encoding: identity");

	for (size_t i = 0; q->headers && q->headers[i]; i++)
		bad |= add_line(ret, q->headers[i]);
	if (q->authorization && *q->authorization) {
		_cleanup_buf_ struct buf line = BUF_INIT(LIMIT_TOKEN);
		buf_addf(&line, "Authorization: %s", q->authorization);
		bad |= line.failed || add_line(ret, line.data);
		if (line.data)
			explicit_bzero(line.data, line.len);
	}
	return bad ? -1 : 0;
}

int http_fetch(struct http *h, const struct http_request *q, struct http_response *ret,
	       struct err *e)
{
	struct http_response r = { 0 };
	struct exchange x = { .r = &r, .max_body = q->max_body };
	struct curl_slist *headers = NULL;
	char errbuf[CURL_ERROR_SIZE] = "", what[512];
	CURLcode rc = CURLE_FAILED_INIT;
	int failed = -1;

	http_redacted(q->url, what, sizeof(what));
	if (http_peer_await(h, q, e))
		return -1;
	buf_init(&r.body, MAX(q->max_body, LIMIT_ERROR_BODY));
	CURLM *m = take_multi(h);
	CURL *c = http_easy_new(h);
	r.url = strdup(q->url);
	if (!m || !c || !r.url || request_headers(q, &headers)) {
		err_oom(e);
		goto out;
	}
	if (http_peer_aim(h, c, q->url, 0, q->no_proxy, e))
		goto out;
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, errbuf);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, &x);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, &x);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)q->timeout_ms);
	if (h->o.speed_limit && h->o.speed_time_ms) {
		curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)h->o.speed_limit);
		curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)(h->o.speed_time_ms + 999) / 1000);
	}
	set_method(c, q);
	curl_multi_add_handle(m, c);
	failed = run(h, m, c, &x, what, &rc, e);
	curl_multi_remove_handle(m, c);
	http_easy_done(h, c, failed ? CURLE_OPERATION_TIMEDOUT : rc);
	if (failed)
		goto out;
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &r.status);
	r.with_credentials = q->authorization && *q->authorization;
	http_trace(h, "%s %s -> %ld (%zu bytes)", q->method, what, r.status, r.body.len);
	bool ok = r.status >= 200 && r.status < 300;
	if (!ok)
		http_mask_sent(headers, &r.body);
	if (x.oom) {
		failed = err_oom(e);
	} else if ((ok && r.body.len > q->max_body) || (ok && x.too_big)) {
		failed = err_set(e, CODE_INTEGRITY, "%s: the answer is larger than %llu bytes", what,
				 (unsigned long long)q->max_body);
	} else if (rc != CURLE_OK && !x.too_big) {
		failed = http_curl_error(h, c, rc, errbuf, what, e);
	}
out:
	curl_slist_free_all(headers);
	http_easy_free(h, c);
	if (m)
		give_multi(h, m);
	if (failed) {
		http_response_release(&r);
		return -1;
	}
	*ret = r;
	return 0;
}

/* --- retries --- */

const char *http_ca_source(const struct http *h)
{
	return h->tls ? tls_source(h->tls) : "nowhere";
}

uint32_t http_backoff_ms(unsigned attempt, uint32_t retry_after_ms)
{
	uint32_t ceiling = attempt >= 7 ? 10000 : (uint32_t)100 << attempt;

	/* full jitter, but never a busy loop */
	uint32_t wait = 20 + (uint32_t)(sys_random64() % MIN(ceiling, 10000u));
	return MAX(wait, retry_after_ms);
}

/* --- an exchange with everything --- */

struct get {
	struct http *h;
	const struct http_authority *a;
	const struct http_request *q;
	char *url;		/* of the next request */
	unsigned hops, challenges, attempt, handshakes;
	unsigned generation;
	uint64_t give_up_ms;
};

/* One request to the current URL, with what its origin may see of us. */
static int get_once(struct get *g, struct http_response *ret, struct err *e)
{
	_cleanup_buf_ struct buf value = BUF_INIT(LIMIT_TOKEN);
	struct http_request q = *g->q;

	q.url = g->url;
	q.authorization = NULL;
	bool home = g->hops == 0;
	if (g->a && http_same_origin(g->url, g->a->origin)) {
		home = true;
		if (g->a->authorize(g->a->ctx, &value, &g->generation, e))
			return -1;
		q.authorization = buf_cstr(&value);
	}
	/* headers are for the registry: another host sees a bare request */
	if (!home)
		q.headers = NULL;
	int failed = http_fetch(g->h, &q, ret, e);
	if (!failed && g->a && ret->with_credentials && ret->status != 401 && g->a->accepted)
		g->a->accepted(g->a->ctx, g->generation);
	if (value.data)
		explicit_bzero(value.data, value.len);
	return failed;
}

/* Waits before the next try; -1 with e when the budget is used up or somebody wants us to stop. */
static int get_wait(struct get *g, const char *why, uint32_t retry_after_ms, struct err *e)
{
	uint32_t wait = http_backoff_ms(g->attempt++, retry_after_ms);
	uint64_t until = sys_now_ms() + wait;

	if (until > g->give_up_ms) {
		if (e)
			e->retryable = false;
		return err_wrap(e, "gave up after %u tries", g->attempt);
	}
	warn(g->h, "%s; trying again in %u ms", why, wait);
	while (sys_now_ms() < until) {
		if (http_check_over(g->h, e))
			return -1;
		sys_sleep_ms((unsigned)MIN(until - sys_now_ms() + 1, (uint64_t)POLL_MS));
	}
	return 0;
}

static int get_restart(struct get *g, struct err *e)
{
	free(g->url);
	g->url = strdup(g->q->url);
	g->hops = 0;
	return g->url ? 0 : err_oom(e);
}

static int get_redirect(struct get *g, const struct http_response *r, struct err *e)
{
	const char *location = http_response_header(r, "Location", 0);
	char what[512], *target;

	http_redacted(g->url, what, sizeof(what));
	if (!location)
		return err_set(e, CODE_NETWORK, "%s: redirect %ld without Location", what, r->status);
	if (++g->hops > LIMIT_REDIRECTS)
		return err_set(e, CODE_NETWORK, "%s: more than %d redirects", what, LIMIT_REDIRECTS);
	if (http_redirect_target(g->url, location, &target, e))
		return -1;
	free(g->url);
	g->url = target;
	return 0;
}

static bool is_redirect(long status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* What the registry wants people to know (distribution specification, "Warnings"), once. */
static void tell_warnings(struct get *g, const struct http_response *r)
{
	char text[512];
	const char *v;

	for (size_t i = 0; i < 8 && (v = http_response_header(r, "Warning", i)); i++)
		while (http_next_warning(&v, text, sizeof(text)))
			if (*text && http_warning_is_new(text))
				warn(g->h, "%s warns: %s", g->a->origin, text);
}

/* What a response means: 1 = done, 0 = ask again, -1 = over. */
static int get_judge(struct get *g, const struct http_response *r, struct err *e)
{
	_cleanup_buf_ struct buf credentials = BUF_INIT(512);
	char what[768];

	http_peer_what(g->h, g->url, g->q->no_proxy, what, sizeof(what));
	bool home = g->a && http_same_origin(g->url, g->a->origin);
	if (home)
		tell_warnings(g, r);
	if (r->status >= 200 && r->status < 300)
		return 1;
	if (is_redirect(r->status))
		return get_redirect(g, r, e);
	if (r->status == 401 && home && g->challenges++ < CHALLENGES_MAX)
		return g->a->challenged(g->a->ctx, r, g->generation, e);
	if (home && g->a->describe)
		g->a->describe(g->a->ctx, &credentials);
	http_answer_error(r->status, r, what, buf_cstr(&credentials), e);
	if (!e->retryable) {
		/* storage refuses with 400/401/403 when a signed URL ran out: once more from the start */
		bool storage = g->hops && !home && (r->status == 400 || r->status == 401 || r->status == 403);
		return storage && g->challenges++ < CHALLENGES_MAX ? get_restart(g, e) : -1;
	}
	char why[sizeof(what) + 32];
	snprintf(why, sizeof(why), "%s answered %ld", what, r->status);
	return get_wait(g, why, e->retry_after_ms, e) ? -1 : get_restart(g, e);
}

int http_get(struct http *h, const struct http_authority *a, const struct http_request *q,
	     struct http_response *ret, struct err *e)
{
	struct get g = { .h = h, .a = a, .q = q, .give_up_ms = sys_now_ms() + h->o.retry_budget_ms };
	struct err local, *err = e ? e : &local;
	int verdict = get_restart(&g, err) ? -1 : 0;

	while (verdict == 0) {
		struct http_response r = { 0 };
		if (get_once(&g, &r, err)) {
			bool hopeless = err->sys_errno == EPROTO && ++g.handshakes >= HANDSHAKES_MAX;
			if (!err->retryable || hopeless)
				verdict = -1;
			else if (get_wait(&g, err->msg, err->retry_after_ms, err) || get_restart(&g, err))
				verdict = -1;
			continue;
		}
		verdict = get_judge(&g, &r, err);
		if (verdict == 1)
			*ret = r;
		else
			http_response_release(&r);
	}
	free(g.url);
	return verdict == 1 ? 0 : -1;
}
