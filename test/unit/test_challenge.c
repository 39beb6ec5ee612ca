// SPDX-License-Identifier: Apache-2.0
/* WWW-Authenticate values and the scopes that come of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "challenge.h"

static struct challenge list[CHALLENGES_MAX];
static size_t n;

static void parse(const char *value)
{
	while (n)
		challenge_release(&list[--n]);
	n = challenge_parse(value, list, CHALLENGES_MAX);
}

static int drop(void **state)
{
	(void)state;
	while (n)
		challenge_release(&list[--n]);
	return 0;
}

static void is_bearer(size_t i, const char *realm, const char *service, const char *scope)
{
	assert_true(i < n);
	assert_int_equal(list[i].scheme, CHALLENGE_BEARER);
	assert_true((realm && list[i].realm && !strcmp(list[i].realm, realm)) || realm == list[i].realm);
	assert_true((service && list[i].service && !strcmp(list[i].service, service)) ||
		    service == list[i].service);
	assert_true((scope && list[i].scope && !strcmp(list[i].scope, scope)) || scope == list[i].scope);
}

static void test_usual(void **state)
{
	(void)state;
	parse("Bearer realm=\"https://auth.example/token\",service=\"reg\",scope=\"repository:a/b:pull,push\"");
	assert_int_equal(n, 1);
	is_bearer(0, "https://auth.example/token", "reg", "repository:a/b:pull,push");
	parse("Basic realm=\"harbor\"");
	assert_int_equal(n, 1);
	assert_int_equal(list[0].scheme, CHALLENGE_BASIC);
	assert_string_equal(list[0].realm, "harbor");
}

/* Nexus writes BASIC; parameter names in any case; blanks around = and , */
static void test_case_and_blanks(void **state)
{
	(void)state;
	parse("BASIC REALM=\"x\"");
	assert_int_equal(n, 1);
	assert_int_equal(list[0].scheme, CHALLENGE_BASIC);
	parse("  bEARER \t Realm = \"https://h/t\" ,  SERVICE\t=\ts , Scope = \"a b\"");
	assert_int_equal(n, 1);
	is_bearer(0, "https://h/t", "s", "a b");
}

static void test_bare_values(void **state)
{
	(void)state;
	parse("Bearer realm=https://h:5001/auth?x=1,service=registry.example");
	assert_int_equal(n, 1);
	is_bearer(0, "https://h:5001/auth?x=1", "registry.example", NULL);
}

static void test_quoted_escapes(void **state)
{
	(void)state;
	parse("Bearer realm=\"https://h/\\\"q\\\\\",error=\"insufficient_scope\"");
	assert_int_equal(n, 1);
	is_bearer(0, "https://h/\"q\\", NULL, NULL);
	assert_string_equal(list[0].error, "insufficient_scope");
}

static void test_several(void **state)
{
	(void)state;
	parse("Negotiate, Basic realm=\"a, Bearer realm=b\", Digest qop=\"auth,auth-int\", nonce=1, "
	      "Bearer realm=\"https://h/t\",service=s");
	assert_int_equal(n, 2);
	assert_int_equal(list[0].scheme, CHALLENGE_BASIC);
	assert_string_equal(list[0].realm, "a, Bearer realm=b");
	is_bearer(1, "https://h/t", "s", NULL);
	parse("Negotiate dG9rZW4+/w==, Bearer realm=\"https://h/t\"");
	assert_int_equal(n, 1);
	is_bearer(0, "https://h/t", NULL, NULL);
}

static void test_first_of_twins(void **state)
{
	(void)state;
	parse("Bearer realm=\"https://h/1\",realm=\"https://h/2\"");
	assert_int_equal(n, 1);
	is_bearer(0, "https://h/1", NULL, NULL);
}

static void test_soft_stop(void **state)
{
	(void)state;
	parse("Bearer realm=\"https://h/t\",service=\"open");
	assert_int_equal(n, 1);
	is_bearer(0, "https://h/t", NULL, NULL);
	parse("Bearer realm=\"https://h/t\",service=\"a\"junk,scope=x");
	assert_int_equal(n, 1);
	is_bearer(0, "https://h/t", NULL, NULL);
	/* control characters would end up in messages and URLs */
	parse("Bearer realm=\"https://h/\x01t\"");
	assert_int_equal(n, 1);
	is_bearer(0, NULL, NULL, NULL);
	parse("Bearer realm=\"x\\");
	assert_int_equal(n, 1);
	is_bearer(0, NULL, NULL, NULL);
}

static void test_nothing(void **state)
{
	static const char *const values[] = { "", " , ,", "=", "\"", "Digest realm=x", "Be@rer realm=x" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		parse(values[i]);
		assert_int_equal(n, 0);
	}
	parse("Bearer");
	assert_int_equal(n, 1);
	is_bearer(0, NULL, NULL, NULL);
}

static void test_max(void **state)
{
	(void)state;
	parse("Basic a=1, Basic a=1, Basic a=1, Basic a=1, Basic a=1, Basic a=1, Basic a=1, Basic a=1, "
	      "Basic a=1, Bearer realm=x");
	assert_int_equal(n, CHALLENGES_MAX);
}

static void scopes_are(char **scopes, size_t count, const char *text)
{
	struct buf b = BUF_INIT(4096);

	for (size_t i = 0; i < count; i++)
		buf_addf(&b, "%s%s", i ? " | " : "", scopes[i]);
	assert_string_equal(buf_cstr(&b), text);
	buf_release(&b);
}

static void test_scopes(void **state)
{
	char *scopes[SCOPES_MAX] = { 0 };
	size_t count = 0;

	(void)state;
	assert_int_equal(scopes_merge(scopes, &count, "a/b", NULL), 0);
	scopes_are(scopes, count, "repository:a/b:pull");
	/* a public cloud's constant scope passes, and comes first */
	assert_int_equal(scopes_merge(scopes, &count, "a/b", "aws"), 0);
	scopes_are(scopes, count, "aws | repository:a/b:pull");
	/* covered by what was asked for */
	assert_int_equal(scopes_merge(scopes, &count, "a/b", "repository:a/b:pull,push"), 0);
	scopes_are(scopes, count, "repository:a/b:pull,push | aws");
	assert_int_equal(scopes_merge(scopes, &count, "a/b", " repository:a/b:* repository:c:pull"), 0);
	scopes_are(scopes, count, "repository:a/b:* | repository:c:pull | repository:a/b:pull,push | aws");
	/* another action of the same repository does not cover */
	assert_int_equal(scopes_merge(scopes, &count, "a/b", "repository:a/b:push"), 0);
	assert_string_equal(scopes[1], "repository:a/b:pull");
	/* a flood leaves room for our own */
	assert_int_equal(scopes_merge(scopes, &count, "a/b", "1 2 3 4 5 6 7 8 9 10"), 0);
	scopes_are(scopes, count, "1 | 2 | 3 | 4 | 5 | 6 | 7 | repository:a/b:pull");
	while (count)
		free(scopes[--count]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_usual, drop),
		cmocka_unit_test_teardown(test_case_and_blanks, drop),
		cmocka_unit_test_teardown(test_bare_values, drop),
		cmocka_unit_test_teardown(test_quoted_escapes, drop),
		cmocka_unit_test_teardown(test_several, drop),
		cmocka_unit_test_teardown(test_first_of_twins, drop),
		cmocka_unit_test_teardown(test_soft_stop, drop),
		cmocka_unit_test_teardown(test_nothing, drop),
		cmocka_unit_test_teardown(test_max, drop),
		cmocka_unit_test(test_scopes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
