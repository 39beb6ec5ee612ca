// SPDX-License-Identifier: Apache-2.0
/* sys.c, with openat2 and with the component walk. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys.h"

static char root[64];
static int root_fd = -1;

static int setup(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/fetcher-sys-XXXXXX");
	if (!mkdtemp(root))
		return -1;
	root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return root_fd < 0;
}

static int teardown(void **state)
{
	int tmp = open("/tmp", O_RDONLY | O_DIRECTORY), rc;

	(void)state;
	close(root_fd);
	rc = sys_remove_tree(tmp, root + strlen("/tmp/"));
	close(tmp);
	return rc;
}

static void put(const char *path, const char *text)
{
	int fd = openat(root_fd, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void assert_text(int dirfd, const char *path, const char *text)
{
	struct buf b = BUF_INIT(4096);

	assert_int_equal(sys_read_file(dirfd, path, &b), 0);
	assert_string_equal(buf_cstr(&b), text);
	buf_release(&b);
}

static void fails(const char *path, int flags, int err)
{
	int fd = sys_open_beneath(root_fd, path, flags, 0644);

	if (fd >= 0 || errno != err)
		fail_msg("%s: fd %d, %s instead of %s", path, fd, strerror(errno), strerror(err));
}

static void opens(const char *path, int flags)
{
	int fd = sys_open_beneath(root_fd, path, flags, 0644);

	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}

static void open_beneath(void **state)
{
	(void)state;
	assert_int_equal(mkdirat(root_fd, "a", 0755), 0);
	assert_int_equal(mkdirat(root_fd, "a/b", 0755), 0);
	put("a/b/f", "x");
	opens("a/b/f", O_RDONLY);
	opens("./a//b/./f", O_RDONLY);
	opens("a/b", O_RDONLY | O_DIRECTORY);
	opens("a/b/", O_RDONLY | O_DIRECTORY);
	opens(".", O_RDONLY | O_DIRECTORY);
	opens("a/b", O_PATH | O_DIRECTORY);
	opens("a/b/new", O_WRONLY | O_CREAT | O_EXCL);
	fails("a/b/new", O_WRONLY | O_CREAT | O_EXCL, EEXIST);
	fails("a/b/none", O_RDONLY, ENOENT);
	fails("a/b/f/g", O_RDONLY, ENOTDIR);
	fails("a/b/f", O_RDONLY | O_DIRECTORY, ENOTDIR);
	fails("", O_RDONLY, ENOENT);
}

static void open_beneath_refuses_escapes(void **state)
{
	(void)state;
	assert_int_equal(mkdirat(root_fd, "a", 0755), 0);
	put("a/f", "x");
	put("f", "x");
	assert_int_equal(symlinkat("/etc", root_fd, "out"), 0);
	assert_int_equal(symlinkat("a", root_fd, "in"), 0);
	assert_int_equal(symlinkat("f", root_fd, "leaf"), 0);
	assert_int_equal(symlinkat("none", root_fd, "dangling"), 0);
	fails("/etc/passwd", O_RDONLY, EXDEV);
	fails("..", O_RDONLY, EXDEV);
	fails("a/../f", O_RDONLY, EXDEV);
	fails("a/..", O_RDONLY, EXDEV);
	fails("out/passwd", O_RDONLY, ELOOP);
	fails("in/f", O_RDONLY, ELOOP);
	fails("leaf", O_RDONLY, ELOOP);
	fails("leaf", O_PATH, ELOOP);
	fails("leaf", O_PATH | O_NOFOLLOW, ELOOP);
	fails("in", O_RDONLY | O_DIRECTORY, ELOOP);
	fails("out", O_PATH | O_DIRECTORY, ELOOP);
	fails("dangling", O_WRONLY | O_CREAT, ELOOP);
}

static void open_parent(void **state)
{
	const char *leaf = NULL;
	struct stat st;
	int fd;

	(void)state;
	fd = sys_open_parent(root_fd, "x/y/z/file", 0750, &leaf);
	assert_true(fd >= 0);
	assert_string_equal(leaf, "file");
	assert_int_equal(fsync(fd), 0);
	close(fd);
	assert_int_equal(fstatat(root_fd, "x/y/z", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0750);
	assert_int_equal(fstatat(root_fd, "x/y/z/file", &st, 0), -1);
	fd = sys_open_parent(root_fd, "file", 0755, &leaf);
	assert_true(fd >= 0);
	close(fd);
	/* mode 0 creates nothing */
	assert_int_equal(sys_open_parent(root_fd, "n/m/file", 0, &leaf), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(fstatat(root_fd, "n", &st, 0), -1);
	assert_int_equal(sys_open_parent(root_fd, "x/../y/file", 0755, &leaf), -1);
	assert_int_equal(errno, EXDEV);
	assert_int_equal(sys_open_parent(root_fd, "x/y/", 0755, &leaf), -1);
	assert_int_equal(errno, EINVAL);
}

static void open_parent_through_link(void **state)
{
	const char *leaf = NULL;
	struct stat st;

	(void)state;
	assert_int_equal(mkdirat(root_fd, "target", 0755), 0);
	assert_int_equal(symlinkat("target", root_fd, "link"), 0);
	assert_int_equal(sys_open_parent(root_fd, "link/sub/file", 0755, &leaf), -1);
	assert_int_equal(errno, ELOOP);
	assert_int_equal(fstatat(root_fd, "target/sub", &st, 0), -1);
	put("plain", "x");
	assert_int_equal(sys_open_parent(root_fd, "plain/sub/file", 0755, &leaf), -1);
	assert_int_equal(errno, ENOTDIR);
}

static void open_dir(void **state)
{
	char path[128];
	struct stat st;
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/p/q//r/", root);
	assert_int_equal(sys_open_dir(path, 0), -1);
	assert_int_equal(errno, ENOENT);
	fd = sys_open_dir(path, 0755);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(fstatat(root_fd, "p/q/r", &st, 0), 0);
	/* DEST may be a link to a directory */
	assert_int_equal(symlinkat("p/q", root_fd, "dest"), 0);
	snprintf(path, sizeof(path), "%s/dest", root);
	fd = sys_open_dir(path, 0755);
	assert_true(fd >= 0);
	assert_int_equal(fstatat(fd, "r", &st, 0), 0);
	close(fd);
	put("file", "x");
	snprintf(path, sizeof(path), "%s/file/sub", root);
	assert_int_equal(sys_open_dir(path, 0755), -1);
	assert_int_equal(errno, ENOTDIR);
	snprintf(path, sizeof(path), "%s/file", root);
	assert_int_equal(sys_open_dir(path, 0755), -1);
}

static void read_file(void **state)
{
	struct buf b = BUF_INIT(4);

	(void)state;
	put("f", "12345");
	assert_int_equal(sys_read_file(root_fd, "f", &b), -1);
	assert_int_equal(errno, EFBIG);
	put("f", "1234");
	assert_int_equal(sys_read_file(root_fd, "f", &b), 0);
	assert_int_equal(b.len, 4);
	put("f", "");
	assert_int_equal(sys_read_file(root_fd, "f", &b), 0);
	assert_int_equal(b.len, 0);
	assert_int_equal(sys_read_file(root_fd, ".", &b), -1);
	assert_int_equal(errno, EISDIR);
	/* a pipe does not block the reader */
	assert_int_equal(mkfifoat(root_fd, "pipe", 0644), 0);
	assert_int_equal(sys_read_file(root_fd, "pipe", &b), -1);
	assert_int_equal(errno, EINVAL);
	/* below a directory links are refused, an ordinary path follows them (mounted secrets) */
	assert_int_equal(symlinkat("f", root_fd, "link"), 0);
	assert_int_equal(sys_read_file(root_fd, "link", &b), -1);
	assert_int_equal(errno, ELOOP);
	char path[128];

	snprintf(path, sizeof(path), "%s/link", root);
	assert_int_equal(sys_read_file(AT_FDCWD, path, &b), 0);
	assert_int_equal(sys_read_file(root_fd, path, &b), 0);
	buf_release(&b);
}

static int count_names(const char *dir)
{
	char cmd[256], out[32] = "";
	FILE *f;

	snprintf(cmd, sizeof(cmd), "ls -A '%s/%s' | wc -l", root, dir);
	f = popen(cmd, "r");
	assert_non_null(f);
	assert_non_null(fgets(out, sizeof(out), f));
	pclose(f);
	return (int)strtol(out, NULL, 10);
}

static void replace_file(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(sys_replace_file(root_fd, "r", "one", 3, 0640, true), 0);
	assert_text(root_fd, "r", "one");
	assert_int_equal(fstatat(root_fd, "r", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_int_equal(sys_replace_file(root_fd, "r", "two two", 7, 0644, false), 0);
	assert_text(root_fd, "r", "two two");
	/* a link at the name is replaced, not followed */
	put("victim", "safe");
	assert_int_equal(symlinkat("victim", root_fd, "l"), 0);
	assert_int_equal(sys_replace_file(root_fd, "l", "new", 3, 0644, false), 0);
	assert_text(root_fd, "victim", "safe");
	assert_text(root_fd, "l", "new");
	/* a failure leaves no temporary */
	assert_int_equal(mkdirat(root_fd, "d", 0755), 0);
	assert_int_equal(mkdirat(root_fd, "d/e", 0755), 0);
	assert_int_equal(sys_replace_file(root_fd, "d", "x", 1, 0644, false), -1);
	assert_int_equal(count_names("."), 4);
}

static void temp_names(void **state)
{
	char a[SYS_TEMP_NAME], b[SYS_TEMP_NAME];

	(void)state;
	sys_temp_name(a);
	sys_temp_name(b);
	assert_string_not_equal(a, b);
	assert_true(sys_is_temp_name(a));
	assert_false(sys_is_temp_name(".tmp-"));
	assert_false(sys_is_temp_name(".tmp-0123456789abcde"));
	assert_false(sys_is_temp_name(".tmp-0123456789abcdeF"));
	assert_false(sys_is_temp_name(".tmp-0123456789abcdef0"));
	assert_false(sys_is_temp_name("model.safetensors"));
}

static void preallocate(void **state)
{
	struct stat st;
	int fd = openat(root_fd, "p", O_RDWR | O_CREAT, 0644);
	uint64_t free_bytes = 0;

	(void)state;
	assert_int_equal(sys_preallocate(fd, 0), 0);
	assert_int_equal(sys_preallocate(fd, 1 << 20), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 1 << 20);
	assert_int_equal(sys_preallocate(fd, 1000), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 1 << 20);
	assert_int_equal(sys_preallocate(fd, UINT64_MAX), -1);
	assert_int_equal(errno, EFBIG);
	assert_int_equal(sys_free_bytes(fd, &free_bytes), 0);
	assert_true(free_bytes > 0);
	close(fd);
}

static void transfers(void **state)
{
	int fd = openat(root_fd, "t", O_RDWR | O_CREAT, 0644);
	char b[16];

	(void)state;
	assert_int_equal(sys_pwrite_full(fd, "hello", 5, 3), 0);
	assert_int_equal(sys_pread_full(fd, b, sizeof(b), 0), 8);
	assert_memory_equal(b, "\0\0\0hello", 8);
	assert_int_equal(sys_pread_full(fd, b, 2, 100), 0);
	assert_int_equal(sys_pwrite_full(fd, "x", 1, INT64_MAX), -1);
	assert_int_equal(errno, EFBIG);
	assert_int_equal(sys_pread_full(fd, b, 1, UINT64_MAX), -1);
	close(fd);
}

static void copies(void **state)
{
	const size_t n = 3 * 1024 * 1024 + 7;
	char *a = malloc(n), *b = malloc(n);
	int from = openat(root_fd, "from", O_RDWR | O_CREAT, 0644);
	int to = openat(root_fd, "to", O_RDWR | O_CREAT, 0644);

	(void)state;
	for (size_t i = 0; i < n; i++)
		a[i] = (char)(i * 31 >> 7);
	assert_int_equal(sys_pwrite_full(from, a, n, 0), 0);
	assert_int_equal(sys_copy(from, to, n - 1), -1);
	assert_int_equal(errno, EIO);
	assert_int_equal(sys_copy(from, to, n), 0);
	assert_int_equal(sys_pread_full(to, b, n, 0), n);
	assert_memory_equal(a, b, n);
	close(from);
	close(to);
	/* between file systems */
	from = open("/proc/self/exe", O_RDONLY);
	to = openat(root_fd, "exe", O_RDWR | O_CREAT, 0644);
	struct stat st;

	assert_int_equal(fstat(from, &st), 0);
	assert_int_equal(sys_copy(from, to, (uint64_t)st.st_size), 0);
	close(from);
	close(to);
	free(a);
	free(b);
}

static void remove_tree(void **state)
{
	char path[64];
	struct stat st;
	const char *leaf;

	(void)state;
	assert_int_equal(mkdirat(root_fd, "keep", 0755), 0);
	put("keep/f", "x");
	for (int i = 0; i < 40; i++) {
		snprintf(path, sizeof(path), "tree/d%d/e/f/g", i % 7);
		close(sys_open_parent(root_fd, path, 0755, &leaf));
		snprintf(path, sizeof(path), "tree/d%d/e/f/g%d", i % 7, i);
		put(path, "x");
	}
	assert_int_equal(symlinkat("../keep", root_fd, "tree/link"), 0);
	assert_int_equal(mkfifoat(root_fd, "tree/d1/pipe", 0644), 0);
	assert_int_equal(sys_remove_tree(root_fd, "tree"), 0);
	assert_int_equal(fstatat(root_fd, "tree", &st, 0), -1);
	assert_text(root_fd, "keep/f", "x");
	assert_int_equal(sys_remove_tree(root_fd, "tree"), 0);
	/* a link is removed, not what it names */
	assert_int_equal(symlinkat("keep", root_fd, "l"), 0);
	assert_int_equal(sys_remove_tree(root_fd, "l"), 0);
	assert_text(root_fd, "keep/f", "x");
}

static void deep_tree_with_few_descriptors(void **state)
{
	struct rlimit old, few = { 16, 16 };
	int at = dup(root_fd);

	(void)state;
	for (int i = 0; i < 200; i++) {
		int next;

		assert_int_equal(mkdirat(at, "d", 0755), 0);
		next = openat(at, "d", O_RDONLY | O_DIRECTORY);
		close(at);
		at = next;
	}
	close(at);
	getrlimit(RLIMIT_NOFILE, &old);
	few.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	assert_int_equal(sys_remove_tree(root_fd, "d"), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(count_names("."), 0);
}

static void machine(void **state)
{
	char text[200], boot[40], stamp[32];
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t t = sys_now_ms();

	(void)state;
	assert_true(sys_cpus() >= 1 && sys_cpus() <= (unsigned)online);
	sys_boot_id(boot);
	assert_int_equal(strlen(boot), 36);
	sys_timestamp(stamp);
	assert_int_equal(strlen(stamp), 20);
	assert_int_equal(stamp[10], 'T');
	assert_int_equal(stamp[19], 'Z');
	sys_sleep_ms(2);
	assert_true(sys_now_ms() >= t + 1);
	assert_int_equal(fchmod(root_fd, 0711), 0);
	sys_describe_access(AT_FDCWD, root, text, sizeof(text));
	assert_non_null(strstr(text, "mode 0711"));
	assert_non_null(strstr(text, "uid "));
	assert_non_null(strstr(text, root));
	sys_describe_access(root_fd, "none", text, sizeof(text));
	assert_null(strstr(text, "mode"));
	sys_describe_access(root_fd, ".", text, 9);
	assert_int_equal(strlen(text), 8);
}

static void close_once(void **state)
{
	int fd = dup(root_fd), gone;

	(void)state;
	errno = EXDEV;
	cleanup_close_fn(&fd);
	assert_int_equal(fd, -1);
	assert_int_equal(errno, EXDEV);
	cleanup_close_fn(&fd);
	gone = dup(root_fd);
	fd = gone;
	assert_int_equal(sys_close(&fd), 0);
	assert_int_equal(fd, -1);
	assert_int_equal(fcntl(gone, F_GETFD), -1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(open_beneath), T(open_beneath_refuses_escapes), T(open_parent),
		T(open_parent_through_link), T(open_dir), T(read_file), T(replace_file),
		T(temp_names), T(preallocate), T(transfers), T(copies), T(remove_tree),
		T(deep_tree_with_few_descriptors), T(machine), T(close_once),
	};
	int failed = cmocka_run_group_tests_name("sys with openat2", tests, NULL, NULL);

	sys_no_openat2 = true;
	return failed + cmocka_run_group_tests_name("sys with the walk", tests, NULL, NULL);
}
