// SPDX-License-Identifier: Apache-2.0
/* Numbers in test names are edge cases: C of registry clients, L of artifact layouts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "ref.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define SHA256 "sha256:" HEX64
#define SHA512 "sha512:" HEX64 HEX64

static void check(const char *text, const char *registry, const char *host, const char *repo,
		  const char *target, const char *canonical)
{
	struct ref r;
	struct err e = { 0 };
	struct buf b = BUF_INIT(4096);
	char t[DIGEST_STR_MAX];

	if (ref_parse(text, &r, &e))
		fail_msg("%s: %s", text, e.msg);
	assert_string_equal(r.registry, registry);
	assert_string_equal(r.host, host);
	assert_string_equal(r.repo, repo);
	assert_string_equal(ref_target(&r, t), target);
	assert_int_equal(ref_format(&r, &b), 0);
	assert_string_equal(buf_cstr(&b), canonical);

	struct ref again;
	assert_int_equal(ref_parse(buf_cstr(&b), &again, &e), 0);
	assert_memory_equal(&r, &again, sizeof(r));
	buf_release(&b);
}

static void refused(const char *text, const char *why)
{
	struct ref r, untouched;
	struct err e = { 0 };

	memset(&r, 0x5a, sizeof(r));
	untouched = r;
	if (ref_parse(text, &r, &e) != -1)
		fail_msg("accepted: %s", text);
	assert_memory_equal(&r, &untouched, sizeof(r));
	assert_int_equal(e.code, CODE_USAGE);
	if (!strstr(e.msg, why))
		fail_msg("%s: message \"%s\" lacks \"%s\"", text, e.msg, why);
}

static void test_L44_plain_forms(void **state)
{
	(void)state;
	check("reg.example.com/team/model:v1", "reg.example.com", "reg.example.com", "team/model",
	      "v1", "reg.example.com/team/model:v1");
	check("oci://reg.example.com/m", "reg.example.com", "reg.example.com", "m", "latest",
	      "reg.example.com/m:latest");
	check("OCI://reg.example.com:443/m:1", "reg.example.com:443", "reg.example.com:443", "m",
	      "1", "reg.example.com:443/m:1");
	check("reg.example.com/m@" SHA256, "reg.example.com", "reg.example.com", "m", SHA256,
	      "reg.example.com/m@" SHA256);
	check("REG.Example.COM/m:V1", "reg.example.com", "reg.example.com", "m", "V1",
	      "reg.example.com/m:V1");
}

static void test_L44_digest_wins_over_tag(void **state)
{
	(void)state;
	struct ref r;

	check("reg.example.com:5000/a/b:v1@" SHA256, "reg.example.com:5000", "reg.example.com:5000",
	      "a/b", SHA256, "reg.example.com:5000/a/b:v1@" SHA256);
	assert_int_equal(ref_parse("a.b/c:t@" SHA256, &r, NULL), 0);
	assert_true(r.has_digest);
	assert_string_equal(r.tag, "t");
	assert_int_equal(ref_parse("a.b/c@" SHA256, &r, NULL), 0);
	assert_string_equal(r.tag, "");
}

static void test_L46_sha512(void **state)
{
	(void)state;
	check("a.b/c@" SHA512, "a.b", "a.b", "c", SHA512, "a.b/c@" SHA512);
}

static void test_C1_hosts(void **state)
{
	(void)state;
	check("localhost/m:1", "localhost", "localhost", "m", "1", "localhost/m:1");
	check("localhost:5000/m:1", "localhost:5000", "localhost:5000", "m", "1",
	      "localhost:5000/m:1");
	check("127.0.0.1:5000/m:1", "127.0.0.1:5000", "127.0.0.1:5000", "m", "1",
	      "127.0.0.1:5000/m:1");
	check("[::1]:5000/m:1", "[::1]:5000", "[::1]:5000", "m", "1", "[::1]:5000/m:1");
	check("[2001:DB8::1]/m:1", "[2001:db8::1]", "[2001:db8::1]", "m", "1", "[2001:db8::1]/m:1");
	check("reg:5000/m:1", "reg:5000", "reg:5000", "m", "1", "reg:5000/m:1");
	refused("[1::2::3]/m", "\"[1::2::3]\" is not an IPv6 address");
	refused("[::1/m", "lacks the closing bracket");
	refused("[]/m", "is not an IPv6");
	refused("[::1]5000/m", "other than :PORT");
	refused("[::1]:/m", "port \"\"");
	refused("[fe80::1%25eth0]/m", "is not an IPv6");
	refused("[127.0.0.1]/m", "is not an IPv6");
	refused("::1/m", "in brackets, as in [::1]:5000");
	refused("reg.example.com:v1/m", "port \"v1\"");
	refused("reg.example.com:0/m", "port \"0\"");
	refused("reg.example.com:65536/m", "port \"65536\"");
	refused("reg.example.com:/m", "port \"\"");
	refused("reg.example.com:+80/m", "port \"+80\"");
	refused("reg.example.com:080/m", "port \"080\"");
	refused("-a.example/m", "begins or ends with '-'");
	refused("a-.example/m", "begins or ends with '-'");
	refused("a..b/m", "empty label");
	refused(".a/m", "empty label");
	refused("a./m", "empty label");
	refused("a_b.c/m", "may only contain");
	refused("user:pw@reg.example.com/m", "user info");
	refused("a123456789012345678901234567890123456789012345678901234567890123.b/m",
		"63 characters");
}

static void test_C1_long_hosts(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(4096);

	for (int i = 0; i < 84; i++)
		buf_adds(&b, "ab.");
	buf_adds(&b, "ab/m:1"); /* 254 */
	refused(buf_cstr(&b), "longer than a DNS name");
	buf_clear(&b);
	for (int i = 0; i < 2000; i++)
		buf_adds(&b, "a");
	buf_adds(&b, ".b/m:1");
	refused(buf_cstr(&b), "too long");
	buf_release(&b);
}

static void test_C2_digests(void **state)
{
	(void)state;
	check("a.b/c:@" SHA256, "a.b", "a.b", "c", SHA256, "a.b/c@" SHA256);
	refused("a.b/c@@" SHA256, "second '@'");
	refused("a.b/c@" SHA256 "@" SHA256, "second '@'");
	refused("a.b/c:tag:" SHA256, "separated with '@'");
	refused("a.b/c @" SHA256, "a space");
	refused("a.b/c@sha256:0123456789abcdef",
		"\"sha256:0123456789abcdef\" is not 64 lower-case");
	refused("a.b/c@sha256:"
		"123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		"not 64 lower-case");
	refused("a.b/c@sha256:" HEX64 "0", "not 64 lower-case");
	refused("a.b/c@sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
		"not 64 lower-case");
	refused("a.b/c@sha512:" HEX64, "not 128 lower-case");
	refused("a.b/c@sha256:../../x", "\"sha256:../../x\"");
	refused("a.b/c@md5:d41d8cd98f00b204e9800998ecf8427e", "algorithm that is not supported");
	refused("a.b/c@SHA256:" HEX64, "algorithm that is not supported");
	refused("a.b/c@" HEX64, "no algorithm");
	refused("a.b/c@", "behind the '@'");
	refused("a.b/c:v1@", "behind the '@'");
}

static void test_C3_repositories(void **state)
{
	(void)state;
	check("a.b/x", "a.b", "a.b", "x", "latest", "a.b/x:latest");
	check("a.b/a__b/c.d/e---f/0_1:1", "a.b", "a.b", "a__b/c.d/e---f/0_1", "1",
	      "a.b/a__b/c.d/e---f/0_1:1");
	refused("a.b/-x", "begins or ends with");
	refused("a.b/x-", "begins or ends with");
	refused("a.b/_x", "begins or ends with");
	refused("a.b/x_/y", "begins or ends with");
	refused("a.b/x___y", "too many");
	refused("a.b/x..y", "too many");
	refused("a.b/x.-y", "different separators");
	refused("a.b/team/Model:1", "repository \"team/Model\" has an upper-case letter");
	refused("a.b/x//y", "empty component");
	refused("a.b/x/", "empty component");
	refused("a.b//x", "empty component");
	refused("a.b/../x", "begins or ends with");
	refused("a.b/x?y=z", "may only contain");
	refused("a.b/x#y", "may only contain");
	refused("a.b/x%2fy", "may only contain");
	refused("a.b/x\\y", "may only contain");
}

static void test_C3_long_repository(void **state)
{
	(void)state;
	struct buf b = BUF_INIT(4096);
	struct ref r;

	buf_adds(&b, "a.b/");
	for (int i = 0; i < 255; i++)
		buf_addc(&b, 'x');
	assert_int_equal(ref_parse(buf_cstr(&b), &r, NULL), 0);
	buf_addc(&b, 'x');
	refused(buf_cstr(&b), "longer than 255");
	buf_release(&b);
}

static void test_C3_tags(void **state)
{
	(void)state;
	char text[200] = "a.b/c:";

	check("a.b/c:__a--b..5__", "a.b", "a.b", "c", "__a--b..5__", "a.b/c:__a--b..5__");
	memset(text + 6, 't', 128);
	text[6 + 128] = '\0';
	struct ref r;
	assert_int_equal(ref_parse(text, &r, NULL), 0);
	assert_int_equal(strlen(r.tag), 128);
	text[6 + 128] = 't';
	text[6 + 129] = '\0';
	refused(text, "longer than 128");
	refused("a.b/c:", "behind the ':'");
	refused("a.b/c:-x", "begins with");
	refused("a.b/c:.x", "begins with");
	refused("a.b/c:a+b", "tag \"a+b\" may only");
	refused("a.b/c:v1/d", "has a '/'");
	refused("a.b/c:bad!@" SHA256, "tag \"bad!\""); /* also when the digest decides */
}

static void test_C4_no_default_registry(void **state)
{
	(void)state;
	refused("model:v1", "has no '/'");
	refused("model", "has no '/'");
	refused("team/model:v1", "\"team\" is not a registry host");
	refused("MYHOST/model:v1",
		"\"MYHOST\" is not a registry host"); /* no dot, no port: our one rule */
	refused("/repo:tag", "registry is missing");
	refused("a.b/", "no repository after \"a.b/\"");
	refused("a.b/:tag", "no repository");
	refused("", "it is empty");
	refused("oci://", "has no '/'");
	refused("a.b/c\td", "a control character");
	refused("a.b/\xc3\xa9", "non-ASCII");
}

static void test_schemes(void **state)
{
	(void)state;
	refused("https://a.b/c:1", "scheme \"https\" is not supported");
	refused("docker://a.b/c:1", "scheme \"docker\"");
	refused("oci://oci://a.b/c:1", "");
}

static void test_docker_hub(void **state)
{
	(void)state;
	check("docker.io/ubuntu", "docker.io", "registry-1.docker.io", "library/ubuntu", "latest",
	      "docker.io/library/ubuntu:latest");
	check("docker.io/ai/llama:8b", "docker.io", "registry-1.docker.io", "ai/llama", "8b",
	      "docker.io/ai/llama:8b");
	check("index.docker.io/x:1", "docker.io", "registry-1.docker.io", "library/x", "1",
	      "docker.io/library/x:1");
	check("registry-1.docker.io/x:1", "registry-1.docker.io", "registry-1.docker.io", "x", "1",
	      "registry-1.docker.io/x:1");
}

static void test_messages_are_clean(void **state)
{
	(void)state;
	struct ref r;
	struct err e = { 0 };

	assert_int_equal(ref_parse("a.b/\x1b[31mred", &r, &e), -1);
	assert_null(strchr(e.msg, '\x1b'));
	assert_non_null(strstr(e.msg, "\\u001b[31mred"));
	assert_int_equal(ref_parse("bad", &r, NULL), -1); /* without a place for the message */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_L44_plain_forms),
		cmocka_unit_test(test_L44_digest_wins_over_tag),
		cmocka_unit_test(test_L46_sha512),
		cmocka_unit_test(test_C1_hosts),
		cmocka_unit_test(test_C1_long_hosts),
		cmocka_unit_test(test_C2_digests),
		cmocka_unit_test(test_C3_repositories),
		cmocka_unit_test(test_C3_long_repository),
		cmocka_unit_test(test_C3_tags),
		cmocka_unit_test(test_C4_no_default_registry),
		cmocka_unit_test(test_schemes),
		cmocka_unit_test(test_docker_hub),
		cmocka_unit_test(test_messages_are_clean),
	};

	return cmocka_run_group_tests_name("ref", tests, NULL, NULL);
}
