// SPDX-License-Identifier: Apache-2.0
/*
 * One layer becomes files: decoder (zstd, igzip, none), libarchive's tar reader, our own confined writer. Row 2; calls glob (layout),
 * sys, verify; peer: layout's data types. Sources: OCI image spec layer.md, POSIX pax, GNU tar; the CVE list in SECURITY.md.
 *
 * Only regular files, directories, symlinks that stay inside, hard links to earlier files of the archive. Devices, fifos, sockets:
 * CODE_UNSAFE. setuid, setgid, sticky dropped, modes kept within 0777, owners never. Names go through layout_check_path after
 * prefix/subdir; writes go through sys_open_beneath (openat2 BENEATH|NO_SYMLINKS or the component walk), O_EXCL, below dirfd.
 * PAX and GNU long names, sparse (holes stay holes), base-256 sizes: libarchive. Names that the globs leave out cost no disk.
 * Bounded: entries, bytes, expansion ratio (caps.h), zstd window (128 MiB); multi-member gzip, several and skippable zstd frames are one stream;
 * truncated input, trailing garbage behind the compressed stream: CODE_INTEGRITY; a wrong magic for the media type: CODE_UNSUPPORTED naming both.
 * The source is always read to its end, padding included: the digest is over all of it.
 */
#ifndef FETCHER_UNPACK_H
#define FETCHER_UNPACK_H

#include <stdatomic.h>

#include "layout.h"
#include "source.h"

/* Where a plain tar can be taken up again: everything before `offset` of the layer is on disk or left out. */
struct unpack_checkpoint {
	uint64_t offset;		/* of the layer */
	/* the rest is unpack's own, in a form that survives in a journal */
	struct buf state;
};

struct unpack_options {
	const struct layout_tree *tree;
	const struct layout_options *globs;
	int dirfd;			/* the tree's directory; empty, or as `resume` left it */
	uint64_t max_bytes;		/* most bytes of files; 0 = LIMIT_TOTAL */
	const struct unpack_checkpoint *resume;	/* NULL = from the start; only ever given for CODEC_NONE */
	/*
	 * CODEC_NONE only, at most every 8 MiB or second: data up to here was written (not flushed). offset 0 with an empty state: earlier
	 * checkpoints are void. May be NULL. -1 ends the run.
	 */
	int (*checkpoint)(void *arg, const struct unpack_checkpoint *c, struct err *e);
	void (*written)(void *arg, uint64_t bytes);	/* progress; may be NULL */
	void *arg;
	uint32_t file_mode_mask;	/* 0 = 0777 */
};

struct unpack_result {
	struct layout_file *files;	/* kinds as they came; paths relative to the plan's root; FILE's content lies at dirfd/<path> */
	size_t n_files;
	char **whiteouts;		/* see layout_merge */
	size_t n_whiteouts;
	uint64_t bytes;			/* of files written */
	uint64_t entries, skipped;
	bool saw_subdir;		/* something lay below tree->subdir */
	struct digest inner;		/* of the uncompressed tar (only computed when tree->inner asks) */
};
void unpack_result_release(struct unpack_result *r);

/*
 * Runs to the end of the source. On failure what was written stays in dirfd; the caller empties it. One thread; several runs at once are fine.
 * 1 = failed (*e), and whatever the rest of the layer is will not change it: its first bytes are those of another format.
 */
int unpack_run(const struct unpack_source *src, const struct unpack_options *o, struct unpack_result *ret, struct err *e);

#endif
