// SPDX-License-Identifier: Apache-2.0
/* The root certificates linked into the binary: each one parses, is an authority, and the lengths add up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <mbedtls/x509_crt.h>
#include <psa/crypto.h>

#include "ca_bundle.h"

static void test_every_root_parses(void **state)
{
	mbedtls_x509_crt chain;
	size_t at = 0, n = 0, len;

	(void)state;
	assert_int_equal(psa_crypto_init(), PSA_SUCCESS);
	mbedtls_x509_crt_init(&chain);
	while (at < ca_bundle_der_len) {
		const unsigned char *p = ca_bundle_der + at;

		assert_true(ca_bundle_der_len - at > 3);
		len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
		assert_true(len > 200 && len <= ca_bundle_der_len - at - 3);
		assert_int_equal(mbedtls_x509_crt_parse_der_nocopy(&chain, p + 3, len), 0);
		at += 3 + len;
		n++;
	}
	assert_int_equal(at, ca_bundle_der_len);
	assert_in_range(n, 100, 300);
	for (const mbedtls_x509_crt *c = &chain; c; c = c->next)
		assert_int_equal(mbedtls_x509_crt_get_ca_istrue(c), 1);
	mbedtls_x509_crt_free(&chain);
	mbedtls_psa_crypto_free();
}

/* A root that Mozilla has long trusted is there; one that it dates out (Entrust, 2024) is not. */
static void test_trust_is_mozillas(void **state)
{
	bool isrg = false, entrust = false;
	static const char good[] = "ISRG Root X1", bad[] = "Entrust Root Certification Authority - G2";

	(void)state;
	for (size_t i = 0; i + sizeof(bad) < ca_bundle_der_len; i++) {
		isrg |= memcmp(ca_bundle_der + i, good, sizeof(good) - 1) == 0;
		entrust |= memcmp(ca_bundle_der + i, bad, sizeof(bad) - 1) == 0;
	}
	assert_true(isrg);
	assert_false(entrust);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_root_parses),
		cmocka_unit_test(test_trust_is_mozillas),
	};

	return cmocka_run_group_tests_name("ca_bundle", tests, NULL, NULL);
}
