// SPDX-License-Identifier: Apache-2.0
/*
 * A blob being assembled in the partial directory: file, intervals on disk, hash frontier, journal (design D5.6, D5.7). Row 2; calls memory, plan, sys, verify.
 *
 * Names in the partial directory: "sha256-<hex>" (data) and "sha256-<hex>.journal".
 * Bytes that were once written are never written again: a duplicate answer for the same range is dropped, so that what was hashed is what is on disk.
 * Threads: all functions but open and close may be called from several threads.
 */
#ifndef FETCHER_BLOB_H
#define FETCHER_BLOB_H

#include "plan.h"
#include "sys.h"
#include "verify.h"

struct blob;

struct blob_options {
	bool journal;		/* false for small blobs: nothing is kept of them */
	bool sync;		/* fdatasync before the journal says so (fsync mode other than never) */
	uint64_t drop_behind;	/* bytes after which written data is flushed and dropped from the page cache; 0 = keep */
};

/* Creates the file (preallocated) or resumes from its journal. resumed bytes: blob_done_bytes. */
int blob_open(struct blob **ret, int partial_dirfd, const struct digest *d, uint64_t size,
	      const struct blob_options *o, struct err *e);
/* Writes the journal (unless finished) and closes. keep = false removes file and journal. NULL is fine. */
void blob_close(struct blob *b, bool keep);
const char *blob_name(const struct blob *b);	/* in the partial directory */
int blob_fd(const struct blob *b);
uint64_t blob_done_bytes(struct blob *b);	/* bytes on disk */
uint64_t blob_frontier(struct blob *b);		/* bytes hashed */
/* First gap at or after from. */
bool blob_gap(struct blob *b, uint64_t from, struct span *ret);
/*
 * Bytes of the blob at off: those not yet on disk are written, and hashed if they are next and nobody
 * else hashes. Never beyond size. *ret_new: how many were not there before.
 */
int blob_write(struct blob *b, uint64_t off, const void *p, size_t n, uint64_t *ret_new,
	       struct err *e);
/* Bytes on disk beyond the frontier that could be hashed now (contiguous). */
uint64_t blob_backlog(struct blob *b);
/* Hashes up to max bytes from the page cache into scratch (n bytes). 1 = did something, 0 = nothing to do or another thread is at it, -1 error. */
int blob_hash_some(struct blob *b, uint64_t max, void *scratch, size_t n, struct err *e);
/* All on disk and hashed? Then 1 and the digest was right, 0 not finished, -1 CODE_INTEGRITY (or others). */
int blob_verdict(struct blob *b, struct err *e);
/* Forgets everything: the next attempt starts from byte 0. */
int blob_reset(struct blob *b, struct err *e);
/* Called now and then (any thread): writes the journal when due, flushes and drops. now from sys_now_ms. */
int blob_maintain(struct blob *b, uint64_t now_ms, struct err *e);

#endif
