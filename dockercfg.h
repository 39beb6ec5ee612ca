// SPDX-License-Identifier: Apache-2.0
/*
 * Credentials from docker configuration files (config.json, auth.json, .dockerconfigjson,
 * .dockercfg). Row 1; peer: cloud (the names of its helpers).
 *
 * Nothing is cached: callers look again whenever they need a credential, so rotated secrets are
 * seen. Secrets never appear in messages. Thread safe (no state).
 */
#ifndef FETCHER_DOCKERCFG_H
#define FETCHER_DOCKERCFG_H

#include "buf.h"
#include "log.h"

struct credential {
	char *username, *password;	/* Basic, or for the token endpoint */
	char *identity_token;		/* OAuth2 refresh token */
	char *registry_token;		/* Bearer as it is */
	char *helper;			/* nothing else is set but source: the login of this helper is built in (cloud.h) */
	uint64_t life_ms;		/* from when it was found; 0 = nobody said */
	char *source;			/* "/path/config.json, key auths.example.com", for messages */
};
void credential_release(struct credential *c);	/* overwrites, then frees */

#define DOCKERCFG_NOTES_MAX 600

/*
 * Looks registry/repo up in the text of a docker config.json, or of a bare .dockercfg map.
 * registry is host[:port] in lower case, "docker.io" for Docker Hub. The most specific key with a
 * credential in it wins:
 *   host/path       path is a leading part of repo; longer before shorter
 *   host            exact; Docker Hub also as https://index.docker.io/v1/, index.docker.io, registry-1.docker.io
 *   scheme://host/x, host/v1, host/v2
 *   *.host          globs by label, as the kubelet matches them; with a path as well
 * 1 found, or credHelpers names a helper for this registry whose login is built in (ret->helper); 0
 * not found (*ret untouched); -1 CODE_USAGE: malformed, or only another credential helper is named
 * for this registry; the message names path and key
 * (auths.example.com.auth). notes (may be NULL) gets "; ..."
 * remarks that explain a 0.
 */
int dockercfg_lookup(const char *text, size_t len, const char *path, const char *registry,
		     const char *repo, struct credential *ret, struct buf *notes, struct err *e);

/*
 * Searches files, the first with a credential wins. files: NULL-terminated, each a file or a
 * directory with config.json, .dockerconfigjson or .dockercfg in it; they must exist. NULL = the
 * places named by the environment: $DOCKER_CONFIG, $REGISTRY_AUTH_FILE, and unless DOCKER_CONFIG
 * is set (it replaces it) $HOME/.docker; these may be missing or unreadable. env: "NAME=value"
 * strings; NULL = the process's. Results as of dockercfg_lookup; looked (may be NULL) gets where
 * was looked and the remarks, for "no credentials found; looked in ...". Only regular files are
 * read.
 */
int dockercfg_find(const char *const *files, const char *const *env, const char *registry,
		   const char *repo, struct credential *ret, struct buf *looked, struct err *e);

/*
 * Standard base64; blanks and line ends are skipped, padding may be missing or too long. -1 =
 * malformed. Appends.
 */
int base64_decode(const char *s, size_t n, struct buf *ret);
int base64_encode(const void *p, size_t n, struct buf *ret);

#endif
