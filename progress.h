// SPDX-License-Identifier: Apache-2.0
/*
 * What a pull shows while it runs: a bar on a terminal, a log line every 10 s elsewhere.
 * Row 0; peers: buf, log, sys, units.
 *
 * One bar per process. progress_init, progress_update and progress_end belong to one thread;
 * progress_file_done may be called by any thread in between.
 */
#ifndef FETCHER_PROGRESS_H
#define FETCHER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "caps.h"

enum progress_mode {
	PROGRESS_AUTO = 0,	/* bar when stderr is a terminal, else log lines */
	PROGRESS_NEVER,		/* nothing */
	PROGRESS_ALWAYS,	/* bar, even into a pipe (80 columns then) */
};

/* label is copied (cut): the reference. Totals: bytes and files of the artifact. */
void progress_init(enum progress_mode mode, const char *label, uint64_t total_bytes,
		   uint64_t total_files);
/*
 * done: bytes on disk, resumed and reused ones included; wire: bytes received by this run (speed
 * and ETA come from it); files: finished. Call it as often as you like: it draws at most five
 * times a second.
 */
void progress_update(uint64_t done, uint64_t wire, uint64_t files);
/* Queues a line for a finished file (bar only). path may be hostile: it is escaped. */
void progress_file_done(const char *path, uint64_t size);
/* Prints the lines still queued and wipes the bar. Idempotent. */
void progress_end(void);

/* --- pure parts --- */

/*
 * Appends s as a human's terminal may see it: valid UTF-8 without control characters (C0, DEL, C1)
 * and without invisible or direction-changing ones; everything else as \xNN. At most max_cols
 * characters, a longer one keeps its end behind "...". max_cols 0 = no cut.
 */
void progress_escape(struct buf *b, const char *s, size_t max_cols);

struct progress_state {
	const char *label;
	uint64_t total_bytes, total_files;
	uint64_t done, files;
	uint64_t speed;		/* bytes per second; 0 = not known yet */
};
/* One line of exactly or at most `columns` columns, without newline. */
void progress_render(struct buf *b, const struct progress_state *s, size_t columns);

#endif
