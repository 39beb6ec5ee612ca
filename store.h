// SPDX-License-Identifier: Apache-2.0
/*
 * The volume (design D3): lock, partial directory, publishing, marker, meta, versions, gc.
 * Row 2; calls json, memory, sys, verify; peer: layout.h's data types and checks of names. Written in
 * store.c (volume, lock, check), store_begin.c, store_place.c, store_commit.c (one publication),
 * store_known.c (what is on the volume already), store_marker.c (the JSON), store_layers.c (what
 * layers became), store_gc.c, store_remove.c.
 *
 *   DEST/<files>                                    layout flat
 *   DEST/current -> .fetcher/versions/<name>        layout versions
 *   DEST/.fetcher/ready.json  previous.json  lock  versions/<name>/  meta/<name>.json
 *   DEST/.fetcher/partial/    blobs and journals, <name>.d/ (a version being filled),
 *                             <name>.placed (ledger: what was placed, for the next try),
 *                             <tree>.tree/ and <tree>.tree-journal (a layer being unpacked)
 *   DEST/.fetcher/layers/     <tree>.json: what came out of a layer
 *
 * <name> is "sha256-<hex>" of the document the reference names; a selection (globs, platform)
 * other than the default adds "-<8 hex>" of the selection's hash, so that a version directory
 * never changes. previous.json is the marker that went when a publication began.
 *
 * A name becomes visible only after its bytes were verified; the marker is renamed into place
 * last, and it goes first when the files it names are about to change. A file counts as untouched
 * while inode, size and mtime are what they were when it was verified; where they are not, or
 * where a restart of the machine came between writing and fsync, it is hashed again. A symbolic
 * link counts as untouched while inode, mtime and text are the same; a directory is a directory.
 * No link is ever followed below DEST. A path may be any bytes but control characters.
 * Threads: store_place, store_place_bytes and store_find may be called from several threads at
 * once (for different files), store_layer_write and store_layer_read too (for different layers);
 * everything else by one thread.
 */
#ifndef FETCHER_STORE_H
#define FETCHER_STORE_H

#include <stdatomic.h>

#include "layout.h"
#include "log.h"
#include "sys.h"
#include "verify.h"

enum store_layout { STORE_FLAT = 0, STORE_VERSIONS };
enum store_fsync { STORE_FSYNC_END = 0, STORE_FSYNC_ALWAYS, STORE_FSYNC_NEVER };

struct store;

/* The ready marker, .fetcher/ready.json; stable keys in this order. */
struct store_marker {
	char *ref;
	struct digest digest;
	char *media_type, *artifact_type;
	char *path;			/* relative to DEST: "." (flat) or "current" */
	char *version;			/* <name> above: names the meta file */
	uint64_t files, bytes;		/* of the published version; links and empty directories count as files */
	uint64_t downloaded;		/* bytes of blobs that came over the network for it */
	char published_at[32];
	uint64_t duration_ms;
	char *previous;			/* digest string or NULL */
	uint64_t generation;		/* 1, 2, ... per DEST */
	char *fetcher;			/* version string */
};
void store_marker_release(struct store_marker *m);

/* One published file as meta records it; stat identity tells later whether somebody touched it. */
struct store_file {
	enum layout_kind kind;		/* meta of older versions knows only files */
	char *path;
	struct digest digest;		/* LAYOUT_SYMLINK: of the target's text; LAYOUT_DIR: of no bytes */
	uint64_t size;
	char *target;			/* LAYOUT_SYMLINK: `size` bytes, in meta with a NUL behind; else NULL */
	uint64_t ino;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
};
struct store_meta {
	struct digest digest;
	char *media_type;
	enum store_layout layout;
	char *selection;		/* canonical text of globs and platform, "" = default */
	struct buf raw, manifest_raw;	/* documents as received (manifest_raw empty without an index) */
	struct store_file *files;	/* sorted by path */
	size_t n_files;
	bool trusted;			/* false: written without fsync before the machine restarted */
};
void store_meta_release(struct store_meta *m);

/*
 * Opens DEST (an ordinary path: it may be a link); create makes DEST and .fetcher (0755). Without
 * create a missing DEST is CODE_NOT_FOUND, and a missing .fetcher is no error (no marker then; one
 * that appears later is found). CODE_LOCAL names uid, gid, mode.
 */
int store_open(struct store **ret, const char *dest, bool create, struct err *e);
void store_close(struct store *s);	/* drops the lock */
int store_dirfd(const struct store *s);
int store_partial_dirfd(const struct store *s);	/* valid after store_lock */
/*
 * One writer: an open-file-description lock on .fetcher/lock (flock where the file system has no
 * such thing), polled with backoff until timeout_ms (0 = one try; UINT64_MAX = forever); stop (may
 * be NULL) is looked at: non-zero is the code returned (CODE_SIGTERM, CODE_SIGINT). CODE_LOCKED
 * names the holder (pid, host, since) that the lock file tells. waiting (may be NULL) is called
 * once when it has to wait. Makes .fetcher/partial (0700). A second call does nothing.
 */
int store_lock(struct store *s, uint64_t timeout_ms, const atomic_int *stop,
	       void (*waiting)(void *arg, const char *holder), void *arg, struct err *e);

/* 1 = read, 0 = there is none (or it is not parseable: treated as none), -1 error. */
int store_read_marker(struct store *s, struct store_marker *ret, struct err *e);
int store_read_meta(struct store *s, const char *version, struct store_meta *ret, struct err *e);
/* <name> for a digest and a canonical selection text ("" = default). Caller frees. */
char *store_version_name(const struct digest *d, const char *selection);
/*
 * Marker, meta and the files agree: every file of meta exists below the published path as what it
 * was (regular file, link, directory) with its size and stat identity, a link with its text.
 * 1 yes, 0 no (reason in e->msg), -1 error.
 * `quick` looks at marker, link and directory only and needs no meta (for probe, < 5 ms).
 */
int store_check(struct store *s, const struct store_marker *m, const struct store_meta *meta,
		bool quick, struct err *e);

/* --- one publication, between begin and commit; the lock is held --- */
struct store_publish {
	enum store_layout layout;
	enum store_fsync fsync;
	const char *version;		/* <name> */
	const struct digest *digest;
	const struct layout *plan;
	uint32_t file_mode, dir_mode;	/* defaults 0644, 0755 (before umask) */
	/*
	 * Layout versions: asked by store_commit when everything is verified and flushed, before anything becomes visible; path is
	 * the absolute staging directory. -1 = no: commit ends with *e, and the staging directory stays, complete, for the next
	 * try. Not asked when `current` names this version already. NULL = yes. Layout flat never asks.
	 */
	int (*accept)(void *arg, const char *path, struct err *e);
	void *accept_arg;
};
/*
 * Starts filling. p and what it points to are borrowed until commit, the next begin, or close.
 * flat: CODE_UNSAFE when something occupies a path of the plan that must not give way (nothing was
 * touched then); else the marker goes. Way give: regular files, whoever's (to files and links);
 * symbolic links that an earlier version placed, or that say what the plan says; what an earlier
 * version placed and nobody changed where a directory comes, and the other way round. A link on
 * the way to a path never does, unless it is such a one.
 * versions: CODE_UNSAFE when DEST/current is not a link of ours; makes the staging directory (kept
 * from an earlier try); a version directory that was damaged becomes staging again, and only
 * then the marker goes.
 * Sweeps stale temporary names. Trees of layers in the partial directory stay.
 */
int store_begin(struct store *s, const struct store_publish *p, struct err *e);
/*
 * For each file of the plan: 1 when it already stands where it belongs with the right content, so
 * nothing is to do (placed by an earlier try, published and untouched, or, when nothing is known of
 * it, hashed here and found right; a link with the right text; any directory for a LAYOUT_DIR).
 * 0 = needed.
 */
int store_has(struct store *s, size_t file, struct err *e);
/*
 * A path (relative to store_dirfd) of a regular file on the volume that has this digest and is untouched
 * (another version, an interrupted try, or a file already placed in this publication), or 0.
 * 1 = found, caller frees *ret_path. In layout flat, place what was found before anything is
 * fetched: a later store_place may replace the very file.
 */
int store_find(struct store *s, const struct digest *d, uint64_t size, char **ret_path,
	       struct err *e);
/*
 * Puts verified content at the place of a LAYOUT_FILE, exactly one of:
 *   partial_name	below the partial directory, e.g. "<tree>.tree/a/b": renamed to the place (size
 *			checked, mode and mtime set). No component may be a link. Where it is a second
 *			name of what was placed already, and must get another mode or time (or is small
 *			and the layout flat, as with from_path), it is copied and goes.
 *   from_path		relative to DEST, from store_find: hard-linked, else reflinked or copied
 * Parents are made; confined to DEST; fsync as the mode says. The descriptor of the partial file
 * may stay open. On failure the partial file is still there.
 */
int store_place(struct store *s, size_t file, const char *partial_name, const char *from_path,
		struct err *e);
/*
 * Creates at its place, all at once: an empty or inline file (content already verified), a
 * LAYOUT_SYMLINK (p, n: its text, which must be the plan's), a LAYOUT_DIR (n 0; one that stands there will do).
 */
int store_place_bytes(struct store *s, size_t file, const void *p, size_t n, struct err *e);
/*
 * Every file was placed or had: fsync as the mode says (data, directories), meta written, staging
 * renamed into versions and `current` swapped (versions), files that only earlier flat versions had
 * removed (flat; only when untouched by others since), marker written. The caller fills ref,
 * media_type, artifact_type, downloaded, duration_ms, fetcher; digest, path, version, files, bytes,
 * previous, generation and published_at are filled in by this call. raw, manifest_raw (NULL or
 * empty: none): documents for meta; with raw NULL the meta of a version that stands already stays.
 * Partial blobs and journals of digests that the plan does not have go then, trees and their journals all.
 */
int store_commit(struct store *s, struct store_marker *m, const char *selection,
		 const struct buf *raw, const struct buf *manifest_raw, struct err *e);

/*
 * Hashes the published files again. bad (may be NULL) is called for each file that differs.
 * 0 = all right, -1 CODE_INTEGRITY, CODE_NOT_FOUND (nothing is published) or others.
 */
int store_verify(struct store *s, void (*bad)(void *arg, const char *path, const char *why),
		 void *arg, uint64_t *ret_files, uint64_t *ret_bytes, struct err *e);

struct store_gc_policy {
	unsigned keep;			/* so many of the newest old versions stay */
	uint64_t stale_ms;		/* and those that were replaced less than this ago */
	uint64_t keep_bytes;		/* old versions that `keep` spared: at most so much together, the oldest go first; 0 = no cap */
	const char *spare;		/* <name> of one more version that must stay, or NULL */
	int64_t now;			/* seconds since 1970; 0 = the wall clock */
	bool partials;			/* also empty partial/ */
};
struct store_gc_result {
	uint64_t versions, partials, bytes;	/* removed */
	uint64_t left, left_bytes;		/* versions that stand, the published one included */
	int64_t next;			/* when the next one falls due by stale_ms (seconds since 1970); 0 = none */
};
/*
 * Drops versions but the published one, the one `current` links to, leased ones, and those that the policy keeps; meta of
 * versions that are gone; partial/ if asked. When a version was replaced is the mtime of its meta file, which commit sets at
 * the swap, so that the age survives restarts; one that lies in the future (the clock went back) counts as now, and is set so.
 * Leased and spared versions take part in the count of the newest; `next` does not know when a lease ends.
 * Bytes are disk space: for keep_bytes and left_bytes a file that several versions share counts once, and for keep_bytes not at
 * all when a version that stays anyway has it (leased, spared, published). `bytes` is what the removal freed.
 * Also sweeps what killed processes left under temporary names, and all but the newest STORE_LAYERS_KEPT records of layers.
 * Needs the lock.
 */
int store_gc(struct store *s, const struct store_gc_policy *p, struct store_gc_result *ret,
	     struct err *e);
/*
 * A reader's lease on the version that m names: a shared flock on its directory, which gc respects (also from another
 * container, also on a volume mounted read-only). Returns the descriptor, which lives as long as somebody has it open
 * (inheritable by exec when keep_on_exec), or -1: no such thing on this file system, or the version is gone; errno.
 * Over NFS it is seen on this machine only. Waits up to 0.2 s for a gc that is looking at the version.
 * Layout flat: -1 with ENOTSUP.
 */
int store_lease(struct store *s, const struct store_marker *m, bool keep_on_exec);

/* --- what layers became: .fetcher/layers/<name>.json --- */

#define STORE_LAYERS_KEPT 64
struct store_layer {
	struct layout_file *files;	/* path, and data of a LAYOUT_SYMLINK, are owned, as in layout.h */
	size_t n_files;
	char **whiteouts;
	size_t n_whiteouts;
	bool saw_subdir;
	bool same_boot;			/* written since the machine started */
};
void store_layer_release(struct store_layer *l);	/* what was moved away is NULL */
/*
 * name: layout_tree_name, else CODE_INTERNAL. Nothing is kept of the arrays. Replaces a record that stands. CODE_UNSUPPORTED:
 * it would be larger than LIMIT_META.
 */
int store_layer_write(struct store *s, const char *name, const struct layout_file *files, size_t n_files,
		      char *const *whiteouts, size_t n_whiteouts, bool saw_subdir, bool sync, struct err *e);
/*
 * 1 = *ret is filled and the record counts as used just now, 0 = there is none that can be used, -1. Somebody else may have written it,
 * so all of it was checked: paths and whiteouts by layout_check_path (a whiteout may end in "/" or be "/"), texts of links (no
 * way out of DEST), sizes, modes. What collides, and what is below a link, is for layout_merge to find.
 */
int store_layer_read(struct store *s, const char *name, struct store_layer *ret, struct err *e);
/* Drops all but the `keep` records used last. Needs the lock. Returns the disk space that it freed; failures are passed over. */
uint64_t store_layers_trim(struct store *s, size_t keep);

/* In .fetcher; its mtime is when pull --list last named this DEST (list.h). */
#define STORE_LISTED "listed"
/* Disk space of what store_remove would remove, hard links into other places by their share. */
int store_disk_bytes(struct store *s, uint64_t *ret, struct err *e);
/*
 * Removes what is ours in DEST: the marker first, then `current`, files of flat versions that nobody changed since, versions,
 * meta, partial/, in the end .fetcher with the lock. Foreign files, and DEST itself, stay. Needs the lock; s is good for
 * nothing but store_close then. 1 = gone, *ret_bytes was freed. 0 = a reader has a lease on a version; nothing was touched.
 * -1: what is left is found and removed by the next try. Whoever waits for the lock meanwhile fails with CODE_LOCAL.
 */
int store_remove(struct store *s, uint64_t *ret_bytes, struct err *e);

#endif
