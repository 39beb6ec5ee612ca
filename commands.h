// SPDX-License-Identifier: Apache-2.0
/*
 * What each command does and prints: the hands of fetcher.c, which keeps main, signals and the exit
 * code. Row 4; calls pull and everything below; peers: list, watch.
 *
 * Results go to stdout, log lines to stderr. A failure is only returned: fetcher.c logs it.
 */
#ifndef FETCHER_COMMANDS_H
#define FETCHER_COMMANDS_H

#include <stdatomic.h>

#include "config.h"
#include "log.h"

/*
 * Runs cfg->command. stop: non-zero = give up with that code. With "wait -- CMD" it does not return on
 * success. Called once, by the main thread.
 */
int command_run(const struct config *cfg, const atomic_int *stop, struct err *e);

#endif
