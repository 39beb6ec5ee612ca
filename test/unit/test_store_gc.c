// SPDX-License-Identifier: Apache-2.0
/* Which old versions go, and when: number, age, bytes. Numbers in names: the Kubernetes cases. */
#include "store_gc_fixture.h"

#include <time.h>

#define HOUR 3600
#define UNIT (32 * KIB)

/* --- number --- */

static void keeps_the_newest(void **state)
{
	struct store_gc_result r;
	struct fx_plan v[4];
	struct store *s;

	(void)state;
	series(v, 4);
	publish(&v[1]);
	age(&v[3], 1003);
	v[0].p.layout = STORE_VERSIONS;
	s = open_locked();
	FX_OK(store_begin(s, &v[0].p, FX_E));
	assert_int_equal(fx_partial(s, "sha256-unfinished", "bytes"), 0);
	store_close(s);
	r = GC(.keep = 1, .partials = true);
	assert_int_equal(r.versions, 2);
	assert_true(r.partials >= 1);
	assert_true(r.bytes > 0);
	assert_int_equal(r.left, 2);
	assert_int_equal(r.next, 0);
	assert_stand(v, 4, "0101");
	assert_false(fx_exists(".fetcher/partial/sha256-unfinished"));
	assert_ready(&v[1]);
	/* without a marker, what `current` shows stays */
	unlink(fx_path(".fetcher/ready.json"));
	r = GC(.keep = 0);
	assert_int_equal(r.versions, 1);
	assert_int_equal(r.left, 1);
	fx_assert_complete(&v[1], "current/");
	release(v, 4);
}

static void one_more_is_spared(void **state)
{
	struct store_gc_result r;
	struct fx_plan v[4];

	(void)state;
	series(v, 4);
	r = GC(.spare = v[0].version);
	assert_int_equal(r.left, 2);
	assert_stand(v, 4, "1001");
	release(v, 4);
}

static void flat_files_are_not_touched(void **state)
{
	struct store_gc_result r;
	struct fx_plan f;

	(void)state;
	FX_PLAN(&f, "a=1", "current=a file of the model", "d/b=2");
	FX_OK(fx_publish(&f, STORE_FLAT, FX_E));
	r = GC(.partials = true);
	assert_int_equal(r.versions, 0);
	assert_int_equal(r.left, 0);
	assert_ready(&f);
	fx_plan_release(&f);
}

static void unfinished_work_stays_unless_asked(void **state)
{
	struct fx_plan v[2], next;
	struct store *s;

	(void)state;
	series(v, 2);
	FX_PLAN(&next, "a=1", "b=2");
	next.p.layout = STORE_VERSIONS;
	s = open_locked();
	FX_OK(store_begin(s, &next.p, FX_E));
	FX_OK(fx_place(s, &next, 0, FX_E));
	store_close(s);
	/* a gc that was killed between rename and removal */
	assert_int_equal(rename(fx_path(below("versions", &v[0], "")),
				fx_path(".fetcher/partial/.tmp-0123456789abcdef")), 0);
	struct store_gc_result r = GC(.keep = 1);

	assert_int_equal(r.partials, 0);
	assert_false(fx_exists(".fetcher/partial/.tmp-0123456789abcdef"));
	publish(&next);
	assert_int_equal(next.fetched, 1);
	fx_plan_release(&next);
	release(v, 2);
}

/* `current` is somebody else's link, perhaps into a version: not the time to drop any. */
static void current_of_somebody_else(void **state)
{
	struct store_gc_result r;
	struct fx_plan v[3];

	(void)state;
	series(v, 3);
	unlink(fx_path("current"));
	assert_int_equal(symlink(fx_path(below("versions", &v[0], "")), fx_path("current")), 0);
	r = GC(.keep = 0);
	assert_int_equal(r.versions, 0);
	assert_int_equal(r.left, 3);
	assert_stand(v, 3, "111");
	unlink(fx_path("current"));
	r = GC(.keep = 0);
	assert_int_equal(r.versions, 2);
	assert_stand(v, 3, "001");
	release(v, 3);
}

/* --- age --- */

static void age_counts_from_the_swap(void **state)
{
	struct store_gc_result r;
	struct fx_plan v[3];
	time_t start = time(NULL), swap;

	(void)state;
	series(v, 2);
	FX_PLAN(&v[2], "m=the third");
	publish(&v[2]);
	/* v1 was published long ago, and replaced now; v0 long ago */
	swap = replaced(&v[1]);
	assert_true(swap >= start && swap <= time(NULL));
	assert_int_equal(replaced(&v[0]), 1000);
	r = GC(.stale_ms = HOUR * 1000);
	assert_int_equal(r.versions, 1);
	assert_int_equal(r.left, 2);
	assert_stand(v, 3, "011");
	assert_true(r.next == swap + HOUR || r.next == swap + HOUR + 1);
	/* not a second earlier than `next`, whoever asks */
	int64_t due = r.next;

	r = GC(.stale_ms = HOUR * 1000, .now = due - 1);
	assert_int_equal(r.left, 2);
	assert_int_equal(r.next, due);
	r = GC(.stale_ms = HOUR * 1000, .now = due);
	assert_int_equal(r.versions, 1);
	assert_int_equal(r.next, 0);
	assert_stand(v, 3, "001");
	release(v, 3);
}

static void age_and_number_together(void **state)
{
	struct store_gc_result r;
	struct fx_plan v[5];

	(void)state;
	series(v, 5);
	/* v3 by number, v2 by age, v1 and v0 not any more */
	r = GC(.keep = 1, .stale_ms = 100 * 1000, .now = 1101);
	assert_int_equal(r.versions, 2);
	assert_stand(v, 5, "00111");
	/* v3 does not fall due: it is the newest */
	assert_int_equal(r.next, 1102);
	r = GC(.keep = 1, .stale_ms = 100 * 1000, .now = 1102);
	assert_stand(v, 5, "00011");
	assert_int_equal(r.next, 0);
	release(v, 5);
}

static void odd_ages(void **state)
{
	struct store_gc_result r;
	struct fx_plan v[3];

	(void)state;
	series(v, 3);
	r = GC(.stale_ms = UINT64_MAX, .now = 2000);
	assert_int_equal(r.left, 3);
	assert_true(r.next > 1000000);
	age(&v[0], -5);
	r = GC(.stale_ms = 10 * 1000, .now = 1);
	/* v1 lies in the future */
	assert_stand(v, 3, "111");
	assert_int_equal(r.next, 5);
	/* no meta: nobody knows when, so neither number nor age keep it */
	unlink(fx_path(below("meta", &v[1], ".json")));
	r = GC(.keep = 1, .stale_ms = 10 * 1000, .now = 1);
	assert_int_equal(r.versions, 1);
	assert_stand(v, 3, "101");
	release(v, 3);
}

static void case_17_clock_went_back(void **state)
{
	struct store_gc_result r;
	struct fx_plan v[4];

	(void)state;
	series(v, 4);
	/* replaced when the clock was a year ahead, in this order */
	age(&v[1], 1000 + 365 * 24 * HOUR);
	age(&v[2], 2000 + 365 * 24 * HOUR);
	r = GC(.stale_ms = HOUR * 1000, .now = 10000);
	assert_stand(v, 4, "0111");
	assert_true(r.next <= 10000 + HOUR + 1);
	/* the age runs from there, over a restart, and not from a year ahead */
	assert_int_equal(replaced(&v[1]), 10000);
	r = GC(.stale_ms = HOUR * 1000, .now = 10000 + HOUR - 1);
	assert_stand(v, 4, "0111");
	/* and the order is what it was */
	r = GC(.keep = 1, .stale_ms = HOUR * 1000, .now = 10000 + HOUR + 1);
	assert_stand(v, 4, "0011");
	assert_int_equal(r.versions, 1);
	release(v, 4);
}

/* --- bytes --- */

static char big[6][UNIT + 16];

/* A spec "NAME=..." of UNIT bytes that differ by `fill`. */
static const char *spec(unsigned slot, const char *name, char fill)
{
	snprintf(big[slot], sizeof(big[slot]), "%s=", name);
	size_t n = strlen(big[slot]);

	memset(big[slot] + n, fill, UNIT);
	big[slot][n + UNIT] = 0;
	return strdup(big[slot]);
}

static uint64_t space(const char *rel)
{
	struct stat st;

	assert_int_equal(stat(fx_path(rel), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/*
 * Each version has "all" (shared by every one), "old" (shared by the old ones) and "own". What v2
 * costs beside the published one: old + own; v1 then costs own alone.
 */
static void prepare_bytes(struct fx_plan *v, const char **specs)
{
	specs[0] = spec(0, "all", 'a');
	specs[1] = spec(1, "old", 'o');
	for (int i = 0; i < 4; i++)
		specs[2 + i] = spec(2, "own", (char)('0' + i));
	for (int i = 0; i < 3; i++)
		FX_PLAN(&v[i], specs[0], specs[1], specs[2 + i]);
	FX_PLAN(&v[3], specs[0], specs[5]);
	for (int i = 0; i < 4; i++)
		publish(&v[i]);
	for (int i = 0; i < 4; i++)
		age(&v[i], 1000 + i);
}

static void release_bytes(struct fx_plan *v, const char **specs)
{
	for (int i = 0; i < 6; i++)
		free((void *)(uintptr_t)specs[i]);
	release(v, 4);
}

static void bytes_are_capped(void **state)
{
	struct store_gc_result r;
	const char *specs[6];
	struct fx_plan v[4];
	uint64_t u;

	(void)state;
	prepare_bytes(v, specs);
	u = space("current/own");
	assert_true(u > 0);
	r = GC(.keep = 10);
	assert_int_equal(r.left, 4);
	assert_int_equal(r.left_bytes, 6 * u);
	/* no cap, or just enough */
	r = GC(.keep = 10, .keep_bytes = 4 * u);
	assert_int_equal(r.versions, 0);
	/* old + own of v2, own of v1; v0 does not fit, and its shared files free nothing */
	r = GC(.keep = 10, .keep_bytes = 4 * u - 1);
	assert_stand(v, 4, "0111");
	assert_int_equal(r.bytes, u);
	assert_int_equal(r.left_bytes, 5 * u);
	/* the last two together would free 3 */
	r = GC(.keep = 10, .keep_bytes = 2 * u);
	assert_stand(v, 4, "0011");
	assert_int_equal(r.bytes, u);
	r = GC(.keep = 10, .keep_bytes = 2 * u - 1);
	assert_stand(v, 4, "0001");
	assert_int_equal(r.bytes, 2 * u);
	assert_int_equal(r.left_bytes, 2 * u);
	assert_ready(&v[3]);
	release_bytes(v, specs);
}

/* What stays for another reason is paid for; it costs the others nothing. */
static void bytes_shared_with_a_spared_version(void **state)
{
	struct store_gc_result r;
	const char *specs[6];
	struct fx_plan v[4];
	uint64_t u;

	(void)state;
	prepare_bytes(v, specs);
	u = space("current/own");
	r = GC(.keep = 10, .keep_bytes = u, .spare = v[0].version);
	assert_stand(v, 4, "1011");
	assert_int_equal(r.bytes, u);
	release_bytes(v, specs);
}

static void bytes_never_beat_age(void **state)
{
	struct store_gc_result r;
	const char *specs[6];
	struct fx_plan v[4];
	uint64_t u;

	(void)state;
	prepare_bytes(v, specs);
	u = space("current/own");
	r = GC(.keep = 10, .keep_bytes = 1, .stale_ms = 100 * 1000, .now = 1100);
	assert_stand(v, 4, "0111");
	assert_int_equal(r.next, 1101);
	r = GC(.keep = 10, .keep_bytes = 2 * u, .stale_ms = 100 * 1000, .now = 1101);
	/* v2 is young, and would fit besides: it has no date */
	assert_stand(v, 4, "0011");
	assert_int_equal(r.next, 0);
	r = GC(.keep = 10, .keep_bytes = 1, .stale_ms = 100 * 1000, .now = 1102);
	assert_stand(v, 4, "0001");
	release_bytes(v, specs);
}

/* Two names inside one version: freed once, with the last of them. */
static void twins_inside_a_version(void **state)
{
	struct store_gc_result r;
	struct fx_plan v[2];
	const char *a = spec(0, "a", 'x'), *b = spec(1, "b", 'x');
	struct stat st;
	uint64_t u;

	(void)state;
	FX_PLAN(&v[0], a, b);
	FX_PLAN(&v[1], "m=2");
	publish(&v[0]);
	assert_int_equal(stat(fx_path("current/a"), &st), 0);
	assert_int_equal(st.st_nlink, 2);
	u = space("current/a");
	publish(&v[1]);
	r = GC(.keep = 0);
	assert_int_equal(r.versions, 1);
	assert_int_equal(r.bytes, u);
	free((void *)(uintptr_t)a);
	free((void *)(uintptr_t)b);
	release(v, 2);
}

/* More inodes than the first table has room for. */
static void many_shared_files(void **state)
{
	char path[400], target[400];
	struct store_gc_result r;
	struct fx_plan v[2];
	uint64_t u;

	(void)state;
	series(v, 2);
	u = space("current/m");
	for (int i = 0; i < 1000; i++) {
		for (int k = 0; k < 2; k++) {
			char name[32];

			snprintf(name, sizeof(name), "/x%d", i);
			snprintf(k ? target : path, sizeof(path), "%s", below("versions", &v[k], name));
		}
		fx_put(path, "x");
		assert_int_equal(link(fx_path(path), fx_path(target)), 0);
	}
	r = GC(.keep = 1);
	assert_int_equal(r.left_bytes, 1003 * u);
	r = GC(.keep = 0);
	assert_int_equal(r.left_bytes, 1002 * u);
	assert_int_equal(r.bytes, u);
	release(v, 2);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(keeps_the_newest), T(one_more_is_spared), T(flat_files_are_not_touched),
		T(unfinished_work_stays_unless_asked), T(current_of_somebody_else),
		T(age_counts_from_the_swap), T(age_and_number_together), T(odd_ages),
		T(case_17_clock_went_back), T(bytes_are_capped),
		T(bytes_shared_with_a_spared_version), T(bytes_never_beat_age),
		T(twins_inside_a_version), T(many_shared_files),
	};
	int failed = cmocka_run_group_tests_name("gc with openat2", tests, NULL, NULL);

	sys_no_openat2 = true;
	return failed + cmocka_run_group_tests_name("gc with the walk", tests, NULL, NULL);
}
