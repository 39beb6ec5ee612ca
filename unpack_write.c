// SPDX-License-Identifier: Apache-2.0
/*
 * The confined writer of unpack.h: no name leaves dirfd, no link is followed, no file that is there
 * is written to.
 */
#include "unpack_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "json.h"

/* Pieces at least this large are written as they come; smaller ones are collected. */
size_t unpack_collect_bytes = 256 * KIB;
#define RESERVE_MIN (1 * MIB)

static int fail(const char *what, const char *path, struct err *e)
{
	char shown[UNPACK_SHOWN];

	return err_errno(e, CODE_LOCAL, errno, "cannot %s %s", what,
			 json_show(str_of(path), shown, sizeof(shown)));
}

static void forget(struct writer *w)
{
	cleanup_close_fn(&w->fd);
	free(w->path);
	w->path = NULL;
	w->buffered = 0;
}

void writer_release(struct writer *w)
{
	forget(w);
	free(w->buf);
	w->buf = NULL;
}

/* --- names --- */

/* Runs once more after what an earlier run left behind in the way is removed. */
static bool clear_way(struct writer *w, const char *path)
{
	struct err ignored = { 0 };

	return w->leftovers && errno == EEXIST && writer_remove(w, path, &ignored) == 0;
}

static int create(struct writer *w, const char *path)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	int fd = sys_open_beneath(w->dirfd, path, flags, 0600);

	if (fd >= 0 || errno != ENOENT)
		return fd;
	const char *leaf;
	_cleanup_close_ int dir = sys_open_parent(w->dirfd, path, 0700, &leaf);
	return dir < 0 ? -1 : openat(dir, leaf, flags, 0600);
}

int writer_begin(struct writer *w, const char *path, uint64_t size, bool sparse, bool dry,
		 struct err *e)
{
	forget(w);
	w->size = size;
	w->pos = 0;
	w->dry = dry;
	w->sparse = sparse;
	hasher_init(&w->hash, DIGEST_SHA256);
	w->path = strdup(path);
	if (!w->path)
		return err_oom(e);
	if (dry)
		return 0;
	w->fd = create(w, path);
	if (w->fd < 0 && clear_way(w, path))
		w->fd = create(w, path);
	if (w->fd < 0)
		return fail("create", path, e);
	if (!sparse && size >= RESERVE_MIN && sys_preallocate(w->fd, size) < 0)
		return fail("reserve the space of", path, e);
	return 0;
}

/*
 * Of our own making. It may have a second name by now: that of a hard link that came after the
 * checkpoint, and gets the same bytes again.
 */
static bool is_ours(const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_uid == geteuid();
}

static int rehash(struct writer *w, uint64_t from, uint64_t to)
{
	uint8_t tail[128];
	ssize_t n;

	if (to - from > sizeof(tail))
		return errno = EINVAL, -1;
	n = sys_pread_full(w->fd, tail, (size_t)(to - from), from);
	if (n < 0)
		return -1;
	if ((uint64_t)n < to - from)
		return errno = EIO, -1;
	hasher_update(&w->hash, tail, (size_t)n);
	return 0;
}

int writer_resume(struct writer *w, const char *path, uint64_t size, uint64_t done, uint64_t hashed,
		  const uint8_t state[static HASHER_STATE_MAX], struct err *e)
{
	struct stat st;

	forget(w);
	w->size = size;
	w->pos = done;
	w->dry = w->sparse = false;
	w->path = strdup(path);
	if (!w->path)
		return err_oom(e);
	w->fd = sys_open_beneath(w->dirfd, path, O_RDWR | O_NONBLOCK | O_NOCTTY, 0);
	if (w->fd < 0 || fstat(w->fd, &st) < 0)
		return fail("open the interrupted", path, e);
	errno = EIO;
	if (!is_ours(&st) || (uint64_t)st.st_size < done || (uint64_t)st.st_size > size)
		return fail("go on with", path, e);
	hasher_import(&w->hash, DIGEST_SHA256, hashed, state);
	if (rehash(w, hashed, done))
		return fail("read", path, e);
	return 0;
}

bool writer_has(const struct writer *w, const char *path, uint64_t size)
{
	_cleanup_close_ int fd =
		sys_open_beneath(w->dirfd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && is_ours(&st) && (uint64_t)st.st_size == size;
}

/* --- bytes --- */

static int put(struct writer *w, const void *p, size_t n, uint64_t off, struct err *e)
{
	if (sys_pwrite_full(w->fd, p, n, off) < 0)
		return fail("write", w->path, e);
	if (w->written)
		w->written(w->arg, n);
	return 0;
}

int writer_flush(struct writer *w, struct err *e)
{
	size_t n = w->buffered;

	w->buffered = 0;
	return n ? put(w, w->buf, n, w->pos - n, e) : 0;
}

static void hash_zeros(struct hasher *h, uint64_t n)
{
	static const uint8_t zeros[64 * 1024];

	for (; n > sizeof(zeros); n -= sizeof(zeros))
		hasher_update(h, zeros, sizeof(zeros));
	hasher_update(h, zeros, (size_t)n);
}

static int skip_to(struct writer *w, uint64_t off, struct err *e)
{
	if (off == w->pos)
		return 0;
	if (writer_flush(w, e))
		return -1;
	hash_zeros(&w->hash, off - w->pos);
	w->pos = off;
	return 0;
}

/* Into the buffer as far as it has room. Returns how much was taken, -1 = no memory. */
static ssize_t collect(struct writer *w, const uint8_t *p, size_t n)
{
	if (!w->buf)
		w->buf = malloc(unpack_collect_bytes);
	if (!w->buf)
		return -1;
	n = MIN(n, unpack_collect_bytes - w->buffered);
	memcpy(w->buf + w->buffered, p, n);
	w->buffered += n;
	w->pos += n;
	return (ssize_t)n;
}

int writer_data(struct writer *w, uint64_t off, const void *data, size_t n, struct err *e)
{
	const uint8_t *p = data;

	if (off < w->pos || off > w->size || n > w->size - off || (off > w->pos && !w->sparse))
		return err_set(e, CODE_INTEGRITY,
			       "the data of an archive's entry are out of order");
	if (skip_to(w, off, e))
		return -1;
	hasher_update(&w->hash, p, n);
	if (w->dry) {
		w->pos += n;
		return 0;
	}
	while (n) {
		if (w->buffered == 0 && n >= unpack_collect_bytes) {
			if (put(w, p, n, w->pos, e))
				return -1;
			w->pos += n;
			return 0;
		}
		ssize_t k = collect(w, p, n);
		if (k < 0)
			return err_oom(e);
		p += k;
		n -= (size_t)k;
		if (w->buffered == unpack_collect_bytes && writer_flush(w, e))
			return -1;
	}
	return 0;
}

int writer_end(struct writer *w, struct digest *ret, struct err *e)
{
	if (w->pos < w->size && !w->sparse)
		return err_set(e, CODE_INTEGRITY,
			       "an entry of the archive has less data than it says");
	if (skip_to(w, w->size, e) || writer_flush(w, e))
		return -1;
	if (!w->dry) {
		if (w->sparse && ftruncate(w->fd, (off_t)w->size) < 0)
			return fail("set the size of", w->path, e);
		if (sys_close(&w->fd) < 0)
			return fail("write", w->path, e);
	}
	hasher_final(&w->hash, ret);
	forget(w);
	return 0;
}

/* --- names of finished files --- */

static int link_once(struct writer *w, const char *from, const char *to)
{
	const char *from_leaf, *to_leaf;
	_cleanup_close_ int from_dir = sys_open_parent(w->dirfd, from, 0, &from_leaf);
	_cleanup_close_ int to_dir =
		from_dir < 0 ? -1 : sys_open_parent(w->dirfd, to, 0700, &to_leaf);

	if (from_dir < 0 || to_dir < 0)
		return -1;
	return linkat(from_dir, from_leaf, to_dir, to_leaf, 0);
}

/* Where links are unknown or used up: the same bytes once more. */
static int copy_instead(struct writer *w, const char *from, const char *to, struct err *e)
{
	_cleanup_close_ int in =
		sys_open_beneath(w->dirfd, from, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	struct stat st;

	if (in < 0 || fstat(in, &st) < 0)
		return fail("open", from, e);
	_cleanup_close_ int out = create(w, to);
	if (out < 0 && clear_way(w, to))
		out = create(w, to);
	if (out < 0 || sys_copy(in, out, (uint64_t)st.st_size) < 0 || sys_close(&out) < 0)
		return fail("create", to, e);
	return 0;
}

int writer_link(struct writer *w, const char *from, const char *to, struct err *e)
{
	int rc = link_once(w, from, to);

	if (rc < 0 && clear_way(w, to))
		rc = link_once(w, from, to);
	if (rc == 0)
		return 0;
	if (errno == EMLINK || errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS)
		return copy_instead(w, from, to, e);
	return fail("link", to, e);
}

/* By way of a free name: `from` may be where a directory of `to` has to be. */
int writer_move(struct writer *w, const char *from, const char *to, struct err *e)
{
	const char *from_leaf, *to_leaf;
	char between[SYS_TEMP_NAME];
	_cleanup_close_ int from_dir = sys_open_parent(w->dirfd, from, 0, &from_leaf);

	sys_temp_name(between);
	if (from_dir < 0 || renameat(from_dir, from_leaf, w->dirfd, between) < 0)
		return fail("move", from, e);
	_cleanup_close_ int to_dir = sys_open_parent(w->dirfd, to, 0700, &to_leaf);
	if (to_dir < 0 || renameat(w->dirfd, between, to_dir, to_leaf) < 0)
		return fail("move to", to, e);
	return 0;
}

int writer_remove(struct writer *w, const char *path, struct err *e)
{
	const char *leaf;
	_cleanup_close_ int dir = sys_open_parent(w->dirfd, path, 0, &leaf);

	if (dir < 0 && errno == ENOENT)
		return 0;
	if (dir < 0 || sys_remove_tree(dir, leaf) < 0)
		return fail("remove", path, e);
	return 0;
}
