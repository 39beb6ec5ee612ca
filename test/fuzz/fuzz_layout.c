// SPDX-License-Identifier: Apache-2.0
/*
 * From documents to a plan: the input is a manifest, a NUL, the config, a NUL, and what its trees
 * became, one entry a line as in test_layout_merge.c ("path=content", "path>target", "path/",
 * "-whiteout"; an empty line ends a tree). Annotations at the top of the manifest are the
 * options. Whatever comes in, what is laid out stays inside, once.
 */
#include <stdlib.h>
#include <string.h>

#include "layout.h"

#define ENTRIES 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void check_path(const char *p)
{
	char *again = NULL;

	check(layout_check_path(str_of(p), &again, NULL) == 0 && strcmp(again, p) == 0);
	free(again);
}

static void check_files(const struct layout *l)
{
	uint64_t total = 0;

	for (size_t i = 0; i < l->n_files; i++) {
		const struct layout_file *f = &l->files[i];
		check_path(f->path);
		check((f->mode & ~0777U) == 0 && (!f->has_mtime || f->mtime_nsec < 1000000000));
		check((f->digest.alg != DIGEST_NONE) == (f->kind != LAYOUT_DIR));
		total += f->size;
		if (f->kind == LAYOUT_SYMLINK)
			check(layout_check_link(
				      f->path, (struct str){ (const char *)f->data, f->size },
				      NULL) == 0);
		/* unique, and nothing lies below a file or a link */
		for (size_t k = 0; k < l->n_files; k++) {
			size_t n = strlen(l->files[k].path);
			if (k < i)
				check(strcmp(l->files[k].path, f->path) < 0);
			check(strncmp(f->path, l->files[k].path, n) != 0 || f->path[n] != '/');
		}
	}
	check(total == l->bytes && l->unique_bytes <= l->bytes);
}

static void check_trees(const struct layout *l, const struct oci_manifest *m)
{
	char name[LAYOUT_TREE_NAME];
	struct buf b = BUF_INIT(MIB);

	for (size_t i = 0; i < l->n_trees; i++) {
		const struct layout_tree *t = &l->trees[i];
		size_t n = strlen(t->prefix);
		check(t->layer < m->n_layers && (i == 0 || l->trees[i - 1].layer < t->layer));
		check(t->size > 0 && t->codec <= CODEC_ZSTD && t->key);
		check(n == 0 || t->prefix[n - 1] == '/');
		check(!*t->subdir || t->subdir[strlen(t->subdir) - 1] == '/');
		if (n) {
			char *dir = strndup(t->prefix, n - 1);
			check_path(dir);
			free(dir);
		}
		if (t->single)
			check_path(t->single);
		if (t->name)
			check_path(t->name);
		check(strlen(layout_tree_name(t, name)) < sizeof(name) && !strpbrk(name, "/."));
		layout_tree_describe(t, &b);
	}
	buf_release(&b);
}

/* The input has no NUL behind it. */
static char *text_of(const char *p, size_t n)
{
	char *s = memcpy(malloc(n + 1), p, n);

	s[n] = '\0';
	return s;
}

static void add_entry(struct layout_file *f, const char *line, size_t n)
{
	const char *mark = memchr(line, '=', n), *link = memchr(line, '>', n);

	*f = (struct layout_file){ .kind = LAYOUT_DIR };
	if (!mark || (link && link < mark))
		mark = link;
	f->path = text_of(line, mark ? (size_t)(mark - line) :
				n - (line[n - 1] == '/'));
	if (!mark)
		return;
	f->kind = *mark == '=' ? LAYOUT_FILE : LAYOUT_SYMLINK;
	f->size = n - (size_t)(mark + 1 - line);
	digest_of(DIGEST_SHA256, mark + 1, f->size, &f->digest);
	if (f->kind == LAYOUT_SYMLINK)
		f->data = memcpy(malloc(f->size + 1), mark + 1, f->size);
}

/* One tree from *text; -1: refused. */
static int merge_tree(struct layout *l, size_t tree, const char **text, const char *end,
		      struct err *e)
{
	struct layout_file files[ENTRIES] = { 0 };
	char *whiteouts[ENTRIES] = { 0 };
	size_t n = 0, n_whiteouts = 0;

	while (*text < end) {
		const char *stop = memchr(*text, '\n', (size_t)(end - *text));
		const char *line = *text;
		size_t len = (size_t)((stop ? stop : end) - line);
		*text = stop ? stop + 1 : end;
		if (len == 0)
			break;
		if (*line == '-' && n_whiteouts < ENTRIES)
			whiteouts[n_whiteouts++] = text_of(line + 1, len - 1);
		else if (n < ENTRIES)
			add_entry(&files[n++], line, len);
	}
	if (!l->trees[tree].image) {
		for (size_t i = 0; i < n_whiteouts; i++)
			free(whiteouts[i]);
		n_whiteouts = 0;
	}
	int r = layout_merge(l, tree, files, n, whiteouts, n_whiteouts, e);
	for (size_t i = 0; i < n; i++) {
		check((files[i].path == NULL) == (r == 0));
		layout_file_release(&files[i]);
	}
	for (size_t i = 0; i < n_whiteouts; i++)
		free(whiteouts[i]);
	return r;
}

static void check_error(const struct err *e)
{
	check(e->msg[0] && (e->code == CODE_UNSAFE || e->code == CODE_UNSUPPORTED ||
			    e->code == CODE_INTEGRITY || e->code == CODE_USAGE));
}

static void unpack(struct layout *l, const char *text, const char *end)
{
	struct err e = { 0 };

	for (size_t i = 0; i < l->n_trees; i++) {
		if (merge_tree(l, i, &text, end, &e)) {
			check_error(&e);
			return;
		}
	}
	if (layout_finish(l, &e))
		check_error(&e);
	else
		check_files(l);
}

static const char *option(const struct oci_manifest *m, const char *key)
{
	return oci_annotation(m->annotations, m->n_annotations, key);
}

static const uint8_t *part(const uint8_t **p, const uint8_t *end, size_t *ret_n)
{
	const uint8_t *start = *p, *nul = NULL;

	if (start < end)
		nul = memchr(start, '\0', (size_t)(end - start));
	*ret_n = (size_t)((nul ? nul : end) - start);
	*p = nul ? nul + 1 : end;
	return start;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = data + size, *p = data;
	struct oci_manifest m = { 0 };
	struct layout l = { 0 };
	struct err e = { 0 };
	size_t n, config_len;
	const uint8_t *text = part(&p, end, &n), *config = part(&p, end, &config_len);

	if (oci_manifest_parse((const char *)text, n, NULL, &m, &e))
		return 0;
	const char *include[] = { option(&m, "include"), NULL };
	const char *exclude[] = { option(&m, "exclude"), NULL };
	const char *types[] = { option(&m, "type"), NULL };
	struct layout_options o = {
		.include = include,
		.exclude = exclude,
		.types = types,
		.as = option(&m, "as"),
		.subdir = option(&m, "subdir"),
		.strict = option(&m, "strict") != NULL,
		.config = config_len ? config : NULL,
		.config_len = config_len,
	};
	if (!m.is_index && layout_plan(&m, &o, &l, &e) == 0) {
		check(l.n_files + l.n_trees > 0);
		check_trees(&l, &m);
		if (!l.n_trees)
			check_files(&l);
		unpack(&l, (const char *)p, (const char *)end);
	} else if (!m.is_index) {
		check(!l.files && !l.trees);
		check_error(&e);
	}
	layout_release(&l);
	oci_manifest_release(&m);
	return 0;
}
