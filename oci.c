// SPDX-License-Identifier: Apache-2.0
/* The flow of requests from a reference to one manifest; documents are read in manifest.c. */
#include "oci.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct oci_repo {
	struct ref ref;
	struct oci_repo_options options; /* auth borrows it */
	struct http *http;
	struct auth *auth;
	char base[REF_HOST_MAX + 16];	/* "https://host[:port]" */
	char origin[512];
	struct blob_server registry;
	struct blob_server *servers[1];
};

/* All four at once: a registry that lacks one type answers with what it has. */
static const char *const manifest_headers[] = {
	"Accept: " OCI_TYPE_MANIFEST ", " OCI_TYPE_INDEX ", " DOCKER_TYPE_MANIFEST
	", " DOCKER_TYPE_LIST,
	NULL,
};

int oci_repo_new(struct oci_repo **ret, struct http *h, const struct ref *ref,
		 const struct oci_repo_options *o, struct err *e)
{
	struct oci_repo *r = calloc(1, sizeof(*r));

	if (!r)
		return err_oom(e);
	r->ref = *ref;
	r->options = *o;
	r->http = h;
	snprintf(r->base, sizeof(r->base), "%s://%s", o->plain_http ? "http" : "https", ref->host);
	if (http_origin(r->base, r->origin, sizeof(r->origin))) {
		err_set(e, CODE_USAGE, "%s is no usable registry address", ref->host);
		goto fail;
	}
	if (auth_new(&r->auth, h, &r->options.auth, r->origin, r->ref.registry, r->ref.repo, e))
		goto fail;
	*ret = r;
	return 0;
fail:
	oci_repo_free(r);
	return -1;
}

void oci_repo_free(struct oci_repo *r)
{
	if (!r)
		return;
	if (r->auth)
		auth_free(r->auth);
	free(r);
}

const struct http_authority *oci_repo_authority(struct oci_repo *r)
{
	return auth_authority(r->auth);
}

/*
 * kind: "manifests" or "blobs". The parts need no encoding: ref_parse and digest_format let only
 * URL-safe characters through.
 */
static char *make_url(const struct oci_repo *r, const char *kind, const char *target)
{
	struct buf b = BUF_INIT(LIMIT_URL);

	buf_addf(&b, "%s/v2/%s/%s/%s", r->base, r->ref.repo, kind, target);
	return buf_steal(&b);
}

static char *blob_url(const void *arg, const struct digest *d)
{
	char digest[DIGEST_STR_MAX];

	return make_url(arg, "blobs", digest_format(d, ':', digest));
}

struct blob_server *const *oci_repo_servers(struct oci_repo *r, size_t *ret_n)
{
	r->registry.name = r->ref.registry;
	r->registry.http = r->http;
	r->registry.authority = oci_repo_authority(r);
	r->registry.blob_url = blob_url;
	r->registry.arg = r;
	r->servers[0] = &r->registry;
	*ret_n = 1;
	return r->servers;
}

void oci_resolved_release(struct oci_resolved *r)
{
	free(r->media_type);
	buf_release(&r->raw);
	buf_release(&r->manifest_raw);
	oci_manifest_release(&r->manifest);
	*r = (struct oci_resolved){ 0 };
}

/* --- one document --- */

/* Bytes with the digest that they really have. */
struct document {
	struct digest digest;
	char *content_type;	/* NULL = none */
	struct buf raw;
};

static void document_release(struct document *d)
{
	free(d->content_type);
	buf_release(&d->raw);
	*d = (struct document){ 0 };
}

/* The one place where a digest that was asked for meets one that was computed. */
static int check_digest(const struct digest *expected, const void *p, size_t n, const char *what,
			struct digest *ret_computed, struct err *e)
{
	char want[DIGEST_STR_MAX], got[DIGEST_STR_MAX];
	struct digest computed;

	digest_of(expected->alg, p, n, &computed);
	if (!digest_equal(expected, &computed))
		return err_set(e, CODE_INTEGRITY, "%s: the bytes have digest %s instead of %s",
			       what, digest_format(&computed, ':', got),
			       digest_format(expected, ':', want));
	*ret_computed = computed;
	return 0;
}

/* A proxy's login page, or a web server that is no registry. Releases the response. */
static int refuse_page(const struct oci_repo *r, struct http_response *resp, struct err *e)
{
	_cleanup_buf_ struct buf page = BUF_INIT(512);
	char what[512];

	http_html_words(&resp->body, &page);
	err_set(e, CODE_INTEGRITY,
		"registry %s: %s answered with %s instead of a manifest: a web page of a proxy or a login page "
		"in the way, or no registry at this address?", r->ref.registry,
		http_redacted(resp->url, what, sizeof(what)), buf_cstr(&page));
	http_response_release(resp);
	return -1;
}

static int request(struct oci_repo *r, const char *method, const char *target,
		   struct http_response *ret, struct err *e)
{
	_cleanup_free_ char *url = make_url(r, "manifests", target);
	struct http_request q = {
		.method = method,
		.url = url,
		.headers = manifest_headers,
		.max_body = LIMIT_MANIFEST,
	};

	if (!url)
		return err_oom(e);
	if (http_get(r->http, oci_repo_authority(r), &q, ret, e))
		return -1;
	return http_is_html(&ret->body) ? refuse_page(r, ret, e) : 0;
}

static bool header_digest(const struct http_response *resp, struct digest *ret)
{
	const char *value = http_response_header(resp, "Docker-Content-Digest", 0);

	return value && digest_parse(str_trim(str_of(value)), ret);
}

static int fetch_by_digest(struct oci_repo *r, const struct digest *want, struct document *ret,
			   struct err *e)
{
	char target[DIGEST_STR_MAX], what[DIGEST_STR_MAX + 16];
	struct http_response resp = { 0 };
	struct document d = { 0 };
	const char *type;

	digest_format(want, ':', target);
	snprintf(what, sizeof(what), "manifest %s", target);
	if (request(r, "GET", target, &resp, e))
		return -1;
	int rc = check_digest(want, resp.body.data, resp.body.len, what, &d.digest, e);
	type = http_response_header(&resp, "Content-Type", 0);
	if (rc == 0 && type && !(d.content_type = strdup(type)))
		rc = err_oom(e);
	if (rc == 0) {
		d.raw = resp.body;
		resp.body = (struct buf){ 0 };
		*ret = d;
	}
	http_response_release(&resp);
	return rc;
}

/*
 * A tag has no digest to compare with but the registry's own header. When that differs from what
 * the bytes have, one of the two is broken: the registry is asked for the digest that we computed.
 * If it has that document the header was wrong and the bytes are right; if not the bytes were
 * damaged on the way.
 */
static int confirm_tag(struct oci_repo *r, const struct digest *announced,
		       const struct digest *computed, struct document *ret, struct err *e)
{
	char said[DIGEST_STR_MAX], got[DIGEST_STR_MAX];
	struct err why = { 0 };

	if (fetch_by_digest(r, computed, ret, &why) == 0)
		return 0;
	if (why.code != CODE_NOT_FOUND && why.code != CODE_INTEGRITY && why.http_status != 400) {
		if (e)
			*e = why;
		return -1;
	}
	return err_set(e, CODE_INTEGRITY,
		       "manifest %s: the registry announced %s, but the bytes have %s", r->ref.tag,
		       digest_format(announced, ':', said), digest_format(computed, ':', got));
}

static int fetch_by_tag(struct oci_repo *r, struct document *ret, struct err *e)
{
	struct http_response resp = { 0 };
	struct document d = { 0 };
	struct digest announced = { .alg = DIGEST_NONE };
	const char *type;
	int rc = 0;

	if (request(r, "GET", r->ref.tag, &resp, e))
		return -1;
	bool has_header = header_digest(&resp, &announced);
	/* the registry's algorithm, so that a later HEAD compares equal */
	digest_of(has_header ? announced.alg : DIGEST_SHA256, resp.body.data, resp.body.len,
		  &d.digest);
	if (has_header && !digest_equal(&announced, &d.digest)) {
		rc = confirm_tag(r, &announced, &d.digest, ret, e);
		http_response_release(&resp);
		return rc;
	}
	type = http_response_header(&resp, "Content-Type", 0);
	if (type && !(d.content_type = strdup(type)))
		rc = err_oom(e);
	if (rc == 0) {
		d.raw = resp.body;
		resp.body = (struct buf){ 0 };
		*ret = d;
	}
	http_response_release(&resp);
	return rc;
}

/* The document that the reference names. */
static int fetch_top(struct oci_repo *r, const struct digest *known, struct document *ret,
		     struct err *e)
{
	struct err why = { 0 };

	if (r->ref.has_digest)
		return fetch_by_digest(r, &r->ref.digest, ret, e);
	if (!known || known->alg == DIGEST_NONE)
		return fetch_by_tag(r, ret, e);
	if (fetch_by_digest(r, known, ret, &why) == 0)
		return 0;
	if (why.code == CODE_NOT_FOUND)
		err_wrap(&why, "the registry announced a manifest for tag %s that it does not have",
			 r->ref.tag);
	if (e)
		*e = why;
	return -1;
}

int oci_resolve_digest(struct oci_repo *r, struct digest *ret, struct err *e)
{
	struct http_response resp = { 0 };
	struct document d = { 0 };
	struct err why = { 0 };

	if (r->ref.has_digest) {
		*ret = r->ref.digest;
		return 0;
	}
	if (request(r, "HEAD", r->ref.tag, &resp, &why) == 0) {
		bool usable = header_digest(&resp, ret);
		http_response_release(&resp);
		if (usable)
			return 0;
	} else if (why.http_status < 400 || why.http_status > 499 || why.http_status == 401 ||
		   why.http_status == 429) {
		if (e)
			*e = why;
		return -1;
	}
	/*
	 * some servers know no HEAD; and where something is wrong, only GET brings the registry's
	 * own words
	 */
	if (fetch_by_tag(r, &d, e))
		return -1;
	*ret = d.digest;
	document_release(&d);
	return 0;
}

int oci_get_blob(struct oci_repo *r, const struct oci_descriptor *d, uint64_t max, struct buf *ret,
		 struct err *e)
{
	_cleanup_free_ char *url = NULL;
	struct http_response resp = { 0 };
	struct digest computed;
	char name[DIGEST_STR_MAX];

	if (d->size > max || d->digest.alg == DIGEST_NONE)
		return err_set(e, CODE_INTEGRITY, "%s: larger than %llu bytes, or without a digest we know",
			       d->media_type, (unsigned long long)max);
	buf_init(ret, max);
	if (d->data)
		return buf_add(ret, d->data, d->size) ? err_oom(e) : 0;
	url = blob_url(r, &d->digest);
	if (!url)
		return err_oom(e);
	const struct http_request q = { .method = "GET", .url = url, .max_body = d->size };
	if (http_get(r->http, oci_repo_authority(r), &q, &resp, e))
		return -1;
	int rc = check_digest(&d->digest, resp.body.data, resp.body.len,
			      digest_format(&d->digest, ':', name), &computed, e);
	if (rc == 0)
		rc = buf_add(ret, resp.body.data, resp.body.len) ? err_oom(e) : 0;
	http_response_release(&resp);
	return rc;
}

/* --- down to one manifest --- */

/* Where the documents of index entries come from. */
struct source {
	int (*get)(const struct source *s, const struct oci_descriptor *entry, struct document *ret,
		   struct err *e);
	struct oci_repo *repo;		/* network */
	const void *kept;		/* bytes from the volume */
	size_t kept_len;
};

static int copy_document(const struct digest *digest, const void *p, size_t n, struct document *ret,
			 struct err *e)
{
	struct document d = { .digest = *digest, .raw = BUF_INIT(LIMIT_MANIFEST) };

	if (buf_add(&d.raw, p, n))
		return n > LIMIT_MANIFEST
			       ? err_set(e, CODE_INTEGRITY, "manifest: larger than %d MiB",
					 (int)(LIMIT_MANIFEST / MIB))
			       : err_oom(e);
	*ret = d;
	return 0;
}

static int get_remote(const struct source *s, const struct oci_descriptor *entry,
		      struct document *ret, struct err *e)
{
	if (entry->size > LIMIT_MANIFEST)
		return err_set(e, CODE_INTEGRITY, "index: an entry is larger than %d MiB",
			       (int)(LIMIT_MANIFEST / MIB));
	return fetch_by_digest(s->repo, &entry->digest, ret, e);
}

static int get_kept(const struct source *s, const struct oci_descriptor *entry,
		    struct document *ret, struct err *e)
{
	struct digest computed;

	if (check_digest(&entry->digest, s->kept, s->kept_len, "kept manifest", &computed, e))
		return -1;
	return copy_document(&computed, s->kept, s->kept_len, ret, e);
}

static int get_entry(const struct source *s, const struct oci_descriptor *entry,
		     struct document *ret, struct err *e)
{
	struct document d = { 0 };

	/* inline data was verified by the parser */
	int rc = entry->data ? copy_document(&entry->digest, entry->data, entry->size, &d, e) :
			       s->get(s, entry, &d, e);
	if (rc)
		return -1;
	if (d.raw.len != entry->size) {
		err_set(e, CODE_INTEGRITY, "manifest: %zu bytes, but the index says %" PRIu64,
			d.raw.len, entry->size);
		document_release(&d);
		return -1;
	}
	/*
	 * the descriptor is covered by the index's digest, so its word counts more than a header's
	 */
	free(d.content_type);
	d.content_type = strdup(entry->media_type);
	if (!d.content_type) {
		document_release(&d);
		return err_oom(e);
	}
	*ret = d;
	return 0;
}

static int parse_document(const struct document *d, struct oci_manifest *ret, struct err *e)
{
	return oci_manifest_parse(buf_cstr(&d->raw), d->raw.len, d->content_type, ret, e);
}

/*
 * From the index *m (which is consumed) to a manifest: *m and *last are the last document read.
 * *bytes grows by what was read.
 */
static int descend(const struct source *s, const struct oci_platform *platform,
		   struct oci_manifest *m, struct document *last, size_t *bytes, struct err *e)
{
	for (int depth = 1; m->is_index; depth++) {
		struct oci_manifest next = { 0 };
		struct document d = { 0 };
		size_t entry;

		if (depth > LIMIT_INDEX_DEPTH)
			return err_set(e, CODE_INTEGRITY, "index: nested deeper than %d levels",
				       LIMIT_INDEX_DEPTH);
		if (oci_index_select(m, platform, &entry, e) ||
		    get_entry(s, &m->layers[entry], &d, e))
			return -1;
		*bytes += d.raw.len;
		if (parse_document(&d, &next, e)) {
			document_release(&d);
			return err_wrap(e, "index entry %zu", entry + 1);
		}
		oci_manifest_release(m);
		*m = next;
		document_release(last);
		*last = d;
	}
	return 0;
}

/* Consumes top. */
static int resolve_from(struct document *top, const struct source *s,
			const struct oci_platform *platform, struct oci_resolved *ret,
			struct err *e)
{
	struct oci_resolved r = { .digest = top->digest, .manifest_bytes = top->raw.len };
	struct document last = { 0 };

	if (parse_document(top, &r.manifest, e))
		goto fail;
	r.is_index = r.manifest.is_index;
	r.media_type = strdup(r.manifest.media_type);
	if (!r.media_type) {
		err_oom(e);
		goto fail;
	}
	if (descend(s, platform, &r.manifest, &last, &r.manifest_bytes, e))
		goto fail;
	r.manifest_digest = r.is_index ? last.digest : top->digest;
	r.raw = top->raw;
	top->raw = (struct buf){ 0 };
	r.manifest_raw = last.raw;
	last.raw = (struct buf){ 0 };
	document_release(top);
	document_release(&last);
	*ret = r;
	return 0;
fail:
	document_release(top);
	document_release(&last);
	oci_resolved_release(&r);
	return -1;
}

int oci_resolve(struct oci_repo *r, const struct digest *known, const struct oci_platform *platform,
		struct oci_resolved *ret, struct err *e)
{
	struct source s = { .get = get_remote, .repo = r };
	struct document top = { 0 };

	if (fetch_top(r, known, &top, e))
		return -1;
	return resolve_from(&top, &s, platform, ret, e);
}

int oci_resolve_cached(const struct digest *digest, const char *media_type, const void *raw,
		       size_t raw_len, const void *manifest_raw, size_t manifest_raw_len,
		       const struct oci_platform *platform, struct oci_resolved *ret, struct err *e)
{
	struct source s = { .get = get_kept, .kept = manifest_raw, .kept_len = manifest_raw_len };
	struct document top = { 0 };
	struct digest computed;

	if (check_digest(digest, raw, raw_len, "kept document", &computed, e) ||
	    copy_document(&computed, raw, raw_len, &top, e))
		return -1;
	if (media_type && media_type[0] && !(top.content_type = strdup(media_type))) {
		document_release(&top);
		return err_oom(e);
	}
	return resolve_from(&top, &s, platform, ret, e);
}
