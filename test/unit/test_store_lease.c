// SPDX-License-Identifier: Apache-2.0
// ldflags: -Wl,--wrap=flock
/* Leases of readers: who may hold one, and that gc respects it. */
#include "store_gc_fixture.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

static int lease(const char *dest, bool keep_on_exec)
{
	struct store_marker m = { 0 };
	struct store *s = NULL;
	struct err e = { 0 };
	int fd = -1, saved;

	errno = 0;
	if (store_open(&s, dest, false, &e) < 0)
		return -1;
	if (store_read_marker(s, &m, &e) == 1)
		fd = store_lease(s, &m, keep_on_exec);
	saved = errno;
	store_marker_release(&m);
	store_close(s);
	errno = saved;
	return fd;
}

enum reader { ORDINARY, STRANGER, READ_ONLY_MOUNT, EXEC };

/* A process that leases what is published and says so; it ends when *ret_hold is closed. */
static pid_t reader(enum reader kind, int *ret_hold)
{
	int hold[2], told[2];
	char byte = 0, ro[128];
	pid_t pid;

	assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
	assert_int_equal(pipe2(told, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		const char *dest = fx_dest;
		int fd;

		close(hold[1]);
		if (kind == STRANGER && (setgid(65533) < 0 || setuid(65533) < 0))
			_exit(3);
		if (kind == READ_ONLY_MOUNT) {
			snprintf(ro, sizeof(ro), "%s/ro", fx_base);
			mkdir(ro, 0755);
			if (unshare(CLONE_NEWNS) < 0 ||
			    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
			    mount(fx_dest, ro, NULL, MS_BIND, NULL) < 0 ||
			    mount(NULL, ro, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
				_exit(4);
			dest = ro;
			snprintf(ro + strlen(ro), 16, "/x");
			if (mkdir(ro, 0755) == 0 || errno != EROFS)
				_exit(5);
			ro[strlen(ro) - 2] = 0;
		}
		fd = lease(dest, kind == EXEC);
		if (fd < 0 || write(told[1], "y", 1) != 1)
			_exit(6);
		if (kind == EXEC) {
			dup2(hold[0], 0);
			execlp("cat", "cat", (char *)NULL);
			_exit(7);
		}
		_exit(read(hold[0], &byte, 1) == 0 ? 0 : 8);
	}
	close(hold[0]);
	close(told[1]);
	*ret_hold = hold[1];
	if (read(told[0], &byte, 1) != 1)
		byte = 0;
	close(told[0]);
	if (byte == 'y')
		return pid;
	close(hold[1]);
	return -pid;
}

/* true: the reader did what it should. */
static bool leased_by(enum reader kind, int *ret_status)
{
	struct store_gc_result r;
	struct fx_plan v[3];
	int hold = -1;
	pid_t pid;

	FX_PLAN(&v[0], "m=0");
	FX_PLAN(&v[1], "m=1");
	FX_PLAN(&v[2], "m=2");
	publish(&v[0]);
	pid = reader(kind, &hold);
	if (pid < 0) {
		assert_int_equal(waitpid(-pid, ret_status, 0), -pid);
		release(v, 3);
		return false;
	}
	publish(&v[1]);
	publish(&v[2]);
	r = GC(.keep = 0, .partials = true);
	assert_int_equal(r.versions, 1);
	assert_int_equal(r.left, 2);
	assert_stand(v, 3, "101");
	fx_assert_complete(&v[0], below("versions", &v[0], "/"));
	/* neither bytes nor age are above it */
	r = GC(.keep = 5, .keep_bytes = 1, .stale_ms = 1, .now = time(NULL) + 100);
	assert_int_equal(r.versions, 0);
	close(hold);
	assert_int_equal(waitpid(pid, ret_status, 0), pid);
	assert_int_equal(*ret_status, 0);
	r = GC(.keep = 0);
	assert_int_equal(r.versions, 1);
	assert_stand(v, 3, "001");
	release(v, 3);
	return true;
}

static void leased_by_another_process(void **state)
{
	int status = 0;

	(void)state;
	assert_true(leased_by(ORDINARY, &status));
}

static void leased_by_a_stranger_who_cannot_write(void **state)
{
	int status = 0;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(fx_base, 0755), 0);
	assert_true(leased_by(STRANGER, &status));
}

static void leased_through_a_read_only_mount(void **state)
{
	int status = 0;

	(void)state;
	if (leased_by(READ_ONLY_MOUNT, &status))
		return;
	/* no right to mount here */
	assert_int_equal(WEXITSTATUS(status), 4);
	skip();
}

static void lease_survives_exec(void **state)
{
	int status = 0;

	(void)state;
	assert_true(leased_by(EXEC, &status));
}

static void lease_ends_with_its_descriptor(void **state)
{
	struct fx_plan v[2];
	int fd, copy;

	(void)state;
	FX_PLAN(&v[0], "m=0");
	FX_PLAN(&v[1], "m=1");
	publish(&v[0]);
	fd = lease(fx_dest, false);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	copy = lease(fx_dest, true);
	assert_int_equal(fcntl(copy, F_GETFD), 0);
	publish(&v[1]);
	assert_int_equal(GC(.keep = 0).versions, 0);
	close(fd);
	assert_int_equal(GC(.keep = 0).versions, 0);
	close(copy);
	assert_int_equal(GC(.keep = 0).versions, 1);
	release(v, 2);
}

/* It takes a place among the newest, as it would without the lease. */
static void leased_versions_count(void **state)
{
	struct fx_plan v[4];
	int fd;

	(void)state;
	for (int i = 0; i < 4; i++) {
		static char text[4][16];

		snprintf(text[i], sizeof(text[i]), "m=%d", i);
		FX_PLAN(&v[i], text[i]);
	}
	publish(&v[0]);
	publish(&v[1]);
	publish(&v[2]);
	fd = lease(fx_dest, false);
	publish(&v[3]);
	for (int i = 0; i < 4; i++)
		age(&v[i], 1000 + i);
	GC(.keep = 1);
	assert_stand(v, 4, "0011");
	close(fd);
	release(v, 4);
}

static void no_lease(void **state)
{
	struct store_marker m = { 0 };
	struct fx_plan f, flat;
	struct store *s;
	struct err e;
	int fd;

	(void)state;
	FX_PLAN(&f, "m=0");
	FX_PLAN(&flat, "m=flat");
	publish(&f);
	FX_OK(store_open(&s, fx_dest, false, FX_E));
	assert_int_equal(store_read_marker(s, &m, &e), 1);
	/* gc is at it, and does not come to an end */
	fd = open(fx_path(below("versions", &f, "")), O_RDONLY | O_DIRECTORY);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(store_lease(s, &m, false), -1);
	assert_int_equal(errno, EWOULDBLOCK);
	close(fd);
	fd = store_lease(s, &m, false);
	assert_true(fd >= 0);
	close(fd);
	fx_wipe(fx_path(below("versions", &f, "")));
	assert_int_equal(store_lease(s, &m, false), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(symlink("/tmp", fx_path(below("versions", &f, ""))), 0);
	assert_int_equal(store_lease(s, &m, false), -1);
	assert_int_equal(errno, ELOOP);
	store_close(s);
	store_marker_release(&m);
	FX_OK(fx_publish(&flat, STORE_FLAT, FX_E));
	assert_int_equal(lease(fx_dest, false), -1);
	assert_int_equal(errno, ENOTSUP);
	fx_plan_release(&f);
	fx_plan_release(&flat);
}

/* --- between two calls --- */

static int before_op, before_nth;	/* the n-th flock of this kind */
static void (*before)(void);

int __real_flock(int fd, int op);
int __wrap_flock(int fd, int op);
int __wrap_flock(int fd, int op)
{
	void (*f)(void) = before;

	if (f && (op & ~LOCK_NB) == before_op && --before_nth == 0) {
		before = NULL;
		f();
	}
	return __real_flock(fd, op);
}

static struct fx_plan *moving;
static int late;

static void take_a_lease(void)
{
	late = open(fx_path(below("versions", moving, "")), O_RDONLY | O_DIRECTORY);
	assert_int_equal(__real_flock(late, LOCK_SH | LOCK_NB), 0);
}

/* gc looks once at all of them, and again when it is one's turn. */
static void leased_just_before_it_goes(void **state)
{
	struct store_gc_result r;
	struct fx_plan v[2];

	(void)state;
	series(v, 2);
	moving = &v[0];
	before = take_a_lease;
	before_op = LOCK_EX;
	before_nth = 2;
	r = GC(.keep = 0);
	assert_null(before);
	assert_int_equal(r.versions, 0);
	assert_int_equal(r.left, 2);
	assert_stand(v, 2, "11");
	close(late);
	release(v, 2);
}

static void move_away(void)
{
	assert_int_equal(rename(fx_path(below("versions", moving, "")), fx_path("gone")), 0);
}

static void move_away_and_make_anew(void)
{
	move_away();
	assert_int_equal(mkdir(fx_path(below("versions", moving, "")), 0755), 0);
}

static void gone_while_it_is_leased(void **state)
{
	struct fx_plan f;
	struct stat a, b;
	int fd;

	(void)state;
	FX_PLAN(&f, "m=0");
	publish(&f);
	moving = &f;
	before = move_away;
	before_op = LOCK_SH;
	before_nth = 1;
	assert_int_equal(lease(fx_dest, false), -1);
	assert_int_equal(errno, ENOENT);
	fx_wipe(fx_path("gone"));
	publish(&f);
	/* what stands there in the end is what is leased */
	before = move_away_and_make_anew;
	before_nth = 1;
	fd = lease(fx_dest, false);
	assert_null(before);
	assert_int_equal(fstat(fd, &a), 0);
	assert_int_equal(stat(fx_path("current"), &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	close(fd);
	fx_plan_release(&f);
}

/* A reader in a hurry: as long as a lease is held the version is whole. Exits with 0 at SIGTERM. */
static void hurried_reader(void)
{
	unsigned n = 0;

	while (access(fx_path("stop"), F_OK) < 0) {
		int fd = lease(fx_dest, false);

		if (fd < 0)
			continue;
		n++;
		for (int i = 0; i < 5; i++) {
			if (faccessat(fd, "d/m", R_OK, 0) < 0 || faccessat(fd, "keep", R_OK, 0) < 0)
				_exit(1);
			sched_yield();
		}
		close(fd);
	}
	_exit(n ? 0 : 2);
}

static void leases_while_versions_come_and_go(void **state)
{
	struct fx_plan v[2];
	pid_t pid;
	int status;

	(void)state;
	FX_PLAN(&v[0], "d/m=even", "keep=same");
	FX_PLAN(&v[1], "d/m=odd", "keep=same");
	publish(&v[0]);
	pid = fork();
	if (pid == 0)
		hurried_reader();
	for (int i = 1; i < 150; i++) {
		publish(&v[i % 2]);
		GC(.keep = 0, .partials = true);
		fx_assert_complete(&v[i % 2], "current/");
	}
	fx_put("stop", "");
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	release(v, 2);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(leased_by_another_process), T(leased_by_a_stranger_who_cannot_write),
		T(leased_through_a_read_only_mount), T(lease_survives_exec),
		T(lease_ends_with_its_descriptor), T(leased_versions_count), T(no_lease),
		T(leased_just_before_it_goes), T(gone_while_it_is_leased),
		T(leases_while_versions_come_and_go),
	};
	int failed = cmocka_run_group_tests_name("leases with openat2", tests, NULL, NULL);

	sys_no_openat2 = true;
	return failed + cmocka_run_group_tests_name("leases with the walk", tests, NULL, NULL);
}
