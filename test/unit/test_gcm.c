// SPDX-License-Identifier: Apache-2.0
/* crypto/gcm_alt.c against Mbed TLS's own vectors, and against itself in every cut, place and length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <mbedtls/gcm.h>
#include <nettle/gcm.h>

enum { TEXT = 700 };

static const unsigned int key_bits[] = { 128, 192, 256 };

static void fill(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		p[i] = (uint8_t)(seed >> 24);
	}
}

static uint32_t next(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

static void test_self_test(void **state)
{
	(void)state;
	assert_int_equal(mbedtls_gcm_self_test(0), 0);
}

/* nettle's own one-call interface says what is right for lengths and IVs that the vectors leave out. */
static void reference(unsigned int bits, const uint8_t *key, size_t iv_len, const uint8_t *iv, size_t ad_len,
		      const uint8_t *ad, size_t len, uint8_t *dst, const uint8_t *src, uint8_t *tag)
{
	union {
		struct gcm_aes128_ctx k128;
		struct gcm_aes192_ctx k192;
		struct gcm_aes256_ctx k256;
	} c;

#define RUN(n) \
	do { \
		gcm_aes##n##_set_key(&c.k##n, key); \
		gcm_aes##n##_set_iv(&c.k##n, iv_len, iv); \
		gcm_aes##n##_update(&c.k##n, ad_len, ad); \
		gcm_aes##n##_encrypt(&c.k##n, len, dst, src); \
		gcm_aes##n##_digest(&c.k##n, 16, tag); \
	} while (0)
	if (bits == 128)
		RUN(128);
	else if (bits == 192)
		RUN(192);
	else
		RUN(256);
#undef RUN
}

static void test_lengths_and_ivs(void **state)
{
	static const size_t iv_lens[] = { 1, 8, 12, 15, 16, 17, 60, 128 };
	uint8_t key[32], iv[128], ad[80], text[TEXT], want[TEXT], got[TEXT], want_tag[16], tag[16];
	mbedtls_gcm_context ctx;
	uint32_t seed = 7;

	(void)state;
	fill(key, sizeof(key), 1);
	fill(iv, sizeof(iv), 2);
	fill(ad, sizeof(ad), 3);
	fill(text, sizeof(text), 4);
	for (size_t k = 0; k < 3; k++) {
		mbedtls_gcm_init(&ctx);
		assert_int_equal(mbedtls_gcm_setkey(&ctx, MBEDTLS_CIPHER_ID_AES, key, key_bits[k]), 0);
		for (size_t len = 0; len < TEXT; len += len < 70 ? 1 : 37) {
			size_t iv_len = iv_lens[next(&seed) % 8], ad_len = next(&seed) % sizeof(ad);

			reference(key_bits[k], key, iv_len, iv, ad_len, ad, len, want, text, want_tag);
			assert_int_equal(mbedtls_gcm_crypt_and_tag(&ctx, MBEDTLS_GCM_ENCRYPT, len, iv, iv_len, ad,
								   ad_len, text, got, 16, tag), 0);
			assert_memory_equal(got, want, len);
			assert_memory_equal(tag, want_tag, 16);
			/* back, in place */
			assert_int_equal(mbedtls_gcm_auth_decrypt(&ctx, len, iv, iv_len, ad, ad_len, tag, 16, got,
								  got), 0);
			assert_memory_equal(got, text, len);
		}
		mbedtls_gcm_free(&ctx);
	}
}

/* The same text in random pieces, output at once for every byte put in. */
static void test_pieces(void **state)
{
	uint8_t key[32], iv[12], ad[80], text[TEXT], want[TEXT], got[TEXT], want_tag[16], tag[16];
	mbedtls_gcm_context ctx;
	uint32_t seed = 11;
	size_t olen;

	(void)state;
	fill(key, sizeof(key), 5);
	fill(iv, sizeof(iv), 6);
	fill(ad, sizeof(ad), 7);
	fill(text, sizeof(text), 8);
	mbedtls_gcm_init(&ctx);
	assert_int_equal(mbedtls_gcm_setkey(&ctx, MBEDTLS_CIPHER_ID_AES, key, 256), 0);
	for (int round = 0; round < 400; round++) {
		size_t ad_len = next(&seed) % sizeof(ad), len = next(&seed) % TEXT, most = 1 + next(&seed) % 50;
		int decrypt = round % 2;
		const uint8_t *in = decrypt ? want : text;

		reference(256, key, 12, iv, ad_len, ad, len, want, text, want_tag);
		assert_int_equal(mbedtls_gcm_starts(&ctx, decrypt ? MBEDTLS_GCM_DECRYPT : MBEDTLS_GCM_ENCRYPT, iv, 12),
				 0);
		for (size_t at = 0, n; at < ad_len; at += n) {
			n = next(&seed) % (most + 1);
			n = n < ad_len - at ? n : ad_len - at;
			assert_int_equal(mbedtls_gcm_update_ad(&ctx, ad + at, n), 0);
		}
		for (size_t at = 0, n; at < len; at += n) {
			n = next(&seed) % (most + 1);
			n = n < len - at ? n : len - at;
			assert_int_equal(mbedtls_gcm_update(&ctx, in + at, n, got + at, n, &olen), 0);
			assert_int_equal(olen, n);
		}
		assert_int_equal(mbedtls_gcm_finish(&ctx, NULL, 0, &olen, tag, 16), 0);
		assert_int_equal(olen, 0);
		assert_memory_equal(got, decrypt ? text : want, len);
		assert_memory_equal(tag, want_tag, 16);
	}
	mbedtls_gcm_free(&ctx);
}

/* Output a few bytes below the input in the same buffer is allowed; above it is not. */
static void test_overlap(void **state)
{
	uint8_t key[16] = { 1 }, iv[12] = { 2 }, text[TEXT], want[TEXT], buf[TEXT + 40], want_tag[16], tag[16];
	mbedtls_gcm_context ctx;
	size_t olen;

	(void)state;
	fill(text, sizeof(text), 9);
	mbedtls_gcm_init(&ctx);
	assert_int_equal(mbedtls_gcm_setkey(&ctx, MBEDTLS_CIPHER_ID_AES, key, 128), 0);
	reference(128, key, 12, iv, 0, iv, TEXT, want, text, want_tag);
	for (size_t below = 0; below <= 40; below += 8) {
		memcpy(buf + below, text, TEXT);
		assert_int_equal(mbedtls_gcm_crypt_and_tag(&ctx, MBEDTLS_GCM_ENCRYPT, TEXT, iv, 12, NULL, 0, buf + below,
							   buf, 16, tag), 0);
		assert_memory_equal(buf, want, TEXT);
		assert_memory_equal(tag, want_tag, 16);
	}
	assert_int_equal(mbedtls_gcm_starts(&ctx, MBEDTLS_GCM_ENCRYPT, iv, 12), 0);
	assert_int_equal(mbedtls_gcm_update(&ctx, buf, 64, buf + 8, 64, &olen), MBEDTLS_ERR_GCM_BAD_INPUT);
	mbedtls_gcm_free(&ctx);
}

static void test_wrong_tag(void **state)
{
	uint8_t key[16] = { 1 }, iv[12] = { 2 }, text[100] = { 3 }, out[100], zero[100] = { 0 }, tag[16];
	mbedtls_gcm_context ctx;

	(void)state;
	mbedtls_gcm_init(&ctx);
	assert_int_equal(mbedtls_gcm_setkey(&ctx, MBEDTLS_CIPHER_ID_AES, key, 128), 0);
	assert_int_equal(mbedtls_gcm_crypt_and_tag(&ctx, MBEDTLS_GCM_ENCRYPT, 100, iv, 12, NULL, 0, text, text, 16, tag),
			 0);
	for (int bit = 0; bit < 128; bit++) {
		tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
		memset(out, 0xff, sizeof(out));
		assert_int_equal(mbedtls_gcm_auth_decrypt(&ctx, 100, iv, 12, NULL, 0, tag, 16, text, out),
				 MBEDTLS_ERR_GCM_AUTH_FAILED);
		assert_memory_equal(out, zero, 100);	/* nothing unauthenticated is left behind */
		tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(mbedtls_gcm_auth_decrypt(&ctx, 100, iv, 12, NULL, 0, tag, 4, text, out), 0);
	mbedtls_gcm_free(&ctx);
}

static void test_bad_input(void **state)
{
	uint8_t key[32] = { 1 }, iv[12] = { 2 }, text[32] = { 3 }, tag[16];
	mbedtls_gcm_context ctx;
	size_t olen;

	(void)state;
	mbedtls_gcm_init(&ctx);
	assert_int_equal(mbedtls_gcm_starts(&ctx, MBEDTLS_GCM_ENCRYPT, iv, 12), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_setkey(&ctx, MBEDTLS_CIPHER_ID_CAMELLIA, key, 128), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_setkey(&ctx, MBEDTLS_CIPHER_ID_AES, key, 64), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_setkey(&ctx, MBEDTLS_CIPHER_ID_AES, key, 192), 0);
	assert_int_equal(mbedtls_gcm_starts(&ctx, MBEDTLS_GCM_ENCRYPT, iv, 0), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_starts(&ctx, 7, iv, 12), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_starts(&ctx, MBEDTLS_GCM_ENCRYPT, iv, 12), 0);
	assert_int_equal(mbedtls_gcm_update(&ctx, text, 32, text, 31, &olen), MBEDTLS_ERR_GCM_BUFFER_TOO_SMALL);
	assert_int_equal(mbedtls_gcm_update(&ctx, text, 32, text, 32, &olen), 0);
	assert_int_equal(mbedtls_gcm_update_ad(&ctx, text, 1), MBEDTLS_ERR_GCM_BAD_INPUT);
	ctx.len = UINT64_C(0xFFFFFFFE0) - 16;	/* one block below the limit of the standard */
	assert_int_equal(mbedtls_gcm_update(&ctx, text, 17, text, 32, &olen), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_finish(&ctx, NULL, 0, &olen, tag, 3), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_finish(&ctx, NULL, 0, &olen, tag, 17), MBEDTLS_ERR_GCM_BAD_INPUT);
	mbedtls_gcm_free(&ctx);
	mbedtls_gcm_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_self_test),
		cmocka_unit_test(test_lengths_and_ivs),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_wrong_tag),
		cmocka_unit_test(test_bad_input),
	};

	return cmocka_run_group_tests_name("gcm", tests, NULL, NULL);
}
