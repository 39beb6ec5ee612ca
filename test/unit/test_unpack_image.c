// SPDX-License-Identifier: Apache-2.0
/* Layers of container images: OCI image-spec layer.md. [A47]: whiteouts, absolute names, "./models/...". */
#include "tar_fixture.h"

static int set_up(void **state)
{
	defaults();
	tree.image = true;
	tree.subdir = (char *)"models/";
	tar_start();
	return tree_make(state);
}

static int tear_down(void **state)
{
	unpack_result_release(&result);
	buf_release(&tape);
	return tree_remove(state);
}

static bool has_whiteout(const char *text)
{
	for (size_t i = 0; i < result.n_whiteouts; i++)
		if (strcmp(result.whiteouts[i], text) == 0)
			return true;
	return false;
}

static void test_subdir(void **state)
{
	(void)state; /* [A47] */
	tar_entry("dev/null", '3', NULL);	/* a base image has them; they are not below /models */
	tar_entry("run/fifo", '6', NULL);
	tar_entry("etc/mtab", '2', "/proc/mounts");
	tar_file("etc/passwd", "root");
	tar_entry("usr/bin/x", '1', "usr/bin/y");
	tar_file("model", "a name that begins like it");
	tar_file("modelsX/a", "so does this");
	tar_entry("./models/", '5', NULL);
	tar_file("./models/a", "1");
	tar_file("/models/b", "2");
	tar_file("//models//d/./c", "3");
	tar_file("models/.fetcher-is-only-reserved-whole", "4");
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 4);
	is_text("a", "1");
	is_text("b", "2");
	is_text("d/c", "3");
	assert_true(result.saw_subdir);
	assert_int_equal(result.skipped, 7);
	assert_false(on_disk("etc") || on_disk("models"));
	tree_again();
	tree.prefix = (char *)"in/side/";
	must_run();
	is_text("in/side/d/c", "3");
	tree_again();
	tree.subdir = (char *)"opt/none/";
	must_run();
	assert_false(result.saw_subdir);
	assert_int_equal(result.n_files, 0);
	assert_int_equal(result.skipped, 12);
	/* [A12] ".." is refused wherever it stands */
	static const char *const names[] = { "../x", "etc/../models/x", "models/../../x", "models/.fetcher/x" };
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		tree_again();
		tree.prefix = (char *)"";
		tree.subdir = (char *)"models/";
		tar_start();
		tar_file(names[i], "x");
		tar_end();
		must_fail(CODE_UNSAFE, "unsafe");
	}
	tree_again();
	tar_start();
	tar_entry("models/dev", '3', NULL);
	tar_end();
	must_fail(CODE_UNSAFE, "device");
}

static void test_subdir_is_no_directory(void **state)
{
	(void)state;
	tar_entry("models", '2', "/data");
	tar_end();
	must_run();
	assert_false(result.saw_subdir);
	assert_int_equal(result.n_files, 0);
	tree.subdir = (char *)"";
	tar_start();
	tar_file("a", "x");
	tar_end();
	must_run();
	is_text("a", "x");
}

static void test_whiteouts(void **state)
{
	(void)state; /* [A47] */
	tar_entry("models/.wh.gone", '0', NULL);
	tar_entry("models/d/.wh.e f", '0', NULL);
	tar_entry("models/d/.wh..wh..opq", '0', NULL);
	tar_file("models/d/new", "n");
	tar_entry("etc/.wh.passwd", '0', NULL);
	tar_entry("models/.wh..wh.plnk", '0', NULL);
	tar_entry("models/.wh..wh.aufs/x", '0', NULL);
	tar_end();
	must_run();
	assert_int_equal(result.n_whiteouts, 3);
	assert_true(has_whiteout("gone"));
	assert_true(has_whiteout("d/e f"));
	assert_true(has_whiteout("d/"));
	is_text("d/new", "n");
	static const char *const all[] = { ".wh..wh..opq", ".wh.models", "models/.wh..wh..opq" };
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		tree_again();
		tar_start();
		tar_entry(all[i], '0', NULL);
		tar_end();
		must_run();
		assert_int_equal(result.n_whiteouts, 1);
		assert_true(has_whiteout("/"));
		tree.prefix = (char *)"p/";
		must_run();
		assert_true(has_whiteout("p/"));
		tree.prefix = (char *)"";
	}
	tree.subdir = (char *)"a/b/";
	tar_start();
	tar_entry(".wh.a", '0', NULL);
	tar_entry("a/.wh.bc", '0', NULL);
	tar_entry("a/b/.wh.c", '0', NULL);
	tar_end();
	must_run();
	assert_int_equal(result.n_whiteouts, 2);
	assert_true(has_whiteout("/") && has_whiteout("c"));
	static const char *const bad[] = { "a/b/.wh.", "a/b/.wh..", "a/b/.wh...", "a/b/../.wh.x", "a/b/.wh.x\ny" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		tar_start();
		tar_entry(bad[i], '0', NULL);
		tar_end();
		must_fail(CODE_UNSAFE, "unsafe");
	}
	/* an artifact's file may be called like that */
	tree.image = false;
	tree.subdir = (char *)"";
	tar_start();
	tar_file(".wh.x", "w");
	tar_end();
	must_run();
	assert_int_equal(result.n_whiteouts, 0);
	is_text(".wh.x", "w");
}

static void test_links(void **state)
{
	static const struct { const char *at, *target, *text; } good[] = {
		{ "models/a", "/models/b", "b" }, { "models/d/a", "/models/b", "../b" }, { "models/d/r", "../b", "../b" },
		{ "models/d/e/top", "/models", "../.." }, { "models/d/o", "../../models/x", "../x" },
		{ "models/d/back", "/models/d/e/f", "e/f" },
	};
	static const char *const bad[] = { "/etc/passwd", "../etc", "/", "..", "../../models/x", "/modelsX/a" };

	(void)state; /* [A20] absolute links mean the image's root; none leaves what is pulled */
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		tar_entry(good[i].at, '2', good[i].target);
	tar_end();
	must_run();
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		is_link(good[i].at + 7, good[i].text);
	tree.prefix = (char *)"p/";
	must_run();
	is_link("p/d/a", "../b");
	is_link("p/d/e/top", "../..");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		tar_start();
		tar_entry("models/l", '2', bad[i]);
		tar_end();
		must_fail(CODE_UNSAFE, "points out");
	}
	/* the whole image */
	tree.prefix = tree.subdir = (char *)"";
	tar_start();
	tar_entry("lib", '2', "/usr/lib");
	tar_entry("usr/x", '2', "/");
	tar_file("etc/a", "abc");
	tar_entry("usr/b", '1', "/etc/a");
	tar_end();
	must_run();
	is_link("lib", "usr/lib");
	is_link("usr/x", "..");
	is_text("usr/b", "abc");
	tree_again();
	tree.subdir = (char *)"usr/";
	must_fail(CODE_UNSAFE, "points out");
	tar_start();
	tar_file("etc/a", "abc");
	tar_entry("usr/b", '1', "/etc/a");
	tar_end();
	must_fail(CODE_UNSUPPORTED, "not below usr");
}

static void test_later_wins(void **state)
{
	(void)state;
	tree.subdir = (char *)"";
	tar_file("f", "first");
	tar_entry("hard", '1', "f");
	tar_file("f", "second");	/* the other name keeps the first content */
	tar_file("d/x", "1");
	tar_file("d/y/z", "2");
	tar_file("d", "now a file");
	tar_file("g", "a file");
	tar_entry("g", '5', NULL);
	tar_file("g/in", "3");
	tar_file("l/x", "4");
	tar_entry("l", '2', "g");
	tar_entry("m", '2', "g");
	tar_file("m", "no link any more");
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 6);
	is_text("f", "second");
	is_text("hard", "first");
	is_text("d", "now a file");
	is_text("g/in", "3");
	is_link("l", "g");
	is_text("m", "no link any more");
	assert_false(on_disk("l"));
	/* what a filter leaves out replaces all the same */
	tree_again();
	globs.exclude = (const char *const[]){ "d", NULL };
	tar_start();
	tar_file("e/x", "1");
	tar_file("d/x", "1");
	tar_entry("d", '2', "e");
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 1);
	is_text("e/x", "1");
	assert_false(on_disk("d"));
	/* in lower layers as well; a directory hides nothing */
	assert_int_equal(result.n_whiteouts, 1);
	assert_string_equal(result.whiteouts[0], "d");
	tree_again();
	tar_start();
	tar_entry("d", '5', NULL);
	tar_file("f", "1");
	tar_end();
	must_run();
	assert_int_equal(result.n_whiteouts, 0);
}

static void test_replaced_often(void **state)
{
	(void)state; /* neither time nor memory grow with the product of names and replacements */
	tree.subdir = (char *)"";
	for (int i = 0; i < 300; i++) {
		char name[32];
		snprintf(name, sizeof(name), "d/%d", i);
		tar_entry(name, '2', "x");
	}
	for (int i = 0; i < 20000; i++) {
		tar_entry("d", '2', "x");
		tar_entry("d", '5', NULL);
		tar_entry("d/sub/a", '2', "x");
	}
	tar_end();
	must_run();
	assert_int_equal(result.n_files, 1);
	is_link("d/sub/a", "x");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
		TEST(test_subdir), TEST(test_subdir_is_no_directory), TEST(test_whiteouts), TEST(test_links),
		TEST(test_later_wins), TEST(test_replaced_often),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
