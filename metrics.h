// SPDX-License-Identifier: Apache-2.0
/*
 * What this process is doing and has done: counters and the state of the running pull, and how they look as Prometheus text
 * and as JSON. Row 1; calls buf, json, log, progress, sys. One set per process, like the progress bar.
 *
 * Threads: every function may be called from any thread; one lock, held for copies only. Strings are copied (cut at 1 KiB),
 * and URLs in them lose user info and query as in a log line.
 * Names of the series: Prometheus' own habits (base units, _total), and KAITO's two download gauges, so that dashboards
 * made for it go on working. The names of the series and the keys of the JSON object are an interface: none changes its meaning.
 */
#ifndef FETCHER_METRICS_H
#define FETCHER_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "log.h"

enum metrics_result {
	METRICS_PUBLISHED = 0,	/* "success": another digest stands on the volume now */
	METRICS_NOOP,		/* "noop": it stood there already */
	METRICS_FAILED,		/* "error" */
	METRICS_VETOED,		/* "veto": a hook or --deny-downgrade kept the old version */
	METRICS_STOPPED,	/* given up because something else came: counted nowhere */
};

/* The DEST that stands behind /readyz and the marker's facts; ref as the user wrote it. */
void metrics_begin(const char *ref, const char *dest);	/* a pull or a check starts */
void metrics_plan(const char *digest, uint64_t bytes, uint64_t files);	/* what it is about to bring */
/* As progress_update: bytes on disk, bytes received since metrics_begin, files finished. */
void metrics_progress(uint64_t done, uint64_t wire, uint64_t files);
/*
 * The pull or check ended; e (NULL unless failed or vetoed) becomes lastError and stays that until the next one: "failures",
 * the passes in a row that ended in error or veto, says whether it is over. ms: how long it took.
 */
void metrics_end(enum metrics_result result, const struct err *e, uint64_t ms);
/* What stands on the volume now; previous may be NULL, published_at is the marker's ("2026-01-02T03:04:05Z"). */
void metrics_published(const char *digest, const char *previous, uint64_t generation, uint64_t bytes,
		       uint64_t files, const char *published_at);
void metrics_versions(uint64_t n, uint64_t bytes);	/* old ones included */
/* What one more pull got from a server; only where there are mirrors. Beyond 20 names "other" counts. */
struct metrics_server {
	uint64_t bytes, requests, misses, fallbacks, hits;	/* as in server.h */
};
void metrics_served(const char *server, const struct metrics_server *more);
/* One try of one notification. sink: "webhook", ...; beyond 16 names "other" counts. */
void metrics_notified(const char *sink, bool ok);
/*
 * watch: nothing is due before at_ms (sys_now_ms clock; UINT64_MAX = nothing ever, for a pinned digest). The loop counts as
 * stalled when it has not called anything here for allowance_ms after that; while a pull runs, for allowance_ms since the
 * last call that changed something.
 */
void metrics_idle_until(uint64_t at_ms);
void metrics_allowance(uint64_t allowance_ms);	/* 0 = never stalled (the default) */
bool metrics_stalled(void);

/* Text format 0.0.4, about 8 KiB; a sink, a server or a reference may add 1 KiB each. ret->failed tells what did not fit. */
void metrics_prometheus(struct buf *ret);
/*
 * One JSON object and a newline: schema, version, phase ("starting", "checking", "pulling", "idle", "failing"), ref, dest,
 * digest, previous, generation, publishedAt, bytes, files, pull (null, or digest, bytes, total, files, filesTotal, received,
 * bytesPerSecond, etaSeconds), lastError (null, or code, name, message, at), lastSuccess, failures, nextCheckSeconds,
 * versions, versionsBytes, results (success, noop, error, veto). What is not known is null.
 */
void metrics_status(struct buf *ret);
/*
 * Replaces the file at path by metrics_prometheus without the process_* series, for node_exporter's textfile collector: it
 * has series of these names itself, and would drop the file. CODE_LOCAL, CODE_SPACE.
 */
int metrics_write_file(const char *path, struct err *e);

#endif
