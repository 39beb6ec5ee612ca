// SPDX-License-Identifier: Apache-2.0
/* The pure half of http.h. Numbers in comments: edge cases of registry clients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http.h"

static void content_range_good(void **state)
{
	struct content_range r;

	(void)state;
	assert_true(http_parse_content_range("bytes 0-9/100", &r));
	assert_int_equal(r.start, 0);
	assert_int_equal(r.end, 9);
	assert_int_equal(r.total, 100);
	assert_true(http_parse_content_range("BYTES 5-5/6", &r));
	assert_true(http_parse_content_range("bytes 0-0/*", &r));
	assert_true(r.total == UINT64_MAX);
	assert_true(http_parse_content_range("bytes 0-18446744073709551613/18446744073709551614", &r));
	assert_true(r.end == 18446744073709551613ULL);
}

/* case 19: wrong unit, junk, leading zeros, 60-digit numbers, missing parts */
static void content_range_bad(void **state)
{
	static const char *const bad[] = {
		"", "bytes", "bytes ", "bytes */100", "bytes 0-9", "bytes 0-9/", "bytes 9-0/100",
		"bytes 0-100/100", "bytes -9/100", "bytes 0-/100", "items 0-9/100", "bytes=0-9/100",
		"bytes 0-9/100 ", "bytes 0-9/100, bytes 0-9/100", "bytes 00-9/100", "bytes 0-09/100",
		"bytes 0-9/0100", "bytes 0 - 9/100", "bytes +0-9/100", "bytes 0x0-9/100", "bytes 0-9/-1",
		"bytes 0-9/100junk", "bytes 0/9-100", "bytes  0-9/100", "bytes 0-9/**",
		"bytes 0-18446744073709551616/18446744073709551617",
		"bytes 111111111111111111111111111111111111111111111111111111111111-2/3",
	};
	struct content_range r = { 7, 7, 7 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (http_parse_content_range(bad[i], &r))
			fail_msg("accepted: %s", bad[i]);
	assert_int_equal(r.start, 7); /* untouched */
}

/* case 34 */
static void retry_after(void **state)
{
	const int64_t now = 784111777; /* Sun, 06 Nov 1994 08:49:37 GMT */

	(void)state;
	assert_int_equal(http_retry_after_ms("3", now), 3000);
	assert_int_equal(http_retry_after_ms("0", now), 0);
	assert_int_equal(http_retry_after_ms("Sun, 06 Nov 1994 08:49:47 GMT", now), 10000);
	assert_int_equal(http_retry_after_ms("Sun, 06 Nov 1994 08:49:36 GMT", now), 0);
	assert_int_equal(http_retry_after_ms("Tue, 06 Nov 2094 08:49:36 GMT", now), LIMIT_RETRY_AFTER_MS);
	assert_int_equal(http_retry_after_ms("99999999999", now), LIMIT_RETRY_AFTER_MS);
	assert_int_equal(http_retry_after_ms("99999999999999999999999999", now), 0);
	assert_int_equal(http_retry_after_ms("soon", now), 0);
	assert_int_equal(http_retry_after_ms("-5", now), 0);
	assert_int_equal(http_retry_after_ms("Sun, 06 Xxx 1994 08:49:47 GMT", now), 0);
	assert_int_equal(http_retry_after_ms("", now), 0);
	assert_int_equal(http_retry_after_ms(NULL, now), 0);
}

static void origins(void **state)
{
	char o[128];

	(void)state;
	assert_int_equal(http_origin("https://Reg.Example/v2/", o, sizeof(o)), 0);
	assert_string_equal(o, "https://reg.example:443");
	assert_int_equal(http_origin("http://[::1]:5000/v2/?a=b", o, sizeof(o)), 0);
	assert_string_equal(o, "http://[::1]:5000");
	assert_int_equal(http_origin("http://h", o, sizeof(o)), 0);
	assert_string_equal(o, "http://h:80");
	assert_int_equal(http_origin("ftp://h/", o, sizeof(o)), -1);
	assert_int_equal(http_origin("https://user:pw@h/", o, sizeof(o)), -1);
	assert_int_equal(http_origin("not a url", o, sizeof(o)), -1);
	assert_int_equal(http_origin("https://h/", o, 4), -1);
	assert_true(http_same_origin("https://h/x", "https://h:443"));
	assert_false(http_same_origin("https://h:444/x", "https://h:443"));
	assert_false(http_same_origin("http://h:443/x", "https://h:443"));
	assert_false(http_same_origin("https://h.evil/x", "https://h:443"));
}

static void redirect_ok(const char *base, const char *location, const char *want)
{
	char *got = NULL;
	struct err e = { 0 };

	if (http_redirect_target(base, location, &got, &e))
		fail_msg("%s: %s", location, e.msg);
	assert_string_equal(got, want);
	free(got);
}

static void redirect_refused(const char *base, const char *location)
{
	char *got = NULL;
	struct err e = { 0 };

	if (http_redirect_target(base, location, &got, &e) == 0)
		fail_msg("followed %s to %s", location, got);
	assert_int_equal(e.code, CODE_NETWORK);
	assert_null(got);
}

/* case 29 */
static void redirects(void **state)
{
	static char longest[LIMIT_URL + 64];

	(void)state;
	redirect_ok("https://r/v2/a", "/b?x=1", "https://r/b?x=1");
	redirect_ok("https://r/v2/a", "b", "https://r/v2/b");
	redirect_ok("https://r/v2/a", "//other/c", "https://other/c");
	redirect_ok("http://r/v2/a", "https://s:8443/c?sig=%2F%2B", "https://s:8443/c?sig=%2F%2B");
	redirect_ok("http://r/v2/a", "http://s/x#frag", "http://s/x");
	redirect_refused("https://r/a", "http://r/a");
	redirect_refused("https://r/a", "http://other/a");
	redirect_refused("https://r/a", "ftp://other/a");
	redirect_refused("https://r/a", "file:///etc/passwd");
	redirect_refused("https://r/a", "https://u:p@other/a");
	redirect_refused("https://r/a", "https://other/a b");
	redirect_refused("https://r/a", "https://other/\x01");
	memset(longest, 'a', sizeof(longest) - 1);
	memcpy(longest, "https://other/", 14);
	redirect_refused("https://r/a", longest);
}

/* case 40 */
static void redaction(void **state)
{
	char s[256];

	(void)state;
	assert_string_equal(http_redacted("https://u:secret@h/p?X-Amz-Signature=abc", s, sizeof(s)),
			    "https://h/p");
	strcpy(s, "see http://h/a?sig=1 and https://x:y@z/q?t=2, \"http://k?u\"");
	log_redact(s);
	assert_null(strstr(s, "sig"));
	assert_null(strstr(s, "x:y"));
	assert_null(strstr(s, "t=2"));
	assert_null(strstr(s, "?u"));
	assert_non_null(strstr(s, "http://h/a and https://z/q"));
}

static void statuses(void **state)
{
	struct err e;
	struct buf body = BUF_INIT(1000);

	(void)state;
	buf_adds(&body, "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no \\u001b[31mway\",\"detail\":[1]}]}");
	assert_int_equal(http_status_error(403, "https://r/x", &body, &e), -1);
	assert_int_equal(e.code, CODE_AUTH);
	assert_non_null(strstr(e.msg, "DENIED"));
	assert_false(e.retryable);
	http_status_error(404, "u", NULL, &e);
	assert_int_equal(e.code, CODE_NOT_FOUND);
	http_status_error(503, "u", NULL, &e);
	assert_int_equal(e.code, CODE_NETWORK);
	assert_true(e.retryable);
	http_status_error(412, "u", &body, &e);
	assert_int_equal(e.code, CODE_AUTH);
	http_status_error(418, "u", NULL, &e);
	assert_false(e.retryable);
	buf_clear(&body);
	buf_adds(&body, "<html>proxy says no</html>");
	http_status_error(502, "u", &body, &e);
	assert_true(e.retryable);
	buf_release(&body);
	for (unsigned i = 0; i < 40; i++) {
		uint32_t w = http_backoff_ms(i, 0);
		assert_in_range(w, 20, 10020);
		assert_true(http_backoff_ms(i, 5000) >= 5000);
	}
}

static void mask_sent(void **state)
{
	struct curl_slist raw = { (char *)"authorization: no-scheme-secret", NULL };
	struct curl_slist mine = { (char *)"Authorization: Bearer token-secret", &raw }, list = { (char *)"Accept: x/y", &mine };
	struct buf b = BUF_INIT(200), none = BUF_INIT(10);

	(void)state;
	buf_adds(&b, "x/y: token-secret and no-scheme-secret, not token-secre");
	http_mask_sent(&list, &b);
	assert_string_equal(buf_cstr(&b), "x/y: ************ and ****************, not token-secre");
	http_mask_sent(&list, &none);
	http_mask_sent(NULL, &b);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(content_range_good),
		cmocka_unit_test(content_range_bad),
		cmocka_unit_test(retry_after),
		cmocka_unit_test(origins),
		cmocka_unit_test(redirects),
		cmocka_unit_test(redaction),
		cmocka_unit_test(statuses),
		cmocka_unit_test(mask_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
