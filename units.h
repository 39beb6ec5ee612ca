// SPDX-License-Identifier: Apache-2.0
/*
 * Sizes and times as people write them. Pure. Row 0; peer: buf.
 */
#ifndef FETCHER_UNITS_H
#define FETCHER_UNITS_H

#include "buf.h"

/*
 * "10s", "5m", "1h30m", "500ms", "1.5h", "2d"; "0" alone. Any other number without a unit is refused:
 * nobody could tell seconds from milliseconds. false: malformed or overflow; ret untouched.
 */
bool units_duration(struct str s, uint64_t *ret_ms);
/*
 * "1024", "64MiB", "1.5GiB". Mi = MiB = 2^20 and M = MB = 10^6, as in Kubernetes' quantities;
 * lower-case m, g, t are refused, because they mean different things to different tools.
 */
bool units_size(struct str s, uint64_t *ret_bytes);

/* "3.2 GiB", "512 B"; rounded down. */
void units_add_bytes(struct buf *b, uint64_t bytes);
/* "5s", "3m20s", "2h05m" */
void units_add_seconds(struct buf *b, uint64_t seconds);
/* "2026-01-02T03:04:05.6Z", "...+02:00" (RFC 3339) as seconds since 1970; fractions are dropped. false: malformed. */
bool units_rfc3339(struct str s, int64_t *ret);

#endif
