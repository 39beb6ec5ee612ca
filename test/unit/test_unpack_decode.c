// SPDX-License-Identifier: Apache-2.0
/* Codecs, ends and sizes: every way in which a layer can stop too early or too late. [A..]: edge cases of the layouts. */
#include "tar_fixture.h"

#include <pthread.h>

static struct buf packed;

static int set_up(void **state)
{
	defaults();
	tar_start();
	packed = BUF_INIT((size_t)1 << 30);
	return tree_make(state);
}

static int tear_down(void **state)
{
	unpack_result_release(&result);
	buf_release(&tape);
	buf_release(&packed);
	return tree_remove(state);
}

static char *gzip_argv[] = { (char *)"gzip", (char *)"-6", (char *)"-n", NULL };
static char *named_argv[] = { (char *)"gzip", (char *)"-1", NULL };
static char *zstd_argv[] = { (char *)"zstd", (char *)"-3", (char *)"-q", (char *)"-c", NULL };
static char *long_argv[] = { (char *)"zstd", (char *)"-1", (char *)"--long=27", (char *)"-q", (char *)"-c", NULL };
static char *longer_argv[] = { (char *)"zstd", (char *)"-1", (char *)"--long=28", (char *)"-q", (char *)"-c", NULL };
static char *no_sum_argv[] = { (char *)"zstd", (char *)"--no-check", (char *)"-q", (char *)"-c", NULL };

static void pack(char *const argv[], size_t from, size_t to)
{
	filter(argv, tape.data + from, to - from, &packed);
}

static void must_unpack(void)
{
	if (run_bytes(packed.data, packed.len))
		fail_msg("%s", error.msg);
}

static void must_not_unpack(enum code code, const char *why)
{
	if (run_bytes(packed.data ? packed.data : "", packed.len) == 0)
		fail_msg("accepted; expected \"%s\"", why);
	if (error.code != code || !strstr(error.msg, why))
		fail_msg("code %d, \"%s\" lacks \"%s\"", (int)error.code, error.msg, why);
}

static char *content;
#define CONTENT 700001
static void make_tape(void)
{
	if (!content)
		content = noise(CONTENT, 3);
	tar_start();
	tar_file("a", "abc");
	tar_bytes("big", content, CONTENT);
	tar_end();
}

static void is_tape(void)
{
	assert_int_equal(result.n_files, 2);
	is_text("a", "abc");
	is_bytes("big", content, CONTENT);
	tree_again();
}

/* --- codecs --- */

static void test_gzip(void **state)
{
	static const size_t sizes[] = { 0, 1, 13, 4096, 100000 };

	(void)state;
	make_tape();
	tree.codec = CODEC_GZIP;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		block = sizes[i];
		buf_clear(&packed);
		pack(i & 1 ? named_argv : gzip_argv, 0, tape.len);
		must_unpack();
		is_tape();
	}
}

static void test_gzip_members(void **state)
{
	(void)state; /* [A30] */
	make_tape();
	tree.codec = CODEC_GZIP;
	for (size_t step = 1; step < tape.len; step = step * 7 + 1) {
		size_t from = 0;
		buf_clear(&packed);
		for (int i = 0; i < 8 && from + step < tape.len; i++, from += step)
			pack(i % 2 ? gzip_argv : named_argv, from, from + step);
		pack(gzip_argv, from, tape.len);
		pack(gzip_argv, 0, 0); /* an empty member is one, too */
		block = step % 3 ? 0 : 11;
		must_unpack();
		is_tape();
	}
}

/* Every optional field of a header [A30], in blocks that cut it anywhere: RFC 1952 2.3. */
static void test_gzip_headers(void **state)
{
	static const char fields[] = "\x1f\x8b\x08\x1e\0\0\0\0\0\x03"
				     "\x05\0extra" "a name\0" "a comment\0";
	_cleanup_buf_ struct buf plain = BUF_INIT(1 << 24);

	(void)state;
	make_tape();
	filter(gzip_argv, tape.data, tape.len, &plain);
	tree.codec = CODEC_GZIP;
	for (block = 1; block < 60; block += 3) {
		buf_clear(&packed);
		buf_add(&packed, fields, sizeof(fields) - 1);
		buf_add(&packed, "\x6b\x12", 2); /* low half of the header's CRC-32 */
		buf_add(&packed, plain.data + 10, plain.len - 10);
		must_unpack();
		is_tape();
	}
	packed.data[sizeof(fields) - 1] ^= 1;
	must_not_unpack(CODE_INTEGRITY, "CRC of a gzip header");
	packed.data[sizeof(fields) - 1] ^= 1;
	packed.data[3] |= 0x20; /* reserved: "must be zero" */
	must_not_unpack(CODE_UNSUPPORTED, "unknown method");
}

static void test_zstd(void **state)
{
	static const size_t sizes[] = { 0, 1, 13, 4096, 100000 };

	(void)state;
	make_tape();
	tree.codec = CODEC_ZSTD;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		block = sizes[i];
		buf_clear(&packed);
		pack(i & 1 ? no_sum_argv : zstd_argv, 0, tape.len);
		must_unpack();
		is_tape();
	}
	buf_clear(&packed);
	pack(long_argv, 0, tape.len);
	must_unpack();
	is_tape();
}

static void test_zstd_frames(void **state)
{
	static const char skippable[] = "\x5a\x2a\x4d\x18\x05\0\0\0hello";

	(void)state; /* [A30] skippable frames before, between and behind; also one cut in tiny blocks */
	make_tape();
	tree.codec = CODEC_ZSTD;
	for (int i = 0; i < 3; i++) {
		block = i == 2 ? 1 : 0;
		buf_clear(&packed);
		buf_add(&packed, skippable, sizeof(skippable) - 1);
		pack(zstd_argv, 0, 700);
		buf_add(&packed, skippable, sizeof(skippable) - 1);
		pack(zstd_argv, 700, tape.len);
		pack(zstd_argv, 0, 0);
		buf_add(&packed, skippable, sizeof(skippable) - 1);
		must_unpack();
		is_tape();
	}
}

static void test_zstd_window(void **state)
{
	/* a frame header that asks for 256 MiB: no content size, window descriptor 18 << 3 */
	static const char wide[] = "\x28\xb5\x2f\xfd\x00\x90\x01\x00\x00";

	(void)state;
	tree.codec = CODEC_ZSTD;
	buf_add(&packed, wide, sizeof(wide) - 1);
	must_not_unpack(CODE_UNSUPPORTED, "128 MiB");
	make_tape();
	buf_clear(&packed);
	pack(longer_argv, 0, tape.len);
	/* zstd writes a window no larger than the content: that one may pass */
	if (run_bytes(packed.data, packed.len) == 0)
		is_tape();
	else
		assert_int_equal(error.code, CODE_UNSUPPORTED);
}

/* --- ends --- */

static void test_truncated(void **state)
{
	static char *const *const argvs[] = { NULL, gzip_argv, zstd_argv };

	(void)state; /* [A30] */
	tar_file("a", "abc");
	tar_file("b", "def");
	tar_end();
	for (size_t c = 0; c < 3; c++) {
		tree.codec = (enum layout_codec)c;
		buf_clear(&packed);
		if (c == CODEC_NONE)
			buf_add(&packed, tape.data, tape.len);
		else
			pack(argvs[c], 0, tape.len);
		/* a plain tar may miss the second block of its end mark */
		size_t whole = c == CODEC_NONE ? packed.len - 512 : packed.len;
		for (size_t n = whole; n-- > 0; n -= n > 600 && n < whole - 600 && n % 512 != 1 ? n % 16 : 0) {
			tree_again();
			if (run_bytes(packed.data, n) == 0)
				fail_msg("codec %zu: accepted %zu of %zu bytes", c, n, packed.len);
			if (error.code != CODE_INTEGRITY && !(n < 512 && error.code == CODE_UNSUPPORTED))
				fail_msg("codec %zu, %zu bytes: %d %s", c, n, (int)error.code, error.msg);
		}
	}
}

static void test_trailing(void **state)
{
	(void)state; /* [A30] */
	make_tape();
	for (size_t c = 1; c < 3; c++) {
		static const char *const garbage[] = { "x", "garbage that is longer than any header", "\0", "\x1f\x8b" };
		static const size_t sizes[] = { 1, 38, 1, 2 };
		tree.codec = (enum layout_codec)c;
		for (size_t i = 0; i < ARRAY_SIZE(garbage); i++) {
			buf_clear(&packed);
			pack(c == CODEC_GZIP ? gzip_argv : zstd_argv, 0, tape.len);
			buf_add(&packed, garbage[i], sizes[i]);
			tree_again();
			must_not_unpack(CODE_INTEGRITY, "layer");
		}
	}
	/* behind the tar inside: zeros are GNU padding [A29], anything else is not */
	tree.codec = CODEC_NONE;
	tree_again();
	for (int i = 0; i < 20; i++)
		tar_end();
	must_run();
	is_tape();
	buf_addc(&tape, '\0');
	must_run();
	is_tape();
	buf_addc(&tape, 'x');
	for (block = 0; block < 3; block++) {
		must_fail(CODE_INTEGRITY, "follows the end");
		tree_again();
	}
	make_tape();
	tar_file("second archive", "x");
	tar_end();
	must_fail(CODE_INTEGRITY, "follows the end");
}

static void test_end_mark(void **state)
{
	(void)state;
	tar_file("a", "abc");
	must_fail(CODE_INTEGRITY, "end mark");
	tree_again();
	tree.image = true; /* container runtimes take it */
	must_run();
	is_text("a", "abc");
	tree_again();
	tree.image = false;
	tar_end();
	tape.len -= 512;
	must_run();
	is_text("a", "abc");
}

static void test_damaged(void **state)
{
	(void)state;
	make_tape();
	for (size_t c = 1; c < 3; c++) {
		tree.codec = (enum layout_codec)c;
		buf_clear(&packed);
		pack(c == CODEC_GZIP ? gzip_argv : zstd_argv, 0, tape.len);
		const size_t places[] = { packed.len - 1, packed.len - 3, packed.len - 6, packed.len / 2, 5000 };
		for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
			tree_again();
			packed.data[places[i]] ^= 0x10;
			/* gzip ends with CRC and length, zstd with a checksum */
			if (c == CODEC_GZIP || i != 2)
				must_not_unpack(CODE_INTEGRITY, "layer");
			packed.data[places[i]] ^= 0x10;
		}
		tree_again();
		must_unpack();
		is_tape();
	}
	tree.codec = CODEC_NONE;
	tape.data[1024] ^= 1; /* the second header */
	must_fail(CODE_INTEGRITY, "damaged");
}

static void test_wrong_type(void **state)
{
	static const struct { enum layout_codec codec; const char *bytes; size_t n; const char *why; } cases[] = {
		{ CODEC_NONE, "\x1f\x8b\x08\0\0\0\0\0\0\0", 10, "tar by its media type, but gzip" },
		{ CODEC_NONE, "\x28\xb5\x2f\xfd\0\0\0\0", 8, "tar by its media type, but zstd" },
		{ CODEC_GZIP, "\x28\xb5\x2f\xfd\0\0\0\0", 8, "gzip by its media type, but zstd" },
		{ CODEC_ZSTD, "\x1f\x8b\x08\0\0\0\0\0\0\0", 10, "zstd by its media type, but gzip" },
		{ CODEC_ZSTD, "\xfd" "7zXZ\0aaa", 9, "but xz" },
		{ CODEC_GZIP, "GGUF\3\0\0\0", 8, "something else" },
		{ CODEC_NONE, "GGUF\3\0\0\0", 8, "no tar archive" }, /* [A31] */
		{ CODEC_NONE, "", 0, "too early" }, { CODEC_GZIP, "", 0, "too early" }, { CODEC_ZSTD, "", 0, "too early" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (block = 0; block < 2; block++) {
			tree.codec = cases[i].codec;
			buf_clear(&packed);
			buf_add(&packed, cases[i].bytes, cases[i].n);
			must_not_unpack(cases[i].n ? CODE_UNSUPPORTED : CODE_INTEGRITY, cases[i].why);
			/* another format is certain at once; what may be damage is not */
			assert_int_equal(run_bytes(packed.data ? packed.data : "", packed.len), strstr(cases[i].why, "but ") ? 1 : -1);
		}
	/* [A31] well packed, but no tar inside */
	block = 0;
	tar_start();
	for (int i = 0; i < 1000; i++)
		buf_adds(&tape, "not a tar archive ");
	tree.codec = CODEC_NONE;
	must_fail(CODE_UNSUPPORTED, "no tar archive");
	tree.codec = CODEC_GZIP;
	buf_clear(&packed);
	pack(gzip_argv, 0, tape.len);
	must_not_unpack(CODE_UNSUPPORTED, "no tar archive");
}

static void test_source_fails(void **state)
{
	(void)state;
	make_tape();
	for (size_t at = 1; at < tape.len; at = at * 3 + 100) {
		struct tape_source s = { .p = tape.data, .n = tape.len, .block = 700, .fail_at = at };
		struct unpack_source src = { tape_read, &s };
		struct err e = { 0 };
		options.dirfd = tree_dir;
		assert_int_equal(unpack_run(&src, &options, &result, &e), -1);
		assert_int_equal(e.code, CODE_NETWORK);
		assert_string_equal(e.msg, "the line broke");
		tree_again();
	}
}

static void test_inner(void **state)
{
	(void)state; /* [A34] */
	make_tape();
	tree.codec = CODEC_GZIP;
	pack(gzip_argv, 0, tape.len);
	digest_of(DIGEST_SHA512, tape.data, tape.len, &tree.inner);
	must_unpack();
	assert_true(digest_equal(&tree.inner, &result.inner));
	is_tape();
	tree.inner.bytes[3] ^= 1;
	must_not_unpack(CODE_INTEGRITY, "digest");
	tree_again();
	tree.codec = CODEC_NONE;
	tree.inner = tree.digest; /* not compressed: the layer's own digest is the inner one */
	must_run();
	is_tape();
	tree.inner.bytes[3] ^= 1;
	must_fail(CODE_INTEGRITY, "digest");
}

/* --- sizes --- */

static void zeros_file(const char *name, uint64_t size)
{
	static const char zeros[1 << 20];
	uint8_t h[512];

	tar_header(h, name, '0', size, NULL);
	tar_put(h);
	for (uint64_t n = 0; n < size; n += sizeof(zeros))
		assert_int_equal(buf_add(&tape, zeros, sizeof(zeros)), 0);
}

static void test_expansion(void **state)
{
	(void)state; /* CVE-2025-32386: a small archive that fills memory or disk */
	tree.codec = CODEC_ZSTD;
	zeros_file("small", 48 << 20); /* below the floor anything goes */
	tar_end();
	pack(zstd_argv, 0, tape.len);
	must_unpack();
	assert_int_equal(result.bytes, 48 << 20);
	tree_again();
	tar_start();
	zeros_file("bomb", 160 << 20);
	tar_end();
	buf_clear(&packed);
	pack(zstd_argv, 0, tape.len);
	must_not_unpack(CODE_UNSAFE, "times its size");
	tree_again();
	tree.codec = CODEC_GZIP; /* deflate's best is within what is allowed */
	buf_clear(&packed);
	pack(gzip_argv, 0, tape.len);
	must_unpack();
	tree_again();
	options.max_bytes = (160 << 20) - 1;
	must_not_unpack(CODE_SPACE, "more than");
}

static void test_sparse_limits(void **state)
{
	static const char *const maps[] = {
		"0,3,2,3",		/* overlap */
		"10,3,0,3",		/* backwards */
		"0,3,1000,6",		/* beyond the size */
		"0,9223372036854775807",
		"0,3",			/* less than there is */
		"0,600",		/* more than there is */
	};

	(void)state; /* [A29] */
	for (size_t i = 0; i < ARRAY_SIZE(maps); i++) {
		tree_again();
		tar_start();
		tar_pax_many("GNU.sparse.size", "1000", "GNU.sparse.map", maps[i], NULL);
		tar_file("s", "abcdef");
		tar_end();
		if (run_tape() == 0)
			fail_msg("accepted the map %s", maps[i]);
		assert_int_equal(error.code, CODE_INTEGRITY);
	}
	/* More stored than mapped: what lies between is no header, whoever skips the entry. */
	for (int skipped = 0; skipped < 2; skipped++) {
		uint8_t h[1024] = { 0 };
		tree_again();
		tar_start();
		tar_header(h + 512, "smuggled", '0', 0, NULL);
		tar_pax_many("GNU.sparse.size", "1000", "GNU.sparse.map", "0,512", NULL);
		tar_bytes("s", h, sizeof(h));
		tar_end();
		globs.exclude = (const char *const[]){ skipped ? "s" : "none", NULL };
		if (skipped) {
			must_run();
			assert_int_equal(result.n_files, 0);
		} else {
			must_fail(CODE_INTEGRITY, "map");
		}
	}
	globs = (struct layout_options){ 0 };
	/* A hole of 1 PiB costs nothing in the archive: it must not cost us days. */
	tree_again();
	tar_start();
	tar_pax_many("GNU.sparse.size", "1125899906842624", "GNU.sparse.map", "1125899906842620,4", NULL);
	tar_file("s", "tail");
	tar_end();
	must_fail(CODE_UNSAFE, "holes");
	/* and a map without end is not kept in memory */
	_cleanup_buf_ struct buf map = BUF_INIT(1 << 24);
	buf_adds(&map, "2000000\n");
	for (int i = 0; i < 2000000; i++)
		buf_adds(&map, "0\n0\n");
	tree_again();
	tar_start();
	tar_pax_many("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "1000000", NULL);
	tar_bytes("s", map.data, map.len);
	tar_end();
	must_fail(CODE_INTEGRITY, "65536 pieces");
}

static void test_many_entries(void **state)
{
	uint8_t h[512];

	(void)state;
	for (unsigned i = 0; i <= LIMIT_TREE_FILES; i++) {
		char name[32];
		snprintf(name, sizeof(name), "%x", i);
		tar_header(h, name, '2', 0, "x"); /* links cost no inode here */
		tar_put(h);
	}
	tar_end();
	must_fail(CODE_UNSAFE, "more files");
	globs.include = (const char *const[]){ "1", NULL };
	tree_again();
	must_run(); /* what is left out costs nothing */
	assert_int_equal(result.n_files, 1);
	assert_int_equal(result.skipped, LIMIT_TREE_FILES);
}

/* [A32] offsets beyond 2^31; the source makes the bytes as they are asked for */
struct endless {
	uint8_t header[512], block[1 << 20];
	uint64_t at, end;
};
static int endless_read(void *arg, const void **ret, size_t *ret_n, struct err *e)
{
	struct endless *s = arg;

	(void)e;
	*ret = s->at ? s->block : s->header;
	*ret_n = (size_t)(s->at ? MIN(sizeof(s->block), s->end - s->at) : 512);
	s->at += *ret_n;
	return 0;
}

static void test_large_file(void **state)
{
	static struct endless s;
	struct unpack_source src = { endless_read, &s };
	uint64_t size = ((uint64_t)1 << 31) + 1;
	struct err e = { 0 };

	(void)state;
	if (getenv("FETCHER_SKIP_LARGE"))
		skip();
	tar_header(s.header, "large", '0', size, NULL);
	s.end = 512 + size + 511 + 1024;
	options.dirfd = tree_dir;
	globs.exclude = (const char *const[]){ "large", NULL };
	if (unpack_run(&src, &options, &result, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(result.skipped, 1);
	assert_int_equal(s.at, s.end);
}

/* --- several at once --- */

struct job {
	const struct buf *b;
	enum layout_codec codec;
	int dirfd, rc;
	struct unpack_result result;
};
static void *job_main(void *arg)
{
	struct job *j = arg;
	struct layout_tree t = { .codec = j->codec, .key = (char *)"" };
	struct tape_source s = { .p = j->b->data, .n = j->b->len, .block = 10000 };
	struct unpack_source src = { tape_read, &s };
	struct unpack_options o = { .tree = &t, .dirfd = j->dirfd };
	struct err e = { 0 };

	j->rc = unpack_run(&src, &o, &j->result, &e);
	free(s.last);
	return NULL;
}

static void test_threads(void **state)
{
	_cleanup_buf_ struct buf gz = BUF_INIT(1 << 24), zs = BUF_INIT(1 << 24);
	struct job jobs[6];
	pthread_t threads[6];

	(void)state;
	make_tape();
	filter(gzip_argv, tape.data, tape.len, &gz);
	filter(zstd_argv, tape.data, tape.len, &zs);
	for (size_t i = 0; i < 6; i++) {
		char name[2] = { (char)('0' + i), 0 };
		assert_int_equal(mkdirat(tree_dir, name, 0700), 0);
		jobs[i] = (struct job){ .b = i % 3 == 0 ? &tape : i % 3 == 1 ? &gz : &zs, .codec = (enum layout_codec)(i % 3) };
		jobs[i].dirfd = openat(tree_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_int_equal(pthread_create(&threads[i], NULL, job_main, &jobs[i]), 0);
	}
	for (size_t i = 0; i < 6; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(jobs[i].rc, 0);
		assert_int_equal(jobs[i].result.n_files, 2);
		assert_true(digest_equal(&jobs[i].result.files[1].digest, &jobs[0].result.files[1].digest));
	}
	for (size_t i = 0; i < 6; i++) {
		unpack_result_release(&jobs[i].result);
		close(jobs[i].dirfd);
	}
}

static int free_content(void **state)
{
	(void)state;
	free(content);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
		TEST(test_gzip), TEST(test_gzip_members), TEST(test_gzip_headers), TEST(test_zstd), TEST(test_zstd_frames), TEST(test_zstd_window),
		TEST(test_truncated), TEST(test_trailing), TEST(test_end_mark), TEST(test_damaged), TEST(test_wrong_type),
		TEST(test_source_fails), TEST(test_inner), TEST(test_expansion), TEST(test_sparse_limits),
		TEST(test_many_entries), TEST(test_large_file), TEST(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, free_content);
}
