// SPDX-License-Identifier: Apache-2.0
/*
 * Who we are for one repository of one registry: what the registry asks for (challenge.h), what
 * we have (dockercfg.h, cloud.h), the token that comes of it (token.h), kept fresh. Row 1; peers:
 * http, challenge, cloud, dockercfg, token.
 *
 * A struct auth starts without credentials, learns from the first 401 what the registry wants
 * (Basic or Bearer), and keeps one credential. A token is renewed before it runs out, by one
 * caller while the others wait or go on with the old one. Credential files are read again each
 * time, so that rotated secrets are picked up. Two credentials obtained afresh and refused one
 * after the other are final (CODE_AUTH) for a few seconds, then everything starts anew.
 *
 * Threads: the functions of the authority may be called from any thread.
 */
#ifndef FETCHER_AUTH_H
#define FETCHER_AUTH_H

#include "http.h"

struct auth;

struct auth_options {
	const char *const *config_files; /* --registry-config, in order; NULL-terminated; NULL = search (dockercfg.h) */
	const char *username;		/* with password_file; beats config files */
	const char *password_file;	/* line ends at its end do not count */
	const char *token_file;		/* a registry token sent as Bearer as it is; not with username */
	bool no_cloud_login;		/* --cloud-login off, or --insecure; plain HTTP has none either (cloud.h) */
	bool allow_private_realm;	/* token realm on a private address other than the registry's */
	/* Tests only; NULL = the process's environment, http_fetch, sys_now_ms */
	const char *const *environ_override;
	int (*fetch_override)(void *ctx, const struct http_request *q, struct http_response *ret,
			      struct err *e);
	void *fetch_ctx;
	uint64_t (*clock_override)(void);
};

/*
 * origin as of http_origin(); registry is the key for config files (host[:port] as in the
 * reference, docker.io for Docker Hub). All pointers, those in o too, are borrowed until
 * auth_free. Explicitly named files are looked at once here, so that a typing error is CODE_USAGE
 * at the start. No network.
 */
int auth_new(struct auth **ret, struct http *h, const struct auth_options *o, const char *origin,
	     const char *registry, const char *repo, struct err *e);
void auth_free(struct auth *a);
/* Valid as long as a is. */
const struct http_authority *auth_authority(struct auth *a);

#endif
