// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP exchanges over libcurl: TLS set-up, one request at a time, redirects by hand,
 * retries, authentication through a callback, proxies and the addresses of hosts. Knows no registry. Row 1; calls tls, names,
 * proxy. The bulk engine (transfer.c) builds its handles with http_easy_new/http_easy_prepare.
 *
 * Threads: struct http is shared; http_fetch and http_get may be called from any thread.
 */
#ifndef FETCHER_HTTP_H
#define FETCHER_HTTP_H

#include <stdatomic.h>

#include <curl/curl.h>

#include "buf.h"
#include "log.h"

struct http;

struct http_options {
	const char *ca_file;		/* PEM; replaces every other CA source; NULL = search (design D5.1) */
	const char *const *extra_ca_files; /* PEM; added to the source, whichever it is; NULL-terminated; NULL = none */
	const char *cert_file, *key_file; /* client certificate: both or none */
	const char *cert_origin;	/* the only scheme://host:port it is shown to */
	bool insecure;			/* no verification of the peer */
	bool plain;			/* only http:// URLs will be asked for (others fail): no CA is read */
	const char *proxy_ca_file;	/* trusted for https:// proxies in place of all these; NULL = the same */
	bool tls13;			/* TLS 1.3 or nothing; else 1.2 or newer */
	const char *const *resolve;	/* "HOST:PORT:ADDR[,ADDR...]" (names.h); NULL-terminated, NULL = none */
	unsigned dns_timeout_ms;	/* a name lookup that takes longer is CODE_DEADLINE, retryable; 0 = 10 s */
	unsigned connect_timeout_ms;	/* 0 = 10 s */
	unsigned stall_timeout_ms;	/* no byte for so long ends an exchange; 0 = 30 s */
	uint64_t speed_limit;		/* bytes/s below which an exchange is given up after speed_time_ms; 0 = off */
	unsigned speed_time_ms;
	unsigned retry_budget_ms;	/* http_get gives up after so long without success; 0 = 5 min */
	uint64_t deadline_ms;		/* sys_now_ms clock: CODE_DEADLINE from then on, not retryable; 0 = none */
	const char *user_agent;		/* "fetcher/0.1.0" */
	/* Non-zero = give up at once with CODE_SIGTERM/CODE_SIGINT semantics (value = code). Borrowed, may be NULL. */
	const atomic_int *stop;
	/* Debug lines (no secrets: values of Authorization and query strings never arrive here). May be NULL. */
	void (*trace)(void *arg, const char *line);
	void *trace_arg;
	/* A retry worth telling people about; redacted; any thread. May be NULL. */
	void (*warn)(void *arg, const char *line);
	void *warn_arg;
};

/*
 * curl_global_init; files that the options name are read now, other CA sources when the first https connection is made. The
 * proxy variables of the environment hold as they are now (proxy.h). Options' strings are borrowed until http_free, which never
 * waits for a name server.
 */
int http_new(struct http **ret, const struct http_options *o, struct err *e);
void http_free(struct http *h);

struct http_header {
	char *name, *value;
};

struct http_response {
	long status;
	struct http_header *headers;	/* of the last response, in order */
	size_t n_headers;
	struct buf body;		/* at most the request's max_body; longer = CODE_INTEGRITY error */
	char *url;			/* that answered, after redirects */
	bool with_credentials;		/* the request carried an Authorization header of ours */
};
void http_response_release(struct http_response *r);
/* i-th value of the header (ASCII case-insensitive), or NULL. */
const char *http_response_header(const struct http_response *r, const char *name, size_t i);
/* Retry-After as milliseconds from now (seconds or HTTP date), 0 when absent or unusable, capped. */
uint32_t http_retry_after_ms(const char *value, int64_t now_unix);

struct http_request {
	const char *method;		/* "GET" and "HEAD" have no body; any other has one, perhaps empty */
	const char *url;
	const char *const *headers;	/* "Name: value" lines, NULL-terminated; NULL = none. Sent to the origin only if origin_headers */
	const char *authorization;	/* value of Authorization, NULL or "" = none; ignored by http_get */
	const char *body;
	size_t body_len;
	uint64_t max_body;		/* bytes of a 2xx body; others are cut at LIMIT_ERROR_BODY */
	unsigned timeout_ms;		/* the whole exchange; then CODE_DEADLINE. 0 = only the stall timeout binds */
	bool no_proxy;			/* never through a proxy: addresses of this machine's own cloud */
};

/*
 * One exchange: no redirect followed, no retry, any status is success.
 * Transport errors: CODE_NETWORK (retryable), TLS verification: CODE_NETWORK not retryable, stall: CODE_DEADLINE retryable. A proxy
 * that refuses to connect: CODE_AUTH (403, 407) or CODE_NETWORK; the message names the proxy and its variable, never its user info.
 */
int http_fetch(struct http *h, const struct http_request *q, struct http_response *ret, struct err *e);

/*
 * Where the requests for one repository get their credentials. Implemented by auth.c.
 * The callbacks are only ever asked about URLs whose scheme, host and port equal `origin`.
 */
struct http_authority {
	void *ctx;
	char origin[512];		/* "https://host:port", default port spelled out, lower case */
	/*
	 * Adds the value of the Authorization header to ret (nothing = none) and sets *ret_generation, which names
	 * the credentials used. May fetch a token first: one caller does, the others wait. Thread safe.
	 */
	int (*authorize)(void *ctx, struct buf *ret, unsigned *ret_generation, struct err *e);
	/*
	 * The origin answered 401 to a request that carried credentials `generation`. 0: ask again
	 * with what authorize gives now. -1: final (CODE_AUTH, message says which credential source was used).
	 */
	int (*challenged)(void *ctx, const struct http_response *r, unsigned generation, struct err *e);
	/*
	 * May be called with any other answer than 401 of the origin to a request that carried credentials `generation`: a later
	 * 401 then means that they ran out, not that they never were good. Cheap. NULL = not wanted.
	 */
	void (*accepted)(void *ctx, unsigned generation);
	/* Adds to ret which credentials are in use, for messages: "/path/config.json, key X" or "no credentials". NULL = not told. */
	void (*describe)(void *ctx, struct buf *ret);
};

/*
 * An exchange with everything: authorisation (a may be NULL), at most LIMIT_REDIRECTS redirects with
 * credentials and headers rebuilt per hop (https to http refused), retries with backoff and Retry-After
 * on connection errors and 408/429/5xx within the retry budget. Ends with a 2xx response, or an error:
 * 401/403 CODE_AUTH, 404/410 CODE_NOT_FOUND, other 4xx CODE_NETWORK not retryable; e->http_status is set and the
 * message carries the registry's own words (JSON errors[]) cleaned of control characters.
 */
int http_get(struct http *h, const struct http_authority *a, const struct http_request *q,
	     struct http_response *ret, struct err *e);

/* --- pieces for transfer.c --- */

/* scheme://host:port of an http(s) URL, lower case, default port spelled out. -1: not http(s), user info, or malformed. */
int http_origin(const char *url, char *ret, size_t n);
bool http_same_origin(const char *url, const char *origin);
/*
 * The absolute target of a redirect from base; refuses non-http(s), https to http, user info,
 * control characters, over LIMIT_URL. Caller frees *ret.
 */
int http_redirect_target(const char *base, const char *location, char **ret, struct err *e);
/* A handle with all common options set (TLS, timeouts, agent, HTTP/1.1, no redirects, no signals). NULL = out of memory. */
CURL *http_easy_new(struct http *h);
/* The end of a handle of http_easy_new, by the thread that used it; its http is the one that made it. c may be NULL. */
void http_easy_free(struct http *h, CURL *c);
/* A server may show what it was sent, and its words go into messages: overwrites the values of Authorization in a refusal's body. */
void http_mask_sent(const struct curl_slist *headers, struct buf *body);
/*
 * Points a handle of http_easy_new at url: through the proxy that the environment names for it, or with the addresses of its host in
 * the order of connection number `slot` (names.h). Never blocks: a name that is not known yet is left to libcurl. -1: out of
 * memory, or CODE_USAGE where the proxy's variable cannot be used. Before each exchange, by the thread that runs it.
 */
int http_easy_target(struct http *h, CURL *c, const char *url, unsigned slot, struct err *e);
/*
 * The exchange on c ended like that (CURLE_OPERATION_TIMEDOUT for one that was given up because it stalled): an address that failed
 * is avoided for a while. Before the handle is used again.
 */
void http_easy_done(struct http *h, CURL *c, CURLcode rc);
const char *http_ca_source(const struct http *h);	/* where the trust anchors come from, for messages */
/* Maps a failed CURLcode to an error (see http_fetch). `what` is the redacted URL or host. */
int http_curl_error(struct http *h, CURL *c, CURLcode rc, const char *errbuf, const char *what, struct err *e);
/* Maps a refused status to an error as http_get does. body may be NULL. */
int http_status_error(long status, const char *what, const struct buf *body, struct err *e);
bool http_status_retryable(long status);
/*
 * The same of a whole answer, which may say more: Retry-After (also with 403, as GitHub's limits come) and the limits of Docker Hub.
 * credentials: what http_authority.describe says, NULL = not told. e->retryable and retry_after_ms say whether and when to come back.
 */
int http_answer_error(long status, const struct http_response *r, const char *what,
		      const char *credentials, struct err *e);
/*
 * The server's own words in a refusal, for a message: code, message and detail (of any type) of a registry's errors[], a token service's
 * error and error_description, S3's Code and Message, the title of an HTML page, one plain line; else nothing is added.
 */
void http_error_words(const struct buf *body, struct buf *ret);
bool http_is_html(const struct buf *body);
void http_html_words(const struct buf *body, struct buf *ret);	/* 'an HTML page (title "Log in")' */
/* A good status with a proxy's login page, or of a web server that is no registry: -1 CODE_INTEGRITY, *r is released. */
int http_refuse_page(struct http_response *r, const char *instead_of, struct err *e);
/*
 * The texts of a Warning header (299 - "..."), one a call: *value moves on; unescaped, without control characters; "" = of another
 * kind. false: there are no more. is_new: whether this process tells it for the first time (of 16 different ones, then never again).
 */
bool http_next_warning(const char **value, char *ret, size_t n);
bool http_warning_is_new(const char *text);
/* Full-jitter exponential backoff: attempt 0, 1, 2...; 100 ms .. 10 s; never less than retry_after_ms. */
uint32_t http_backoff_ms(unsigned attempt, uint32_t retry_after_ms);
/* URL without user info and query, for messages. Returns ret. */
const char *http_redacted(const char *url, char *ret, size_t n);
int http_stopped(const struct http *h);	/* 0, or the code to stop with */
void http_trace(struct http *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Content-Range: "bytes 0-9/100". total = UINT64_MAX for "*". Pure, strict (RFC 9110 14.4). */
struct content_range {
	uint64_t start, end, total;	/* end inclusive */
};
bool http_parse_content_range(const char *value, struct content_range *ret);

#endif
