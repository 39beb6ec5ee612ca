// SPDX-License-Identifier: Apache-2.0
/*
 * The bulk engine: many blobs, ranges shared by all connections, lanes, retries, stalls, hedges (design D5). Row 2; calls http, plan, server, source, sys,
 * verify, window; peer: blob.
 *
 * An item becomes a file in the partial directory, or it streams: its bytes go in order, through a window in memory, to a consumer
 * on a thread of its own, and never to disk.
 */
#ifndef FETCHER_TRANSFER_H
#define FETCHER_TRANSFER_H

#include "blob.h"
#include "http.h"
#include "server.h"
#include "source.h"

/*
 * What a streaming item does with its bytes. All three run on threads of the engine, for one item never two at once; the callbacks of
 * different items run at the same time.
 */
struct transfer_stream {
	/*
	 * Reads the layer in order through src and makes of it what it likes, on a thread of its own, from when the item becomes active.
	 * 0 = done; what it did not read is fetched and hashed all the same. -1 = failed (*e).
	 *   CODE_INTEGRITY, CODE_UNSAFE, CODE_UNSUPPORTED are judgements about the bytes: the rest is fetched and hashed before
	 *   they count, and where the digest is wrong it was the bytes' fault: `again`, and run once more. Any other code ends the transfer at once,
	 *   and so does 1 = failed (*e), whatever the digest says.
	 * When src->read says -1 the transfer is over: return soon, transfer_run waits for it. What run returns then is ignored.
	 */
	int (*run)(void *arg, const struct unpack_source *src, struct err *e);
	/*
	 * Before the first run: where to begin (0 = at the start) and, if that is not 0, the hash state of what is before it
	 * (hasher_export; a multiple of 64 bytes, 128 for sha512, at most the size). Quick. NULL = at the start.
	 */
	int (*start)(void *arg, uint64_t *ret_at, uint8_t ret_state[HASHER_STATE_MAX], struct err *e);
	/*
	 * The bytes were wrong, those before `start` perhaps, too: throw away what was made of them and any checkpoint. The next run, if
	 * there is one, begins at byte 0. Called after each wrong digest: at most twice, and
	 * once for each mirror that lied; also where the item failed for good with
	 * CODE_INTEGRITY or an I/O error (EIO). NULL = nothing to throw away.
	 */
	int (*again)(void *arg, struct err *e);
	void *arg;
};

/*
 * For a checkpoint: the newest known hash state at or before `offset` of the layer, in the form `start` gives back. Only inside run, with its src.
 * A piece is hashed when the next one is read: what run was given before the present piece is covered, and the last pieces' states are
 * kept. -1: offset is further back than that (or before where this run began): no checkpoint is possible there.
 */
int transfer_stream_state(const struct unpack_source *src, uint64_t offset, uint64_t *ret_hashed_at,
			  uint8_t ret_state[static HASHER_STATE_MAX]);

struct transfer_item {
	struct digest digest;
	uint64_t size;			/* > 0 */
	const struct transfer_stream *stream;	/* NULL = a file in the partial directory; borrowed */
};

struct transfer_stats {		/* read while it runs */
	atomic_uint_fast64_t wire;	/* body bytes received */
	atomic_uint_fast64_t done;	/* bytes on disk or in a window, resumed ones included */
	atomic_uint_fast64_t verified_items;
	atomic_uint_fast64_t requests, retries, connections;
};

struct transfer_options {
	unsigned connections;		/* most; 0 = 16 */
	unsigned lanes;			/* 0 = min(cpus, 4) */
	uint64_t range_size;		/* 0 = default */
	uint64_t memory_budget;		/* 0 = 64 MiB; half of it, but at least 4 MiB, for the windows of streams */
	unsigned stall_timeout_ms;	/* 0 = 30 s */
	uint64_t speed_limit;		/* bytes/s under which a connection counts as stalled after speed_time_ms */
	unsigned speed_time_ms;
	unsigned retry_budget_ms;	/* without a byte for so long = CODE_NETWORK */
	uint64_t deadline_ms;		/* sys_now_ms clock; 0 = none */
	int partial_dirfd;
	/* In the order in which they are asked; the last one is the registry. Borrowed; their counters are written. */
	struct blob_server *const *servers;
	size_t n_servers;		/* 1..LIMIT_SERVERS */
	uint64_t rate_limit;		/* bytes/s of all connections together; 0 = none */
	unsigned max_per_host;		/* connections at a time to one scheme, host and port; 0 = no limit but `connections` */
	struct blob_options blob;
	/*
	 * A verified blob: called by a lane, once per item; the file keeps its partial name until the callback moved it.
	 * A stream: run returned 0, all bytes were hashed, the digest is right; called by run's thread, b is NULL.
	 */
	int (*verified)(void *arg, size_t item, struct blob *b, struct err *e);
	/* Called about every 25 ms by the thread that called transfer_run. */
	void (*tick)(void *arg);
	void (*warn)(void *arg, const char *text);	/* a retry worth a log line; any thread; already redacted */
	void *arg;
};

/*
 * Fetches all items. A blob is asked for at the first server that is not bad. A mirror in trouble gives way to the next server at
 * once, without a retry: what came from it is kept, except when the digest is wrong. 404 and 410 are about one blob, everything
 * else makes it bad; one that is only slow is asked again when the registry fails or is slower. A wrong digest makes all mirrors bad that brought some of the blob, and it is fetched once more from the next
 * server.
 *
 * Returns 0 when every one was verified and its callback succeeded. On failure the partial
 * files and journals stay for the next run. No `run` is under way any more when it returns.
 */
int transfer_run(struct http *h, const struct transfer_item *items, size_t n,
		 const struct transfer_options *o, struct transfer_stats *stats, struct err *e);

#endif
