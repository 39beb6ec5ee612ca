// SPDX-License-Identifier: Apache-2.0
/*
 * What each producer's layers become. L: the cases of artifact layouts; the source of each shape
 * stands at its test.
 */
#include "layout_fixture.h"
#include "layout_internal.h"

#define MODELPACK "application/vnd.cncf.model.config.v1+json"
#define KIT "application/vnd.kitops.modelkit.config.v1+json"
#define OCI_LAYER "application/vnd.oci.image.layer.v1.tar"
#define SINGLE "{\"name\":\"x\",\"mode\":420,\"uid\":0,\"gid\":0,\"size\":3,\"mtime\":\"1970-01-01T00:00:00Z\",\"typeflag\":0}"
#define BUNDLE "{\"name\":\"config\",\"mode\":420,\"size\":9,\"mtime\":\"1970-01-01T00:00:00Z\",\"typeflag\":0,\"files\":2}"

/* The plan as text: "path ..." of files, then "#layer codec prefix|subdir|single ..." of trees. */
static void becomes_with(const struct layout_options *o, const char *expected)
{
	struct layout l = planned_with(o);
	struct buf got = BUF_INIT(64 * KIB);

	for (size_t i = 0; i < l.n_files; i++)
		buf_addf(&got, "%s%s", got.len ? " " : "", l.files[i].path);
	for (size_t i = 0; i < l.n_trees; i++) {
		const struct layout_tree *t = &l.trees[i];
		buf_addf(&got, "%s#%zu %d %s|%s|%s", got.len ? " " : "", t->layer + 1, (int)t->codec,
			 t->prefix, t->subdir, t->single ? t->single : "-");
		assert_non_null(t->key);
		assert_int_equal(t->size, manifest.layers[t->layer].size);
		assert_true(digest_equal(&t->digest, &manifest.layers[t->layer].digest));
	}
	assert_string_equal(buf_cstr(&got), expected);
	buf_release(&got);
	layout_release(&l);
}

static void becomes(const char *expected)
{
	becomes_with(NULL, expected);
}

/* --- ModelPack --- */

/*
 * model-spec specs-go/v1/mediatype.go; the cnai twins: CloudNativeAI/model-spec, the same grammar
 */
static void test_modelpack_20_types_and_twins(void **state)
{
	(void)state;
	static const char *const vendors[] = { "cncf", "cnai" };
	static const char *const kinds[] = { "weight", "weight.config", "doc", "code", "dataset" };
	static const struct {
		const char *suffix, *expected;
	} packed[] = {
		{ "raw", "d/x" },
		{ "tar", "#1 0 ||d/x" },
		{ "tar+gzip", "#1 1 ||d/x" },
		{ "tar+zstd", "#1 2 ||d/x" },
		{ "tar.gz", "#1 1 ||d/x" },
	};

	for (size_t v = 0; v < ARRAY_SIZE(vendors); v++) {
		for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
			for (size_t i = 0; i < ARRAY_SIZE(packed); i++) {
				char type[100], key[100];
				snprintf(type, sizeof(type), "application/vnd.%s.model.%s.v1.%s", vendors[v],
					 kinds[k], packed[i].suffix);
				snprintf(key, sizeof(key), "org.%s.model.filepath", vendors[v]);
				begin(MODELPACK);
				layer(type, A, 3, key, "d/x", NULL);
				becomes(packed[i].expected);
			}
		}
	}
	begin(MODELPACK); /* ".tar" as part of a word says nothing */
	layer("application/vnd.cncf.model.tarball.v1.raw", A, 3, PATH, "x", NULL);
	layer("application/vnd.cncf.model.weight.code.v1.raw", B, 3, PATH, "y", NULL);
	becomes("x y");
	begin(MODELPACK);
	layer("application/vnd.cncf.model.weight.v1.tar+xz", A, 3, PATH, "x", NULL);
	refused(CODE_UNSUPPORTED, "layer 1 (application/vnd.cncf.model.weight.v1.tar+xz): an archive packed or");
}

/*
 * modctl build --raw=false (pkg/backend/build): filepath is the entry's name; no filepath: names
 * are the archive's
 */
static void test_modctl_tar(void **state)
{
	(void)state;
	begin(MODELPACK);
	layer("application/vnd.cncf.model.weight.v1.tar", A, 3, PATH, "model.safetensors", META, SINGLE, NULL);
	layer("application/vnd.cncf.model.weight.config.v1.tar", B, 3, NULL);
	becomes("#1 0 ||- #2 0 ||-");
}

/*
 * aikit pkg/packager/build_templates.go: one tar per weight with the base name inside [L28],
 * bundles with a label as path [L27]
 */
static void test_L27_L28_aikit_tar_modes(void **state)
{
	(void)state;
	begin(MODELPACK);
	layer("application/vnd.cncf.model.weight.v1.tar+zstd", A, 3, TITLE, "te/w.bin", PATH, "te/w.bin", META,
	      SINGLE, NULL);
	layer("application/vnd.cncf.model.weight.config.v1.tar+zstd", B, 3, TITLE, "config", PATH, "config",
	      META, BUNDLE, NULL);
	becomes("#1 2 ||te/w.bin #2 2 ||-");
}

static void test_L12_to_L15_paths_of_archives(void **state)
{
	(void)state;
	static const char *const bad[] = { "../x", "../../x", "a/../../x", "a/../b", "/x", "", "..",
					   ".fetcher/x", "current" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		begin(MODELPACK);
		layer("application/vnd.cncf.model.weight.v1.tar", A, 3, PATH, bad[i], NULL);
		refused(CODE_UNSAFE, "layer 1, annotation org.cncf.model.filepath: unsafe path");
	}
	begin(MODELPACK); /* a directory, as KitOps writes it */
	layer("application/vnd.cncf.model.code.v1.tar", A, 3, PATH, "./src//", NULL);
	layer("application/vnd.cncf.model.doc.v1.tar", B, 3, PATH, "./", NULL);
	becomes("#1 0 ||- #2 0 ||-");
}

static void test_archive_of_no_bytes(void **state)
{
	(void)state;
	begin(MODELPACK);
	layer("application/vnd.cncf.model.weight.v1.tar", EMPTY, 0, PATH, "x", NULL);
	refused(CODE_INTEGRITY, "layer 1 (application/vnd.cncf.model.weight.v1.tar): an archive of no bytes");
	begin(MODELPACK);
	layer("application/vnd.cncf.model.weight.v1.tar", A, 3, PATH, "x", NULL);
	layer("a/b", A, 4, TITLE, "y", NULL);
	refused(CODE_INTEGRITY, "one digest two sizes");
}

/* --- ORAS --- */

/*
 * oras-go content/file: one gzipped tar per directory, whatever its type; "." for the root (aicr)
 */
static void test_L34_oras_directories(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer(OCI_LAYER "+gzip", A, 3, TITLE, "conf", UNPACK, "true", "io.deis.oras.content.digest", B, NULL);
	layer("application/x-custom", B, 3, TITLE, "a/b", UNPACK, "true", NULL);
	layer(OCI_LAYER "+zstd", A, 3, TITLE, ".", UNPACK, "true", NULL);
	layer(OCI_LAYER, B, 3, TITLE, "f.tar", UNPACK, "false", NULL);
	struct layout l = planned();
	struct digest inner;
	assert_true(digest_parse(str_of(B), &inner));
	assert_int_equal(l.n_trees, 3);
	assert_true(digest_equal(&inner, &l.trees[0].inner));
	assert_int_equal(l.trees[1].inner.alg, DIGEST_NONE);
	assert_string_equal(l.trees[0].name, "conf");
	assert_null(l.trees[2].name);
	assert_int_equal(l.tree_bytes, 6);
	assert_int_equal(l.bytes, 3);
	layout_release(&l);
	becomes("f.tar #1 1 ||- #2 1 ||- #3 2 ||-");
	begin(OCI_TYPE_EMPTY);
	layer(OCI_LAYER "+gzip", A, 3, TITLE, "conf", UNPACK, "true", "io.deis.oras.content.digest", "md5:x", NULL);
	refused(CODE_UNSUPPORTED, "layer 1: io.deis.oras.content.digest is no digest we know: md5:x");
	begin(OCI_TYPE_EMPTY);
	layer(OCI_LAYER "+gzip", A, 3, TITLE, "../x", UNPACK, "true", NULL);
	refused(CODE_UNSAFE, "unsafe path \"../x\"");
}

/*
 * aikit packager/generic: one image layer type whatever the packing, the title tells (aikit#681);
 * oras leaves it packed
 */
static void test_aikit_generic(void **state)
{
	(void)state;
	static const char *const titles[][2] = {
		{ "allfiles.tar", "#1 0 ||-" },
		{ "allfiles.tar.gz", "#1 1 ||-" },
		{ "allfiles.tar.zst", "#1 2 ||-" },
		{ "allfiles.tar.xz", "allfiles.tar.xz" },
		{ "my.tar.gz", "my.tar.gz" }, /* [L33] */
	};

	for (size_t i = 0; i < ARRAY_SIZE(titles); i++) {
		begin(OCI_TYPE_EMPTY);
		layer(OCI_LAYER, A, 3, TITLE, titles[i][0], NULL);
		becomes(titles[i][1]);
		begin(OCI_TYPE_EMPTY);
		layer(OCI_LAYER, A, 3, TITLE, titles[i][0], NULL);
		becomes_with(&(struct layout_options){ .as = "oras" }, titles[i][0]);
	}
	begin(OCI_TYPE_EMPTY); /* not alone: somebody's files */
	layer(OCI_LAYER, A, 3, TITLE, "allfiles.tar", NULL);
	layer(OCI_LAYER, B, 3, TITLE, "x", NULL);
	becomes("allfiles.tar x");
	begin(OCI_TYPE_EMPTY); /* raw mode */
	layer("application/octet-stream", A, 3, TITLE, "a/b.json", NULL);
	becomes("a/b.json");
}

/* --- ramalama, podman artifact --- */

/* podman cmd/podman/artifact/add.go: the title is the base name of the file given, here a blob's */
static void test_ramalama_filepath_beats_title(void **state)
{
	(void)state;
	begin(OCI_TYPE_EMPTY);
	layer("application/gzip", A, 3, TITLE, "sha256-ba7816bf", PATH, "model.gguf", META,
	      "{\"name\":\"model.gguf\",\"mode\":420,\"typeflag\":48}", NULL);
	layer("text/plain", B, 3, TITLE, "notes.txt", NULL);
	becomes("model.gguf notes.txt");
}

/* --- KitOps --- */

#define KIT_TAR "application/vnd.kitops.modelkit."

/* kitops pkg/artifact/kitfile.go: LayerInfo is inlined into each entry */
static void test_kitops(void **state)
{
	(void)state;
	begin(KIT);
	layer(KIT_TAR "model.v1.tar", A, 3, NULL);
	layer(KIT_TAR "modelpart.v1.tar+gzip", B, 3, NULL);
	layer(KIT_TAR "code.v1.tar+zstd", A, 3, NULL);
	layer(KIT_TAR "code.v1.tar", B, 3, "ml.kitops.modelkit.layer.subtype", "prompt", NULL);
	layer(KIT_TAR "mcpb.v1.raw", B, 3, PATH, "server.mcpb", NULL);
	config = "{\"manifestVersion\":\"1.0.0\",\"model\":{\"path\":\"w/m.gguf\",\"digest\":\"" A
		 "\",\"diffId\":\"" A "\",\"parts\":[{\"path\":\"w/p\",\"digest\":\"" B
		 "\"}]},\"code\":[{\"path\":\"src\",\"digest\":\"" A "\"}]}";
	becomes("server.mcpb #1 0 ||- #2 1 ||- #3 2 ||- #4 0 ||-");
	begin(KIT);
	layer(KIT_TAR "model.v1.raw+gzip", A, 3, PATH, "m.gguf", NULL);
	config = "{}";
	refused(CODE_UNSUPPORTED, "compressed single file");
}

/*
 * kitops pkg/lib/filesystem/unpack/legacy.go: the nth layer of a kind is the nth entry, names are
 * relative to its directory
 */
static void test_kitops_old(void **state)
{
	(void)state;
	begin(KIT);
	layer(KIT_TAR "model.v1.tar+gzip", A, 3, NULL);
	layer(KIT_TAR "modelpart.v1.tar+gzip", A, 3, NULL);
	layer(KIT_TAR "dataset.v1.tar+gzip", B, 3, NULL);
	layer(KIT_TAR "dataset.v1.tar+gzip", A, 3, NULL);
	layer(KIT_TAR "code.v1.tar+gzip", A, 3, NULL);
	layer(KIT_TAR "docs.v1.tar+gzip", A, 3, NULL);
	config = "{\"model\":{\"path\":\"./w/big/m.gguf\",\"parts\":[{\"path\":\"lora/\"}]},"
		 "\"datasets\":[{\"path\":\"d/1\"},{\"path\":\"d/two/2\"}],\"code\":[{\"path\":\".\"}],"
		 "\"docs\":[{\"path\":\".//docs/sub/\"}]}";
	becomes("#1 1 w/big/||- #2 1 ||- #3 1 d/||- #4 1 d/two/||- #5 1 ||- #6 1 docs/||-");
	assert_true(layout_wants_config(&manifest));
}

static void test_kitfiles_refused(void **state)
{
	(void)state;
	static const struct {
		const char *config;
		enum code code;
		const char *why;
	} t[] = {
		{ NULL, CODE_INTEGRITY, "lacks its Kitfile" },
		{ "", CODE_INTEGRITY, "Kitfile" },
		{ "[]", CODE_INTEGRITY, "it is no object" },
		{ "{\"model\":[]}", CODE_INTEGRITY, "\"model\" has the wrong type" },
		{ "{\"model\":{\"parts\":{}}}", CODE_INTEGRITY, "\"parts\" has the wrong type" },
		{ "{\"code\":[7]}", CODE_INTEGRITY, "\"code\" has the wrong type" },
		{ "{\"model\":{\"path\":7}}", CODE_INTEGRITY, "\"path\" has the wrong type" },
		{ "{}", CODE_INTEGRITY, "no entry for model layer number 1" },
		{ "{\"model\":{\"path\":\"../w/m\"}}", CODE_UNSAFE, "Kitfile: unsafe path \"../w/m\"" },
		{ "{\"model\":{\"path\":\"/w/m\"}}", CODE_UNSAFE, "absolute" },
		{ "{\"model\":{\"path\":\".fetcher/m\"}}", CODE_UNSAFE, "belongs to fetcher" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		begin(KIT);
		layer(KIT_TAR "model.v1.tar", A, 3, NULL);
		config = t[i].config;
		refused(t[i].code, t[i].why);
	}
}

/* kitops unpack/core.go unpackParent: model.path may be a reference */
static void test_kitops_parent(void **state)
{
	const struct layout_options code = { .types = WORDS("code", "doc") };
	(void)state;

	for (int i = 0; i < 2; i++) {
		begin(KIT);
		layer(KIT_TAR "code.v1.tar", A, 3, NULL);
		config = "{\"model\":{\"path\":\"jozu.ml/org/base:1\"},\"code\":[{\"path\":\".\",\"digest\":\"x\"}]}";
		if (i == 0)
			refused(CODE_UNSUPPORTED, "in another one, jozu.ml/org/base:1");
		else
			becomes_with(&code, "#1 0 ||-");
	}
}

/* --- Docker Model Runner --- */

#define DOCKER "application/vnd.docker.ai."

/* model-runner pkg/distribution/internal/bundle/unpack.go: v0.1 without annotations */
static void test_docker_v01(void **state)
{
	(void)state;
	begin(DOCKER "model.config.v0.1+json");
	layer(DOCKER "gguf.v3", A, 3, NULL);
	layer(DOCKER "mmproj", B, 3, NULL);
	layer(DOCKER "chat.template.jinja", B, 3, NULL);
	layer(DOCKER "license", B, 3, NULL);
	layer(DOCKER "license", A, 3, NULL);
	layer(DOCKER "vllm.config.tar", B, 3, NULL);
	becomes("LICENSE LICENSE-2 model.gguf model.mmproj template.jinja #6 0 ||-");
	assert_false(layout_wants_config(&manifest));
	begin(DOCKER "model.config.v0.1+json");
	layer(DOCKER "safetensors", A, 3, NULL);
	layer(DOCKER "license", B, 3, NULL);
	layer(DOCKER "safetensors", B, 3, NULL);
	becomes("LICENSE model-00001-of-00002.safetensors model-00002-of-00002.safetensors");
	begin(DOCKER "model.config.v0.1+json"); /* current builders name them */
	layer(DOCKER "gguf.v3", A, 3, PATH, "q4.gguf", META, SINGLE, NULL);
	layer(DOCKER "dduf", B, 3, NULL);
	becomes("model.dduf q4.gguf");
}

/* model-runner builder.FromDirectory: a layer per file; dir.tar archives go to the root */
static void test_docker_v02(void **state)
{
	(void)state;
	begin(DOCKER "model.config.v0.2+json");
	layer(DOCKER "safetensors", A, 3, PATH, "text_encoder/model.safetensors", META, SINGLE, NULL);
	layer(DOCKER "model.file", B, 3, PATH, "text_encoder/config.json", NULL);
	layer(DOCKER "dir.tar", B, 3, PATH, "a/tokenizer", NULL);
	becomes("text_encoder/config.json text_encoder/model.safetensors #3 0 ||-");
	begin(MODELPACK); /* model package --format cncf; two types that no specification has */
	layer("application/vnd.cncf.model.weight.v1.gguf", A, 3, PATH, "m.gguf", NULL);
	layer("application/vnd.cncf.model.weight.v1.safetensors", B, 3, PATH, "m.safetensors", NULL);
	becomes("m.gguf m.safetensors");
}

/* --- Ollama --- */

#define OLLAMA "application/vnd.ollama.image."

/* ollama manifest/: Docker schema 2 [L45], unnamed layers */
static void test_ollama(void **state)
{
	(void)state;
	begin(DOCKER_TYPE_IMAGE_CONFIG);
	layer(OLLAMA "model", A, 3, NULL);
	layer(OLLAMA "projector", B, 3, NULL);
	layer(OLLAMA "template", B, 3, NULL);
	layer(OLLAMA "system", B, 3, NULL);
	layer(OLLAMA "params", A, 3, NULL);
	layer(OLLAMA "license", A, 3, NULL);
	layer(OLLAMA "license", B, 3, NULL);
	layer(OLLAMA "adapter", B, 3, NULL);
	layer(OLLAMA "messages", B, 3, NULL);
	becomes("adapter.gguf license license-2 mmproj.gguf model.gguf params.json "
		"sha256-cb8379ac2098aa165029e3938a51da0bcecfc008fd6795f401178647f96c5b34 system template");
	assert_false(layout_wants_config(&manifest));
}

/* newer, safetensors style: a key "name" on the layer object */
static void test_ollama_names(void **state)
{
	(void)state;
	begin(DOCKER_TYPE_IMAGE_CONFIG);
	buf_adds(&text, "{\"mediaType\":\"" OLLAMA "tensor\",\"digest\":\"" A
			"\",\"size\":3,\"name\":\"text_encoder/q\"},{\"mediaType\":\"" OLLAMA
			"json\",\"digest\":\"" B "\",\"size\":3,\"name\":\"config.json\"}");
	becomes("config.json text_encoder/q");
	begin(DOCKER_TYPE_IMAGE_CONFIG);
	buf_adds(&text, "{\"mediaType\":\"" OLLAMA "tensor\",\"digest\":\"" A
			"\",\"size\":3,\"name\":\"../../x\"}");
	refused(CODE_UNSAFE, "layer 1, annotation name: unsafe path \"../../x\"");
	begin(OCI_TYPE_EMPTY); /* nobody else's key */
	buf_adds(&text, "{\"mediaType\":\"a/b\",\"digest\":\"" A "\",\"size\":3,\"name\":\"x\"}");
	refused(CODE_UNSUPPORTED, "nothing to pull");
}

/* --- container images --- */

static void image(const char *config_type)
{
	begin(config_type);
	layer(OCI_LAYER "+gzip", A, 3, NULL);
	layer("application/vnd.docker.image.rootfs.diff.tar.gzip", B, 3, NULL);
	layer(OCI_LAYER, A, 3, NULL);
	layer(OCI_LAYER "+zstd", B, 3, NULL);
}

/* modelcars of KServe, ramalama, buildah: files below /models [L47] */
static void test_L47_images(void **state)
{
	(void)state;
	image(OCI_TYPE_IMAGE_CONFIG);
	struct layout l = planned();
	assert_int_equal(l.n_trees, 4);
	assert_true(l.trees[0].image);
	assert_int_equal(l.tree_bytes, 6);
	char a[LAYOUT_TREE_NAME], b[LAYOUT_TREE_NAME];
	assert_string_not_equal(layout_tree_name(&l.trees[0], a), layout_tree_name(&l.trees[2], b));
	layout_release(&l);
	becomes("#1 1 |models/|- #2 1 |models/|- #3 0 |models/|- #4 2 |models/|-");
	image(DOCKER_TYPE_IMAGE_CONFIG);
	becomes_with(&(struct layout_options){ .subdir = "/" }, "#1 1 ||- #2 1 ||- #3 0 ||- #4 2 ||-");
	image(DOCKER_TYPE_IMAGE_CONFIG);
	becomes_with(&(struct layout_options){ .subdir = "//opt/./m/" },
		     "#1 1 |opt/m/|- #2 1 |opt/m/|- #3 0 |opt/m/|- #4 2 |opt/m/|-");
	image(OCI_TYPE_IMAGE_CONFIG);
	becomes_with(&(struct layout_options){ .subdir = "current/.fetcher" },
		     "#1 1 |current/.fetcher/|- #2 1 |current/.fetcher/|- #3 0 |current/.fetcher/|- #4 2 |current/.fetcher/|-");
	image(OCI_TYPE_IMAGE_CONFIG);
	refused_with(&(struct layout_options){ .subdir = "a/../b" }, CODE_USAGE, "--subdir: unsafe path");
	begin(OCI_TYPE_IMAGE_CONFIG);
	layer(OCI_LAYER "+gzip+encrypted", A, 3, NULL);
	refused(CODE_UNSUPPORTED, "packed or encrypted");
}

static void test_what_is_an_image(void **state)
{
	(void)state;
	begin(OCI_TYPE_IMAGE_CONFIG); /* oras push --config x:image-config, with names: files */
	layer(OCI_LAYER, A, 3, TITLE, "x", NULL);
	layer(OCI_LAYER, B, 3, NULL);
	becomes("x");
	begin(OCI_TYPE_IMAGE_CONFIG); /* something that is no layer beside them */
	layer(OCI_LAYER, A, 3, NULL);
	layer("application/vnd.in-toto+json", B, 3, NULL);
	becomes("#1 0 |models/|-");
	begin(OCI_TYPE_IMAGE_CONFIG); /* a model's own types among them: no image */
	layer(DOCKER "gguf.v3", A, 3, NULL);
	layer(OCI_LAYER, B, 3, NULL);
	becomes("model.gguf");
	begin(OCI_TYPE_EMPTY); /* image layers without an image's config are nobody's */
	layer(OCI_LAYER, A, 3, NULL);
	refused(CODE_UNSUPPORTED, "nothing to pull");
	begin(OCI_TYPE_EMPTY);
	layer(OCI_LAYER, A, 3, TITLE, "x", NULL);
	becomes_with(&(struct layout_options){ .as = "image" }, "#1 0 |models/|-");
}

/* olot docs of layer content annotations; registry.redhat.io modelcars carry titles too */
static void test_olot(void **state)
{
	const struct layout_options no_json = { .exclude = WORDS("*.json") };
	const struct layout_options json = { .include = WORDS("*.json") };
	(void)state;

	for (int i = 0; i < 3; i++) {
		begin(OCI_TYPE_IMAGE_CONFIG);
		layer(OCI_LAYER "+gzip", A, 3, NULL);
		layer(OCI_LAYER, A, 3, TITLE, "config.json", "olot.layer.content.type", "file",
		      "olot.layer.content.inlayerpath", "/models/config.json", NULL);
		layer(OCI_LAYER, B, 3, TITLE, "w", "olot.layer.content.type", "directory",
		      "olot.layer.content.inlayerpath", "/models/w", NULL);
		layer(OCI_LAYER, B, 3, TITLE, "m.bin", "olot.layer.content.type", "file",
		      "olot.layer.content.inlayerpath", "/models/m.bin", NULL);
		if (i == 0)
			becomes("#1 1 |models/|- #2 0 |models/|- #3 0 |models/|- #4 0 |models/|-");
		else if (i == 1)
			becomes_with(&no_json, "#1 1 |models/|- #3 0 |models/|- #4 0 |models/|-");
		else
			becomes_with(&json, "#1 1 |models/|- #2 0 |models/|- #3 0 |models/|-");
	}
}

/* --- options --- */

static void mixed(void)
{
	begin(MODELPACK);
	layer("application/vnd.cncf.model.weight.v1.raw", A, 3, PATH, "w/m.bin", NULL);
	layer("application/vnd.cncf.model.weight.config.v1.tar", B, 3, PATH, "config", META, BUNDLE, NULL);
	layer("application/vnd.cnai.model.doc.v1.raw", A, 3, PATH, "README.md", NULL);
	layer("application/vnd.cncf.model.weight.code.v1.raw", B, 3, PATH, "run.py", NULL);
	layer("application/vnd.cncf.model.dataset.v1.tar+gzip", A, 3, PATH, "dataset", META, BUNDLE, NULL);
	layer("text/plain", B, 3, TITLE, "notes", NULL);
}

static void test_types(void **state)
{
	(void)state;
	static const struct {
		const char *words[3];
		const char *expected;
	} t[] = {
		{ { NULL }, "README.md notes run.py w/m.bin #2 0 ||- #5 1 ||-" },
		{ { "weight", NULL }, "w/m.bin" },
		{ { "weight", "config", NULL }, "w/m.bin #2 0 ||-" },
		{ { "doc", "code", NULL }, "README.md run.py" },
		{ { "dataset", NULL }, "#5 1 ||-" },
		{ { "other", NULL }, "notes" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		mixed();
		becomes_with(&(struct layout_options){ .types = t[i].words }, t[i].expected);
	}
	mixed();
	refused_with(&(struct layout_options){ .types = WORDS("weights") }, CODE_USAGE, "not \"weights\"");
	begin(OCI_TYPE_EMPTY);
	layer("a/b", A, 3, TITLE, "x", NULL);
	refused_with(&(struct layout_options){ .types = WORDS("weight") }, CODE_UNSUPPORTED,
		     "--include, --exclude and --type leave none of 1 file");
}

static void test_layout_as(void **state)
{
	(void)state;
	mixed();
	becomes_with(&(struct layout_options){ .as = "raw" }, "README.md config dataset notes run.py w/m.bin");
	mixed();
	becomes_with(&(struct layout_options){ .as = "oras" }, "notes");
	mixed();
	refused_with(&(struct layout_options){ .as = "oci" }, CODE_USAGE, "not \"oci\"");
	begin(OCI_TYPE_EMPTY);
	layer("application/vnd.example.v1.tar+gzip", A, 3, TITLE, "d/x", NULL);
	becomes("d/x");
	begin(OCI_TYPE_EMPTY);
	layer("application/vnd.example.v1.tar+gzip", A, 3, TITLE, "d/x", NULL);
	becomes_with(&(struct layout_options){ .as = "modelpack" }, "#1 1 ||d/x");
	image(OCI_TYPE_IMAGE_CONFIG);
	becomes_with(&(struct layout_options){ .as = "raw" },
		     "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad "
		     "sha256-cb8379ac2098aa165029e3938a51da0bcecfc008fd6795f401178647f96c5b34");
	begin(KIT); /* raw needs no Kitfile */
	layer(KIT_TAR "model.v1.tar", A, 3, NULL);
	becomes_with(&(struct layout_options){ .as = "raw" },
		     "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/* Archives of which nothing can be wanted are not fetched. */
static void globbed(const char *const *include, const char *const *exclude, const char *expected)
{
	begin(MODELPACK);
	layer("application/vnd.cncf.model.weight.v1.tar", A, 3, PATH, "w/m.bin", META, SINGLE, NULL);
	layer("application/vnd.cncf.model.weight.config.v1.tar", B, 3, PATH, "config", META, BUNDLE, NULL);
	layer(OCI_LAYER "+gzip", A, 3, TITLE, "tok/sub", UNPACK, "true", NULL);
	becomes_with(&(struct layout_options){ .include = include, .exclude = exclude }, expected);
}

static void test_L48_globs_and_archives(void **state)
{
	(void)state;
	globbed(WORDS("*.bin"), NULL, "#1 0 ||w/m.bin #2 0 ||- #3 1 ||-");
	globbed(WORDS("*.json"), NULL, "#2 0 ||- #3 1 ||-");
	globbed(WORDS("w/**"), NULL, "#1 0 ||w/m.bin #2 0 ||-");
	globbed(WORDS("tok/*/x"), NULL, "#2 0 ||- #3 1 ||-");
	globbed(WORDS("tok/*"), NULL, "#2 0 ||-");
	globbed(WORDS("**/x.json"), NULL, "#2 0 ||- #3 1 ||-");
	globbed(NULL, WORDS("*.bin"), "#2 0 ||- #3 1 ||-");
	globbed(NULL, WORDS("tok/"), "#1 0 ||w/m.bin #2 0 ||-");
	globbed(NULL, WORDS("tok/**"), "#1 0 ||w/m.bin #2 0 ||-");
	globbed(NULL, WORDS("tok/sub/*.json"), "#1 0 ||w/m.bin #2 0 ||- #3 1 ||-");
	globbed(NULL, WORDS("config"), "#1 0 ||w/m.bin #3 1 ||-");
	begin(MODELPACK);
	layer("application/vnd.cncf.model.weight.config.v1.tar", B, 3, PATH, "config", META, BUNDLE, NULL);
	refused_with(&(struct layout_options){ .exclude = WORDS("**") }, CODE_UNSUPPORTED, "leave none of 1 file");
}

/* What the two short cuts say of a directory is true of every path below it. */
static void test_globs_below_directories(void **state)
{
	static const char *const patterns[] = {
		"*", "**", "/", "/**", "/*", "a", "a/", "/a", "/a/", "a/**", "a/*", "a/b", "a/b/", "a/b/**",
		"a/*/c", "*/b/**", "**/b", "**/b/", "**/b/**", "b/", "a/?/", "a/[bx]/", "a/[!b]/**", "x/**",
		"a/b/c/d", "./a/", "./a/**", "a\\/b/", "a/b*/", "*/*/c", "a**/", "a/**/c", "x*", "*/",
		"/*/**", "a*/c/**", "*x/b", "",
	};
	static const char *const dirs[] = { "a", "a/b", "b", "a/b/c", "x", "ab", "x/b" };
	static const char *const leaves[] = { "a", "b", "c", "x", "b/c", "b/a", "c/d", "x/y/z", "c" };
	char path[64];
	(void)state;

	for (size_t p = 0; p < ARRAY_SIZE(patterns); p++) {
		for (size_t d = 0; d < ARRAY_SIZE(dirs); d++) {
			bool all = layout_glob_all_below(patterns[p], dirs[d]);
			bool some = layout_glob_below(patterns[p], dirs[d]);
			for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
				snprintf(path, sizeof(path), "%s/%s", dirs[d], leaves[i]);
				bool hit = layout_glob(patterns[p], path);
				if ((all && !hit) || (hit && !some))
					fail_msg("\"%s\" below \"%s\": all %d, some %d, but \"%s\" %d",
						 patterns[p], dirs[d], all, some, path, hit);
			}
		}
	}
	assert_true(layout_glob_all_below("a/**", "a/b") && layout_glob_all_below("b/", "a/b/c"));
	assert_true(layout_glob_all_below("**", "a") && layout_glob_all_below("/**", "a"));
	assert_false(layout_glob_all_below("a/*", "a") || layout_glob_all_below("b/**", "a/b"));
	assert_false(layout_glob_below("x/**", "a") || layout_glob_below("/a/b", "a/b"));
}

/* Two options that give different files never share a record. */
static void test_keys(void **state)
{
	(void)state;
	const struct layout_options o[] = {
		{ 0 },
		{ .include = WORDS("*.a", "*.b") },
		{ .include = WORDS("*.a") },
		{ .exclude = WORDS("*.a") },
		{ .include = WORDS("*.a*.b") },
		{ .include = WORDS("*\xff") },
		{ .include = WORDS("*\xfe") },
		{ .subdir = "/" },
		{ .subdir = "x" },
	};
	char names[ARRAY_SIZE(o)][LAYOUT_TREE_NAME];

	for (size_t i = 0; i < ARRAY_SIZE(o); i++) {
		image(OCI_TYPE_IMAGE_CONFIG);
		struct layout l = planned_with(&o[i]);
		layout_tree_name(&l.trees[0], names[i]);
		assert_int_equal(strlen(names[i]), 7 + 64 + 9);
		assert_memory_equal(names[i], "sha256-ba7816bf", 15);
		layout_release(&l);
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(names[i], names[k]);
	}
}

static void test_descriptions(void **state)
{
	(void)state;
	static const struct {
		struct layout_tree t;
		const char *text;
	} t[] = {
		{ { .image = true, .codec = CODEC_GZIP, .prefix = (char *)"", .subdir = (char *)"models/" },
		  "tar+gzip below models/" },
		{ { .image = true, .prefix = (char *)"", .subdir = (char *)"" }, "tar of an image" },
		{ { .codec = CODEC_ZSTD, .prefix = (char *)"old/", .subdir = (char *)"" }, "tar+zstd into old/" },
		{ { .name = (char *)"config", .prefix = (char *)"", .subdir = (char *)"" }, "tar of config" },
		{ { .prefix = (char *)"", .subdir = (char *)"" }, "tar" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct buf b = BUF_INIT(1000);
		layout_tree_describe(&t[i].t, &b);
		assert_string_equal(buf_cstr(&b), t[i].text);
		buf_release(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_modelpack_20_types_and_twins),
		cmocka_unit_test(test_modctl_tar),
		cmocka_unit_test(test_L27_L28_aikit_tar_modes),
		cmocka_unit_test(test_L12_to_L15_paths_of_archives),
		cmocka_unit_test(test_archive_of_no_bytes),
		cmocka_unit_test(test_L34_oras_directories),
		cmocka_unit_test(test_aikit_generic),
		cmocka_unit_test(test_ramalama_filepath_beats_title),
		cmocka_unit_test(test_kitops),
		cmocka_unit_test(test_kitops_old),
		cmocka_unit_test(test_kitfiles_refused),
		cmocka_unit_test(test_kitops_parent),
		cmocka_unit_test(test_docker_v01),
		cmocka_unit_test(test_docker_v02),
		cmocka_unit_test(test_ollama),
		cmocka_unit_test(test_ollama_names),
		cmocka_unit_test(test_L47_images),
		cmocka_unit_test(test_what_is_an_image),
		cmocka_unit_test(test_olot),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_layout_as),
		cmocka_unit_test(test_L48_globs_and_archives),
		cmocka_unit_test(test_globs_below_directories),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_descriptions),
	};

	return cmocka_run_group_tests_name("layout_trees", tests, NULL, teardown);
}
