// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "verify.h"

#define EMPTY256 "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC512 "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a" \
	"2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"

static void digests_round_trip(void **state)
{
	struct digest d, c;
	char s[DIGEST_STR_MAX];

	(void)state;
	assert_true(digest_parse(str_of(EMPTY256), &d));
	assert_string_equal(digest_format(&d, ':', s), EMPTY256);
	assert_memory_equal(digest_format(&d, '-', s), "sha256-e3b0", 11);
	digest_of(DIGEST_SHA256, "", 0, &c);
	assert_true(digest_equal(&d, &c));
	assert_true(digest_parse(str_of(ABC512), &d));
	assert_string_equal(digest_format(&d, ':', s), ABC512);
	digest_of(DIGEST_SHA512, "abc", 3, &c);
	assert_true(digest_equal(&d, &c));
	c.bytes[63] ^= 1;
	assert_false(digest_equal(&d, &c));
	assert_false(digest_equal(&(struct digest){ 0 }, &(struct digest){ 0 }));
}

static void digests_refused(void **state)
{
	static const char *const bad[] = {
		"", "sha256:", "sha256:../../x", "md5:d41d8cd98f00b204e9800998ecf8427e", "e3b0c442",
		"sha256:E3B0C44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
		"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b8555",
		"sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		" sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
		"SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"sha256:g3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	};
	struct digest d;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (digest_parse(str_of(bad[i]), &d))
			fail_msg("accepted: %s", bad[i]);
}

/* A hash that is put down at any byte and taken up in another process gives the same digest. */
static void midstates(void **state)
{
	uint8_t data[1000], st[HASHER_STATE_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	for (enum digest_alg alg = DIGEST_SHA256; alg <= DIGEST_SHA512; alg++) {
		struct digest whole, resumed;
		digest_of(alg, data, sizeof(data), &whole);
		for (size_t cut = 0; cut <= sizeof(data); cut++) {
			struct hasher a, b;
			hasher_init(&a, alg);
			hasher_update(&a, data, cut);
			uint64_t at = hasher_export(&a, st);
			assert_true(at <= cut && cut - at < 128);
			hasher_import(&b, alg, at, st);
			hasher_update(&b, data + at, sizeof(data) - at);
			hasher_final(&b, &resumed);
			assert_true(digest_equal(&whole, &resumed));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(digests_round_trip),
		cmocka_unit_test(digests_refused),
		cmocka_unit_test(midstates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
