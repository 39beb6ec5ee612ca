// SPDX-License-Identifier: Apache-2.0
/* Dropping old versions, their meta, and what lies in the partial directory. */
#include "store_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct gc_version {
	char name[VERSION_MAX];
	int64_t sec;		/* of its meta: when it was published */
	uint32_t nsec;
	bool described;
};

struct gc {
	struct store *s;
	int meta_fd, versions_fd;
	const char *published;	/* version of the marker, or NULL */
	bool published_flat;
	char current[VERSION_MAX];
	struct gc_version *v;
	size_t n;
	struct store_gc_result *result;
};

/* Disk space that goes when this tree goes; hard links into other versions count nothing. */
static uint64_t tree_bytes(int dirfd, const char *name, unsigned depth);

struct tree_sum {
	uint64_t bytes;
	unsigned depth;
};

static int sum_entry(void *arg, int dirfd, const char *name)
{
	struct tree_sum *sum = arg;

	sum->bytes += tree_bytes(dirfd, name, sum->depth);
	return 0;
}

static uint64_t tree_bytes(int dirfd, const char *name, unsigned depth)
{
	struct tree_sum sum = { 0, depth + 1 };
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (!S_ISDIR(st.st_mode))
		return st.st_nlink > 1 ? 0 : (uint64_t)st.st_blocks * 512;
	/* Two descriptors a level: deep trees are counted short rather than run out of them. */
	if (depth > 16)
		return 0;
	fd = sys_open_beneath(dirfd, name, O_RDONLY | O_DIRECTORY, 0);
	if (fd >= 0)
		store_each_name(fd, sum_entry, &sum);
	return sum.bytes;
}

static int gc_collect(void *arg, int dirfd, const char *name)
{
	_cleanup_buf_ struct buf meta = BUF_INIT(2 * VERSION_MAX);
	struct gc *gc = arg;
	struct gc_version *more;
	struct store_meta m;
	struct stat st;

	if (!store_version_ok(name) || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    !S_ISDIR(st.st_mode))
		return 0;
	more = realloc(gc->v, (gc->n + 1) * sizeof(*more));
	if (!more)
		return errno = ENOMEM, -1;
	gc->v = more;
	more = &gc->v[gc->n++];
	*more = (struct gc_version){ 0 };
	memcpy(more->name, name, strlen(name));
	buf_addf(&meta, "%s" META_SUFFIX, name);
	if (gc->meta_fd >= 0 && fstatat(gc->meta_fd, meta.data, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    meta_read(gc->meta_fd, name, false, &m, NULL) == 1) {
		more->described = m.layout == STORE_VERSIONS;
		more->sec = st.st_mtim.tv_sec;
		more->nsec = (uint32_t)st.st_mtim.tv_nsec;
		store_meta_release(&m);
	}
	return 0;
}

static int newest_first(const void *a, const void *b)
{
	const struct gc_version *x = a, *y = b;

	if (x->sec != y->sec)
		return x->sec > y->sec ? -1 : 1;
	if (x->nsec != y->nsec)
		return x->nsec > y->nsec ? -1 : 1;
	return strcmp(x->name, y->name);
}

static bool gc_in_use(const struct gc *gc, const char *version)
{
	return strcmp(gc->current, version) == 0 ||
	       (gc->published && !gc->published_flat && strcmp(gc->published, version) == 0);
}

static int gc_versions(struct gc *gc, unsigned keep, struct err *e)
{
	char tmp[SYS_TEMP_NAME];

	if (gc->n)
		qsort(gc->v, gc->n, sizeof(*gc->v), newest_first);
	for (size_t i = 0; i < gc->n; i++) {
		const char *name = gc->v[i].name;

		if (gc_in_use(gc, name))
			continue;
		if (gc->v[i].described && keep) {
			keep--;
			continue;
		}
		gc->result->bytes += tree_bytes(gc->versions_fd, name, 0);
		gc->result->versions++;
		/* versions/ never shows a half version, not even one that goes. */
		sys_temp_name(tmp);
		if (renameat(gc->versions_fd, name, gc->s->partial_fd, tmp) < 0 ||
		    sys_remove_tree(gc->s->partial_fd, tmp) < 0)
			return store_fail(gc->s, e, "remove", TOP_DIR "/" VERSIONS_DIR);
	}
	return 0;
}

static int gc_meta_file(void *arg, int dirfd, const char *name)
{
	const size_t suffix = strlen(META_SUFFIX), n = strlen(name);
	struct gc *gc = arg;
	char version[VERSION_MAX];
	struct store_meta m;
	struct stat st;
	bool flat;

	if (n <= suffix || n - suffix >= VERSION_MAX || strcmp(name + n - suffix, META_SUFFIX))
		return 0;
	memcpy(version, name, n - suffix);
	version[n - suffix] = 0;
	if (!store_version_ok(version) || (gc->published && !strcmp(version, gc->published)) ||
	    meta_read(dirfd, version, false, &m, NULL) != 1)
		return 0;
	flat = m.layout == STORE_FLAT;
	store_meta_release(&m);
	/* Flat files of another layout's time stay known as ours. */
	if (flat ? !gc->published_flat
		 : gc->versions_fd >= 0 &&
		   fstatat(gc->versions_fd, version, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? -1 : 0;
}

static int gc_partial_entry(void *arg, int dirfd, const char *name)
{
	struct gc *gc = arg;

	gc->result->partials++;
	gc->result->bytes += tree_bytes(dirfd, name, 0);
	return sys_remove_tree(dirfd, name);
}

static int gc_run(struct gc *gc, unsigned keep, struct err *e)
{
	struct store *s = gc->s;

	if (gc->versions_fd >= 0 && store_each_name(gc->versions_fd, gc_collect, gc) < 0)
		return store_fail(s, e, "read", TOP_DIR "/" VERSIONS_DIR);
	if (gc_versions(gc, keep, e) < 0)
		return -1;
	if (gc->meta_fd >= 0 && store_each_name(gc->meta_fd, gc_meta_file, gc) < 0)
		return store_fail(s, e, "clean", TOP_DIR "/" META_DIR);
	if (store_each_name(s->partial_fd, gc_partial_entry, gc) < 0)
		return store_fail(s, e, "clean", TOP_DIR "/" PARTIAL_DIR);
	return 0;
}

int store_gc(struct store *s, unsigned keep, struct store_gc_result *ret, struct err *e)
{
	struct store_gc_result result = { 0 };
	struct gc gc = { .s = s, .result = &result };
	struct store_marker m = { 0 };
	int rc;

	if (s->lock_fd < 0)
		return err_set(e, CODE_INTERNAL, "gc without the lock");
	rc = store_read_marker(s, &m, e);
	if (rc < 0)
		return -1;
	if (rc == 1) {
		gc.published = m.version;
		gc.published_flat = strcmp(m.path, CURRENT_LINK) != 0;
	}
	if (store_current(s, gc.current) != 1)
		gc.current[0] = 0;
	publication_release(s);
	known_forget(s);
	gc.meta_fd = store_subdir(s, META_DIR, 0);
	gc.versions_fd = store_subdir(s, VERSIONS_DIR, 0);
	rc = gc_run(&gc, keep, e);
	cleanup_close_fn(&gc.meta_fd);
	cleanup_close_fn(&gc.versions_fd);
	free(gc.v);
	store_marker_release(&m);
	if (rc == 0)
		*ret = result;
	return rc;
}
