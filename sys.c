// SPDX-License-Identifier: Apache-2.0
#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Kernel ABI that the build machine's headers may be too old for. */
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#define OPENAT2_NO_MAGICLINKS 0x02
#define OPENAT2_NO_SYMLINKS 0x04
#define OPENAT2_BENEATH 0x08
#define CLONE_IOCTL _IOW(0x94, 9, int)	/* FICLONE */

struct openat2_how {
	uint64_t flags, mode, resolve;
};

#define OPENAT2_TRIES 16	/* EAGAIN: somebody renames directories under the lookup */
#define COPY_CHUNK (256 * 1024)
#define COPY_RANGE_MAX ((uint64_t)1 << 30)
#define REMOVE_STEPS 1000000	/* a neighbour that keeps filling the tree must not hold us */

const char *sys_boot_id_override;
bool sys_no_openat2;
static bool openat2_missing;	/* the kernel said ENOSYS; set once, races are harmless */

void cleanup_close_fn(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

int sys_close(int *fd)
{
	int v = steal_fd(fd);

	if (close(v) < 0 && errno != EINTR)
		return -1;
	return 0;
}

/* --- confined opens --- */

/* Relative, not empty, no ".." component. */
static int path_confined(const char *path)
{
	const char *p = path;

	if (!*path)
		return errno = ENOENT, -1;
	if (*path == '/')
		return errno = EXDEV, -1;
	while (*p) {
		size_t n = strcspn(p, "/");

		if (n == 2 && p[0] == '.' && p[1] == '.')
			return errno = EXDEV, -1;
		p += n;
		p += strspn(p, "/");
	}
	return 0;
}

static int openat2_call(int dirfd, const char *path, int flags, mode_t mode)
{
	struct openat2_how how = {
		.flags = (uint64_t)(unsigned)flags,
		.mode = flags & O_CREAT ? mode : 0,
		.resolve = OPENAT2_BENEATH | OPENAT2_NO_SYMLINKS | OPENAT2_NO_MAGICLINKS,
	};

	for (int i = 0;; i++) {
		int fd = (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));

		if (fd >= 0 || (errno != EINTR && (errno != EAGAIN || i >= OPENAT2_TRIES)))
			return fd;
	}
}

static int openat_retry(int dirfd, const char *name, int flags, mode_t mode)
{
	int fd;

	do
		fd = openat(dirfd, name, flags, mode);
	while (fd < 0 && errno == EINTR);
	return fd;
}

/* O_DIRECTORY|O_NOFOLLOW on a symlink says ENOTDIR; callers want to know that it is a link. */
static void tell_symlink(int dirfd, const char *name)
{
	struct stat st;
	int saved = errno;

	if (saved == ENOTDIR && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISLNK(st.st_mode))
		saved = ELOOP;
	errno = saved;
}

static int open_component(int dirfd, const char *name, int flags, mode_t mode)
{
	_cleanup_close_ int fd = openat_retry(dirfd, name, flags | O_NOFOLLOW | O_CLOEXEC, mode);
	struct stat st;

	if (fd < 0) {
		tell_symlink(dirfd, name);
		return -1;
	}
	/* O_PATH|O_NOFOLLOW opens the link itself. */
	if (flags & O_PATH) {
		if (fstat(fd, &st) < 0)
			return -1;
		if (S_ISLNK(st.st_mode))
			return errno = ELOOP, -1;
	}
	return steal_fd(&fd);
}

/* Copies the component at *p and moves *p behind it and its slashes. */
static int next_component(const char **p, char comp[static NAME_MAX + 1])
{
	size_t n = strcspn(*p, "/");

	if (n > NAME_MAX)
		return errno = ENAMETOOLONG, -1;
	memcpy(comp, *p, n);
	comp[n] = 0;
	*p += n;
	*p += strspn(*p, "/");
	return 0;
}

static int open_walk(int dirfd, const char *path, int flags, mode_t mode)
{
	_cleanup_close_ int held = -1;
	const char *p = path;
	char comp[NAME_MAX + 1];
	int at = dirfd;

	for (;;) {
		int fd;

		if (next_component(&p, comp) < 0)
			return -1;
		if (!*p)
			break;
		fd = open_component(at, comp, O_PATH | O_DIRECTORY, 0);
		if (fd < 0)
			return -1;
		cleanup_close_fn(&held);
		at = held = fd;
	}
	if (p[-1] == '/')
		flags |= O_DIRECTORY;
	return open_component(at, comp, flags, mode);
}

int sys_open_beneath(int dirfd, const char *path, int flags, mode_t mode)
{
	if (path_confined(path) < 0)
		return -1;
	flags |= O_CLOEXEC;
	flags &= ~O_NOFOLLOW;
	if (!sys_no_openat2 && !openat2_missing) {
		int fd = openat2_call(dirfd, path, flags, mode);

		if (fd >= 0)
			return fd;
		/* A genuine EPERM or EINVAL comes again from the walk, which is as strict. */
		if (errno == ENOSYS)
			openat2_missing = true;
		else if (errno != EPERM && errno != EINVAL && errno != EAGAIN)
			return -1;
	}
	return open_walk(dirfd, path, flags, mode);
}

static int open_or_make(int dirfd, const char *name, mode_t mode)
{
	int fd = open_component(dirfd, name, O_RDONLY | O_DIRECTORY, 0);

	if (fd >= 0 || errno != ENOENT || !mode)
		return fd;
	if (mkdirat(dirfd, name, mode) < 0 && errno != EEXIST)
		return -1;
	return open_component(dirfd, name, O_RDONLY | O_DIRECTORY, 0);
}

int sys_open_parent(int dirfd, const char *path, mode_t mode, const char **ret_leaf)
{
	_cleanup_close_ int held = -1;
	const char *slash = strrchr(path, '/'), *leaf = slash ? slash + 1 : path, *p;
	char parent[PATH_MAX], comp[NAME_MAX + 1];

	if (path_confined(path) < 0)
		return -1;
	if (!*leaf || strcmp(leaf, ".") == 0)
		return errno = EINVAL, -1;
	if (!slash) {
		held = openat_retry(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
		if (held >= 0)
			*ret_leaf = leaf;
		return steal_fd(&held);
	}
	if ((size_t)(slash - path) >= sizeof(parent))
		return errno = ENAMETOOLONG, -1;
	memcpy(parent, path, (size_t)(slash - path));
	parent[slash - path] = 0;
	held = sys_open_beneath(dirfd, parent, O_RDONLY | O_DIRECTORY, 0);
	if (held < 0 && errno == ENOENT && mode) {
		for (p = parent; *p;) {
			int fd;

			if (next_component(&p, comp) < 0)
				return -1;
			fd = open_or_make(held >= 0 ? held : dirfd, comp, mode);
			cleanup_close_fn(&held);
			held = fd;
			if (held < 0)
				return -1;
		}
	}
	if (held >= 0)
		*ret_leaf = leaf;
	return steal_fd(&held);
}

int sys_open_dir(const char *path, mode_t mode)
{
	int fd = openat_retry(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	_cleanup_free_ char *copy = NULL;

	if (fd >= 0 || errno != ENOENT || !mode || !*path)
		return fd;
	copy = strdup(path);
	if (!copy)
		return -1;
	for (char *p = copy + 1;; p++) {
		struct stat st;
		char c = *p;
		int err;

		if (c && c != '/')
			continue;
		*p = 0;
		if (mkdirat(AT_FDCWD, copy, mode) < 0) {
			err = errno;
			if (stat(copy, &st) < 0 || !S_ISDIR(st.st_mode))
				return errno = err == EEXIST ? ENOTDIR : err, -1;
		}
		*p = c;
		if (!c)
			break;
	}
	return openat_retry(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
}

/* --- bytes --- */

int sys_write_full(int fd, const void *p, size_t n)
{
	const char *at = p, *end = at + n;

	while (at < end) {
		ssize_t done = write(fd, at, (size_t)(end - at));

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return -1;
		at += done;
	}
	return 0;
}

int sys_pwrite_full(int fd, const void *p, size_t n, uint64_t off)
{
	const char *at = p;

	if (off > INT64_MAX || n > INT64_MAX - off)
		return errno = EFBIG, -1;
	while (n) {
		ssize_t k = pwrite(fd, at, n, (off_t)off);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -1;
		if (k == 0)
			return errno = ENOSPC, -1;
		at += k;
		n -= (size_t)k;
		off += (uint64_t)k;
	}
	return 0;
}

ssize_t sys_pread_full(int fd, void *p, size_t n, uint64_t off)
{
	size_t done = 0;

	if (off > INT64_MAX || n > SSIZE_MAX || n > INT64_MAX - off)
		return errno = EOVERFLOW, -1;
	while (done < n) {
		ssize_t k = pread(fd, (char *)p + done, n - done,
				     (off_t)(off + done));

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -1;
		if (k == 0)
			break;
		done += (size_t)k;
	}
	return (ssize_t)done;
}

static int read_to_end(int fd, size_t room, struct buf *ret)
{
	_cleanup_free_ char *chunk = malloc(room);

	if (!chunk)
		return -1;
	buf_clear(ret);
	for (;;) {
		ssize_t k = read(fd, chunk, room);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return (int)k;
		if ((size_t)k > ret->max - ret->len)
			return errno = EFBIG, -1;
		if (buf_add(ret, chunk, (size_t)k) < 0)
			return errno = ENOMEM, -1;
	}
}

int sys_read_file(int dirfd, const char *path, struct buf *ret)
{
	const int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (dirfd == AT_FDCWD || *path == '/')
		fd = openat_retry(dirfd, path, flags, 0);
	else
		fd = sys_open_beneath(dirfd, path, flags, 0);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -1;
	if (S_ISDIR(st.st_mode))
		return errno = EISDIR, -1;
	if (!S_ISREG(st.st_mode))
		return errno = EINVAL, -1;
	/* One byte more, so that the end shows at once; files of /proc say 0. */
	return read_to_end(fd, (size_t)MAX((off_t)4096, MIN(st.st_size + 1, (off_t)COPY_CHUNK)),
			   ret);
}

void sys_temp_name(char ret[static SYS_TEMP_NAME])
{
	snprintf(ret, SYS_TEMP_NAME, ".tmp-%016llx", (unsigned long long)sys_random64());
}

bool sys_is_temp_name(const char *name)
{
	return strncmp(name, ".tmp-", 5) == 0 && strlen(name) == 21 &&
	       strspn(name + 5, "0123456789abcdef") == 16;
}

int sys_sync_dir(int fd)
{
	if (fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP)
		return 0;
	return -1;
}

int sys_replace_file(int dirfd, const char *name, const void *p, size_t n, mode_t mode, bool sync)
{
	char tmp[SYS_TEMP_NAME];
	_cleanup_close_ int fd = -1;
	int saved;

	sys_temp_name(tmp);
	fd = openat_retry(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -1;
	if (sys_pwrite_full(fd, p, n, 0) == 0 && (!sync || fsync(fd) == 0) &&
	    sys_close(&fd) == 0 && renameat(dirfd, tmp, dirfd, name) == 0)
		return sync ? sys_sync_dir(dirfd) : 0;
	saved = errno;
	unlinkat(dirfd, tmp, 0);
	errno = saved;
	return -1;
}

bool sys_is_memory_fs(int fd)
{
	struct statfs v;

	if (fstatfs(fd, &v) < 0)
		return false;
	switch ((uint32_t)v.f_type) {
	case 0x01021994:	/* tmpfs */
	case 0x858458f6:	/* ramfs */
	case 0x958458f6:	/* hugetlbfs */
		return true;
	default:
		return false;
	}
}

int sys_preallocate(int fd, uint64_t size)
{
	struct stat st;
	int rc;

	if (size > INT64_MAX)
		return errno = EFBIG, -1;
	if (size == 0)
		return 0;
	/* Reserving memory takes as long as filling it (0.25 s per GiB), and nothing else can be done meanwhile. */
	bool memory = sys_is_memory_fs(fd);
	do
		rc = memory ? -1 : fallocate(fd, 0, 0, (off_t)size);
	while (rc < 0 && !memory && errno == EINTR);
	if (rc == 0)
		return 0;
	if (!memory && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL)
		return -1;
	if (fstat(fd, &st) < 0)
		return -1;
	if (st.st_size >= (off_t)size)
		return 0;
	return ftruncate(fd, (off_t)size);
}

int sys_free_bytes(int fd, uint64_t *ret)
{
	struct statvfs v;
	uint64_t bytes;

	if (fstatvfs(fd, &v) < 0)
		return -1;
	/* A tmpfs without limit and some FUSE file systems count no blocks: unknown, so no bound. */
	if (v.f_blocks == 0 || !u64_mul(v.f_bavail, v.f_frsize ? v.f_frsize : v.f_bsize, &bytes))
		bytes = UINT64_MAX;
	*ret = bytes;
	return 0;
}

/* The two descriptors' own offsets are left alone. */
static int copy_chunks(int from_fd, int to_fd, uint64_t off, uint64_t size)
{
	_cleanup_free_ char *chunk = malloc(COPY_CHUNK);

	if (!chunk)
		return -1;
	while (off < size) {
		size_t want = (size_t)MIN(size - off, (uint64_t)COPY_CHUNK);
		ssize_t k = sys_pread_full(from_fd, chunk, want, off);

		if (k < 0)
			return -1;
		if ((size_t)k < want)
			return errno = EIO, -1;
		if (sys_pwrite_full(to_fd, chunk, want, off) < 0)
			return -1;
		off += want;
	}
	return 0;
}

int sys_copy(int from_fd, int to_fd, uint64_t size)
{
	off_t in = 0, out = 0;
	struct stat st;

	if (fstat(from_fd, &st) < 0)
		return -1;
	if (st.st_size < 0 || (uint64_t)st.st_size != size)
		return errno = EIO, -1;
	if (size == 0)
		return 0;
	if (ioctl(to_fd, CLONE_IOCTL, from_fd) == 0)
		return 0;
	while ((uint64_t)in < size) {
		uint64_t want = MIN(size - (uint64_t)in, COPY_RANGE_MAX);
		ssize_t k = copy_file_range(from_fd, &in, to_fd, &out, (size_t)want, 0);

		if (k < 0 && errno == EINTR)
			continue;
		/* 0 at the start: file systems whose sizes are made up at open time. */
		if (k <= 0)
			break;
	}
	if ((uint64_t)in == size)
		return 0;
	return copy_chunks(from_fd, to_fd, (uint64_t)in, size);
}

/* --- removing trees --- */

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/*
 * Removes what can be removed in the directory `path` below dirfd. 1 = a subdirectory with
 * content was found: its name is appended to path. 0 = the directory is empty now.
 */
static int remove_level(int dirfd, struct buf *path)
{
	_cleanup_close_ int fd = sys_open_beneath(dirfd, buf_cstr(path), O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	int at = fd, rc = 0, saved;
	struct dirent *de;

	if (!d)
		return -1;
	steal_fd(&fd);
	while (rc == 0 && (errno = 0, de = readdir(d))) {
		if (is_dots(de->d_name))
			continue;
		if (de->d_type != DT_DIR && (unlinkat(at, de->d_name, 0) == 0 ||
					     errno == ENOENT))
			continue;
		if (de->d_type != DT_DIR && errno != EISDIR && errno != EPERM)
			rc = -1;
		else if (unlinkat(at, de->d_name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			continue;
		else if (errno != ENOTEMPTY && errno != EEXIST)
			rc = -1;
		else
			rc = buf_addf(path, "/%s", de->d_name) < 0 ? (errno = ENAMETOOLONG, -1) : 1;
	}
	saved = errno;
	closedir(d);
	errno = saved;
	if (rc == 0 && saved)
		return -1;
	return rc;
}

int sys_remove_tree(int dirfd, const char *name)
{
	_cleanup_buf_ struct buf path = BUF_INIT(PATH_MAX - 1);
	size_t top = strlen(name);

	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -1;
	if (buf_adds(&path, name) < 0)
		return errno = ENAMETOOLONG, -1;
	for (int i = 0; i < REMOVE_STEPS; i++) {
		int rc = remove_level(dirfd, &path);
		char *slash;

		if (rc < 0 && errno != ENOENT)
			return -1;
		if (rc == 1)
			continue;
		if (path.len == top) {
			if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
				return 0;
			if (errno != ENOTEMPTY && errno != EEXIST)
				return -1;
			continue;
		}
		/* One level up finds it empty and removes it. */
		slash = strrchr(path.data, '/');
		path.len = (size_t)(slash - path.data);
		*slash = 0;
	}
	return errno = ENOTEMPTY, -1;
}

/* --- time and the machine --- */

uint64_t sys_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t sys_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void sys_timestamp(char ret[static 32])
{
	time_t now = time(NULL);
	struct tm tm = { 0 };

	gmtime_r(&now, &tm);
	strftime(ret, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}


void sys_boot_id(char ret[static 40])
{
	if (sys_boot_id_override) {
		snprintf(ret, 40, "%s", sys_boot_id_override);
		return;
	}
	_cleanup_buf_ struct buf b = BUF_INIT(256);

	ret[0] = 0;
	if (sys_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", &b) < 0)
		return;
	snprintf(ret, 40, "%.*s", (int)strcspn(buf_cstr(&b), "\n"), buf_cstr(&b));
}

uint64_t sys_random64(void)
{
	static _Thread_local uint64_t counter;
	struct timespec ts;
	uint64_t v;

	if (getrandom(&v, sizeof(v), 0) == (ssize_t)sizeof(v))
		return v;
	/* Kept unique, not secret: O_EXCL catches what is left of chance. */
	clock_gettime(CLOCK_REALTIME, &ts);
	return ((uint64_t)ts.tv_nsec << 32) ^ (uint64_t)ts.tv_sec ^
	       ((uint64_t)getpid() << 20) ^ ++counter;
}

/* CPUs that "QUOTA PERIOD" (v2) or two numbers (v1) grant, rounded up; 0 = no limit. */
static unsigned quota_cpus(struct str quota, struct str period)
{
	uint64_t q, p;

	if (!str_u64(str_trim(quota), &q) || !str_u64(str_trim(period), &p) || !q || !p)
		return 0;
	return (unsigned)MIN((q - 1) / p + 1, (uint64_t)UINT_MAX);
}

static struct str read_line(const char *dir, const char *file, struct buf *b)
{
	_cleanup_buf_ struct buf path = BUF_INIT(PATH_MAX);
	struct str s = { "", 0 };

	buf_addf(&path, "%s/%s", dir, file);
	if (path.failed || sys_read_file(AT_FDCWD, path.data, b) < 0)
		return s;
	s.p = buf_cstr(b);
	s.n = strcspn(s.p, "\n");
	return s;
}

static unsigned cgroup_dir_cpus(const char *dir, bool v2)
{
	_cleanup_buf_ struct buf a = BUF_INIT(256);
	_cleanup_buf_ struct buf b = BUF_INIT(256);
	struct str s;
	size_t n;

	if (!v2)
		return quota_cpus(read_line(dir, "cpu.cfs_quota_us", &a),
				  read_line(dir, "cpu.cfs_period_us", &b));
	s = read_line(dir, "cpu.max", &a);
	n = strcspn(s.p, " ");
	if (n >= s.n)
		return 0;
	return quota_cpus((struct str){ s.p, n }, (struct str){ s.p + n + 1, s.n - n - 1 });
}

/* The tightest limit from the process's own group up to the root that is visible. */
static unsigned cgroup_cpus(const char *line)
{
	_cleanup_buf_ struct buf dir = BUF_INIT(PATH_MAX);
	const char *ctl = strchr(line, ':'), *path = ctl ? strchr(ctl + 1, ':') : NULL;
	const char *mount;
	unsigned best = 0;
	bool v2;

	if (!path)
		return 0;
	v2 = path == ctl + 1;
	if (!v2 && !memmem(ctl, (size_t)(path - ctl), "cpu,", 4) &&
	    !memmem(ctl, (size_t)(path - ctl + 1), "cpu:", 4))
		return 0;
	mount = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
	buf_addf(&dir, "%s%.*s", mount, (int)strcspn(path + 1, "\n"), path + 1);
	while (!dir.failed && dir.len >= strlen(mount)) {
		unsigned n = cgroup_dir_cpus(dir.data, v2);
		char *slash = strrchr(dir.data, '/');

		if (n && (!best || n < best))
			best = n;
		dir.len = (size_t)(slash - dir.data);
		*slash = 0;
	}
	return best;
}

unsigned sys_cpus(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT(64 * 1024);
	unsigned n = 1;
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
		n = (unsigned)CPU_COUNT(&set);
	if (sys_read_file(AT_FDCWD, "/proc/self/cgroup", &b) < 0)
		return n;
	for (const char *line = buf_cstr(&b); line && *line;) {
		unsigned limit = cgroup_cpus(line);

		if (limit && limit < n)
			n = limit;
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return n;
}

void sys_describe_access(int dirfd, const char *path, char *ret, size_t n)
{
	struct stat st;
	int k = snprintf(ret, n, "uid %u, gid %u", (unsigned)geteuid(), (unsigned)getegid());
	int rc = *path && strcmp(path, ".") ? fstatat(dirfd, path, &st, 0)
					    : fstatat(dirfd, ".", &st, 0);

	if (rc == 0 && k >= 0 && (size_t)k < n)
		snprintf(ret + k, n - (size_t)k, "; %s is owned by %u:%u, mode %04o",
			 *path ? path : ".", (unsigned)st.st_uid, (unsigned)st.st_gid,
			 (unsigned)st.st_mode & 07777);
}

void sys_sleep_ms(unsigned ms)
{
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}
