// SPDX-License-Identifier: Apache-2.0
#include "mirrors.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "json.h"
#include "sys.h"
#include "toml.h"
#include "units.h"

#define DRAGONFLY "dragonfly+"
#define DRAGONFLY_REGISTRY "X-Dragonfly-Registry"
#define FROM_MAX (LIMIT_PATH + 64)

struct reader {
	const struct ref *ref;
	const struct mirrors_options *o;
	struct mirrors *m;
	const char *dir, *file;		/* of the hosts.toml that is read */
	struct err *e;
};

/* --- lists --- */

static void free_list(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

static size_t list_length(char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

/* Takes text over, also when it fails. NULL = no memory. */
static int list_add(char ***list, char *text, struct err *e)
{
	size_t n = list_length(*list);
	char **v = text ? realloc(*list, (n + 2) * sizeof(*v)) : NULL;

	if (!v) {
		free(text);
		return err_oom(e);
	}
	v[n] = text;
	v[n + 1] = NULL;
	*list = v;
	return 0;
}

static void host_release(struct mirror_host *h)
{
	free(h->from);
	free(h->name);
	free(h->base);
	free_list(h->ca);
	free(h->cert);
	free(h->key);
	free_list(h->headers);
	*h = (struct mirror_host){ 0 };
}

void mirrors_release(struct mirrors *m)
{
	for (size_t i = 0; i < m->n; i++)
		host_release(&m->hosts[i]);
	free(m->hosts);
	free(m->ns);
	*m = (struct mirrors){ 0 };
}

/* Takes *h over, also when it fails. */
static int add_host(struct reader *r, struct mirror_host *h)
{
	struct mirror_host *v = NULL;

	if (r->m->n > LIMIT_MIRRORS)
		err_set(r->e, CODE_USAGE, "%s: more than %d hosts", h->from ? h->from : "mirrors", LIMIT_MIRRORS);
	else if (!(v = realloc(r->m->hosts, (r->m->n + 1) * sizeof(*v))))
		err_oom(r->e);
	if (!v) {
		host_release(h);
		return -1;
	}
	v[r->m->n++] = *h;
	r->m->hosts = v;
	*h = (struct mirror_host){ 0 };
	return 0;
}

static void __attribute__((format(printf, 2, 3))) warn(struct reader *r, const char *fmt, ...)
{
	char text[FROM_MAX + 512];
	va_list ap;

	if (!r->o->warn)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	r->o->warn(r->o->warn_arg, text);
}

/* --- URLs --- */

static int bad_url(struct reader *r, const struct mirror_host *h, const char *url)
{
	char shown[200], redacted[300];

	json_show(str_of(http_redacted(url, redacted, sizeof(redacted))), shown, sizeof(shown));
	return err_set(r->e, CODE_USAGE, "%s: '%s' is no usable address; write http[s]://host[:port][/path], without user, ? and #",
		       h->from, shown);
}

/* Is it the host of the reference, however it is reached? */
static bool is_registry(struct reader *r, const struct mirror_host *h)
{
	char url[REF_HOST_MAX + 16], origin[512];
	int scheme = (int)strcspn(h->base, ":");

	if (strcmp(r->ref->registry, "docker.io") == 0 &&
	    (strcmp(h->name, "docker.io") == 0 || strcmp(h->name, "index.docker.io") == 0))
		return true;
	snprintf(url, sizeof(url), "%.*s://%s/", scheme, h->base, r->ref->host);
	return http_origin(url, origin, sizeof(origin)) == 0 && strcmp(origin, h->origin) == 0;
}

/* name, base and origin from what the user wrote. */
static int set_url(struct reader *r, struct mirror_host *h, const char *text, bool override_path)
{
	struct buf url = BUF_INIT(LIMIT_URL), name = BUF_INIT(REF_HOST_MAX);
	const char *scheme_end = strstr(text, "://");
	int failed = -1;

	buf_addf(&url, "%s%s", scheme_end ? "" : "https://", text);
	if (url.failed || http_origin(buf_cstr(&url), h->origin, sizeof(h->origin)) || strpbrk(text, "?#\\ \"<>")) {
		bad_url(r, h, text);
		goto out;
	}
	while (url.data[url.len - 1] == '/')
		url.data[--url.len] = '\0';
	for (char *p = url.data; *p != ':'; p++)
		*p = (char)(*p | 0x20);
	const char *host = strstr(url.data, "://") + 3;
	size_t n = strcspn(host, "/"), path = strlen(host + n);
	for (size_t i = 0; i < n; i++)
		buf_addc(&name, host[i] >= 'A' && host[i] <= 'Z' ? (char)(host[i] + 32) : host[i]);
	/* as containerd: the path of the API is added unless it is there, or the user says that this is all of it */
	if (!override_path && (path < 3 || strcmp(host + n + path - 3, "/v2") != 0))
		buf_adds(&url, "/v2");
	h->base = buf_steal(&url);
	h->name = buf_steal(&name);
	if (!h->base || !h->name) {
		bad_url(r, h, text);
		goto out;
	}
	h->registry = is_registry(r, h);
	failed = 0;
out:
	buf_release(&url);
	buf_release(&name);
	return failed;
}

static const char *scheme_of(const struct mirror_host *h)
{
	return strncmp(h->base, "http:", 5) == 0 ? "http" : "https";
}

/* The registry as the reference has it; also where a file calls Docker Hub by its other names, which serve no content. */
static int set_registry(struct reader *r, struct mirror_host *h, const char *scheme)
{
	char url[REF_HOST_MAX + 16];

	free(h->base);
	free(h->name);
	h->base = h->name = NULL;
	snprintf(url, sizeof(url), "%s://%s", scheme, r->ref->host);
	if (set_url(r, h, url, false))
		return err_set(r->e, CODE_USAGE, "%s is no usable registry address", r->ref->host);
	free(h->name);
	h->name = strdup(r->ref->registry);
	h->registry = true;
	return h->name ? 0 : err_oom(r->e);
}

/* --- the fields of a host in hosts.toml --- */

static int bad(struct reader *r, const struct toml *t, const char *wanted)
{
	return err_set(r->e, CODE_USAGE, "%s, line %u: '%s' is %s instead of %s", r->file, t->line, t->key ? t->key : "an element",
		       toml_type_name(t->type), wanted);
}

/* A file that is named relative to the hosts.toml. The caller frees it; NULL: *e. */
static char *path_of(struct reader *r, const char *name)
{
	struct buf b = BUF_INIT(LIMIT_PATH);

	if (*name == '/')
		buf_adds(&b, name);
	else
		buf_addf(&b, "%s/%s", r->dir, name);
	char *path = buf_steal(&b);
	if (!path)
		err_set(r->e, CODE_USAGE, "%s: the name of a file is too long", r->file);
	return path;
}

/* Calls add for the string t, or for each of the array t. */
static int strings(struct reader *r, const struct toml *t, struct mirror_host *h, const char *wanted,
		   int (*add)(struct reader *, struct mirror_host *, const struct toml *))
{
	if (t->type == TOML_STRING)
		return add(r, h, t);
	if (t->type != TOML_ARRAY)
		return bad(r, t, wanted);
	for (const struct toml *m = t->first; m; m = m->next)
		if (m->type != TOML_STRING ? bad(r, m, "a string") : add(r, h, m))
			return -1;
	return 0;
}

static int add_capability(struct reader *r, struct mirror_host *h, const struct toml *t)
{
	char shown[60];

	if (strcasecmp(t->string, "pull") == 0)
		h->pull = true;
	else if (strcasecmp(t->string, "resolve") == 0)
		h->resolve = true;
	else if (strcasecmp(t->string, "push") != 0)
		return err_set(r->e, CODE_USAGE, "%s, line %u: unknown capability '%s'; there are pull, resolve and push", r->file,
			       t->line, json_show(str_of(t->string), shown, sizeof(shown)));
	return 0;
}

static int get_capabilities(struct reader *r, struct mirror_host *h, const struct toml *t)
{
	if (t->type != TOML_ARRAY)
		return bad(r, t, "an array of strings");
	/* as containerd: an empty list says nothing */
	h->pull = h->resolve = t->first == NULL;
	return strings(r, t, h, "an array of strings", add_capability);
}

static int add_ca(struct reader *r, struct mirror_host *h, const struct toml *t)
{
	if (list_length(h->ca) == LIMIT_MIRROR_FILES)
		return err_set(r->e, CODE_USAGE, "%s, line %u: more than %d CA files", r->file, t->line, LIMIT_MIRROR_FILES);
	char *path = path_of(r, t->string);
	return path ? list_add(&h->ca, path, r->e) : -1;
}

static int get_ca(struct reader *r, struct mirror_host *h, const struct toml *t)
{
	return strings(r, t, h, "a string or an array of strings", add_ca);
}

static int set_pair(struct reader *r, struct mirror_host *h, const char *cert, const char *key, unsigned line)
{
	if (h->cert) {
		warn(r, "%s, line %u: only the first client certificate of a host is used", r->file, line);
		return 0;
	}
	h->cert = path_of(r, cert);
	h->key = h->cert ? path_of(r, *key ? key : cert) : NULL;
	return h->key ? 0 : -1;
}

/* "both.pem", ["both.pem", ...], [["cert.pem", "key.pem"], ["both.pem", ""]] */
static int get_client(struct reader *r, struct mirror_host *h, const struct toml *t)
{
	if (t->type == TOML_STRING)
		return set_pair(r, h, t->string, "", t->line);
	if (t->type != TOML_ARRAY)
		return bad(r, t, "a string, or an array of strings or pairs");
	for (const struct toml *m = t->first; m; m = m->next) {
		const struct toml *cert = m->type == TOML_ARRAY ? m->first : m, *key = cert && cert != m ? cert->next : NULL;
		bool pair = cert && cert != m && cert->type == TOML_STRING && key && key->type == TOML_STRING && !key->next;
		if (m->type != TOML_STRING && !pair)
			return err_set(r->e, CODE_USAGE, "%s, line %u: 'client' wants file names, or pairs [certificate, key]",
				       r->file, m->line);
		if (set_pair(r, h, cert->string, pair ? key->string : "", m->line))
			return -1;
	}
	return 0;
}

static int get_bool(struct reader *r, const struct toml *t, bool *ret)
{
	if (t->type != TOML_BOOL)
		return bad(r, t, "true or false");
	*ret = t->boolean;
	return 0;
}

static int get_skip_verify(struct reader *r, struct mirror_host *h, const struct toml *t)
{
	return get_bool(r, t, &h->skip_verify);
}

static int get_dial_timeout(struct reader *r, struct mirror_host *h, const struct toml *t)
{
	if (t->type != TOML_STRING)
		return bad(r, t, "a string such as \"200ms\"");
	if (*t->string && (!units_duration(str_of(t->string), &h->dial_timeout_ms) || h->dial_timeout_ms > UINT32_MAX / 2))
		return err_set(r->e, CODE_USAGE, "%s, line %u: 'dial_timeout' is no duration such as \"200ms\"", r->file, t->line);
	return 0;
}

/* RFC 9110: a token. */
static bool header_name(const char *s)
{
	size_t n = strlen(s);

	return n && n < 256 &&
	       strspn(s, "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == n;
}

/* Those that say what the answer is, or where a message ends: with others the engine would be wrong about what it gets. */
static bool header_of_ours(const char *name)
{
	static const char *const ours[] = { "Accept-Encoding", "Connection", "Content-Length", "Range", "If-Range", "TE",
					    "Transfer-Encoding", "Upgrade", "Expect" };

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (strcasecmp(name, ours[i]) == 0)
			return true;
	return false;
}

/* The value of a header of h, NULL = it has none. */
static const char *header_value(const struct mirror_host *h, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; h->headers && h->headers[i]; i++)
		if (strncasecmp(h->headers[i], name, n) == 0 && h->headers[i][n] == ':')
			return h->headers[i] + n + 2;
	return NULL;
}

static int add_header(struct reader *r, struct mirror_host *h, const char *name, const char *value)
{
	struct buf b = BUF_INIT(LIMIT_SECRET_FILE);

	buf_addf(&b, "%s: %s", name, value);
	return list_add(&h->headers, buf_steal(&b), r->e);
}

static int add_header_line(struct reader *r, struct mirror_host *h, const char *name, const struct toml *t)
{
	if (t->type != TOML_STRING)
		return bad(r, t, "a string");
	for (const char *p = t->string; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return err_set(r->e, CODE_USAGE, "%s, line %u: a control character in the header %s", r->file, t->line,
				       name);
	if (list_length(h->headers) == LIMIT_MIRROR_HEADERS || strlen(t->string) > LIMIT_TOKEN / 2)
		return err_set(r->e, CODE_USAGE, "%s, line %u: too many or too long headers", r->file, t->line);
	return add_header(r, h, name, t->string);
}

static int get_header(struct reader *r, struct mirror_host *h, const struct toml *t)
{
	char shown[80];

	if (t->type != TOML_TABLE)
		return bad(r, t, "a table");
	for (const struct toml *m = t->first; m; m = m->next) {
		if (!header_name(m->key))
			return err_set(r->e, CODE_USAGE, "%s, line %u: '%s' is no name of a header", r->file, m->line,
				       json_show(str_of(m->key), shown, sizeof(shown)));
		if (header_of_ours(m->key)) {
			warn(r, "%s, line %u: the header %s is fetcher's own and not replaced", r->file, m->line, m->key);
			continue;
		}
		if (m->type != TOML_ARRAY) {
			if (add_header_line(r, h, m->key, m))
				return -1;
			continue;
		}
		for (const struct toml *v = m->first; v; v = v->next)
			if (add_header_line(r, h, m->key, v))
				return -1;
	}
	return 0;
}

static const struct field {
	const char *name;
	int (*get)(struct reader *r, struct mirror_host *h, const struct toml *t);
} fields[] = {
	{ "capabilities", get_capabilities }, { "ca", get_ca }, { "client", get_client }, { "skip_verify", get_skip_verify },
	{ "header", get_header }, { "dial_timeout", get_dial_timeout },
};

static void unknown(struct reader *r, const struct toml *m)
{
	char shown[80];

	warn(r, "%s, line %u: '%s' is not known here and ignored", r->file, m->line, json_show(str_of(m->key), shown, sizeof(shown)));
}

/* Everything but the address. root: the table is the document, with keys of its own. */
static int get_fields(struct reader *r, struct mirror_host *h, const struct toml *t, bool root, bool *ret_override)
{
	h->pull = h->resolve = true;
	*ret_override = false;
	for (const struct toml *m = t->first; m; m = m->next) {
		size_t i = 0;
		while (i < ARRAY_SIZE(fields) && strcmp(fields[i].name, m->key) != 0)
			i++;
		if (i < ARRAY_SIZE(fields)) {
			if (fields[i].get(r, h, m))
				return -1;
		} else if (strcmp(m->key, "override_path") == 0) {
			if (get_bool(r, m, ret_override))
				return -1;
		} else if (!root || (strcmp(m->key, "server") != 0 && strcmp(m->key, "host") != 0)) {
			unknown(r, m);
		}
	}
	return 0;
}

/* --- Dragonfly --- */

/*
 * What makes dfdaemon fetch from the registry, through its peers, and know the blob again whatever registry it came from. last: the
 * registry, or what takes its place.
 */
static int set_dragonfly(struct reader *r, struct mirror_host *h, const struct mirror_host *last)
{
	static const char *const always[][2] = {
		{ "X-Dragonfly-Use-P2P", "true" },
		{ "X-Dragonfly-Enable-Task-ID-Based-Blob-Digest", "true" },
	};
	const char *said = header_value(h, DRAGONFLY_REGISTRY);
	const char *host = strstr(last->base, "://") + 3;
	char origin[512], url[REF_HOST_MAX + 16];

	snprintf(url, sizeof(url), "%.*s", (int)(host - last->base + (long)strcspn(host, "/")), last->base);
	if (!said && add_header(r, h, DRAGONFLY_REGISTRY, url))
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		if (!header_value(h, always[i][0]) && add_header(r, h, always[i][0], always[i][1]))
			return -1;
	said = header_value(h, DRAGONFLY_REGISTRY);
	h->dragonfly = true;
	h->resolve = false;
	/* another registry than ours must not see who we are for ours */
	h->on_behalf = http_origin(said, origin, sizeof(origin)) == 0 && strcmp(origin, last->origin) == 0;
	return 0;
}

/* --- hosts.toml --- */

static int set_from(struct reader *r, struct mirror_host *h, const struct toml *t)
{
	char from[FROM_MAX];

	snprintf(from, sizeof(from), "%s, line %u", r->file, t->line);
	h->from = strdup(from);
	return h->from ? 0 : err_oom(r->e);
}

static int read_host(struct reader *r, const struct toml *t)
{
	struct mirror_host h = { 0 };
	bool override_path;

	if (t->type != TOML_TABLE)
		return bad(r, t, "a table");
	if (set_from(r, &h, t) || get_fields(r, &h, t, false, &override_path) || set_url(r, &h, t->key, override_path) ||
	    (h.registry && !override_path && set_registry(r, &h, scheme_of(&h)))) {
		host_release(&h);
		return -1;
	}
	return add_host(r, &h);
}

/* The last resort; *ret_h is the caller's, also when it fails. */
static int read_server(struct reader *r, const struct toml *root, struct mirror_host *h)
{
	const struct toml *server = toml_get(root, "server");
	bool override_path;

	if (server && server->type != TOML_STRING)
		return bad(r, server, "a string");
	if (set_from(r, h, server ? server : root) || get_fields(r, h, root, true, &override_path))
		return -1;
	if (!server || !*server->string)
		return set_registry(r, h, r->o->plain_http ? "http" : "https");
	if (set_url(r, h, server->string, override_path))
		return -1;
	return h->registry && !override_path ? set_registry(r, h, scheme_of(h)) : 0;
}

static int read_document(struct reader *r, const struct toml *root, struct mirror_host *last)
{
	const struct toml *hosts = toml_get(root, "host");

	if (hosts && hosts->type != TOML_TABLE)
		return bad(r, hosts, "a table");
	for (const struct toml *t = hosts ? hosts->first : NULL; t; t = t->next)
		if (read_host(r, t))
			return -1;
	return read_server(r, root, last);
}

/* Docker's way: DIR/HOST/x.crt are CAs, x.cert and x.key a client certificate. */
static int read_cert_files(struct reader *r, struct mirror_host *last)
{
	struct dirent **names = NULL;
	int n = scandir(r->dir, &names, NULL, alphasort), rc = 0;

	for (int i = 0; i < n; i++) {
		const char *name = names[i]->d_name, *dot = strrchr(name, '.');
		char key[sizeof(names[i]->d_name) + 8], *path;
		struct stat st;
		if (rc == 0 && dot && strcmp(dot, ".crt") == 0 && list_length(last->ca) < LIMIT_MIRROR_FILES) {
			rc = (path = path_of(r, name)) ? list_add(&last->ca, path, r->e) : -1;
		} else if (rc == 0 && dot && strcmp(dot, ".cert") == 0) {
			snprintf(key, sizeof(key), "%.*s.key", (int)(dot - name), name);
			path = path_of(r, key);
			rc = path ? set_pair(r, last, name, stat(path, &st) == 0 ? key : "", 0) : -1;
			free(path);
		}
		free(names[i]);
	}
	free(names);
	last->pull = last->resolve = true;
	return rc ? rc : set_registry(r, last, r->o->plain_http ? "http" : "https");
}

static int read_dir(struct reader *r, struct mirror_host *last)
{
	_cleanup_buf_ struct buf text = BUF_INIT(LIMIT_HOSTS_FILE);
	char file[LIMIT_PATH];
	struct toml *root = NULL;

	if (snprintf(file, sizeof(file), "%s/hosts.toml", r->dir) >= (int)sizeof(file))
		return err_set(r->e, CODE_USAGE, "--hosts-dir: the name is too long");
	r->file = file;
	if (sys_read_file(AT_FDCWD, file, &text)) {
		if (errno != ENOENT)
			return err_errno(r->e, CODE_USAGE, errno, "cannot read %s", file);
		last->from = strdup(r->dir);
		return last->from ? read_cert_files(r, last) : err_oom(r->e);
	}
	if (toml_parse(buf_cstr(&text), text.len, file, &root, r->e))
		return -1;
	int rc = read_document(r, root, last);
	toml_free(root);
	return rc;
}

/* 1: *ret is the directory for the registry, 0: there is none. */
static int find_dir(struct reader *r, char ret[static LIMIT_PATH])
{
	const char *name = r->ref->registry, *colon = strrchr(name, ':');
	char with_port[REF_HOST_MAX + 8] = "";
	const char *const candidates[] = { with_port, name, "_default" };
	struct stat st;

	if (stat(r->o->hosts_dir, &st))
		return err_errno(r->e, CODE_USAGE, errno, "cannot read --hosts-dir %s", r->o->hosts_dir);
	if (!S_ISDIR(st.st_mode))
		return err_set(r->e, CODE_USAGE, "--hosts-dir %s is no directory", r->o->hosts_dir);
	/* the colon of a port, not one inside of [::1] */
	if (colon && !strchr(colon, ']'))
		snprintf(with_port, sizeof(with_port), "%.*s_%s_", (int)(colon - name), name, colon + 1);
	for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
		if (!*candidates[i])
			continue;
		if (snprintf(ret, LIMIT_PATH, "%s/%s", r->o->hosts_dir, candidates[i]) >= LIMIT_PATH)
			return err_set(r->e, CODE_USAGE, "--hosts-dir: the name is too long");
		if (stat(ret, &st) == 0)
			return 1;
		if (errno != ENOENT)
			return err_errno(r->e, CODE_USAGE, errno, "cannot read %s", ret);
	}
	return 0;
}

/* --- the whole --- */

static int read_urls(struct reader *r)
{
	for (size_t i = 0; r->o->urls && r->o->urls[i]; i++) {
		struct mirror_host h = { .from = strdup("--mirror"), .pull = true };
		const char *url = r->o->urls[i];
		h.dragonfly = strncasecmp(url, DRAGONFLY, sizeof(DRAGONFLY) - 1) == 0;
		if (h.from ? set_url(r, &h, url + (h.dragonfly ? sizeof(DRAGONFLY) - 1 : 0), false) : err_oom(r->e)) {
			host_release(&h);
			return -1;
		}
		if (add_host(r, &h))
			return -1;
	}
	return 0;
}

/*
 * People name the registry itself as a host to say how it is reached, often without `server`: as the last of the hosts it is the last
 * resort, with what was said about it.
 */
static void merge_last(struct reader *r, struct mirror_host *last)
{
	struct mirror_host *h = r->m->n ? &r->m->hosts[r->m->n - 1] : NULL;

	if (!h || !h->pull || !h->resolve || strcmp(h->base, last->base) != 0)
		return;
	free(h->name);
	h->name = steal_ptr(&last->name);
	h->registry = last->registry;
	host_release(last);
	*last = *h;
	r->m->n--;
}

static int finish(struct reader *r, struct mirror_host *last)
{
	struct buf ns = BUF_INIT(2 * REF_HOST_MAX);

	merge_last(r, last);
	for (size_t i = 0; i < r->m->n; i++) {
		struct mirror_host *h = &r->m->hosts[i];
		if ((h->dragonfly || header_value(h, DRAGONFLY_REGISTRY)) && set_dragonfly(r, h, last))
			return -1;
	}
	buf_adds(&ns, "ns=");
	buf_add_urlencoded(&ns, r->ref->registry, ":");
	r->m->ns = buf_steal(&ns);
	if (!r->m->ns)
		return err_oom(r->e);
	return add_host(r, last);
}

int mirrors_read(struct mirrors *ret, const struct ref *ref, const struct mirrors_options *o, struct err *e)
{
	struct mirrors m = { 0 };
	struct reader r = { .ref = ref, .o = o, .m = &m, .e = e };
	struct mirror_host last = { .pull = true, .resolve = true };
	char dir[LIMIT_PATH];
	int rc = read_urls(&r), found = 0;

	if (rc == 0 && o->hosts_dir)
		rc = (found = find_dir(&r, dir)) < 0 ? -1 : 0;
	r.dir = dir;
	if (rc == 0)
		rc = found ? read_dir(&r, &last) : set_registry(&r, &last, o->plain_http ? "http" : "https");
	if (rc == 0)
		rc = finish(&r, &last);
	for (size_t i = 0; rc == 0 && i < m.n; i++)
		if (m.hosts[i].skip_verify)
			warn(&r, "%s: skip_verify: the certificate of %s is not verified", m.hosts[i].from, m.hosts[i].name);
	if (rc) {
		host_release(&last);
		mirrors_release(&m);
		return -1;
	}
	*ret = m;
	return 0;
}
