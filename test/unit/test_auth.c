// SPDX-License-Identifier: Apache-2.0
/* Challenges answered: Basic, Bearer, tokens renewed and refused, against a registry and a token service played here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "auth.h"
#include "dockercfg.h"
#include "token.h"

#define ORIGIN "https://reg.example:443"
#define REALM "https://auth.example/token"
#define BLOB ORIGIN "/v2/team/model/blobs/sha256:0"
#define BEARER "Bearer realm=\"" REALM "\",service=\"svc\",scope=\"repository:team/model:pull\""
#define USER_PW "Basic dTpwdw=="		/* u:pw */
#define PULL "scope=repository%3Ateam%2Fmodel%3Apull"

/* --- the world --- */

struct seen {
	char method[8], url[1024], authorization[256], body[1024];
};

static struct world {
	/* the registry */
	const char *challenge;		/* to a request without credentials */
	const char *challenge_refused;	/* to one with refused credentials; NULL = the same */
	const char *ping_challenge;	/* of /v2/; NULL = challenge, "" = none */
	const char *accepts;		/* Authorization it takes; NULL = the newest token */
	/* the token service */
	int status, post_status;	/* 0 = 200; 0 = as status */
	const char *answer;		/* body; NULL = a token */
	const char *location;
	const char *wants;		/* Authorization it wants; NULL = any */
	unsigned expires_in;
	int transport_failures;		/* so many exchanges fail at first */
	bool stale_tokens;		/* the registry knows none of them */
	/* what happened */
	unsigned tokens;
	struct seen log[64];
	unsigned n;
	atomic_int inside, most_inside;
} w;

static uint64_t clock_ms;
static uint64_t test_clock(void)
{
	return clock_ms;
}

static void add_header(struct http_response *r, const char *name, const char *value)
{
	r->headers = realloc(r->headers, (r->n_headers + 1) * sizeof(*r->headers));
	r->headers[r->n_headers++] = (struct http_header){ strdup(name), strdup(value) };
}

static void respond(struct http_response *r, const struct http_request *q, long status)
{
	*r = (struct http_response){ .status = status, .url = strdup(q->url),
				     .with_credentials = q->authorization && *q->authorization,
				     .body = BUF_INIT(LIMIT_TOKEN) };
}

static void registry(const struct http_request *q, struct http_response *r)
{
	const char *path = q->url + strlen(ORIGIN);
	char newest[32];
	bool good, given = q->authorization && *q->authorization;

	snprintf(newest, sizeof(newest), "Bearer tok-%u", w.tokens);
	good = given && !w.stale_tokens && strcmp(q->authorization, w.accepts ? w.accepts : newest) == 0;
	respond(r, q, good ? 200 : 401);
	if (good)
		return;
	const char *c = given && w.challenge_refused ? w.challenge_refused : w.challenge;
	if (!given && strcmp(path, "/v2/") == 0 && w.ping_challenge)
		c = w.ping_challenge;
	if (c && *c)
		add_header(r, "www-authenticate", c);
}

static void token_service(const struct http_request *q, struct http_response *r)
{
	int status = w.status ? w.status : 200;

	if (w.post_status && strcmp(q->method, "POST") == 0)
		status = w.post_status;
	if (w.wants && (!q->authorization || strcmp(q->authorization, w.wants) != 0))
		status = 401;
	respond(r, q, status);
	if (w.location && status / 100 == 3)
		add_header(r, "Location", w.location);
	if (status == 200 && w.answer)
		buf_adds(&r->body, w.answer);
	else if (status == 200)
		buf_addf(&r->body, "{\"token\":\"tok-%u\",\"expires_in\":%u}", ++w.tokens, w.expires_in);
	else
		buf_adds(&r->body, "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"wrong password pw-secret\"}]}");
}

static int exchange(void *ctx, const struct http_request *q, struct http_response *ret, struct err *e)
{
	struct seen *s = &w.log[w.n % 64];

	(void)ctx;
	w.n++;
	snprintf(s->method, sizeof(s->method), "%s", q->method);
	snprintf(s->url, sizeof(s->url), "%s", q->url);
	snprintf(s->authorization, sizeof(s->authorization), "%s", q->authorization ? q->authorization : "");
	snprintf(s->body, sizeof(s->body), "%.*s", (int)q->body_len, q->body ? q->body : "");
	if (w.transport_failures) {
		w.transport_failures--;
		err_set(e, CODE_NETWORK, "connection refused");
		e->retryable = true;
		return -1;
	}
	if (strncmp(q->url, ORIGIN "/", strlen(ORIGIN) + 1) == 0)
		registry(q, ret);
	else
		token_service(q, ret);
	return 0;
}

static const struct seen *last(const char *part)
{
	for (unsigned i = w.n; i-- > 0;)
		if (strstr(w.log[i].url, part))
			return &w.log[i];
	fail_msg("no request to %s", part);
	return NULL;
}

static unsigned count(const char *part)
{
	unsigned k = 0;

	for (unsigned i = 0; i < w.n; i++)
		k += strstr(w.log[i].url, part) != NULL;
	return k;
}

/* --- the client --- */

static struct auth *a;
static const struct http_authority *au;
static struct err err;
static struct auth_options opt;
static char cfg[64], secret[64];
static const char *cfg_files[2];
static const char *no_env[] = { "HOME=/nonexistent", NULL };

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void config(const char *entry)
{
	char text[1024];

	snprintf(text, sizeof(text), "{\"auths\":{\"reg.example\":%s}}", entry);
	put(cfg, text);
	cfg_files[0] = cfg;
	opt.config_files = cfg_files;
}

static void open_auth(void)
{
	if (auth_new(&a, NULL, &opt, ORIGIN, "reg.example", "team/model", &err))
		fail_msg("auth_new: %s", err.msg);
	au = auth_authority(a);
}

/* As http_get does it: 200 or the error. */
static int get_url(const char *url)
{
	memset(&err, 0, sizeof(err));
	for (unsigned tries = 0; tries < 10; tries++) {
		struct buf value = BUF_INIT(LIMIT_TOKEN);
		struct http_response r = { 0 };
		unsigned generation;
		long status;

		if (au->authorize(au->ctx, &value, &generation, &err)) {
			buf_release(&value);
			return -1;
		}
		struct http_request q = { .method = "GET", .url = url, .authorization = buf_cstr(&value) };
		exchange(NULL, &q, &r, &err);
		buf_release(&value);
		status = r.status;
		int rc = 0;
		if (status == 401)
			rc = au->challenged(au->ctx, &r, generation, &err);
		else
			au->accepted(au->ctx, generation);
		http_response_release(&r);
		if (rc)
			return -1;
		if (status != 401)
			return (int)status;
	}
	fail_msg("asked ten times");
	return -1;
}

static void good(void)
{
	int status = get_url(BLOB);

	if (status != 200)
		fail_msg("%d %s", status, err.msg);
}

static void says(const char *text)
{
	if (!strstr(err.msg, text))
		fail_msg("'%s' lacks '%s'", err.msg, text);
}

static void bad(enum code code, const char *text)
{
	assert_int_equal(get_url(BLOB), -1);
	if (err.code != code)
		fail_msg("code %d: %s", err.code, err.msg);
	says(text);
	assert_null(strstr(err.msg, "pw-secret"));
}

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	memset(&err, 0, sizeof(err));
	clock_ms = 1000000;
	w.challenge = BEARER;
	w.expires_in = 300;
	opt = (struct auth_options){ .environ_override = no_env, .fetch_override = exchange,
				     .clock_override = test_clock };
	snprintf(cfg, sizeof(cfg), "/tmp/auth.cfg.%d", (int)getpid());
	snprintf(secret, sizeof(secret), "/tmp/auth.secret.%d", (int)getpid());
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	auth_free(a);
	a = NULL;
	unlink(cfg);
	unlink(secret);
	return 0;
}

/* --- Bearer --- */

static void test_anonymous_token(void **state)
{
	(void)state;
	open_auth();
	good();
	assert_string_equal(last("auth.example")->url, REALM "?service=svc&" PULL);
	assert_string_equal(last("auth.example")->authorization, "");
	good();
	assert_int_equal(w.tokens, 1);
	assert_int_equal(w.n, 4);	/* 401, token, 200, 200 */
}

static void test_open_registry(void **state)
{
	(void)state;
	w.accepts = "";
	open_auth();
	struct buf value = BUF_INIT(64);
	unsigned generation;
	assert_int_equal(au->authorize(au->ctx, &value, &generation, &err), 0);
	assert_int_equal(value.len, 0);
	assert_int_equal(w.n, 0);
	buf_release(&value);
}

static void test_token_with_password(void **state)
{
	(void)state;
	config("{\"username\":\"u\",\"password\":\"pw\"}");
	w.wants = USER_PW;
	open_auth();
	good();
	assert_string_equal(last("auth.example")->url, REALM "?service=svc&" PULL "&account=u");
	/* the password goes to the token service only */
	assert_string_equal(last("/blobs/")->authorization, "Bearer tok-1");
}

static void test_realm_with_query_and_no_service(void **state)
{
	(void)state;
	w.challenge = "Bearer realm=\"" REALM "?tenant=x#frag\"";
	open_auth();
	good();
	assert_string_equal(last("auth.example")->url, REALM "?tenant=x&" PULL);
}

static void test_relative_realm(void **state)
{
	(void)state;
	w.challenge = "Bearer realm=\"/token\"";
	w.accepts = "Bearer never";
	open_auth();
	bad(CODE_AUTH, "");
	assert_string_equal(last("/token")->url, "https://reg.example:443/token?" PULL);
}

static void test_access_token_preferred(void **state)
{
	(void)state;
	w.answer = "{\"token\":\"old\",\"access_token\":\"new\"}";
	w.accepts = "Bearer new";
	open_auth();
	good();
}

static void test_useless_answers(void **state)
{
	static const char *const answers[] = {
		"", "{}", "[]", "{\"token\":\"\"}", "{\"token\":5}", "{\"token\":\"a b\"}",
		"{\"token\":\"a\\r\\nX: y\"}", "{\"token\":\"a\\u0000b\"}", "<html>",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		w.answer = answers[i];
		open_auth();
		bad(CODE_AUTH, "token service " REALM);
		auth_free(a);
		a = NULL;
	}
}

static void test_renewed_before_it_ends(void **state)
{
	(void)state;
	w.expires_in = 300;
	open_auth();
	good();
	clock_ms += 269000;
	good();
	assert_int_equal(w.tokens, 1);
	clock_ms += 2000;	/* 90 % */
	good();
	assert_int_equal(w.tokens, 2);
	assert_int_equal(count("/blobs/"), 4);	/* no 401 but the first */
}

/* Nothing or little said about the life means 60 s. */
static void test_least_life(void **state)
{
	(void)state;
	w.expires_in = 1;
	open_auth();
	good();
	clock_ms += 49000;
	good();
	assert_int_equal(w.tokens, 1);
	clock_ms += 2000;	/* 10 s early */
	good();
	assert_int_equal(w.tokens, 2);
}

static void test_failed_renewal_keeps_the_old(void **state)
{
	(void)state;
	open_auth();
	good();
	clock_ms += 271000;
	w.transport_failures = 1;
	good();
	assert_int_equal(w.tokens, 1);
	clock_ms += 6000;
	good();
	assert_int_equal(w.tokens, 2);
	/* over and out of reach: an error that another try may cure */
	clock_ms += 301000;
	w.transport_failures = 1;
	assert_int_equal(get_url(BLOB), -1);
	assert_int_equal(err.code, CODE_NETWORK);
	assert_true(err.retryable);
	good();
}

static void test_401_before_its_time(void **state)
{
	(void)state;
	open_auth();
	for (unsigned i = 1; i <= 20; i++) {
		good();
		assert_int_equal(w.tokens, 2 * i - 1);
		w.tokens++;	/* the registry forgets the one we have */
	}
}

static void test_old_generation_is_ignored(void **state)
{
	struct http_response r = { .status = 401 };
	struct buf value = BUF_INIT(64);
	unsigned generation;

	(void)state;
	open_auth();
	good();
	add_header(&r, "WWW-Authenticate", BEARER);
	assert_int_equal(au->authorize(au->ctx, &value, &generation, &err), 0);
	/* sixteen connections come back with the same old token */
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(au->challenged(au->ctx, &r, generation, &err), 0);
		good();
	}
	assert_int_equal(w.tokens, 2);
	/* and those that had none at all */
	assert_int_equal(au->challenged(au->ctx, &r, 0, &err), 0);
	good();
	assert_int_equal(w.tokens, 2);
	http_response_release(&r);
	buf_release(&value);
}

static void test_refused_twice_is_final(void **state)
{
	(void)state;
	config("{\"username\":\"u\",\"password\":\"pw-secret\"}");
	w.stale_tokens = true;
	open_auth();
	bad(CODE_AUTH, "reg.example");
	says("team/model");
	says(cfg);
	says("most likely may not pull");
	assert_int_equal(err.http_status, 401);
	assert_int_equal(w.tokens, 3);	/* two tries, one question without a scope */
	/* for a while nobody is asked again, then everything */
	unsigned n = w.n;
	bad(CODE_AUTH, "team/model");
	assert_int_equal(w.n, n);
	clock_ms += 6000;
	w.stale_tokens = false;
	good();
}

static void test_nobody_and_refused(void **state)
{
	(void)state;
	w.stale_tokens = true;
	open_auth();
	bad(CODE_AUTH, "no credentials were found; looked in /nonexistent/.docker (not there)");
	says("--registry-config");
}

static void test_token_service_refuses(void **state)
{
	(void)state;
	config("{\"username\":\"u\",\"password\":\"pw-secret\"}");
	w.status = 401;
	open_auth();
	bad(CODE_AUTH, "DENIED");
	says(cfg);
	says(REALM);
	auth_free(a);
	a = NULL;
	opt.config_files = NULL;
	open_auth();
	bad(CODE_AUTH, "no credentials were found");
}

static void test_token_service_in_trouble(void **state)
{
	(void)state;
	w.status = 503;
	open_auth();
	assert_int_equal(get_url(BLOB), -1);
	assert_int_equal(err.code, CODE_NETWORK);
	assert_true(err.retryable);
	w.status = 0;
	good();
}

static void test_wider_scope(void **state)
{
	(void)state;
	open_auth();
	good();
	w.challenge_refused = "Bearer realm=\"" REALM "\",service=\"svc\",error=\"insufficient_scope\","
			      "scope=\"repository:team/base:pull\"";
	w.tokens++;
	good();
	assert_string_equal(last("auth.example")->url,
			    REALM "?service=svc&scope=repository%3Ateam%2Fbase%3Apull&" PULL);
	assert_int_equal(count("auth.example"), 2);
}

/* Harbor: whoever comes with a refused token is asked for Basic. */
static void test_harbor(void **state)
{
	(void)state;
	config("{\"username\":\"u\",\"password\":\"pw\"}");
	w.challenge_refused = "Basic realm=\"harbor\"";
	w.ping_challenge = "Bearer realm=\"" REALM "\",service=\"svc\"";
	open_auth();
	good();
	w.tokens++;
	good();
	assert_string_equal(last("/v2/")->authorization, "Bearer tok-3");
	assert_int_equal(count(ORIGIN "/v2/team"), 5);
	assert_int_equal(w.n, 5 + 2);	/* 401 token 200; 401, 401 without credentials, token 200 */
	for (unsigned i = 0; i < w.n; i++)
		if (strncmp(w.log[i].url, ORIGIN, strlen(ORIGIN)) == 0)
			assert_null(strstr(w.log[i].authorization, "Basic"));
}

/* What messages say of the credentials in use. */
static void test_described(void **state)
{
	struct buf b = BUF_INIT(500);

	(void)state;
	config("{\"username\":\"u\",\"password\":\"pw-secret\"}");
	open_auth();
	au->describe(au->ctx, &b);
	assert_string_equal(buf_cstr(&b), "no credentials");
	good();
	buf_clear(&b);
	au->describe(au->ctx, &b);
	assert_memory_equal(buf_cstr(&b), cfg, strlen(cfg));
	assert_string_equal(buf_cstr(&b) + strlen(cfg), ", key auths.reg.example");
	buf_release(&b);
}

static void test_401_without_challenge(void **state)
{
	(void)state;
	w.challenge = NULL;
	w.ping_challenge = BEARER;
	open_auth();
	good();
	auth_free(a);
	a = NULL;
	w.ping_challenge = "";
	open_auth();
	bad(CODE_AUTH, "asks for no credentials that are known");
}

/* --- identity tokens --- */

static void test_identity_token(void **state)
{
	(void)state;
	config("{\"auth\":\"dTo=\",\"identitytoken\":\"r+1\"}");
	w.answer = "{\"access_token\":\"acc\",\"refresh_token\":\"rotated\"}";
	w.accepts = "Bearer acc";
	open_auth();
	good();
	assert_string_equal(last("auth.example")->method, "POST");
	assert_string_equal(last("auth.example")->url, REALM);
	assert_string_equal(last("auth.example")->authorization, "");
	assert_string_equal(last("auth.example")->body,
			    "grant_type=refresh_token&service=svc&client_id=fetcher&" PULL "&refresh_token=r%2B1");
	clock_ms += 61000;
	good();
	assert_non_null(strstr(last("auth.example")->body, "refresh_token=rotated"));
	/* the file wins when it changes */
	config("{\"auth\":\"dTo=\",\"identitytoken\":\"r2\"}");
	clock_ms += 61000;
	good();
	assert_non_null(strstr(last("auth.example")->body, "refresh_token=r2"));
}

static void test_identity_token_without_post(void **state)
{
	(void)state;
	config("{\"identitytoken\":\"it\"}");
	w.post_status = 405;
	open_auth();
	good();
	assert_string_equal(last("auth.example")->method, "GET");
	/* 00000000-0000-0000-0000-000000000000:it */
	assert_string_equal(last("auth.example")->authorization,
			    "Basic MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOml0");
}

static void test_identity_token_ran_out(void **state)
{
	(void)state;
	config("{\"identitytoken\":\"pw-secret\"}");
	w.post_status = 400;
	open_auth();
	bad(CODE_AUTH, cfg);
	assert_int_equal(count("auth.example"), 1);
}

/* --- redirects and realms --- */

static void test_redirects(void **state)
{
	(void)state;
	config("{\"username\":\"u\",\"password\":\"pw\"}");
	w.status = 307;
	w.location = "/token2";
	open_auth();
	bad(CODE_AUTH, "more than 3 redirects");
	assert_int_equal(count("auth.example/token2"), 3);
	auth_free(a);
	a = NULL;
	w.n = 0;
	w.location = "https://evil.example/token";
	open_auth();
	bad(CODE_AUTH, "https://evil.example/token");
	assert_int_equal(count("evil.example"), 0);
	auth_free(a);
	a = NULL;
	w.location = "https://auth.example:444/token";
	open_auth();
	bad(CODE_AUTH, "not sent to another host");
	assert_int_equal(count(":444"), 0);
}

static int realm(const char *origin, const char *text, bool allow, char **ret)
{
	char base[600];

	snprintf(base, sizeof(base), "%s/v2/x", origin);
	memset(&err, 0, sizeof(err));
	return token_realm(origin, base, text, allow, ret, &err);
}

static void realm_ok(const char *origin, const char *text, const char *url)
{
	char *got = NULL;

	if (realm(origin, text, false, &got))
		fail_msg("%s: %s", text, err.msg);
	assert_string_equal(got, url);
	free(got);
}

static void test_realms(void **state)
{
	static const char *const refused[] = {
		"http://auth.example/t", "HTTP://auth.example/t", "ftp://auth.example/", "file:///etc/passwd",
		"https://u:p@auth.example/", "https://", "https://a b/",
		"https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f.0.0.1/",
		"https://0177.0.0.1/", "https://127.0.0.1./", "https://127%2e0%2e0%2e1/", "https://127..0.1/", "https://169.254../",
		"https://10.1.2.3/", "https://172.31.0.1:8443/", "https://192.168.1.1/", "https://169.254.169.254/",
		"https://100.100.100.200/", "https://0.0.0.0/", "https://224.0.0.1/", "https://255.255.255.255/",
		"https://[::1]/", "https://[::]/", "https://[fe80::1]/", "https://[fe80::1%25eth0]/",
		"https://[fd00::1]/", "https://[ff02::1]/", "https://[::ffff:10.0.0.1]/", "https://[::127.0.0.1]/",
		"https://[64:ff9b::a00:1]/", "https://[2002:a00:1::]/", "https://[fec0::1]/",
		"https://localhost/", "https://LOCALHOST:1/", "https://localhost./", "https://x.localhost/",
		"//127.0.0.1/t",
	};
	static const char *const open[] = {
		"https://auth.example/t", "https://8.8.8.8/", "https://172.32.0.1/", "https://[2a00:1::1]/",
		"https://auth.internal:8443/x?y=z", "https://10.example/", "https://notlocalhost/",
	};
	char *got = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		if (realm(ORIGIN, refused[i], false, &got) == 0)
			fail_msg("accepted: %s as %s", refused[i], got);
		assert_int_equal(err.code, CODE_AUTH);
	}
	for (size_t i = 0; i < ARRAY_SIZE(open); i++)
		realm_ok(ORIGIN, open[i], open[i]);
	/* plain HTTP only where the registry is plain; the registry's own host on any port */
	realm_ok("http://reg.example:80", "http://auth.example/t", "http://auth.example/t");
	realm_ok("http://127.0.0.1:5000", "http://127.0.0.1:5001/t", "http://127.0.0.1:5001/t");
	realm_ok("http://127.0.0.1:5000", "http://localhost:5001/t", "http://localhost:5001/t");
	realm_ok("https://10.0.0.1:443", "https://10.0.0.1:8443/t", "https://10.0.0.1:8443/t");
	realm_ok("https://[::1]:443", "https://[::1]:8443/t", "https://[::1]:8443/t");
	realm_ok(ORIGIN, "/t?x=1", "https://reg.example:443/t?x=1");
	assert_int_equal(realm("https://10.0.0.1:443", "https://10.0.0.2/t", false, &got), -1);
	says("--allow-private-realm");
	assert_int_equal(realm("http://127.0.0.1:5000", "http://169.254.169.254/t", false, &got), -1);
	/* allowed by the user, but never plain HTTP or user info */
	assert_int_equal(realm(ORIGIN, "https://10.0.0.2/t", true, &got), 0);
	free(got);
	assert_int_equal(realm(ORIGIN, "http://10.0.0.2/t", true, &got), -1);
	assert_int_equal(realm(ORIGIN, "https://u:hunter2@h/t", true, &got), -1);
	assert_null(strstr(err.msg, "hunter2"));
}

static void test_refused_realm_gets_nothing(void **state)
{
	(void)state;
	config("{\"username\":\"u\",\"password\":\"pw\"}");
	w.challenge = "Bearer realm=\"https://169.254.169.254/latest\"";
	open_auth();
	bad(CODE_AUTH, "https://169.254.169.254/latest");
	assert_int_equal(count("169.254"), 0);
}

/* --- Basic and fixed tokens --- */

static void test_basic(void **state)
{
	(void)state;
	w.challenge = "BASIC realm=x";
	w.accepts = USER_PW;
	config("{\"username\":\"u\",\"password\":\"pw\"}");
	open_auth();
	good();
	good();
	assert_int_equal(w.n, 3);
}

static void test_basic_refused_once(void **state)
{
	(void)state;
	w.challenge = "Basic realm=x";
	w.accepts = "Basic other";
	config("{\"username\":\"u\",\"password\":\"pw-secret\"}");
	open_auth();
	bad(CODE_AUTH, cfg);
	/* the same password is not tried again: accounts get locked */
	assert_int_equal(w.n, 2);
}

static void test_basic_rotated(void **state)
{
	(void)state;
	w.challenge = "Basic realm=x";
	w.accepts = USER_PW;
	opt.username = "u";
	opt.password_file = secret;
	put(secret, "old\n");
	open_auth();
	put(secret, "pw\r\n");
	good();
	w.accepts = "Basic dTpuZXc=";
	put(secret, "new");
	good();
}

static void test_basic_without_credentials(void **state)
{
	(void)state;
	w.challenge = "Basic realm=x";
	put(cfg, "{\"auths\":{\"reg.example\":{}},\"credsStore\":\"desktop\"}");
	cfg_files[0] = cfg;
	opt.config_files = cfg_files;
	open_auth();
	bad(CODE_AUTH, "no credentials were found");
	says(cfg);
	says("docker-credential-desktop");
}

static void test_basic_half_empty(void **state)
{
	(void)state;
	w.challenge = "Basic realm=x";
	config("{\"username\":\"u\"}");
	open_auth();
	bad(CODE_AUTH, "password is empty");
	assert_int_equal(w.n, 1);
}

static void test_fixed_tokens(void **state)
{
	(void)state;
	w.accepts = "Bearer fixed";
	config("{\"registrytoken\":\"fixed\"}");
	open_auth();
	good();
	assert_int_equal(count("auth.example"), 0);
	auth_free(a);
	a = NULL;
	opt.config_files = NULL;
	opt.token_file = secret;
	put(secret, "fixed\n");
	open_auth();
	good();
	w.accepts = "Bearer other";
	put(secret, "other");
	good();
	w.accepts = "Bearer third";
	bad(CODE_AUTH, secret);
	auth_free(a);
	a = NULL;
	put(secret, "two words");
	assert_int_equal(auth_new(&a, NULL, &opt, ORIGIN, "reg.example", "team/model", &err), -1);
	assert_int_equal(err.code, CODE_USAGE);
	assert_null(strstr(err.msg, "two words"));
}

static void test_options(void **state)
{
	static const char *missing[] = { "/nonexistent/config.json", NULL };
	const struct auth_options wrong[] = {
		{ .username = "u" },
		{ .password_file = "/dev/null" },
		{ .username = "", .password_file = "/dev/null" },
		{ .username = "a:b", .password_file = "/dev/null" },
		{ .username = "u", .password_file = "/nonexistent" },
		{ .username = "u", .password_file = "/dev/null" },
		{ .username = "u", .password_file = "/dev/null", .token_file = "/dev/null" },
		{ .token_file = "/nonexistent" },
		{ .config_files = missing },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct auth *x = NULL;

		memset(&err, 0, sizeof(err));
		if (auth_new(&x, NULL, &wrong[i], ORIGIN, "r.io", "a", &err) != -1)
			fail_msg("accepted options %zu", i);
		assert_int_equal(err.code, CODE_USAGE);
		assert_null(x);
	}
}

/* An identity of a cloud is not for plain HTTP, whatever the name of the registry, and whoever names a helper. */
static void test_no_cloud_login_in_the_clear(void **state)
{
	const char *files[] = { cfg, NULL };
	struct auth_options o = { .config_files = files };
	struct auth *x = NULL;
	FILE *f = fopen(cfg, "w");

	(void)state;
	fputs("{\"credHelpers\":{\"gcr.io\":\"gcr\"}}", f);
	fclose(f);
	assert_int_equal(auth_new(&x, NULL, &o, "http://gcr.io:80", "gcr.io", "a", &err), -1);
	assert_int_equal(err.code, CODE_USAGE);
	assert_non_null(strstr(err.msg, "plain HTTP"));
	assert_int_equal(auth_new(&x, NULL, &o, "https://gcr.io:443", "gcr.io", "a", &err), 0);
	auth_free(x);
}

/* --- threads --- */

static int slow_exchange(void *ctx, const struct http_request *q, struct http_response *ret,
			 struct err *e)
{
	int inside = atomic_fetch_add(&w.inside, 1) + 1;

	if (inside > atomic_load(&w.most_inside))
		atomic_store(&w.most_inside, inside);
	for (unsigned i = 0; i < 2000; i++)
		sched_yield();
	int rc = exchange(ctx, q, ret, e);
	atomic_fetch_sub(&w.inside, 1);
	return rc;
}

static void *authorize_many(void *arg)
{
	unsigned *generation = arg;

	for (unsigned i = 0; i < 50; i++) {
		struct buf value = BUF_INIT(64);
		struct err e;

		if (au->authorize(au->ctx, &value, generation, &e) || !value.len)
			*generation = 999;
		buf_release(&value);
	}
	return NULL;
}

static void test_one_renewal_for_all(void **state)
{
	pthread_t threads[16];
	unsigned generations[16];

	(void)state;
	opt.fetch_override = slow_exchange;
	open_auth();
	good();
	for (unsigned round = 2; round <= 4; round++) {
		clock_ms += 301000;
		for (unsigned i = 0; i < 16; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, authorize_many, &generations[i]), 0);
		for (unsigned i = 0; i < 16; i++)
			pthread_join(threads[i], NULL);
		for (unsigned i = 0; i < 16; i++)
			assert_int_equal(generations[i], generations[0]);
		assert_int_not_equal(generations[0], 999);
		assert_int_equal(w.tokens, round);
		assert_int_equal(w.most_inside, 1);
	}
}

/* --- life of a token --- */

static void test_life(void **state)
{
	const int64_t now = 1767323045;	/* 2026-01-02T03:04:05Z */

	(void)state;
	assert_int_equal(token_life_ms(0, NULL, now), 60000);
	assert_int_equal(token_life_ms(300, NULL, now), 300000);
	assert_int_equal(token_life_ms(UINT64_MAX, NULL, now), (uint64_t)TOKEN_LIFE_MAX_S * 1000);
	assert_int_equal(token_life_ms(300, "2026-01-02T03:02:25Z", now), 200000);
	assert_int_equal(token_life_ms(300, "2026-01-02T05:02:25.123456+02:00", now), 200000);
	assert_int_equal(token_life_ms(300, "2026-01-01T22:02:25-05:00", now), 200000);
	/* wrong clocks and nonsense */
	assert_int_equal(token_life_ms(300, "2026-01-02T03:05:05Z", now), 300000);
	assert_int_equal(token_life_ms(300, "2026-01-02T02:00:00Z", now), 300000);
	assert_int_equal(token_life_ms(300, "0001-01-01T00:00:00Z", now), 300000);
	assert_int_equal(token_life_ms(300, "9999-99-99T99:99:99Z", now), 300000);
	assert_int_equal(token_life_ms(300, "", now), 300000);
	assert_int_equal(token_life_ms(300, "2026-01-02 03:02:25Z", now), 300000);
	assert_int_equal(token_life_ms(300, "2026-01-02T03:02:25+2", now), 300000);
	assert_int_equal(token_renew_ms(60000), 50000);
	assert_int_equal(token_renew_ms(300000), 270000);
	assert_int_equal(token_renew_ms(10), 5);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_anonymous_token),
		T(test_open_registry),
		T(test_token_with_password),
		T(test_realm_with_query_and_no_service),
		T(test_relative_realm),
		T(test_access_token_preferred),
		T(test_useless_answers),
		T(test_renewed_before_it_ends),
		T(test_least_life),
		T(test_failed_renewal_keeps_the_old),
		T(test_401_before_its_time),
		T(test_old_generation_is_ignored),
		T(test_refused_twice_is_final),
		T(test_nobody_and_refused),
		T(test_token_service_refuses),
		T(test_token_service_in_trouble),
		T(test_wider_scope),
		T(test_harbor),
		T(test_described),
		T(test_401_without_challenge),
		T(test_identity_token),
		T(test_identity_token_without_post),
		T(test_identity_token_ran_out),
		T(test_redirects),
		T(test_realms),
		T(test_refused_realm_gets_nothing),
		T(test_basic),
		T(test_basic_refused_once),
		T(test_basic_rotated),
		T(test_basic_without_credentials),
		T(test_basic_half_empty),
		T(test_fixed_tokens),
		T(test_options),
		T(test_no_cloud_login_in_the_clear),
		T(test_one_renewal_for_all),
		T(test_life),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
