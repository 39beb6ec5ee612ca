// SPDX-License-Identifier: Apache-2.0
/* One request to those who serve the model. Belongs to notify.h. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "json.h"
#include "notify_internal.h"
#include "secret.h"
#include "sys.h"

#define BODY_MAX (1 * MIB)	/* of a request, and of the answer */
#define METHOD_MAX 32
#define CONNECT_MS 10000
#define DEFAULT_TIMEOUT_MS 60000
#define SGLANG_PATH "/update_weights_from_disk"
#define TRITON_PATH "/v2/repository/models/"
#define TRITON_VERB "/load"

/* --- options --- */

/* RFC 9110 5.6.2: the characters of a method or of a header's name. */
static bool is_token(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char c = p[i];
		bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		if (!plain && (!c || !strchr("!#$%&'*+-.^_`|~", c)))
			return false;
	}
	return n > 0;
}

/* Where the path begins, and how long it is without query and fragment. */
static const char *url_path(const char *url, size_t *ret_len)
{
	const char *p = strstr(url, "://") + 3;

	p += strcspn(p, "/?#");
	*ret_len = strcspn(p, "?#");
	return p;
}

static int check_url(const char *url, struct err *e)
{
	char origin[512];
	size_t n = strlen(url);

	if (n > LIMIT_URL)
		return err_set(e, CODE_USAGE, "--webhook-url is too long");
	for (size_t i = 0; i < n; i++)
		if (url[i] <= ' ' || url[i] > '~')
			return err_set(e, CODE_USAGE, "--webhook-url holds a blank or a character that must be "
				       "percent-encoded");
	if (http_origin(url, origin, sizeof(origin)))
		return err_set(e, CODE_USAGE, "--webhook-url must be an http or https URL without user name and "
			       "password; these belong into a --webhook-header-file");
	return 0;
}

static bool is_triton_load(const char *url)
{
	const size_t verb = sizeof(TRITON_VERB) - 1;
	size_t n;
	const char *path = url_path(url, &n), *end = path + n;
	const char *name = strstr(path, TRITON_PATH);

	if (!name || n < verb || memcmp(end - verb, TRITON_VERB, verb) != 0)
		return false;
	name += sizeof(TRITON_PATH) - 1;
	end -= verb;
	return name < end && !memchr(name, '/', (size_t)(end - name));
}

static int preset_url(struct webhook *w, struct err *e)
{
	const char *url = w->o->webhook_url;
	_cleanup_buf_ struct buf b = BUF_INIT(LIMIT_URL + 64);
	size_t n;
	const char *path = url_path(url, &n);

	if (w->o->preset == NOTIFY_TRITON && !is_triton_load(url))
		return err_set(e, CODE_USAGE, "--webhook-url must name what Triton should load: "
			       "http://HOST:8000" TRITON_PATH "NAME" TRITON_VERB);
	if (w->o->preset == NOTIFY_SGLANG && n <= 1) {
		buf_add(&b, url, (size_t)(path - url));
		buf_adds(&b, SGLANG_PATH);
		buf_adds(&b, path + n);
	} else {
		buf_adds(&b, url);
	}
	w->url = buf_steal(&b);
	return w->url ? 0 : err_oom(e);
}

static int connect_options(const struct webhook *w, struct http **ret, struct err *e)
{
	uint64_t ms = w->o->webhook_timeout_ms ? w->o->webhook_timeout_ms : DEFAULT_TIMEOUT_MS;
	/*
	 * Not the registry's client certificate, and none of what makes a slow registry fail: a model server may be silent
	 * for minutes. The request's own timeout binds before this stall timeout.
	 */
	struct http_options o = {
		.plain = w->plain,
		.stall_timeout_ms = (unsigned)MIN(ms + 1000, (uint64_t)INT_MAX),
		.connect_timeout_ms = (unsigned)MIN(ms, (uint64_t)CONNECT_MS),
		.stop = w->stop,
	};

	if (w->o->http) {
		o.ca_file = w->o->http->ca_file;
		o.extra_ca_files = w->o->http->extra_ca_files;
		o.proxy_ca_file = w->o->http->proxy_ca_file;
		o.tls13 = w->o->http->tls13;
		o.resolve = w->o->http->resolve;
		o.dns_timeout_ms = w->o->http->dns_timeout_ms;
		o.insecure = w->o->http->insecure;
		o.user_agent = w->o->http->user_agent;
		o.trace = w->o->http->trace;
		o.trace_arg = w->o->http->trace_arg;
	}
	return http_new(ret, &o, e);
}

/* That the CA file can be read is better known before the first version stands. Sets up crypto before threads start, too. */
static int try_tls(const struct webhook *w, struct err *e)
{
	struct http *h;

	if (w->plain)
		return 0;
	if (connect_options(w, &h, e))
		return -1;
	http_free(h);
	return 0;
}

int webhook_init(struct webhook *w, const struct notify_options *o, const atomic_int *stop, struct err *e)
{
	static const char *const bodies[] = {
		[NOTIFY_POST] = "{\"ref\":\"{ref}\",\"digest\":\"{digest}\",\"previous\":\"{previous}\","
				"\"path\":\"{path}\",\"generation\":{generation}}",
		[NOTIFY_SGLANG] = "{\"model_path\":\"{path}\"}",
		[NOTIFY_TRITON] = "{}",
	};

	*w = (struct webhook){ .o = o, .stop = stop };
	if ((size_t)o->preset >= ARRAY_SIZE(bodies))
		return err_set(e, CODE_USAGE, "--webhook-preset is unknown");
	w->method = o->webhook_method ? o->webhook_method : "POST";
	w->body = o->webhook_body ? o->webhook_body : bodies[o->preset];
	if (!is_token(w->method, strlen(w->method)) || strlen(w->method) > METHOD_MAX)
		return err_set(e, CODE_USAGE, "--webhook-method is no HTTP method");
	if (o->webhook_success_status && (o->webhook_success_status < 200 || o->webhook_success_status > 599))
		return err_set(e, CODE_USAGE, "--webhook-success-status must be 200 to 599, or 0 for any 2xx");
	if (check_url(o->webhook_url, e) || preset_url(w, e))
		return -1;
	w->plain = strncasecmp(w->url, "http://", 7) == 0;
	return try_tls(w, e);
}

void webhook_release(struct webhook *w)
{
	free(w->url);
	w->url = NULL;
}

/* --- headers --- */

struct headers {
	char **lines;		/* NULL-terminated */
	size_t n;
	bool has_type;		/* a file sets Content-Type */
	bool json;		/* what it says, or the default, is JSON */
};

static void headers_release(struct headers *h)
{
	for (size_t i = 0; i < h->n; i++)
		secret_free(h->lines[i]);
	free(h->lines);
}
#define _cleanup_headers_ __attribute__((cleanup(headers_release)))

static int headers_add(struct headers *h, const char *line, size_t n, struct err *e)
{
	char **v = realloc(h->lines, (h->n + 2) * sizeof(*v));

	if (!v)
		return err_oom(e);
	h->lines = v;
	v[h->n] = strndup(line, n);
	if (!v[h->n])
		return err_oom(e);
	v[++h->n] = NULL;
	return 0;
}

static bool is_json_type(struct str value)
{
	struct str type = str_trim((struct str){ value.p, strcspn(value.p, "; \t") });
	static const char suffix[] = "+json";
	const size_t n = sizeof(suffix) - 1;

	return str_caseeq(type, "application/json") ||
	       (type.n > n && strncasecmp(type.p + type.n - n, suffix, n) == 0);
}

/* What is wrong with a line, or NULL. Framing and the target are ours to say. */
static const char *line_fault(struct str name, struct str value)
{
	static const char *const ours[] = { "Host", "Content-Length", "Transfer-Encoding" };

	if (!is_token(name.p, name.n))
		return "is not \"Name: value\"";
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (str_caseeq(name, ours[i]))
			return "sets Host, Content-Length or Transfer-Encoding, which cannot be chosen";
	if (!value.n)
		return "has no value";
	for (size_t i = 0; i < value.n; i++)
		if (((unsigned char)value.p[i] < ' ' && value.p[i] != '\t') || value.p[i] == 0x7f)
			return "holds a control character";
	return NULL;
}

static int headers_line(struct headers *h, struct str line, struct err *e, const char **ret_fault)
{
	const char *colon = memchr(line.p, ':', line.n);
	struct str name = { line.p, colon ? (size_t)(colon - line.p) : 0 };
	struct str value = colon ? str_trim((struct str){ colon + 1, line.n - name.n - 1 }) : (struct str){ "", 0 };
	char kind[128];

	*ret_fault = line_fault(name, value);
	if (*ret_fault)
		return -1;
	if (str_caseeq(name, "Content-Type")) {
		snprintf(kind, sizeof(kind), "%.*s", (int)MIN(value.n, sizeof(kind) - 1), value.p);
		h->has_type = true;
		h->json = is_json_type(str_of(kind));
	}
	return headers_add(h, line.p, (size_t)(value.p + value.n - line.p), e);
}

/* Messages name file and line, never what stands there. */
static int headers_file(struct headers *h, const char *path, struct err *e)
{
	_cleanup_secret_buf_ struct buf b = BUF_INIT(LIMIT_SECRET_FILE);
	const char *fault = NULL;
	unsigned number = 0;

	if (sys_read_file(AT_FDCWD, path, &b))
		return err_errno(e, CODE_LOCAL, errno, "cannot read --webhook-header-file %s", path);
	for (size_t at = 0; at < b.len;) {
		const char *end = memchr(b.data + at, '\n', b.len - at);
		struct str line = { b.data + at, end ? (size_t)(end - b.data) - at : b.len - at };
		at += line.n + 1;
		number++;
		if (line.n && line.p[line.n - 1] == '\r')
			line.n--;
		if (!str_trim(line).n)
			continue;
		if (headers_line(h, line, e, &fault))
			return fault ? err_set(e, CODE_LOCAL, "line %u of --webhook-header-file %s %s", number,
					       path, fault) : -1;
	}
	return 0;
}

static int headers_read(struct headers *h, const struct webhook *w, struct err *e)
{
	static const char type[] = "Content-Type: application/json";

	h->json = true;
	for (size_t i = 0; w->o->webhook_headers && w->o->webhook_headers[i]; i++)
		if (headers_file(h, w->o->webhook_headers[i], e))
			return -1;
	return h->has_type ? 0 : headers_add(h, type, sizeof(type) - 1, e);
}

/* A server may repeat in its answer what it was sent: header values, "Bearer TOKEN" and TOKEN, the URL's query. */
static void mask_values(const struct webhook *w, const struct headers *h, char *text)
{
	const char *query = strchr(w->url, '?');

	secret_mask(text, query ? query + 1 : NULL);
	for (size_t i = 0; i < h->n; i++) {
		const char *value = strchr(h->lines[i], ':') + 1;
		value += strspn(value, " \t");
		secret_mask(text, value);
		value = strchr(value, ' ');
		secret_mask(text, value ? value + 1 : NULL);
	}
}

/* --- the exchange --- */

/* What the server says of it, as SGLang ("message"), Triton and others ("error") do: ": words", or "". */
static const char *server_words(const struct webhook *w, const struct headers *h, yyjson_val *root,
				char *ret, size_t n)
{
	_cleanup_free_ char *copy = NULL;
	struct str s = { "", 0 };

	*ret = '\0';
	if (json_str(root, "message", &s) != 1)
		json_str(root, "error", &s);
	copy = s.n ? strndup(s.p, s.n) : NULL;
	if (copy) {
		mask_values(w, h, copy);
		memcpy(ret, ": ", 3);
		json_show(str_of(copy), ret + 2, n - 2);
	}
	return ret;
}

static int judge(const struct webhook *w, const struct headers *h, const struct http_response *r,
		 struct err *e)
{
	unsigned want = w->o->webhook_success_status;
	bool ok = want ? r->status == (long)want : r->status >= 200 && r->status < 300;
	char what[512], words[400] = "";
	struct json_doc doc;
	bool success = true;

	http_redacted(w->url, what, sizeof(what));
	if (r->body.len && json_parse(r->body.data, r->body.len, "answer", &doc, NULL) == 0) {
		json_bool(doc.root, "success", &success);
		server_words(w, h, doc.root, words, sizeof(words));
		json_release(&doc);
	}
	if (ok && (w->o->preset != NOTIFY_SGLANG || success))
		return 0;
	if (ok)
		err_set(e, CODE_NETWORK, "%s: the server answered \"success\": false%s", what, words);
	else if (r->status >= 300 && r->status < 400)
		err_set(e, CODE_NETWORK, "%s: the server answered %ld, a redirect, which is not followed; give the "
			"URL it leads to", what, r->status);
	else
		err_set(e, CODE_NETWORK, "%s: the server answered %ld%s", what, r->status, words);
	if (e)
		e->http_status = (int)r->status;
	return -1;
}

static int exchange(const struct webhook *w, const struct headers *headers, const struct buf *body,
		    struct err *e)
{
	uint64_t ms = w->o->webhook_timeout_ms ? w->o->webhook_timeout_ms : DEFAULT_TIMEOUT_MS;
	const struct http_request q = {
		.method = w->method,
		.url = w->url,
		.headers = (const char *const *)headers->lines,
		.body = buf_cstr(body),
		.body_len = body->len,
		.max_body = BODY_MAX,
		.timeout_ms = (unsigned)MIN(ms, (uint64_t)INT_MAX),
	};
	struct http_response r = { 0 };
	struct http *h;

	if (connect_options(w, &h, e))
		return -1;
	int rc = http_fetch(h, &q, &r, e);
	if (!rc)
		rc = judge(w, headers, &r, e);
	http_response_release(&r);
	http_free(h);
	return rc;
}

int webhook_call(const struct webhook *w, const struct notify_event *ev, struct err *e)
{
	_cleanup_headers_ struct headers headers = { 0 };
	_cleanup_buf_ struct buf body = BUF_INIT(BODY_MAX);

	if (headers_read(&headers, w, e))
		return -1;
	if (notify_fill(w->body, ev, headers.json, &body))
		return err_set(e, CODE_USAGE, "the body of the webhook is longer than 1 MiB");
	return exchange(w, &headers, &body, e);
}
