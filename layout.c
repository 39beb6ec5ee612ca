// SPDX-License-Identifier: Apache-2.0
#include "layout_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define KIT_CONFIG "application/vnd.kitops.modelkit.config.v1+json"

void layout_file_release(struct layout_file *f)
{
	free(f->path);
	free(f->from);
	if (f->kind == LAYOUT_SYMLINK)
		free((void *)(uintptr_t)f->data);
	*f = (struct layout_file){ 0 };
}

void layout_release(struct layout *l)
{
	for (size_t i = 0; i < l->n_files; i++)
		layout_file_release(&l->files[i]);
	free(l->files);
	for (size_t i = 0; i < l->n_trees; i++)
		layout_tree_release(&l->trees[i]);
	free(l->trees);
	for (size_t i = 0; i < l->n_warnings; i++)
		free(l->warnings[i]);
	free(l->warnings);
	*l = (struct layout){ 0 };
}

/* --- paths --- */

int layout_unsafe(struct str path, const char *why, struct err *e)
{
	char shown[LAYOUT_SHOWN];

	return err_set(e, CODE_UNSAFE, "unsafe path \"%s\": %s",
		       json_show(path, shown, sizeof(shown)), why);
}

static const char *text_fault(struct str in)
{
	if (in.n == 0)
		return "it is empty";
	if (in.n > LIMIT_PATH)
		return "longer than 4096 bytes";
	for (size_t i = 0; i < in.n; i++)
		if ((unsigned char)in.p[i] < 0x20 || in.p[i] == 0x7f)
			return "it contains a control character";
	if (in.p[0] == '/')
		return "it is absolute";
	if (in.p[in.n - 1] == '/')
		return "it ends with '/', so it names a directory";
	return NULL;
}

const char *layout_component_fault(struct str c, bool first)
{
	if (str_eq(c, ".."))
		return "it contains \"..\"";
	if (c.n > LIMIT_COMPONENT)
		return "a component is longer than 255 bytes";
	if (first && str_caseeq(c, ".fetcher"))
		return "\".fetcher\" belongs to fetcher itself";
	if (first && str_eq(c, "current"))
		return "\"current\" at the top is the name of fetcher's own link";
	return NULL;
}

int layout_check_path(struct str in, char **ret, struct err *e)
{
	const char *fault = text_fault(in), *p = in.p, *end = in.p + in.n;
	unsigned depth = 0;
	size_t len = 0;

	if (fault)
		return layout_unsafe(in, fault, e);
	_cleanup_free_ char *out = malloc(in.n + 1);
	if (!out)
		return err_oom(e);
	while (p < end) {
		const char *slash = memchr(p, '/', (size_t)(end - p));
		struct str c = { p, (size_t)((slash ? slash : end) - p) };
		bool dot = c.n == 1 && c.p[0] == '.';
		if (dot && !slash)
			return layout_unsafe(in, "it names a directory", e);
		p = slash ? slash + 1 : end;
		if (c.n == 0 || dot)
			continue;
		fault = layout_component_fault(c, len == 0);
		if (!fault && ++depth > LIMIT_PATH_DEPTH)
			fault = "more than 64 directories deep";
		if (fault)
			return layout_unsafe(in, fault, e);
		if (len)
			out[len++] = '/';
		memcpy(out + len, c.p, c.n);
		len += c.n;
	}
	out[len] = '\0';
	*ret = steal_ptr(&out);
	return 0;
}

/* --- one layer --- */

const char *layout_annotation(const struct oci_descriptor *d, const char *key)
{
	return oci_annotation(d->annotations, d->n_annotations, key);
}

const char *layout_show_layer(const struct layout_layer *l, char ret[static LAYOUT_SHOWN])
{
	char type[LAYOUT_SHOWN - 32];

	json_show(str_of(l->d->media_type), type, sizeof(type));
	snprintf(ret, LAYOUT_SHOWN, "%zu (%s)", l->index + 1, type);
	return ret;
}

int layout_warn(struct layout *l, const char *what, size_t index, const char *detail, struct err *e)
{
	char shown[LAYOUT_SHOWN];
	char **grown = realloc(l->warnings, (l->n_warnings + 1) * sizeof(*grown));
	struct buf b = BUF_INIT(512);

	if (!grown)
		return err_oom(e);
	l->warnings = grown;
	buf_addf(&b, "layer %zu: ", index + 1);
	buf_addf(&b, "%s (%s)", what, json_show(str_of(detail), shown, sizeof(shown)));
	char *text = buf_steal(&b);
	if (!text)
		return err_oom(e);
	l->warnings[l->n_warnings++] = text;
	return 0;
}

static void layer_at(const struct layout_planner *p, size_t i, struct layout_layer *ret)
{
	*ret = (struct layout_layer){ .d = &p->m->layers[i], .index = i };
	ret->media = layout_media_of(ret->d->media_type);
	layout_name(p->as, ret);
}

enum action {
	ACT_FILE,	/* the blob is the file */
	ACT_UNPACK,	/* an archive whose content is meant */
	ACT_NAMELESS,	/* a model producer's type, but nothing says which file it is */
	ACT_SKIP,	/* not ours, worth a warning */
	ACT_EMPTY,	/* the empty descriptor */
};

static enum action decide(const struct layout_planner *p, const struct layout_layer *l,
			  enum layout_archive *ret)
{
	const char *unpack = layout_annotation(l->d, "io.deis.oras.content.unpack");
	bool model = layout_is_model(l->media.family), any_tar = p->as == AS_MODELPACK;
	enum layout_codec codec;

	if (strcmp(l->d->media_type, OCI_TYPE_EMPTY) == 0 && !l->name)
		return ACT_EMPTY;
	if (p->as == AS_RAW)
		return ACT_FILE;
	*ret = ARCHIVE_IMAGE;
	if (p->image)
		return l->media.family == FAMILY_IMAGE || l->media.tar ? ACT_UNPACK : ACT_SKIP;
	*ret = ARCHIVE_ORAS;
	if (unpack && strcmp(unpack, "true") == 0)
		return ACT_UNPACK;
	if (p->as == AS_ORAS)
		return l->name ? ACT_FILE : ACT_SKIP;
	*ret = ARCHIVE_GENERIC;
	if (layout_is_generic(p, l, &codec))
		return ACT_UNPACK;
	*ret = ARCHIVE_PLAIN;
	if (l->media.tar && (model || any_tar))
		return ACT_UNPACK;
	if (l->name)
		return ACT_FILE; /* also plain files of oras, typed as image layers */
	return model ? ACT_NAMELESS : ACT_SKIP;
}

/* --- layers to files --- */

static int refuse_nameless(const struct layout_layer *l, struct err *e)
{
	char shown[LAYOUT_SHOWN];

	return err_set(e, CODE_UNSUPPORTED,
		       "layer %s does not say which file it is; the producer must set the "
		       "annotation org.cncf.model.filepath or org.opencontainers.image.title",
		       layout_show_layer(l, shown));
}

static int check_empty(const struct layout_layer *l, struct err *e)
{
	struct digest none;

	digest_of(l->d->digest.alg, "", 0, &none);
	if ((l->d->size == 0) == digest_equal(&l->d->digest, &none))
		return 0;
	return err_set(e, CODE_INTEGRITY,
		       "layer %zu: size %" PRIu64 " and digest contradict each other", l->index + 1,
		       l->d->size);
}

/*
 * KitOps can compress single files ("...model.v1.raw+gzip"): placed as they come they would be no
 * model.
 */
static int check_packed(const struct layout_planner *p, const struct layout_layer *l, struct err *e)
{
	const char *plus = strrchr(l->d->media_type, '+');
	char shown[LAYOUT_SHOWN];
	enum layout_codec codec;

	if (p->as == AS_RAW || !layout_is_model(l->media.family) || !plus ||
	    !layout_codec_of(plus, &codec))
		return 0;
	return err_set(e, CODE_UNSUPPORTED,
		       "layer %s is a compressed single file, which this program does not unpack; "
		       "pack it as tar or without compression",
		       layout_show_layer(l, shown));
}

static int add_file(struct layout_planner *p, const struct layout_layer *l, struct err *e)
{
	struct layout_file f = { .digest = l->d->digest, .size = l->d->size, .data = l->d->data };
	bool dir = false;

	if (check_packed(p, l, e))
		return -1;
	if (layout_check_path(str_of(l->name), &f.path, e))
		return err_wrap(e, "layer %zu, annotation %s", l->index + 1, l->name_key);
	if (layout_read_metadata(l, &p->out, &f, &dir, e)) {
		free(f.path);
		return -1;
	}
	if (dir) {
		free(f.path);
		return layout_warn(&p->out, "its metadata describes a directory, skipped", l->index,
				   l->name, e);
	}
	p->out.files[p->out.n_files++] = f;
	return 0;
}

bool layout_any_glob(const char *const *globs, const char *path)
{
	for (; globs && *globs; globs++)
		if (layout_glob(*globs, path))
			return true;
	return false;
}

bool layout_wanted(const struct layout_options *o, const char *path)
{
	bool all = !o->include || !o->include[0];

	return (all || layout_any_glob(o->include, path)) && !layout_any_glob(o->exclude, path);
}

static int skip(struct layout_planner *p, const struct layout_layer *l, struct err *e)
{
	char shown[LAYOUT_SHOWN];

	if (!p->o->strict)
		return layout_warn(&p->out,
				   p->image ? "skipped, it is no layer of a container image" :
					      "skipped, it has no file name",
				   l->index, l->d->media_type, e);
	return err_set(e, CODE_UNSUPPORTED,
		       "layer %s has no file name and is of no kind we know (--strict)",
		       layout_show_layer(l, shown));
}

/* What no annotation names, the producer's habit does. */
static void name_it(struct layout_planner *p, struct layout_layer *l)
{
	size_t row = l->media.row;

	if (l->media.type)
		l->nth = p->seen[row]++;
	if (l->name)
		return;
	if (p->as == AS_RAW)
		layout_name_by_digest(l);
	else if (p->as != AS_ORAS && !p->image && !l->media.tar)
		layout_name_by_convention(l, l->media.type ? p->seen_nameless[row]++ : 0,
					  l->media.type ? p->nameless[row] : 0);
}

static int add_layer(struct layout_planner *p, struct layout_layer *l, struct err *e)
{
	enum layout_archive archive;
	enum action a;

	if (strcmp(l->d->media_type, OCI_TYPE_EMPTY) != 0 || l->name)
		name_it(p, l);
	a = decide(p, l, &archive);
	if (a == ACT_EMPTY)
		return 0;
	if (a == ACT_SKIP)
		return skip(p, l, e);
	if (check_empty(l, e))
		return -1;
	if (!(p->types & (l->media.type ? l->media.type->type : TYPE_OTHER))) {
		p->out.n_excluded++;
		return 0;
	}
	if (a == ACT_NAMELESS)
		return refuse_nameless(l, e);
	return a == ACT_FILE ? add_file(p, l, e) : layout_add_tree(p, l, archive, e);
}

/* --- the artifact --- */

/*
 * A container image, and not an artifact that oras gave an image's config: no layer names a file.
 * olot sets titles in images too, but says so.
 */
static bool looks_like_image(const struct oci_manifest *m)
{
	bool layers = false;

	if (!layout_is_image_config(m->config.media_type))
		return false;
	for (size_t i = 0; i < m->n_layers; i++) {
		struct layout_layer l = { .d = &m->layers[i] };
		l.media = layout_media_of(l.d->media_type);
		layout_name(AS_AUTO, &l);
		if (layout_is_model(l.media.family) ||
		    (l.name && !layout_annotation(l.d, "olot.layer.content.inlayerpath")))
			return false;
		layers = layers || l.media.family == FAMILY_IMAGE;
	}
	return layers;
}

static bool has_kit_archive(const struct oci_manifest *m)
{
	for (size_t i = 0; i < m->n_layers; i++) {
		struct layout_media media = layout_media_of(m->layers[i].media_type);
		if (media.family == FAMILY_KITOPS && media.tar)
			return true;
	}
	return false;
}

/*
 * A kit of datasets whose model is in another kit is one too, though nothing in it is an archive
 * of a model.
 */
bool layout_wants_config(const struct oci_manifest *m)
{
	return !m->is_index &&
	       (has_kit_archive(m) || strcmp(m->config.media_type, KIT_CONFIG) == 0);
}

/* model.path of a kit without model layers is another ModelKit's reference. */
static int check_parent(const struct layout_planner *p, struct err *e)
{
	struct str parent = { "", 0 };
	char shown[LAYOUT_SHOWN];

	if (!p->kitfile.doc.doc || !(p->types & TYPE_WEIGHT))
		return 0;
	parent = layout_kitfile_model(&p->kitfile);
	for (size_t i = 0; i < p->m->n_layers && parent.n; i++) {
		struct layout_media media = layout_media_of(p->m->layers[i].media_type);
		if (media.family == FAMILY_KITOPS && media.type &&
		    strcmp(media.type->word, "model") == 0)
			parent.n = 0;
	}
	if (!parent.n)
		return 0;
	return err_set(e, CODE_UNSUPPORTED,
		       "the model of this ModelKit is in another one, %s: pull that one, and the "
		       "rest of this one with --type code,dataset,doc",
		       json_show(parent, shown, sizeof(shown)));
}

static int prepare(struct layout_planner *p, struct err *e)
{
	size_t n = p->m->n_layers;

	if (layout_as_parse(p->o->as, &p->as, e) || layout_types_parse(p->o->types, &p->types, e) ||
	    layout_subdir_parse(p->o->subdir, &p->subdir, e))
		return -1;
	p->image = p->as == AS_IMAGE ||
		   ((p->as == AS_AUTO || p->as == AS_MODELPACK) && looks_like_image(p->m));
	bool own_names = p->as == AS_AUTO || p->as == AS_MODELPACK;
	if (own_names && layout_wants_config(p->m) &&
	    layout_kitfile_read(p->o->config, p->o->config_len, &p->kitfile, e))
		return -1;
	if (n) {
		p->out.files = calloc(n, sizeof(*p->out.files));
		p->out.trees = calloc(n, sizeof(*p->out.trees));
		if (!p->out.files || !p->out.trees)
			return err_oom(e);
		p->out.room = n;
	}
	for (size_t i = 0; i < n; i++) {
		struct layout_layer l;
		layer_at(p, i, &l);
		if (l.media.type && !l.name)
			p->nameless[l.media.row]++;
	}
	return 0;
}

static void filter(struct layout *l, const struct layout_options *o)
{
	size_t kept = 0;

	for (size_t i = 0; i < l->n_files; i++) {
		if (layout_wanted(o, l->files[i].path)) {
			l->files[kept++] = l->files[i];
			continue;
		}
		layout_file_release(&l->files[i]);
		l->n_excluded++;
	}
	l->n_files = kept;
}

static int refuse_nothing(const struct layout_planner *p, struct err *e)
{
	const struct oci_manifest *m = p->m;
	size_t n = p->out.n_excluded;
	char type[LAYOUT_SHOWN];

	if (n)
		return err_set(e, CODE_UNSUPPORTED,
			       "nothing to pull: --include%s leave none of %zu file%s",
			       p->types == TYPE_ALL ? " and --exclude" : ", --exclude and --type",
			       n, n == 1 ? "" : "s");
	if (m->n_layers == 0)
		return err_set(e, CODE_UNSUPPORTED, "nothing to pull: the manifest has no layers");
	json_show(str_of(m->layers[0].media_type), type, sizeof(type));
	return err_set(
		e, CODE_UNSUPPORTED,
		"nothing to pull: none of %zu layer%s names a file (the first is %s); the producer "
		"must set the annotation org.opencontainers.image.title or org.cncf.model.filepath",
		m->n_layers, m->n_layers == 1 ? "" : "s", type);
}

static int make_plan(struct layout_planner *p, struct err *e)
{
	if (prepare(p, e))
		return -1;
	for (size_t i = 0; i < p->m->n_layers; i++) {
		struct layout_layer l;
		layer_at(p, i, &l);
		if (add_layer(p, &l, e))
			return -1;
	}
	if (check_parent(p, e) || layout_judge(&p->out, e))
		return -1;
	filter(&p->out, p->o);
	if (p->out.n_files == 0 && p->out.n_trees == 0)
		return refuse_nothing(p, e);
	return layout_sum(&p->out, e);
}

int layout_plan(const struct oci_manifest *m, const struct layout_options *o, struct layout *ret,
		struct err *e)
{
	static const struct layout_options everything;
	struct layout_planner p = { .m = m, .o = o ? o : &everything };

	if (m->is_index)
		return err_set(e, CODE_INTERNAL, "layout of an index");
	int r = make_plan(&p, e);
	free(p.subdir);
	layout_kitfile_release(&p.kitfile);
	if (r)
		layout_release(&p.out);
	else
		*ret = p.out;
	return r;
}
