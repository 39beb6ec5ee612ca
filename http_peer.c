// SPDX-License-Identifier: Apache-2.0
/* Whom a handle talks to: the addresses of a host, the proxy before it, and what is said when that fails. Belongs to http.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "http_internal.h"
#include "sys.h"

#define DEFAULT_DNS_MS 10000
#define WAIT_MS 100

int http_peer_new(struct http *h, struct err *e)
{
	if (!h->o.dns_timeout_ms)
		h->o.dns_timeout_ms = DEFAULT_DNS_MS;
	return proxy_env_new(&h->proxies, e) || names_new(&h->names, h->o.resolve, e) ? -1 : 0;
}

void http_peer_free(struct http *h)
{
	while (h->handles) {
		struct easy *x = h->handles;
		h->handles = x->next;
		curl_slist_free_all(x->resolve);
		free(x);
	}
	names_free(h->names);
	proxy_env_free(h->proxies);
}

/* --- records --- */

static struct easy *find(struct http *h, const CURL *c)
{
	struct easy *x;

	pthread_mutex_lock(&h->lock);
	for (x = h->handles; x && x->c != c; x = x->next)
		;
	pthread_mutex_unlock(&h->lock);
	return x;
}

struct easy *http_peer_add(struct http *h, CURL *c)
{
	struct easy *x = find(h, c);

	pthread_mutex_lock(&h->lock);
	for (struct easy *y = h->handles; y && !x; y = y->next)
		if (!y->c)
			x = y;
	if (!x && (x = calloc(1, sizeof(*x)))) {
		x->next = h->handles;
		h->handles = x;
	}
	if (x) {
		x->c = c;
		x->peer = (struct tls_peer){ .tls = h->tls };
		x->proxy = NULL;
		*x->host = '\0';
	}
	pthread_mutex_unlock(&h->lock);
	return x;
}

void http_peer_remove(struct http *h, CURL *c)
{
	struct easy *x = c ? find(h, c) : NULL;

	if (!x)
		return;
	pthread_mutex_lock(&h->lock);
	x->c = NULL;
	pthread_mutex_unlock(&h->lock);
}

/* --- before an exchange --- */

struct peer {
	const struct proxy *proxy;
	char host[LIMIT_HOST + 1];	/* "" = unknown or too long */
	unsigned port;
};

/* Who will be at the other end of the connection for url. */
static struct peer peer_of(struct http *h, const char *url, bool no_proxy)
{
	struct peer p = { .proxy = no_proxy ? NULL : proxy_for(h->proxies, url) };
	char origin[512];
	uint64_t port;

	if (p.proxy) {
		if (!p.proxy->fault && strlen(p.proxy->host) <= LIMIT_HOST)
			snprintf(p.host, sizeof(p.host), "%s", p.proxy->host);
		p.port = p.proxy->port;
		return p;
	}
	/* "scheme://host:port" */
	const char *host = http_origin(url, origin, sizeof(origin)) ? NULL : strstr(origin, "://") + 3;
	const char *colon = host ? strrchr(host, ':') : NULL;
	size_t n = colon ? (size_t)(colon - host) : 0;
	if (n && n <= LIMIT_HOST && *host != '[' && str_u64(str_of(colon + 1), &port)) {
		memcpy(p.host, host, n);
		p.port = (unsigned)port;
	}
	return p;
}

static const char *proxy_words(const struct proxy *p, char *ret, size_t n)
{
	snprintf(ret, n, "the proxy %s (from %s)", p->name, p->variable);
	return ret;
}

const char *http_peer_what(struct http *h, const char *url, bool no_proxy, char *ret, size_t n)
{
	const struct proxy *p = no_proxy ? NULL : proxy_for(h->proxies, url);
	char words[400];

	http_redacted(url, ret, n);
	size_t len = strlen(ret);
	if (p && !p->fault)
		snprintf(ret + len, n - len, " (through %s)", proxy_words(p, words, sizeof(words)));
	return ret;
}

static int lookup_failed(const struct peer *p, const char *what, const char *why, enum code code, struct err *e)
{
	char whose[64] = "";

	if (p->proxy)
		snprintf(whose, sizeof(whose), ", the proxy of %s,", p->proxy->variable);
	err_set(e, code, "%s: name lookup of %s%s %s; check the name, and this machine's or Pod's DNS", what, p->host, whose,
		why);
	if (e)
		e->retryable = true;
	return -1;
}

int http_peer_await(struct http *h, const struct http_request *q, struct err *e)
{
	struct peer p = peer_of(h, q->url, q->no_proxy);
	uint64_t limit = h->o.dns_timeout_ms, begin = sys_now_ms();
	char what[512], why[160];
	enum names_state state;

	if (!*p.host)
		return 0;
	if (q->timeout_ms && q->timeout_ms < limit)
		limit = q->timeout_ms;
	http_redacted(q->url, what, sizeof(what));
	while ((state = names_wait(h->names, p.host, p.port, WAIT_MS)) == NAMES_PENDING) {
		if (http_check_over(h, e))
			return -1;
		if (sys_now_ms() - begin < limit)
			continue;
		snprintf(why, sizeof(why), "took longer than %llu ms (--dns-timeout)", (unsigned long long)limit);
		return lookup_failed(&p, what, why, CODE_DEADLINE, e);
	}
	if (state != NAMES_FAILED)
		return 0;
	char reason[100];
	snprintf(why, sizeof(why), "failed: %s", names_failure(h->names, p.host, reason, sizeof(reason)));
	return lookup_failed(&p, what, why, CODE_NETWORK, e);
}

static int set_proxy(CURL *c, const struct proxy *p, const char *url, struct err *e)
{
	if (p && p->fault) {
		char what[512];
		return err_set(e, CODE_USAGE, "%s: the variable %s cannot be used: %s", http_redacted(url, what, sizeof(what)),
			       p->variable, p->fault);
	}
	/* "": libcurl does not look at the environment by itself */
	if (curl_easy_setopt(c, CURLOPT_NOPROXY, "") || curl_easy_setopt(c, CURLOPT_PROXY, p ? p->name : "") ||
	    curl_easy_setopt(c, CURLOPT_PROXYUSERNAME, p ? p->user : NULL) ||
	    curl_easy_setopt(c, CURLOPT_PROXYPASSWORD, p && p->user ? p->password ? p->password : "" : NULL))
		return err_oom(e);
	return 0;
}

/* The addresses of its host, in this connection's order, as an entry of libcurl's cache. */
static int set_addresses(struct http *h, struct easy *x, unsigned slot, struct err *e)
{
	_cleanup_buf_ struct buf list = BUF_INIT(LIMIT_ADDRESSES * NAMES_ADDRESS_MAX + 64), line = BUF_INIT(2 * KIB);
	struct curl_slist *entry = NULL;

	*x->first = '\0';
	if (*x->host && names_pick(h->names, x->host, x->port, slot, &list, x->first) == NAMES_READY) {
		buf_addf(&line, "+%s:%u:%s", x->host, x->port, buf_cstr(&list));
		entry = line.failed ? NULL : curl_slist_append(NULL, line.data);
		if (!entry)
			return err_oom(e);
	}
	curl_easy_setopt(x->c, CURLOPT_RESOLVE, entry);
	curl_slist_free_all(x->resolve);
	x->resolve = entry;
	return 0;
}

int http_peer_aim(struct http *h, CURL *c, const char *url, unsigned slot, bool no_proxy, struct err *e)
{
	struct easy *x = find(h, c);
	struct peer p = peer_of(h, url, no_proxy);

	if (!x)
		return err_set(e, CODE_INTERNAL, "a handle that http did not make");
	if (curl_easy_setopt(c, CURLOPT_URL, url))
		return err_oom(e);
	if (set_proxy(c, p.proxy, url, e))
		return -1;
	if (h->tls)
		tls_aim(c, p.proxy && p.proxy->tls);
	x->proxy = p.proxy;
	x->port = p.port;
	memcpy(x->host, p.host, sizeof(x->host));
	return set_addresses(h, x, slot, e);
}

int http_easy_target(struct http *h, CURL *c, const char *url, unsigned slot, struct err *e)
{
	return http_peer_aim(h, c, url, slot, false, e);
}

/* --- after it --- */

static void avoid(struct http *h, const struct easy *x, const char *address)
{
	if (!*address)
		return;
	http_trace(h, "%s: address %s is avoided for a while", x->host, address);
	names_avoid(h->names, x->host, x->port, address);
}

void http_easy_done(struct http *h, CURL *c, CURLcode rc)
{
	struct easy *x = find(h, c);
	char *address = NULL;
	long connects = 0;

	if (!x || !*x->host || !*x->first)
		return;
	curl_easy_getinfo(c, CURLINFO_PRIMARY_IP, &address);
	curl_easy_getinfo(c, CURLINFO_NUM_CONNECTS, &connects);
	switch (rc) {
	case CURLE_COULDNT_CONNECT:
		avoid(h, x, x->first);
		return;
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_SSL_CONNECT_ERROR:
		avoid(h, x, address && *address ? address : x->first);
		return;
	default:
		/* another one won: the first did not answer, or far too late */
		if (connects && address && *address && strcmp(address, x->first) != 0)
			avoid(h, x, x->first);
	}
}

/* --- why it failed --- */

static bool say(struct err *e, enum code code, bool retryable, const char *what, const char *text)
{
	err_set(e, code, "%s: %s", what, text);
	if (e)
		e->retryable = retryable;
	return true;
}

/* An answer to CONNECT that is no 2xx. */
static bool proxy_refused(const struct easy *x, long status, const char *what, struct err *e)
{
	char proxy[400], text[800];

	proxy_words(x->proxy, proxy, sizeof(proxy));
	if (status == 407)
		snprintf(text, sizeof(text), "%s %s, 407; say http://USER:PASSWORD@HOST:PORT in %s", proxy,
			 x->proxy->user ? "refuses the credentials in its URL" : "wants credentials", x->proxy->variable);
	else if (http_status_retryable(status))
		snprintf(text, sizeof(text), "%s could not connect there, it answered %ld", proxy, status);
	else
		snprintf(text, sizeof(text), "%s refuses to connect there, %ld; have it allowed, or name the host in no_proxy",
			 proxy, status);
	say(e, status == 407 || status == 403 ? CODE_AUTH : CODE_NETWORK, http_status_retryable(status), what, text);
	if (e)
		e->http_status = (int)status;
	return true;
}

static bool explain_proxy(const struct easy *x, CURL *c, CURLcode rc, const char *why, const char *what, struct err *e)
{
	char proxy[400], text[800];
	curl_off_t connected = 0, begun = 0;
	long status = 0;

	proxy_words(x->proxy, proxy, sizeof(proxy));
	curl_easy_getinfo(c, CURLINFO_HTTP_CONNECTCODE, &status);
	if (status >= 300)
		return proxy_refused(x, status, what, e);
	curl_easy_getinfo(c, CURLINFO_CONNECT_TIME_T, &connected);
	curl_easy_getinfo(c, CURLINFO_PRETRANSFER_TIME_T, &begun); /* the only one of both over a connection that was there */
	if (rc != CURLE_PROXY && rc != CURLE_COULDNT_RESOLVE_PROXY && (connected || begun))
		return false;
	snprintf(text, sizeof(text), "cannot connect to %s: %s", proxy, why);
	return say(e, rc == CURLE_OPERATION_TIMEDOUT ? CODE_DEADLINE : CODE_NETWORK, true, what, text);
}

static bool explain_certificate(struct http *h, const struct easy *x, const char *what, struct err *e)
{
	char proxy[400], source[200] = "";
	bool unknown = strstr(x->peer.words, "unknown CA") || strstr(x->peer.words, "trusted");

	if (unknown)
		snprintf(source, sizeof(source), "CAs come from %.160s; ", http_ca_source(h));
	err_set(e, CODE_NETWORK, "%s: the certificate of %s is refused: %s; %s%s%s", what,
		x->peer.proxy ? proxy_words(x->proxy, proxy, sizeof(proxy)) : "the server", x->peer.words, source,
		tls_advice(&x->peer),
		unknown && x->proxy && !x->peer.proxy ? " (a proxy that looks into TLS has a CA of its own)" : "");
	return true;
}

/* A new connection that ended at once: the alert that TLS 1.3 sends to who shows no certificate may be lost to a broken pipe. */
static bool explain_silence(struct http *h, const struct easy *x, CURLcode rc, const char *why, const char *what, struct err *e)
{
	char text[500];
	long status = 0, connects = 0;

	curl_easy_getinfo(x->c, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(x->c, CURLINFO_NUM_CONNECTS, &connects);
	if (rc == CURLE_SSL_CONNECT_ERROR || status || !connects || !x->peer.shown || h->o.cert_file)
		return false;
	snprintf(text, sizeof(text), "the server ended TLS before it answered (%.200s); if it wants a client certificate: --cert-file and "
		 "--key-file", why);
	return say(e, CODE_NETWORK, true, what, text);
}

/* Mbed TLS's codes come in libcurl's text alone. */
static bool explain_handshake(struct http *h, const struct easy *x, CURLcode rc, const char *why, const char *what,
			      struct err *e)
{
	bool alert = strstr(why, "-0x7780"); /* also as the first answer, where TLS 1.3 wants a client certificate */
	char text[500];

	if (strstr(why, "-0x6E80") || strstr(why, "protocol version")) {
		snprintf(text, sizeof(text), "the server speaks no TLS %s or newer%s", h->o.tls13 ? "1.3" : "1.2",
			 h->o.tls13 ? "; --tls-min 1.2 would allow more" : ", and nothing older is spoken here");
		return say(e, CODE_NETWORK, false, what, text);
	}
	if (x->peer.shown && (alert || rc == CURLE_SSL_CONNECT_ERROR))
		snprintf(text, sizeof(text), "the server broke TLS off after it had shown its certificate (%.200s); %s", why,
			 h->o.cert_file ? "it may refuse the client certificate of --cert-file" :
					  "it may want a client certificate: --cert-file and --key-file");
	else if (alert)
		snprintf(text, sizeof(text), "the server refuses TLS with an alert; it may speak nothing that %s allows, or not "
			 "serve this name", h->o.tls13 ? "--tls-min 1.3" : "TLS 1.2 or 1.3");
	else
		return explain_silence(h, x, rc, why, what, e);
	say(e, CODE_NETWORK, true, what, text);
	if (e)
		e->sys_errno = EPROTO; /* http_get gives up on these after a few tries */
	return true;
}

bool http_peer_explain(struct http *h, CURL *c, CURLcode rc, const char *errbuf, const char *what, struct err *e)
{
	const struct easy *x = c ? find(h, c) : NULL;
	const char *why = errbuf && *errbuf ? errbuf : curl_easy_strerror(rc);
	struct peer p = { 0 };
	char text[320];

	if (!x || rc == CURLE_OUT_OF_MEMORY || rc == CURLE_WRITE_ERROR)
		return false;
	p.proxy = x->proxy;
	p.port = x->port;
	memcpy(p.host, x->host, sizeof(p.host));
	if (rc == CURLE_COULDNT_RESOLVE_HOST || (rc == CURLE_COULDNT_RESOLVE_PROXY && x->proxy && *p.host)) {
		lookup_failed(&p, what, "failed: no such host, or the name server does not answer", CODE_NETWORK, e);
		return true;
	}
	if (rc == CURLE_OPERATION_TIMEDOUT && strstr(why, "Resolving timed out")) {
		snprintf(text, sizeof(text), "took longer than %u ms", h->o.connect_timeout_ms);
		lookup_failed(&p, what, text, CODE_DEADLINE, e);
		return true;
	}
	if (rc == CURLE_PEER_FAILED_VERIFICATION && *x->peer.words)
		return explain_certificate(h, x, what, e);
	if (x->proxy && explain_proxy(x, c, rc, why, what, e))
		return true;
	if (rc == CURLE_SSL_CONNECT_ERROR || rc == CURLE_RECV_ERROR || rc == CURLE_SEND_ERROR || rc == CURLE_GOT_NOTHING)
		return explain_handshake(h, x, rc, why, what, e);
	return false;
}
