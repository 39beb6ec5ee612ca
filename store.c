// SPDX-License-Identifier: Apache-2.0
/* The volume: opening, lock, check, verify. */
#include "store_internal.h"

#include "memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "json.h"

#define POLL_MIN_MS 20
#define POLL_MAX_MS 1000
#define STOP_CHECK_MS 100	/* a signal must be seen within a second, with room */
#define LOCK_TRIES 8
#define LEASE_TRIES 50
#define LEASE_POLL_MS 4		/* gc holds its lock for a moment on versions that stay */
#define HASH_CHUNK (1024 * 1024)

/* statfs(2) f_type */
#define FS_TMPFS 0x01021994
#define FS_RAMFS 0x858458f6
#define FS_NFS 0x6969
#define FS_FUSE 0x65735546
#define FS_CIFS 0xff534d42
#define FS_SMB 0x517b
#define FS_SMB2 0xfe534d42
#define FS_9P 0x01021997
#define FS_MSDOS 0x4d44
#define FS_EXFAT 0x2011bab0

/* --- shared with the other files of this module --- */

int store_fail(const struct store *s, struct err *e, const char *verb, const char *path)
{
	_cleanup_buf_ struct buf dir = BUF_INIT(2 * LIMIT_PATH);
	const char *slash = strrchr(path, '/');
	char access[256];
	int err = errno;

	switch (err) {
	case ELOOP:
		return err_set(e, CODE_UNSAFE, "%s/%s: a symbolic link is in the way; move it away",
			       s->dest, path);
	case ENOTDIR:
	case EISDIR:
		return err_set(e, CODE_UNSAFE, "%s/%s is in the way: %s; move it away", s->dest,
			       path, err == EISDIR ? "it is a directory"
						   : "a part of it is not a directory");
	case EXDEV:
		return err_set(e, CODE_LOCAL, "cannot %s %s/%s: it is on another file system than "
			       "%s/" TOP_DIR, verb, s->dest, path, s->dest);
	case ENOMEM:
		return err_oom(e);
	case EACCES:
	case EPERM:
	case EROFS:
		buf_addf(&dir, "%s/%.*s", s->dest, slash ? (int)(slash - path) : 0, path);
		if (faccessat(AT_FDCWD, buf_cstr(&dir), F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
			buf_clear(&dir);
			buf_adds(&dir, s->dest);
		}
		sys_describe_access(AT_FDCWD, buf_cstr(&dir), access, sizeof(access));
		err_errno(e, CODE_LOCAL, err, "cannot %s %s/%s (%s)", verb, s->dest, path, access);
		return -1;
	default:
		return err_errno(e, CODE_LOCAL, err, "cannot %s %s/%s", verb, s->dest, path);
	}
}

bool store_same(const struct store *s, const struct store_file *f, const struct stat *st)
{
	if (f->kind == LAYOUT_DIR)
		return S_ISDIR(st->st_mode);
	/* Encrypting file systems give links odd sizes; their text is looked at anyway. */
	if (f->kind == LAYOUT_SYMLINK ? !S_ISLNK(st->st_mode)
				      : !S_ISREG(st->st_mode) || st->st_size < 0 ||
					(uint64_t)st->st_size != f->size)
		return false;
	return (s->weak_ino || (uint64_t)st->st_ino == f->ino) &&
	       (int64_t)st->st_mtim.tv_sec == f->mtime_sec &&
	       (uint32_t)st->st_mtim.tv_nsec == f->mtime_nsec;
}

bool store_link_is(int dirfd, const char *leaf, const struct store_file *f)
{
	char text[LIMIT_PATH + 1];
	ssize_t n = readlinkat(dirfd, leaf, text, sizeof(text));
	struct digest d;

	if (n < 0 || (size_t)n == sizeof(text) || (uint64_t)n != f->size)
		return false;
	digest_of(f->digest.alg, text, (size_t)n, &d);
	return digest_equal(&f->digest, &d);
}

int store_same_at(const struct store *s, const struct store_file *f, int dirfd, const char *leaf,
		  struct stat *ret)
{
	if (fstatat(dirfd, leaf, ret, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	return store_same(s, f, ret) &&
	       (f->kind != LAYOUT_SYMLINK || store_link_is(dirfd, leaf, f));
}

void store_file_set(struct store_file *f, const struct stat *st)
{
	if (f->kind == LAYOUT_FILE)
		f->size = (uint64_t)st->st_size;
	f->ino = (uint64_t)st->st_ino;
	store_mtime_set(f, st);
}

void store_mtime_set(struct store_file *f, const struct stat *st)
{
	f->mtime_sec = (int64_t)st->st_mtim.tv_sec;
	f->mtime_nsec = (uint32_t)st->st_mtim.tv_nsec;
}

bool store_version_ok(const char *version)
{
	const char *hex = "0123456789abcdef", *p;
	size_t n;

	if (strncmp(version, "sha256-", 7) == 0)
		n = 64;
	else if (strncmp(version, "sha512-", 7) == 0)
		n = 128;
	else
		return false;
	p = version + 7;
	if (strspn(p, hex) != n)
		return false;
	p += n;
	return !*p || (*p == '-' && strspn(p + 1, hex) == 8 && !p[9]);
}

char *store_version_name(const struct digest *d, const char *selection)
{
	char text[DIGEST_STR_MAX];
	struct digest h;
	struct buf b = BUF_INIT(VERSION_MAX);

	buf_adds(&b, digest_format(d, '-', text));
	if (selection && *selection) {
		digest_of(DIGEST_SHA256, selection, strlen(selection), &h);
		buf_addf(&b, "-%02x%02x%02x%02x", h.bytes[0], h.bytes[1], h.bytes[2], h.bytes[3]);
	}
	return buf_steal(&b);
}

int store_subdir(const struct store *s, const char *name, mode_t make)
{
	if (s->top_fd < 0)
		return errno = ENOENT, -1;
	if (make && mkdirat(s->top_fd, name, make) < 0 && errno != EEXIST)
		return -1;
	return sys_open_beneath(s->top_fd, name, O_RDONLY | O_DIRECTORY, 0);
}

int store_hash_fd(int fd, enum digest_alg alg, uint64_t size, struct digest *ret)
{
	_cleanup_free_ char *chunk = malloc((size_t)MIN(size + 1, (uint64_t)HASH_CHUNK));
	struct hasher h;

	if (!chunk)
		return -1;
	hasher_init(&h, alg);
	for (uint64_t off = 0; off < size;) {
		size_t want = (size_t)MIN(size - off, (uint64_t)HASH_CHUNK);
		ssize_t n = sys_pread_full(fd, chunk, want, off);

		if (n < 0)
			return -1;
		if ((size_t)n < want)
			return errno = EIO, -1;
		hasher_update(&h, chunk, want);
		off += want;
	}
	hasher_final(&h, ret);
	return 0;
}

int store_current(const struct store *s, char ret[static VERSION_MAX])
{
	const size_t prefix = strlen(CURRENT_PREFIX);
	char target[VERSION_MAX + sizeof(CURRENT_PREFIX)];
	ssize_t n = readlinkat(s->dest_fd, CURRENT_LINK, target, sizeof(target) - 1);

	if (n < 0)
		return errno == ENOENT ? 0 : -1;
	target[n] = 0;
	if (strncmp(target, CURRENT_PREFIX, prefix) || !store_version_ok(target + prefix))
		return errno = EINVAL, -1;
	memcpy(ret, target + prefix, (size_t)n - prefix + 1);
	return 1;
}

int store_each_name(int fd, int (*f)(void *arg, int dirfd, const char *name), void *arg)
{
	int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0, saved;
	DIR *d = own >= 0 ? fdopendir(own) : NULL;
	struct dirent *de;

	if (!d) {
		cleanup_close_fn(&own);
		return -1;
	}
	while (rc == 0 && (errno = 0, de = readdir(d))) {
		if (strcmp(de->d_name, ".") && strcmp(de->d_name, ".."))
			rc = f(arg, own, de->d_name);
	}
	saved = errno;
	closedir(d);
	errno = saved;
	return rc == 0 && saved ? -1 : rc;
}

/* --- open, close --- */

static void look_at_fs(struct store *s)
{
	struct statfs fs;

	if (fstatfs(s->dest_fd, &fs) < 0)
		return;
	switch ((uint32_t)fs.f_type) {
	case FS_TMPFS:
	case FS_RAMFS:
		s->memory_fs = true;
		break;
	case FS_NFS:
		s->late_mtime = true;
		break;
	case FS_FUSE:
	case FS_CIFS:
	case FS_SMB:
	case FS_SMB2:
	case FS_9P:
	case FS_MSDOS:
	case FS_EXFAT:
		s->weak_ino = s->late_mtime = true;
		break;
	}
}

/* .fetcher may appear while somebody waits for it. */
static int open_top(struct store *s, struct err *e)
{
	if (s->top_fd >= 0)
		return 0;
	if (s->create && mkdirat(s->dest_fd, TOP_DIR, 0755) < 0 && errno != EEXIST)
		return store_fail(s, e, "make", TOP_DIR);
	s->top_fd = sys_open_beneath(s->dest_fd, TOP_DIR, O_RDONLY | O_DIRECTORY, 0);
	if (s->top_fd < 0 && (s->create || errno != ENOENT))
		return store_fail(s, e, "open", TOP_DIR);
	return 0;
}

static int fail_dest(const char *dest, struct err *e)
{
	int err = errno;
	char access[256];
	_cleanup_free_ char *parent = strdup(dest);
	char *slash = parent ? strrchr(parent, '/') : NULL;

	if (slash)
		slash[slash == parent] = 0;
	sys_describe_access(AT_FDCWD, faccessat(AT_FDCWD, dest, F_OK, 0) == 0 ? dest
			    : slash ? parent : ".", access, sizeof(access));
	if (err == ENOTDIR || err == EEXIST)
		return err_set(e, CODE_LOCAL, "%s is not a directory (%s)", dest, access);
	return err_errno(e, CODE_LOCAL, err, "cannot open directory %s (%s)", dest, access);
}

int store_open(struct store **ret, const char *dest, bool create, struct err *e)
{
	struct store *s = calloc(1, sizeof(*s));
	mode_t mask;

	if (!s)
		return err_oom(e);
	s->dest_fd = s->top_fd = s->partial_fd = s->lock_fd = -1;
	s->pub.tree_fd = s->pub.ledger_fd = -1;
	s->create = create;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->twins, NULL);
	s->dest = strdup(dest);
	s->dest_fd = s->dest ? sys_open_dir(dest, create ? 0755 : 0) : -1;
	dirs_init(&s->dirs, s->dest_fd);
	if (s->dest_fd < 0) {
		if (!s->dest)
			err_oom(e);
		else if (errno == ENOENT && !create)
			err_set(e, CODE_NOT_FOUND, "there is no directory %s", dest);
		else
			fail_dest(dest, e);
		store_close(s);
		return -1;
	}
	/* A file another thread makes meanwhile gets less, not more. */
	mask = umask(077);
	umask(mask);
	s->umask = mask;
	look_at_fs(s);
	if (open_top(s, e) < 0) {
		store_close(s);
		return -1;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	publication_release(s);
	known_forget(s);
	dirs_release(&s->dirs);
	cleanup_close_fn(&s->partial_fd);
	cleanup_close_fn(&s->top_fd);
	cleanup_close_fn(&s->dest_fd);
	cleanup_close_fn(&s->lock_fd);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->twins);
	free(s->dest);
	free(s);
}

int store_dirfd(const struct store *s)
{
	return s->dest_fd;
}

int store_partial_dirfd(const struct store *s)
{
	return s->partial_fd;
}

/* --- lock --- */

/* 1 = ours, 0 = somebody else's, -1 errno. */
static int try_lock(int fd)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 1;
	if (errno == EACCES || errno == EAGAIN)
		return 0;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 1;
	return errno == EWOULDBLOCK ? 0 : -1;
}

/* "pid 12 on host X since T", from what the holder wrote; hostile text, cut. */
static void describe_holder(const struct store *s, char *ret, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT(4096);
	struct str host = { "?", 1 }, since = { "?", 1 };
	struct json_doc doc;
	uint64_t pid = 0;

	snprintf(ret, n, "another process");
	if (sys_read_file(s->top_fd, LOCK_FILE, &b) < 0 ||
	    json_parse(buf_cstr(&b), b.len, LOCK_FILE, &doc, NULL) < 0)
		return;
	json_u64(doc.root, "pid", &pid);
	json_str(doc.root, "hostname", &host);
	json_str(doc.root, "since", &since);
	if (pid)
		snprintf(ret, n, "pid %llu on host %.*s since %.*s", (unsigned long long)pid,
			 (int)MIN(host.n, (size_t)64), host.p, (int)MIN(since.n, (size_t)32),
			 since.p);
	json_release(&doc);
}

/* Only for messages: a full disk must not keep anybody from cleaning up. */
static void write_holder(int fd)
{
	_cleanup_buf_ struct buf b = BUF_INIT(4096);
	char host[65] = "", since[32];

	gethostname(host, sizeof(host) - 1);
	sys_timestamp(since);
	buf_addf(&b, "{\"pid\":%lld,\"hostname\":", (long long)getpid());
	json_add_string(&b, host, strlen(host));
	buf_addf(&b, ",\"since\":\"%s\"}\n", since);
	/* another node reads what the server has */
	if (!b.failed && ftruncate(fd, 0) == 0 && sys_pwrite_full(fd, b.data, b.len, 0) == 0 &&
	    memory_is_network_fs(fd))
		fdatasync(fd);
}

/*
 * NFS remembers names that were not there: who waited for the lock would not see the marker of who had it. Opening a
 * directory again is what makes it ask.
 */
static void look_afresh(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
}

/* Was the locked file replaced or removed meanwhile? Then the lock means nothing. */
static bool lock_current(const struct store *s, int fd)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 &&
	       fstatat(s->top_fd, LOCK_FILE, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

/* 1 = *ret_fd is locked, 0 = somebody else's, -1. */
static int lock_once(struct store *s, int *ret_fd, struct err *e)
{
	for (int i = 0; i < LOCK_TRIES; i++) {
		_cleanup_close_ int fd = sys_open_beneath(s->top_fd, LOCK_FILE, O_RDWR | O_CREAT |
							  O_NONBLOCK | O_NOCTTY, 0644);
		int rc;

		if (fd < 0)
			return store_fail(s, e, "open", TOP_DIR "/" LOCK_FILE);
		rc = try_lock(fd);
		if (rc < 0)
			return store_fail(s, e, "lock", TOP_DIR "/" LOCK_FILE);
		if (rc == 0)
			return 0;
		if (lock_current(s, fd)) {
			*ret_fd = steal_fd(&fd);
			return 1;
		}
	}
	return err_set(e, CODE_LOCAL, "%s/" TOP_DIR "/" LOCK_FILE " is replaced again and again",
		       s->dest);
}

static int open_partial(struct store *s, struct err *e)
{
	const char *path = TOP_DIR "/" PARTIAL_DIR;
	struct stat st;

	s->partial_fd = store_subdir(s, PARTIAL_DIR, 0700);
	if (s->partial_fd < 0 || fstat(s->partial_fd, &st) < 0)
		return store_fail(s, e, "open", path);
	/* Unverified bytes are nobody else's to read; a foreign owner's directory stays as it is. */
	if ((st.st_mode & 07777) != 0700 && st.st_uid == geteuid())
		fchmod(s->partial_fd, 0700);
	return 0;
}

static int lock_wait(unsigned ms, const atomic_int *stop, struct err *e)
{
	for (;;) {
		unsigned slice = MIN(ms, (unsigned)STOP_CHECK_MS);
		int code = stop ? atomic_load(stop) : 0;

		if (code)
			return err_set(e, (enum code)code, "stopped while waiting for the lock");
		if (!ms)
			return 0;
		sys_sleep_ms(slice);
		ms -= slice;
	}
}

int store_lock(struct store *s, uint64_t timeout_ms, const atomic_int *stop,
	       void (*waiting)(void *arg, const char *holder), void *arg, struct err *e)
{
	uint64_t start = sys_now_ms(), poll = POLL_MIN_MS;
	char holder[160];
	int fd = -1;

	if (s->lock_fd >= 0)
		return 0;
	if (open_top(s, e) < 0)
		return -1;
	if (s->top_fd < 0)
		return err_set(e, CODE_NOT_FOUND, "%s holds nothing of fetcher", s->dest);
	for (;;) {
		uint64_t waited = sys_now_ms() - start;
		int rc = lock_once(s, &fd, e);

		if (rc < 0)
			return -1;
		if (rc > 0)
			break;
		describe_holder(s, holder, sizeof(holder));
		if (waited >= timeout_ms)
			return err_set(e, CODE_LOCKED, "%s is locked by %s", s->dest, holder);
		if (waiting)
			waiting(arg, holder);
		waiting = NULL;
		poll = MIN(poll, timeout_ms - waited);
		if (lock_wait((unsigned)poll, stop, e) < 0)
			return -1;
		poll = MIN(poll * 2, (uint64_t)POLL_MAX_MS);
	}
	write_holder(fd);
	look_afresh(s->dest_fd);
	look_afresh(s->top_fd);
	s->lock_fd = fd;
	if (open_partial(s, e) == 0)
		return 0;
	cleanup_close_fn(&s->partial_fd);
	cleanup_close_fn(&s->lock_fd);
	return -1;
}

/* --- reading --- */

int store_read_marker(struct store *s, struct store_marker *ret, struct err *e)
{
	if (open_top(s, e) < 0)
		return -1;
	if (s->top_fd < 0)
		return 0;
	return marker_read(s->top_fd, MARKER_FILE, ret, e);
}

int store_read_meta(struct store *s, const char *version, struct store_meta *ret, struct err *e)
{
	_cleanup_close_ int fd = -1;

	if (!store_version_ok(version))
		return 0;
	if (open_top(s, e) < 0)
		return -1;
	fd = store_subdir(s, META_DIR, 0);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return store_fail(s, e, "open", TOP_DIR "/" META_DIR);
	return meta_read(fd, version, true, ret, e);
}

/* Root of the published tree as its own descriptor, or -1 errno. */
static int open_published(const struct store *s, const struct store_marker *m)
{
	_cleanup_buf_ struct buf path = BUF_INIT(2 * VERSION_MAX);

	if (strcmp(m->path, CURRENT_LINK))
		return openat(s->dest_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (buf_addf(&path, CURRENT_PREFIX "%s", m->version) < 0)
		return errno = ENAMETOOLONG, -1;
	return sys_open_beneath(s->dest_fd, path.data, O_RDONLY | O_DIRECTORY, 0);
}

/* "no", with a reason. */
#define SAY_NO(...) (err_set(e, CODE_INTEGRITY, __VA_ARGS__), 0)

/* Is st what f was, whatever is in it? */
static bool same_kind(const struct store_file *f, const struct stat *st)
{
	return f->kind == LAYOUT_SYMLINK ? S_ISLNK(st->st_mode)
	     : f->kind == LAYOUT_DIR ? S_ISDIR(st->st_mode) : S_ISREG(st->st_mode);
}

static const char *kind_name(const struct store_file *f)
{
	return f->kind == LAYOUT_SYMLINK ? "a symbolic link"
	     : f->kind == LAYOUT_DIR ? "a directory" : "a regular file";
}

static int check_file(const struct store *s, struct dirs *dirs, const struct store_file *f,
		      struct err *e)
{
	_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
	struct stat st;
	int rc = dirs_get(dirs, f->path, 0, &dir) < 0 ? -1
		 : store_same_at(s, f, dir.fd, dir.leaf, &st);

	if (rc == 1)
		return 1;
	if (rc < 0 && (errno == EACCES || errno == EIO || errno == ESTALE || errno == EMFILE))
		return store_fail(s, e, "look at", f->path);
	if (rc < 0)
		return SAY_NO("%s is missing", f->path);
	if (!same_kind(f, &st))
		return SAY_NO("%s is not %s any more", f->path, kind_name(f));
	if (f->kind == LAYOUT_FILE && (uint64_t)st.st_size != f->size)
		return SAY_NO("%s has %lld bytes instead of %llu", f->path,
			      (long long)st.st_size, (unsigned long long)f->size);
	return SAY_NO("%s was changed since it was published", f->path);
}

static int check_files(const struct store *s, const struct store_meta *meta, int root,
		       struct err *e)
{
	struct dirs dirs;
	int rc = 1;

	dirs_init(&dirs, root);
	for (size_t i = 0; i < meta->n_files && rc == 1; i++)
		rc = check_file(s, &dirs, &meta->files[i], e);
	dirs_release(&dirs);
	return rc;
}

static bool newer(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

/*
 * Between the swap and the marker, and after a crash there, `current` names the next version already. It is complete,
 * and its meta was written after the marker that stands; the meta of an older one, to which somebody set the link by
 * hand, was stamped before the marker was written that replaced it.
 */
static bool swapped_since(struct store *s)
{
	_cleanup_close_ int meta_fd = store_subdir(s, META_DIR, 0), versions_fd = store_subdir(s, VERSIONS_DIR, 0);
	char version[VERSION_MAX], name[VERSION_MAX + sizeof(META_SUFFIX)];
	struct store_marker now = { 0 };
	struct stat marker, meta, dir;
	bool same;

	if (meta_fd < 0 || versions_fd < 0 || store_current(s, version) != 1 ||
	    fstatat(s->top_fd, MARKER_FILE, &marker, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fstatat(versions_fd, version, &dir, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(dir.st_mode))
		return false;
	snprintf(name, sizeof(name), "%s" META_SUFFIX, version);
	if (fstatat(meta_fd, name, &meta, AT_SYMLINK_NOFOLLOW) == 0 && newer(&meta.st_mtim, &marker.st_mtim))
		return true;
	/* or the marker has come meanwhile */
	same = marker_read(s->top_fd, MARKER_FILE, &now, NULL) == 1 && strcmp(now.version, version) == 0;
	store_marker_release(&now);
	return same;
}

int store_check(struct store *s, const struct store_marker *m, const struct store_meta *meta,
		bool quick, struct err *e)
{
	_cleanup_close_ int root = -1;
	bool flat = strcmp(m->path, CURRENT_LINK) != 0;
	char version[VERSION_MAX];

	if (!flat && (store_current(s, version) != 1 || strcmp(version, m->version))) {
		if (quick && swapped_since(s))
			return 1;
		return SAY_NO(CURRENT_LINK " does not point to the version of the ready marker");
	}
	root = open_published(s, m);
	if (root < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
		return store_fail(s, e, "open", m->path);
	if (root < 0)
		return SAY_NO("the version of the ready marker is missing");
	if (quick)
		return 1;
	if (!digest_equal(&m->digest, &meta->digest) || meta->n_files != m->files ||
	    meta->layout != (flat ? STORE_FLAT : STORE_VERSIONS))
		return SAY_NO("the ready marker and " TOP_DIR "/" META_DIR " disagree");
	if (!meta->trusted)
		return SAY_NO("the files were written without fsync before the machine restarted");
	return check_files(s, meta, root, e);
}

/* --- lease --- */

int store_lease(struct store *s, const struct store_marker *m, bool keep_on_exec)
{
	if (strcmp(m->path, CURRENT_LINK))
		return errno = ENOTSUP, -1;
	for (int i = 0; i < LEASE_TRIES; i++) {
		_cleanup_close_ int fd = open_published(s, m), again = -1;
		struct stat a, b;

		if (fd < 0)
			return -1;
		if (flock(fd, LOCK_SH | LOCK_NB) < 0) {
			if (errno != EWOULDBLOCK)
				return -1;
			sys_sleep_ms(LEASE_POLL_MS);
			continue;
		}
		/* gc may have moved it away between the two calls. */
		again = open_published(s, m);
		if (again < 0 || fstat(fd, &a) < 0 || fstat(again, &b) < 0)
			return -1;
		if (a.st_ino != b.st_ino || a.st_dev != b.st_dev)
			continue;
		if (keep_on_exec && fcntl(fd, F_SETFD, 0) < 0)
			return -1;
		return steal_fd(&fd);
	}
	return errno = EWOULDBLOCK, -1;
}

/* --- verify --- */

/* A link or a directory: NULL = right, else what is wrong. */
static const char *verify_node(const struct dirs_ref *dir, const struct store_file *f)
{
	struct stat st;

	if (fstatat(dir->fd, dir->leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? "missing" : "cannot be opened";
	if (!same_kind(f, &st))
		return f->kind == LAYOUT_DIR ? "not a directory" : "not a symbolic link";
	return f->kind == LAYOUT_DIR || store_link_is(dir->fd, dir->leaf, f) ? NULL
									    : "wrong target";
}

/* NULL = right, else what is wrong. */
static const char *verify_file(struct dirs *dirs, const struct store_file *f)
{
	_cleanup_dirs_ref_ struct dirs_ref dir = { .slot = DIRS_OWN, .fd = -1 };
	_cleanup_close_ int fd = -1;
	struct digest computed;
	struct stat st;

	if (dirs_get(dirs, f->path, 0, &dir) < 0)
		return errno == ENOENT ? "missing" : "cannot be opened";
	if (f->kind != LAYOUT_FILE)
		return verify_node(&dir, f);
	fd = sys_open_beneath(dir.fd, dir.leaf, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0 || fstat(fd, &st) < 0)
		return errno == ENOENT ? "missing" : errno == ELOOP ? "a symbolic link"
								    : "cannot be opened";
	if (!S_ISREG(st.st_mode))
		return "not a regular file";
	if ((uint64_t)st.st_size != f->size)
		return "wrong size";
	if (store_hash_fd(fd, f->digest.alg, f->size, &computed) < 0)
		return "cannot be read";
	return digest_equal(&f->digest, &computed) ? NULL : "wrong content";
}

static int read_published(struct store *s, struct store_marker *m, struct store_meta *meta,
			  struct err *e)
{
	int rc = store_read_marker(s, m, e);

	if (rc < 0)
		return -1;
	if (rc == 0)
		return err_set(e, CODE_NOT_FOUND, "%s holds no published version", s->dest);
	rc = store_read_meta(s, m->version, meta, e);
	if (rc == 0)
		err_set(e, CODE_INTEGRITY, "%s/" TOP_DIR "/" META_DIR "/%s" META_SUFFIX
			" is missing or damaged; pull again", s->dest, m->version);
	if (rc == 1)
		return 0;
	store_marker_release(m);
	return -1;
}

int store_verify(struct store *s, void (*bad)(void *arg, const char *path, const char *why),
		 void *arg, uint64_t *ret_files, uint64_t *ret_bytes, struct err *e)
{
	_cleanup_close_ int root = -1;
	uint64_t files = 0, bytes = 0, wrong = 0;
	struct store_marker m;
	struct store_meta meta;
	struct dirs dirs;

	if (read_published(s, &m, &meta, e) < 0)
		return -1;
	root = open_published(s, &m);
	dirs_init(&dirs, root);
	for (size_t i = 0; i < meta.n_files; i++) {
		const char *why = root < 0 ? "missing" : verify_file(&dirs, &meta.files[i]);

		if (why && bad)
			bad(arg, meta.files[i].path, why);
		wrong += why != NULL;
		files++;
		bytes += meta.files[i].size;
	}
	dirs_release(&dirs);
	store_marker_release(&m);
	store_meta_release(&meta);
	if (wrong)
		return err_set(e, CODE_INTEGRITY, "%llu of %llu files below %s are not what was "
			       "published; pull again to repair", (unsigned long long)wrong,
			       (unsigned long long)files, s->dest);
	*ret_files = files;
	*ret_bytes = bytes;
	return 0;
}
