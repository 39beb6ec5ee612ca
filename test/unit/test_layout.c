// SPDX-License-Identifier: Apache-2.0
/* Numbers in test names are edge cases: C of registry clients, L of artifact layouts. */
#include "layout_fixture.h"

/* --- producers --- */

static void test_oras(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer("application/vnd.oci.image.layer.v1.tar", B, 3, TITLE, "dir/b c.bin",
	      NULL); /* L33: a plain file all the same */
	layer("application/json", A, 3, TITLE, "config.json", UNPACK, "false", NULL); /* L34 */
	struct layout l = planned();
	assert_int_equal(l.n_files, 2);
	assert_string_equal(l.files[0].path, "config.json");
	assert_string_equal(l.files[1].path, "dir/b c.bin");
	assert_int_equal(l.files[1].size, 3);
	assert_int_equal(l.files[1].mode, 0);
	assert_false(l.files[1].has_mtime);
	assert_int_equal(l.bytes, 6);
	assert_int_equal(l.unique_bytes, 6);
	assert_int_equal(l.n_warnings, 0);
	layout_release(&l);
	layout_release(&l);
}

static void test_modelpack_raw(void **state)
{
	(void)state;
	static const char *const types[] = {
		RAW,
		"application/vnd.cncf.model.weight.config.v1.raw",
		"application/vnd.cncf.model.doc.v1.raw",
		"application/vnd.cncf.model.code.v1.raw",
		"application/vnd.cncf.model.dataset.v1.raw",
		"application/vnd.cnai.model.weight.v1.raw",
		"application/vnd.cncf.model.weight.code.v1.raw",
		"application/vnd.cncf.model.weight.v1.gguf",
		"application/vnd.cncf.model.weight.v1.safetensors",
		"application/vnd.docker.ai.gguf.v3",
		"application/vnd.docker.ai.safetensors",
		"application/vnd.docker.ai.model.file",
		"application/vnd.unknown",
		"",
	};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		begin("application/vnd.cncf.model.config.v1+json");
		layer(types[i], A, 3, PATH, "m/x.raw", NULL);
		struct layout l = planned();
		assert_int_equal(l.n_files, 1);
		assert_string_equal(l.files[0].path, "m/x.raw");
		layout_release(&l);
	}
}

static void test_path_precedence(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "podman-name", PATH, "right1", OLD_PATH, "old", NULL);
	layer("a/b", A, 3, TITLE, "podman-name", OLD_PATH, "right2", NULL);
	layer("a/b", A, 3, TITLE, "right3", NULL);
	struct layout l = planned();
	assert_int_equal(l.n_files, 3);
	for (size_t i = 0; i < 3; i++) {
		char name[16];
		snprintf(name, sizeof(name), "right%zu", i + 1);
		assert_string_equal(l.files[i].path, name);
	}
	layout_release(&l);
}

static void test_models_without_names(void **state)
{
	(void)state;
	begin("application/vnd.docker.ai.model.config.v0.2+json");
	layer("application/vnd.docker.ai.license", A, 3, PATH, "LICENSE", NULL);
	layer("application/vnd.docker.ai.model.file", B, 3, NULL);
	refused(CODE_UNSUPPORTED,
		"layer 2 (application/vnd.docker.ai.model.file) does not say which file it is");
	begin(OCI_TYPE_EMPTY);
	layer(RAW, B, 3, "org.example", "x", NULL);
	refused(CODE_UNSUPPORTED, "does not say which file");
}

static void test_L37_unknown_type_without_name(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer("application/vnd.\x7f/odd", A, 3, NULL);
	layer("a/b", B, 3, TITLE, "x", NULL);
	struct layout l = planned();
	assert_int_equal(l.n_files, 1);
	assert_int_equal(l.n_warnings, 1);
	assert_string_equal(l.warnings[0],
			    "layer 1: skipped, it has no file name (application/vnd.\\u007f/odd)");
	layout_release(&l);
	begin(OCI_TYPE_EMPTY);
	layer("application/vnd.odd", A, 3, NULL);
	layer("a/b", B, 3, TITLE, "x", NULL);
	refused_with(&(struct layout_options){ .strict = true }, CODE_UNSUPPORTED,
		     "layer 1 (application/vnd.odd) has no file name and is of no kind we know");
}

static void test_L35_L36_nothing_to_lay_out(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	refused(CODE_UNSUPPORTED, "no layers");
	begin(OCI_TYPE_EMPTY);
	layer("application/vnd.dev.cosign.simplesigning.v1+json", A, 3, NULL);
	refused(CODE_UNSUPPORTED, "none of 1 layer names a file (the first is "
				  "application/vnd.dev.cosign.simplesigning.v1+json)");
	begin(OCI_TYPE_EMPTY); /* C11 */
	layer(OCI_TYPE_EMPTY,
	      "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 2, NULL);
	refused(CODE_UNSUPPORTED, "nothing to pull");
}

static void test_C11_empty_descriptor(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer(OCI_TYPE_EMPTY,
	      "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 2, NULL);
	layer("a/b", B, 3, TITLE, "x", NULL);
	struct layout l = planned();
	assert_int_equal(l.n_files, 1);
	assert_int_equal(l.n_warnings, 0);
	layout_release(&l);
}

/* --- contents --- */

static void test_L6_empty_files(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer("a/b", EMPTY, 0, TITLE, "e1", NULL);
	layer("a/b", EMPTY, 0, TITLE, "e2", NULL);
	struct layout l = planned();
	assert_int_equal(l.n_files, 2);
	assert_int_equal(l.bytes, 0);
	layout_release(&l);
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 0, TITLE, "e1", NULL);
	refused(CODE_INTEGRITY, "layer 1: size 0 and digest contradict");
	begin(OCI_TYPE_EMPTY);
	layer("a/b", EMPTY, 1, TITLE, "e1", NULL);
	refused(CODE_INTEGRITY, "layer 1: size 1 and digest contradict");
}

static void test_L7_one_digest_two_names(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "b", NULL);
	layer("c/d", A, 3, TITLE, "a", NULL);
	struct layout l = planned();
	assert_int_equal(l.n_files, 2);
	assert_string_equal(l.files[0].path, "a");
	assert_int_equal(l.bytes, 6);
	assert_int_equal(l.unique_bytes, 3);
	layout_release(&l);
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "b", NULL);
	layer("a/b", A, 4, TITLE, "a", NULL);
	refused(CODE_INTEGRITY, "one digest two sizes");
}

static void test_L8_one_path_twice(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "x", NULL);
	layer("a/b", A, 3, TITLE, "x", NULL);
	layer("a/b", A, 3, TITLE, "a", NULL);
	layer("a/b", B, 3, TITLE, "x", NULL);
	layer("a/b", B, 3, TITLE, "z", NULL);
	refused(CODE_UNSAFE, "\"x\": two layers with different content");
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "x", NULL);
	layer("a/b", A, 3, TITLE, "x", NULL);
	layer("a/b", A, 3, TITLE, "w", NULL);
	struct layout l = planned();
	assert_int_equal(l.n_files, 2);
	assert_int_equal(l.bytes, 6);
	layout_release(&l);
}

static void test_L9_collision_after_cleaning(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "a//b", NULL);
	layer("a/b", B, 3, TITLE, "./a/b", NULL);
	refused(CODE_UNSAFE, "\"a/b\": two layers");
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "a//b", NULL);
	layer("a/b", A, 3, TITLE, "./a/./b", NULL);
	struct layout l = planned();
	assert_int_equal(l.n_files, 1);
	assert_string_equal(l.files[0].path, "a/b");
	layout_release(&l);
}

static void test_L10_file_and_directory(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "x/a", NULL);
	layer("a/b", A, 3, TITLE, "x/a-b", NULL); /* sorts between the two */
	layer("a/b", A, 3, TITLE, "x/a/b/c", NULL);
	refused(CODE_UNSAFE, "\"x/a\": it is a file and the directory");
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "x/a/b", NULL);
	layer("a/b", A, 3, TITLE, "x/a/c", NULL);
	layer("a/b", A, 3, TITLE, "x/a.b", NULL);
	layer("a/b", A, 3, TITLE, "x/ab", NULL);
	struct layout l = planned();
	assert_int_equal(l.n_files, 4);
	layout_release(&l);
}

static void test_inline_data(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	buf_adds(&text, "{\"digest\":\"" A
			"\",\"size\":3,\"data\":\"YWJj\",\"annotations\":{\"" TITLE "\":\"x\"}}");
	struct layout l = planned();
	assert_memory_equal(l.files[0].data, "abc", 3);
	layout_release(&l);
}

/* --- paths --- */

static void test_paths_accepted(void **state)
{
	(void)state;
	static const char *const t[][2] = {
		{ "a", "a" },
		{ "a/b", "a/b" },
		{ "./a//b", "a/b" },
		{ ".//./a", "a" },
		{ "my model/weights 1.bin", "my model/weights 1.bin" }, /* L1 */
		{ "mod\xc3\xa8le/\xe6\xa8\xa1\xe5\x9e\x8b.bin",
		  "mod\xc3\xa8le/\xe6\xa8\xa1\xe5\x9e\x8b.bin" }, /* L2 */
		{ "e\xcc\x81", "e\xcc\x81" },                     /* L2: bytes stay as they are */
		{ "-x/_y/.hidden", "-x/_y/.hidden" },             /* L3 */
		{ "level1/level2/level3/level4/f", "level1/level2/level3/level4/f" }, /* L5 */
		{ "v1..2.bin", "v1..2.bin" },
		{ "..data/x", "..data/x" },
		{ "...", "..." }, /* L16 */
		{ "a\\b", "a\\b" },
		{ "C:\\x", "C:\\x" },
		{ "a/.fetcher", "a/.fetcher" },
		{ ".fetcher2", ".fetcher2" },
		{ "a/current", "a/current" },
		{ "current.bin", "current.bin" },
		{ "\xff\xfe", "\xff\xfe" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct err e = { 0 };
		char *got = NULL;
		if (layout_check_path(str_of(t[i][0]), &got, &e))
			fail_msg("%s: %s", t[i][0], e.msg);
		assert_string_equal(got, t[i][1]);
		free(got);
	}
}

static void path_refused(struct str path, const char *why)
{
	struct err e = { 0 };
	char *got = NULL;

	if (layout_check_path(path, &got, &e) != -1)
		fail_msg("accepted \"%.*s\" as \"%s\"", (int)path.n, path.p, got);
	assert_null(got);
	assert_int_equal(e.code, CODE_UNSAFE);
	if (!strstr(e.msg, why))
		fail_msg("\"%.*s\": message \"%s\" lacks \"%s\"", (int)path.n, path.p, e.msg, why);
}

static void test_L11_to_L15_paths_refused(void **state)
{
	(void)state;
	static const char *const t[][2] = {
		{ "dir/", "ends with '/'" },
		{ "a/dir//", "ends with '/'" },
		{ "dir/.", "names a directory" },
		{ "../x", "contains \"..\"" },
		{ "../../x", "contains \"..\"" },
		{ "a/../../x", "contains \"..\"" },
		{ "a/..", "contains \"..\"" },
		{ "a/../b", "contains \"..\"" },
		{ "./..", "contains \"..\"" },
		{ "/etc/passwd", "absolute" },
		{ "//x", "absolute" },
		{ "/", "absolute" },
		{ "", "empty" },
		{ ".", "names a directory" },
		{ "./", "ends with '/'" },
		{ "./.", "names a directory" },
		{ "..", "contains" },
		{ "a\nb", "\"a\\nb\": it contains a control" },
		{ "\x1b[2J", "\"\\u001b[2J\"" },
		{ "a\x7f", "control" },
		{ ".fetcher", "belongs to fetcher" },
		{ ".fetcher/ready.json", "belongs to fetcher" },
		{ "./.fetcher//x", "belongs to fetcher" },
		{ ".FETCHER/x", "belongs to fetcher" },
		{ "current", "own link" },
		{ "current/x", "own link" },
		{ ".//current", "own link" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		path_refused(str_of(t[i][0]), t[i][1]);
	path_refused((struct str){ "a\0b", 3 }, "control");
	path_refused((struct str){ NULL, 0 }, "empty");
}

static void test_L17_long_paths(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(10000);
	char *got;

	for (int i = 0; i < 255; i++)
		buf_addc(&b, 'x');
	assert_int_equal(layout_check_path(str_of(buf_cstr(&b)), &got, NULL), 0);
	free(got);
	buf_addc(&b, 'x');
	path_refused(str_of(buf_cstr(&b)), "255");
	buf_clear(&b);
	for (int i = 0; i < LIMIT_PATH_DEPTH; i++)
		buf_adds(&b, i ? "/d" : "d");
	assert_int_equal(layout_check_path(str_of(buf_cstr(&b)), &got, NULL), 0);
	free(got);
	buf_adds(&b, "/d");
	path_refused(str_of(buf_cstr(&b)), "64");
	buf_clear(&b);
	for (int i = 0; i <= LIMIT_PATH; i++)
		buf_addc(&b, i % 200 == 199 ? '/' : 'x');
	path_refused(str_of(buf_cstr(&b)), "4096");
	buf_release(&b);
}

static void test_bad_path_names_layer(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "fine", NULL);
	layer("a/b", A, 3, TITLE, "fine2", OLD_PATH, "../x", NULL);
	refused(CODE_UNSAFE, "layer 2, annotation org.cnai.model.filepath: unsafe path \"../x\"");
}

/* --- metadata --- */

static struct layout_file with_metadata(const char *key, const char *json, size_t warnings)
{
	begin(OCI_TYPE_EMPTY);
	layer(RAW, A, 3, PATH, "x", key, json, NULL);
	struct layout l = planned();
	if (l.n_warnings != warnings)
		fail_msg("%s: %zu warnings, %s", json, l.n_warnings,
			 l.n_warnings ? l.warnings[0] : "");
	struct layout_file f = l.files[0];
	f.path = NULL;
	layout_release(&l);
	return f;
}

static void test_L22_modes(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		uint32_t mode;
	} t[] = {
		{ "{\"mode\":420}", 0644 },        { "{\"mode\":488}", 0750 },
		{ "{\"mode\":384}", 0600 },        { "{\"mode\":292}", 0444 },
		{ "{\"mode\":2541}", 0755 },    /* 04755: setuid dropped */
		{ "{\"mode\":8389101}", 0755 }, /* Go's own setuid bit, 1<<23 */
		{ "{\"mode\":4294967295}", 0777 }, { "{\"mode\":0}", 0 },
		{ "{\"mode\":73}", 0511 },         { "{}", 0 },
		{ "{\"mode\":null}", 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct layout_file f = with_metadata(META, t[i].json, 0);
		if (f.mode != t[i].mode)
			fail_msg("%s: %o", t[i].json, f.mode);
		f = with_metadata(OLD_META, t[i].json, 0);
		assert_int_equal(f.mode, t[i].mode);
	}
}

static void test_L23_mtimes(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool set;
		int64_t sec;
		uint32_t nsec;
	} t[] = {
		{ "1970-01-01T00:00:00Z", true, 0, 0 },
		{ "2025-03-04T05:06:07.123456789+08:00", true, 1741035967, 123456789 },
		{ "2024-02-29T23:59:59.5-00:30", true, 1709252999, 500000000 },
		{ "2000-03-01T00:00:00.1234567899Z", true, 951868800, 123456789 },
		{ "1969-12-31T23:59:59Z", true, -1, 0 },
		{ "2016-12-31T23:59:60Z", true, 1483228800, 0 },
		{ "2100-03-01t00:00:00z", true, 4107542400, 0 },
		{ "9999-12-31T23:59:59Z", true, 253402300799, 0 },
		{ "0001-01-01T00:00:00Z", false, 0, 0 },
	};
	static const char *const bad[] = {
		"",
		"x",
		"2025-03-04",
		"2025-03-04T05:06:07",
		"2025-13-04T05:06:07Z",
		"2025-02-29T05:06:07Z",
		"2100-02-29T05:06:07Z",
		"2025-00-04T05:06:07Z",
		"2025-03-00T05:06:07Z",
		"2025-03-04T24:06:07Z",
		"2025-03-04T05:60:07Z",
		"2025-03-04T05:06:61Z",
		"2025-03-04T05:06:07.Z",
		"2025-03-04T05:06:07+0800",
		"2025-03-04T05:06:07+24:00",
		"2025-03-04T05:06:07Zx",
		"-025-03-04T05:06:07Z",
		"0000-01-01T00:00:00Z",
		"2025-03-04T05:06:07+08:00 ",
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char json[200];
		snprintf(json, sizeof(json), "{\"mtime\":\"%s\"}", t[i].text);
		struct layout_file f = with_metadata(META, json, 0);
		if (f.has_mtime != t[i].set || f.mtime_sec != t[i].sec || f.mtime_nsec != t[i].nsec)
			fail_msg("%s: %d %lld %u", t[i].text, f.has_mtime, (long long)f.mtime_sec,
				 f.mtime_nsec);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char json[200];
		snprintf(json, sizeof(json), "{\"mode\":420,\"mtime\":\"%s\"}", bad[i]);
		struct layout_file f = with_metadata(META, json, 1);
		assert_false(f.has_mtime);
		assert_int_equal(f.mode, 0644); /* the rest counts */
	}
}

static void test_L24_malformed_metadata(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"7",
		"{\"mode\":\"0644\"}",
		"{\"mode\":-1}",
		"{\"mode\":4.2}",
		"{\"mtime\":5}",
		"{\"mode\":1,\"mode\":2}",
		"{\"typeflag\":\"0\"}",
		"{\"typeflag\":2}",
		"{\"name\":\"\\u0000\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct layout_file f = with_metadata(META, bad[i], 1);
		assert_int_equal(f.size, 3);
	}
}

static void test_L25_L26_other_metadata(void **state)
{
	(void)state;
	struct layout_file f = with_metadata(
		META,
		"{\"name\":\"/etc/"
		"passwd\",\"size\":99,\"uid\":0,\"gid\":0,\"typeflag\":48,\"files\":[]}",
		0);

	assert_int_equal(f.size, 3);
	begin(OCI_TYPE_EMPTY);
	layer(RAW, A, 3, PATH, "x", NULL);
	layer(RAW, EMPTY, 0, PATH, "d", META, "{\"typeflag\":5}", NULL);
	struct layout l = planned();
	assert_int_equal(l.n_files, 1);
	assert_int_equal(l.n_warnings, 1);
	layout_release(&l);
}

/* --- filters --- */

static void filtered(const char *const *include, const char *const *exclude, const char *expected,
		     size_t excluded)
{
	struct layout_options o = { .include = include, .exclude = exclude };
	struct layout l = { 0 };
	struct err e = { 0 };
	struct buf got = BUF_INIT(1000);

	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "w/1.safetensors", NULL);
	layer("a/b", B, 3, TITLE, "w/2.safetensors", NULL);
	layer("a/b", A, 3, TITLE, "config.json", NULL);
	layer("a/b", EMPTY, 0, TITLE, "a[1].txt", NULL);
	if (plan(&o, &l, &e)) {
		assert_int_equal(e.code, CODE_UNSUPPORTED);
		assert_non_null(strstr(e.msg, "leave none of 4 files"));
	}
	for (size_t i = 0; i < l.n_files; i++)
		buf_addf(&got, "%s ", l.files[i].path);
	assert_string_equal(buf_cstr(&got), expected);
	assert_int_equal(l.n_excluded, excluded);
	buf_release(&got);
	layout_release(&l);
}

static void test_L48_include_exclude(void **state)
{
	(void)state;
	static const char *const none[] = { NULL };

	filtered(NULL, NULL, "a[1].txt config.json w/1.safetensors w/2.safetensors ", 0);
	filtered(none, none, "a[1].txt config.json w/1.safetensors w/2.safetensors ", 0);
	filtered(WORDS("*.json", "w/1*"), NULL, "config.json w/1.safetensors ", 2);
	filtered(NULL, WORDS("*.safetensors"), "a[1].txt config.json ", 2);
	filtered(WORDS("w/"), WORDS("2.*"), "w/1.safetensors ", 3);
	filtered(WORDS("a\\[1\\].txt"), NULL, "a[1].txt ", 3);
	filtered(WORDS("*.gguf"), NULL, "", 0);
	filtered(NULL, WORDS("**"), "", 0);
}

static void test_globs_hide_nothing_unsafe(void **state)
{
	(void)state;
	struct layout_options o = { .include = WORDS("*.json") };
	struct layout l = { 0 };
	struct err e = { 0 };

	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "config.json", NULL);
	layer("a/b", A, 3, TITLE, "../../x", NULL);
	assert_int_equal(plan(&o, &l, &e), -1);
	assert_int_equal(e.code, CODE_UNSAFE);
}

static void test_sums_after_filter(void **state)
{
	(void)state;
	struct layout_options o = { .include = WORDS("b") };
	struct layout l = { 0 };
	struct err e = { 0 };

	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "a", NULL);
	layer("a/b", B, 5, TITLE, "b", NULL);
	assert_int_equal(plan(&o, &l, &e), 0);
	assert_int_equal(l.bytes, 5);
	assert_int_equal(l.unique_bytes, 5);
	layout_release(&l);
}

static void test_many_files(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	for (int i = 9999; i >= 0; i--) {
		char name[64];
		snprintf(name, sizeof(name), "d%d/e/f%05d", i % 7, i);
		layer("a/b", A, 3, TITLE, name, NULL);
	}
	struct layout l = planned();
	assert_int_equal(l.n_files, 10000);
	assert_string_equal(l.files[0].path, "d0/e/f00000");
	for (size_t i = 1; i < l.n_files; i++)
		assert_true(strcmp(l.files[i - 1].path, l.files[i].path) < 0);
	assert_int_equal(l.unique_bytes, 3);
	layout_release(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_oras),
		cmocka_unit_test(test_modelpack_raw),
		cmocka_unit_test(test_path_precedence),
		cmocka_unit_test(test_models_without_names),
		cmocka_unit_test(test_L37_unknown_type_without_name),
		cmocka_unit_test(test_L35_L36_nothing_to_lay_out),
		cmocka_unit_test(test_C11_empty_descriptor),
		cmocka_unit_test(test_L6_empty_files),
		cmocka_unit_test(test_L7_one_digest_two_names),
		cmocka_unit_test(test_L8_one_path_twice),
		cmocka_unit_test(test_L9_collision_after_cleaning),
		cmocka_unit_test(test_L10_file_and_directory),
		cmocka_unit_test(test_inline_data),
		cmocka_unit_test(test_paths_accepted),
		cmocka_unit_test(test_L11_to_L15_paths_refused),
		cmocka_unit_test(test_L17_long_paths),
		cmocka_unit_test(test_bad_path_names_layer),
		cmocka_unit_test(test_L22_modes),
		cmocka_unit_test(test_L23_mtimes),
		cmocka_unit_test(test_L24_malformed_metadata),
		cmocka_unit_test(test_L25_L26_other_metadata),
		cmocka_unit_test(test_L48_include_exclude),
		cmocka_unit_test(test_globs_hide_nothing_unsafe),
		cmocka_unit_test(test_sums_after_filter),
		cmocka_unit_test(test_many_files),
	};

	return cmocka_run_group_tests_name("layout", tests, NULL, teardown);
}
