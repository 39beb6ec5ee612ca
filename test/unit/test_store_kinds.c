// SPDX-License-Identifier: Apache-2.0
/* Plans with links and empty directories. */
#include "store_fixture.h"

static const enum store_layout layouts[] = { STORE_FLAT, STORE_VERSIONS };

static void publish(struct fx_plan *f, enum store_layout layout)
{
	struct err e = { 0 };

	if (fx_publish(f, layout, &e) < 0)
		fail_msg("%d %s", (int)e.code, e.msg);
}

static void refused(struct fx_plan *f, const char *word)
{
	struct err e = { 0 };

	assert_int_equal(fx_publish(f, STORE_FLAT, &e), -1);
	if (e.code != CODE_UNSAFE || !strstr(e.msg, word))
		fail_msg("%d %s", (int)e.code, e.msg);
}

static void assert_ready(struct fx_plan *f, int want, const char *reason)
{
	struct err e = { 0 };
	int rc = fx_ready(f, false, &e);

	if (rc != want || (want == 0 && !strstr(e.msg, reason)))
		fail_msg("%d instead of %d: %s", rc, want, e.msg);
}

static struct store *open_locked(void)
{
	struct store *s = NULL;

	FX_OK(store_open(&s, fx_dest, true, FX_E));
	FX_OK(store_lock(s, 0, NULL, NULL, NULL, FX_E));
	return s;
}

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

static void put_link(const char *target, const char *rel)
{
	assert_int_equal(symlink(target, fx_path(rel)), 0);
}

static void assert_what(const char *rel, const char *want)
{
	const char *what = fx_what(rel);

	if (want ? !what || strcmp(what, want) != 0 : what != NULL)
		fail_msg("%s: %s instead of %s", rel, what ? what : "(nothing)", want ? want : "(nothing)");
}

static void note(void *arg, const char *path, const char *why)
{
	buf_addf(arg, "%s:%s;", path, why);
}

static void assert_verify(const char *want)
{
	struct buf seen = BUF_INIT(4096);
	uint64_t files, bytes;
	struct store *s;
	struct err e = { 0 };
	int rc;

	FX_OK(store_open(&s, fx_dest, false, FX_E));
	rc = store_verify(s, note, &seen, &files, &bytes, &e);
	assert_int_equal(rc, *want ? -1 : 0);
	assert_string_equal(buf_cstr(&seen), want);
	store_close(s);
	buf_release(&seen);
}

/* --- publishing --- */

static void links_and_directories_land(void **state)
{
	struct fx_plan f;
	struct stat a, b;

	(void)state;
	FX_PLAN(&f, "a>d/real", "d/empty/", "d/real=content", "d/up>../a", "e/f/g/", "nowhere>not/there");
	for (size_t l = 0; l < 2; l++) {
		const char *link = l ? "current/a" : "a";

		publish(&f, layouts[l]);
		assert_int_equal(f.fetched, 1 - l);
		fx_assert_complete(&f, l ? "current/" : "");
		fx_assert_text(l ? "current/d/up" : "d/up", "content");
		assert_int_equal(stat(fx_path(l ? "current/e/f/g" : "e/f/g"), &a), 0);
		assert_int_equal(a.st_mode & 07777, 0755);
		assert_ready(&f, 1, "");
		assert_verify("");
		/* again: nothing is made anew */
		assert_int_equal(lstat(fx_path(link), &a), 0);
		publish(&f, layouts[l]);
		assert_int_equal(lstat(fx_path(link), &b), 0);
		assert_int_equal(a.st_ino, b.st_ino);
		assert_int_equal(f.fetched, 0);
		assert_ready(&f, 1, "");
	}
	fx_plan_release(&f);
}

static void damage_is_seen_and_repaired(void **state)
{
	struct fx_plan f;

	(void)state;
	FX_PLAN(&f, "d/empty/", "d/link>../real", "real=content");
	for (size_t l = 0; l < 2; l++) {
		const char *link = l ? "current/d/link" : "d/link", *dir = l ? "current/d/empty" : "d/empty";

		publish(&f, layouts[l]);
		assert_int_equal(unlink(fx_path(link)), 0);
		assert_ready(&f, 0, "d/link is missing");
		assert_verify("d/link:missing;");
		publish(&f, layouts[l]);
		assert_ready(&f, 1, "");
		/* a file instead */
		assert_int_equal(unlink(fx_path(link)), 0);
		fx_put(link, "../real");
		assert_ready(&f, 0, "d/link is not a symbolic link any more");
		assert_verify("d/link:not a symbolic link;");
		publish(&f, layouts[l]);
		assert_ready(&f, 1, "");
		/* the same text, but somebody else's: right for verify, not untouched */
		assert_int_equal(unlink(fx_path(link)), 0);
		put_link("../real", link);
		assert_ready(&f, 0, "d/link was changed");
		assert_verify("");
		publish(&f, layouts[l]);
		assert_ready(&f, 1, "");
		assert_int_equal(rmdir(fx_path(dir)), 0);
		assert_ready(&f, 0, "d/empty is missing");
		publish(&f, layouts[l]);
		assert_ready(&f, 1, "");
		/* what others put into it does not matter */
		assert_int_equal(mkdir(fx_path(l ? "current/d/empty/x" : "d/empty/x"), 0755), 0);
		assert_ready(&f, 1, "");
		assert_int_equal(f.fetched, 0);
	}
	fx_plan_release(&f);
}

/* A link of somebody else's says something else: in versions it is ours all the same, as nobody may write there. */
static void another_text_is_damage(void **state)
{
	struct fx_plan f;
	struct stat st;

	(void)state;
	FX_PLAN(&f, "link>real", "real=content");
	for (size_t l = 0; l < 2; l++) {
		const char *link = l ? "current/link" : "link";

		publish(&f, layouts[l]);
		/* with the time of the old one */
		assert_int_equal(lstat(fx_path(link), &st), 0);
		assert_int_equal(unlink(fx_path(link)), 0);
		put_link("fake", link);
		assert_int_equal(utimensat(AT_FDCWD, fx_path(link), (struct timespec[2]){ st.st_atim, st.st_mtim },
					   AT_SYMLINK_NOFOLLOW), 0);
		assert_ready(&f, 0, "link was changed");
		assert_verify("link:wrong target;");
		if (l == 0) {
			refused(&f, "it is a symbolic link where another link belongs");
			assert_what("link", ">fake");
			assert_int_equal(unlink(fx_path(link)), 0);
		}
		publish(&f, layouts[l]);
		assert_ready(&f, 1, "");
	}
	fx_plan_release(&f);
}

/* --- flat: what gives way --- */

static void kinds_change_places(void **state)
{
	struct fx_plan v[4];
	int order[] = { 0, 1, 2, 3, 0, 2, 1, 3, 1, 0, 3, 2, 0 };

	(void)state;
	FX_PLAN(&v[0], "a=file", "b>t", "c/", "d/x=in d", "e>d", "t=target");
	FX_PLAN(&v[1], "a>t", "b=file", "c=file", "d>c", "e/x=in e", "t=target");
	FX_PLAN(&v[2], "a/", "b/x/", "c>t", "d/", "e=file", "t=target");
	FX_PLAN(&v[3], "a/b/c=deep", "b/", "c/x>../t", "d=file", "e/", "t=target");
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		publish(&v[order[i]], STORE_FLAT);
		fx_assert_complete(&v[order[i]], "");
		assert_ready(&v[order[i]], 1, "");
	}
	assert_int_equal(fx_wipe(fx_dest), 0);
	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		publish(&v[order[i]], STORE_VERSIONS);
		fx_assert_complete(&v[order[i]], "current/");
		assert_ready(&v[order[i]], 1, "");
	}
	for (size_t i = 0; i < 4; i++)
		fx_plan_release(&v[i]);
}

/* Also when the version before never was finished: its ledger knows. */
static void kinds_of_an_interrupted_version_give_way(void **state)
{
	struct fx_plan v1, v2;

	(void)state;
	FX_PLAN(&v1, "a>t", "b/", "c/d>../t", "t=target");
	FX_PLAN(&v2, "a>elsewhere", "b=file", "c=file");
	for (size_t n = 1; n <= 4; n++) {
		interrupted(&v1, STORE_FLAT, n);
		publish(&v2, STORE_FLAT);
		fx_assert_complete(&v2, "");
		assert_what("t", NULL);
		assert_int_equal(fx_wipe(fx_dest), 0);
	}
	/* and the version itself goes on */
	for (size_t l = 0; l < 2; l++) {
		struct stat a, b;
		char rel[256];

		snprintf(rel, sizeof(rel), l ? ".fetcher/partial/%s.d/a" : "a", v1.version);
		interrupted(&v1, layouts[l], 3);
		assert_int_equal(lstat(fx_path(rel), &a), 0);
		publish(&v1, layouts[l]);
		assert_int_equal(lstat(fx_path(l ? "current/a" : "a"), &b), 0);
		assert_int_equal(a.st_ino, b.st_ino);
		assert_ready(&v1, 1, "");
		assert_int_equal(fx_wipe(fx_dest), 0);
	}
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void what_is_not_ours_stays(void **state)
{
	struct fx_plan old, f;
	char outside[128];

	(void)state;
	FX_PLAN(&old, "z=published before");
	FX_PLAN(&f, "dir/", "link>z", "sub/x>../z");
	publish(&old, STORE_FLAT);
	snprintf(outside, sizeof(outside), "%s/outside", fx_base);
	assert_int_equal(mkdir(outside, 0755), 0);
	put_link("elsewhere", "link");
	refused(&f, "link is in the way: it is a symbolic link where another link belongs");
	assert_what("link", ">elsewhere");
	assert_int_equal(unlink(fx_path("link")), 0);
	assert_int_equal(mkdir(fx_path("link"), 0755), 0);
	refused(&f, "link is in the way: it is a directory");
	assert_int_equal(rmdir(fx_path("link")), 0);
	put_link(outside, "dir");
	refused(&f, "dir is in the way: it is a symbolic link where a directory belongs");
	assert_int_equal(unlink(fx_path("dir")), 0);
	fx_put("dir", "theirs");
	refused(&f, "dir is in the way: it is a file where a directory belongs");
	fx_assert_text("dir", "theirs");
	assert_int_equal(unlink(fx_path("dir")), 0);
	put_link(outside, "sub");
	refused(&f, "symbolic link");
	assert_int_equal(unlink(fx_path("sub")), 0);
	/* all that time the old version stood */
	assert_ready(&old, 1, "");
	/* a directory that stands will do, and so will a link that says the same; a file gives way as it always did */
	assert_int_equal(mkdir(fx_path("dir"), 0700), 0);
	put_link("z", "link");
	assert_int_equal(mkdir(fx_path("sub"), 0755), 0);
	fx_put("sub/x", "theirs");
	publish(&f, STORE_FLAT);
	fx_assert_complete(&f, "");
	assert_int_equal(rmdir(outside), 0);
	fx_plan_release(&old);
	fx_plan_release(&f);
}

static void stale_links_and_directories_go(void **state)
{
	struct fx_plan v1, v2;

	(void)state;
	FX_PLAN(&v1, "d/e/", "d/full/", "gone>t", "kept/x=goes", "p/q>../t", "t=target", "theirs>t");
	FX_PLAN(&v2, "kept/", "t=target");
	publish(&v1, STORE_FLAT);
	fx_put("d/full/notes", "by hand");
	assert_int_equal(unlink(fx_path("theirs")), 0);
	put_link("t", "theirs");
	publish(&v2, STORE_FLAT);
	fx_assert_complete(&v2, "");
	assert_what("d/e", NULL);
	assert_what("gone", NULL);
	assert_what("p", NULL);
	fx_assert_text("d/full/notes", "by hand");
	assert_what("theirs", ">t");
	assert_ready(&v2, 1, "");
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void remove_takes_them_along(void **state)
{
	struct fx_plan f;
	struct store *s;
	uint64_t bytes;

	(void)state;
	FX_PLAN(&f, "a>t", "d/", "d2/e/", "full/", "t=target", "theirs>t");
	publish(&f, STORE_FLAT);
	fx_put("full/notes", "by hand");
	assert_int_equal(unlink(fx_path("theirs")), 0);
	put_link("other", "theirs");
	s = open_locked();
	assert_int_equal(store_remove(s, &bytes, &(struct err){ 0 }), 1);
	store_close(s);
	assert_int_equal(unlink(fx_path("theirs")), 0);
	assert_int_equal(unlink(fx_path("full/notes")), 0);
	assert_int_equal(rmdir(fx_path("full")), 0);
	assert_int_equal(rmdir(fx_dest), 0);
	fx_plan_release(&f);
}

/* --- what it says about itself --- */

static void meta_tells_kinds(void **state)
{
	struct store_meta meta;
	struct fx_plan f;
	struct store *s;
	char path[256], *text, *at;
	struct err e;

	(void)state;
	FX_PLAN(&f, "d/", "l>\xff\"\\t", "n\xfe/x=1", "\xef\xbf\xbd=2");
	publish(&f, STORE_FLAT);
	fx_assert_complete(&f, "");
	assert_ready(&f, 1, "");
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	assert_int_equal(store_read_meta(s, f.version, &meta, &e), 1);
	assert_int_equal(meta.n_files, 4);
	assert_int_equal(meta.files[0].kind, LAYOUT_DIR);
	assert_null(meta.files[0].target);
	assert_int_equal(meta.files[1].kind, LAYOUT_SYMLINK);
	assert_string_equal(meta.files[1].target, "\xff\"\\t");
	assert_int_equal(meta.files[1].size, 4);
	assert_int_equal(meta.files[2].kind, LAYOUT_FILE);
	assert_string_equal(meta.files[2].path, "n\xfe/x");
	assert_string_equal(meta.files[3].path, "\xef\xbf\xbd");
	store_meta_release(&meta);
	snprintf(path, sizeof(path), ".fetcher/meta/%s.json", f.version);
	text = strdup(fx_text(path));
	/* a kind that does not exist */
	at = strstr(text, "\"kind\":\"dir\"");
	assert_non_null(at);
	at[8] = 'p';
	fx_put(path, text);
	assert_int_equal(store_read_meta(s, f.version, &meta, &e), 0);
	at[8] = 'd';
	/* a text that is not the digest's */
	at = strstr(text, "\"targetBase64\":\"");
	assert_non_null(at);
	at[18] = at[18] == 'A' ? 'B' : 'A';
	fx_put(path, text);
	assert_int_equal(store_read_meta(s, f.version, &meta, &e), 0);
	store_close(s);
	free(text);
	fx_plan_release(&f);
}

/* As an older version wrote it. */
static void meta_of_files_is_as_it_was(void **state)
{
	struct fx_plan f;
	char path[256];

	(void)state;
	FX_PLAN(&f, "a=1", "b/c=2");
	publish(&f, STORE_FLAT);
	snprintf(path, sizeof(path), ".fetcher/meta/%s.json", f.version);
	assert_null(strstr(fx_text(path), "kind"));
	assert_null(strstr(fx_text(path), "target"));
	assert_non_null(strstr(fx_text(path), "\n{\"path\":\"a\",\"digest\":\"sha256:"));
	fx_plan_release(&f);
}

static void they_are_nobodys_content(void **state)
{
	struct fx_plan v1, v2;
	char *path = NULL;
	struct store *s;
	struct err e;

	(void)state;
	/* the file's content is the link's text */
	FX_PLAN(&v1, "d/", "l>some text", "x=1");
	FX_PLAN(&v2, "f=some text", "g=");
	for (size_t l = 0; l < 2; l++) {
		publish(&v1, layouts[l]);
		s = open_locked();
		assert_int_equal(store_find(s, &v2.files[0].digest, 9, &path, &e), 0);
		assert_int_equal(store_find(s, &v2.files[1].digest, 0, &path, &e), 0);
		v1.p.layout = layouts[l];
		FX_OK(store_begin(s, &v1.p, FX_E));
		assert_int_equal(store_find(s, &v2.files[0].digest, 9, &path, &e), 0);
		store_close(s);
		publish(&v2, layouts[l]);
		assert_int_equal(v2.fetched, 1);
		assert_int_equal(fx_wipe(fx_dest), 0);
	}
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

static void wrong_calls_are_refused(void **state)
{
	struct store *s = open_locked();
	struct fx_plan f;
	struct err e = { 0 };

	(void)state;
	FX_PLAN(&f, "d/", "l>t");
	FX_OK(store_begin(s, &f.p, FX_E));
	assert_int_equal(fx_partial(s, "blob", "t"), 0);
	assert_int_equal(store_place(s, 1, "blob", NULL, &e), -1);
	assert_int_equal(e.code, CODE_INTERNAL);
	assert_int_equal(store_place(s, 0, "blob", NULL, &e), -1);
	assert_int_equal(store_place_bytes(s, 1, "u", 1, &e), -1);
	assert_int_equal(store_place_bytes(s, 1, "t/", 2, &e), -1);
	assert_int_equal(e.code, CODE_INTERNAL);
	assert_false(fx_exists("l"));
	FX_OK(store_place_bytes(s, 0, NULL, 0, FX_E));
	FX_OK(store_place_bytes(s, 1, "t", 1, FX_E));
	/* exchanged behind our back, and gone */
	assert_int_equal(unlink(fx_path("l")), 0);
	put_link("T", "l");
	f.p.fsync = STORE_FSYNC_END;
	if (fx_commit(s, &e) == 0)
		assert_ready(&f, 0, "l was changed");	/* in memory nothing is flushed */
	else
		assert_int_equal(e.code, CODE_INTEGRITY);
	store_close(s);
	fx_plan_release(&f);
}

/* The way to a place is exchanged for a link while things are placed: nothing goes there. */
static void placing_stays_inside(void **state)
{
	struct store *s = open_locked();
	struct fx_plan f;
	char outside[128];
	struct err e = { 0 };

	(void)state;
	FX_PLAN(&f, "a/d/", "b/l>t", "c/l>t");
	snprintf(outside, sizeof(outside), "%s/outside", fx_base);
	assert_int_equal(mkdir(outside, 0755), 0);
	FX_OK(store_begin(s, &f.p, FX_E));
	put_link(outside, "a");
	put_link("../outside", "b");
	assert_int_equal(store_place_bytes(s, 0, NULL, 0, &e), -1);
	assert_int_equal(e.code, CODE_UNSAFE);
	assert_int_equal(store_place_bytes(s, 1, "t", 1, &e), -1);
	assert_int_equal(e.code, CODE_UNSAFE);
	/* the place itself is a link or a file by now: no directory */
	assert_int_equal(unlink(fx_path("a")), 0);
	assert_int_equal(mkdir(fx_path("a"), 0755), 0);
	put_link(outside, "a/d");
	assert_int_equal(store_place_bytes(s, 0, NULL, 0, &e), -1);
	assert_int_equal(e.code, CODE_UNSAFE);
	store_close(s);
	assert_int_equal(rmdir(outside), 0);
	fx_plan_release(&f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(links_and_directories_land), T(damage_is_seen_and_repaired), T(another_text_is_damage),
		T(kinds_change_places), T(kinds_of_an_interrupted_version_give_way), T(what_is_not_ours_stays),
		T(stale_links_and_directories_go), T(remove_takes_them_along), T(meta_tells_kinds),
		T(meta_of_files_is_as_it_was), T(they_are_nobodys_content), T(wrong_calls_are_refused),
		T(placing_stays_inside),
	};
	int failed = cmocka_run_group_tests_name("store kinds with openat2", tests, NULL, NULL);

	sys_no_openat2 = true;
	return failed + cmocka_run_group_tests_name("store kinds with the walk", tests, NULL, NULL);
}
