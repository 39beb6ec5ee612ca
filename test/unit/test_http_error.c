// SPDX-License-Identifier: Apache-2.0
/* What is said of refusals: the server's own words, limits, credentials; Warning headers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http.h"

static struct err err;
static char said[4096];

static const char *words_n(const char *body, size_t n)
{
	struct buf b = BUF_INIT(LIMIT_ERROR_BODY), w = BUF_INIT(sizeof(said) - 1);

	buf_add(&b, body, n);
	http_error_words(&b, &w);
	snprintf(said, sizeof(said), "%s", buf_cstr(&w));
	buf_release(&b);
	buf_release(&w);
	return said;
}

static const char *words(const char *body)
{
	return words_n(body, strlen(body));
}

static void test_words(void **state)
{
	(void)state;
	assert_string_equal(words(""), "");
	assert_string_equal(words("{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\"}]}"), "DENIED: no");
	assert_string_equal(words("{\"errors\":[{\"message\":\"no\"},{\"code\":\"X\"},{\"detail\":1},{\"code\":\"Y\"}]}"),
			    "no; X; 1");
	assert_string_equal(words("{\"errors\":[{\"code\":\"A\",\"message\":\"b\",\"detail\":{\"c\":[1,null]}}]}"),
			    "A: b, {\"c\":[1,null]}");
	assert_string_equal(words("{\"errors\":[{\"code\":\"A\",\"detail\":{}}]}"), "A");
	assert_string_equal(words("{\"errors\":[{\"code\":\"A\",\"detail\":[]}]}"), "A");
	assert_string_equal(words("{\"errors\":[{\"code\":true,\"message\":null}]}"), "true");
	assert_string_equal(words("{\"errors\":[]}"), "");
	assert_string_equal(words("{\"errors\":[null,5]}"), "");
	assert_string_equal(words("{\"error\":\"invalid_grant\",\"error_description\":\"ran out\"}"), "invalid_grant: ran out");
	assert_string_equal(words("[1]"), "");
	assert_string_equal(words("\"text\""), "");
	assert_string_equal(words("{\"errors\":[{\"code\":\"A"), "");
	assert_string_equal(words("<Error><Code>AccessDenied</Code><Message> not\n you </Message></Error>"),
			    "AccessDenied: not you");
	assert_string_equal(words("<Error><Code></Code></Error>"), "");
	assert_string_equal(words("404 page not found\r\n"), "404 page not found");
	/* what could hold a signature or a token is left out */
	assert_string_equal(words("no: https://h/x?sig=1"), "");
	assert_string_equal(words("two\nlines"), "");
	assert_string_equal(words_n("a\0b", 3), "");
	assert_non_null(strstr(words("\xef\xbb\xbf <!-- x --><HTML><Title a=b> Log\tin </TITLE>"),
			       "an HTML page (title \"Log in\")"));
	assert_non_null(strstr(words("<html><title>never ends"), "an HTML page instead"));
	assert_non_null(strstr(words("<!doctype HTML>"), "an HTML page instead"));
}

static void test_masked(void **state)
{
	(void)state;
	words("{\"errors\":[{\"code\":\"A\",\"message\":\"Authorization: Bearer abcdefghijklmnop.q-r_s, basic QUJDREVGR0hJSktM==\"}]}");
	assert_null(strstr(said, "abcdef"));
	assert_null(strstr(said, "QUJD"));
	assert_non_null(strstr(said, "Bearer ****"));
	assert_string_equal(words("{\"message\":\"Basic authentication is off\"}"), "Basic authentication is off");
}

static struct http_response answer(const char *body, const char *const *headers)
{
	struct http_response r = { .body = BUF_INIT(LIMIT_ERROR_BODY) };

	buf_adds(&r.body, body);
	for (; *headers; headers += 2) {
		r.headers = realloc(r.headers, (r.n_headers + 1) * sizeof(*r.headers));
		r.headers[r.n_headers++] = (struct http_header){ strdup(headers[0]), strdup(headers[1]) };
	}
	return r;
}

static void judge(long status, const char *body, const char *credentials, const char *const *headers)
{
	struct http_response r = answer(body, headers);

	memset(&err, 0, sizeof(err));
	assert_int_equal(http_answer_error(status, &r, "https://r/v2/x", credentials, &err), -1);
	assert_int_equal(err.http_status, status);
	assert_true(strlen(err.msg) <= LIMIT_ERR_MSG);
	http_response_release(&r);
}

static void says(const char *text)
{
	if (!strstr(err.msg, text))
		fail_msg("'%s' lacks '%s'", err.msg, text);
}

#define NONE ((const char *const[]){ NULL })

static void test_answers(void **state)
{
	static const char *const later[] = { "retry-after", "7", NULL };
	static const char *const hub[] = { "RateLimit-Limit", "100;w=21600", "ratelimit-remaining", "3;w=21600", NULL };
	static const char *const odd[] = { "RateLimit-Limit", "many;w=x", "ratelimit-remaining", "-1", NULL };
	static char longest[4000];

	(void)state;
	judge(403, "", "/c.json, key auths.r", NONE);
	assert_int_equal(err.code, CODE_AUTH);
	assert_false(err.retryable);
	says("; credentials: /c.json, key auths.r, which may not read it");
	judge(403, "", "no credentials", NONE);
	says("; no credentials; see: fetcher help auth");
	judge(403, "", NULL, later);
	assert_true(err.retryable);
	assert_int_equal(err.code, CODE_NETWORK);
	assert_int_equal(err.retry_after_ms, 7000);
	judge(403, "{\"errors\":[{\"code\":\"toomanyrequests\"}]}", NULL, NONE);
	assert_true(err.retryable);
	judge(403, "{\"message\":\"You exceeded a secondary rate limit\"}", "no credentials", NONE);
	assert_true(err.retryable);
	says("limits how often it may be asked, 403 (You exceeded a secondary rate limit); no credentials: who logs in");
	judge(401, "rate limit", NULL, NONE);
	assert_false(err.retryable);
	judge(404, "", NULL, later);
	assert_false(err.retryable);
	judge(429, "", "no credentials", hub);
	assert_true(err.retryable);
	assert_int_equal(err.code, CODE_NETWORK);
	says("; its limit is 100 requests in 21600 s, 3 left; no credentials: who logs in");
	judge(429, "", "/c.json, key k", odd);
	assert_null(strstr(err.msg, "its limit"));
	assert_null(strstr(err.msg, "who logs in"));
	judge(412, "{\"errors\":[{\"code\":\"PROJECTPOLICYVIOLATION\",\"message\":\"unsigned\"}]}", NULL, NONE);
	assert_int_equal(err.code, CODE_AUTH);
	says("PROJECTPOLICYVIOLATION: unsigned");
	/* the advice survives the longest words */
	memset(longest, 'm', sizeof(longest) - 1);
	memcpy(longest, "{\"message\":\"", 12);
	memcpy(longest + sizeof(longest) - 3, "\"}", 2);
	judge(403, longest, "no credentials", NONE);
	says("mmm");
	says("see: fetcher help auth");
}

static const char *warning(const char **at)
{
	return http_next_warning(at, said, sizeof(said)) ? said : NULL;
}

/* case 32 */
static void test_O32_warnings(void **state)
{
	const char *at = "299 - \"one\", 299 agent \"t\\\"w\\\\o\" \"a, date\",199 - \"other\", 299 - \"e\x1bsc\", 299 - \"end";
	char small[4];

	(void)state;
	assert_string_equal(warning(&at), "one");
	assert_string_equal(warning(&at), "t\"w\\o");
	assert_string_equal(warning(&at), "");
	assert_string_equal(warning(&at), "esc");
	assert_string_equal(warning(&at), "end");
	assert_null(warning(&at));
	at = "299 - none";
	assert_null(warning(&at));
	at = "\"\\";
	assert_string_equal(warning(&at), "");
	assert_null(warning(&at));
	at = "299 - \"longer\"";
	assert_true(http_next_warning(&at, small, sizeof(small)));
	assert_string_equal(small, "lon");
	assert_true(http_warning_is_new("w"));
	assert_false(http_warning_is_new("w"));
	for (unsigned i = 0; i < 100; i++) {
		snprintf(said, sizeof(said), "%u", i);
		assert_int_equal(http_warning_is_new(said), i < 15);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_masked),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_O32_warnings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
