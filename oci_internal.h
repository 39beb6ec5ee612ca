// SPDX-License-Identifier: Apache-2.0
/* What oci.c (the flow of requests) and oci_hosts.c (who is asked) share. */
#ifndef FETCHER_OCI_INTERNAL_H
#define FETCHER_OCI_INTERNAL_H

#include "mirrors.h"
#include "oci.h"

struct oci_host {
	const struct mirror_host *m;
	struct oci_repo *repo;
	struct http *http;
	struct auth_options auth_options;	/* auth borrows them */
	struct auth *auth;			/* NULL = nobody, or, as for a proxy, the registry's */
	const char **headers;			/* of requests for documents; the array is owned */
	struct blob_server server;		/* .mirror, .bad: for documents, too */
};

struct oci_repo {
	struct ref ref;
	struct oci_repo_options options;
	struct mirrors mirrors;
	struct oci_host hosts[LIMIT_MIRRORS + 1]; /* as mirrors.hosts: the last one is the last resort */
	size_t n_hosts;
	struct blob_server *servers[LIMIT_MIRRORS + 1];
	size_t n_servers;
};

/*
 * kind: "manifests" or "blobs". The caller frees it; NULL = out of memory. The parts need no encoding: ref_parse and digest_format let
 * only URL-safe characters through.
 */
char *oci_host_url(const struct oci_host *h, const char *kind, const char *target);
/* May it be asked for a document with a digest? */
bool oci_host_has_documents(const struct oci_host *h);
/* For what a tag means? */
bool oci_host_resolves(const struct oci_host *h);
/* It failed for the reason *why. true: the next one is asked, and this one again only if all it said was that it has no such thing. */
bool oci_host_gives_way(struct oci_host *h, const struct err *why);

#endif
