// SPDX-License-Identifier: Apache-2.0
/*
 * pull --list --prune: old versions, and directories that no line names any more.
 *
 * Below --root others may write, too: every directory is opened from the root's descriptor without following links, and what
 * the store opens by its path is removed from only if it is that very directory.
 */
#include "list_internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sys.h"

struct identity {
	dev_t dev;
	ino_t ino;
};

/* A directory that the rule made and no line names. */
struct unnamed {
	char *path;		/* relative to --root; NULL = gone */
	struct identity id;
	int64_t named_ms;	/* when it was last named, since 1970 */
	uint64_t bytes;		/* only with --keep-bytes */
};

struct prune {
	const struct config *cfg;
	const struct list *list;
	const atomic_int *stop;
	struct list_pruned *result;
	int root_fd;
	struct identity *named;	/* the directories of the list, where they exist */
	size_t n_named;
	char **queue;		/* directories to look at; queue[0..next) were */
	size_t next, n_queue;
	bool full;		/* LIMIT_LIST_DIRS */
	struct unnamed *found;
	size_t n_found;
};

static void warn(const char *what, const char *path, const struct err *e)
{
	log_line(LOG_WARN, what, "dest", path, "code", code_name(e->code), "error", e->msg, NULL);
}

static void tell_removed(const char *what, const char *path, uint64_t n, uint64_t bytes)
{
	char count[24], size[24];

	snprintf(count, sizeof(count), "%llu", (unsigned long long)n);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
	log_line(LOG_INFO, what, "dest", path, "count", count, "bytes", size, NULL);
}

/* 1 = locked, 0 = somebody works there, or it holds nothing of ours; -1 = told. */
static int try_lock(const struct prune *p, struct store *s, const char *path)
{
	struct err e = { 0 };

	if (store_lock(s, 0, p->stop, NULL, NULL, &e) == 0)
		return 1;
	if (e.code == CODE_LOCKED || e.code == CODE_NOT_FOUND) {
		log_line(LOG_DEBUG, "not pruned", "dest", path, "why", e.msg, NULL);
		return 0;
	}
	warn("cannot prune this directory", path, &e);
	return -1;
}

/* --- old versions --- */

static void prune_versions(struct prune *p, const char *dest)
{
	const struct store_gc_policy policy = {
		.keep = (unsigned)p->cfg->keep_versions,
		.stale_ms = p->cfg->stale_timeout_ms,
		.keep_bytes = p->cfg->keep_bytes,
	};
	struct store_gc_result gone = { 0 };
	struct store *s = NULL;
	struct err e = { 0 };

	if (store_open(&s, dest, false, &e) < 0) {
		if (e.code != CODE_NOT_FOUND)
			warn("cannot prune this directory", dest, &e);
		return;
	}
	if (try_lock(p, s, dest) == 1) {
		if (store_gc(s, &policy, &gone, &e) < 0)
			warn("cannot remove old versions", dest, &e);
		else if (gone.versions)
			tell_removed("removed old versions", dest, gone.versions, gone.bytes);
		p->result->versions += gone.versions;
		p->result->bytes += gone.bytes;
	}
	store_close(s);
}

/* --- looking --- */

/* When it was last named; 0 and an age of decades if nothing tells. */
static int64_t last_named(int fd)
{
	static const char *const witnesses[] = { ".fetcher/" STORE_LISTED, ".fetcher/ready.json", ".fetcher" };
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(witnesses); i++) {
		_cleanup_close_ int at = sys_open_beneath(fd, witnesses[i], O_PATH, 0);

		if (at >= 0 && fstat(at, &st) == 0)
			return (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
	}
	return 0;
}

/* A clock that went back makes nothing old. */
static uint64_t age_ms(int64_t named_ms)
{
	struct timespec ts;
	int64_t now;

	clock_gettime(CLOCK_REALTIME, &ts);
	now = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
	return now > named_ms ? (uint64_t)now - (uint64_t)named_ms : 0;
}

static bool is_named(const struct prune *p, const struct stat *st)
{
	for (size_t i = 0; i < p->n_named; i++)
		if (p->named[i].dev == st->st_dev && p->named[i].ino == st->st_ino)
			return true;
	return false;
}

static int note_named(struct prune *p)
{
	p->named = calloc(p->list->n + 1, sizeof(*p->named));
	if (!p->named)
		return -1;
	for (size_t i = 0; i < p->list->n; i++) {
		struct stat st;

		/* as the pull went there: a DEST may be a link */
		if (stat(p->list->v[i].dest, &st) == 0)
			p->named[p->n_named++] = (struct identity){ st.st_dev, st.st_ino };
	}
	return 0;
}

static int add_found(struct prune *p, int fd, const char *path, const struct stat *st)
{
	struct unnamed *more = realloc(p->found, (p->n_found + 1) * sizeof(*more));
	char *copy = strdup(path);

	if (more)
		p->found = more;
	if (!more || !copy) {
		free(copy);
		return -1;
	}
	more[p->n_found++] = (struct unnamed){
		.path = copy, .id = { st->st_dev, st->st_ino }, .named_ms = last_named(fd),
	};
	return 0;
}

/* Is this the rule's, or on the way to something that is? */
static bool worth_a_look(const char *path)
{
	_cleanup_buf_ struct buf below = BUF_INIT(LIMIT_PATH);

	if (strchr(path, '@'))
		return list_rule_fits(path);
	return buf_addf(&below, "%s/a@b", path) == 0 && list_rule_fits(buf_cstr(&below));
}

static int enqueue(struct prune *p, const char *parent, const char *name)
{
	_cleanup_buf_ struct buf path = BUF_INIT(LIMIT_PATH);
	char **more;

	if (buf_addf(&path, "%s%s%s", parent, *parent ? "/" : "", name) < 0 || !worth_a_look(buf_cstr(&path)))
		return 0;
	if (p->n_queue == LIMIT_LIST_DIRS) {
		p->full = true;
		return 0;
	}
	more = realloc(p->queue, (p->n_queue + 1) * sizeof(*more));
	if (!more)
		return -1;
	p->queue = more;
	p->queue[p->n_queue] = buf_steal(&path);
	return p->queue[p->n_queue] ? (p->n_queue++, 0) : -1;
}

static int enqueue_children(struct prune *p, int *fd, const char *path)
{
	DIR *d = fdopendir(*fd);
	struct dirent *de;
	struct stat st;
	int rc = 0;

	if (!d)
		return -1;
	int at = steal_fd(fd);
	while (rc == 0 && (de = readdir(d)))
		if (de->d_name[0] != '.' && (de->d_type == DT_DIR || de->d_type == DT_UNKNOWN) &&
		    fstatat(at, de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
			rc = enqueue(p, path, de->d_name);
	closedir(d);
	return rc;
}

/* What holds a .fetcher is not looked into: its files may be called anything. */
static int look_at(struct prune *p, const char *path)
{
	_cleanup_close_ int fd = sys_open_beneath(p->root_fd, *path ? path : ".", O_RDONLY | O_DIRECTORY, 0);
	struct stat st, top;

	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	if (fstatat(fd, ".fetcher", &top, AT_SYMLINK_NOFOLLOW) == 0) {
		if (!S_ISDIR(top.st_mode) || !strchr(path, '@') || is_named(p, &st))
			return 0;
		return add_found(p, fd, path, &st);
	}
	return strchr(path, '@') ? 0 : enqueue_children(p, &fd, path);
}

/* -1: out of memory. */
static int look_around(struct prune *p)
{
	if (note_named(p) < 0 || look_at(p, "") < 0)
		return -1;
	while (p->next < p->n_queue && !atomic_load(p->stop))
		if (look_at(p, p->queue[p->next++]) < 0)
			return -1;
	if (p->full)
		log_line(LOG_WARN, "too many directories: some were not looked at", "root", p->cfg->root, NULL);
	return 0;
}

/* --- removing --- */

/* The store of a directory that was found, if its path still leads to it. */
static struct store *open_found(const struct prune *p, const struct unnamed *u, const char *dest)
{
	struct store *s = NULL;
	struct err e = { 0 };
	struct stat st;

	if (store_open(&s, dest, false, &e) < 0) {
		if (e.code != CODE_NOT_FOUND)
			warn("cannot prune this directory", dest, &e);
		return NULL;
	}
	_cleanup_close_ int fd = sys_open_beneath(p->root_fd, u->path, O_RDONLY | O_DIRECTORY, 0);
	if (fd >= 0 && fstat(store_dirfd(s), &st) == 0 && st.st_dev == u->id.dev && st.st_ino == u->id.ino &&
	    fstat(fd, &st) == 0 && st.st_dev == u->id.dev && st.st_ino == u->id.ino)
		return s;
	store_close(s);
	return NULL;
}

/* DEST and the directories above it, as far as they are empty. */
static void remove_dirs(const struct prune *p, char *path)
{
	char *slash;

	do {
		const char *leaf;
		_cleanup_close_ int fd = sys_open_parent(p->root_fd, path, 0, &leaf);

		if (fd < 0 || unlinkat(fd, leaf, AT_REMOVEDIR) < 0)
			return;
		slash = strrchr(path, '/');
		if (slash)
			*slash = 0;
	} while (slash);
}

static char *full_path(const struct prune *p, const struct unnamed *u)
{
	struct buf b = BUF_INIT(2 * LIMIT_PATH);

	buf_addf(&b, "%s/%s", p->cfg->root, u->path);
	return buf_steal(&b);
}

static void remove_found(struct prune *p, struct unnamed *u)
{
	_cleanup_free_ char *dest = full_path(p, u);
	struct store *s = dest ? open_found(p, u, dest) : NULL;
	struct err e = { 0 };
	uint64_t bytes = 0;
	int rc = 0;

	if (!s)
		return;
	/* Another run may have named it, or pulled it, since it was looked at. */
	if (try_lock(p, s, dest) == 1 && last_named(store_dirfd(s)) == u->named_ms) {
		rc = store_remove(s, &bytes, &e);
		if (rc == 0)
			log_line(LOG_DEBUG, "not pruned", "dest", dest, "why", "a reader uses it", NULL);
	}
	store_close(s);
	if (rc < 0)
		warn("cannot remove this directory", dest, &e);
	if (rc != 1)
		return;
	tell_removed("removed what no line names", dest, 1, bytes);
	p->result->directories++;
	p->result->bytes += bytes;
	remove_dirs(p, u->path);
	free(steal_ptr(&u->path));
}

static int oldest_first(const void *a, const void *b)
{
	const struct unnamed *x = a, *y = b;

	if (x->named_ms != y->named_ms)
		return x->named_ms < y->named_ms ? -1 : 1;
	return strcmp(x->path, y->path);
}

static void measure(const struct prune *p, struct unnamed *u)
{
	_cleanup_free_ char *dest = full_path(p, u);
	struct store *s = dest ? open_found(p, u, dest) : NULL;
	struct err e = { 0 };

	if (s && store_disk_bytes(s, &u->bytes, &e) < 0)
		warn("cannot tell the size of this directory", dest, &e);
	store_close(s);
}

static void keep_below(struct prune *p, uint64_t most)
{
	uint64_t total = 0;

	for (size_t i = 0; i < p->n_found && !atomic_load(p->stop); i++) {
		if (p->found[i].path)
			measure(p, &p->found[i]);
		total += p->found[i].bytes;
	}
	for (size_t i = 0; i < p->n_found && total > most && !atomic_load(p->stop); i++) {
		struct unnamed *u = &p->found[i];

		/* One that is in use was refused a moment ago, or will be now. */
		if (u->path)
			remove_found(p, u);
		if (!u->path)
			total -= u->bytes;
	}
}

static void prune_directories(struct prune *p)
{
	p->root_fd = sys_open_dir(p->cfg->root, 0);
	if (p->root_fd < 0) {
		if (errno != ENOENT)
			log_line(LOG_WARN, "cannot prune below --root", "root", p->cfg->root, "error",
				 strerror(errno), NULL);
		return;
	}
	if (look_around(p) < 0) {
		struct err e = { 0 };

		err_oom(&e);
		warn("cannot prune below --root", p->cfg->root, &e);
		return;
	}
	if (p->n_found)
		qsort(p->found, p->n_found, sizeof(*p->found), oldest_first);
	for (size_t i = 0; i < p->n_found && !atomic_load(p->stop); i++)
		if (age_ms(p->found[i].named_ms) >= p->cfg->stale_timeout_ms)
			remove_found(p, &p->found[i]);
	if (p->cfg->keep_bytes)
		keep_below(p, p->cfg->keep_bytes);
}

void list_prune(const struct config *cfg, const struct list *l, const atomic_int *stop,
		struct list_pruned *ret)
{
	struct prune p = { .cfg = cfg, .list = l, .stop = stop, .result = ret, .root_fd = -1 };

	/* More likely a mistake than the wish to empty a node. */
	if (!l->n) {
		log_line(LOG_WARN, "the list names nothing: nothing is pruned", "list", cfg->list, NULL);
		return;
	}
	for (size_t i = 0; i < l->n && !atomic_load(stop); i++)
		prune_versions(&p, l->v[i].dest);
	if (cfg->root && !atomic_load(stop))
		prune_directories(&p);
	for (size_t i = 0; i < p.n_queue; i++)
		free(p.queue[i]);
	for (size_t i = 0; i < p.n_found; i++)
		free(p.found[i].path);
	free(p.queue);
	free(p.found);
	free(p.named);
	cleanup_close_fn(&p.root_fd);
}
