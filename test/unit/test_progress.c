// SPDX-License-Identifier: Apache-2.0
/* The bar's text: hostile names, narrow terminals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "caps.h"
#include "progress.h"

static void escapes(const char *in, size_t cols, const char *want)
{
	struct buf b = BUF_INIT(4096);

	progress_escape(&b, in, cols);
	assert_string_equal(buf_cstr(&b), want);
	buf_release(&b);
}

static void test_escape(void **state)
{
	(void)state;
	escapes("", 10, "");
	escapes("a/b c", 0, "a/b c");
	escapes("é漢😀", 0, "é漢😀");
	escapes("\033[2Jx", 0, "\\x1b[2Jx");
	escapes("a\nb\r\t\x7f", 0, "a\\x0ab\\x0d\\x09\\x7f");
	escapes("\xc2\x9b" "31m", 0, "\\xc2\\x9b31m");			/* C1: CSI in one character */
	escapes("x\xe2\x80\xae" "fdp", 0, "x\\xe2\\x80\\xaefdp");	/* right-to-left override */
	escapes("\xff\xc0\xaf", 0, "\\xff\\xc0\\xaf");			/* no UTF-8; an overlong "/" */
	escapes("\xed\xa0\x80", 0, "\\xed\\xa0\\x80");			/* a surrogate */
	escapes("\xe2\x82", 0, "\\xe2\\x82");				/* cut off */
	escapes("\xf4\x90\x80\x80", 0, "\\xf4\\x90\\x80\\x80");		/* beyond U+10FFFF */
	escapes("0123456789", 10, "0123456789");
	escapes("0123456789a", 10, "...456789a");
	escapes("0123456789", 2, "..");
}

static size_t render(const struct progress_state *s, size_t columns, char *ret, size_t n)
{
	struct buf b = BUF_INIT(4096);
	size_t cols = 0;

	progress_render(&b, s, columns);
	assert_false(b.failed);
	snprintf(ret, n, "%s", buf_cstr(&b));
	for (const char *p = ret; *p; p++)
		cols += ((unsigned char)*p & 0xc0) != 0x80;
	buf_release(&b);
	return cols;
}

static void test_render(void **state)
{
	struct progress_state s = {
		.label = "registry.example.com/models/a-long-name-that-does-not-fit:v1\033[2J",
		.total_bytes = 4 * GIB, .total_files = 12, .done = GIB, .files = 3, .speed = 128 * MIB,
	};
	char line[1024];

	(void)state;
	for (size_t columns = 1; columns < 300; columns++)
		assert_true(render(&s, columns, line, sizeof(line)) <= columns);
	render(&s, 120, line, sizeof(line));
	assert_null(strchr(line, '\033'));
	assert_non_null(strstr(line, "[=====>"));
	assert_non_null(strstr(line, " 25%  1.0 GiB / 4.0 GiB  3/12 files  128.0 MiB/s  ETA 24s"));
	s.done = s.total_bytes;
	render(&s, 100, line, sizeof(line));
	assert_non_null(strstr(line, "[====================] 100%"));
	assert_null(strstr(line, "ETA"));
	/* sums at the ends of the range must not wrap */
	s.total_bytes = s.done = s.speed = UINT64_MAX;
	render(&s, 100, line, sizeof(line));
	s.done = UINT64_MAX - 1;
	render(&s, 100, line, sizeof(line));
	assert_non_null(strstr(line, " 100%"));
	s = (struct progress_state){ .label = "" };
	render(&s, 80, line, sizeof(line));
	assert_non_null(strstr(line, " 100%  0 B / 0 B"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_render),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
