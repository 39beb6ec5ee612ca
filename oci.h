// SPDX-License-Identifier: Apache-2.0
/*
 * Registries: reference -> manifest -> descriptors. Row 2; calls auth, http, json, mirrors, ref, server, verify.
 * oci.c is the flow of requests, oci_hosts.c who is asked, manifest.c (pure) reads documents and chooses platforms. OCI image
 * spec (manifest.md, image-index.md, descriptor.md), distribution spec (pull), Docker schema 2. The
 * bytes received are hashed and compared with the digest asked for at every hop; headers are never
 * trusted for it.
 */
#ifndef FETCHER_OCI_H
#define FETCHER_OCI_H

#include "auth.h"
#include "http.h"
#include "ref.h"
#include "server.h"
#include "verify.h"

struct oci_annotation {
	char *key, *value;
};

struct oci_platform {
	char *os, *architecture, *variant, *os_version;	/* NULL when absent */
};

struct oci_descriptor {
	char *media_type;		/* never NULL; parameters stripped; "" when absent */
	char *artifact_type;		/* or NULL */
	/* DIGEST_NONE in a config or an index entry whose algorithm is unknown; never in a layer */
	struct digest digest;
	uint64_t size;
	struct oci_annotation *annotations;
	size_t n_annotations;
	char *name;			/* Ollama's non-standard key, or NULL */
	/* inline content, already verified against size and digest; NULL = none or mismatch */
	uint8_t *data;
	struct oci_platform *platform;	/* or NULL; index entries only */
};

/*
 * One parsed document: either a manifest (layers) or an index (manifests), never both
 * (CVE-2021-41190).
 */
struct oci_manifest {
	bool is_index;
	/* the field, else the known Content-Type, else the OCI type of the structure */
	char *media_type;
	char *artifact_type;		/* "" when absent */
	struct oci_descriptor config;	/* manifests; media_type "" when there is none */
	struct oci_descriptor *layers;	/* layers of a manifest, or entries of an index */
	size_t n_layers;
	struct oci_annotation *annotations;
	size_t n_annotations;
};

#define OCI_TYPE_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_TYPE_INDEX "application/vnd.oci.image.index.v1+json"
#define OCI_TYPE_EMPTY "application/vnd.oci.empty.v1+json"
#define OCI_TYPE_IMAGE_CONFIG "application/vnd.oci.image.config.v1+json"
#define DOCKER_TYPE_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_TYPE_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define DOCKER_TYPE_IMAGE_CONFIG "application/vnd.docker.container.image.v1+json"

void oci_manifest_release(struct oci_manifest *m);
/* NULL = absent */
const char *oci_annotation(const struct oci_annotation *a, size_t n, const char *key);
/*
 * Pure. content_type: the Content-Type header (parameters allowed) or NULL. A mediaType field that
 * contradicts the structure or a known Content-Type is refused (CODE_INTEGRITY); schema 1 and
 * unknown types: CODE_UNSUPPORTED; bad sizes, digests, both layers and manifests, duplicate keys:
 * CODE_INTEGRITY. A layer whose digest algorithm is unknown: CODE_UNSUPPORTED. Foreign `urls` are
 * ignored: content comes from the registry asked, or not at all.
 */
int oci_manifest_parse(const char *json, size_t len, const char *content_type,
		       struct oci_manifest *ret, struct err *e);

/*
 * "linux/arm64/v8[:osver]"; the variant and the architecture (then this machine's) may be missing.
 * CODE_USAGE.
 */
int oci_platform_parse(const char *s, struct oci_platform *ret, struct err *e);
void oci_platform_release(struct oci_platform *p);
/*
 * Index entry to take. platform NULL = linux/<this machine>, and then a sole entry without platform
 * fields is accepted, and if no entry has platform fields and there is exactly one non-attestation
 * entry, that one. unknown/unknown and attestation entries are skipped. No match: CODE_UNSUPPORTED
 * naming what was asked and what there is. A sole nested index without platform is entered whatever
 * was asked, since the choice is made inside it. Without a variant asked for, entries of the plain
 * architecture win over those of a variant; arm64 and arm64/v8 are the same.
 */
int oci_index_select(const struct oci_manifest *index, const struct oci_platform *platform,
		     size_t *ret_entry, struct err *e);

/* --- a repository of a registry --- */
struct oci_repo;

struct oci_repo_options {
	bool plain_http;
	struct auth_options auth;	/* username, password_file and token_file are for the registry alone, the files for every host */
	/* of the registry; cert_file, key_file and insecure for it alone; cert_origin does not count */
	struct http_options http;
	const char *const *mirrors, *hosts_dir;	/* mirrors.h: urls, hosts_dir */
	uint64_t mirror_speed_limit;	/* blob_server.speed_limit of mirrors */
	unsigned mirror_timeout_ms;	/* a mirror that is silent, or takes for a document, so long is in trouble; 0 = as the registry */
};
/*
 * ref and o are copied; what o's pointers name is borrowed until oci_repo_free. Reads hosts.toml, trust anchors and certificates: no
 * network. CODE_USAGE: one of them cannot be used.
 *
 * With mirrors: manifests and configs are asked of those with `pull`, tags of those with `resolve`, in order, then of the registry (or
 * what hosts.toml has in its place). A mirror gets one try. 404 is a miss; whatever else goes wrong there, wrong bytes too, makes it
 * `bad` for as long as r lives, and is told by http.warn. A dfdaemon is asked for blobs only, by transfer.
 */
int oci_repo_new(struct oci_repo **ret, const struct ref *ref, const struct oci_repo_options *o, struct err *e);
void oci_repo_free(struct oci_repo *r);
struct http *oci_repo_http(struct oci_repo *r);	/* the registry's, for as long as r lives */
const struct http_authority *oci_repo_authority(struct oci_repo *r);
/* Who has its blobs, in the order in which they are asked; the last one is the registry. Valid as long as r is. */
struct blob_server *const *oci_repo_servers(struct oci_repo *r, size_t *ret_n);

/*
 * A small blob of the manifest, such as its config, whole and verified; inline data costs no request. CODE_INTEGRITY: larger than max or
 * than it says, or another digest.
 */
int oci_get_blob(struct oci_repo *r, const struct oci_descriptor *d, uint64_t max, struct buf *ret,
		 struct err *e);

/* What a reference names, resolved to one manifest. */
struct oci_resolved {
	/* of the document the reference names (index or manifest): what `resolve` prints */
	struct digest digest;
	char *media_type;		/* of that document */
	struct buf raw;			/* its bytes */
	struct digest manifest_digest;	/* of the manifest chosen; digest without an index */
	struct buf manifest_raw;	/* its bytes; empty without an index */
	struct oci_manifest manifest;	/* parsed, never an index */
	bool is_index;
	size_t manifest_bytes;		/* bytes of all documents received, for statistics */
};
void oci_resolved_release(struct oci_resolved *r);
/*
 * Digest only, by HEAD (GET when HEAD is refused or has no usable Docker-Content-Digest). A digest
 * in the reference costs no request.
 */
int oci_resolve_digest(struct oci_repo *r, struct digest *ret, struct err *e);
/*
 * GETs down to one manifest. known: digest from oci_resolve_digest, or NULL = the reference itself.
 * With known (or a digest in the reference) ret->digest is that digest, or the call fails.
 */
int oci_resolve(struct oci_repo *r, const struct digest *known, const struct oci_platform *platform,
		struct oci_resolved *ret, struct err *e);
/*
 * The same from bytes kept on the volume (meta): raw and manifest_raw are hashed again and must
 * match; no network. manifest_raw_len 0: there was no index. Any failure but CODE_INTERNAL means
 * "ask the registry": another platform than last time, an index in an index (its middle is not
 * kept), damage on the volume.
 */
int oci_resolve_cached(const struct digest *digest, const char *media_type, const void *raw,
		       size_t raw_len, const void *manifest_raw, size_t manifest_raw_len,
		       const struct oci_platform *platform, struct oci_resolved *ret,
		       struct err *e);

#endif
