// SPDX-License-Identifier: Apache-2.0
/*
 * The sidecar: look, pull, swap, notify, drop old versions, sleep. Row 4; calls announce, endpoints, pull and everything below.
 *
 * Each look is one pull_run, which costs one HEAD request while nothing changed; credentials, CA and --ref-file are read
 * anew each time. Two watchers on one DEST are fine: whoever has the lock publishes, the other one finds it done and
 * notifies its own.
 */
#ifndef FETCHER_WATCH_H
#define FETCHER_WATCH_H

#include <stdatomic.h>

#include "config.h"
#include "log.h"

/*
 * Runs until stop (0: a version stands and nothing was under way; else -1 with stop's code), or until --on-failure exit
 * ends it with the failure. Called once, by the main thread; failures that do not end it are logged here.
 */
int watch_run(const struct config *cfg, const atomic_int *stop, struct err *e);

/*
 * Look now (SIGHUP, POST /sync), or notice that stop was set. Any thread; does nothing while no watch_run runs.
 */
void watch_wake(void);

#endif
