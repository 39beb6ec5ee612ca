// SPDX-License-Identifier: Apache-2.0
/*
 * Names inside archives (unpack.h): where an entry goes, what a link may point to. Whiteouts: OCI
 * image-spec layer.md, "Whiteouts"; other names that begin with ".wh..wh." are bookkeeping of AUFS.
 */
#include "unpack_internal.h"

#include <string.h>

#include "json.h"

#define WHITEOUT ".wh."
#define OPAQUE ".wh..wh..opq"
#define AUFS ".wh..wh."

int unpack_unsafe(const char *name, const char *why, struct err *e)
{
	char shown[UNPACK_SHOWN];

	return err_set(e, CODE_UNSAFE, "unsafe entry \"%s\": %s",
		       json_show(str_of(name), shown, sizeof(shown)), why);
}

/* --- components --- */

/* The next component of *p that is neither empty nor "."; n is 0 at the end. */
static struct str next_component(const char **p)
{
	for (;;) {
		struct str c;

		*p += strspn(*p, "/");
		c.p = *p;
		c.n = strcspn(*p, "/");
		*p += c.n;
		if (c.n != 1 || c.p[0] != '.')
			return c;
	}
}

static int append(struct buf *b, struct str c)
{
	if (b->len)
		buf_addc(b, '/');
	return buf_add(b, c.p, c.n);
}

/* Takes the last component away; false when there is none. */
static bool pop(struct buf *b)
{
	char *slash;

	if (b->len == 0)
		return false;
	slash = memrchr(b->data, '/', b->len);
	b->len = slash ? (size_t)(slash - b->data) : 0;
	b->data[b->len] = '\0';
	return true;
}

/* "./a//b/" -> "a/b" into ret. */
static int clean(const struct layout_tree *t, const char *name, struct buf *ret, struct err *e)
{
	const char *p = name;

	if (!*name)
		return unpack_unsafe(name, "it is empty", e);
	if (strlen(name) > LIMIT_PATH)
		return unpack_unsafe(name, "longer than 4096 bytes", e);
	if (*name == '/' && !t->image)
		return unpack_unsafe(name, "it is absolute", e);
	for (;;) {
		struct str c = next_component(&p);

		if (c.n == 0)
			return ret->failed ? err_oom(e) : 0;
		if (str_eq(c, ".."))
			return unpack_unsafe(name, "it contains \"..\"", e);
		append(ret, c);
	}
}

/*
 * *ret: `path` relative to subdir ("models/"). 1 = below, 0 = the directory itself (""), -1 =
 * neither.
 */
static int below(const char *path, const char *subdir, const char **ret)
{
	size_t n = subdir ? strlen(subdir) : 0;

	while (n && subdir[n - 1] == '/')
		n--;
	*ret = path;
	if (n == 0)
		return *path ? 1 : 0;
	if (strncmp(path, subdir, n) != 0)
		return -1;
	if (path[n] != '\0' && path[n] != '/')
		return -1;
	*ret = path + n + (path[n] == '/');
	return path[n] == '/' ? 1 : 0;
}

static int prefixed(const struct layout_tree *t, const char *rel, struct buf *ret)
{
	if (t->prefix)
		buf_adds(ret, t->prefix);
	return buf_adds(ret, rel);
}

/* --- whiteouts --- */

/* Is the directory `dir` subdir itself or one that it lies in? */
static bool holds_subdir(const char *dir, const char *subdir)
{
	size_t n = strlen(dir);

	return n == 0 || (subdir && strncmp(subdir, dir, n) == 0 && subdir[n] == '/');
}

/* `path` is what is whited out, as a path in the image; opaque: all that is in it. */
static int whiteout(const struct layout_tree *t, const char *path, bool opaque,
		    enum place *ret_place, char **ret, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT(2 * LIMIT_PATH);
	bool all = t->subdir && *t->subdir && holds_subdir(path, t->subdir);
	const char *rel = "";

	if (!all && below(path, t->subdir, &rel) < 0) {
		*ret_place = PLACE_OUTSIDE;
		return 0;
	}
	prefixed(t, all ? "" : rel, &b);
	if (b.len > 0 && b.data[b.len - 1] == '/')
		pop(&b);
	/* The plan's root has no name of its own: "/" is all that is in it. */
	if (opaque || all || b.len == 0)
		buf_addc(&b, '/');
	if (b.failed)
		return err_oom(e);
	if (b.len > 1) {
		_cleanup_free_ char *checked = NULL;
		struct str s = { b.data, b.data[b.len - 1] == '/' ? b.len - 1 : b.len };
		if (layout_check_path(s, &checked, e))
			return -1;
	}
	*ret_place = PLACE_WHITEOUT;
	*ret = buf_steal(&b);
	return *ret ? 0 : err_oom(e);
}

/* --- places --- */

static int place_whiteout(const struct layout_tree *t, struct buf *path, const char *base,
			  enum place *ret_place, char **ret, struct err *e)
{
	bool opaque = strcmp(base, OPAQUE) == 0;
	_cleanup_free_ char *name = NULL;

	if (!opaque && strncmp(base, AUFS, strlen(AUFS)) == 0) {
		*ret_place = PLACE_IGNORED;
		return 0;
	}
	name = strdup(base + strlen(WHITEOUT));
	if (!name)
		return err_oom(e);
	if (!opaque && (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0))
		return unpack_unsafe(buf_cstr(path), "a whiteout of nothing", e);
	pop(path);
	if (!opaque)
		append(path, str_of(name));
	return path->failed ? err_oom(e) : whiteout(t, buf_cstr(path), opaque, ret_place, ret, e);
}

int name_place(const struct layout_tree *t, const char *name, enum place *ret_place, char **ret,
	       struct err *e)
{
	_cleanup_buf_ struct buf path = BUF_INIT(LIMIT_PATH), full = BUF_INIT(2 * LIMIT_PATH);
	const char *slash, *rel;

	if (clean(t, name, &path, e))
		return -1;
	slash = strrchr(buf_cstr(&path), '/');
	slash = slash ? slash + 1 : buf_cstr(&path);
	if (t->image && strncmp(slash, WHITEOUT, strlen(WHITEOUT)) == 0)
		return place_whiteout(t, &path, slash, ret_place, ret, e);
	switch (below(buf_cstr(&path), t->subdir, &rel)) {
	case 1:
		break;
	case 0:
		*ret_place = PLACE_ROOT;
		return 0;
	default:
		*ret_place = PLACE_OUTSIDE;
		return 0;
	}
	if (prefixed(t, rel, &full))
		return err_oom(e);
	if (layout_check_path((struct str){ full.data, full.len }, ret, e))
		return -1;
	*ret_place = PLACE_ENTRY;
	return 0;
}

/* --- links --- */

/* Goes from the directory in b along target. false: it leaves the top. */
static bool walk(struct buf *b, const char *target)
{
	for (;;) {
		struct str c = next_component(&target);

		if (c.n == 0)
			return true;
		if (!str_eq(c, ".."))
			append(b, c);
		else if (!pop(b))
			return false;
	}
}

/* The way from the directory that holds `path` to `to` (both from the same root). */
static int relative(const char *path, const char *to, struct buf *ret)
{
	size_t common = 0;

	for (size_t i = 0;; i++) {
		if ((to[i] == '/' || !to[i]) && path[i] == '/')
			common = i + 1;	/* both go through this directory */
		if (!to[i] || path[i] != to[i])
			break;
	}
	for (const char *p = strchr(path + common, '/'); p; p = strchr(p + 1, '/'))
		buf_adds(ret, ret->len ? "/.." : "..");
	if (strlen(to) > common)
		append(ret, str_of(to + common));
	if (ret->len == 0)
		buf_addc(ret, '.');
	return ret->failed ? -1 : 0;
}

/* Where target leads from the link at `path`, as a path in the plan. */
static int resolve(const struct layout_tree *t, const char *path, const char *target,
		   struct buf *ret, struct err *e)
{
	_cleanup_buf_ struct buf at = BUF_INIT(3 * LIMIT_PATH);
	size_t n_prefix = t->prefix ? strlen(t->prefix) : 0;
	const char *rel;

	/* Of an image the link sees all of it, of other trees the plan. */
	if (t->image && *target != '/' && t->subdir)
		walk(&at, t->subdir);
	if (*target != '/')
		walk(&at, t->image ? path + n_prefix : path);
	pop(&at);	/* from the link to its directory; nothing to do for absolute ones */
	if (!walk(&at, target))
		return unpack_unsafe(path, "a link that points out of the tree", e);
	if (at.failed)
		return unpack_unsafe(path, "a link to too long a path", e);
	if (!t->image)
		return buf_adds(ret, buf_cstr(&at)) ? err_oom(e) : 0;
	if (below(buf_cstr(&at), t->subdir, &rel) < 0)
		return unpack_unsafe(
			path, "a link that points out of the part of the image that is pulled", e);
	return prefixed(t, rel, ret) ? err_oom(e) : 0;
}

/* Without the components that say nothing: "./a//b/" is "a/b". */
static int tidy(const char *target, char **ret, struct err *e)
{
	struct buf text = BUF_INIT(LIMIT_PATH);

	for (const char *p = target; *p;) {
		size_t n = strcspn(p, "/");
		if (n && !(n == 1 && *p == '.')) {
			if (text.len)
				buf_addc(&text, '/');
			buf_add(&text, p, n);
		}
		p += n;
		p += strspn(p, "/");
	}
	if (text.len == 0)
		buf_addc(&text, '.');
	*ret = buf_steal(&text);
	return *ret ? 0 : err_oom(e);
}

int name_target(const struct layout_tree *t, const char *path, const char *target, char **ret,
		struct err *e)
{
	_cleanup_buf_ struct buf to = BUF_INIT(4 * LIMIT_PATH), text = BUF_INIT(LIMIT_PATH - 1);
	_cleanup_free_ char *checked = NULL;

	if (!*target)
		return unpack_unsafe(path, "a link to nothing", e);
	if (strlen(target) > LIMIT_PATH)
		return unpack_unsafe(path, "a link to too long a path", e);
	if (*target == '/' && !t->image)
		return unpack_unsafe(path, "an absolute link", e);
	if (resolve(t, path, target, &to, e))
		return -1;
	while (to.len && to.data[to.len - 1] == '/')
		to.data[--to.len] = '\0';
	if (to.len && layout_check_path((struct str){ to.data, to.len }, &checked, e))
		return err_wrap(e, "target of a link");
	/* its own words: "a/.." through another link is not what the text alone says (layout_finish walks the chains) */
	if (!t->image)
		return tidy(target, ret, e);
	if (relative(path, buf_cstr(&to), &text))
		return unpack_unsafe(path, "a link to too long a path", e);
	*ret = buf_steal(&text);
	return *ret ? 0 : err_oom(e);
}

bool name_target_ok(const char *path, const char *text)
{
	const struct layout_tree plan = { 0 };
	_cleanup_free_ char *again = NULL;
	struct err e = { 0 };

	return name_target(&plan, path, text, &again, &e) == 0 && strcmp(again, text) == 0;
}
