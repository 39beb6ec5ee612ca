// SPDX-License-Identifier: Apache-2.0
/*
 * The endpoints of --http-bind, over libmicrohttpd: GET and HEAD of /readyz (and /), /healthz, /status, /metrics; POST /sync.
 * Row 1; calls log, buf, sys; peer: metrics. Off unless asked for; answers nothing that a log line would not show, and no secret.
 *
 *   /readyz, /   200 and the ready marker while DEST holds a complete published version, else 503
 *   /healthz     200, or 503 when the watch loop is stalled (metrics_stalled)
 *   /status      200, JSON: metrics_status
 *   /metrics     200, Prometheus text format 0.0.4
 *   /sync        202 and the callback; POST only, from loopback only (403 else), 404 when there is no callback
 * Anything else 404, other methods 405. Paths are compared as they came, without the query. Bodies of requests are not read
 * beyond 4 KiB (413). Every answer ends its connection. 64 connections at once, 16 KiB each, 10 s without a byte; when it gets
 * crowded the oldest one makes room, so that nobody can keep probes out.
 */
#ifndef FETCHER_SERVE_H
#define FETCHER_SERVE_H

#include "buf.h"
#include "log.h"

struct serve;

struct serve_options {
	/* "ADDRESS:PORT", ":PORT" or "PORT" = every address, IPv6 and IPv4 (IPv4 alone where there is no IPv6); "[::1]:8080" */
	const char *bind;
	/* 1 = ready, the marker's JSON appended to ret; 0 = not, a line that says why. Any thread. */
	int (*ready)(void *arg, struct buf *ret);
	void *arg;
	void (*sync)(void *arg);	/* NULL = no /sync; any thread; must not block */
	void *sync_arg;
};

/*
 * Binds and answers on a thread of its own, which has the caller's signal mask; sleeps while nobody asks. CODE_USAGE: bind is no
 * address (names are none); CODE_LOCAL: it cannot be had. *o is copied, bind may go.
 */
int serve_start(struct serve **ret, const struct serve_options *o, struct err *e);
/* NULL is fine. Open connections are closed; waits for a callback that is running. */
void serve_stop(struct serve *s);
/* The port in use (bind may say 0). */
unsigned serve_port(const struct serve *s);

#endif
