// SPDX-License-Identifier: Apache-2.0
/*
 * What the sources of unpack.h share. Row 2; calls layout (names, globs), json (escaping), sys,
 * verify.
 */
#ifndef FETCHER_UNPACK_INTERNAL_H
#define FETCHER_UNPACK_INTERNAL_H

#include "sys.h"
#include "unpack.h"
#include "verify.h"

#define TAR_BLOCK 512
/* Test hook: how much lies between two checkpoints. */
extern uint64_t unpack_checkpoint_bytes;
/* Test hooks: what one step of a decoder brings, in whole blocks, and what the writer collects before it writes. */
extern size_t unpack_piece_bytes, unpack_collect_bytes;
/* Longest excerpt of foreign text in a message. */
#define UNPACK_SHOWN 200

/* CODE_UNSAFE: entry "<name, escaped>": why. */
int unpack_unsafe(const char *name, const char *why, struct err *e);

/* --- unpack_decode.c: the tar, whatever it was wrapped in --- */

struct decoder;
/* offset: of the layer's first byte that the source will give (CODEC_NONE only). 1 = failed, see unpack_run. */
int decoder_open(struct decoder **ret, const struct unpack_source *src, enum layout_codec codec,
		 uint64_t offset, struct err *e);
void decoder_free(struct decoder *d);
static inline void cleanup_decoder_fn(struct decoder **d) { decoder_free(*d); }
#define _cleanup_decoder_ __attribute__((cleanup(cleanup_decoder_fn)))
/*
 * The next piece of the tar: a multiple of TAR_BLOCK bytes, but for the last one; *ret_n 0 = the
 * end. Valid until the next call. So whoever reads in blocks never needs two pieces at once.
 */
int decoder_next(struct decoder *d, const uint8_t **ret, size_t *ret_n, struct err *e);
/* CODEC_NONE, before decoder_next: at most max bytes, as they come. */
int decoder_raw(struct decoder *d, uint64_t max, const uint8_t **ret, size_t *ret_n, struct err *e);
/* Bytes of the layer read so far, the skipped offset included. */
uint64_t decoder_in(const struct decoder *d);

/* --- unpack_write.c: files below one directory --- */

struct writer {
	int dirfd;
	bool leftovers;		/* an earlier run may have left files behind: they give way */
	void (*written)(void *arg, uint64_t bytes);
	void *arg;
	/* the file that is open */
	bool dry;		/* only hashed */
	bool sparse;
	int fd;
	char *path;
	uint64_t size, pos;	/* hashed up to pos */
	struct hasher hash;
	uint8_t *buf;		/* small pieces are collected; allocated when first needed */
	size_t buffered;	/* they belong right before pos */
};
void writer_release(struct writer *w);
/* size: the whole file's. */
int writer_begin(struct writer *w, const char *path, uint64_t size, bool sparse, bool dry,
		 struct err *e);
/*
 * Goes on with a file of which `done` bytes are there. hashed and state: as hasher_export gave
 * them. CODE_LOCAL where the file on disk cannot be that one.
 */
int writer_resume(struct writer *w, const char *path, uint64_t size, uint64_t done, uint64_t hashed,
		  const uint8_t state[static HASHER_STATE_MAX], struct err *e);
/* off is never below what was written before; what lies between is a hole (sparse only). */
int writer_data(struct writer *w, uint64_t off, const void *p, size_t n, struct err *e);
int writer_flush(struct writer *w, struct err *e);	/* nothing is buffered any more */
int writer_end(struct writer *w, struct digest *ret, struct err *e);
int writer_link(struct writer *w, const char *from, const char *to, struct err *e);
int writer_move(struct writer *w, const char *from, const char *to, struct err *e);
/* A file or a tree; absent is fine. */
int writer_remove(struct writer *w, const char *path, struct err *e);
/* A regular file of ours of exactly this size. */
bool writer_has(const struct writer *w, const char *path, uint64_t size);

/* --- unpack_name.c: where an entry goes --- */

enum place {
	PLACE_ENTRY = 0,	/* *ret is the path in the plan */
	PLACE_OUTSIDE,		/* not below subdir */
	PLACE_ROOT,		/* the tree's own directory */
	PLACE_WHITEOUT,		/* *ret as layout_merge wants it */
	PLACE_IGNORED,		/* bookkeeping of AUFS in an image layer */
};
/* *ret is set with ENTRY and WHITEOUT only; the caller frees it. CODE_UNSAFE. */
int name_place(const struct layout_tree *t, const char *name, enum place *ret_place, char **ret,
	       struct err *e);
/*
 * The text of the symlink at `path` (as name_place gave it) that the archive wants to point to
 * `target`: relative, and without ".." behind the first name. So what it means does not depend on
 * other links, and a chain of links that each stay inside stays inside. CODE_UNSAFE when it points
 * out of the tree.
 */
int name_target(const struct layout_tree *t, const char *path, const char *target, char **ret,
		struct err *e);
/* Is `text` one that name_target could have made for the link at path? */
bool name_target_ok(const char *path, const char *text);

/* --- unpack_list.c: what came out so far --- */

struct list_node;
struct list {
	struct layout_file *files;	/* path NULL = replaced by a later entry */
	size_t n_files, cap_files;
	char **whiteouts;
	size_t n_whiteouts, cap_whiteouts;
	struct list_node *nodes;	/* every name on the way to a file; 0 is the root */
	size_t n_nodes, cap_nodes;
	uint32_t *buckets;
	size_t n_buckets;
	char *names;
	size_t n_names, cap_names;
	uint64_t path_bytes, seed;
};
enum list_is { LIST_NOTHING = 0, LIST_FILE, LIST_DIR };	/* FILE: also symlinks */

void unpack_list_release(struct list *l);
/*
 * What path is. *ret_file: its index, SIZE_MAX for a directory without an entry. CODE_UNSAFE when
 * it is below a file or link.
 */
int unpack_list_look(struct list *l, const char *path, enum list_is *ret, size_t *ret_file,
		     struct err *e);
/* Takes f over when it succeeds. path is not there yet, or is a directory and f one too. */
int unpack_list_add(struct list *l, struct layout_file *f, struct err *e);
int unpack_list_whiteout(struct list *l, char *path, struct err *e); /* takes path over, always */
void unpack_list_drop(struct list *l, const char *path);	/* with all that is below it */
/* Leaves files and whiteouts as a result: no gaps, no directories that hold something. */
void unpack_list_finish(struct list *l);
/* ret owns its path and its text. */
int unpack_list_symlink(const char *path, const char *text, struct layout_file *ret, struct err *e);

/* --- unpack_state.c: checkpoints --- */

struct unpack_open {			/* the entry that a checkpoint interrupted */
	struct layout_file file;	/* without digest; path owned; NULL = none */
	uint64_t done, hashed;
	uint8_t hash[HASHER_STATE_MAX];
};
struct unpack_progress {
	uint64_t offset;		/* of the layer */
	uint64_t entries, skipped, bytes, regular;
	bool saw_subdir;
	struct unpack_open open;
};
/* -1: too large, or no memory; then there is no checkpoint. */
int state_save(const struct layout_tree *t, const struct unpack_progress *p, const struct list *l,
	       struct buf *ret);
/* Believes nothing. CODE_LOCAL and retryable: start over. l is empty, or half filled on failure. */
int state_load(const struct layout_tree *t, const struct unpack_checkpoint *c,
	       const struct writer *w, struct unpack_progress *ret, struct list *l, struct err *e);

/* --- one run --- */

struct archive;
struct archive_entry;
struct run {
	const struct unpack_source *src;
	const struct unpack_options *o;
	const struct layout_tree *t;
	struct decoder *dec;
	struct archive *tar;
	struct list list;
	struct writer w;
	struct unpack_progress p;	/* p.bytes: of all files begun */
	uint64_t max_bytes, holes;
	uint64_t base;			/* of the layer or tar, where libarchive began */
	/* the piece that libarchive works on */
	const uint8_t *block;
	size_t block_n;
	uint64_t block_at;		/* its place in the tar */
	uint64_t handed;		/* end of it */
	struct err *feed_err;		/* why decoder_next failed, set while broken */
	bool broken;
	bool hash_inner;
	struct hasher inner;
	/* checkpoints */
	bool checkpoints;
	uint64_t last_at, last_ms;
	struct buf state;
	char *single; /* where the entry that tree->single speaks of lands at first */
};

/* Do the globs take this path of the plan? */
bool run_wants(const struct run *r, const char *path);
/* What libarchive says about its failure, or what the source said before. Returns -1. */
int run_fail_tar(struct run *r, struct err *e);
int run_take_entry(struct run *r, struct archive_entry *en, struct err *e);
/* Is it time? at: place in the layer. */
bool run_checkpoint_due(const struct run *r, uint64_t at);
/* `at`: everything before this byte of the layer is on disk, but for what p.open says. */
int run_checkpoint(struct run *r, uint64_t at, struct err *e);
/* The same in the middle of f's data, when it is time. */
int run_checkpoint_inside(struct run *r, const struct layout_file *f, uint64_t at, struct err *e);
/*
 * Before something on disk that a checkpoint speaks of is replaced: whoever resumed there would
 * find other content under the name. A checkpoint without state says: from the start.
 */
int run_no_more_checkpoints(struct run *r, struct err *e);

#endif
