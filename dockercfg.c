// SPDX-License-Identifier: Apache-2.0
#include "dockercfg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cloud.h"
#include "json.h"
#include "secret.h"
#include "sys.h"

static const char base64_alphabet[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static const char hub_key[] = "https://index.docker.io/v1/";

void credential_release(struct credential *c)
{
	secret_free(c->username);
	secret_free(c->password);
	secret_free(c->identity_token);
	secret_free(c->registry_token);
	free(c->helper);
	free(c->source);
	*c = (struct credential){ 0 };
}

static int oom(struct err *e)
{
	err_oom(e);
	return -1;
}

/* --- base64 --- */

int base64_decode(const char *s, size_t n, struct buf *ret)
{
	uint32_t bits = 0;
	unsigned have = 0, digits = 0;
	bool ended = false;

	for (size_t i = 0; i < n; i++) {
		const char *at;

		if (s[i] == ' ' || s[i] == '\t' || s[i] == '\r' || s[i] == '\n')
			continue;
		if (s[i] == '=') {
			ended = true;
			continue;
		}
		at = s[i] ? strchr(base64_alphabet, s[i]) : NULL;
		if (ended || !at)
			return -1;
		bits = (bits << 6 | (uint32_t)(at - base64_alphabet)) & 0xffffff;
		have += 6;
		digits++;
		if (have >= 8) {
			have -= 8;
			buf_addc(ret, (char)(bits >> have & 0xff));
		}
	}
	if (digits % 4 == 1)
		return -1;
	return ret->failed ? -1 : 0;
}

int base64_encode(const void *p, size_t n, struct buf *ret)
{
	const unsigned char *s = p;

	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)s[i] << 16;

		if (i + 1 < n)
			v |= (uint32_t)s[i + 1] << 8;
		if (i + 2 < n)
			v |= s[i + 2];
		buf_addc(ret, base64_alphabet[v >> 18 & 63]);
		buf_addc(ret, base64_alphabet[v >> 12 & 63]);
		buf_addc(ret, i + 1 < n ? base64_alphabet[v >> 6 & 63] : '=');
		buf_addc(ret, i + 2 < n ? base64_alphabet[v & 63] : '=');
	}
	return ret->failed ? -1 : 0;
}

/* --- keys --- */

static bool hub_host(struct str host)
{
	return str_caseeq(host, "docker.io") || str_caseeq(host, "index.docker.io") ||
	       str_caseeq(host, "registry-1.docker.io");
}

static struct str take_until(struct str *s, char sep)
{
	const char *at = s->n ? memchr(s->p, sep, s->n) : NULL;
	struct str head = { s->p, at ? (size_t)(at - s->p) : s->n };
	size_t skip = head.n + (at ? 1 : 0);

	s->p += skip;
	s->n -= skip;
	return head;
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/*
 * One label against a pattern with "*" and "?": the usual walk with a single point to fall back
 * to.
 */
static bool glob_label(struct str pat, struct str s)
{
	size_t p = 0, i = 0, star = SIZE_MAX, mark = 0;

	while (i < s.n) {
		if (p < pat.n && pat.p[p] == '*') {
			star = p++;
			mark = i;
		} else if (p < pat.n && (pat.p[p] == '?' || lower(pat.p[p]) == lower(s.p[i]))) {
			p++;
			i++;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			i = ++mark;
		} else {
			return false;
		}
	}
	while (p < pat.n && pat.p[p] == '*')
		p++;
	return p == pat.n;
}

/* "*.example.com:5000": as many labels as the host has, the same port. */
static bool glob_host(struct str pat, const char *registry)
{
	struct str host = str_of(registry);

	if (!memchr(pat.p, '*', pat.n) && !memchr(pat.p, '?', pat.n))
		return false;
	if (host.p[0] == '[')	/* an IPv6 address has no labels */
		return false;
	struct str pat_name = take_until(&pat, ':'), name = take_until(&host, ':');
	if (pat.n != host.n || memcmp(pat.p, host.p, pat.n) != 0)
		return false;
	while (pat_name.n && name.n)
		if (!glob_label(take_until(&pat_name, '.'), take_until(&name, '.')))
			return false;
	return !pat_name.n && !name.n;
}

static bool ends_with(struct str s, const char *tail)
{
	size_t n = strlen(tail);

	return s.n >= n && memcmp(s.p + s.n - n, tail, n) == 0;
}

static bool path_leads(struct str path, const char *repo)
{
	return strlen(repo) >= path.n && memcmp(repo, path.p, path.n) == 0 &&
	       (repo[path.n] == '/' || repo[path.n] == '\0');
}

/*
 * How well a key names registry/repo: 0 = not at all, greater is more specific. The length of a
 * matching path counts most, then exact over stripped over glob; Docker Hub's canonical key beats
 * its other spellings.
 */
static unsigned key_rank(const char *key, const char *registry, const char *repo)
{
	struct str path = str_trim(str_of(key)), host;
	bool scheme = false, exact, stripped = false;
	unsigned depth = 0;

	if (path.n > 8 && strncasecmp(path.p, "https://", 8) == 0)
		path = (struct str){ path.p + 8, path.n - 8 }, scheme = true;
	else if (path.n > 7 && strncasecmp(path.p, "http://", 7) == 0)
		path = (struct str){ path.p + 7, path.n - 7 }, scheme = true;
	host = take_until(&path, '/');
	while (path.n && path.p[path.n - 1] == '/')
		path.n--;
	if (!host.n)
		return 0;
	exact = str_caseeq(host, registry) || (hub_host(str_of(registry)) && hub_host(host));
	if (!exact && !glob_host(host, registry))
		return 0;
	/* what Docker Desktop keeps beside the password is no registry credential */
	if (ends_with(path, "/access-token") || ends_with(path, "/refresh-token"))
		return 0;
	if (path.n) {
		if (!scheme && path_leads(path, repo))
			depth = (unsigned)MIN(path.n, (size_t)LIMIT_PATH);
		else if (scheme || str_eq(path, "v1") || str_eq(path, "v2"))
			stripped = true;
		else
			return 0;
	} else {
		stripped = scheme;
	}
	return 1 + depth * 16 + (exact ? 8 : 0) + (stripped ? 0 : 4) +
	       (strcmp(key, hub_key) == 0 ? 5 : 0);
}

/* --- entries --- */

static int bad_key(struct err *e, const char *path, const char *key, const char *what)
{
	return err_set(e, CODE_USAGE, "%s: key %s: %s", path, key, what);
}

static int bad_member(struct err *e, const char *path, const char *key, const char *member,
		      const char *what)
{
	return err_set(e, CODE_USAGE, "%s: key %s.%s: %s", path, key, member, what);
}

/* A non-empty string member: 1, else 0; -1 = of another type, or with a NUL inside. */
static int entry_str(yyjson_val *entry, const char *name, struct str *ret)
{
	struct str s;
	int rc = json_str(entry, name, &s);

	if (rc <= 0)
		return rc;
	if (!s.n)
		return 0;
	if (memchr(s.p, '\0', s.n))
		return -1;
	*ret = s;
	return 1;
}

static bool entry_used(yyjson_val *entry)
{
	static const char *const names[] = { "auth", "username", "password", "identitytoken",
					     "registrytoken" };

	/* something malformed counts: it must be reported, not skipped */
	if (!yyjson_is_obj(entry))
		return !yyjson_is_null(entry);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		yyjson_val *v = yyjson_obj_get(entry, names[i]);

		if (v && !yyjson_is_null(v) && !(yyjson_is_str(v) && !yyjson_get_len(v)))
			return true;
	}
	return false;
}

static int take_str(struct str s, char **ret)
{
	*ret = strndup(s.p, s.n);
	return *ret ? 0 : -1;
}

/*
 * "auth": base64 of user:password, padded by some writers with NULs. key is the entry's, as in
 * auths.HOST.
 */
static int entry_auth(struct str auth, const char *path, const char *key, struct credential *c,
		      struct err *e)
{
	__attribute__((cleanup(secret_buf_release))) struct buf plain = BUF_INIT(LIMIT_SECRET_FILE);
	struct str rest;

	if (base64_decode(auth.p, auth.n, &plain) < 0)
		return bad_member(e, path, key, "auth", "is not base64");
	rest = (struct str){ buf_cstr(&plain), plain.len };
	while (rest.n && rest.p[rest.n - 1] == '\0')
		rest.n--;
	if (!rest.n || !memchr(rest.p, ':', rest.n))
		return bad_member(e, path, key, "auth", "does not hold user:password");
	if (memchr(rest.p, '\0', rest.n))
		return bad_member(e, path, key, "auth", "holds a NUL byte");
	struct str user = take_until(&rest, ':');
	if (take_str(user, &c->username) || take_str(rest, &c->password))
		return oom(e);
	return 0;
}

static int entry_read(yyjson_val *entry, const char *path, const char *key, struct credential *c,
		      struct err *e)
{
	enum { AUTH, USER, PASSWORD, IDENTITY, TOKEN, MEMBERS };
	static const char *const names[MEMBERS] = { "auth", "username", "password", "identitytoken",
						    "registrytoken" };
	struct str v[MEMBERS] = { 0 };
	int has[MEMBERS];

	if (!yyjson_is_obj(entry))
		return bad_key(e, path, key, "is not an object");
	for (size_t i = 0; i < MEMBERS; i++) {
		v[i] = str_of("");
		has[i] = entry_str(entry, names[i], &v[i]);
		if (has[i] < 0)
			return bad_member(e, path, key, names[i], "must be a string");
	}
	if (has[AUTH]) {
		if (entry_auth(v[AUTH], path, key, c, e) < 0)
			return -1;
	} else if (has[USER] || has[PASSWORD]) {
		if (take_str(v[USER], &c->username) || take_str(v[PASSWORD], &c->password))
			return oom(e);
	}
	if ((has[IDENTITY] && take_str(v[IDENTITY], &c->identity_token)) ||
	    (has[TOKEN] && take_str(v[TOKEN], &c->registry_token)))
		return oom(e);
	/* the user name by which credential helpers mark a refresh token */
	if (!c->identity_token && c->username && strcmp(c->username, "<token>") == 0)
		c->identity_token = steal_ptr(&c->password);
	if (asprintf(&c->source, "%s, key %s", path, key) < 0) {
		c->source = NULL;
		return oom(e);
	}
	return 0;
}

/* --- one document --- */

static yyjson_val *best_entry(yyjson_val *auths, const char *registry, const char *repo,
			      const char **ret_key)
{
	yyjson_val *k, *v, *best = NULL;
	unsigned best_rank = 0;
	size_t i, max;

	yyjson_obj_foreach(auths, i, max, k, v) {
		unsigned rank = key_rank(yyjson_get_str(k), registry, repo);

		if (rank > best_rank && entry_used(v)) {
			best_rank = rank;
			best = v;
			*ret_key = yyjson_get_str(k);
		}
	}
	return best;
}

static int built_in_helper(const char *path, const char *key, const char *name,
			   struct credential *ret, struct err *e)
{
	struct credential c = { .helper = strdup(name) };

	if (!c.helper || asprintf(&c.source, "%s, key credHelpers.%s", path, key) < 0) {
		c.source = NULL;
		credential_release(&c);
		return oom(e);
	}
	*ret = c;
	return 1;
}

/* credsStore is for all registries: the login of a cloud follows from the registry's name then. */
static void note_store(yyjson_val *root, const char *path, const char *registry, struct buf *notes)
{
	struct str store;
	char name[65] = "";

	if (!notes || json_str(root, "credsStore", &store) <= 0 || !store.n)
		return;
	snprintf(name, sizeof(name), "%.*s", (int)MIN(store.n, sizeof(name) - 1), store.p);
	if (cloud_of_helper(name, registry) == CLOUD_NONE)
		buf_addf(notes, "; %s leaves its credentials to the helper docker-credential-%s, "
			 "which cannot run here", path, name);
	else if (cloud_of_registry(registry) == CLOUD_NONE)
		buf_addf(notes, "; %s leaves its credentials to docker-credential-%s, whose login "
			 "is built in, but not for a host of this name: put it under credHelpers",
			 path, name);
}

static int check_helpers(yyjson_val *root, const char *path, const char *registry, const char *repo,
			 struct credential *ret, struct buf *notes, struct err *e)
{
	yyjson_val *helpers = NULL, *k, *v, *helper = NULL;
	const char *key = NULL;
	unsigned best = 0;
	size_t i, max;

	if (json_obj(root, "credHelpers", &helpers) < 0)
		return bad_key(e, path, "credHelpers", "is not an object");
	yyjson_obj_foreach(helpers, i, max, k, v) {
		unsigned rank = key_rank(yyjson_get_str(k), registry, repo);

		if (rank > best) {
			best = rank;
			key = yyjson_get_str(k);
			helper = v;
		}
	}
	if (helper && !yyjson_is_str(helper))
		return bad_key(e, path, "credHelpers", "names must be strings");
	if (!helper || !yyjson_get_len(helper)) {	/* an empty name switches the helper off */
		note_store(root, path, registry, notes);
		return 0;
	}
	if (cloud_of_helper(yyjson_get_str(helper), registry) != CLOUD_NONE)
		return built_in_helper(path, key, yyjson_get_str(helper), ret, e);
	return err_set(e, CODE_USAGE,
		       "%s: key credHelpers.%s: the credential helper docker-credential-%s "
		       "cannot run here; put user and password under \"auths\" (docker login "
		       "without a helper), or use --username with --password-file",
		       path, key, yyjson_get_str(helper));
}

static int lookup_root(yyjson_val *root, const char *path, const char *registry, const char *repo,
		       struct credential *ret, struct buf *notes, struct err *e)
{
	struct credential c = { 0 };
	yyjson_val *auths = NULL, *entry;
	const char *key = NULL;
	char at[300];
	int rc;

	if (!yyjson_is_obj(root))
		return err_set(e, CODE_USAGE, "%s: is not a JSON object", path);
	rc = json_obj(root, "auths", &auths);
	if (rc < 0)
		return bad_key(e, path, "auths", "is not an object");
	if (rc == 0 && !yyjson_obj_get(root, "auths"))
		auths = root;	/* .dockercfg; the other keys of a config.json look like no host */
	entry = best_entry(auths, registry, repo, &key);
	if (!entry)
		return check_helpers(root, path, registry, repo, ret, notes, e);
	snprintf(at, sizeof(at), "%s%s", auths == root ? "" : "auths.", key);
	if (entry_read(entry, path, at, &c, e) < 0) {
		credential_release(&c);
		return -1;
	}
	*ret = c;
	return 1;
}

int dockercfg_lookup(const char *text, size_t len, const char *path, const char *registry,
		     const char *repo, struct credential *ret, struct buf *notes, struct err *e)
{
	_cleanup_secret_json_ struct json_doc doc = { 0 };
	size_t i = 0;

	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		text += 3, len -= 3;
	while (i < len && strchr(" \t\r\n", text[i]) && text[i])
		i++;
	if (i == len)	/* an empty file is a file without credentials */
		return 0;
	if (json_parse(text, len, path, &doc, e) < 0) {
		if (e && e->code == CODE_INTEGRITY)
			e->code = CODE_USAGE;
		return -1;
	}
	return lookup_root(doc.root, path, registry, repo, ret, notes, e);
}

/* --- the search --- */

struct search {
	const char *registry, *repo;
	struct credential *ret;
	struct buf *looked;
	struct buf notes;
};

static void add_looked(struct search *s, const char *path, const char *why)
{
	if (s->looked)
		buf_addf(s->looked, "%s%s%s", s->looked->len ? ", " : "", path, why);
}

static int cannot_read(struct search *s, const char *path, bool must, struct err *e)
{
	int errnum = errno;
	bool missing = errnum == ENOENT || errnum == ENOTDIR;

	if (must || errnum == EFBIG) {
		err_errno(e, CODE_USAGE, errnum, "cannot read the registry config %s", path);
		return -1;
	}
	add_looked(s, path, missing ? " (not there)" : " (unreadable)");
	return 0;
}

static int look_in_file(struct search *s, const char *path, bool must, struct err *e)
{
	__attribute__((cleanup(secret_buf_release))) struct buf text = BUF_INIT(LIMIT_CONFIG_FILE);

	if (sys_read_file(AT_FDCWD, path, &text) < 0)
		return cannot_read(s, path, must, e);
	add_looked(s, path, "");
	return dockercfg_lookup(buf_cstr(&text), text.len, path, s->registry, s->repo, s->ret,
				&s->notes, e);
}

static int look_in_dir(struct search *s, const char *dir, bool must, struct err *e)
{
	static const char *const names[] = { "config.json", ".dockerconfigjson", ".dockercfg" };
	bool any = false;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *path = NULL;
		int rc;

		if (asprintf(&path, "%s/%s", dir, names[i]) < 0) {
			path = NULL;
			return oom(e);
		}
		if (access(path, F_OK) < 0)
			continue;
		any = true;
		rc = look_in_file(s, path, must, e);
		if (rc)
			return rc;
	}
	if (any)
		return 0;
	if (must)
		return err_set(e, CODE_USAGE, "the registry config %s is a directory without "
			       "config.json, .dockerconfigjson or .dockercfg", dir);
	add_looked(s, dir, " (no config.json there)");
	return 0;
}

static int look_in(struct search *s, const char *path, bool must, struct err *e)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return cannot_read(s, path, must, e);
	return S_ISDIR(st.st_mode) ? look_in_dir(s, path, must, e) : look_in_file(s, path, must, e);
}

static const char *env_get(const char *const *env, const char *name)
{
	size_t n = strlen(name);
	const char *const *list = env ? env : (const char *const *)environ;

	for (; list && *list; list++)
		if (strncmp(*list, name, n) == 0 && (*list)[n] == '=' && (*list)[n + 1])
			return *list + n + 1;
	return NULL;
}

static int look_around(struct search *s, const char *const *env, struct err *e)
{
	const char *docker = env_get(env, "DOCKER_CONFIG");
	const char *auth_file = env_get(env, "REGISTRY_AUTH_FILE");
	const char *home = env_get(env, "HOME");
	int rc = 0;

	if (docker)
		rc = look_in(s, docker, false, e);
	if (!rc && auth_file)
		rc = look_in(s, auth_file, false, e);
	if (!rc && !docker && home) {
		_cleanup_free_ char *dir = NULL;

		if (asprintf(&dir, "%s/.docker", home) < 0) {
			dir = NULL;
			return oom(e);
		}
		rc = look_in(s, dir, false, e);
	}
	return rc;
}

int dockercfg_find(const char *const *files, const char *const *env, const char *registry,
		   const char *repo, struct credential *ret, struct buf *looked, struct err *e)
{
	struct search s = { .registry = registry, .repo = repo, .ret = ret, .looked = looked,
			    .notes = BUF_INIT(DOCKERCFG_NOTES_MAX) };
	int rc = 0;

	if (!files || !*files)
		rc = look_around(&s, env, e);
	else
		while (*files && !rc)
			rc = look_in(&s, *files++, true, e);
	if (looked && s.notes.len)
		buf_adds(looked, buf_cstr(&s.notes));
	buf_release(&s.notes);
	return rc;
}
