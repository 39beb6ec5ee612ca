// SPDX-License-Identifier: Apache-2.0
/* Records of layers: what came out of one, so that it need not be fetched again to know. */
#include "store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCHEMA 1
#define FIRST_ROOM 64
#define RECORD_NAME (VERSION_MAX + sizeof(META_SUFFIX))

void store_layer_release(struct store_layer *l)
{
	for (size_t i = 0; i < l->n_files; i++)
		layout_file_release(&l->files[i]);
	for (size_t i = 0; i < l->n_whiteouts; i++)
		free(l->whiteouts[i]);
	free(l->files);
	free(l->whiteouts);
	*l = (struct store_layer){ 0 };
}

/* --- writing --- */

static void add_file(struct buf *b, const struct layout_file *f)
{
	const char *kind = meta_kind_word(f->kind);
	char digest[DIGEST_STR_MAX];

	buf_addc(b, '{');
	meta_add_bytes(b, "path", f->path, strlen(f->path));
	if (kind)
		buf_addf(b, ",\"kind\":\"%s\"", kind);
	if (f->kind == LAYOUT_FILE)
		buf_addf(b, ",\"size\":%llu,\"mode\":%u", (unsigned long long)f->size, f->mode & 0777);
	if (f->kind == LAYOUT_FILE && f->has_mtime)
		buf_addf(b, ",\"mtime\":\"%lld.%09u\"", (long long)f->mtime_sec, f->mtime_nsec);
	if (f->kind != LAYOUT_DIR)
		buf_addf(b, ",\"digest\":\"%s\"", digest_format(&f->digest, ':', digest));
	if (f->kind == LAYOUT_SYMLINK) {
		buf_addc(b, ',');
		meta_add_bytes(b, "target", (const char *)f->data, (size_t)f->size);
	}
	buf_addc(b, '}');
}

static void format_record(struct buf *b, const struct layout_file *files, size_t n_files,
			  char *const *whiteouts, size_t n_whiteouts, bool saw_subdir)
{
	char boot[40];

	sys_boot_id(boot);
	buf_addf(b, "{\"schema\":%d,\"bootId\":", SCHEMA);
	json_add_string(b, boot, strlen(boot));
	buf_addf(b, ",\"sawSubdir\":%s,\"files\":[", saw_subdir ? "true" : "false");
	for (size_t i = 0; i < n_files; i++) {
		buf_adds(b, i ? ",\n" : "\n");
		add_file(b, &files[i]);
	}
	buf_adds(b, "],\n\"whiteouts\":[");
	for (size_t i = 0; i < n_whiteouts; i++) {
		buf_adds(b, i ? ",\n{" : "\n{");
		meta_add_bytes(b, "path", whiteouts[i], strlen(whiteouts[i]));
		buf_addc(b, '}');
	}
	buf_adds(b, "]}\n");
}

int store_layer_write(struct store *s, const char *name, const struct layout_file *files, size_t n_files,
		      char *const *whiteouts, size_t n_whiteouts, bool saw_subdir, bool sync, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(LIMIT_META);
	_cleanup_close_ int fd = -1;
	char record[RECORD_NAME];

	if (!store_version_ok(name))
		return err_set(e, CODE_INTERNAL, "no name of a layer: %s", name);
	fd = store_subdir(s, LAYERS_DIR, 0755);
	if (fd < 0)
		return store_fail(s, e, "open", TOP_DIR "/" LAYERS_DIR);
	format_record(&text, files, n_files, whiteouts, n_whiteouts, saw_subdir);
	if (text.failed)
		return meta_fail(&text, "the record of the layer", e);
	snprintf(record, sizeof(record), "%s" META_SUFFIX, name);
	if (sys_replace_file(fd, record, text.data, text.len, 0644, sync && !s->memory_fs) < 0)
		return store_fail(s, e, "write the record of a layer in", TOP_DIR "/" LAYERS_DIR);
	return 0;
}

/* --- reading: whoever can write to the volume may have written it --- */

/* v with room for one more, or NULL. It grows as elements prove to be right: a long list of nothing costs nothing. */
static void *room(void *v, size_t size, size_t n, size_t *cap)
{
	size_t bytes, want = *cap ? *cap * 2 : FIRST_ROOM;
	char *more;

	if (n < *cap)
		return v;
	if (!size_mul(want, size, &bytes))
		return NULL;
	more = realloc(v, bytes);
	if (!more)
		return NULL;
	memset(more + n * size, 0, (want - n) * size);
	*cap = want;
	return more;
}

/* As it would come out of an archive: safe, and clean already. */
static bool path_ok(const char *path, size_t n)
{
	_cleanup_free_ char *clean = NULL;
	struct err ignored;

	return layout_check_path((struct str){ path, n }, &clean, &ignored) == 0 &&
	       strlen(clean) == n && memcmp(clean, path, n) == 0;
}

static bool whiteout_ok(const char *path, size_t n)
{
	if (n == 1 && path[0] == '/')
		return true;
	return n && path_ok(path, n - (path[n - 1] == '/'));
}

static bool target_ok(const char *path, struct str target)
{
	struct err ignored;

	return layout_check_link(path, target, &ignored) == 0;
}

static bool get_digest(yyjson_val *o, struct digest *ret)
{
	struct str s;

	return json_str(o, "digest", &s) == 1 && digest_parse(s, ret);
}

static bool link_fields(yyjson_val *o, struct layout_file *f)
{
	struct digest d;
	char *target = NULL;
	size_t n = 0;
	bool ok = meta_get_bytes(o, "target", &target, &n);

	f->data = (const uint8_t *)target;
	f->size = n;
	if (!ok || !target_ok(f->path, (struct str){ target, n }) || !get_digest(o, &f->digest))
		return false;
	digest_of(f->digest.alg, target, n, &d);
	return digest_equal(&d, &f->digest);
}

static bool file_fields(yyjson_val *o, struct layout_file *f)
{
	uint64_t mode;
	struct digest none;
	struct str mtime;
	int has = json_str(o, "mtime", &mtime);

	if (!get_digest(o, &f->digest) || json_u64(o, "size", &f->size) != 1 || f->size > LIMIT_BLOB ||
	    json_u64(o, "mode", &mode) != 1 || mode > 0777 || has < 0 ||
	    (has == 1 && !mtime_parse(mtime, &f->mtime_sec, &f->mtime_nsec)))
		return false;
	f->mode = (uint32_t)mode;
	f->has_mtime = has == 1;
	digest_of(f->digest.alg, "", 0, &none);
	return (f->size == 0) == digest_equal(&none, &f->digest);
}

/* On failure the caller frees what f got. */
static bool record_file(yyjson_val *o, struct layout_file *f)
{
	size_t n;

	if (!meta_kind(o, &f->kind) || !meta_get_bytes(o, "path", &f->path, &n) || !path_ok(f->path, n))
		return false;
	if (f->kind == LAYOUT_DIR)
		return true;
	return f->kind == LAYOUT_SYMLINK ? link_fields(o, f) : file_fields(o, f);
}

static bool record_files(yyjson_val *o, struct store_layer *l)
{
	uint64_t total = 0;
	yyjson_val *arr, *v;
	size_t i, max, cap = 0;

	if (json_arr(o, "files", &arr) != 1)
		return false;
	yyjson_arr_foreach(arr, i, max, v) {
		struct layout_file *f = room(l->files, sizeof(*l->files), l->n_files, &cap);

		if (!f)
			return false;
		l->files = f;
		f = &l->files[l->n_files++];
		if (!record_file(v, f) || !u64_add(total, f->size, &total) || total > LIMIT_TOTAL)
			return false;
	}
	return true;
}

static bool record_whiteouts(yyjson_val *o, struct store_layer *l)
{
	yyjson_val *arr, *v;
	size_t i, max, cap = 0, n;

	if (json_arr(o, "whiteouts", &arr) != 1)
		return false;
	yyjson_arr_foreach(arr, i, max, v) {
		char **more = room(l->whiteouts, sizeof(*l->whiteouts), l->n_whiteouts, &cap);

		if (!more)
			return false;
		l->whiteouts = more;
		if (!meta_get_bytes(v, "path", &l->whiteouts[l->n_whiteouts], &n))
			return false;
		if (!whiteout_ok(l->whiteouts[l->n_whiteouts++], n))
			return false;
	}
	return true;
}

static bool record_fields(yyjson_val *o, struct store_layer *l)
{
	struct str boot_id;
	uint64_t schema;
	char boot[40];

	if (json_u64(o, "schema", &schema) != 1 || schema != SCHEMA ||
	    json_str(o, "bootId", &boot_id) != 1 || json_bool(o, "sawSubdir", &l->saw_subdir) != 1)
		return false;
	sys_boot_id(boot);
	l->same_boot = boot[0] && str_eq(boot_id, boot);
	return record_files(o, l) && record_whiteouts(o, l);
}

int store_layer_read(struct store *s, const char *name, struct store_layer *ret, struct err *e)
{
	_cleanup_close_ int fd = store_version_ok(name) ? store_subdir(s, LAYERS_DIR, 0) : -1;
	_cleanup_buf_ struct buf b = { 0 };
	struct store_layer l = { 0 };
	char record[RECORD_NAME];
	struct json_doc doc;
	int rc;

	if (fd < 0)
		return 0;
	snprintf(record, sizeof(record), "%s" META_SUFFIX, name);
	rc = meta_read_json(fd, record, LIMIT_META, &b, &doc, e);
	if (rc <= 0)
		return rc;
	rc = record_fields(doc.root, &l);
	json_release(&doc);
	if (!rc) {
		store_layer_release(&l);
		return 0;
	}
	/* Where it cannot be set (another owner, a read-only mount) the record only goes earlier. */
	(void)utimensat(fd, record, NULL, AT_SYMLINK_NOFOLLOW);
	*ret = l;
	return 1;
}

/* --- which ones stay --- */

struct records {
	struct record {
		char name[RECORD_NAME];
		int64_t sec;
		long nsec;
		uint64_t bytes;
	} *v;
	size_t n, cap;
};

static int collect(void *arg, int dirfd, const char *name)
{
	struct records *r = arg;
	char layer[VERSION_MAX];
	struct record *v;
	struct stat st;

	if (!name_stem(name, META_SUFFIX, layer) || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	v = room(r->v, sizeof(*r->v), r->n, &r->cap);
	if (!v)
		return -1;
	r->v = v;
	v += r->n++;
	snprintf(v->name, sizeof(v->name), "%s", name);
	v->sec = (int64_t)st.st_mtim.tv_sec;
	v->nsec = st.st_mtim.tv_nsec;
	v->bytes = (uint64_t)st.st_blocks * 512;
	return 0;
}

static int newest_first(const void *a, const void *b)
{
	const struct record *x = a, *y = b;

	if (x->sec != y->sec)
		return x->sec > y->sec ? -1 : 1;
	if (x->nsec != y->nsec)
		return x->nsec > y->nsec ? -1 : 1;
	return strcmp(x->name, y->name);
}

uint64_t store_layers_trim(struct store *s, size_t keep)
{
	_cleanup_close_ int fd = store_subdir(s, LAYERS_DIR, 0);
	struct records r = { 0 };
	uint64_t freed = 0;

	/* Without all of them nobody knows which are the newest. */
	if (s->lock_fd >= 0 && fd >= 0 && store_each_name(fd, collect, &r) == 0 && r.n > keep) {
		qsort(r.v, r.n, sizeof(*r.v), newest_first);
		for (size_t i = keep; i < r.n; i++)
			freed += sys_remove_tree(fd, r.v[i].name) == 0 ? r.v[i].bytes : 0;
	}
	free(r.v);
	return freed;
}
