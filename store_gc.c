// SPDX-License-Identifier: Apache-2.0
/* Dropping old versions, their meta, and what lies in the partial directory. */
#include "store_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define LINKS_MAX (1u << 20)	/* inodes with several names; what is more counts once per name */
#define DEPTH_MAX 16		/* two descriptors a level: deeper trees are counted short */
#define NSEC 1000000000

struct gc_version {
	char name[VERSION_MAX];
	int64_t sec;		/* mtime of its meta: when it was replaced (or published) */
	uint32_t nsec;
	bool described;
	bool in_use;		/* published, or `current` */
	bool held;		/* stays, whatever the policy says: leased, spared, unknown */
};

/* How often each inode with several names was met. */
struct links {
	struct link {
		uint64_t ino;
		uint32_t met;	/* 0 = free slot */
	} *slots;
	size_t n, n_slots;	/* n_slots: 0 or a power of two */
};

struct gc {
	struct store *s;
	const struct store_gc_policy *p;
	int64_t now;
	int meta_fd, versions_fd;
	const char *published;	/* version of the marker, or NULL */
	bool published_flat;
	bool hands_off;		/* `current` is not ours: who knows what it leads to */
	char current[VERSION_MAX];
	struct gc_version *v;
	size_t n;
	struct links standing;	/* of the versions that stay */
	bool oom;
	struct store_gc_result *result;
};

/* --- disk space --- */

static struct link *links_slot(const struct links *l, uint64_t ino)
{
	size_t at = (size_t)(ino * 0x9e3779b97f4a7c15 >> 32) & (l->n_slots - 1);

	while (l->slots[at].met && l->slots[at].ino != ino)
		at = (at + 1) & (l->n_slots - 1);
	return &l->slots[at];
}

static int links_grow(struct links *l)
{
	struct links more = { .n = l->n, .n_slots = l->n_slots ? l->n_slots * 2 : 256 };

	more.slots = calloc(more.n_slots, sizeof(*more.slots));
	if (!more.slots)
		return -1;
	for (size_t i = 0; i < l->n_slots; i++)
		if (l->slots[i].met)
			*links_slot(&more, l->slots[i].ino) = l->slots[i];
	free(l->slots);
	*l = more;
	return 0;
}

/* The how manieth meeting this is; 0 = too many to tell, -1 = no memory. */
static int64_t links_meet(struct links *l, uint64_t ino)
{
	struct link *at;

	if (l->n * 2 >= l->n_slots && l->n < LINKS_MAX && links_grow(l) < 0)
		return -1;
	at = links_slot(l, ino);
	if (!at->met && l->n >= LINKS_MAX)
		return 0;
	l->n += at->met == 0;
	at->ino = ino;
	return ++at->met;
}

/*
 * Space of one tree. standing: a file counts where it is met first, so that versions which share
 * it pay once together. Else only a file whose every name is in the tree: what its removal frees.
 */
struct tree_sum {
	struct gc *gc;
	struct links *links;
	bool standing;
	uint64_t bytes;
	unsigned depth;
};

static int sum_entry(void *arg, int dirfd, const char *name)
{
	struct tree_sum *sum = arg;
	_cleanup_close_ int fd = -1;
	int64_t met = 1;
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (S_ISDIR(st.st_mode)) {
		if (sum->depth >= DEPTH_MAX)
			return 0;
		fd = sys_open_beneath(dirfd, name, O_RDONLY | O_DIRECTORY, 0);
		sum->depth++;
		if (fd >= 0)
			store_each_name(fd, sum_entry, sum);
		sum->depth--;
		return 0;
	}
	if (st.st_nlink > 1)
		met = links_meet(sum->links, (uint64_t)st.st_ino);
	if (met < 0)
		sum->gc->oom = true;
	else if (st.st_nlink <= 1 || met == 0 || (uint64_t)met == (sum->standing ? 1 : st.st_nlink))
		sum->bytes += (uint64_t)st.st_blocks * 512;
	return 0;
}

static uint64_t standing_bytes(struct gc *gc, const char *version)
{
	struct tree_sum sum = { .gc = gc, .links = &gc->standing, .standing = true };

	sum_entry(&sum, gc->versions_fd, version);
	return sum.bytes;
}

static uint64_t freed_bytes(struct gc *gc, int dirfd, const char *name)
{
	struct links links = { 0 };
	struct tree_sum sum = { .gc = gc, .links = &links };

	sum_entry(&sum, dirfd, name);
	free(links.slots);
	return sum.bytes;
}

/* --- which versions there are --- */

static int gc_collect(void *arg, int dirfd, const char *name)
{
	char meta[VERSION_MAX + sizeof(META_SUFFIX)];
	struct gc *gc = arg;
	struct gc_version *more;
	struct store_meta m;
	struct stat st;
	int rc;

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
	snprintf(meta, sizeof(meta), "%s" META_SUFFIX, more->name);
	if (gc->meta_fd < 0)
		return 0;
	/* Not readable just now: who knows how old it is. */
	rc = fstatat(gc->meta_fd, meta, &st, AT_SYMLINK_NOFOLLOW) == 0
	     ? meta_read(gc->meta_fd, name, false, &m, NULL) : errno == ENOENT ? 0 : -1;
	more->held = rc < 0;
	if (rc == 1) {
		more->described = m.layout == STORE_VERSIONS;
		more->sec = st.st_mtim.tv_sec;
		more->nsec = (uint32_t)st.st_mtim.tv_nsec;
		store_meta_release(&m);
	}
	return 0;
}

/* What no meta describes comes last. */
static int newest_first(const void *a, const void *b)
{
	const struct gc_version *x = a, *y = b;

	if (x->described != y->described)
		return x->described ? -1 : 1;
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

/*
 * A time in the future becomes now, on the volume too: else the version would look as if just
 * replaced until the clock is there. The nanoseconds keep the order among several.
 */
static void gc_restamp(struct gc *gc, size_t i)
{
	struct gc_version *v = &gc->v[i];
	struct timespec ts[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = (time_t)gc->now } };
	char name[VERSION_MAX + sizeof(META_SUFFIX)];

	v->sec = gc->now;
	v->nsec = (uint32_t)(NSEC - 1 - i % NSEC);
	ts[1].tv_nsec = v->nsec;
	snprintf(name, sizeof(name), "%s" META_SUFFIX, v->name);
	utimensat(gc->meta_fd, name, ts, AT_SYMLINK_NOFOLLOW);
}

/* The directory with the lock that keeps readers from leasing it, -1 = a reader has a lease. */
static int lock_version(const struct gc *gc, const char *name, int *ret_fd)
{
	_cleanup_close_ int fd = sys_open_beneath(gc->versions_fd, name, O_RDONLY | O_DIRECTORY, 0);

	/* Any other failure: no such thing as a lease on this file system. */
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return -1;
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* Sorts, and finds out who stays whatever the policy says. */
static void gc_look(struct gc *gc)
{
	if (gc->n)
		qsort(gc->v, gc->n, sizeof(*gc->v), newest_first);
	for (size_t i = 0; i < gc->n; i++) {
		struct gc_version *v = &gc->v[i];
		_cleanup_close_ int fd = -1;

		v->in_use = gc_in_use(gc, v->name);
		if (v->in_use)
			continue;
		if (v->described && v->sec > gc->now)
			gc_restamp(gc, i);
		v->held = v->held || gc->hands_off || (gc->p->spare && !strcmp(gc->p->spare, v->name)) ||
			  lock_version(gc, v->name, &fd) < 0;
	}
}

/* --- dropping --- */

/* First second at which the version is stale. */
static int64_t due_at(const struct gc *gc, const struct gc_version *v)
{
	uint64_t part = gc->p->stale_ms % 1000 * 1000000 + v->nsec;
	uint64_t wait = gc->p->stale_ms / 1000 + (part + NSEC - 1) / NSEC;
	int64_t due;

	return __builtin_add_overflow(v->sec, (int64_t)wait, &due) ? INT64_MAX : due;
}

static void gc_stands(struct gc *gc, uint64_t bytes)
{
	gc->result->left++;
	gc->result->left_bytes += bytes;
}

/* 1 = gone, 0 = somebody took a lease meanwhile, -1. */
static int gc_drop(struct gc *gc, const char *name, struct err *e)
{
	_cleanup_close_ int fd = -1;
	char tmp[SYS_TEMP_NAME];
	uint64_t bytes;

	if (lock_version(gc, name, &fd) < 0)
		return 0;
	bytes = freed_bytes(gc, gc->versions_fd, name);
	/* versions/ never shows a half version, not even one that goes. */
	sys_temp_name(tmp);
	if (renameat(gc->versions_fd, name, gc->s->partial_fd, tmp) < 0)
		return store_fail(gc->s, e, "remove", TOP_DIR "/" VERSIONS_DIR);
	/* NFS keeps files that this machine has open; the sweep of another time gets them. */
	if (sys_remove_tree(gc->s->partial_fd, tmp) < 0 && errno != EBUSY && errno != ENOTEMPTY)
		return store_fail(gc->s, e, "remove", TOP_DIR "/" VERSIONS_DIR);
	gc->result->bytes += bytes;
	gc->result->versions++;
	return 1;
}

/*
 * Newest first; once the number or the bytes are used up, everything older goes unless it is young.
 * Leased and spared versions take part in the count of the newest, but not in the bytes.
 */
static int gc_old(struct gc *gc, struct err *e)
{
	struct store_gc_result *r = gc->result;
	uint64_t rank = 0, total = 0;
	bool room = true;

	for (size_t i = 0; i < gc->n; i++) {
		const struct gc_version *v = &gc->v[i];
		int64_t due = gc->p->stale_ms && v->described ? due_at(gc, v) : 0;
		bool young = gc->p->stale_ms && v->described && due > gc->now;
		uint64_t bytes;
		int rc;

		if (v->in_use)
			continue;
		room = room && v->described && rank++ < gc->p->keep;
		if (v->held)
			continue;
		bytes = room || young ? standing_bytes(gc, v->name) : 0;
		room = room && (!gc->p->keep_bytes || total + bytes <= gc->p->keep_bytes);
		if (room)
			total += bytes;
		if (!room && young)
			r->next = r->next ? MIN(r->next, due) : due;
		rc = gc->oom || room || young ? 0 : gc_drop(gc, v->name, e);
		if (gc->oom)
			return err_oom(e);
		if (rc < 0)
			return -1;
		if (rc == 0)
			gc_stands(gc, room || young ? bytes : standing_bytes(gc, v->name));
	}
	return 0;
}

static int gc_versions(struct gc *gc, struct err *e)
{
	gc_look(gc);
	for (size_t i = 0; i < gc->n; i++)
		if (gc->v[i].in_use || gc->v[i].held)
			gc_stands(gc, standing_bytes(gc, gc->v[i].name));
	return gc->oom ? err_oom(e) : gc_old(gc, e);
}

/* --- meta, partial --- */

static int gc_meta_file(void *arg, int dirfd, const char *name)
{
	struct gc *gc = arg;
	char version[VERSION_MAX];
	struct store_meta m;
	struct stat st;
	bool flat;

	if (!name_stem(name, META_SUFFIX, version) || (gc->published && !strcmp(version, gc->published)) ||
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
	gc->result->bytes += freed_bytes(gc, dirfd, name);
	return sys_remove_tree(dirfd, name) == 0 || errno == EBUSY || errno == ENOTEMPTY ? 0 : -1;
}

static int gc_run(struct gc *gc, struct err *e)
{
	struct store *s = gc->s;

	if (gc->versions_fd >= 0 && store_each_name(gc->versions_fd, gc_collect, gc) < 0)
		return store_fail(s, e, "read", TOP_DIR "/" VERSIONS_DIR);
	if (gc_versions(gc, e) < 0)
		return -1;
	if (gc->meta_fd >= 0 && store_each_name(gc->meta_fd, gc_meta_file, gc) < 0)
		return store_fail(s, e, "clean", TOP_DIR "/" META_DIR);
	if (gc->p->partials && store_each_name(s->partial_fd, gc_partial_entry, gc) < 0)
		return store_fail(s, e, "clean", TOP_DIR "/" PARTIAL_DIR);
	if (gc->oom)
		return err_oom(e);
	gc->result->bytes += store_layers_trim(s, STORE_LAYERS_KEPT);
	return store_sweep(s, e);
}

int store_gc(struct store *s, const struct store_gc_policy *p, struct store_gc_result *ret,
	     struct err *e)
{
	struct store_gc_result result = { 0 };
	struct gc gc = { .s = s, .p = p, .result = &result };
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
	rc = store_current(s, gc.current);
	if (rc != 1)
		gc.current[0] = 0;
	gc.hands_off = rc < 0 && !gc.published_flat;
	gc.now = p->now ? p->now : (int64_t)time(NULL);
	publication_release(s);
	known_forget(s);
	gc.meta_fd = store_subdir(s, META_DIR, 0);
	rc = gc.meta_fd < 0 && errno != ENOENT ? store_fail(s, e, "open", TOP_DIR "/" META_DIR) : 0;
	gc.versions_fd = store_subdir(s, VERSIONS_DIR, 0);
	if (rc == 0 && gc.versions_fd < 0 && errno != ENOENT)
		rc = store_fail(s, e, "open", TOP_DIR "/" VERSIONS_DIR);
	if (rc == 0)
		rc = gc_run(&gc, e);
	cleanup_close_fn(&gc.meta_fd);
	cleanup_close_fn(&gc.versions_fd);
	free(gc.standing.slots);
	free(gc.v);
	store_marker_release(&m);
	if (rc == 0)
		*ret = result;
	return rc;
}
