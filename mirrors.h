// SPDX-License-Identifier: Apache-2.0
/*
 * Which hosts are asked for the content of a registry, in which order, and how: containerd's hosts.toml (docs/hosts.md there) and
 * --mirror. Files only, no network. Row 1; calls buf, json, log, sys, toml, units; peers: http (origins), ref.
 */
#ifndef FETCHER_MIRRORS_H
#define FETCHER_MIRRORS_H

#include "http.h"
#include "ref.h"

/* One host. Strings are owned by the struct mirrors it is in; lists are NULL-terminated, NULL = empty. */
struct mirror_host {
	char *from;			/* "--mirror" or "/dir/hosts.toml, line 3", for messages; NULL: the reference itself */
	char *name;			/* host[:port], lower case: for messages, and the key of its credentials */
	char *base;			/* scheme://host[:port]/v2, or another path with override_path; no slash at its end */
	char origin[512];		/* http_origin of base */
	/* the registry the reference names: no ns=, and the only one that --username, --cert-file, --insecure... are meant for */
	bool registry;
	bool pull, resolve;		/* may be asked for what has a digest; for what a tag means */
	/*
	 * dfdaemon: gets requests for blobs alone, with the registry's own Authorization when `registry` is where X-Dragonfly-Registry
	 * sends them: whoever has a finished task there gets it without the registry being asked, so manifests never go this way.
	 */
	bool dragonfly, on_behalf;
	bool skip_verify;
	char **ca;			/* PEM files, added to the system's */
	char *cert, *key;		/* client certificate; key may be the same file */
	char **headers;			/* "Name: value" */
	uint64_t dial_timeout_ms;	/* 0 = not said */
};

struct mirrors {
	/* in the order in which they are asked; the last one is the registry, or what takes its place (`server`) */
	struct mirror_host *hosts;
	size_t n;
	char *ns;			/* "ns=..." of those that are not the registry */
};

struct mirrors_options {
	const char *const *urls;	/* --mirror: [dragonfly+]http[s]://host[:port][/path]; no scheme = https; NULL-terminated or NULL */
	const char *hosts_dir;		/* --hosts-dir, as /etc/containerd/certs.d; NULL = none */
	bool plain_http;		/* of the registry, where no file says how it is reached */
	void (*warn)(void *arg, const char *text);	/* what is ignored, and verification that is off; may be NULL */
	void *warn_arg;
};

/*
 * From hosts_dir the first directory that exists of HOST_PORT_, HOST:PORT (HOST without a port), _default counts, as for containerd;
 * without a hosts.toml in it Docker's files are read: *.crt, *.cert with *.key. Unknown keys are warned of. CODE_USAGE names file
 * and line of what cannot be understood: nothing is ignored that says whom to trust.
 */
int mirrors_read(struct mirrors *ret, const struct ref *ref, const struct mirrors_options *o, struct err *e);
void mirrors_release(struct mirrors *m);

#endif
