// SPDX-License-Identifier: Apache-2.0
/*
 * Decoders of unpack.h: zstd, gzip (ISA-L), none. RFC 1952 (members, trailer), RFC 8878 (frames,
 * skippable frames).
 */
#include "unpack_internal.h"

#include <crc.h>
#include <igzip_lib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

/* What one step brings: the writer's pieces come of it. */
size_t unpack_piece_bytes = MIB;	/* whole blocks */

#define MAGIC_MAX 6
#define STALLED_MAX 8

struct decoder {
	struct unpack_source src;
	enum layout_codec codec;
	const uint8_t *in;		/* of the source's block */
	size_t in_n;
	uint8_t head[MAGIC_MAX];	/* the first bytes, where they came in smaller blocks */
	const uint8_t *later;		/* what stands behind head */
	size_t later_n;
	bool in_end;			/* the source has no more */
	uint64_t in_total, out_total;
	uint8_t *out;			/* of the decoders */
	size_t out_size;		/* whole blocks */
	uint8_t carry[TAR_BLOCK];	/* none: bytes that do not fill a block yet */
	size_t n_carry;
	bool in_stream;			/* inside a frame or member */
	bool any;			/* at least one has begun */
	bool full; /* the last step filled its buffer: more may be waiting inside */
	unsigned stalled;		/* calls of the inflater that moved nothing */
	ZSTD_DCtx *zstd;
	struct inflate_state *gzip;
	uint32_t member_crc, member_n;	/* of the member's header or output so far */
};

/* --- input --- */

/* The next block of the source, when the last one is used up. */
static int fill(struct decoder *d, struct err *e)
{
	const void *p = NULL;
	size_t n = 0;

	if (d->in_n || d->in_end)
		return 0;
	if (d->later_n) {
		d->in = d->later;
		d->in_n = d->later_n;
		d->later_n = 0;
		return 0;
	}
	if (d->src.read(d->src.arg, &p, &n, e))
		return -1;
	d->in = p;
	d->in_n = n;
	d->in_end = n == 0;
	if (!u64_add(d->in_total, n, &d->in_total))
		return err_set(e, CODE_INTERNAL, "layer without end");
	return 0;
}

static const char *magic_name(const uint8_t *p, size_t n)
{
	static const struct {
		const char *name;
		uint8_t bytes[MAGIC_MAX];
		size_t n;
	} magics[] = {
		{ "gzip", { 0x1f, 0x8b }, 2 },
		{ "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4 },
		{ "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6 },
		{ "lz4", { 0x04, 0x22, 0x4d, 0x18 }, 4 },
		{ "zip", { 'P', 'K', 3, 4 }, 4 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		if (n >= magics[i].n && memcmp(p, magics[i].bytes, magics[i].n) == 0)
			return magics[i].name;
	/* RFC 8878 3.1.2: a skippable frame may come first. */
	if (n >= 4 && (p[0] & 0xf0) == 0x50 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18)
		return "zstd";
	return NULL;
}

/* Brings the first bytes together, also where the source gives them one by one. */
static int gather_head(struct decoder *d, struct err *e)
{
	size_t n = 0;

	if (fill(d, e))
		return -1;
	if (d->in_n >= MAGIC_MAX || d->in_end)
		return 0;
	while (n < MAGIC_MAX && !d->in_end) {
		size_t k = MIN(d->in_n, MAGIC_MAX - n);

		memcpy(d->head + n, d->in, k);
		n += k;
		d->in += k;
		d->in_n -= k;
		if (n < MAGIC_MAX && fill(d, e))
			return -1;
	}
	d->later = d->in;
	d->later_n = d->in_n;
	d->in = d->head;
	d->in_n = n;
	return 0;
}

/* The suffix of the media type is confirmed by the first bytes. 1 = they are those of another format: no damage makes these. */
static int check_magic(struct decoder *d, struct err *e)
{
	static const char *const names[] = {
		[CODEC_NONE] = "tar", [CODEC_GZIP] = "gzip", [CODEC_ZSTD] = "zstd",
	};
	const char *expected = names[d->codec], *found;

	if (gather_head(d, e))
		return -1;
	found = magic_name(d->in, d->in_n);
	if (d->in_n == 0 || (d->codec == CODEC_NONE && !found) ||
	    (found && strcmp(found, expected) == 0))
		return 0;
	if (found) {
		err_set(e, CODE_UNSUPPORTED, "the layer is %s by its media type, but %s by its first bytes",
			expected, found);
		return 1;
	}
	return err_set(e, CODE_UNSUPPORTED,
		       "the layer is %s by its media type, but its first bytes "
		       "(%02x%02x...) are those of something else",
		       expected, d->in[0], d->in_n > 1 ? d->in[1] : 0);
}

/* --- decoders --- */

static int truncated(const char *what, struct err *e)
{
	return err_set(e, CODE_INTEGRITY, "the %s data of the layer end too early", what);
}

static int zstd_error(size_t rc, struct err *e)
{
	switch (ZSTD_getErrorCode(rc)) {
	case ZSTD_error_frameParameter_windowTooLarge:
		return err_set(e, CODE_UNSUPPORTED, "the layer's zstd window is larger than %u MiB",
			       1U << (LIMIT_ZSTD_WINDOW_LOG - 20));
	case ZSTD_error_dictionary_wrong:
		return err_set(e, CODE_UNSUPPORTED,
			       "the layer was compressed with a zstd dictionary");
	case ZSTD_error_memory_allocation:
		return err_oom(e);
	case ZSTD_error_prefix_unknown:
		return err_set(e, CODE_INTEGRITY,
			       "something that is no zstd frame follows in the layer");
	default:
		return err_set(e, CODE_INTEGRITY, "the layer's zstd data are damaged: %s",
			       ZSTD_getErrorName(rc));
	}
}

static int zstd_start(struct decoder *d, struct err *e)
{
	d->zstd = ZSTD_createDCtx();
	if (!d->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax,
							    LIMIT_ZSTD_WINDOW_LOG)))
		return err_oom(e);
	return 0;
}

/* Fills out as far as the source goes. */
static int zstd_step(struct decoder *d, size_t *ret_n, struct err *e)
{
	ZSTD_outBuffer out = { d->out, d->out_size, 0 };

	while (out.pos < out.size) {
		if (!d->full && fill(d, e))
			return -1;
		if (!d->full && d->in_end)
			break;
		ZSTD_inBuffer in = { d->in, d->in_n, 0 };
		size_t rc = ZSTD_decompressStream(d->zstd, &out, &in);
		d->in += in.pos;
		d->in_n -= in.pos;
		if (ZSTD_isError(rc))
			return zstd_error(rc, e);
		d->full = out.pos == out.size;
		/* A call that has nothing to do says how many bytes a new frame's header needs. */
		if (in.pos || out.pos)
			d->in_stream = rc != 0;
		d->any = true;
	}
	if (out.pos < out.size && (d->in_stream || !d->any))
		return truncated("zstd", e);
	*ret_n = out.pos;
	return 0;
}

static int gzip_start(struct decoder *d, struct err *e)
{
	d->gzip = malloc(sizeof(*d->gzip));
	return d->gzip ? 0 : err_oom(e);
}

static int gzip_damaged(struct err *e)
{
	return err_set(e, CODE_INTEGRITY, "the layer's gzip data are damaged");
}

/* n bytes of a member's header or trailer; with p NULL they are skipped. */
static int gzip_take(struct decoder *d, uint8_t *p, size_t n, struct err *e)
{
	while (n) {
		if (fill(d, e))
			return -1;
		if (d->in_end)
			return truncated("gzip", e);
		size_t k = MIN(n, d->in_n);
		d->member_crc = crc32_gzip_refl(d->member_crc, d->in, k);
		if (p) {
			memcpy(p, d->in, k);
			p += k;
		}
		d->in += k;
		d->in_n -= k;
		n -= k;
	}
	return 0;
}

static int gzip_skip_text(struct decoder *d, struct err *e)
{
	uint8_t c;

	do
		if (gzip_take(d, &c, 1, e))
			return -1;
	while (c);
	return 0;
}

/*
 * RFC 1952 2.3. ISA-L could read headers as well, but only those that come in one piece: what it
 * knows of their flags it forgets from call to call.
 */
static int gzip_header(struct decoder *d, struct err *e)
{
	enum { FHCRC = 2, FEXTRA = 4, FNAME = 8, FCOMMENT = 16, RESERVED = 0xe0 };
	uint8_t h[10], n[2];
	uint32_t crc;

	d->member_crc = 0;
	if (gzip_take(d, h, 2, e))
		return -1;
	if (h[0] != 0x1f || h[1] != 0x8b)
		return err_set(e, CODE_INTEGRITY, "something follows the gzip data of the layer");
	if (gzip_take(d, h + 2, sizeof(h) - 2, e))
		return -1;
	if (h[2] != 8 || (h[3] & RESERVED))
		return err_set(e, CODE_UNSUPPORTED, "the layer's gzip data use an unknown method");
	if (h[3] & FEXTRA && (gzip_take(d, n, 2, e) ||
			      gzip_take(d, NULL, (size_t)n[0] | (size_t)n[1] << 8, e)))
		return -1;
	if ((h[3] & FNAME && gzip_skip_text(d, e)) || (h[3] & FCOMMENT && gzip_skip_text(d, e)))
		return -1;
	crc = d->member_crc;
	if (h[3] & FHCRC && gzip_take(d, n, 2, e))
		return -1;
	if (h[3] & FHCRC && (crc & 0xffff) != (n[0] | (uint32_t)n[1] << 8))
		return err_set(e, CODE_INTEGRITY, "the CRC of a gzip header in the layer is wrong");
	isal_inflate_init(d->gzip);
	d->in_stream = true;
	d->any = true;
	d->member_crc = d->member_n = 0;
	return 0;
}

/*
 * CRC and length of what came out. The inflater may have taken some of it in already: whole bytes,
 * low ones first.
 */
static int gzip_trailer(struct decoder *d, struct err *e)
{
	uint64_t ahead = d->gzip->read_in >> (d->gzip->read_in_length & 7), le = 0;
	size_t n = d->gzip->read_in_length > 0 ? (size_t)d->gzip->read_in_length / 8 : 0;
	uint32_t crc = d->member_crc;
	uint8_t t[8];

	if (n > sizeof(t))
		return gzip_damaged(e);
	for (size_t i = 0; i < n; i++)
		t[i] = (uint8_t)(ahead >> (8 * i));
	if (gzip_take(d, t + n, sizeof(t) - n, e))
		return -1;
	for (size_t i = 0; i < sizeof(t); i++)
		le |= (uint64_t)t[i] << (8 * i);
	d->in_stream = false;
	if (le != ((uint64_t)d->member_n << 32 | crc))
		return err_set(e, CODE_INTEGRITY,
			       "the CRC or length at the end of the layer's gzip data is wrong");
	return 0;
}

/* Runs the inflater once. *ret_n: what it brought. */
static int gzip_inflate(struct decoder *d, uint8_t *out, size_t room, size_t *ret_n, struct err *e)
{
	size_t n = MIN(d->in_n, (size_t)MIB);
	int rc;

	d->gzip->next_in = (uint8_t *)(uintptr_t)d->in;
	d->gzip->avail_in = (uint32_t)n;
	d->gzip->next_out = out;
	d->gzip->avail_out = (uint32_t)room;
	rc = isal_inflate(d->gzip);
	/* After an error its counts mean nothing. */
	if ((rc != ISAL_DECOMP_OK && rc != ISAL_END_INPUT) || d->gzip->avail_in > n ||
	    d->gzip->avail_out > room)
		return gzip_damaged(e);
	n -= d->gzip->avail_in;
	d->in += n;
	d->in_n -= n;
	*ret_n = room - d->gzip->avail_out;
	d->member_crc = crc32_gzip_refl(d->member_crc, out, *ret_n);
	d->member_n += (uint32_t)*ret_n;
	d->stalled = n || *ret_n ? 0 : d->stalled + 1;
	return d->stalled > STALLED_MAX ? gzip_damaged(e) : 0;
}

/* RFC 1952 2.2: members follow each other without anything between. */
static int gzip_step(struct decoder *d, size_t *ret_n, struct err *e)
{
	size_t n = 0, k = 0;

	while (n < d->out_size) {
		if (!d->full && fill(d, e))
			return -1;
		if (!d->full && d->in_end)
			break;
		if (!d->in_stream && gzip_header(d, e))
			return -1;
		if (gzip_inflate(d, d->out + n, d->out_size - n, &k, e))
			return -1;
		n += k;
		d->full = n == d->out_size;
		if (d->gzip->block_state != ISAL_BLOCK_FINISH)
			continue;
		if (gzip_trailer(d, e))
			return -1;
		d->full = false;
	}
	if (n < d->out_size && (d->in_stream || !d->any))
		return truncated("gzip", e);
	*ret_n = n;
	return 0;
}

/* Whole blocks straight from the source's memory; what is left over is put together in carry. */
static int none_step(struct decoder *d, const uint8_t **ret, size_t *ret_n, struct err *e)
{
	size_t k;

	if (fill(d, e))
		return -1;
	if (d->n_carry == 0 && d->in_n >= TAR_BLOCK) {
		*ret = d->in;
		*ret_n = d->in_n - d->in_n % TAR_BLOCK;
		d->in += *ret_n;
		d->in_n -= *ret_n;
		return 0;
	}
	while (d->n_carry < TAR_BLOCK && !d->in_end) {
		k = MIN(d->in_n, TAR_BLOCK - d->n_carry);
		memcpy(d->carry + d->n_carry, d->in, k);
		d->n_carry += k;
		d->in += k;
		d->in_n -= k;
		if (d->n_carry < TAR_BLOCK && fill(d, e))
			return -1;
	}
	*ret = d->carry;
	*ret_n = d->n_carry;
	d->n_carry = 0;
	return 0;
}

/* --- interface --- */

int decoder_open(struct decoder **ret, const struct unpack_source *src, enum layout_codec codec,
		 uint64_t offset, struct err *e)
{
	_cleanup_decoder_ struct decoder *d = calloc(1, sizeof(*d));
	int rc = 0;

	if (!d)
		return err_oom(e);
	d->src = *src;
	d->codec = codec;
	d->in_total = offset;
	if (offset == 0 && (rc = check_magic(d, e)))
		return rc;
	if (codec != CODEC_NONE) {
		d->out_size = unpack_piece_bytes;
		d->out = malloc(d->out_size);
		if (!d->out)
			return err_oom(e);
		rc = codec == CODEC_ZSTD ? zstd_start(d, e) : gzip_start(d, e);
	}
	if (rc)
		return -1;
	*ret = steal_ptr(&d);
	return 0;
}

void decoder_free(struct decoder *d)
{
	if (!d)
		return;
	ZSTD_freeDCtx(d->zstd);
	free(d->gzip);
	free(d->out);
	free(d);
}

uint64_t decoder_in(const struct decoder *d)
{
	return d->in_total;
}

int decoder_next(struct decoder *d, const uint8_t **ret, size_t *ret_n, struct err *e)
{
	if (d->codec == CODEC_NONE)
		return none_step(d, ret, ret_n, e);
	*ret = d->out;
	if (d->codec == CODEC_ZSTD ? zstd_step(d, ret_n, e) : gzip_step(d, ret_n, e))
		return -1;
	d->out_total += *ret_n;
	if (d->out_total > LIMIT_EXPANSION_FLOOR && d->out_total / LIMIT_EXPANSION > d->in_total)
		return err_set(e, CODE_UNSAFE, "the layer unpacks to more than %d times its size",
			       LIMIT_EXPANSION);
	return 0;
}

int decoder_raw(struct decoder *d, uint64_t max, const uint8_t **ret, size_t *ret_n, struct err *e)
{
	if (fill(d, e))
		return -1;
	*ret = d->in;
	*ret_n = (size_t)MIN((uint64_t)d->in_n, max);
	d->in += *ret_n;
	d->in_n -= *ret_n;
	return 0;
}
