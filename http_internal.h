// SPDX-License-Identifier: Apache-2.0
/* Between the files of http. */
#ifndef FETCHER_HTTP_INTERNAL_H
#define FETCHER_HTTP_INTERNAL_H

#include <pthread.h>

#include "http.h"
#include "names.h"
#include "proxy.h"
#include "tls.h"

/* What is known of a handle beside libcurl. Reused when libcurl gives out the same handle again; all of them end with struct http. */
struct easy {
	struct easy *next;
	CURL *c;			/* NULL: free to be used */
	struct curl_slist *resolve;	/* libcurl borrows it while the exchange lasts */
	char host[LIMIT_HOST + 1];	/* that is connected to: the URL's or the proxy's; "" = its addresses are not ours */
	unsigned port;
	char first[NAMES_ADDRESS_MAX];	/* address to be tried first */
	const struct proxy *proxy;	/* NULL = direct */
	struct tls_peer peer;
};

struct http {
	struct http_options o;
	struct tls *tls;		/* NULL: nothing but plain HTTP will be asked for */
	struct names *names;
	struct proxy_env *proxies;
	pthread_mutex_t lock;
	CURLM *idle;			/* one idle multi handle keeps its connection for the next small exchange */
	struct easy *handles;
};

/* --- http.c --- */

/* Somebody stopped us, or the time is up: nothing is tried again then. */
int http_check_over(struct http *h, struct err *e);

/* --- http_peer.c --- */

int http_peer_new(struct http *h, struct err *e);
void http_peer_free(struct http *h);
/* The record of a handle that was just made; NULL = out of memory. */
struct easy *http_peer_add(struct http *h, CURL *c);
void http_peer_remove(struct http *h, CURL *c);	/* the handle is about to be freed; c may be NULL */
/* Waits until the addresses for q are known or cannot be. Errors: see http_options.dns_timeout_ms. */
int http_peer_await(struct http *h, const struct http_request *q, struct err *e);
/* http_easy_target, and without a proxy if the request says so. */
int http_peer_aim(struct http *h, CURL *c, const char *url, unsigned slot, bool no_proxy, struct err *e);
/*
 * What we know better than libcurl of why an exchange failed: names, proxies, certificates. False: nothing, e is untouched.
 */
bool http_peer_explain(struct http *h, CURL *c, CURLcode rc, const char *errbuf, const char *what, struct err *e);
/* URL for messages, with the proxy it goes through. Returns ret. */
const char *http_peer_what(struct http *h, const char *url, bool no_proxy, char *ret, size_t n);

#endif
