// SPDX-License-Identifier: Apache-2.0
/*
 * The one page of caps. Whatever a peer, the volume or the environment controls
 * is bounded by a line of this file; raising one is a decision, not an accident.
 */
#ifndef FETCHER_CAPS_H
#define FETCHER_CAPS_H

#define KIB ((uint64_t)1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)

/* Documents from the network */
#define LIMIT_MANIFEST (4 * MIB)	/* one manifest or index; oras and containers/image use the same */
#define LIMIT_TOKEN (64 * KIB)		/* one token response */
#define LIMIT_ERROR_BODY (64 * KIB)	/* what is read of an error response */
#define LIMIT_HEADERS (64 * KIB)	/* all response headers of one exchange */
#define LIMIT_URL (32 * KIB)		/* one URL; Quay's presigned ones take several KiB */
#define LIMIT_REDIRECTS 10
#define LIMIT_JSON_DEPTH 64
#define LIMIT_INDEX_DEPTH 4		/* index in index in ... */
#define LIMIT_INDEX_ENTRIES 1024
#define LIMIT_LAYERS 16384		/* layers of one manifest; the manifest cap binds first */
#define LIMIT_ANNOTATIONS 256		/* of one descriptor */
#define LIMIT_BLOB ((uint64_t)1 << 46)	/* 64 TiB: sizes above are lies */
#define LIMIT_TOTAL ((uint64_t)1 << 50)	/* sum of all blobs */

/* Files */
#define LIMIT_PATH 4096			/* whole relative path, bytes */
#define LIMIT_COMPONENT 255		/* one component, bytes */
#define LIMIT_PATH_DEPTH 64
#define LIMIT_CONFIG_FILE (1 * MIB)	/* docker config.json and friends */
#define LIMIT_SECRET_FILE (64 * KIB)
#define LIMIT_REF_FILE (64 * KIB)	/* watch --ref-file: one reference */
#define LIMIT_META (32 * MIB)		/* .fetcher/meta/X.json */
#define LIMIT_MARKER (64 * KIB)
#define LIMIT_LIST (1 * MIB)		/* pull --list */
#define LIMIT_LIST_LINES 4096
#define LIMIT_LIST_DIRS 65536		/* directories below --root that --prune looks at */

/* Transfer */
#define LIMIT_CONNECTIONS 64
#define LIMIT_LANES 4
#define LIMIT_RETRY_AFTER_MS (10 * 60 * 1000) /* longer waits are cut to this */
#define LIMIT_RANGES 4096		/* intervals of one blob on disk */

#define LIMIT_ERR_MSG 1000		/* termination log line, bytes */

#endif
