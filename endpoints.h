// SPDX-License-Identifier: Apache-2.0
/*
 * --http-bind and --metrics-file for a run over one or more DESTs. Row 3; calls config, metrics, serve, store, sys.
 */
#ifndef FETCHER_ENDPOINTS_H
#define FETCHER_ENDPOINTS_H

#include "config.h"
#include "log.h"

struct endpoints;

/*
 * Starts what cfg asks for. dests (borrowed, n of them) are ready when each holds a complete published version; n = 0 is
 * never ready. sync: POST /sync, any thread; NULL = not offered. *ret may become NULL when nothing was asked for.
 */
int endpoints_new(struct endpoints **ret, const struct config *cfg, const char *const *dests, size_t n,
		  void (*sync)(void *arg), void *arg, struct err *e);
void endpoints_free(struct endpoints *p);	/* NULL is fine */

#endif
