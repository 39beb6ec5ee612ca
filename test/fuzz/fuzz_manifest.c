// SPDX-License-Identifier: Apache-2.0
/*
 * Documents of a registry: parse, choose from an index, lay a manifest out. Whatever comes in, a
 * laid-out path stays inside. An annotation "include" at the top serves as the glob, so that the
 * matcher is reached too.
 */
#include <stdlib.h>
#include <string.h>

#include "layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void check_layout(const struct layout *l)
{
	uint64_t sum = 0;

	check(l->n_files + l->n_trees > 0);
	for (size_t i = 0; i < l->n_files; i++) {
		const char *p = l->files[i].path;
		char *again = NULL;
		check(layout_check_path(str_of(p), &again, NULL) == 0 && strcmp(again, p) == 0);
		free(again);
		check(p[0] != '/' && !strstr(p, "//") && strncmp(p, "../", 3) != 0 &&
		      !strstr(p, "/../") && strcmp(p, "..") != 0);
		check(i == 0 || strcmp(l->files[i - 1].path, p) < 0);
		check((l->files[i].mode & ~0777U) == 0 && l->files[i].mtime_nsec < 1000000000);
		check(l->files[i].digest.alg != DIGEST_NONE);
		sum += l->files[i].size;
	}
	check(sum == l->bytes && l->unique_bytes <= l->bytes);
}

static void lay_out(const struct oci_manifest *m)
{
	const char *globs[] = { oci_annotation(m->annotations, m->n_annotations, "include"), NULL };
	struct layout_options o = { .include = globs };
	struct layout l = { 0 };
	struct err e = { 0 };

	if (layout_plan(m, &o, &l, &e) == 0)
		check_layout(&l);
	else
		check(e.msg[0] && !l.files &&
		      (e.code == CODE_UNSAFE || e.code == CODE_UNSUPPORTED ||
		       e.code == CODE_INTEGRITY));
	layout_release(&l);
}

static void check_data(const struct oci_descriptor *d)
{
	struct digest computed;

	if (!d->data)
		return;
	digest_of(d->digest.alg, d->data, d->size, &computed);
	check(digest_equal(&d->digest, &computed));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct oci_manifest m = { 0 };
	struct oci_platform p = { 0 };
	struct err e = { 0 };
	size_t entry;

	if (oci_manifest_parse((const char *)data, size, NULL, &m, &e)) {
		check(e.msg[0] && (e.code == CODE_INTEGRITY || e.code == CODE_UNSUPPORTED));
		return 0;
	}
	check(m.media_type && m.artifact_type && m.config.media_type);
	for (size_t i = 0; i < m.n_layers; i++)
		check_data(&m.layers[i]);
	if (!m.is_index) {
		lay_out(&m);
	} else {
		if (oci_index_select(&m, NULL, &entry, &e) == 0)
			check(entry < m.n_layers && m.layers[entry].digest.alg != DIGEST_NONE);
		if (oci_platform_parse("linux/arm64/v8", &p, &e) == 0 &&
		    oci_index_select(&m, &p, &entry, &e) == 0)
			check(entry < m.n_layers);
		oci_platform_release(&p);
	}
	oci_manifest_release(&m);
	return 0;
}
