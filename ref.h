// SPDX-License-Identifier: Apache-2.0
/*
 * References: [oci://]HOST[:PORT]/REPO[:TAG][@DIGEST]. Pure. Row 1; peer: verify.
 *
 * Grammar: OCI distribution spec "Pulling manifests" (repository, tag) and distribution's reference
 * grammar for the host. A digest always wins over the tag. There is no default registry: the first
 * component must be a host (localhost, or with a dot, a port or brackets). docker.io/X follows the
 * Docker convention (library/X, registry-1.docker.io). Neither tag nor digest: tag "latest" as
 * docker does.
 */
#ifndef FETCHER_REF_H
#define FETCHER_REF_H

#include "log.h"
#include "verify.h"

#define REF_HOST_MAX 300
#define REF_REPO_MAX 256
#define REF_TAG_MAX 128

struct ref {
	char registry[REF_HOST_MAX];	/* host[:port] as written, lower case; "docker.io" stays */
	char host[REF_HOST_MAX];	/* for URLs: registry, or registry-1.docker.io */
	char repo[REF_REPO_MAX];
	char tag[REF_TAG_MAX + 1];	/* "" when only a digest was given */
	bool has_digest;
	struct digest digest;
};

/*
 * Every bad form fails with CODE_USAGE and a message that shows the bad part. s must not be NULL.
 */
int ref_parse(const char *s, struct ref *ret, struct err *e);
/* Canonical text REGISTRY/REPO[:TAG][@DIGEST]. */
int ref_format(const struct ref *r, struct buf *ret);
/* What is asked of /v2/REPO/manifests/: the digest, else the tag. */
const char *ref_target(const struct ref *r, char ret[static DIGEST_STR_MAX]);

#endif
