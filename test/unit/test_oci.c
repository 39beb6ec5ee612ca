// SPDX-License-Identifier: Apache-2.0
// ldflags: -Wl,--wrap=http_get,--wrap=auth_new,--wrap=auth_free,--wrap=auth_authority,-u,mbedtls_gcm_init
/* Numbers in test names are edge cases: C of registry clients, L of artifact layouts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "oci.h"

#define EMPTY_CONFIG                                                                               \
	"{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"sha256:"                \
	"44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2,\"data\":"  \
	"\"e30=\"}"
#define HEX "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" /* of "abc" */
#define LAYER                                                                                      \
	"{\"mediaType\":\"application/octet-stream; charset=x\",\"digest\":\"sha256:" HEX          \
	"\",\"size\":3,"                                                                           \
	"\"annotations\":{\"org.opencontainers.image.title\":\"a\"}}"

/* --- documents --- */

static struct oci_manifest parse_as(const char *text, const char *content_type)
{
	struct oci_manifest m = { 0 };
	struct err e = { 0 };

	if (oci_manifest_parse(text, strlen(text), content_type, &m, &e))
		fail_msg("%s: %s", text, e.msg);
	return m;
}

static struct oci_manifest parse(const char *text)
{
	return parse_as(text, NULL);
}

static void refused_as(const char *text, const char *content_type, enum code code, const char *why)
{
	struct oci_manifest m = { 0 };
	struct err e = { 0 };

	if (oci_manifest_parse(text, strlen(text), content_type, &m, &e) != -1)
		fail_msg("accepted: %s", text);
	assert_null(m.media_type);
	if (e.code != code || !strstr(e.msg, why))
		fail_msg("%s: code %d, message \"%s\" lacks \"%s\"", text, (int)e.code, e.msg, why);
}

static void refused(const char *text, enum code code, const char *why)
{
	refused_as(text, NULL, code, why);
}

static void test_manifest(void **state)
{
	(void)state;
	struct oci_manifest m = parse("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST
				      "\",\"artifactType\":\"a/b\","
				      "\"config\":" EMPTY_CONFIG ",\"layers\":[" LAYER
				      "],\"annotations\":{\"k\":\"v\",\"n\":null},"
				      "\"subject\":{\"x\":1},\"unknown\":[]}");

	assert_false(m.is_index);
	assert_string_equal(m.media_type, OCI_TYPE_MANIFEST);
	assert_string_equal(m.artifact_type, "a/b");
	assert_string_equal(m.config.media_type, OCI_TYPE_EMPTY);
	assert_memory_equal(m.config.data, "{}", 2);
	assert_int_equal(m.n_layers, 1);
	assert_string_equal(m.layers[0].media_type, "application/octet-stream");
	assert_int_equal(m.layers[0].size, 3);
	assert_string_equal(oci_annotation(m.layers[0].annotations, 1,
					   "org.opencontainers.image.title"),
			    "a");
	assert_null(oci_annotation(m.layers[0].annotations, 1, "title"));
	assert_string_equal(oci_annotation(m.annotations, m.n_annotations, "n"), "");
	assert_null(m.layers[0].platform);
	oci_manifest_release(&m);
	oci_manifest_release(&m); /* twice is fine */
}

static void test_L45_no_media_type_field(void **state)
{
	(void)state;
	struct oci_manifest m =
		parse("{\"schemaVersion\":2,\"config\":" EMPTY_CONFIG ",\"layers\":[]}");
	assert_string_equal(m.media_type, OCI_TYPE_MANIFEST);
	assert_string_equal(m.artifact_type, "");
	oci_manifest_release(&m);
	m = parse("{\"schemaVersion\":2,\"manifests\":[]}");
	assert_string_equal(m.media_type, OCI_TYPE_INDEX);
	assert_true(m.is_index);
	oci_manifest_release(&m);
	m = parse_as("{\"schemaVersion\":2,\"layers\":null}", DOCKER_TYPE_MANIFEST);
	assert_string_equal(m.media_type, DOCKER_TYPE_MANIFEST);
	assert_string_equal(m.config.media_type, "");
	oci_manifest_release(&m);
	m = parse_as("{\"schemaVersion\":2,\"manifests\":null}", OCI_TYPE_INDEX);
	assert_true(m.is_index);
	oci_manifest_release(&m);
}

static void test_L45_docker_schema_2(void **state)
{
	(void)state;
	struct oci_manifest m =
		parse_as("{\"schemaVersion\":2,\"mediaType\":\"" DOCKER_TYPE_MANIFEST
			 "\",\"config\":{\"mediaType\":\"" DOCKER_TYPE_IMAGE_CONFIG
			 "\",\"digest\":\"sha256:" HEX "\",\"size\":3},\"layers\":[{\"mediaType\":"
			 "\"application/vnd.ollama.image.model\",\"digest\":\"sha256:" HEX
			 "\",\"size\":3,\"name\":\"te/x\"}]}",
			 DOCKER_TYPE_MANIFEST);
	assert_string_equal(m.layers[0].name, "te/x");
	oci_manifest_release(&m);
}

static void test_C7_ambiguous(void **state)
{
	(void)state;
	refused("{\"schemaVersion\":2,\"layers\":[],\"manifests\":[]}", CODE_INTEGRITY, "at once");
	refused("{\"schemaVersion\":2,\"config\":" EMPTY_CONFIG ",\"manifests\":[]}",
		CODE_INTEGRITY, "at once");
	refused("{\"schemaVersion\":2,\"fsLayers\":[],\"manifests\":[]}", CODE_INTEGRITY,
		"at once");
	refused("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_INDEX "\",\"layers\":[]}",
		CODE_INTEGRITY, "content is that of a manifest");
	refused("{\"schemaVersion\":2,\"mediaType\":\"" DOCKER_TYPE_MANIFEST "\",\"manifests\":[]}",
		CODE_INTEGRITY, "content is that of an index");
	refused_as("{\"schemaVersion\":2,\"layers\":[]}", OCI_TYPE_INDEX, CODE_INTEGRITY,
		   "content is that of a manifest");
	refused_as("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"layers\":[]}",
		   DOCKER_TYPE_MANIFEST, CODE_INTEGRITY, "was announced as");
	refused("{\"schemaVersion\":2,\"layers\":[],\"layers\":[]}", CODE_INTEGRITY,
		"occurs twice");
	refused("{}", CODE_INTEGRITY, "no manifest");
	refused("[]", CODE_INTEGRITY, "not a JSON object");
	refused("{\"errors\":[{\"code\":\"X\"}]}", CODE_INTEGRITY, "no manifest");
	refused("{\"schemaVersion\":2,\"layers\":{}}", CODE_INTEGRITY, "not a list");
}

static void test_C8_content_types(void **state)
{
	(void)state;
	static const char *const fine[] = {
		OCI_TYPE_MANIFEST,
		OCI_TYPE_MANIFEST "; charset=utf-8",
		OCI_TYPE_MANIFEST " \t;charset=utf-8",
		" " OCI_TYPE_MANIFEST,
		"APPLICATION/vnd.oci.image.manifest.v1+JSON",
		"application/json",
		"text/plain",
		"",
		";",
		"garbage",
		"a/b;;;=",
		"\xff\xfe",
	};

	for (size_t i = 0; i < ARRAY_SIZE(fine); i++) {
		struct oci_manifest m =
			parse_as("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST
				 "\",\"layers\":[]}",
				 fine[i]);
		oci_manifest_release(&m);
	}
	refused_as("<html></html>", "text/html; charset=utf-8", CODE_INTEGRITY, "web page");
	refused_as("{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"layers\":[]}",
		   OCI_TYPE_INDEX ";x", CODE_INTEGRITY, "announced");
}

static void test_C9_types_we_refuse(void **state)
{
	(void)state;
	refused("{\"schemaVersion\":1,\"fsLayers\":[]}", CODE_UNSUPPORTED, "schema 1");
	refused("{\"fsLayers\":[]}", CODE_UNSUPPORTED, "schema 1");
	refused("{\"schemaVersion\":3,\"layers\":[]}", CODE_INTEGRITY, "schemaVersion");
	refused("{\"schemaVersion\":\"2\",\"layers\":[]}", CODE_INTEGRITY, "schemaVersion");
	refused("{\"schemaVersion\":2,\"mediaType\":\"application/"
		"vnd.oci.artifact.manifest.v1+json\",\"blobs\":[]}",
		CODE_UNSUPPORTED, "application/vnd.oci.artifact.manifest.v1+json");
	refused("{\"schemaVersion\":2,\"mediaType\":5,\"layers\":[]}", CODE_INTEGRITY,
		"not a string");
}

static void layer_refused(const char *layer, enum code code, const char *why)
{
	char text[2000];

	snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"layers\":[" LAYER ",%s]}", layer);
	refused(text, code, why);
}

static void test_C6_sizes(void **state)
{
	(void)state;
	layer_refused("{\"digest\":\"sha256:" HEX "\",\"size\":-1}", CODE_INTEGRITY,
		      "layer 2: \"size\" is not a whole");
	layer_refused("{\"digest\":\"sha256:" HEX "\",\"size\":4611686018427387904}",
		      CODE_INTEGRITY, "beyond any real");
	layer_refused("{\"digest\":\"sha256:" HEX "\",\"size\":99999999999999999999999}",
		      CODE_INTEGRITY, "not a whole");
	layer_refused("{\"digest\":\"sha256:" HEX "\",\"size\":1.5}", CODE_INTEGRITY,
		      "not a whole");
	layer_refused("{\"digest\":\"sha256:" HEX "\",\"size\":\"3\"}", CODE_INTEGRITY,
		      "not a whole");
	layer_refused("{\"digest\":\"sha256:" HEX "\"}", CODE_INTEGRITY, "no size");
}

static void test_C6_sum_of_sizes(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(MIB);

	buf_adds(&b, "{\"schemaVersion\":2,\"layers\":[");
	for (int i = 0; i < 17; i++)
		buf_addf(&b, "%s{\"digest\":\"sha256:" HEX "\",\"size\":70368744177664}",
			 i ? "," : "");
	buf_adds(&b, "]}");
	refused(buf_cstr(&b), CODE_INTEGRITY, "add up");
	buf_release(&b);
}

static void test_C5_digests(void **state)
{
	(void)state;
	layer_refused("{\"size\":3}", CODE_INTEGRITY, "no digest");
	layer_refused("{\"digest\":7,\"size\":3}", CODE_INTEGRITY, "not a string");
	layer_refused("{\"digest\":\"\",\"size\":3}", CODE_INTEGRITY, "malformed digest \"\"");
	layer_refused("{\"digest\":\"sha256:../../x\",\"size\":3}", CODE_INTEGRITY,
		      "malformed digest \"sha256:../../x\"");
	layer_refused("{\"digest\":\"sha256:ABC\",\"size\":3}", CODE_INTEGRITY, "malformed");
	layer_refused("{\"digest\":\"../x:y\",\"size\":3}", CODE_INTEGRITY, "malformed");
	layer_refused("{\"digest\":\"b/3:y\",\"size\":3}", CODE_INTEGRITY, "malformed");
	layer_refused("{\"digest\":\"blake3:" HEX "\",\"size\":3}", CODE_UNSUPPORTED, "algorithm");
	layer_refused("{\"digest\":\"sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564\","
		      "\"size\":3}",
		      CODE_UNSUPPORTED, "algorithm");
	struct oci_manifest m =
		parse("{\"schemaVersion\":2,\"config\":{\"mediaType\":\"x/"
		      "y\",\"digest\":\"blake3:abc\",\"size\":3},\"layers\":[" LAYER "]}");
	assert_int_equal(m.config.digest.alg, DIGEST_NONE);
	oci_manifest_release(&m);
}

static void test_wrong_types_in_layers(void **state)
{
	(void)state;
	layer_refused("7", CODE_INTEGRITY, "layer 2: not an object");
	layer_refused("null", CODE_INTEGRITY, "not an object");
	layer_refused("{\"mediaType\":1,\"digest\":\"sha256:" HEX "\",\"size\":3}", CODE_INTEGRITY,
		      "mediaType");
	layer_refused("{\"digest\":\"sha256:" HEX "\",\"size\":3,\"annotations\":[]}",
		      CODE_INTEGRITY, "annotations");
	layer_refused("{\"digest\":\"sha256:" HEX "\",\"size\":3,\"annotations\":{\"a\":1}}",
		      CODE_INTEGRITY, "annotation's value");
	layer_refused("{\"digest\":\"sha256:" HEX "\",\"size\":3,\"data\":{}}", CODE_INTEGRITY,
		      "data");
	layer_refused("{\"digest\":\"sha256:" HEX "\",\"size\":3,\"platform\":1}", CODE_INTEGRITY,
		      "platform");
	layer_refused("{\"digest\":\"sha256:" HEX
		      "\",\"size\":3,\"annotations\":{\"a\":\"x\\u0000\"}}",
		      CODE_INTEGRITY, "NUL");
}

static void test_C12_inline_data(void **state)
{
	(void)state;
	static const struct {
		const char *data;
		bool used;
	} t[] = {
		{ "\"YWJj\"", true },  { "\"YWJk\"", false }, { "\"YWJjZA==\"", false },
		{ "\"YWI=\"", false }, { "\"****\"", false }, { "\"YWJ\"", false },
		{ "\"\"", false },     { "null", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char text[500];
		snprintf(text, sizeof(text),
			 "{\"schemaVersion\":2,\"layers\":[{\"digest\":\"sha256:" HEX
			 "\",\"size\":3,\"urls\":[\"http://x/\"],"
			 "\"data\":%s}]}",
			 t[i].data);
		struct oci_manifest m = parse(text);
		if ((m.layers[0].data != NULL) != t[i].used)
			fail_msg("%s", t[i].data);
		if (t[i].used)
			assert_memory_equal(m.layers[0].data, "abc", 3);
		oci_manifest_release(&m);
	}
}

static void test_C17_too_large(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(MIB * 8);

	buf_adds(&b, "{\"schemaVersion\":2,\"layers\":[],\"x\":\"");
	while (b.len <= LIMIT_MANIFEST)
		buf_adds(&b, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
	buf_adds(&b, "\"}");
	refused(buf_cstr(&b), CODE_INTEGRITY, "larger than 4 MiB");
	buf_clear(&b);
	buf_adds(&b, "{\"schemaVersion\":2,\"manifests\":[");
	for (int i = 0; i <= LIMIT_INDEX_ENTRIES; i++)
		buf_addf(&b, "%s" LAYER, i ? "," : "");
	buf_adds(&b, "]}");
	refused(buf_cstr(&b), CODE_INTEGRITY, "more than 1024");
	buf_clear(&b);
	buf_adds(&b, "{\"schemaVersion\":2,\"layers\":[],\"annotations\":{");
	for (int i = 0; i <= LIMIT_ANNOTATIONS; i++)
		buf_addf(&b, "%s\"k%d\":\"\"", i ? "," : "", i);
	buf_adds(&b, "}}");
	refused(buf_cstr(&b), CODE_INTEGRITY, "too many annotations");
	buf_clear(&b);
	for (int i = 0; i < 100000; i++)
		buf_adds(&b, "{\"layers\":[");
	refused(buf_cstr(&b), CODE_INTEGRITY, "deeper");
	buf_release(&b);
}

/* --- platforms --- */

static void test_platform_text(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"",         "/",          "linux/",   "/arm64", "linux/arm64/v8/x", "linux/arm64:",
		"li nux/a", "linux/a\nb", "linux//v8"
	};
	struct oci_platform p;
	struct err e;

	assert_int_equal(oci_platform_parse("linux/arm64/v8:10.0.1", &p, &e), 0);
	assert_string_equal(p.os, "linux");
	assert_string_equal(p.architecture, "arm64");
	assert_string_equal(p.variant, "v8");
	assert_string_equal(p.os_version, "10.0.1");
	oci_platform_release(&p);
	assert_int_equal(oci_platform_parse("linux/x86_64", &p, &e), 0);
	assert_string_equal(p.architecture, "amd64");
	assert_null(p.variant);
	oci_platform_release(&p);
	assert_int_equal(oci_platform_parse("linux", &p, &e), 0);
	assert_non_null(p.architecture);
	oci_platform_release(&p);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (oci_platform_parse(bad[i], &p, &e) != -1)
			fail_msg("accepted %s", bad[i]);
		assert_int_equal(e.code, CODE_USAGE);
	}
}

#define ENTRY(os_, arch_, more)                                                                    \
	"{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"digest\":\"sha256:" HEX "\",\"size\":3,"       \
	"\"platform\":{\"os\":\"" os_ "\",\"architecture\":\"" arch_ "\"" more "}}"
#define BARE "{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"digest\":\"sha256:" HEX "\",\"size\":3}"
#define BARE_INDEX "{\"mediaType\":\"" OCI_TYPE_INDEX "\",\"digest\":\"sha256:" HEX "\",\"size\":3}"
#define ATTESTATION                                                                                \
	"{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"digest\":\"sha256:" HEX                        \
	"\",\"size\":3,\"annotations\":"                                                           \
	"{\"vnd.docker.reference.type\":\"attestation-manifest\"}}"

static void choose(const char *entries, const char *platform, int expected, const char *why)
{
	struct oci_platform p = { 0 };
	struct err e = { 0 };
	size_t got = 1000;
	char text[4000];

	snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[%s]}", entries);
	struct oci_manifest m = parse(text);
	if (platform)
		assert_int_equal(oci_platform_parse(platform, &p, &e), 0);
	int r = oci_index_select(&m, platform ? &p : NULL, &got, &e);
	if (expected >= 0 && (r != 0 || got != (size_t)expected))
		fail_msg("%s for %s: entry %zu, %s", entries, platform ? platform : "here", got,
			 e.msg);
	if (expected < 0 && (r != -1 || e.code != CODE_UNSUPPORTED || !strstr(e.msg, why)))
		fail_msg("%s for %s: entry %zu, message \"%s\" lacks \"%s\"", entries,
			 platform ? platform : "here", got, e.msg, why);
	oci_platform_release(&p);
	oci_manifest_release(&m);
}

#if defined(__aarch64__)
#define HERE "arm64"
#define ELSEWHERE "amd64"
#else
#define HERE "amd64"
#define ELSEWHERE "arm64"
#endif

static void test_L43_platforms(void **state)
{
	(void)state;
	choose(ENTRY("linux", ELSEWHERE, "") "," ENTRY("linux", HERE, ""), NULL, 1, "");
	choose(ENTRY("linux", ELSEWHERE, "") "," ENTRY("linux", HERE, ""), "linux/" ELSEWHERE, 0,
	       "");
	choose(ENTRY("windows", HERE, "") "," ENTRY("linux", "s390x", ""), NULL, -1,
	       "windows/" HERE ", linux/s390x: choose one with --platform");
	choose(ENTRY("windows", HERE, ""), NULL, -1, "nothing for linux/" HERE);
	choose(ENTRY("unknown", "unknown", "") "," ENTRY("linux", HERE, ""), NULL, 1, "");
	choose(ENTRY("linux", HERE, ",\"variant\":\"v3\"") "," ENTRY("linux", HERE, ""), NULL, 1,
	       "");
	choose(ENTRY("linux", HERE, ",\"variant\":\"v3\""), NULL, 0, "");
	choose(ENTRY("linux", "arm", ",\"variant\":\"v6\"") "," ENTRY("linux", "arm",
								      ",\"variant\":\"v7\""),
	       "linux/arm/v7", 1, "");
	choose(ENTRY("linux", "arm", ",\"variant\":\"v6\""), "linux/arm/v7", -1,
	       "nothing for linux/arm/v7; it has linux/arm/v6");
	choose(ENTRY("linux", "arm64", ""), "linux/arm64/v8", 0, "");
	choose(ENTRY("linux", "arm64", ",\"variant\":\"v8\""), "linux/arm64", 0, "");
	choose(ENTRY("windows", "amd64",
		     ",\"os.version\":\"10.1\"") "," ENTRY("windows", "amd64",
							   ",\"os.version\":\"10.2\""),
	       "windows/amd64:10.2", 1, "");
}

static void test_C10_odd_entries(void **state)
{
	(void)state;
	choose("", NULL, -1, "no entry");
	choose(BARE, NULL, 0, "");
	choose("{\"digest\":\"sha256:" HEX
	       "\",\"size\":3,\"platform\":{\"os\":\"\",\"architecture\":\"\"}}",
	       NULL, 0, "");
	choose(ATTESTATION "," BARE, NULL, 1, "");
	choose(ATTESTATION, NULL, -1, "no entry");
	choose(ENTRY("unknown", "unknown", ""), NULL, -1, "no entry");
	choose(BARE "," BARE, NULL, -1, "2 entries without a platform");
	choose(BARE, "linux/arm64", -1, "1 entry without a platform, none for linux/arm64");
	choose(BARE_INDEX, "linux/arm64", 0, "");
	choose(BARE "," ENTRY("linux", HERE, ""), NULL, 1, "");
	choose("{\"mediaType\":\"application/vnd.future+json\",\"digest\":\"sha256:" HEX
	       "\",\"size\":3}," BARE,
	       NULL, 1, "");
	choose("{\"mediaType\":\"" OCI_TYPE_MANIFEST "\",\"digest\":\"blake3:x\",\"size\":3}", NULL,
	       -1, "unknown algorithm");
	choose("{\"mediaType\":\"" OCI_TYPE_MANIFEST
	       "\",\"digest\":\"blake3:x\",\"size\":3,\"platform\":{\"os\":\"linux\","
	       "\"architecture\":\"riscv64\"}}," ENTRY("linux", HERE, ""),
	       NULL, 1, "");
}

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
	if (oci_repo_new(&r, NULL, &ref, &o, &e))
		fail_msg("%s", e.msg);
	pages = p;
	n_pages = n;
	n_asked = 0;
	return r;
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
	char *url = oci_blob_url(r, &d);
	assert_string_equal(url, "https://reg.example.com:5000/v2/team/m/blobs/sha256:" HEX);
	free(url);
	oci_repo_free(r);
	oci_repo_free(NULL);

	struct oci_repo_options o = { .plain_http = true };
	struct ref ref;
	struct err e;
	assert_int_equal(ref_parse("docker.io/x", &ref, &e), 0);
	assert_int_equal(oci_repo_new(&r, NULL, &ref, &o, &e), 0);
	assert_string_equal(auth_seen, "http://registry-1.docker.io:80 docker.io library/x -");
	url = oci_blob_url(r, &d);
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
	/* HEAD named something that is not there */
	digest_of(DIGEST_SHA256, "?", 1, &known);
	assert_int_equal(oci_resolve(r, &known, NULL, &res, &e), 0);
	assert_true(digest_is(&res.digest, digest_text(manifest2, DIGEST_SHA256)));
	oci_resolved_release(&res);
	oci_repo_free(r);
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
		cmocka_unit_test(test_manifest),
		cmocka_unit_test(test_L45_no_media_type_field),
		cmocka_unit_test(test_L45_docker_schema_2),
		cmocka_unit_test(test_C7_ambiguous),
		cmocka_unit_test(test_C8_content_types),
		cmocka_unit_test(test_C9_types_we_refuse),
		cmocka_unit_test(test_C6_sizes),
		cmocka_unit_test(test_C6_sum_of_sizes),
		cmocka_unit_test(test_C5_digests),
		cmocka_unit_test(test_wrong_types_in_layers),
		cmocka_unit_test(test_C12_inline_data),
		cmocka_unit_test(test_C17_too_large),
		cmocka_unit_test(test_platform_text),
		cmocka_unit_test(test_L43_platforms),
		cmocka_unit_test(test_C10_odd_entries),
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
