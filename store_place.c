// SPDX-License-Identifier: Apache-2.0
/* Files of a publication: which are there already, and putting the others in place. */
#include "store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* flat: smaller files are copied, so that editing one leaves the other alone */
#define LINK_MIN (64 * KIB)

static void remember(struct store *s, size_t i, const struct stat *st, enum file_state state)
{
	pthread_mutex_lock(&s->lock);
	store_file_set(&s->pub.placed[i], st);
	s->pub.state[i] = (uint8_t)state;
	index_add_self(s, i);
	ledger_add(s, i);
	pthread_mutex_unlock(&s->lock);
}

static bool is_known_inode(struct store *s, const struct digest *d, const struct stat *st)
{
	bool known;

	pthread_mutex_lock(&s->lock);
	known = index_same_inode(s, d, st);
	pthread_mutex_unlock(&s->lock);
	return known;
}

/* File systems without permissions or times (FUSE, CIFS) are no reason to fail. */
static bool harmless(int err)
{
	return err == EPERM || err == ENOTSUP || err == ENOSYS;
}

static bool mtime_differs(const struct layout_file *f, const struct stat *st)
{
	return f->has_mtime && ((int64_t)st->st_mtim.tv_sec != f->mtime_sec ||
				(uint32_t)st->st_mtim.tv_nsec != f->mtime_nsec);
}

/* Mode and mtime as the plan says; *st is what they are then. -1 errno. */
static int dress(struct store *s, int fd, const struct layout_file *f, struct stat *st)
{
	mode_t mode = file_mode(s, f);

	if ((st->st_mode & 07777) != mode && fchmod(fd, mode) < 0 && !harmless(errno))
		return -1;
	if (mtime_differs(f, st)) {
		struct timespec ts[2] = {
			{ .tv_nsec = UTIME_OMIT },
			{ .tv_sec = (time_t)f->mtime_sec, .tv_nsec = (long)f->mtime_nsec },
		};

		if (futimens(fd, ts) < 0 && !harmless(errno) && errno != EINVAL)
			return -1;
		return fstat(fd, st);
	}
	return 0;
}

enum belief { BELIEVE_NO, BELIEVE_YES, BELIEVE_HASH };

/* What meta and ledgers say about the file that stands at path i. */
static enum belief believe(struct store *s, size_t i, const struct stat *st)
{
	const struct layout_file *f = plan_file(s, i);

	for (size_t k = 0; k < s->n_known; k++) {
		const struct known *kn = &s->known[k];
		const struct store_file *r;

		if (kn->layout != s->pub.p->layout || !kn->trusted ||
		    (kn->layout == STORE_VERSIONS && strcmp(kn->version, s->pub.p->version)))
			continue;
		r = known_file(kn, f->path);
		if (r && r->kind == LAYOUT_FILE && store_same(s, r, st))
			return digest_equal(&f->digest, &r->digest) ? BELIEVE_YES : BELIEVE_NO;
	}
	return index_same_inode(s, &f->digest, st) ? BELIEVE_YES : BELIEVE_HASH;
}

static int has_open(struct store *s, size_t i, int fd, struct err *e)
{
	const struct layout_file *f = plan_file(s, i);
	struct digest computed;
	enum belief belief;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return store_fail(s, e, "look at", f->path);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != f->size)
		return 0;
	belief = believe(s, i, &st);
	if (belief == BELIEVE_NO)
		return 0;
	/* The inode may be another version's too: then it is not ours to dress. */
	if (st.st_nlink > 1 && ((st.st_mode & 07777) != file_mode(s, f) || mtime_differs(f, &st)))
		return 0;
	if (belief == BELIEVE_HASH) {
		if (store_hash_fd(fd, f->digest.alg, f->size, &computed) < 0)
			return errno == ENOMEM ? err_oom(e) : 0;
		if (!digest_equal(&f->digest, &computed))
			return 0;
	}
	if (dress(s, fd, f, &st) < 0)
		return 0;
	remember(s, i, &st, FILE_HAD);
	return 1;
}

/* A link or a directory. */
static int has_node(struct store *s, size_t i, const struct dirs_ref *dir, struct err *e)
{
	const struct store_file *f = &s->pub.placed[i];
	struct stat st;

	if (fstatat(dir->fd, dir->leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : store_fail(s, e, "look at", f->path);
	if (f->kind == LAYOUT_DIR ? !S_ISDIR(st.st_mode) : !store_link_is(dir->fd, dir->leaf, f))
		return 0;
	remember(s, i, &st, FILE_HAD);
	return 1;
}

int store_has(struct store *s, size_t file, struct err *e)
{
	_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
	_cleanup_close_ int fd = -1;
	const char *path;

	if (s->pub.state[file] != FILE_NEEDED)
		return 1;
	if (!s->pub.exists[file])
		return 0;
	path = plan_file(s, file)->path;
	if (dirs_get(&s->pub.dirs, path, 0, &dir) < 0)
		return errno == ENOENT ? 0 : store_fail(s, e, "open the directory of", path);
	if (plan_file(s, file)->kind != LAYOUT_FILE)
		return has_node(s, file, &dir, e);
	fd = sys_open_beneath(dir.fd, dir.leaf, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0 && (errno == ENOENT || errno == EACCES || errno == ELOOP))
		return 0;
	if (fd < 0)
		return store_fail(s, e, "open", path);
	return has_open(s, file, fd, e);
}

/* --- placing --- */

/* The last touches on verified content under a private name: size, mode, mtime, fsync. */
static int finish(struct store *s, const struct layout_file *f, int fd, struct stat *st,
		  struct err *e)
{
	if (fstat(fd, st) < 0)
		return store_fail(s, e, "look at", f->path);
	if (!S_ISREG(st->st_mode) || (uint64_t)st->st_size != f->size)
		return err_set(e, CODE_INTEGRITY, "%s: the verified file has another size by now",
			       f->path);
	if (dress(s, fd, f, st) < 0)
		return store_fail(s, e, "set mode and time of", f->path);
	if (!want_sync(s))
		return 0;
	if (s->pub.p->fsync == STORE_FSYNC_ALWAYS) {
		if (fsync(fd) < 0 || fstat(fd, st) < 0)
			return store_fail(s, e, "sync", f->path);
	} else if (f->size >= WRITEBACK_MIN) {
		/* So that little is left for commit; a failure shows there. */
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	}
	return 0;
}

/* fd/name (in the partial directory or below) becomes file i. */
static int move_in(struct store *s, size_t i, int fd, const char *name, const struct stat *st,
		   struct err *e)
{
	_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
	const char *path = plan_file(s, i)->path;

	if (dirs_get(&s->pub.dirs, path, dir_mode(s), &dir) < 0)
		return store_fail(s, e, "make the directory of", path);
	if (renameat(fd, name, dir.fd, dir.leaf) < 0)
		return store_fail(s, e, "write", path);
	remember(s, i, st, FILE_PLACED);
	return 0;
}

static int open_regular(int dirfd, const char *name, struct stat *st)
{
	_cleanup_close_ int fd = sys_open_beneath(dirfd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);

	if (fd < 0 || fstat(fd, st) < 0)
		return -1;
	if (!S_ISREG(st->st_mode))
		return errno = EINVAL, -1;
	return steal_fd(&fd);
}

/* A second name of the very file; -1 = copy instead. */
static int link_to(struct store *s, const struct layout_file *f, const struct dirs_ref *from,
		   const struct stat *st, const char *tmp)
{
	struct stat linked;

	if ((st->st_mode & 07777) != file_mode(s, f) || mtime_differs(f, st))
		return -1;
	if (s->pub.p->layout == STORE_FLAT && f->size < LINK_MIN)
		return -1;
	if (linkat(from->fd, from->leaf, s->partial_fd, tmp, 0) < 0)
		return -1;
	/* Somebody may have swapped the name since it was opened. */
	if (fstatat(s->partial_fd, tmp, &linked, AT_SYMLINK_NOFOLLOW) == 0 &&
	    linked.st_ino == st->st_ino && linked.st_dev == st->st_dev)
		return 0;
	unlinkat(s->partial_fd, tmp, 0);
	return -1;
}

static int copy_to(struct store *s, const struct layout_file *f, int from, const char *tmp,
		   struct stat *st, struct err *e)
{
	_cleanup_close_ int fd = openat(s->partial_fd, tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW |
					O_CLOEXEC, 0600);

	if (fd < 0 || sys_copy(from, fd, f->size) < 0)
		return store_fail(s, e, "copy to", f->path);
	if (finish(s, f, fd, st, e) < 0)
		return -1;
	if (sys_close(&fd) < 0)
		return store_fail(s, e, "copy to", f->path);
	return 0;
}

static int place_from(struct store *s, size_t i, const char *from_path, struct err *e)
{
	_cleanup_dirs_ref_ struct dirs_ref from = { .slot = DIRS_OWN, .fd = -1 };
	_cleanup_close_ int fd = -1;
	const struct layout_file *f = plan_file(s, i);
	char tmp[SYS_TEMP_NAME];
	struct stat st;
	int rc;

	if (dirs_get(&s->dirs, from_path, 0, &from) < 0)
		return store_fail(s, e, "open the directory of", from_path);
	fd = open_regular(from.fd, from.leaf, &st);
	if (fd < 0)
		return store_fail(s, e, "open", from_path);
	if ((uint64_t)st.st_size != f->size)
		return err_set(e, CODE_INTEGRITY, "%s changed under our hands", from_path);
	sys_temp_name(tmp);
	rc = link_to(s, f, &from, &st, tmp);
	if (rc < 0)
		rc = copy_to(s, f, fd, tmp, &st, e);
	if (rc == 0)
		rc = move_in(s, i, s->partial_fd, tmp, &st, e);
	/* rename(2) between two names of one inode does nothing, so this is not only for failures. */
	unlinkat(s->partial_fd, tmp, 0);
	return rc;
}

/*
 * Another name of an inode that stands somewhere already, and that may not become file i itself:
 * dressing it would change that one too, and small files of a flat tree are independent.
 */
static bool must_be_copied(struct store *s, const struct layout_file *f, const struct stat *st)
{
	bool dress = (st->st_mode & 07777) != file_mode(s, f) || mtime_differs(f, st);
	bool small = s->pub.p->layout == STORE_FLAT && f->size < LINK_MIN;

	if (!dress && !small)
		return false;
	/* Without inode numbers that mean something nobody can tell. */
	return s->weak_ino || is_known_inode(s, &f->digest, st);
}

/* dirfd/name, open as fd, has other names; s->twins is held. */
static int place_twin(struct store *s, size_t i, int fd, int dirfd, const char *name, struct err *e)
{
	const struct layout_file *f = plan_file(s, i);
	char tmp[SYS_TEMP_NAME];
	struct stat st;
	int rc;

	if (fstat(fd, &st) < 0)
		return store_fail(s, e, "look at", f->path);
	if ((uint64_t)st.st_size == f->size && must_be_copied(s, f, &st)) {
		sys_temp_name(tmp);
		rc = copy_to(s, f, fd, tmp, &st, e);
		if (rc == 0)
			rc = move_in(s, i, s->partial_fd, tmp, &st, e);
		if (rc < 0)
			unlinkat(s->partial_fd, tmp, 0);
	} else {
		rc = finish(s, f, fd, &st, e);
		if (rc == 0)
			rc = move_in(s, i, dirfd, name, &st, e);
	}
	/* A copy leaves it, and so does rename(2) between two names of one inode. */
	if (rc == 0)
		unlinkat(dirfd, name, 0);
	return rc;
}

static int place_partial(struct store *s, size_t i, const char *name, struct err *e)
{
	const struct layout_file *f = plan_file(s, i);
	const char *leaf = name;
	_cleanup_close_ int fd = -1, parent = -1;
	int dirfd = s->partial_fd, rc;
	struct stat st;

	if (strchr(name, '/')) {
		dirfd = parent = sys_open_parent(s->partial_fd, name, 0, &leaf);
		if (parent < 0)
			return store_fail(s, e, "open the verified data of", f->path);
	}
	fd = open_regular(dirfd, leaf, &st);
	if (fd < 0)
		return store_fail(s, e, "open the verified data of", f->path);
	if (st.st_nlink > 1) {
		pthread_mutex_lock(&s->twins);
		rc = place_twin(s, i, fd, dirfd, leaf, e);
		pthread_mutex_unlock(&s->twins);
		return rc;
	}
	rc = finish(s, f, fd, &st, e);
	return rc < 0 ? -1 : move_in(s, i, dirfd, leaf, &st, e);
}

int store_place(struct store *s, size_t file, const char *partial_name, const char *from_path,
		struct err *e)
{
	if (!s->pub.p || file >= plan_size(s) || s->pub.complete || !partial_name == !from_path ||
	    plan_file(s, file)->kind != LAYOUT_FILE)
		return err_set(e, CODE_INTERNAL, "nothing to place");
	return partial_name ? place_partial(s, file, partial_name, e)
			    : place_from(s, file, from_path, e);
}

/*
 * flat: the ledger must know a link or directory before it has its name. A file that nobody knows
 * is hashed and may be replaced all the same, but these would be somebody else's.
 */
static int announce_node(struct store *s, size_t i, const struct stat *st, struct err *e)
{
	bool lost;

	pthread_mutex_lock(&s->lock);
	if (st)
		store_file_set(&s->pub.placed[i], st);
	ledger_add(s, i);
	lost = s->pub.p->layout == STORE_FLAT && ledger_lost(s);
	pthread_mutex_unlock(&s->lock);
	if (lost)
		return err_set(e, CODE_LOCAL, "cannot write the ledger in %s/" TOP_DIR
			       "/" PARTIAL_DIR, s->dest);
	return 0;
}

static int place_dir(struct store *s, size_t i, struct err *e)
{
	_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
	const char *path = plan_file(s, i)->path;
	struct stat st;

	if (dirs_get(&s->pub.dirs, path, dir_mode(s), &dir) < 0)
		return store_fail(s, e, "make the directory of", path);
	if (announce_node(s, i, NULL, e) < 0)
		return -1;
	if (mkdirat(dir.fd, dir.leaf, dir_mode(s)) < 0 && errno != EEXIST)
		return store_fail(s, e, "make", path);
	if (fstatat(dir.fd, dir.leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return store_fail(s, e, "look at", path);
	if (!S_ISDIR(st.st_mode)) {
		errno = S_ISLNK(st.st_mode) ? ELOOP : ENOTDIR;
		return store_fail(s, e, "make", path);
	}
	remember(s, i, &st, FILE_PLACED);
	return 0;
}

static int place_link(struct store *s, size_t i, const void *p, size_t n, struct err *e)
{
	const struct layout_file *f = plan_file(s, i);
	char target[LIMIT_PATH + 1], tmp[SYS_TEMP_NAME];
	struct stat st;
	int rc;

	if (n != f->size || !n || n > LIMIT_PATH || !f->data || memcmp(p, f->data, n) ||
	    memchr(p, 0, n))
		return err_set(e, CODE_INTERNAL, "%s: another link than the plan's", f->path);
	memcpy(target, p, n);
	target[n] = 0;
	sys_temp_name(tmp);
	if (symlinkat(target, s->partial_fd, tmp) < 0)
		return store_fail(s, e, "make the link", f->path);
	rc = fstatat(s->partial_fd, tmp, &st, AT_SYMLINK_NOFOLLOW) < 0
	     ? store_fail(s, e, "look at", f->path) : announce_node(s, i, &st, e);
	if (rc == 0)
		rc = move_in(s, i, s->partial_fd, tmp, &st, e);
	if (rc < 0)
		unlinkat(s->partial_fd, tmp, 0);
	return rc;
}

int store_place_bytes(struct store *s, size_t file, const void *p, size_t n, struct err *e)
{
	_cleanup_close_ int fd = -1;
	const struct layout_file *f;
	char tmp[SYS_TEMP_NAME];
	struct stat st;
	int rc = -1;

	if (!s->pub.p || file >= plan_size(s) || s->pub.complete)
		return err_set(e, CODE_INTERNAL, "nothing to place");
	f = plan_file(s, file);
	if (f->kind != LAYOUT_FILE)
		return f->kind == LAYOUT_DIR ? place_dir(s, file, e) : place_link(s, file, p, n, e);
	sys_temp_name(tmp);
	fd = openat(s->partial_fd, tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return store_fail(s, e, "write", f->path);
	if (sys_pwrite_full(fd, p, n, 0) < 0)
		store_fail(s, e, "write", f->path);
	else if (finish(s, f, fd, &st, e) == 0)
		rc = sys_close(&fd) == 0 ? move_in(s, file, s->partial_fd, tmp, &st, e)
					 : store_fail(s, e, "write", f->path);
	if (rc < 0)
		unlinkat(s->partial_fd, tmp, 0);
	return rc;
}

