// SPDX-License-Identifier: Apache-2.0
/*
 * Addresses of hosts: looked up in the background, spread over the connections, bad ones avoided. Row 1; calls buf, log, sys.
 *
 * A lookup is one getaddrinfo in a thread of its own, which nobody ever joins: a name server may be silent for half a minute, the
 * process must be able to end. Whoever cannot wait (a thread with many connections) gets PENDING and lets libcurl resolve this one time.
 * Answers hold for a minute and are asked for anew in the background; while the name servers are away the old ones stay in use.
 *
 * What comes out of it is an order, not a choice: libcurl gets all addresses, the one to try first in front, and goes on to the next
 * (both families side by side, RFC 8305) where that does not connect. So a bad address costs one connection its first try, no more.
 *
 * Threads: all functions but new and free may be called from any thread.
 */
#ifndef FETCHER_NAMES_H
#define FETCHER_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "log.h"

struct names;

#define NAMES_ADDRESS_MAX 46	/* an address as text, without brackets */

enum names_state {
	NAMES_READY,	/* addresses are there */
	NAMES_PENDING,	/* being looked up */
	NAMES_FAILED,	/* the last lookup failed, moments ago */
	NAMES_NONE,	/* nothing to look up (an address, localhost), or not our business: libcurl knows what to do */
};

/*
 * resolve: entries "HOST:PORT:ADDR[,ADDR...]" as curl's --resolve takes them (IPv6 in brackets or not; HOST or PORT may be "*"),
 * NULL-terminated, NULL = none; copied. An entry that is an address alone goes on with the one before: the variable of a list is cut
 * at commas. CODE_USAGE names a malformed entry.
 */
int names_new(struct names **ret, const char *const *resolve, struct err *e);
/* Leaves lookups that are under way to themselves. */
void names_free(struct names *n);

/*
 * READY: appends the addresses to ret_list, comma separated as CURLOPT_RESOLVE takes them, and writes the first one to ret_first.
 * Connections with different slots get different first ones of the preferred family (RFC 6724, as getaddrinfo sorts them); those that
 * failed lately come last. PENDING starts the lookup if there is none. Never blocks.
 */
enum names_state names_pick(struct names *n, const char *host, unsigned port, unsigned slot, struct buf *ret_list,
			    char ret_first[static NAMES_ADDRESS_MAX]);
/* Waits at most ms for a lookup that is under way. Returns what names_pick would. */
enum names_state names_wait(struct names *n, const char *host, unsigned port, unsigned ms);
/* After FAILED: why, in words; "" when that is not known any more. Returns ret. */
const char *names_failure(struct names *n, const char *host, char *ret, size_t size);

/* The address did not connect, or broke or stalled: it comes last for a minute. When all did, the name is looked up anew. */
void names_avoid(struct names *n, const char *host, unsigned port, const char *address);

#endif
