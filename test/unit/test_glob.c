// SPDX-License-Identifier: Apache-2.0
/* Numbers in comments are edge cases: L of artifact layouts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "layout.h"

static void test_globs(void **state)
{
	(void)state;
	static const struct {
		const char *pattern, *path;
		bool match;
	} t[] = {
		/* base name at any depth */
		{ "*.json", "config.json", true },
		{ "*.json", "a/b/config.json", true },
		{ "*.json", "a.json/b", false },
		{ "config.json", "a/config.json", true },
		{ "c?nfig.json", "config.json", true },
		{ "?", "\xc3\xa9", true },
		{ "??", "\xc3\xa9", false },
		{ "*", "a/b", true },
		{ "**", "a/b", true },
		{ "", "a", false },
		{ "a*b*c", "aXbYbZc", true },
		{ "a*b*c", "aXbYbZ", false },
		{ "a***b", "ab", true },
		/* with a slash: the whole path */
		{ "a/*", "a/b", true },
		{ "a/*", "a/b/c", false },
		{ "a/*", "x/a/b", false },
		{ "*/b", "a/b", true },
		{ "*/b", "b", false },
		{ "a/?/c", "a/b/c", true },
		{ "a?c/d", "a/c/d", false },
		{ "a*c/d", "abbc/d", true },
		{ "a*c/d", "a/c/d", false },
		{ "/config.json", "config.json", true },
		{ "/config.json", "a/config.json", false },
		{ "./a/b", "a/b", true },
		/* ** crosses (L48) */
		{ "**/*.json", "config.json", true },
		{ "**/*.json", "a/b/config.json", true },
		{ "**/*.json", "a/json", false },
		{ "a/**/b", "a/b", true },
		{ "a/**/b", "a/x/y/b", true },
		{ "a/**/b", "a/xb", false },
		{ "a/**/b", "a/x/yb", false },
		{ "a/**", "a/b/c", true },
		{ "a/**", "a", false },
		{ "a/**.bin", "a/b/c.bin", true },
		{ "**/x/**/y", "1/x/2/x/3/y", true },
		{ "**/x*/y*z", "x1/q/x2/yyz", true },
		{ "**/a/*/c", "a/a/b/c", true },
		{ "**/a/*/c", "a/a/b/b/c", false },
		{ "x**y/z", "x/1/y/z", true },
		/* below a directory */
		{ "a/", "a/b", true },
		{ "a/", "x/a/b/c", true },
		{ "a/", "a", false },
		{ "/a/", "x/a/b", false },
		{ "x/a/", "x/a/b/c", true },
		{ "x/a/", "y/x/a/b", false },
		{ "fp*/", "m/fp16/x", true },
		{ "/", "a", false },
		/* classes and quotes */
		{ "[a-c]x", "bx", true },
		{ "[a-c]x", "dx", false },
		{ "[!a-c]x", "dx", true },
		{ "[^a-c]x", "ax", false },
		{ "[]]", "]", true },
		{ "[a-]", "-", true },
		{ "[\\]]", "]", true },
		{ "a[/]b/c", "a/b/c", false },
		{ "[!x]", "\xc3\xa9", true },
		{ "[\xc3\xa0-\xc3\xaf]", "\xc3\xa9", true },
		{ "[abc", "[abc", true },
		{ "[abc", "a", false },
		{ "[]", "[]", true },
		{ "\\*", "*", true },
		{ "\\*", "x", false },
		{ "a\\", "a\\", true },
		{ "\\[x\\]", "[x]", true },
		{ "we[i]ghts", "we[i]ghts", false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		if (layout_glob(t[i].pattern, t[i].path) != t[i].match)
			fail_msg("\"%s\" against \"%s\" gave %d", t[i].pattern, t[i].path,
				 !t[i].match);
}

/* With a naive matcher this takes longer than anybody waits. */
static void test_glob_is_not_exponential(void **state)
{
	(void)state;
	struct buf path = BUF_INIT(5000), pattern = BUF_INIT(5000);

	for (int i = 0; i < 4000; i++)
		buf_addc(&path, i % 100 == 99 ? '/' : 'a');
	for (int i = 0; i < 40; i++)
		buf_adds(&pattern, i % 4 ? "*a" : "**/a");
	buf_adds(&pattern, "b");
	assert_false(layout_glob(buf_cstr(&pattern), buf_cstr(&path)));
	buf_release(&path);
	buf_release(&pattern);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_globs),
		cmocka_unit_test(test_glob_is_not_exponential),
	};

	return cmocka_run_group_tests_name("glob", tests, NULL, NULL);
}
