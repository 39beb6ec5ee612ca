// SPDX-License-Identifier: Apache-2.0
/* A DEST that nobody wants any more: what it takes, and removing all that is ours. */
#include "store_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define TREE_DEPTH 16	/* two descriptors a level: deeper ones are not counted */

/* --- what it takes --- */

struct tree_sum {
	uint64_t bytes;
	unsigned depth;
};

/* Its share of a file that has several names: those of one DEST add up to the whole. */
static uint64_t share(const struct stat *st)
{
	return (uint64_t)st->st_blocks * 512 / MAX((uint64_t)st->st_nlink, (uint64_t)1);
}

static int sum_tree(void *arg, int dirfd, const char *name)
{
	struct tree_sum *sum = arg;
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (!S_ISDIR(st.st_mode)) {
		sum->bytes += share(&st);
	} else if (sum->depth < TREE_DEPTH) {
		_cleanup_close_ int fd = sys_open_beneath(dirfd, name, O_RDONLY | O_DIRECTORY, 0);

		sum->depth++;
		if (fd >= 0)
			store_each_name(fd, sum_tree, sum);
		sum->depth--;
	}
	return 0;
}

/* A file of a flat version that nobody changed since: 1, with its directory; 0 = not there, or not ours. */
static int find_ours(struct store *s, const struct known *k, size_t i, struct dirs_ref *ret_dir,
		     struct stat *ret_st)
{
	const struct store_file *f = &k->files[i];

	if (dirs_get(&s->dirs, f->path, 0, ret_dir) < 0)
		return 0;
	return store_same_at(s, f, ret_dir->fd, ret_dir->leaf, ret_st) == 1;
}

int store_disk_bytes(struct store *s, uint64_t *ret, struct err *e)
{
	struct tree_sum sum = { 0 };

	if (known_load(s, e) < 0)
		return -1;
	for (size_t i = 0; i < s->n_known; i++) {
		const struct known *k = &s->known[i];

		for (size_t j = 0; k->layout == STORE_FLAT && j < k->n_files; j++) {
			_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
			struct stat st;

			if (k->files[j].kind != LAYOUT_DIR && find_ours(s, k, j, &dir, &st))
				sum.bytes += share(&st);
		}
	}
	if (s->top_fd >= 0)
		store_each_name(s->top_fd, sum_tree, &sum);
	*ret = sum.bytes;
	return 0;
}

/* --- leases --- */

/* Exclusive locks on the version directories: nobody takes a lease while they go. */
struct held {
	int *fds;
	size_t n;
};

/* errno of an open: what has that name is no directory of ours, and nobody can have a lease on it. */
static bool no_directory(void)
{
	return errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
}

static int hold_version(void *arg, int dirfd, const char *name)
{
	_cleanup_close_ int fd = sys_open_beneath(dirfd, name, O_RDONLY | O_DIRECTORY, 0);
	struct held *h = arg;
	int *more;

	if (fd < 0)
		return no_directory() ? 0 : -1;
	/* Another error: this file system knows no such locks, and so has no leases. */
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return 1;
	more = realloc(h->fds, (h->n + 1) * sizeof(*more));
	if (!more)
		return errno = ENOMEM, -1;
	h->fds = more;
	h->fds[h->n++] = steal_fd(&fd);
	return 0;
}

static void held_release(struct held *h)
{
	for (size_t i = 0; i < h->n; i++)
		cleanup_close_fn(&h->fds[i]);
	free(h->fds);
}

/* 0 = all are held, 1 = somebody has a lease, -1. */
static int hold_versions(struct store *s, struct held *h, struct err *e)
{
	_cleanup_close_ int fd = store_subdir(s, VERSIONS_DIR, 0);
	int rc = fd >= 0 ? store_each_name(fd, hold_version, h) : no_directory() ? 0 : -1;

	return rc < 0 ? store_fail(s, e, "look for readers in", TOP_DIR "/" VERSIONS_DIR) : rc;
}

/* --- removing --- */

/* The marker first, and for good: after a power cut it must not name what is gone. */
static int remove_marker(struct store *s, struct err *e)
{
	if (sys_remove_tree(s->top_fd, MARKER_FILE) < 0 || sys_remove_tree(s->top_fd, PREVIOUS_FILE) < 0 ||
	    (!s->memory_fs && sys_sync_dir(s->top_fd) < 0))
		return store_fail(s, e, "remove", TOP_DIR "/" MARKER_FILE);
	return 0;
}

static void remove_empty_dirs(struct store *s, const char *path)
{
	_cleanup_free_ char *dir = strdup(path);
	char *slash;

	while (dir && (slash = strrchr(dir, '/'))) {
		_cleanup_close_ int fd = -1;
		const char *leaf;

		*slash = 0;
		fd = sys_open_parent(s->dest_fd, dir, 0, &leaf);
		if (fd < 0 || unlinkat(fd, leaf, AT_REMOVEDIR) < 0)
			return;
	}
}

static int remove_flat(struct store *s, const struct known *k, struct err *e)
{
	for (size_t i = 0; i < k->n_files; i++) {
		_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
		struct stat st;

		if (k->files[i].kind != LAYOUT_DIR && find_ours(s, k, i, &dir, &st) &&
		    unlinkat(dir.fd, dir.leaf, 0) < 0 && errno != ENOENT)
			return store_fail(s, e, "remove", k->files[i].path);
	}
	/* From the back: what is below a directory comes behind it. */
	for (size_t i = k->n_files; i-- > 0;) {
		_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
		struct stat st;

		if (k->files[i].kind == LAYOUT_DIR && find_ours(s, k, i, &dir, &st))
			(void)unlinkat(dir.fd, dir.leaf, AT_REMOVEDIR);
		remove_empty_dirs(s, k->files[i].path);
	}
	return 0;
}

static int remove_versions(struct store *s, struct err *e)
{
	char tmp[SYS_TEMP_NAME];

	/* versions/ never shows a half version, not even one that goes. */
	sys_temp_name(tmp);
	if ((renameat(s->top_fd, VERSIONS_DIR, s->partial_fd, tmp) < 0 && errno != ENOENT) ||
	    sys_remove_tree(s->partial_fd, tmp) < 0)
		return store_fail(s, e, "remove", TOP_DIR "/" VERSIONS_DIR);
	return 0;
}

/* The lock is held until the end; `listed` tells the age to the run that goes on after a kill. */
static int remove_rest(void *arg, int dirfd, const char *name)
{
	(void)arg;
	if (strcmp(name, LOCK_FILE) == 0 || strcmp(name, STORE_LISTED) == 0)
		return 0;
	return sys_remove_tree(dirfd, name);
}

static int remove_top(struct store *s, struct err *e)
{
	if (sys_remove_tree(s->top_fd, META_DIR) < 0 || sys_remove_tree(s->top_fd, PARTIAL_DIR) < 0 ||
	    store_each_name(s->top_fd, remove_rest, NULL) < 0 ||
	    sys_remove_tree(s->top_fd, STORE_LISTED) < 0 || sys_remove_tree(s->top_fd, LOCK_FILE) < 0)
		return store_fail(s, e, "clean", TOP_DIR);
	/* Not empty: somebody made a new lock in the meantime, and it is theirs now. */
	if (unlinkat(s->dest_fd, TOP_DIR, AT_REMOVEDIR) < 0 && errno != ENOTEMPTY && errno != EEXIST &&
	    errno != ENOENT)
		return store_fail(s, e, "remove", TOP_DIR);
	return 0;
}

static int remove_all(struct store *s, struct err *e)
{
	char version[VERSION_MAX];

	if (remove_marker(s, e) < 0)
		return -1;
	if (store_current(s, version) == 1 && unlinkat(s->dest_fd, CURRENT_LINK, 0) < 0 && errno != ENOENT)
		return store_fail(s, e, "remove", CURRENT_LINK);
	for (size_t i = 0; i < s->n_known; i++)
		if (s->known[i].layout == STORE_FLAT && remove_flat(s, &s->known[i], e) < 0)
			return -1;
	if (remove_versions(s, e) < 0)
		return -1;
	return remove_top(s, e);
}

int store_remove(struct store *s, uint64_t *ret_bytes, struct err *e)
{
	struct held held = { 0 };
	uint64_t bytes = 0;
	int rc;

	if (s->lock_fd < 0)
		return err_set(e, CODE_INTERNAL, "remove without the lock");
	publication_release(s);
	known_forget(s);
	rc = hold_versions(s, &held, e);
	if (rc == 0)
		rc = store_disk_bytes(s, &bytes, e) < 0 || remove_all(s, e) < 0 ? -1 : 0;
	held_release(&held);
	known_forget(s);
	if (rc == 0)
		*ret_bytes = bytes;
	return rc < 0 ? -1 : rc == 0;
}
