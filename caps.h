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
#define LIMIT_HOSTS_FILE (256 * KIB)	/* hosts.toml */
#define LIMIT_TOML_NODES 4096
#define LIMIT_TOML_DEPTH 16		/* of a header, and again of a value below it */
#define LIMIT_MIRRORS 16		/* hosts before the registry */
#define LIMIT_MIRROR_FILES 16		/* CA files of one host */
#define LIMIT_MIRROR_HEADERS 32		/* extra headers of one host */
#define LIMIT_REF_FILE (64 * KIB)	/* watch --ref-file: one reference */
#define LIMIT_META (32 * MIB)		/* .fetcher/meta/X.json */
#define LIMIT_MARKER (64 * KIB)
#define LIMIT_LIST (1 * MIB)		/* pull --list */
#define LIMIT_LIST_LINES 4096
#define LIMIT_LIST_DIRS 65536		/* directories below --root that --prune looks at */

/* Archives */
#define LIMIT_ENTRIES ((uint64_t)1 << 22)	/* headers read of one archive, also of entries that are left out */
#define LIMIT_TREE_FILES ((uint64_t)1 << 18)	/* what one archive may bring; each costs some 250 bytes of memory */
#define LIMIT_LEFT_OUT ((size_t)1 << 16)	/* entries that globs leave out of an image's layer and that still hide directories of lower ones */
#define LIMIT_TREE_NODES ((uint64_t)1 << 20)	/* distinct names on the way to them */
#define LIMIT_TREE_NAMES (64 * MIB)	/* bytes of all their names */
#define LIMIT_EXPANSION 1100		/* bytes that come out per byte of the layer; deflate cannot do more than 1032 */
#define LIMIT_EXPANSION_FLOOR (64 * MIB) /* so much may come out of anything */
#define LIMIT_HOLES (4 * GIB)		/* holes of sparse files, before LIMIT_EXPANSION counts: they are hashed too */
#define LIMIT_ZSTD_WINDOW_LOG 27	/* 128 MiB, what zstd --long needs */
#define LIMIT_UNPACK_STATE (32 * MIB)	/* a checkpoint; larger ones are not taken */

/* Transfer */
#define LIMIT_CONNECTIONS 64
#define LIMIT_LANES 4
#define LIMIT_RETRY_AFTER_MS (10 * 60 * 1000) /* longer waits are cut to this */
#define LIMIT_SERVERS 32		/* mirrors, and the registry */
#define LIMIT_HOSTS 64			/* that limits are kept for, redirect targets included; the others share one */
#define LIMIT_HOST 255			/* a host name */
#define LIMIT_ADDRESSES 16		/* of one host that are used */
#define LIMIT_NAMES 64			/* hosts whose addresses are kept; redirects may name any */
#define LIMIT_RANGES 4096		/* intervals of one blob on disk */

#define LIMIT_ERR_MSG 1000		/* termination log line, bytes */

#endif
