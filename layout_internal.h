// SPDX-License-Identifier: Apache-2.0
/*
 * What the files of layout share. layout_types.c knows media types, layout_meta.c the files'
 * metadata, layout_config.c Kitfiles, layout_trees.c what an archive becomes, layout_merge.c the
 * whole set of files. Row 2, as layout.h.
 */
#ifndef FETCHER_LAYOUT_INTERNAL_H
#define FETCHER_LAYOUT_INTERNAL_H

#include "json.h"
#include "layout.h"

/* Longest excerpt of foreign text in a message. */
#define LAYOUT_SHOWN 200

enum layout_family {
	FAMILY_OTHER = 0,
	FAMILY_MODELPACK,
	FAMILY_KITOPS,
	FAMILY_DOCKER,	/* Docker Model Runner */
	FAMILY_OLLAMA,
	FAMILY_IMAGE,	/* layers of container images; also what oras calls a plain file */
};

/* Bits of --type. */
enum {
	TYPE_WEIGHT = 1,
	TYPE_CONFIG = 2,
	TYPE_DOC = 4,
	TYPE_CODE = 8,
	TYPE_DATASET = 16,
	TYPE_OTHER = 32,
	TYPE_ALL = 63,
};

/* One row of the table of media types. */
struct layout_type {
	enum layout_family family;
	const char *word;	/* what stands in the media type */
	unsigned type;		/* of --type */
	const char *name;	/* of the file when nothing else names it; NULL = none */
	bool shards;		/* several are model-00001-of-00002.x instead of x, x-2 */
};
#define LAYOUT_TYPES 32		/* at least as many as rows */

/* What a media type says. */
struct layout_media {
	enum layout_family family;
	const struct layout_type *type;	/* or NULL */
	size_t row;			/* of type, < LAYOUT_TYPES */
	const char *tar;		/* what follows ".tar" ("", "+gzip"); NULL = no archive */
};

struct layout_layer {
	const struct oci_descriptor *d;
	size_t index;
	struct layout_media media;
	const char *name;		/* as it came, or by convention; NULL = none */
	const char *name_key;		/* where it came from */
	char made[DIGEST_STR_MAX];	/* holds a name of our own making */
	size_t nth;			/* of its type, from 0 */
};

enum layout_as { AS_AUTO, AS_MODELPACK, AS_ORAS, AS_IMAGE, AS_RAW };

struct layout_kitfile {
	struct json_doc doc;		/* doc.doc NULL = none was read */
	/* no entry has layer info: the archives' names are relative to the entry's directory */
	bool old;
};

/* One run of layout_plan. */
struct layout_planner {
	const struct oci_manifest *m;
	const struct layout_options *o;
	enum layout_as as;
	unsigned types;			/* mask of --type */
	char *subdir;			/* "models/" or "" */
	bool image;			/* the artifact is a container image */
	struct layout_kitfile kitfile;
	size_t nameless[LAYOUT_TYPES];	/* layers of each type that have no name of their own */
	size_t seen[LAYOUT_TYPES];	/* of each type, so far */
	size_t seen_nameless[LAYOUT_TYPES];
	struct layout out;
};

/* layout.c */
int layout_unsafe(struct str path, const char *why, struct err *e);
int layout_warn(struct layout *l, const char *what, size_t index, const char *detail,
		struct err *e);
const char *layout_annotation(const struct oci_descriptor *d, const char *key);
/* "layer 3 (media type)" */
const char *layout_show_layer(const struct layout_layer *l, char ret[static LAYOUT_SHOWN]);
/* What is wrong with a component of a path below DEST, or NULL. */
const char *layout_component_fault(struct str c, bool first);
bool layout_wanted(const struct layout_options *o, const char *path);
bool layout_any_glob(const char *const *globs, const char *path);

/*
 * glob.c: can the pattern match anything below dir (clean, no slash at the end)? And: does it
 * match all of it?
 */
bool layout_glob_below(const char *pattern, const char *dir);
bool layout_glob_all_below(const char *pattern, const char *dir);

/* layout_types.c */
struct layout_media layout_media_of(const char *media_type);
bool layout_is_model(enum layout_family f);
bool layout_is_image_config(const char *media_type);
/* false: a compression we do not know. */
bool layout_codec_of(const char *suffix, enum layout_codec *ret);
/* Words of --type as a mask; CODE_USAGE. */
int layout_types_parse(const char *const *words, unsigned *ret, struct err *e);
int layout_as_parse(const char *word, enum layout_as *ret, struct err *e);
/* Path source; conventions are layout_name_by_convention's. */
void layout_name(enum layout_as as, struct layout_layer *l);
/*
 * nth from 0 of total nameless layers of that type. Leaves l->name NULL where there is no
 * convention.
 */
void layout_name_by_convention(struct layout_layer *l, size_t nth, size_t total);
void layout_name_by_digest(struct layout_layer *l);

/* layout_meta.c: *ret_dir: it describes a directory, so there is no file. */
int layout_read_metadata(const struct layout_layer *l, struct layout *out, struct layout_file *f,
			 bool *ret_dir, struct err *e);
/* The metadata says that the archive holds one regular file, which the layer's name names. */
int layout_metadata_is_single(const struct oci_descriptor *d, bool *ret, struct err *e);

/* layout_config.c */
int layout_kitfile_read(const void *p, size_t n, struct layout_kitfile *ret, struct err *e);
void layout_kitfile_release(struct layout_kitfile *k);
/*
 * Directory of the nth entry of a layer type ("dir/", "" = the root) for old kits, "" for others;
 * caller frees.
 */
int layout_kitfile_prefix(const struct layout_kitfile *k, const char *word, size_t nth, char **ret,
			  struct err *e);
/* model.path, or "" */
struct str layout_kitfile_model(const struct layout_kitfile *k);

/* layout_trees.c */
enum layout_archive {
	ARCHIVE_PLAIN,		/* names as they stand in it (ModelPack, Docker) */
	ARCHIVE_ORAS,		/* the unpack annotation */
	ARCHIVE_GENERIC,	/* AIKit's allfiles.tar */
	ARCHIVE_IMAGE,
};
/* Is it AIKit's generic package (packager/generic), and packed how? */
bool layout_is_generic(const struct layout_planner *p, const struct layout_layer *l,
		       enum layout_codec *ret);
int layout_add_tree(struct layout_planner *p, const struct layout_layer *l,
		    enum layout_archive kind, struct err *e);
/* "/models/" as "models/", "/" as "". CODE_USAGE. */
int layout_subdir_parse(const char *text, char **ret, struct err *e);
void layout_tree_release(struct layout_tree *t);

/* layout_merge.c: of files and trees, before the globs; and the sums. */
int layout_judge(struct layout *l, struct err *e);
int layout_sum(struct layout *l, struct err *e);

#endif
