// SPDX-License-Identifier: Apache-2.0
/* The list of pull --list: lines, the rule for DEST, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "list_internal.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define SHA256 "sha256:" HEX64
#define SHA512 "sha512:" HEX64 HEX64

static struct list parsed(const char *text, const char *root)
{
	struct list l = { 0 };
	struct err e = { 0 };

	if (list_parse(text, strlen(text), root, &l, &e) < 0)
		fail_msg("%s: %s", text, e.msg);
	return l;
}

/* One line, its DEST. */
static void lands(const char *line, const char *root, const char *dest)
{
	struct list l = parsed(line, root);

	assert_int_equal(l.n, 1);
	assert_string_equal(l.v[0].dest, dest);
	list_release(&l);
	assert_int_equal(l.n, 0);
}

static void refused_bytes(const char *text, size_t n, const char *root, const char *why)
{
	struct list l, untouched;
	struct err e = { 0 };

	memset(&l, 0x5a, sizeof(l));
	untouched = l;
	if (list_parse(text, n, root, &l, &e) != -1)
		fail_msg("accepted: %s", text);
	assert_memory_equal(&l, &untouched, sizeof(l));
	assert_int_equal(e.code, CODE_USAGE);
	if (!strstr(e.msg, why))
		fail_msg("%s: message \"%s\" lacks \"%s\"", text, e.msg, why);
}

static void refused(const char *text, const char *root, const char *why)
{
	refused_bytes(text, strlen(text), root, why);
}

static void test_lines(void **state)
{
	(void)state;
	struct list l = parsed("# models of this node\n"
			       "\n"
			       "  a.io/m:1 /m/one # the first\n"
			       "\ta.io/m:2\t/m/two\r\n"
			       " \t \r\n"
			       "a.io/m:3 /m/th#ree\n"
			       "a.io/m:4 /m/four #\n"
			       "#a.io/m:5 /m/five\n"
			       "a.io/m:6 /m/six", NULL);

	assert_int_equal(l.n, 5);
	assert_string_equal(l.v[0].ref, "a.io/m:1");
	assert_string_equal(l.v[0].dest, "/m/one");
	assert_int_equal(l.v[0].line, 3);
	assert_string_equal(l.v[1].dest, "/m/two");
	assert_string_equal(l.v[2].dest, "/m/th#ree");
	assert_int_equal(l.v[4].line, 9);
	assert_string_equal(l.v[4].dest, "/m/six");
	list_release(&l);

	l = parsed("", NULL);
	assert_int_equal(l.n, 0);
	l = parsed("\n\n#\n # a b c d\n", "/m");
	assert_int_equal(l.n, 0);
}

static void test_rule(void **state)
{
	(void)state;
	lands("reg.example.com/team/model:v1", "/m", "/m/reg.example.com/team/model@v1");
	lands("oci://REG.Example.com/m", "/m", "/m/reg.example.com/m@latest");
	lands("localhost:5000/a/b/c:V1", "/m", "/m/localhost_5000/a/b/c@V1");
	lands("10.0.0.1:443/m:1", "/m", "/m/10.0.0.1_443/m@1");
	lands("[::1]:5000/m:1", "/m", "/m/::1_5000/m@1");
	lands("[2001:DB8::1]/m:1", "/m", "/m/2001:db8::1/m@1");
	lands("docker.io/nginx", "/m", "/m/docker.io/library/nginx@latest");
	lands("index.docker.io/a/b:1", "/m", "/m/docker.io/a/b@1");
	lands("a.io/m@" SHA256, "/m", "/m/a.io/m@sha256-" HEX64);
	lands("a.io/m:v1@" SHA256, "/m", "/m/a.io/m@sha256-" HEX64);
	lands("a.io/m@" SHA512, "/m", "/m/a.io/m@sha512-" HEX64 HEX64);
}

static void test_places(void **state)
{
	(void)state;
	lands("a.io/m:1 /x//y/./z/", NULL, "/x/y/z");
	lands("a.io/m:1 x/y", "/m", "/m/x/y");
	lands("a.io/m:1 ./x", "/m/", "/m/x");
	lands("a.io/m:1 /elsewhere/x", "/m", "/elsewhere/x");
	lands("a.io/m:1 x", "/", "/x");
	lands("a.io/m:1 x", ".", "x");
	lands("a.io/m:1 x", "models//here/", "models/here/x");
	lands("a.io/m:1 x", "../models", "../models/x");
	lands("a.io/m:1", "/m//", "/m/a.io/m@1");
	lands("a.io/m:1 ..x/y../...", "/m", "/m/..x/y../...");
	lands("a.io/m:1 /m/mod\xc3\xa8le", NULL, "/m/mod\xc3\xa8le");
}

static void test_bad_lines(void **state)
{
	(void)state;
	refused("a.io/m:1", NULL, "line 1: \"a.io/m:1\" has no DEST");
	refused("\n\na.io/m:1 x", NULL, "line 3: \"x\" does not begin with a '/'");
	refused("a.io/m:1 /x y", NULL, "line 1: \"y\" is too much");
	refused("a.io/m:1 /x\nnonsense /y", NULL, "line 2: bad reference");
	refused("a.io/M:1 /x", NULL, "line 1: bad reference");
	refused("m:1 /x", NULL, "line 1: bad reference");
	refused("a.io/m:1@sha256:12 /x", NULL, "line 1: bad reference");
	refused("/x a.io/m:1", NULL, "line 1: bad reference");
	refused("http://a.io/m:1 /x", NULL, "scheme");
	refused("\"a.io/m:1\" /x", NULL, "line 1: bad reference");
	refused("a.io/m:1#x /x", NULL, "line 1: bad reference");
	refused("a.io/m:1 /x\x01y", NULL, "control character");
	refused("a.io/m:1 /x\x7f", NULL, "control character");
	refused("a.io/m:1 /x\ry", NULL, "control character");
	refused("a.io/m:1 /x\x1b[2J", NULL, "\\u001b");
	refused_bytes("a.io/m:1 /x\0y", 13, NULL, "control character");
	refused_bytes("\0", 1, "/m", "control character");
	refused("\xef\xbb\xbf" "a.io/m:1 /x", NULL, "non-ASCII");
}

static void test_places_that_are_none(void **state)
{
	(void)state;
	refused("a.io/m:1 ../x", "/m", "\"..\"");
	refused("a.io/m:1 x/../../y", "/m", "\"..\"");
	refused("a.io/m:1 x/../y", "/m", "\"..\"");
	refused("a.io/m:1 /m/..", NULL, "\"..\"");
	refused("a.io/m:1 x/.fetcher/y", "/m", "\".fetcher\"");
	refused("a.io/m:1 /x/.Fetcher", NULL, "\".fetcher\"");
	refused("a.io/m:1 /", NULL, "root directory");
	refused("a.io/m:1 ///.//", NULL, "root directory");
	refused("a.io/m:1 .", "/m", "--root itself");
	refused("a.io/m:1 ./", ".", "--root itself");
	refused("a.io/m:1 /m", "/m/", "--root itself");
}

static void test_long_places(void **state)
{
	(void)state;
	char line[8192], part[300];

	memset(part, 'x', sizeof(part));
	snprintf(line, sizeof(line), "a.io/m:1 /%.255s", part);
	lands(line, NULL, line + 9);
	snprintf(line, sizeof(line), "a.io/m:1 /%.256s", part);
	refused(line, NULL, "more than 255 bytes");
	/* repository and tag are both allowed, together they are no file name */
	snprintf(line, sizeof(line), "a.io/%.200s:%.100s", part, part);
	refused(line, "/m", "give a shorter DEST");
	size_t n = (size_t)snprintf(line, sizeof(line), "a.io/m:1 ");
	while (n < 5000)
		n += (size_t)snprintf(line + n, sizeof(line) - n, "/%.100s", part);
	refused(line, NULL, "longer than a path");
	refused("a.io/m:1 x", line + 9, "--root is longer");
}

static void test_nesting(void **state)
{
	(void)state;
	struct list l;

	refused("a.io/m:1 /x\na.io/n:1 /x", NULL, "line 2: the DEST of line 1 is named again: \"/x\"");
	refused("a.io/m:1 /x\na.io/m:1 /x/", NULL, "line 2: the DEST of line 1 is named again");
	refused("a.io/m:1 /m/x\na.io/n:1 x", "/m", "named again");
	refused("a.io/m:1\n\na.io/m:1", "/m", "line 3: the DEST of line 1");
	refused("a.io/m@" SHA256 "\na.io/m:t@" SHA256, "/m", "named again");
	refused("a.io/m:1 /x\na.io/n:1 /x/y", NULL, "line 2: the DEST of line 1 and this one lie one inside");
	refused("a.io/m:1 /x/y/z\na.io/n:1 /x", NULL, "one inside the other");
	/* names between the two in the order of bytes */
	refused("a.io/a:1 /x\na.io/b:1 /x-y\na.io/c:1 /x.y\na.io/d:1 /x!\na.io/e:1 /x/y", NULL,
		"line 5: the DEST of line 1 and this one");
	refused("a.io/m:1 a.io\na.io/m:1", "/m", "one inside the other");
	l = parsed("a.io/a:1 /x\na.io/b:1 /x-y\na.io/c:1 /xy\na.io/d:1 /y/x\na.io/e:1 /y/z", NULL);
	assert_int_equal(l.n, 5);
	/* the order of the file stays */
	assert_string_equal(l.v[3].dest, "/y/x");
	list_release(&l);
	/* repositories may lie one inside the other, their directories do not */
	l = parsed("a.io/m:1\na.io/m/n:1\na.io/m/n/o:1\na.io/m:2", "/m");
	assert_int_equal(l.n, 4);
	list_release(&l);
}

static void test_line_limit(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(LIMIT_LIST);
	struct list l;

	for (unsigned i = 0; i < LIMIT_LIST_LINES; i++)
		buf_addf(&b, "a.io/m:%u\n", i);
	l = parsed(buf_cstr(&b), "/m");
	assert_int_equal(l.n, LIMIT_LIST_LINES);
	list_release(&l);
	buf_addc(&b, '\n');
	refused(buf_cstr(&b), "/m", "more than 4096 lines");
	buf_release(&b);
}

static void test_rule_fits(void **state)
{
	(void)state;
	static const char *const yes[] = {
		"a.io/m@1", "localhost_5000/a/b/c@V1", "::1_5000/m@1", "2001:db8::1/m@latest",
		"docker.io/library/nginx@1", "a.io/m@sha256-" HEX64, "a.io/m@sha512-" HEX64 HEX64,
		"localhost/m@1", "a.io/m@_x.y-z", "a.io/m@sha256-abc.sig",
	};
	static const char *const no[] = {
		"", "/", "@", "a.io", "a.io/m", "m@1", "a.io/@1", "a.io/m@", "models/llama@1", "A.io/m@1",
		"a.io/M@1", "a.io/m@.x", "a.io/m@-x", "a.io//m@1", "a.io/m@1/x", "a.io/../m@1", "a.io/./m@1",
		"/a.io/m@1", "docker.io/nginx@1", "index.docker.io/a/b@1", "a.io_0/m@1", "a.io_/m@1",
		"a.io_99999/m@1", "a.io_80_90/m@1", "a.io:80/m@1", "[::1]_80/m@1", "::1:80x/m@1",
		"a.io/m@sha256-" HEX64 HEX64 HEX64, "a.io/m@1@2", "a.io/m@a b", "a.io/m@\xc3\xa8", "a@b/m@1",
		".a.io/m@1", "a.io/.fetcher@1", "lost+found/m@1", "a.io/m@sha512-" HEX64 HEX64 "z",
	};

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
		if (!list_rule_fits(yes[i]))
			fail_msg("not recognised: %s", yes[i]);
	for (size_t i = 0; i < ARRAY_SIZE(no); i++)
		if (list_rule_fits(no[i]))
			fail_msg("taken for ours: %s", no[i]);
}

/* Whatever the bytes: no crash, and what is accepted is sound. */
static void test_hostile_bytes(void **state)
{
	(void)state;
	static const char *const words[] = {
		"a.io/m:1", "localhost:5000/x", "[::1]:1/y@" SHA256, "/x", "/x/y", "y", "..", ".", "/", "#", " ",
		"\t", "\n", "\r\n", "\r", "@", ":", "[", "]", "oci://", ".fetcher", "\xff", "\xc3", "\x1b", "_",
	};
	uint64_t seed = 0x9e3779b97f4a7c15u;

	for (unsigned round = 0; round < 20000; round++) {
		char text[512];
		size_t n = 0;

		for (unsigned k = 0; k < 12; k++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			const char *w = words[(seed >> 33) % ARRAY_SIZE(words)];
			if ((seed >> 20) % 16 == 0) {
				text[n++] = (char)(seed >> 40);
				continue;
			}
			memcpy(text + n, w, strlen(w));
			n += strlen(w);
			if (n > sizeof(text) - 160)
				break;
		}
		/* its own memory, so that a byte too far is seen */
		char *exact = malloc(n ? n : 1);
		struct list l = { 0 };
		struct err e = { 0 };
		memcpy(exact, text, n);
		if (list_parse(exact, n, round % 2 ? "/m" : NULL, &l, &e) == 0) {
			for (size_t i = 0; i < l.n; i++) {
				assert_int_equal(l.v[i].dest[0], '/');
				assert_null(strstr(l.v[i].dest, "/../"));
				assert_null(strstr(l.v[i].dest, "//"));
				assert_true(strlen(l.v[i].dest) > 1);
			}
		} else {
			assert_int_equal(e.code, CODE_USAGE);
			assert_int_equal(l.n, 0);
		}
		list_release(&l);
		text[n] = 0;
		list_rule_fits(text);
		free(exact);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_rule),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_places_that_are_none),
		cmocka_unit_test(test_long_places),
		cmocka_unit_test(test_nesting),
		cmocka_unit_test(test_line_limit),
		cmocka_unit_test(test_rule_fits),
		cmocka_unit_test(test_hostile_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
