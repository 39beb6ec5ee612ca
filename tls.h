// SPDX-License-Identifier: Apache-2.0
/*
 * Trust anchors, cipher preferences and what is wrong with a certificate (design D5.1). Row 1; called by http only; calls json;
 * peer: http (origins).
 *
 * libcurl's Mbed TLS backend would parse the CA bundle once per connection; here it is
 * parsed once and lent to each connection through CURLOPT_SSL_CTX_FUNCTION.
 * The chains are read-only once the first connection has them, so all threads may share them.
 */
#ifndef FETCHER_TLS_H
#define FETCHER_TLS_H

#include <curl/curl.h>

#include "log.h"

struct tls;

struct tls_options {
	const char *ca_file;			/* replaces every other source */
	const char *const *extra_ca_files;	/* added to the source, whichever it is; NULL-terminated, NULL = none */
	const char *proxy_ca_file;		/* in place of all of these for proxies; NULL = the same */
	bool insecure;				/* the server's certificate is not looked at, for no property of it; a proxy's is */
	bool tls13;				/* nothing below TLS 1.3; else nothing below 1.2 */
};

/*
 * CA sources, first that exists: ca_file; SSL_CERT_FILE; SSL_CERT_DIR; the usual system bundles; the
 * Mozilla bundle inside this binary. A file that was named (also by SSL_CERT_FILE) and cannot be read or holds no
 * certificate is an error (CODE_USAGE), never a silent fall-back. What was not named is read when the first connection needs it.
 */
int tls_new(struct tls **ret, const struct tls_options *o, struct err *e);
/*
 * Client certificate (chain) and key, PEM or DER, read once; shown only to `origin` (http_origin form), never to where it
 * redirects, never to a proxy. CODE_USAGE names the file that is none, or says that the two do not belong together. Before
 * threads start.
 */
int tls_client_certificate(struct tls *t, const char *cert_file, const char *key_file,
			   const char *origin, struct err *e);
void tls_free(struct tls *t);
const char *tls_source(const struct tls *t);	/* for messages: path or "built-in Mozilla bundle" */

/* One handle's view: what its last handshake said of the certificates it was shown. Used by the handle's thread alone. */
struct tls_peer {
	struct tls *tls;
	bool proxy;		/* the certificates were a proxy's */
	bool shown;		/* a certificate came: the other side does speak TLS */
	uint32_t flags;		/* MBEDTLS_X509_BADCERT_*; 0 = nothing wrong */
	char words[480];	/* what is wrong: names, dates, this machine's time; printable; "" = nothing */
};
/* Borrows peer, which holds t, for the life of the handle. */
void tls_apply(struct tls_peer *peer, CURL *c);
/* To be said of each target: is it reached through a proxy that speaks TLS itself? */
void tls_aim(CURL *c, bool tls_proxy);
/* What would help against peer's words; "" = nothing we know. */
const char *tls_advice(const struct tls_peer *peer);

#endif
