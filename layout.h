// SPDX-License-Identifier: Apache-2.0
/*
 * Which file each layer becomes. Pure. Row 2 (calls only json, verify, buf, log; peer: oci.h's data
 * types). Sources: ModelPack model-spec (annotations.md), ORAS titles, reference rule "path
 * source": org.cncf.model.filepath > org.cnai.model.filepath > org.opencontainers.image.title.
 */
#ifndef FETCHER_LAYOUT_H
#define FETCHER_LAYOUT_H

#include "oci.h"

struct layout_file {
	char *path;		/* relative, clean, safe (layout_check_path); owned */
	struct digest digest;
	uint64_t size;
	uint32_t mode;		/* 0 = default (0644); only 0777, and the owner can always read */
	bool has_mtime;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	const uint8_t *data;	/* inline content (borrowed from the manifest), or NULL */
};

struct layout {
	struct layout_file *files;	/* sorted by path (bytewise), paths unique */
	size_t n_files;
	uint64_t bytes;			/* sum of file sizes */
	uint64_t unique_bytes;		/* sum over distinct digests */
	char **warnings;		/* e.g. malformed metadata, layer skipped; owned */
	size_t n_warnings;
	size_t n_excluded;		/* files that the globs left out */
};

struct layout_options {
	const char *const *include;	/* NULL-terminated globs; NULL or empty = all */
	const char *const *exclude;	/* win over include */
};

void layout_release(struct layout *l);
/*
 * CODE_UNSAFE: a path that escapes, is absolute or reserved (layout_check_path); one path twice
 *   with different content (with the same digest it is kept once); a path that is a directory of
 *   another. Checked before the globs, so that nothing unsafe hides behind a filter.
 * CODE_UNSUPPORTED: a layer that must be unpacked (tar types of ModelPack, KitOps and docker.ai,
 *   the unpack annotation, container images), named with number and media type; nothing to lay out;
 *   the globs match nothing.
 * CODE_INTEGRITY: one digest with two sizes; size 0 with another digest than that of no bytes, or
 *   the reverse.
 * A layer without a name: the empty descriptor is skipped silently, an unknown type with a warning;
 * a model producer's own type is CODE_UNSUPPORTED: success without the weights would be a lie.
 */
int layout_plan(const struct oci_manifest *m, const struct layout_options *o, struct layout *ret,
		struct err *e);

/*
 * Cleans `in` ("./a//b" -> "a/b") into ret. Refused: empty, absolute, any ".." component, NUL or
 * control characters, component > LIMIT_COMPONENT, path > LIMIT_PATH, depth > LIMIT_PATH_DEPTH,
 * trailing slash, ".fetcher" as first component (in any case, for volumes that fold it), "current"
 * as first component. Allowed: "..data", "v1..2.bin", backslash (an ordinary byte), any other byte;
 * nothing is normalised. 0 or -1 with CODE_UNSAFE and a message that shows the (escaped) name.
 * Caller frees *ret.
 */
int layout_check_path(struct str in, char **ret, struct err *e);
/*
 * Glob on the whole path: `*` and `?` do not cross "/", `**` does, [a-z] classes, backslash quotes;
 * a pattern without "/" matches the base name at any depth (as .gitignore and rsync do); a trailing
 * "/" means everything below; a leading "/" anchors at the top. "**" followed by "/" at the start
 * of a component also matches nothing. An unclosed "[" is an ordinary byte. Time is bounded by
 * pattern x path^2.
 */
bool layout_glob(const char *pattern, const char *path);

#endif
