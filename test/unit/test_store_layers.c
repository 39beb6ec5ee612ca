// SPDX-License-Identifier: Apache-2.0
/* Records of layers: what is written comes back, and nothing hostile does. */
#include "store_gc_fixture.h"

#define NAME "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef-01234567"
#define RECORD ".fetcher/layers/" NAME ".json"
#define DIGEST_A "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"	/* of "a" */
#define DIGEST_NOTHING "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void set(struct layout_file *f, enum layout_kind kind, const char *path, const char *text)
{
	*f = (struct layout_file){ .kind = kind, .path = (char *)(uintptr_t)path, .size = strlen(text) };
	if (kind != LAYOUT_DIR)
		digest_of(DIGEST_SHA256, text, strlen(text), &f->digest);
	if (kind == LAYOUT_SYMLINK)
		f->data = (const uint8_t *)text;
}

static void write_layer(struct store *s, const char *name, const struct layout_file *f, size_t n)
{
	FX_OK(store_layer_write(s, name, f, n, NULL, 0, false, false, FX_E));
}

static int read_layer(struct store *s, const char *name, struct store_layer *l)
{
	struct err e = { 0 };
	int rc = store_layer_read(s, name, l, &e);

	if (rc < 0)
		fail_msg("%d %s", (int)e.code, e.msg);
	return rc;
}

static void records_round_trip(void **state)
{
	char text[4][8] = { "gone", "old/", "/", "b\xff/" };
	char *whiteouts[] = { text[0], text[1], text[2], text[3] };
	struct layout_file f[6];
	struct store_layer l;
	struct store *s = open_locked();

	(void)state;
	set(&f[0], LAYOUT_FILE, "d/a", "content");
	f[0].mode = 0755;
	f[0].has_mtime = true;
	f[0].mtime_sec = -7;
	f[0].mtime_nsec = 5;
	set(&f[1], LAYOUT_SYMLINK, "d/link", "../\xfe\"x");
	set(&f[2], LAYOUT_DIR, "empty", "");
	set(&f[3], LAYOUT_FILE, "\xff\\\"\xef\xbf\xbd", "");
	set(&f[4], LAYOUT_FILE, "z", "zz");
	digest_of(DIGEST_SHA512, "zz", 2, &f[4].digest);
	set(&f[5], LAYOUT_SYMLINK, "zz", "./a/../z/.");
	for (int sync = 0; sync < 2; sync++) {
		FX_OK(store_layer_write(s, NAME, f, 6, whiteouts, 4, sync == 0, sync == 1, FX_E));
		assert_int_equal(read_layer(s, NAME, &l), 1);
		assert_int_equal(l.n_files, 6);
		assert_int_equal(l.n_whiteouts, 4);
		assert_int_equal(l.saw_subdir, sync == 0);
		assert_true(l.same_boot);
		for (size_t i = 0; i < 6; i++) {
			assert_string_equal(l.files[i].path, f[i].path);
			assert_int_equal(l.files[i].kind, f[i].kind);
			assert_int_equal(l.files[i].size, f[i].size);
			assert_int_equal(l.files[i].mode, f[i].mode);
			assert_int_equal(l.files[i].has_mtime, f[i].has_mtime);
			assert_int_equal(l.files[i].mtime_sec, f[i].mtime_sec);
			assert_int_equal(l.files[i].mtime_nsec, f[i].mtime_nsec);
			if (f[i].kind != LAYOUT_DIR)
				assert_true(digest_equal(&l.files[i].digest, &f[i].digest));
			assert_int_equal(l.files[i].data != NULL, f[i].kind == LAYOUT_SYMLINK);
			if (l.files[i].data)
				assert_memory_equal(l.files[i].data, f[i].data, f[i].size);
		}
		for (size_t i = 0; i < 4; i++)
			assert_string_equal(l.whiteouts[i], whiteouts[i]);
		store_layer_release(&l);
	}
	/* nothing at all is a result too */
	write_layer(s, NAME, NULL, 0);
	assert_int_equal(read_layer(s, NAME, &l), 1);
	assert_int_equal(l.n_files + l.n_whiteouts, 0);
	store_layer_release(&l);
	store_close(s);
}

static void many_files_fit(void **state)
{
	struct layout_file *f = calloc(5000, sizeof(*f));
	struct store *s = open_locked();
	struct store_layer l;
	char path[5000][16];

	(void)state;
	for (size_t i = 0; i < 5000; i++) {
		snprintf(path[i], sizeof(path[i]), "d/%zu", i);
		set(&f[i], LAYOUT_FILE, path[i], "x");
	}
	write_layer(s, NAME, f, 5000);
	assert_int_equal(read_layer(s, NAME, &l), 1);
	assert_int_equal(l.n_files, 5000);
	assert_string_equal(l.files[4999].path, "d/4999");
	store_layer_release(&l);
	store_close(s);
	free(f);
}

static void too_many_files_are_told(void **state)
{
	const size_t n = 10000;
	char *path = malloc(LIMIT_PATH + 1);
	struct layout_file *f = calloc(n, sizeof(*f));
	struct store *s = open_locked();
	struct store_layer l;
	struct err e = { 0 };

	(void)state;
	memset(path, 'p', LIMIT_PATH);
	path[LIMIT_PATH] = 0;
	for (size_t i = 0; i < n; i++)
		set(&f[i], LAYOUT_FILE, path, "x");
	assert_int_equal(store_layer_write(s, NAME, f, n, NULL, 0, false, false, &e), -1);
	assert_int_equal(e.code, CODE_UNSUPPORTED);
	assert_non_null(strstr(e.msg, "too many files"));
	assert_int_equal(read_layer(s, NAME, &l), 0);
	store_close(s);
	free(f);
	free(path);
}

static void other_boot(void **state)
{
	struct store *s = open_locked();
	struct store_layer l;

	(void)state;
	sys_boot_id_override = "11111111-1111-1111-1111-111111111111";
	write_layer(s, NAME, NULL, 0);
	assert_int_equal(read_layer(s, NAME, &l), 1);
	assert_true(l.same_boot);
	store_layer_release(&l);
	sys_boot_id_override = "22222222-2222-2222-2222-222222222222";
	assert_int_equal(read_layer(s, NAME, &l), 1);
	assert_false(l.same_boot);
	store_layer_release(&l);
	/* who does not know the boot knows nothing */
	sys_boot_id_override = "";
	write_layer(s, NAME, NULL, 0);
	assert_int_equal(read_layer(s, NAME, &l), 1);
	assert_false(l.same_boot);
	store_layer_release(&l);
	sys_boot_id_override = NULL;
	store_close(s);
}

static void names_are_checked(void **state)
{
	const char *bad[] = { "", "..", "../ready", "sha256-00", "x", NAME "0", NAME "/../x", NAME ".tmp" };
	struct store *s = open_locked();
	struct store_layer l;
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(store_layer_write(s, bad[i], NULL, 0, NULL, 0, false, false, &e), -1);
		assert_int_equal(e.code, CODE_INTERNAL);
		assert_int_equal(read_layer(s, bad[i], &l), 0);
	}
	assert_int_equal(read_layer(s, NAME, &l), 0);
	store_close(s);
	/* no .fetcher at all */
	assert_int_equal(fx_wipe(fx_dest), 0);
	assert_int_equal(mkdir(fx_dest, 0755), 0);
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	assert_int_equal(read_layer(s, NAME, &l), 0);
	store_close(s);
}

static void put_record(const char *files, const char *whiteouts)
{
	struct buf b = BUF_INIT(1 << 20);

	buf_addf(&b, "{\"schema\":1,\"bootId\":\"b\",\"sawSubdir\":false,\"files\":[%s],\"whiteouts\":[%s]}", files,
		 whiteouts);
	fx_put(RECORD, buf_cstr(&b));
	buf_release(&b);
}

#define FILE_A(path) "{\"path\":" path ",\"size\":1,\"mode\":420,\"digest\":\"" DIGEST_A "\"}"
#define FILE_WITH(rest) "{\"path\":\"a\"," rest "}"
#define LINK_TO(path, target, digest) \
	"{\"path\":\"" path "\",\"kind\":\"symlink\",\"digest\":\"" digest "\",\"target\":\"" target "\"}"

static void hostile_records_are_none(void **state)
{
	const char *bad[] = {
		FILE_A("\"../x\""), FILE_A("\"/x\""), FILE_A("\"\""), FILE_A("\"a//b\""), FILE_A("\"./a\""),
		FILE_A("\"a/\""), FILE_A("\"a/./b\""), FILE_A("\"a\\nb\""), FILE_A("\".fetcher/x\""), FILE_A("\".FETCHER\""),
		FILE_A("\"current\""), FILE_A("7"), FILE_A("null"), "7", "null", "[]", "{}", FILE_A("\"a\"") ",{}",
		/* in base64: "..", NUL, nonsense */
		"{\"pathBase64\":\"Li4=\",\"size\":1,\"mode\":420,\"digest\":\"" DIGEST_A "\"}",
		"{\"pathBase64\":\"YQBi\",\"size\":1,\"mode\":420,\"digest\":\"" DIGEST_A "\"}",
		"{\"pathBase64\":\"%%%\",\"size\":1,\"mode\":420,\"digest\":\"" DIGEST_A "\"}",
		"{\"pathBase64\":\"\",\"size\":1,\"mode\":420,\"digest\":\"" DIGEST_A "\"}",
		FILE_WITH("\"mode\":420,\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"size\":1,\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"size\":1,\"mode\":2541,\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"size\":1,\"mode\":420"), FILE_WITH("\"size\":1,\"mode\":420,\"digest\":\"sha256:00\""),
		FILE_WITH("\"size\":1,\"mode\":420,\"digest\":\"md5:ca978112\""),
		FILE_WITH("\"size\":1e3,\"mode\":420,\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"size\":-1,\"mode\":420,\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"size\":18446744073709551615,\"mode\":420,\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"size\":70368744177665,\"mode\":420,\"digest\":\"" DIGEST_A "\""),
		/* no bytes with the digest of some, and the reverse */
		FILE_WITH("\"size\":0,\"mode\":420,\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"size\":1,\"mode\":420,\"digest\":\"" DIGEST_NOTHING "\""),
		FILE_WITH("\"size\":1,\"mode\":420,\"mtime\":5,\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"size\":1,\"mode\":420,\"mtime\":\"5\",\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"size\":1,\"mode\":420,\"mtime\":\"5.1234567890\",\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"kind\":\"device\",\"size\":1,\"mode\":420,\"digest\":\"" DIGEST_A "\""),
		FILE_WITH("\"kind\":1,\"size\":1,\"mode\":420,\"digest\":\"" DIGEST_A "\""),
		"{\"path\":\"../d\",\"kind\":\"dir\"}",
		LINK_TO("l", "b", DIGEST_A), LINK_TO("l", "", DIGEST_NOTHING),
		"{\"path\":\"l\",\"kind\":\"symlink\",\"digest\":\"" DIGEST_A "\"}",
		"{\"path\":\"l\",\"kind\":\"symlink\",\"target\":\"a\"}",
	};
	const char *bad_whiteouts[] = { "\"a\"", "{}", "{\"path\":\"../x\"}", "{\"path\":\"//\"}", "{\"path\":\"a//\"}",
					"{\"path\":\"\"}", "{\"path\":\".fetcher/\"}", "{\"path\":\"/a\"}" };
	struct store *s = open_locked();
	struct store_layer l;

	(void)state;
	write_layer(s, NAME, NULL, 0);
	put_record(FILE_A("\"a\"") "," LINK_TO("l", "a", DIGEST_A), "{\"path\":\"a\"}");
	assert_int_equal(read_layer(s, NAME, &l), 1);
	store_layer_release(&l);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		put_record(bad[i], "");
		if (read_layer(s, NAME, &l) != 0)
			fail_msg("accepted: %s", bad[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_whiteouts); i++) {
		put_record("", bad_whiteouts[i]);
		if (read_layer(s, NAME, &l) != 0)
			fail_msg("accepted: %s", bad_whiteouts[i]);
	}
	store_close(s);
}

static void links_that_lead_out_are_none(void **state)
{
	const struct {
		const char *path, *target;
		bool ok;
	} links[] = {
		{ "l", "a", true }, { "l", "a/../b", true }, { "d/l", "..", true }, { "d/l", "../x", true },
		{ "d/e/l", "../../x", true }, { "l", ".", true }, { "l", "a//b/", true }, { "d/l", ".fetcher", true },
		{ "l", "..", false }, { "l", "../x", false }, { "l", "/", false }, { "l", "/etc", false },
		{ "d/l", "../..", false }, { "l", "a/../../b", false }, { "l", "./../x", false }, { "l", "a//../..", false },
		{ "l", ".fetcher/lock", false }, { "d/l", "../.Fetcher", false }, { "l", "a/../current/x", false },
		{ "l", "a\nb", false }, { "l", "a\x7f", false },
	};
	struct store *s = open_locked();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		struct store_layer l;
		struct layout_file f;

		set(&f, LAYOUT_SYMLINK, links[i].path, links[i].target);
		write_layer(s, NAME, &f, 1);
		if (read_layer(s, NAME, &l) != links[i].ok)
			fail_msg("%s -> %s", links[i].path, links[i].target);
		if (links[i].ok)
			store_layer_release(&l);
	}
	store_close(s);
}

static void odd_files_are_none(void **state)
{
	const char *bad[] = { "", "{", "[]", "null", "{\"schema\":2}", "{\"schema\":1}",
			      "{\"schema\":1,\"bootId\":\"b\",\"sawSubdir\":false,\"files\":[]}",
			      "{\"schema\":1,\"bootId\":\"b\",\"sawSubdir\":false,\"files\":{},\"whiteouts\":[]}",
			      "{\"schema\":1,\"bootId\":\"b\",\"sawSubdir\":1,\"files\":[],\"whiteouts\":[]}",
			      "{\"schema\":1,\"sawSubdir\":true,\"files\":[],\"whiteouts\":[]}" };
	struct store *s = open_locked();
	struct store_layer l;
	char outside[128];

	(void)state;
	write_layer(s, NAME, NULL, 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		fx_put(RECORD, bad[i]);
		if (read_layer(s, NAME, &l) != 0)
			fail_msg("accepted: %s", bad[i]);
	}
	assert_int_equal(truncate(fx_path(RECORD), LIMIT_META + 1), 0);
	assert_int_equal(read_layer(s, NAME, &l), 0);
	unlink(fx_path(RECORD));
	assert_int_equal(mkfifo(fx_path(RECORD), 0644), 0);
	assert_int_equal(read_layer(s, NAME, &l), 0);
	unlink(fx_path(RECORD));
	assert_int_equal(symlink("../ready.json", fx_path(RECORD)), 0);
	assert_int_equal(read_layer(s, NAME, &l), 0);
	/* writing replaces it */
	write_layer(s, NAME, NULL, 0);
	assert_int_equal(read_layer(s, NAME, &l), 1);
	store_layer_release(&l);
	/* the directory is a link: nothing is read or written there */
	assert_int_equal(fx_wipe(fx_path(".fetcher/layers")), 0);
	snprintf(outside, sizeof(outside), "%s/outside", fx_base);
	assert_int_equal(mkdir(outside, 0755), 0);
	assert_int_equal(symlink(outside, fx_path(".fetcher/layers")), 0);
	assert_int_equal(store_layer_write(s, NAME, NULL, 0, NULL, 0, false, false, &(struct err){ 0 }), -1);
	assert_int_equal(read_layer(s, NAME, &l), 0);
	assert_int_equal(store_layers_trim(s, 0), 0);
	assert_int_equal(rmdir(outside), 0);
	store_close(s);
}

/* --- which ones stay --- */

static const char *layer_name(unsigned i)
{
	static char name[4][LAYOUT_TREE_NAME];
	static unsigned next;
	char *p = name[next++ % 4];

	snprintf(p, LAYOUT_TREE_NAME, "sha256-%064x-%08x", i, i);
	return p;
}

static const char *record_path(unsigned i)
{
	static char path[4][256];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), ".fetcher/layers/%s.json", layer_name(i));
	return p;
}

static void write_aged(struct store *s, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct timespec ts[2] = { { .tv_sec = 1000 + i }, { .tv_sec = 1000 + i } };

		write_layer(s, layer_name(i), NULL, 0);
		assert_int_equal(utimensat(AT_FDCWD, fx_path(record_path(i)), ts, 0), 0);
	}
}

static void the_newest_stay(void **state)
{
	struct store *s = open_locked();
	struct store_layer l;

	(void)state;
	assert_int_equal(store_layers_trim(s, 0), 0);
	write_aged(s, 6);
	fx_put(".fetcher/layers/notes", "by hand");
	fx_put(".fetcher/layers/sha256-00.json", "by hand");
	/* used now: the newest of all */
	assert_int_equal(read_layer(s, layer_name(0), &l), 1);
	store_layer_release(&l);
	assert_int_equal(store_layers_trim(s, 6), 0);
	store_layers_trim(s, 3);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(fx_exists(record_path(i)), i == 0 || i >= 4);
	assert_true(fx_exists(".fetcher/layers/notes") && fx_exists(".fetcher/layers/sha256-00.json"));
	store_close(s);
	/* not without the lock */
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	assert_int_equal(store_layers_trim(s, 0), 0);
	assert_true(fx_exists(record_path(5)));
	store_close(s);
}

static void gc_keeps_some_and_remove_none(void **state)
{
	struct store *s = open_locked();
	uint64_t bytes;
	struct err e;

	(void)state;
	write_aged(s, STORE_LAYERS_KEPT + 3);
	fx_put(".fetcher/layers/.tmp-0123456789abcdef", "half");
	store_close(s);
	GC(.keep = 1);
	for (unsigned i = 0; i < STORE_LAYERS_KEPT + 3; i++)
		assert_int_equal(fx_exists(record_path(i)), i >= 3);
	assert_false(fx_exists(".fetcher/layers/.tmp-0123456789abcdef"));
	s = open_locked();
	assert_int_equal(store_remove(s, &bytes, &e), 1);
	store_close(s);
	assert_int_equal(rmdir(fx_dest), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(records_round_trip), T(many_files_fit), T(too_many_files_are_told), T(other_boot),
		T(names_are_checked), T(hostile_records_are_none), T(links_that_lead_out_are_none),
		T(odd_files_are_none), T(the_newest_stay), T(gc_keeps_some_and_remove_none),
	};
	int failed = cmocka_run_group_tests_name("store layers with openat2", tests, NULL, NULL);

	sys_no_openat2 = true;
	return failed + cmocka_run_group_tests_name("store layers with the walk", tests, NULL, NULL);
}
