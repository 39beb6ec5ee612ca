// SPDX-License-Identifier: Apache-2.0
/*
 * The hooks around a publication, as the options name them: the veto before, the notifications after. Row 3; calls config,
 * hook, metrics, notify, store (marker), sys. Writes log lines: what a notification came to is news of its own.
 */
#ifndef FETCHER_ANNOUNCE_H
#define FETCHER_ANNOUNCE_H

#include <stdatomic.h>

#include "config.h"
#include "log.h"
#include "store.h"

struct announce;

/* cfg and stop are borrowed. CODE_USAGE: an option makes no sense. Starts a thread only when somebody is to be notified. */
int announce_new(struct announce **ret, const struct config *cfg, const atomic_int *stop, struct err *e);
/* What ends a running --pre-publish-hook in place of announce_new's stop: pull_options.stop of the caller. Borrowed. */
void announce_veto_stop(struct announce *a, const atomic_int *stop);
void announce_free(struct announce *a);		/* NULL is fine; gives up what is under way */

/* What is about to be published, and where; before pull_run. Strings are copied. */
int announce_about(struct announce *a, const char *ref, const char *dest, struct err *e);
/* pull_options.accept with a as its argument: runs --pre-publish-hook. CODE_POLICY = no. */
int announce_accept(void *a, const char *digest, const char *path, struct err *e);
/* m stands on DEST now: those who want to know are told, again and again until they took it. Does not block. */
int announce_published(struct announce *a, const struct store_marker *m, struct err *e);
bool announce_idle(const struct announce *a);	/* everybody took the newest version */
/*
 * One-shot: until everybody took it. CODE_NETWORK with the last reason after budget_ms, or stop's code.
 */
int announce_wait(struct announce *a, uint64_t budget_ms, struct err *e);

#endif
