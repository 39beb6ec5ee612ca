// SPDX-License-Identifier: Apache-2.0
/* Between the files of tls. */
#ifndef FETCHER_TLS_INTERNAL_H
#define FETCHER_TLS_INTERNAL_H

#include <mbedtls/x509_crt.h>

#include "tls.h"

/* Adds to the peer's words what the flags say against a certificate of its chain (depth 0 = its own). Called from the top down. */
void tls_complain(struct tls_peer *peer, const mbedtls_x509_crt *crt, int depth, uint32_t flags);

#endif
