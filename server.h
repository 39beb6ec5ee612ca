// SPDX-License-Identifier: Apache-2.0
/*
 * One server that has blobs: the registry itself, or a mirror of it. A data type only. Row 1; calls log, verify; peer: http.
 */
#ifndef FETCHER_SERVER_H
#define FETCHER_SERVER_H

#include <stdatomic.h>

#include "http.h"
#include "verify.h"

/* What oci makes and transfer uses. All pointers outlive the transfers. */
struct blob_server {
	const char *name;		/* "host:port" for messages and metrics */
	struct http *http;		/* trust anchors, client certificate, timeouts of this server */
	/*
	 * Who we are there; NULL = nobody. Asked about this server's own origin, or, with on_behalf, about the registry's while
	 * the request goes to this server: then a 401 is never shown to it, since whoever names a token service gets to see a password.
	 */
	const struct http_authority *authority;
	bool on_behalf;
	/* "Name: value", NULL-terminated; NULL = none. For this server alone, not for where it redirects to. */
	const char *const *headers;
	/*
	 * URL of a blob; the caller frees it; NULL = out of memory. Pure and quick, since the engine calls it with its lock held;
	 * scheme, host and port are the same for all blobs: that is this server's origin.
	 */
	char *(*blob_url)(const void *arg, const struct digest *d);
	const void *arg;
	bool mirror;			/* gives way to the next server as soon as it is in trouble */
	bool whole;			/* a peer-to-peer proxy: one request for all that is missing of a blob, never small ranges */
	/*
	 * A mirror that is silent for so long, before the first byte or later, is in trouble, and one that stays below the speed
	 * limit for so long; 0 = the stall timeout, which bounds it, too.
	 */
	unsigned first_byte_ms;
	/*
	 * A mirror that brings less than so many bytes per second in all, for as long as first_byte_ms, while an answer is under way, is
	 * left; 0 = however slow it is. It is asked again when what comes after it fails or is slower still, and then kept.
	 */
	uint64_t speed_limit;

	/* Written by transfer (bad and fallbacks by oci too: trouble with a document), read by anybody. */
	atomic_bool bad;		/* a mirror that is not asked again in this run */
	atomic_uint_fast64_t left_at;	/* bytes per second that it brought when it was left for that, else 0 */
	atomic_bool kept;		/* what comes after it is no better: its speed is not judged any more */
	atomic_uint_fast64_t bytes;	/* body bytes received from it, or from where it redirected to */
	atomic_uint_fast64_t requests;
	atomic_uint_fast64_t misses;	/* blobs that it does not have (404) */
	atomic_uint_fast64_t fallbacks;	/* blobs taken away from it because of trouble */
	atomic_uint_fast64_t hits;	/* answers that said they came from a cache at hand (X-Dragonfly-Task-Download-Finished) */
};

#endif
