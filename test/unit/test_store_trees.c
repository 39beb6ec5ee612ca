// SPDX-License-Identifier: Apache-2.0
/* Content that lies in the tree of an unpacked layer, where one inode may have several names. */
#include "store_fixture.h"

#include <pthread.h>

#define TREE "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef-01234567.tree"
#define JOURNAL TREE "-journal"

static const enum store_layout layouts[] = { STORE_FLAT, STORE_VERSIONS };

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

static void put_link(const char *target, const char *rel)
{
	assert_int_equal(symlink(target, fx_path(rel)), 0);
}

static void tree_file(struct store *s, const char *rel, const char *text)
{
	char path[512];

	snprintf(path, sizeof(path), TREE "/%s", rel);
	if (fx_partial(s, path, text) < 0)
		fail_msg("%s: %s", path, strerror(errno));
}

static struct store *open_with_tree(void)
{
	struct store *s = open_locked();

	mkdirat(store_partial_dirfd(s), TREE, 0700);
	mkdirat(store_partial_dirfd(s), TREE "/w", 0700);
	tree_file(s, "a", "content of a");
	tree_file(s, "w/b", "content of b");
	return s;
}

static void place_tree(struct store *s, struct fx_plan *f)
{
	f->p.layout = STORE_FLAT;
	FX_OK(store_begin(s, &f->p, FX_E));
	FX_OK(store_place(s, 0, TREE "/a", NULL, FX_E));
	FX_OK(store_place(s, 1, TREE "/w/b", NULL, FX_E));
}

static void trees_are_placed_and_swept(void **state)
{
	struct fx_plan f, other;
	struct store *s;
	struct stat a, b;
	const char *left = ".fetcher/partial/" TREE "/w/left", *journal = ".fetcher/partial/" JOURNAL;

	(void)state;
	FX_PLAN(&f, "m/a=content of a", "n=content of b");
	f.files[1].mode = 0755;
	f.files[1].has_mtime = true;
	f.files[1].mtime_sec = 1234567890;
	s = open_with_tree();
	tree_file(s, "w/left", "over");
	assert_int_equal(fx_partial(s, JOURNAL, "state"), 0);
	assert_int_equal(mkdirat(store_partial_dirfd(s), "notes.tree", 0700), 0);
	assert_int_equal(stat(fx_path(".fetcher/partial/" TREE "/w/b"), &a), 0);
	place_tree(s, &f);
	/* begin has left the tree alone, and nothing was copied */
	assert_true(fx_exists(left) && fx_exists(journal));
	assert_int_equal(stat(fx_path("n"), &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	assert_int_equal(b.st_mode & 07777, 0755);
	assert_int_equal(b.st_mtim.tv_sec, 1234567890);
	FX_OK(fx_commit(s, FX_E));
	store_close(s);
	fx_assert_complete(&f, "");
	assert_ready(&f, 1, "");
	assert_false(fx_exists(".fetcher/partial/" TREE) || fx_exists(journal));
	/* nobody else's */
	assert_true(fx_exists(".fetcher/partial/notes.tree"));
	/* a tree that cannot go keeps no version from being published */
	FX_PLAN(&other, "z=other");
	s = open_with_tree();
	put_link("/", ".fetcher/partial/" JOURNAL);
	FX_OK(fx_fill(s, &other, FX_E));
	FX_OK(fx_commit(s, FX_E));
	store_close(s);
	assert_false(fx_exists(journal));
	assert_ready(&other, 1, "");
	fx_plan_release(&f);
	fx_plan_release(&other);
}

static void trees_stay_inside(void **state)
{
	const char *bad[] = { TREE "/l/b", "../lock", TREE "/../" TREE "/a", "/etc/passwd", TREE "/w", TREE "/l",
			      TREE "/pipe", TREE "/none", TREE "/" };
	struct store *s = open_with_tree();
	struct fx_plan f;
	struct err e = { 0 };
	char outside[128], victim[160];
	struct stat st;

	(void)state;
	FX_PLAN(&f, "m/a=content of a", "n=content of b");
	snprintf(outside, sizeof(outside), "%s/outside", fx_base);
	snprintf(victim, sizeof(victim), "%s/b", outside);
	assert_int_equal(mkdir(outside, 0755), 0);
	close(open(victim, O_WRONLY | O_CREAT, 0400));
	assert_int_equal(symlinkat(outside, store_partial_dirfd(s), TREE "/l"), 0);
	assert_int_equal(mkfifoat(store_partial_dirfd(s), TREE "/pipe", 0600), 0);
	FX_OK(store_begin(s, &f.p, FX_E));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (store_place(s, 1, bad[i], NULL, &e) == 0)
			fail_msg("placed: %s", bad[i]);
	assert_false(fx_exists("n"));
	assert_int_equal(stat(victim, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0400);
	/* a failure leaves the data where it was */
	assert_int_equal(store_place(s, 1, TREE "/a", NULL, &e), 0);
	assert_int_equal(e.code != CODE_OK, true);
	tree_file(s, "w/b", "short");
	assert_int_equal(store_place(s, 0, TREE "/w/b", NULL, &e), -1);
	assert_int_equal(e.code, CODE_INTEGRITY);
	fx_assert_text(".fetcher/partial/" TREE "/w/b", "short");
	store_close(s);
	fx_plan_release(&f);
}

/* --- two names of one inode --- */

/* "PATH=" and content that is large enough to be linked in a flat tree. */
static const char *big(const char *path)
{
	static char text[2][70100];
	static unsigned next;
	char *t = text[next++ % 2];
	size_t n = strlen(path);

	memset(t, 'x', sizeof(text[0]) - 1);
	memcpy(t, path, n);
	t[n] = '=';
	t[n + 70001] = 0;
	return t;
}

static struct store *open_with_twins(const char *text)
{
	struct store *s = open_locked();
	int fd = store_partial_dirfd(s);

	mkdirat(fd, TREE, 0700);
	unlinkat(fd, TREE "/one", 0);
	unlinkat(fd, TREE "/two", 0);
	tree_file(s, "one", text);
	assert_int_equal(linkat(fd, TREE "/one", fd, TREE "/two", 0), 0);
	return s;
}

static void publish_twins(struct fx_plan *f, enum store_layout layout, const char *text)
{
	struct store *s = open_with_twins(text);

	f->p.layout = layout;
	FX_OK(store_begin(s, &f->p, FX_E));
	FX_OK(store_place(s, 0, TREE "/one", NULL, FX_E));
	assert_false(fx_exists(".fetcher/partial/" TREE "/one"));
	FX_OK(store_place(s, 1, TREE "/two", NULL, FX_E));
	assert_false(fx_exists(".fetcher/partial/" TREE "/two"));
	FX_OK(fx_commit(s, FX_E));
	store_close(s);
	fx_assert_complete(f, layout == STORE_FLAT ? "" : "current/");
	assert_ready(f, 1, "");
}

static void assert_shared(const char *a, const char *b, bool shared)
{
	struct stat x, y;

	assert_int_equal(stat(fx_path(a), &x), 0);
	assert_int_equal(stat(fx_path(b), &y), 0);
	assert_int_equal(x.st_ino == y.st_ino, shared);
}

static void twins_are_both_placed(void **state)
{
	const char *a = big("a"), *b = big("d/b");
	struct fx_plan f;
	struct stat st;

	(void)state;
	for (size_t l = 0; l < 2; l++) {
		const char *one = l ? "current/a" : "a", *two = l ? "current/d/b" : "d/b";

		/* the same looks: one inode, as large files are linked everywhere */
		FX_PLAN(&f, a, b);
		for (size_t i = 0; i < 2; i++) {
			f.files[i].mode = 0640;
			f.files[i].has_mtime = true;
			f.files[i].mtime_sec = 1000000000;
		}
		publish_twins(&f, layouts[l], f.content[0]);
		assert_shared(one, two, true);
		assert_int_equal(fx_wipe(fx_dest), 0);
		/* another mode, another time: the first keeps its own */
		f.files[1].mode = 0600;
		publish_twins(&f, layouts[l], f.content[0]);
		assert_shared(one, two, false);
		assert_int_equal(stat(fx_path(one), &st), 0);
		assert_int_equal(st.st_mode & 07777, 0640);
		assert_int_equal(fx_wipe(fx_dest), 0);
		f.files[1].mode = 0640;
		f.files[1].mtime_nsec = 5;
		publish_twins(&f, layouts[l], f.content[0]);
		assert_shared(one, two, false);
		assert_int_equal(stat(fx_path(one), &st), 0);
		assert_int_equal(st.st_mtim.tv_nsec, 0);
		assert_int_equal(stat(fx_path(two), &st), 0);
		assert_int_equal(st.st_mtim.tv_nsec, 5);
		assert_int_equal(fx_wipe(fx_dest), 0);
		fx_plan_release(&f);
		/* small ones of a flat tree are copies, so that editing one leaves the other */
		FX_PLAN(&f, "a=small", "d/b=small");
		publish_twins(&f, layouts[l], "small");
		assert_shared(one, two, l == 1);
		assert_int_equal(fx_wipe(fx_dest), 0);
		fx_plan_release(&f);
	}
}

/* rename(2) between two names of one inode does nothing, so the name in the tree must go by itself. */
static void twin_whose_place_has_it_already(void **state)
{
	struct fx_plan f;
	struct store *s;

	(void)state;
	FX_PLAN(&f, big("a"));
	s = open_with_twins(f.content[0]);
	FX_OK(store_begin(s, &f.p, FX_E));
	FX_OK(store_place(s, 0, TREE "/one", NULL, FX_E));
	FX_OK(store_place(s, 0, TREE "/two", NULL, FX_E));
	assert_false(fx_exists(".fetcher/partial/" TREE "/two"));
	FX_OK(fx_commit(s, FX_E));
	store_close(s);
	fx_assert_complete(&f, "");
	fx_plan_release(&f);
}

#define TWINS 32	/* names of one inode */

struct placer {
	struct store *s;
	size_t from, to;
	struct err e;
	int rc;
};

static void *place_some(void *arg)
{
	struct placer *p = arg;
	char name[300];

	for (size_t i = p->from; i < p->to && p->rc == 0; i++) {
		snprintf(name, sizeof(name), TREE "/%zu", i);
		p->rc = store_place(p->s, i, name, NULL, &p->e);
	}
	return NULL;
}

/* Half of them want another mode than the other half: whoever comes first, nobody's recorded identity may change. */
static void twins_placed_by_threads(void **state)
{
	struct store *s = open_locked();
	char spec[TWINS][32], name[300];
	const char *specs[TWINS + 1] = { NULL };
	struct placer p[4];
	pthread_t t[4];
	struct fx_plan f;
	struct stat st;

	(void)state;
	for (size_t i = 0; i < TWINS; i++) {
		snprintf(spec[i], sizeof(spec[i]), "d%02zu/f=same", i);
		specs[i] = spec[i];
	}
	fx_plan_init(&f, specs);
	f.p.layout = STORE_VERSIONS;
	mkdirat(store_partial_dirfd(s), TREE, 0700);
	tree_file(s, "0", "same");
	for (size_t i = 0; i < TWINS; i++) {
		f.files[i].mode = i % 2 ? 0600 : 0644;
		f.files[i].has_mtime = true;
		f.files[i].mtime_sec = i % 2 ? 1000 : 2000;
		snprintf(name, sizeof(name), TREE "/%zu", i);
		if (i)
			assert_int_equal(linkat(store_partial_dirfd(s), TREE "/0", store_partial_dirfd(s), name, 0), 0);
	}
	FX_OK(store_begin(s, &f.p, FX_E));
	for (size_t i = 0; i < 4; i++) {
		p[i] = (struct placer){ .s = s, .from = i * TWINS / 4, .to = (i + 1) * TWINS / 4 };
		assert_int_equal(pthread_create(&t[i], NULL, place_some, &p[i]), 0);
	}
	for (size_t i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		if (p[i].rc < 0)
			fail_msg("%s", p[i].e.msg);
	}
	FX_OK(fx_commit(s, FX_E));
	store_close(s);
	assert_ready(&f, 1, "");
	for (size_t i = 0; i < TWINS; i++) {
		snprintf(name, sizeof(name), "current/%s", f.paths[i]);
		assert_int_equal(stat(fx_path(name), &st), 0);
		assert_int_equal(st.st_mode & 07777, i % 2 ? 0600 : 0644);
		assert_int_equal(st.st_mtim.tv_sec, i % 2 ? 1000 : 2000);
	}
	fx_plan_release(&f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(trees_are_placed_and_swept), T(trees_stay_inside),
		T(twins_are_both_placed), T(twin_whose_place_has_it_already), T(twins_placed_by_threads),
	};
	int failed = cmocka_run_group_tests_name("store trees with openat2", tests, NULL, NULL);

	sys_no_openat2 = true;
	return failed + cmocka_run_group_tests_name("store trees with the walk", tests, NULL, NULL);
}
