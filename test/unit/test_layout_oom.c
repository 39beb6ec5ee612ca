// SPDX-License-Identifier: Apache-2.0
// ldflags: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup,--wrap=strndup
/*
 * Every allocation of a plan with archives, and of a merge, fails once: the answer is "out of
 * memory", the plan is as before, and nothing leaks (the leak checker looks at the end).
 */
#include "layout_fixture.h"

static long countdown = -1; /* allocations until one fails; negative = none fails */

static bool fails(void)
{
	return countdown >= 0 && countdown-- == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

char *__wrap_strdup(const char *s)
{
	return fails() ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t n)
{
	return fails() ? NULL : __real_strndup(s, n);
}

/* Runs f until no allocation of it is left to fail; how often it failed. */
static long until_it_works(int (*f)(struct err *))
{
	for (long k = 0; k < 10000; k++) {
		struct err e = { 0 };
		countdown = k;
		int r = f(&e);
		bool reached = countdown < 0;
		countdown = -1;
		if (r == 0 && !reached)
			return k;
		if (r != -1 || !reached)
			fail_msg("allocation %ld: result %d, %s", k, r, e.msg);
		if (e.code != CODE_INTERNAL || !strstr(e.msg, "out of memory"))
			fail_msg("allocation %ld: code %d, %s", k, (int)e.code, e.msg);
	}
	fail_msg("it never ends");
	return -1;
}

static int plan_once(struct err *e)
{
	struct layout_options o = {
		.exclude = WORDS("none"),
		.config = config,
		.config_len = strlen(config),
	};
	struct layout l = { 0 };
	int r = layout_plan(&manifest, &o, &l, e);

	if (r)
		assert_null(l.trees);
	layout_release(&l);
	return r;
}

static void test_plans(void **state)
{
	(void)state;
	begin("application/vnd.kitops.modelkit.config.v1+json");
	layer("application/vnd.cncf.model.weight.v1.tar", A, 3, PATH, "d/x", META, "{\"typeflag\":0}",
	      NULL);
	layer("application/vnd.kitops.modelkit.model.v1.tar", A, 3, NULL);
	layer("a/b", B, 3, UNPACK, "true", TITLE, "dir", NULL);
	layer("a/b", B, 3, TITLE, "file", NULL);
	config = "{\"model\":{\"path\":\"w/m\"}}";
	struct err e = { 0 };
	struct layout l = { 0 };
	const char *kitfile = config;
	assert_int_equal(plan(NULL, &l, &e), 0);
	layout_release(&l);
	config = kitfile;
	assert_in_range(until_it_works(plan_once), 20, 200);
	begin(OCI_TYPE_IMAGE_CONFIG);
	layer("application/vnd.oci.image.layer.v1.tar", A, 3, NULL);
	l = planned();
	layout_release(&l);
	config = "";
	assert_in_range(until_it_works(plan_once), 5, 100);
}

static struct layout image_plan;
static struct layout_file added[3];

static int merge_once(struct err *e)
{
	static char *const whiteouts[] = { (char *)"a" };

	return layout_merge(&image_plan, 1, added, ARRAY_SIZE(added), whiteouts, 1, e);
}

static void fill(struct layout_file *files, const char *const *paths)
{
	for (size_t i = 0; i < 3; i++) {
		files[i] = (struct layout_file){ .path = strdup(paths[i]), .size = 1 };
		digest_of(DIGEST_SHA256, "x", 1, &files[i].digest);
	}
}

static int finish_once(struct err *e)
{
	return layout_finish(&image_plan, e);
}

static void test_merges(void **state)
{
	struct err e = { 0 };
	(void)state;

	begin(OCI_TYPE_IMAGE_CONFIG);
	layer("application/vnd.oci.image.layer.v1.tar", A, 3, NULL);
	layer("application/vnd.oci.image.layer.v1.tar", B, 3, NULL);
	image_plan = planned();
	fill(added, WORDS("a/b", "c", "d"));
	assert_int_equal(layout_merge(&image_plan, 0, added, 3, NULL, 0, &e), 0);
	fill(added, WORDS("c", "d/e", "f"));
	assert_in_range(until_it_works(merge_once), 3, 100);
	assert_in_range(until_it_works(finish_once), 1, 10);
	assert_int_equal(image_plan.n_files, 3);
	layout_release(&image_plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plans),
		cmocka_unit_test(test_merges),
	};

	return cmocka_run_group_tests_name("layout_oom", tests, NULL, teardown);
}
