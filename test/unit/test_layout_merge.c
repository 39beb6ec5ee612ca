// SPDX-License-Identifier: Apache-2.0
/*
 * How what archives became joins a plan: collisions, links, layers of images. L: the cases of
 * artifact layouts.
 */
#include "layout_fixture.h"

#define OCI_LAYER "application/vnd.oci.image.layer.v1.tar"
#define TAR "application/vnd.cncf.model.code.v1.tar"

/*
 * What a tree became, a word each: "path=content" a file, "path>target" a symlink, "path/" an
 * empty directory, "-path" a whiteout, "-path/" an opaque one.
 */
struct result {
	struct layout_file files[32];
	size_t n;
	char *whiteouts[8];
	size_t n_whiteouts;
};

static void result_of(const char *const *words, struct result *r)
{
	*r = (struct result){ 0 };
	for (; *words; words++) {
		const char *w = *words, *mark = strpbrk(w, "=>");
		struct layout_file *f = &r->files[r->n];
		if (*w == '-') {
			r->whiteouts[r->n_whiteouts++] = strdup(w + 1);
			continue;
		}
		r->n++;
		size_t len = strlen(w);
		f->kind = !mark ? LAYOUT_DIR : *mark == '=' ? LAYOUT_FILE : LAYOUT_SYMLINK;
		f->path = strndup(w, mark ? (size_t)(mark - w) : len - 1);
		if (!mark)
			continue;
		f->size = strlen(mark + 1);
		digest_of(DIGEST_SHA256, mark + 1, f->size, &f->digest);
		if (f->kind == LAYOUT_SYMLINK)
			f->data = (const uint8_t *)strdup(mark + 1);
	}
}

static void result_release(struct result *r)
{
	for (size_t i = 0; i < r->n; i++)
		layout_file_release(&r->files[i]);
	for (size_t i = 0; i < r->n_whiteouts; i++)
		free(r->whiteouts[i]);
}

/* A plan of n archives, or layers of an image; one raw file beside the archives. */
static struct layout planned_trees(bool image, size_t n, bool with_file)
{
	begin(image ? OCI_TYPE_IMAGE_CONFIG : OCI_TYPE_EMPTY);
	if (with_file)
		layer("a/b", A, 3, TITLE, "raw", NULL);
	for (size_t i = 0; i < n; i++)
		layer(image ? OCI_LAYER : TAR, B, 3, NULL);
	return planned();
}

/* Trees are lists of words, each ended by NULL, the last by two. */
static int merged(bool image, bool with_file, const char *const *words, struct layout *l, struct err *e)
{
	struct result r;
	size_t n = 0, tree = 0;
	int failed = 0;

	for (const char *const *w = words; *w; n++)
		while (*w++)
			;
	*l = planned_trees(image, n, with_file);
	while (*words && !failed) {
		result_of(words, &r);
		failed = layout_merge(l, tree++, r.files, r.n, r.whiteouts, r.n_whiteouts, e);
		for (size_t i = 0; i < r.n && !failed; i++)
			assert_null(r.files[i].path);
		result_release(&r);
		while (*words++)
			;
	}
	return failed ? -1 : layout_finish(l, e);
}

static void is(const struct layout *l, const char *expected)
{
	struct buf got = BUF_INIT(10000);

	for (size_t i = 0; i < l->n_files; i++) {
		const struct layout_file *f = &l->files[i];
		buf_addf(&got, "%s%s", i ? " " : "", f->path);
		if (f->kind == LAYOUT_SYMLINK)
			buf_addf(&got, ">%.*s", (int)f->size, (const char *)f->data);
		else if (f->kind == LAYOUT_DIR)
			buf_addc(&got, '/');
		else
			buf_addf(&got, "=%llu", (unsigned long long)f->size);
	}
	assert_string_equal(buf_cstr(&got), expected);
	buf_release(&got);
}

#define TREE(...) __VA_ARGS__, NULL
#define TREES(...) (const char *const[]){ __VA_ARGS__, NULL }

static void becomes(bool image, const char *const *words, const char *expected)
{
	struct layout l = { 0 };
	struct err e = { 0 };

	if (merged(image, !image, words, &l, &e))
		fail_msg("%s (wanted %s)", e.msg, expected);
	is(&l, expected);
	layout_release(&l);
}

static void fails(bool image, const char *const *words, enum code code, const char *why)
{
	struct layout l = { 0 };
	struct err e = { 0 };

	if (merged(image, !image, words, &l, &e) != -1)
		fail_msg("accepted, wanted: %s", why);
	if (e.code != code || !strstr(e.msg, why))
		fail_msg("code %d, \"%s\" lacks \"%s\"", (int)e.code, e.msg, why);
	layout_release(&l);
}

/* --- archives of an artifact --- */

static void test_archives_join(void **state)
{
	struct layout l;
	struct err e = { 0 };
	(void)state;

	becomes(false, TREES(TREE("z/b=22", "e/", "l>z/b"), TREE("a=1")), "a=1 e/ l>z/b raw=3 z/b=2");
	becomes(false, TREES(TREE("d/", "d/e/", "d/e/f=1", "d-x=1", "g/")), "d-x=1 d/e/f=1 g/ raw=3");
	assert_int_equal(merged(false, true, TREES(TREE("x=abc"), TREE("y=abc", "z=d")), &l, &e), 0);
	assert_int_equal(l.bytes, 10); /* raw is abc too */
	assert_int_equal(l.unique_bytes, 4);
	assert_int_equal(l.tree_bytes, 3);
	layout_release(&l);
}

static void test_L7_L8_one_path_twice(void **state)
{
	(void)state;
	becomes(false, TREES(TREE("x=1"), TREE("x=1")), "raw=3 x=1");
	becomes(false, TREES(TREE("raw=abc", "d/"), TREE("d/")), "d/ raw=3");
	fails(false, TREES(TREE("x=1"), TREE("x=2")), CODE_UNSAFE, "\"x\": two layers with different content");
	fails(false, TREES(TREE("raw=abd")), CODE_UNSAFE, "\"raw\": two layers");
	fails(false, TREES(TREE("x=1", "x/")), CODE_UNSAFE, "\"x\": two layers");
	fails(false, TREES(TREE("x>raw"), TREE("x=raw")), CODE_UNSAFE, "\"x\": two layers");
}

static void test_L10_L18_prefixes(void **state)
{
	(void)state;
	fails(false, TREES(TREE("x=1"), TREE("x/y=1")), CODE_UNSAFE, "\"x\": it is a file and the directory");
	fails(false, TREES(TREE("raw/y=1")), CODE_UNSAFE, "\"raw\": it is a file and the directory");
	fails(false, TREES(TREE("x>d"), TREE("x/y=1")), CODE_UNSAFE, "\"x\": it is a symlink and the directory");
	fails(false, TREES(TREE("x>d", "x/y/")), CODE_UNSAFE, "\"x\": it is a symlink and the directory");
}

static void test_L9_L12_to_L15_records_are_checked(void **state)
{
	static const char *const bad[] = { "../x=1", "/x=1", "a//b=1", "./a=1", "=1", ".fetcher/x=1",
					   "current=1", "a/../b=1", "a\n=1" };
	(void)state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		fails(false, TREES(TREE(bad[i])), CODE_UNSAFE, "unsafe path");
		fails(true, TREES(TREE("ok=1"), TREE(bad[i])), CODE_UNSAFE, "unsafe path");
	}
	fails(true, TREES(TREE("-../x", "a=1")), CODE_UNSAFE, "whiteout: unsafe path");
	fails(true, TREES(TREE("-a//b/", "a=1")), CODE_UNSAFE, "simplest form");
}

static void one_refused(struct layout_file f)
{
	struct layout l = planned_trees(false, 1, true);
	struct err e = { 0 };

	f.path = (char *)"x";
	assert_int_equal(layout_merge(&l, 0, &f, 1, NULL, 0, &e), -1);
	assert_int_equal(e.code, CODE_INTEGRITY);
	assert_string_equal(f.path, "x");
	assert_int_equal(l.n_files, 1);
	assert_int_equal(l.n_merged, 0);
	layout_release(&l);
}

static void test_contents_are_checked(void **state)
{
	struct layout_file f = { .size = 1 };
	struct digest abc, none;
	(void)state;

	digest_of(DIGEST_SHA256, "abc", 3, &abc);
	digest_of(DIGEST_SHA256, "", 0, &none);
	one_refused(f); /* no digest */
	one_refused((struct layout_file){ .digest = abc });
	one_refused((struct layout_file){ .digest = none, .size = 1 });
	one_refused((struct layout_file){ .digest = abc, .size = LIMIT_BLOB + 1 });
	one_refused((struct layout_file){ .kind = LAYOUT_DIR, .size = 1 });
	one_refused((struct layout_file){ .kind = LAYOUT_SYMLINK, .digest = abc, .size = 3 });
	one_refused((struct layout_file){ .kind = LAYOUT_SYMLINK, .digest = abc, .size = 3,
					  .data = (const uint8_t *)"abd" });
	fails(false, TREES(TREE("a=1"), TREE("b/", "-a")), CODE_INTERNAL, "whiteouts belong to container images");
}

static void test_order_of_trees(void **state)
{
	struct layout l = planned_trees(false, 2, true);
	struct err e = { 0 };
	(void)state;

	assert_int_equal(layout_merge(&l, 1, NULL, 0, NULL, 0, &e), -1);
	assert_int_equal(layout_finish(&l, &e), -1);
	assert_int_equal(e.code, CODE_INTERNAL);
	assert_int_equal(layout_merge(&l, 0, NULL, 0, NULL, 0, &e), 0);
	assert_int_equal(layout_merge(&l, 0, NULL, 0, NULL, 0, &e), -1);
	assert_int_equal(layout_merge(&l, 1, NULL, 0, NULL, 0, &e), 0);
	assert_int_equal(layout_merge(&l, 2, NULL, 0, NULL, 0, &e), -1);
	assert_int_equal(layout_finish(&l, &e), 0);
	is(&l, "raw=3");
	layout_release(&l);
}

static void test_L35_nothing_came(void **state)
{
	struct layout l;
	struct err e = { 0 };
	(void)state;

	fails(true, TREES(TREE("d/"), TREE("l>d")), CODE_UNSUPPORTED, "no file below models/; --subdir names");
	l = planned_trees(false, 1, false);
	assert_int_equal(layout_merge(&l, 0, NULL, 0, NULL, 0, &e), 0);
	assert_int_equal(layout_finish(&l, &e), -1);
	assert_non_null(strstr(e.msg, "the archives hold no file"));
	l.n_excluded = 7;
	assert_int_equal(layout_finish(&l, &e), -1);
	assert_int_equal(e.code, CODE_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "none of 7 files"));
	layout_release(&l);
}

/* --- symlinks --- */

static void test_L20_links_that_stay(void **state)
{
	static const char *const t[][2] = {
		{ "a", "b" },		 { "a/b", "../c" },	{ "a/b/c", "../../d" }, { "a/b", ".." },
		{ "a", "." },		 { "a", "x/../y" },	{ "a/b", "x/./../../y" },
		{ "a", "b//c/" },	 { "a/b", "../a/../a/x" }, { "a", "v1..2" },	{ "a", "..x" },
		{ "a/b", "current" },
	};
	(void)state;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct err e = { 0 };
		if (layout_check_link(t[i][0], str_of(t[i][1]), &e))
			fail_msg("%s -> %s: %s", t[i][0], t[i][1], e.msg);
	}
}

static void test_L20_links_that_leave(void **state)
{
	static const char *const t[][3] = {
		{ "a", "", "no target" },
		{ "a", "/etc/passwd", "absolute" },
		{ "a", "..", "leads out" },
		{ "a", "../x", "leads out" },
		{ "a/b", "../../x", "leads out" },
		{ "a/b", "x/../../../a", "leads out" },
		{ "a", "b\nc", "control" },
		{ "a", ".fetcher/ready.json", "reserved" },
		{ "a/b", "../.Fetcher", "reserved" },
		{ "a", "x/../current/y", "reserved" },
	};
	char lots[LIMIT_PATH + 2];
	struct err e = { 0 };
	(void)state;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		assert_int_equal(layout_check_link(t[i][0], str_of(t[i][1]), &e), -1);
		assert_int_equal(e.code, CODE_UNSAFE);
		if (!strstr(e.msg, t[i][2]))
			fail_msg("%s -> %s: %s", t[i][0], t[i][1], e.msg);
	}
	memset(lots, '.', sizeof(lots));
	for (size_t i = 1; i < sizeof(lots); i += 2)
		lots[i] = '/';
	assert_int_equal(layout_check_link("a", (struct str){ lots, LIMIT_PATH }, &e), 0);
	assert_int_equal(layout_check_link("a", (struct str){ lots, LIMIT_PATH + 1 }, &e), -1);
}

/* Each link is harmless by itself. */
static void test_L19_chains(void **state)
{
	(void)state;
	becomes(false, TREES(TREE("d/e/f=1", "up>d/e", "x>up/../e/f")), "d/e/f=1 raw=3 up>d/e x>up/../e/f");
	fails(false, TREES(TREE("d/up>..", "x>d/up/../etc")), CODE_UNSAFE, "\"x\": the symlink leads out");
	fails(false, TREES(TREE("d/up>.."), TREE("x>d/up/../etc", "y=1")), CODE_UNSAFE, "\"x\": the symlink");
	fails(false, TREES(TREE("a>.", "b>a/a/a/../x")), CODE_UNSAFE, "\"b\": the symlink leads out");
	fails(false, TREES(TREE("d/a>../e/b", "e/b>..", "x>d/a/..")), CODE_UNSAFE, "\"x\": the symlink leads out");
	fails(false, TREES(TREE("d/a>../.", "x>d/a/.fetcher/y")), CODE_UNSAFE, "\"x\": the symlink's target is reserved");
	becomes(false, TREES(TREE("a>b", "b>a", "c>c/x")), "a>b b>a c>c/x raw=3");
}

/* --- layers of an image --- */

static void test_L47_later_layers_win(void **state)
{
	(void)state;
	becomes(true, TREES(TREE("a=1", "b=1"), TREE("b=22", "c=1")), "a=1 b=2 c=1");
	becomes(true, TREES(TREE("a=1", "a.b=1"), TREE("a/b=1")), "a.b=1 a/b=1"); /* file to directory */
	becomes(true, TREES(TREE("a/b=1", "a/c/d=1", "a-b=1", "a0=1"), TREE("a=22")), "a=2 a-b=1 a0=1");
	becomes(true, TREES(TREE("a/b=1", "c=1"), TREE("a>c")), "a>c c=1");
	becomes(true, TREES(TREE("a>c", "c=1"), TREE("a=22")), "a=2 c=1");
	becomes(true, TREES(TREE("a/"), TREE("a=22")), "a=2");
	becomes(true, TREES(TREE("a=1", "b=1"), TREE("a/")), "a/ b=1");
	becomes(true, TREES(TREE("a/b=1"), TREE("a/", "a/c=1")), "a/b=1 a/c=1"); /* touched, not replaced */
	becomes(true, TREES(TREE("a=1"), TREE("a=22"), TREE("a=333")), "a=3");
	becomes(true, TREES(TREE("a/b/c=1"), TREE("a/b=1"), TREE("a/b/d=1")), "a/b/d=1");
}

static void test_L47_directory_for_a_link(void **state)
{
	(void)state;
	becomes(true, TREES(TREE("a>c", "c/x=1"), TREE("a/", "a/y=1")), "a/y=1 c/x=1");
	becomes(true, TREES(TREE("a>c", "c/x=1"), TREE("-a/", "a/y=1")), "a/y=1 c/x=1");
	becomes(true, TREES(TREE("a>c", "c/x=1"), TREE("-a", "a/y=1")), "a/y=1 c/x=1");
	fails(true, TREES(TREE("a>c", "c/x=1"), TREE("a/y=1")), CODE_UNSAFE, "\"a\": it is a symlink and the directory");
	fails(true, TREES(TREE("a>c", "c/x=1", "a/y=1")), CODE_UNSAFE, "\"a\": it is a symlink and the directory");
}

static void test_L47_whiteouts(void **state)
{
	(void)state;
	becomes(true, TREES(TREE("a=1", "b=1"), TREE("-a")), "b=1");
	becomes(true, TREES(TREE("a/b=1", "a/c=1", "a.x=1"), TREE("-a")), "a.x=1");
	becomes(true, TREES(TREE("a/b=1", "a/c=1"), TREE("-a/c", "-a/none")), "a/b=1");
	becomes(true, TREES(TREE("a/b=1", "a/c=1", "b=1"), TREE("-a/", "a/d=1")), "a/d=1 b=1"); /* opaque */
	becomes(true, TREES(TREE("d/", "x=1"), TREE("-d/")), "d/ x=1");
	becomes(true, TREES(TREE("a/b=1"), TREE("-a/b", "a/b=22")), "a/b=2"); /* only lower layers */
	becomes(true, TREES(TREE("a=1", "b/c=1"), TREE("-/", "d=1")), "d=1");
	becomes(true, TREES(TREE("a=1", "x=1"), TREE("-a", "-a"), TREE("a=22")), "a=2 x=1");
	becomes(true, TREES(TREE("a=1", "x=1"), TREE("-a", "-x", "y=1"), TREE("-y", "z=1")), "z=1");
	fails(true, TREES(TREE("a=1"), TREE("-a")), CODE_UNSUPPORTED, "nothing to pull");
}

/* The plan is as it was when a layer is refused. */
static void test_failure_changes_nothing(void **state)
{
	struct layout l = planned_trees(true, 2, false);
	struct err e = { 0 };
	struct result r;
	(void)state;

	result_of(TREES(TREE("a>c", "b=1", "c/x=1")), &r);
	assert_int_equal(layout_merge(&l, 0, r.files, r.n, NULL, 0, &e), 0);
	result_release(&r);
	result_of(TREES(TREE("a/y=1", "b=22", "-c")), &r);
	assert_int_equal(layout_merge(&l, 1, r.files, r.n, r.whiteouts, r.n_whiteouts, &e), -1);
	result_release(&r);
	is(&l, "a>c b=1 c/x=1");
	result_of(TREES(TREE("a=1")), &r);
	assert_int_equal(layout_merge(&l, 1, r.files, r.n, NULL, 0, &e), 0);
	result_release(&r);
	assert_int_equal(layout_finish(&l, &e), 0);
	is(&l, "a=1 b=1 c/x=1");
	layout_release(&l);
}

/* Quadratic work would take minutes. */
static void test_many_files_and_whiteouts(void **state)
{
	enum { N = 20000 };
	struct layout l = planned_trees(true, 3, false);
	struct layout_file *files = calloc(N, sizeof(*files));
	char **whiteouts = calloc(N, sizeof(*whiteouts));
	struct err e = { 0 };
	char name[64];
	(void)state;

	for (int tree = 0; tree < 3; tree++) {
		for (int i = 0; i < N; i++) {
			files[i] = (struct layout_file){ .size = 1 };
			snprintf(name, sizeof(name), "d/e%d/f%d%s", i % 100, i, tree == 1 ? "/g" : "");
			files[i].path = strdup(name);
			digest_of(DIGEST_SHA256, "x", 1, &files[i].digest);
			if (tree == 2)
				whiteouts[i] = strdup("d/");
		}
		assert_int_equal(layout_merge(&l, (size_t)tree, files, N, whiteouts, tree == 2 ? N : 0, &e), 0);
	}
	assert_int_equal(layout_finish(&l, &e), 0);
	assert_int_equal(l.n_files, N);
	for (int i = 0; i < N; i++)
		free(whiteouts[i]);
	free(files);
	free(whiteouts);
	layout_release(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_archives_join),
		cmocka_unit_test(test_L7_L8_one_path_twice),
		cmocka_unit_test(test_L10_L18_prefixes),
		cmocka_unit_test(test_L9_L12_to_L15_records_are_checked),
		cmocka_unit_test(test_contents_are_checked),
		cmocka_unit_test(test_order_of_trees),
		cmocka_unit_test(test_L35_nothing_came),
		cmocka_unit_test(test_L20_links_that_stay),
		cmocka_unit_test(test_L20_links_that_leave),
		cmocka_unit_test(test_L19_chains),
		cmocka_unit_test(test_L47_later_layers_win),
		cmocka_unit_test(test_L47_directory_for_a_link),
		cmocka_unit_test(test_L47_whiteouts),
		cmocka_unit_test(test_failure_changes_nothing),
		cmocka_unit_test(test_many_files_and_whiteouts),
	};

	return cmocka_run_group_tests_name("layout_merge", tests, NULL, teardown);
}
