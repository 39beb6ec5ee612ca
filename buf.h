// SPDX-License-Identifier: Apache-2.0
/*
 * Capped byte buffer, string views, checked arithmetic, cleanup attributes. Row 0.
 *
 * struct buf: a growing byte array that never exceeds `max` and is always followed
 * by a NUL byte. A failed add (cap or memory) sets `failed`, and all later adds do
 * nothing: callers may add many times and check once.
 */
#ifndef FETCHER_BUF_H
#define FETCHER_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct buf {
	char *data;	/* NULL until the first add */
	size_t len;
	size_t cap;
	size_t max;	/* most bytes, without the NUL */
	bool failed;
};

#define BUF_INIT(max_) ((struct buf){ .max = (max_) })

void buf_init(struct buf *b, size_t max);
void buf_release(struct buf *b);		/* frees; b is empty and usable again with the same max */
void buf_clear(struct buf *b);			/* len = 0, failed = false, memory kept */
int buf_add(struct buf *b, const void *p, size_t n);	/* 0, or -1 and b->failed */
int buf_adds(struct buf *b, const char *s);
int buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int buf_addc(struct buf *b, char c);
const char *buf_cstr(const struct buf *b);	/* "" when empty; valid until the next add */
char *buf_steal(struct buf *b);			/* caller frees; NULL when failed */
/* Percent-encodes every byte outside A-Za-z0-9-._~ and `keep`. */
int buf_add_urlencoded(struct buf *b, const char *s, const char *keep);

/* Borrowed bytes; p may not be NUL-terminated. */
struct str {
	const char *p;
	size_t n;
};
static inline struct str str_of(const char *s) { return (struct str){ s, s ? __builtin_strlen(s) : 0 }; }
bool str_eq(struct str a, const char *b);
bool str_caseeq(struct str a, const char *b);	/* ASCII */
struct str str_trim(struct str s);		/* spaces and tabs at both ends */
/*
 * Unsigned decimal over the whole view: no sign, no space, no leading '+', at most 20
 * digits, no overflow. Leading zeros are refused but for "0" itself.
 */
bool str_u64(struct str s, uint64_t *ret);

static inline bool u64_add(uint64_t a, uint64_t b, uint64_t *ret) { return !__builtin_add_overflow(a, b, ret); }
static inline bool u64_mul(uint64_t a, uint64_t b, uint64_t *ret) { return !__builtin_mul_overflow(a, b, ret); }
static inline bool size_mul(size_t a, size_t b, size_t *ret) { return !__builtin_mul_overflow(a, b, ret); }

static inline void cleanup_free_fn(void *p) { free(*(void **)p); }
static inline void *steal_ptr_fn(void *pp) { void **p = pp, *v = *p; *p = NULL; return v; }
#define _cleanup_free_ __attribute__((cleanup(cleanup_free_fn)))
#define _cleanup_buf_ __attribute__((cleanup(buf_release)))
#define steal_ptr(pp) ((__typeof__(*(pp)))steal_ptr_fn(pp))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ < b_ ? a_ : b_; })
#define MAX(a, b) ({ __typeof__(a) a_ = (a); __typeof__(b) b_ = (b); a_ > b_ ? a_ : b_; })

#endif
