// SPDX-License-Identifier: Apache-2.0
/*
 * The bulk engine: many blobs, ranges shared by all connections, lanes, retries, stalls, hedges (design D5). Row 2; calls http, plan, sys, verify; peer: blob.
 */
#ifndef FETCHER_TRANSFER_H
#define FETCHER_TRANSFER_H

#include "blob.h"
#include "http.h"

struct transfer_item {
	char *url;			/* on the origin; owned by the caller */
	const struct http_authority *authority;	/* may be NULL */
	struct digest digest;
	uint64_t size;			/* > 0 */
};

struct transfer_stats {		/* read while it runs */
	atomic_uint_fast64_t wire;	/* body bytes received */
	atomic_uint_fast64_t done;	/* bytes on disk, resumed ones included */
	atomic_uint_fast64_t verified_items;
	atomic_uint_fast64_t requests, retries, connections;
};

struct transfer_options {
	unsigned connections;		/* most; 0 = 16 */
	unsigned lanes;			/* 0 = min(cpus, 4) */
	uint64_t range_size;		/* 0 = default */
	uint64_t memory_budget;		/* 0 = 64 MiB */
	unsigned stall_timeout_ms;	/* 0 = 30 s */
	uint64_t speed_limit;		/* bytes/s under which a connection counts as stalled after speed_time_ms */
	unsigned speed_time_ms;
	unsigned retry_budget_ms;	/* without a byte for so long = CODE_NETWORK */
	uint64_t deadline_ms;		/* sys_now_ms clock; 0 = none */
	int partial_dirfd;
	struct blob_options blob;
	/* A verified blob: called by a lane, once per item; the file keeps its partial name until the callback moved it. */
	int (*verified)(void *arg, size_t item, struct blob *b, struct err *e);
	/* Called about every 25 ms by the thread that called transfer_run. */
	void (*tick)(void *arg);
	void (*warn)(void *arg, const char *text);	/* a retry worth a log line; any thread; already redacted */
	void *arg;
};

/*
 * Fetches all items. Returns 0 when every one was verified and its callback succeeded. On failure the partial
 * files and journals stay for the next run.
 */
int transfer_run(struct http *h, const struct transfer_item *items, size_t n,
		 const struct transfer_options *o, struct transfer_stats *stats, struct err *e);

#endif
