// SPDX-License-Identifier: Apache-2.0
/*
 * Memory that held a password or a token is overwritten before it is freed. Row 0, header only;
 * calls json. (Best effort: what a library or realloc copied elsewhere is out of reach.)
 */
#ifndef FETCHER_SECRET_H
#define FETCHER_SECRET_H

#include <string.h>

#include "json.h"

static inline void secret_free(char *s)
{
	if (!s)
		return;
	explicit_bzero(s, strlen(s));
	free(s);
}

static inline void secret_cleanup_fn(char **s)
{
	secret_free(*s);
}
#define _cleanup_secret_ __attribute__((cleanup(secret_cleanup_fn)))

static inline void secret_buf_release(struct buf *b)
{
	if (b->data)
		explicit_bzero(b->data, b->cap ? b->cap : b->len);
	buf_release(b);
}
#define _cleanup_secret_buf_ __attribute__((cleanup(secret_buf_release)))

/*
 * Overwrites all strings of a document that is about to be released; depth is bounded by
 * json_parse.
 */
static inline void secret_wipe_json(yyjson_val *v)
{
	size_t i, max;
	yyjson_val *k, *c;

	if (yyjson_is_str(v)) {
		explicit_bzero((void *)(uintptr_t)yyjson_get_str(v), yyjson_get_len(v));
	} else if (yyjson_is_arr(v)) {
		yyjson_arr_foreach(v, i, max, c)
			secret_wipe_json(c);
	} else if (yyjson_is_obj(v)) {
		yyjson_obj_foreach(v, i, max, k, c)
			secret_wipe_json(c);
	}
}

static inline void secret_json_release(struct json_doc *d)
{
	if (d->doc)
		secret_wipe_json(d->root);
	json_release(d);
}
#define _cleanup_secret_json_ __attribute__((cleanup(secret_json_release)))

/* Replaces each occurrence of a secret by asterisks, in place. Shorter ones than 4 bytes are no secrets. */
static inline void secret_mask_bytes(char *p, size_t len, const char *secret)
{
	size_t n = secret ? strlen(secret) : 0;

	for (size_t i = 0; n >= 4 && i + n <= len; i++)
		if (memcmp(p + i, secret, n) == 0)
			memset(p + i, '*', n);
}

static inline void secret_mask(char *msg, const char *secret)
{
	secret_mask_bytes(msg, strlen(msg), secret);
}

#endif
