// SPDX-License-Identifier: Apache-2.0
/*
 * The config blobs that a layout needs: KitOps' Kitfile as JSON (kitops pkg/artifact/kitfile.go).
 * Since KitOps 0.5 each entry carries its layer's digest and diffId, and the archive's names are
 * relative to the root; before, they are relative to the directory of the entry's path, and the
 * nth layer of a kind belongs to the nth entry. Pure; layout_internal.h.
 */
#include "layout_internal.h"

#include <string.h>

/* Where the entries of a layer type stand. */
static const struct {
	const char *word, *key;
	bool in_model, is_object;
} sections[] = {
	{ "model", "model", false, true },
	{ "modelpart", "parts", true, false },
	{ "code", "code", false, false },
	{ "dataset", "datasets", false, false },
	{ "docs", "docs", false, false },
};

static int malformed(const char *key, struct err *e)
{
	return err_set(e, CODE_INTEGRITY, "Kitfile: \"%s\" has the wrong type", key);
}

/* 1 and the nth entry, 0 there is none. */
static int entry_of(yyjson_val *root, size_t section, size_t nth, yyjson_val **ret, struct err *e)
{
	const char *key = sections[section].key;
	yyjson_val *at = root, *list;
	int r = 1;

	if (sections[section].in_model && (r = json_obj(root, "model", &at)) < 0)
		return malformed("model", e);
	if (r == 0)
		return 0;
	if (sections[section].is_object) {
		r = json_obj(at, key, ret);
		return r < 0 ? malformed(key, e) : r == 1 && nth == 0;
	}
	r = json_arr(at, key, &list);
	if (r < 0)
		return malformed(key, e);
	if (r == 0 || nth >= yyjson_arr_size(list))
		return 0;
	*ret = yyjson_arr_get(list, nth);
	return yyjson_is_obj(*ret) ? 1 : malformed(key, e);
}

static bool has_layer_info(yyjson_val *entry)
{
	return yyjson_obj_get(entry, "digest") || yyjson_obj_get(entry, "diffId");
}

int layout_kitfile_read(const void *p, size_t n, struct layout_kitfile *ret, struct err *e)
{
	struct layout_kitfile k = { .old = true };
	yyjson_val *entry, *list, *at;

	if (!p)
		return err_set(e, CODE_INTEGRITY, "the ModelKit lacks its Kitfile (the config)");
	if (json_parse(p, n, "Kitfile", &k.doc, e))
		return -1;
	if (!yyjson_is_obj(k.doc.root)) {
		json_release(&k.doc);
		return err_set(e, CODE_INTEGRITY, "Kitfile: it is no object");
	}
	for (size_t s = 0; s < ARRAY_SIZE(sections); s++) {
		int r = entry_of(k.doc.root, s, 0, &entry, e);
		if (r < 0) {
			json_release(&k.doc);
			return -1;
		}
		if (r == 0)
			continue;
		k.old = k.old && !has_layer_info(entry);
	}
	/* a kit of prompts alone */
	if (json_arr(k.doc.root, "prompts", &list) == 1 && (at = yyjson_arr_get_first(list)))
		k.old = k.old && !has_layer_info(at);
	*ret = k;
	return 0;
}

void layout_kitfile_release(struct layout_kitfile *k)
{
	if (k->doc.doc)
		json_release(&k->doc);
}

/* "./a/b/" as "a/"; "b" and "." as "". */
static int directory_of(struct str path, char **ret, struct err *e)
{
	_cleanup_free_ char *clean = NULL;

	while (path.n > 1 && path.p[path.n - 1] == '/')
		path.n--;
	while (path.n > 1 && path.p[0] == '.' && path.p[1] == '/') {
		path.p += 2;
		path.n -= 2;
		while (path.n && path.p[0] == '/') {
			path.p++;
			path.n--;
		}
	}
	if (path.n && !str_eq(path, ".") && layout_check_path(path, &clean, e))
		return err_wrap(e, "Kitfile");
	char *slash = clean ? strrchr(clean, '/') : NULL;
	*ret = strndup(clean ? clean : "", slash ? (size_t)(slash + 1 - clean) : 0);
	return *ret ? 0 : err_oom(e);
}

int layout_kitfile_prefix(const struct layout_kitfile *k, const char *word, size_t nth, char **ret,
			  struct err *e)
{
	struct str path = { "", 0 };
	yyjson_val *entry = NULL;
	size_t s = 0;

	while (s < ARRAY_SIZE(sections) && strcmp(sections[s].word, word) != 0)
		s++;
	if (!k->old || s == ARRAY_SIZE(sections)) {
		*ret = strdup("");
		return *ret ? 0 : err_oom(e);
	}
	int r = entry_of(k->doc.root, s, nth, &entry, e);
	if (r < 0)
		return -1;
	if (r == 0)
		return err_set(e, CODE_INTEGRITY,
			       "Kitfile: it has no entry for %s layer number %zu", word, nth + 1);
	if (json_str(entry, "path", &path) < 0)
		return malformed("path", e);
	return directory_of(path, ret, e);
}

struct str layout_kitfile_model(const struct layout_kitfile *k)
{
	struct str path = { "", 0 };
	yyjson_val *model;

	if (json_obj(k->doc.root, "model", &model) == 1)
		json_str(model, "path", &path);
	return path;
}
