// SPDX-License-Identifier: Apache-2.0
/* Who is asked: one struct oci_host for each mirror and for the registry, each with its own trust, credentials and patience. */
#include <stdio.h>
#include <string.h>

#include "oci_internal.h"

#define ACCEPT                                                                                                       \
	"Accept: " OCI_TYPE_MANIFEST ", " OCI_TYPE_INDEX ", " DOCKER_TYPE_MANIFEST ", " DOCKER_TYPE_LIST

char *oci_host_url(const struct oci_host *h, const char *kind, const char *target)
{
	struct buf b = BUF_INIT(LIMIT_URL);

	buf_addf(&b, "%s/%s/%s/%s", h->m->base, h->repo->ref.repo, kind, target);
	if (!h->m->registry)
		buf_addf(&b, "?%s", h->repo->mirrors.ns);
	return buf_steal(&b);
}

static char *blob_url(const void *arg, const struct digest *d)
{
	char digest[DIGEST_STR_MAX];

	return oci_host_url(arg, "blobs", digest_format(d, ':', digest));
}

static bool asked(const struct oci_host *h)
{
	return !h->server.mirror || !atomic_load(&h->server.bad);
}

bool oci_host_has_documents(const struct oci_host *h)
{
	return !h->server.mirror || (h->m->pull && !h->m->dragonfly && asked(h));
}

bool oci_host_resolves(const struct oci_host *h)
{
	return h->m->resolve && asked(h);
}

bool oci_host_gives_way(struct oci_host *h, const struct err *why)
{
	const struct http_options *o = &h->repo->options.http;
	char line[LIMIT_ERR_MSG + 512];

	if (!h->server.mirror || why->code == CODE_INTERNAL || (o->stop && atomic_load(o->stop)))
		return false;
	if (why->code == CODE_NOT_FOUND) {
		http_trace(h->http, "mirror %s: %s", h->server.name, why->msg);
		return true;
	}
	if (!atomic_exchange(&h->server.bad, true)) {
		atomic_fetch_add(&h->server.fallbacks, 1);
		snprintf(line, sizeof(line), "mirror %s: %s; not asked again in this run", h->server.name, why->msg);
		if (o->warn)
			o->warn(o->warn_arg, line);
	}
	return true;
}

/* --- making them --- */

/*
 * What the user said of the registry is for the registry: its client certificate and --insecure go to no other host. A mirror gets one
 * try, and its time is short: others have the same.
 */
static struct http_options http_options_of(const struct oci_repo *r, const struct mirror_host *m, bool mirror)
{
	struct http_options o = r->options.http;
	unsigned patience = r->options.mirror_timeout_ms;

	if (!m->registry) {
		o.cert_file = o.key_file = NULL;
		o.insecure = false;
	}
	o.cert_origin = m->origin;
	o.insecure |= m->skip_verify;
	if (m->cert) {
		o.cert_file = m->cert;
		o.key_file = m->key;
	}
	if (m->ca) {
		o.ca_file = NULL;
		o.extra_ca_files = (const char *const *)m->ca;
	}
	if (m->dial_timeout_ms)
		o.connect_timeout_ms = (unsigned)m->dial_timeout_ms;
	if (mirror && patience) {
		o.stall_timeout_ms = o.stall_timeout_ms ? MIN(o.stall_timeout_ms, patience) : patience;
		o.connect_timeout_ms = o.connect_timeout_ms ? MIN(o.connect_timeout_ms, patience) : patience;
		o.dns_timeout_ms = o.dns_timeout_ms ? MIN(o.dns_timeout_ms, patience) : patience;
	}
	if (mirror)
		o.retry_budget_ms = 1;
	return o;
}

static int open_auth(struct oci_host *h, struct err *e)
{
	const struct oci_repo *r = h->repo;
	const struct mirror_host *m = h->m;

	h->auth_options = r->options.auth;
	h->auth_options.no_cloud_login |= m->skip_verify; /* as --insecure does */
	if (!m->registry)
		h->auth_options.username = h->auth_options.password_file = h->auth_options.token_file = NULL;
	if (auth_new(&h->auth, h->http, &h->auth_options, m->origin, m->name, r->ref.repo, e))
		return -1;
	h->server.authority = auth_authority(h->auth);
	return 0;
}

static int document_headers(struct oci_host *h, struct err *e)
{
	char **more = h->m->headers;
	size_t n = 0;

	while (more && more[n])
		n++;
	h->headers = calloc(n + 2, sizeof(*h->headers));
	if (!h->headers)
		return err_oom(e);
	/* all four types at once: a registry that lacks one answers with what it has */
	h->headers[0] = ACCEPT;
	for (size_t i = 0; i < n; i++)
		h->headers[i + 1] = more[i];
	return 0;
}

static int open_host(struct oci_repo *r, size_t i, struct err *e)
{
	struct oci_host *h = &r->hosts[i];
	const struct mirror_host *m = h->m = &r->mirrors.hosts[i];
	bool mirror = i + 1 < r->mirrors.n;
	struct http_options ho = http_options_of(r, m, mirror);

	h->repo = r;
	r->n_hosts = i + 1;
	if (http_new(&h->http, &ho, e))
		return m->from ? err_wrap(e, "%s", m->from) : -1;
	h->server = (struct blob_server){
		.name = m->name,
		.http = h->http,
		.on_behalf = m->on_behalf,
		.headers = (const char *const *)m->headers,
		.blob_url = blob_url,
		.arg = h,
		.mirror = mirror,
		.whole = m->dragonfly,
		.first_byte_ms = mirror ? r->options.mirror_timeout_ms : 0,
		.speed_limit = mirror ? r->options.mirror_speed_limit : 0,
	};
	if (document_headers(h, e))
		return -1;
	return m->dragonfly ? 0 : open_auth(h, e);
}

static int open_hosts(struct oci_repo *r, struct err *e)
{
	const struct mirrors_options mo = {
		.urls = r->options.mirrors,
		.hosts_dir = r->options.hosts_dir,
		.plain_http = r->options.plain_http,
		.warn = r->options.http.warn,
		.warn_arg = r->options.http.warn_arg,
	};

	if (mirrors_read(&r->mirrors, &r->ref, &mo, e))
		return -1;
	for (size_t i = 0; i < r->mirrors.n; i++)
		if (open_host(r, i, e))
			return -1;
	const struct oci_host *last = &r->hosts[r->n_hosts - 1];
	for (size_t i = 0; i < r->n_hosts; i++) {
		struct oci_host *h = &r->hosts[i];
		if (h->m->on_behalf)
			h->server.authority = last->server.authority;
		if (!h->server.mirror || h->m->pull)
			r->servers[r->n_servers++] = &h->server;
	}
	return 0;
}

int oci_repo_new(struct oci_repo **ret, const struct ref *ref, const struct oci_repo_options *o, struct err *e)
{
	struct oci_repo *r = calloc(1, sizeof(*r));

	if (!r)
		return err_oom(e);
	r->ref = *ref;
	r->options = *o;
	if (open_hosts(r, e)) {
		oci_repo_free(r);
		return -1;
	}
	*ret = r;
	return 0;
}

void oci_repo_free(struct oci_repo *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n_hosts; i++) {
		struct oci_host *h = &r->hosts[i];
		if (h->auth)
			auth_free(h->auth);
		http_free(h->http);
		free(h->headers);
	}
	mirrors_release(&r->mirrors);
	free(r);
}

const struct http_authority *oci_repo_authority(struct oci_repo *r)
{
	return r->hosts[r->n_hosts - 1].server.authority;
}

struct http *oci_repo_http(struct oci_repo *r)
{
	return r->hosts[r->n_hosts - 1].http;
}

struct blob_server *const *oci_repo_servers(struct oci_repo *r, size_t *ret_n)
{
	*ret_n = r->n_servers;
	return r->servers;
}
