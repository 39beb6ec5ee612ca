// SPDX-License-Identifier: Apache-2.0
/*
 * The volume, with openat2 and with the component walk. Numbers in names are those of the
 * Kubernetes test cases ("lifecycle").
 */
#include "store_fixture.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void publish(struct fx_plan *f, enum store_layout layout)
{
	struct err e = { 0 };

	if (fx_publish(f, layout, &e) < 0)
		fail_msg("%d %s", (int)e.code, e.msg);
}

static void refused(struct fx_plan *f, enum store_layout layout, enum code code, const char *word)
{
	struct err e = { 0 };

	assert_int_equal(fx_publish(f, layout, &e), -1);
	if (e.code != code || !strstr(e.msg, word))
		fail_msg("%d %s", (int)e.code, e.msg);
}

static void assert_ready(struct fx_plan *f, int want)
{
	struct err e = { 0 };
	int rc = fx_ready(f, false, &e);

	if (rc != want)
		fail_msg("%d instead of %d: %s", rc, want, e.msg);
}

/* Published, but not what it says; the reason names the file. */
static void assert_damaged(struct fx_plan *f, const char *reason)
{
	struct err e = { 0 };

	assert_int_equal(fx_ready(f, false, &e), 0);
	if (!strstr(e.msg, reason))
		fail_msg("%s", e.msg);
}

static struct store *open_locked(void)
{
	struct store *s = NULL;

	FX_OK(store_open(&s, fx_dest, true, FX_E));
	FX_OK(store_lock(s, 0, NULL, NULL, NULL, FX_E));
	return s;
}

/* --- lifecycle --- */

static void case_1_2_empty_root_then_nothing_to_do(void **state)
{
	struct fx_plan f;
	struct err e = { 0 };

	(void)state;
	FX_PLAN(&f, "a.txt=hello", "dir/b.bin=world", "dir/empty=");
	assert_int_equal(fx_ready(&f, false, &e), -1);
	assert_int_equal(e.code, CODE_NOT_FOUND);
	publish(&f, STORE_FLAT);
	assert_int_equal(f.fetched, 2);
	fx_assert_complete(&f, "");
	assert_ready(&f, 1);
	assert_int_equal(fx_ready(&f, true, &e), 1);
	/* nothing of ours beside .fetcher, nothing left over in it */
	assert_false(fx_exists("current"));
	assert_false(fx_exists(".fetcher/previous.json"));
	publish(&f, STORE_FLAT);
	assert_int_equal(f.fetched, 0);
	fx_plan_release(&f);
}

static void marker_keys_in_order(void **state)
{
	const char *keys[] = { "{\"schema\":1,", "\"ref\":\"registry.example/a:b\",", "\"digest\":",
			       "\"mediaType\":\"application/x\",", "\"artifactType\":\"\",",
			       "\"path\":\".\",", "\"files\":2,", "\"bytes\":6,", "\"downloaded\":7,",
			       "\"publishedAt\":\"2", "\"durationMs\":9,", "\"previous\":null,",
			       "\"generation\":1,", "\"fetcher\":\"0.0.0\",", "\"version\":\"sha256-" };
	const char *text, *at;
	struct fx_plan f;

	(void)state;
	FX_PLAN(&f, "a=123", "b=456");
	publish(&f, STORE_FLAT);
	text = at = fx_text(".fetcher/ready.json");
	assert_non_null(text);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const char *found = strstr(at, keys[i]);

		if (!found)
			fail_msg("%s is not in %s", keys[i], text);
		at = found;
	}
	fx_plan_release(&f);
}

static void marker_survives_odd_files(void **state)
{
	const char *bad[] = { "", "{", "[]", "{\"schema\":2}", "{\"schema\":1}", "null",
			      "{\"schema\":1,\"digest\":\"sha256:../../x\"}" };
	struct store_marker m;
	struct store *s;
	struct fx_plan f;
	char *good;

	(void)state;
	FX_PLAN(&f, "a=1");
	publish(&f, STORE_FLAT);
	good = strdup(fx_text(".fetcher/ready.json"));
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		fx_put(".fetcher/ready.json", bad[i]);
		FX_OK(store_read_marker(s, &m, FX_E));
	}
	/* paths that would lead elsewhere */
	char *p = strstr(good, "\"version\":\"sha256-");

	memcpy(p + 11, "../../x", 7);
	fx_put(".fetcher/ready.json", good);
	FX_OK(store_read_marker(s, &m, FX_E));
	unlink(fx_path(".fetcher/ready.json"));
	assert_int_equal(symlink("/etc/passwd", fx_path(".fetcher/ready.json")), 0);
	FX_OK(store_read_marker(s, &m, FX_E));
	unlink(fx_path(".fetcher/ready.json"));
	assert_int_equal(mkfifo(fx_path(".fetcher/ready.json"), 0644), 0);
	FX_OK(store_read_marker(s, &m, FX_E));
	store_close(s);
	/* and the next pull replaces it */
	publish(&f, STORE_FLAT);
	assert_ready(&f, 1);
	free(good);
	fx_plan_release(&f);
}

static void documents_round_trip(void **state)
{
	struct buf raw = BUF_INIT(LIMIT_MANIFEST), second = BUF_INIT(LIMIT_MANIFEST);
	struct store_meta meta;
	struct store_marker m;
	struct store *s = open_locked();
	struct fx_plan f;
	struct err e;

	(void)state;
	for (int i = 0; i < 3000; i++)
		buf_addc(&raw, (char)(i * 7));
	buf_add(&second, "\0\xff\"\\\n", 5);
	FX_PLAN(&f, "a=1", "b c/\xc3\xa9\"\\=22");
	fx_marker(&m);
	FX_OK(fx_fill(s, &f, FX_E));
	FX_OK(store_commit(s, &m, "include=*.bin", &raw, &second, FX_E));
	assert_int_equal(store_read_meta(s, f.version, &meta, &e), 1);
	assert_int_equal(meta.raw.len, raw.len);
	assert_memory_equal(meta.raw.data, raw.data, raw.len);
	assert_int_equal(meta.manifest_raw.len, 5);
	assert_memory_equal(meta.manifest_raw.data, second.data, 5);
	assert_string_equal(meta.selection, "include=*.bin");
	assert_string_equal(meta.media_type, "application/x");
	assert_int_equal(meta.n_files, 2);
	assert_string_equal(meta.files[1].path, "b c/\xc3\xa9\"\\");
	assert_true(digest_equal(&meta.files[1].digest, &f.files[1].digest));
	assert_int_equal(meta.files[1].size, 2);
	assert_true(meta.trusted);
	store_meta_release(&meta);
	/* of another version: none */
	f.version[10] = f.version[10] == 'a' ? 'b' : 'a';
	assert_int_equal(store_read_meta(s, f.version, &meta, &e), 0);
	assert_int_equal(store_read_meta(s, "../ready", &meta, &e), 0);
	store_marker_release(&m);
	store_close(s);
	buf_release(&raw);
	buf_release(&second);
	fx_plan_release(&f);
}

static void case_5_damage_is_seen_and_repaired(void **state)
{
	enum store_layout layouts[] = { STORE_FLAT, STORE_VERSIONS };

	(void)state;
	for (size_t l = 0; l < 2; l++) {
		const char *prefix = layouts[l] == STORE_FLAT ? "" : "current/";
		struct fx_plan f;
		char a[64], b[64];

		FX_PLAN(&f, "a=first", "d/b=second", "d/c=third");
		snprintf(a, sizeof(a), "%sa", prefix);
		snprintf(b, sizeof(b), "%sd/b", prefix);
		publish(&f, layouts[l]);
		assert_int_equal(truncate(fx_path(a), 2), 0);
		assert_damaged(&f, "a has 2 bytes instead of 5");
		publish(&f, layouts[l]);
		assert_int_equal(f.fetched, 1);
		assert_ready(&f, 1);
		unlink(fx_path(b));
		assert_damaged(&f, "d/b is missing");
		publish(&f, layouts[l]);
		assert_int_equal(f.fetched, 1);
		assert_ready(&f, 1);
		/* same size, other content */
		fx_put(b, "SECOND");
		assert_damaged(&f, "d/b was changed");
		publish(&f, layouts[l]);
		assert_int_equal(f.fetched, 1);
		fx_assert_complete(&f, prefix);
		/* touched, but right: hashed, not fetched */
		assert_int_equal(utimensat(AT_FDCWD, fx_path(a), NULL, 0), 0);
		assert_ready(&f, 0);
		publish(&f, layouts[l]);
		assert_int_equal(f.fetched, 0);
		assert_ready(&f, 1);
		/* replaced by a link */
		unlink(fx_path(a));
		assert_int_equal(symlink("/etc/passwd", fx_path(a)), 0);
		assert_damaged(&f, "a is not a regular file");
		fx_wipe(fx_dest);
		fx_plan_release(&f);
	}
}

static void case_5_version_or_link_deleted(void **state)
{
	struct fx_plan f;
	struct err e;
	char path[256];

	(void)state;
	FX_PLAN(&f, "a=first", "d/b=second");
	publish(&f, STORE_VERSIONS);
	assert_int_equal(fx_ready(&f, true, &e), 1);
	unlink(fx_path("current"));
	assert_int_equal(fx_ready(&f, true, &e), 0);
	publish(&f, STORE_VERSIONS);
	assert_int_equal(f.fetched, 0);
	fx_assert_complete(&f, "current/");
	snprintf(path, sizeof(path), ".fetcher/versions/%s", f.version);
	fx_wipe(fx_path(path));
	assert_int_equal(fx_ready(&f, true, &e), 0);
	publish(&f, STORE_VERSIONS);
	assert_int_equal(f.fetched, 2);
	fx_assert_complete(&f, "current/");
	/* the meta file gone: the content is hashed, not fetched */
	snprintf(path, sizeof(path), ".fetcher/meta/%s.json", f.version);
	unlink(fx_path(path));
	publish(&f, STORE_VERSIONS);
	assert_int_equal(f.fetched, 0);
	assert_ready(&f, 1);
	fx_plan_release(&f);
}

static void case_7_foreign_files_stay(void **state)
{
	struct fx_plan v1, v2;

	(void)state;
	assert_int_equal(mkdir(fx_dest, 0755), 0);
	assert_int_equal(mkdir(fx_path("lost+found"), 0700), 0);
	assert_int_equal(mkdir(fx_path("d"), 0755), 0);
	fx_put("d/theirs", "theirs");
	fx_put("notes", "notes");
	FX_PLAN(&v1, "a=old", "d/b=bee", "d/only1=one", "gone/deep/x=x", "kept=same");
	FX_PLAN(&v2, "a=new", "d/b=bee", "kept=same");
	publish(&v1, STORE_FLAT);
	/* edited by somebody after the publication: not ours any more */
	fx_put("gone/deep/edited", "by hand");
	publish(&v2, STORE_FLAT);
	fx_assert_complete(&v2, "");
	assert_int_equal(v2.fetched, 1);
	assert_false(fx_exists("d/only1"));
	assert_false(fx_exists("gone/deep/x"));
	fx_assert_text("gone/deep/edited", "by hand");
	fx_assert_text("d/theirs", "theirs");
	fx_assert_text("notes", "notes");
	assert_true(fx_exists("lost+found"));
	unlink(fx_path("gone/deep/edited"));
	/* back again; the only file of d/only1's kind was removed, so it is fetched */
	publish(&v1, STORE_FLAT);
	assert_int_equal(v1.fetched, 3);
	fx_put("gone/deep/x", "changed by hand");
	publish(&v2, STORE_FLAT);
	fx_assert_text("gone/deep/x", "changed by hand");
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void empty_directories_go_with_their_files(void **state)
{
	struct fx_plan v1, v2;

	(void)state;
	FX_PLAN(&v1, "a=1", "x/y/z=deep");
	FX_PLAN(&v2, "a=1");
	publish(&v1, STORE_FLAT);
	publish(&v2, STORE_FLAT);
	assert_false(fx_exists("x"));
	assert_ready(&v2, 1);
	assert_ready(&v1, 0);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void generation_and_previous(void **state)
{
	struct store_marker m;
	struct store *s;
	struct fx_plan v1, v2;
	char digest[DIGEST_STR_MAX];
	struct err e;

	(void)state;
	FX_PLAN(&v1, "a=1");
	FX_PLAN(&v2, "a=2");
	publish(&v1, STORE_FLAT);
	/* a begin that comes to nothing takes the marker away, but not what it knew */
	s = open_locked();
	FX_OK(store_begin(s, &v2.p, FX_E));
	assert_int_equal(store_read_marker(s, &m, &e), 0);
	store_close(s);
	assert_ready(&v2, 0);
	publish(&v2, STORE_FLAT);
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	assert_int_equal(store_read_marker(s, &m, &e), 1);
	assert_int_equal(m.generation, 2);
	assert_string_equal(m.previous, digest_format(&v1.digest, ':', digest));
	assert_string_equal(m.path, ".");
	store_marker_release(&m);
	/* the same digest again (a repair): its predecessor stays the same */
	publish(&v2, STORE_FLAT);
	assert_int_equal(store_read_marker(s, &m, &e), 1);
	assert_int_equal(m.generation, 3);
	assert_string_equal(m.previous, digest_format(&v1.digest, ':', digest));
	store_marker_release(&m);
	publish(&v1, STORE_VERSIONS);
	assert_int_equal(store_read_marker(s, &m, &e), 1);
	assert_int_equal(m.generation, 4);
	assert_string_equal(m.previous, digest_format(&v2.digest, ':', digest));
	assert_string_equal(m.path, "current");
	store_marker_release(&m);
	store_close(s);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

/* Names that were files become directories and back. */
static void file_and_directory_change_places(void **state)
{
	struct fx_plan v1, v2, v3;

	(void)state;
	FX_PLAN(&v1, "m=file", "n/x/y=deep");
	FX_PLAN(&v2, "m/part=piece", "n=flat now");
	FX_PLAN(&v3, "m/part/sub=more", "n=flat now");
	publish(&v1, STORE_FLAT);
	publish(&v2, STORE_FLAT);
	fx_assert_complete(&v2, "");
	publish(&v3, STORE_FLAT);
	fx_assert_complete(&v3, "");
	publish(&v1, STORE_FLAT);
	fx_assert_complete(&v1, "");
	assert_ready(&v1, 1);
	/* something foreign below: refused, and the marker stays */
	fx_put("n/theirs", "theirs");
	refused(&v2, STORE_FLAT, CODE_UNSAFE, "in the way");
	fx_assert_text("n/theirs", "theirs");
	fx_plan_release(&v1);
	fx_plan_release(&v2);
	fx_plan_release(&v3);
}

/* --- case 6, 42: what is in the way --- */

static void case_6_obstacles_are_refused_untouched(void **state)
{
	struct fx_plan old, f;
	char outside[128];

	(void)state;
	FX_PLAN(&old, "z=published before");
	publish(&old, STORE_FLAT);
	FX_PLAN(&f, "a=1", "d/e/f=2", "g=3");
	snprintf(outside, sizeof(outside), "%s/outside", fx_base);
	assert_int_equal(mkdir(outside, 0755), 0);

	assert_int_equal(mkdir(fx_path("g"), 0755), 0);
	refused(&f, STORE_FLAT, CODE_UNSAFE, "is in the way: it is a directory");
	assert_int_equal(rmdir(fx_path("g")), 0);
	assert_int_equal(symlink("nowhere", fx_path("g")), 0);
	refused(&f, STORE_FLAT, CODE_UNSAFE, "symbolic link");
	unlink(fx_path("g"));
	assert_int_equal(mkfifo(fx_path("g"), 0644), 0);
	refused(&f, STORE_FLAT, CODE_UNSAFE, "special file");
	unlink(fx_path("g"));
	assert_int_equal(symlink(outside, fx_path("d")), 0);
	refused(&f, STORE_FLAT, CODE_UNSAFE, "symbolic link");
	unlink(fx_path("d"));
	assert_int_equal(mkdir(fx_path("d"), 0755), 0);
	assert_int_equal(symlink(outside, fx_path("d/e")), 0);
	refused(&f, STORE_FLAT, CODE_UNSAFE, "symbolic link");
	unlink(fx_path("d/e"));
	fx_put("d/e", "a file");
	refused(&f, STORE_FLAT, CODE_UNSAFE, "in the way");
	fx_assert_text("d/e", "a file");
	unlink(fx_path("d/e"));
	/* all that time the old version stood, marker included */
	assert_false(fx_exists("a"));
	assert_ready(&old, 1);
	publish(&f, STORE_FLAT);
	fx_assert_complete(&f, "");
	assert_int_equal(rmdir(outside), 0);
	fx_plan_release(&old);
	fx_plan_release(&f);
}

static void foreign_regular_file_is_replaced_not_written(void **state)
{
	struct fx_plan f;

	(void)state;
	assert_int_equal(mkdir(fx_dest, 0755), 0);
	fx_put("a", "theirs");
	assert_int_equal(link(fx_path("a"), fx_path("backup")), 0);
	fx_put("b", "the right content");
	FX_PLAN(&f, "a=ours", "b=the right content");
	publish(&f, STORE_FLAT);
	assert_int_equal(f.fetched, 1);
	fx_assert_complete(&f, "");
	fx_assert_text("backup", "theirs");
	fx_plan_release(&f);
}

static void case_6_current_is_occupied(void **state)
{
	struct fx_plan f;

	(void)state;
	FX_PLAN(&f, "a=1");
	assert_int_equal(mkdir(fx_dest, 0755), 0);
	fx_put("current", "mine");
	refused(&f, STORE_VERSIONS, CODE_UNSAFE, "current is in the way");
	fx_assert_text("current", "mine");
	unlink(fx_path("current"));
	assert_int_equal(mkdir(fx_path("current"), 0755), 0);
	refused(&f, STORE_VERSIONS, CODE_UNSAFE, "current is in the way");
	assert_int_equal(rmdir(fx_path("current")), 0);
	assert_int_equal(symlink("/tmp", fx_path("current")), 0);
	refused(&f, STORE_VERSIONS, CODE_UNSAFE, "current is in the way");
	unlink(fx_path("current"));
	assert_int_equal(symlink(".fetcher/versions/../../..", fx_path("current")), 0);
	refused(&f, STORE_VERSIONS, CODE_UNSAFE, "current is in the way");
	unlink(fx_path("current"));
	/* a dangling link of our own is replaced */
	char target[256];

	snprintf(target, sizeof(target), ".fetcher/versions/sha256-%064d", 0);
	assert_int_equal(symlink(target, fx_path("current")), 0);
	publish(&f, STORE_VERSIONS);
	fx_assert_complete(&f, "current/");
	fx_plan_release(&f);
}

static void own_directory_is_occupied(void **state)
{
	struct fx_plan f;
	char path[256], outside[128];

	(void)state;
	FX_PLAN(&f, "a=1");
	snprintf(outside, sizeof(outside), "%s/outside", fx_base);
	assert_int_equal(mkdir(outside, 0755), 0);
	assert_int_equal(mkdir(fx_dest, 0755), 0);
	assert_int_equal(symlink(outside, fx_path(".fetcher")), 0);
	refused(&f, STORE_FLAT, CODE_UNSAFE, "symbolic link");
	unlink(fx_path(".fetcher"));
	fx_put(".fetcher", "file");
	refused(&f, STORE_FLAT, CODE_UNSAFE, "in the way");
	unlink(fx_path(".fetcher"));
	assert_int_equal(mkdir(fx_path(".fetcher"), 0755), 0);
	assert_int_equal(symlink(outside, fx_path(".fetcher/partial")), 0);
	refused(&f, STORE_FLAT, CODE_UNSAFE, "symbolic link");
	unlink(fx_path(".fetcher/partial"));
	assert_int_equal(symlink(outside, fx_path(".fetcher/versions")), 0);
	refused(&f, STORE_VERSIONS, CODE_UNSAFE, "symbolic link");
	unlink(fx_path(".fetcher/versions"));
	assert_int_equal(mkdir(fx_path(".fetcher/versions"), 0755), 0);
	snprintf(path, sizeof(path), ".fetcher/versions/%s", f.version);
	assert_int_equal(symlink(outside, fx_path(path)), 0);
	refused(&f, STORE_VERSIONS, CODE_UNSAFE, "symbolic link");
	unlink(fx_path(path));
	publish(&f, STORE_VERSIONS);
	/* nothing ever went outside */
	assert_int_equal(rmdir(outside), 0);
	fx_plan_release(&f);
}

static void case_42_names_swapped_for_links_while_placing(void **state)
{
	struct store *s = open_locked();
	struct fx_plan f;
	struct err e = { 0 };
	char outside[128];
	struct stat st;

	(void)state;
	FX_PLAN(&f, "d/a=content of a", "e/b=content of b");
	snprintf(outside, sizeof(outside), "%s/outside", fx_base);
	assert_int_equal(mkdir(outside, 0755), 0);
	FX_OK(store_begin(s, &f.p, FX_E));
	assert_int_equal(symlink(outside, fx_path("d")), 0);
	assert_int_equal(fx_partial(s, "blob", "content of a"), 0);
	assert_int_equal(store_place(s, 0, "blob", NULL, &e), -1);
	assert_int_equal(e.code, CODE_UNSAFE);
	/* the verified data is still there for another try */
	unlink(fx_path("d"));
	FX_OK(store_place(s, 0, "blob", NULL, FX_E));
	/* a link in place of the partial file: its target is not touched */
	char victim[160];

	snprintf(victim, sizeof(victim), "%s/victim", outside);
	int fd = open(victim, O_WRONLY | O_CREAT, 0400);

	close(fd);
	assert_int_equal(symlinkat(victim, store_partial_dirfd(s), "blob2"), 0);
	assert_int_equal(store_place(s, 1, "blob2", NULL, &e), -1);
	assert_int_equal(e.code, CODE_UNSAFE);
	assert_int_equal(stat(victim, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0400);
	assert_int_equal(store_place(s, 1, NULL, "../outside/victim", &e), -1);
	assert_int_equal(store_place(s, 1, NULL, victim, &e), -1);
	store_close(s);
	assert_false(fx_exists("e/b"));
	fx_plan_release(&f);
}

static void dest_may_be_a_link(void **state)
{
	struct fx_plan f;
	char real[128];

	(void)state;
	snprintf(real, sizeof(real), "%s/real", fx_base);
	assert_int_equal(mkdir(real, 0755), 0);
	assert_int_equal(symlink(real, fx_dest), 0);
	FX_PLAN(&f, "d/a=1");
	publish(&f, STORE_FLAT);
	assert_ready(&f, 1);
	fx_assert_complete(&f, "");
	assert_int_equal(unlink(fx_dest), 0);
	fx_plan_release(&f);
}

/* --- versions --- */

static void versions_swap(void **state)
{
	struct fx_plan v1, v2;
	char target[256], path[256];
	struct stat a, b;
	int held;
	ssize_t n;

	(void)state;
	FX_PLAN(&v1, "d/same=unchanged", "model=one");
	FX_PLAN(&v2, "d/same=unchanged", "model=two", "moved=unchanged");
	publish(&v1, STORE_VERSIONS);
	fx_assert_complete(&v1, "current/");
	held = open(fx_path("current/model"), O_RDONLY);
	publish(&v2, STORE_VERSIONS);
	assert_int_equal(v2.fetched, 1);
	fx_assert_complete(&v2, "current/");
	n = readlink(fx_path("current"), target, sizeof(target) - 1);
	assert_true(n > 0);
	target[n] = 0;
	snprintf(path, sizeof(path), ".fetcher/versions/%s", v2.version);
	assert_string_equal(target, path);
	/* readers of the old version go on, and it stays whole */
	assert_int_equal(read(held, target, 3), 3);
	assert_memory_equal(target, "one", 3);
	close(held);
	snprintf(path, sizeof(path), ".fetcher/versions/%s/", v1.version);
	fx_assert_complete(&v1, path);
	/* one copy on the disk */
	strcat(path, "d/same");
	assert_int_equal(stat(fx_path(path), &a), 0);
	assert_int_equal(stat(fx_path("current/moved"), &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	/* nothing of the staging left */
	snprintf(path, sizeof(path), ".fetcher/partial/%s.d", v2.version);
	assert_false(fx_exists(path));
	/* and back, without a byte */
	publish(&v1, STORE_VERSIONS);
	assert_int_equal(v1.fetched, 0);
	fx_assert_complete(&v1, "current/");
	assert_ready(&v1, 1);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void layouts_side_by_side(void **state)
{
	struct fx_plan f, g;

	(void)state;
	FX_PLAN(&f, "a=same content everywhere", "b=2");
	FX_PLAN(&g, "a=same content everywhere", "c=3");
	publish(&f, STORE_FLAT);
	publish(&f, STORE_VERSIONS);
	assert_int_equal(f.fetched, 0);
	assert_ready(&f, 1);
	fx_assert_complete(&f, "");
	fx_assert_complete(&f, "current/");
	publish(&g, STORE_VERSIONS);
	fx_assert_complete(&f, "");
	publish(&g, STORE_FLAT);
	assert_int_equal(g.fetched, 0);
	fx_assert_complete(&g, "");
	fx_assert_complete(&g, "current/");
	fx_plan_release(&f);
	fx_plan_release(&g);
}

static void selection_has_its_own_version(void **state)
{
	struct digest d;
	char *a, *b, *c;

	(void)state;
	digest_of(DIGEST_SHA256, "x", 1, &d);
	a = store_version_name(&d, "");
	b = store_version_name(&d, "include=*.json");
	c = store_version_name(&d, "include=*.bin");
	assert_int_equal(strlen(a), 71);
	assert_int_equal(strlen(b), 80);
	assert_memory_equal(a, b, 71);
	assert_string_not_equal(b, c);
	free(a);
	free(b);
	free(c);
	digest_of(DIGEST_SHA512, "x", 1, &d);
	a = store_version_name(&d, NULL);
	assert_int_equal(strlen(a), 135);
	free(a);
}

static void case_4_stale_temporaries_are_swept(void **state)
{
	const char *ours[] = { ".fetcher/.tmp-0123456789abcdef", ".fetcher/meta/.tmp-00000000deadbeef",
			       ".fetcher/partial/.tmp-ffffffffffffffff" };
	const char *theirs[] = { ".tmp-0123456789abcdef", ".fetcher/.tmp-0123", ".fetcher/notes" };
	struct fx_plan v1, v2;

	(void)state;
	FX_PLAN(&v1, "a=1");
	FX_PLAN(&v2, "a=2");
	publish(&v1, STORE_VERSIONS);
	for (size_t i = 0; i < 3; i++) {
		fx_put(ours[i], "half");
		fx_put(theirs[i], "kept");
	}
	unlink(fx_path(ours[0]));
	assert_int_equal(symlink(".fetcher/versions/none", fx_path(ours[0])), 0);
	publish(&v2, STORE_VERSIONS);
	fx_assert_complete(&v2, "current/");
	for (size_t i = 0; i < 3; i++) {
		assert_false(fx_exists(ours[i]));
		fx_assert_text(theirs[i], "kept");
	}
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

/* --- resuming --- */

/* Places the first n files, then the process "dies". */
static void interrupted(struct fx_plan *f, enum store_layout layout, size_t n)
{
	struct store *s = open_locked();

	f->p.layout = layout;
	f->fetched = 0;
	FX_OK(store_begin(s, &f->p, FX_E));
	for (size_t i = 0; i < n; i++)
		FX_OK(fx_place(s, f, i, FX_E));
	store_close(s);
}

static void resumed_publications_fetch_the_rest(void **state)
{
	enum store_layout layouts[] = { STORE_FLAT, STORE_VERSIONS };
	struct fx_plan f, g;

	(void)state;
	FX_PLAN(&f, "a=1", "b/c=22", "b/d=333", "e=4444");
	FX_PLAN(&g, "z=333");
	for (size_t l = 0; l < 2; l++) {
		const char *prefix = l ? "current/" : "";
		char ledger[256];

		interrupted(&f, layouts[l], 3);
		assert_false(fx_exists(".fetcher/ready.json"));
		interrupted(&f, layouts[l], 3);
		assert_int_equal(f.fetched, 0);
		publish(&f, layouts[l]);
		assert_int_equal(f.fetched, 1);
		fx_assert_complete(&f, prefix);
		snprintf(ledger, sizeof(ledger), ".fetcher/partial/%s.placed", f.version);
		assert_false(fx_exists(ledger));
		fx_wipe(fx_dest);
		/* without its ledger, or with one of another boot, the files are hashed */
		interrupted(&f, layouts[l], 3);
		unlink(fx_path(ledger));
		publish(&f, layouts[l]);
		assert_int_equal(f.fetched, 1);
		fx_wipe(fx_dest);
		interrupted(&f, layouts[l], 3);
		fx_put(ledger, "fetcher-placed 1 flat 00000000-0000-0000-0000-000000000000\ngarbage\n");
		publish(&f, layouts[l]);
		assert_int_equal(f.fetched, 1);
		assert_ready(&f, 1);
		fx_wipe(fx_dest);
		/* another version finds what the interrupted one placed */
		interrupted(&f, layouts[l], 3);
		publish(&g, layouts[l]);
		assert_int_equal(g.fetched, 0);
		fx_assert_complete(&g, prefix);
		if (layouts[l] == STORE_FLAT)
			assert_false(fx_exists("b"));
		fx_wipe(fx_dest);
	}
	fx_plan_release(&f);
	fx_plan_release(&g);
}

static void ledger_does_not_vouch_for_changed_files(void **state)
{
	struct fx_plan f;

	(void)state;
	FX_PLAN(&f, "a=right", "b=2");
	interrupted(&f, STORE_FLAT, 1);
	fx_put("a", "wrong");
	publish(&f, STORE_FLAT);
	assert_int_equal(f.fetched, 2);
	fx_assert_complete(&f, "");
	fx_plan_release(&f);
}

/* Meta written with --fsync never is worth nothing after a restart of the machine. */
static void unsynced_meta_of_another_boot(void **state)
{
	struct fx_plan f;
	char path[256], *text, *boot;

	(void)state;
	FX_PLAN(&f, "a=1", "b=2");
	f.p.fsync = STORE_FSYNC_NEVER;
	publish(&f, STORE_FLAT);
	assert_ready(&f, 1);
	snprintf(path, sizeof(path), ".fetcher/meta/%s.json", f.version);
	text = strdup(fx_text(path));
	assert_non_null(strstr(text, "\"durable\":false"));
	boot = strstr(text, "\"boot\":\"");
	assert_non_null(boot);
	boot[8] = boot[8] == '0' ? '1' : '0';
	fx_put(path, text);
	assert_ready(&f, 0);
	/* same size, same times, other content: only the hash tells */
	struct stat st;

	assert_int_equal(stat(fx_path("b"), &st), 0);
	fx_put("b", "X");
	assert_int_equal(utimensat(AT_FDCWD, fx_path("b"),
				   (struct timespec[2]){ st.st_atim, st.st_mtim }, 0), 0);
	publish(&f, STORE_FLAT);
	assert_int_equal(f.fetched, 1);
	fx_assert_complete(&f, "");
	free(text);
	fx_plan_release(&f);
}

/* What another boot wrote down proves nothing: content may never have reached the disk. */
static void ledger_of_another_boot(void **state)
{
	struct fx_plan f;
	char path[256], *text, *line;
	struct stat st;

	(void)state;
	FX_PLAN(&f, "a=right", "b=2");
	interrupted(&f, STORE_FLAT, 1);
	snprintf(path, sizeof(path), ".fetcher/partial/%s.placed", f.version);
	text = strdup(fx_text(path));
	line = strchr(text, '\n');
	assert_non_null(line);
	assert_non_null(strstr(line, " a\n"));
	line[-1] = line[-1] == '0' ? '1' : '0';
	fx_put(path, text);
	free(text);
	assert_int_equal(stat(fx_path("a"), &st), 0);
	fx_put("a", "\1\1\1\1\1");
	assert_int_equal(utimensat(AT_FDCWD, fx_path("a"),
				   (struct timespec[2]){ st.st_atim, st.st_mtim }, 0), 0);
	publish(&f, STORE_FLAT);
	assert_int_equal(f.fetched, 2);
	fx_assert_complete(&f, "");
	fx_plan_release(&f);
}

static void repair_takes_the_marker_away(void **state)
{
	enum store_layout layouts[] = { STORE_FLAT, STORE_VERSIONS };
	struct fx_plan f;

	(void)state;
	FX_PLAN(&f, "a=1", "b=2");
	for (size_t l = 0; l < 2; l++) {
		publish(&f, layouts[l]);
		unlink(fx_path(l ? "current/b" : "b"));
		interrupted(&f, layouts[l], 1);
		assert_false(fx_exists(".fetcher/ready.json"));
		publish(&f, layouts[l]);
		assert_ready(&f, 1);
		/* but a version that is whole keeps its marker until the swap */
		interrupted(&f, STORE_VERSIONS, 0);
		assert_int_equal(fx_exists(".fetcher/ready.json"), true);
		fx_wipe(fx_dest);
	}
	fx_plan_release(&f);
}

/* --- finding and placing --- */

static void find_only_what_is_untouched(void **state)
{
	struct fx_plan v1, v2;
	struct store *s;
	char *path = NULL;
	struct err e;

	(void)state;
	FX_PLAN(&v1, "a=first", "d/b=second");
	FX_PLAN(&v2, "a=third", "c=second");
	publish(&v1, STORE_VERSIONS);
	s = open_locked();
	assert_int_equal(store_find(s, &v1.files[1].digest, 6, &path, &e), 1);
	assert_non_null(strstr(path, ".fetcher/versions/sha256-"));
	assert_string_equal(path + strlen(path) - 4, "/d/b");
	free(path);
	assert_int_equal(store_find(s, &v1.files[1].digest, 7, &path, &e), 0);
	assert_int_equal(store_find(s, &v2.files[0].digest, 5, &path, &e), 0);
	/* a file placed a moment ago is found too */
	v2.p.layout = STORE_FLAT;
	FX_OK(store_begin(s, &v2.p, FX_E));
	FX_OK(fx_place(s, &v2, 0, FX_E));
	assert_int_equal(store_find(s, &v2.files[0].digest, 5, &path, &e), 1);
	assert_string_equal(path, "a");
	free(path);
	fx_put("current/d/b", "SECOND");
	assert_int_equal(store_find(s, &v1.files[1].digest, 6, &path, &e), 0);
	store_close(s);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void modes_and_times(void **state)
{
	struct fx_plan f;
	struct stat st;
	mode_t old = umask(027);

	(void)state;
	FX_PLAN(&f, "default=1", "exact=22", "setuid=333", "sub/timed=4444");
	f.files[1].mode = 0666;
	f.files[2].mode = 06755;
	f.files[3].has_mtime = true;
	f.files[3].mtime_sec = -5;
	f.files[3].mtime_nsec = 123456000;
	publish(&f, STORE_FLAT);
	umask(old);
	assert_int_equal(stat(fx_path("default"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(stat(fx_path("exact"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0666);
	assert_int_equal(stat(fx_path("setuid"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(stat(fx_path("sub"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	assert_int_equal(stat(fx_path("sub/timed"), &st), 0);
	assert_int_equal(st.st_mtim.tv_sec, -5);
	assert_int_equal(st.st_mtim.tv_nsec, 123456000);
	assert_ready(&f, 1);
	fx_plan_release(&f);
}

static void another_mode_is_another_inode(void **state)
{
	struct fx_plan v1, v2;
	struct stat st;
	char path[256];

	(void)state;
	FX_PLAN(&v1, "run=script");
	FX_PLAN(&v2, "run=script", "x=1");
	v1.files[0].mode = 0644;
	v2.files[0].mode = 0755;
	publish(&v1, STORE_VERSIONS);
	publish(&v2, STORE_VERSIONS);
	assert_int_equal(v2.fetched, 1);
	assert_int_equal(stat(fx_path("current/run"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0755);
	snprintf(path, sizeof(path), ".fetcher/versions/%s/run", v1.version);
	assert_int_equal(stat(fx_path(path), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0644);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

/* A new mode for a flat file must not reach the version that shares its inode. */
static void shared_inode_is_not_dressed_anew(void **state)
{
	struct fx_plan f, g;
	struct stat a, b;

	(void)state;
	FX_PLAN(&f, "run=script");
	FX_PLAN(&g, "run=script", "x=1");
	f.files[0].mode = 0644;
	g.files[0].mode = 0755;
	publish(&f, STORE_FLAT);
	publish(&f, STORE_VERSIONS);
	assert_int_equal(stat(fx_path("run"), &a), 0);
	assert_int_equal(stat(fx_path("current/run"), &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	publish(&g, STORE_FLAT);
	assert_int_equal(g.fetched, 1);
	assert_int_equal(stat(fx_path("run"), &a), 0);
	assert_int_equal(a.st_mode & 0777, 0755);
	assert_int_equal(stat(fx_path("current/run"), &b), 0);
	assert_int_equal(b.st_mode & 0777, 0644);
	fx_plan_release(&f);
	fx_plan_release(&g);
}

/* Small twins in a flat tree are independent files, so that editing one leaves the other. */
static void small_twins_are_copies(void **state)
{
	struct fx_plan f;
	struct stat a, b;

	(void)state;
	FX_PLAN(&f, "config.json={}", "sub/config.json={}");
	publish(&f, STORE_FLAT);
	assert_int_equal(f.fetched, 1);
	assert_int_equal(stat(fx_path("config.json"), &a), 0);
	assert_int_equal(stat(fx_path("sub/config.json"), &b), 0);
	assert_int_not_equal(a.st_ino, b.st_ino);
	fx_plan_release(&f);
}

static void wrong_size_is_not_published(void **state)
{
	struct store *s = open_locked();
	struct fx_plan f;
	struct err e = { 0 };

	(void)state;
	FX_PLAN(&f, "a=12345");
	FX_OK(store_begin(s, &f.p, FX_E));
	assert_int_equal(fx_partial(s, "blob", "1234"), 0);
	assert_int_equal(store_place(s, 0, "blob", NULL, &e), -1);
	assert_int_equal(e.code, CODE_INTEGRITY);
	assert_int_equal(store_place_bytes(s, 0, "1234", 4, &e), -1);
	assert_int_equal(e.code, CODE_INTEGRITY);
	assert_false(fx_exists("a"));
	assert_int_equal(fx_commit(s, &e), -1);
	assert_int_equal(e.code, CODE_INTERNAL);
	store_close(s);
	assert_false(fx_exists(".fetcher/ready.json"));
	fx_plan_release(&f);
}

static void file_changed_before_commit(void **state)
{
	struct store *s = open_locked();
	struct fx_plan f;
	struct err e = { 0 };
	int rc;

	(void)state;
	FX_PLAN(&f, "a=12345");
	FX_OK(fx_fill(s, &f, FX_E));
	fx_put("a", "54321");
	rc = fx_commit(s, &e);
	store_close(s);
	/* on a file system in memory nothing is flushed, so it shows at the next look */
	if (rc == 0)
		assert_ready(&f, 0);
	else
		assert_int_equal(e.code, CODE_INTEGRITY);
	fx_plan_release(&f);
}

struct placer {
	struct store *s;
	struct fx_plan *f;
	size_t from, to;
	struct err e;
	int rc;
};

static void *place_some(void *arg)
{
	struct placer *p = arg;
	char name[64];

	for (size_t i = p->from; i < p->to && p->rc == 0; i++) {
		snprintf(name, sizeof(name), "blob%zu", i);
		p->rc = fx_partial(p->s, name, p->f->content[i]);
		if (p->rc == 0)
			p->rc = store_place(p->s, i, name, NULL, &p->e);
	}
	return NULL;
}

static void threads_place_at_once(void **state)
{
	struct store *s = open_locked();
	struct placer p[4];
	pthread_t t[4];
	struct fx_plan f;
	char spec[FX_FILES][64];
	const char *specs[FX_FILES + 1] = { NULL };

	(void)state;
	for (int i = 0; i < FX_FILES; i++) {
		snprintf(spec[i], sizeof(spec[i]), "d%02d/e%d/f=content %d", i / 2, i % 2, i);
		specs[i] = spec[i];
	}
	fx_plan_init(&f, specs);
	FX_OK(store_begin(s, &f.p, FX_E));
	for (size_t i = 0; i < 4; i++) {
		p[i] = (struct placer){ .s = s, .f = &f, .from = i * 16, .to = i * 16 + 16 };
		assert_int_equal(pthread_create(&t[i], NULL, place_some, &p[i]), 0);
	}
	for (size_t i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		if (p[i].rc < 0)
			fail_msg("%s", p[i].e.msg);
	}
	FX_OK(fx_commit(s, FX_E));
	store_close(s);
	fx_assert_complete(&f, "");
	assert_ready(&f, 1);
	fx_plan_release(&f);
}

static void case_16_few_descriptors(void **state)
{
	struct rlimit old, few;
	struct fx_plan f;
	char spec[FX_FILES][64];
	const char *specs[FX_FILES + 1] = { NULL };

	(void)state;
	for (int i = 0; i < FX_FILES; i++) {
		snprintf(spec[i], sizeof(spec[i]), "d%02d/deep/er/f%d=content %d", i, i, i);
		specs[i] = spec[i];
	}
	fx_plan_init(&f, specs);
	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	few.rlim_cur = 32;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	publish(&f, STORE_FLAT);
	publish(&f, STORE_VERSIONS);
	assert_ready(&f, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	fx_assert_complete(&f, "current/");
	fx_plan_release(&f);
}

static void fsync_modes_publish_the_same(void **state)
{
	enum store_fsync modes[] = { STORE_FSYNC_END, STORE_FSYNC_ALWAYS, STORE_FSYNC_NEVER };
	struct fx_plan f;

	(void)state;
	FX_PLAN(&f, "a=1", "b/c/d=2", "b/c/e=");
	for (size_t i = 0; i < 3; i++) {
		f.p.fsync = modes[i];
		interrupted(&f, STORE_FLAT, 2);
		publish(&f, STORE_FLAT);
		assert_ready(&f, 1);
		publish(&f, STORE_VERSIONS);
		assert_ready(&f, 1);
		fx_wipe(fx_dest);
	}
	fx_plan_release(&f);
}

/* --- case 8: lock --- */

struct holder {
	struct store *s;
	char seen[200];
	int calls;
};

static void let_go(void *arg, const char *holder)
{
	struct holder *h = arg;

	h->calls++;
	snprintf(h->seen, sizeof(h->seen), "%s", holder);
	store_close(h->s);
	h->s = NULL;
}

static void case_8_one_writer(void **state)
{
	struct holder h = { .s = open_locked() };
	struct store *second;
	struct err e = { 0 };
	atomic_int stop = 0;
	char pid[32];

	(void)state;
	FX_OK(store_lock(h.s, 0, NULL, NULL, NULL, FX_E));
	FX_OK(store_open(&second, fx_dest, true, FX_E));
	assert_int_equal(store_lock(second, 0, NULL, NULL, NULL, &e), -1);
	assert_int_equal(e.code, CODE_LOCKED);
	snprintf(pid, sizeof(pid), "pid %d on host ", (int)getpid());
	assert_non_null(strstr(e.msg, pid));
	assert_non_null(strstr(e.msg, " since 2"));
	assert_int_equal(store_lock(second, 30, NULL, NULL, NULL, &e), -1);
	assert_int_equal(e.code, CODE_LOCKED);
	stop = CODE_SIGTERM;
	assert_int_equal(store_lock(second, UINT64_MAX, &stop, NULL, NULL, &e), -1);
	assert_int_equal(e.code, CODE_SIGTERM);
	stop = 0;
	FX_OK(store_lock(second, UINT64_MAX, &stop, let_go, &h, FX_E));
	assert_int_equal(h.calls, 1);
	assert_non_null(strstr(h.seen, pid));
	store_close(second);
}

static void lock_file_is_replaced_or_odd(void **state)
{
	struct store *a = open_locked(), *b;
	struct err e = { 0 };

	(void)state;
	FX_OK(store_open(&b, fx_dest, true, FX_E));
	fx_put(".fetcher/lock", "{\"pid\":\"x\",\"hostname\":7}");
	assert_int_equal(store_lock(b, 0, NULL, NULL, NULL, &e), -1);
	assert_int_equal(e.code, CODE_LOCKED);
	store_close(a);
	unlink(fx_path(".fetcher/lock"));
	assert_int_equal(symlink("/etc/passwd", fx_path(".fetcher/lock")), 0);
	assert_int_equal(store_lock(b, 0, NULL, NULL, NULL, &e), -1);
	assert_int_equal(e.code, CODE_UNSAFE);
	unlink(fx_path(".fetcher/lock"));
	FX_OK(store_lock(b, 0, NULL, NULL, NULL, FX_E));
	store_close(b);
}

static void nothing_without_the_lock(void **state)
{
	struct store *s;
	struct fx_plan f;
	struct store_gc_policy policy = { 0 };
	struct store_gc_result r;
	struct err e = { 0 };

	(void)state;
	FX_PLAN(&f, "a=1");
	FX_OK(store_open(&s, fx_dest, true, FX_E));
	assert_int_equal(store_begin(s, &f.p, &e), -1);
	assert_int_equal(e.code, CODE_INTERNAL);
	assert_int_equal(store_gc(s, &policy, &r, &e), -1);
	store_close(s);
	/* no .fetcher and no wish to make one */
	fx_wipe(fx_dest);
	assert_int_equal(mkdir(fx_dest, 0755), 0);
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	assert_int_equal(store_lock(s, 0, NULL, NULL, NULL, &e), -1);
	assert_int_equal(e.code, CODE_NOT_FOUND);
	struct store_marker m;

	FX_OK(store_read_marker(s, &m, FX_E));
	/* a waiter sees what appears later */
	publish(&f, STORE_FLAT);
	assert_int_equal(store_read_marker(s, &m, &e), 1);
	store_marker_release(&m);
	store_close(s);
	fx_plan_release(&f);
}

static void case_12_unwritable_names_uid_and_mode(void **state)
{
	int status = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(chmod(fx_base, 0755), 0);
	assert_int_equal(mkdir(fx_dest, 0755), 0);
	pid = fork();
	if (pid == 0) {
		struct store *s;
		struct err e = { 0 };

		if (geteuid() == 0 && setuid(65534) < 0)
			_exit(2);
		if (geteuid() != 65534)
			chmod(fx_dest, 0555);
		if (store_open(&s, fx_dest, true, &e) == 0)
			_exit(3);
		_exit(e.code == CODE_LOCAL && strstr(e.msg, "uid ") && strstr(e.msg, "gid ") &&
		      strstr(e.msg, "mode 0") && strstr(e.msg, "Permission denied") ? 0 : 4);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* --- verify --- */

static void note(void *arg, const char *path, const char *why)
{
	struct buf *b = arg;

	buf_addf(b, "%s:%s;", path, why);
}

static void verify_hashes_again(void **state)
{
	struct buf seen = BUF_INIT(4096);
	uint64_t files = 0, bytes = 0;
	struct fx_plan f;
	struct store *s;
	struct err e = { 0 };
	struct stat st;

	(void)state;
	FX_PLAN(&f, "a=11111", "b=22222", "c/d=33333", "c/e=44444");
	assert_int_equal(mkdir(fx_dest, 0755), 0);
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	assert_int_equal(store_verify(s, NULL, NULL, &files, &bytes, &e), -1);
	assert_int_equal(e.code, CODE_NOT_FOUND);
	publish(&f, STORE_VERSIONS);
	FX_OK(store_verify(s, note, &seen, &files, &bytes, FX_E));
	assert_int_equal(files, 4);
	assert_int_equal(bytes, 20);
	assert_int_equal(seen.len, 0);
	/* a flipped bit that stat does not show */
	assert_int_equal(stat(fx_path("current/b"), &st), 0);
	fx_put("current/b", "22223");
	assert_int_equal(utimensat(AT_FDCWD, fx_path("current/b"),
				   (struct timespec[2]){ st.st_atim, st.st_mtim }, 0), 0);
	unlink(fx_path("current/a"));
	unlink(fx_path("current/c/d"));
	assert_int_equal(symlink("e", fx_path("current/c/d")), 0);
	assert_int_equal(truncate(fx_path("current/c/e"), 1), 0);
	assert_int_equal(store_verify(s, note, &seen, &files, &bytes, &e), -1);
	assert_int_equal(e.code, CODE_INTEGRITY);
	assert_string_equal(buf_cstr(&seen),
			    "a:missing;b:wrong content;c/d:a symbolic link;c/e:wrong size;");
	store_close(s);
	buf_release(&seen);
	fx_plan_release(&f);
}

/* Meta is hostile input too. */
static void meta_with_evil_paths(void **state)
{
	const char *evil[] = { "../x", "/x", "d/../x", ".fetcher/x", "", "a//b", "./a", "a/.",
			       "a\\n" };
	struct store_meta meta;
	struct fx_plan f;
	struct store *s;
	struct err e;
	char path[256], *text;

	(void)state;
	FX_PLAN(&f, "a=1");
	publish(&f, STORE_FLAT);
	snprintf(path, sizeof(path), ".fetcher/meta/%s.json", f.version);
	text = strdup(fx_text(path));
	char *at = strstr(text, "\"path\":\"a\"");

	assert_non_null(at);
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	for (size_t i = 0; i < ARRAY_SIZE(evil); i++) {
		struct buf b = BUF_INIT(65536);

		buf_add(&b, text, (size_t)(at - text) + 8);
		buf_addf(&b, "%s\"%s", evil[i], at + 10);
		fx_put(path, buf_cstr(&b));
		buf_release(&b);
		if (store_read_meta(s, f.version, &meta, &e) != 0)
			fail_msg("accepted: %s", evil[i]);
	}
	fx_put(path, text);
	assert_int_equal(store_read_meta(s, f.version, &meta, &e), 1);
	store_meta_release(&meta);
	store_close(s);
	free(text);
	fx_plan_release(&f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(case_1_2_empty_root_then_nothing_to_do), T(marker_keys_in_order),
		T(marker_survives_odd_files), T(documents_round_trip),
		T(case_5_damage_is_seen_and_repaired), T(case_5_version_or_link_deleted),
		T(case_7_foreign_files_stay), T(empty_directories_go_with_their_files),
		T(generation_and_previous), T(file_and_directory_change_places),
		T(case_6_obstacles_are_refused_untouched),
		T(foreign_regular_file_is_replaced_not_written), T(case_6_current_is_occupied),
		T(own_directory_is_occupied), T(case_42_names_swapped_for_links_while_placing),
		T(dest_may_be_a_link), T(versions_swap), T(layouts_side_by_side),
		T(selection_has_its_own_version), T(case_4_stale_temporaries_are_swept),
		T(resumed_publications_fetch_the_rest), T(ledger_does_not_vouch_for_changed_files),
		T(unsynced_meta_of_another_boot), T(ledger_of_another_boot),
		T(repair_takes_the_marker_away), T(find_only_what_is_untouched),
		T(modes_and_times), T(another_mode_is_another_inode),
		T(shared_inode_is_not_dressed_anew), T(small_twins_are_copies),
		T(wrong_size_is_not_published), T(file_changed_before_commit),
		T(threads_place_at_once), T(case_16_few_descriptors),
		T(fsync_modes_publish_the_same), T(case_8_one_writer),
		T(lock_file_is_replaced_or_odd), T(nothing_without_the_lock),
		T(case_12_unwritable_names_uid_and_mode), T(verify_hashes_again),
		T(meta_with_evil_paths),
	};
	int failed = cmocka_run_group_tests_name("store with openat2", tests, NULL, NULL);

	sys_no_openat2 = true;
	return failed + cmocka_run_group_tests_name("store with the walk", tests, NULL, NULL);
}
