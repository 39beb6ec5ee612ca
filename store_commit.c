// SPDX-License-Identifier: Apache-2.0
/* End of a publication: fsync, meta, the swap, what earlier versions left, the marker. */
#include "store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the plan has at path, or NULL. */
static const struct layout_file *in_plan(const struct store *s, const char *path)
{
	size_t lo = 0, hi = plan_size(s);

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(plan_file(s, mid)->path, path);

		if (c == 0)
			return plan_file(s, mid);
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* Removes directories that became empty, from path's parent up, unless the plan has them. */
static void remove_empty_parents(struct store *s, struct dirs *dirs, const char *path)
{
	_cleanup_free_ char *dir = strdup(path);
	char *slash;

	while (dir && (slash = strrchr(dir, '/'))) {
		const struct layout_file *f;
		struct dirs_ref ref;
		int rc;

		*slash = 0;
		f = in_plan(s, dir);
		if ((f && f->kind == LAYOUT_DIR) || dirs_get(dirs, dir, 0, &ref) < 0)
			return;
		rc = unlinkat(ref.fd, ref.leaf, AT_REMOVEDIR);
		if (rc == 0 && want_sync(s))
			sys_sync_dir(ref.fd);
		dirs_put(&ref);
		if (rc < 0)
			return;
	}
}

/* Not in the plan, or not as what a rename could replace. */
static bool is_stale(const struct store *s, const struct store_file *f)
{
	const struct layout_file *now = in_plan(s, f->path);

	return !now || (now->kind == LAYOUT_DIR) != (f->kind == LAYOUT_DIR);
}

static int remove_stale_file(struct store *s, struct dirs *dirs, const struct store_file *f,
			     struct err *e)
{
	struct dirs_ref dir;
	struct stat st;
	int rc = 0;

	if (dirs_get(dirs, f->path, 0, &dir) < 0)
		return 0;
	if (store_same_at(s, f, dir.fd, dir.leaf, &st) == 1) {
		rc = unlinkat(dir.fd, dir.leaf, f->kind == LAYOUT_DIR ? AT_REMOVEDIR : 0);
		/* A directory that holds something is somebody else's too. */
		if (rc < 0 && (errno == ENOENT || f->kind == LAYOUT_DIR))
			rc = 0;
		if (rc < 0)
			store_fail(s, e, "remove", f->path);
		else if (want_sync(s))
			sys_sync_dir(dir.fd);
	}
	dirs_put(&dir);
	if (rc == 0)
		remove_empty_parents(s, dirs, f->path);
	return rc;
}

int publication_remove_stale(struct store *s, struct err *e)
{
	struct dirs dirs;
	int rc = 0;

	dirs_init(&dirs, s->dest_fd);
	for (size_t i = 0; i < s->n_known && rc == 0; i++) {
		const struct known *k = &s->known[i];

		if (k->layout != STORE_FLAT)
			continue;
		for (size_t j = 0; j < k->n_files && rc == 0; j++)
			if (is_stale(s, &k->files[j]))
				rc = remove_stale_file(s, &dirs, &k->files[j], e);
	}
	dirs_release(&dirs);
	return rc;
}

static int open_placed(struct store *s, size_t i)
{
	_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };

	if (dirs_get(&s->pub.dirs, plan_file(s, i)->path, 0, &dir) < 0)
		return -1;
	return sys_open_beneath(dir.fd, dir.leaf, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
}

static int fail_changed(const struct store_file *f, struct err *e)
{
	return err_set(e, CODE_INTEGRITY, "%s was changed by somebody else while it was being "
		       "published", f->path);
}

static void remove_placed(struct store *s, size_t i)
{
	_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };

	if (dirs_get(&s->pub.dirs, plan_file(s, i)->path, 0, &dir) == 0)
		(void)unlinkat(dir.fd, dir.leaf, 0);
}

/* Network file systems settle mtime at the flush: takes it over from st. */
static void settle(struct store *s, size_t i, const struct stat *st)
{
	struct store_file *f = &s->pub.placed[i];

	if (!s->late_mtime || (f->mtime_sec == (int64_t)st->st_mtim.tv_sec &&
			       f->mtime_nsec == (uint32_t)st->st_mtim.tv_nsec))
		return;
	store_mtime_set(f, st);
	/* If this try is vetoed the next one must know the file again. */
	ledger_add(s, i);
}

/*
 * fsync of one file, and its identity as it is from now on. But for what settles, a change means
 * that somebody wrote into it after it was verified.
 */
static int sync_file(struct store *s, size_t i, struct err *e)
{
	_cleanup_close_ int fd = open_placed(s, i);
	const struct store_file *f = &s->pub.placed[i];
	struct stat st;

	if (fd < 0)
		return store_fail(s, e, "open", f->path);
	if (fsync(fd) < 0) {
		store_fail(s, e, "sync", f->path);
		/* the kernel says it once and calls the lost pages clean: the next try must not find this file */
		if (s->pub.state[i] == FILE_PLACED)
			remove_placed(s, i);
		return -1;
	}
	if (fstat(fd, &st) < 0)
		return store_fail(s, e, "look at", f->path);
	settle(s, i, &st);
	return store_same(s, f, &st) ? 0 : fail_changed(f, e);
}

/* Nothing flushes a link; it is on the disk with its directory. */
static int sync_node(struct store *s, size_t i, struct err *e)
{
	_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
	const struct store_file *f = &s->pub.placed[i];
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (f->kind == LAYOUT_DIR) {
		fd = open_placed(s, i);
		if (fd < 0 || fstat(fd, &st) < 0 || (S_ISDIR(st.st_mode) && sys_sync_dir(fd) < 0))
			return store_fail(s, e, "sync", f->path);
		return store_same(s, f, &st) ? 0 : fail_changed(f, e);
	}
	if (dirs_get(&s->pub.dirs, f->path, 0, &dir) < 0 ||
	    fstatat(dir.fd, dir.leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return store_fail(s, e, "look at", f->path);
	settle(s, i, &st);
	return store_same_at(s, f, dir.fd, dir.leaf, &st) == 1 ? 0 : fail_changed(f, e);
}

static bool needs_sync(const struct store *s, size_t i)
{
	return s->pub.p->fsync == STORE_FSYNC_END || s->pub.state[i] == FILE_HAD;
}

static int sync_data(struct store *s, struct err *e)
{
	/* First start the write-back of all, then wait for each: the disk sees one long queue. */
	for (size_t i = 0; i < plan_size(s); i++) {
		if (needs_sync(s, i) && s->pub.placed[i].kind == LAYOUT_FILE &&
		    s->pub.placed[i].size < WRITEBACK_MIN) {
			_cleanup_close_ int fd = open_placed(s, i);

			if (fd >= 0)
				sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
		}
	}
	for (size_t i = 0; i < plan_size(s); i++) {
		int rc = !needs_sync(s, i) ? 0
			 : s->pub.placed[i].kind == LAYOUT_FILE ? sync_file(s, i, e) : sync_node(s, i, e);

		if (rc < 0)
			return -1;
	}
	return 0;
}

/* Every directory on the way to path that `last` did not share. */
static int sync_dirs_of(struct store *s, const char *path, const char *last, struct err *e)
{
	_cleanup_free_ char *part = strdup(path);

	if (!part)
		return err_oom(e);
	for (char *slash = strrchr(part, '/'); slash; slash = strrchr(part, '/')) {
		_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
		size_t n = (size_t)(slash - part);

		if (last && strncmp(last, part, n) == 0 && last[n] == '/')
			break;
		if (dirs_get(&s->pub.dirs, part, 0, &dir) < 0 || sys_sync_dir(dir.fd) < 0)
			return store_fail(s, e, "sync the directory of", path);
		*slash = 0;
	}
	return 0;
}

static int sync_dirs(struct store *s, struct err *e)
{
	const char *last = NULL;

	for (size_t i = 0; i < plan_size(s); i++) {
		const char *path = plan_file(s, i)->path;

		if (sync_dirs_of(s, path, last, e) < 0)
			return -1;
		last = path;
	}
	if (sys_sync_dir(s->pub.tree_fd) < 0)
		return store_fail(s, e, "sync", ".");
	return 0;
}

/* What was placed and verified is still what stands there? By stat, afresh from the root. */
static int check_placed(struct store *s, struct err *e)
{
	struct dirs dirs;
	int rc = 0;

	dirs_init(&dirs, s->pub.tree_fd);
	for (size_t i = 0; i < plan_size(s) && rc == 0; i++) {
		const struct store_file *f = &s->pub.placed[i];
		struct dirs_ref dir;
		struct stat st;
		int same = dirs_get(&dirs, f->path, 0, &dir) < 0 ? -1
			   : store_same_at(s, f, dir.fd, dir.leaf, &st);

		if (same < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
			rc = store_fail(s, e, "look at", f->path);
		else if (same != 1)
			rc = fail_changed(f, e);
		dirs_put(&dir);
	}
	dirs_release(&dirs);
	return rc;
}

/* 1 = `current` names the version of this publication; 0 = *ret_now, or nothing ("") */
static int is_current(struct store *s, char ret_now[static VERSION_MAX], struct err *e)
{
	int rc = store_current(s, ret_now);

	if (rc < 0)
		return err_set(e, CODE_UNSAFE, "%s/" CURRENT_LINK " is in the way: it is not a link "
			       "of fetcher's; move it away", s->dest);
	if (rc == 0)
		ret_now[0] = 0;
	return strcmp(ret_now, s->pub.p->version) == 0;
}

/* Asks the caller whether what stands complete and flushed may become visible. */
static int ask(struct store *s, struct err *e)
{
	const struct store_publish *p = s->pub.p;
	_cleanup_buf_ struct buf path = BUF_INIT(2 * LIMIT_PATH);
	_cleanup_free_ char *dest = NULL;
	char now[VERSION_MAX], staging[VERSION_MAX];
	int rc;

	if (p->layout == STORE_FLAT || !p->accept)
		return 0;
	rc = is_current(s, now, e);
	if (rc)
		return rc < 0 ? -1 : 0;
	/* The answer may take minutes, and a kill meanwhile must cost nothing. */
	ledger_flush(s);
	dest = realpath(s->dest, NULL);
	if (!dest)
		return err_errno(e, CODE_LOCAL, errno, "cannot find the path of %s", s->dest);
	staging_name(s, staging);
	if (s->pub.complete)
		buf_addf(&path, "%s/" CURRENT_PREFIX "%s", dest, p->version);
	else
		buf_addf(&path, "%s/" TOP_DIR "/" PARTIAL_DIR "/%s", dest, staging);
	if (path.failed)
		return err_oom(e);
	if (p->accept(p->accept_arg, path.data, e) < 0)
		return -1;
	/* Whoever was asked could write there. Unflushed files on a network settle their times late. */
	return s->late_mtime && !want_sync(s) ? 0 : check_placed(s, e);
}

static int write_meta(struct store *s, const struct store_marker *m, const char *selection,
		      const struct buf *raw, const struct buf *manifest_raw, struct err *e)
{
	_cleanup_close_ int fd = store_subdir(s, META_DIR, 0755);
	_cleanup_buf_ struct buf text = BUF_INIT(LIMIT_META);
	struct buf none = { 0 };
	struct store_meta meta = {
		.digest = *s->pub.p->digest,
		.media_type = m->media_type,
		.layout = s->pub.p->layout,
		.selection = (char *)(uintptr_t)(selection ? selection : ""),
		.raw = raw ? *raw : none,
		.manifest_raw = manifest_raw ? *manifest_raw : none,
		.files = s->pub.placed,
		.n_files = plan_size(s),
	};
	char name[VERSION_MAX];

	if (fd < 0)
		return store_fail(s, e, "open", TOP_DIR "/" META_DIR);
	if (meta_format(&meta, s->pub.p->fsync != STORE_FSYNC_NEVER, &text) < 0)
		return meta_fail(&text, "the version's file in " TOP_DIR "/" META_DIR, e);
	snprintf(name, sizeof(name), "%s" META_SUFFIX, s->pub.p->version);
	if (sys_replace_file(fd, name, text.data, text.len, 0644, want_sync(s)) < 0)
		return store_fail(s, e, "write the version's file in", TOP_DIR "/" META_DIR);
	return 0;
}

/* --- what does not belong into a version --- */

struct sweep {
	struct store *s;
	char path[LIMIT_PATH + 1];
	size_t n;
};

static int sweep_entry(void *arg, int dirfd, const char *name)
{
	struct sweep *w = arg;
	const size_t before = w->n;
	struct stat st;
	int rc = 0;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -1;
	size_t n = (size_t)snprintf(w->path + before, sizeof(w->path) - before, "%s%s", before ? "/" : "", name);
	bool fits = n < sizeof(w->path) - before;
	if (fits && S_ISDIR(st.st_mode)) {
		_cleanup_close_ int fd = sys_open_beneath(dirfd, name, O_RDONLY | O_DIRECTORY, 0);
		w->n = before + n;
		rc = fd < 0 ? -1 : store_each_name(fd, sweep_entry, w);
		w->n = before;
	} else if (!fits || !in_plan(w->s, w->path)) {
		rc = sys_remove_tree(dirfd, name);
	}
	w->path[before] = '\0';
	return rc;
}

/* A hook, or a neighbour, may have left files among the verified ones: they are not part of the version. */
static int sweep_staging(struct store *s, struct err *e)
{
	struct sweep w = { .s = s };

	if (store_each_name(s->pub.tree_fd, sweep_entry, &w) < 0)
		return store_fail(s, e, "clean", TOP_DIR "/" PARTIAL_DIR);
	return 0;
}

static int promote_staging(struct store *s, struct err *e)
{
	_cleanup_close_ int versions_fd = store_subdir(s, VERSIONS_DIR, 0755);
	char staging[VERSION_MAX];

	staging_name(s, staging);
	if (versions_fd < 0 ||
	    renameat(s->partial_fd, staging, versions_fd, s->pub.p->version) < 0)
		return store_fail(s, e, "publish the version in", TOP_DIR "/" VERSIONS_DIR);
	if (want_sync(s) && (sys_sync_dir(versions_fd) < 0 || sys_sync_dir(s->partial_fd) < 0 ||
			     sys_sync_dir(s->top_fd) < 0))
		return store_fail(s, e, "sync", TOP_DIR "/" VERSIONS_DIR);
	return 0;
}

/*
 * The age of an old version counts from here. Best effort: where it cannot be set (another owner)
 * the age counts from the version's publication.
 */
static void stamp_replaced(struct store *s, const char *version)
{
	_cleanup_close_ int meta_fd = store_subdir(s, META_DIR, 0), fd = -1;
	char name[VERSION_MAX + sizeof(META_SUFFIX)];

	if (meta_fd < 0)
		return;
	snprintf(name, sizeof(name), "%s" META_SUFFIX, version);
	fd = sys_open_beneath(meta_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd >= 0 && futimens(fd, NULL) == 0 && want_sync(s))
		fsync(fd);
}

static int swap_current(struct store *s, struct err *e)
{
	char now[VERSION_MAX], tmp[SYS_TEMP_NAME], target[VERSION_MAX + sizeof(CURRENT_PREFIX)];
	int rc = is_current(s, now, e), saved;

	if (rc)
		return rc < 0 ? -1 : 0;
	if (now[0])
		stamp_replaced(s, now);
	snprintf(target, sizeof(target), CURRENT_PREFIX "%s", s->pub.p->version);
	sys_temp_name(tmp);
	/* The link's text is relative to DEST, wherever it is born. */
	if (symlinkat(target, s->top_fd, tmp) < 0)
		return store_fail(s, e, "write", CURRENT_LINK);
	if (renameat(s->top_fd, tmp, s->dest_fd, CURRENT_LINK) < 0) {
		saved = errno;
		unlinkat(s->top_fd, tmp, 0);
		errno = saved;
		return store_fail(s, e, "replace", CURRENT_LINK);
	}
	if (want_sync(s) && sys_sync_dir(s->dest_fd) < 0)
		return store_fail(s, e, "sync", ".");
	return 0;
}

/* The last marker there was, published or retired: generation and digest to go on from. */
static int count_generation(struct store *s, struct store_marker *m, struct err *e)
{
	char digest[DIGEST_STR_MAX];
	struct store_marker last;
	int rc = marker_read(s->top_fd, MARKER_FILE, &last, e);

	if (rc == 0)
		rc = marker_read(s->top_fd, PREVIOUS_FILE, &last, e);
	if (rc < 0)
		return -1;
	free(m->previous);
	m->previous = NULL;
	m->generation = 1;
	if (rc == 0)
		return 0;
	m->generation = last.generation < INT64_MAX ? last.generation + 1 : 1;
	if (digest_equal(&last.digest, &m->digest))
		m->previous = steal_ptr(&last.previous);
	else
		m->previous = strdup(digest_format(&last.digest, ':', digest));
	rc = digest_equal(&last.digest, &m->digest) || m->previous ? 0 : err_oom(e);
	store_marker_release(&last);
	return rc;
}

static int write_marker(struct store *s, struct store_marker *m, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(LIMIT_MARKER);
	bool flat = s->pub.p->layout == STORE_FLAT;

	free(m->path);
	free(m->version);
	m->path = strdup(flat ? "." : CURRENT_LINK);
	m->version = strdup(s->pub.p->version);
	if (!m->path || !m->version)
		return err_oom(e);
	m->digest = *s->pub.p->digest;
	m->files = plan_size(s);
	m->bytes = s->pub.p->plan->bytes;
	if (count_generation(s, m, e) < 0)
		return -1;
	sys_timestamp(m->published_at);
	if (marker_format(m, &text) < 0)
		return err_set(e, CODE_INTERNAL, "the ready marker would be too large");
	if (sys_replace_file(s->top_fd, MARKER_FILE, text.data, text.len, 0644, want_sync(s)) < 0)
		return store_fail(s, e, "write", TOP_DIR "/" MARKER_FILE);
	return 0;
}

/* --- what pulls of other artifacts left --- */

struct wanted {
	struct digest *v;	/* of the plan, sorted */
	size_t n;
};

static int compare_digests(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct digest));
}

/* Names of data and journal of a blob; staging, ledgers and temporary names are none. */
static bool partial_digest(const char *name, struct digest *ret)
{
	const size_t suffix = strlen(JOURNAL_SUFFIX);
	size_t n = strlen(name);
	char text[DIGEST_STR_MAX], *dash;

	if (n > suffix && strcmp(name + n - suffix, JOURNAL_SUFFIX) == 0)
		n -= suffix;
	if (n >= sizeof(text))
		return false;
	memcpy(text, name, n);
	dash = memchr(text, '-', n);
	if (!dash)
		return false;
	*dash = ':';
	return digest_parse((struct str){ text, n }, ret);
}

static int sweep_partial(void *arg, int dirfd, const char *name)
{
	const struct wanted *w = arg;
	char tree[VERSION_MAX];
	struct digest d;

	/* What the plan needed of them was placed. */
	if (name_stem(name, TREE_SUFFIX, tree) || name_stem(name, TREE_JOURNAL_SUFFIX, tree))
		sys_remove_tree(dirfd, name);
	if (partial_digest(name, &d) && !bsearch(&d, w->v, w->n, sizeof(d), compare_digests))
		unlinkat(dirfd, name, 0);
	return 0;
}

/*
 * Half blobs and trees of artifacts whose pull was given up may be as large as a model. We hold the lock, so nobody is at them; a
 * failure leaves them to the next commit or gc.
 */
static void sweep_partials(struct store *s)
{
	struct wanted w = { .v = calloc(plan_size(s) + 1, sizeof(*w.v)), .n = plan_size(s) };

	if (!w.v)
		return;
	for (size_t i = 0; i < w.n; i++)
		w.v[i] = plan_file(s, i)->digest;
	qsort(w.v, w.n, sizeof(*w.v), compare_digests);
	store_each_name(s->partial_fd, sweep_partial, &w);
	free(w.v);
}

/* What nobody needs any more once the marker stands; the next commit or gc tries again. */
static void tidy(struct store *s)
{
	bool flat = s->pub.p->layout == STORE_FLAT;
	_cleanup_close_ int meta_fd = store_subdir(s, META_DIR, 0);
	char name[VERSION_MAX];

	unlinkat(s->top_fd, PREVIOUS_FILE, 0);
	cleanup_close_fn(&s->pub.ledger_fd);
	snprintf(name, sizeof(name), "%s" LEDGER_SUFFIX, s->pub.p->version);
	unlinkat(s->partial_fd, name, 0);
	sweep_partials(s);
	for (size_t i = 0; flat && i < s->n_known; i++) {
		const struct known *k = &s->known[i];

		if (k->layout != STORE_FLAT || strcmp(k->version, s->pub.p->version) == 0)
			continue;
		snprintf(name, sizeof(name), "%s%s", k->version,
			 k->ledger ? LEDGER_SUFFIX : META_SUFFIX);
		if (k->ledger || meta_fd >= 0)
			unlinkat(k->ledger ? s->partial_fd : meta_fd, name, 0);
	}
}

int store_commit(struct store *s, struct store_marker *m, const char *selection,
		 const struct buf *raw, const struct buf *manifest_raw, struct err *e)
{
	struct publication *pub = &s->pub;
	bool flat;

	if (!pub->p)
		return err_set(e, CODE_INTERNAL, "commit without begin");
	flat = pub->p->layout == STORE_FLAT;
	for (size_t i = 0; i < plan_size(s); i++)
		if (pub->state[i] == FILE_NEEDED)
			return err_set(e, CODE_INTERNAL, "commit without %s", plan_file(s, i)->path);
	if (want_sync(s) && !pub->complete && (sync_data(s, e) < 0 || sync_dirs(s, e) < 0))
		return -1;
	if (ask(s, e) < 0)
		return -1;
	if ((!pub->complete || raw) && write_meta(s, m, selection, raw, manifest_raw, e) < 0)
		return -1;
	if (flat && publication_remove_stale(s, e) < 0)
		return -1;
	if (!flat && !pub->complete && (sweep_staging(s, e) < 0 || promote_staging(s, e) < 0))
		return -1;
	if (!flat && swap_current(s, e) < 0)
		return -1;
	if (write_marker(s, m, e) < 0)
		return -1;
	tidy(s);
	publication_release(s);
	return 0;
}
