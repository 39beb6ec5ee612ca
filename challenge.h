// SPDX-License-Identifier: Apache-2.0
/*
 * WWW-Authenticate challenges (RFC 9110 11.3-11.6, distribution's token spec). Pure. Row 1.
 */
#ifndef FETCHER_CHALLENGE_H
#define FETCHER_CHALLENGE_H

#include <stddef.h>

enum challenge_scheme { CHALLENGE_BASIC = 1, CHALLENGE_BEARER };

struct challenge {
	enum challenge_scheme scheme;
	char *realm, *service, *scope, *error;	/* NULL when absent; owned */
};

#define CHALLENGES_MAX 8

/*
 * All Basic and Bearer challenges of one header value, others skipped. Scheme and parameter names
 * in any case, values quoted or bare, blanks around "=" and ",". Stops softly at the first
 * malformed parameter and keeps what parsed before. Values never hold control characters. Returns
 * how many were added to ret (at most max).
 */
size_t challenge_parse(const char *value, struct challenge *ret, size_t max);
void challenge_release(struct challenge *c);

/* The challenges of one answer, which may come in several header lines. */
struct challenges {
	struct challenge list[CHALLENGES_MAX];
	size_t n;
};
void challenges_add(struct challenges *all, const char *value);
/* The first of a scheme that can be used: Bearer needs a realm. NULL = none. */
const struct challenge *challenges_get(const struct challenges *all, enum challenge_scheme scheme);
void challenges_release(struct challenges *all);

#define SCOPES_MAX 8
/*
 * The scopes to ask for from now on, in place: the challenged ones first (some services read only
 * the first), then "repository:REPO:pull" unless one of them covers it, then those of list so
 * far; no duplicates. challenged is a blank-separated list or NULL. Scopes are opaque: a public
 * cloud's constant "aws" passes as it is. The strings of list are owned by the caller, before and
 * after. -1 = out of memory, list as it was.
 */
int scopes_merge(char *list[static SCOPES_MAX], size_t *n, const char *repo, const char *challenged);

#endif
