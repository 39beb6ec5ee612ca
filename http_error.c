// SPDX-License-Identifier: Apache-2.0
/* What failures mean and what is said about them: libcurl's codes, statuses, the registry's own words. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "http_internal.h"
#include "json.h"

static int network_error(struct err *e, enum code code, bool retryable, const char *what,
			 const char *why, const char *fix)
{
	err_set(e, code, "%s: %s%s%s", what, why, *fix ? "; " : "", fix);
	if (e)
		e->retryable = retryable;
	return -1;
}

int http_curl_error(struct http *h, CURL *c, CURLcode rc, const char *errbuf, const char *what,
		    struct err *e)
{
	char why[CURL_ERROR_SIZE + 128], fix[256] = "";
	long oserr = 0;

	if (http_peer_explain(h, c, rc, errbuf, what, e))
		return -1;
	snprintf(why, sizeof(why), "%s", errbuf && *errbuf ? errbuf : curl_easy_strerror(rc));
	if (c)
		curl_easy_getinfo(c, CURLINFO_OS_ERRNO, &oserr);
	switch (rc) {
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
		snprintf(fix, sizeof(fix), "CAs come from %.160s; name your registry's CA with --ca-file",
			 http_ca_source(h));
		return network_error(e, CODE_NETWORK, false, what, why, fix);
	case CURLE_SSL_CONNECT_ERROR:
		/* A plain-HTTP answer is no passing trouble: waiting for it to go away helps nobody */
		if (strstr(why, "invalid SSL record") || strstr(why, "7200"))
			return network_error(e, CODE_NETWORK, false, what, "the server does not speak TLS",
					     "if the registry serves plain HTTP, say --plain-http");
		/* nor does a certificate that is not one for a server */
		if (strstr(why, "Certificate") || strstr(why, "certificate"))
			return network_error(e, CODE_NETWORK, false, what, why,
					     "the server's certificate cannot be used");
		network_error(e, CODE_NETWORK, true, what, why,
			      "if the registry serves plain HTTP, say --plain-http");
		if (e)
			e->sys_errno = EPROTO; /* http_get gives up on these after a few tries */
		return -1;
	case CURLE_URL_MALFORMAT:
		return network_error(e, CODE_USAGE, false, what, why, "");
	case CURLE_OUT_OF_MEMORY:
		return err_oom(e);
	case CURLE_OPERATION_TIMEDOUT:
		return network_error(e, CODE_DEADLINE, true, what, why, "");
	case CURLE_UNSUPPORTED_PROTOCOL: /* "HTTP/0.9": no status line at all */
	case CURLE_WEIRD_SERVER_REPLY:
		return network_error(e, CODE_NETWORK, false, what, why, "is this an HTTP server?");
	case CURLE_WRITE_ERROR:
		return network_error(e, CODE_NETWORK, false, what, "the answer was not acceptable", "");
	default:
		network_error(e, CODE_NETWORK, true, what, why, "");
		if (e)
			e->sys_errno = (int)oserr;
		return -1;
	}
}

/* --- the server's own words --- */

#define WORDS_MAX 400		/* of all of them together */
#define WORDS_ERRORS 3		/* members of errors[] that are told */

/* Of a JSON value of any type, as text; objects and lists as they are written. */
static void add_any(struct buf *b, yyjson_val *v, size_t most)
{
	_cleanup_free_ char *written = NULL;
	size_t n = 0;

	if (!v || yyjson_is_null(v))
		return;
	if (yyjson_is_str(v)) {
		n = yyjson_get_len(v);
		buf_add(b, yyjson_get_str(v), MIN(n, most));
		return;
	}
	if ((yyjson_is_obj(v) && !yyjson_obj_size(v)) || (yyjson_is_arr(v) && !yyjson_arr_size(v)))
		return;
	written = yyjson_val_write(v, 0, &n);
	if (written)
		buf_add(b, written, MIN(n, most));
}

static void add_part(struct buf *b, const char *sep, yyjson_val *v, size_t most)
{
	size_t before = b->len;

	buf_adds(b, sep);
	size_t start = b->len;
	add_any(b, v, most);
	if (b->len == start) {	/* nothing to say: no separator */
		b->len = before;
		if (b->data)
			b->data[before] = '\0';
	}
}

/* errors[] of the distribution specification, or the flat envelopes of token services and gateways. */
static void json_words(yyjson_val *root, struct buf *b)
{
	yyjson_val *errors, *v;
	size_t i, max;

	if (json_arr(root, "errors", &errors) == 1) {
		yyjson_arr_foreach(errors, i, max, v) {
			if (i == WORDS_ERRORS)
				break;
			size_t before = b->len;
			add_part(b, b->len ? "; " : "", yyjson_obj_get(v, "code"), 80);
			add_part(b, b->len > before ? ": " : b->len ? "; " : "", yyjson_obj_get(v, "message"), 300);
			add_part(b, b->len > before ? ", " : b->len ? "; " : "", yyjson_obj_get(v, "detail"), 160);
		}
		return;
	}
	static const char *const names[] = { "code", "error", "message", "details", "error_description" };
	for (i = 0; yyjson_is_obj(root) && i < ARRAY_SIZE(names); i++)
		add_part(b, b->len ? ": " : "", yyjson_obj_get(root, names[i]), 300);
}

static const char *find_nocase(const char *s, const char *end, const char *what)
{
	size_t n = strlen(what);

	for (; s + n <= end; s++)
		if (strncasecmp(s, what, n) == 0)
			return s;
	return NULL;
}

/* What stands between two tags, blanks folded; false where it is missing. */
static bool between(const struct buf *body, const char *open, const char *close, struct buf *ret)
{
	const char *end = body->data + body->len, *from = find_nocase(body->data, end, open), *to;

	from = from ? memchr(from, '>', (size_t)(end - from)) : NULL;
	to = from ? find_nocase(from, end, close) : NULL;
	if (!to)
		return false;
	size_t before = ret->len;
	for (from++; from < to && ret->len - before < 120; from++) {
		bool blank = (unsigned char)*from <= ' ';
		if (!blank)
			buf_addc(ret, *from);
		else if (ret->len > before && ret->data[ret->len - 1] != ' ')
			buf_addc(ret, ' ');
	}
	while (ret->len > before && ret->data[ret->len - 1] == ' ')
		ret->data[--ret->len] = '\0';
	return ret->len > before;
}

bool http_is_html(const struct buf *body)
{
	const char *p = body && body->data ? body->data : "", *end = p + (body ? body->len : 0);

	if (end - p >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
		p += 3;
	while (p < end && (unsigned char)*p <= ' ')
		p++;
	/* a comment may stand before the rest */
	return p < end && *p == '<' &&
	       (find_nocase(p, MIN(end, p + 1024), "<html") || find_nocase(p, MIN(end, p + 1024), "<!doctype html"));
}

void http_html_words(const struct buf *body, struct buf *ret)
{
	_cleanup_buf_ struct buf title = BUF_INIT(256);

	buf_adds(ret, "an HTML page");
	if (between(body, "<title", "</title", &title))
		buf_addf(ret, " (title \"%s\")", buf_cstr(&title));
}

int http_refuse_page(struct http_response *r, const char *instead_of, struct err *e)
{
	_cleanup_buf_ struct buf page = BUF_INIT(512);
	char what[512];

	if (!http_is_html(&r->body))
		return 0;
	http_html_words(&r->body, &page);
	err_set(e, CODE_INTEGRITY,
		"%s: answered with %s instead of %s: a web page of a proxy or a login page in the way, or no registry at "
		"this address?", http_redacted(r->url, what, sizeof(what)), buf_cstr(&page), instead_of);
	http_response_release(r);
	return -1;
}

/* "404 page not found": a line of plain words. Nothing that could be an address with a signature in it. */
static bool is_plain_line(const struct buf *body)
{
	size_t n = body->len;

	while (n && (unsigned char)body->data[n - 1] <= ' ')
		n--;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)body->data[i] < ' ' || (unsigned char)body->data[i] > '~' ||
		    strchr("?=<>{}", body->data[i]))
			return false;
	return n > 0 && n <= 160;
}

/* What looks like the value of an Authorization header: some servers show the request that they refuse. */
static void mask_authorization(struct buf *b)
{
	static const char token68[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=";
	char *end = b->data + b->len;

	for (char *s = b->data; s < end; s++) {
		size_t scheme = strncasecmp(s, "bearer ", 7) == 0 ? 7 : strncasecmp(s, "basic ", 6) == 0 ? 6 : 0;
		size_t n = scheme ? strspn(s + scheme, token68) : 0;

		if (n >= 16)	/* longer than the words that follow in a sentence */
			memset(s + scheme, '*', n);
	}
}

void http_error_words(const struct buf *body, struct buf *ret)
{
	_cleanup_buf_ struct buf copy = BUF_INIT(LIMIT_ERROR_BODY);
	struct json_doc doc;

	if (!body || !body->len || buf_add(&copy, body->data, MIN(body->len, (size_t)LIMIT_ERROR_BODY)))
		return;
	mask_authorization(&copy);
	if (http_is_html(&copy)) {
		http_html_words(&copy, ret);
		buf_adds(ret, " instead of a registry's answer: a proxy or a login page in the way?");
	} else if (json_parse(copy.data, copy.len, "error", &doc, NULL) == 0) {
		json_words(doc.root, ret);
		json_release(&doc);
	} else if (between(&copy, "<Code", "</Code", ret)) { /* storage: S3 and its kin */
		_cleanup_buf_ struct buf message = BUF_INIT(256);
		if (between(&copy, "<Message", "</Message", &message))
			buf_addf(ret, ": %s", buf_cstr(&message));
	} else if (is_plain_line(&copy)) {
		buf_addf(ret, "%.*s", (int)strcspn(copy.data, "\r\n"), copy.data);
	}
}

bool http_status_retryable(long status)
{
	return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

/* Some registries say so with 403 or another status, GitHub in words only; Harbor's spelling has no S. */
static bool says_too_many(const struct buf *body)
{
	static const char *const codes[] = { "TOOMANYREQUESTS", "TOO_MANY_REQUESTS", "TOO_MANY_REQUEST" };
	struct json_doc doc;
	yyjson_val *errors;
	struct str code;
	bool found = false;

	if (!body || !body->len || json_parse(body->data, body->len, "error", &doc, NULL))
		return false;
	if (json_arr(doc.root, "errors", &errors) == 1 &&
	    json_str(yyjson_arr_get_first(errors), "code", &code) == 1)
		for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
			found = found || str_caseeq(code, codes[i]);
	json_release(&doc);
	return found || find_nocase(body->data, body->data + body->len, "rate limit");
}

static void set_status_error(long status, const char *what, const char *words, bool limited, struct err *e)
{
	if (limited) {	/* nothing is wrong with the credentials */
		err_set(e, CODE_NETWORK, "%s: the server limits how often it may be asked, %ld%s", what, status, words);
		return;
	}
	switch (status) {
	case 401:
		err_set(e, CODE_AUTH, "%s: not authorised, 401%s; check the credentials for this registry",
			what, words);
		break;
	case 403:
		err_set(e, CODE_AUTH, "%s: forbidden, 403%s", what, words);
		break;
	case 407:
		err_set(e, CODE_AUTH, "%s: the proxy wants credentials, 407%s; put them into the proxy's variable: "
			"http://USER:PASSWORD@HOST:PORT", what, words);
		break;
	case 412: /* Harbor's policy violations */
		err_set(e, CODE_AUTH, "%s: refused by a policy of the registry, 412%s; whoever runs the project can lift it",
			what, words);
		break;
	case 404:
	case 410:
		err_set(e, CODE_NOT_FOUND, "%s: not found, %ld%s; check repository, tag and digest", what,
			status, words);
		break;
	default:
		err_set(e, CODE_NETWORK, "%s: the server answered %ld%s", what, status, words);
	}
}

static int status_error(long status, const char *what, const struct buf *body, bool limited, struct err *e)
{
	_cleanup_buf_ struct buf said = BUF_INIT(4096);
	char words[WORDS_MAX + 16] = "";

	http_error_words(body, &said);
	if (said.len)
		snprintf(words, sizeof(words), " (%.*s%s)", WORDS_MAX, buf_cstr(&said),
			 said.len > WORDS_MAX ? "..." : "");
	limited = limited || status == 429 || (status >= 400 && status != 401 && says_too_many(body));
	set_status_error(status, what, words, limited, e);
	if (!e)
		return -1;
	e->http_status = (int)status;
	e->retryable = http_status_retryable(status) || limited;
	return -1;
}

int http_status_error(long status, const char *what, const struct buf *body, struct err *e)
{
	return status_error(status, what, body, false, e);
}

/* "ratelimit-limit: 100;w=21600", as Docker Hub sends them. */
static void add_limits(const struct http_response *r, struct buf *b)
{
	const char *limit = http_response_header(r, "RateLimit-Limit", 0);
	const char *left = http_response_header(r, "RateLimit-Remaining", 0);
	uint64_t n = 0, window = 0;

	if (!limit || !str_u64((struct str){ limit, strcspn(limit, ";,") }, &n))
		return;
	buf_addf(b, "; its limit is %llu requests", (unsigned long long)n);
	const char *w = strstr(limit, ";w=");
	if (w && str_u64((struct str){ w + 3, strspn(w + 3, "0123456789") }, &window))
		buf_addf(b, " in %llu s", (unsigned long long)window);
	if (left && str_u64((struct str){ left, strcspn(left, ";,") }, &n))
		buf_addf(b, ", %llu left", (unsigned long long)n);
}

int http_answer_error(long status, const struct http_response *r, const char *what,
		      const char *credentials, struct err *e)
{
	_cleanup_buf_ struct buf more = BUF_INIT(512);
	uint32_t after = http_retry_after_ms(http_response_header(r, "Retry-After", 0), time(NULL));

	/* GitHub's secondary limits come as 403: who says when to come back means it */
	status_error(status, what, &r->body, status == 403 && after, e);
	if (!e)
		return -1;
	e->retry_after_ms = after;
	if (status == 429)
		add_limits(r, &more);
	if (credentials && *credentials) {
		bool none = strncmp(credentials, "no ", 3) == 0;
		buf_addf(&more, "; %s%s", none ? "" : "credentials: ", credentials);
		if (status == 403 && !e->retryable)
			buf_adds(&more, none ? "; see: fetcher help auth" : ", which may not read it");
		else if (e->code == CODE_NETWORK && e->retryable && status < 500 && none)
			buf_adds(&more, ": who logs in may ask more often; see: fetcher help auth");
		else if (status == 404 && none)
			buf_adds(&more, ": some registries say so of what is private");
	}
	size_t n = strlen(e->msg);
	/* what the server said is shortened rather than what can be done about it */
	if (n + more.len > LIMIT_ERR_MSG)
		n = LIMIT_ERR_MSG - more.len;
	snprintf(e->msg + n, sizeof(e->msg) - n, "%s", buf_cstr(&more));
	return -1;
}

/* --- warnings --- */

bool http_next_warning(const char **value, char *ret, size_t n)
{
	const char *p = *value;
	size_t len = 0;

	/* warn-code SP warn-agent SP quoted text; several stand behind commas (RFC 7234 5.5) */
	while (*p && *p != '"')
		p++;
	bool usable = strncmp(*value + strspn(*value, " \t,"), "299", 3) == 0;
	if (!*p++)
		return false;
	for (; *p && *p != '"'; p++) {
		if (*p == '\\' && p[1])
			p++;
		if ((unsigned char)*p >= ' ' && *p != 0x7f && len + 1 < n)
			ret[len++] = *p;
	}
	ret[usable ? len : 0] = '\0';
	if (*p)
		p++;
	while (*p && *p != ',')	/* a date may follow, in quotes of its own */
		p += *p == '"' && strchr(p + 1, '"') ? strchr(p + 1, '"') - p + 1 : 1;
	*value = p;
	return true;
}

bool http_warning_is_new(const char *text)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static uint64_t known[16];
	static unsigned n;
	uint64_t h = 14695981039346656037u;	/* FNV-1a */
	bool is_new = true;

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * 1099511628211u;
	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < MIN(n, (unsigned)ARRAY_SIZE(known)); i++)
		is_new = is_new && known[i] != h;
	/* who says something new each time is not listened to for ever */
	if (n < ARRAY_SIZE(known) && is_new)
		known[n++] = h;
	else
		is_new = false;
	pthread_mutex_unlock(&lock);
	return is_new;
}
