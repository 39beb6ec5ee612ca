// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "toml.h"

static struct toml *parse(const char *text)
{
	struct toml *t = NULL;
	struct err e = { 0 };

	if (toml_parse(text, strlen(text), "f", &t, &e))
		fail_msg("%s", e.msg);
	return t;
}

static const struct toml *at(const struct toml *t, const char *path)
{
	char key[100];

	while (t && *path) {
		size_t n = strcspn(path, "/");
		snprintf(key, sizeof(key), "%.*s", (int)n, path);
		t = toml_get(t, key);
		path += n + (path[n] == '/');
	}
	return t;
}

static void refused(const char *text, size_t n, unsigned line, const char *why)
{
	struct toml *t = NULL;
	struct err e = { 0 };
	char where[20];

	assert_int_equal(toml_parse(text, n, "f", &t, &e), -1);
	assert_int_equal(e.code, CODE_USAGE);
	assert_null(t);
	snprintf(where, sizeof(where), "f, line %u: ", line);
	if (!strstr(e.msg, where) || !strstr(e.msg, why))
		fail_msg("'%s' instead of '%s...%s'", e.msg, where, why);
}
#define REFUSED(text, line, why) refused(text, sizeof(text) - 1, line, why)

static void test_values(void **state)
{
	(void)state;
	struct toml *t = parse("# c\nserver = \"https://a\" # c\r\n'q k'=true\nn = -1_000\nz=+0\n\"\" = false\nf = 1.5e3\n"
			       "d = 1979-05-27T07:32:00Z\ni = -inf\nmin = -9223372036854775808\n");

	assert_string_equal(at(t, "server")->string, "https://a");
	assert_int_equal(at(t, "server")->line, 2);
	assert_true(at(t, "q k")->type == TOML_BOOL && at(t, "q k")->boolean);
	assert_true(at(t, "n")->type == TOML_INTEGER && at(t, "n")->integer == -1000);
	assert_true(at(t, "z")->type == TOML_INTEGER && at(t, "z")->integer == 0);
	assert_true(at(t, "min")->integer == INT64_MIN);
	assert_non_null(toml_get(t, ""));
	assert_true(at(t, "f")->type == TOML_OTHER && at(t, "d")->type == TOML_OTHER && at(t, "i")->type == TOML_OTHER);
	assert_string_equal(at(t, "d")->string, "1979-05-27T07:32:00Z");
	assert_null(at(t, "none"));
	toml_free(t);
	toml_free(parse(""));
	toml_free(parse("\n # only\n\t\n"));
}

static void test_strings(void **state)
{
	(void)state;
	struct toml *t = parse("a = \"\\b\\t\\n\\f\\r\\\"\\\\\\u00e9\\u20AC\\U0001F600\"\nb = 'c:\\x\"'\nc = ''\nd = \"\"\n");

	assert_string_equal(at(t, "a")->string, "\b\t\n\f\r\"\\\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
	assert_string_equal(at(t, "b")->string, "c:\\x\"");
	assert_string_equal(at(t, "c")->string, "");
	assert_string_equal(at(t, "d")->string, "");
	toml_free(t);
	REFUSED("a = \"x", 1, "does not end");
	REFUSED("a = \"x\ny\"", 1, "does not end");
	REFUSED("a = \"\\q\"", 1, "escape");
	REFUSED("a = \"\\u12\"", 1, "digits");
	REFUSED("a = \"\\u0000\"", 1, "no character");
	REFUSED("a = \"\\ud800\"", 1, "no character");
	REFUSED("a = \"\\U00110000\"", 1, "no character");
	REFUSED("a = \"\"\"x\"\"\"", 1, "several lines");
	REFUSED("a = '''x'''", 1, "several lines");
	REFUSED("\na = \"\xff\"", 2, "UTF-8");
	REFUSED("a = \"\xc0\xaf\"", 1, "UTF-8");
	REFUSED("a = \"\x01\"", 1, "control");
	REFUSED("a = \"b\0c\"", 1, "control");
	REFUSED("a = 1\rb = 2", 1, "control");
}

static void test_tables(void **state)
{
	(void)state;
	struct toml *t = parse("[host.\"https://a\".header]\nx = 1\n[host.'http://b']\nca = 1\n[host.\"https://a\"]\nca = 2\n"
			       "[p]\nq.r.s = 1\nq.t = 2\n[p.q.new]\nu = 3\n[ in . 'side' ]\nk = {a = 1, b.c = [1, 2], d = {}}\n");
	const struct toml *host = at(t, "host");

	/* hosts stay in the order of the file */
	assert_string_equal(host->first->key, "https://a");
	assert_string_equal(host->first->next->key, "http://b");
	assert_null(host->first->next->next);
	assert_int_equal(toml_get(host->first, "ca")->integer, 2);
	assert_int_equal(host->first->line, 5);
	assert_int_equal(at(t, "p/q/r/s")->integer, 1);
	assert_int_equal(at(t, "p/q/new/u")->integer, 3);
	assert_int_equal(at(t, "in/side/k/b/c")->first->next->integer, 2);
	assert_int_equal(at(t, "in/side/k/d")->type, TOML_TABLE);
	toml_free(t);
	REFUSED("a = 1\na = 2", 2, "already");
	REFUSED("[a]\n[a]", 2, "already");
	REFUSED("a = 1\n[a]", 2, "already");
	REFUSED("a = 1\n[a.b]", 2, "already");
	REFUSED("[a]\nb.c = 1\n[a.b]", 3, "already");
	REFUSED("[a.b]\nx = 1\n[a]\nb.y = 2", 4, "already");
	REFUSED("a = {b = 1}\na.c = 2", 2, "already");
	REFUSED("a = {b = 1}\n[a.c]", 2, "already");
	REFUSED("a = {b = 1, b = 2}", 1, "already");
	REFUSED("a = [1]\n[a.b]", 2, "already");
	REFUSED("[[a]]", 1, "arrays of tables");
	REFUSED("[a", 1, "']'");
	REFUSED("[]", 1, "key");
	REFUSED("[a] b = 1", 1, "end of the line");
	REFUSED("a = 1 b = 2", 1, "end of the line");
	REFUSED("a", 1, "'='");
	REFUSED("a b = 1", 1, "'='");
	REFUSED("= 1", 1, "key");
	REFUSED("a. = 1", 1, "key");
	REFUSED("a = {b = 1,}", 1, "key");
	REFUSED("a = {b = 1\n}", 1, "one line");
}

static void test_arrays(void **state)
{
	(void)state;
	struct toml *t = parse("a = [\"x\", # c\n  'y',\n\n]\nb = [[\"c\", \"k\"], [\"p\", \"\"]]\nc = []\nd = [ {e = 1}, 2 ]\n");

	assert_string_equal(at(t, "a")->first->next->string, "y");
	assert_int_equal(at(t, "a")->first->next->line, 2);
	assert_null(at(t, "a")->first->next->next);
	assert_string_equal(at(t, "b")->first->next->first->string, "p");
	assert_null(at(t, "c")->first);
	assert_int_equal(toml_get(at(t, "d")->first, "e")->integer, 1);
	toml_free(t);
	REFUSED("a = [1 2]", 1, "','");
	REFUSED("a = [1,\n2", 2, "','");
	REFUSED("a = [,]", 1, "value");
	REFUSED("a =", 1, "value");
	REFUSED("a = yes", 1, "'yes'");
	REFUSED("a = True", 1, "'True'");
	REFUSED("a = -", 1, "'-'");
}

static void test_limits(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(1 << 20);
	struct toml *t = NULL;
	struct err e = { 0 };

	buf_adds(&b, "a = ");
	for (int i = 0; i < LIMIT_TOML_DEPTH + 1; i++)
		buf_addc(&b, '[');
	refused(b.data, b.len, 1, "deeper");
	buf_clear(&b);
	for (int i = 0; i < LIMIT_TOML_DEPTH + 1; i++)
		buf_adds(&b, "a.");
	buf_adds(&b, "b = 1");
	refused(b.data, b.len, 1, "deeper");
	buf_clear(&b);
	buf_adds(&b, "a = [");
	for (int i = 0; i < LIMIT_TOML_NODES; i++)
		buf_adds(&b, "1,");
	buf_addc(&b, ']');
	refused(b.data, b.len, 1, "more than");
	buf_release(&b);
	/* what is read ends where it is said to end */
	assert_int_equal(toml_parse("a = 12", 5, "f", &t, &e), 0);
	assert_int_equal(toml_get(t, "a")->integer, 1);
	toml_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values), cmocka_unit_test(test_strings), cmocka_unit_test(test_tables),
		cmocka_unit_test(test_arrays), cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests_name("test_toml", tests, NULL, NULL);
}
