// SPDX-License-Identifier: Apache-2.0
/*
 * Start of a publication: what is in the way, which marker must go, where files are put.
 *
 * What makes the marker honest: it is removed before a file of the version it names changes, and
 * written (store_commit.c) after everything it names is in place and, unless --fsync never, on
 * the disk.
 */
#include "store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void publication_release(struct store *s)
{
	struct publication *pub = &s->pub;

	if (!pub->p)
		return;
	ledger_flush(s);
	cleanup_close_fn(&pub->ledger_fd);
	buf_release(&pub->ledger);
	dirs_release(&pub->dirs);
	cleanup_close_fn(&pub->tree_fd);
	free(pub->placed);
	free(pub->state);
	free(pub->exists);
	*pub = (struct publication){ .tree_fd = -1, .ledger_fd = -1 };
	/* Its entries of the index, and what it made of the volume. */
	known_forget(s);
}

/* --- begin: what is in the way --- */

/* A file or link that some flat version of ours placed at path and nobody changed since? */
static bool is_ours(struct store *s, const char *path, const struct dirs_ref *dir)
{
	struct stat st;

	for (size_t i = 0; i < s->n_known; i++) {
		const struct known *k = &s->known[i];
		const struct store_file *f = k->layout == STORE_FLAT ? known_file(k, path) : NULL;

		if (f && f->kind != LAYOUT_DIR && store_same_at(s, f, dir->fd, dir->leaf, &st) == 1)
			return true;
	}
	return false;
}

/* A directory that some flat version of ours made, or filled? */
static bool dir_is_ours(struct store *s, const char *dir)
{
	size_t n = strlen(dir);

	for (size_t i = 0; i < s->n_known; i++) {
		const struct known *k = &s->known[i];

		for (size_t j = 0; k->layout == STORE_FLAT && j < k->n_files; j++)
			if (strncmp(k->files[j].path, dir, n) == 0 &&
			    (k->files[j].path[n] == '/' ||
			     (!k->files[j].path[n] && k->files[j].kind == LAYOUT_DIR)))
				return true;
	}
	return false;
}

/* The part of path that is a file or link where a directory should be: ours? (errno stays) */
static bool prefix_is_ours(struct store *s, const char *path)
{
	_cleanup_free_ char *part = strdup(path);
	int saved = errno;
	bool ours = false;

	for (char *p = part ? strchr(part, '/') : NULL; p; p = strchr(p + 1, '/')) {
		_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
		struct stat st;

		*p = 0;
		if (dirs_get(&s->pub.dirs, part, 0, &dir) < 0 ||
		    fstatat(dir.fd, dir.leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
			break;
		if (!S_ISDIR(st.st_mode)) {
			ours = is_ours(s, part, &dir);
			break;
		}
		*p = '/';
	}
	errno = saved;
	return ours;
}

static int in_the_way(const struct store *s, const struct layout_file *f, const struct stat *st,
		      struct err *e)
{
	const char *what = S_ISDIR(st->st_mode) ? "a directory"
			 : S_ISLNK(st->st_mode) ? "a symbolic link"
			 : S_ISREG(st->st_mode) ? "a file" : "a special file";
	const char *want = f->kind == LAYOUT_DIR ? "a directory"
			 : f->kind == LAYOUT_SYMLINK ? "another link" : "a file";

	return err_set(e, CODE_UNSAFE, "%s/%s is in the way: it is %s where %s belongs; move it "
		       "away", s->dest, f->path, what, want);
}

/* A link that a rename may replace: ours (in the staging directory all are), or one that says what the plan says. */
static bool link_may_go(struct store *s, size_t i, const struct dirs_ref *dir)
{
	const struct layout_file *f = plan_file(s, i);

	return s->pub.p->layout == STORE_VERSIONS || is_ours(s, f->path, dir) ||
	       (f->kind == LAYOUT_SYMLINK && store_link_is(dir->fd, dir->leaf, &s->pub.placed[i]));
}

/* Can what stands at the place of file i stay there until the rename (or for good, as a directory)? */
static bool may_stand(struct store *s, size_t i, const struct dirs_ref *dir, const struct stat *st)
{
	if (plan_file(s, i)->kind == LAYOUT_DIR || S_ISDIR(st->st_mode))
		return plan_file(s, i)->kind == LAYOUT_DIR && S_ISDIR(st->st_mode);
	return S_ISREG(st->st_mode) || (S_ISLNK(st->st_mode) && link_may_go(s, i, dir));
}

/*
 * One path of the plan: notes whether something stands there. 1 = it has not even a directory.
 * clear: set when things of ours are in the way; NULL = those are an error too.
 */
static int survey_file(struct store *s, size_t i, bool *clear, struct err *e)
{
	_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
	const char *path = plan_file(s, i)->path;
	struct stat st;

	if (dirs_get(&s->pub.dirs, path, 0, &dir) < 0) {
		if (errno == ENOENT)
			return 1;
		if ((errno == ENOTDIR || errno == ELOOP) && clear && prefix_is_ours(s, path)) {
			*clear = true;
			return 0;
		}
		return store_fail(s, e, "open the directory of", path);
	}
	if (fstatat(dir.fd, dir.leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : store_fail(s, e, "look at", path);
	if (may_stand(s, i, &dir, &st)) {
		s->pub.exists[i] = true;
		return 0;
	}
	if (clear && (S_ISDIR(st.st_mode) ? dir_is_ours(s, path) : is_ours(s, path, &dir))) {
		*clear = true;
		return 0;
	}
	return in_the_way(s, plan_file(s, i), &st, e);
}

static size_t parent_len(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (size_t)(slash - path) : 0;
}

static bool same_parent(const char *a, const char *b)
{
	size_t n = parent_len(a);

	return n == parent_len(b) && strncmp(a, b, n) == 0;
}

static int survey(struct store *s, bool *clear, struct err *e)
{
	const char *missing = NULL;	/* a path whose directory does not exist */

	for (size_t i = 0; i < plan_size(s); i++) {
		const char *path = plan_file(s, i)->path;
		int rc;

		s->pub.exists[i] = false;
		/* Most of a new tree has no directories yet: ask once for each. */
		if (missing && same_parent(path, missing))
			continue;
		rc = survey_file(s, i, clear, e);
		if (rc < 0)
			return -1;
		missing = rc ? path : NULL;
	}
	return 0;
}

/* The marker goes; its generation and digest stay known in previous.json. */
static int retire_marker(struct store *s, struct err *e)
{
	struct store_marker m;
	int rc = marker_read(s->top_fd, MARKER_FILE, &m, e);

	if (rc < 0)
		return -1;
	if (rc == 1) {
		store_marker_release(&m);
		rc = renameat(s->top_fd, MARKER_FILE, s->top_fd, PREVIOUS_FILE);
	} else {
		rc = sys_remove_tree(s->top_fd, MARKER_FILE);
	}
	if (rc < 0 || (want_sync(s) && sys_sync_dir(s->top_fd) < 0))
		return store_fail(s, e, "remove", TOP_DIR "/" MARKER_FILE);
	return 0;
}

/* --- begin --- */

/*
 * Temporaries have unique names, so that what cannot go stops nobody: a directory that a reader
 * over NFS has files of open (EBUSY), or somebody else's files in an old version.
 */
static int sweep_name(void *arg, int dirfd, const char *name)
{
	(void)arg;
	if (!sys_is_temp_name(name) || sys_remove_tree(dirfd, name) == 0 || errno == EBUSY ||
	    errno == ENOTEMPTY || errno == EACCES || errno == EPERM)
		return 0;
	return -1;
}

int store_sweep(struct store *s, struct err *e)
{
	_cleanup_close_ int meta_fd = store_subdir(s, META_DIR, 0);
	_cleanup_close_ int layers_fd = store_subdir(s, LAYERS_DIR, 0);

	if (store_each_name(s->top_fd, sweep_name, NULL) < 0 ||
	    store_each_name(s->partial_fd, sweep_name, NULL) < 0 ||
	    (layers_fd >= 0 && store_each_name(layers_fd, sweep_name, NULL) < 0) ||
	    (meta_fd >= 0 && store_each_name(meta_fd, sweep_name, NULL) < 0))
		return store_fail(s, e, "clean", TOP_DIR);
	return 0;
}

static int begin_flat(struct store *s, struct err *e)
{
	bool clear = false;

	s->pub.tree_fd = openat(s->dest_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->pub.tree_fd < 0)
		return store_fail(s, e, "open", ".");
	s->pub.dirs.root = s->pub.tree_fd;
	if (survey(s, &clear, e) < 0 || retire_marker(s, e) < 0)
		return -1;
	if (!clear)
		return 0;
	if (publication_remove_stale(s, e) < 0)
		return -1;
	dirs_release(&s->pub.dirs);
	dirs_init(&s->pub.dirs, s->pub.tree_fd);
	return survey(s, NULL, e);
}

/* Does the version directory hold what its meta and the plan say? */
static bool version_complete(struct store *s, int fd)
{
	const struct known *k = NULL;
	struct dirs dirs;
	bool ok;

	for (size_t i = 0; i < s->n_known; i++)
		if (!s->known[i].ledger && s->known[i].layout == STORE_VERSIONS &&
		    s->known[i].trusted && strcmp(s->known[i].version, s->pub.p->version) == 0)
			k = &s->known[i];
	ok = k && k->n_files == plan_size(s);
	dirs_init(&dirs, fd);
	for (size_t i = 0; ok && i < k->n_files; i++) {
		struct store_file *f = &s->pub.placed[i];
		struct dirs_ref dir;
		struct stat st;

		ok = strcmp(k->files[i].path, f->path) == 0 && f->kind == k->files[i].kind &&
		     digest_equal(&f->digest, &k->files[i].digest) &&
		     dirs_get(&dirs, f->path, 0, &dir) == 0;
		if (!ok)
			break;
		ok = store_same_at(s, &k->files[i], dir.fd, dir.leaf, &st) == 1;
		dirs_put(&dir);
		if (ok)
			store_file_set(f, &st);
		s->pub.state[i] = FILE_HAD;
	}
	dirs_release(&dirs);
	if (!ok)
		memset(s->pub.state, FILE_NEEDED, plan_size(s));
	return ok;
}

/* A damaged version becomes staging again: what is right of it is kept. */
static int demote_version(struct store *s, int versions_fd, struct err *e)
{
	const char *path = TOP_DIR "/" VERSIONS_DIR;
	char staging[VERSION_MAX];
	struct store_marker m;
	int rc = marker_read(s->top_fd, MARKER_FILE, &m, e);

	if (rc < 0)
		return -1;
	if (rc == 1) {
		bool named = strcmp(m.version, s->pub.p->version) == 0 &&
			     strcmp(m.path, CURRENT_LINK) == 0;

		store_marker_release(&m);
		if (named && retire_marker(s, e) < 0)
			return -1;
	}
	staging_name(s, staging);
	if (sys_remove_tree(s->partial_fd, staging) < 0 ||
	    renameat(versions_fd, s->pub.p->version, s->partial_fd, staging) < 0)
		return store_fail(s, e, "move away the damaged version in", path);
	return 0;
}

/* Staging directory as the tree to fill; s->pub.complete when the version stands already. */
static int begin_versions(struct store *s, struct err *e)
{
	_cleanup_close_ int versions_fd = -1;
	char name[VERSION_MAX];
	int fd;

	if (store_current(s, name) < 0)
		return err_set(e, CODE_UNSAFE, "%s/" CURRENT_LINK " is in the way: it is not a link "
			       "of fetcher's; move it away", s->dest);
	versions_fd = store_subdir(s, VERSIONS_DIR, 0755);
	if (versions_fd < 0)
		return store_fail(s, e, "open", TOP_DIR "/" VERSIONS_DIR);
	fd = sys_open_beneath(versions_fd, s->pub.p->version, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0 && errno != ENOENT)
		return store_fail(s, e, "open the version in", TOP_DIR "/" VERSIONS_DIR);
	if (fd >= 0) {
		s->pub.complete = version_complete(s, fd);
		if (s->pub.complete) {
			s->pub.dirs.root = s->pub.tree_fd = fd;
			return 0;
		}
		cleanup_close_fn(&fd);
		if (demote_version(s, versions_fd, e) < 0)
			return -1;
	}
	staging_name(s, name);
	if (mkdirat(s->partial_fd, name, dir_mode(s)) < 0 && errno != EEXIST)
		return store_fail(s, e, "make the staging directory in", TOP_DIR "/" PARTIAL_DIR);
	s->pub.tree_fd = sys_open_beneath(s->partial_fd, name, O_RDONLY | O_DIRECTORY, 0);
	if (s->pub.tree_fd < 0)
		return store_fail(s, e, "open the staging directory in",
				  TOP_DIR "/" PARTIAL_DIR);
	s->pub.dirs.root = s->pub.tree_fd;
	return survey(s, NULL, e);
}

static int begin_alloc(struct store *s, struct err *e)
{
	struct publication *pub = &s->pub;
	size_t n = plan_size(s);

	pub->placed = calloc(n + 1, sizeof(*pub->placed));
	pub->state = calloc(n + 1, sizeof(*pub->state));
	pub->exists = calloc(n + 1, sizeof(*pub->exists));
	if (!pub->placed || !pub->state || !pub->exists)
		return err_oom(e);
	for (size_t i = 0; i < n; i++) {
		const struct layout_file *f = plan_file(s, i);

		pub->placed[i] = (struct store_file){ .kind = f->kind, .path = f->path, .digest = f->digest };
		if (f->kind == LAYOUT_DIR)
			digest_of(DIGEST_SHA256, "", 0, &pub->placed[i].digest);
		if (f->kind == LAYOUT_SYMLINK) {
			pub->placed[i].target = (char *)(uintptr_t)f->data;
			pub->placed[i].size = f->size;
		}
	}
	return 0;
}

int store_begin(struct store *s, const struct store_publish *p, struct err *e)
{
	int rc;

	if (s->lock_fd < 0 || !store_version_ok(p->version))
		return err_set(e, CODE_INTERNAL, "publication without the lock or a version");
	publication_release(s);
	known_forget(s);
	s->pub.p = p;
	dirs_init(&s->pub.dirs, -1);
	rc = begin_alloc(s, e);
	if (rc == 0)
		rc = known_load(s, e);
	if (rc == 0)
		rc = index_build(s, plan_size(s), e);
	if (rc == 0)
		rc = store_sweep(s, e);
	if (rc == 0)
		rc = p->layout == STORE_FLAT ? begin_flat(s, e) : begin_versions(s, e);
	if (rc == 0 && !s->pub.complete && ledger_open(s) < 0)
		rc = store_fail(s, e, "open the ledger in", TOP_DIR "/" PARTIAL_DIR);
	if (rc < 0)
		publication_release(s);
	return rc;
}

