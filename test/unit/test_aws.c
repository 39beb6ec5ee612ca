// SPDX-License-Identifier: Apache-2.0
/* AWS: Signature Version 4 against the published test suite, names of registries, answers of STS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "aws.h"

/* --- aws-sig-v4-test-suite: credentials, region, service and date of all its cases --- */

#define SUITE "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
#define EMPTY "", 0

static const struct aws_keys suite_keys = { .id = (char *)"AKIDEXAMPLE",
					    .secret = (char *)"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" };
/* of the cases post-sts-header-before and -after */
static const char suite_token[] =
	"AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7"
	"mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d"
	"+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

static void signs(const char *method, const struct aws_header *h, size_t n, const char *body, size_t len, const char *want)
{
	struct aws_call c = { .method = method, .path = "/", .headers = h, .n_headers = n, .body = body, .body_len = len,
			      .region = "us-east-1", .service = "service", .date = "20150830T123600Z" };
	struct buf b = BUF_INIT(2048);

	assert_int_equal(aws_sign(&suite_keys, &c, &b), 0);
	assert_string_equal(buf_cstr(&b), want);
	buf_release(&b);
}

static void test_suite(void **state)
{
	/* in no order: sorting is part of it */
	const struct aws_header h[] = {
		{ "x-amz-date", "20150830T123600Z" },
		{ "host", "example.amazonaws.com" },
		{ "content-type", "application/x-www-form-urlencoded" },
	};
	const struct aws_header sts[] = { h[0], { "x-amz-security-token", suite_token }, h[1] };

	(void)state;
	/* get-vanilla, post-vanilla, post-x-www-form-urlencoded, post-sts-header-before */
	signs("GET", h, 2, EMPTY, SUITE "SignedHeaders=host;x-amz-date, "
	      "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
	signs("POST", h, 2, EMPTY, SUITE "SignedHeaders=host;x-amz-date, "
	      "Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
	signs("POST", h, 3, "Param1=value1", 13, SUITE "SignedHeaders=content-type;host;x-amz-date, "
	      "Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a");
	signs("POST", sts, 3, EMPTY, SUITE "SignedHeaders=host;x-amz-date;x-amz-security-token, "
	      "Signature=85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead");
}

static void test_what_does_not_fit(void **state)
{
	struct aws_header h[9] = { { "a", "1" } };
	struct aws_call c = { .method = "GET", .path = "/", .headers = h, .n_headers = 9, .body = "", .region = "r",
			      .service = "s", .date = "20150830T123600Z" };
	struct buf b = BUF_INIT(2048), small = BUF_INIT(16);

	(void)state;
	assert_int_equal(aws_sign(&suite_keys, &c, &b), -1);
	c.n_headers = 1;
	assert_int_equal(aws_sign(&suite_keys, &c, &small), -1);
	c.date = "2015";
	assert_int_equal(aws_sign(&suite_keys, &c, &b), -1);
	buf_release(&b);
	buf_release(&small);
}

static void test_dates(void **state)
{
	char date[AWS_DATE_MAX];

	(void)state;
	aws_date(1440938160, date);
	assert_string_equal(date, "20150830T123600Z");
	aws_date(951782400, date);
	assert_string_equal(date, "20000229T000000Z");
}

/* --- names --- */

static bool parses(const char *host, const char *region, const char *suffix, bool fips, bool dual)
{
	struct aws_registry r;

	if (!aws_registry_parse(str_of(host), &r))
		return false;
	assert_string_equal(r.region, region);
	assert_string_equal(r.suffix, suffix);
	assert_int_equal(r.fips, fips);
	assert_int_equal(r.dual_stack, dual);
	return true;
}

#define N "123456789012"

static void test_registries(void **state)
{
	static const char *const not_one[] = {
		"", "123", N, N ".dkr.ecr", N ".dkr.ecr.", N ".dkr.ecr.us-east-1", N ".dkr.ecr.us-east-1.",
		N ".dkr.ecr..amazonaws.com", N ".dkr.ecr.-us.amazonaws.com", N ".dkr.ecr.us/east.amazonaws.com",
		"12345678901.dkr.ecr.us-east-1.amazonaws.com", N "3.dkr.ecr.us-east-1.amazonaws.com",
		"a" N ".dkr.ecr.us-east-1.amazonaws.com", N ".dkr.ecr.us-east-1.amazonaws.com.evil.example",
		N ".dkr.ecr.us-east-1.evil.example", N ".dkr.ecr.us-east-1.x.amazonaws.com", "public.ecr.aws",
		N ".dkr.ecr-fipsx.us-east-1.amazonaws.com", N ".dkr.ecr.us-east-1.aws", "api.ecr.us-east-1.amazonaws.com",
	};

	(void)state;
	assert_true(parses(N ".dkr.ecr.us-east-1.amazonaws.com", "us-east-1", "amazonaws.com", false, false));
	assert_true(parses(N ".DKR.ecr.US-East-1.AmazonAWS.com", "us-east-1", "amazonaws.com", false, false));
	assert_true(parses(N ".dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1", "amazonaws.com", true, false));
	assert_true(parses(N ".dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1", "amazonaws.com.cn", false, false));
	assert_true(parses(N ".dkr.ecr.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1", "amazonaws.eu", false, false));
	assert_true(parses(N ".dkr-ecr.eu-west-1.on.aws", "eu-west-1", "api.aws", false, true));
	assert_true(parses(N ".dkr-ecr-fips.us-east-2.on.aws", "us-east-2", "api.aws", true, true));
	assert_true(parses(N ".dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "cn-north-1", "api.amazonwebservices.com.cn",
			   false, true));
	assert_true(parses(N ".dkr.ecr.us-iso-east-1.c2s.ic.gov", "us-iso-east-1", "c2s.ic.gov", false, false));
	for (size_t i = 0; i < ARRAY_SIZE(not_one); i++)
		if (parses(not_one[i], "", "", false, false))
			fail_msg("%s is no registry of ECR", not_one[i]);
}

static void test_partitions(void **state)
{
	(void)state;
	assert_string_equal(aws_suffix("us-east-1"), "amazonaws.com");
	assert_string_equal(aws_suffix("cn-northwest-1"), "amazonaws.com.cn");
	assert_string_equal(aws_suffix("eusc-de-east-1"), "amazonaws.eu");
	assert_string_equal(aws_suffix("us-isob-east-1"), "sc2s.sgov.gov");
	assert_string_equal(aws_suffix("us-iso-east-1"), "c2s.ic.gov");
}

/* --- XML --- */

static const char *text(const char *doc, const char *within, const char *name)
{
	static char found[256];
	/* exactly as large as the text: one byte too far shows */
	size_t n = strlen(doc);
	char *copy = malloc(n ? n : 1);
	struct str s = { NULL, 0 };

	memcpy(copy, doc, n);
	bool ok = aws_xml_text((struct str){ copy, n }, within, name, &s);
	if (ok)
		snprintf(found, sizeof(found), "%.*s", (int)s.n, s.p);
	free(copy);
	return ok ? found : NULL;
}

static void test_xml(void **state)
{
	(void)state;
	assert_string_equal(text("<R><A>no</A><C><A>yes</A></C></R>", "C", "A"), "yes");
	assert_string_equal(text("<C>\n <A>a+/=</A>", "C", "A"), "a+/=");
	assert_null(text("", "C", "A"));
	assert_null(text("<A>no</A><C></C>", "C", "A"));
	assert_null(text("<C><A></A></C>", "C", "A"));
	assert_null(text("<C><A>x", "C", "A"));
	assert_null(text("<C><A>x</A", "C", "A"));
	assert_null(text("<C><A><B>x</B></A>", "C", "A"));
	assert_null(text("<C><A>x&amp;y</A>", "C", "A"));
	assert_null(text("<C><A", "C", "A"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_suite),
		cmocka_unit_test(test_what_does_not_fit),
		cmocka_unit_test(test_dates),
		cmocka_unit_test(test_registries),
		cmocka_unit_test(test_partitions),
		cmocka_unit_test(test_xml),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
