// SPDX-License-Identifier: Apache-2.0
/*
 * What the files of the store module (store.c and store_*.c) share. Nobody
 * else includes this page.
 */
#ifndef FETCHER_STORE_INTERNAL_H
#define FETCHER_STORE_INTERNAL_H

#include <pthread.h>
#include <stdio.h>

#include "json.h"
#include "store.h"

#define TOP_DIR ".fetcher"
#define MARKER_FILE "ready.json"
#define PREVIOUS_FILE "previous.json"
#define LOCK_FILE "lock"
#define PARTIAL_DIR "partial"
#define VERSIONS_DIR "versions"
#define META_DIR "meta"
#define LAYERS_DIR "layers"
#define CURRENT_LINK "current"
#define CURRENT_PREFIX TOP_DIR "/" VERSIONS_DIR "/"
#define STAGING_SUFFIX ".d"
#define LEDGER_SUFFIX ".placed"
#define JOURNAL_SUFFIX ".journal"	/* behind the name of a partial blob (blob.h) */
#define META_SUFFIX ".json"		/* of records of layers too */
#define TREE_SUFFIX ".tree"		/* a layer being unpacked */
#define TREE_JOURNAL_SUFFIX ".tree-journal"

/* "sha512-" + 128 hex + "-" + 8 hex + NUL, and room for a suffix. */
#define VERSION_MAX 160

/*
 * A few open parent directories below root, so that thousands of files in the same directories
 * cost no walk each. Thread safe. A descriptor from get stays open until put.
 */
#define DIRS_SLOTS 8
struct dirs {
	int root;		/* borrowed */
	pthread_mutex_t lock;
	uint64_t clock;
	struct dirs_slot {
		char *path;	/* NULL = free */
		int fd;
		unsigned refs;
		uint64_t used;
	} slots[DIRS_SLOTS];
};
#define DIRS_ROOT (-1)
#define DIRS_OWN (-2)
struct dirs_ref {
	struct dirs *dirs;
	int fd, slot;		/* slot DIRS_ROOT: the root; DIRS_OWN: closed by put */
	const char *leaf;	/* inside the path given to get */
};
void dirs_init(struct dirs *d, int root);
void dirs_release(struct dirs *d);
/* make 0: nothing is created. -1 with errno of sys_open_parent; *ret needs no put then. */
int dirs_get(struct dirs *d, const char *path, mode_t make, struct dirs_ref *ret);
void dirs_put(struct dirs_ref *r);	/* leaves errno alone; twice is fine */
#define _cleanup_dirs_ref_ __attribute__((cleanup(dirs_put)))

/* What one meta file or one ledger says. */
struct known {
	char *version;
	enum store_layout layout;
	bool ledger;		/* placed, but not published */
	bool trusted;		/* content may be believed by stat identity */
	struct store_file *files;	/* sorted by path */
	size_t n_files;
};

struct index_entry {
	uint32_t known;		/* INDEX_SELF: this publication's placed[] */
	uint32_t file;
};
#define INDEX_SELF UINT32_MAX

enum file_state { FILE_NEEDED = 0, FILE_HAD, FILE_PLACED };

struct publication {
	const struct store_publish *p;	/* NULL = none */
	int tree_fd;			/* root of the tree being filled (own descriptor) */
	struct dirs dirs;		/* below tree_fd */
	bool complete;			/* versions: the directory stands already */
	struct store_file *placed;	/* per file of the plan; path and target borrowed from the plan */
	uint8_t *state;			/* enum file_state */
	bool *exists;			/* something stood there when the publication began */
	int ledger_fd;
	uint32_t ledger_known;		/* position of its earlier content in known; INDEX_SELF = none */
	struct buf ledger;		/* lines not yet written */
	uint64_t ledger_bytes;		/* of the files in those lines */
};

struct store {
	char *dest;
	bool create;
	bool memory_fs;		/* fsync is pointless */
	bool weak_ino;		/* inode numbers are made up per mount */
	bool late_mtime;	/* the server settles mtime when data is flushed */
	mode_t umask;
	int dest_fd, top_fd, partial_fd, lock_fd;
	struct dirs dirs;	/* below dest_fd */

	bool known_loaded;
	struct known *known;
	size_t n_known;

	pthread_mutex_t lock;	/* the index, publication.state and placed, the ledger */
	struct index_entry *entries;
	size_t n_entries, cap_entries;
	uint32_t *slots;	/* open addressing, 1 + position in entries; 0 = free */
	size_t n_slots;		/* power of two */

	pthread_mutex_t twins;	/* placing files that have several names; before lock */
	struct publication pub;
};

/* --- store.c --- */
/* By errno: CODE_UNSAFE for what is in the way, CODE_LOCAL with the owner of the directory. */
int store_fail(const struct store *s, struct err *e, const char *verb, const char *path);
/* As far as stat tells; the text of a link is for store_same_at. */
bool store_same(const struct store *s, const struct store_file *f, const struct stat *st);
/* Does dirfd/leaf stand there untouched? 1; 0 = it is another (*ret says what), -1 errno = none that can be seen. */
int store_same_at(const struct store *s, const struct store_file *f, int dirfd, const char *leaf,
		  struct stat *ret);
/* Is dirfd/leaf a link with this text? */
bool store_link_is(int dirfd, const char *leaf, const struct store_file *f);
void store_file_set(struct store_file *f, const struct stat *st);
void store_mtime_set(struct store_file *f, const struct stat *st);
bool store_version_ok(const char *version);
/* A directory of .fetcher; make: created when missing. -1 errno. */
int store_subdir(const struct store *s, const char *name, mode_t make);
/* Hash of a whole file. -1 errno. */
int store_hash_fd(int fd, enum digest_alg alg, uint64_t size, struct digest *ret);
/* Target version of DEST/current: 1 and its name, 0 no link, -1 something that is not ours. */
int store_current(const struct store *s, char ret[static VERSION_MAX]);
/* Calls f for each name in the directory fd but "." and ".." until it is non-zero. -1 errno. */
int store_each_name(int fd, int (*f)(void *arg, int dirfd, const char *name), void *arg);

/* --- store_marker.c --- */
/* 1, 0 = none or not usable, -1 */
int marker_read(int top_fd, const char *name, struct store_marker *ret, struct err *e);
int marker_format(const struct store_marker *m, struct buf *ret);
/* docs false: raw and manifest_raw stay empty. 1, 0 = none or not usable, -1 */
int meta_read(int meta_fd, const char *version, bool docs, struct store_meta *ret, struct err *e);
/* durable: its files were fsynced. */
int meta_format(const struct store_meta *m, bool durable, struct buf *ret);
/* A path that came from the volume: relative, clean, not below .fetcher. */
bool meta_path_ok(struct str path);
int meta_compare_files(const void *a, const void *b);	/* qsort, bsearch: by path */
bool mtime_parse(struct str s, int64_t *ret_sec, uint32_t *ret_nsec);
/* 1 = parsed, 0 = there is none or it is no JSON, -1. */
int meta_read_json(int dirfd, const char *name, uint64_t max, struct buf *b, struct json_doc *ret,
		   struct err *e);
/* After adding to b failed: it had reached its cap (CODE_UNSUPPORTED, what is too large), or memory. Returns -1. */
int meta_fail(const struct buf *b, const char *what, struct err *e);
/* "symlink"; NULL for files, whose kind is not written. */
const char *meta_kind_word(enum layout_kind kind);
/* The key "kind"; absent = a file. */
bool meta_kind(yyjson_val *obj, enum layout_kind *ret);
/*
 * Names on a volume need not be UTF-8, JSON strings must: "KEY":"TEXT", or where that would not
 * give the same bytes "KEYBase64":"...". Reading: the caller frees (a NUL follows); false = absent, wrong, memory.
 */
void meta_add_bytes(struct buf *b, const char *key, const char *p, size_t n);
bool meta_get_bytes(yyjson_val *obj, const char *key, char **ret, size_t *ret_n);

/* --- store_known.c --- */
/* What stands before the suffix in name, if it could be a version or a tree; else false. */
bool name_stem(const char *name, const char *suffix, char ret[static VERSION_MAX]);
int known_load(struct store *s, struct err *e);	/* once; until known_forget */
void known_forget(struct store *s);
const struct store_file *known_file(const struct known *k, const char *path);
/* Index by digest over all known files, with room for `more` entries of this publication. */
int index_build(struct store *s, size_t more, struct err *e);
void index_add_self(struct store *s, size_t file);	/* s->lock is held */
/* Is an untouched, trusted file with this digest the very inode st? */
bool index_same_inode(struct store *s, const struct digest *d, const struct stat *st);
/* Appends to the ledger of the publication; what cannot be written is hashed again next time. */
int ledger_open(struct store *s);		/* -1 errno */
/* What is placed is not in the ledger, because that could not be written; s->lock is held. */
bool ledger_lost(const struct store *s);
void ledger_add(struct store *s, size_t file);	/* s->lock is held */
void ledger_flush(struct store *s);		/* s->lock is held, or one thread */

/* --- store_begin.c, store_place.c, store_commit.c --- */
void publication_release(struct store *s);
/* Removes what killed processes left under temporary names; needs the lock. */
int store_sweep(struct store *s, struct err *e);
/* Removes files of earlier flat versions that this one has not, where they are untouched. */
int publication_remove_stale(struct store *s, struct err *e);

#define WRITEBACK_MIN (1 * MIB)	/* smaller files are not worth an early write-back each */

/* In the partial directory. */
static inline void staging_name(const struct store *s, char ret[static VERSION_MAX])
{
	snprintf(ret, VERSION_MAX, "%s" STAGING_SUFFIX, s->pub.p->version);
}

static inline const struct layout_file *plan_file(const struct store *s, size_t i)
{
	return &s->pub.p->plan->files[i];
}

static inline size_t plan_size(const struct store *s)
{
	return s->pub.p->plan->n_files;
}

static inline bool want_sync(const struct store *s)
{
	return s->pub.p->fsync != STORE_FSYNC_NEVER && !s->memory_fs;
}

static inline mode_t dir_mode(const struct store *s)
{
	/* Without these bits we could not fill the directory. */
	return (s->pub.p->dir_mode ? s->pub.p->dir_mode & 0777 : 0755) | 0700;
}

static inline mode_t file_mode(const struct store *s, const struct layout_file *f)
{
	if (f->mode)
		return f->mode & 0777;
	return (s->pub.p->file_mode ? s->pub.p->file_mode & 0777 : 0644) & ~s->umask;
}

#endif
