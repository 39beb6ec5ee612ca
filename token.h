// SPDX-License-Identifier: Apache-2.0
/*
 * The token service of a registry (distribution's token and oauth2 specs): where it may be, one
 * exchange with it, how long its answer lives. No state. Row 1; peers: http, dockercfg.
 */
#ifndef FETCHER_TOKEN_H
#define FETCHER_TOKEN_H

#include "dockercfg.h"
#include "http.h"

#define TOKEN_LIFE_MIN_S 60	/* default and least expires_in of the token spec */
#define TOKEN_LIFE_MAX_S (7 * 24 * 3600)
#define TOKEN_REDIRECTS 3

/*
 * The absolute URL of a challenge's realm (relative ones are resolved against base, the URL that
 * answered 401), if credentials may go there: https, or http when the registry itself is http; no
 * user info; not a literal private, loopback, link-local or unspecified address (or "localhost")
 * other than the registry's own host (two names of loopback are one host), unless allow_private.
 * origin: see http_origin. Caller frees *ret. Refused: CODE_AUTH.
 */
int token_realm(const char *origin, const char *base, const char *realm, bool allow_private,
		char **ret, struct err *e);

struct token_query {
	int (*fetch)(void *ctx, const struct http_request *q, struct http_response *ret,
		     struct err *e);
	void *ctx;
	const char *realm;		/* of token_realm */
	const char *service;		/* NULL = not sent */
	const char *const *scopes;
	size_t n_scopes;
	const struct credential *cred;	/* NULL = anonymous */
};

struct token {
	char *value;
	char *refresh_token;		/* a new one to use next time, or NULL */
	uint64_t life_ms;		/* from now */
};
void token_release(struct token *t);

/*
 * identity_token: POST grant_type=refresh_token, and GET where that is not offered (404, 405).
 * Else GET with Basic, or without when anonymous. Redirects are followed within the realm's
 * origin only. Errors: CODE_AUTH with http_status 401 or 403 when the credentials were refused;
 * CODE_NETWORK (retryable) for 429/5xx and the transport.
 */
int token_fetch(const struct token_query *q, struct token *ret, struct err *e);
/*
 * Whether the service knows user and password, asked without a scope (Harbor answers 200 to a
 * scoped question whatever the password is). 1 yes, 0 no, -1 cannot tell.
 */
int token_check_login(const struct token_query *q);

/*
 * "Basic ..." of user:password, or of the refresh token with the user name its issuers give it.
 * -1 CODE_AUTH, CODE_USAGE.
 */
int token_basic(const struct credential *c, struct buf *ret, struct err *e);
/*
 * The moments, in ms from now, for expires_in seconds (0 = absent) and issued_at (RFC 3339, NULL
 * = absent, lies tolerated).
 */
uint64_t token_life_ms(uint64_t expires_in, const char *issued_at, int64_t now_unix);
/*
 * When to renew a token that lives so long: at 90 % of it or 10 s before its end, whichever is
 * earlier.
 */
uint64_t token_renew_ms(uint64_t life_ms);
/* Visible ASCII only: fit for a header. */
bool token_clean(const char *s);

#endif
