// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "json.h"

static struct json_doc parse(const char *text)
{
	struct json_doc d = { 0 };
	struct err e = { 0 };

	if (json_parse(text, strlen(text), "test", &d, &e))
		fail_msg("%s: %s", text, e.msg);
	return d;
}

static void refused(const char *text, size_t n, const char *why)
{
	struct json_doc d = { 0 };
	struct err e = { 0 };

	if (json_parse(text, n, "doc", &d, &e) != -1)
		fail_msg("accepted: %s", text);
	assert_int_equal(e.code, CODE_INTEGRITY);
	assert_null(d.doc);
	if (strncmp(e.msg, "doc: ", 5) != 0 || !strstr(e.msg, why))
		fail_msg("message \"%s\" lacks \"%s\"", e.msg, why);
}

static void test_getters(void **state)
{
	(void)state;
	struct json_doc d =
		parse("{\"s\":\"x\\ny\",\"n\":7,\"b\":true,\"o\":{},\"a\":[1],\"z\":null}");
	struct str s = { "old", 3 };
	uint64_t n = 99;
	bool b = false;
	yyjson_val *v = NULL;
	char *copy = NULL;

	assert_int_equal(json_str(d.root, "s", &s), 1);
	assert_true(str_eq(s, "x\ny"));
	assert_int_equal(json_u64(d.root, "n", &n), 1);
	assert_int_equal(n, 7);
	assert_int_equal(json_bool(d.root, "b", &b), 1);
	assert_true(b);
	assert_int_equal(json_obj(d.root, "o", &v), 1);
	assert_int_equal(json_arr(d.root, "a", &v), 1);
	assert_int_equal(json_str(d.root, "z", &s), 0);
	assert_int_equal(json_str(d.root, "none", &s), 0);
	assert_int_equal(json_str(d.root, "n", &s), -1);
	assert_int_equal(json_u64(d.root, "s", &n), -1);
	assert_int_equal(json_bool(d.root, "n", &b), -1);
	assert_int_equal(json_obj(d.root, "a", &v), -1);
	assert_int_equal(json_arr(d.root, "o", &v), -1);
	assert_int_equal(json_str(v, "s", &s), -1); /* v is the list */
	assert_true(str_eq(s, "x\ny"));
	assert_int_equal(json_strdup(d.root, "s", &copy), 0);
	assert_string_equal(copy, "x\ny");
	free(copy);
	assert_int_equal(json_strdup(d.root, "n", &copy), -1);
	assert_int_equal(json_strdup(d.root, "none", &copy), 0);
	assert_null(copy);
	json_release(&d);
}

static void test_C6_numbers_are_exact(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int r;
		uint64_t value;
	} t[] = {
		{ "0", 1, 0 },
		{ "18446744073709551615", 1, UINT64_MAX },
		{ "4611686018427387904", 1, 1ULL << 62 },
		{ "9007199254740993", 1, 9007199254740993ULL }, /* 2^53+1: lost by a double */
		{ "18446744073709551616", -1, 0 },
		{ "-1", -1, 0 },
		{ "-0", -1, 0 },
		{ "1.0", -1, 0 },
		{ "1e3", -1, 0 },
		{ "\"1\"", -1, 0 },
		{ "true", -1, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char text[64];
		uint64_t v = 5;
		snprintf(text, sizeof(text), "{\"n\":%s}", t[i].text);
		struct json_doc d = parse(text);
		if (json_u64(d.root, "n", &v) != t[i].r || v != (t[i].r == 1 ? t[i].value : 5))
			fail_msg("%s", t[i].text);
		json_release(&d);
	}
}

static void test_malformed(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"",
		" ",
		"{",
		"{}x",
		"{} {}",
		"[1,]",
		"{\"a\":}",
		"{'a':1}",
		"{a:1}",
		"nul",
		"// c\n{}",
		"NaN",
		"1e999",
		"\"\xff\"",
		"\"\xc0\xaf\"",
		"\"\xed\xa0\x80\"",
		"\xef\xbb\xbf{}",
		"\"\\ud800\"",
		"\"a\nb\"",
		"01",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refused(bad[i], strlen(bad[i]), "not valid JSON");
	refused("{}\0", 3, "not valid JSON");
}

static void test_nul_in_strings(void **state)
{
	(void)state;
	const char *value = "{\"a\":[\"x\\u0000y\"]}", *key = "{\"a\\u0000\":1}";

	refused(value, strlen(value), "NUL");
	refused(key, strlen(key), "NUL");
}

static void test_duplicate_keys(void **state)
{
	(void)state;
	const char *plain = "{\"layers\":1,\"b\":2,\"layers\":3}",
		   *escaped = "[{\"a\":1,\"\\u0061\":2}]";
	struct json_doc d = parse("{\"a\":{\"a\":{\"a\":1}},\"b\":{\"a\":1}}");

	json_release(&d);
	refused(plain, strlen(plain), "\"layers\" occurs twice");
	refused(escaped, strlen(escaped), "\"a\" occurs twice");
}

static void test_duplicate_among_many(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(MIB * 4);

	buf_addc(&b, '{');
	for (unsigned i = 0; i < 200000; i++)
		buf_addf(&b, "\"k%u\":%u,", i, i);
	size_t mark = b.len;
	buf_adds(&b, "\"x\":1}");
	struct json_doc d = parse(buf_cstr(&b));
	json_release(&d);
	b.len = mark;
	buf_adds(&b, "\"k777\":1}");
	refused(b.data, b.len, "\"k777\" occurs twice");
	buf_release(&b);
}

static void test_depth(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(MIB * 4);

	for (int i = 0; i < LIMIT_JSON_DEPTH; i++)
		buf_addc(&b, '[');
	buf_adds(&b, "\"[[[[{{{{\\\"[[[\"");
	for (int i = 0; i < LIMIT_JSON_DEPTH; i++)
		buf_addc(&b, ']');
	struct json_doc d = parse(buf_cstr(&b));
	json_release(&d);
	buf_clear(&b);
	for (int i = 0; i <= LIMIT_JSON_DEPTH; i++)
		buf_adds(&b, "{\"a\":");
	refused(b.data, b.len, "deeper than 64");
	buf_clear(&b);
	for (int i = 0; i < 1000000; i++)
		buf_addc(&b, '[');
	refused(b.data, b.len, "deeper than 64");
	buf_release(&b);
}

static void test_add_string(void **state)
{
	(void)state;
	static const struct {
		const char *in, *out;
	} t[] = {
		{ "", "\"\"" },
		{ "a\"b\\c", "\"a\\\"b\\\\c\"" },
		{ "\n\t\r\b\f\x01\x7f", "\"\\n\\t\\r\\b\\f\\u0001\\u007f\"" },
		{ "\xc3\xa9\xf0\x9f\x98\x80", "\"\xc3\xa9\xf0\x9f\x98\x80\"" },
		{ "a\xff"
		  "b",
		  "\"a\xef\xbf\xbd"
		  "b\"" },
		{ "\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" },
		{ "\xc2\x9b", "\"\\u009b\"" },
		{ "\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\"" },
	};
	struct buf b = BUF_INIT(1000);

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		buf_clear(&b);
		assert_int_equal(json_add_string(&b, t[i].in, strlen(t[i].in)), 0);
		assert_string_equal(buf_cstr(&b), t[i].out);
		struct json_doc d = parse(buf_cstr(&b)); /* what is written can be read */
		json_release(&d);
	}
	buf_clear(&b);
	json_add_string(&b, "a\0b", 3);
	assert_string_equal(buf_cstr(&b), "\"a\\u0000b\"");
	buf_release(&b);
	b = BUF_INIT(4);
	assert_int_equal(json_add_string(&b, "abcdef", 6), -1);
	buf_release(&b);
}

static void test_show_cuts(void **state)
{
	(void)state;
	char out[16];

	assert_string_equal(json_show(str_of("short"), out, sizeof(out)), "short");
	assert_string_equal(json_show(str_of("123456789012345"), out, sizeof(out)),
			    "123456789012345");
	assert_string_equal(json_show(str_of("1234567890123456"), out, sizeof(out)),
			    "123456789012...");
	assert_string_equal(json_show(str_of("1234567890\x1b\x1b"), out, sizeof(out)),
			    "1234567890...");
	assert_string_equal(
		json_show(
			str_of("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"),
			out, sizeof(out)),
		"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9...");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_getters),
		cmocka_unit_test(test_C6_numbers_are_exact),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_nul_in_strings),
		cmocka_unit_test(test_duplicate_keys),
		cmocka_unit_test(test_duplicate_among_many),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_add_string),
		cmocka_unit_test(test_show_cuts),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
