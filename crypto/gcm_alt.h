// SPDX-License-Identifier: Apache-2.0
/*
 * The context behind Mbed TLS's GCM interface when MBEDTLS_GCM_ALT is on; mbedtls/gcm.h includes this page.
 * GHASH and AES are nettle's, chosen at run time for the CPU (AES-NI and PCLMUL, Armv8 crypto extensions, else C).
 * The functions are those of mbedtls/gcm.h with the contracts written there. One context belongs to one thread at a
 * time. AES only: another cipher is refused by mbedtls_gcm_setkey().
 */
#ifndef FETCHER_GCM_ALT_H
#define FETCHER_GCM_ALT_H

#include <stddef.h>
#include <stdint.h>

#include <nettle/aes.h>
#include <nettle/gcm.h>

typedef struct mbedtls_gcm_context {	/* the name is Mbed TLS's */
	union {
		struct aes128_ctx aes128;
		struct aes192_ctx aes192;
		struct aes256_ctx aes256;
	} aes;
	nettle_cipher_func *encrypt;	/* of `aes`; NULL until a key is set */
	struct gcm_key key;
	struct gcm_ctx gcm;
	int mode;			/* MBEDTLS_GCM_ENCRYPT or MBEDTLS_GCM_DECRYPT */
	uint64_t ad_len;		/* bytes of additional data so far */
	uint64_t len;			/* bytes of text so far */
	uint8_t part[16];		/* an unfinished block: additional data while len is 0, else ciphertext */
	uint8_t stream[16];		/* key stream of the unfinished block of text */
} mbedtls_gcm_context;

#endif
