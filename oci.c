// SPDX-License-Identifier: Apache-2.0
/* The flow of requests from a reference to one manifest; documents are read in manifest.c. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "oci_internal.h"

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

static int request(struct oci_host *h, const char *method, const char *target, struct http_response *ret, struct err *e)
{
	_cleanup_free_ char *url = oci_host_url(h, "manifests", target);
	struct http_request q = {
		.method = method,
		.url = url,
		.headers = h->headers,
		.max_body = LIMIT_MANIFEST,
		.timeout_ms = h->server.first_byte_ms, /* a mirror gets no more for a whole document */
	};

	if (!url)
		return err_oom(e);
	if (http_get(h->http, h->server.authority, &q, ret, e))
		return -1;
	return http_refuse_page(ret, "a manifest", e);
}

static bool header_digest(const struct http_response *resp, struct digest *ret)
{
	const char *value = http_response_header(resp, "Docker-Content-Digest", 0);

	return value && digest_parse(str_trim(str_of(value)), ret);
}

static int fetch_by_digest_at(struct oci_host *h, const struct digest *want, struct document *ret, struct err *e)
{
	char target[DIGEST_STR_MAX], what[DIGEST_STR_MAX + 16];
	struct http_response resp = { 0 };
	struct document d = { 0 };
	const char *type;

	digest_format(want, ':', target);
	snprintf(what, sizeof(what), "manifest %s", target);
	if (request(h, "GET", target, &resp, e))
		return -1;
	int rc = check_digest(want, resp.body.data, resp.body.len, what, &d.digest, e);
	/* a mirror's word counts for nothing: the document says what it is */
	type = h->server.mirror ? NULL : http_response_header(&resp, "Content-Type", 0);
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

/* Gives *e what the last one that was asked said. */
static int give_up(const struct err *why, struct err *e)
{
	if (e)
		*e = *why;
	return -1;
}

static int fetch_by_digest(struct oci_repo *r, const struct digest *want, struct document *ret, struct err *e)
{
	struct err why = { 0 };

	for (size_t i = 0; i < r->n_hosts; i++) {
		struct oci_host *h = &r->hosts[i];
		if (!oci_host_has_documents(h))
			continue;
		if (fetch_by_digest_at(h, want, ret, &why) == 0)
			return 0;
		if (!oci_host_gives_way(h, &why))
			break;
	}
	return give_up(&why, e);
}

/*
 * A tag has no digest to compare with but the registry's own header. When that differs from what
 * the bytes have, one of the two is broken: the registry is asked for the digest that we computed.
 * If it has that document the header was wrong and the bytes are right; if not the bytes were
 * damaged on the way.
 */
static int confirm_tag(struct oci_host *h, const struct digest *announced,
		       const struct digest *computed, struct document *ret, struct err *e)
{
	char said[DIGEST_STR_MAX], got[DIGEST_STR_MAX];
	struct err why = { 0 };

	if (fetch_by_digest_at(h, computed, ret, &why) == 0)
		return 0;
	if (why.code != CODE_NOT_FOUND && why.code != CODE_INTEGRITY && why.http_status != 400)
		return give_up(&why, e);
	return err_set(e, CODE_INTEGRITY,
		       "manifest %s: the registry announced %s, but the bytes have %s", h->repo->ref.tag,
		       digest_format(announced, ':', said), digest_format(computed, ':', got));
}

static int fetch_by_tag_at(struct oci_host *h, struct document *ret, struct err *e)
{
	struct http_response resp = { 0 };
	struct document d = { 0 };
	struct digest announced = { .alg = DIGEST_NONE };
	const char *type;
	int rc = 0;

	if (request(h, "GET", h->repo->ref.tag, &resp, e))
		return -1;
	bool has_header = header_digest(&resp, &announced);
	/* the registry's algorithm, so that a later HEAD compares equal */
	digest_of(has_header ? announced.alg : DIGEST_SHA256, resp.body.data, resp.body.len,
		  &d.digest);
	if (has_header && !digest_equal(&announced, &d.digest)) {
		rc = confirm_tag(h, &announced, &d.digest, ret, e);
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

/* Without any that may say what the tag means: `resolve` is missing in the file even for the last one. */
static int nobody_resolves(const struct oci_repo *r, struct err *e)
{
	const struct mirror_host *last = r->hosts[r->n_hosts - 1].m;

	return err_set(e, CODE_USAGE, "%s: no host that can be asked may resolve the tag %s; give one the capability \"resolve\", "
		       "or name a digest", last->from ? last->from : last->name, r->ref.tag);
}

/* Asks those who may resolve tags, one after the other. one: as fetch_by_tag_at or resolve_at; ret is its. */
static int ask_for_tag(struct oci_repo *r, int (*one)(struct oci_host *h, void *ret, struct err *e), void *ret, struct err *e)
{
	struct err why = { 0 };

	for (size_t i = 0; i < r->n_hosts; i++) {
		struct oci_host *h = &r->hosts[i];
		if (!oci_host_resolves(h))
			continue;
		if (one(h, ret, &why) == 0)
			return 0;
		if (!oci_host_gives_way(h, &why))
			break;
	}
	return why.code == CODE_OK ? nobody_resolves(r, e) : give_up(&why, e);
}

static int tag_to_document(struct oci_host *h, void *ret, struct err *e)
{
	return fetch_by_tag_at(h, ret, e);
}

/* The document that the reference names. */
static int fetch_top(struct oci_repo *r, const struct digest *known, struct document *ret,
		     struct err *e)
{
	struct err why = { 0 };

	if (r->ref.has_digest)
		return fetch_by_digest(r, &r->ref.digest, ret, e);
	if (!known || known->alg == DIGEST_NONE)
		return ask_for_tag(r, tag_to_document, ret, e);
	if (fetch_by_digest(r, known, ret, &why) == 0)
		return 0;
	if (why.code == CODE_NOT_FOUND)
		err_wrap(&why, "the registry announced a manifest for tag %s that it does not have",
			 r->ref.tag);
	return give_up(&why, e);
}

/* 1: *ret says so. 0: only GET can tell: some servers know no HEAD, and the registry's own words come with a body. */
static int head_digest(struct oci_host *h, struct digest *ret, struct err *e)
{
	struct http_response resp = { 0 };
	struct err why = { 0 };

	if (request(h, "HEAD", h->repo->ref.tag, &resp, &why) == 0) {
		bool usable = header_digest(&resp, ret);
		http_response_release(&resp);
		return usable;
	}
	if (why.http_status < 400 || why.http_status > 499 || why.http_status == 401 || why.http_status == 429)
		return give_up(&why, e);
	return 0;
}

static int tag_to_digest(struct oci_host *h, void *ret, struct err *e)
{
	struct document d = { 0 };
	/* a cache may remember a tag and not have what it named: only a document in hand shows that it does */
	int known = h->server.mirror ? 0 : head_digest(h, ret, e);

	if (known)
		return known < 0 ? -1 : 0;
	if (fetch_by_tag_at(h, &d, e))
		return -1;
	*(struct digest *)ret = d.digest;
	document_release(&d);
	return 0;
}

int oci_resolve_digest(struct oci_repo *r, struct digest *ret, struct err *e)
{
	if (r->ref.has_digest) {
		*ret = r->ref.digest;
		return 0;
	}
	return ask_for_tag(r, tag_to_digest, ret, e);
}

static int get_blob_at(struct oci_host *h, const struct digest *want, uint64_t size, struct buf *ret, struct err *e)
{
	char name[DIGEST_STR_MAX];
	_cleanup_free_ char *url = oci_host_url(h, "blobs", digest_format(want, ':', name));
	struct http_response resp = { 0 };
	struct digest computed;

	if (!url)
		return err_oom(e);
	const struct http_request q = {
		.method = "GET",
		.url = url,
		.headers = h->server.headers,
		.max_body = size,
		.timeout_ms = h->server.first_byte_ms,
	};
	if (http_get(h->http, h->server.authority, &q, &resp, e))
		return -1;
	int rc = check_digest(want, resp.body.data, resp.body.len, name, &computed, e);
	if (rc == 0)
		rc = buf_add(ret, resp.body.data, resp.body.len) ? err_oom(e) : 0;
	http_response_release(&resp);
	return rc;
}

int oci_get_blob(struct oci_repo *r, const struct oci_descriptor *d, uint64_t max, struct buf *ret,
		 struct err *e)
{
	struct err why = { 0 };

	if (d->size > max || d->digest.alg == DIGEST_NONE)
		return err_set(e, CODE_INTEGRITY, "%s: larger than %llu bytes, or without a digest we know",
			       d->media_type, (unsigned long long)max);
	buf_init(ret, max);
	if (d->data)
		return buf_add(ret, d->data, d->size) ? err_oom(e) : 0;
	for (size_t i = 0; i < r->n_hosts; i++) {
		struct oci_host *h = &r->hosts[i];
		if (!oci_host_has_documents(h))
			continue;
		if (get_blob_at(h, &d->digest, d->size, ret, &why) == 0)
			return 0;
		if (!oci_host_gives_way(h, &why))
			break;
	}
	return give_up(&why, e);
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
