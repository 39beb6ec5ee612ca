// SPDX-License-Identifier: Apache-2.0
#include "token.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "json.h"
#include "secret.h"

/* The user name that Azure's registries document for a refresh token used as a password. */
#define TOKEN_USER "00000000-0000-0000-0000-000000000000"
#define CLIENT_ID "fetcher"

void token_release(struct token *t)
{
	secret_free(t->value);
	secret_free(t->refresh_token);
	*t = (struct token){ 0 };
}

bool token_clean(const char *s)
{
	for (const char *p = s; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f)
			return false;
	return *s != '\0';
}

/* --- where the service may be --- */

static bool private_v4(uint32_t a)
{
	static const struct {
		uint32_t net;
		unsigned bits;
	} nets[] = {
		{ 0x00000000, 8 },  { 0x0a000000, 8 },	/* this host, private */
		{ 0x64400000, 10 },			/* carrier NAT, some clouds' metadata */
		{ 0x7f000000, 8 },  { 0xa9fe0000, 16 },	/* loopback, link-local */
		{ 0xac100000, 12 }, { 0xc0000000, 24 }, { 0xc0a80000, 16 },
		{ 0xc6120000, 15 },			/* benchmarks */
		{ 0xe0000000, 3 },			/* multicast, reserved, broadcast */
	};

	for (size_t i = 0; i < ARRAY_SIZE(nets); i++)
		if ((a ^ nets[i].net) >> (32 - nets[i].bits) == 0)
			return true;
	return false;
}

static uint32_t v4_at(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool private_v6(const unsigned char a[static 16])
{
	static const unsigned char zero[12];
	static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };
	static const unsigned char nat64[12] = { 0x00, 0x64, 0xff, 0x9b };
	static const unsigned char local_nat64[6] = { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 };

	/* addresses that carry an IPv4 address lead where that leads; ::/96 holds :: and ::1 */
	if (!memcmp(a, zero, 12) || !memcmp(a, mapped, 12) || !memcmp(a, nat64, 12))
		return private_v4(v4_at(a + 12));
	if (a[0] == 0x20 && a[1] == 0x02)
		return private_v4(v4_at(a + 2));
	return !memcmp(a, local_nat64, 6) || (a[0] & 0xfe) == 0xfc || a[0] == 0xff ||
	       (a[0] == 0xfe && (a[1] & 0xc0) >= 0x80);
}

/* Host part of "scheme://host:port", without brackets and IPv6 zone; false when it does not fit. */
static bool origin_host(const char *origin, char *ret, size_t n)
{
	const char *host = strstr(origin, "://"), *end;

	if (!host)
		return false;
	host += 3;
	if (*host == '[') {
		host++;
		end = host + strcspn(host, "]%");
	} else {
		end = strrchr(host, ':');
		if (!end)
			end = host + strlen(host);
	}
	/* a name with the root's dot is the same name */
	if (end > host && end[-1] == '.')
		end--;
	if ((size_t)(end - host) >= n)
		return false;
	memcpy(ret, host, (size_t)(end - host));
	ret[end - host] = '\0';
	return true;
}

static bool localhost_name(const char *host)
{
	size_t n = strlen(host);

	return strcmp(host, "localhost") == 0 ||
	       (n > 10 && strcmp(host + n - 10, ".localhost") == 0);
}

/*
 * inet_aton reads 127.1, 0x7f000001 and 017700000001 as resolvers do. Digits that are no address
 * are no name either.
 */
static bool private_host(const char *host)
{
	struct in6_addr six;
	struct in_addr four;

	if (!*host || localhost_name(host))
		return true;
	if (inet_pton(AF_INET6, host, &six) == 1)
		return private_v6(six.s6_addr);
	if (inet_aton(host, &four))
		return private_v4(ntohl(four.s_addr));
	return host[strspn(host, "0123456789.")] == '\0';
}

static bool loopback_host(const char *host)
{
	struct in_addr four;

	return localhost_name(host) || strcmp(host, "::1") == 0 ||
	       (inet_aton(host, &four) && ntohl(four.s_addr) >> 24 == 127);
}

static int realm_refused(struct err *e, const char *origin, const char *realm, const char *why)
{
	char what[256];

	return err_set(e, CODE_AUTH,
		       "the registry %s names the token service %s, which is refused: %s", origin,
		       http_redacted(realm, what, sizeof(what)), why);
}

static bool has_scheme(const char *s)
{
	return strncasecmp(s, "http://", 7) == 0 || strncasecmp(s, "https://", 8) == 0;
}

int token_realm(const char *origin, const char *base, const char *realm, bool allow_private,
		char **ret, struct err *e)
{
	_cleanup_free_ char *url = NULL;
	char there[512], host[512], own[512];
	struct err ignored;

	if (!token_clean(realm) || strlen(realm) > LIMIT_URL)
		return realm_refused(e, origin, realm, "it is not a URL");
	if (strncasecmp(realm, "http://", 7) == 0 && strncmp(origin, "https:", 6) == 0)
		return realm_refused(e, origin, realm, "credentials would travel over plain HTTP");
	if (has_scheme(realm))
		url = strdup(realm);
	else if (http_redirect_target(base, realm, &url, &ignored) < 0)
		return realm_refused(e, origin, realm, "it is not an http(s) URL");
	if (!url)
		return err_oom(e);
	url[strcspn(url, "#")] = '\0';
	if (http_origin(url, there, sizeof(there)) < 0 || !origin_host(there, host, sizeof(host)) ||
	    !origin_host(origin, own, sizeof(own)))
		return realm_refused(e, origin, realm, "it is not a plain http(s) URL");
	if (!allow_private && private_host(host) && strcmp(host, own) != 0 &&
	    !(loopback_host(host) && loopback_host(own)))
		return realm_refused(e, origin, realm, "it is on a private address; "
				     "--allow-private-realm permits that");
	*ret = steal_ptr(&url);
	return 0;
}

/* --- life --- */

static bool digits(const char *s, size_t n, unsigned *ret)
{
	*ret = 0;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		*ret = *ret * 10 + (unsigned)(s[i] - '0');
	}
	return true;
}

/* "2026-01-02T03:04:05[.6]Z|+07:00" (RFC 3339). */
static bool parse_time(const char *s, int64_t *ret)
{
	unsigned year, mon, day, hour, min, sec, oh = 0, om = 0;
	const char *p;

	if (strlen(s) < 20 || s[4] != '-' || s[7] != '-' || (s[10] | 0x20) != 't' || s[13] != ':' ||
	    s[16] != ':' || !digits(s, 4, &year) || !digits(s + 5, 2, &mon) ||
	    !digits(s + 8, 2, &day) || !digits(s + 11, 2, &hour) || !digits(s + 14, 2, &min) ||
	    !digits(s + 17, 2, &sec) || mon < 1 || mon > 12)
		return false;
	p = s + 19;
	if (*p == '.')
		p += 1 + strspn(p + 1, "0123456789");
	if (*p == '+' || *p == '-') {
		if (strlen(p) != 6 || p[3] != ':' || !digits(p + 1, 2, &oh) ||
		    !digits(p + 4, 2, &om))
			return false;
	} else if ((*p | 0x20) != 'z') {
		return false;
	}
	struct tm tm = { .tm_year = (int)year - 1900, .tm_mon = (int)mon - 1, .tm_mday = (int)day,
			 .tm_hour = (int)hour, .tm_min = (int)min, .tm_sec = (int)sec };
	int64_t offset = ((int64_t)oh * 60 + om) * 60;
	*ret = (int64_t)timegm(&tm) + (*p == '+' ? -offset : offset);
	return true;
}

uint64_t token_life_ms(uint64_t expires_in, const char *issued_at, int64_t now_unix)
{
	uint64_t life = MAX(expires_in, (uint64_t)TOKEN_LIFE_MIN_S);
	int64_t issued;

	life = MIN(life, (uint64_t)TOKEN_LIFE_MAX_S);
	/*
	 * A service that caches tokens hands out old ones, and then issued_at counts. An age that
	 * leaves next to nothing, or a birth in the future, is a wrong clock: the token is taken
	 * as new.
	 */
	if (issued_at && parse_time(issued_at, &issued) && issued < now_unix &&
	    (uint64_t)(now_unix - issued) + 20 < life)
		life -= (uint64_t)(now_unix - issued);
	return life * 1000;
}

uint64_t token_renew_ms(uint64_t life_ms)
{
	return MIN(life_ms / 10 * 9, life_ms > 10000 ? life_ms - 10000 : life_ms / 2);
}

/* --- the exchange --- */

int token_basic(const struct credential *c, struct buf *ret, struct err *e)
{
	_cleanup_secret_buf_ struct buf pair = BUF_INIT(LIMIT_SECRET_FILE);
	const char *user = c->username && *c->username ? c->username : NULL;
	const char *password = c->password && *c->password ? c->password : NULL;

	if (!password && c->identity_token) {
		password = c->identity_token;
		if (!user || strcmp(user, "<token>") == 0)
			user = TOKEN_USER;
	}
	if (!user || !password)
		return err_set(e, CODE_AUTH, "%s: the %s is empty", c->source,
			       user ? "password" : "user name");
	if (strchr(user, ':'))
		return err_set(e, CODE_USAGE, "%s: a user name cannot hold a colon", c->source);
	buf_adds(&pair, user);
	buf_addc(&pair, ':');
	buf_adds(&pair, password);
	buf_adds(ret, "Basic ");
	if (pair.failed || base64_encode(pair.data, pair.len, ret) < 0)
		return err_set(e, CODE_USAGE, "%s: user name and password are too long", c->source);
	return 0;
}

static void add_param(struct buf *b, char *sep, const char *name, const char *value)
{
	if (*sep)
		buf_addc(b, *sep);
	*sep = '&';
	buf_addf(b, "%s=", name);
	buf_add_urlencoded(b, value, "");
}

static int get_url(const struct token_query *q, bool scoped, struct buf *ret, struct err *e)
{
	char sep = strchr(q->realm, '?') ? '&' : '?';

	buf_adds(ret, q->realm);
	if (q->service)
		add_param(ret, &sep, "service", q->service);
	for (size_t i = 0; scoped && i < q->n_scopes; i++)
		add_param(ret, &sep, "scope", q->scopes[i]);
	if (q->cred && q->cred->username && *q->cred->username)
		add_param(ret, &sep, "account", q->cred->username);
	if (ret->failed)
		return err_set(e, CODE_AUTH, "the URL of the token service is too long");
	return 0;
}

static int post_body(const struct token_query *q, struct buf *ret, struct err *e)
{
	_cleanup_buf_ struct buf scopes = BUF_INIT(LIMIT_URL);
	char sep = '\0';

	add_param(ret, &sep, "grant_type", "refresh_token");
	if (q->service)
		add_param(ret, &sep, "service", q->service);
	add_param(ret, &sep, "client_id", CLIENT_ID);
	for (size_t i = 0; i < q->n_scopes; i++)
		buf_addf(&scopes, "%s%s", i ? " " : "", q->scopes[i]);
	add_param(ret, &sep, "scope", buf_cstr(&scopes));
	add_param(ret, &sep, "refresh_token", q->cred->identity_token);
	if (ret->failed || scopes.failed)
		return err_set(e, CODE_AUTH, "the token request is too long");
	return 0;
}

/*
 * The target of a redirect answer; only within the origin of the realm, because the request
 * carries credentials.
 */
static int next_hop(const struct token_query *q, const struct http_request *r,
		    const struct http_response *resp, char **ret, struct err *e)
{
	const char *location = http_response_header(resp, "Location", 0);
	char origin[512], what[256], to[256];

	http_redacted(q->realm, what, sizeof(what));
	if (!location || http_origin(q->realm, origin, sizeof(origin)) < 0)
		return err_set(e, CODE_AUTH,
			       "token service %s: redirect %ld without a usable Location", what,
			       resp->status);
	if (r->body && (resp->status == 301 || resp->status == 302 || resp->status == 303))
		return err_set(e, CODE_AUTH, "token service %s: answered a POST with redirect %ld",
			       what, resp->status);
	if (http_redirect_target(r->url, location, ret, e) < 0)
		return -1;
	if (http_same_origin(*ret, origin))
		return 0;
	err_set(e, CODE_AUTH,
		"token service %s: redirects to %s; credentials are not sent to another host", what,
		http_redacted(*ret, to, sizeof(to)));
	free(*ret);
	*ret = NULL;
	return -1;
}

static bool is_redirect(long status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Any status but a redirect is success. */
static int exchange(const struct token_query *q, struct http_request r, struct http_response *ret,
		    struct err *e)
{
	_cleanup_free_ char *url = NULL;
	char what[256];

	r.max_body = LIMIT_TOKEN;
	for (unsigned hops = 0;; hops++) {
		struct http_response resp = { 0 };
		char *next = NULL;

		if (q->fetch(q->ctx, &r, &resp, e) < 0) {
			/* a token service that talks nonsense gives no access; the artifact is not what is wrong */
			if (e && e->code == CODE_INTEGRITY)
				e->code = CODE_AUTH;
			return -1;
		}
		if (!is_redirect(resp.status)) {
			*ret = resp;
			return 0;
		}
		if (hops == TOKEN_REDIRECTS)
			err_set(e, CODE_AUTH, "token service %s: more than %d redirects",
				http_redacted(q->realm, what, sizeof(what)), TOKEN_REDIRECTS);
		else
			next_hop(q, &r, &resp, &next, e);
		http_response_release(&resp);
		if (!next)
			return -1;
		free(url);
		r.url = url = next;
	}
}

static int exchange_get(const struct token_query *q, bool scoped, struct http_response *ret,
			struct err *e)
{
	static const char *const headers[] = { "Accept: application/json", NULL };
	_cleanup_secret_buf_ struct buf basic = BUF_INIT(LIMIT_TOKEN * 2);
	_cleanup_buf_ struct buf url = BUF_INIT(LIMIT_URL);

	if (get_url(q, scoped, &url, e) < 0 || (q->cred && token_basic(q->cred, &basic, e) < 0))
		return -1;
	return exchange(q, (struct http_request){ .method = "GET", .url = buf_cstr(&url),
						  .headers = headers,
						  .authorization = q->cred ? buf_cstr(&basic) : NULL },
			ret, e);
}

static int exchange_post(const struct token_query *q, struct http_response *ret, struct err *e)
{
	static const char *const headers[] = { "Accept: application/json",
					       "Content-Type: application/x-www-form-urlencoded",
					       NULL };
	_cleanup_secret_buf_ struct buf body = BUF_INIT(LIMIT_TOKEN * 4);

	if (post_body(q, &body, e) < 0)
		return -1;
	return exchange(q, (struct http_request){ .method = "POST", .url = q->realm,
						  .headers = headers, .body = buf_cstr(&body),
						  .body_len = body.len },
			ret, e);
}

/* A service may show what it was sent, also as it was encoded. */
static void mask_secrets(const struct credential *c, struct buf *body)
{
	const char *secrets[] = { c ? c->password : NULL, c ? c->identity_token : NULL };

	for (size_t i = 0; i < ARRAY_SIZE(secrets) && body->data; i++) {
		_cleanup_secret_buf_ struct buf encoded = BUF_INIT(LIMIT_TOKEN * 4);

		if (!secrets[i])
			continue;
		secret_mask_bytes(body->data, body->len, secrets[i]);
		buf_add_urlencoded(&encoded, secrets[i], "");
		secret_mask_bytes(body->data, body->len, buf_cstr(&encoded));
	}
}

static int refused(const struct token_query *q, struct http_response *r, const char *what, struct err *e)
{
	/* oauth2 answers 400 invalid_grant to a refresh token that ran out */
	long status = r->status == 400 && q->cred && q->cred->identity_token ? 401 : r->status;

	mask_secrets(q->cred, &r->body);
	http_status_error(status, what, &r->body, e);
	err_wrap(e, "token service");
	if (e) {
		if (!e->retryable)
			e->code = CODE_AUTH;
		e->retry_after_ms = http_retry_after_ms(http_response_header(r, "Retry-After", 0),
							time(NULL));
	}
	return -1;
}

static int take_token(struct json_doc *doc, const char *name, char **ret)
{
	struct str s;

	if (json_str(doc->root, name, &s) <= 0 || !s.n)
		return 0;
	if (memchr(s.p, '\0', s.n))
		return -1;
	*ret = strndup(s.p, s.n);
	return *ret && token_clean(*ret) ? 0 : -1;
}

static int parse_answer(const struct token_query *q, struct http_response *r, const char *what,
			struct token *ret, struct err *e)
{
	_cleanup_secret_json_ struct json_doc doc = { 0 };
	struct token t = { 0 };
	struct str issued;
	char issued_at[64] = "";
	uint64_t expires_in = 0;

	if (http_is_html(&r->body)) {
		_cleanup_buf_ struct buf page = BUF_INIT(512);

		mask_secrets(q->cred, &r->body);
		http_html_words(&r->body, &page);
		return err_set(e, CODE_AUTH,
			       "token service %s: answered with %s instead of a token: a proxy or a login page in "
			       "the way?", what, buf_cstr(&page));
	}
	if (json_parse(buf_cstr(&r->body), r->body.len, "answer", &doc, e) < 0) {
		if (e)
			e->code = CODE_AUTH;
		return err_wrap(e, "token service %s", what);
	}
	if (!yyjson_is_obj(doc.root) || take_token(&doc, "access_token", &t.value) < 0 ||
	    (!t.value && take_token(&doc, "token", &t.value) < 0) || !t.value) {
		token_release(&t);
		return err_set(e, CODE_AUTH, "token service %s: answered without a usable token",
			       what);
	}
	if (take_token(&doc, "refresh_token", &t.refresh_token) < 0) {
		secret_free(t.refresh_token);
		t.refresh_token = NULL;
	}
	json_u64(doc.root, "expires_in", &expires_in);
	if (json_str(doc.root, "issued_at", &issued) > 0 && issued.n < sizeof(issued_at))
		memcpy(issued_at, issued.p, issued.n);
	t.life_ms = token_life_ms(expires_in, issued_at, time(NULL));
	*ret = t;
	return 0;
}

int token_fetch(const struct token_query *q, struct token *ret, struct err *e)
{
	bool post = q->cred && q->cred->identity_token;
	struct http_response r = { 0 };
	char what[256];
	int rc;

	http_redacted(q->realm, what, sizeof(what));
	rc = post ? exchange_post(q, &r, e) : exchange_get(q, true, &r, e);
	if (rc == 0 && post && (r.status == 404 || r.status == 405)) {
		http_response_release(&r);
		r = (struct http_response){ 0 };
		rc = exchange_get(q, true, &r, e);
	}
	if (rc < 0)
		return -1;
	if (r.status >= 200 && r.status < 300)
		rc = parse_answer(q, &r, what, ret, e);
	else
		rc = refused(q, &r, what, e);
	if (r.body.data)
		explicit_bzero(r.body.data, r.body.len);
	http_response_release(&r);
	return rc;
}

int token_check_login(const struct token_query *q)
{
	struct http_response r = { 0 };
	struct err e = { 0 };
	int verdict;

	if (!q->cred || q->cred->identity_token || exchange_get(q, false, &r, &e) < 0)
		return -1;
	verdict = r.status == 200 ? 1 : r.status == 401 ? 0 : -1;
	if (r.body.data)
		explicit_bzero(r.body.data, r.body.len);
	http_response_release(&r);
	return verdict;
}
