// SPDX-License-Identifier: Apache-2.0
// ldflags: -Wl,--wrap=http_get,--wrap=http_new,--wrap=http_free,--wrap=http_trace,--wrap=auth_new,--wrap=auth_free,--wrap=auth_authority
// ldflags: -Wl,-u,mbedtls_gcm_init
/* Numbers in test names are edge cases: C of registry clients, L of artifact layouts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "oci.h"

#define HEX "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" /* of "abc" */
#define LAYER                                                                                      \
	"{\"mediaType\":\"application/octet-stream; charset=x\",\"digest\":\"sha256:" HEX          \
	"\",\"size\":3,"                                                                           \
	"\"annotations\":{\"org.opencontainers.image.title\":\"a\"}}"

/* --- the flow, over a registry made of a table --- */

struct page {
	const char *method, *target;	/* "GET", a tag or digest */
	long status;
	const char *body, *type, *digest;
	enum code code;			/* for other failures than a status */
};
static const struct page *pages;
static size_t n_pages;
static char asked[32][200];
static size_t n_asked;
static struct http_authority authority;

int __wrap_auth_new(struct auth **ret, struct http *h, const struct auth_options *o,
		    const char *origin, const char *registry, const char *repo, struct err *e);
void __wrap_auth_free(struct auth *a);
const struct http_authority *__wrap_auth_authority(struct auth *a);
int __wrap_http_get(struct http *h, const struct http_authority *a, const struct http_request *q,
		    struct http_response *ret, struct err *e);

static char auth_seen[1200];

int __wrap_http_new(struct http **ret, const struct http_options *o, struct err *e);
void __wrap_http_free(struct http *h);
void __wrap_http_trace(struct http *h, const char *fmt, ...);

int __wrap_http_new(struct http **ret, const struct http_options *o, struct err *e)
{
	(void)o, (void)e;
	*ret = NULL;
	return 0;
}

void __wrap_http_free(struct http *h)
{
	(void)h;
}

void __wrap_http_trace(struct http *h, const char *fmt, ...)
{
	(void)h, (void)fmt;
}

int __wrap_auth_new(struct auth **ret, struct http *h, const struct auth_options *o,
		    const char *origin, const char *registry, const char *repo, struct err *e)
{
	(void)h, (void)e;
	snprintf(auth_seen, sizeof(auth_seen), "%s %s %s %s", origin, registry, repo,
		 o->username ? o->username : "-");
	*ret = (struct auth *)&authority;
	return 0;
}

void __wrap_auth_free(struct auth *a)
{
	assert_ptr_equal(a, &authority);
}

const struct http_authority *__wrap_auth_authority(struct auth *a)
{
	assert_ptr_equal(a, &authority);
	return &authority;
}

static void add_header(struct http_response *r, const char *name, const char *value)
{
	if (!value)
		return;
	r->headers = realloc(r->headers, (r->n_headers + 1) * sizeof(*r->headers));
	r->headers[r->n_headers++] = (struct http_header){ strdup(name), strdup(value) };
}

int __wrap_http_get(struct http *h, const struct http_authority *a, const struct http_request *q,
		    struct http_response *ret, struct err *e)
{
	static const char prefix[] = "https://reg.example.com:5000/v2/team/m/manifests/";
	const char *target = q->url + strlen(prefix);

	(void)h;
	assert_ptr_equal(a, &authority);
	assert_memory_equal(q->url, prefix, strlen(prefix));
	assert_int_equal(q->max_body, LIMIT_MANIFEST);
	assert_true(strstr(q->headers[0], OCI_TYPE_INDEX) &&
		    strstr(q->headers[0], DOCKER_TYPE_LIST) &&
		    strstr(q->headers[0], OCI_TYPE_MANIFEST) &&
		    strstr(q->headers[0], DOCKER_TYPE_MANIFEST));
	assert_true(n_asked < ARRAY_SIZE(asked));
	snprintf(asked[n_asked++], sizeof(asked[0]), "%s %s", q->method, target);
	for (size_t i = 0; i < n_pages; i++) {
		const struct page *p = &pages[i];
		if (strcmp(p->method, q->method) != 0 || strcmp(p->target, target) != 0)
			continue;
		if (p->code)
			return err_set(e, p->code, "failed");
		if (p->status != 200) {
			err_set(e,
				p->status == 404   ? CODE_NOT_FOUND
				: p->status == 401 ? CODE_AUTH
						   : CODE_NETWORK,
				"status %ld", p->status);
			e->http_status = (int)p->status;
			return -1;
		}
		struct http_response r = { .status = 200, .body = BUF_INIT(LIMIT_MANIFEST) };
		if (p->body && strcmp(q->method, "GET") == 0)
			buf_adds(&r.body, p->body);
		add_header(&r, "content-type", p->type);
		add_header(&r, "docker-content-digest", p->digest);
		*ret = r;
		return 0;
	}
	err_set(e, CODE_NOT_FOUND, "status 404");
	if (e)
		e->http_status = 404;
	return -1;
}

static struct oci_repo *repo_of(const char *text, const struct page *p, size_t n)
{
	static struct oci_repo_options o = { .auth = { .username = "u" } };
	struct oci_repo *r = NULL;
	struct ref ref;
	struct err e;

	assert_int_equal(ref_parse(text, &ref, &e), 0);
	if (oci_repo_new(&r, &ref, &o, &e))
		fail_msg("%s", e.msg);
	pages = p;
	n_pages = n;
	n_asked = 0;
	return r;
}

/* Of the registry, which is asked last. */
static char *last_blob_url(struct oci_repo *r, const struct digest *d)
{
	size_t n;
	struct blob_server *const *servers = oci_repo_servers(r, &n);

	assert_true(n > 0 && !servers[n - 1]->mirror);
	return servers[n - 1]->blob_url(servers[n - 1]->arg, d);
}

static const char *digest_text(const char *doc, enum digest_alg alg)
{
	static char slots[32][DIGEST_STR_MAX];
	static unsigned next;
	struct digest d;

	digest_of(alg, doc, strlen(doc), &d);
	return digest_format(&d, ':', slots[next++ % ARRAY_SIZE(slots)]);
}

static bool digest_is(const struct digest *d, const char *text)
{
	char s[DIGEST_STR_MAX];

	return strcmp(digest_format(d, ':', s), text) == 0;
}

#define REPO "reg.example.com:5000/team/m"
static const char manifest[] =
	"{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"layers\":[" LAYER "]}";
static const char manifest2[] = "{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST
				"\",\"layers\":[" LAYER "," LAYER "]}";

static void resolve_fails(struct oci_repo *r, const struct digest *known, enum code code,
			  const char *why)
{
	struct oci_resolved res = { 0 };
	struct err e = { 0 };

	if (oci_resolve(r, known, NULL, &res, &e) != -1)
		fail_msg("resolved");
	if (e.code != code || !strstr(e.msg, why))
		fail_msg("code %d, message \"%s\" lacks \"%s\"", (int)e.code, e.msg, why);
	assert_null(res.media_type);
	oci_repo_free(r);
}

static void test_repo(void **state)
{
	(void)state;
	struct oci_repo *r = repo_of(REPO ":v1", NULL, 0);
	struct digest d;

	assert_string_equal(auth_seen,
			    "https://reg.example.com:5000 reg.example.com:5000 team/m u");
	digest_of(DIGEST_SHA256, "abc", 3, &d);
	char *url = last_blob_url(r, &d);
	assert_string_equal(url, "https://reg.example.com:5000/v2/team/m/blobs/sha256:" HEX);
	free(url);
	oci_repo_free(r);
	oci_repo_free(NULL);

	struct oci_repo_options o = { .plain_http = true };
	struct ref ref;
	struct err e;
	assert_int_equal(ref_parse("docker.io/x", &ref, &e), 0);
	assert_int_equal(oci_repo_new(&r, &ref, &o, &e), 0);
	assert_string_equal(auth_seen, "http://registry-1.docker.io:80 docker.io library/x -");
	url = last_blob_url(r, &d);
	assert_string_equal(url, "http://registry-1.docker.io/v2/library/x/blobs/sha256:" HEX);
	free(url);
	oci_repo_free(r);
}

static void test_resolve_tag(void **state)
{
	(void)state;
	struct page p[] = { { "GET", "v1", 200, manifest, OCI_TYPE_MANIFEST, NULL, 0 } };
	struct oci_repo *r = repo_of(REPO ":v1", p, 1);
	struct oci_resolved res;
	struct err e = { 0 };

	assert_int_equal(oci_resolve(r, NULL, NULL, &res, &e), 0);
	assert_true(digest_is(&res.digest, digest_text(manifest, DIGEST_SHA256)));
	assert_true(digest_equal(&res.digest, &res.manifest_digest));
	assert_string_equal(res.media_type, OCI_TYPE_MANIFEST);
	assert_string_equal(buf_cstr(&res.raw), manifest);
	assert_int_equal(res.manifest_raw.len, 0);
	assert_false(res.is_index);
	assert_int_equal(res.manifest.n_layers, 1);
	assert_int_equal(res.manifest_bytes, strlen(manifest));
	assert_int_equal(n_asked, 1);
	oci_resolved_release(&res);
	oci_repo_free(r);
}

static void test_L46_resolve_digest_reference(void **state)
{
	(void)state;
	char text[400];

	for (enum digest_alg alg = DIGEST_SHA256; alg <= DIGEST_SHA512; alg++) {
		const char *d = digest_text(manifest, alg);
		struct page p[] = { { "GET", d, 200, manifest, NULL, "sha256:" HEX,
				      0 } }; /* C15: the header is not asked */
		snprintf(text, sizeof(text), REPO ":v1@%s", d);
		struct oci_repo *r = repo_of(text, p, 1);
		struct oci_resolved res;
		struct digest got;
		struct err e = { 0 };
		assert_int_equal(oci_resolve_digest(r, &got, &e), 0);
		assert_int_equal(n_asked, 0);
		assert_true(digest_is(&got, d));
		assert_int_equal(oci_resolve(r, NULL, NULL, &res, &e), 0);
		assert_true(digest_is(&res.digest, d));
		oci_resolved_release(&res);
		oci_repo_free(r);

		struct page lie[] = { { "GET", d, 200, manifest2, NULL, d, 0 } };
		resolve_fails(repo_of(text, lie, 1), NULL, CODE_INTEGRITY, d);
	}
}

static void test_C15_head(void **state)
{
	(void)state;
	const char *right = digest_text(manifest, DIGEST_SHA256),
		   *r512 = digest_text(manifest, DIGEST_SHA512);
	const struct {
		struct page head;
		const char *expected;
		size_t requests;
	} t[] = {
		{ { "HEAD", "v1", 200, NULL, NULL, right, 0 }, right, 1 },
		{ { "HEAD", "v1", 200, NULL, NULL, r512, 0 }, r512, 1 },
		{ { "HEAD", "v1", 200, NULL, NULL, NULL, 0 }, right, 2 },
		{ { "HEAD", "v1", 200, NULL, NULL, "sha256:../../x", 0 }, right, 2 },
		{ { "HEAD", "v1", 200, NULL, NULL, "blake3:abc", 0 }, right, 2 },
		{ { "HEAD", "v1", 404, NULL, NULL, NULL, 0 }, right, 2 },
		{ { "HEAD", "v1", 405, NULL, NULL, NULL, 0 }, right, 2 },
		{ { "HEAD", "v1", 403, NULL, NULL, NULL, 0 }, right, 2 },
		{ { "HEAD", "v1", 401, NULL, NULL, NULL, 0 }, NULL, 1 },
		{ { "HEAD", "v1", 503, NULL, NULL, NULL, 0 }, NULL, 1 },
		{ { "HEAD", "v1", 0, NULL, NULL, NULL, CODE_NETWORK }, NULL, 1 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct page p[] = { t[i].head, { "GET", "v1", 200, manifest, NULL, NULL, 0 } };
		struct oci_repo *r = repo_of(REPO ":v1", p, 2);
		struct digest d = { 0 };
		struct err e = { 0 };
		int rc = oci_resolve_digest(r, &d, &e);
		if (rc != (t[i].expected ? 0 : -1) || n_asked != t[i].requests ||
		    (t[i].expected && !digest_is(&d, t[i].expected)))
			fail_msg("case %zu: %d, %zu requests, %s", i, rc, n_asked, e.msg);
		oci_repo_free(r);
	}
}

static void test_C15_wrong_header_on_tag(void **state)
{
	(void)state;
	const char *right = digest_text(manifest, DIGEST_SHA256);
	/* the document is there under its own digest: the header was wrong, not the bytes */
	struct page fine[] = {
		{ "GET", "v1", 200, manifest, NULL, "sha256:" HEX, 0 },
		{ "GET", right, 200, manifest, NULL, NULL, 0 },
	};
	struct oci_repo *r = repo_of(REPO ":v1", fine, 2);
	struct oci_resolved res;
	struct err e = { 0 };

	assert_int_equal(oci_resolve(r, NULL, NULL, &res, &e), 0);
	assert_true(digest_is(&res.digest, right));
	oci_resolved_release(&res);
	oci_repo_free(r);
	/* it is not: the bytes were damaged */
	struct page damaged[] = { { "GET", "v1", 200, manifest, NULL, "sha256:" HEX, 0 } };
	resolve_fails(repo_of(REPO ":v1", damaged, 1), NULL, CODE_INTEGRITY,
		      "announced sha256:" HEX);
	/* cannot be known: the network's failure is told */
	struct page down[] = { damaged[0], { "GET", right, 0, NULL, NULL, NULL, CODE_NETWORK } };
	resolve_fails(repo_of(REPO ":v1", down, 2), NULL, CODE_NETWORK, "failed");
}

static void test_C16_header_of_other_algorithm(void **state)
{
	(void)state;
	const char *d512 = digest_text(manifest, DIGEST_SHA512);
	struct page p[] = { { "GET", "v1", 200, manifest, NULL, d512, 0 } };
	struct oci_repo *r = repo_of(REPO ":v1", p, 1);
	struct oci_resolved res;
	struct err e = { 0 };

	assert_int_equal(oci_resolve(r, NULL, NULL, &res, &e), 0);
	assert_true(digest_is(&res.digest,
			      d512)); /* as HEAD says, so that "has it moved" compares equal */
	oci_resolved_release(&res);
	oci_repo_free(r);
}

static void test_known_digest(void **state)
{
	(void)state;
	const char *right = digest_text(manifest, DIGEST_SHA256);
	struct page p[] = { { "GET", right, 200, manifest, NULL, NULL, 0 },
			    { "GET", "v1", 200, manifest2, NULL, NULL, 0 } };
	struct oci_repo *r = repo_of(REPO ":v1", p, 2);
	struct oci_resolved res;
	struct digest known;
	struct err e = { 0 };

	digest_of(DIGEST_SHA256, manifest, strlen(manifest), &known);
	assert_int_equal(oci_resolve(r, &known, NULL, &res, &e), 0);
	assert_true(digest_is(&res.digest, right));
	oci_resolved_release(&res);
	oci_repo_free(r);
	/* HEAD named something that is not there: nothing else is taken in its place */
	digest_of(DIGEST_SHA256, "?", 1, &known);
	resolve_fails(repo_of(REPO ":v1", p, 2), &known, CODE_NOT_FOUND,
		      "announced a manifest for tag v1 that it does not have");
	struct page lie[] = { { "GET", right, 200, manifest2, NULL, NULL, 0 } };
	digest_of(DIGEST_SHA256, manifest, strlen(manifest), &known);
	resolve_fails(repo_of(REPO ":v1", lie, 1), &known, CODE_INTEGRITY, "instead of");
}

/* An index over one document; size_lie is added to the size. */
static const char *index_over(const char *doc, const char *type, int size_lie, const char *more)
{
	static char slots[32][1500];
	static unsigned next;
	char *s = slots[next++ % ARRAY_SIZE(slots)];

	snprintf(s, sizeof(slots[0]),
		 "{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX
		 "\",\"manifests\":[{\"mediaType\":\"%s\",\"digest\":\"%s\","
		 "\"size\":%d%s}]}",
		 type, digest_text(doc, DIGEST_SHA256), (int)strlen(doc) + size_lie, more);
	return s;
}

static void test_index(void **state)
{
	(void)state;
	const char *inner = index_over(manifest, OCI_TYPE_MANIFEST, 0, ""),
		   *outer = index_over(inner, OCI_TYPE_INDEX, 0, "");
	struct page p[] = {
		{ "GET", "v1", 200, outer, OCI_TYPE_INDEX, NULL, 0 },
		{ "GET", digest_text(inner, DIGEST_SHA256), 200, inner, "application/json", NULL,
		  0 },
		{ "GET", digest_text(manifest, DIGEST_SHA256), 200, manifest, "text/plain", NULL,
		  0 },
	};
	struct oci_repo *r = repo_of(REPO ":v1", p, 3);
	struct oci_resolved res;
	struct err e = { 0 };

	assert_int_equal(oci_resolve(r, NULL, NULL, &res, &e), 0);
	assert_true(res.is_index);
	assert_true(digest_is(&res.digest, digest_text(outer, DIGEST_SHA256)));
	assert_true(digest_is(&res.manifest_digest, digest_text(manifest, DIGEST_SHA256)));
	assert_string_equal(res.media_type, OCI_TYPE_INDEX);
	assert_string_equal(buf_cstr(&res.raw), outer);
	assert_string_equal(buf_cstr(&res.manifest_raw), manifest);
	assert_int_equal(res.manifest_bytes, strlen(outer) + strlen(inner) + strlen(manifest));
	oci_resolved_release(&res);
	oci_repo_free(r);
}

static void test_index_that_lies(void **state)
{
	(void)state;
	const char *d = digest_text(manifest, DIGEST_SHA256);
	const char *size = index_over(manifest, OCI_TYPE_MANIFEST, 1, ""),
		   *right = index_over(manifest, OCI_TYPE_MANIFEST, 0, "");
	const char *type = index_over(manifest, OCI_TYPE_INDEX, 0, ""),
		   *docker = index_over(manifest, DOCKER_TYPE_MANIFEST, 0, "");
	const char *huge = index_over(manifest, OCI_TYPE_MANIFEST, 100000000, "");
	struct page p[] = { { "GET", "v1", 200, size, NULL, NULL, 0 },
			    { "GET", d, 200, manifest, NULL, NULL, 0 } };

	resolve_fails(repo_of(REPO ":v1", p, 2), NULL, CODE_INTEGRITY, "but the index says");
	p[0].body = type;
	resolve_fails(repo_of(REPO ":v1", p, 2), NULL, CODE_INTEGRITY,
		      "index entry 1: manifest: it says it is");
	p[0].body = docker;
	resolve_fails(repo_of(REPO ":v1", p, 2), NULL, CODE_INTEGRITY, "announced as");
	p[0].body = huge;
	resolve_fails(repo_of(REPO ":v1", p, 2), NULL, CODE_INTEGRITY, "larger than 4 MiB");
	p[0].body = right;
	p[1].body = manifest2;
	p[1].digest = d;
	resolve_fails(repo_of(REPO ":v1", p, 2), NULL, CODE_INTEGRITY, "instead of");
	p[1].target = "gone";
	resolve_fails(repo_of(REPO ":v1", p, 2), NULL, CODE_NOT_FOUND, "404");
}

static void test_index_nested_too_deep(void **state)
{
	(void)state;
	const char *doc = manifest, *type = OCI_TYPE_MANIFEST;
	struct page p[LIMIT_INDEX_DEPTH + 2] = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(p); i++) {
		p[i] = (struct page){ "GET", digest_text(doc, DIGEST_SHA256), 200, doc, NULL, NULL,
				       0 };
		doc = index_over(doc, type, 0, "");
		type = OCI_TYPE_INDEX;
	}
	p[ARRAY_SIZE(p) - 1].target = "v1";
	resolve_fails(repo_of(REPO ":v1", p, ARRAY_SIZE(p)), NULL, CODE_INTEGRITY,
		      "nested deeper than 4");
	p[ARRAY_SIZE(p) - 2].target = "v1";
	struct oci_repo *r = repo_of(REPO ":v1", p, ARRAY_SIZE(p) - 1);
	struct oci_resolved res;
	struct err e = { 0 };
	assert_int_equal(oci_resolve(r, NULL, NULL, &res, &e), 0);
	assert_int_equal(n_asked, LIMIT_INDEX_DEPTH + 1);
	oci_resolved_release(&res);
	oci_repo_free(r);
}

static void test_C12_inline_manifest(void **state)
{
	(void)state;
	static const char small[] = "{\"schemaVersion\":2,\"layers\":[]}";
	const char *good = index_over(small, OCI_TYPE_MANIFEST, 0,
				      ",\"data\":\"eyJzY2hlbWFWZXJzaW9uIjoyLCJsYXllcnMiOltdfQ==\"");
	const char *bad = index_over(small, OCI_TYPE_MANIFEST, 0,
				     ",\"data\":\"eyJzY2hlbWFWZXJzaW9uIjozLCJsYXllcnMiOltdfQ==\"");
	struct page p[] = {
		{ "GET", "v1", 200, good, NULL, NULL, 0 },
		{ "GET", digest_text(small, DIGEST_SHA256), 200, small, NULL, NULL, 0 },
	};

	for (int i = 0; i < 2; i++) {
		struct oci_resolved res;
		struct err e = { 0 };
		p[0].body = i ? bad : good;
		struct oci_repo *r = repo_of(REPO ":v1", p, 2);
		assert_int_equal(oci_resolve(r, NULL, NULL, &res, &e), 0);
		assert_int_equal(n_asked, i ? 2 : 1);
		assert_string_equal(buf_cstr(&res.manifest_raw), small);
		oci_resolved_release(&res);
		oci_repo_free(r);
	}
}

static void cached_fails(const char *digest_over, const char *raw, const char *inner,
			 enum code code)
{
	struct oci_resolved res = { 0 };
	struct digest d;
	struct err e = { 0 };

	digest_of(DIGEST_SHA256, digest_over, strlen(digest_over), &d);
	assert_int_equal(oci_resolve_cached(&d, NULL, raw, strlen(raw), inner, strlen(inner), NULL,
					    &res, &e),
			 -1);
	assert_int_equal(e.code, code);
	assert_null(res.media_type);
}

static void test_cached(void **state)
{
	(void)state;
	const char *outer = index_over(manifest, OCI_TYPE_MANIFEST, 0, ""),
		   *nested = index_over(outer, OCI_TYPE_INDEX, 0, "");
	struct oci_resolved res;
	struct digest d;
	struct err e = { 0 };

	digest_of(DIGEST_SHA512, manifest, strlen(manifest), &d);
	assert_int_equal(oci_resolve_cached(&d, OCI_TYPE_MANIFEST, manifest, strlen(manifest), "",
					    0, NULL, &res, &e),
			 0);
	assert_string_equal(buf_cstr(&res.raw), manifest);
	assert_false(res.is_index);
	oci_resolved_release(&res);
	digest_of(DIGEST_SHA256, outer, strlen(outer), &d);
	assert_int_equal(oci_resolve_cached(&d, OCI_TYPE_INDEX, outer, strlen(outer), manifest,
					    strlen(manifest), NULL, &res, &e),
			 0);
	assert_true(res.is_index);
	assert_string_equal(buf_cstr(&res.manifest_raw), manifest);
	oci_resolved_release(&res);

	cached_fails(manifest, manifest2, "", CODE_INTEGRITY);
	cached_fails(outer, outer, manifest2, CODE_INTEGRITY);
	cached_fails(outer, outer, "", CODE_INTEGRITY);
	cached_fails(nested, nested, manifest, CODE_INTEGRITY); /* the middle is not kept */
	cached_fails("x", "x", "", CODE_INTEGRITY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_repo),
		cmocka_unit_test(test_resolve_tag),
		cmocka_unit_test(test_L46_resolve_digest_reference),
		cmocka_unit_test(test_C15_head),
		cmocka_unit_test(test_C15_wrong_header_on_tag),
		cmocka_unit_test(test_C16_header_of_other_algorithm),
		cmocka_unit_test(test_known_digest),
		cmocka_unit_test(test_index),
		cmocka_unit_test(test_index_that_lies),
		cmocka_unit_test(test_index_nested_too_deep),
		cmocka_unit_test(test_C12_inline_manifest),
		cmocka_unit_test(test_cached),
	};

	return cmocka_run_group_tests_name("oci", tests, NULL, NULL);
}
