// SPDX-License-Identifier: Apache-2.0
/* JSON of the ready marker and of meta files. */
#include "store_internal.h"

#include <errno.h>
#include <nettle/base64.h>
#include <string.h>
#include <unistd.h>

#define SCHEMA 1

void store_marker_release(struct store_marker *m)
{
	free(m->ref);
	free(m->media_type);
	free(m->artifact_type);
	free(m->path);
	free(m->version);
	free(m->previous);
	free(m->fetcher);
	*m = (struct store_marker){ 0 };
}

void store_meta_release(struct store_meta *m)
{
	free(m->media_type);
	free(m->selection);
	buf_release(&m->raw);
	buf_release(&m->manifest_raw);
	for (size_t i = 0; i < m->n_files; i++) {
		free(m->files[i].path);
		free(m->files[i].target);
	}
	free(m->files);
	*m = (struct store_meta){ 0 };
}

/* --- getters that refuse instead of telling why --- */

static bool get_text(yyjson_val *obj, const char *key, char **ret)
{
	return json_strdup(obj, key, ret) == 0 && *ret;
}

static bool get_digest(yyjson_val *obj, struct digest *ret)
{
	struct str s;

	return json_str(obj, "digest", &s) == 1 && digest_parse(s, ret);
}

static bool get_schema(yyjson_val *obj)
{
	uint64_t schema;

	return json_u64(obj, "schema", &schema) == 1 && schema == SCHEMA;
}

int meta_read_json(int dirfd, const char *name, uint64_t max, struct buf *b, struct json_doc *ret,
		   struct err *e)
{
	b->max = max;
	if (sys_read_file(dirfd, name, b) < 0) {
		if (errno == ENOMEM)
			return err_oom(e);
		/* What stands there and is no plain small file of ours is no marker. */
		if (errno != EACCES && errno != EPERM && errno != EIO && errno != EMFILE &&
		    errno != ENFILE && errno != ESTALE)
			return 0;
		return err_errno(e, CODE_LOCAL, errno, "cannot read .fetcher/%s", name);
	}
	return json_parse(buf_cstr(b), b->len, name, ret, NULL) == 0;
}

/* --- the marker --- */

static bool marker_fields(yyjson_val *o, struct store_marker *m)
{
	struct str s;

	if (!get_schema(o) || !get_digest(o, &m->digest) || !get_text(o, "ref", &m->ref) ||
	    !get_text(o, "mediaType", &m->media_type) ||
	    !get_text(o, "artifactType", &m->artifact_type) || !get_text(o, "path", &m->path) ||
	    !get_text(o, "version", &m->version) || !get_text(o, "fetcher", &m->fetcher))
		return false;
	if (json_strdup(o, "previous", &m->previous) < 0 ||
	    json_u64(o, "files", &m->files) != 1 || json_u64(o, "bytes", &m->bytes) != 1 ||
	    json_u64(o, "downloaded", &m->downloaded) != 1 ||
	    json_u64(o, "durationMs", &m->duration_ms) != 1 ||
	    json_u64(o, "generation", &m->generation) != 1)
		return false;
	if (json_str(o, "publishedAt", &s) != 1 || s.n >= sizeof(m->published_at))
		return false;
	memcpy(m->published_at, s.p, s.n);
	m->published_at[s.n] = 0;
	return (strcmp(m->path, ".") == 0 || strcmp(m->path, CURRENT_LINK) == 0) &&
	       store_version_ok(m->version);
}

int marker_read(int top_fd, const char *name, struct store_marker *ret, struct err *e)
{
	_cleanup_buf_ struct buf b = { 0 };
	struct store_marker m = { 0 };
	struct json_doc doc;
	int rc = meta_read_json(top_fd, name, LIMIT_MARKER, &b, &doc, e);

	if (rc <= 0)
		return rc;
	rc = marker_fields(doc.root, &m);
	json_release(&doc);
	if (rc)
		*ret = m;
	else
		store_marker_release(&m);
	return rc;
}

static void add_digest(struct buf *b, const char *key, const struct digest *d)
{
	char text[DIGEST_STR_MAX];

	json_add_text(b, key, digest_format(d, ':', text));
}

static const char *or_empty(const char *s)
{
	return s ? s : "";
}

int marker_format(const struct store_marker *m, struct buf *b)
{
	buf_addf(b, "{\"schema\":%d", SCHEMA);
	json_add_text(b, "ref", or_empty(m->ref));
	add_digest(b, "digest", &m->digest);
	json_add_text(b, "mediaType", or_empty(m->media_type));
	json_add_text(b, "artifactType", or_empty(m->artifact_type));
	json_add_text(b, "path", m->path);
	json_add_number(b, "files", m->files);
	json_add_number(b, "bytes", m->bytes);
	json_add_number(b, "downloaded", m->downloaded);
	json_add_text(b, "publishedAt", m->published_at);
	json_add_number(b, "durationMs", m->duration_ms);
	json_add_text(b, "previous", m->previous);
	json_add_number(b, "generation", m->generation);
	json_add_text(b, "fetcher", or_empty(m->fetcher));
	json_add_text(b, "version", m->version);
	buf_adds(b, "}\n");
	return b->failed ? -1 : 0;
}

/* --- meta --- */

int meta_compare_files(const void *a, const void *b)
{
	return strcmp(((const struct store_file *)a)->path, ((const struct store_file *)b)->path);
}

bool meta_path_ok(struct str path)
{
	size_t top = strlen(TOP_DIR);

	if (!path.n || path.n > LIMIT_PATH || path.p[0] == '/')
		return false;
	if (path.n >= top && memcmp(path.p, TOP_DIR, top) == 0 &&
	    (path.n == top || path.p[top] == '/'))
		return false;
	for (size_t i = 0, start = 0; i <= path.n; i++) {
		const char *c = path.p + start;
		size_t n = i - start;

		if (i < path.n && ((unsigned char)path.p[i] < 0x20 || path.p[i] == 0x7f))
			return false;
		if (i < path.n && path.p[i] != '/')
			continue;
		if (n == 0 || (n == 1 && c[0] == '.') || (n == 2 && c[0] == '.' && c[1] == '.'))
			return false;
		start = i + 1;
	}
	return true;
}

/* "SECONDS.NNNNNNNNN"; before 1970 with a minus, the nanoseconds always count forward. */
bool mtime_parse(struct str s, int64_t *ret_sec, uint32_t *ret_nsec)
{
	const char *dot = memchr(s.p, '.', s.n);
	uint64_t sec, nsec = 0;
	bool minus = s.n && s.p[0] == '-';

	if (!dot || s.p + s.n - dot != 10)
		return false;
	for (int i = 1; i <= 9; i++) {
		if (dot[i] < '0' || dot[i] > '9')
			return false;
		nsec = nsec * 10 + (uint64_t)(dot[i] - '0');
	}
	if (!str_u64((struct str){ s.p + minus, (size_t)(dot - s.p) - minus }, &sec) ||
	    sec > INT64_MAX)
		return false;
	*ret_sec = minus ? -(int64_t)sec : (int64_t)sec;
	*ret_nsec = (uint32_t)nsec;
	return true;
}

/* What a link says must be what its digest says. */
static bool meta_target(yyjson_val *o, struct store_file *f)
{
	struct digest d;
	size_t n;

	if (!meta_get_bytes(o, "target", &f->target, &n) || n != f->size || memchr(f->target, 0, n))
		return false;
	digest_of(f->digest.alg, f->target, n, &d);
	return digest_equal(&d, &f->digest);
}

/* On failure the caller frees what f got. */
static bool meta_file(yyjson_val *o, struct store_file *f)
{
	struct str mtime;
	size_t n;

	return meta_kind(o, &f->kind) && get_digest(o, &f->digest) &&
	       json_u64(o, "size", &f->size) == 1 && json_u64(o, "ino", &f->ino) == 1 &&
	       json_str(o, "mtime", &mtime) == 1 &&
	       mtime_parse(mtime, &f->mtime_sec, &f->mtime_nsec) &&
	       meta_get_bytes(o, "path", &f->path, &n) && meta_path_ok((struct str){ f->path, n }) &&
	       (f->kind != LAYOUT_SYMLINK || meta_target(o, f));
}

static bool meta_files(yyjson_val *o, struct store_meta *m)
{
	yyjson_val *arr, *v;
	size_t i, max;

	if (json_arr(o, "files", &arr) != 1)
		return false;
	m->files = calloc(yyjson_arr_size(arr) + 1, sizeof(*m->files));
	if (!m->files)
		return false;
	yyjson_arr_foreach(arr, i, max, v) {
		if (!meta_file(v, &m->files[m->n_files++]))
			return false;
	}
	qsort(m->files, m->n_files, sizeof(*m->files), meta_compare_files);
	return true;
}

static bool get_base64(yyjson_val *o, const char *key, size_t max, struct buf *ret)
{
	_cleanup_free_ uint8_t *bytes = NULL;
	struct base64_decode_ctx ctx;
	struct str s = { "", 0 };
	size_t n;

	*ret = BUF_INIT(max);
	if (json_str(o, key, &s) < 0)
		return false;
	n = BASE64_DECODE_LENGTH(s.n) + 1;
	bytes = malloc(n);
	if (!bytes)
		return false;
	base64_decode_init(&ctx);
	if (!base64_decode_update(&ctx, &n, bytes, s.n, s.p) || !base64_decode_final(&ctx))
		return false;
	return n == 0 || buf_add(ret, bytes, n) == 0;
}

static bool meta_fields(yyjson_val *o, bool docs, struct store_meta *m)
{
	char boot[40];
	struct str layout, was = { "", 0 };
	bool durable;

	if (!get_schema(o) || !get_digest(o, &m->digest) ||
	    !get_text(o, "mediaType", &m->media_type) ||
	    !get_text(o, "selection", &m->selection) || json_str(o, "layout", &layout) != 1 ||
	    json_bool(o, "durable", &durable) != 1 || json_str(o, "boot", &was) < 0)
		return false;
	if (str_eq(layout, "versions"))
		m->layout = STORE_VERSIONS;
	else if (!str_eq(layout, "flat"))
		return false;
	m->trusted = durable;
	if (!durable) {
		sys_boot_id(boot);
		m->trusted = boot[0] && str_eq(was, boot);
	}
	if (docs && (!get_base64(o, "document", LIMIT_MANIFEST, &m->raw) ||
		     !get_base64(o, "manifest", LIMIT_MANIFEST, &m->manifest_raw)))
		return false;
	return meta_files(o, m);
}

int meta_read(int meta_fd, const char *version, bool docs, struct store_meta *ret, struct err *e)
{
	_cleanup_buf_ struct buf name = BUF_INIT(VERSION_MAX);
	_cleanup_buf_ struct buf b = { 0 };
	struct store_meta m = { 0 };
	struct json_doc doc;
	int rc;

	if (buf_addf(&name, "%s" META_SUFFIX, version) < 0)
		return 0;
	rc = meta_read_json(meta_fd, name.data, LIMIT_META, &b, &doc, e);
	if (rc <= 0)
		return rc;
	rc = meta_fields(doc.root, docs, &m);
	json_release(&doc);
	if (rc)
		*ret = m;
	else
		store_meta_release(&m);
	return rc;
}

static void add_base64(struct buf *b, const char *key, const void *p, size_t len)
{
	size_t n = BASE64_ENCODE_RAW_LENGTH(len);
	_cleanup_free_ char *text = malloc(n + 1);

	if (!text) {
		b->failed = true;
		return;
	}
	base64_encode_raw(text, len, p);
	buf_addf(b, "\"%s\":\"", key);
	buf_add(b, text, n);
	buf_addc(b, '"');
}

static void add_document(struct buf *b, const char *key, const struct buf *doc)
{
	buf_adds(b, ",\n");
	add_base64(b, key, buf_cstr(doc), doc->len);
}

#define REPLACEMENT "\xef\xbf\xbd"	/* U+FFFD, which the writer of JSON puts for what is no UTF-8 */
#define KEY_MAX 32

void meta_add_bytes(struct buf *b, const char *key, const char *p, size_t n)
{
	size_t start = b->len;
	char key64[KEY_MAX];

	buf_addf(b, "\"%s\":", key);
	json_add_string(b, p, n);
	if (b->failed || !memmem(b->data + start, b->len - start, REPLACEMENT, strlen(REPLACEMENT)))
		return;
	b->len = start;
	b->data[start] = 0;
	snprintf(key64, sizeof(key64), "%sBase64", key);
	add_base64(b, key64, p, n);
}

bool meta_get_bytes(yyjson_val *obj, const char *key, char **ret, size_t *ret_n)
{
	_cleanup_buf_ struct buf b = { 0 };
	char key64[KEY_MAX];
	struct str s;

	if (json_str(obj, key, &s) == 1) {
		*ret = strndup(s.p, s.n);
		*ret_n = s.n;
		return *ret != NULL;
	}
	snprintf(key64, sizeof(key64), "%sBase64", key);
	if (json_str(obj, key64, &s) != 1 || !get_base64(obj, key64, LIMIT_PATH, &b) || !b.len)
		return false;
	*ret_n = b.len;
	*ret = buf_steal(&b);
	return *ret != NULL;
}

const char *meta_kind_word(enum layout_kind kind)
{
	return kind == LAYOUT_SYMLINK ? "symlink" : kind == LAYOUT_DIR ? "dir" : NULL;
}

bool meta_kind(yyjson_val *obj, enum layout_kind *ret)
{
	struct str s;
	int rc = json_str(obj, "kind", &s);

	*ret = LAYOUT_FILE;
	for (enum layout_kind k = LAYOUT_SYMLINK; rc == 1 && k <= LAYOUT_DIR; k++)
		if (str_eq(s, meta_kind_word(k)))
			*ret = k;
	return rc == 0 || (rc == 1 && *ret != LAYOUT_FILE);
}

/* The longest single addition, a path with all bytes escaped, is far shorter. */
#define NEARLY_FULL (64 * KIB)

int meta_fail(const struct buf *b, const char *what, struct err *e)
{
	if (b->max - b->len < NEARLY_FULL)
		return err_set(e, CODE_UNSUPPORTED, "too many files: %s would be larger than %llu bytes", what,
			       (unsigned long long)b->max);
	return err_oom(e);
}

static void add_file(struct buf *b, const struct store_file *f)
{
	const char *kind = meta_kind_word(f->kind);
	char text[DIGEST_STR_MAX];

	buf_addc(b, '{');
	meta_add_bytes(b, "path", f->path, strlen(f->path));
	if (kind)
		buf_addf(b, ",\"kind\":\"%s\"", kind);
	buf_addf(b, ",\"digest\":\"%s\",\"size\":%llu,\"ino\":%llu,\"mtime\":\"%lld.%09u\"",
		 digest_format(&f->digest, ':', text), (unsigned long long)f->size,
		 (unsigned long long)f->ino, (long long)f->mtime_sec, f->mtime_nsec);
	if (f->kind == LAYOUT_SYMLINK) {
		buf_addc(b, ',');
		meta_add_bytes(b, "target", f->target, (size_t)f->size);
	}
	buf_addc(b, '}');
}

int meta_format(const struct store_meta *m, bool durable, struct buf *b)
{
	char boot[40];

	sys_boot_id(boot);
	buf_addf(b, "{\"schema\":%d", SCHEMA);
	add_digest(b, "digest", &m->digest);
	json_add_text(b, "mediaType", or_empty(m->media_type));
	json_add_text(b, "layout", m->layout == STORE_VERSIONS ? "versions" : "flat");
	json_add_text(b, "selection", or_empty(m->selection));
	buf_addf(b, ",\"durable\":%s", durable ? "true" : "false");
	json_add_text(b, "boot", boot);
	buf_adds(b, ",\"files\":[");
	for (size_t i = 0; i < m->n_files; i++) {
		buf_adds(b, i ? ",\n" : "\n");
		add_file(b, &m->files[i]);
	}
	buf_adds(b, "]");
	add_document(b, "document", &m->raw);
	add_document(b, "manifest", &m->manifest_raw);
	buf_adds(b, "}\n");
	return b->failed ? -1 : 0;
}
