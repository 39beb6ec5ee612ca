// SPDX-License-Identifier: Apache-2.0
/*
 * mbedtls/gcm.h over nettle. nettle wants every piece but the last to be whole blocks, Mbed TLS's callers may cut where
 * they like; what is over is kept in `part` until the block is full. Records of TLS come in one piece and take the
 * straight way through.
 */
#include "gcm_alt.h"

#include <stdbool.h>
#include <string.h>

#include <mbedtls/constant_time.h>
#include <mbedtls/gcm.h>
#include <mbedtls/platform_util.h>

/* NIST SP 800-38D 5.2.1.1: at most 2^39 - 256 bits of text, 2^64 - 1 bits of additional data. */
#define TEXT_MAX UINT64_C(0xFFFFFFFE0)
#define AD_MAX (UINT64_MAX / 8)

void mbedtls_gcm_init(mbedtls_gcm_context *ctx)
{
	memset(ctx, 0, sizeof(*ctx));
}

void mbedtls_gcm_free(mbedtls_gcm_context *ctx)
{
	if (ctx)
		mbedtls_platform_zeroize(ctx, sizeof(*ctx));
}

int mbedtls_gcm_setkey(mbedtls_gcm_context *ctx, mbedtls_cipher_id_t cipher, const unsigned char *key,
		       unsigned int keybits)
{
	if (cipher != MBEDTLS_CIPHER_ID_AES)
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	switch (keybits) {
	case 128:
		aes128_set_encrypt_key(&ctx->aes.aes128, key);
		ctx->encrypt = (nettle_cipher_func *)aes128_encrypt;
		break;
	case 192:
		aes192_set_encrypt_key(&ctx->aes.aes192, key);
		ctx->encrypt = (nettle_cipher_func *)aes192_encrypt;
		break;
	case 256:
		aes256_set_encrypt_key(&ctx->aes.aes256, key);
		ctx->encrypt = (nettle_cipher_func *)aes256_encrypt;
		break;
	default:
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	}
	gcm_set_key(&ctx->key, &ctx->aes, ctx->encrypt);
	return 0;
}

int mbedtls_gcm_starts(mbedtls_gcm_context *ctx, int mode, const unsigned char *iv, size_t iv_len)
{
	if (!ctx->encrypt || iv_len == 0 || (uint64_t)iv_len > AD_MAX)
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	if (mode != MBEDTLS_GCM_ENCRYPT && mode != MBEDTLS_GCM_DECRYPT)
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	ctx->mode = mode;
	ctx->ad_len = 0;
	ctx->len = 0;
	gcm_set_iv(&ctx->gcm, &ctx->key, iv_len, iv);
	return 0;
}

int mbedtls_gcm_update_ad(mbedtls_gcm_context *ctx, const unsigned char *add, size_t add_len)
{
	size_t used = ctx->ad_len % 16;
	size_t n;

	if (add_len == 0)
		return 0;
	if (ctx->len != 0 || add_len > AD_MAX - ctx->ad_len)
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	ctx->ad_len += add_len;
	if (used != 0) {
		n = add_len < 16 - used ? add_len : 16 - used;
		memcpy(ctx->part + used, add, n);
		if (used + n < 16)
			return 0;
		gcm_update(&ctx->gcm, &ctx->key, 16, ctx->part);
		add += n;
		add_len -= n;
	}
	n = add_len % 16;
	gcm_update(&ctx->gcm, &ctx->key, add_len - n, add);
	memcpy(ctx->part, add + add_len - n, n);
	return 0;
}

/* The last block of additional data may be short; nettle pads it. After this only text or the tag may follow. */
static void end_ad(mbedtls_gcm_context *ctx)
{
	if (ctx->ad_len % 16 != 0)
		gcm_update(&ctx->gcm, &ctx->key, ctx->ad_len % 16, ctx->part);
}

/*
 * Hashes the n bytes of ciphertext in `part`. gcm_update() is nettle's only public door to GHASH; it is meant for
 * additional data, so the two counters are set aside while it runs.
 */
static void hash_part(mbedtls_gcm_context *ctx, size_t n)
{
	uint64_t auth_size = ctx->gcm.auth_size;
	uint64_t data_size = ctx->gcm.data_size;

	ctx->gcm.auth_size = 0;
	ctx->gcm.data_size = 0;
	gcm_update(&ctx->gcm, &ctx->key, n, ctx->part);
	ctx->gcm.auth_size = auth_size;
	ctx->gcm.data_size = data_size + n;
}

/* The key stream of one block, for text that does not fill it; the counter is the last 32 bits, big endian. */
static void next_stream(mbedtls_gcm_context *ctx)
{
	uint8_t *ctr = ctx->gcm.ctr.b;

	ctx->encrypt(&ctx->aes, 16, ctx->stream, ctr);
	for (int i = 15; i >= 12; i--) {
		if (++ctr[i] != 0)
			break;
	}
}

/* Text within one block, from offset `used` on. */
static void crypt_part(mbedtls_gcm_context *ctx, size_t used, size_t n, uint8_t *dst, const uint8_t *src)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t in = src[i];
		uint8_t out = in ^ ctx->stream[used + i];

		ctx->part[used + i] = ctx->mode == MBEDTLS_GCM_ENCRYPT ? out : in;
		dst[i] = out;
	}
	if (used + n == 16)
		hash_part(ctx, 16);
}

static void crypt_whole(mbedtls_gcm_context *ctx, size_t n, uint8_t *dst, const uint8_t *src)
{
	if (ctx->mode == MBEDTLS_GCM_ENCRYPT)
		gcm_encrypt(&ctx->gcm, &ctx->key, &ctx->aes, ctx->encrypt, n, dst, src);
	else
		gcm_decrypt(&ctx->gcm, &ctx->key, &ctx->aes, ctx->encrypt, n, dst, src);
}

/* nettle writes key stream into dst before it reads src: right for dst == src and for apart, not for dst a little below. */
static void crypt_blocks(mbedtls_gcm_context *ctx, size_t n, uint8_t *dst, const uint8_t *src)
{
	bool overlap = dst < src && (size_t)(src - dst) < n;
	uint8_t copy[256];

	if (!overlap) {
		crypt_whole(ctx, n, dst, src);
		return;
	}
	while (n > 0) {
		size_t step = n < sizeof(copy) ? n : sizeof(copy);

		memcpy(copy, src, step);
		crypt_whole(ctx, step, dst, copy);
		dst += step;
		src += step;
		n -= step;
	}
	mbedtls_platform_zeroize(copy, sizeof(copy));
}

int mbedtls_gcm_update(mbedtls_gcm_context *ctx, const unsigned char *input, size_t input_length,
		       unsigned char *output, size_t output_size, size_t *output_length)
{
	size_t used = ctx->len % 16;
	size_t n;

	if (output_size < input_length)
		return MBEDTLS_ERR_GCM_BUFFER_TOO_SMALL;
	*output_length = input_length;
	if (input_length == 0)
		return 0;
	if (output > input && (size_t)(output - input) < input_length)
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	if (input_length > TEXT_MAX - ctx->len)
		return MBEDTLS_ERR_GCM_BAD_INPUT;

	if (ctx->len == 0)
		end_ad(ctx);
	ctx->len += input_length;
	if (used != 0) {
		n = input_length < 16 - used ? input_length : 16 - used;
		crypt_part(ctx, used, n, output, input);
		output += n;
		input += n;
		input_length -= n;
	}
	n = input_length - input_length % 16;
	if (n > 0) {
		crypt_blocks(ctx, n, output, input);
		output += n;
		input += n;
		input_length -= n;
	}
	if (input_length > 0) {
		next_stream(ctx);
		crypt_part(ctx, 0, input_length, output, input);
	}
	return 0;
}

int mbedtls_gcm_finish(mbedtls_gcm_context *ctx, unsigned char *output, size_t output_size, size_t *output_length,
		       unsigned char *tag, size_t tag_len)
{
	(void)output;
	(void)output_size;
	*output_length = 0;	/* update() holds nothing back */
	if (tag_len < 4 || tag_len > 16)
		return MBEDTLS_ERR_GCM_BAD_INPUT;
	if (ctx->len == 0)
		end_ad(ctx);
	if (ctx->len % 16 != 0)
		hash_part(ctx, ctx->len % 16);
	gcm_digest(&ctx->gcm, &ctx->key, &ctx->aes, ctx->encrypt, tag_len, tag);
	mbedtls_platform_zeroize(ctx->part, sizeof(ctx->part));
	mbedtls_platform_zeroize(ctx->stream, sizeof(ctx->stream));
	return 0;
}

int mbedtls_gcm_crypt_and_tag(mbedtls_gcm_context *ctx, int mode, size_t length, const unsigned char *iv,
			      size_t iv_len, const unsigned char *add, size_t add_len, const unsigned char *input,
			      unsigned char *output, size_t tag_len, unsigned char *tag)
{
	size_t olen;
	int ret;

	ret = mbedtls_gcm_starts(ctx, mode, iv, iv_len);
	if (ret == 0)
		ret = mbedtls_gcm_update_ad(ctx, add, add_len);
	if (ret == 0)
		ret = mbedtls_gcm_update(ctx, input, length, output, length, &olen);
	if (ret == 0)
		ret = mbedtls_gcm_finish(ctx, NULL, 0, &olen, tag, tag_len);
	return ret;
}

int mbedtls_gcm_auth_decrypt(mbedtls_gcm_context *ctx, size_t length, const unsigned char *iv, size_t iv_len,
			     const unsigned char *add, size_t add_len, const unsigned char *tag, size_t tag_len,
			     const unsigned char *input, unsigned char *output)
{
	unsigned char want[16];
	int ret;

	ret = mbedtls_gcm_crypt_and_tag(ctx, MBEDTLS_GCM_DECRYPT, length, iv, iv_len, add, add_len, input, output,
					tag_len, want);
	if (ret != 0)
		return ret;
	if (mbedtls_ct_memcmp(tag, want, tag_len) != 0) {
		mbedtls_platform_zeroize(output, length);
		return MBEDTLS_ERR_GCM_AUTH_FAILED;
	}
	return 0;
}
