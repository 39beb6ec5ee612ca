// SPDX-License-Identifier: Apache-2.0
/* What the logins of cloud.h share. Each login: 1, 0 (note says why), -1, as cloud_login. */
#ifndef FETCHER_CLOUD_INTERNAL_H
#define FETCHER_CLOUD_INTERNAL_H

#include "cloud.h"
#include "secret.h"

int gcp_login(const struct cloud *c, struct credential *ret, struct buf *note, struct err *e);
int azure_login(const struct cloud *c, struct credential *ret, struct buf *note, struct err *e);

#define CLOUD_TIMEOUT_MS 20000		/* one exchange with a service */
#define METADATA_TIMEOUT_MS 1000	/* one with a metadata address: where there is none, nobody answers */

/* NULL when unset or empty. */
const char *cloud_env(const struct cloud *c, const char *name);
/*
 * One exchange; bodies are capped, a body that is too large is CODE_AUTH. Any status but a redirect is success. metadata: short
 * timeout, and no proxy.
 */
int cloud_fetch(const struct cloud *c, struct http_request q, bool metadata, struct http_response *ret, struct err *e);
/* Overwrites the body, then releases. */
void cloud_response_release(struct http_response *r);
#define _cleanup_response_ __attribute__((cleanup(cloud_response_release)))
/* A file with one line; ends of line at its end do not count. The caller frees with secret_free. CODE_USAGE. */
int cloud_read_file(const char *path, const char *variable, char **ret, struct err *e);
/* The document of an answer that must be a JSON object; otherwise CODE_AUTH. */
int cloud_json(const struct http_response *r, const char *who, struct json_doc *ret, struct err *e);
/* A member that must be there, and fit for a header. The caller frees with secret_free. CODE_AUTH. */
int cloud_json_secret(yyjson_val *obj, const char *key, const char *who, char **ret, struct err *e);
/*
 * A refused exchange: words of the service (its fields named code and text of a JSON object; may be NULL) without what it was sent
 * (secrets: NULL-terminated, may be NULL), 429 and 5xx are CODE_NETWORK and retryable, others CODE_AUTH. Returns -1.
 */
int cloud_refused(const struct http_response *r, const char *who, const char *code, const char *text,
		  const char *const *secrets, struct err *e);
/* Overwrites secrets inside a service's words, in place, also URL-encoded ones; before they are cut, since half of one is none to find. */
void cloud_mask(struct str words, const char *const *secrets);
/* Nothing more is to be tried: a signal, or the time of the whole run is up. That says nothing of who we are. */
bool cloud_is_over(const struct err *e);
/* "timed out" or what else stopped an exchange, for a note. */
const char *cloud_why(const struct err *e, char *ret, size_t n);
/* http(s)://host[:port][/path] of a variable, without blanks, user info, query: else CODE_USAGE. A slash at the end is left off. */
int cloud_base_url(const char *variable, const char *value, struct buf *ret, struct err *e);
/* Letters, digits and the characters of more; not empty. */
bool cloud_plain(const char *s, const char *more);

#endif
