// SPDX-License-Identifier: Apache-2.0
#include "blob.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "memory.h"

#define JOURNAL_MAGIC "fetcher\1"
#define JOURNAL_SPANS 120	/* kept per list; what is beyond is fetched again */
#define JOURNAL_BYTES (4 * MIB)	/* written since the last record: what a kill may cost */
#define JOURNAL_MS 1000
#define SYNC_BYTES (256 * MIB)
#define SYNC_MS 5000

/*
 * One journal record. Two slots are written in turn, so that a torn write leaves the
 * other one; the digest at the end tells which are whole. Only little-endian machines are built for.
 */
struct record {
	char magic[8];
	uint64_t seq;
	uint64_t size;
	uint64_t ino;
	char boot_id[40];
	uint32_t alg;
	uint32_t n_written, n_synced;
	uint32_t pad;
	uint8_t digest[64];
	uint64_t hashed;	/* bytes below `state` */
	uint8_t state[HASHER_STATE_MAX];
	struct span written[JOURNAL_SPANS];
	struct span synced[JOURNAL_SPANS];
	uint8_t check[32];	/* sha256 of everything above */
};
_Static_assert(sizeof(struct record) <= 4096, "a record fits its slot");
#define SLOT 4096

struct blob {
	pthread_mutex_t lock;
	int dirfd;		/* borrowed */
	int fd;
	char name[DIGEST_STR_MAX], journal_name[DIGEST_STR_MAX + 16];
	struct digest digest;
	uint64_t size, ino;
	bool ours;		/* the file's owner is who we are */
	struct blob_options o;

	struct spans claimed;	/* on disk or being written by somebody */
	struct spans written;	/* on disk (page cache) */
	struct spans synced;	/* on disk for good */
	uint64_t written_bytes;

	bool hashing;		/* a thread works on `hasher` outside the lock */
	struct hasher hasher;
	uint64_t frontier;
	uint64_t state_at;	/* bytes below `state` */
	uint8_t state[HASHER_STATE_MAX];
	bool finished;

	char boot_id[40];
	bool journaling;	/* a thread writes a record outside the lock */
	pthread_cond_t journaled; /* it is done */
	unsigned resets;
	uint64_t seq;
	uint64_t journal_bytes, journal_ms;	/* written_bytes and time of the last record */
	uint64_t sync_bytes, sync_ms;
	uint64_t dropped;	/* bytes below this left the page cache */
};

/* --- journal --- */

static void copy_spans(struct span *to, uint32_t *n, const struct spans *from)
{
	*n = (uint32_t)MIN(from->n, (size_t)JOURNAL_SPANS);
	if (*n)
		memcpy(to, from->v, *n * sizeof(*to));
}

static void record_check(const struct record *r, uint8_t ret[static 32])
{
	struct digest d;

	digest_of(DIGEST_SHA256, r, offsetof(struct record, check), &d);
	memcpy(ret, d.bytes, 32);
}

/* Lock held. */
static void record_fill(struct blob *b, struct record *r)
{
	*r = (struct record){
		.seq = ++b->seq,
		.size = b->size,
		.ino = b->ino,
		.alg = b->digest.alg,
		.hashed = b->state_at,
	};
	memcpy(r->magic, JOURNAL_MAGIC, 8);
	memcpy(r->boot_id, b->boot_id, sizeof(r->boot_id));
	memcpy(r->digest, b->digest.bytes, sizeof(r->digest));
	memcpy(r->state, b->state, sizeof(r->state));
	copy_spans(r->written, &r->n_written, &b->written);
	copy_spans(r->synced, &r->n_synced, &b->synced);
	b->journal_bytes = b->written_bytes;
	b->journal_ms = sys_now_ms();
}

/* A pipe or device under the name must not make us wait: EINVAL, as for anything else that is no plain file. */
static int open_journal(struct blob *b, int flags)
{
	_cleanup_close_ int fd = sys_open_beneath(b->dirfd, b->journal_name, flags | O_NONBLOCK | O_NOCTTY, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return -1;
	if (!S_ISREG(st.st_mode))
		return errno = EINVAL, -1;
	return steal_fd(&fd);
}

static int record_write(struct blob *b, struct record *r, bool sync, struct err *e)
{
	uint8_t slot[SLOT] = { 0 };
	int flags = O_WRONLY | O_CREAT;

	record_check(r, r->check);
	memcpy(slot, r, sizeof(*r));
	_cleanup_close_ int fd = open_journal(b, flags);
	/* something else under the name (ENXIO: a pipe): the directory is ours alone, so it goes */
	if (fd < 0 && (errno == ELOOP || errno == EISDIR || errno == ENXIO || errno == EINVAL) &&
	    sys_remove_tree(b->dirfd, b->journal_name) == 0)
		fd = open_journal(b, flags);
	if (fd < 0)
		return err_errno(e, CODE_LOCAL, errno, "cannot open the journal %s", b->journal_name);
	if (sys_pwrite_full(fd, slot, sizeof(slot), (r->seq & 1) * SLOT) || (sync && fdatasync(fd)))
		return err_errno(e, CODE_LOCAL, errno, "cannot write the journal %s", b->journal_name);
	return 0;
}

/* One writer at a time; the others skip, the next record has it all. */
static int journal_write(struct blob *b, bool sync, struct err *e)
{
	struct record r;

	pthread_mutex_lock(&b->lock);
	if (!b->o.journal || b->finished || b->journaling) {
		pthread_mutex_unlock(&b->lock);
		return 0;
	}
	b->journaling = true;
	record_fill(b, &r);
	pthread_mutex_unlock(&b->lock);
	int failed = record_write(b, &r, sync, e);
	pthread_mutex_lock(&b->lock);
	b->journaling = false;
	pthread_cond_broadcast(&b->journaled);
	pthread_mutex_unlock(&b->lock);
	return failed;
}

/* Lock held, dropped meanwhile: a record that is being written would come back after the journal was removed. */
static void wait_for_journal(struct blob *b)
{
	while (b->journaling)
		pthread_cond_wait(&b->journaled, &b->lock);
}

static bool spans_valid(const struct span *v, uint32_t n, uint64_t size)
{
	uint64_t at = 0;

	if (n > JOURNAL_SPANS)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		if (v[i].start < at || v[i].start >= v[i].end || v[i].end > size)
			return false;
		at = v[i].end;
	}
	return true;
}

static bool record_valid(const struct blob *b, const struct record *r)
{
	uint8_t check[32];

	record_check(r, check);
	return memcmp(r->magic, JOURNAL_MAGIC, 8) == 0 && memcmp(check, r->check, 32) == 0 &&
	       r->size == b->size && r->ino == b->ino && r->alg == b->digest.alg &&
	       memcmp(r->digest, b->digest.bytes, sizeof(r->digest)) == 0 &&
	       r->hashed <= r->size && spans_valid(r->written, r->n_written, r->size) &&
	       spans_valid(r->synced, r->n_synced, r->size);
}

/* The newest whole record about this very file, or false. *ret_ours: nobody else can have written it. */
static bool journal_read(struct blob *b, struct record *ret, bool *ret_ours)
{
	struct stat st;
	uint8_t slot[SLOT];
	struct record r;
	bool found = false;
	_cleanup_close_ int fd = open_journal(b, O_RDONLY);

	if (fd < 0 || fstat(fd, &st))
		return false;
	*ret_ours = st.st_uid == geteuid();
	for (uint64_t i = 0; i < 2; i++) {
		if (sys_pread_full(fd, slot, SLOT, i * SLOT) != SLOT)
			continue;
		memcpy(&r, slot, sizeof(r));
		if (record_valid(b, &r) && (!found || r.seq > ret->seq)) {
			*ret = r;
			found = true;
		}
	}
	return found;
}

static int add_spans(struct spans *to, const struct span *v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (spans_add(to, v[i].start, v[i].end))
			return -1;
	return 0;
}

/*
 * Takes over what an earlier process left. The page cache outlives a process, not a
 * machine: after a reboot, or on another node, only what was fdatasynced counts, and it is hashed again. So it is
 * where file or journal belong to another uid: whoever wrote the bytes could make up a hash state for better ones.
 */
static int resume(struct blob *b, struct err *e)
{
	struct record r;
	bool ours;

	if (!b->o.journal || !journal_read(b, &r, &ours))
		return 0;
	r.boot_id[sizeof(r.boot_id) - 1] = '\0';
	/* a network file system may have lost written pages since, when the server refused them after the process was gone */
	bool same_boot = *b->boot_id && strcmp(b->boot_id, r.boot_id) == 0 && !memory_is_network_fs(b->fd);
	b->seq = r.seq;
	if (add_spans(&b->synced, r.synced, r.n_synced) ||
	    (same_boot ? add_spans(&b->written, r.written, r.n_written) :
			 spans_copy(&b->written, &b->synced)) ||
	    spans_copy(&b->claimed, &b->written))
		return err_oom(e);
	b->written_bytes = b->journal_bytes = b->sync_bytes = spans_total(&b->written);
	if (same_boot && ours && b->ours && r.hashed && spans_contain(&b->written, 0, r.hashed)) {
		hasher_import(&b->hasher, b->digest.alg, r.hashed, r.state);
		b->frontier = b->state_at = r.hashed;
		memcpy(b->state, r.state, sizeof(b->state));
	}
	return 0;
}

/* --- life --- */

static int open_file(struct blob *b, struct err *e)
{
	struct stat st;

	b->fd = sys_open_beneath(b->dirfd, b->name, O_RDWR | O_CREAT | O_NONBLOCK | O_NOCTTY, 0600);
	if (b->fd < 0 || fstat(b->fd, &st))
		return err_errno(e, CODE_LOCAL, errno, "cannot open .fetcher/partial/%s", b->name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, CODE_UNSAFE, ".fetcher/partial/%s is not a regular file", b->name);
	b->ino = st.st_ino;
	b->ours = st.st_uid == geteuid();
	if (st.st_size == (off_t)b->size && b->o.journal)
		return resume(b, e);
	/*
	 * A new, a stranger's or a cut file: start over. A journal that lies there is about other bytes under the same inode
	 * number; believed after the next kill, it would pass zeros off as hashed.
	 */
	if (unlinkat(b->dirfd, b->journal_name, 0) && errno != ENOENT && errno != EISDIR)
		return err_errno(e, CODE_LOCAL, errno, "cannot remove the journal %s", b->journal_name);
	if (st.st_size && ftruncate(b->fd, 0))
		return err_errno(e, CODE_LOCAL, errno, "cannot truncate .fetcher/partial/%s", b->name);
	if (sys_preallocate(b->fd, b->size))
		return err_errno(e, CODE_LOCAL, errno, "cannot reserve %llu bytes for %s",
				 (unsigned long long)b->size, b->name);
	return 0;
}

int blob_open(struct blob **ret, int partial_dirfd, const struct digest *d, uint64_t size,
	      const struct blob_options *o, struct err *e)
{
	struct blob *b = calloc(1, sizeof(*b));

	if (!b)
		return err_oom(e);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->journaled, NULL);
	b->dirfd = partial_dirfd;
	b->fd = -1;
	b->digest = *d;
	b->size = size;
	b->o = *o;
	digest_format(d, '-', b->name);
	snprintf(b->journal_name, sizeof(b->journal_name), "%s.journal", b->name);
	hasher_init(&b->hasher, d->alg);
	sys_boot_id(b->boot_id);
	b->journal_ms = b->sync_ms = sys_now_ms();
	if (open_file(b, e)) {
		b->o.journal = false; /* leave what is there alone */
		blob_close(b, true);
		return -1;
	}
	*ret = b;
	return 0;
}

void blob_close(struct blob *b, bool keep)
{
	if (!b)
		return;
	if (keep && b->written_bytes)
		(void)journal_write(b, false, NULL); /* best effort: an older record is only less */
	if (b->fd >= 0)
		close(b->fd);
	if (!keep) {
		/* ENOENT is usual: the file was published under its name */
		(void)unlinkat(b->dirfd, b->name, 0);
		if (b->o.journal)
			(void)unlinkat(b->dirfd, b->journal_name, 0);
	}
	spans_release(&b->claimed);
	spans_release(&b->written);
	spans_release(&b->synced);
	pthread_cond_destroy(&b->journaled);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

const char *blob_name(const struct blob *b)
{
	return b->name;
}

int blob_fd(const struct blob *b)
{
	return b->fd;
}

uint64_t blob_done_bytes(struct blob *b)
{
	pthread_mutex_lock(&b->lock);
	uint64_t n = b->written_bytes;
	pthread_mutex_unlock(&b->lock);
	return n;
}

uint64_t blob_frontier(struct blob *b)
{
	pthread_mutex_lock(&b->lock);
	uint64_t n = b->frontier;
	pthread_mutex_unlock(&b->lock);
	return n;
}

bool blob_gap(struct blob *b, uint64_t from, struct span *ret)
{
	pthread_mutex_lock(&b->lock);
	bool found = spans_gap(&b->written, from, b->size, ret);
	pthread_mutex_unlock(&b->lock);
	return found;
}

int blob_reset(struct blob *b, struct err *e)
{
	int failed = 0;

	pthread_mutex_lock(&b->lock);
	wait_for_journal(b);
	b->resets++;
	spans_clear(&b->claimed);
	spans_clear(&b->written);
	spans_clear(&b->synced);
	b->written_bytes = b->frontier = b->state_at = b->dropped = 0;
	b->journal_bytes = b->sync_bytes = 0;
	b->finished = false;
	hasher_init(&b->hasher, b->digest.alg);
	if (b->o.journal && unlinkat(b->dirfd, b->journal_name, 0) && errno != ENOENT)
		failed = err_errno(e, CODE_LOCAL, errno, "cannot remove the journal %s",
				   b->journal_name);
	pthread_mutex_unlock(&b->lock);
	return failed;
}

/* --- bytes --- */

/* Lock held; `n` bytes were hashed from the frontier on. */
static void advance(struct blob *b, uint64_t n)
{
	b->frontier += n;
	b->state_at = hasher_export(&b->hasher, b->state);
	b->hashing = false;
}

/* Claims [*at, *end) = the first part of the piece that nobody wrote; false when there is none. */
static bool claim(struct blob *b, uint64_t from, uint64_t to, struct span *ret, struct err *e,
		  int *failed)
{
	pthread_mutex_lock(&b->lock);
	bool some = spans_gap(&b->claimed, from, to, ret);
	if (some && spans_add(&b->claimed, ret->start, ret->end)) {
		*failed = err_set(e, CODE_INTERNAL, "%s: too many pieces", b->name);
		some = false;
	}
	pthread_mutex_unlock(&b->lock);
	return some;
}

/* Lock held. Books a piece as written; true: the caller shall hash it, it holds the hasher then. */
static bool book(struct blob *b, const struct span *s, struct err *e, int *failed)
{
	if (spans_add(&b->written, s->start, s->end)) {
		*failed = err_set(e, CODE_INTERNAL, "%s: too many pieces", b->name);
		return false;
	}
	b->written_bytes += s->end - s->start;
	if (b->hashing || b->frontier < s->start || b->frontier >= s->end)
		return false;
	b->hashing = true;
	return true;
}

int blob_write(struct blob *b, uint64_t off, const void *p, size_t n, uint64_t *ret_new,
	       struct err *e)
{
	uint64_t end, fresh = 0;
	struct span s;
	bool journal = false;
	int failed = 0;

	if (!u64_add(off, n, &end) || end > b->size)
		return err_set(e, CODE_INTEGRITY, "%s: more bytes than the manifest says", b->name);
	/* usually one round; more only where another connection was faster */
	for (uint64_t at = off; !failed && claim(b, at, end, &s, e, &failed); at = s.end) {
		const uint8_t *from = (const uint8_t *)p + (s.start - off);
		if (sys_pwrite_full(b->fd, from, s.end - s.start, s.start)) {
			failed = err_errno(e, CODE_LOCAL, errno, "cannot write .fetcher/partial/%s",
					   b->name);
			break;
		}
		fresh += s.end - s.start;
		pthread_mutex_lock(&b->lock);
		bool hash = book(b, &s, e, &failed);
		uint64_t frontier = b->frontier;
		journal = journal || b->written_bytes - b->journal_bytes >= JOURNAL_BYTES;
		pthread_mutex_unlock(&b->lock);
		if (!hash)
			continue;
		hasher_update(&b->hasher, from + (frontier - s.start), s.end - frontier);
		pthread_mutex_lock(&b->lock);
		advance(b, s.end - frontier);
		pthread_mutex_unlock(&b->lock);
	}
	if (!failed && journal)
		failed = journal_write(b, false, e);
	if (!failed)
		*ret_new = fresh;
	return failed;
}

uint64_t blob_backlog(struct blob *b)
{
	pthread_mutex_lock(&b->lock);
	uint64_t n = spans_covered_to(&b->written, b->frontier) - b->frontier;
	pthread_mutex_unlock(&b->lock);
	return n;
}

int blob_hash_some(struct blob *b, uint64_t max, void *scratch, size_t n, struct err *e)
{
	int failed = 0;

	pthread_mutex_lock(&b->lock);
	uint64_t from = b->frontier;
	uint64_t to = MIN(spans_covered_to(&b->written, from), from + max);
	if (b->hashing || to == from) {
		pthread_mutex_unlock(&b->lock);
		return 0;
	}
	b->hashing = true;
	pthread_mutex_unlock(&b->lock);

	uint64_t at = from;
	while (at < to) {
		size_t want = (size_t)MIN((uint64_t)n, to - at);
		ssize_t got = sys_pread_full(b->fd, scratch, want, at);
		if (got < 0 || (size_t)got < want) {
			failed = err_errno(e, CODE_LOCAL, got < 0 ? errno : EIO,
					   "cannot read back .fetcher/partial/%s", b->name);
			break;
		}
		hasher_update(&b->hasher, scratch, want);
		at += want;
	}
	pthread_mutex_lock(&b->lock);
	advance(b, at - from);
	pthread_mutex_unlock(&b->lock);
	return failed ? -1 : 1;
}

int blob_verdict(struct blob *b, struct err *e)
{
	struct digest computed;

	pthread_mutex_lock(&b->lock);
	if (b->frontier < b->size || b->hashing) {
		pthread_mutex_unlock(&b->lock);
		return 0;
	}
	struct hasher h = b->hasher;
	hasher_final(&h, &computed);
	b->finished = digest_equal(&b->digest, &computed);
	pthread_mutex_unlock(&b->lock);
	if (!b->finished) {
		char want[DIGEST_STR_MAX], got[DIGEST_STR_MAX];
		return err_set(e, CODE_INTEGRITY, "blob %s: the bytes received hash to %s",
			       digest_format(&b->digest, ':', want), digest_format(&computed, ':', got));
	}
	return 1;
}

/* --- upkeep --- */

/*
 * A flush failed: the kernel calls the lost pages clean, tells so once, and what is read next may be older. Whatever was
 * written is in doubt, so no journal vouches for it any more.
 */
static int flush_failed(struct blob *b, struct err *e)
{
	err_errno(e, CODE_LOCAL, errno, "cannot flush .fetcher/partial/%s", b->name);
	pthread_mutex_lock(&b->lock);
	wait_for_journal(b);
	(void)unlinkat(b->dirfd, b->journal_name, 0);
	b->o.journal = false;
	pthread_mutex_unlock(&b->lock);
	return -1;
}

/* What is on disk now becomes what survives a power cut. */
static int sync_data(struct blob *b, struct err *e)
{
	struct spans now = { 0 };

	pthread_mutex_lock(&b->lock);
	unsigned resets = b->resets;
	int oom = spans_copy(&now, &b->written);
	b->sync_bytes = b->written_bytes;
	b->sync_ms = sys_now_ms();
	pthread_mutex_unlock(&b->lock);
	if (oom)
		return err_oom(e);
	if (fdatasync(b->fd)) {
		int failed = flush_failed(b, e);
		spans_release(&now);
		return failed;
	}
	pthread_mutex_lock(&b->lock);
	if (resets == b->resets) { /* else those bytes are not wanted any more */
		struct spans old = b->synced;
		b->synced = now;
		now = old;
	}
	pthread_mutex_unlock(&b->lock);
	spans_release(&now);
	return journal_write(b, true, e);
}

/* Gives pages below the frontier back; they were hashed, and nobody here reads them again. */
static int drop_pages(struct blob *b, struct err *e)
{
	pthread_mutex_lock(&b->lock);
	uint64_t from = b->dropped, to = b->frontier;
	bool due = to - from >= b->o.drop_behind;
	if (due)
		b->dropped = to;
	pthread_mutex_unlock(&b->lock);
	if (!due)
		return 0;
	/* a failure is told to this descriptor alone, and once: the fsync at the end would not see it */
	if (sync_file_range(b->fd, (off_t)from, (off_t)(to - from), SYNC_FILE_RANGE_WAIT_BEFORE |
			    SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) &&
	    (errno == EIO || errno == ENOSPC || errno == EDQUOT))
		return flush_failed(b, e);
	(void)posix_fadvise(b->fd, (off_t)from, (off_t)(to - from), POSIX_FADV_DONTNEED);
	return 0;
}

int blob_maintain(struct blob *b, uint64_t now_ms, struct err *e)
{
	pthread_mutex_lock(&b->lock);
	uint64_t fresh = b->written_bytes - b->journal_bytes;
	uint64_t unsynced = b->written_bytes - b->sync_bytes;
	bool journal = fresh && !b->finished &&
		       (fresh >= JOURNAL_BYTES || now_ms - b->journal_ms >= JOURNAL_MS);
	bool sync = b->o.sync && b->o.journal && unsynced && !b->finished &&
		    (unsynced >= SYNC_BYTES || now_ms - b->sync_ms >= SYNC_MS);
	pthread_mutex_unlock(&b->lock);
	if (b->o.drop_behind && drop_pages(b, e))
		return -1;
	if (sync)
		return sync_data(b, e);
	return journal ? journal_write(b, false, e) : 0;
}
