// SPDX-License-Identifier: Apache-2.0
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
	choose(BARE "," ENTRY("windows", HERE, ""), NULL, -1, "it has windows/" HERE);
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
	};

	return cmocka_run_group_tests_name("manifest", tests, NULL, NULL);
}
