// SPDX-License-Identifier: Apache-2.0
/*
 * Layers that become many files: how each producer's archive is to be read. Pure;
 * layout_internal.h.
 */
#include "layout_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define KEY_MAX (16 * MIB)

void layout_tree_release(struct layout_tree *t)
{
	free(t->name);
	free(t->prefix);
	free(t->subdir);
	free(t->single);
	free(t->key);
	*t = (struct layout_tree){ 0 };
}

/* --- containers --- */

int layout_subdir_parse(const char *text, char **ret, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT(2 * LIMIT_PATH);
	_cleanup_free_ char *clean = NULL;
	struct str s = str_of(text ? text : "models");

	while (s.n && s.p[0] == '/') {
		s.p++;
		s.n--;
	}
	while (s.n && s.p[s.n - 1] == '/')
		s.n--;
	if (s.n == 0 || str_eq(s, ".")) {
		*ret = strdup("");
		return *ret ? 0 : err_oom(e);
	}
	/*
	 * below a directory of no meaning, since names that DEST reserves are ordinary ones in an
	 * image
	 */
	if (s.n > LIMIT_PATH)
		return err_set(e, CODE_USAGE, "--subdir: longer than 4096 bytes");
	buf_adds(&b, "x/");
	buf_add(&b, s.p, s.n);
	if (b.failed)
		return err_oom(e);
	if (layout_check_path(str_of(buf_cstr(&b)), &clean, e)) {
		if (e && e->code == CODE_UNSAFE)
			e->code = CODE_USAGE;
		return err_wrap(e, "--subdir");
	}
	buf_clear(&b);
	buf_addf(&b, "%s/", clean + 2);
	*ret = buf_steal(&b);
	return *ret ? 0 : err_oom(e);
}

/*
 * olot (docs of layer content annotations): a layer of one file says where it lies in the image,
 * "/models/config.json". The path below subdir, or NULL.
 */
static const char *olot_path(const struct layout_layer *l, const char *subdir)
{
	const char *type = layout_annotation(l->d, "olot.layer.content.type"),
		   *path = layout_annotation(l->d, "olot.layer.content.inlayerpath");

	if (!type || strcmp(type, "file") != 0 || !path)
		return NULL;
	path += strspn(path, "/");
	size_t n = strlen(subdir);
	return strncmp(path, subdir, n) == 0 && path[n] ? path + n : NULL;
}

/* --- what kind of archive --- */

bool layout_is_generic(const struct layout_planner *p, const struct layout_layer *l,
		       enum layout_codec *ret)
{
	static const char stem[] = "allfiles.tar";
	const char *config = p->m->config.media_type;

	return p->m->n_layers == 1 && l->media.family == FAMILY_IMAGE &&
	       (strcmp(config, OCI_TYPE_EMPTY) == 0 || !*config) && l->name &&
	       strncmp(l->name, stem, sizeof(stem) - 1) == 0 &&
	       layout_codec_of(l->name + sizeof(stem) - 1, ret);
}

static int find_codec(const struct layout_planner *p, const struct layout_layer *l,
		      enum layout_archive kind, enum layout_codec *ret, struct err *e)
{
	char shown[LAYOUT_SHOWN];
	bool known = true;

	if (kind == ARCHIVE_GENERIC)
		layout_is_generic(p, l, ret);
	else if (l->media.tar)
		known = layout_codec_of(l->media.tar, ret);
	/* oras packs directories with gzip whatever type they are given */
	if (kind == ARCHIVE_ORAS && (!l->media.tar || (known && *ret == CODEC_NONE)))
		*ret = CODEC_GZIP;
	if (known)
		return 0;
	return err_set(e, CODE_UNSUPPORTED,
		       "layer %s: an archive packed or encrypted in a way this program does not "
		       "know (known: tar, tar+gzip, tar+zstd)",
		       layout_show_layer(l, shown));
}

/*
 * Names of archives are paths (of a file or directory) or mere labels. NULL: there is none, or it
 * means the root, as "." does for oras.
 */
static int clean_name(const struct layout_layer *l, char **ret, struct err *e)
{
	struct str s = str_of(l->name ? l->name : ".");

	while (s.n > 1 && s.p[s.n - 1] == '/')
		s.n--;
	if (str_eq(s, "."))
		return 0;
	if (layout_check_path(s, ret, e))
		return err_wrap(e, "layer %zu, annotation %s", l->index + 1, l->name_key);
	return 0;
}

static int read_inner(const struct layout_layer *l, struct layout_tree *t, struct err *e)
{
	const char *text = layout_annotation(l->d, "io.deis.oras.content.digest");
	char shown[LAYOUT_SHOWN];

	if (!text || digest_parse(str_of(text), &t->inner))
		return 0;
	return err_set(e, CODE_UNSUPPORTED,
		       "layer %zu: io.deis.oras.content.digest is no digest we know: %s",
		       l->index + 1, json_show(str_of(text), shown, sizeof(shown)));
}

/* Prefix, subdir, single: the strings that are not NULL. */
static int describe(const struct layout_planner *p, const struct layout_layer *l,
		    enum layout_archive kind, struct layout_tree *t, struct err *e)
{
	if (kind == ARCHIVE_ORAS && read_inner(l, t, e))
		return -1;
	t->image = kind == ARCHIVE_IMAGE;
	if (!t->image && clean_name(l, &t->name, e))
		return -1;
	if (kind == ARCHIVE_PLAIN && l->media.family == FAMILY_KITOPS && l->media.type) {
		if (layout_kitfile_prefix(&p->kitfile, l->media.type->word, l->nth, &t->prefix, e))
			return -1;
	} else {
		t->prefix = strdup("");
	}
	t->subdir = strdup(t->image ? p->subdir : "");
	/* only a path with a directory can stand for another name than its own */
	bool single = kind == ARCHIVE_PLAIN && l->media.family != FAMILY_KITOPS &&
		      l->media.family != FAMILY_DOCKER && t->name && strchr(t->name, '/');
	if (single)
		t->single = strdup(t->name);
	return t->prefix && t->subdir && (!single || t->single) ? 0 : err_oom(e);
}

/* --- is anything of it wanted? --- */

static bool directory_wanted(const struct layout_options *o, const char *dir)
{
	for (const char *const *g = o->exclude; g && *g; g++)
		if (layout_glob_all_below(*g, dir))
			return false;
	if (!o->include || !o->include[0])
		return true;
	for (const char *const *g = o->include; *g; g++)
		if (layout_glob_below(*g, dir))
			return true;
	return false;
}

static int tree_wanted(const struct layout_options *o, const struct layout_layer *l,
		       enum layout_archive kind, const struct layout_tree *t, bool *ret,
		       struct err *e)
{
	char dir[LIMIT_PATH + 1] = "";
	bool single = false;

	if (kind == ARCHIVE_IMAGE) {
		const char *path = olot_path(l, t->subdir);
		*ret = path ? layout_wanted(o, path) : directory_wanted(o, "");
		return 0;
	}
	if (kind == ARCHIVE_PLAIN && t->name && !*t->prefix &&
	    layout_metadata_is_single(l->d, &single, e))
		return -1;
	if (kind == ARCHIVE_ORAS && t->name)
		snprintf(dir, sizeof(dir), "%s", t->name);
	else if (*t->prefix)
		snprintf(dir, sizeof(dir), "%.*s", (int)strlen(t->prefix) - 1, t->prefix);
	*ret = single ? layout_wanted(o, t->name) : directory_wanted(o, dir);
	/* its own name, even if it is only a label */
	*ret = *ret && !(t->name && layout_any_glob(o->exclude, t->name));
	return 0;
}

/* --- key and name --- */

/* With its length in front, so that no two texts look alike; foreign bytes stay as they are. */
static void add_text(struct buf *b, const char *key, const char *value)
{
	buf_addf(b, "%s=%zu:%s\n", key, value ? strlen(value) : 0, value ? value : "");
}

static void add_globs(struct buf *b, const char *key, const char *const *globs)
{
	for (; globs && *globs; globs++)
		add_text(b, key, *globs);
}

/* A change of what unpack makes of an archive needs another number in front. */
static char *key_of(const struct layout_tree *t, const struct layout_options *o)
{
	_cleanup_buf_ struct buf b = BUF_INIT(KEY_MAX);
	char inner[DIGEST_STR_MAX] = "";

	if (t->inner.alg != DIGEST_NONE)
		digest_format(&t->inner, ':', inner);
	buf_addf(&b, "2\ncodec=%d\nimage=%d\n", (int)t->codec, t->image);
	add_text(&b, "prefix", t->prefix);
	add_text(&b, "subdir", t->subdir);
	add_text(&b, "single", t->single);
	add_text(&b, "inner", inner);
	add_globs(&b, "include", o->include);
	add_globs(&b, "exclude", o->exclude);
	return buf_steal(&b);
}

const char *layout_tree_name(const struct layout_tree *t, char ret[static LAYOUT_TREE_NAME])
{
	struct digest d;

	digest_format(&t->digest, '-', ret);
	digest_of(DIGEST_SHA256, t->key, strlen(t->key), &d);
	size_t n = strlen(ret);
	snprintf(ret + n, LAYOUT_TREE_NAME - n, "-%02x%02x%02x%02x", d.bytes[0], d.bytes[1],
		 d.bytes[2], d.bytes[3]);
	return ret;
}

void layout_tree_describe(const struct layout_tree *t, struct buf *b)
{
	static const char *const names[] = { "tar", "tar+gzip", "tar+zstd" };

	buf_adds(b, names[t->codec]);
	if (t->image)
		buf_addf(b, *t->subdir ? " below %s" : " of an image%s", t->subdir);
	else if (*t->prefix)
		buf_addf(b, " into %s", t->prefix);
	else if (t->name)
		buf_addf(b, " of %s", t->name);
}

int layout_add_tree(struct layout_planner *p, const struct layout_layer *l,
		    enum layout_archive kind, struct err *e)
{
	struct layout_tree t = { .layer = l->index, .digest = l->d->digest, .size = l->d->size };
	char shown[LAYOUT_SHOWN];
	bool wanted;

	if (t.size == 0)
		return err_set(e, CODE_INTEGRITY, "layer %s: an archive of no bytes",
			       layout_show_layer(l, shown));
	if (find_codec(p, l, kind, &t.codec, e) || describe(p, l, kind, &t, e) ||
	    tree_wanted(p->o, l, kind, &t, &wanted, e))
		goto fail;
	if (!wanted) {
		layout_tree_release(&t);
		p->out.n_excluded++;
		return 0;
	}
	t.key = key_of(&t, p->o);
	if (!t.key) {
		err_oom(e);
		goto fail;
	}
	p->out.trees[p->out.n_trees++] = t;
	if (kind != ARCHIVE_GENERIC)
		return 0;
	return layout_warn(&p->out,
			   "unpacked as AIKit's generic package, --layout-as oras leaves it packed",
			   l->index, l->name, e);
fail:
	layout_tree_release(&t);
	return -1;
}
