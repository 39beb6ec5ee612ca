// SPDX-License-Identifier: Apache-2.0
// ldflags: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup,--wrap=strndup
/*
 * Every allocation on the way from a document to a layout fails once: the answer is "out of
 * memory", nothing leaks (the leak checker looks at the end), and no output is touched.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "layout.h"

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
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

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

#define A "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static const char manifest[] =
	"{\"schemaVersion\":2,\"artifactType\":\"x/y\",\"annotations\":{\"k\":\"v\"},\"layers\":["
	"{\"mediaType\":\"a/b\",\"digest\":\"" A "\",\"size\":3,\"name\":\"n\",\"data\":\"YWJj\","
	"\"annotations\":{\"org.cncf.model.filepath\":\"d/x\","
	"\"org.cncf.model.file.metadata+json\":\"{\\\"mode\\\":420,\\\"x\\\":1}\"}},"
	"{\"mediaType\":\"a/b\",\"digest\":\"" A "\",\"size\":3,"
	"\"annotations\":{\"org.opencontainers.image.title\":\"y\","
	"\"org.cnai.model.file.metadata+json\":\"{\"}},"
	"{\"mediaType\":\"a/b\",\"digest\":\"" A "\",\"size\":3,"
	"\"annotations\":{\"org.opencontainers.image.title\":\"d/x\"}},"
	"{\"mediaType\":\"nameless/layer\",\"digest\":\"" A "\",\"size\":3}]}";

static const char index_text[] =
	"{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"" A "\",\"size\":3,"
	"\"artifactType\":\"a/b\",\"platform\":{\"os\":\"linux\",\"architecture\":\"arm\","
	"\"variant\":\"v7\",\"os.version\":\"1\"}}]}";

static int lay_out(const char *text, size_t len, struct err *e)
{
	struct oci_manifest m = { 0 };
	struct layout l = { 0 };
	int r = oci_manifest_parse(text, len, NULL, &m, e);

	if (r == 0 && !m.is_index)
		r = layout_plan(&m, NULL, &l, e);
	if (r)
		assert_null(l.files);
	layout_release(&l);
	oci_manifest_release(&m);
	return r;
}

static void each_allocation(const char *text, long at_least)
{
	long k;

	for (k = 0; k < 10000; k++) {
		struct err e = { 0 };
		countdown = k;
		int r = lay_out(text, strlen(text), &e);
		bool reached = countdown < 0;
		countdown = -1;
		if (r == 0 && !reached)
			break;
		if (r != -1 || !reached)
			fail_msg("allocation %ld: result %d, %s", k, r, e.msg);
		if (e.code != CODE_INTERNAL || !strstr(e.msg, "out of memory"))
			fail_msg("allocation %ld: code %d, \"%s\"", k, (int)e.code, e.msg);
	}
	assert_in_range(k, at_least, 9999);
}

static void test_manifest(void **state)
{
	(void)state;
	each_allocation(manifest, 30);
}

static void test_index(void **state)
{
	(void)state;
	each_allocation(index_text, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manifest),
		cmocka_unit_test(test_index),
	};

	return cmocka_run_group_tests_name("oom", tests, NULL, NULL);
}
