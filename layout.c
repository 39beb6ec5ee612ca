// SPDX-License-Identifier: Apache-2.0
#include "layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

/* Longest excerpt of foreign text in a message. */
#define SHOWN 200

void layout_release(struct layout *l)
{
	for (size_t i = 0; i < l->n_files; i++)
		free(l->files[i].path);
	free(l->files);
	for (size_t i = 0; i < l->n_warnings; i++)
		free(l->warnings[i]);
	free(l->warnings);
	*l = (struct layout){ 0 };
}

/* --- paths --- */

static int unsafe(struct str path, const char *why, struct err *e)
{
	char shown[SHOWN];

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

static const char *component_fault(struct str c, bool first)
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
		return unsafe(in, fault, e);
	_cleanup_free_ char *out = malloc(in.n + 1);
	if (!out)
		return err_oom(e);
	while (p < end) {
		const char *slash = memchr(p, '/', (size_t)(end - p));
		struct str c = { p, (size_t)((slash ? slash : end) - p) };
		bool dot = c.n == 1 && c.p[0] == '.';
		if (dot && !slash)
			return unsafe(in, "it names a directory", e);
		p = slash ? slash + 1 : end;
		if (c.n == 0 || dot)
			continue;
		fault = component_fault(c, len == 0);
		if (!fault && ++depth > LIMIT_PATH_DEPTH)
			fault = "more than 64 directories deep";
		if (fault)
			return unsafe(in, fault, e);
		if (len)
			out[len++] = '/';
		memcpy(out + len, c.p, c.n);
		len += c.n;
	}
	out[len] = '\0';
	*ret = steal_ptr(&out);
	return 0;
}

/* --- kinds of layers --- */

enum kind {
	KIND_FILE,	/* the blob is the file */
	KIND_UNPACK,	/* an archive whose content is meant */
	KIND_NAMELESS,	/* a model producer's type, but nothing says which file it is */
	KIND_SKIP,	/* not ours, worth a warning */
	KIND_EMPTY,	/* the empty descriptor */
};

struct layer {
	const struct oci_descriptor *d;
	size_t number;		/* from 1 */
	const char *name;	/* annotation as it came, or NULL */
	const char *name_key;
};

static const char *annotation(const struct oci_descriptor *d, const char *key)
{
	return oci_annotation(d->annotations, d->n_annotations, key);
}

static bool has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* ".tar", ".tar+gzip", ".tar.gz" and what else may follow, as a whole word of the subtype. */
static bool says_tar(const char *type)
{
	for (const char *p = strstr(type, ".tar"); p; p = strstr(p + 1, ".tar"))
		if (p[4] == '\0' || p[4] == '+' || p[4] == '.' || p[4] == '-')
			return true;
	return false;
}

static bool is_image_config(const char *type)
{
	return strcmp(type, OCI_TYPE_IMAGE_CONFIG) == 0 ||
	       strcmp(type, DOCKER_TYPE_IMAGE_CONFIG) == 0;
}

static bool is_image_layer(const char *type)
{
	return has_prefix(type, "application/vnd.oci.image.layer.") ||
	       has_prefix(type, "application/vnd.docker.image.rootfs.");
}

/* Types that say by themselves that their content is part of a model. */
static bool is_model_type(const char *type)
{
	static const char *const families[] = {
		"application/vnd.cncf.model.",   "application/vnd.cnai.model.",
		"application/vnd.docker.ai.",    "application/vnd.kitops.modelkit.",
		"application/vnd.ollama.image.",
	};

	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		if (has_prefix(type, families[i]))
			return true;
	return false;
}

/*
 * Path source: ModelPack's annotation, its legacy twin, then the title (podman writes titles that
 * are no paths).
 */
static struct layer layer_at(const struct oci_manifest *m, size_t i)
{
	static const char *const keys[] = {
		"org.cncf.model.filepath",
		"org.cnai.model.filepath",
		"org.opencontainers.image.title",
	};
	struct layer l = { .d = &m->layers[i], .number = i + 1 };

	for (size_t k = 0; k < ARRAY_SIZE(keys) && !l.name; k++) {
		l.name = annotation(l.d, keys[k]);
		l.name_key = keys[k];
	}
	return l;
}

static enum kind kind_of(const struct oci_manifest *m, const struct layer *l, bool any_name)
{
	const char *type = l->d->media_type,
		   *unpack = annotation(l->d, "io.deis.oras.content.unpack");

	if (unpack && strcmp(unpack, "true") == 0)
		return KIND_UNPACK;
	if (is_model_type(type) && says_tar(type))
		return KIND_UNPACK;
	if (l->name)
		return KIND_FILE; /* also plain files of oras, typed as image layers */
	if (is_model_type(type))
		return KIND_NAMELESS;
	if (strcmp(type, OCI_TYPE_EMPTY) == 0)
		return KIND_EMPTY;
	if (is_image_layer(type) && is_image_config(m->config.media_type) && !any_name)
		return KIND_UNPACK;
	return KIND_SKIP;
}

/* --- file metadata --- */

static int warn(struct layout *l, const char *fmt, size_t number, const char *detail, struct err *e)
{
	char shown[SHOWN];
	char **grown = realloc(l->warnings, (l->n_warnings + 1) * sizeof(*grown));
	struct buf b = BUF_INIT(512);

	if (!grown)
		return err_oom(e);
	l->warnings = grown;
	buf_addf(&b, "layer %zu: ", number);
	buf_addf(&b, "%s (%s)", fmt, json_show(str_of(detail), shown, sizeof(shown)));
	char *text = buf_steal(&b);
	if (!text)
		return err_oom(e);
	l->warnings[l->n_warnings++] = text;
	return 0;
}

/* Exactly n digits at *p. */
static bool digits(const char **p, const char *end, size_t n, int64_t *ret)
{
	int64_t v = 0;

	if ((size_t)(end - *p) < n)
		return false;
	for (size_t i = 0; i < n; i++) {
		if ((*p)[i] < '0' || (*p)[i] > '9')
			return false;
		v = v * 10 + ((*p)[i] - '0');
	}
	*p += n;
	*ret = v;
	return true;
}

static bool literal(const char **p, const char *end, const char *any_of)
{
	if (*p == end || !**p || !strchr(any_of, **p))
		return false;
	(*p)++;
	return true;
}

/* Days from 1970-01-01 in the proleptic Gregorian calendar; month 1..12. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
	static const int64_t before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
	int64_t y = year - (month <= 2); /* the leap day of this year counts from March on */

	return 365 * (year - 1970) + (y / 4 - y / 100 + y / 400) -
	       (1969 / 4 - 1969 / 100 + 1969 / 400) + before[month - 1] + day - 1;
}

static bool date_ok(int64_t year, int64_t month, int64_t day)
{
	static const int64_t length[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	if (year < 1 || month < 1 || month > 12 || day < 1)
		return false;
	return day <= length[month - 1] + (leap && month == 2);
}

/* ".123456789..." as nanoseconds; further digits are dropped. */
static bool fraction(const char **p, const char *end, uint32_t *ret)
{
	uint32_t nsec = 0, n = 0;

	if (*p == end || **p != '.')
		return true;
	for ((*p)++; *p < end && **p >= '0' && **p <= '9'; (*p)++, n++)
		if (n < 9)
			nsec = nsec * 10 + (uint32_t)(**p - '0');
	for (uint32_t i = n; i < 9; i++)
		nsec *= 10;
	*ret = nsec;
	return n > 0;
}

/* "Z" or "+hh:mm" as seconds east of UTC. */
static bool offset(const char **p, const char *end, int64_t *ret)
{
	int64_t h, m;

	*ret = 0;
	if (literal(p, end, "Zz"))
		return true;
	bool west = *p < end && **p == '-';
	if (!literal(p, end, "+-") || !digits(p, end, 2, &h) || !literal(p, end, ":") ||
	    !digits(p, end, 2, &m) || h > 23 || m > 59)
		return false;
	*ret = (h * 3600 + m * 60) * (west ? -1 : 1);
	return true;
}

/* RFC 3339 5.6. Go's zero time (year 1) means "not set": *ret_set is false then. */
static bool parse_time(struct str s, bool *ret_set, int64_t *ret_sec, uint32_t *ret_nsec)
{
	const char *p = s.p, *end = s.p + s.n;
	int64_t year, month, day, hour, minute, second, east;
	uint32_t nsec = 0;

	if (!digits(&p, end, 4, &year) || !literal(&p, end, "-") || !digits(&p, end, 2, &month) ||
	    !literal(&p, end, "-") || !digits(&p, end, 2, &day) || !literal(&p, end, "Tt ") ||
	    !digits(&p, end, 2, &hour) || !literal(&p, end, ":") || !digits(&p, end, 2, &minute) ||
	    !literal(&p, end, ":") || !digits(&p, end, 2, &second) || !fraction(&p, end, &nsec) ||
	    !offset(&p, end, &east) || p != end)
		return false;
	if (!date_ok(year, month, day) || hour > 23 || minute > 59 || second > 60)
		return false;
	*ret_set = year > 1;
	if (*ret_set) {
		*ret_sec = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second -
			   east;
		*ret_nsec = nsec;
	}
	return true;
}

/*
 * What is wrong with the metadata, or NULL. *ret_dir: it describes a directory, so there is no
 * file.
 */
static const char *apply_metadata(yyjson_val *root, struct layout_file *f, bool *ret_dir)
{
	uint64_t mode = 0, type = 0;
	struct str mtime;
	bool set = false;

	if (json_u64(root, "mode", &mode) < 0)
		return "mode is not a decimal number, default taken";
	/* Go's file mode keeps setuid and the like above the nine bits: all dropped */
	f->mode = mode & 0777 ? (uint32_t)(mode & 0777) | 0400 : 0;
	int r = json_str(root, "mtime", &mtime);
	if (r < 0 || (r == 1 && !parse_time(mtime, &set, &f->mtime_sec, &f->mtime_nsec)))
		return "mtime is not an RFC 3339 time, ignored";
	f->has_mtime = set;
	if (json_u64(root, "typeflag", &type) < 0)
		return "typeflag is not a number, ignored";
	*ret_dir = type == 5 || type == '5';
	if (!*ret_dir && type != 0 && type != '0')
		return "typeflag says it is no regular file, placed as one";
	return NULL;
}

/*
 * Mistakes here never fail a pull: the bytes are right, only their looks are in doubt. *ret_dir as
 * above.
 */
static int read_metadata(const struct layer *l, struct layout *out, struct layout_file *f,
			 bool *ret_dir, struct err *e)
{
	const char *text = annotation(l->d, "org.cncf.model.file.metadata+json");
	struct json_doc doc;
	const char *fault;
	struct err why;

	if (!text)
		text = annotation(l->d, "org.cnai.model.file.metadata+json");
	if (!text)
		return 0;
	if (json_parse(text, strlen(text), "file metadata", &doc, &why)) {
		if (why.code == CODE_INTERNAL)
			return err_oom(e);
		return warn(out, "file metadata is malformed, ignored", l->number, text, e);
	}
	fault = yyjson_is_obj(doc.root) ? apply_metadata(doc.root, f, ret_dir)
					: "it is no object, ignored";
	json_release(&doc);
	if (!fault)
		return 0;
	char message[160];
	snprintf(message, sizeof(message), "file metadata: %s", fault);
	return warn(out, message, l->number, text, e);
}

/* --- layers to files --- */

static int refuse_unpack(const struct layer *l, struct err *e)
{
	char type[SHOWN], name[SHOWN];
	bool image = !l->name && is_image_layer(l->d->media_type);

	json_show(str_of(l->d->media_type), type, sizeof(type));
	if (image)
		return err_set(e, CODE_UNSUPPORTED,
			       "layer %zu (%s) must be unpacked, which this version does not do; "
			       "this is a container image: push the files as an artifact (oras "
			       "push, modctl build --raw)",
			       l->number, type);
	return err_set(e, CODE_UNSUPPORTED,
		       "layer %zu (%s)%s%s must be unpacked, which this version does not do; push "
		       "its files as raw layers (modctl build --raw, oras push with files instead "
		       "of a directory)",
		       l->number, type, l->name ? " " : "",
		       l->name ? json_show(str_of(l->name), name, sizeof(name)) : "");
}

static int refuse_nameless(const struct layer *l, struct err *e)
{
	char type[SHOWN];
	bool ollama = has_prefix(l->d->media_type, "application/vnd.ollama.image.");

	json_show(str_of(l->d->media_type), type, sizeof(type));
	if (ollama)
		return err_set(e, CODE_UNSUPPORTED,
			       "layer %zu (%s): models in Ollama's layout are not supported by "
			       "this version",
			       l->number, type);
	return err_set(e, CODE_UNSUPPORTED,
		       "layer %zu (%s) does not say which file it is; the producer must set the "
		       "annotation org.cncf.model.filepath or org.opencontainers.image.title",
		       l->number, type);
}

static int check_empty(const struct layer *l, struct err *e)
{
	struct digest none;

	digest_of(l->d->digest.alg, "", 0, &none);
	if ((l->d->size == 0) == digest_equal(&l->d->digest, &none))
		return 0;
	return err_set(e, CODE_INTEGRITY,
		       "layer %zu: size %" PRIu64 " and digest contradict each other", l->number,
		       l->d->size);
}

static int add_file(const struct layer *l, struct layout *out, struct err *e)
{
	struct layout_file f = { .digest = l->d->digest, .size = l->d->size, .data = l->d->data };
	bool dir = false;

	if (check_empty(l, e))
		return -1;
	if (layout_check_path(str_of(l->name), &f.path, e))
		return err_wrap(e, "layer %zu, annotation %s", l->number, l->name_key);
	if (read_metadata(l, out, &f, &dir, e)) {
		free(f.path);
		return -1;
	}
	if (dir) {
		free(f.path);
		return warn(out, "its metadata describes a directory, skipped", l->number, l->name,
			    e);
	}
	out->files[out->n_files++] = f;
	return 0;
}

static bool any_glob(const char *const *globs, const char *path)
{
	for (; globs && *globs; globs++)
		if (layout_glob(*globs, path))
			return true;
	return false;
}

static int add_layers(const struct oci_manifest *m, const struct layout_options *o, struct layout *out,
		      struct err *e)
{
	bool any_name = false;

	for (size_t i = 0; i < m->n_layers && !any_name; i++)
		any_name = layer_at(m, i).name != NULL;
	for (size_t i = 0; i < m->n_layers; i++) {
		struct layer l = layer_at(m, i);
		int r = 0;
		switch (kind_of(m, &l, any_name)) {
		case KIND_FILE:
			r = add_file(&l, out, e);
			break;
		case KIND_UNPACK:
			/* its own name is excluded; an --include says nothing about what is inside */
			if (l.name && any_glob(o->exclude, l.name)) {
				out->n_excluded++;
				break;
			}
			return refuse_unpack(&l, e);
		case KIND_NAMELESS:
			return refuse_nameless(&l, e);
		case KIND_SKIP:
			r = warn(out, "skipped, it has no file name", l.number, l.d->media_type, e);
			break;
		case KIND_EMPTY:
			break;
		}
		if (r)
			return -1;
	}
	return 0;
}

/* --- the whole set --- */

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

static int compare_digests(const void *a, const void *b)
{
	const struct layout_file *x = *(const struct layout_file *const *)a;
	const struct layout_file *y = *(const struct layout_file *const *)b;

	if (x->digest.alg != y->digest.alg)
		return x->digest.alg < y->digest.alg ? -1 : 1;
	return memcmp(x->digest.bytes, y->digest.bytes, sizeof(x->digest.bytes));
}

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
		if (!digest_equal(&last->digest, &f->digest)) {
			unsafe(str_of(f->path), "two layers with different content claim it", e);
			/* what is in [kept, i) was moved down or freed */
			memmove(f - (i - kept), f, (l->n_files - i) * sizeof(*f));
			l->n_files -= i - kept;
			return -1;
		}
		free(f->path);
	}
	l->n_files = kept;
	return 0;
}

static bool has_path(const struct layout *l, struct str path)
{
	size_t low = 0, high = l->n_files;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const char *p = l->files[mid].path;
		int c = strncmp(p, path.p, path.n);
		if (c == 0 && p[path.n] == '\0')
			return true;
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return false;
}

/* "a" and "a/b": one name cannot be a file and a directory. Files are sorted. */
static int check_prefixes(const struct layout *l, struct err *e)
{
	for (size_t i = 0; i < l->n_files; i++) {
		const char *path = l->files[i].path;
		for (const char *s = strchr(path, '/'); s; s = strchr(s + 1, '/')) {
			struct str dir = { path, (size_t)(s - path) };
			if (has_path(l, dir))
				return unsafe(dir, "it is a file and the directory of another file",
					      e);
		}
	}
	return 0;
}

/* Sums, and one digest has one size. */
static int sum_sizes(struct layout *l, struct err *e)
{
	size_t bytes;

	if (l->n_files == 0)
		return 0;
	if (!size_mul(l->n_files, sizeof(struct layout_file *), &bytes))
		return err_oom(e);
	_cleanup_free_ const struct layout_file **by_digest = malloc(bytes);
	if (!by_digest)
		return err_oom(e);
	for (size_t i = 0; i < l->n_files; i++)
		by_digest[i] = &l->files[i];
	qsort(by_digest, l->n_files, sizeof(*by_digest), compare_digests);
	for (size_t i = 0; i < l->n_files; i++) {
		const struct layout_file *f = by_digest[i];
		bool again = i > 0 && compare_digests(&by_digest[i - 1], &by_digest[i]) == 0;
		if (again && by_digest[i - 1]->size != f->size)
			return err_set(e, CODE_INTEGRITY,
				       "two layers give one digest two sizes, %" PRIu64
				       " and %" PRIu64,
				       by_digest[i - 1]->size, f->size);
		if (!u64_add(l->bytes, f->size, &l->bytes) || l->bytes > LIMIT_TOTAL)
			return err_set(e, CODE_INTEGRITY,
				       "the files add up to more than any real artifact");
		if (!again)
			l->unique_bytes += f->size;
	}
	return 0;
}

static void filter(struct layout *l, const struct layout_options *o)
{
	bool all = !o->include || !o->include[0];
	size_t kept = 0;

	for (size_t i = 0; i < l->n_files; i++) {
		struct layout_file *f = &l->files[i];
		if ((all || any_glob(o->include, f->path)) && !any_glob(o->exclude, f->path)) {
			l->files[kept++] = *f;
			continue;
		}
		free(f->path);
		l->n_excluded++;
	}
	l->n_files = kept;
}

static int refuse_nothing(const struct oci_manifest *m, const struct layout *l, struct err *e)
{
	char type[SHOWN];

	if (l->n_excluded)
		return err_set(e, CODE_UNSUPPORTED,
			       "nothing to pull: --include and --exclude leave none of %zu file%s",
			       l->n_excluded, l->n_excluded == 1 ? "" : "s");
	if (m->n_layers == 0)
		return err_set(e, CODE_UNSUPPORTED, "nothing to pull: the manifest has no layers");
	json_show(str_of(m->layers[0].media_type), type, sizeof(type));
	return err_set(
		e, CODE_UNSUPPORTED,
		"nothing to pull: none of %zu layer%s names a file (the first is %s); the producer "
		"must set the annotation org.opencontainers.image.title or org.cncf.model.filepath",
		m->n_layers, m->n_layers == 1 ? "" : "s", type);
}

int layout_plan(const struct oci_manifest *m, const struct layout_options *o, struct layout *ret,
		struct err *e)
{
	static const struct layout_options everything;
	struct layout l = { 0 };

	if (m->is_index)
		return err_set(e, CODE_INTERNAL, "layout of an index");
	if (m->n_layers) {
		l.files = calloc(m->n_layers, sizeof(*l.files));
		if (!l.files)
			return err_oom(e);
	}
	if (add_layers(m, o ? o : &everything, &l, e) || sort_paths(&l, e) || check_prefixes(&l, e))
		goto fail;
	filter(&l, o ? o : &everything);
	if (l.n_files == 0) {
		refuse_nothing(m, &l, e);
		goto fail;
	}
	if (sum_sizes(&l, e))
		goto fail;
	*ret = l;
	return 0;
fail:
	layout_release(&l);
	return -1;
}
