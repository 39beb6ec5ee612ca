// SPDX-License-Identifier: Apache-2.0
/*
 * Which file each layer becomes, for every producer. Pure. Row 2 (calls only json, verify, buf,
 * log; peer: oci.h's data types). Sources: ModelPack model-spec (annotations.md, specs-go/v1),
 * ORAS (oras-go content/file), KitOps (pkg/lib/filesystem/unpack), Docker Model Runner
 * (pkg/distribution), Ollama (manifest/), olot, OCI image spec (layer.md). Reference rule "path
 * source": org.cncf.model.filepath > org.cnai.model.filepath > org.opencontainers.image.title >
 * Ollama's `name` > the producer's convention.
 */
#ifndef FETCHER_LAYOUT_H
#define FETCHER_LAYOUT_H

#include "oci.h"

enum layout_kind { LAYOUT_FILE = 0, LAYOUT_SYMLINK, LAYOUT_DIR };
/* By the suffix of the media type, confirmed by the first bytes. */
enum layout_codec { CODEC_NONE = 0, CODEC_GZIP, CODEC_ZSTD };

struct layout_file {
	/*
	 * SYMLINK: data is its target's text (size bytes, no NUL), malloc'ed and owned; digest is
	 * the SHA-256 of it. DIR: an empty directory; size 0, no digest, no data
	 */
	enum layout_kind kind;
	char *path;		/* relative, clean, safe (layout_check_path); owned */
	struct digest digest;
	uint64_t size;
	uint32_t mode;		/* 0 = default (0644); only 0777, and the owner can always read */
	bool has_mtime;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	const uint8_t *data;	/* FILE: inline content (borrowed from the manifest), or NULL */
	char *from;		/* where its content lies below the partial directory (trees.c), or NULL; owned */
};
/* path, from, and a symlink's data. */
void layout_file_release(struct layout_file *f);

/* One layer that becomes many files. */
struct layout_tree {
	size_t layer;		/* index in the manifest; trees are in this order */
	struct digest digest;	/* of the layer as it travels */
	uint64_t size;
	enum layout_codec codec;
	char *name;		/* for people: a path or a label from the manifest; or NULL */
	char *prefix;		/* goes in front of every entry's name ("dir/"), "" = nothing */
	char *subdir;		/* only entries below it ("models/") are taken, cut off; "" = all */
	/*
	 * where the only regular entry goes if its name is the base name of this path (AIKit's
	 * tars); NULL = no such rule
	 */
	char *single;
	struct digest inner;	/* of the uncompressed tar, to be checked; DIGEST_NONE = not told */
	/* a layer of a container image: whiteouts, later layers win, "/" means the image's root */
	bool image;
	/* canonical text of all that decides what comes out of it (globs and codec included) */
	char *key;
};

struct layout {
	struct layout_file *files;	/* sorted by path (bytewise), paths unique */
	size_t n_files;
	/* layers to unpack, in layer order; what they become joins files by layout_merge */
	struct layout_tree *trees;
	size_t n_trees;
	uint64_t bytes;			/* sum of file sizes (without trees until layout_finish) */
	uint64_t unique_bytes;		/* sum over distinct digests */
	uint64_t tree_bytes;		/* of the trees as they travel, over distinct digests */
	char **warnings;		/* e.g. malformed metadata, layer skipped; owned */
	size_t n_warnings;
	/*
	 * files and layers that the globs and types left out; the caller may add what unpack left
	 * out
	 */
	size_t n_excluded;
	/* layout_merge's own */
	size_t room, n_merged;
};

struct layout_options {
	const char *const *include;	/* NULL-terminated globs; NULL or empty = all */
	const char *const *exclude;	/* win over include */
	/*
	 * Which rules; NULL = "auto":
	 * auto       each producer's own, by media types and annotations
	 * modelpack  as auto, but every layer whose type ends in .tar, .tar+gzip or .tar+zstd is
	 *            unpacked, whoever's type it is
	 * oras       as `oras pull`: titles, and only what has the unpack annotation is unpacked
	 * image      every layer is one of a container image, whatever config and titles say
	 * raw        nothing is unpacked: each layer is a file, without a name it is called by its
	 *            digest ("sha256-...")
	 *
	 * ModelKits, Ollama and Docker models cannot be taken for anything else, so they have no
	 * word here.
	 */
	const char *as;
	/*
	 * container images: only what lies below it ("/models", "models/"); NULL = "models"; "/"
	 * or "" = everything
	 */
	const char *subdir;
	/*
	 * NULL-terminated, of weight config doc code dataset other (other: the media type does
	 * not say); NULL or empty = all
	 */
	const char *const *types;
	/* a layer of unknown type without a name is CODE_UNSUPPORTED instead of a warning */
	bool strict;
	/* bytes of the config blob where layout_wants_config; borrowed for the call; NULL = none */
	const void *config;
	size_t config_len;
};

/*
 * The plan cannot be made without the config's bytes: KitOps, whose old kits keep their paths in
 * it.
 */
bool layout_wants_config(const struct oci_manifest *m);

void layout_release(struct layout *l);
/*
 * o may be NULL. After it trees are to be unpacked and merged; without trees the plan is complete.
 * CODE_USAGE: a word of `as` or `types` that does not exist, a subdir that is no path.
 * CODE_UNSAFE: a path that escapes, is absolute or reserved (layout_check_path); one path twice
 *   with different content (with the same digest it is kept once); a path that is a directory of
 *   another. Checked before the globs, so that nothing unsafe hides behind a filter.
 * CODE_UNSUPPORTED: an archive whose compression we do not know; a ModelKit whose model is in
 *   another ModelKit; nothing to lay out; the globs or types match nothing.
 * CODE_INTEGRITY: one digest with two sizes; size 0 with another digest than that of no bytes, or
 *   the reverse; an archive of no bytes; a Kitfile that is missing, malformed or has no entry for
 *   a layer.
 * A layer without a name: the empty descriptor is skipped silently, an unknown type with a
 * warning; a model producer's own type is CODE_UNSUPPORTED: success without the weights would be
 * a lie.
 * Trees: what is known of an archive without reading it (the one file in it, the directory, its
 * --type) may show that nothing of it is wanted: then it is no tree, and counted in n_excluded.
 */
int layout_plan(const struct oci_manifest *m, const struct layout_options *o, struct layout *ret,
		struct err *e);

/*
 * The name of its record and directory: "<alg>-<hex>-<8 hex>". Two trees of one plan may share it
 * (images repeat layers): one result then serves both.
 */
#define LAYOUT_TREE_NAME 160
const char *layout_tree_name(const struct layout_tree *t, char ret[static LAYOUT_TREE_NAME]);
/*
 * "tar+gzip below models/", "tar into old/", "tar+zstd of w/model.bin", "tar": foreign bytes are
 * not escaped.
 */
void layout_tree_describe(const struct layout_tree *t, struct buf *b);
/*
 * Takes what a tree became into the plan; every tree once, in order. Paths are relative to the
 * plan's root; each file is checked again, since it may come from a record on the volume
 * (CODE_UNSAFE, CODE_INTEGRITY). On success the files' path and data are moved (NULL in the
 * array), the array and the whiteouts stay the caller's; on failure nothing has happened.
 *
 * Container images: whiteouts remove what earlier layers brought, "a/b" the path and all below
 * it, "a/" (opaque) all below it and a non-directory there, "/" everything (the image's subdir
 * itself went away or became something else). Later layers win: a file or symlink replaces a
 * file, a symlink, a directory; a directory replaces a file, and a symlink if the layer brings
 * the directory's own entry (so unpack reports for images every directory as DIR) or an opaque
 * marker: else the path would go through a link: CODE_UNSAFE. Other trees bring no whiteouts;
 * what collides is found by layout_finish.
 */
int layout_merge(struct layout *l, size_t tree, struct layout_file *files, size_t n_files,
		 char *const *whiteouts, size_t n_whiteouts, struct err *e);
/*
 * After the last tree (harmless without any): sorts, drops directories that hold something, sums,
 * judges. CODE_UNSAFE: as layout_plan, and a path below a symlink, and a symlink that leads out
 * of the root, also by way of others. CODE_UNSUPPORTED: no file.
 */
int layout_finish(struct layout *l, struct err *e);

/*
 * May the link stand at path (clean, relative to the root)? Its target is not empty, not
 * absolute, no longer than LIMIT_PATH, has no control characters, and does not leave the root or
 * enter ".fetcher" or "current" when ".." is resolved by the text alone. CODE_UNSAFE.
 */
int layout_check_link(const char *path, struct str target, struct err *e);
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
