// SPDX-License-Identifier: Apache-2.0
#include "auth.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "challenge.h"
#include "cloud.h"
#include "dockercfg.h"
#include "secret.h"
#include "sys.h"
#include "token.h"

#define REFUSED_MAX 2		/* fresh credentials refused in a row */
#define FATAL_MS 5000		/* how long "final" holds: watch asks again minutes later */
#define RENEW_AGAIN_MS 5000	/* after a renewal that failed while the old token lives */
#define SEASONED_MS 2000	/* a token that old has worked before, if nobody reported */

struct auth {
	struct http *http;
	struct auth_options o;
	const char *registry, *repo;
	struct http_authority authority;

	pthread_mutex_t lock;	/* guards all below */
	pthread_cond_t idle;
	/*
	 * One caller at a time talks to files and network, with busy set and the lock released.
	 * It alone may then read and write the fields of the second group without the lock.
	 */
	bool busy;
	unsigned flight;	/* counts the ends of busy */
	bool flight_failed;
	struct err flight_err;
	bool final;
	struct err final_err;
	uint64_t final_until_ms;

	bool challenged;	/* the registry said what it wants: realm... are valid */
	bool ready;		/* value is good to send */
	bool accepted;		/* the registry took value at least once */
	unsigned generation;	/* names value; changes with it */
	unsigned refused;	/* fresh credentials refused since the last accepted one */
	char *value;		/* of the Authorization header; the refused one while !ready */
	uint64_t born_ms, renew_ms, expires_ms;
	char from[512];		/* source of value, for messages; "" = anonymous */

	/* second group */
	enum challenge_scheme scheme;
	char *realm;		/* absolute, checked; NULL for Basic */
	char *service;
	char *scopes[SCOPES_MAX];
	size_t n_scopes;
	char *source;		/* of the credential in value; NULL = anonymous */
	struct buf looked;	/* where was looked for one */
	char *rotated, *rotated_from;	/* refresh token that replaced the one in the files */
};

static uint64_t now_ms(const struct auth *a)
{
	return a->o.clock_override ? a->o.clock_override() : sys_now_ms();
}

static int fetch(void *ctx, const struct http_request *q, struct http_response *ret, struct err *e)
{
	struct auth *a = ctx;

	if (a->o.fetch_override)
		return a->o.fetch_override(a->o.fetch_ctx, q, ret, e);
	return http_fetch(a->http, q, ret, e);
}

/* --- credentials --- */

static int read_secret(const char *path, const char *what, char **ret, struct err *e)
{
	_cleanup_secret_buf_ struct buf b = BUF_INIT(LIMIT_SECRET_FILE);

	if (sys_read_file(AT_FDCWD, path, &b) < 0) {
		err_errno(e, CODE_USAGE, errno, "cannot read %s %s", what, path);
		return -1;
	}
	while (b.len && (b.data[b.len - 1] == '\n' || b.data[b.len - 1] == '\r'))
		b.data[--b.len] = '\0';
	if (!b.len)
		return err_set(e, CODE_USAGE, "%s %s is empty", what, path);
	if (memchr(b.data, '\0', b.len))
		return err_set(e, CODE_USAGE, "%s %s holds a NUL byte", what, path);
	*ret = strndup(b.data, b.len);
	return *ret ? 0 : err_oom(e);
}

static int given_password(const struct auth_options *o, struct credential *c, struct err *e)
{
	if (read_secret(o->password_file, "the password file", &c->password, e) < 0)
		return -1;
	c->username = strdup(o->username);
	if (!c->username || asprintf(&c->source, "user name and password file %s",
				     o->password_file) < 0) {
		c->source = NULL;
		return err_oom(e);
	}
	return 1;
}

static int given_token(const struct auth_options *o, struct credential *c, struct err *e)
{
	if (read_secret(o->token_file, "the token file", &c->registry_token, e) < 0)
		return -1;
	if (asprintf(&c->source, "token file %s", o->token_file) < 0) {
		c->source = NULL;
		return err_oom(e);
	}
	return 1;
}

/* 1 found, 0 anonymous, -1 error. */
static int find_credential(const struct auth_options *o, const char *registry, const char *repo,
			   struct credential *ret, struct buf *looked, struct err *e)
{
	struct credential c = { 0 };
	int rc;

	if (o->username)
		rc = given_password(o, &c, e);
	else if (o->token_file)
		rc = given_token(o, &c, e);
	else
		rc = dockercfg_find(o->config_files, o->environ_override, registry, repo, &c,
				    looked, e);
	if (rc > 0 && c.helper && o->no_cloud_login)
		rc = err_set(e, CODE_USAGE, "%s: docker-credential-%s cannot run here, and its built-in "
			     "login is off (--cloud-login off, --insecure, plain HTTP)", c.source, c.helper);
	if (rc > 0 && c.registry_token && !token_clean(c.registry_token))
		rc = err_set(e, CODE_USAGE,
			     "%s: the token holds characters that no header can carry", c.source);
	if (rc <= 0)
		credential_release(&c);
	else
		*ret = c;
	return rc;
}

/*
 * The login of the registry's cloud, or of the one whose helper the config file names. The same results; *c is what
 * find_credential found.
 */
static int find_cloud(struct auth *a, bool found, struct credential *c, struct err *e)
{
	struct cloud q = { .fetch = fetch, .ctx = a, .env = a->o.environ_override, .registry = a->registry,
			   .origin = a->authority.origin, .service = a->service, .fresh = a->refused > 0 };
	enum cloud_kind kind = found ? cloud_of_helper(c->helper, a->registry) : cloud_of_registry(a->registry);

	credential_release(c);
	if (kind == CLOUD_NONE)
		return 0;
	if (a->o.no_cloud_login) {
		buf_addf(&a->looked, "%sno cloud login (--cloud-login off, --insecure, or plain HTTP)", a->looked.len ? ", " : "");
		return 0;
	}
	return cloud_login(&q, kind, c, &a->looked, e);
}

/* --- messages --- */

static int no_credentials(const struct auth *a, struct err *e)
{
	err_set(e, CODE_AUTH,
		"registry %s wants credentials for %s, and no credentials were found; looked in "
		"%s; name a docker config.json or a mounted .dockerconfigjson with "
		"--registry-config, or use --username with --password-file",
		a->registry, a->repo,
		a->looked.len ? buf_cstr(&a->looked) :
				"nothing (DOCKER_CONFIG, REGISTRY_AUTH_FILE and HOME are not set)");
	if (e)
		e->http_status = 401;
	return -1;
}

/* said: the registry's answer, for its own words; NULL = none. */
static int refused_error(const struct auth *a, const char *why, const struct buf *said, struct err *e)
{
	_cleanup_buf_ struct buf words = BUF_INIT(300);

	if (!a->source)
		return no_credentials(a, e);
	http_error_words(said, &words);
	err_set(e, CODE_AUTH, "registry %s refuses %s%s%s%s; credentials: %s; %s", a->registry, a->repo,
		words.len ? " (" : "", buf_cstr(&words), words.len ? ")" : "", a->source, why);
	if (e)
		e->http_status = 401;
	return -1;
}

#define WHY_CHECK "check that they are right, have not run out, and may pull this repository"

/* --- obtaining a value (busy is ours) --- */

struct fresh {
	char *value;
	uint64_t life_ms;	/* UINT64_MAX = until refused */
};

static void fresh_release(struct fresh *f)
{
	secret_free(f->value);
}

static int fresh_from_buf(struct buf *b, uint64_t life_ms, struct fresh *ret, struct err *e)
{
	if (b->failed)
		return err_oom(e);
	ret->value = strdup(buf_cstr(b));
	ret->life_ms = life_ms;
	return ret->value ? 0 : err_oom(e);
}

/* A value that never changes by itself is not worth sending twice, unless it worked before. */
static int same_again(const struct auth *a, const struct fresh *f, struct err *e)
{
	if (a->ready || a->accepted || !a->value || strcmp(a->value, f->value) != 0)
		return 0;
	return refused_error(a, WHY_CHECK, NULL, e);
}

static struct token_query token_query(struct auth *a, const struct credential *cred)
{
	return (struct token_query){ .fetch = fetch, .ctx = a, .realm = a->realm,
				     .service = a->service,
				     .scopes = (const char *const *)a->scopes,
				     .n_scopes = a->n_scopes, .cred = cred };
}

/* Puts the refresh token of the last answer in the place of the one in the files it came from. */
static bool use_rotated(struct auth *a, struct credential *c)
{
	if (!a->rotated || !c->identity_token || strcmp(a->rotated_from, c->identity_token) != 0)
		return false;
	char *s = strdup(a->rotated);
	if (!s)
		return false;
	secret_free(c->identity_token);
	c->identity_token = s;
	return true;
}

static void drop_rotated(struct auth *a)
{
	secret_free(a->rotated);
	secret_free(a->rotated_from);
	a->rotated = a->rotated_from = NULL;
}

static void keep_rotated(struct auth *a, const char *from, struct token *t)
{
	char *origin = from && t->refresh_token ? strdup(from) : NULL;

	if (!origin)
		return;
	drop_rotated(a);
	a->rotated_from = origin;
	a->rotated = steal_ptr(&t->refresh_token);
}

static bool is_refusal(const struct err *e)
{
	return e->code == CODE_AUTH && (e->http_status == 401 || e->http_status == 403);
}

static int obtain_token(struct auth *a, struct credential *c, struct fresh *ret, struct err *e)
{
	struct token_query q = token_query(a, c);
	struct token t = { 0 };
	struct err own = { 0 };
	_cleanup_secret_ char *original =
		c && c->identity_token ? strdup(c->identity_token) : NULL;
	bool rotated = c && original && use_rotated(a, c);
	int rc = token_fetch(&q, &t, &own);

	if (rc < 0 && rotated && is_refusal(&own)) {
		drop_rotated(a);
		secret_free(c->identity_token);
		c->identity_token = strdup(original);
		if (!c->identity_token)
			return err_oom(e);
		own = (struct err){ 0 };
		rc = token_fetch(&q, &t, &own);
	}
	if (rc < 0) {
		if (is_refusal(&own) && !c)
			no_credentials(a, &own);
		else if (is_refusal(&own))
			err_wrap(&own, "registry %s refuses %s; credentials: %s",
				 a->registry, a->repo, c->source);
		if (e)
			*e = own;
		return -1;
	}
	_cleanup_secret_buf_ struct buf b = BUF_INIT(LIMIT_TOKEN * 2);
	buf_adds(&b, "Bearer ");
	buf_adds(&b, t.value);
	rc = fresh_from_buf(&b, t.life_ms, ret, e);
	keep_rotated(a, original, &t);
	token_release(&t);
	if (rc == 0 && a->http) {
		char what[256];
		http_trace(a->http, "token for %s from %s, %s, good for %llu s", a->scopes[0],
			   http_redacted(a->realm, what, sizeof(what)), c ? c->source : "anonymous",
			   (unsigned long long)(ret->life_ms / 1000));
	}
	return rc;
}

static int obtain_fixed(struct auth *a, const struct credential *c, struct fresh *ret,
			struct err *e)
{
	_cleanup_secret_buf_ struct buf b = BUF_INIT(LIMIT_TOKEN * 2);

	if (c->registry_token) {
		buf_adds(&b, "Bearer ");
		buf_adds(&b, c->registry_token);
	} else if (token_basic(c, &b, e) < 0) {
		return err_wrap(e, "registry %s", a->registry);
	}
	if (fresh_from_buf(&b, c->life_ms ? c->life_ms : UINT64_MAX, ret, e) < 0)
		return -1;
	return same_again(a, ret, e);
}

/* Reads the credentials and makes of them what the registry asked for. */
static int obtain(struct auth *a, struct fresh *ret, struct err *e)
{
	__attribute__((cleanup(credential_release))) struct credential c = { 0 };
	int found;

	buf_clear(&a->looked);
	found = find_credential(&a->o, a->registry, a->repo, &c, &a->looked, e);
	if (found == 0 || (found > 0 && c.helper))
		found = find_cloud(a, found, &c, e);
	if (found < 0)
		return -1;
	free(a->source);
	a->source = NULL;
	if (found) {
		a->source = strdup(c.source);
		if (!a->source)
			return err_oom(e);
	}
	if (found && (c.registry_token || a->scheme == CHALLENGE_BASIC))
		return obtain_fixed(a, &c, ret, e);
	if (a->scheme == CHALLENGE_BASIC)
		return no_credentials(a, e);
	return obtain_token(a, found ? &c : NULL, ret, e);
}

/* --- what the registry wants (busy is ours) --- */

static void add_challenges(struct challenges *w, const struct http_response *r)
{
	const char *v;

	for (size_t i = 0; (v = http_response_header(r, "WWW-Authenticate", i)); i++)
		challenges_add(w, v);
}

/* Asks without credentials. Answers of every kind but a transport error are fine. */
static int ask_bare(struct auth *a, const char *method, const char *url, struct challenges *w,
		    struct err *e)
{
	struct http_request q = { .method = method, .url = url, .max_body = LIMIT_ERROR_BODY };
	struct http_response r = { 0 };

	if (fetch(a, &q, &r, e) < 0)
		return -1;
	if (r.status == 401)
		add_challenges(w, &r);
	int rc = 0;
	if (http_status_retryable(r.status)) {
		char what[256];
		http_redacted(url, what, sizeof(what));
		rc = http_status_error(r.status, what, &r.body, e);
		if (e)
			e->retry_after_ms = http_retry_after_ms(
				http_response_header(&r, "Retry-After", 0), time(NULL));
	}
	http_response_release(&r);
	return rc;
}

/*
 * Some registries (Harbor) answer a refused token with a Basic challenge and some (Google's) with
 * none: only a request without credentials shows what they want. What was refused is asked for
 * first: after a redirect its scope may be that of another repository.
 */
static int probe(struct auth *a, const char *refused_url, struct challenges *w, struct err *e)
{
	char ping[sizeof(a->authority.origin) + 8];

	if (refused_url && http_same_origin(refused_url, a->authority.origin) &&
	    ask_bare(a, "HEAD", refused_url, w, e) < 0)
		return -1;
	if (w->n)
		return 0;
	snprintf(ping, sizeof(ping), "%s/v2/", a->authority.origin);
	return ask_bare(a, "GET", ping, w, e);
}

static int adopt_bearer(struct auth *a, const struct challenge *c, const char *base, struct err *e)
{
	_cleanup_free_ char *realm = NULL, *service = NULL;

	if (token_realm(a->authority.origin, base, c->realm, a->o.allow_private_realm, &realm,
			e) < 0)
		return -1;
	if (c->service && *c->service) {
		service = strdup(c->service);
		if (!service)
			return err_oom(e);
	}
	if (scopes_merge(a->scopes, &a->n_scopes, a->repo, c->scope) < 0)
		return err_oom(e);
	free(a->realm);
	free(a->service);
	a->realm = steal_ptr(&realm);
	a->service = steal_ptr(&service);
	a->scheme = CHALLENGE_BEARER;
	return 0;
}

/*
 * The challenges that count: the answer's, or where these say nothing, those of a request without
 * credentials.
 */
static int collect(struct auth *a, const struct http_response *r, struct challenges *w, struct err *e)
{
	bool basic, bearer, doubtful = a->challenged && a->scheme == CHALLENGE_BEARER;
	struct challenges asked = { 0 };

	add_challenges(w, r);
	bearer = challenges_get(w, CHALLENGE_BEARER);
	basic = challenges_get(w, CHALLENGE_BASIC);
	if (bearer || (basic && !doubtful))
		return 0;
	if (probe(a, r->url, &asked, e) < 0) {
		challenges_release(&asked);
		return -1;
	}
	challenges_release(w);
	*w = asked;
	return 0;
}

static int adopt(struct auth *a, const struct http_response *r, struct err *e)
{
	__attribute__((cleanup(challenges_release))) struct challenges w = { 0 };
	const struct challenge *bearer;

	if (collect(a, r, &w, e) < 0)
		return -1;
	bearer = challenges_get(&w, CHALLENGE_BEARER);
	if (bearer)
		return adopt_bearer(a, bearer, r->url ? r->url : a->authority.origin, e);
	if (challenges_get(&w, CHALLENGE_BASIC)) {
		a->scheme = CHALLENGE_BASIC;
		return 0;
	}
	if (a->challenged)
		return 0;	/* nothing new to learn: once more of the same kind */
	err_set(e, CODE_AUTH,
		"registry %s refuses %s and asks for no credentials that are known here (neither "
		"Basic nor Bearer with a realm)", a->registry, a->repo);
	if (e)
		e->http_status = 401;
	return -1;
}

/* After the last refusal: is it the password, or the right to this repository? */
static int explain(struct auth *a, const struct http_response *r, struct err *e)
{
	__attribute__((cleanup(credential_release))) struct credential c = { 0 };
	struct err ignored = { 0 };
	int known = -1;

	if (a->source && a->scheme == CHALLENGE_BEARER &&
	    find_credential(&a->o, a->registry, a->repo, &c, NULL, &ignored) > 0 &&
	    !c.registry_token && !c.helper) {
		struct token_query q = token_query(a, &c);

		known = token_check_login(&q);
	}
	return refused_error(a,
			     known == 1 ? "the token service accepts the login, so the user most "
					  "likely may not pull this repository" :
			     known == 0 ? "the token service says that user name or password "
					  "are wrong" :
					  WHY_CHECK,
			     &r->body, e);
}

/* --- the authority --- */

/* The lock is held before and after. */
static void flight_begin(struct auth *a)
{
	a->busy = true;
	a->flight_failed = false;
	pthread_mutex_unlock(&a->lock);
}

static void flight_end(struct auth *a, int rc, const struct err *e)
{
	a->busy = false;
	a->flight++;
	a->flight_failed = rc < 0;
	if (rc < 0)
		a->flight_err = *e;
	pthread_cond_broadcast(&a->idle);
}

static int set_final(struct auth *a, const struct err *e)
{
	if (!e->retryable && (e->code == CODE_AUTH || e->code == CODE_USAGE)) {
		a->final = true;
		a->final_err = *e;
		a->final_until_ms = now_ms(a) + FATAL_MS;
		cloud_drop(a->registry);
	}
	return -1;
}

/* -1 while a final error holds; when its time is over, everything starts anew. */
static int check_final(struct auth *a, struct err *e)
{
	if (!a->final)
		return 0;
	if (now_ms(a) < a->final_until_ms) {
		if (e)
			*e = a->final_err;
		return -1;
	}
	if (a->busy)
		return 0;
	a->final = a->challenged = a->ready = a->accepted = false;
	a->refused = 0;
	a->generation++;
	secret_free(a->value);
	a->value = NULL;
	for (size_t i = 0; i < a->n_scopes; i++)
		free(a->scopes[i]);
	a->n_scopes = 0;
	return 0;
}

static void install(struct auth *a, struct fresh *f)
{
	uint64_t now = now_ms(a);
	bool endless = f->life_ms == UINT64_MAX;

	secret_free(a->value);
	a->value = steal_ptr(&f->value);
	snprintf(a->from, sizeof(a->from), "%s", a->source ? a->source : "");
	a->generation++;
	a->ready = true;
	a->accepted = false;
	a->born_ms = now;
	a->expires_ms = endless ? UINT64_MAX : now + f->life_ms;
	a->renew_ms = endless ? UINT64_MAX : now + token_renew_ms(f->life_ms);
}

/* The caller holds the lock and is the one to fetch. */
static int renew(struct auth *a, struct err *e)
{
	struct fresh f = { 0 };
	struct err own = { 0 };
	int rc;

	flight_begin(a);
	rc = obtain(a, &f, &own);
	pthread_mutex_lock(&a->lock);
	if (rc == 0) {
		install(a, &f);
	} else if (a->ready && now_ms(a) < a->expires_ms) {
		/* the old one still works: nobody need know yet */
		a->renew_ms = MIN(now_ms(a) + RENEW_AGAIN_MS, a->expires_ms);
		rc = 0;
	} else {
		set_final(a, &own);
		if (e)
			*e = own;
	}
	flight_end(a, rc, &own);
	fresh_release(&f);
	return rc;
}

static int give(struct auth *a, struct buf *ret, unsigned *ret_generation, struct err *e)
{
	*ret_generation = a->generation;
	if (!a->challenged)
		return 0;
	return buf_adds(ret, a->value) < 0 ? err_oom(e) : 0;
}

static int authorize_locked(struct auth *a, struct buf *ret, unsigned *ret_generation,
			    struct err *e)
{
	for (;;) {
		uint64_t now = now_ms(a);
		unsigned flight = a->flight;

		if (check_final(a, e) < 0)
			return -1;
		if (!a->challenged || (a->ready && now < (a->busy ? a->expires_ms : a->renew_ms)))
			return give(a, ret, ret_generation, e);
		if (!a->busy) {
			if (renew(a, e) < 0)
				return -1;
			continue;
		}
		pthread_cond_wait(&a->idle, &a->lock);
		/* whoever waited for a failure has failed too: no procession of vain tries */
		if (a->flight == flight + 1 && a->flight_failed) {
			if (e)
				*e = a->flight_err;
			return -1;
		}
	}
}

static int authorize(void *ctx, struct buf *ret, unsigned *ret_generation, struct err *e)
{
	struct auth *a = ctx;

	pthread_mutex_lock(&a->lock);
	int rc = authorize_locked(a, ret, ret_generation, e);
	pthread_mutex_unlock(&a->lock);
	return rc;
}

static int challenged_locked(struct auth *a, const struct http_response *r, unsigned generation,
			     struct err *e)
{
	struct err own = { 0 };
	bool last;
	int rc;

	while (a->busy)
		pthread_cond_wait(&a->idle, &a->lock);
	if (check_final(a, e) < 0)
		return -1;
	/* an answer to credentials that are gone says nothing of those of today */
	if (generation != a->generation || (a->challenged && !a->ready))
		return 0;
	if (a->challenged) {
		if (a->accepted || now_ms(a) - a->born_ms >= SEASONED_MS) {
			a->accepted = true;
			a->refused = 0;
		}
		a->refused++;
	}
	last = a->refused >= REFUSED_MAX;
	flight_begin(a);
	rc = last ? explain(a, r, &own) : adopt(a, r, &own);
	pthread_mutex_lock(&a->lock);
	if (rc == 0) {
		a->challenged = true;
		a->ready = false;
	} else {
		set_final(a, &own);
		if (e)
			*e = own;
	}
	flight_end(a, rc, &own);
	return rc;
}

static int challenged(void *ctx, const struct http_response *r, unsigned generation, struct err *e)
{
	struct auth *a = ctx;

	pthread_mutex_lock(&a->lock);
	int rc = challenged_locked(a, r, generation, e);
	pthread_mutex_unlock(&a->lock);
	return rc;
}

static void accepted(void *ctx, unsigned generation)
{
	struct auth *a = ctx;

	pthread_mutex_lock(&a->lock);
	if (generation == a->generation && a->ready) {
		a->accepted = true;
		a->refused = 0;
	}
	pthread_mutex_unlock(&a->lock);
}

static void describe(void *ctx, struct buf *ret)
{
	struct auth *a = ctx;

	pthread_mutex_lock(&a->lock);
	buf_adds(ret, a->challenged && *a->from ? a->from : "no credentials");
	pthread_mutex_unlock(&a->lock);
}

/* --- life --- */

static int check_options(const struct auth_options *o, struct err *e)
{
	if (o->username && !o->password_file)
		return err_set(e, CODE_USAGE, "--username needs --password-file");
	if (o->password_file && !o->username)
		return err_set(e, CODE_USAGE, "--password-file needs --username");
	if (o->username && !*o->username)
		return err_set(e, CODE_USAGE, "--username is empty");
	if (o->username && strchr(o->username, ':'))
		return err_set(e, CODE_USAGE, "--username cannot hold a colon");
	if (o->username && o->token_file)
		return err_set(e, CODE_USAGE, "--username and --token-file exclude each other");
	return 0;
}

int auth_new(struct auth **ret, struct http *h, const struct auth_options *o, const char *origin,
	     const char *registry, const char *repo, struct err *e)
{
	__attribute__((cleanup(credential_release))) struct credential c = { 0 };
	bool named = o->username || o->token_file || (o->config_files && *o->config_files);
	struct auth_options own = *o;
	struct auth *a;

	if (check_options(o, e) < 0)
		return -1;
	/* what a cloud gives us is good for more than this registry, and no registry of a cloud speaks plain HTTP */
	own.no_cloud_login |= !cloud_safe(origin);
	if (named && find_credential(&own, registry, repo, &c, NULL, e) < 0)
		return -1;
	a = calloc(1, sizeof(*a));
	if (!a)
		return err_oom(e);
	a->http = h;
	a->o = own;
	a->registry = registry;
	a->repo = repo;
	a->looked = BUF_INIT(DOCKERCFG_NOTES_MAX + CLOUD_NOTES_MAX);
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->idle, NULL);
	a->authority = (struct http_authority){ .ctx = a, .authorize = authorize,
						.challenged = challenged, .accepted = accepted,
						.describe = describe };
	if ((size_t)snprintf(a->authority.origin, sizeof(a->authority.origin), "%s", origin) >=
	    sizeof(a->authority.origin)) {
		auth_free(a);
		return err_set(e, CODE_USAGE, "the name of registry %.100s is too long", registry);
	}
	*ret = a;
	return 0;
}

void auth_free(struct auth *a)
{
	if (!a)
		return;
	secret_free(a->value);
	drop_rotated(a);
	for (size_t i = 0; i < a->n_scopes; i++)
		free(a->scopes[i]);
	free(a->realm);
	free(a->service);
	free(a->source);
	buf_release(&a->looked);
	pthread_cond_destroy(&a->idle);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

const struct http_authority *auth_authority(struct auth *a)
{
	return &a->authority;
}
