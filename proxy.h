// SPDX-License-Identifier: Apache-2.0
/*
 * Which proxy a URL goes through, by the variables of the environment. Row 1; calls buf, log, secret.
 *
 * http_proxy is for http://, https_proxy for https:// URLs, all_proxy for both where the first is not set; each also in upper case,
 * lower case first. HTTP_PROXY is not looked at where REQUEST_METHOD is set: under CGI a visitor can set it (httpoxy), and Go's
 * clients do the same. no_proxy names hosts that are reached directly; loopback is, always (as in Go's clients: a proxy's loopback
 * is another). libcurl's own reading of these variables is switched off: it knows neither ports nor /0 in no_proxy, and its error
 * texts may repeat the variable with the password in it.
 *
 * Threads: a struct proxy_env is read-only after proxy_env_new.
 */
#ifndef FETCHER_PROXY_H
#define FETCHER_PROXY_H

#include <stdbool.h>

#include "log.h"

struct proxy_env;

struct proxy {
	const char *variable;	/* "https_proxy" */
	const char *fault;	/* the variable holds no proxy's URL: why; then nothing below is set */
	char *name;		/* "http://host:port", never with user info: for messages and for libcurl */
	char *host;		/* without brackets */
	unsigned port;
	char *user, *password;	/* decoded, NULL = none; secrets, for Basic */
	bool tls;		/* https:// to the proxy itself */
};

/* Reads the environment; nothing is borrowed. -1: out of memory. */
int proxy_env_new(struct proxy_env **ret, struct err *e);
void proxy_env_free(struct proxy_env *env);
/* The proxy for an http(s) URL; NULL = none. Borrowed. */
const struct proxy *proxy_for(const struct proxy_env *env, const char *url);
/* One of them is spoken to over TLS. */
bool proxy_env_wants_tls(const struct proxy_env *env);

/*
 * Is a host (no brackets) one of a no_proxy list? Entries between commas or blanks: "*"; a name, which means itself and all names
 * below it, a leading dot or "*." makes no difference (curl, wget, Python; Go's leave the name itself out then); an address; a CIDR; each
 * with :PORT for that port alone. A trailing dot of a name is ignored. What is no entry matches nothing.
 */
bool proxy_bypassed(const char *list, const char *host, unsigned port);

#endif
