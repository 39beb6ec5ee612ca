// SPDX-License-Identifier: Apache-2.0
/*
 * Layers that become many files: fetched and unpacked before a publication begins, so that the publication itself knows only files with
 * digests. Row 3; calls layout, store, transfer, unpack, sys.
 *
 * A layer streams into `.fetcher/partial/<tree name>.tree/` while it is hashed; when its digest was right its record
 * `.fetcher/layers/<tree name>.json` says what came out. With a record a layer is fetched again only when one of its files
 * is neither in the tree directory nor anywhere on the volume.
 *
 * What resumes after a kill: finished layers, always. A plain tar goes on in mid-layer, also inside an entry, as long as the machine did
 * not restart (partial/<tree name>.tree-journal). gzip and zstd layers start over: their decoders have no state that could be kept.
 */
#ifndef FETCHER_TREES_H
#define FETCHER_TREES_H

#include "layout.h"
#include "store.h"
#include "transfer.h"

struct trees_options {
	struct store *store;		/* locked */
	struct http *http;
	const struct transfer_options *transfer;	/* as for files; verified, tick and arg are not used */
	void (*tick)(void *arg);	/* as transfer's */
	void *tick_arg;
	const struct layout_options *globs;
	uint64_t max_bytes;		/* of all files; 0 = no limit */
	bool sync;			/* fsync mode other than never */
};

/*
 * Makes every layer of l->trees into files of l (layout_merge, layout_finish); layout_file.from tells where below the partial directory the
 * content of each lies, NULL = elsewhere on the volume. *ret_reused: bytes of layers that were not fetched. Nothing is
 * published. CODE_INTEGRITY, CODE_UNSAFE, CODE_UNSUPPORTED, CODE_SPACE, and what transfer_run says.
 */
int trees_unpack(struct layout *l, const struct trees_options *o, struct transfer_stats *stats, uint64_t *ret_reused,
		 struct err *e);

#endif
