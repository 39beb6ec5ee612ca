// SPDX-License-Identifier: Apache-2.0
/*
 * Files and time. Row 0; calls buf, log. Everything that touches a path on the volume goes through
 * here: confined opens, full reads and writes, durable renames, preallocation.
 */
#ifndef FETCHER_SYS_H
#define FETCHER_SYS_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "buf.h"
#include "log.h"

/* Closes once, keeps errno, sets the variable to -1; close() is never retried on EINTR. */
void cleanup_close_fn(int *fd);
#define _cleanup_close_ __attribute__((cleanup(cleanup_close_fn)))
static inline int steal_fd(int *fd) { int v = *fd; *fd = -1; return v; }
/* Closes a written file: -1 with errno when the file system reports a late error. */
int sys_close(int *fd);

/*
 * Opens `path` (relative) below dirfd; no component may be a symlink, "..", or leave the tree.
 * openat2(RESOLVE_BENEATH|NO_SYMLINKS|NO_MAGICLINKS), and where the kernel or a seccomp
 * filter refuses it (ENOSYS, EPERM, EINVAL on an unknown flag) a component walk with O_NOFOLLOW.
 * O_CLOEXEC is added. Returns the descriptor, or -1 with errno set: ELOOP a symlink on the way,
 * EXDEV an absolute path or "..".
 */
int sys_open_beneath(int dirfd, const char *path, int flags, mode_t mode);
/* Test hook: true forces the component walk. */
extern bool sys_no_openat2;
/*
 * Creates missing directories of `path`'s parent below dirfd (mode, before umask; 0 = creates
 * nothing) and returns an O_RDONLY|O_DIRECTORY descriptor of the parent directory; *ret_leaf
 * points at the last component inside path. -1 with errno as above.
 */
int sys_open_parent(int dirfd, const char *path, mode_t mode, const char **ret_leaf);
/*
 * mkdir -p of an ordinary (not confined) path, as for DEST itself; mode 0 creates nothing.
 * Returns an O_RDONLY|O_DIRECTORY descriptor, -1 errno.
 */
int sys_open_dir(const char *path, mode_t mode);

/* Full transfer; EINTR and short counts are handled; 0 written = ENOSPC; 0 read = end. */
int sys_pwrite_full(int fd, const void *p, size_t n, uint64_t off);	/* 0, or -1 errno */
int sys_write_full(int fd, const void *p, size_t n);	/* where there are no offsets: 0, or -1 errno */
/* Bytes read, fewer than n only at the end of the file; -1 errno. */
ssize_t sys_pread_full(int fd, void *p, size_t n, uint64_t off);
/*
 * Whole file into ret, which is cleared first (its max binds: EFBIG). Regular files only (EINVAL).
 * AT_FDCWD or an absolute path: an ordinary open that follows links. Else confined below dirfd.
 */
int sys_read_file(int dirfd, const char *path, struct buf *ret);
/*
 * Replaces dirfd/name (one component) by the bytes: unique temporary name, write, [fsync,]
 * rename, [fsync of dirfd]. A failure leaves the old content and no temporary.
 */
int sys_replace_file(int dirfd, const char *name, const void *p, size_t n, mode_t mode, bool sync);
/* Names of temporaries, ".tmp-" and 16 hex digits; nobody else's files look like that. */
#define SYS_TEMP_NAME 32
void sys_temp_name(char ret[static SYS_TEMP_NAME]);
bool sys_is_temp_name(const char *name);
/* fsync of a directory; file systems that know no such thing (EINVAL, ENOTSUP) count as done. */
int sys_sync_dir(int fd);
/* Files of this file system live in memory: tmpfs and its kin. */
bool sys_is_memory_fs(int fd);
/*
 * Reserves size bytes and makes the file at least that long (it is never cut). ENOSPC and EFBIG
 * are errors; file systems without fallocate get ftruncate.
 */
int sys_preallocate(int fd, uint64_t size);
/* Bytes an unprivileged writer can still use on the file system of fd. */
int sys_free_bytes(int fd, uint64_t *ret);
/*
 * Content of from_fd (exactly size bytes, else EIO) into the empty to_fd: reflink,
 * copy_file_range, read/write; first that works.
 */
int sys_copy(int from_fd, int to_fd, uint64_t size);
/* Removes a tree or file below dirfd without following symlinks. ENOENT is success. */
int sys_remove_tree(int dirfd, const char *name);

uint64_t sys_now_us(void);		/* CLOCK_MONOTONIC */
uint64_t sys_now_ms(void);		/* CLOCK_MONOTONIC */
/* "2026-01-02T03:04:05Z" of the wall clock. */
void sys_timestamp(char ret[static 32]);
/* /proc/sys/kernel/random/boot_id, "" when unreadable. */
void sys_boot_id(char ret[static 40]);
/* Test hook: what sys_boot_id says instead, NULL = the truth. */
extern const char *sys_boot_id_override;
uint64_t sys_random64(void);		/* getrandom */
/* CPUs this process may use: affinity mask and cgroup v1/v2 quota (rounded up), at least 1. */
unsigned sys_cpus(void);
/* "uid 1000, gid 1000; DIR is owned by 0:0, mode 0755" for messages of code 40. Truncates. */
void sys_describe_access(int dirfd, const char *path, char *ret, size_t n);
void sys_sleep_ms(unsigned ms);

#endif
