// SPDX-License-Identifier: Apache-2.0
/*
 * A DEST in a temporary directory and publications of small files into it, for the tests of
 * store.c. A plan is written as "path=content", "path>target" (a link) and "path/" (a directory).
 */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "store.h"

#define FX_FILES 64
#define FX_TEXT_MAX (128 * 1024)

struct fx_plan {
	struct layout layout;
	struct layout_file files[FX_FILES];
	const char *content[FX_FILES];	/* or the target of a link */
	const char *what[FX_FILES];	/* content or target with the sign in front, "/" */
	char paths[FX_FILES][300];
	struct digest digest;
	char *version;
	struct store_publish p;
	unsigned fetched;	/* files the last publication could not find on the volume */
};

static char fx_base[64];	/* the temporary directory */
static char fx_dest[80];	/* DEST below it */

static inline int fx_setup(void **state)
{
	const char *tmp = getenv("FX_TMP");

	(void)state;
	snprintf(fx_base, sizeof(fx_base), "%s/fetcher-store-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(fx_base))
		return -1;
	snprintf(fx_dest, sizeof(fx_dest), "%s/dest", fx_base);
	return 0;
}

static inline int fx_wipe(const char *path)
{
	int at = open(path, O_RDONLY | O_DIRECTORY), rc;

	if (at < 0)
		return errno == ENOENT ? 0 : -1;
	close(at);
	at = open(fx_base, O_RDONLY | O_DIRECTORY);
	if (strcmp(path, fx_base) == 0) {
		int up = openat(at, "..", O_RDONLY | O_DIRECTORY);

		rc = sys_remove_tree(up, strrchr(fx_base, '/') + 1);
		close(up);
	} else {
		rc = sys_remove_tree(at, path + strlen(fx_base) + 1);
	}
	close(at);
	return rc;
}

static inline int fx_teardown(void **state)
{
	(void)state;
	return fx_wipe(fx_base);
}

/* specs: "path=content", "path>target", "path/", sorted by path, NULL-terminated. */
static inline void fx_plan_init(struct fx_plan *f, const char *const *specs)
{
	struct buf all = BUF_INIT(1 << 20);
	size_t n = 0;

	memset(f, 0, sizeof(*f));
	for (; specs[n]; n++) {
		const char *eq = strpbrk(specs[n], "=>");
		struct layout_file *file = &f->files[n];

		if (!eq)
			eq = specs[n] + strlen(specs[n]) - 1;
		f->what[n] = eq;
		file->kind = *eq == '>' ? LAYOUT_SYMLINK : *eq == '/' ? LAYOUT_DIR : LAYOUT_FILE;
		snprintf(f->paths[n], sizeof(f->paths[n]), "%.*s", (int)(eq - specs[n]), specs[n]);
		f->content[n] = eq + 1;
		file->path = f->paths[n];
		file->size = strlen(eq + 1);
		if (file->kind == LAYOUT_SYMLINK)
			file->data = (const uint8_t *)eq + 1;
		if (file->kind != LAYOUT_DIR)
			digest_of(DIGEST_SHA256, eq + 1, strlen(eq + 1), &file->digest);
		f->layout.bytes += file->size;
		buf_adds(&all, specs[n]);
		buf_addc(&all, '\n');
	}
	f->layout.files = f->files;
	f->layout.n_files = n;
	digest_of(DIGEST_SHA256, buf_cstr(&all), all.len, &f->digest);
	buf_release(&all);
	f->version = store_version_name(&f->digest, "");
	f->p = (struct store_publish){ .version = f->version, .digest = &f->digest,
				       .plan = &f->layout };
}
#define FX_PLAN(f, ...) fx_plan_init(f, (const char *const[]){ __VA_ARGS__, NULL })

static inline void fx_plan_release(struct fx_plan *f)
{
	free(f->version);
	f->version = NULL;
}

/* What the transfer engine would leave in the partial directory. 0 or -1 errno. */
static inline int fx_partial(struct store *s, const char *name, const char *text)
{
	int fd = openat(store_partial_dirfd(s), name, O_RDWR | O_CREAT | O_TRUNC, 0600), rc;

	if (fd < 0)
		return -1;
	rc = sys_pwrite_full(fd, text, strlen(text), 0);
	close(fd);
	return rc;
}

/* One file: there already, found elsewhere, or "fetched". */
static inline int fx_place(struct store *s, struct fx_plan *f, size_t i, struct err *e)
{
	char *from = NULL, name[64];
	int rc = store_has(s, i, e);

	if (rc)
		return rc < 0 ? -1 : 0;
	if (f->files[i].size == 0 || f->files[i].kind != LAYOUT_FILE)
		return store_place_bytes(s, i, f->content[i], f->files[i].size, e);
	rc = store_find(s, &f->files[i].digest, f->files[i].size, &from, e);
	if (rc < 0)
		return -1;
	if (rc > 0) {
		rc = store_place(s, i, NULL, from, e);
		free(from);
		return rc;
	}
	f->fetched++;
	snprintf(name, sizeof(name), "blob%zu", i);
	if (fx_partial(s, name, f->content[i]) < 0)
		return err_errno(e, CODE_LOCAL, errno, "test data");
	return store_place(s, i, name, NULL, e);
}

static inline void fx_marker(struct store_marker *m)
{
	*m = (struct store_marker){ .ref = strdup("registry.example/a:b"),
				    .media_type = strdup("application/x"),
				    .artifact_type = strdup(""), .downloaded = 7,
				    .duration_ms = 9, .fetcher = strdup("0.0.0") };
}

static inline int fx_commit(struct store *s, struct err *e)
{
	struct buf raw = BUF_INIT(64);
	struct store_marker m;
	int rc;

	fx_marker(&m);
	buf_adds(&raw, "{\"raw\":1}");
	rc = raw.failed ? err_oom(e) : store_commit(s, &m, "", &raw, NULL, e);
	buf_release(&raw);
	store_marker_release(&m);
	return rc;
}

static inline int fx_fill(struct store *s, struct fx_plan *f, struct err *e)
{
	f->fetched = 0;
	if (store_begin(s, &f->p, e) < 0)
		return -1;
	for (size_t i = 0; i < f->layout.n_files; i++)
		if (fx_place(s, f, i, e) < 0)
			return -1;
	return 0;
}

/* The whole of one pull: open, lock, begin, has/find/place, commit, close. */
static inline int fx_publish(struct fx_plan *f, enum store_layout layout, struct err *e)
{
	struct store *s = NULL;
	int rc;

	f->p.layout = layout;
	if (store_open(&s, fx_dest, true, e) < 0)
		return -1;
	rc = store_lock(s, 0, NULL, NULL, NULL, e);
	if (rc == 0)
		rc = fx_fill(s, f, e);
	if (rc == 0)
		rc = fx_commit(s, e);
	store_close(s);
	return rc;
}

/* As `fetcher pull` asks before it starts: 1 = this plan is published and complete. */
static inline int fx_ready(const struct fx_plan *f, bool quick, struct err *e)
{
	struct store_marker m;
	struct store_meta meta = { 0 };
	struct store *s = NULL;
	int rc;

	if (store_open(&s, fx_dest, false, e) < 0)
		return -1;
	rc = store_read_marker(s, &m, e);
	if (rc == 1) {
		if (!digest_equal(&m.digest, &f->digest))
			rc = 0;
		else if (!quick)
			rc = store_read_meta(s, m.version, &meta, e);
		if (rc == 1)
			rc = store_check(s, &m, quick ? NULL : &meta, quick, e);
		store_meta_release(&meta);
		store_marker_release(&m);
	}
	store_close(s);
	return rc;
}

/* --- looking at DEST without the code under test --- */

static inline const char *fx_path(const char *rel)
{
	static char path[4][1024];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", fx_dest, rel);
	return p;
}

/* Content below DEST, following links; NULL = nothing readable there. Static buffer. */
static inline const char *fx_text(const char *rel)
{
	static char text[FX_TEXT_MAX];
	int fd = open(fx_path(rel), O_RDONLY | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (n < 0)
		return NULL;
	text[n] = 0;
	return text;
}

static inline void fx_put(const char *rel, const char *text)
{
	int fd = open(fx_path(rel), O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0)
		fail_msg("%s: %s", rel, strerror(errno));
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static inline void fx_assert_text(const char *rel, const char *text)
{
	const char *found = fx_text(rel);

	if (!found || strcmp(found, text))
		fail_msg("%s: %s instead of %s", rel, found ? found : "(nothing)", text);
}

static inline bool fx_exists(const char *rel)
{
	struct stat st;

	return lstat(fx_path(rel), &st) == 0;
}

/* "=content", ">target", "/", or NULL: nothing. Static buffer. */
static inline const char *fx_what(const char *rel)
{
	static char what[FX_TEXT_MAX + 1];
	const char *text;
	struct stat st;
	ssize_t n;

	if (lstat(fx_path(rel), &st) < 0)
		return NULL;
	if (S_ISDIR(st.st_mode))
		return "/";
	if (S_ISLNK(st.st_mode)) {
		n = readlink(fx_path(rel), what + 1, sizeof(what) - 2);
		what[0] = '>';
		what[n > 0 ? 1 + n : 1] = 0;
		return what;
	}
	text = fx_text(rel);
	snprintf(what, sizeof(what), "=%s", text ? text : "(unreadable)");
	return what;
}

/* Every file of the plan stands complete below prefix ("" or "current/"). */
static inline void fx_assert_complete(const struct fx_plan *f, const char *prefix)
{
	char rel[400];

	for (size_t i = 0; i < f->layout.n_files; i++) {
		const char *what;

		snprintf(rel, sizeof(rel), "%s%s", prefix, f->paths[i]);
		what = fx_what(rel);
		if (!what || strcmp(what, f->what[i]))
			fail_msg("%s: %s instead of %s", rel, what ? what : "(nothing)", f->what[i]);
	}
}

#define FX_OK(call) do { \
	struct err e_ = { 0 }; \
	if ((call) != 0) \
		fail_msg(#call ": %d %s", (int)e_.code, e_.msg); \
} while (0)
#define FX_E (&e_)

#endif
