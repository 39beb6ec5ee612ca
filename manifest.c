// SPDX-License-Identifier: Apache-2.0
/* Documents of a registry: parsing, and the choice from an index. Pure; the header is oci.h. */
#include "oci.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <nettle/base64.h>

#include "json.h"

#if defined(__x86_64__)
#define MACHINE "amd64"
#elif defined(__aarch64__)
#define MACHINE "arm64"
#elif defined(__riscv)
#define MACHINE "riscv64"
#elif defined(__s390x__)
#define MACHINE "s390x"
#elif defined(__powerpc64__)
#define MACHINE "ppc64le"
#else
#define MACHINE "unknown"
#endif

/* --- release --- */

static void annotations_free(struct oci_annotation *a, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(a[i].key);
		free(a[i].value);
	}
	free(a);
}

void oci_platform_release(struct oci_platform *p)
{
	free(p->os);
	free(p->architecture);
	free(p->variant);
	free(p->os_version);
	*p = (struct oci_platform){ 0 };
}

static void descriptor_release(struct oci_descriptor *d)
{
	free(d->media_type);
	free(d->artifact_type);
	annotations_free(d->annotations, d->n_annotations);
	free(d->name);
	free(d->data);
	if (d->platform)
		oci_platform_release(d->platform);
	free(d->platform);
	*d = (struct oci_descriptor){ 0 };
}

void oci_manifest_release(struct oci_manifest *m)
{
	free(m->media_type);
	free(m->artifact_type);
	descriptor_release(&m->config);
	for (size_t i = 0; i < m->n_layers; i++)
		descriptor_release(&m->layers[i]);
	free(m->layers);
	annotations_free(m->annotations, m->n_annotations);
	*m = (struct oci_manifest){ 0 };
}

const char *oci_annotation(const struct oci_annotation *a, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(a[i].key, key) == 0)
			return a[i].value;
	return NULL;
}

/* --- media types --- */

static const struct {
	const char *name;
	bool is_index;
} known_types[] = {
	{ OCI_TYPE_MANIFEST, false },
	{ DOCKER_TYPE_MANIFEST, false },
	{ OCI_TYPE_INDEX, true },
	{ DOCKER_TYPE_LIST, true },
};

/* "type/subtype; charset=utf-8" without the parameters. */
static struct str without_parameters(struct str s)
{
	const char *semicolon = s.n ? memchr(s.p, ';', s.n) : NULL;

	if (semicolon)
		s.n = (size_t)(semicolon - s.p);
	return str_trim(s);
}

static bool find_type(struct str s, size_t *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(known_types); i++) {
		if (str_caseeq(s, known_types[i].name)) {
			*ret = i;
			return true;
		}
	}
	return false;
}

/* --- parts of a document --- */

static int wrong(struct err *e, const char *where, const char *what)
{
	return err_set(e, CODE_INTEGRITY, "manifest: %s: %s", where, what);
}

/* *ret is NULL when the key is absent; on failure untouched. */
static int get_text(yyjson_val *obj, const char *key, const char *where, char **ret, struct err *e)
{
	struct str s;

	if (json_str(obj, key, &s) < 0)
		return err_set(e, CODE_INTEGRITY, "manifest: %s: \"%s\" is not a string", where,
			       key);
	if (json_strdup(obj, key, ret))
		return err_oom(e);
	return 0;
}

static int get_annotations(yyjson_val *obj, const char *where, struct oci_annotation **ret,
			   size_t *ret_n, struct err *e)
{
	yyjson_val *map, *key, *val;
	size_t i, max;

	int r = json_obj(obj, "annotations", &map);
	if (r < 0)
		return wrong(e, where, "\"annotations\" is not an object");
	if (r == 0 || yyjson_obj_size(map) == 0)
		return 0;
	if (yyjson_obj_size(map) > LIMIT_ANNOTATIONS)
		return wrong(e, where, "too many annotations");
	struct oci_annotation *a = calloc(yyjson_obj_size(map), sizeof(*a));
	if (!a)
		return err_oom(e);
	*ret = a; /* released by the caller whatever happens below */
	yyjson_obj_foreach(map, i, max, key, val) {
		if (!yyjson_is_str(val) && !yyjson_is_null(val))
			return wrong(e, where, "an annotation's value is not a string");
		a[i].key = strdup(yyjson_get_str(key));
		a[i].value = strdup(yyjson_is_null(val) ? "" : yyjson_get_str(val));
		*ret_n = i + 1;
		if (!a[i].key || !a[i].value)
			return err_oom(e);
	}
	return 0;
}

static int get_platform(yyjson_val *obj, const char *where, struct oci_platform **ret,
			struct err *e)
{
	yyjson_val *v;

	int r = json_obj(obj, "platform", &v);
	if (r < 0)
		return wrong(e, where, "\"platform\" is not an object");
	if (r == 0)
		return 0;
	struct oci_platform *p = calloc(1, sizeof(*p));
	if (!p)
		return err_oom(e);
	*ret = p; /* released by the caller whatever happens below */
	if (get_text(v, "os", where, &p->os, e) ||
	    get_text(v, "architecture", where, &p->architecture, e) ||
	    get_text(v, "variant", where, &p->variant, e) ||
	    get_text(v, "os.version", where, &p->os_version, e))
		return -1;
	return 0;
}

/* "alg:encoded" by the grammar of image-spec descriptor.md, of an algorithm that we do not know. */
static bool is_foreign_digest(struct str s)
{
	const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;

	if (!colon || colon == s.p || colon + 1 == s.p + s.n)
		return false;
	struct str alg = { s.p, (size_t)(colon - s.p) };
	if (str_eq(alg, "sha256") || str_eq(alg, "sha512"))
		return false;
	for (const char *p = s.p; p < s.p + s.n; p++) {
		bool lower = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9');
		bool ok = p < colon ? lower || strchr("+._-", *p) :
			  p == colon || lower || (*p >= 'A' && *p <= 'Z') || strchr("=_-", *p);
		if (!ok)
			return false;
	}
	return true;
}

static int get_digest(yyjson_val *obj, const char *where, bool foreign_ok, struct digest *ret,
		      struct err *e)
{
	struct str s = { 0 };
	char shown[160];

	int r = json_str(obj, "digest", &s);
	if (r <= 0)
		return wrong(e, where, r ? "\"digest\" is not a string" : "no digest");
	if (digest_parse(s, ret))
		return 0;
	json_show(s, shown, sizeof(shown));
	if (!is_foreign_digest(s))
		return err_set(e, CODE_INTEGRITY, "manifest: %s: malformed digest \"%s\"", where,
			       shown);
	if (foreign_ok)
		return 0;
	return err_set(e, CODE_UNSUPPORTED,
		       "manifest: %s: the algorithm of digest \"%s\" is not supported; sha256 and "
		       "sha512 are",
		       where, shown);
}

static int get_size(yyjson_val *obj, const char *where, uint64_t *ret, struct err *e)
{
	int r = json_u64(obj, "size", ret);

	if (r < 0)
		return wrong(e, where, "\"size\" is not a whole number of bytes");
	if (r == 0)
		return wrong(e, where, "no size");
	if (*ret > LIMIT_BLOB)
		return err_set(e, CODE_INTEGRITY,
			       "manifest: %s: size %" PRIu64 " is beyond any real blob", where,
			       *ret);
	return 0;
}

/*
 * Inline content counts only if it is what the descriptor says; otherwise the blob is fetched as if
 * it were absent.
 */
static int get_data(yyjson_val *obj, const char *where, struct oci_descriptor *d, struct err *e)
{
	struct base64_decode_ctx ctx;
	struct digest computed;
	struct str s;

	int r = json_str(obj, "data", &s);
	if (r < 0)
		return wrong(e, where, "\"data\" is not a string");
	if (r == 0 || s.n == 0 || d->digest.alg == DIGEST_NONE || d->size > s.n)
		return 0;
	size_t n = BASE64_DECODE_LENGTH(s.n);
	_cleanup_free_ uint8_t *data = malloc(n);
	if (!data)
		return err_oom(e);
	base64_decode_init(&ctx);
	if (!base64_decode_update(&ctx, &n, data, s.n, s.p) || !base64_decode_final(&ctx) ||
	    n != d->size)
		return 0;
	digest_of(d->digest.alg, data, n, &computed);
	if (digest_equal(&d->digest, &computed))
		d->data = steal_ptr(&data);
	return 0;
}

/* d is zeroed by the caller and released by it also after a failure. */
static int get_descriptor(yyjson_val *obj, const char *where, bool foreign_ok,
			  struct oci_descriptor *d, struct err *e)
{
	struct str type = { "", 0 };

	if (!yyjson_is_obj(obj))
		return wrong(e, where, "not an object");
	if (json_str(obj, "mediaType", &type) < 0)
		return wrong(e, where, "\"mediaType\" is not a string");
	type = without_parameters(type);
	d->media_type = strndup(type.p, type.n);
	if (!d->media_type)
		return err_oom(e);
	if (get_digest(obj, where, foreign_ok, &d->digest, e) ||
	    get_size(obj, where, &d->size, e) ||
	    get_text(obj, "artifactType", where, &d->artifact_type, e) ||
	    get_annotations(obj, where, &d->annotations, &d->n_annotations, e) ||
	    get_platform(obj, where, &d->platform, e) || get_data(obj, where, d, e))
		return -1;
	/*
	 * Ollama's key; nobody standardised it, so another type of value is just somebody else's
	 * key
	 */
	if (json_str(obj, "name", &type) == 1 && json_strdup(obj, "name", &d->name))
		return err_oom(e);
	return 0;
}

static int get_list(yyjson_val *arr, const char *what, size_t max_entries, struct oci_manifest *m,
		    struct err *e)
{
	size_t i, max, n = yyjson_arr_size(arr);
	uint64_t sum = 0;
	yyjson_val *val;
	char where[48];

	if (n > max_entries)
		return err_set(e, CODE_INTEGRITY, "manifest: more than %zu %ss", max_entries, what);
	if (n == 0)
		return 0;
	m->layers = calloc(n, sizeof(*m->layers));
	if (!m->layers)
		return err_oom(e);
	m->n_layers = n;
	yyjson_arr_foreach(arr, i, max, val) {
		snprintf(where, sizeof(where), "%s %zu", what, i + 1);
		if (get_descriptor(val, where, m->is_index, &m->layers[i], e))
			return -1;
		if (!u64_add(sum, m->layers[i].size, &sum) || sum > LIMIT_TOTAL)
			return err_set(e, CODE_INTEGRITY,
				       "manifest: the sizes add up to more than any real artifact");
	}
	return 0;
}

/* --- the document --- */

static int check_schema_version(yyjson_val *root, struct err *e)
{
	uint64_t version = 2;

	if (json_u64(root, "schemaVersion", &version) < 0)
		return wrong(e, "top level", "\"schemaVersion\" is not a number");
	if (version == 1)
		return err_set(e, CODE_UNSUPPORTED,
			       "manifest: Docker schema 1 is not supported (its registry is very "
			       "old, or it was asked for a wrong type); push the artifact again "
			       "with a current tool");
	if (version != 2)
		return wrong(e, "top level", "\"schemaVersion\" is not 2");
	return 0;
}

/*
 * Which of the known types the document claims to be: by field, by Content-Type. -1 = nothing is
 * claimed.
 */
static int claimed_type(yyjson_val *root, const char *content_type, int *ret, struct err *e)
{
	struct str field = { 0 }, header = without_parameters(str_of(content_type));
	size_t by_field = 0, by_header = 0;
	char shown[128];

	int r = json_str(root, "mediaType", &field);
	if (r < 0)
		return wrong(e, "top level", "\"mediaType\" is not a string");
	bool has_header = find_type(header, &by_header);
	if (r == 0 || field.n == 0) {
		*ret = has_header ? (int)by_header : -1;
		return 0;
	}
	if (!find_type(without_parameters(field), &by_field))
		return err_set(e, CODE_UNSUPPORTED,
			       "manifest: media type \"%s\" is not supported; OCI and Docker "
			       "schema 2 manifests and indexes are",
			       json_show(field, shown, sizeof(shown)));
	if (has_header && by_header != by_field)
		return err_set(e, CODE_INTEGRITY,
			       "manifest: it says it is %s, but was announced as %s",
			       known_types[by_field].name, known_types[by_header].name);
	*ret = (int)by_field;
	return 0;
}

struct parts {
	yyjson_val *layers, *manifests, *config;	/* NULL = absent */
};

/*
 * image-spec and CVE-2021-41190: a document that can be read as a manifest and as an index is
 * refused.
 */
static int decide_kind(yyjson_val *root, const char *content_type, struct parts *p,
		       struct oci_manifest *m, struct err *e)
{
	yyjson_val *v;
	int type = -1;

	if (json_arr(root, "layers", &p->layers) < 0 ||
	    json_arr(root, "manifests", &p->manifests) < 0)
		return wrong(e, "top level", "\"layers\" or \"manifests\" is not a list");
	if (json_obj(root, "config", &p->config) < 0)
		return wrong(e, "top level", "\"config\" is not an object");
	if (p->manifests && (p->layers || p->config || yyjson_obj_get(root, "fsLayers")))
		return wrong(e, "top level", "it is a manifest and an index at once");
	if (claimed_type(root, content_type, &type, e))
		return -1;
	if (json_arr(root, "fsLayers", &v) != 0 && !p->layers && !p->config)
		return err_set(e, CODE_UNSUPPORTED, "manifest: Docker schema 1 is not supported");
	bool is_manifest = p->layers || p->config;
	if (!is_manifest && !p->manifests && type < 0)
		return wrong(e, "top level",
			     "neither \"layers\" nor \"manifests\": this is no manifest");
	m->is_index =
		is_manifest || p->manifests ? p->manifests != NULL : known_types[type].is_index;
	if (type >= 0 && known_types[type].is_index != m->is_index)
		return err_set(e, CODE_INTEGRITY,
			       "manifest: it says it is %s, but its content is that of %s",
			       known_types[type].name, m->is_index ? "an index" : "a manifest");
	const char *name = type >= 0     ? known_types[type].name
			   : m->is_index ? OCI_TYPE_INDEX
					 : OCI_TYPE_MANIFEST;
	m->media_type = strdup(name);
	return m->media_type ? 0 : err_oom(e);
}

static int parse_root(yyjson_val *root, const char *content_type, struct oci_manifest *m,
		      struct err *e)
{
	struct parts p = { 0 };

	if (!yyjson_is_obj(root))
		return wrong(e, "top level", "not a JSON object");
	if (check_schema_version(root, e) || decide_kind(root, content_type, &p, m, e))
		return -1;
	if (get_text(root, "artifactType", "top level", &m->artifact_type, e) ||
	    get_annotations(root, "top level", &m->annotations, &m->n_annotations, e))
		return -1;
	if (p.config && get_descriptor(p.config, "config", true, &m->config, e))
		return -1;
	if (!m->artifact_type)
		m->artifact_type = strdup("");
	if (!m->config.media_type)
		m->config.media_type = strdup("");
	if (!m->artifact_type || !m->config.media_type)
		return err_oom(e);
	if (m->is_index)
		return get_list(p.manifests, "index entry", LIMIT_INDEX_ENTRIES, m, e);
	return get_list(p.layers, "layer", LIMIT_LAYERS, m, e);
}

int oci_manifest_parse(const char *json, size_t len, const char *content_type,
		       struct oci_manifest *ret, struct err *e)
{
	struct json_doc doc = { 0 };
	struct oci_manifest m = { 0 };

	if (len > LIMIT_MANIFEST)
		return err_set(e, CODE_INTEGRITY, "manifest: larger than %d MiB",
			       (int)(LIMIT_MANIFEST / MIB));
	if (str_caseeq(without_parameters(str_of(content_type)), "text/html"))
		return err_set(e, CODE_INTEGRITY,
			       "manifest: the answer is a web page; is this host a registry, or is "
			       "a proxy in the way?");
	if (json_parse(json, len, "manifest", &doc, e))
		return -1;
	int r = parse_root(doc.root, content_type, &m, e);
	json_release(&doc);
	if (r) {
		oci_manifest_release(&m);
		return -1;
	}
	*ret = m;
	return 0;
}

/* --- platforms --- */

static bool platform_text_ok(struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		bool alnum =
			(c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		if (!alnum && c != '.' && c != '_' && c != '-')
			return false;
	}
	return s.n > 0;
}

/* What kernels and users call the machines, as Go calls them. */
static struct str architecture_name(struct str s)
{
	static const char *const aliases[][2] = {
		{ "x86_64", "amd64" },
		{ "x86-64", "amd64" },
		{ "aarch64", "arm64" },
		{ "armhf", "arm" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
		if (str_caseeq(s, aliases[i][0]))
			return str_of(aliases[i][1]);
	return s;
}

/* The part of *s up to `sep` (or all), which is cut off. */
static struct str next_part(struct str *s, char sep)
{
	const char *at = s->n ? memchr(s->p, sep, s->n) : NULL;
	struct str part = { s->p, at ? (size_t)(at - s->p) : s->n };

	*s = at ? (struct str){ at + 1, s->n - part.n - 1 } : (struct str){ NULL, 0 };
	return part;
}

int oci_platform_parse(const char *s, struct oci_platform *ret, struct err *e)
{
	struct str version = str_of(s), path = next_part(&version, ':'), part[3];
	struct oci_platform p = { 0 };
	char shown[80];
	bool ok = true;
	size_t n = 0;

	while (path.p && n < ARRAY_SIZE(part)) {
		part[n] = next_part(&path, '/');
		ok = ok && platform_text_ok(part[n]);
		n++;
	}
	if (n == 0 || !ok || path.p || (version.p && !platform_text_ok(version)))
		return err_set(e, CODE_USAGE,
			       "bad platform \"%s\": write OS/ARCHITECTURE[/VARIANT][:OSVERSION], "
			       "for example linux/arm64/v8",
			       json_show(str_of(s), shown, sizeof(shown)));
	struct str arch = n > 1 ? architecture_name(part[1]) : str_of(MACHINE);
	p.os = strndup(part[0].p, part[0].n);
	p.architecture = strndup(arch.p, arch.n);
	p.variant = n > 2 ? strndup(part[2].p, part[2].n) : NULL;
	p.os_version = version.p ? strndup(version.p, version.n) : NULL;
	if (!p.os || !p.architecture || (n > 2 && !p.variant) || (version.p && !p.os_version)) {
		oci_platform_release(&p);
		return err_oom(e);
	}
	*ret = p;
	return 0;
}

static bool text_is(const char *a, const char *b)
{
	return a && strcmp(a, b) == 0;
}

/* arm64's only variant in use is v8, which many leave out. "" = none. */
static const char *variant_of(const struct oci_platform *p)
{
	if (!p->variant || (text_is(p->architecture, "arm64") && strcmp(p->variant, "v8") == 0))
		return "";
	return p->variant;
}

static bool has_platform(const struct oci_descriptor *d)
{
	const struct oci_platform *p = d->platform;

	return p && ((p->os && p->os[0]) || (p->architecture && p->architecture[0]));
}

static bool entry_is_index(const struct oci_descriptor *d)
{
	size_t type;

	return find_type(str_of(d->media_type), &type) && known_types[type].is_index;
}

/* Entries that can never be meant: attestations, and types that are neither manifest nor index. */
static bool is_candidate(const struct oci_descriptor *d)
{
	const char *kind =
		oci_annotation(d->annotations, d->n_annotations, "vnd.docker.reference.type");
	size_t type;

	if (d->media_type[0] && !find_type(str_of(d->media_type), &type))
		return false;
	if (kind && strcmp(kind, "attestation-manifest") == 0)
		return false;
	return !(d->platform && text_is(d->platform->os, "unknown") &&
		 text_is(d->platform->architecture, "unknown"));
}

/* 0 = no match, 1 = a variant of what was asked, 2 = exactly that. */
static int match(const struct oci_platform *want, const struct oci_descriptor *d)
{
	if (!has_platform(d) || !text_is(d->platform->os, want->os) ||
	    !text_is(d->platform->architecture, want->architecture))
		return 0;
	if (want->os_version && !text_is(d->platform->os_version, want->os_version))
		return 0;
	if (strcmp(variant_of(want), variant_of(d->platform)) == 0)
		return 2;
	return want->variant ? 0 : 1;
}

static void add_platform(struct buf *b, const struct oci_platform *p)
{
	char shown[48];

	buf_adds(b, json_show(str_of(p->os ? p->os : "?"), shown, sizeof(shown)));
	buf_addf(b, "/%s",
		 json_show(str_of(p->architecture ? p->architecture : "?"), shown, sizeof(shown)));
	if (p->variant)
		buf_addf(b, "/%s", json_show(str_of(p->variant), shown, sizeof(shown)));
}

static int no_match(const struct oci_manifest *index, const struct oci_platform *want,
		    size_t without, struct err *e)
{
	_cleanup_buf_ struct buf have = BUF_INIT(400), asked = BUF_INIT(200);

	add_platform(&asked, want);
	for (size_t i = 0; i < index->n_layers; i++) {
		if (!is_candidate(&index->layers[i]) || !has_platform(&index->layers[i]))
			continue;
		if (have.len > 250) {
			buf_adds(&have, ", ...");
			break;
		}
		buf_adds(&have, have.len ? ", " : "");
		add_platform(&have, index->layers[i].platform);
	}
	if (have.len)
		return err_set(
			e, CODE_UNSUPPORTED,
			"the index has nothing for %s; it has %s: choose one with --platform",
			buf_cstr(&asked), buf_cstr(&have));
	if (without)
		return err_set(e, CODE_UNSUPPORTED,
			       "the index has %zu entr%s without a platform, none for %s: name the "
			       "one you want by its digest",
			       without, without == 1 ? "y" : "ies", buf_cstr(&asked));
	return err_set(e, CODE_UNSUPPORTED, "the index has no entry that could be pulled");
}

int oci_index_select(const struct oci_manifest *index, const struct oci_platform *platform,
		     size_t *ret_entry, struct err *e)
{
	static char os[] = "linux", machine[] = MACHINE;
	struct oci_platform here = { .os = os, .architecture = machine };
	const struct oci_platform *want = platform ? platform : &here;
	size_t found = 0, sole = 0, without = 0, with = 0;
	int best = 0;

	for (size_t i = 0; i < index->n_layers; i++) {
		const struct oci_descriptor *d = &index->layers[i];
		if (!is_candidate(d))
			continue;
		int quality = match(want, d);
		if (quality > best) {
			best = quality;
			found = i;
		}
		if (has_platform(d)) {
			with++;
		} else {
			without++;
			sole = i;
		}
	}
	if (!best && with == 0 && without == 1 &&
	    (!platform || entry_is_index(&index->layers[sole]))) {
		best = 1;
		found = sole;
	}
	if (!best)
		return no_match(index, want, without, e);
	if (index->layers[found].digest.alg == DIGEST_NONE)
		return err_set(e, CODE_UNSUPPORTED,
			       "index entry %zu has a digest of an unknown algorithm; sha256 and "
			       "sha512 are supported",
			       found + 1);
	*ret_entry = found;
	return 0;
}
