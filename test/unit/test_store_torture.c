// SPDX-License-Identifier: Apache-2.0
// ldflags: -Wl,--wrap=openat -Wl,--wrap=syscall -Wl,--wrap=mkdirat -Wl,--wrap=pwrite -Wl,--wrap=write
// ldflags: -Wl,--wrap=fsync -Wl,--wrap=renameat -Wl,--wrap=linkat -Wl,--wrap=symlinkat -Wl,--wrap=unlinkat
// ldflags: -Wl,--wrap=fchmod -Wl,--wrap=futimens -Wl,--wrap=ftruncate -Wl,--wrap=ioctl -Wl,--wrap=copy_file_range
// ldflags: -Wl,--wrap=fstat -Wl,--wrap=fstatat -Wl,--wrap=readlinkat -Wl,--wrap=read -Wl,--wrap=pread
// ldflags: -Wl,--wrap=malloc -Wl,--wrap=calloc -Wl,--wrap=realloc -Wl,--wrap=strdup -Wl,--wrap=strndup
// ldflags: -Wl,--wrap=fstatfs
/*
 * The k-th system call of a publication fails, the k-th allocation fails, or the process dies
 * before the k-th call, for every k until the publication gets through (lifecycle case 3, 15).
 * After each: the marker names nothing incomplete, no file under a final name has content that
 * belongs to neither version, and a clean run completes.
 */
#include "store_fixture.h"

#include <sys/vfs.h>
#include <sys/wait.h>

enum mode { FAIL_CALL, FAIL_ALLOC, DIE };

static enum mode mode;
static int fail_errno;
static unsigned long countdown;	/* 0 = off */
static unsigned long fsyncs;

static bool due(bool alloc)
{
	if (!countdown || alloc != (mode == FAIL_ALLOC) || --countdown)
		return false;
	if (mode == DIE)
		_exit(42);
	errno = alloc ? ENOMEM : fail_errno;
	return true;
}

#define WRAP(type, name, params, ...) \
	type __real_##name params; \
	type __wrap_##name params; \
	type __wrap_##name params { return due(false) ? -1 : __real_##name(__VA_ARGS__); }

WRAP(int, openat, (int d, const char *p, int f, mode_t m), d, p, f, m)
WRAP(long, syscall, (long n, long a, long b, long c, long d, long e, long f), n, a, b, c, d, e, f)
WRAP(int, mkdirat, (int d, const char *p, mode_t m), d, p, m)
WRAP(ssize_t, pwrite, (int fd, const void *p, size_t n, off_t o), fd, p, n, o)
WRAP(ssize_t, write, (int fd, const void *p, size_t n), fd, p, n)
WRAP(int, renameat, (int a, const char *p, int b, const char *q), a, p, b, q)
WRAP(int, linkat, (int a, const char *p, int b, const char *q, int f), a, p, b, q, f)
WRAP(int, symlinkat, (const char *t, int d, const char *p), t, d, p)
WRAP(int, unlinkat, (int d, const char *p, int f), d, p, f)
WRAP(int, fchmod, (int fd, mode_t m), fd, m)
WRAP(int, futimens, (int fd, const struct timespec *ts), fd, ts)
WRAP(int, ftruncate, (int fd, off_t n), fd, n)
WRAP(int, ioctl, (int fd, unsigned long r, void *p), fd, r, p)
WRAP(ssize_t, copy_file_range, (int a, off_t *p, int b, off_t *q, size_t n, unsigned f),
     a, p, b, q, n, f)
WRAP(int, fstat, (int fd, struct stat *st), fd, st)
WRAP(int, fstatat, (int d, const char *p, struct stat *st, int f), d, p, st, f)
WRAP(ssize_t, readlinkat, (int d, const char *p, char *b, size_t n), d, p, b, n)
WRAP(ssize_t, read, (int fd, void *p, size_t n), fd, p, n)
WRAP(ssize_t, pread, (int fd, void *p, size_t n, off_t o), fd, p, n, o)

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	fsyncs++;
	return due(false) ? -1 : __real_fsync(fd);
}

/* The tests may run on tmpfs, where fsync would be left out. */
int __real_fstatfs(int fd, struct statfs *fs);
int __wrap_fstatfs(int fd, struct statfs *fs);
int __wrap_fstatfs(int fd, struct statfs *fs)
{
	int rc = __real_fstatfs(fd, fs);

	fs->f_type = 0xef53;
	return rc;
}

#define WRAP_ALLOC(type, name, params, ...) \
	type __real_##name params; \
	type __wrap_##name params; \
	type __wrap_##name params { return due(true) ? NULL : __real_##name(__VA_ARGS__); }

WRAP_ALLOC(void *, malloc, (size_t n), n)
WRAP_ALLOC(void *, calloc, (size_t n, size_t m), n, m)
WRAP_ALLOC(void *, realloc, (void *p, size_t n), p, n)
WRAP_ALLOC(char *, strdup, (const char *s), s)
WRAP_ALLOC(char *, strndup, (const char *s, size_t n), s, n)

/* --- what must hold at any moment --- */

static struct fx_plan v1, v2, other;

/* Where flat files stand: nothing but v1's or v2's content. Directories may be on the way to others. */
static void assert_no_wrong_content(void)
{
	const struct fx_plan *plans[] = { &v1, &v2 };

	for (size_t p = 0; p < 2; p++) {
		for (size_t i = 0; i < plans[p]->layout.n_files; i++) {
			const char *rel = plans[p]->paths[i], *what = fx_what(rel);
			bool right = what == NULL || *what == '/';

			for (size_t q = 0; q < 2 && !right; q++)
				for (size_t j = 0; j < plans[q]->layout.n_files; j++)
					right |= strcmp(plans[q]->paths[j], rel) == 0 &&
						 strcmp(plans[q]->what[j], what) == 0;
			if (!right)
				fail_msg("%s is %s", rel, what);
		}
	}
}

static bool complete(const struct fx_plan *f, const char *prefix)
{
	char rel[512];

	for (size_t i = 0; i < f->layout.n_files; i++) {
		const char *what;

		snprintf(rel, sizeof(rel), "%s%s", prefix, f->paths[i]);
		what = fx_what(rel);
		if (!what || strcmp(what, f->what[i]))
			return false;
	}
	return true;
}

static void assert_versions_complete(void)
{
	const struct fx_plan *plans[] = { &v1, &v2 };
	char rel[256];

	for (size_t p = 0; p < 2; p++) {
		snprintf(rel, sizeof(rel), ".fetcher/versions/%s/", plans[p]->version);
		if (fx_exists(rel) && !complete(plans[p], rel))
			fail_msg("half a version in versions/");
	}
	if (fx_exists("current") && !complete(&v1, "current/") && !complete(&v2, "current/"))
		fail_msg("current is no complete version");
}

static void assert_marker_is_honest(void)
{
	struct store_marker m;
	struct store *s;
	struct err e = { 0 };
	int rc;

	if (store_open(&s, fx_dest, false, &e) < 0)
		return;
	rc = store_read_marker(s, &m, &e);
	assert_true(rc >= 0);
	store_close(s);
	if (rc == 0)
		return;
	bool second = digest_equal(&v2.digest, &m.digest);

	if (!second)
		assert_true(digest_equal(&v1.digest, &m.digest));
	/* current may be swapped already when the marker still names the version before */
	if (strcmp(m.path, ".") == 0 ? !complete(second ? &v2 : &v1, "")
				     : !complete(&v1, "current/") && !complete(&v2, "current/"))
		fail_msg("the marker names v%d, which is not complete", second ? 2 : 1);
	store_marker_release(&m);
}

/* --- scenarios --- */

struct scenario {
	const char *name;
	enum store_layout layout;
	enum store_fsync fsync;
	bool after_v1;	/* v1 is published before */
	bool damaged;	/* and v1 is what is published again, with a file missing */
	bool interrupted;	/* an earlier try placed some files */
	bool asks;		/* accept looks at what would become visible */
};

static const struct scenario scenarios[] = {
	{ "flat, first", STORE_FLAT, STORE_FSYNC_END, false, false, false, false },
	{ "flat, first, resumed", STORE_FLAT, STORE_FSYNC_ALWAYS, false, false, true, false },
	{ "flat, v1 to v2", STORE_FLAT, STORE_FSYNC_END, true, false, false, false },
	{ "flat, v1 to v2, resumed", STORE_FLAT, STORE_FSYNC_NEVER, true, false, true, false },
	{ "flat, repair", STORE_FLAT, STORE_FSYNC_END, true, true, false, false },
	{ "versions, first", STORE_VERSIONS, STORE_FSYNC_END, false, false, false, false },
	{ "versions, v1 to v2", STORE_VERSIONS, STORE_FSYNC_END, true, false, false, false },
	{ "versions, v1 to v2, resumed", STORE_VERSIONS, STORE_FSYNC_ALWAYS, true, false, true, false },
	{ "versions, repair", STORE_VERSIONS, STORE_FSYNC_END, true, true, false, false },
	{ "versions, v1 to v2, asked", STORE_VERSIONS, STORE_FSYNC_END, true, false, false, true },
};

/* What is shown must be complete, and nobody may see it yet. */
static int accept_complete(void *arg, const char *path, struct err *e)
{
	const size_t n = strlen(fx_dest) + 1;
	unsigned long due_in = countdown;
	char prefix[512];

	(void)arg;
	(void)e;
	countdown = 0;
	snprintf(prefix, sizeof(prefix), "%s/", path + n);
	if (!complete(&v2, prefix) || complete(&v2, "current/"))
		fail_msg("asked about %s", prefix);
	countdown = due_in;
	return 0;
}

/* What `pull` and `probe` believe. */
static void assert_check_is_honest(const struct scenario *sc)
{
	const struct fx_plan *plans[] = { &v1, &v2 };
	struct err e = { 0 };

	for (size_t i = 0; i < 2; i++)
		if (fx_ready(plans[i], false, &e) == 1 &&
		    !complete(plans[i], sc->layout == STORE_FLAT ? "" : "current/"))
			fail_msg("v%zu passes for complete", i + 1);
}

static void prepare(const struct scenario *sc)
{
	assert_int_equal(fx_wipe(fx_dest), 0);
	v1.p.fsync = v2.p.fsync = sc->fsync;
	v2.p.accept = sc->asks ? accept_complete : NULL;
	if (sc->after_v1)
		FX_OK(fx_publish(&v1, sc->layout, FX_E));
	if (sc->damaged)
		unlink(fx_path(sc->layout == STORE_FLAT ? "keep" : "current/keep"));
	if (sc->interrupted) {
		struct store *s;

		v2.p.layout = sc->layout;
		FX_OK(store_open(&s, fx_dest, true, FX_E));
		FX_OK(store_lock(s, 0, NULL, NULL, NULL, FX_E));
		FX_OK(store_begin(s, &v2.p, FX_E));
		for (size_t i = 0; i < 4; i++)
			FX_OK(fx_place(s, &v2, i, FX_E));
		store_close(s);
	}
}

/* true: the publication came to its end before call k. */
static bool attempt(const struct scenario *sc, struct fx_plan *f, unsigned long k)
{
	struct err e = { 0 };
	int rc, status;
	pid_t pid;

	if (mode == DIE) {
		pid = fork();
		if (pid == 0) {
			countdown = k;
			_exit(fx_publish(f, sc->layout, &e) == 0 ? 0 : 1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
		return WEXITSTATUS(status) == 0;
	}
	countdown = k;
	rc = fx_publish(f, sc->layout, &e);
	bool through = countdown > 0;

	countdown = 0;
	if (rc < 0)
		assert_true(e.code != CODE_OK && e.msg[0]);
	/* a fault that was put up with must not have cost anything */
	if (rc == 0 && !complete(f, sc->layout == STORE_FLAT ? "" : "current/"))
		fail_msg("%s: call %lu failed, publication did not, and is not complete", sc->name,
			 k);
	assert_true(rc == 0 || !through);
	return through;
}

static void clean_run(const struct scenario *sc, struct fx_plan *f, unsigned long k)
{
	uint64_t files, bytes;
	struct err e = { 0 };
	struct store *s;

	if (fx_publish(f, sc->layout, &e) < 0)
		fail_msg("%s: after a fault at call %lu: %s", sc->name, k, e.msg);
	if (fx_ready(f, false, &e) != 1)
		fail_msg("%s: after a fault at call %lu: %s", sc->name, k, e.msg);
	fx_assert_complete(f, sc->layout == STORE_FLAT ? "" : "current/");
	if (sc->layout == STORE_FLAT && f == &v2)
		assert_false(fx_exists("only1") || fx_exists("gone") || fx_exists("lost"));
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	FX_OK(store_verify(s, NULL, NULL, &files, &bytes, FX_E));
	store_close(s);
}

static unsigned long torture(const struct scenario *sc)
{
	struct fx_plan *f = sc->damaged ? &v1 : &v2;
	unsigned long k = 1;

	for (bool through = false; !through; k++) {
		prepare(sc);
		through = attempt(sc, f, k);
		assert_check_is_honest(sc);
		/* a version that others damaged stays so until we have begun */
		if (!sc->damaged) {
			assert_marker_is_honest();
			assert_versions_complete();
		}
		if (sc->layout == STORE_FLAT)
			assert_no_wrong_content();
		/* Whatever a kill left, another version takes it for ours and replaces it. */
		if (sc->layout == STORE_FLAT && mode == DIE)
			clean_run(sc, &other, k);
		clean_run(sc, f, k);
		assert_true(k < 5000);
	}
	return k - 2;
}

/* Every step-th scenario. */
static void run(enum mode what, int err, size_t step)
{
	unsigned long calls = 0;

	mode = what;
	fail_errno = err;
	FX_PLAN(&v1, "dir/a=first", "gone/", "keep=the same in both", "link>dir/a", "lost>keep", "only1=goes away",
		"swap>keep", "turn=file", "way>dir");
	FX_PLAN(&v2, "dir/a=second", "fresh/", "keep=the same in both", "link>keep", "moved=goes away", "swap=a file",
		"turn/n=directory", "way/", "zero=");
	FX_PLAN(&other, "dir/a=third", "fresh=a file", "gone>nowhere", "link>elsewhere", "way>fresh");
	v2.files[0].has_mtime = true;
	v2.files[0].mtime_sec = 1000000000;
	for (size_t i = 0; i < ARRAY_SIZE(scenarios); i += step) {
		unsigned long n = torture(&scenarios[i]);

		assert_true(n > 10);
		calls += n;
	}
	print_message("             %lu faults\n", calls);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
	fx_plan_release(&other);
}

static void every_call_fails_with_eio(void **state)
{
	(void)state;
	run(FAIL_CALL, EIO, 1);
}

static void every_call_fails_with_enospc(void **state)
{
	(void)state;
	run(FAIL_CALL, ENOSPC, 2);
}

static void every_call_fails_with_eperm(void **state)
{
	(void)state;
	run(FAIL_CALL, EPERM, 3);
}

static void every_allocation_fails(void **state)
{
	(void)state;
	run(FAIL_ALLOC, 0, 1);
}

static void killed_before_every_call(void **state)
{
	(void)state;
	run(DIE, 0, 1);
}

/* --- gc --- */

static int collect(struct err *e)
{
	const struct store_gc_policy policy = { .stale_ms = 1000, .keep_bytes = 1, .now = 2000 };
	struct store_gc_result r;
	struct store *s = NULL;
	int rc;

	if (store_open(&s, fx_dest, true, e) < 0)
		return -1;
	rc = store_lock(s, 0, NULL, NULL, NULL, e);
	if (rc == 0)
		rc = store_gc(s, &policy, &r, e);
	store_close(s);
	return rc;
}

/* true: gc came to its end before call k. */
static bool collect_with_fault(unsigned long k)
{
	struct err e = { 0 };
	int rc, status;
	bool through;
	pid_t pid;

	if (mode == DIE) {
		pid = fork();
		if (pid == 0) {
			countdown = k;
			_exit(collect(&e) == 0 ? 0 : 1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
		return WEXITSTATUS(status) == 0;
	}
	countdown = k;
	rc = collect(&e);
	through = countdown > 0;
	countdown = 0;
	assert_true(rc == 0 || (!through && e.code != CODE_OK && e.msg[0]));
	return through;
}

static void collect_every_fault(enum mode what)
{
	const struct timespec past[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	char meta[256];
	unsigned long k = 1;

	mode = what;
	fail_errno = EIO;
	for (bool through = false; !through; k++) {
		assert_int_equal(fx_wipe(fx_dest), 0);
		FX_OK(fx_publish(&v1, STORE_VERSIONS, FX_E));
		FX_OK(fx_publish(&v2, STORE_VERSIONS, FX_E));
		snprintf(meta, sizeof(meta), ".fetcher/meta/%s.json", v1.version);
		assert_int_equal(utimensat(AT_FDCWD, fx_path(meta), past, 0), 0);
		through = collect_with_fault(k);
		assert_versions_complete();
		assert_marker_is_honest();
		if (!complete(&v2, "current/"))
			fail_msg("call %lu: gc took the published version", k);
		FX_OK(collect(FX_E));
		snprintf(meta, sizeof(meta), ".fetcher/versions/%s", v1.version);
		assert_false(fx_exists(meta));
		assert_true(k < 5000);
	}
	assert_true(k > 10);
}

static void gc_with_every_fault(void **state)
{
	(void)state;
	FX_PLAN(&v1, "d/a=first", "keep=the same in both");
	FX_PLAN(&v2, "d/a=second", "keep=the same in both");
	collect_every_fault(FAIL_CALL);
	collect_every_fault(FAIL_ALLOC);
	collect_every_fault(DIE);
	fx_plan_release(&v1);
	fx_plan_release(&v2);
}

/* --- trees and records of layers --- */

#define LAYER "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef-01234567"

static struct fx_plan twins;

/* Two names of one inode in the tree of a layer, which need another mode, and what a kill may have left. */
static int publish_tree(struct err *e)
{
	struct store *s = NULL;
	int rc;

	if (store_open(&s, fx_dest, true, e) < 0)
		return -1;
	rc = store_lock(s, 0, NULL, NULL, NULL, e);
	if (rc == 0)
		rc = store_begin(s, &twins.p, e);
	for (size_t i = 0; rc == 0 && i < 2; i++) {
		rc = store_has(s, i, e);
		if (rc == 0)
			rc = store_place(s, i, i ? LAYER ".tree/d/b" : LAYER ".tree/d/a", NULL, e);
		else
			rc = rc < 0 ? -1 : 0;
	}
	if (rc == 0)
		rc = fx_commit(s, e);
	store_close(s);
	return rc;
}

static void make_tree(void)
{
	struct store *s = NULL;
	int fd;

	FX_OK(store_open(&s, fx_dest, true, FX_E));
	FX_OK(store_lock(s, 0, NULL, NULL, NULL, FX_E));
	fd = store_partial_dirfd(s);
	mkdirat(fd, LAYER ".tree", 0700);
	mkdirat(fd, LAYER ".tree/d", 0700);
	unlinkat(fd, LAYER ".tree/d/a", 0);
	unlinkat(fd, LAYER ".tree/d/b", 0);
	assert_int_equal(fx_partial(s, LAYER ".tree/d/a", "twin"), 0);
	assert_int_equal(linkat(fd, LAYER ".tree/d/a", fd, LAYER ".tree/d/b", 0), 0);
	store_close(s);
}

static void trees_with(enum mode what, enum store_layout layout)
{
	struct err e = { 0 };
	unsigned long k = 1;
	int rc;

	mode = what;
	fail_errno = EIO;
	twins.p.layout = layout;
	for (bool through = false; !through; k++) {
		assert_int_equal(fx_wipe(fx_dest), 0);
		make_tree();
		countdown = k;
		rc = publish_tree(&e);
		through = countdown > 0;
		countdown = 0;
		assert_true(rc == 0 || (!through && e.code != CODE_OK && e.msg[0]));
		if (rc < 0)
			make_tree();
		FX_OK(publish_tree(FX_E));
		fx_assert_complete(&twins, layout == STORE_FLAT ? "" : "current/");
		if (fx_ready(&twins, false, &e) != 1)
			fail_msg("call %lu: %s", k, e.msg);
		assert_true(k < 5000);
	}
	assert_true(k > 20);
}

static void trees_with_every_fault(void **state)
{
	(void)state;
	FX_PLAN(&twins, "x/a=twin", "y=twin");
	twins.files[0].mode = 0644;
	twins.files[1].mode = 0755;
	for (enum store_layout l = STORE_FLAT; l <= STORE_VERSIONS; l++) {
		trees_with(FAIL_CALL, l);
		trees_with(FAIL_ALLOC, l);
	}
	fx_plan_release(&twins);
}

static int write_record(struct store *s, const char *path, struct err *e)
{
	char gone[] = "gone/", odd[] = "\xff", *whiteouts[] = { gone };
	struct layout_file f[2] = { { .kind = LAYOUT_DIR, .path = (char *)(uintptr_t)path },
				    { .kind = LAYOUT_SYMLINK, .path = odd, .data = (const uint8_t *)path } };

	f[1].size = strlen(path);
	digest_of(DIGEST_SHA256, path, strlen(path), &f[1].digest);
	return store_layer_write(s, LAYER, f, 2, whiteouts, 1, true, true, e);
}

/* The old record or the new one, and reading says the truth or nothing. */
static void records_with(enum mode what)
{
	struct store *s = NULL;
	unsigned long k = 1;

	mode = what;
	fail_errno = EIO;
	FX_OK(store_open(&s, fx_dest, true, FX_E));
	for (bool through = false; !through; k++) {
		struct store_layer l = { 0 };
		struct err e = { 0 };
		int rc;

		FX_OK(write_record(s, "old", FX_E));
		countdown = k;
		rc = write_record(s, "new", &e);
		through = countdown > 0;
		countdown = 0;
		assert_true(rc == 0 || (e.code != CODE_OK && e.msg[0]));
		assert_int_equal(store_layer_read(s, LAYER, &l, &e), 1);
		/* a fault of the last fsync is told, but the name is new */
		if (rc == 0 ? strcmp(l.files[0].path, "new") != 0
			    : strcmp(l.files[0].path, "new") && strcmp(l.files[0].path, "old"))
			fail_msg("%s", l.files[0].path);
		store_layer_release(&l);
		countdown = k;
		rc = store_layer_read(s, LAYER, &l, &e);
		through = through && countdown > 0;
		countdown = 0;
		assert_true(rc >= 0 || e.code != CODE_OK);
		if (rc == 1)
			assert_int_equal(l.n_files + l.n_whiteouts, 3);
		store_layer_release(&l);
		assert_true(k < 1000);
	}
	store_close(s);
	assert_true(k > 6);
}

static void records_with_every_fault(void **state)
{
	(void)state;
	records_with(FAIL_CALL);
	records_with(FAIL_ALLOC);
}

/* Every file and every directory is flushed before the marker; --fsync never flushes nothing. */
static void fsync_is_not_forgotten(void **state)
{
	enum store_fsync modes[] = { STORE_FSYNC_END, STORE_FSYNC_ALWAYS, STORE_FSYNC_NEVER };
	struct fx_plan f;

	(void)state;
	FX_PLAN(&f, "a/b/c=1", "a/d=2", "e=3");
	for (size_t i = 0; i < 3; i++) {
		f.p.fsync = modes[i];
		fx_wipe(fx_dest);
		fsyncs = 0;
		FX_OK(fx_publish(&f, STORE_FLAT, FX_E));
		/* 3 files, 3 directories, meta and marker with their directories */
		if (modes[i] == STORE_FSYNC_NEVER)
			assert_int_equal(fsyncs, 0);
		else
			assert_true(fsyncs >= 10);
	}
	fx_plan_release(&f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_call_fails_with_eio), T(every_call_fails_with_enospc),
		T(every_call_fails_with_eperm), T(every_allocation_fails),
		T(killed_before_every_call), T(gc_with_every_fault),
		T(trees_with_every_fault), T(records_with_every_fault),
		T(fsync_is_not_forgotten),
	};
	const struct CMUnitTest some[] = { T(every_call_fails_with_eio) };
	int failed;

	if (access("/dev/shm", W_OK) == 0)
		setenv("FX_TMP", "/dev/shm", 0);
	failed = cmocka_run_group_tests_name("store torture", tests, NULL, NULL);
	sys_no_openat2 = true;
	return failed + cmocka_run_group_tests_name("store torture, walk", some, NULL, NULL);
}
