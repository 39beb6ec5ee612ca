// SPDX-License-Identifier: Apache-2.0
#include "verify.h"

#include <string.h>

static const struct {
	const char *name;
	size_t len;
} algs[] = {
	[DIGEST_NONE] = { "none", 0 },
	[DIGEST_SHA256] = { "sha256", SHA256_DIGEST_SIZE },
	[DIGEST_SHA512] = { "sha512", SHA512_DIGEST_SIZE },
};

size_t digest_len(enum digest_alg alg)
{
	return algs[alg].len;
}

/* Lower case only: image-spec descriptor.md, "the hash MUST be lower case hex". */
static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

bool digest_parse(struct str s, struct digest *ret)
{
	for (enum digest_alg alg = DIGEST_SHA256; alg <= DIGEST_SHA512; alg++) {
		size_t name = strlen(algs[alg].name), len = algs[alg].len;
		struct digest d = { .alg = alg };

		if (s.n != name + 1 + 2 * len || memcmp(s.p, algs[alg].name, name) != 0 ||
		    s.p[name] != ':')
			continue;
		for (size_t i = 0; i < len; i++) {
			int hi = nibble(s.p[name + 1 + 2 * i]);
			int lo = nibble(s.p[name + 2 + 2 * i]);
			if (hi < 0 || lo < 0)
				return false;
			d.bytes[i] = (uint8_t)(hi << 4 | lo);
		}
		*ret = d;
		return true;
	}
	return false;
}

const char *digest_format(const struct digest *d, char sep, char ret[static DIGEST_STR_MAX])
{
	static const char hex[] = "0123456789abcdef";
	size_t n = strlen(algs[d->alg].name);

	memcpy(ret, algs[d->alg].name, n);
	ret[n++] = sep;
	for (size_t i = 0; i < algs[d->alg].len; i++) {
		ret[n++] = hex[d->bytes[i] >> 4];
		ret[n++] = hex[d->bytes[i] & 15];
	}
	ret[n] = '\0';
	return ret;
}

bool digest_equal(const struct digest *expected, const struct digest *computed)
{
	return expected->alg != DIGEST_NONE && expected->alg == computed->alg &&
	       memcmp(expected->bytes, computed->bytes, digest_len(expected->alg)) == 0;
}

void hasher_init(struct hasher *h, enum digest_alg alg)
{
	h->alg = alg;
	if (alg == DIGEST_SHA512)
		sha512_init(&h->u.sha512);
	else
		sha256_init(&h->u.sha256);
}

void hasher_update(struct hasher *h, const void *p, size_t n)
{
	if (h->alg == DIGEST_SHA512)
		sha512_update(&h->u.sha512, n, p);
	else
		sha256_update(&h->u.sha256, n, p);
}

void hasher_final(struct hasher *h, struct digest *ret)
{
	struct digest d = { .alg = h->alg };

	if (h->alg == DIGEST_SHA512)
		sha512_digest(&h->u.sha512, SHA512_DIGEST_SIZE, d.bytes);
	else
		sha256_digest(&h->u.sha256, SHA256_DIGEST_SIZE, d.bytes);
	*ret = d;
}

/* Eight words of w bytes each, big-endian, so that a journal can be read on another machine. */
uint64_t hasher_export(const struct hasher *h, uint8_t ret[static HASHER_STATE_MAX])
{
	size_t w = h->alg == DIGEST_SHA512 ? 8 : 4;

	memset(ret, 0, HASHER_STATE_MAX);
	for (size_t i = 0; i < 8; i++) {
		uint64_t v = w == 8 ? h->u.sha512.state[i] : h->u.sha256.state[i];
		for (size_t j = 0; j < w; j++)
			ret[i * w + j] = (uint8_t)(v >> (8 * (w - 1 - j)));
	}
	return w == 8 ? h->u.sha512.count_low * SHA512_BLOCK_SIZE :
			h->u.sha256.count * SHA256_BLOCK_SIZE;
}

void hasher_import(struct hasher *h, enum digest_alg alg, uint64_t hashed,
		   const uint8_t state[static HASHER_STATE_MAX])
{
	size_t w = alg == DIGEST_SHA512 ? 8 : 4;

	hasher_init(h, alg);
	for (size_t i = 0; i < 8; i++) {
		uint64_t v = 0;
		for (size_t j = 0; j < w; j++)
			v = v << 8 | state[i * w + j];
		if (w == 8)
			h->u.sha512.state[i] = v;
		else
			h->u.sha256.state[i] = (uint32_t)v;
	}
	if (w == 8)
		h->u.sha512.count_low = hashed / SHA512_BLOCK_SIZE;
	else
		h->u.sha256.count = hashed / SHA256_BLOCK_SIZE;
}

void digest_of(enum digest_alg alg, const void *p, size_t n, struct digest *ret)
{
	struct hasher h;

	hasher_init(&h, alg);
	hasher_update(&h, p, n);
	hasher_final(&h, ret);
}
