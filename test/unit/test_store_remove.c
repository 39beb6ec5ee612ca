// SPDX-License-Identifier: Apache-2.0
/* store_remove and store_disk_bytes: what goes, what stays, who may stop it. */
#include "store_gc_fixture.h"

#include <fcntl.h>
#include <sys/file.h>

static int remove_dest(uint64_t *ret_bytes)
{
	struct store *s = open_locked();
	struct err e = { 0 };
	int rc = store_remove(s, ret_bytes, &e);

	store_close(s);
	if (rc < 0)
		fail_msg("%d %s", (int)e.code, e.msg);
	return rc;
}

static uint64_t disk_bytes(void)
{
	struct store *s = NULL;
	uint64_t n = 0;

	FX_OK(store_open(&s, fx_dest, false, FX_E));
	FX_OK(store_disk_bytes(s, &n, FX_E));
	store_close(s);
	return n;
}

static void publish_flat(struct fx_plan *f)
{
	FX_OK(fx_publish(f, STORE_FLAT, FX_E));
}

/* DEST itself is the caller's. */
static void assert_empty(void)
{
	assert_int_equal(rmdir(fx_dest), 0);
}

static void test_flat(void **state)
{
	(void)state;
	struct fx_plan f;
	uint64_t bytes = 0;

	FX_PLAN(&f, "a=one", "d/b=two", "d/e/c=three", "empty=");
	publish_flat(&f);
	assert_true(disk_bytes() > 0);
	assert_int_equal(remove_dest(&bytes), 1);
	assert_true(bytes > 0);
	assert_empty();
	fx_plan_release(&f);
}

static void test_foreign_and_changed_files_stay(void **state)
{
	(void)state;
	struct fx_plan f;
	uint64_t bytes;

	FX_PLAN(&f, "a=one", "d/b=two", "d/e/c=three", "z=z");
	publish_flat(&f);
	fx_put("d/mine", "mine");
	fx_put("a", "changed");
	assert_int_equal(symlink("elsewhere", fx_path("current")), 0);
	/* replaced by a link, and by a directory */
	assert_int_equal(unlink(fx_path("z")), 0);
	assert_int_equal(mkdir(fx_path("z"), 0755), 0);
	assert_int_equal(remove_dest(&bytes), 1);
	fx_assert_text("a", "changed");
	fx_assert_text("d/mine", "mine");
	assert_true(fx_exists("current") && fx_exists("z"));
	assert_false(fx_exists("d/b") || fx_exists("d/e") || fx_exists(".fetcher"));
	/* again: nothing of ours, so nothing to lock */
	struct store *s = NULL;
	struct err e = { 0 };
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	assert_int_equal(store_lock(s, 0, NULL, NULL, NULL, &e), -1);
	assert_int_equal(e.code, CODE_NOT_FOUND);
	store_close(s);
	assert_int_equal(fx_wipe(fx_dest), 0);
	fx_plan_release(&f);
}

static void test_versions(void **state)
{
	(void)state;
	struct fx_plan v[3];
	uint64_t before, bytes;

	series(v, 3);
	before = disk_bytes();
	/* linked between the versions: counted once. What the lock writes comes on top. */
	assert_true(before >= 4 * 512);
	assert_int_equal(remove_dest(&bytes), 1);
	assert_true(bytes > 0);
	assert_empty();
	release(v, 3);
}

static void test_both_layouts_and_an_unfinished_pull(void **state)
{
	(void)state;
	struct fx_plan flat, v, half;
	uint64_t bytes;
	struct store *s;
	struct err e = { 0 };

	FX_PLAN(&flat, "a=flat", "d/b=flat");
	publish_flat(&flat);
	FX_PLAN(&v, "a=version");
	publish(&v);
	FX_PLAN(&half, "n/x=half", "n/y=not");
	half.p.layout = STORE_FLAT;
	s = open_locked();
	FX_OK(store_begin(s, &half.p, FX_E));
	FX_OK(fx_place(s, &half, 0, FX_E));
	store_close(s);
	assert_true(fx_exists("n/x"));
	assert_int_equal(remove_dest(&bytes), 1);
	assert_empty();
	assert_int_equal(e.code, CODE_OK);
	fx_plan_release(&flat);
	fx_plan_release(&v);
	fx_plan_release(&half);
}

static void test_a_lease_on_any_version_stops_it(void **state)
{
	(void)state;
	struct fx_plan v[3];
	uint64_t bytes = 77;

	series(v, 3);
	for (int i = 0; i < 3; i++) {
		int fd = open(fx_path(below("versions", &v[i], "")), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), 0);
		assert_int_equal(remove_dest(&bytes), 0);
		assert_int_equal(bytes, 77);
		assert_stand(v, 3, "111");
		assert_ready(&v[2]);
		close(fd);
	}
	assert_int_equal(remove_dest(&bytes), 1);
	assert_empty();
	release(v, 3);
}

static void test_needs_the_lock(void **state)
{
	(void)state;
	struct fx_plan f;
	struct store *s = NULL;
	struct err e = { 0 };
	uint64_t bytes;

	FX_PLAN(&f, "a=one");
	publish_flat(&f);
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	assert_int_equal(store_remove(s, &bytes, &e), -1);
	assert_int_equal(e.code, CODE_INTERNAL);
	store_close(s);
	fx_assert_complete(&f, "");
	assert_int_equal(fx_wipe(fx_dest), 0);
	fx_plan_release(&f);
}

/* One that had it open already, makes a new lock in time, and goes on. */
static void test_somebody_who_comes_too_late(void **state)
{
	(void)state;
	struct fx_plan f;
	struct store *late = NULL;
	struct err e = { 0 };
	uint64_t bytes;

	FX_PLAN(&f, "a=one");
	publish_flat(&f);
	FX_OK(store_open(&late, fx_dest, true, FX_E));
	assert_int_equal(remove_dest(&bytes), 1);
	assert_int_equal(store_lock(late, 0, NULL, NULL, NULL, &e), -1);
	assert_int_equal(e.code, CODE_LOCAL);
	store_close(late);
	publish_flat(&f);
	fx_assert_complete(&f, "");
	assert_int_equal(remove_dest(&bytes), 1);
	assert_empty();
	fx_plan_release(&f);
}

/* Links where directories of ours were: they go, what they point at stays. */
static void test_links(void **state)
{
	(void)state;
	static const char *const names[] = { "versions", "x", "previous.json", STORE_LISTED };
	struct fx_plan f;
	char outside[128], kept[160];
	uint64_t bytes;

	FX_PLAN(&f, "a=one", "d/b=two");
	publish_flat(&f);
	snprintf(outside, sizeof(outside), "%s/outside", fx_base);
	assert_int_equal(mkdir(outside, 0755), 0);
	/* the very file that meta knows, now behind a link */
	snprintf(kept, sizeof(kept), "%s/d", outside);
	assert_int_equal(rename(fx_path("d"), kept), 0);
	assert_int_equal(symlink(kept, fx_path("d")), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char rel[64];
		snprintf(rel, sizeof(rel), ".fetcher/%s", names[i]);
		assert_int_equal(symlink(outside, fx_path(rel)), 0);
	}
	assert_int_equal(remove_dest(&bytes), 1);
	assert_false(fx_exists(".fetcher"));
	fx_assert_text("d/b", "two");
	assert_int_equal(fx_wipe(outside), 0);
	assert_int_equal(fx_wipe(fx_dest), 0);
	fx_plan_release(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flat),
		cmocka_unit_test(test_foreign_and_changed_files_stay),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_both_layouts_and_an_unfinished_pull),
		cmocka_unit_test(test_a_lease_on_any_version_stops_it),
		cmocka_unit_test(test_needs_the_lock),
		cmocka_unit_test(test_somebody_who_comes_too_late),
		cmocka_unit_test(test_links),
	};

	return cmocka_run_group_tests(tests, fx_setup, fx_teardown);
}
