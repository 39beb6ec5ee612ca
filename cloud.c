// SPDX-License-Identifier: Apache-2.0
#include "cloud.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "aws.h"
#include "cloud_internal.h"
#include "sys.h"
#include "token.h"

#define KEPT_MAX 8
#define NONE_MS (10 * 60 * 1000)	/* how long "no credentials here" holds, unless the registry refuses us */

/* --- who is meant --- */

static struct str host_of(const char *registry)
{
	return (struct str){ registry, strcspn(registry, ":") };
}

static bool ends_in(struct str host, const char *tail)
{
	size_t n = strlen(tail);

	return host.n > n && strncasecmp(host.p + host.n - n, tail, n) == 0;
}

enum cloud_kind cloud_of_registry(const char *registry)
{
	struct str host = host_of(registry);
	struct aws_registry ignored;

	if (aws_registry_parse(host, &ignored))
		return CLOUD_ECR;
	if (str_caseeq(host, "public.ecr.aws") || str_caseeq(host, "ecr-public.aws.com"))
		return CLOUD_ECR_PUBLIC;
	if (str_caseeq(host, "gcr.io") || ends_in(host, ".gcr.io") || ends_in(host, ".pkg.dev"))
		return CLOUD_GCP;
	if (ends_in(host, ".azurecr.io") || ends_in(host, ".azurecr.cn") || ends_in(host, ".azurecr.us"))
		return CLOUD_ACR;
	return CLOUD_NONE;
}

enum cloud_kind cloud_of_helper(const char *name, const char *registry)
{
	if (strcmp(name, "ecr-login") == 0)
		return cloud_of_registry(registry) == CLOUD_ECR_PUBLIC ? CLOUD_ECR_PUBLIC : CLOUD_ECR;
	if (strcmp(name, "gcloud") == 0 || strcmp(name, "gcr") == 0)
		return CLOUD_GCP;
	if (strcmp(name, "acr-env") == 0 || strcmp(name, "acr-login") == 0)
		return CLOUD_ACR;
	return CLOUD_NONE;
}

bool cloud_safe(const char *url)
{
	static const char *const hosts[] = { "http://127.0.0.1", "http://localhost", "http://[::1]" };

	if (strncasecmp(url, "https://", 8) == 0)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		size_t n = strlen(hosts[i]);

		if (strncasecmp(url, hosts[i], n) == 0 && (url[n] == ':' || url[n] == '/' || !url[n]))
			return true;
	}
	return false;
}

static const char *kind_name(enum cloud_kind kind)
{
	static const char *const names[] = { [CLOUD_NONE] = "", [CLOUD_ECR] = "ECR login",
					     [CLOUD_ECR_PUBLIC] = "ECR Public login", [CLOUD_GCP] = "Google login",
					     [CLOUD_ACR] = "Azure login" };
	return names[kind];
}

/* --- what the logins share --- */

const char *cloud_env(const struct cloud *c, const char *name)
{
	const char *const *list = c->env ? c->env : (const char *const *)environ;
	size_t n = strlen(name);

	for (; list && *list; list++)
		if (strncmp(*list, name, n) == 0 && (*list)[n] == '=' && (*list)[n + 1])
			return *list + n + 1;
	return NULL;
}

int cloud_fetch(const struct cloud *c, struct http_request q, bool metadata, struct http_response *ret, struct err *e)
{
	struct http_response r = { 0 };
	char what[256];

	q.max_body = LIMIT_TOKEN;
	q.no_proxy = metadata;
	if (!q.timeout_ms)
		q.timeout_ms = metadata ? METADATA_TIMEOUT_MS : CLOUD_TIMEOUT_MS;
	if (c->fetch(c->ctx, &q, &r, e) < 0) {
		/* a service that talks nonsense gives no access; the artifact is not what is wrong */
		if (e && e->code == CODE_INTEGRITY)
			e->code = CODE_AUTH;
		return -1;
	}
	if (r.status >= 300 && r.status < 400) {
		err_set(e, CODE_AUTH, "%s: answered with redirect %ld, which is not followed with credentials",
			http_redacted(q.url, what, sizeof(what)), r.status);
		cloud_response_release(&r);
		return -1;
	}
	*ret = r;
	return 0;
}

void cloud_response_release(struct http_response *r)
{
	if (r->body.data)
		explicit_bzero(r->body.data, r->body.cap ? r->body.cap : r->body.len);
	http_response_release(r);
}

int cloud_read_file(const char *path, const char *variable, char **ret, struct err *e)
{
	_cleanup_secret_buf_ struct buf b = BUF_INIT(LIMIT_SECRET_FILE);

	if (sys_read_file(AT_FDCWD, path, &b) < 0) {
		err_errno(e, CODE_USAGE, errno, "cannot read %s, which %s names", path, variable);
		return -1;
	}
	while (b.len && (b.data[b.len - 1] == '\n' || b.data[b.len - 1] == '\r'))
		b.data[--b.len] = '\0';
	if (!b.len || memchr(b.data, '\0', b.len))
		return err_set(e, CODE_USAGE, "%s, which %s names, holds no token", path, variable);
	*ret = strndup(b.data, b.len);
	return *ret ? 0 : err_oom(e);
}

int cloud_json(const struct http_response *r, const char *who, struct json_doc *ret, struct err *e)
{
	if (json_parse(buf_cstr(&r->body), r->body.len, "answer", ret, e) < 0) {
		if (e && e->code == CODE_INTEGRITY)
			e->code = CODE_AUTH;
		return err_wrap(e, "%s", who);
	}
	if (yyjson_is_obj(ret->root))
		return 0;
	secret_json_release(ret);
	return err_set(e, CODE_AUTH, "%s: the answer is no JSON object", who);
}

int cloud_json_secret(yyjson_val *obj, const char *key, const char *who, char **ret, struct err *e)
{
	char *s = NULL;

	if (json_strdup(obj, key, &s) < 0 || !s || !token_clean(s)) {
		secret_free(s);
		return err_set(e, CODE_AUTH, "%s: the answer has no usable %s", who, key);
	}
	*ret = s;
	return 0;
}

void cloud_mask(struct str words, const char *const *secrets)
{
	char *p = (char *)(uintptr_t)words.p;	/* a part of a document or body of ours */

	for (; secrets && *secrets; secrets++) {
		_cleanup_secret_buf_ struct buf encoded = BUF_INIT(LIMIT_TOKEN * 4);

		secret_mask_bytes(p, words.n, *secrets);
		if (buf_add_urlencoded(&encoded, *secrets, "") == 0)
			secret_mask_bytes(p, words.n, buf_cstr(&encoded));
	}
}

int cloud_refused(const struct http_response *r, const char *who, const char *code, const char *text,
		  const char *const *secrets, struct err *e)
{
	_cleanup_secret_json_ struct json_doc doc = { 0 };
	struct str c = { "", 0 }, t = { "", 0 };
	char shown_code[96], shown_text[300];

	if (r->body.len && json_parse(r->body.data, r->body.len, "error", &doc, NULL) == 0) {
		if (code)
			json_str(doc.root, code, &c);
		if (text && json_str(doc.root, text, &t) == 0)
			json_str(doc.root, "Message", &t);	/* some of AWS's services */
	}
	cloud_mask(c, secrets);
	cloud_mask(t, secrets);
	json_show(c, shown_code, sizeof(shown_code));
	json_show(t, shown_text, sizeof(shown_text));
	bool passing = http_status_retryable(r->status);
	err_set(e, passing ? CODE_NETWORK : CODE_AUTH, "%s: refused with %ld%s%s%s%s%s", who, r->status,
		c.n || t.n ? " (" : "", shown_code, c.n && t.n ? ": " : "", shown_text, c.n || t.n ? ")" : "");
	if (e) {
		e->http_status = (int)r->status;
		e->retryable = passing;
		e->retry_after_ms = http_retry_after_ms(http_response_header(r, "Retry-After", 0), time(NULL));
	}
	return -1;
}

bool cloud_is_over(const struct err *e)
{
	return e->code == CODE_SIGINT || e->code == CODE_SIGTERM || (e->code == CODE_DEADLINE && !e->retryable);
}

const char *cloud_why(const struct err *e, char *ret, size_t n)
{
	const char *colon = strstr(e->msg, ": ");

	if (e->code == CODE_DEADLINE)
		snprintf(ret, n, "timed out");
	else	/* without the URL in front, which the note names already */
		snprintf(ret, n, "%s", colon ? colon + 2 : e->msg);
	return ret;
}

bool cloud_plain(const char *s, const char *more)
{
	const char *p = s;

	for (; *p; p++)
		if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr(more, *p)))
			return false;
	return p != s;
}

int cloud_base_url(const char *variable, const char *value, struct buf *ret, struct err *e)
{
	char origin[512];

	if (strlen(value) > 1024 || !token_clean(value) || strpbrk(value, "?#%\\\"") ||
	    http_origin(value, origin, sizeof(origin)) < 0)
		return err_set(e, CODE_USAGE, "%s is not a plain http(s) URL", variable);
	buf_adds(ret, value);
	while (!ret->failed && ret->len && ret->data[ret->len - 1] == '/')
		ret->data[--ret->len] = '\0';
	return ret->failed ? err_oom(e) : 0;
}

/* --- what was found is kept --- */

struct kept {
	enum cloud_kind kind;		/* CLOUD_NONE: free */
	bool found;
	char registry[256];
	struct credential cred;
	char note[CLOUD_NOTES_MAX];
	uint64_t good_ms, end_ms;	/* sys_now_ms clock: used until; runs out */
};

static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept kept[KEPT_MAX];
static unsigned kept_next;

static void kept_drop(struct kept *k)
{
	credential_release(&k->cred);
	explicit_bzero(k, sizeof(*k));
}

void cloud_forget(void)
{
	pthread_mutex_lock(&kept_lock);
	for (size_t i = 0; i < KEPT_MAX; i++)
		kept_drop(&kept[i]);
	pthread_mutex_unlock(&kept_lock);
}

void cloud_drop(const char *registry)
{
	pthread_mutex_lock(&kept_lock);
	for (size_t i = 0; i < KEPT_MAX; i++)
		if (kept[i].kind != CLOUD_NONE && strcmp(kept[i].registry, registry) == 0)
			kept_drop(&kept[i]);
	pthread_mutex_unlock(&kept_lock);
}

static struct kept *kept_find(enum cloud_kind kind, const char *registry)
{
	for (size_t i = 0; i < KEPT_MAX; i++)
		if (kept[i].kind == kind && strcmp(kept[i].registry, registry) == 0)
			return &kept[i];
	return NULL;
}

static bool copy_str(const char *s, char **ret)
{
	*ret = s ? strdup(s) : NULL;
	return !s || *ret;
}

static int copy_credential(const struct credential *c, struct credential *ret, struct err *e)
{
	struct credential n = { .life_ms = c->life_ms };

	if (copy_str(c->username, &n.username) && copy_str(c->password, &n.password) &&
	    copy_str(c->identity_token, &n.identity_token) && copy_str(c->source, &n.source)) {
		*ret = n;
		return 0;
	}
	credential_release(&n);
	return err_oom(e);
}

/* 1 and 0 as cloud_login, -1 error, 2 nothing kept. *ret_had: a login has worked before. */
static int kept_get(const struct cloud *c, enum cloud_kind kind, struct credential *ret, char note[static CLOUD_NOTES_MAX],
		    bool *ret_had, struct err *e)
{
	uint64_t now = sys_now_ms();
	int rc = 2;

	pthread_mutex_lock(&kept_lock);
	struct kept *k = kept_find(kind, c->registry);
	*ret_had = k && k->found;
	if (k && !c->fresh && now < k->good_ms) {
		rc = k->found;
		if (k->found && copy_credential(&k->cred, ret, e) < 0)
			rc = -1;
		else if (k->found)
			ret->life_ms = k->end_ms - now;
		else
			memcpy(note, k->note, CLOUD_NOTES_MAX);
	}
	pthread_mutex_unlock(&kept_lock);
	return rc;
}

/* Best effort: what is not kept is asked for again. */
static void kept_put(const struct cloud *c, enum cloud_kind kind, const struct credential *cred, const char *note)
{
	uint64_t now = sys_now_ms();
	struct kept n = { .kind = kind, .found = cred };
	struct err ignored;

	if ((size_t)snprintf(n.registry, sizeof(n.registry), "%s", c->registry) >= sizeof(n.registry))
		return;
	if (cred && copy_credential(cred, &n.cred, &ignored) < 0)
		return;
	/* Azure's is a refresh token, which its issuer may take once: it only says that there was one */
	n.good_ms = now + (kind == CLOUD_ACR && cred ? 0 : cred ? cred->life_ms / 10 * 8 : NONE_MS);
	n.end_ms = now + (cred ? cred->life_ms : NONE_MS);
	snprintf(n.note, sizeof(n.note), "%s", note);
	pthread_mutex_lock(&kept_lock);
	struct kept *k = kept_find(kind, c->registry);
	for (size_t i = 0; !k && i < KEPT_MAX; i++)
		if (kept[i].kind == CLOUD_NONE)
			k = &kept[i];
	if (!k)
		k = &kept[kept_next++ % KEPT_MAX];
	kept_drop(k);
	*k = n;
	pthread_mutex_unlock(&kept_lock);
}

/* --- the login --- */

static int login(const struct cloud *c, enum cloud_kind kind, struct credential *ret, struct buf *note, struct err *e)
{
	struct err own = { 0 };
	int rc = -1;

	switch (kind) {
	case CLOUD_ECR:
	case CLOUD_ECR_PUBLIC:
		rc = aws_login(c, kind == CLOUD_ECR_PUBLIC, ret, note, &own);
		break;
	case CLOUD_GCP:
		rc = gcp_login(c, ret, note, &own);
		break;
	case CLOUD_ACR:
		rc = azure_login(c, ret, note, &own);
		break;
	case CLOUD_NONE:
		return 0;
	}
	/* But for ECR's, these registries have public repositories too: the registry shall say whether it wants more. */
	if (rc < 0 && own.code == CODE_AUTH && kind != CLOUD_ECR) {
		buf_addf(note, "%.300s", own.msg);
		return 0;
	}
	if (rc < 0) {
		err_wrap(&own, "%s", kind_name(kind));
		if (e)
			*e = own;
	}
	return rc;
}

int cloud_login(const struct cloud *c, enum cloud_kind kind, struct credential *ret, struct buf *notes, struct err *e)
{
	_cleanup_buf_ struct buf why = BUF_INIT(LIMIT_ERR_MSG * 2);
	__attribute__((cleanup(credential_release))) struct credential found = { 0 };
	char note[CLOUD_NOTES_MAX] = "";
	bool had;
	int rc = kept_get(c, kind, &found, note, &had, e);

	if (rc == 2) {
		rc = login(c, kind, &found, &why, e);
		if (rc >= 0)
			snprintf(note, sizeof(note), "%s", buf_cstr(&why));
		if (rc == 0 && had && !c->fresh) {
			/* it has worked: going on as nobody would end the transfer with a refusal */
			err_set(e, CODE_NETWORK, "%s: %s", kind_name(kind), note);
			if (e)
				e->retryable = true;
			return -1;
		}
		if (rc >= 0)
			kept_put(c, kind, rc ? &found : NULL, note);
	}
	if (rc == 0 && notes)
		buf_addf(notes, "%s%s (%s)", notes->len ? ", " : "", kind_name(kind), note);
	if (rc == 1)
		*ret = (struct credential){ .username = steal_ptr(&found.username), .password = steal_ptr(&found.password),
					    .identity_token = steal_ptr(&found.identity_token),
					    .source = steal_ptr(&found.source), .life_ms = found.life_ms };
	return rc;
}
