// SPDX-License-Identifier: Apache-2.0
/* Versions that come and go, for the tests of store_gc and store_lease. */
#ifndef STORE_GC_FIXTURE_H
#define STORE_GC_FIXTURE_H

#include "store_fixture.h"

static inline void publish(struct fx_plan *f)
{
	struct err e = { 0 };

	if (fx_publish(f, STORE_VERSIONS, &e) < 0)
		fail_msg("%d %s", (int)e.code, e.msg);
}

static inline void assert_ready(const struct fx_plan *f)
{
	struct err e = { 0 };

	if (fx_ready(f, false, &e) != 1)
		fail_msg("%s", e.msg);
}

static inline struct store *open_locked(void)
{
	struct store *s = NULL;

	FX_OK(store_open(&s, fx_dest, true, FX_E));
	FX_OK(store_lock(s, 0, NULL, NULL, NULL, FX_E));
	return s;
}

/* Each time another process, as far as the store can tell. */
static inline struct store_gc_result gc(struct store_gc_policy policy)
{
	struct store_gc_result r = { 0 };
	struct store *s = open_locked();

	FX_OK(store_gc(s, &policy, &r, FX_E));
	store_close(s);
	return r;
}
#define GC(...) gc((struct store_gc_policy){ __VA_ARGS__ })

static inline const char *below(const char *dir, const struct fx_plan *f, const char *rest)
{
	static char rel[4][512];
	static unsigned next;
	char *p = rel[next++ % 4];

	snprintf(p, sizeof(rel[0]), ".fetcher/%s/%s%s", dir, f->version, rest);
	return p;
}

static inline bool stands(const struct fx_plan *f)
{
	bool there = fx_exists(below("versions", f, ""));

	assert_int_equal(fx_exists(below("meta", f, ".json")), there);
	return there;
}

/* When it was replaced. */
static inline void age(const struct fx_plan *f, time_t sec)
{
	struct timespec ts[2] = { { .tv_sec = sec }, { .tv_sec = sec } };

	assert_int_equal(utimensat(AT_FDCWD, fx_path(below("meta", f, ".json")), ts, 0), 0);
}

static inline time_t replaced(const struct fx_plan *f)
{
	struct stat st;

	assert_int_equal(stat(fx_path(below("meta", f, ".json")), &st), 0);
	return st.st_mtim.tv_sec;
}

/* v[0] to v[n - 1] published in this order, replaced at 1000, 1001, ... */
static inline void series(struct fx_plan *v, int n)
{
	static char text[8][32];

	for (int i = 0; i < n; i++) {
		snprintf(text[i], sizeof(text[i]), "m=version %d", i);
		FX_PLAN(&v[i], "keep=same", text[i]);
		publish(&v[i]);
	}
	for (int i = 0; i < n; i++)
		age(&v[i], 1000 + i);
}

static inline void release(struct fx_plan *v, int n)
{
	for (int i = 0; i < n; i++)
		fx_plan_release(&v[i]);
}

static inline void assert_stand(const struct fx_plan *v, int n, const char *which)
{
	for (int i = 0; i < n; i++)
		if (stands(&v[i]) != (which[i] == '1'))
			fail_msg("version %d %s", i, which[i] == '1' ? "is gone" : "stands");
}

#endif
