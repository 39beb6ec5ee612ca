// SPDX-License-Identifier: Apache-2.0
/*
 * pull --list: what a node is warmed with (cron, CronJob, DaemonSet). Row 4; calls pull and everything below; peer: commands
 * (calls this). Written in list.c (parsing, the run) and list_prune.c.
 *
 * A line is "REF DEST" or, with --root, "REF"; blanks separate, # starts a comment at the start of a line or behind a blank.
 * DEST without a leading / is below --root. REF alone goes to ROOT/HOST/REPO@TAG, or ROOT/HOST/REPO@sha256-HEX when REF has a
 * digest; the colon of a port becomes _, [ and ] of an IPv6 host are dropped. No repository contains an @, so that no such
 * directory lies inside another. Bad lines, a DEST named twice, one inside another, or one with ".." or ".fetcher" in it end
 * the run before the first request (CODE_USAGE, with the line's number). At most LIMIT_LIST bytes and LIMIT_LIST_LINES lines.
 */
#ifndef FETCHER_LIST_H
#define FETCHER_LIST_H

#include <stdatomic.h>

#include "config.h"
#include "log.h"

struct list_entry {
	char *ref, *dest;		/* owned */
	unsigned line;
};
struct list {
	struct list_entry *v;
	size_t n;
};
/* Pure. root NULL = not given. */
int list_parse(const char *text, size_t len, const char *root, struct list *ret, struct err *e);
void list_release(struct list *l);

/*
 * Pulls every line, one after the other; a failure ends only its own line and is logged once. --random-delay is slept first;
 * then --deadline bounds the whole run: lines that it leaves no time for fail with CODE_DEADLINE. DEST/.fetcher/listed is
 * touched for each line, also for one that failed: its mtime is when DEST was last named.
 *
 * With --prune: old versions of each DEST (store_gc), then directories below --root that are where the rule above puts them,
 * hold a .fetcher and are named by no line: they go when they were last named --stale-timeout ago or longer, and those that stay
 * go oldest first until they take no more than --keep-bytes together; never one that is locked or leased. Foreign files in them
 * stay. Without `listed` the marker's mtime counts, without a marker that of .fetcher; a time in the future (the clock went
 * back) is now. What cannot be pruned is a warning and fails nothing; a list without a line prunes nothing. Lists that share a
 * --root need a --stale-timeout longer than their periods, else they remove each other's directories.
 *
 * --output json: one object {"list","entries":[{line,ref,dest,code,digest,upToDate,downloaded,bytes,durationMs,error}],"ok",
 * "failed","pruned":{"versions","directories","bytes"}} on stdout; code is the exit code that the line alone would have had;
 * digest and error are null where there is none. 0: every line succeeded; -1 with the first failure's code, its message saying
 * how many failed. When stop is set: -1 with that code, and no summary.
 */
int list_run(const struct config *cfg, const atomic_int *stop, struct err *e);

#endif
