// SPDX-License-Identifier: Apache-2.0
/*
 * Digests and streaming hashes over given bytes; no I/O. Row 1.
 *
 * Digest strings follow the OCI image spec, "Digests": only sha256 and sha512 with
 * lower-case hex of the exact length are accepted. A digest becomes part of URLs and file
 * names only through digest_format, never as the string that came in.
 */
#ifndef FETCHER_VERIFY_H
#define FETCHER_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nettle/sha2.h>

#include "buf.h"
#include "log.h"

enum digest_alg { DIGEST_NONE = 0, DIGEST_SHA256, DIGEST_SHA512 };

struct digest {
	enum digest_alg alg;
	uint8_t bytes[64];	/* 32 used by sha256; the rest is zero */
};

/* "sha512:" + 128 hex + NUL */
#define DIGEST_STR_MAX 136

/* false: not a supported, well-formed digest. ret untouched then. */
bool digest_parse(struct str s, struct digest *ret);
/* "sha256:<hex>" with sep ':', or "sha256-<hex>" for file names with sep '-'. Returns ret. */
const char *digest_format(const struct digest *d, char sep, char ret[static DIGEST_STR_MAX]);
bool digest_equal(const struct digest *expected, const struct digest *computed);
size_t digest_len(enum digest_alg alg);	/* bytes */

struct hasher {
	enum digest_alg alg;
	union {
		struct sha256_ctx sha256;
		struct sha512_ctx sha512;
	} u;
};

#define HASHER_STATE_MAX 64	/* bytes of an exported chaining value */

void hasher_init(struct hasher *h, enum digest_alg alg);
void hasher_update(struct hasher *h, const void *p, size_t n);
/* h must be initialised again afterwards. */
void hasher_final(struct hasher *h, struct digest *ret);
/*
 * The chaining value of the whole blocks hashed so far, as big-endian words. Returns how many bytes
 * those are: what came after them must be hashed again on top of an import.
 */
uint64_t hasher_export(const struct hasher *h, uint8_t ret[static HASHER_STATE_MAX]);
/* hashed: as hasher_export returned it. */
void hasher_import(struct hasher *h, enum digest_alg alg, uint64_t hashed,
		   const uint8_t state[static HASHER_STATE_MAX]);
/* One-shot. */
void digest_of(enum digest_alg alg, const void *p, size_t n, struct digest *ret);

#endif
