// SPDX-License-Identifier: Apache-2.0
/*
 * Trust anchors and cipher preferences for every connection (design D5.1). Row 1; called by http only; peer: http (origins).
 *
 * libcurl's Mbed TLS backend would parse the CA bundle once per connection; here it is
 * parsed once and lent to each connection through CURLOPT_SSL_CTX_FUNCTION.
 * The chain is read-only after tls_new, so all threads may share it.
 */
#ifndef FETCHER_TLS_H
#define FETCHER_TLS_H

#include <curl/curl.h>

#include "log.h"

struct tls;

/*
 * insecure: the peer's certificate is not looked at, for no property of it.
 * CA sources, first that exists: ca_file; SSL_CERT_FILE; SSL_CERT_DIR; the usual system bundles; the
 * Mozilla bundle inside this binary. A source that was named (ca_file, SSL_CERT_FILE) and cannot be read or holds no
 * certificate is an error (CODE_USAGE), never a silent fall-back. extra_ca_files are added to it (NULL-terminated; NULL = none).
 */
int tls_new(struct tls **ret, const char *ca_file, const char *const *extra_ca_files, bool insecure, struct err *e);
/*
 * Client certificate (chain) and key, PEM or DER, read once; shown only to `origin` (http_origin form), never to where it
 * redirects. CODE_USAGE names the file that is none, or says that the two do not belong together. Before threads start.
 */
int tls_client_certificate(struct tls *t, const char *cert_file, const char *key_file,
			   const char *origin, struct err *e);
void tls_free(struct tls *t);
const char *tls_source(const struct tls *t);	/* for messages: path or "built-in Mozilla bundle" */
/* Borrows t for the life of the handle. */
void tls_apply(const struct tls *t, CURL *c);

#endif
