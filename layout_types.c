// SPDX-License-Identifier: Apache-2.0
/*
 * What media types say: whose they are, what is in them, how they are packed. Pure;
 * layout_internal.h.
 */
#include "layout_internal.h"

#include <stdio.h>
#include <string.h>

/*
 * Whose type it is. last_word: the word stands between the prefix and the version, and only its
 * last part counts, because producers prepend ("weight.config", and a "weight.code" that no
 * specification knows).
 */
static const struct {
	const char *prefix;
	enum layout_family family;
	bool last_word;
} families[] = {
	{ "application/vnd.cncf.model.", FAMILY_MODELPACK, true },
	{ "application/vnd.cnai.model.", FAMILY_MODELPACK, true }, /* until September 2025 */
	{ "application/vnd.kitops.modelkit.", FAMILY_KITOPS, true },
	{ "application/vnd.docker.ai.", FAMILY_DOCKER, false },
	{ "application/vnd.ollama.image.", FAMILY_OLLAMA, false },
	{ "application/vnd.oci.image.layer.", FAMILY_IMAGE, false },
	{ "application/vnd.docker.image.rootfs.", FAMILY_IMAGE, false },
};

/*
 * Names: Docker Model Runner's pkg/distribution/internal/bundle for what v0.1 leaves unnamed;
 * Ollama has none, these are what other tools call such files.
 */
static const struct layout_type types[] = {
	{ FAMILY_MODELPACK, "weight", TYPE_WEIGHT, NULL, false },
	{ FAMILY_MODELPACK, "config", TYPE_CONFIG, NULL, false },
	{ FAMILY_MODELPACK, "doc", TYPE_DOC, NULL, false },
	{ FAMILY_MODELPACK, "code", TYPE_CODE, NULL, false },
	{ FAMILY_MODELPACK, "dataset", TYPE_DATASET, NULL, false },
	{ FAMILY_KITOPS, "model", TYPE_WEIGHT, NULL, false },
	{ FAMILY_KITOPS, "modelpart", TYPE_WEIGHT, NULL, false },
	{ FAMILY_KITOPS, "code", TYPE_CODE, NULL, false },
	{ FAMILY_KITOPS, "dataset", TYPE_DATASET, NULL, false },
	{ FAMILY_KITOPS, "docs", TYPE_DOC, NULL, false },
	{ FAMILY_DOCKER, "gguf.v3", TYPE_WEIGHT, "model.gguf", true },
	{ FAMILY_DOCKER, "safetensors", TYPE_WEIGHT, "model.safetensors", true },
	{ FAMILY_DOCKER, "dduf", TYPE_WEIGHT, "model.dduf", false },
	{ FAMILY_DOCKER, "mmproj", TYPE_WEIGHT, "model.mmproj", false },
	{ FAMILY_DOCKER, "chat.template.jinja", TYPE_CONFIG, "template.jinja", false },
	{ FAMILY_DOCKER, "license", TYPE_DOC, "LICENSE", false },
	{ FAMILY_DOCKER, "vllm.config.tar", TYPE_CONFIG, NULL, false },
	{ FAMILY_OLLAMA, "model", TYPE_WEIGHT, "model.gguf", false },
	{ FAMILY_OLLAMA, "projector", TYPE_WEIGHT, "mmproj.gguf", false },
	{ FAMILY_OLLAMA, "adapter", TYPE_WEIGHT, "adapter.gguf", false },
	{ FAMILY_OLLAMA, "tensor", TYPE_WEIGHT, NULL, false },
	{ FAMILY_OLLAMA, "draft", TYPE_WEIGHT, NULL, false },
	{ FAMILY_OLLAMA, "template", TYPE_CONFIG, "template", false },
	{ FAMILY_OLLAMA, "system", TYPE_CONFIG, "system", false },
	{ FAMILY_OLLAMA, "params", TYPE_CONFIG, "params.json", false },
	{ FAMILY_OLLAMA, "json", TYPE_CONFIG, NULL, false },
	{ FAMILY_OLLAMA, "license", TYPE_DOC, "license", false },
};
_Static_assert(ARRAY_SIZE(types) <= LAYOUT_TYPES, "the planner counts by row");

static const struct {
	const char *suffix;
	enum layout_codec codec;
} codecs[] = {
	{ "", CODEC_NONE },	 { "+gzip", CODEC_GZIP }, { ".gzip", CODEC_GZIP },
	{ "+gz", CODEC_GZIP },	 { ".gz", CODEC_GZIP },	  { "+zstd", CODEC_ZSTD },
	{ ".zstd", CODEC_ZSTD }, { "+zst", CODEC_ZSTD },  { ".zst", CODEC_ZSTD },
};

bool layout_codec_of(const char *suffix, enum layout_codec *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		if (strcmp(suffix, codecs[i].suffix) == 0) {
			*ret = codecs[i].codec;
			return true;
		}
	}
	return false;
}

bool layout_is_model(enum layout_family f)
{
	return f != FAMILY_OTHER && f != FAMILY_IMAGE;
}

bool layout_is_image_config(const char *type)
{
	return strcmp(type, OCI_TYPE_IMAGE_CONFIG) == 0 ||
	       strcmp(type, DOCKER_TYPE_IMAGE_CONFIG) == 0;
}

/* ".tar", ".tar+gzip", ".tar.gz" as a whole word: what follows it. */
static const char *after_tar(const char *type)
{
	for (const char *p = strstr(type, ".tar"); p; p = strstr(p + 1, ".tar"))
		if (p[4] == '\0' || p[4] == '+' || p[4] == '.' || p[4] == '-')
			return p + 4;
	return NULL;
}

/* "weight.config.v1.tar": "config". */
static struct str last_word(const char *rest)
{
	struct str w = str_of(rest);

	for (const char *v = strstr(rest, ".v"); v; v = strstr(v + 1, ".v")) {
		if (v[2] >= '0' && v[2] <= '9') {
			w.n = (size_t)(v - rest);
			break;
		}
	}
	const char *dot = memrchr(w.p, '.', w.n);
	return dot ? (struct str){ dot + 1, w.n - (size_t)(dot + 1 - w.p) } : w;
}

struct layout_media layout_media_of(const char *media_type)
{
	struct layout_media m = { .tar = after_tar(media_type) };
	struct str word = { NULL, 0 };

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		size_t n = strlen(families[i].prefix);
		if (strncmp(media_type, families[i].prefix, n) != 0)
			continue;
		m.family = families[i].family;
		word = families[i].last_word ? last_word(media_type + n) : str_of(media_type + n);
		break;
	}
	for (size_t i = 0; word.p && i < ARRAY_SIZE(types); i++) {
		if (types[i].family == m.family && str_eq(word, types[i].word)) {
			m.type = &types[i];
			m.row = i;
		}
	}
	return m;
}

/* --- words of options --- */

int layout_types_parse(const char *const *words, unsigned *ret, struct err *e)
{
	static const char *const known[] = { "weight", "config",  "doc",
					     "code",   "dataset", "other" };
	char shown[LAYOUT_SHOWN];
	unsigned mask = 0;

	for (; words && *words; words++) {
		size_t i = 0;
		while (i < ARRAY_SIZE(known) && strcmp(*words, known[i]) != 0)
			i++;
		if (i == ARRAY_SIZE(known))
			return err_set(e, CODE_USAGE,
				       "--type knows weight, config, doc, code, dataset and other, "
				       "not \"%s\"",
				       json_show(str_of(*words), shown, sizeof(shown)));
		mask |= 1U << i;
	}
	*ret = mask ? mask : TYPE_ALL;
	return 0;
}

int layout_as_parse(const char *word, enum layout_as *ret, struct err *e)
{
	static const char *const known[] = { "auto", "modelpack", "oras", "image", "raw" };
	char shown[LAYOUT_SHOWN];

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (!word || strcmp(word, known[i]) == 0) {
			*ret = (enum layout_as)i;
			return 0;
		}
	}
	return err_set(e, CODE_USAGE,
		       "--layout-as knows auto, modelpack, oras, image and raw, not \"%s\"",
		       json_show(str_of(word), shown, sizeof(shown)));
}

/* --- names --- */

/* podman writes titles that are no paths, so the specification's annotations come first. */
void layout_name(enum layout_as as, struct layout_layer *l)
{
	static const char *const keys[] = {
		"org.cncf.model.filepath",
		"org.cnai.model.filepath",
		"org.opencontainers.image.title",
	};

	for (size_t k = as == AS_ORAS ? 2 : 0; k < ARRAY_SIZE(keys) && !l->name; k++) {
		l->name = layout_annotation(l->d, keys[k]);
		l->name_key = keys[k];
	}
	if (!l->name && as != AS_ORAS && l->media.family == FAMILY_OLLAMA) {
		l->name = l->d->name;
		l->name_key = "name";
	}
}

void layout_name_by_digest(struct layout_layer *l)
{
	l->name = digest_format(&l->d->digest, '-', l->made);
	l->name_key = "(digest)";
}

void layout_name_by_convention(struct layout_layer *l, size_t nth, size_t total)
{
	const struct layout_type *t = l->media.type;

	if (!t || !t->name) {
		if (l->media.family == FAMILY_OLLAMA)
			layout_name_by_digest(l);
		return;
	}
	const char *dot = strchr(t->name, '.');
	int stem = (int)(dot ? (size_t)(dot - t->name) : strlen(t->name));
	if (t->shards && total > 1)
		snprintf(l->made, sizeof(l->made), "%.*s-%05zu-of-%05zu%s", stem, t->name, nth + 1,
			 total, dot ? dot : "");
	else if (nth > 0)
		snprintf(l->made, sizeof(l->made), "%.*s-%zu%s", stem, t->name, nth + 1,
			 dot ? dot : "");
	else
		snprintf(l->made, sizeof(l->made), "%s", t->name);
	l->name = l->made;
	l->name_key = "(convention)";
}
