// SPDX-License-Identifier: Apache-2.0
/*
 * The whole set of files: what archives became joins it, and it is judged. Pure;
 * layout_internal.h.
 */
#include "layout_internal.h"

#include <inttypes.h>
#include <string.h>

/* As many as Linux follows. */
#define LINKS_MAX 40

/* --- order and search --- */

static int compare_paths(const void *a, const void *b)
{
	const struct layout_file *x = a, *y = b;
	int c = strcmp(x->path, y->path);

	if (c)
		return c;
	/* the same file twice: the result must not depend on the sort */
	if (x->mode != y->mode)
		return x->mode < y->mode ? -1 : 1;
	if (x->mtime_sec != y->mtime_sec)
		return x->mtime_sec < y->mtime_sec ? -1 : 1;
	return (x->mtime_nsec > y->mtime_nsec) - (x->mtime_nsec < y->mtime_nsec);
}

/* The first of sorted files whose path is not less than `path`. */
static size_t lower_bound(const struct layout_file *files, size_t n, struct str path)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (strncmp(files[mid].path, path.p, path.n) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static size_t find(const struct layout_file *files, size_t n, struct str path)
{
	size_t i = lower_bound(files, n, path);

	if (i < n && strncmp(files[i].path, path.p, path.n) == 0 && !files[i].path[path.n])
		return i;
	return n;
}

/* Everything below a directory is one run: from "dir/" up to what no longer begins so. */
static bool is_below(const struct layout_file *f, struct str dir)
{
	return strncmp(f->path, dir.p, dir.n) == 0 && f->path[dir.n] == '/';
}

static size_t first_below(const struct layout_file *files, size_t n, struct str dir)
{
	char slashed[LIMIT_PATH + 2];

	if (dir.n > LIMIT_PATH)
		return n;
	memcpy(slashed, dir.p, dir.n);
	slashed[dir.n] = '/';
	return lower_bound(files, n, (struct str){ slashed, dir.n + 1 });
}

/* --- judging --- */

/* Sorts; drops repetitions of the same file; refuses one path with two contents. */
static int sort_paths(struct layout *l, struct err *e)
{
	size_t kept = 0;

	if (l->n_files > 1)
		qsort(l->files, l->n_files, sizeof(*l->files), compare_paths);
	for (size_t i = 0; i < l->n_files; i++) {
		struct layout_file *f = &l->files[i], *last = kept ? &l->files[kept - 1] : NULL;
		if (!last || strcmp(last->path, f->path) != 0) {
			l->files[kept++] = *f;
			continue;
		}
		if (last->kind != f->kind ||
		    (f->kind != LAYOUT_DIR && !digest_equal(&last->digest, &f->digest))) {
			layout_unsafe(str_of(f->path),
				      "two layers with different content claim it", e);
			/* what is in [kept, i) was moved down or freed */
			memmove(f - (i - kept), f, (l->n_files - i) * sizeof(*f));
			l->n_files -= i - kept;
			return -1;
		}
		layout_file_release(f);
	}
	l->n_files = kept;
	return 0;
}

static int refuse_ancestor(const struct layout_file *f, struct err *e)
{
	return layout_unsafe(str_of(f->path),
			     f->kind == LAYOUT_SYMLINK ?
				     "it is a symlink and the directory of another file" :
				     "it is a file and the directory of another file",
			     e);
}

/*
 * "a" and "a/b": one name cannot be a file and a directory. A directory that holds something
 * needs no entry. Files are sorted.
 */
static int check_prefixes(struct layout *l, struct err *e)
{
	size_t kept = 0;

	for (size_t i = 0; i < l->n_files; i++) {
		const char *path = l->files[i].path;
		for (const char *s = strchr(path, '/'); s; s = strchr(s + 1, '/')) {
			struct str dir = { path, (size_t)(s - path) };
			size_t at = find(l->files, l->n_files, dir);
			if (at < l->n_files && l->files[at].kind != LAYOUT_DIR)
				return refuse_ancestor(&l->files[at], e);
		}
	}
	for (size_t i = 0; i < l->n_files; i++) {
		struct layout_file *f = &l->files[i], *rest = f + 1;
		size_t n = l->n_files - i - 1, at = n;
		if (f->kind == LAYOUT_DIR)
			at = first_below(rest, n, str_of(f->path));
		if (at < n && is_below(&rest[at], str_of(f->path)))
			layout_file_release(f);
		else
			l->files[kept++] = *f;
	}
	l->n_files = kept;
	return 0;
}

/* --- symlinks --- */

/* A walk along a link's target: where it is, and what is still ahead. */
struct walk {
	char at[LIMIT_PATH + 1];
	size_t n;
	char ahead[LIMIT_PATH + 2];
};

static const char *step(struct walk *w, struct str c)
{
	const char *fault;

	if (c.n == 0 || str_eq(c, "."))
		return NULL;
	if (str_eq(c, "..")) {
		if (w->n == 0)
			return "the symlink leads out of the directory";
		while (w->n && w->at[w->n - 1] != '/')
			w->n--;
		w->n -= w->n > 0;
		return NULL;
	}
	fault = layout_component_fault(c, w->n == 0);
	if (fault)
		return "the symlink's target is reserved or too long";
	if (w->n + 1 + c.n > LIMIT_PATH)
		return "the symlink leads to a path longer than 4096 bytes";
	if (w->n)
		w->at[w->n++] = '/';
	memcpy(w->at + w->n, c.p, c.n);
	w->n += c.n;
	return NULL;
}

static struct str target_of(const struct layout_file *f)
{
	return (struct str){ (const char *)f->data, f->size };
}

static const char *target_fault(struct str t)
{
	if (t.n == 0)
		return "the symlink has no target";
	if (t.n > LIMIT_PATH)
		return "the symlink's target is longer than 4096 bytes";
	for (size_t i = 0; i < t.n; i++)
		if ((unsigned char)t.p[i] < 0x20 || t.p[i] == 0x7f)
			return "the symlink's target contains a control character";
	return t.p[0] == '/' ? "the symlink's target is absolute" : NULL;
}

/* The link that the walk stands on, or NULL. files may be none: then the text alone counts. */
static const struct layout_file *link_at(const struct walk *w, const struct layout_file *files,
					 size_t n)
{
	size_t i = find(files, n, (struct str){ w->at, w->n });

	return i < n && files[i].kind == LAYOUT_SYMLINK ? &files[i] : NULL;
}

/* Puts the target of a link in front of what is ahead, and goes back to the link's directory. */
static const char *follow(struct walk *w, const char *rest, struct str target)
{
	char joined[sizeof(w->ahead)];
	size_t n = strlen(rest);

	if (target.n + 1 + n >= sizeof(joined))
		return "the symlink leads to a path longer than 4096 bytes";
	memcpy(joined, target.p, target.n);
	joined[target.n] = '/';
	memcpy(joined + target.n + 1, rest, n + 1);
	memcpy(w->ahead, joined, target.n + 1 + n + 1);
	return step(w, (struct str){ "..", 2 });
}

/*
 * What is wrong with the target of a link at path, or NULL. Links that go round lead nowhere, so
 * they are no danger.
 */
static const char *link_fault(const char *path, struct str target,
			      const struct layout_file *files, size_t n)
{
	struct walk w = { .n = 0 };
	const char *fault = target_fault(target), *slash = strrchr(path, '/');
	size_t i = 0;

	if (fault)
		return fault;
	w.n = slash ? (size_t)(slash - path) : 0;
	memcpy(w.at, path, w.n);
	memcpy(w.ahead, target.p, target.n);
	w.ahead[target.n] = '\0';
	for (unsigned links = 0; w.ahead[i];) {
		size_t len = strcspn(w.ahead + i, "/");
		size_t before = w.n;
		fault = step(&w, (struct str){ w.ahead + i, len });
		if (fault)
			return fault;
		i += len + (w.ahead[i + len] == '/');
		const struct layout_file *l = w.n > before ? link_at(&w, files, n) : NULL;
		if (!l)
			continue;
		if (++links > LINKS_MAX)
			return NULL;
		fault = follow(&w, w.ahead + i, target_of(l));
		if (fault)
			return fault;
		i = 0;
	}
	return NULL;
}

int layout_check_link(const char *path, struct str target, struct err *e)
{
	const char *fault = link_fault(path, target, NULL, 0);

	return fault ? layout_unsafe(str_of(path), fault, e) : 0;
}

/*
 * By the text alone a link may look harmless and lead out by way of another: "a" -> "d/..", "b"
 * -> "a/../..".
 */
static int check_links(const struct layout *l, struct err *e)
{
	for (size_t i = 0; i < l->n_files; i++) {
		const struct layout_file *f = &l->files[i];
		if (f->kind != LAYOUT_SYMLINK)
			continue;
		const char *fault = link_fault(f->path, target_of(f), l->files, l->n_files);
		if (fault)
			return layout_unsafe(str_of(f->path), fault, e);
	}
	return 0;
}

int layout_judge(struct layout *l, struct err *e)
{
	return sort_paths(l, e) || check_prefixes(l, e) || check_links(l, e) ? -1 : 0;
}

/* --- sums --- */

struct content {
	const struct digest *digest;
	uint64_t size;
};

static int compare_contents(const void *a, const void *b)
{
	const struct content *x = a, *y = b;

	if (x->digest->alg != y->digest->alg)
		return x->digest->alg < y->digest->alg ? -1 : 1;
	return memcmp(x->digest->bytes, y->digest->bytes, sizeof(x->digest->bytes));
}

static int sum(struct content *c, size_t n, uint64_t *ret_all, uint64_t *ret_unique, struct err *e)
{
	*ret_all = *ret_unique = 0;
	if (n)
		qsort(c, n, sizeof(*c), compare_contents);
	for (size_t i = 0; i < n; i++) {
		bool again = i > 0 && compare_contents(&c[i - 1], &c[i]) == 0;
		if (again && c[i - 1].size != c[i].size)
			return err_set(e, CODE_INTEGRITY,
				       "two layers give one digest two sizes, %" PRIu64
				       " and %" PRIu64,
				       c[i - 1].size, c[i].size);
		if (!u64_add(*ret_all, c[i].size, ret_all) || *ret_all > LIMIT_TOTAL)
			return err_set(e, CODE_INTEGRITY,
				       "the files add up to more than any real artifact");
		*ret_unique += again ? 0 : c[i].size;
	}
	return 0;
}

/* Sums, and one digest has one size. */
int layout_sum(struct layout *l, struct err *e)
{
	size_t bytes, n = 0, all_n = l->n_files + l->n_trees;
	uint64_t ignored;

	if (all_n == 0)
		return 0;
	if (!size_mul(all_n, sizeof(struct content), &bytes))
		return err_oom(e);
	_cleanup_free_ struct content *c = malloc(bytes);
	if (!c)
		return err_oom(e);
	for (size_t i = 0; i < l->n_trees; i++)
		c[n++] = (struct content){ &l->trees[i].digest, l->trees[i].size };
	if (sum(c, n, &ignored, &l->tree_bytes, e))
		return -1;
	for (size_t i = 0; i < l->n_files; i++)
		if (l->files[i].kind != LAYOUT_DIR)
			c[n++] = (struct content){ &l->files[i].digest, l->files[i].size };
	if (sum(c, n, &ignored, &ignored, e)) /* across both */
		return -1;
	n = 0;
	for (size_t i = 0; i < l->n_files; i++)
		if (l->files[i].kind != LAYOUT_DIR)
			c[n++] = (struct content){ &l->files[i].digest, l->files[i].size };
	return sum(c, n, &l->bytes, &l->unique_bytes, e);
}

/* --- merging --- */

static int check_content(const struct layout_file *f, struct err *e)
{
	struct digest d;
	char shown[LAYOUT_SHOWN];
	bool ok = false;

	switch (f->kind) {
	case LAYOUT_FILE:
		digest_of(f->digest.alg == DIGEST_NONE ? DIGEST_SHA256 : f->digest.alg, "", 0, &d);
		ok = f->digest.alg != DIGEST_NONE && !f->data && f->size <= LIMIT_BLOB &&
		     (f->size == 0) == digest_equal(&f->digest, &d);
		break;
	case LAYOUT_SYMLINK:
		if (f->data && f->size <= LIMIT_PATH) {
			digest_of(DIGEST_SHA256, f->data, f->size, &d);
			ok = digest_equal(&f->digest, &d);
		}
		break;
	case LAYOUT_DIR:
		ok = f->size == 0 && !f->data;
		break;
	}
	if (ok)
		return 0;
	return err_set(e, CODE_INTEGRITY, "%s: its size and digest contradict its kind",
		       json_show(str_of(f->path), shown, sizeof(shown)));
}

static int check_one(struct layout_file *f, struct err *e)
{
	_cleanup_free_ char *clean = NULL;

	if (layout_check_path(str_of(f->path), &clean, e))
		return -1;
	if (strcmp(clean, f->path) != 0)
		return layout_unsafe(str_of(f->path), "it is not in its simplest form", e);
	if (check_content(f, e))
		return -1;
	if (f->kind == LAYOUT_SYMLINK)
		return layout_check_link(f->path, target_of(f), e);
	f->mode &= 0777;
	f->has_mtime = f->has_mtime && f->mtime_nsec < 1000000000;
	return 0;
}

/* Room for n more files. */
static int reserve(struct layout *l, size_t n, struct err *e)
{
	size_t room = MAX(l->n_files + n, l->room + l->room / 2), bytes;
	struct layout_file *grown;

	if (l->n_files + n <= l->room)
		return 0;
	if (!size_mul(room, sizeof(*grown), &bytes))
		return err_oom(e);
	grown = realloc(l->files, bytes);
	if (!grown)
		return err_oom(e);
	l->files = grown;
	l->room = room;
	return 0;
}

/* Archives of an artifact: what collides is found when all is there. */
static int append(struct layout *l, struct layout_file *add, size_t n, struct err *e)
{
	if (reserve(l, n, e))
		return -1;
	for (size_t i = 0; i < n; i++)
		l->files[l->n_files++] = add[i];
	return 0;
}

/* --- layers of an image --- */

/* What there is from lower layers, sorted, and what of it a layer takes away. */
struct lower {
	struct layout_file *files;
	size_t n;
	bool *gone;
};

static void remove_below(struct lower *w, struct str dir)
{
	size_t i = first_below(w->files, w->n, dir);

	for (; i < w->n && is_below(&w->files[i], dir); i++)
		w->gone[i] = true;
}

static void remove_at(struct lower *w, struct str path, bool directory_too)
{
	size_t i = find(w->files, w->n, path);

	if (i < w->n && (directory_too || w->files[i].kind != LAYOUT_DIR))
		w->gone[i] = true;
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Whiteouts speak of lower layers only (OCI image spec, layer.md). */
static int apply_whiteouts(struct lower *w, char *const *whiteouts, size_t n, struct err *e)
{
	_cleanup_free_ const char **sorted = calloc(n + 1, sizeof(*sorted));

	if (!sorted)
		return err_oom(e);
	for (size_t i = 0; i < n; i++)
		sorted[i] = whiteouts[i];
	qsort(sorted, n, sizeof(*sorted), compare_texts);
	for (size_t i = 0; i < n; i++) {
		struct str path = str_of(sorted[i]);
		bool opaque = path.n && path.p[path.n - 1] == '/';
		if (i > 0 && strcmp(sorted[i - 1], sorted[i]) == 0)
			continue;
		path.n -= opaque;
		if (path.n == 0)
			memset(w->gone, true, w->n);
		remove_at(w, path, !opaque);
		remove_below(w, path);
	}
	return 0;
}

/*
 * A path through what lower layers have as a file or a link: they give way, but a link only to a
 * directory's own entry.
 */
static int replace_ancestors(struct lower *w, const char *path, struct err *e)
{
	for (const char *s = strchr(path, '/'); s; s = strchr(s + 1, '/')) {
		size_t i = find(w->files, w->n, (struct str){ path, (size_t)(s - path) });
		if (i == w->n || w->gone[i] || w->files[i].kind == LAYOUT_DIR)
			continue;
		if (w->files[i].kind == LAYOUT_SYMLINK)
			return refuse_ancestor(&w->files[i], e);
		w->gone[i] = true;
	}
	return 0;
}

/* add is sorted, so a directory's entry comes before what it holds. */
static int replace_lower(struct lower *w, const struct layout_file *add, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		struct str path = str_of(add[i].path);
		bool again = i > 0 && strcmp(add[i - 1].path, add[i].path) == 0 &&
			     add[i - 1].kind == add[i].kind;
		if (again)
			continue;
		remove_at(w, path, true);
		if (add[i].kind != LAYOUT_DIR)
			remove_below(w, path);
		if (replace_ancestors(w, add[i].path, e))
			return -1;
	}
	return 0;
}

/* Both sorted; what is gone is released. */
static void join(struct layout *l, const struct lower *w, struct layout_file *to,
		 const struct layout_file *add, size_t n)
{
	size_t i = 0, k = 0, kept = 0;

	while (i < w->n || k < n) {
		if (i < w->n && w->gone[i])
			layout_file_release(&w->files[i++]);
		else if (k == n || (i < w->n && compare_paths(&w->files[i], &add[k]) <= 0))
			to[kept++] = w->files[i++];
		else
			to[kept++] = add[k++];
	}
	free(l->files);
	l->files = to;
	l->n_files = kept;
	l->room = w->n + n;
}

static int overlay(struct layout *l, struct layout_file *add, size_t n, char *const *whiteouts,
		   size_t n_whiteouts, struct err *e)
{
	struct lower w = { .files = l->files, .n = l->n_files };
	size_t bytes;

	if (!size_mul(w.n + n + 1, sizeof(*add), &bytes))
		return err_oom(e);
	_cleanup_free_ bool *gone = calloc(w.n + 1, sizeof(*gone));
	_cleanup_free_ struct layout_file *to = malloc(bytes);
	if (!gone || !to)
		return err_oom(e);
	w.gone = gone;
	if (n > 1)
		qsort(add, n, sizeof(*add), compare_paths);
	if (apply_whiteouts(&w, whiteouts, n_whiteouts, e) || replace_lower(&w, add, n, e))
		return -1;
	join(l, &w, steal_ptr(&to), add, n);
	return 0;
}

static int check_whiteout(const char *text, struct err *e)
{
	_cleanup_free_ char *clean = NULL;
	struct str path = str_of(text);

	if (str_eq(path, "/"))
		return 0;
	if (path.n && path.p[path.n - 1] == '/')
		path.n--;
	if (layout_check_path(path, &clean, e))
		return err_wrap(e, "whiteout");
	return str_eq(path, clean) ? 0 : layout_unsafe(path, "it is not in its simplest form", e);
}

int layout_merge(struct layout *l, size_t tree, struct layout_file *files, size_t n_files,
		 char *const *whiteouts, size_t n_whiteouts, struct err *e)
{
	if (tree >= l->n_trees || tree != l->n_merged)
		return err_set(e, CODE_INTERNAL,
			       "layer trees are merged in their order, each once");
	bool image = l->trees[tree].image;
	if (n_whiteouts && !image)
		return err_set(e, CODE_INTERNAL, "whiteouts belong to container images");
	for (size_t i = 0; i < n_files; i++)
		if (check_one(&files[i], e))
			return -1;
	for (size_t i = 0; i < n_whiteouts; i++)
		if (check_whiteout(whiteouts[i], e))
			return -1;
	if (image ? overlay(l, files, n_files, whiteouts, n_whiteouts, e) :
		    append(l, files, n_files, e))
		return -1;
	for (size_t i = 0; i < n_files; i++) {
		files[i].path = NULL;
		files[i].data = NULL;
		files[i].from = NULL;
	}
	l->n_merged++;
	return 0;
}

static int refuse_nothing(const struct layout *l, struct err *e)
{
	char shown[LAYOUT_SHOWN];

	if (l->n_excluded)
		return err_set(e, CODE_UNSUPPORTED,
			       "nothing to pull: the options leave none of %zu files and layers",
			       l->n_excluded);
	if (l->n_trees && l->trees[0].image && *l->trees[0].subdir)
		return err_set(e, CODE_UNSUPPORTED,
			       "nothing to pull: this container image has no file below %s; "
			       "--subdir names another directory, / is everything",
			       json_show(str_of(l->trees[0].subdir), shown, sizeof(shown)));
	return err_set(e, CODE_UNSUPPORTED, "nothing to pull: the archives hold no file");
}

int layout_finish(struct layout *l, struct err *e)
{
	size_t i = 0;

	if (l->n_merged != l->n_trees)
		return err_set(e, CODE_INTERNAL, "%zu of %zu layer trees are merged", l->n_merged,
			       l->n_trees);
	if (layout_judge(l, e) || layout_sum(l, e))
		return -1;
	while (i < l->n_files && l->files[i].kind != LAYOUT_FILE)
		i++;
	return i < l->n_files ? 0 : refuse_nothing(l, e);
}
